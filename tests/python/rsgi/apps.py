"""The RSGI applications that the tests serve. `app` finds a handler by the first part of the path.

What a test has to know of the inside is printed as a line `note: ...` on stdout, so that it can
wait for it.
"""

import asyncio
import contextvars
import hashlib
import os
import random
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from granian_uring.rsgi import Headers, HTTPProtocol, ProtocolClosed, ProtocolError, Scope

Handler = Callable[[Scope, HTTPProtocol], Awaitable[None]]

HANDLERS: dict[str, Handler] = {}
MIB = 1024 * 1024
FILE = os.environ.get("RSGI_TEST_FILE", "")
GATE = asyncio.Event()
KEPT: list[Any] = []
MARK: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="clean")


def handler(function: Handler) -> Handler:
    """Serves `/name` and everything below."""
    HANDLERS[function.__name__] = function
    return function


def note(text: str) -> None:
    """Tells the test."""
    print(f"note: {text}", flush=True)


def query(scope: Scope) -> dict[str, str]:
    """The query string's values, the last of each name."""
    return {name: values[-1] for name, values in parse_qs(scope.query_string).items()}


def case(scope: Scope) -> str:
    """The last part of the path."""
    return scope.path.rpartition("/")[2]


def pattern(length: int) -> bytes:
    """Bytes that a test can check: no part of them is like another."""
    return random.Random(length).randbytes(length)


def app(scope: Scope, protocol: HTTPProtocol) -> Awaitable[None]:
    """The application of most tests; a plain callable that returns the awaitable."""
    return HANDLERS[scope.path.strip("/").split("/")[0]](scope, protocol)


@handler
async def hello(scope: Scope, protocol: HTTPProtocol) -> None:
    """Says hello."""
    protocol.response_str(200, [("content-type", "text/plain")], "hello")


@handler
async def scope(scope: Scope, protocol: HTTPProtocol) -> None:
    """Shows the scope as Python's source."""
    names = [name for name in dir(scope) if not name.startswith("_")]
    found = {name: getattr(scope, name) for name in names}
    headers = found["headers"]
    assert isinstance(headers, Headers) and isinstance(headers, Mapping)
    found["headers"] = headers.items()
    protocol.response_str(200, [], repr(found))


@handler
async def headers(scope: Scope, protocol: HTTPProtocol) -> None:
    """Asks the mapping of headers everything."""
    h = scope.headers
    found = {
        "keys": h.keys(),
        "values": h.values(),
        "iterated": list(h),
        "dict": dict(h),
        "length": len(h),
        "get": [h.get("X-Twice"), h.get("nothing"), h.get("nothing", 3)],
        "all": [h.get_all("x-twice"), h.get_all("nothing")],
        "in": ["X-TWICE" in h, "nothing" in h],
        "item": h["x-LATIN"],
    }
    try:
        h["nothing"]
    except KeyError as error:
        found["missing"] = error.args
    try:
        h["x-new"] = "1"  # type: ignore[index]
    except TypeError:
        found["immutable"] = True
    protocol.response_str(200, [], repr(found))


@handler
async def task(scope: Scope, protocol: HTTPProtocol) -> None:
    """Whether the request runs in a task and a context of its own."""
    current = asyncio.current_task()
    assert current is not None and current.get_loop() is asyncio.get_running_loop()
    before = MARK.get()
    MARK.set("dirty")
    await asyncio.sleep(0)
    assert asyncio.current_task() is current
    protocol.response_str(200, [], f"{current.get_name()} {before}")


# Answers.


@handler
async def kinds(scope: Scope, protocol: HTTPProtocol) -> None:
    """Every kind of answer that has nothing to wait for."""
    sent: Any = {
        "empty": lambda: protocol.response_empty(201, [("x-kind", "empty")]),
        "empty-defaults": lambda: protocol.response_empty(),
        "bytes": lambda: protocol.response_bytes(202, [("x-kind", "bytes")], b"\0bytes"),
        "memoryview": lambda: protocol.response_bytes(
            200,
            [],
            memoryview(b"array"),  # type: ignore[arg-type]
        ),
        "bytes-defaults": lambda: protocol.response_bytes(),
        "str": lambda: protocol.response_str(203, [("x-kind", "str")], "žluťoučký"),
        "str-large": lambda: protocol.response_str(200, [], "ž" * MIB),
        "str-defaults": lambda: protocol.response_str(),
        "named": lambda: protocol.response_str(status=200, headers=[], body="named"),
        "not-found": lambda: protocol.response_empty(404, []),
        "large": lambda: protocol.response_bytes(200, [], pattern(8 * MIB)),
    }[case(scope)]()
    assert sent is None


