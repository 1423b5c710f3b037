"""A database for the benchmarks: `GET key` is answered with 16 bytes and a newline, over TCP.

python backend.py

Writes its port to stdout, and runs until it is stopped. Low-level, so that it is not what a case
waits for.
"""

import asyncio
import sys

VALUE = b"0123456789abcdef\n"


class Backend(asyncio.Protocol):
    """A connection; a line of the client is a question."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps where answers go."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answers each line, also where one comes in pieces."""
        if lines := data.count(b"\n"):
            self._transport.write(VALUE * lines)


async def main() -> None:
    """Serves."""
    server = await asyncio.get_running_loop().create_server(Backend, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1])
    sys.stdout.flush()
    await server.serve_forever()


asyncio.run(main())
