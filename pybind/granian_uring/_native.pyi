"""The compiled part of granian-uring: the ring, the server, HTTP/1.1, and ASGI's two callables."""

from asyncio import AbstractEventLoop, Task
from collections.abc import Awaitable, Callable, Coroutine
from selectors import SelectorKey
from typing import Any, TypedDict, final

__all__ = [
    "AccessLines",
    "AccessLog",
    "Activation",
    "Exchange",
    "Listeners",
    "Notifier",
    "Trusted",
    "Worker",
    "open_listeners",
    "take_activation",
    "take_notifier",
]

@final
class Activation:
    """What systemd passed to this process, or why that cannot be understood. Used once."""

@final
class Listeners:
    """Listening sockets. A worker takes them; socket files made for them go with this object."""

    @property
    def notices(self) -> list[tuple[str, str]]:
        """`(level, text)` of what there is to log about how they came to be."""
    @property
    def addresses(self) -> list[str]:
        """Where they listen, as a person writes it: `127.0.0.1:8000`, `unix:/run/web.sock`."""

@final
class Notifier:
    """The way to the service manager, sd_notify(3). Never waits; raises `OSError`."""

    def ready(self, status: str) -> None:
        """`READY=1`, with a status line."""
    def status(self, status: str) -> None:
        """A status line."""
    def stopping(self, status: str, seconds: float) -> None:
        """`STOPPING=1`, with a status line, and the seconds that stopping may take."""
    @property
    def watchdog_seconds(self) -> float | None:
        """Seconds within which a sign of life is wanted; None without a watchdog."""

@final
class AccessLog:
    """A compiled format of the access log, and the stream that it goes to."""

    def __new__(
        cls,
        format: str | None,
        *,
        json: bool,
        journal: bool,
        request_id_header: str | None,
        fd: int | None,
    ) -> AccessLog:
        """`fd` is duplicated. Raises `OperatorError` for a format that cannot be used."""

@final
class AccessLines:
    """Lines of the access log, for whoever asks."""

    def next(self) -> list[str] | None:
        """Waits for the next lines; None when no more will come."""

@final
class Trusted:
    """The peers whose word about their clients is taken."""

    def __new__(cls, peers: list[str]) -> Trusted:
        """None at all means the default. Raises `OperatorError` for what is no peer."""

@final
class Exchange:
    """An ASGI request under way."""

    def receive(self) -> Coroutine[Any, Any, dict[str, Any]]:
        """ASGI's `receive`."""
    def send(self, message: dict[str, Any], /) -> Awaitable[None]:
        """ASGI's `send`. The message takes effect at once; awaiting it waits for the peer."""
    def task_ended(self, _task: Task[Any]) -> None:
        """The task of this request has ended, however that came."""
    def finish(self) -> str | None:
        """The application is done with this request.

        None when it was answered; else "gone" (its client left, or was refused, before that),
        "refused" (the client got a 500 in its place) or "aborted" (the connection was reset in the
        middle of an answer). To be called once.
        """

class _WorkerOptions(TypedDict):
    backpressure: int
    max_connections: int
    overload: str
    request_timeout: float | None
    max_body_size: int | None
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
    default_headers: bool
    request_id_header: str | None
    report_refusals: bool
    proxy_headers: bool
    proxy_headers_format: str
    proxy_trusted: Trusted
    proxy_rewrite_host: bool
    proxy_prefix: bool
    proxy_strip_untrusted: bool

@final
class Worker:
    """One ring with its server. Belongs to the thread that makes it."""

    def __new__(cls, listeners: Listeners, options: _WorkerOptions) -> Worker:
        """Takes the listeners. Raises `OperatorError` for a ring that the kernel refuses."""
    def attach(
        self,
        event_loop: AbstractEventLoop,
        epoll_fd: int,
        foreign_select: Callable[[float | None], list[Any]],
        dispatch_event: tuple[SelectorKey, int],
    ) -> None:
        """Says which loop runs on this ring, and how its selector is reached. Once."""
    def host(
        self,
        *,
        serve: Callable[[dict[str, Any], Exchange, bool], Coroutine[Any, Any, None]],
        task: type[Task[Any]],
        task_options: dict[str, Any],
        report: Callable[[str, str], None],
        drained: Callable[[], None],
        root_path: str,
        state: dict[str, Any] | None,
    ) -> None:
        """Says whom to call for requests. Once, before the first is accepted."""
    def log_access(self, log: AccessLog, by_lines: bool) -> AccessLines | None:
        """Logs each request of connections accepted from now on.

        To the log's stream, or with `by_lines` as lines that must be asked for, on a thread.
        """
    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """`RingSelector.select`: turns of the server until there is something for Python."""
    def dispatch(self) -> None:
        """Hands the server's events to the application. The loop's permanent reader."""
    def start(self) -> None:
        """Arms an accept on every listener, now."""
    def start_watchdog(self, notifier: Notifier) -> None:
        """Pings the service manager from the turns: at once, then each half of its period."""
    def drain(self) -> None:
        """Begins to drain; `drained` is called when that is over."""
    def cut(self) -> int:
        """Cuts every connection. Returns how many had a request under way."""
    @property
    def census(self) -> tuple[int, int, int]:
        """`(connections, queued requests, running requests)`."""
    @property
    def tasks(self) -> list[Task[Any]]:
        """The tasks of requests that the application is working on."""
    def abandon(self) -> None:
        """In a forked child: lets go of what is the parent's."""
    def close(self) -> int:
        """Gives the ring back, in order: nothing is accepted or answered after this.

        Waits for the access log's last line, 2 s at most; returns how many lines were lost.
        """

def take_activation() -> Activation:
    """Reads and removes `LISTEN_*`, before any thread is started."""

def take_notifier() -> Notifier:
    """Reads and removes `NOTIFY_SOCKET` and `WATCHDOG_*`, before any thread is started."""

def open_listeners(
    activation: Activation,
    *,
    fd_from_systemd: bool,
    fd_names: list[str],
    fds: list[int],
    host: str | None,
    port: int | None,
    uds: str | None,
    uds_permissions: int | None,
    backlog: int,
    proxy_protocol: list[str],
) -> Listeners:
    """Opens every socket that was asked for. Raises `OperatorError`."""
