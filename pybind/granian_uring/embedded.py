"""A server in a program of yours, on the loop that runs there.

    async with granian_uring.Server(app, port=0) as server:
        print(server.addresses)
        await server.serve()

The loop is whichever runs: asyncio's, uvloop, rloop. The ring is its guest: `pybind/src/guest.rs`.
The process stays yours: no signal is handled, no limit raised, no log configured, no variable read,
and what goes wrong is raised. `docs/embedding.md` tells the rest.
"""

import asyncio
import atexit
import contextlib
import logging
import os
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack

import click

from granian_uring import _native, loader, wsgi
from granian_uring.config import OPTIONS, Octal, Option, Settings
from granian_uring.lifespan import LifespanFailed
from granian_uring.service import Service, Wish, new_access_log, new_worker, open_listeners

__all__ = ["Server", "ServerOptions"]

logger = logging.getLogger("granian")

# Threads of a WSGI application may take this long to be done with their last requests.
_THREADS_SECONDS = 2.0


class ServerOptions(TypedDict, total=False):
    """What a `Server` can be told: options of the command line, with their names and bounds."""

    fds: tuple[int, ...] | list[int]
    host: str | None
    port: int | None
    uds: str | os.PathLike[str] | None
    uds_permissions: int | None
    backlog: int
    runtime: str
    interface: str
    factory: bool
    url_path_prefix: str | None
    blocking_threads: int | None
    blocking_threads_idle_timeout: float
    backpressure: int
    overload: str
    max_connections: int | None
    request_timeout: float | None
    max_body_size: int | None
    graceful_timeout: float
    default_headers: bool
    http1_keep_alive: bool
    http1_pipeline_depth: int
    http1_buffer_size: int
    http1_max_headers: int
    http1_max_target_size: int
    http1_max_trailer_size: int
    http1_first_byte_timeout: float
    http1_header_read_timeout: int
    http1_keep_alive_timeout: float
    http1_body_timeout: float
    http1_body_min_rate: int
    http1_write_timeout: float
    http1_linger_timeout: float
    ws: bool
    ws_max_size: int
    ws_ping_interval: float
    ws_ping_timeout: float
    ws_per_message_deflate: str
    proxy_headers: bool
    proxy_headers_format: str
    proxy_trusted: tuple[str, ...] | list[str]
    proxy_protocol: tuple[str, ...] | list[str]
    proxy_rewrite_host: bool
    proxy_prefix: bool
    proxy_strip_untrusted: bool
    access_log: bool
    access_log_fmt: str | None
    access_log_json: bool
    request_id_header: str | None


