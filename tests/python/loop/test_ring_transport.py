"""The transport of connections: whatever happens to one, a protocol sees what it sees on asyncio's.

Each scenario runs on asyncio's own loop and on a ring's, and tells what its protocol was told.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from granian_uring.transport import SocketTransport
from loop.ring import ring_runner

Told = list[Any]
MUCH = bytes(range(256)) * 20_000


class Protocol(asyncio.Protocol):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: Told = []
        self.received = b""
        self.news = asyncio.Event()
        self.lost = asyncio.get_running_loop().create_future()
        self.keep_open = False

    def tell(self, *what: Any) -> None:
        self.told.append(what)
        self.news.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), 10)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.tell("made")

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.received += data
        self.news.set()

    def eof_received(self) -> bool:
        self.tell("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self.tell("pause")

    def resume_writing(self) -> None:
        self.tell("resume")

    def connection_lost(self, error: BaseException | None) -> None:
        self.tell("lost", type(error), str(error))
        self.lost.set_result(None)


async def connected(protocol: Protocol) -> tuple[Any, socket.socket]:
    """A transport, and the socket of its peer."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport, _ = await loop.create_connection(lambda: protocol, *listener.getsockname())
        peer, _ = listener.accept()
    peer.setblocking(False)
    is_ring = type(loop).__name__ == "RingEventLoop"
    assert isinstance(transport, SocketTransport) == is_ring
    return transport, peer


async def ask_and_answer(protocol: Protocol) -> None:
    loop = asyncio.get_running_loop()
    transport, peer = await connected(protocol)
    for part in (b"bytes", bytearray(b"bytearray"), memoryview(b"memoryview"), b""):
        transport.write(part)
    transport.writelines([b"li", b"nes"])
    expected = b"bytesbytearraymemoryviewlines"
    got = b""
    while len(got) < len(expected):
        got += await loop.sock_recv(peer, 1000)
    assert got == expected
    for wrong in ("str", None, 5):
        with pytest.raises(TypeError):
            transport.write(wrong)
    await loop.sock_sendall(peer, b"answer")
    await protocol.until(lambda: protocol.received == b"answer")
    transport.close()
    await protocol.lost
    peer.close()


async def more_than_the_kernel_takes(protocol: Protocol) -> None:
    loop = asyncio.get_running_loop()
    transport, peer = await connected(protocol)
    written = b""
    while transport.get_write_buffer_size() == 0:
        transport.write(MUCH)
        written += MUCH
    transport.write(b"behind")
    transport.close()
    transport.write(b"!")
    got = b""
    while part := await loop.sock_recv(peer, 1 << 20):
        got += part
    assert got == written + b"behind!"
    await protocol.lost
    peer.close()


async def much_to_read(protocol: Protocol) -> None:
    loop = asyncio.get_running_loop()
    transport, peer = await connected(protocol)
    await loop.sock_sendall(peer, MUCH)
    peer.close()
    await protocol.lost
    assert protocol.received == MUCH
    assert transport.is_closing()


async def reading_is_paused(protocol: Protocol) -> None:
    loop = asyncio.get_running_loop()
    transport, peer = await connected(protocol)
    transport.pause_reading()
    await loop.sock_sendall(peer, b"later")
    for _ in range(5):
        await asyncio.sleep(0)
    assert protocol.received == b""
    transport.resume_reading()
    await protocol.until(lambda: protocol.received == b"later")
    transport.abort()
    await protocol.lost
    peer.close()


async def our_half_ends(protocol: Protocol) -> None:
    loop = asyncio.get_running_loop()
    transport, peer = await connected(protocol)
    transport.write(b"last")
    transport.write_eof()
    with pytest.raises(RuntimeError, match="after write_eof"):
        transport.write(b"more")
    assert await loop.sock_recv(peer, 100) == b"last"
    assert await loop.sock_recv(peer, 100) == b""
    await loop.sock_sendall(peer, b"still")
    await protocol.until(lambda: protocol.received == b"still")
    peer.close()
    await protocol.lost


async def their_half_ends(protocol: Protocol) -> None:
    loop = asyncio.get_running_loop()
    protocol.keep_open = True
    transport, peer = await connected(protocol)
    peer.shutdown(socket.SHUT_WR)
    await protocol.until(lambda: ("eof",) in protocol.told)
    transport.write(b"still")
    assert await loop.sock_recv(peer, 100) == b"still"
    transport.close()
    await protocol.lost
    peer.close()


async def a_reset_is_read(protocol: Protocol) -> None:
    _, peer = await connected(protocol)
    reset(peer)
    await protocol.lost


async def a_reset_is_written_to(protocol: Protocol) -> None:
    transport, peer = await connected(protocol)
    transport.pause_reading()
    reset(peer)
    for _ in range(10):
        transport.write(b"nobody reads it")
    await protocol.lost


async def the_protocol_fails(protocol: Protocol) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: protocol.tell(context["message"]))

    def fail(data: bytes) -> None:
        raise ValueError(f"of {data!r}")

    protocol.data_received = fail  # type: ignore[method-assign]
    _, peer = await connected(protocol)
    await loop.sock_sendall(peer, b"bytes")
    await protocol.lost
    peer.close()


async def another_protocol(protocol: Protocol) -> None:
    """One that gives the memory to receive into, and one again that does not."""

    class Buffered(asyncio.BufferedProtocol):
        memory = bytearray(100)

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.memory

        def buffer_updated(self, nbytes: int) -> None:
            protocol.tell("buffered", bytes(self.memory[:nbytes]))

    loop = asyncio.get_running_loop()
    transport, peer = await connected(protocol)
    transport.set_protocol(Buffered())
    await loop.sock_sendall(peer, b"first")
    await protocol.until(lambda: ("buffered", b"first") in protocol.told)
    transport.set_protocol(protocol)
    assert transport.get_protocol() is protocol
    await loop.sock_sendall(peer, b"second")
    await protocol.until(lambda: protocol.received == b"second")
    transport.close()
    await protocol.lost
    peer.close()


async def nothing_is_written_behind_the_end(protocol: Protocol) -> None:
    """Not even by who kept the method: the number of the descriptor is another's by then."""
    loop = asyncio.get_running_loop()
    transport, peer = await connected(protocol)
    write, number = transport.write, transport.get_extra_info("socket").fileno()
    while transport.get_write_buffer_size() == 0:
        transport.write(MUCH)
    transport.close()
    while await loop.sock_recv(peer, 1 << 20):
        pass
    await protocol.lost
    peer.close()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert number in (ours.fileno(), theirs.fileno()), "the number was not used again"
        ours.setblocking(False)
        theirs.setblocking(False)
        with pytest.raises(AttributeError):
            write(b"stray")
        for one in (ours, theirs):
            with pytest.raises(BlockingIOError):
                one.recv(1)


SCENARIOS = [
    ask_and_answer,
    more_than_the_kernel_takes,
    much_to_read,
    reading_is_paused,
    our_half_ends,
    their_half_ends,
    a_reset_is_read,
    a_reset_is_written_to,
    the_protocol_fails,
    another_protocol,
    nothing_is_written_behind_the_end,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_protocol_is_told_what_asyncio_tells(
    scenario: Callable[[Protocol], Awaitable[None]],
) -> None:
    async def run() -> Told:
        protocol = Protocol()
        await scenario(protocol)
        return protocol.told

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        expected = runner.run(run())
    with ring_runner() as runner:
        assert runner.run(run()) == expected
    assert expected[0] == ("made",)


def reset(peer: socket.socket) -> None:
    """Closes with an RST."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
