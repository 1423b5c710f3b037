"""The application that the harness serves: the smallest whole ASGI answer."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

HEADERS = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"13")]


async def app(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Answers every HTTP request; has no lifespan, which servers accept."""
    if scope["type"] != "http":
        raise ValueError(f"{scope['type']} is not served here")
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"Hello, world!"})
