"""An application that answers with ASGI's extensions. The path says which."""

import json
from pathlib import Path
from typing import Any, BinaryIO

from asgi.apps import Receive, Scope, Send, answer, body, query, read_all, start


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Every test's application."""
    if scope["type"] == "lifespan":
        raise RuntimeError("not here")
    await HANDLERS[scope["path"]](scope, receive, send)


def opened(path: str) -> BinaryIO:
    """A file, open for reading."""
    return Path(path).open("rb")


async def offered(scope: Scope, receive: Receive, send: Send) -> None:
    """Shows the extensions of the scope, and spoils its own copy."""
    text = json.dumps(scope["extensions"])
    scope["extensions"]["spoilt"] = {}
    await answer(send, text)


async def path_send(scope: Scope, receive: Receive, send: Send) -> None:
    """A file by its path; `length` is declared, `header` is a header more."""
    asked = query(scope)
    headers = [(b"etag", b'"one"')]
    if "length" in asked:
        headers.append((b"content-length", asked["length"].encode()))
    if "header" in asked:
        name, value = asked["header"].split(":")
        headers.append((name.encode(), value.encode()))
    await start(send, int(asked.get("status", "200")), *headers)
    await send({"type": "http.response.pathsend", "path": asked["path"]})


async def zero_copy(scope: Scope, receive: Receive, send: Send) -> None:
    """Parts of an open file, which is closed at once, with bytes between them."""
    asked = query(scope)
    await start(send)
    with opened(asked["path"]) as file:
        file.seek(3)
        message: dict[str, Any] = {"type": "http.response.zerocopysend", "file": file}
        await send(message | {"offset": 1, "count": 4, "more_body": True})
        await body(send, b"<between>", more=True)
        await send(message | {"more_body": True})
        assert file.tell() == 3
        await send(message | {"offset": int(asked.get("offset", "0")), "count": 2})


async def endless_copy(scope: Scope, receive: Receive, send: Send) -> None:
    """A file again and again, until its client has gone."""
    await start(send)
    with opened(query(scope)["path"]) as file:
        while True:
            await send({"type": "http.response.zerocopysend", "file": file, "more_body": True})


async def trailers(scope: Scope, receive: Receive, send: Send) -> None:
    """A body and its trailers, which come in two messages."""
    message = {"type": "http.response.start", "status": 200, "headers": [], "trailers": True}
    await send(message)
    await body(send, b"hello ", more=True)
    await body(send, b"world")
    kind = "http.response.trailers"
    await send({"type": kind, "headers": [(b"x-sum", b"1")], "more_trailers": True})
    await send({"type": kind, "headers": [(b"x-end", b"2")]})


async def trailers_missing(scope: Scope, receive: Receive, send: Send) -> None:
    """Announces trailers and sends none."""
    message = {"type": "http.response.start", "status": 200, "headers": [], "trailers": True}
    await send(message)
    await body(send, b"hello")


async def trailers_unannounced(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends trailers although it announced none."""
    await start(send)
    await send({"type": "http.response.trailers", "headers": []})


async def early_hints(scope: Scope, receive: Receive, send: Send) -> None:
    """Hints, then waits for the body of the request, then answers."""
    links = [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]
    await send({"type": "http.response.early_hint", "links": links})
    await answer(send, (await read_all(receive)) or b"nothing")


async def debug(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends what only tests look at."""
    await send({"type": "http.response.debug", "info": {"template": "x"}})
    await answer(send, "hello")


HANDLERS = {
    "/offered": offered,
    "/path": path_send,
    "/zero-copy": zero_copy,
    "/endless-copy": endless_copy,
    "/trailers": trailers,
    "/trailers-missing": trailers_missing,
    "/trailers-unannounced": trailers_unannounced,
    "/early-hints": early_hints,
    "/debug": debug,
}
