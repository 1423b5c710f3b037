"""Signals that come while the ring's loop waits."""

import asyncio
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType

import pytest

# A signal that is only seen when something else ends the wait comes this late.
LATE_SECONDS = 10.0
PROMPT_SECONDS = 2.0


@pytest.fixture(autouse=True)
def handlers_restored() -> Iterator[None]:
    before = {n: signal.getsignal(n) for n in (signal.SIGUSR1, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def signal_soon(number: int) -> None:
    """Sends the main thread a signal, when it can be expected to wait for the kernel."""
    identity = threading.get_ident()
    threading.Timer(0.1, lambda: signal.pthread_kill(identity, number)).start()


async def wait_without_submission() -> None:
    """The next wait finds everything armed: the one before it ended by its timeout."""
    await asyncio.sleep(0.02)


async def wait_with_submission() -> None:
    """The next wait also submits: the one before it ended by a watched descriptor.

    The kernel does not tell of an interruption then, io_uring_enter(2).
    """
    woken = asyncio.Event()
    loop = asyncio.get_running_loop()
    threading.Timer(0.02, lambda: loop.call_soon_threadsafe(woken.set)).start()
    await woken.wait()


@pytest.mark.parametrize("before", [wait_without_submission, wait_with_submission])
def test_a_handler_of_the_signal_module_runs_promptly(
    runner: asyncio.Runner, before: Callable[[], Awaitable[None]]
) -> None:
    ran: list[float] = []

    def handler(_number: int, _frame: FrameType | None) -> None:
        ran.append(time.monotonic())

    async def main() -> float:
        # No wake-up descriptor: nothing but the wait itself can tell of the signal.
        assert signal.set_wakeup_fd(-1) == -1
        await before()
        begun = time.monotonic()
        signal_soon(signal.SIGUSR1)
        await asyncio.sleep(1.0)
        assert time.monotonic() - begun >= 1.0
        return ran[0] - begun

    signal.signal(signal.SIGUSR1, handler)
    assert runner.run(main()) < 0.6


@pytest.mark.parametrize("before", [wait_without_submission, wait_with_submission])
def test_what_a_handler_asks_of_the_loop_is_done_promptly(
    runner: asyncio.Runner, before: Callable[[], Awaitable[None]]
) -> None:
    """Also when it is not asked in a way that wakes the loop: the wait is over anyway."""

    async def main() -> float:
        came = asyncio.Event()
        signal.signal(signal.SIGUSR1, lambda _number, _frame: came.set())
        await before()
        begun = time.monotonic()
        signal_soon(signal.SIGUSR1)
        async with asyncio.timeout(LATE_SECONDS):
            await came.wait()
        return time.monotonic() - begun

    assert runner.run(main()) < PROMPT_SECONDS


@pytest.mark.parametrize("before", [wait_without_submission, wait_with_submission])
def test_a_handler_of_the_loop_runs_promptly(
    runner: asyncio.Runner, before: Callable[[], Awaitable[None]]
) -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        came = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, came.set)
        await before()
        begun = time.monotonic()
        signal_soon(signal.SIGUSR1)
        async with asyncio.timeout(LATE_SECONDS):
            await came.wait()
        assert loop.remove_signal_handler(signal.SIGUSR1)
        return time.monotonic() - begun

    assert runner.run(main()) < PROMPT_SECONDS


@pytest.fixture
def default_sigint() -> Iterator[None]:
    """What Python does at its start, unless SIGINT was ignored then, as in a shell's background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_sigint")
def test_sigint_cancels_the_main_task_of_a_runner(runner: asyncio.Runner) -> None:
    seen: list[str] = []

    async def main() -> None:
        signal_soon(signal.SIGINT)
        try:
            await asyncio.sleep(LATE_SECONDS)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert seen == ["cancelled"]


def test_an_exception_of_a_handler_leaves_the_wait_and_the_loop_runs_again(
    runner: asyncio.Runner,
) -> None:
    class Alarm(Exception):
        pass

    def handler(_number: int, _frame: FrameType | None) -> None:
        raise Alarm

    signal.signal(signal.SIGUSR1, handler)
    loop = runner.get_loop()
    sleeping = loop.create_task(asyncio.sleep(0.5, "slept"))
    signal_soon(signal.SIGUSR1)
    with pytest.raises(Alarm):
        loop.run_until_complete(sleeping)
    assert not sleeping.done()
    assert loop.run_until_complete(sleeping) == "slept"