@handler
async def status(scope: Scope, protocol: HTTPProtocol) -> None:
    """An answer with a body, whatever the status."""
    protocol.response_bytes(int(case(scope)), [], b"body")


@handler
async def own_headers(scope: Scope, protocol: HTTPProtocol) -> None:
    """Headers as lists, from an iterator, and not ASCII."""
    pairs: Any = iter([("X-Latin", "é"), ["set-cookie", "a=1"], ("set-cookie", "b=2")])
    protocol.response_bytes(200, pairs, b"")


REFUSED: dict[str, Callable[[HTTPProtocol], Any]] = {
    "status-text": lambda p: p.response_empty("200", []),  # type: ignore[arg-type]
    "status-99": lambda p: p.response_empty(99, []),
    "status-101": lambda p: p.response_empty(101, []),
    "header-bytes": lambda p: p.response_empty(200, [(b"a", b"b")]),  # type: ignore[list-item]
    "header-number": lambda p: p.response_empty(200, [("a", 1)]),  # type: ignore[list-item]
    "header-single": lambda p: p.response_empty(200, ["ab"]),  # type: ignore[list-item]
    "header-triple": lambda p: p.response_empty(
        200,
        [("a", "b", "c")],  # type: ignore[list-item]
    ),
    "headers-number": lambda p: p.response_empty(200, 3),  # type: ignore[arg-type]
    "header-unicode": lambda p: p.response_empty(200, [("a", "ž")]),
    "header-inject": lambda p: p.response_empty(200, [("a", "b\r\nevil: 1")]),
    "name-inject": lambda p: p.response_empty(200, [("a: b\r\nevil", "1")]),
    "body-str": lambda p: p.response_bytes(200, [], "text"),  # type: ignore[arg-type]
    "body-int": lambda p: p.response_bytes(200, [], 3),  # type: ignore[arg-type]
    "body-bytes": lambda p: p.response_str(200, [], b"bytes"),  # type: ignore[arg-type]
    "body-surrogate": lambda p: p.response_str(200, [], "\ud800"),
    "too-long": lambda p: p.response_bytes(200, [("content-length", "1")], b"two"),
    "too-short": lambda p: p.response_bytes(200, [("content-length", "9")], b"two"),
    "file-number": lambda p: p.response_file(200, [], 3),  # type: ignore[arg-type]
    "range-empty": lambda p: p.response_file_range(200, [], FILE, 5, 5),
    "range-negative": lambda p: p.response_file_range(200, [], FILE, -1, 5),
    "file-status": lambda p: p.response_file(1000, [], FILE),
}


@handler
async def refused(scope: Scope, protocol: HTTPProtocol) -> None:
    """Tries an answer that is none, and tells in a right one what came of it."""
    try:
        REFUSED[case(scope)](protocol)
    except Exception as error:
        protocol.response_str(
            200, [("content-length", "1")] * 0, f"{type(error).__name__}: {error}"
        )


@handler
async def twice(scope: Scope, protocol: HTTPProtocol) -> None:
    """Answers again and again, after a whole answer or within a stream."""
    if "stream" in query(scope):
        transport = protocol.response_stream(200, [])
        await transport.send_str("first ")
    else:
        transport = None
        protocol.response_str(200, [], "first")
    protocol.response_empty(500)
    protocol.response_bytes(500, [], b"second")
    protocol.response_str(500, [], "second")
    protocol.response_file(500, [], FILE)
    protocol.response_file_range(500, [], FILE, 1, 2)
    try:
        protocol.response_stream(500)
    except ProtocolError as error:
        note(f"again: {error}")
    if transport is not None:
        await transport.send_str("last")


@handler
async def file(scope: Scope, protocol: HTTPProtocol) -> None:
    """A file, or a part of it; with a Content-Length of its own if there is to be one."""
    asked = query(scope)
    pairs = [("content-length", asked["length"])] if "length" in asked else []
    path = asked.get("path", FILE)
    if "start" in asked:
        start, end = int(asked["start"]), int(asked["end"])
        protocol.response_file_range(206, pairs, path, start, end)
    else:
        protocol.response_file(200, pairs, path)
    if "raise" in asked:
        raise RuntimeError("after the file")
    if "work" in asked:
        await GATE.wait()
        GATE.clear()
        note("worked")


