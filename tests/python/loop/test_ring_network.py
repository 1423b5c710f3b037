"""asyncio's own networking on the ring's loop."""

import asyncio
from pathlib import Path
from typing import cast

MIB = 1 << 20
BLOB = bytes(range(256)) * (MIB // 256)


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Sends a MiB and reads one at the same time, more than buffers hold either way."""
    writer.write(BLOB)
    received, _ = await asyncio.gather(reader.readexactly(MIB), writer.drain())
    writer.close()
    await writer.wait_closed()
    return received


def test_a_mebibyte_both_ways_over_tcp(runner: asyncio.Runner) -> None:
    async def main() -> None:
        served: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            served.set_result(await exchange(reader, writer))

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            assert await exchange(*await asyncio.open_connection(host, port)) == BLOB
            assert await served == BLOB

    runner.run(main())


def test_fifty_connections_at_once_over_a_unix_socket(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        writer.close()

    async def ask(path: Path, number: int) -> bytes:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"client %d\n" % number)
        answer = await reader.read()
        writer.close()
        return answer

    async def main() -> list[bytes]:
        path = tmp_path / "echo.sock"
        async with await asyncio.start_unix_server(echo, path):
            return await asyncio.gather(*(ask(path, number) for number in range(50)))

    assert runner.run(main()) == [b"CLIENT %d\n" % number for number in range(50)]


class Echo(asyncio.DatagramProtocol):
    """Sends every datagram back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data[::-1], addr)


class Collector(asyncio.DatagramProtocol):
    """Keeps every datagram."""

    def __init__(self) -> None:
        self.datagrams: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.datagrams.put_nowait(data)


def test_udp(runner: asyncio.Runner) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
        client, collector = await loop.create_datagram_endpoint(
            Collector, remote_addr=server.get_extra_info("sockname")
        )
        for number in range(20):
            client.sendto(b"datagram %d" % number)
            assert await collector.datagrams.get() == (b"datagram %d" % number)[::-1]
        client.close()
        server.close()
        await asyncio.sleep(0)

    runner.run(main())
