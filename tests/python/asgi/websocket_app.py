"""The application of the WebSocket tests: a handler for each first part of the path.

What a test has to know of the inside is printed as a line `note: ...`, as in `apps`.
"""

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable
from typing import Any

from asgi.apps import GATES, Receive, Scope, Send, answer, note, query

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]

HANDLERS: dict[str, Handler] = {}


def handler(function: Handler) -> Handler:
    """Serves `/name` and everything below."""
    HANDLERS[function.__name__] = function
    return function


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """WebSockets by their path; HTTP shows what the process holds, and opens gates."""
    if scope["type"] == "lifespan":
        scope["state"]["shared"] = "from the lifespan"
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    name = scope["path"].strip("/").split("/")[0]
    if scope["type"] == "websocket":
        await HANDLERS[name](scope, receive, send)
    elif name == "open":
        GATES.setdefault(query(scope)["key"], asyncio.Event()).set()
        await answer(send, "open")
    else:
        gc.collect()
        held = [one for one in gc.get_objects() if type(one) is dict and "subprotocols" in one]
        tasks = sum(task.get_name() == "request" for task in asyncio.all_tasks())
        await answer(send, json.dumps({"websockets": len(held), "requests": tasks}))


async def accept(receive: Receive, send: Send, **options: Any) -> None:
    """Accepts."""
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", **options})


async def text(send: Send, data: str) -> None:
    """Sends a text."""
    await send({"type": "websocket.send", "text": data})


async def tell_end(receive: Receive, send: Send) -> None:
    """Notes the disconnect, that it is told again, and what a send says then."""
    while (message := await receive())["type"] == "websocket.receive":
        note(f"message {message.get('text')!r}")
    assert message["type"] == "websocket.disconnect" and message == await receive()
    note(f"disconnect {message['code']} {message['reason']!r}")
    for kind in ("websocket.send", "websocket.close"):
        try:
            await send({"type": kind, "text": "too late"})
        except Exception as error:
            note(f"{kind}: {type(error).__name__} {isinstance(error, OSError)} {error}")


@handler
async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends back what comes."""
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        assert len(message) == 2
        message["type"] = "websocket.send"
        await send(message)
    note(f"echo ended {message['code']} {message['reason']!r}")


@handler
async def scope(scope: Scope, receive: Receive, send: Send) -> None:
    """Shows the scope as Python's source."""
    await accept(receive, send)
    await text(send, repr(scope))
    await receive()


@handler
async def choose(scope: Scope, receive: Receive, send: Send) -> None:
    """Accepts with the last subprotocol that is offered, and headers."""
    headers = [(b"x-one", b"1"), (b"set-cookie", b"a=b"), (b"set-cookie", b"c=d")]
    await accept(receive, send, subprotocol=scope["subprotocols"][-1], headers=headers)
    await text(send, "accepted")
    await receive()


@handler
async def deny(scope: Scope, receive: Receive, send: Send) -> None:
    """Does not accept, in the way that the path says."""
    assert (await receive())["type"] == "websocket.connect"
    match scope["path"].removeprefix("/deny/"):
        case "close":
            await send({"type": "websocket.close", "code": 4000, "reason": "dropped"})
        case "response":
            headers = [(b"content-type", b"text/plain"), (b"www-authenticate", b"Basic")]
            start = {"type": "websocket.http.response.start", "status": 401, "headers": headers}
            body = {"type": "websocket.http.response.body", "body": b"who ", "more_body": True}
            await send(start)
            await send(body)
            await send({"type": "websocket.http.response.body", "body": b"are you?"})
        case "half":
            await send({"type": "websocket.http.response.start", "status": 401})
            body = {"type": "websocket.http.response.body", "body": b"who ", "more_body": True}
            await send(body)
            raise RuntimeError("within the denial")
        case "raise":
            raise RuntimeError("before the accept")
        case "return":
            return
    note(f"told {await receive()}")


@handler
async def leave(scope: Scope, receive: Receive, send: Send) -> None:
    """Accepts, and ends in the way that the path says."""
    await accept(receive, send)
    await text(send, "before the end")
    match scope["path"].removeprefix("/leave/"):
        case "raise":
            raise RuntimeError("after the accept")
        case "cancelled":
            raise asyncio.CancelledError
        case "close":
            values = {k: int(v) if v.isdigit() else v for k, v in query(scope).items()}
            await send({"type": "websocket.close", **values})
            note(f"told {await receive()}")
        case "raise-after-close":
            await send({"type": "websocket.close"})
            raise RuntimeError("after the close")


ACCEPT = {"type": "websocket.accept"}
SEND = {"type": "websocket.send", "text": "x"}
CLOSE = {"type": "websocket.close"}
START = {"type": "websocket.http.response.start", "status": 400}
BODY = {"type": "websocket.http.response.body", "body": b"no", "more_body": True}