@handler
async def gate(scope: Scope, protocol: HTTPProtocol) -> None:
    """Opens the gate."""
    GATE.set()
    protocol.response_empty()


# Bodies.


@handler
async def echo(scope: Scope, protocol: HTTPProtocol) -> None:
    """The body, whole."""
    protocol.response_bytes(200, [], await protocol())


@handler
async def checksum(scope: Scope, protocol: HTTPProtocol) -> None:
    """Reads in pieces, `pause` seconds after each of the first 20."""
    pause, count = float(query(scope).get("pause", 0)), 0
    digest, length, largest = hashlib.sha256(), 0, 0
    async for piece in protocol:
        assert piece
        digest.update(piece)
        length, largest, count = length + len(piece), max(largest, len(piece)), count + 1
        if pause and count <= 20:
            await asyncio.sleep(pause)
    assert [piece async for piece in Again(protocol)] == []
    protocol.response_str(200, [], f"{length} {digest.hexdigest()} {largest <= 128 * 1024}")


class Again:
    """Goes on with the pieces of a protocol that was iterated before."""

    def __init__(self, protocol: HTTPProtocol) -> None:
        self._protocol = protocol

    def __aiter__(self) -> "Again":
        return self

    async def __anext__(self) -> bytes:
        return await self._protocol.__anext__()


@handler
async def pieces(scope: Scope, protocol: HTTPProtocol) -> None:
    """Sends every piece back as it comes."""
    transport = protocol.response_stream(200, [])
    async for piece in protocol:
        note(f"piece {piece!r}")
        await transport.send_bytes(piece)


@handler
async def body_twice(scope: Scope, protocol: HTTPProtocol) -> None:
    """Asks for the body in both ways, twice."""
    if case(scope) == "pieces":
        async for _ in protocol:
            pass
    else:
        await protocol()
    found = []
    for ask in (protocol, protocol.__aiter__):
        try:
            ask()
        except ProtocolError as error:
            found.append(str(error))
    protocol.response_str(200, [], repr(found))


@handler
async def with_timeout(scope: Scope, protocol: HTTPProtocol) -> None:
    """Waits for the body as Emmett does, in vain, and then for the rest of it."""
    try:
        await asyncio.wait_for(protocol(), 0.05)
    except TimeoutError:
        protocol.response_empty(408)


@handler
async def read_late(scope: Scope, protocol: HTTPProtocol) -> None:
    """Answers, then asks for the body."""
    protocol.response_empty()
    try:
        await protocol()
    except ProtocolClosed as error:
        note(f"late: {error}")


@handler
async def read_until_gone(scope: Scope, protocol: HTTPProtocol) -> None:
    """Reads a body whose client leaves; the exception is left to the server."""
    note("reading")
    try:
        if case(scope) == "pieces":
            async for _ in protocol:
                pass
        else:
            await protocol()
    except ProtocolClosed:
        note("closed")
        raise


# Streams.


@handler
async def stream(scope: Scope, protocol: HTTPProtocol) -> None:
    """Sends pieces of both kinds, empty ones too."""
    transport = protocol.response_stream(200, [("x-kind", "stream")])
    for number in range(int(query(scope).get("count", 3))):
        await transport.send_str(f"pieče {number}\n")
        await transport.send_bytes(b"")
        await asyncio.create_task(transport.send_bytes(b"-"))
    if case(scope) == "kept":
        KEPT.append(transport)
    if case(scope) == "dropped":
        del transport
        await GATE.wait()
        GATE.clear()
        note("worked")


@handler
async def stream_refused(scope: Scope, protocol: HTTPProtocol) -> None:
    """Sends what cannot be sent, and goes on."""
    transport = protocol.response_stream()
    wrong: list[Any] = ["text", 3, None]
    for value in wrong:
        try:
            await transport.send_bytes(value)
        except TypeError as error:
            await transport.send_str(f"{error}\n")
    try:
        await transport.send_str(b"bytes")  # type: ignore[arg-type]
    except TypeError as error:
        await transport.send_str(f"{error}\n")


@handler
async def stream_after(scope: Scope, protocol: HTTPProtocol) -> None:
    """Uses the transport that the request before left behind."""
    try:
        await KEPT.pop().send_str("late")
    except ProtocolClosed as error:
        protocol.response_str(200, [], str(error))


