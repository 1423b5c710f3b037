"""File descriptors that asyncio watches on the ring's loop."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import closing

import pytest


def pair() -> tuple[socket.socket, socket.socket]:
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    return left, right


async def until(condition: Callable[[], bool]) -> None:
    """Lets the loop run until `condition` holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - any condition, and iterations are the point
            await asyncio.sleep(0.001)


async def a_few_iterations() -> None:
    """Lets the loop wait, and look at its descriptors, more than once."""
    for _ in range(5):
        await asyncio.sleep(0.002)


def test_a_reader_that_leaves_bytes_is_called_again(runner: asyncio.Runner) -> None:
    left, right = pair()

    async def main() -> list[bytes]:
        loop = asyncio.get_running_loop()
        seen: list[bytes] = []
        loop.add_reader(left, lambda: seen.append(left.recv(1)))
        right.send(b"level")
        await until(lambda: len(seen) == 5)
        await a_few_iterations()
        assert loop.remove_reader(left)
        return seen

    with closing(left), closing(right):
        assert runner.run(main()) == [b"l", b"e", b"v", b"e", b"l"]


def test_a_writer_is_called_while_there_is_room_and_no_longer(runner: asyncio.Runner) -> None:
    left, right = pair()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        calls = 0

        def count() -> None:
            nonlocal calls
            calls += 1

        loop.add_writer(left, count)
        await until(lambda: calls >= 3)
        with pytest.raises(BlockingIOError):
            while True:
                left.send(bytes(65536))
        await a_few_iterations()
        full = calls
        await a_few_iterations()
        assert calls == full, "called while the socket was full"
        assert await drain(right) > 0
        await until(lambda: calls > full)
        assert loop.remove_writer(left)
        removed = calls
        await a_few_iterations()
        assert calls == removed

    with closing(left), closing(right):
        runner.run(main())


async def drain(sock: socket.socket) -> int:
    """Reads what is there."""
    taken = 0
    try:
        while piece := sock.recv(1 << 20):
            taken += len(piece)
    except BlockingIOError:
        pass
    return taken


def test_one_descriptor_read_and_written_at_once(runner: asyncio.Runner) -> None:
    left, right = pair()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: set[str] = set()
        loop.add_reader(left, seen.add, "reader")
        loop.add_writer(left, seen.add, "writer")
        await until(lambda: seen == {"writer"})
        right.send(b"x")
        await until(lambda: seen == {"reader", "writer"})
        loop.remove_writer(left)
        seen.clear()
        await until(lambda: seen == {"reader"})
        loop.remove_reader(left)

    with closing(left), closing(right):
        runner.run(main())


def test_a_reader_replaced_in_its_own_call_loses_nothing(runner: asyncio.Runner) -> None:
    left, right = pair()

    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        seen: list[str] = []

        def first() -> None:
            seen.append("first")
            loop.remove_reader(left)
            loop.add_reader(left, second)

        def second() -> None:
            seen.append(left.recv(16).decode())
            loop.remove_reader(left)

        loop.add_reader(left, first)
        right.send(b"bytes")
        await until(lambda: len(seen) == 2)
        return seen

    with closing(left), closing(right):
        assert runner.run(main()) == ["first", "bytes"]


def test_a_reader_removed_by_another_of_the_same_turn_is_not_called(
    runner: asyncio.Runner,
) -> None:
    one, one_end = pair()
    two, two_end = pair()

    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        seen: list[str] = []

        def only(name: str, other: socket.socket) -> None:
            seen.append(name)
            loop.remove_reader(other)

        loop.add_reader(one, only, "one", two)
        loop.add_reader(two, only, "two", one)
        one_end.send(b"x")
        two_end.send(b"x")
        await a_few_iterations()
        loop.remove_reader(one)
        loop.remove_reader(two)
        return seen

    with closing(one), closing(one_end), closing(two), closing(two_end):
        assert len(set(runner.run(main()))) == 1


def test_a_descriptor_closed_while_it_is_watched(runner: asyncio.Runner) -> None:
    """Its number may come back as another file, whose readiness must reach the new reader."""
    left, right = pair()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(left, pytest.fail, "called for a closed descriptor")
        await a_few_iterations()
        number = left.fileno()
        loop.remove_reader(left)
        left.close()
        await a_few_iterations()
        # The loop did not keep the file open: its peer has seen the end.
        assert right.recv(1) == b""

        again, again_end = pair()
        with closing(again), closing(again_end):
            assert again.fileno() == number
            seen: list[bytes] = []
            loop.add_reader(again, lambda: seen.append(again.recv(1)))
            again_end.send(b"x")
            await until(lambda: seen == [b"x"])
            loop.remove_reader(again)

    with closing(right):
        runner.run(main())


def test_a_descriptor_closed_without_being_removed_does_not_disturb_others(
    runner: asyncio.Runner,
) -> None:
    left, right = pair()
    other, other_end = pair()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[bytes] = []
        loop.add_reader(left, lambda: None)
        right.send(b"x")
        await a_few_iterations()
        number = left.fileno()
        left.close()
        loop.add_reader(other, lambda: seen.append(other.recv(1)))
        other_end.send(b"y")
        await until(lambda: seen == [b"y"])
        loop.remove_reader(number)
        loop.remove_reader(other)

    with closing(right), closing(other), closing(other_end):
        runner.run(main())


def test_sock_functions_on_a_socketpair(runner: asyncio.Runner) -> None:
    left, right = pair()
    blob = bytes(range(256)) * 4096

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        sending = asyncio.create_task(loop.sock_sendall(left, blob))
        taken = bytearray()
        while len(taken) < len(blob):
            taken += await loop.sock_recv(right, 65536)
        await sending
        return bytes(taken)

    with closing(left), closing(right):
        assert runner.run(main()) == blob
