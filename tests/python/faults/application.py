"""The application under attack: that of `asgi/apps.py`, with four handlers more.

Nothing in it fails because a client does: whatever the log says of it is the server's fault.
"""

import asyncio
import contextlib
import gc
import json
from typing import Any

from asgi.apps import (
    MIB,
    Receive,
    Scope,
    Send,
    answer,
    app,
    body,
    handler,
    live_exchanges,
    query,
    start,
)

__all__ = ["app"]

PIECE = bytes(64 * 1024)


@handler
async def flood(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends `size` MiB, at the pace of the client."""
    length = int(query(scope)["size"]) * MIB
    await start(send, 200, (b"content-length", str(length).encode()))
    with contextlib.suppress(OSError):
        for _ in range(length // len(PIECE)):
            await body(send, PIECE, more=True)
        await body(send)


@handler
async def page(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends 8 KiB at once. The server copies so few, and what it holds for a client adds up."""
    await answer(send, PIECE[: 8 * 1024])


@handler
async def sink(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body, keeps none of it, and tells how long it was."""
    length = 0
    while (message := await receive())["type"] == "http.request":
        length += len(message["body"])
        if not message["more_body"]:
            return await answer(send, str(length))


@handler
async def holdings(scope: Scope, receive: Receive, send: Send) -> None:
    """What the process holds, this request and its connection included."""
    gc.collect()
    await answer(
        send,
        json.dumps(
            {
                **dict(zip(("connections", "queued", "running"), census(), strict=True)),
                "tasks": len(asyncio.all_tasks()),
                "exchanges": live_exchanges(),
            }
        ),
    )


def census() -> tuple[int, int, int]:
    """The server's own counts. The worker is whose method the loop calls for its selector."""
    selector: Any = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    counts: tuple[int, int, int] = selector.select.__self__.census
    return counts