@handler
async def stream_short(scope: Scope, protocol: HTTPProtocol) -> None:
    """Promises more than it sends."""
    transport = protocol.response_stream(200, [("content-length", "100")])
    if case(scope) == "part":
        await transport.send_bytes(b"a part")


@handler
async def endless(scope: Scope, protocol: HTTPProtocol) -> None:
    """Sends `size` MiB in pieces of 64 KiB, and notes where it had to wait."""
    total, data = int(query(scope)["size"]) * MIB, pattern(65536)
    transport = protocol.response_stream(200, [])
    for begin in range(0, total, len(data)):
        sending = asyncio.ensure_future(transport.send_bytes(data))
        done, _ = await asyncio.wait([sending], timeout=0.3)
        if not done:
            note(f"send waits at {begin}")
        await sending


@handler
async def until_gone(scope: Scope, protocol: HTTPProtocol) -> None:
    """Streams until the client has gone; the exception is left to the server."""
    transport = protocol.response_stream(200, [])
    note("streaming")
    try:
        while True:
            await transport.send_bytes(bytes(65536))
            await asyncio.sleep(0)
    except ProtocolClosed:
        note("closed")
        raise


@handler
async def disconnect(scope: Scope, protocol: HTTPProtocol) -> None:
    """Waits until the client has gone, as a long poll does; with `read`, behind the body."""
    if case(scope) == "read":
        await protocol()
    note("waiting")
    await protocol.client_disconnect()
    note("gone")
    await protocol.client_disconnect()
    protocol.response_str(200, [], "to nobody")
    note("answered")


@handler
async def watch(scope: Scope, protocol: HTTPProtocol) -> None:
    """Watches for the client's going beside its work, as Emmett does, and reads the body late."""
    watching = asyncio.create_task(protocol.client_disconnect())
    await asyncio.sleep(0)
    note("watching")
    await GATE.wait()
    GATE.clear()
    assert not watching.done()
    body = await protocol()
    assert not watching.done()
    protocol.response_bytes(200, [], body)
    await watching
    note("released")


# Faults.


@handler
async def fault(scope: Scope, protocol: HTTPProtocol) -> None:
    """Raises, at the stage that the path names."""
    stage = case(scope)
    if stage == "nothing":
        return
    if stage == "before":
        raise RuntimeError("before the start")
    if stage == "cancelled":
        raise asyncio.CancelledError
    if stage == "after":
        protocol.response_str(200, [], "whole")
        raise RuntimeError("after the end")
    transport = protocol.response_stream(200, [])
    if stage == "during":
        await transport.send_str("a part")
    raise RuntimeError("during the stream")


@handler
async def exits(scope: Scope, protocol: HTTPProtocol) -> None:
    """Calls sys.exit."""
    sys.exit(7)


@handler
async def never(scope: Scope, protocol: HTTPProtocol) -> None:
    """Never answers; notes that it was cancelled."""
    note("never: waiting")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        note("never: cancelled")
        raise


@handler
async def finish(scope: Scope, protocol: HTTPProtocol) -> None:
    """Calls what is the server's to call: only this request suffers."""
    for _ in range(3):
        protocol.finish()


# Applications with hooks.


class Hooked:
    """Notes its hooks and serves with `__rsgi__`; it speaks ASGI too, in vain."""

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        assert not loop.is_running()
        note(f"init {loop.run_until_complete(asyncio.sleep(0, 'awaited'))}")

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        assert not loop.is_running()
        note(f"del {loop.run_until_complete(asyncio.sleep(0, 'awaited'))}")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("called as ASGI")

    async def __rsgi__(self, scope: Scope, protocol: HTTPProtocol) -> None:
        if case(scope) == "slow":
            note("began")
            await asyncio.sleep(0.3)
        protocol.response_str(200, [], "hooked")


class FailsToStart(Hooked):
    """Fails in `__rsgi_init__`."""

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        raise RuntimeError("no database")


class Exits(Hooked):
    """Calls sys.exit in `__rsgi_init__`."""

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        sys.exit(9)


class FailsToStop(Hooked):
    """Fails in `__rsgi_del__`."""

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        raise RuntimeError("cannot close")


class Waits(Hooked):
    """Is told to stop while it starts."""

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        note("starting")
        # The loop runs until the signal was seen.
        loop.run_until_complete(asyncio.sleep(0.5))


hooked, fails_to_start, exits_at_start = Hooked(), FailsToStart(), Exits()
fails_to_stop, waits = FailsToStop(), Waits()
