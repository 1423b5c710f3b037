"""A server in a program that does other things as well: `python -m examples.embedded`.

Requests put words into a queue, and a task of the program counts them. Ctrl-C drains and ends both.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import granian_uring

words: asyncio.Queue[str] = asyncio.Queue()
counts: Counter[str] = Counter()


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """`GET /word` counts a word, and answers with how often it came so far."""
    if scope["type"] != "http":
        raise RuntimeError(f"{scope['type']} is not served")
    word = scope["path"].strip("/")
    words.put_nowait(word)
    await words.join()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"{word}: {counts[word]}\n".encode()})


async def count() -> None:
    """The program's own work."""
    while True:
        counts[await words.get()] += 1
        words.task_done()


async def main() -> None:
    """Serves beside that work."""
    counting = asyncio.create_task(count())
    async with granian_uring.Server(app, port=8000) as server:
        print("listening on", *server.addresses)
        await server.serve()
    counting.cancel()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
