"""What the ASGI servers serve: one callable for each case, without a router in between."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

FILE = Path(os.environ["BENCH_FILE"])
TEXT = (b"content-type", b"text/plain")
FILE_HEADERS = [TEXT, (b"content-length", b"51200")]
POOL_SIZE = 16
ROUND_TRIPS = 3


def plain(body: bytes) -> Application:
    """Answers every request with `body`."""
    headers = [TEXT, (b"content-length", str(len(body)).encode())]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        check(scope)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def check(scope: Scope) -> None:
    """There is no lifespan here, which servers accept."""
    if scope["type"] != "http":
        raise ValueError(f"{scope['type']} is not served here")


hello = plain(b"Hello, world!")
plain_10 = plain(b"x" * 10)
plain_1k = plain(b"x" * 1024)
plain_10k = plain(b"x" * 10 * 1024)
plain_100k = plain(b"x" * 100 * 1024)


async def answer(send: Send, body: bytes) -> None:
    """A whole answer."""
    headers = [TEXT, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the body of the request."""
    check(scope)
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await answer(send, body)


def read_file() -> bytes:
    """All of the file."""
    return FILE.read_bytes()


async def file(scope: Scope, receive: Receive, send: Send) -> None:
    """A file of 50 KB: by its path where the server has that, else read and sent."""
    check(scope)
    if "http.response.pathsend" not in (scope.get("extensions") or {}):
        await answer(send, read_file())
        return
    await send({"type": "http.response.start", "status": 200, "headers": FILE_HEADERS})
    await send({"type": "http.response.pathsend", "path": str(FILE)})


def waiting(seconds: float) -> Application:
    """Answers after a while, as an application that waits for something else."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        check(scope)
        await asyncio.sleep(seconds)
        await answer(send, b"Hello, world!")

    return app


wait_10ms = waiting(0.010)
wait_100ms = waiting(0.100)


async def websocket_echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends each message back."""
    if scope["type"] != "websocket":
        await hello(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": message["bytes"]})


listeners: set[Send] = set()


async def websocket_broadcast(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends each message to all. The greeting tells a client that it is counted in."""
    if scope["type"] != "websocket":
        await hello(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    listeners.add(send)
    await send({"type": "websocket.send", "bytes": b"welcome"})
    try:
        while (message := await receive())["type"] == "websocket.receive":
            event = {"type": "websocket.send", "bytes": message["bytes"]}
            for listener in tuple(listeners):
                await listener(event)
    finally:
        listeners.discard(send)


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Database:
    """A client of the line protocol of `backend.py`, with a pool, through asyncio's streams."""

    def __init__(self) -> None:
        self._free: list[Connection] = []
        self._slots = asyncio.Semaphore(POOL_SIZE)

    async def get(self, keys: list[bytes]) -> list[bytes]:
        """The values of these keys, one round trip for each."""
        async with self._slots:
            reader, writer = self._free.pop() if self._free else await self._connect()
            values = []
            for key in keys:
                writer.write(b"GET " + key + b"\n")
                values.append(await reader.readline())
            self._free.append((reader, writer))
            return values

    async def _connect(self) -> Connection:
        host, port = os.environ["BACKEND"].split(":")
        return await asyncio.open_connection(host, int(port))


database_client = Database()


async def database(scope: Scope, receive: Receive, send: Send) -> None:
    """Three round trips to a database for each request."""
    check(scope)
    keys = [b"key-%d" % number for number in range(ROUND_TRIPS)]
    await answer(send, b"".join(await database_client.get(keys)))
