"""Threads and child processes with the ring's loop."""

import asyncio
import contextvars
import os
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

PIPE = asyncio.subprocess.PIPE


def test_run_in_executor_and_to_thread(runner: asyncio.Runner) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        here = threading.get_ident()
        assert await loop.run_in_executor(None, threading.get_ident) != here
        variable.set("carried over")
        assert await asyncio.to_thread(variable.get) == "carried over"
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)
        squares = await asyncio.gather(*(asyncio.to_thread(pow, n, 2) for n in range(200)))
        assert squares == [n**2 for n in range(200)]

    runner.run(main())


def test_the_ring_goes_on_while_a_thread_computes(runner: asyncio.Runner) -> None:
    """The GIL is free while the loop waits, and taken again when it has something to do."""

    def compute(stop: threading.Event) -> int:
        rounds = 0
        while not stop.is_set():
            rounds += 1
        return rounds

    async def main() -> int:
        stop = threading.Event()
        computing = asyncio.create_task(asyncio.to_thread(compute, stop))
        for _ in range(10):
            await asyncio.sleep(0.01)
        stop.set()
        return await computing

    assert runner.run(main()) > 1000


def test_a_thread_wakes_an_idle_loop(runner: asyncio.Runner) -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[float] = loop.create_future()
        sent = 0.0

        def wake() -> None:
            nonlocal sent
            sent = time.monotonic()
            loop.call_soon_threadsafe(lambda: woken.set_result(time.monotonic() - sent))

        threading.Timer(0.1, wake).start()
        # Nothing else could end the wait before this.
        async with asyncio.timeout(30):
            return await woken

    assert runner.run(main()) < 1.0


def test_run_coroutine_threadsafe(runner: asyncio.Runner) -> None:
    async def answer() -> str:
        await asyncio.sleep(0.01)
        return "from the loop"

    async def main() -> str:
        loop = asyncio.get_running_loop()
        return await asyncio.to_thread(
            lambda: asyncio.run_coroutine_threadsafe(answer(), loop).result(10)
        )

    assert runner.run(main()) == "from the loop"


def test_a_thousand_wake_ups_from_threads_are_all_seen(runner: asyncio.Runner) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        seen: list[int] = []

        def call(first: int) -> None:
            for number in range(first, first + 250):
                loop.call_soon_threadsafe(seen.append, number)

        await asyncio.gather(*(asyncio.to_thread(call, first) for first in range(0, 1000, 250)))
        await asyncio.sleep(0)
        return seen

    assert sorted(runner.run(main())) == list(range(1000))


def test_communicate_with_a_child_through_pipes(runner: asyncio.Runner) -> None:
    text = os.urandom(200_000).hex().encode()

    async def main() -> None:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "import sys; text = sys.stdin.read(); sys.stderr.write('done'); print(text.upper())",
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
        )
        out, error = await child.communicate(text)
        assert out == text.upper() + b"\n"
        assert error == b"done"
        assert child.returncode == 0

    runner.run(main())


def test_wait_for_children_and_kill_one(runner: asyncio.Runner) -> None:
    async def main() -> None:
        quick = [await asyncio.create_subprocess_exec("sh", "-c", f"exit {n}") for n in range(5)]
        assert await asyncio.gather(*(child.wait() for child in quick)) == [0, 1, 2, 3, 4]

        endless = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        assert endless.stdin is not None and endless.stdout is not None
        endless.stdin.write(b"line\n")
        assert await endless.stdout.readline() == b"line\n"
        endless.kill()
        assert await endless.wait() == -signal.SIGKILL
        assert await endless.stdout.read() == b""

        shell = await asyncio.create_subprocess_shell("echo out; exit 3", stdout=PIPE)
        out, _ = await shell.communicate()
        assert out == b"out\n"
        assert shell.returncode == 3

    runner.run(main())


def test_a_cancelled_child_can_be_ended(runner: asyncio.Runner) -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_exec("cat", stdin=PIPE)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(child.wait(), 0.05)
        child.terminate()
        assert await child.wait() == -signal.SIGTERM

    runner.run(main())


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_pool_of_forked_processes(runner: asyncio.Runner) -> None:
    """A child made by fork has copies of the loop's descriptors, but not of the ring's memory."""

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
            return await asyncio.gather(
                *(loop.run_in_executor(pool, pow, number, 2) for number in range(20))
            )

    assert runner.run(main()) == [number**2 for number in range(20)]
