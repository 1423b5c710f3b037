"""RSGI's types and exceptions, for applications: the names of Granian's module of the same name.

    from granian_uring.rsgi import HTTPProtocol, Scope

    async def app(scope: Scope, protocol: HTTPProtocol) -> None:
        protocol.response_str(200, [("content-type", "text/plain")], "Hello, world!")

`docs/rsgi.md` tells what each does. WebSockets are not served yet; their types are here so that
applications that name them can be imported.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Protocol

from granian_uring._native import RSGIHeaders as Headers
from granian_uring._native import RSGIHTTPProtocol as HTTPProtocol
from granian_uring._native import RSGIHTTPStreamTransport as HTTPStreamTransport
from granian_uring._native import RSGIScope as Scope
from granian_uring.errors import ProtocolClosed, ProtocolError

__all__ = [
    "HTTPProtocol",
    "HTTPStreamTransport",
    "Headers",
    "ProtocolClosed",
    "ProtocolError",
    "Scope",
    "WebsocketMessage",
    "WebsocketMessageType",
    "WebsocketProtocol",
    "WebsocketTransport",
]

Mapping.register(Headers)


class WebsocketMessageType(IntEnum):
    """What a `WebsocketMessage` is."""

    close = 0
    bytes = 1
    string = 2


class WebsocketMessage(Protocol):
    """A message of the client's; the last one, `close`, has no data."""

    kind: int
    data: bytes | str


class WebsocketTransport(Protocol):
    """An accepted WebSocket."""

    async def receive(self) -> WebsocketMessage:
        """The client's next message."""
        ...

    async def send_bytes(self, data: bytes) -> None:
        """Sends a binary message."""
        ...

    async def send_str(self, data: str) -> None:
        """Sends a text message."""
        ...


class WebsocketProtocol(Protocol):
    """A WebSocket that may be accepted or refused."""

    async def accept(self) -> WebsocketTransport:
        """Accepts it."""
        ...

    def close(self, status: int | None = None) -> None:
        """Closes it, or refuses it with this status."""
        ...
