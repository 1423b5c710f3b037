"""One application on one worker: its start, its requests, its drain and its end.

What is said here holds in every process. `granian_uring.worker` makes a process of it, with
signals, systemd and exit codes; `granian_uring.embedded` a server beside other things on a loop.

Requests come to `serve_asgi` and `serve_rsgi` from `granian_uring._native.Worker`, one task each.
"""

import asyncio
import contextlib
import logging
import os
import resource
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeAlias

from granian_uring import _native, files, loader, logs, wsgi
from granian_uring.config import Settings
from granian_uring.errors import ExitCode, is_disconnect
from granian_uring.lifespan import Lifespan, LifespanFailed, call_hook

__all__ = [
    "SHUTDOWN_SECONDS",
    "TASKS_SECONDS",
    "Service",
    "Wish",
    "exit_code",
    "leave_child",
    "new_access_log",
    "new_worker",
    "open_listeners",
    "report",
]

logger = logging.getLogger("granian")

_Scope: TypeAlias = dict[str, Any] | _native.RSGIScope
# What an application raises that wants its process to end.
Wish: TypeAlias = KeyboardInterrupt | SystemExit

# Descriptors that are not connections: standard streams, ring, epoll, listeners, what the
# application opens. The rest of RLIMIT_NOFILE is for connections.
_RESERVED_FDS = 256
# The application's lifespan shutdown may take this long, also after a drain that used up its time.
SHUTDOWN_SECONDS = 5.0
# Tasks that the application left behind may take this long to clean up when they are cancelled.
TASKS_SECONDS = 1.0
# Handlers of the application may take this long for the last lines of the access log.
_ACCESS_SECONDS = 2.0


def open_listeners(settings: Settings, activation: _native.Activation) -> _native.Listeners:
    """Opens the sockets that were asked for, and logs what there is to say of them."""
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
        report(level, text)
    return listeners


