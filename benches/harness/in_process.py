"""The applications without a server: their CPU per call, in the Python that runs this.

python in_process.py

The second half of a case's floor, beside a bare ring loop: the application is called with a scope
and driven to its end in an asyncio.Task (an eager one from 3.12 on), as a server must. What a
framework does in threads of its own counts too. Writes microseconds for each case as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from pathlib import Path
from typing import Any

os.environ.setdefault("BENCH_FILE", "")
# Django imports a module of the application's by its name.
sys.path.append(str(Path(__file__).with_name("apps")))
from apps.asgi_apps import hello
from apps.django_app import asgi as django
from apps.fastapi_app import app as fastapi

ROUNDS = 5
# As many as are under way at once when 64 clients ask.
BATCH = 64

Message = MutableMapping[str, Any]
Application = Callable[[Any, Any, Any], Awaitable[None]]

# By case: what is called, with which path, and how many batches of it.
CASES: dict[str, tuple[Application, str, int]] = {
    "asgi-hello": (hello, "/", 300),
    "fastapi": (fastapi, "/items/42", 30),
    "django-asgi": (django, "/async", 8),
}


class Done:
    """What is awaited and need not wait: cheaper than a coroutine, as a server's own can be."""

    def __await__(self) -> Generator[None, None, None]:
        return iter(())  # type: ignore[return-value]


DONE = Done()


def send(message: Message) -> Awaitable[None]:
    """Takes a message."""
    return DONE


def client() -> Callable[[], Awaitable[Message]]:
    """A `receive`: the end of a request without a body, and then a client that waits."""
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if not messages:
            await asyncio.get_running_loop().create_future()
        return messages.pop()

    return receive


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


def scope(path: str) -> Message:
    """What is new in each request: a dict, its path, its headers and its addresses."""
    return {
        **TEMPLATE,
        "path": path,
        "raw_path": path.encode(),
        "headers": [(b"host", b"127.0.0.1:8000"), (b"user-agent", b"load"), (b"accept", b"*/*")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
    }


async def serve(application: Application, path: str, batches: int) -> None:
    """Calls the application, each call a Task, and lets the loop turn between batches."""
    loop = asyncio.get_running_loop()
    eager: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
    for _ in range(batches):
        made: list[asyncio.Task[None]] = [
            asyncio.Task(application(scope(path), client(), send), loop=loop, **eager)  # type: ignore[arg-type]
            for _ in range(BATCH)
        ]
        await asyncio.sleep(0)
        if not all(task.done() for task in made):
            await asyncio.wait(made)
        for task in made:
            task.result()


async def microseconds(application: Application, path: str, batches: int) -> float:
    """CPU time of one call, that of all threads: the median of the rounds."""
    await serve(application, path, 1)
    found = []
    for _ in range(ROUNDS):
        begin = time.process_time_ns()
        await serve(application, path, batches)
        found.append((time.process_time_ns() - begin) / (batches * BATCH) / 1e3)
    return statistics.median(found)


def main() -> None:
    """Measures and prints."""
    found = {name: asyncio.run(microseconds(*case)) for name, case in CASES.items()}
    print(json.dumps({"task_us": found, "python": sys.version.split()[0]}))


if __name__ == "__main__":
    main()
