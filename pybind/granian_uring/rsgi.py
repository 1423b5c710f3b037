"""RSGI's types and exceptions, for applications: the names of Granian's module of the same name.

    from granian_uring.rsgi import HTTPProtocol, Scope

    async def app(scope: Scope, protocol: HTTPProtocol) -> None:
        protocol.response_str(200, [("content-type", "text/plain")], "Hello, world!")

`docs/rsgi.md` tells what each does.
"""

from collections.abc import Mapping
from enum import IntEnum

from granian_uring._native import RSGIHeaders as Headers
from granian_uring._native import RSGIHTTPProtocol as HTTPProtocol
from granian_uring._native import RSGIHTTPStreamTransport as HTTPStreamTransport
from granian_uring._native import RSGIScope as Scope
from granian_uring._native import RSGIWebsocketMessage as WebsocketMessage
from granian_uring._native import RSGIWebsocketProtocol as WebsocketProtocol
from granian_uring._native import RSGIWebsocketTransport as WebsocketTransport
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
    """What a `WebsocketMessage` is, by its `kind`."""

    close = 0
    bytes = 1
    string = 2
