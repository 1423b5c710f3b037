"""The life of a server process: sockets, application, loop, and the way out.

    run ─► sockets ─► application ─► ring and loop ─► lifespan startup ─► READY
        ─► (SIGTERM, SIGINT) drain ─► lifespan shutdown ─► exit

Requests do not come by here: `granian_uring._native.Worker` gives them to `_Service.serve_asgi` or
`serve_rsgi`, one task each.
"""

import asyncio
import contextlib
import faulthandler
import logging
import os
import resource
import signal
import sys
import threading
import types
from collections.abc import Coroutine, Iterator
from typing import Any, NoReturn, TypeAlias

from granian_uring import _native, files, loader, logs, wsgi
from granian_uring.config import Settings
from granian_uring.errors import ExitCode, is_disconnect
from granian_uring.guard import ExitGuard
from granian_uring.lifespan import Lifespan, LifespanFailed, call_hook
from granian_uring.loops import new_event_loop

__all__ = ["run"]

logger = logging.getLogger("granian")

_Scope: TypeAlias = dict[str, Any] | _native.RSGIScope

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
# Descriptors that are not connections: standard streams, ring, epoll, listeners, what the
# application opens. The rest of RLIMIT_NOFILE is for connections.
_RESERVED_FDS = 256
# The application's lifespan shutdown may take this long, also after a drain that used up its time.
_SHUTDOWN_SECONDS = 5.0
# Tasks that the application left behind may take this long to clean up when they are cancelled.
_TASKS_SECONDS = 1.0
# Handlers of the application may take this long for the last lines of the access log.
_ACCESS_SECONDS = 2.0
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

    # What a setting can say wrongly is read before anything is opened or imported.
    access = _access_log(settings)
    trusted = _native.Trusted(list(settings.proxy_trusted))
    logs.configure(
        enabled=settings.log,
        level=settings.log_level,
        config=settings.log_config,
        access=settings.access_log,
    )
    descriptors = _raise_descriptor_limit()
    listeners = _native.open_listeners(
        activation,
        fd_from_systemd=settings.fd_from_systemd,
        fd_names=list(settings.fd_names),
        fds=list(settings.fds),
        host=settings.host,
        port=settings.port,
        uds=settings.uds,
        uds_permissions=settings.uds_permissions,
        backlog=settings.backlog,
        proxy_protocol=list(settings.proxy_protocol),
    )
    for level, text in listeners.notices:
        _report(level, text)

    application = loader.load(
        settings.target, factory=settings.factory, working_dir=settings.working_dir
    )
    interface = loader.interface(application, settings.interface)
    wsgi.check_threads(settings.blocking_threads, interface)
    logger.info("the application: %s", loader.describe(application, interface))
    worker = _native.Worker(
        listeners,
        {
            "backpressure": settings.backpressure,
            "max_connections": settings.max_connections or max(descriptors - _RESERVED_FDS, 16),
            "default_headers": settings.default_headers,
            "overload": settings.overload,
            "request_timeout": settings.request_timeout,
            "max_body_size": settings.max_body_size,
            "http1_keep_alive": settings.http1_keep_alive,
            "http1_pipeline_depth": settings.http1_pipeline_depth,
            "http1_buffer_size": settings.http1_buffer_size,
            "http1_max_headers": settings.http1_max_headers,
            "http1_max_target_size": settings.http1_max_target_size,
            "http1_max_trailer_size": settings.http1_max_trailer_size,
            "http1_first_byte_timeout": settings.http1_first_byte_timeout,
            "http1_header_read_timeout": settings.http1_header_read_timeout,
            "http1_keep_alive_timeout": settings.http1_keep_alive_timeout,
            "http1_body_timeout": settings.http1_body_timeout,
            "http1_body_min_rate": settings.http1_body_min_rate,
            "http1_write_timeout": settings.http1_write_timeout,
            "http1_linger_timeout": settings.http1_linger_timeout,
            "request_id_header": settings.request_id_header,
            "report_refusals": logger.isEnabledFor(logging.DEBUG),
            # WSGI has no word for them: a handshake is a request like any other there.
            "ws": settings.ws and interface != "wsgi",
            "ws_max_size": settings.ws_max_size,
            "ws_ping_interval": settings.ws_ping_interval,
            "ws_ping_timeout": settings.ws_ping_timeout,
            "ws_per_message_deflate": settings.ws_per_message_deflate,
            "proxy_headers": settings.proxy_headers,
            "proxy_headers_format": settings.proxy_headers_format,
            "proxy_trusted": trusted,
            "proxy_rewrite_host": settings.proxy_rewrite_host,
            "proxy_prefix": settings.proxy_prefix,
            "proxy_strip_untrusted": settings.proxy_strip_untrusted,
        },
    )
    service = _Service(
        settings, application, interface, worker, notifier, access if settings.access_log else None
    )
    return service.run(listeners.addresses)


