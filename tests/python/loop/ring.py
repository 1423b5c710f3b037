"""A ring's event loop in this process, with a listener that nobody connects to and no application.

What a server does with such a loop is in `server.py`.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from granian_uring import _native
from granian_uring.config import OPTIONS
from granian_uring.selector import new_event_loop

# The defaults of everything that the core reads.
_OPTIONS = {option.native: option.default for option in OPTIONS if option.native is not None}


@contextmanager
def ring_runner(debug: bool | None = None) -> Iterator[asyncio.Runner]:
    """A runner, as `asyncio.run` uses one, whose loop is on a ring of its own."""
    worker = new_worker()
    try:
        with asyncio.Runner(loop_factory=lambda: new_event_loop(worker), debug=debug) as runner:
            yield runner
    finally:
        worker.close()


def new_worker() -> Any:
    """A worker with one listener."""
    listeners = _native.open_listeners(
        _native.take_activation(),
        fd_from_systemd=False,
        fd_names=[],
        fds=[],
        host="127.0.0.1",
        port=0,
        uds=None,
        uds_permissions=None,
        backlog=16,
        proxy_protocol=[],
    )
    options: Any = {
        **_OPTIONS,
        "max_connections": 16,
        "report_refusals": False,
        "proxy_trusted": _native.Trusted([]),
    }
    runtime = _native.RuntimeChoice(os.environ.get("GRANIAN_RUNTIME", "auto"))
    return _native.Worker(listeners, runtime, options)
