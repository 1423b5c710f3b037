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
from asyncio import format_helpers
from collections.abc import Callable
from typing import Any

from granian_uring._native import Callbacks, Handle, ReadyFiles, Waker, Worker
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
    """asyncio's loop, with callbacks, a transport and a way to be woken of our own."""

    call_soon: Callable[..., Any]  # type: ignore[assignment]
    _callbacks: Callbacks | None = None

    def __init__(self, selector: selectors.BaseSelector) -> None:
        super().__init__(selector)
        append = self._ready.append  # type: ignore[attr-defined]
        self._callbacks = Callbacks(self, append, _describe, self._callback_failed)
        self._process_events = self._callbacks.process_events
        self._choose_call_soon()
        # asyncio's own pair of sockets stays what signals are written to.
        self._waker = Waker()
        self._write_to_self = self._waker.wake
        self.add_reader(self._waker.fileno(), self._waker.clear)

    def close(self) -> None:
        """Closes the loop, and what it is woken by."""
        super().close()
        self._choose_call_soon()
        if self._callbacks is not None:
            self._callbacks.close()
        self._waker.close()

    def set_debug(self, enabled: bool) -> None:
        """Debug mode is for asyncio's own callbacks, which know more of themselves."""
        super().set_debug(enabled)
        self._choose_call_soon()

    def _choose_call_soon(self) -> None:
        """Puts the short way of `call_soon` before the class's, while the loop is open and not in
        debug mode."""
        # There is none yet when asyncio's `__init__` sets its debug mode.
        if self._callbacks is None or self.get_debug() or self.is_closed():
            self.__dict__.pop("call_soon", None)
        else:
            self.call_soon = self._callbacks.call_soon

    def _callback_failed(self, handle: Handle, error: BaseException) -> None:
        """Reports what a callback raised, in asyncio's words."""
        message = f"Exception in callback {_describe(handle._callback, handle._args)}"
        context = {"message": message, "exception": error, "handle": handle}
        try:
            raise error
        except BaseException:
            # Within, so that `sys.exc_info()` is what a handler expects.
            self.call_exception_handler(context)

    def _make_socket_transport(
        self, sock: socket.socket, *arguments: Any, **more: Any
    ) -> asyncio.Transport:
        self._ensure_fd_no_transport(sock)  # type: ignore[attr-defined]
        return SocketTransport(self, sock, *arguments, **more)


def _describe(callback: Any, args: Any) -> str:
    """A callback and where it is from."""
    return format_helpers._format_callback_source(callback, args)


def new_event_loop(worker: Worker) -> asyncio.SelectorEventLoop:
    """A loop on the ring of `worker`, whose one loop it is."""
    selector = RingSelector(worker)
    loop = RingEventLoop(selector)
    selector.attach(loop, worker)
    return loop
