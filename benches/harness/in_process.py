"""The application without a server: its CPU per call, in the Python that runs this.

python in_process.py

The second half of a hello's floor, beside a bare ring loop: `call` makes a scope and drives the
application to its end, `task` does that in an asyncio.Task (an eager one from 3.12 on), as a server
must. Writes microseconds as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from typing import Any

os.environ.setdefault("BENCH_FILE", "")
from apps.asgi_apps import hello

ROUNDS = 7
CALLS = 20_000
# As many as are under way at once when 64 clients ask.
BATCH = 64

Message = MutableMapping[str, Any]


class Done:
    """What is awaited and need not wait: cheaper than a coroutine, as a server's own can be."""

    def __await__(self) -> Generator[None, None, None]:
        return iter(())  # type: ignore[return-value]


DONE = Done()


def send(message: Message) -> Awaitable[None]:
    """Takes a message."""
    return DONE


async def receive() -> Message:
    """Is not called."""
    raise AssertionError("hello does not receive")


TEMPLATE: Message = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.5"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "root_path": "",
    "query_string": b"",
    "extensions": {},
}


def scope() -> Message:
    """What is new in each request: a dict, its path, its headers and its addresses."""
    return {
        **TEMPLATE,
        "path": "/",
        "raw_path": b"/",
        "headers": [(b"host", b"127.0.0.1:8000"), (b"user-agent", b"load"), (b"accept", b"*/*")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
    }


def calls() -> None:
    """The application, driven by hand."""
    for _ in range(CALLS):
        coroutine = hello(scope(), receive, send)
        try:
            coroutine.send(None)  # type: ignore[attr-defined]
        except StopIteration:
            continue
        raise AssertionError("hello does not wait")


async def tasks() -> None:
    """The application, each call a Task, and the loop's turns between them."""
    loop = asyncio.get_running_loop()
    eager: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
    for _ in range(CALLS // BATCH):
        made: list[asyncio.Task[None]] = [
            asyncio.Task(hello(scope(), receive, send), loop=loop, **eager)  # type: ignore[arg-type]
            for _ in range(BATCH)
        ]
        await asyncio.sleep(0)
        assert all(task.done() for task in made)


def microseconds(run: Callable[[], object], count: int) -> float:
    """CPU time of one call: the median of the rounds."""
    found = []
    for _ in range(ROUNDS):
        begin = time.process_time_ns()
        run()
        found.append((time.process_time_ns() - begin) / count / 1e3)
    return statistics.median(found)


def main() -> None:
    """Measures and prints."""
    in_tasks = microseconds(lambda: asyncio.run(tasks()), CALLS // BATCH * BATCH)
    found = {"call_us": microseconds(calls, CALLS), "task_us": in_tasks}
    print(json.dumps({**found, "python": sys.version.split()[0]}))


if __name__ == "__main__":
    main()