def new_worker(
    settings: Settings,
    listeners: _native.Listeners,
    runtime: _native.RuntimeChoice,
    interface: str,
    trusted: _native.Trusted,
) -> _native.Worker:
    """A runtime with its server, for a loop of the calling thread."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    worker = _native.Worker(
        listeners,
        runtime,
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
    for level, text in worker.notices:
        report(level, text)
    logger.info("the runtime: %s", worker.runtime)
    return worker


def new_access_log(settings: Settings) -> _native.AccessLog:
    """Compiles the format, and takes stdout as it is now: the application may put another there."""
    return _native.AccessLog(
        settings.access_log_fmt,
        json=settings.access_log_json,
        journal=logs.is_journal(sys.stdout),
        request_id_header=settings.request_id_header,
        fd=_stdout_fd(),
    )


def _stdout_fd() -> int | None:
    """None where stdout was closed before the program started, or is no file of the system."""
    with contextlib.suppress(OSError, ValueError):
        return sys.stdout.fileno() if sys.stdout else None
    return None


def report(level: str, text: str) -> None:
    """Logs what the compiled part has to say."""
    logger.log(logging.getLevelNamesMapping()[level.upper()], "%s", text)


class Service:
    """One application on one worker.

    In this order: `call_hook("__rsgi_init__")`, `start_up`, `accept`, `drain`, `shut_down`,
    `call_hook("__rsgi_del__")`, `close`. `leave` is called when the application raises the wish to
    end the process.
    """

    def __init__(
        self,
        settings: Settings,
        application: Any,
        interface: str,
        worker: _native.Worker,
        loop: asyncio.AbstractEventLoop,
        *,
        leave: Callable[[Wish], None],
    ) -> None:
        self.is_child = False
        """This is a process that the application forked."""
        self.access_writer: threading.Thread | None = None
        """Gives the lines of the access log to Python's, if that is where they go."""
        self._settings = settings
        self._interface = interface
        self._served = application
        self._application = loader.entrance(application, interface)
        self._worker = worker
        self._loop = loop
        self._leave = leave
        self._state: dict[str, Any] | None = {} if interface == "asgi" else None
        self._lifespan: Lifespan | None = None
        self._drained = asyncio.Event()
        self._cut = False
        self._senders: set[asyncio.Task[None]] = set()
        # A task that need not wait never touches the loop, where Python can do that (3.12).
        task_options: dict[str, Any] = {"loop": loop, "name": "request"}
        if sys.version_info >= (3, 12):
            task_options["eager_start"] = True
        worker.host(
            interface=interface,
            serve=self.serve_rsgi if interface == "rsgi" else self.serve_asgi,
            task=asyncio.Task,
            task_options=task_options,
            report=report,
            drained=self._drained.set,
            send_file=self._send_file,
            root_path=settings.url_path_prefix or "",
            state=self._state,
        )
        if interface == "wsgi":
            wsgi.host(worker, self._application, settings, self._leave_from_thread)

    def call_hook(self, name: str) -> None:
        """Calls `__rsgi_init__` or `__rsgi_del__` of an RSGI application: `lifespan.call_hook`."""
        if self._interface == "rsgi":
            call_hook(self._served, name, self._loop)

    async def start_up(self) -> None:
        """Runs the lifespan's startup. Raises `LifespanFailed`; the log has said how."""
        if self._state is not None:
            self._lifespan = Lifespan(self._application, self._state)
            await self._lifespan.startup()

    async def give_up_start(self) -> None:
        """Ends a lifespan that is not done with its startup, or has failed to start."""
        if self._lifespan is not None:
            await self._lifespan.cancel(TASKS_SECONDS)

    def accept(self, access: _native.AccessLog | None) -> None:
        """Accepts from now on, and logs requests to `access`."""
        if access is not None:
            self._log_access(access)
        self._worker.start()

    async def drain(self) -> None:
        """Accepts no more, and waits for requests under way, at most `--graceful-timeout`."""
        seconds = self._settings.graceful_timeout
        _, _, running = self._worker.census
        logger.info("draining: %d requests under way, at most %g s", running, seconds)
        self._worker.drain()
        if not await _wait(self._drained, seconds):
            self._cut = True
            cut = self._worker.cut()
            logger.warning(
                "--graceful-timeout is over: cut %d connections with a request under way", cut
            )
            for task in self._worker.tasks:
                task.cancel()
            await _wait(self._drained, TASKS_SECONDS)

    async def shut_down(self) -> None:
        """Runs the lifespan's shutdown."""
        if self._lifespan is None:
            return
        try:
            await asyncio.wait_for(self._lifespan.shutdown(), SHUTDOWN_SECONDS)
        except LifespanFailed:
            pass
        except TimeoutError:
            logger.error(
                "the application's lifespan shutdown took more than %g s", SHUTDOWN_SECONDS
            )
        await self._lifespan.cancel(TASKS_SECONDS)

    def close(self) -> None:
        """Gives the ring back, in order: see the head of `src/proactor/uring.rs`."""
        lost = self._worker.close()
        if lost:
            logger.warning("%d lines of the access log are lost: they could not be written", lost)
        # It knows us too, and so neither would go.
        del self._worker

    def join_access_log(self) -> None:
        """Waits, after `close`, until the last lines are logged: for a while."""
        if self.access_writer is not None:
            self.access_writer.join(_ACCESS_SECONDS)

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
        if self.is_child:
            leave_child(error)
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

    def _leave_from_thread(self, wish: Wish) -> None:
        """The application wants to end the process, from the thread of a WSGI application."""
        if self.is_child:
            leave_child(wish)
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._leave, wish)

    def _log_access(self, access: _native.AccessLog) -> None:
        """Opens the access log: by now handlers of the application's own are there, if any."""
        by_lines = logs.access_logger.hasHandlers()
        if not by_lines and _stdout_fd() is None:
            return
        lines = self._worker.log_access(access, by_lines)
        if lines is not None:
            # A daemon, lest a handler that hangs outlive the time to stop; it is waited for above.
            self.access_writer = threading.Thread(
                target=logs.pass_on, args=(lines,), name="access-log", daemon=True
            )
            self.access_writer.start()


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


def exit_code(wish: Wish) -> int:
    """What the process returns that ends because of `wish`."""
    if isinstance(wish, KeyboardInterrupt):
        return int(ExitCode.INTERRUPTED)
    return wish.code if isinstance(wish.code, int) else int(wish.code is not None)


def leave_child(wish: BaseException) -> NoReturn:
    """Ends a forked child, without the way out that would undo what belongs to its parent."""
    if not isinstance(wish, (KeyboardInterrupt, SystemExit)):
        logger.error("a child that the application forked did not end by itself", exc_info=wish)
        wish = SystemExit(1)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code(wish))


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
