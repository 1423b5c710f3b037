"""An ASGI application that tells of its loop, and keeps it busy if it is asked to."""

import asyncio
import time
from typing import Any

from loop.application import Receive, Send

busy: set[asyncio.Task[None]] = set()


async def app(scope: Any, receive: Receive, send: Send) -> None:
    """Answers `/name` with what the function `name` below returns."""
    if scope["type"] == "lifespan":
        raise RuntimeError("it has none")
    body = (await globals()[scope["path"][1:]]()).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def kind() -> str:
    """Where the class of the loop is defined, and what waits for it."""
    loop = asyncio.get_running_loop()
    return f"{type(loop).__module__}.{type(loop).__name__} {type(getattr(loop, '_selector', None))}"


async def spin() -> str:
    """Keeps the loop busy from here on."""

    async def forever() -> None:
        while True:  # noqa: ASYNC110 - it is to be busy
            await asyncio.sleep(0)

    busy.add(asyncio.create_task(forever()))
    return "spins"


async def heartbeat() -> str:
    """The longest time between two beats of 5 ms, in a second of them."""
    longest, last, end = 0.0, time.monotonic(), time.monotonic() + 1
    while last < end:
        await asyncio.sleep(0.005)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return str(longest)


async def echo_later() -> str:
    """Answers outside of the call that brought the request."""
    await asyncio.sleep(0.01)
    return "later"
