"""The selector that makes `asyncio.SelectorEventLoop` run on a ring.

asyncio's own file descriptors stay in an epoll instance, as `selectors.EpollSelector` keeps them;
the ring polls that instance's descriptor, so that one wait covers both. What has come for the
application is announced as a readable event of one permanent reader, `Worker.dispatch`, and so runs
in asyncio's ready phase like every other callback: see `pybind/src/selector.rs`.
"""

import asyncio
import os
import selectors
import socket
from typing import Any

from granian_uring._native import ReadyFiles, Waker, Worker
from granian_uring.transport import SocketTransport

__all__ = ["RingSelector", "new_event_loop"]


class RingSelector(selectors.EpollSelector):
    """An `EpollSelector` whose waiting is done by the ring of `worker`."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        # On the instance, not as a method: one Python frame less for every turn.
        self.select = worker.select  # type: ignore[method-assign]
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def attach(self, loop: asyncio.AbstractEventLoop, worker: Worker) -> None:
        """Makes `worker.dispatch` the loop's permanent reader, and the loop the worker's."""
        loop.add_reader(self._wake_fd, worker.dispatch)
        worker.attach(
            loop,
            self.fileno(),
            ReadyFiles(self.fileno(), self._fd_to_key),  # type: ignore[attr-defined]
            (self.get_key(self._wake_fd), selectors.EVENT_READ),
        )

    def close(self) -> None:
        """Closes the epoll instance and the eventfd of the permanent reader."""
        super().close()
        os.close(self._wake_fd)


class RingEventLoop(asyncio.SelectorEventLoop):
    """asyncio's loop, with a transport and a way to be woken of our own."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        super().__init__(selector)
        # asyncio's own pair of sockets stays what signals are written to.
        self._waker = Waker()
        self._write_to_self = self._waker.wake
        self.add_reader(self._waker.fileno(), self._waker.clear)

    def close(self) -> None:
        """Closes the loop, and what it is woken by."""
        super().close()
        self._waker.close()

    def _make_socket_transport(
        self, sock: socket.socket, *arguments: Any, **more: Any
    ) -> asyncio.Transport:
        self._ensure_fd_no_transport(sock)  # type: ignore[attr-defined]
        return SocketTransport(self, sock, *arguments, **more)


def new_event_loop(worker: Worker) -> asyncio.SelectorEventLoop:
    """A loop on the ring of `worker`, whose one loop it is."""
    selector = RingSelector(worker)
    loop = RingEventLoop(selector)
    selector.attach(loop, worker)
    return loop