# Messages in order; the last one is refused.
REFUSED: dict[str, list[Any]] = {
    "send-before-accept": [SEND],
    "body-before-start": [BODY],
    "accept-twice": [ACCEPT, ACCEPT],
    "deny-after-accept": [ACCEPT, START],
    "accept-after-denial": [START, ACCEPT],
    "send-after-denial": [START, BODY, SEND],
    "start-twice": [START, START],
    "send-after-close": [ACCEPT, CLOSE, SEND],
    "close-after-close": [ACCEPT, CLOSE, CLOSE],
    "accept-after-close": [CLOSE, ACCEPT],
    "nothing-to-send": [ACCEPT, {"type": "websocket.send"}],
    "none-to-send": [ACCEPT, {"type": "websocket.send", "text": None, "bytes": None}],
    "bytes-as-text": [ACCEPT, {"type": "websocket.send", "text": b"x"}],
    "text-as-bytes": [ACCEPT, {"type": "websocket.send", "bytes": "x"}],
    "surrogate": [ACCEPT, {"type": "websocket.send", "text": "\ud800"}],
    "code-1005": [ACCEPT, {"type": "websocket.close", "code": 1005}],
    "code-70000": [ACCEPT, {"type": "websocket.close", "code": 70000}],
    "code-text": [ACCEPT, {"type": "websocket.close", "code": "1000"}],
    "long-reason": [ACCEPT, {"type": "websocket.close", "reason": "x" * 124}],
    "not-offered": [{"type": "websocket.accept", "subprotocol": "c"}],
    "subprotocol-bytes": [{"type": "websocket.accept", "subprotocol": b"a"}],
    "reserved-header": [
        {"type": "websocket.accept", "headers": [(b"sec-websocket-accept", b"mine")]}
    ],
    "injection": [{"type": "websocket.accept", "headers": [(b"x", b"a\r\nb: c")]}],
    "status-101": [{"type": "websocket.http.response.start", "status": 101}],
    "unknown-type": [{"type": "http.response.start", "status": 200}],
    "no-type": [{}],
    "not-a-dict": ["websocket.accept"],
}


def goes_on(case: str) -> bool:
    """Whether the WebSocket is open in spite of the message that was refused, or can be."""
    before = REFUSED[case][:-1]
    return CLOSE not in before and START not in before


@handler
async def refused(scope: Scope, receive: Receive, send: Send) -> None:
    """Notes what the last of some messages is refused with; then goes on as if it had not been."""
    case = scope["path"].removeprefix("/refused/")
    await receive()
    *before, last = REFUSED[case]
    for message in before:
        await send(message)
    try:
        await send(last)
        note(f"{case}: taken")
    except Exception as error:
        note(f"{case}: {type(error).__name__}: {error}")
    if not before:
        await send(ACCEPT)
    if goes_on(case):
        await text(send, "goes on")
        await receive()


@handler
async def wait(scope: Scope, receive: Receive, send: Send) -> None:
    """Accepts, and waits for the end."""
    await accept(receive, send)
    note("waiting")
    await tell_end(receive, send)
    await asyncio.sleep(0.05)
    note("cleaned up")


@handler
async def unaccepted(scope: Scope, receive: Receive, send: Send) -> None:
    """Waits without accepting; then tries to."""
    assert (await receive())["type"] == "websocket.connect"
    note("undecided")
    message = await receive()
    note(f"disconnect {message['code']}")
    try:
        await send(ACCEPT)
    except OSError as error:
        note(f"accept: {type(error).__name__}")
        raise


@handler
async def hang(scope: Scope, receive: Receive, send: Send) -> None:
    """Accepts, and never comes back by itself."""
    await accept(receive, send)
    note("hanging")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        note("cancelled")
        raise


@handler
async def push(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends 64 KiB messages up to 1 GiB; notes where it had to wait, and how it ended."""
    await accept(receive, send)
    data, told = bytes(65536), False
    for count in range(16 * 1024):
        try:
            # A client that has gone is told by the call, or by what it returns.
            waiting = asyncio.ensure_future(send({"type": "websocket.send", "bytes": data}))
            done, _ = await asyncio.wait([waiting], timeout=None if told else 0.5)
            if not done:
                told = True
                note(f"waits after {count}")
            await waiting
        except OSError as error:
            note(f"push ended: {type(error).__name__}")
            raise


@handler
async def gated(scope: Scope, receive: Receive, send: Send) -> None:
    """Accepts, and takes nothing before its gate is open; then counts."""
    await accept(receive, send)
    gate = GATES.setdefault(query(scope)["key"], asyncio.Event())
    note("gated")
    await gate.wait()
    messages = length = 0
    while (message := await receive())["type"] == "websocket.receive":
        messages += 1
        length += len(message["bytes"])
    note(f"took {messages} messages, {length} bytes")


@handler
async def both(scope: Scope, receive: Receive, send: Send) -> None:
    """One task receives while another closes."""
    await accept(receive, send)
    receiver = asyncio.ensure_future(receive())
    await asyncio.sleep(0)
    await send({"type": "websocket.close", "code": 4001, "reason": "enough"})
    note(f"receiver: {await receiver}")
