"""The WSGI applications that the tests serve. `app` finds a handler by the first part of the path.

What a test has to know of the inside is printed as a line `note: ...` on stdout, so that it can
wait for it.
"""

import hashlib
import io
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast
from urllib.parse import parse_qs
from wsgiref.validate import validator

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], None]]
Handler = Callable[[Environ, Start], Iterable[bytes]]

HANDLERS: dict[str, Handler] = {}
GATES: dict[str, threading.Event] = {}
MIB = 1024 * 1024
LOCAL = threading.local()
PLAIN = [("Content-Type", "text/plain")]


def handler(function: Handler) -> Handler:
    """Serves `/name` and everything below."""
    HANDLERS[function.__name__] = function
    return function


def note(text: str) -> None:
    """Tells the test."""
    print(f"note: {text}", flush=True)


def query(environ: Environ) -> dict[str, str]:
    """The query string's values, the last of each name."""
    return {name: values[-1] for name, values in parse_qs(environ["QUERY_STRING"]).items()}


def answer(start: Start, text: str | bytes, status: str = "200 OK") -> list[bytes]:
    """A whole answer."""
    start(status, list(PLAIN))
    return [text.encode() if isinstance(text, str) else text]


def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
    name = environ["PATH_INFO"].split("/")[1] or "hello"
    return HANDLERS[name](environ, start_response)


validated: Any = validator(cast(Any, app))


class ByClass:
    """An application as a class: an instance is the iterable."""

    def __init__(self, environ: Environ, start_response: Start) -> None:
        self.start = start_response

    def __iter__(self) -> Iterator[bytes]:
        self.start("200 OK", list(PLAIN))
        yield b"by a class"


class Closing:
    """An iterable that tells when it is closed."""

    def __init__(self, name: str, pieces: Iterable[bytes]) -> None:
        self.name, self.pieces = name, iter(pieces)

    def __iter__(self) -> Iterator[bytes]:
        return self.pieces

    def close(self) -> None:
        note(f"closed {self.name}")


@handler
def hello(environ: Environ, start: Start) -> Iterable[bytes]:
    return answer(start, "Hello, world!")


@handler
def environ(environ: Environ, start: Start) -> Iterable[bytes]:
    shown: Environ = {}
    shown.update((name, value) for name, value in environ.items() if isinstance(value, str | bool))
    shown["version"] = list(environ["wsgi.version"])
    return answer(start, json.dumps(shown))


@handler
def checksum(environ: Environ, start: Start) -> Iterable[bytes]:
    digest, length = hashlib.sha256(), 0
    while piece := environ["wsgi.input"].read(50_000):
        digest.update(piece)
        length += len(piece)
    return answer(start, json.dumps({"length": length, "sha256": digest.hexdigest()}))


@handler
def replay(environ: Environ, start: Start) -> Iterable[bytes]:
    """Reads the body with random calls of a seed; answers with what every call returned."""
    chooser = random.Random(int(query(environ)["seed"]))
    found = run_calls(environ["wsgi.input"], chooser)
    return answer(start, repr(found).encode("latin-1"))


def run_calls(stream: Any, chooser: random.Random) -> list[Any]:
    """What a stream answers to random calls, up to its end and a bit beyond."""
    found: list[Any] = []
    ended = 0
    while ended < 3:
        size = chooser.choice([None, -1, 0, 1, 2, 7, 100, 5000, 70_000])
        match chooser.choice(["read", "read", "readline", "readline", "lines", "next"]):
            case "read":
                if size in (None, -1) and chooser.random() < 0.8:
                    size = 300
                result: Any = stream.read() if size is None else stream.read(size)
            case "readline":
                result = stream.readline() if size is None else stream.readline(size)
            case "lines":
                result = stream.readlines(chooser.choice([1, 50, 1000]))
            case _:
                result = next(iter(stream), b"")
        found.append(result)
        ended += not result and size != 0
    found.append(stream.read())
    return found


@handler
def iterate(environ: Environ, start: Start) -> Iterable[bytes]:
    return answer(start, repr([list(environ["wsgi.input"]), environ["wsgi.input"].readlines()]))