def _access_log(settings: Settings) -> _native.AccessLog:
    """Compiles the format, and takes stdout as it is now: the application may put another there."""
    return _native.AccessLog(
        settings.access_log_fmt,
        json=settings.access_log_json,
        journal=logs.is_journal(sys.stdout),
        request_id_header=settings.request_id_header,
        fd=sys.stdout.fileno() if sys.stdout else None,
    )


def _report(level: str, text: str) -> None:
    """Logs what the compiled part has to say."""
    logger.log(logging.getLevelNamesMapping()[level.upper()], "%s", text)


def _refuse_reload() -> None:
    logger.warning("SIGHUP: reload is not there yet; use systemctl restart")


def _raise_descriptor_limit() -> int:
    """Raises the soft limit of open files to the hard one (systemd gives 1024); returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some containers have no limit at all; a million is more than the kernel's own default.
    limit = 2**20 if hard == resource.RLIM_INFINITY else hard
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class _Service:
    """One application on one worker, from the first loop iteration to the last."""

    def __init__(
        self,
        settings: Settings,
        application: Any,
        interface: str,
        worker: _native.Worker,
        notifier: _native.Notifier,
        access: _native.AccessLog | None,
    ) -> None:
        self._settings = settings
        self._interface = interface
        self._served = application
        self._application = loader.entrance(application, interface)
        self._worker = worker
        self._notifier = notifier
        self._access = access
        self._access_writer: threading.Thread | None = None
        self._state: dict[str, Any] | None = {} if interface == "asgi" else None
        self._loop = new_event_loop(settings.loop, worker)
        self._lifespan: Lifespan | None = None
        self._stop = asyncio.Event()
        self._drained = asyncio.Event()
        self._interrupts = 0
        self._is_child = False
        self._signal_mask: set[int | signal.Signals] = set()
        self._guard = ExitGuard()
        self._cut = False
        self._senders: set[asyncio.Task[None]] = set()
        # A task that need not wait never touches the loop, where Python can do that (3.12).
        task_options: dict[str, Any] = {"loop": self._loop, "name": "request"}
        if sys.version_info >= (3, 12):
            task_options["eager_start"] = True
        worker.host(
            interface=interface,
            serve=self.serve_rsgi if interface == "rsgi" else self.serve_asgi,
            task=asyncio.Task,
            task_options=task_options,
            report=_report,
            drained=self._drained.set,
            send_file=self._send_file,
            root_path=settings.url_path_prefix or "",
            state=self._state,
        )
        if interface == "wsgi":
            wsgi.host(worker, self._application, settings, self._leave_from_thread)

    def run(self, addresses: list[str]) -> int:
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
                self._serve_until_stopped(addresses)
                self._call_hook("__rsgi_del__")
        except RuntimeError as error:
            if self._is_child:
                # The loop of a child ends in its first turn: the selector is its parent's.
                _leave_child(error)
            raise
        finally:
            self._close()
        return self._guard.code

    def _serve_until_stopped(self, addresses: list[str]) -> None:
        if self._until_stopped(self._start(addresses)):
            self._until_stopped(self._stop.wait())
            self._guard.start(self._stop_seconds)
            self._until_stopped(self._wind_up())

    def _call_hook(self, name: str) -> bool:
        """Calls a hook of an RSGI application; False when it failed."""
        if self._interface != "rsgi":
            return True
        try:
            call_hook(self._served, name, self._loop)
        except (KeyboardInterrupt, SystemExit) as error:
            self._leave(error)
        except LifespanFailed:
            pass
        else:
            return True
        if name == "__rsgi_init__":
            logger.error("the application could not start; nothing was accepted")
            # What the application gave to sys.exit is more precise.
            self._guard.code = self._guard.code or int(ExitCode.LIFESPAN)
        return False

    async def serve_asgi(
        self,
        scope: dict[str, Any],
        exchange: _native.ASGIExchange | _native.ASGIWebSocket,
        pause: bool,
    ) -> None:
        """One request: calls the application, and answers in its place if it fails to.

        With `pause` it rests once before that; whoever made it takes it to that point, so that
        whatever happens to its task afterwards ends in one of the branches below.
        """
        try:
            if pause:
                await _pause()
            await self._application(scope, exchange.receive, exchange.send)
        except BaseException as error:
            if self._is_passed_on(scope, exchange, error):
                raise
        else:
            left = exchange.complete()
            if left is not None:
                _report_unanswered(scope, left)

    async def serve_rsgi(
        self,
        scope: _native.RSGIScope,
        protocol: _native.RSGIHTTPProtocol | _native.RSGIWebsocketProtocol,
        pause: bool,
    ) -> None:
        """As `serve_asgi`. A stream that is still open when the application returns is complete."""
        try:
            if pause:
                await _pause()
            await self._application(scope, protocol)
        except BaseException as error:
            if self._is_passed_on(scope, protocol, error):
                raise
        else:
            left = protocol.complete()
            if left is not None:
                _report_unanswered(scope, left)

    def _is_passed_on(
        self, scope: _Scope, exchange: _native.Exchange, error: BaseException
    ) -> bool:
        """Takes leave of a request whose application raised. True if its task has to as well."""
        if self._is_child:
            _leave_child(error)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            # Not raised again: asyncio would report it as never retrieved from this task.
            exchange.finish()
            self._leave(error)
            return False
        left = exchange.finish()
        if isinstance(error, GeneratorExit):
            # The task is gone before its end: no reason to leave the client without an answer.
            return True
        cancelled = isinstance(error, asyncio.CancelledError)
        # Cancelled because its time or ours was over: the log has that already.
        if not (cancelled and (self._cut or left == "gone")):
            self._failed(scope, left, error)
        return cancelled

    def _send_file(self, response: _native.FileResponse) -> None:
        """Has a file sent by a task of its own; the loop keeps weak references only."""
        task = asyncio.Task(files.send(response), loop=self._loop, name="file")
        self._senders.add(task)
        task.add_done_callback(self._senders.discard)

    async def _start(self, addresses: list[str]) -> bool:
        """Starts the application, then accepting. False when it did not come to that."""
        # What came while the loop did not run comes first.
        await asyncio.sleep(0)
        if self._stop.is_set():
            return False
        if self._state is not None:
            self._lifespan = Lifespan(self._application, self._state)
            self._tell(lambda: self._notifier.status("starting the application"))
            startup = asyncio.ensure_future(self._lifespan.startup())
            stop = asyncio.ensure_future(self._stop.wait())
            await asyncio.wait([startup, stop], return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if not startup.done():
                logger.info("told to stop before the application had started")
                self._tell(lambda: self._notifier.stopping("stopping", self._stop_seconds))
                startup.cancel()
                await self._lifespan.cancel(_TASKS_SECONDS)
                return False
            try:
                startup.result()
            except LifespanFailed:
                logger.error("the application could not start; nothing was accepted")
                # What the application gave to sys.exit is more precise.
                self._guard.code = self._guard.code or int(ExitCode.LIFESPAN)
                return False
        self._log_access()
        self._worker.start()
        for address in addresses:
            shown = address if address.startswith("unix:") else f"http://{address}"
            logger.info("listening on %s", shown)
        await self._tell_ready()
        return True

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
        settings = self._settings
        seconds = settings.graceful_timeout
        _, _, running = self._worker.census
        logger.info("draining: %d requests under way, at most %g s", running, seconds)
        self._tell(lambda: self._notifier.stopping("draining", self._stop_seconds))
        self._worker.drain()
        if not await _wait(self._drained, seconds):
            self._cut = True
            cut = self._worker.cut()
            logger.warning(
                "--graceful-timeout is over: cut %d connections with a request under way", cut
            )
            for task in self._worker.tasks:
                task.cancel()
            await _wait(self._drained, _TASKS_SECONDS)
        if self._lifespan is not None:
            try:
                await asyncio.wait_for(self._lifespan.shutdown(), _SHUTDOWN_SECONDS)
            except LifespanFailed:
                pass
            except TimeoutError:
                logger.error(
                    "the application's lifespan shutdown took more than %g s", _SHUTDOWN_SECONDS
                )
            await self._lifespan.cancel(_TASKS_SECONDS)

    @property
    def _stop_seconds(self) -> float:
        """How long the way out may take, from the wish to stop to the end of the process."""
        # Tasks are cancelled at the end of the drain, of the lifespan, and of the loop.
        return (
            self._settings.graceful_timeout
            + _SHUTDOWN_SECONDS
            + 3 * _TASKS_SECONDS
            + _THREADS_SECONDS
        )

    async def _clean_up(self) -> None:
        """Ends what the application left behind, as `asyncio.run` does."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            _, running = await asyncio.wait(tasks, timeout=_TASKS_SECONDS)
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

    def _leave(self, wish: KeyboardInterrupt | SystemExit) -> None:
        """Begins to stop, because the application's code raised the wish to."""
        if self._is_child:
            _leave_child(wish)
        if isinstance(wish, KeyboardInterrupt):
            logger.error("KeyboardInterrupt in the application: stopping")
        else:
            logger.error("the application called sys.exit(%r): stopping", wish.code)
        self._guard.code = _exit_code(wish)
        self._stop.set()

    def _leave_from_thread(self, wish: KeyboardInterrupt | SystemExit) -> None:
        """The same, from the thread of a WSGI application."""
        if self._is_child:
            _leave_child(wish)
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._leave, wish)

    def _before_fork(self) -> None:
        # A signal for a new child must not be taken with our handlers, and be lost.
        self._signal_mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)

    def _after_fork(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._signal_mask)

    def _in_child(self) -> None:
        """In a process that the application forked: the loop, the ring and the signals are ours."""
        self._is_child = True
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with contextlib.suppress(RuntimeError):
            self._worker.abandon()
        # The loop of a child ends when it comes back to it. One on the ring does so by itself: its
        # selector is the parent's.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon(_leave_child, RuntimeError("it came back to the server's loop"))
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
        """Gives everything back, the ring in order: see the head of `src/proactor/uring.rs`."""
        self._guard.start(_TASKS_SECONDS + _THREADS_SECONDS)
        with contextlib.suppress(Exception):
            self._until_stopped(self._clean_up())
        lost = self._worker.close()
        if self._access_writer is not None:
            self._access_writer.join(_ACCESS_SECONDS)
        if lost:
            logger.warning("%d lines of the access log are lost: they could not be written", lost)
        self._loop.close()
        asyncio.set_event_loop(None)
        logger.info("stopped")

    def _failed(self, scope: _Scope, left: str | None, error: BaseException) -> None:
        if is_disconnect(error):
            logger.debug("%s: the client left before its answer was complete", _describe(scope))
            return
        # The first frame is ours.
        trace = error.__traceback__.tb_next if error.__traceback__ else None
        logger.error(
            "%s: the application raised %s; %s",
            _describe(scope),
            type(error).__name__,
            _CONSEQUENCES[left],
            exc_info=(type(error), error, trace),
        )

    def _tell(self, send: Any) -> None:
        """Sends to the service manager, which may be gone."""
        try:
            send()
        except OSError as error:
            logger.warning("cannot notify the service manager: %s", error)

    def _log_access(self) -> None:
        """Opens the access log: by now handlers of the application's own are there, if any."""
        if self._access is None:
            return
        by_lines = logs.access_logger.hasHandlers()
        if not by_lines and sys.stdout is None:
            return
        lines = self._worker.log_access(self._access, by_lines)
        if lines is not None:
            # A daemon, lest a handler that hangs outlive the time to stop; it is waited for below.
            self._access_writer = threading.Thread(
                target=logs.pass_on, args=(lines,), name="access-log", daemon=True
            )
            self._access_writer.start()


