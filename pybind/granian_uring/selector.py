"""The selector that makes `asyncio.SelectorEventLoop` run on a ring.

asyncio's own file descriptors stay in an epoll instance, as `selectors.EpollSelector` keeps them;
the ring polls that instance's descriptor, so that one wait covers both. What has come for the
application is announced as a readable event of one permanent reader, `Worker.dispatch`, and so runs
in asyncio's ready phase like every other callback: see `pybind/src/selector.rs`.
"""

import asyncio
import os
import selectors
from collections.abc import Callable
from typing import Any

from granian_uring._native import Worker

__all__ = ["DispatchEvent", "RingSelector", "new_event_loop"]

DispatchEvent = tuple[selectors.SelectorKey, int]


class RingSelector(selectors.EpollSelector):
    """An `EpollSelector` whose waiting is done by the ring of `worker`."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self.select_foreign: Callable[[float | None], list[Any]] = super().select
        # On the instance, not as a method: one Python frame less for every turn.
        self.select = worker.select  # type: ignore[method-assign]
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def add_dispatch(self, loop: asyncio.AbstractEventLoop, dispatch: Any) -> DispatchEvent:
        """Makes `dispatch` the permanent reader; returns the event that calls it."""
        loop.add_reader(self._wake_fd, dispatch)
        return self.get_key(self._wake_fd), selectors.EVENT_READ

    def close(self) -> None:
        """Closes the epoll instance and the eventfd of the permanent reader."""
        super().close()
        os.close(self._wake_fd)


def new_event_loop(worker: Worker) -> tuple[asyncio.SelectorEventLoop, RingSelector, DispatchEvent]:
    """A loop on the ring of `worker`, with its selector and the event that calls the worker."""
    selector = RingSelector(worker)
    loop = asyncio.SelectorEventLoop(selector)
    return loop, selector, selector.add_dispatch(loop, worker.dispatch)
