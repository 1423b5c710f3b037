"""A ring's loop for every test that asks for one, and an end for tests that hang."""

import asyncio
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from .ring import ring_runner

# No test needs more than a few seconds, on a busy machine either.
LONGEST_TEST_SECONDS = 60


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Fails a test that hangs, by a signal that interrupts whatever it hangs in."""

    def give_up(_number: int, _frame: FrameType | None) -> None:
        pytest.fail(f"the test did not end within {LONGEST_TEST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LONGEST_TEST_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """Runs coroutines on a loop that lives in this process."""
    with ring_runner() as runner:
        yield runner