@handler
def echo(environ: Environ, start: Start) -> Iterable[bytes]:
    """Sends back what comes as it comes."""
    start("200 OK", list(PLAIN))
    return iter(lambda: environ["wsgi.input"].read(30_000), b"")


@handler
def whole(environ: Environ, start: Start) -> Iterable[bytes]:
    return answer(start, environ["wsgi.input"].read())


@handler
def unread(environ: Environ, start: Start) -> Iterable[bytes]:
    return answer(start, "not read")


@handler
def late_read(environ: Environ, start: Start) -> Iterable[bytes]:
    """Reads when the test says so."""
    gate(environ)
    return answer(start, environ["wsgi.input"].read())


def gate(environ: Environ) -> None:
    """Tells that it is there, and waits for `/open` with the same name."""
    name = query(environ)["gate"]
    event = GATES.setdefault(name, threading.Event())
    note(f"waits {name}")
    assert event.wait(20)


@handler
def waiting(environ: Environ, start: Start) -> Iterable[bytes]:
    gate(environ)
    return answer(start, threading.current_thread().name)


@handler
def open(environ: Environ, start: Start) -> Iterable[bytes]:
    GATES.setdefault(query(environ)["gate"], threading.Event()).set()
    return answer(start, "opened")


@handler
def cut_upload(environ: Environ, start: Start) -> Iterable[bytes]:
    try:
        while environ["wsgi.input"].read(1000):
            note("read")
    except OSError as error:
        note(f"{type(error).__name__} {error.errno}")
        raise
    return answer(start, "all of it")


@handler
def stream(environ: Environ, start: Start) -> Iterable[bytes]:
    """Pieces, as many and as large as asked for; tells how many were taken, and the close."""
    asked = query(environ)
    pieces, size = int(asked.get("pieces", 3)), int(asked.get("size", 10))
    headers = list(PLAIN)
    if "length" in asked:
        headers.append(("Content-Length", asked["length"]))
    start("200 OK", headers)

    def generate() -> Iterator[bytes]:
        for number in range(pieces):
            if "told" in asked:
                note(f"piece {number}")
            yield b"%d" % (number % 10) * size

    return Closing("stream", generate())


@handler
def sequence(environ: Environ, start: Start) -> Iterable[bytes]:
    """A list or tuple of what the query says: `sizes=1,2,0`."""
    start("200 OK", list(PLAIN))
    asked = query(environ)
    pieces = [b"x" * int(size) for size in asked.get("sizes", "").split(",") if size]
    return tuple(pieces) if "tuple" in asked else pieces


@handler
def gated_pieces(environ: Environ, start: Start) -> Iterable[bytes]:
    """A piece, a wait for the test, another piece."""
    start("200 OK", list(PLAIN))
    yield b"first"
    gate(environ)
    yield b"second"


@handler
def lazy(environ: Environ, start: Start) -> Iterable[bytes]:
    """Calls start_response when it is asked for its first piece, which is empty."""
    start("200 OK", list(PLAIN))
    yield b""
    yield b"lazy"


@handler
def written(environ: Environ, start: Start) -> Iterable[bytes]:
    asked = query(environ)
    headers = list(PLAIN)
    if "length" in asked:
        headers.append(("Content-Length", asked["length"]))
    write = start("200 OK", headers)
    for number in range(int(asked.get("pieces", 2))):
        write(b"w%d" % number * int(asked.get("size", 1)))
        if "told" in asked:
            note(f"written {number}")
    return [b" returned"] if "returned" in asked else []


@handler
def by_file(environ: Environ, start: Start) -> Iterable[bytes]:
    class File(io.BytesIO):
        def close(self) -> None:
            note("closed file")
            super().close()

    start("200 OK", list(PLAIN))
    size = int(query(environ)["size"])
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](File(b"f" * size), 1000)
    return wrapped


@handler
def errors(environ: Environ, start: Start) -> Iterable[bytes]:
    stream = environ["wsgi.errors"]
    stream.write("one line\n")
    stream.writelines(["two ", "parts\n"])
    stream.flush()
    return answer(start, "told")