class Server:
    """A server of one application, on the running loop. Serves once.

    `app` is the application itself, or with `factory=True` a function that makes it. Everything
    else is an option of the command line; `ValueError` for what is out of its bounds.
    """

    def __init__(self, app: Any, **options: Unpack[ServerOptions]) -> None:
        self._app = app
        self._settings = _settings(dict(options))
        self._listeners: _native.Listeners | None = None
        self._generation: _Generation | None = None
        self._stop = asyncio.Event()
        # Between two states, of which others see either.
        self._changing = asyncio.Lock()

    @property
    def addresses(self) -> list[str]:
        """Where it listens: `127.0.0.1:8000`, `unix:/run/web.sock`. Empty before it has started."""
        return self._listeners.addresses if self._listeners is not None else []

    async def __aenter__(self) -> Self:
        """Starts: when this returns, clients are served.

        Raises `OperatorError` where a socket or the kernel keeps it from that, `LifespanFailed`
        where the application does.
        """
        async with self._changing:
            if self._listeners is not None:
                raise RuntimeError("a Server serves once; make another one")
            self._listeners = open_listeners(self._settings, _native.Activation())
            try:
                self._generation = await self._start(self._app)
            except BaseException:
                self._listeners.close()
                raise
            logger.info("listening on %s", ", ".join(self.addresses))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drains, and gives everything back. Cancelled meanwhile, it does so at once."""
        self._stop.set()
        async with self._changing:
            generation, self._generation = self._generation, None
            try:
                if generation is not None:
                    await generation.end()
            finally:
                if self._listeners is not None:
                    self._listeners.close()

    async def serve(self) -> None:
        """Serves until `stop` is called; starts and ends the server too, outside of `async with`.

        Who cancels this ends it in the same way.
        """
        if self._generation is None:
            async with self:
                await self._stop.wait()
        else:
            await self._stop.wait()

    def stop(self) -> None:
        """Has `serve` return. On the thread of the loop, as everything here."""
        self._stop.set()

    async def reload(self, app: Any = None) -> None:
        """Serves `app` from now on: by default the same, or what the factory makes anew.

        Its startup comes first; then it takes new connections, and the requests that the one before
        has under way are answered; then that one's shutdown. Where the startup fails, which raises
        as it does at the start, the one before goes on.
        """
        async with self._changing:
            before = self._generation
            if before is None:
                raise RuntimeError("the server does not serve")
            if app is None:
                app = self._app
            self._generation = await self._start(app)
            self._app = app
            await before.end()

    async def _start(self, app: Any) -> "_Generation":
        assert self._listeners is not None
        application = app() if self._settings.factory else app
        generation = _Generation(self._settings, application, self._listeners.share())
        try:
            await generation.start()
        except BaseException:
            await generation.give_up()
            raise
        return generation


class _Generation:
    """One application on one ring, from `reload` to `reload`."""

    def __init__(self, settings: Settings, application: Any, listeners: _native.Listeners) -> None:
        interface = loader.interface(application, settings.interface)
        wsgi.check_threads(settings.blocking_threads, interface)
        logger.info("the application: %s", loader.describe(application, interface))
        trusted = _native.Trusted(list(settings.proxy_trusted))
        self._access = new_access_log(settings) if settings.access_log else None
        runtime = _native.RuntimeChoice(settings.runtime)
        self._worker = new_worker(settings, listeners, runtime, interface, trusted)
        loop = asyncio.get_running_loop()
        self._worker.attach_to(loop)
        self._service = Service(settings, application, interface, self._worker, loop, leave=_leave)

    async def start(self) -> None:
        """Runs the application's startup, and accepts from then on."""
        self._service.call_hook("__rsgi_init__")
        await self._service.start_up()
        self._service.accept(self._access)

    async def give_up(self) -> None:
        """Ends one that has not started."""
        try:
            await self._service.give_up_start()
        finally:
            self._service.close()

    async def end(self) -> None:
        """Drains, and ends the application."""
        try:
            await self._service.drain()
            await self._service.shut_down()
            with contextlib.suppress(LifespanFailed):
                self._service.call_hook("__rsgi_del__")
        finally:
            self._service.close()
        await self._join()

    async def _join(self) -> None:
        """Waits for threads, if there are any."""
        if self._service.access_writer is not None:
            await asyncio.to_thread(self._service.join_access_log)
        if self._worker.threads == 0:
            return
        joining = asyncio.ensure_future(asyncio.to_thread(self._worker.join_threads))
        _, late = await asyncio.wait([joining], timeout=_THREADS_SECONDS)
        if late:
            logger.warning("%d threads of the application still run", self._worker.threads)
            # The interpreter must not go while one is in the middle of a call.
            atexit.register(self._worker.join_threads)


def _leave(wish: Wish) -> None:
    """The application called `sys.exit`: that goes to whoever runs the loop."""
    raise wish


def _settings(options: dict[str, Any]) -> Settings:
    known = {option.name: option for option in OPTIONS}
    values = {}
    for name, value in options.items():
        if name not in ServerOptions.__annotations__:
            raise TypeError(f"Server has no option {name!r}")
        values[name] = _checked(known[name], value)
    return Settings(target="", **values)


def _checked(option: Option, value: Any) -> Any:
    """The value as the command line would have it."""
    if value is None and option.default is None:
        return None
    if isinstance(option.type, Octal) and isinstance(value, int):
        value = f"{value:o}"
    try:
        if option.repeatable:
            return tuple(option.type.convert(one, None, None) for one in value)
        return option.type.convert(value, None, None)
    except click.BadParameter as error:
        raise ValueError(f"{option.name}: {error.message}") from None
