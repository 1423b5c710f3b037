"""`call_soon` on a ring's loop beside asyncio's own: what is run how, and what a handle knows."""

import asyncio
import contextvars
import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from .ring import ring_runner

name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")


def told_by(loop: asyncio.AbstractEventLoop, callback: Callable[..., Any], *args: Any) -> Any:
    """What the exception handler is told of a callback that fails."""
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(
        lambda _loop, context: told.append({**context, "current": sys.exc_info()[0]})
    )
    loop.call_soon(callback, *args)
    loop.run_until_complete(asyncio.sleep(0))
    [context] = told
    return context


def fails(text: str) -> None:
    raise ValueError(text)


def test_a_failed_callback_is_reported_as_by_asyncio(runner: asyncio.Runner) -> None:
    asyncios = asyncio.SelectorEventLoop()
    try:
        expected = told_by(asyncios, fails, "on purpose")
    finally:
        asyncios.close()
    found = told_by(runner.get_loop(), fails, "on purpose")
    for key in ("message", "current"):
        assert found[key] == expected[key]
    assert repr(found["exception"]) == repr(expected["exception"])
    assert found.keys() == expected.keys()
    # Up to the line and the address, which are of the callback.
    assert repr(found["handle"]) == repr(expected["handle"])


def test_a_handle_knows_what_asyncios_knows(runner: asyncio.Runner) -> None:
    loop = runner.get_loop()
    context = contextvars.copy_context()
    ran: list[int] = []
    handle: Any = loop.call_soon(ran.append, 1, context=context)
    assert not handle.cancelled()
    assert (handle._callback, handle._args, handle._loop) == (ran.append, (1,), loop)
    assert handle.get_context() is context
    handle.cancel()
    handle.cancel()
    assert handle.cancelled()
    assert repr(handle) == "<Handle cancelled>"
    loop.run_until_complete(asyncio.sleep(0))
    assert ran == []


def test_a_callback_runs_in_a_copy_of_the_current_context_or_in_the_given_one(
    runner: asyncio.Runner,
) -> None:
    loop = runner.get_loop()
    seen: list[str] = []

    def look() -> None:
        seen.append(name.get())
        name.set("changed")

    given = contextvars.copy_context()
    given.run(name.set, "given")

    async def main() -> None:
        name.set("current")
        loop.call_soon(look)
        loop.call_soon(look)
        loop.call_soon(look, context=given)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert name.get() == "current"

    runner.run(main())
    assert seen == ["current", "current", "given"]
    assert (name.get(), given[name]) == ("nobody", "changed")


def test_what_is_no_context_is_reported(runner: asyncio.Runner) -> None:
    loop = runner.get_loop()
    told: list[Any] = []
    loop.set_exception_handler(lambda _loop, context: told.append(context["exception"]))
    loop.call_soon(print, context="no context")  # type: ignore[arg-type]
    loop.run_until_complete(asyncio.sleep(0))
    assert [type(error) for error in told] == [TypeError]


def test_a_handle_and_what_it_holds_are_freed(runner: asyncio.Runner) -> None:
    loop = runner.get_loop()

    class Held:
        handle: Any = None

        def __call__(self) -> None:
            raise AssertionError("it was cancelled, or never run")

    # A cycle: the handle holds the callback, which holds the handle.
    held = Held()
    held.handle = loop.call_soon(held)
    loop._ready.clear()  # type: ignore[attr-defined]
    gone, handle_gone = weakref.ref(held), weakref.ref(held.handle)
    del held
    gc.collect()
    assert (gone(), handle_gone()) == (None, None)

    other = Held()
    gone = weakref.ref(other)
    handle = loop.call_soon(other)
    handle.cancel()
    del other
    assert gone() is None


def test_debug_mode_has_asyncios_own_handles() -> None:
    with ring_runner(debug=True) as runner:
        loop = runner.get_loop()
        assert isinstance(loop.call_soon(len, ()), asyncio.Handle)
        with pytest.raises(TypeError, match="coroutines cannot be used"):
            loop.call_soon(asyncio.sleep)  # type: ignore[arg-type]
        loop.set_debug(False)
        assert not isinstance(loop.call_soon(len, ()), asyncio.Handle)


def test_a_closed_loop_takes_no_callback() -> None:
    with ring_runner() as runner:
        loop = runner.get_loop()
        call_soon = loop.call_soon
    for call in (loop.call_soon, call_soon):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            call(len, ())
