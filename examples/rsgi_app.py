"""An RSGI application: a line of text, an upload in pieces, a stream, a file, and its two hooks.

granian-uring examples.rsgi_app:app
"""

import asyncio
from pathlib import Path

from granian_uring.rsgi import HTTPProtocol, Scope

TEXT = [("content-type", "text/plain; charset=utf-8")]


class Application:
    """What is served, and what it needs meanwhile."""

    def __init__(self) -> None:
        self.greeting = ""

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Before the first request: a place to open a pool of connections."""
        self.greeting = loop.run_until_complete(asyncio.sleep(0, "Hello"))

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """After the last request."""
        loop.run_until_complete(asyncio.sleep(0))

    async def __rsgi__(self, scope: Scope, protocol: HTTPProtocol) -> None:
        """One request."""
        match scope.method, scope.path:
            case "GET" | "HEAD", "/":
                protocol.response_str(200, TEXT, f"{self.greeting}, world!")
            case "POST", "/upload":
                length = 0
                async for piece in protocol:
                    length += len(piece)
                protocol.response_str(200, TEXT, f"{length} bytes\n")
            case "GET", "/count":
                transport = protocol.response_stream(200, TEXT)
                for number in range(3):
                    await transport.send_str(f"{number}\n")
                    await asyncio.sleep(0.1)
            case "GET", "/source":
                protocol.response_file(200, TEXT, Path(__file__))
            case _:
                protocol.response_empty(404)


app = Application()
