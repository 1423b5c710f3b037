"""What the WSGI servers serve: the same as `asgi_apps.py`, by PEP 3333."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

FILE = Path(os.environ["BENCH_FILE"])
TEXT = ("Content-Type", "text/plain")
Start = Callable[[str, list[tuple[str, str]]], object]


def hello(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """The smallest whole answer."""
    start("200 OK", [TEXT, ("Content-Length", "13")])
    return [b"Hello, world!"]


def echo(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """Answers with the body of the request."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start("200 OK", [TEXT, ("Content-Length", str(len(body)))])
    return [body]


def file(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """A file of 50 KB: by the server's file_wrapper where there is one, else read and sent."""
    start("200 OK", [TEXT, ("Content-Length", "51200")])
    if "wsgi.file_wrapper" not in environ:
        return [FILE.read_bytes()]
    sent: Iterable[bytes] = environ["wsgi.file_wrapper"](FILE.open("rb"))
    return sent
