"""The applications that the tests serve. `app` finds a handler by the first part of the path.

What a test has to know of the inside is printed as a line `note: ...` on stdout, so that it can
wait for it.
"""

import asyncio
import gc
import hashlib
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Any], Awaitable[None]]
Handler = Callable[[Scope, Receive, Send], Awaitable[None]]

HANDLERS: dict[str, Handler] = {}
GATES: dict[str, asyncio.Event] = {}
MIB = 1024 * 1024


def handler(function: Handler) -> Handler:
    """Serves `/name` and everything below."""
    HANDLERS[function.__name__] = function
    return function


def note(text: str) -> None:
    """Tells the test."""
    print(f"note: {text}", flush=True)


def query(scope: Scope) -> dict[str, str]:
    """The query string's values, the last of each name."""
    return {name: values[-1] for name, values in parse_qs(scope["query_string"].decode()).items()}


async def start(send: Send, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
    """Starts a response."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def body(send: Send, data: Any = b"", more: bool = False) -> None:
    """Sends a piece of the body."""
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def answer(send: Send, text: str | bytes, status: int = 200) -> None:
    """Sends a whole response with a length."""
    data = text.encode() if isinstance(text, str) else text
    await start(send, status, (b"content-length", str(len(data)).encode()))
    await body(send, data)


async def read_all(receive: Receive) -> bytes | None:
    """The whole body of a request; None if the client left."""
    pieces = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        pieces.append(message["body"])
        if not message["more_body"]:
            return b"".join(pieces)


def pattern(length: int) -> bytes:
    """Bytes that a test can check: no part of them is like another."""
    return random.Random(length).randbytes(length)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The application of most tests."""
    if scope["type"] == "lifespan":
        scope["state"]["shared"] = ["from the lifespan"]
        scope["state"]["number"] = 1
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    name = scope["path"].removeprefix(scope["root_path"]).strip("/").split("/")[0]
    await HANDLERS.get(name, hello)(scope, receive, send)


@handler
async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Says hello."""
    await answer(send, "hello")


@handler
async def scope(scope: Scope, receive: Receive, send: Send) -> None:
    """Shows the scope as Python's source, and changes its own copy."""
    text = repr(scope)
    if "state" in scope:
        scope["state"]["number"] = 2
        scope["state"]["mine"] = True
        scope["asgi"]["version"] = "changed"
    await answer(send, text)


@handler
async def inside(scope: Scope, receive: Receive, send: Send) -> None:
    """What the process holds: tasks, exchanges, threads."""
    gc.collect()
    kinds = [type(one).__name__ for one in gc.get_objects()]
    await answer(
        send,
        json.dumps(
            {
                "tasks": len(asyncio.all_tasks()),
                "requests": sum(t.get_name() == "request" for t in asyncio.all_tasks()),
                "coroutines": kinds.count("coroutine"),
                "exchanges": live_exchanges(),
                "threads": threading.active_count(),
            }
        ),
    )


def live_exchanges() -> int:
    """How many scopes of requests are alive: each request has one, and its exchange lives as long.

    An exchange itself is not seen by the collector (it holds nothing that could be in a cycle).
    """
    return sum(
        type(one) is dict
        and one.get("type") == "http"
        and "raw_path" in one
        and "method" in one
        and one["method"] is not None
        for one in gc.get_objects()
    )


@handler
async def task(scope: Scope, receive: Receive, send: Send) -> None:
    """Whether the request runs in a task of its own, on the loop that runs."""
    current = asyncio.current_task()
    assert current is not None and current.get_loop() is asyncio.get_running_loop()
    await asyncio.sleep(0)
    assert asyncio.current_task() is current
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        other = group.create_task(asyncio.sleep(0, "done"))
    await answer(send, f"{current.get_name()} {other.result()}")


# Request bodies.


@handler
async def checksum(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body, `pause` seconds between its first messages; tells length and SHA-256."""
    pause = float(query(scope).get("pause", 0))
    digest, length, messages, largest = hashlib.sha256(), 0, 0, 0
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        digest.update(message["body"])
        length += len(message["body"])
        largest = max(largest, len(message["body"]))
        messages += 1
        if not message["more_body"]:
            break
        if pause and messages <= 20:
            await asyncio.sleep(pause)
    await answer(
        send,
        json.dumps(
            {
                "length": length,
                "sha256": digest.hexdigest(),
                "messages": messages,
                "largest": largest,
            }
        ),
    )


@handler
async def pieces(scope: Scope, receive: Receive, send: Send) -> None:
    """Notes every message of the body as it comes."""
    while True:
        message = await receive()
        note(f"piece {message.get('body')!r} {message.get('more_body')!r}")
        if not message.get("more_body"):
            break
    await answer(send, "all")


@handler
async def gated(scope: Scope, receive: Receive, send: Send) -> None:
    """Begins only when `/open` was asked with the same `key`; then reads the body and answers."""
    key = query(scope)["key"]
    gate = GATES.setdefault(key, asyncio.Event())
    note(f"gated {key}")
    await gate.wait()
    del GATES[key]
    data = await read_all(receive)
    assert data is not None
    await answer(send, f"{len(data)} {hashlib.sha256(data).hexdigest()}")


@handler
async def open(scope: Scope, receive: Receive, send: Send) -> None:
    """Opens a gate."""
    GATES.setdefault(query(scope)["key"], asyncio.Event()).set()
    await answer(send, "open")


@handler
async def after_end(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body to its end, then once more, and notes what came."""
    assert await read_all(receive) is not None
    note("read to the end")
    message = await receive()
    note(f"after the end: {message}")
    again = await receive()
    note(f"again: {again}")


@handler
async def after_answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers, then receives."""
    await read_all(receive)
    await answer(send, "answered")
    note(f"after the answer: {await receive()}")


@handler
async def mid_body(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads until the client has left."""
    note("reading")
    while (message := await receive())["type"] != "http.disconnect":
        pass
    note(f"left: {message}")


# Responses.


@handler
async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the body and the path."""
    data = await read_all(receive)
    assert data is not None
    await answer(send, scope["path"].encode() + b" " + data)


@handler
async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends `count` pieces, `pause` seconds apart; an empty one among them must not end it."""
    asked = query(scope)
    await start(send)
    for number in range(int(asked.get("count", 3))):
        await body(send, f"piece {number}\n".encode(), more=True)
        await body(send, b"", more=True)
        await asyncio.sleep(float(asked.get("pause", 0)))
    await body(send)


@handler
async def status(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with a status, and a body where one may be."""
    code = int(scope["path"].rpartition("/")[2])
    await start(send, code, *([(b"content-length", b"4")] if code != 204 else []))
    await body(send, b"body")


@handler
async def long_head(scope: Scope, receive: Receive, send: Send) -> None:
    """Has a header of 8 KiB."""
    await start(send, 200, (b"x-long", b"x" * 8192), (b"content-length", b"0"))
    await body(send)


@handler
async def headers(scope: Scope, receive: Receive, send: Send) -> None:
    """Has headers of its own for everything that the server adds."""
    await start(
        send,
        200,
        (b"Date", b"Thu, 01 Jan 1970 00:00:00 GMT"),
        (b"SERVER", b"mine"),
        (b"Connection", b"keep-alive"),
        (b"transfer-encoding", b"chunked"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"X-Latin", "é".encode("latin-1")),
    )
    await body(send, b"own")


@handler
async def closing(scope: Scope, receive: Receive, send: Send) -> None:
    """Wants the connection closed."""
    await start(send, 200, (b"connection", b"close"), (b"content-length", b"4"))
    await body(send, b"last")


@handler
async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """Leaves out what may be left out, and uses other types than lists of tuples of bytes."""
    if scope["path"].endswith("iterable"):
        pairs = (pair for pair in [[b"x-a", b"1"], (bytearray(b"x-b"), memoryview(b"2"))])
        await send({"type": "http.response.start", "status": 200, "headers": pairs})
        await send({"type": "http.response.body", "body": b"iterable"})
    else:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})


@handler
async def big(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends `size` MiB in one message, as bytes, bytearray or memoryview."""
    asked = query(scope)
    data = pattern(int(asked["size"]) * MIB)
    kind = {"bytes": bytes, "bytearray": bytearray, "memoryview": memoryview}[asked["kind"]]
    value: Any = kind(data)
    await start(send, 200, (b"content-length", str(len(data)).encode()))
    await body(send, value)
    if isinstance(value, bytearray):
        # What was sent is sent: changing it now must not show.
        value[:] = bytes(len(value))


@handler
async def endless(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends `size` MiB in pieces of `piece` bytes, and notes where it had to wait."""
    asked = query(scope)
    total, piece = int(asked["size"]) * MIB, int(asked["piece"])
    await start(send)
    for begin in range(0, total, piece):
        data = pattern(piece)
        sending = asyncio.ensure_future(body_coroutine(send, data))
        done, _ = await asyncio.wait([sending], timeout=0.3)
        if not done:
            note(f"send waits at {begin}")
            await sending
    await body(send)


async def body_coroutine(send: Send, data: bytes) -> None:
    """A piece of the body, as a coroutine that can be a task."""
    await body(send, data, more=True)


# The order of messages. What goes wrong is noted with its type, and answered with what it said.


async def caught(send: Send, *messages: Any) -> str:
    """Sends messages until one is refused; returns how."""
    for message in messages:
        try:
            await send(message)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return "nothing was refused"


START: Message = {"type": "http.response.start", "status": 200, "headers": []}
END: Message = {"type": "http.response.body", "body": b"end"}


def with_headers(*pairs: Any) -> Message:
    """A start with these headers."""
    return {**START, "headers": list(pairs)}


# Each is refused by its last message, before a byte was given out.
REFUSED: dict[str, list[Any]] = {
    "start-twice": [START, START],
    "body-before-start": [END],
    "status-99": [{**START, "status": 99}],
    "status-101": [{**START, "status": 101}],
    "status-1000": [{**START, "status": 1000}],
    "status-70000": [{**START, "status": 70000}],
    "status-text": [{**START, "status": "200"}],
    "no-status": [{"type": "http.response.start"}],
    "str-name": [with_headers(("x-name", b"value"))],
    "str-value": [with_headers((b"x-name", "value"))],
    "header-triple": [with_headers((b"a", b"b", b"c"))],
    "header-number": [with_headers((b"a", 1))],
    "inject-value": [with_headers((b"x-name", b"a\r\nset-cookie: evil=1"))],
    "inject-name": [with_headers((b"x-name: a\r\nevil", b"1"))],
    "nul-value": [with_headers((b"x-name", b"a\0b"))],
    "two-lengths": [with_headers((b"content-length", b"1"), (b"content-length", b"1"))],
    "bad-length": [with_headers((b"content-length", b"+1"))],
    "unknown-type": [{"type": "websocket.accept"}],
    "no-type": [{"status": 200}],
    "type-number": [{"type": 1}],
    "not-a-dict": [["http.response.start"]],
    "str-body": [START, {"type": "http.response.body", "body": "text"}],
    "int-body": [START, {"type": "http.response.body", "body": 3}],
    "longer-at-once": [with_headers((b"content-length", b"2")), END],
    "shorter-at-once": [with_headers((b"content-length", b"4")), END],
}


@handler
async def refused(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends messages in a wrong order, then tells in a right answer what came of it."""
    case = scope["path"].rpartition("/")[2]
    messages = REFUSED[case]
    text = await caught(send, *messages)
    note(f"{case}: {text}")
    if len(messages) == 1 or case == "start-twice":
        if len(messages) == 1:
            await start(send)
        await body(send, text.encode())


@handler
async def late(scope: Scope, receive: Receive, send: Send) -> None:
    """Wrong messages after a part of the answer was given out, or all of it."""
    case = scope["path"].rpartition("/")[2]
    piece = {"type": "http.response.body", "body": b"first", "more_body": True}
    if case == "body-after-end":
        text = await caught(send, START, END, END)
    elif case == "start-after-end":
        text = await caught(send, START, END, START)
    elif case == "start-after-body":
        text = await caught(send, START, piece, START)
        await body(send, b" second")
    elif case == "longer":
        text = await caught(send, with_headers((b"content-length", b"8")), piece, piece)
    else:
        text = await caught(send, with_headers((b"content-length", b"8")), piece, END, END)
    note(f"{case}: {text}")


@handler
async def incomplete(scope: Scope, receive: Receive, send: Send) -> None:
    """Returns before its answer is complete."""
    case = scope["path"].rpartition("/")[2]
    if case == "nothing":
        return
    await start(send, 200, *([(b"content-length", b"100")] if case == "length" else []))
    if case != "start":
        await body(send, b"a part", more=True)


# Faults.


class OwnBaseException(BaseException):
    """No `Exception`."""


@handler
async def fault(scope: Scope, receive: Receive, send: Send) -> None:
    """Raises, at the stage that the path names."""
    stage = scope["path"].rpartition("/")[2]
    if stage == "before":
        deeper("before the start")
    if stage == "base":
        raise OwnBaseException("no Exception")
    if stage == "cancelled":
        raise asyncio.CancelledError
    if stage == "group":
        async with asyncio.TaskGroup() as group:
            group.create_task(raising("in a group"))
    length = [(b"content-length", b"100")] if stage == "during-length" else []
    await start(send, 200, *length)
    if stage == "between":
        deeper("between start and body")
    if stage == "after":
        await body(send, b"whole")
        deeper("after the end")
    await body(send, b"a part", more=True)
    deeper("during the body")


def deeper(text: str) -> None:
    """A frame of the application's own."""
    raise RuntimeError(text)


async def raising(text: str) -> None:
    """Raises."""
    raise RuntimeError(text)


@handler
async def exits(scope: Scope, receive: Receive, send: Send) -> None:
    """Calls sys.exit."""
    if query(scope).get("later"):
        await asyncio.sleep(0.05)
    sys.exit(7)


@handler
async def never(scope: Scope, receive: Receive, send: Send) -> None:
    """Never answers; notes that it was cancelled."""
    note("never: waiting")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        note("never: cancelled")
        raise


@handler
async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
    """Never answers, and does not let itself be cancelled."""
    note("stubborn: waiting")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            note("stubborn: not cancelled")


@handler
async def disconnect(scope: Scope, receive: Receive, send: Send) -> None:
    """Waits until the client has left, as a long poll does."""
    note("disconnect: waiting")
    while (message := await receive())["type"] != "http.disconnect":
        pass
    note(f"disconnect: {message}")


@handler
async def raise_when_left(scope: Scope, receive: Receive, send: Send) -> None:
    """Raises when the client has left, and not because of it."""
    note("raise_when_left: waiting")
    await receive()
    deeper("another trouble")


@handler
async def cancel_me(scope: Scope, receive: Receive, send: Send) -> None:
    """Is cancelled from elsewhere."""
    current = asyncio.current_task()
    assert current is not None
    asyncio.get_running_loop().call_later(0.02, current.cancel)
    await asyncio.Event().wait()


@handler
async def cancel_others(scope: Scope, receive: Receive, send: Send) -> None:
    """Cancels every other request, also those that have not had their first step."""
    mine = asyncio.current_task()
    others = [t for t in asyncio.all_tasks() if t is not mine and t.get_name() == "request"]
    for other in others:
        other.cancel()
    await answer(send, f"{len(others)}")


@handler
async def block(scope: Scope, receive: Receive, send: Send) -> None:
    """Blocks the loop, so that what comes meanwhile comes at once after it."""
    note("blocking")
    time.sleep(float(query(scope).get("seconds", 0.2)))  # noqa: ASYNC251 - it is the point
    await answer(send, "blocked")


@handler
async def send_late(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends until it is told that the client has left; `catch` notes how it was told."""
    await start(send)
    try:
        while True:
            await body(send, b"x" * 1000, more=True)
            await asyncio.sleep(0.01)
    except OSError as error:
        note(f"send raised {type(error).__mro__[0].__name__}, an OSError: {error}")
        if not query(scope).get("catch"):
            raise
    finally:
        note("send_late: over")


@handler
async def send_blocked(scope: Scope, receive: Receive, send: Send) -> None:
    """Waits in `send` when the client leaves."""
    await start(send)
    try:
        while True:
            await body(send, b"x" * 65536, more=True)
    except OSError as error:
        note(f"blocked send raised {type(error).__name__}")


@handler
async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers after `seconds`, and notes how many like it ran at once."""
    global running, most
    running += 1
    most = max(most, running)
    note("slow: began")
    await asyncio.sleep(float(query(scope)["seconds"]))
    running -= 1
    await answer(send, f"{most}")


running = 0
most = 0


@handler
async def children(scope: Scope, receive: Receive, send: Send) -> None:
    """The open fds of a child, apart from the one that it reads the list with."""
    look = (
        "import os\nfor fd in range(100):\n try: os.fstat(fd); print(fd, end=' ')\n"
        " except OSError: pass"
    )
    # Not by asyncio: uvloop leaks descriptors of its own into children, where it is asked to.
    child = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-Sc", look], capture_output=True, close_fds=False
    )
    await answer(send, child.stdout.strip())


@handler
async def thread(scope: Scope, receive: Receive, send: Send) -> None:
    """Leaves a thread behind that does not end."""
    threading.Thread(target=time.sleep, args=(60,), name="left-behind").start()
    await answer(send, "left")


@handler
async def receive_twice(scope: Scope, receive: Receive, send: Send) -> None:
    """Receives in a task that is cancelled, as frameworks do to hear of a disconnect."""
    await receive()
    watcher = asyncio.ensure_future(receive_coroutine(receive))
    await asyncio.sleep(0)
    watcher.cancel()
    await asyncio.wait([watcher])
    assert watcher.cancelled()
    await answer(send, "fine")


async def receive_coroutine(receive: Receive) -> Message:
    """`receive` as a coroutine that can be a task."""
    return await receive()


# Lifespans, each an application of its own.


def lifespan(function: Handler) -> Handler:
    """An application with this lifespan, whose requests are those of `app`."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await function(scope, receive, send)
        else:
            await app(scope, receive, send)

    return application


@lifespan
async def ordered(scope: Scope, receive: Receive, send: Send) -> None:
    """Notes every step."""
    note(f"lifespan scope: {scope!r}")
    note(f"received: {await receive()}")
    await asyncio.sleep(0.05)
    note("started")
    await send({"type": "lifespan.startup.complete"})
    note(f"received: {await receive()}")
    await asyncio.sleep(0.05)
    note("stopped")
    await send({"type": "lifespan.shutdown.complete"})


@lifespan
async def unsupported(scope: Scope, receive: Receive, send: Send) -> None:
    """Knows no lifespan."""
    raise AssertionError("only http")


@lifespan
async def returns(scope: Scope, receive: Receive, send: Send) -> None:
    """Ignores the lifespan."""


@lifespan
async def raises_in_startup(scope: Scope, receive: Receive, send: Send) -> None:
    """Takes the startup, then fails."""
    await receive()
    deeper("no database")


@lifespan
async def startup_failed(scope: Scope, receive: Receive, send: Send) -> None:
    """Says that it failed."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database: refused"})


@lifespan
async def startup_hangs(scope: Scope, receive: Receive, send: Send) -> None:
    """Never says that it has started."""
    await receive()
    note("startup hangs")
    await asyncio.Event().wait()


@lifespan
async def startup_stubborn(scope: Scope, receive: Receive, send: Send) -> None:
    """Never says that it has started, and does not let itself be cancelled."""
    await receive()
    note("startup hangs")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            note("startup: not cancelled")


@lifespan
async def wrong_answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with something else."""
    await receive()
    await send({"type": "lifespan.start"})


@lifespan
async def no_dict_answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with no message at all."""
    await receive()
    await send("lifespan.startup.complete")


@lifespan
async def shutdown_failed(scope: Scope, receive: Receive, send: Send) -> None:
    """Fails to stop."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "the cache is not written"})


@lifespan
async def raises_in_shutdown(scope: Scope, receive: Receive, send: Send) -> None:
    """Raises while it stops."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    deeper("in the shutdown")


@lifespan
async def shutdown_hangs(scope: Scope, receive: Receive, send: Send) -> None:
    """Never stops."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    note("shutdown hangs")
    await asyncio.Event().wait()


@lifespan
async def dies_while_serving(scope: Scope, receive: Receive, send: Send) -> None:
    """Its lifespan ends by an exception after startup."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    deeper("while serving")


@lifespan
async def exits_in_startup(scope: Scope, receive: Receive, send: Send) -> None:
    """Calls sys.exit while it starts."""
    await receive()
    sys.exit(9)