@handler
def start_with(environ: Environ, start: Start) -> Iterable[bytes]:
    """`start_response` with the JSON of the body as status and headers."""
    status, headers = json.loads(environ["wsgi.input"].read())
    if isinstance(headers, list):
        headers = [tuple(pair) if isinstance(pair, list) else pair for pair in headers]
    start(status, headers)
    return [] if status[:3] in ("204", "304") else [b"ok"]


@handler
def fails(environ: Environ, start: Start) -> Iterable[bytes]:
    """Goes wrong at the point that the query names."""
    match query(environ)["how"]:
        case "before":
            raise ValueError("before start")
        case "after_start":
            start("200 OK", list(PLAIN))
            raise ValueError("after start")
        case "no_start":
            return []
        case "no_start_body":
            return [b"body"]
        case "none":
            start("200 OK", list(PLAIN))
            return None  # type: ignore[return-value]
        case "text":
            start("200 OK", list(PLAIN))
            return ["text"]  # type: ignore[list-item]
        case "text_later":
            start("200 OK", list(PLAIN))
            return Closing("text_later", cast(Any, [b"bytes", "text"]))
        case "first_piece":
            start("200 OK", list(PLAIN))
            return Closing("first_piece", raising([]))
        case "second_piece":
            start("200 OK", list(PLAIN))
            return Closing("second_piece", raising([b"begun"]))
        case "twice":
            start("200 OK", list(PLAIN))
            start("201 Created", list(PLAIN))
        case "short":
            start("200 OK", [("Content-Length", "10")])
            return Closing("short", [b"12345"])
        case "short_list":
            start("200 OK", [("Content-Length", "10")])
            return [b"12345"]
        case "long":
            start("200 OK", [("Content-Length", "3")])
            return Closing("long", [b"12345", b"67"])
        case "long_list":
            start("200 OK", [("Content-Length", "3")])
            return [b"12345"]
        case "close":
            start("200 OK", list(PLAIN))
            return FailingClose([b"whole"])
        case "write_text":
            start("200 OK", list(PLAIN))("text")  # type: ignore[arg-type]
    raise AssertionError("no such way to fail")


class FailingClose(Closing):
    def __init__(self, pieces: Iterable[bytes]) -> None:
        super().__init__("", pieces)

    def close(self) -> None:
        raise ValueError("in close")


def raising(pieces: list[bytes]) -> Iterator[bytes]:
    yield from pieces
    raise ValueError("while iterating")


@handler
def excused(environ: Environ, start: Start) -> Iterable[bytes]:
    """An error page by exc_info: the answer has begun or not."""
    write = start("200 OK", [*PLAIN, ("X-First", "yes")])
    if "begun" in environ["QUERY_STRING"]:
        write(b"begun")
    try:
        raise ValueError("to be excused")
    except ValueError:
        start("503 Sorry", [*PLAIN, ("X-Excused", "yes")], sys.exc_info())
        return [b"excused"]


@handler
def thread(environ: Environ, start: Start) -> Iterable[bytes]:
    """Which thread this is, and what `threading.local` has kept in it."""
    LOCAL.requests = getattr(LOCAL, "requests", 0) + 1
    name = threading.current_thread().name
    return answer(start, json.dumps({"name": name, "requests": LOCAL.requests}))


@handler
def sleep(environ: Environ, start: Start) -> Iterable[bytes]:
    time.sleep(float(query(environ)["seconds"]))
    return answer(start, threading.current_thread().name)


@handler
def spin(environ: Environ, start: Start) -> Iterable[bytes]:
    """Works with the GIL held."""
    end = time.thread_time() + float(query(environ)["seconds"])
    while time.thread_time() < end:
        pass
    return answer(start, "spun")


@handler
def exits(environ: Environ, start: Start) -> Iterable[bytes]:
    sys.exit(7)


@handler
def child(environ: Environ, start: Start) -> Iterable[bytes]:
    done = subprocess.run(["/bin/echo", "from a child"], capture_output=True, check=True)
    return answer(start, done.stdout)


@handler
def forks(environ: Environ, start: Start) -> Iterable[bytes]:
    """The child comes back from the application as well."""
    if os.fork():
        _, status = os.wait()
        return answer(start, f"the child ended with {status}")
    return answer(start, "from the child")
