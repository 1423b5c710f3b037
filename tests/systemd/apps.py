"""The applications that the systemd tests serve: plain ASGI, nothing but the standard library.

`app` answers the load. The others behave badly, or wait, in their lifespan. Where a test must know
that the application has reached a point, or must hold it there, the application connects to the
test's gate (the address in `GATE`) and waits until the test closes that connection: no test and no
application sleeps to guess.
"""

import asyncio
import hashlib
import json
import os
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Step = Callable[[], Awaitable[None]]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers the load's requests; its lifespan does nothing."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send, startup=nothing, shutdown=nothing)
    else:
        await serve(scope, receive, send)


async def gated_startup(scope: Scope, receive: Receive, send: Send) -> None:
    """`app`, whose startup waits at the gate."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send, startup=gate, shutdown=nothing)
    else:
        await serve(scope, receive, send)


async def gated_shutdown(scope: Scope, receive: Receive, send: Send) -> None:
    """`app`, whose shutdown waits at the gate."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send, startup=nothing, shutdown=gate)
    else:
        await serve(scope, receive, send)


async def failing_startup(scope: Scope, receive: Receive, send: Send) -> None:
    """An application whose startup raises."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send, startup=open_the_database, shutdown=nothing)


async def lingering_thread(scope: Scope, receive: Receive, send: Send) -> None:
    """`app`, with a thread that the interpreter would wait for at exit, and that never ends."""
    if scope["type"] == "lifespan":
        forever = threading.Event()
        await lifespan(receive, send, startup=lambda: start_thread(forever.wait), shutdown=nothing)
    else:
        await serve(scope, receive, send)


async def lifespan(receive: Receive, send: Send, *, startup: Step, shutdown: Step) -> None:
    """The lifespan protocol of ASGI; an exception of `startup` leaves as it is."""
    await receive()
    await startup()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await shutdown()
    await send({"type": "lifespan.shutdown.complete"})


async def nothing() -> None:
    """A step that does nothing."""


async def gate() -> None:
    """Tells the test that we are here, and waits until it lets us go on."""
    host, port = os.environ["GATE"].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await reader.read()
    writer.close()


async def open_the_database() -> None:
    """A startup step that fails."""
    raise RuntimeError("the database is not there")


async def start_thread(target: Callable[[], object]) -> None:
    """Starts a thread that is not a daemon."""
    threading.Thread(target=target).start()


async def serve(scope: Scope, receive: Receive, send: Send) -> None:
    """One request. The first line of each answer says who answered whom."""
    query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
    found = {
        "id": query.get("id", ""),
        "pid": os.getpid(),
        "generation": os.environ.get("GENERATION", ""),
    }
    match scope["path"]:
        case "/echo":
            await answer(send, found)
        case "/chunked":
            await answer_in_pieces(send, found)
        case "/slow":
            await asyncio.sleep(float(query["seconds"]))
            await answer(send, found)
        case "/upload":
            await answer(send, {**found, "sha256": await checksum(receive)})
        case "/block":
            block_the_loop()
            await answer(send, found)
        case "/gate":
            await gate()
            await answer(send, found)
        case path:
            await answer(send, {"unknown": path}, status=404)


async def answer(send: Send, found: dict[str, Any], *, status: int = 200) -> None:
    """An answer with a Content-Length."""
    body = json.dumps(found).encode() + b"\n"
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def answer_in_pieces(send: Send, found: dict[str, Any]) -> None:
    """An answer of unknown length, so chunked, with pauses between its pieces."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    pieces = [json.dumps(found) + "\n"] + [f"{found['id']} {n}\n" for n in range(5)]
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece.encode(), "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body"})


async def checksum(receive: Receive) -> str:
    """The SHA-256 of the request's body."""
    digest = hashlib.sha256()
    more = True
    while more:
        message = await receive()
        digest.update(message.get("body", b""))
        more = message["type"] == "http.request" and message.get("more_body", False)
    return digest.hexdigest()


def block_the_loop() -> None:
    """Waits at the gate without letting the loop run, as an application must not.

    The stack dump of the watchdog must name this function.
    """
    host, port = os.environ["GATE"].split(":")
    with socket.create_connection((host, int(port))) as waiting:
        waiting.recv(1)
