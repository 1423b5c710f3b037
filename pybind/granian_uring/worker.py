"""The life of a server process: sockets, application, loop, and the way out.

    run ─► sockets ─► application ─► ring and loop ─► lifespan startup ─► READY
        ─► (SIGTERM, SIGINT) drain ─► lifespan shutdown ─► exit

What is served, and how it starts and ends, is a `granian_uring.service.Service`. Here is what a
process adds: systemd, signals, limits, forked children, exit codes.
"""

import asyncio
import atexit
import contextlib
import faulthandler
import logging
import os
import resource
import signal
from collections.abc import Coroutine
from typing import Any

from granian_uring import _native, loader, logs, wsgi
from granian_uring.config import Settings
from granian_uring.errors import ExitCode
from granian_uring.guard import ExitGuard
from granian_uring.lifespan import LifespanFailed
from granian_uring.loops import new_event_loop
from granian_uring.service import (
    SHUTDOWN_SECONDS,
    TASKS_SECONDS,
    Service,
    Wish,
    exit_code,
    leave_child,
    new_access_log,
    new_worker,
    open_listeners,
)

__all__ = ["run"]

logger = logging.getLogger("granian")

# Variables that speak to this very process; the native part reads them, Python's copy goes too.
_MANAGER_VARIABLES = (
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
)
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Threads that still run may take this long after everything else.
_THREADS_SECONDS = 2.0


def run(settings: Settings) -> int:
    """Serves until told to stop, and returns the exit code.

    Raises `OperatorError` and `ApplicationError` for what keeps the server from starting.
    """
    faulthandler.enable()
    # Until the loop takes the signal over: an import takes its time.
    signal.signal(signal.SIGHUP, lambda *_: _refuse_reload())
    # Before anything can start a thread, and before the application can see the variables.
    activation = _native.take_activation()
    notifier = _native.take_notifier()
    for variable in _MANAGER_VARIABLES:
        os.environ.pop(variable, None)

    # What a setting can say wrongly is read before anything is opened or imported. The runtime
    # may have to be tried in a child, and now that is a small one.
    runtime = _native.RuntimeChoice(settings.runtime)
    access = new_access_log(settings)
    trusted = _native.Trusted(list(settings.proxy_trusted))
    logs.configure(
        enabled=settings.log,
        level=settings.log_level,
        config=settings.log_config,
        access=settings.access_log,
    )
    _raise_descriptor_limit()
    listeners = open_listeners(settings, activation)

    application = loader.load(
        settings.target, factory=settings.factory, working_dir=settings.working_dir
    )
    interface = loader.interface(application, settings.interface)
    wsgi.check_threads(settings.blocking_threads, interface)
    logger.info("the application: %s", loader.describe(application, interface))
    worker = new_worker(settings, listeners, runtime, interface, trusted)
    process = _Process(settings, application, interface, worker, notifier)
    return process.run(listeners.addresses, access if settings.access_log else None)


def _refuse_reload() -> None:
    logger.warning("SIGHUP: reload is not there yet; use systemctl restart")


