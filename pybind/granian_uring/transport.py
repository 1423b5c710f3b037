"""asyncio's transport of a TCP or Unix connection, with a short way for what is usual.

The whole of it is asyncio's own: flow control, end of stream, errors, TLS on top. The read that
brings bytes for `data_received`, and the write that the kernel takes at once, do not come by here:
`pybind/src/direct.rs` stands before the two methods, and calls them for the rest.
"""

import asyncio
import socket
from asyncio import selector_events
from collections.abc import Callable
from typing import Any

from granian_uring import _native

__all__ = ["SocketTransport"]


class SocketTransport(selector_events._SelectorSocketTransport):  # type: ignore[name-defined, misc]
    """What `RingEventLoop` makes of a connected socket."""

    _read_ready: Callable[[], None]
    write: Callable[[Any], None]

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, *arguments: Any, **more: Any
    ) -> None:
        self._direct = _native.Direct(sock.fileno(), self, self._read_ready, self.write)
        # On the instance, where they come before the methods of the class.
        self._read_ready = self._direct.read_ready
        self.write = self._direct.write
        super().__init__(loop, sock, *arguments, **more)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Says who is told from now on."""
        super().set_protocol(protocol)
        self._direct.set_buffered(isinstance(protocol, asyncio.BufferedProtocol))

    def _call_connection_lost(self, error: BaseException | None) -> None:
        # Before the descriptor is closed, and its number may be another's.
        self._direct.close()
        del self._read_ready, self.write
        super()._call_connection_lost(error)
