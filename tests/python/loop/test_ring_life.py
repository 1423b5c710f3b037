"""A loop on a ring from its making to its close: leaving it, going on, debug mode, descriptors."""

import asyncio
import gc
import logging
import os
import threading
import time
from collections.abc import AsyncIterator

import pytest

from granian_uring.selector import new_event_loop

from .ring import new_worker, ring_runner


@pytest.mark.parametrize("wish", [KeyboardInterrupt, SystemExit])
def test_a_wish_to_exit_leaves_the_loop_which_can_go_on(
    runner: asyncio.Runner, wish: type[BaseException]
) -> None:
    loop = runner.get_loop()
    seen: list[str] = []

    def leave() -> None:
        raise wish

    loop.call_soon(leave)
    # Collected in the same iteration, and still to be run.
    loop.call_soon(seen.append, "after")
    with pytest.raises(wish):
        loop.run_forever()
    assert not loop.is_running()
    loop.run_until_complete(asyncio.sleep(0.01))
    assert seen == ["after"]


@pytest.mark.parametrize("wish", [KeyboardInterrupt, SystemExit])
def test_a_task_may_exit_and_others_go_on(
    runner: asyncio.Runner, wish: type[BaseException]
) -> None:
    loop = runner.get_loop()

    async def leave() -> None:
        await asyncio.sleep(0.01)
        raise wish

    leaving = loop.create_task(leave())
    staying = loop.create_task(asyncio.sleep(0.05, "stayed"))
    with pytest.raises(wish):
        loop.run_until_complete(staying)
    assert loop.run_until_complete(staying) == "stayed"
    assert isinstance(leaving.exception(), wish)


def test_an_exception_of_a_callback_does_not_end_the_loop(runner: asyncio.Runner) -> None:
    loop = runner.get_loop()
    told: list[BaseException | None] = []
    loop.set_exception_handler(lambda _loop, context: told.append(context.get("exception")))
    loop.call_soon(lambda: 1 / 0)
    assert loop.run_until_complete(asyncio.sleep(0.01, "went on")) == "went on"
    assert [type(error) for error in told] == [ZeroDivisionError]


def test_run_until_complete_many_times(runner: asyncio.Runner) -> None:
    loop = runner.get_loop()
    assert [loop.run_until_complete(asyncio.sleep(0, n)) for n in range(200)] == list(range(200))


def test_stop_from_a_thread(runner: asyncio.Runner) -> None:
    loop = runner.get_loop()
    begun = time.monotonic()
    threading.Timer(0.05, lambda: loop.call_soon_threadsafe(loop.stop)).start()
    loop.run_forever()
    assert 0.04 < time.monotonic() - begun < 5


def test_shutdown_asyncgens_closes_what_was_left_open(runner: asyncio.Runner) -> None:
    seen: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            seen.append("closed")

    async def main() -> AsyncIterator[int]:
        generator = numbers()
        assert await anext(generator) == 1
        return generator

    loop = runner.get_loop()
    kept = loop.run_until_complete(main())
    assert not seen
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert seen == ["closed"]
    del kept


def test_debug_mode_warns_of_a_slow_callback(caplog: pytest.LogCaptureFixture) -> None:
    async def slow() -> None:
        asyncio.get_running_loop().slow_callback_duration = 0.01
        await asyncio.sleep(0)
        time.sleep(0.05)  # noqa: ASYNC251 - the slowness itself

    with caplog.at_level(logging.WARNING, "asyncio"), ring_runner(debug=True) as runner:
        runner.run(slow())
    assert [r for r in caplog.messages if "slow()" in r and r.startswith("Executing")]


def test_waiting_is_not_slow_in_debug_mode(caplog: pytest.LogCaptureFixture) -> None:
    async def patient() -> None:
        asyncio.get_running_loop().slow_callback_duration = 0.05
        await asyncio.sleep(0.2)

    with caplog.at_level(logging.WARNING, "asyncio"), ring_runner(debug=True) as runner:
        runner.run(patient())
    assert caplog.messages == []


def test_debug_mode_refuses_call_soon_from_another_thread() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(RuntimeError, match="Non-thread-safe"):
            await asyncio.to_thread(loop.call_soon, print)

    with ring_runner(debug=True) as runner:
        runner.run(main())


def test_a_loop_of_a_ring_belongs_to_its_thread() -> None:
    worker = new_worker()
    loop = new_event_loop(worker)
    refused: list[str] = []

    def run() -> None:
        try:
            loop.run_forever()
        except RuntimeError as error:
            refused.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    worker.close()
    loop.close()
    assert len(refused) == 1 and "thread" in refused[0]


def test_an_ordinary_loop_in_a_thread_next_to_the_ring(runner: asyncio.Runner) -> None:
    async def main() -> str:
        return await asyncio.to_thread(lambda: asyncio.run(asyncio.sleep(0.01, "epoll")))

    assert runner.run(main()) == "epoll"


async def something_of_everything() -> None:
    child = await asyncio.create_subprocess_exec("true", stdout=asyncio.subprocess.PIPE)
    await asyncio.gather(child.communicate(), asyncio.to_thread(int), asyncio.sleep(0))


@pytest.mark.parametrize("loop_first", [True, False], ids=["loop first", "worker first"])
def test_fifty_loops_leave_no_descriptor_behind(loop_first: bool) -> None:
    def cycle() -> None:
        worker = new_worker()
        loop = new_event_loop(worker)
        loop.run_until_complete(something_of_everything())
        loop.run_until_complete(loop.shutdown_default_executor())
        for thing in (loop, worker) if loop_first else (worker, loop):
            thing.close()

    cycle()
    before = descriptors()
    for _ in range(50):
        cycle()
    gc.collect()
    assert descriptors() == before


def descriptors() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - read at once, before it changes
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
        except FileNotFoundError:
            # The one of the listing itself.
            continue
    return found
