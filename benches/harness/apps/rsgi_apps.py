"""What the RSGI servers serve: the same as `asgi_apps.py`, in the words of RSGI 1.6.

Types of RSGI are a server's own, and these run on two, so there are none here.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

FILE = os.environ["BENCH_FILE"]
TEXT = [("content-type", "text/plain")]
BYTES = 1
Application = Callable[[Any, Any], Awaitable[None]]


def plain(body: bytes) -> Application:
    """Answers every request with `body`."""
    headers = [*TEXT, ("content-length", str(len(body)))]

    async def app(scope: Any, protocol: Any) -> None:
        protocol.response_bytes(200, headers, body)

    return app


hello = plain(b"Hello, world!")


async def echo(scope: Any, protocol: Any) -> None:
    """Answers with the body of the request."""
    protocol.response_bytes(200, TEXT, await protocol())


async def file(scope: Any, protocol: Any) -> None:
    """A file of 50 KB."""
    protocol.response_file(200, TEXT, FILE)


async def websocket_echo(scope: Any, protocol: Any) -> None:
    """Sends each message back."""
    if scope.proto != "ws":
        await hello(scope, protocol)
        return
    transport = await protocol.accept()
    while (message := await transport.receive()).kind == BYTES:
        await transport.send_bytes(message.data)


listeners: set[Any] = set()


async def websocket_broadcast(scope: Any, protocol: Any) -> None:
    """Sends each message to all. The greeting tells a client that it is counted in."""
    if scope.proto != "ws":
        await hello(scope, protocol)
        return
    transport = await protocol.accept()
    listeners.add(transport)
    await transport.send_bytes(b"welcome")
    try:
        while (message := await transport.receive()).kind == BYTES:
            for listener in tuple(listeners):
                await listener.send_bytes(message.data)
    finally:
        listeners.discard(transport)