def _raise_descriptor_limit() -> None:
    """Raises the soft limit of open files to the hard one (systemd gives 1024)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some containers have no limit at all; a million is more than the kernel's own default.
    limit = 2**20 if hard == resource.RLIM_INFINITY else hard
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


class _Process:
    """A service as a process of its own, from the first loop iteration to the last."""

    def __init__(
        self,
        settings: Settings,
        application: Any,
        interface: str,
        worker: _native.Worker,
        notifier: _native.Notifier,
    ) -> None:
        self._settings = settings
        self._worker = worker
        self._notifier = notifier
        self._loop = new_event_loop(settings.loop, worker)
        self._stop = asyncio.Event()
        self._interrupts = 0
        self._signal_mask: set[int | signal.Signals] = set()
        self._guard = ExitGuard()
        self._service = Service(
            settings, application, interface, worker, self._loop, leave=self._leave
        )
        if interface == "wsgi":
            # Before the interpreter goes: a thread that it would find in the middle of a call
            # aborts the process. How long this may take is the business of the exit guard.
            atexit.register(worker.join_threads)

    def run(self, addresses: list[str], access: _native.AccessLog | None) -> int:
        """Runs the loop until the server has stopped; returns the exit code."""
        asyncio.set_event_loop(self._loop)
        os.register_at_fork(
            before=self._before_fork,
            after_in_parent=self._after_fork,
            after_in_child=self._in_child,
        )
        if self._notifier.watchdog_seconds is not None:
            self._worker.start_watchdog(self._notifier)
        for number in _SIGNALS:
            self._loop.add_signal_handler(number, self._on_signal, number)
        # These also act when the loop hangs, or does not run.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop_signal)
        try:
            if self._call_hook("__rsgi_init__"):
                self._serve_until_stopped(addresses, access)
                self._call_hook("__rsgi_del__")
        except RuntimeError as error:
            if self._service.is_child:
                # The loop of a child ends in its first turn: the selector is its parent's.
                leave_child(error)
            raise
        finally:
            self._close()
        return self._guard.code

    def _serve_until_stopped(self, addresses: list[str], access: _native.AccessLog | None) -> None:
        if self._until_stopped(self._start(addresses, access)):
            self._until_stopped(self._stop.wait())
            self._guard.start(self._stop_seconds)
            self._until_stopped(self._wind_up())

    def _call_hook(self, name: str) -> bool:
        """Calls a hook of an RSGI application; False when it failed."""
        try:
            self._service.call_hook(name)
        except (KeyboardInterrupt, SystemExit) as error:
            self._leave(error)
        except LifespanFailed:
            pass
        else:
            return True
        if name == "__rsgi_init__":
            self._note_failed_start()
        return False

    def _note_failed_start(self) -> None:
        logger.error("the application could not start; nothing was accepted")
        # What the application gave to sys.exit is more precise.
        self._guard.code = self._guard.code or int(ExitCode.LIFESPAN)

    async def _start(self, addresses: list[str], access: _native.AccessLog | None) -> bool:
        """Starts the application, then accepting. False when it did not come to that."""
        # What came while the loop did not run comes first.
        await asyncio.sleep(0)
        if self._stop.is_set():
            self._note_early_stop()
            return False
        self._tell(lambda: self._notifier.status("starting the application"))
        startup = asyncio.ensure_future(self._service.start_up())
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait([startup, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not startup.done():
            self._note_early_stop()
            startup.cancel()
            await self._service.give_up_start()
            return False
        try:
            startup.result()
        except LifespanFailed:
            self._note_failed_start()
            return False
        self._service.accept(access)
        for address in addresses:
            shown = address if address.startswith("unix:") else f"http://{address}"
            logger.info("listening on %s", shown)
        await self._tell_ready()
        return True

    def _note_early_stop(self) -> None:
        logger.info("told to stop before the application had started")
        self._tell(lambda: self._notifier.stopping("stopping", self._stop_seconds))

    async def _tell_ready(self) -> None:
        """Says READY, again and again as long as the service manager's queue is full."""
        while True:
            try:
                return self._notifier.ready("serving")
            except BlockingIOError:
                await asyncio.sleep(0.05)
            except OSError as error:
                logger.warning("cannot notify the service manager: %s", error)
                return None

    async def _wind_up(self) -> None:
        """Drains, then shuts the application down."""
        self._tell(lambda: self._notifier.stopping("draining", self._stop_seconds))
        await self._service.drain()
        await self._service.shut_down()

    @property
    def _stop_seconds(self) -> float:
        """How long the way out may take, from the wish to stop to the end of the process."""
        # Tasks are cancelled at the end of the drain, of the lifespan, and of the loop.
        return (
            self._settings.graceful_timeout
            + SHUTDOWN_SECONDS
            + 3 * TASKS_SECONDS
            + _THREADS_SECONDS
        )

    async def _clean_up(self) -> None:
        """Ends what the application left behind, as `asyncio.run` does."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            _, running = await asyncio.wait(tasks, timeout=TASKS_SECONDS)
            if running:
                logger.warning("%d tasks go on although they were cancelled", len(running))
        await self._loop.shutdown_asyncgens()

    def _until_stopped(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Runs `work` to its end, also when the application's code leaves the loop meanwhile.

        SystemExit and KeyboardInterrupt leave `run_forever` from wherever they are raised, and so
        does `loop.stop()`. They are taken as the wish to stop, with their exit code.
        """
        # Not by the loop: the application may have given it a factory of its own.
        task = asyncio.Task(work, loop=self._loop)
        while True:
            try:
                return self._loop.run_until_complete(task)
            except (KeyboardInterrupt, SystemExit) as error:
                self._leave(error)
            except RuntimeError as error:
                if task.done() or "stopped before Future completed" not in str(error):
                    raise
                logger.error("the application stopped the event loop: stopping")
                self._stop.set()
            if task.done():
                return None

    def _leave(self, wish: Wish) -> None:
        """Begins to stop, because the application's code raised the wish to."""
        if self._service.is_child:
            leave_child(wish)
        if isinstance(wish, KeyboardInterrupt):
            logger.error("KeyboardInterrupt in the application: stopping")
        else:
            logger.error("the application called sys.exit(%r): stopping", wish.code)
        self._guard.code = exit_code(wish)
        self._stop.set()

    def _before_fork(self) -> None:
        # A signal for a new child must not be taken with our handlers, and be lost.
        self._signal_mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)

    def _after_fork(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._signal_mask)

    def _in_child(self) -> None:
        """In a process that the application forked: the loop, the ring and the signals are ours."""
        self._service.is_child = True
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with contextlib.suppress(RuntimeError):
            self._worker.abandon()
        # The loop of a child ends when it comes back to it. One on the ring does so by itself: its
        # selector is the parent's.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon(leave_child, RuntimeError("it came back to the server's loop"))
        self._after_fork()

    def _on_signal(self, number: signal.Signals) -> None:
        if number == signal.SIGHUP:
            _refuse_reload()
        elif not self._stop.is_set():
            logger.info("%s: stopping", signal.Signals(number).name)
            self._stop.set()

    def _on_stop_signal(self, number: int, _frame: object) -> None:
        self._guard.start(self._stop_seconds)
        # The loop hears of it by itself as well: but uvloop does not of one that came while it did
        # not run.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._on_signal, signal.Signals(number))
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                # Not through logging, in the middle of which this may have come. The kernel takes
                # the ring back by itself.
                os.write(2, b"second SIGINT: ending at once\n")
                os._exit(ExitCode.INTERRUPTED)

    def _close(self) -> None:
        """Gives everything back."""
        self._guard.start(TASKS_SECONDS + _THREADS_SECONDS)
        with contextlib.suppress(Exception):
            self._until_stopped(self._clean_up())
        self._service.close()
        self._service.join_access_log()
        self._loop.close()
        asyncio.set_event_loop(None)
        logger.info("stopped")

    def _tell(self, send: Any) -> None:
        """Sends to the service manager, which may be gone."""
        try:
            send()
        except OSError as error:
            logger.warning("cannot notify the service manager: %s", error)
