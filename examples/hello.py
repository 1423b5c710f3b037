"""A plain ASGI application: answers every request with one line.

granian-uring examples.hello:app
"""

from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """ASGI 3, without lifespan."""
    if scope["type"] != "http":
        raise NotImplementedError(f"this application does not speak {scope['type']}")
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello, world!"})
