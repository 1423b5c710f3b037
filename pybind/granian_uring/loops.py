"""The event loops that can host a server, `--loop`.

`uring` runs on the server's own ring (`granian_uring.selector`). The others wait elsewhere and have
the ring as a guest: they watch its wake fd, and call `Worker.turn`. See `pybind/src/guest.rs`.
"""

import asyncio
import importlib
from typing import cast

from granian_uring._native import Worker
from granian_uring.errors import OperatorError
from granian_uring.selector import new_event_loop as new_ring_loop

__all__ = ["new_event_loop"]


def new_event_loop(name: str, worker: Worker) -> asyncio.AbstractEventLoop:
    """A loop of this kind with `worker` on it, whatever the policy of asyncio says.

    Raises `OperatorError` when its package is missing.
    """
    if name in ("auto", "uring"):
        return new_ring_loop(worker)
    # Not `asyncio.new_event_loop`: an application's import may have set a policy.
    loop = asyncio.SelectorEventLoop() if name == "asyncio" else _packaged(name)
    worker.attach_to(loop)
    return loop


def _packaged(name: str) -> asyncio.AbstractEventLoop:
    """A loop of the package of that name: `uvloop` and `rloop` are made alike."""
    try:
        package = importlib.import_module(name)
    except ImportError as error:
        raise OperatorError(
            f"--loop {name} needs the package {name}, which cannot be imported: {error}",
            f"`pip install {name}`, or leave --loop out: the loop on io_uring is built in",
        ) from None
    return cast(asyncio.AbstractEventLoop, package.new_event_loop())