_CONSEQUENCES = {
    None: "the client had its answer",
    "gone": "nobody waited for its answer any more",
    "refused": "the client got a 500",
    "aborted": "its answer had begun, so the connection was reset",
    "failed": "its WebSocket was closed with code 1011",
}


def _report_unanswered(scope: _Scope, left: str) -> None:
    if left != "gone":
        logger.error(
            "%s: the application returned without completing its response; %s",
            _describe(scope),
            _CONSEQUENCES[left],
        )


def _exit_code(wish: KeyboardInterrupt | SystemExit) -> int:
    if isinstance(wish, KeyboardInterrupt):
        return int(ExitCode.INTERRUPTED)
    return wish.code if isinstance(wish.code, int) else int(wish.code is not None)


def _leave_child(wish: BaseException) -> NoReturn:
    """Ends a forked child, without the way out that would undo what belongs to its parent."""
    if not isinstance(wish, (KeyboardInterrupt, SystemExit)):
        logger.error("a child that the application forked did not end by itself", exc_info=wish)
        wish = SystemExit(1)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_exit_code(wish))


@types.coroutine
def _pause() -> Iterator[None]:
    """Rests until the next step."""
    yield


def _describe(scope: _Scope) -> str:
    """`GET /path`, for a log line: what a client sent is shown escaped."""
    if isinstance(scope, dict):
        return ascii(f"{scope.get('method', 'WebSocket')} {scope['path']}")[1:-1]
    method = "WebSocket" if scope.proto == "ws" else scope.method
    return ascii(f"{method} {scope.path}")[1:-1]


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    """Waits for `event`; False when the time was up first."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
