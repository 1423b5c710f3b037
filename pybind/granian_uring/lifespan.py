"""Startup before the first request and shutdown after the last: ASGI's lifespan, RSGI's hooks.

https://asgi.readthedocs.io/en/latest/specs/lifespan.html. An application that does not know the
protocol may raise when it is called with it; that is tolerated as long as it has not taken the
startup message. One that raises after that has failed to start.

RSGI has two plain functions for it, `__rsgi_init__(loop)` and `__rsgi_del__(loop)`. The loop is not
running meanwhile, so that they can say `loop.run_until_complete(...)`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["Lifespan", "LifespanFailed", "call_hook"]

logger = logging.getLogger("granian")

Message = MutableMapping[str, Any]
Application = Callable[[Any, Any, Any], Awaitable[None]]


class LifespanFailed(Exception):
    """The application's startup or shutdown failed; the log has said how."""


def call_hook(application: Any, name: str, loop: asyncio.AbstractEventLoop) -> None:
    """Calls `__rsgi_init__` or `__rsgi_del__`, if the application has it; raises `LifespanFailed`.

    KeyboardInterrupt and SystemExit are passed on.
    """
    hook = getattr(application, name, None)
    if hook is None:
        return
    try:
        hook(loop)
    except Exception as error:
        trace = error.__traceback__.tb_next if error.__traceback__ else None
        logger.error("the application's %s failed", name, exc_info=(type(error), error, trace))
        raise LifespanFailed(f"the application's {name} failed: {error}") from error


class Lifespan:
    """The lifespan of one application. `state` is what its requests get a copy of."""

    def __init__(self, application: Application, state: dict[str, Any]) -> None:
        self._application = application
        self._state = state
        self._task: asyncio.Task[None] | None = None
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._taken = False

    async def startup(self) -> None:
        """Runs the startup. Raises `LifespanFailed`; an application without lifespan is fine."""
        self._task = asyncio.create_task(self._run(), name="lifespan")
        answer = await self._exchange("lifespan.startup")
        if answer is None:
            if self._taken:
                raise LifespanFailed("the application ended in its startup")
            return
        self._check(answer, "startup")

    async def shutdown(self) -> None:
        """Runs the shutdown, if the application takes part. Raises `LifespanFailed`."""
        if self._task is None or self._task.done():
            return
        answer = await self._exchange("lifespan.shutdown")
        if answer is not None:
            self._check(answer, "shutdown")

    async def cancel(self, seconds: float) -> None:
        """Ends the application's part, whatever it is doing; gives up after that many seconds."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=seconds)

    async def _exchange(self, kind: str) -> Message | None:
        """The answer to a message; None when the application ended without one."""
        assert self._task is not None
        self._messages.put_nowait({"type": kind})
        answer = asyncio.create_task(self._answers.get())
        try:
            await asyncio.wait([answer, self._task], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done() and not self._answers.empty():
                return self._answers.get_nowait()
            return answer.result() if answer.done() else None
        finally:
            answer.cancel()

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._state,
        }
        try:
            await self._application(scope, self._receive, self._send)
        except Exception as error:
            if self._taken:
                trace = error.__traceback__.tb_next if error.__traceback__ else None
                logger.error(
                    "the application raised in its lifespan",
                    exc_info=(type(error), error, trace),
                )
            else:
                logger.debug("the application has no lifespan: it raised %r", error)

    async def _receive(self) -> Message:
        message = await self._messages.get()
        self._taken = True
        return message

    async def _send(self, message: Message) -> None:
        if not isinstance(message, MutableMapping):
            raise TypeError(f"send takes a dict, got {type(message).__name__}")
        self._answers.put_nowait(message)

    @staticmethod
    def _check(answer: Message, phase: str) -> None:
        match answer.get("type"):
            case kind if kind == f"lifespan.{phase}.complete":
                return
            case kind if kind == f"lifespan.{phase}.failed":
                text = str(answer.get("message") or "the application gave no reason").rstrip()
                logger.error("the application's %s failed: %s", phase, text)
            case kind:
                logger.error(
                    "the application answered lifespan.%s with %r, expected lifespan.%s.complete",
                    phase,
                    kind,
                    phase,
                )
        raise LifespanFailed(f"the application's {phase} failed")
