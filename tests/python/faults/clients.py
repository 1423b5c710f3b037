"""What attacks are made of: connections on raw sockets, many at once, from many addresses.

asyncio's socket calls and nothing above them: fast enough for thousands of connections a second,
and every byte and every way of ending is the attack's own choice.
"""

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

# There are 28,000 ephemeral ports for each pair of addresses by default, and a closed connection
# keeps its own for a minute. The whole of 127.0.0.0/8 is ours to come from.
SOURCES = 200
# linux/in.h; socket has it from Python 3.12 on.
IP_BIND_ADDRESS_NO_PORT = 24
# A bound against hanging, on a machine that is busy with other things too.
PATIENCE_SECONDS = 30.0

Address = tuple[str, int]


class Peer:
    """One connection, from the source address that belongs to its number."""

    def __init__(self, address: Address, number: int, *, buffers: int | None = None) -> None:
        self._address = address
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        self.socket.bind((f"127.0.1.{1 + number % SOURCES}", 0))
        if buffers is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        self._buffer = b""

    async def __aenter__(self) -> Self:
        await asyncio.get_running_loop().sock_connect(self.socket, self._address)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends with a FIN (the kernel makes it a RST if bytes were not read)."""
        self.socket.close()

    def reset(self) -> None:
        """Ends with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def shut_down(self) -> None:
        """Ends our side only. A connection that is gone already is no error."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    async def send(self, data: bytes) -> None:
        """Sends all of `data`."""
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def receive(self) -> bytes:
        """Some bytes; none at the end."""
        return await asyncio.get_running_loop().sock_recv(self.socket, 1 << 16)

    def received(self) -> bytes:
        """What has come and was not read yet, without waiting; none at the end as well."""
        try:
            return self.socket.recv(1 << 16)
        except BlockingIOError:
            return b""

    async def read_to_end(self) -> bytes:
        """Everything up to the server's end, be it a FIN or a RST."""
        pieces = [self._buffer]
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while piece := await self.receive():
                pieces.append(piece)
        return b"".join(pieces)

    async def read_answer(self) -> tuple[int, bytes]:
        """Status and body of one answer that has a length (or is a 100)."""
        while b"\r\n\r\n" not in self._buffer:
            await self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        status = status_of(head)
        if status == 100:
            return status, b""
        found = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
        check(found is not None, f"expected a length in {head!r}")
        assert found is not None
        length = int(found[1])
        while len(self._buffer) < length:
            await self._more()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return status, body

    async def expect(self, status: int, body: bytes | None = None) -> None:
        """The next answer is this one."""
        found = await self.read_answer()
        check(found[0] == status, f"expected a {status}, found {found}")
        check(body is None or found[1] == body, f"expected {body!r}, found {found[1][:100]!r}")

    async def _more(self) -> None:
        piece = await self.receive()
        check(piece != b"", f"the connection ended after {self._buffer[:100]!r}")
        self._buffer += piece


def check(holds: bool, otherwise: str) -> None:
    """An assertion about the server, which no switch of the interpreter turns off."""
    if not holds:
        raise AssertionError(otherwise)


def status_of(answer: bytes) -> int:
    """The status of an answer that begins as one has to."""
    found = re.match(rb"HTTP/1\.1 ([1-5]\d\d) ", answer)
    check(found is not None, f"expected a status line, found {answer[:100]!r}")
    assert found is not None
    return int(found[1])


def request(
    target: str, *headers: str, method: str = "GET", version: str = "1.1", body: bytes = b""
) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {target} HTTP/{version}", "Host: attack", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


async def crowd(count: int, at_once: int, one: Callable[[int], Awaitable[None]]) -> None:
    """Calls `one` with every number below `count`, so many at the same time."""
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await one(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(some())
