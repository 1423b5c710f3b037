"""Time on the ring's loop: sleeping, timers, timeouts, and tasks that end each other."""

import asyncio
import random
import time

import pytest


def test_sleep_takes_its_time(runner: asyncio.Runner) -> None:
    async def main() -> float:
        begun = time.monotonic()
        await asyncio.sleep(0.1)
        return time.monotonic() - begun

    assert 0.1 <= runner.run(main()) < 2.0


def test_a_time_too_far_away_is_no_error(runner: asyncio.Runner) -> None:
    async def main() -> None:
        far = asyncio.get_running_loop().call_later(1e12, pytest.fail)
        await asyncio.sleep(0.01)
        far.cancel()

    runner.run(main())


def test_call_later_and_call_soon_keep_their_order(runner: asyncio.Runner) -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        done = asyncio.Event()
        loop.call_later(0.06, done.set)
        loop.call_later(0.04, seen.append, "late")
        loop.call_later(0.02, seen.append, "early")
        loop.call_later(0.03, seen.append, "cancelled").cancel()
        loop.call_soon(seen.append, "first")
        loop.call_soon(seen.append, "second")
        await done.wait()
        return seen

    assert runner.run(main()) == ["first", "second", "early", "late"]


def test_ten_thousand_timers_fire_in_order_and_without_drift(runner: asyncio.Runner) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    delays = [random.Random(seed).uniform(0, 0.5) for _ in range(10_000)]

    async def main() -> list[tuple[float, float]]:
        loop = asyncio.get_running_loop()
        fired: list[tuple[float, float]] = []
        all_fired = asyncio.Event()

        def fire(due: float) -> None:
            fired.append((due, loop.time()))
            if len(fired) == len(delays):
                all_fired.set()

        now = loop.time()
        for delay in delays:
            loop.call_at(now + delay, fire, now + delay)
        await all_fired.wait()
        return fired

    fired = runner.run(main())
    dues = [due for due, _ in fired]
    assert dues == sorted(dues)
    # asyncio rounds up to its clock's resolution, and may be early by that.
    earliest = min(at - due for due, at in fired)
    assert earliest >= -time.get_clock_info("monotonic").resolution
    # A machine that is busy elsewhere may be late now and then, but lateness does not add up.
    last_due, last_at = fired[-1]
    assert last_at - last_due < 0.5


def test_timeout_ends_what_it_encloses(runner: asyncio.Runner) -> None:
    async def main() -> None:
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await asyncio.sleep(30)
        assert time.monotonic() - begun < 5
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.01)
        async with asyncio.timeout(30):
            await asyncio.sleep(0)

    runner.run(main())


def test_cancellation_runs_cleanup_and_can_be_refused(runner: asyncio.Runner) -> None:
    async def main() -> list[str]:
        seen: list[str] = []

        async def stubborn() -> str:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                seen.append("refused")
            await asyncio.sleep(0.01)
            return "finished"

        async def obedient() -> None:
            try:
                await asyncio.sleep(30)
            finally:
                seen.append("cleaned up")

        first, second = asyncio.create_task(stubborn()), asyncio.create_task(obedient())
        await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        seen.append(await first)
        with pytest.raises(asyncio.CancelledError):
            await second
        return seen

    assert runner.run(main()) == ["refused", "cleaned up", "finished"]


def test_task_group_joins_its_tasks_and_cancels_siblings_of_one_that_fails(
    runner: asyncio.Runner,
) -> None:
    async def fail() -> None:
        await asyncio.sleep(0.01)
        raise LookupError("mine")

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(0.01, number)) for number in range(100)]
        assert [task.result() for task in tasks] == list(range(100))

        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                sibling = group.create_task(asyncio.sleep(30))
                group.create_task(fail())
        assert [str(error) for error in caught.value.exceptions] == ["mine"]
        assert sibling.cancelled()

    runner.run(main())
