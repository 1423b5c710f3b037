"""The compiled part of granian-uring: ring, server, HTTP/1.1, and what applications call."""

from asyncio import AbstractEventLoop, Task
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextvars import Context
from os import PathLike
from pathlib import Path
from selectors import SelectorKey
from typing import Any, ClassVar, TypedDict, TypeVar, final, overload

from typing_extensions import disjoint_base

__all__ = [
    "VERSION",
    "ASGIExchange",
    "ASGIWebSocket",
    "AccessLines",
    "AccessLog",
    "Activation",
    "Callbacks",
    "Direct",
    "Exchange",
    "FileResponse",
    "Handle",
    "Input",
    "Listeners",
    "Notifier",
    "RSGIHTTPProtocol",
    "RSGIHTTPStreamTransport",
    "RSGIHeaders",
    "RSGIScope",
    "RSGIWebsocketMessage",
    "RSGIWebsocketProtocol",
    "RSGIWebsocketTransport",
    "ReadyFiles",
    "RuntimeChoice",
    "StartResponse",
    "Trusted",
    "Waker",
    "Worker",
    "open_listeners",
    "take_activation",
    "take_notifier",
]

VERSION: str
"""That of the package, as in its metadata."""

@final
class Activation:
    """What systemd passed to this process, or why that cannot be understood. Used once."""

    def __new__(cls) -> Activation:
        """Nothing was passed."""

@final
class Listeners:
    """Listening sockets. A worker takes them; socket files made for them go with this object."""

    @property
    def notices(self) -> list[tuple[str, str]]:
        """`(level, text)` of what there is to log about how they came to be."""
    @property
    def addresses(self) -> list[str]:
        """Where they listen, as a person writes it: `127.0.0.1:8000`, `unix:/run/web.sock`."""
    def share(self) -> Listeners:
        """The same sockets once more, for another worker; their files stay with this object."""
    def close(self) -> None:
        """Closes the sockets that no worker took, and removes the files of all."""

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

@disjoint_base
class Exchange:
    """A request under way, whatever its application speaks."""

    def task_ended(self, _task: Task[Any]) -> None:
        """The task of this request has ended, however that came."""
    def finish(self) -> str | None:
        """The application is done with this request.

        None when it was answered, or is about to be; else "gone" (its client left, or was refused,
        before that), "refused" (the client got a 500 in its place), "aborted" (the connection was
        reset in the middle of an answer) or "failed" (an open WebSocket was closed with code 1011).
        """
    def complete(self) -> str | None:
        """The application has returned. As `finish`, but for interfaces in which that says more."""

@final
class ASGIExchange(Exchange):
    """An ASGI request under way."""

    def receive(self) -> Coroutine[Any, Any, dict[str, Any]]:
        """ASGI's `receive`."""
    def send(self, message: dict[str, Any], /) -> Awaitable[None]:
        """ASGI's `send`. The message takes effect at once; awaiting it waits for the peer."""

_Default = TypeVar("_Default")
_Headers = Iterable[tuple[str, str]]

@final
class ASGIWebSocket(Exchange):
    """A WebSocket for an ASGI application."""

    def receive(self) -> Coroutine[Any, Any, dict[str, Any]]:
        """ASGI's `receive`."""
    def send(self, message: dict[str, Any], /) -> Awaitable[None]:
        """ASGI's `send`. The message takes effect at once; awaiting it waits for the peer."""
    def complete(self) -> str | None:
        """The application has returned: closes with code 1000 if it has not. Then as `finish`."""

@final
class RSGIHeaders:
    """The headers of a request: names are lower case, and looked up in whatever case.

    A header that came on several lines is there once as a key, with the first value, and as often
    as it came in `values`, `items` and `get_all`.
    """

    def keys(self) -> list[str]: ...
    def values(self) -> list[str]: ...
    def items(self) -> list[tuple[str, str]]: ...
    @overload
    def get(self, key: str, default: None = None) -> str | None: ...
    @overload
    def get(self, key: str, default: _Default) -> str | _Default: ...
    def get_all(self, key: str) -> list[str]:
        """The values of every line with this name."""
    def __contains__(self, key: object, /) -> bool: ...
    def __getitem__(self, key: str, /) -> str: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...

@final
class RSGIScope:
    """What was asked, and by whom. Attributes are made when they are read."""

    @property
    def proto(self) -> str:
        """`http`."""
    @property
    def rsgi_version(self) -> str:
        """The version of the specification."""
    @property
    def http_version(self) -> str:
        """`1` or `1.1`."""
    @property
    def server(self) -> str:
        """`address:port`, or the path of a Unix socket."""
    @property
    def client(self) -> str:
        """`address:port`; empty for a client without an address, on a Unix socket."""
    @property
    def scheme(self) -> str:
        """`http` or `https`."""
    @property
    def method(self) -> str:
        """The method as it was sent."""
    @property
    def path(self) -> str:
        """The path, percent-decoded."""
    @property
    def query_string(self) -> str:
        """What follows the question mark, as it was sent."""
    @property
    def authority(self) -> str | None:
        """A pseudo-header of HTTP/2: None."""
    @property
    def headers(self) -> RSGIHeaders:
        """The headers."""

@final
class RSGIHTTPStreamTransport:
    """Where the pieces of a streamed answer go.

    Awaiting a `send_*` waits for the peer. Both raise `ProtocolClosed` when it is gone. The answer
    ends when the application lets go of this object, or returns.
    """

    def send_bytes(self, data: bytes) -> Coroutine[Any, Any, None]: ...
    def send_str(self, data: str) -> Coroutine[Any, Any, None]: ...

@final
class RSGIHTTPProtocol(Exchange):
    """An RSGI request under way: the body comes from it, the answer goes to it.

    The body is taken once, whole or in pieces; else `ProtocolError`. An answer is begun once: a
    second one does nothing, but a stream raises `ProtocolError`.
    """

    def __call__(self) -> Coroutine[Any, Any, bytes]:
        """The whole body. Raises `ProtocolClosed` when the client leaves before its end."""
    def __aiter__(self) -> RSGIHTTPProtocol:
        """The body in pieces, as they come. Raises `ProtocolClosed` as above."""
    def __anext__(self) -> Coroutine[Any, Any, bytes]: ...
    def client_disconnect(self) -> Coroutine[Any, Any, None]:
        """Waits until the client has gone, or the answer is complete."""
    def response_empty(self, status: int = 200, headers: _Headers | None = None) -> None:
        """An answer without a body."""
    def response_bytes(
        self, status: int = 200, headers: _Headers | None = None, body: bytes | None = None
    ) -> None:
        """A whole answer."""
    def response_str(
        self, status: int = 200, headers: _Headers | None = None, body: str | None = None
    ) -> None:
        """A whole answer, in UTF-8."""
    def response_file(self, status: int, headers: _Headers, file: str | PathLike[str]) -> None:
        """A file, sent by the server while the application goes on; a 404 if there is none."""
    def response_file_range(
        self, status: int, headers: _Headers, file: str | PathLike[str], start: int, end: int
    ) -> None:
        """A part of a file: from byte `start` to before `end`."""
    def response_stream(
        self, status: int = 200, headers: _Headers | None = None
    ) -> RSGIHTTPStreamTransport:
        """Begins an answer that comes in pieces."""
    def complete(self) -> str | None:
        """The application has returned: its stream ends with that. Then as `finish`."""

@final
class RSGIWebsocketProtocol(Exchange):
    """A WebSocket that may be accepted or refused."""

    def accept(self) -> Coroutine[Any, Any, RSGIWebsocketTransport]:
        """Accepts it, when that is awaited. Raises `ProtocolError` the second time."""
    def close(self, status: int | None = None) -> None:
        """Refuses it with this status (403 if that is none of a refusal), or ends it if it was
        accepted: with 1011 for a status of 500 and above, with a close code as it is, else 1000.
        Does nothing when it is over."""
    def complete(self) -> str | None:
        """The application has returned: closes with code 1000 if it has not. Then as `finish`."""

@final
class RSGIWebsocketTransport:
    """An accepted WebSocket."""

    def receive(self) -> Coroutine[Any, Any, RSGIWebsocketMessage]:
        """The client's next message. The close comes once; then it raises `ProtocolClosed`."""
    def send_bytes(self, data: bytes) -> Coroutine[Any, Any, None]:
        """Sends a binary message; waits where the client takes too little."""
    def send_str(self, data: str) -> Coroutine[Any, Any, None]:
        """Sends a text message; waits where the client takes too little."""

@final
class RSGIWebsocketMessage:
    """A message of the client's."""

    @property
    def kind(self) -> int:
        """0 for the close, 1 for bytes, 2 for a str: `granian_uring.rsgi.WebsocketMessageType`."""
    @property
    def data(self) -> bytes | str | None:
        """What it says; None with the close."""

@final
class FileResponse:
    """An answer that is begun, and whose body is a file that the server sends."""

    @property
    def path(self) -> Path:
        """The file."""
    def open(self) -> None:
        """Opens the file, or raises `OSError`. In a thread: it may wait for a disk."""
    def send(self) -> None:
        """Sends what was opened, all of it."""
    def missing(self) -> None:
        """There is no such file: the client gets a 404 in its place."""
    def finish(self) -> str | None:
        """Nobody works on this answer any more. To be called once."""

@final
class Input:
    """`wsgi.input` of PEP 3333."""

    def read(self, size: int | None = None, /) -> bytes:
        """At most `size` bytes, less only at the end of the body; all of it without a size."""
    def readline(self, size: int | None = None, /) -> bytes:
        """A line with its end, or at most `size` bytes of it."""
    def readlines(self, hint: int | None = None, /) -> list[bytes]:
        """The lines that are left, or as many as have `hint` bytes together."""
    def __iter__(self) -> Input: ...
    def __next__(self) -> bytes: ...

@final
class StartResponse:
    """`start_response` of PEP 3333."""

    def __call__(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: tuple[Any, Any, Any] | None = None,
        /,
    ) -> Callable[[bytes], None]:
        """Keeps status and headers until the first bytes of the body; returns `write`."""
    def write(self, data: bytes, /) -> None:
        """Sends a piece of the body; waits for a client that is too far behind."""

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
    ws: bool
    ws_max_size: int
    ws_ping_interval: float
    ws_ping_timeout: float
    ws_per_message_deflate: str
    proxy_headers: bool
    proxy_headers_format: str
    proxy_trusted: Trusted
    proxy_rewrite_host: bool
    proxy_prefix: bool
    proxy_strip_untrusted: bool

@final
class RuntimeChoice:
    """The runtime that was asked for: a word of `--runtime`."""

    def __new__(cls, word: str) -> RuntimeChoice:
        """Looks whether it can be tried. Makes a child process where a seccomp filter is on.

        Raises `OperatorError` when the filter would kill whoever tries it.
        """

@final
class Worker:
    """One ring with its server. Belongs to the thread that makes it."""

    def __new__(
        cls, listeners: Listeners, runtime: RuntimeChoice, options: _WorkerOptions
    ) -> Worker:
        """Takes the listeners. Raises `OperatorError` for a runtime that cannot be used."""
    @property
    def runtime(self) -> str:
        """The name of the runtime: never `auto`."""
    @property
    def notices(self) -> list[tuple[str, str]]:
        """What there is to log about the runtime: a level of `logging`, and a text."""
    def attach(
        self,
        event_loop: AbstractEventLoop,
        epoll_fd: int,
        foreign_select: Callable[[int], list[Any]],
        dispatch_event: tuple[SelectorKey, int],
    ) -> None:
        """Says which loop runs on this ring, and how its selector is reached. Once."""
    def attach_to(self, event_loop: AbstractEventLoop) -> None:
        """Be a guest of a loop that waits elsewhere. Once, and in place of `attach`."""
    def turn(self, timer: bool = False) -> None:
        """What such a loop calls: when the ring has something, and at its deadlines (`timer`)."""
    def host(
        self,
        *,
        interface: str,
        serve: Callable[[Any, Any, bool], Coroutine[Any, Any, None]],
        task: type[Task[Any]],
        task_options: dict[str, Any],
        report: Callable[[str, str], None],
        drained: Callable[[], None],
        send_file: Callable[[FileResponse], None],
        root_path: str,
        state: dict[str, Any] | None,
    ) -> None:
        """Says whom to call for requests. Once, before the first is accepted."""
    def host_wsgi(
        self,
        application: Callable[..., Any],
        *,
        environ: dict[str, Any],
        failed: Callable[[dict[str, Any], BaseException, str | None], None],
        leave: Callable[[KeyboardInterrupt | SystemExit], None],
        threads: int,
        idle_seconds: float,
    ) -> None:
        """Serves a WSGI application, after `host`.

        `environ` is the part that all requests have in common. `threads` is the most there are at a
        time; 0 calls the application from `dispatch`. `failed` is called in the thread of the
        request: with None when the client had its answer all the same, else with "refused" (it got
        a 500) or "aborted" (the connection was reset).
        """
    def join_threads(self) -> None:
        """Waits until no thread runs the WSGI application any more. After `close`."""
    @property
    def threads(self) -> int:
        """How many threads there are for the WSGI application."""
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

@final
class ReadyFiles:
    """The `select(0)` of an `EpollSelector`."""

    def __new__(cls, epoll: int, keys: dict[int, SelectorKey]) -> ReadyFiles:
        """`keys` are those of the selector, by descriptor."""
    def __call__(self, _timeout: object = None, /) -> list[tuple[SelectorKey, int]]:
        """Keys with what they are ready for. Never waits."""

@final
class Callbacks:
    """What a loop does for each callback, without a frame of Python.

    `append` puts a handle into the loop's queue; `describe(callback, args)` is for logs;
    `failed(handle, error)` is told what a callback has raised.
    """

    def __new__(
        cls,
        event_loop: object,
        append: Callable[[Any], None],
        describe: Callable[[Any, Any], str],
        failed: Callable[[Handle, BaseException], None],
    ) -> Callbacks: ...
    def call_soon(
        self, callback: Callable[..., object], *args: object, context: object | None = None
    ) -> Handle:
        """`loop.call_soon`, of a loop that is not in debug mode."""
    def close(self) -> None:
        """The loop is closed, and takes no callbacks."""
    def process_events(self, events: list[Any]) -> None:
        """`loop._process_events`: queues the handles of what `select` has returned."""

@final
class Handle:
    """A callback that is to be run, as `asyncio.Handle`."""

    def cancel(self) -> None:
        """It is not to be run any more."""
    def cancelled(self) -> bool:
        """Whether that was said."""
    def get_context(self) -> Context:
        """What it runs in."""
    def _run(self) -> None: ...
    @property
    def _cancelled(self) -> bool: ...
    @property
    def _context(self) -> Context: ...
    @property
    def _callback(self) -> Callable[..., object] | None: ...
    @property
    def _args(self) -> tuple[object, ...] | None: ...
    @property
    def _loop(self) -> object: ...
    _source_traceback: ClassVar[None]

@final
class Waker:
    """Wakes a loop that has `clear` as the reader of `fileno()`."""

    def __new__(cls) -> Waker: ...
    def fileno(self) -> int:
        """An eventfd, which is readable when the loop is to be awake; -1 when it is closed."""
    def wake(self) -> None:
        """Makes it readable. From any thread."""
    def clear(self) -> None:
        """The loop is awake."""
    def close(self) -> None:
        """The loop is closed."""

@final
class Direct:
    """What stands before `_read_ready` and `write` of one of asyncio's transports.

    The usual case of each is done at once, any other by the method.
    """

    def __new__(
        cls,
        fd: int,
        transport: object,
        read_ready: Callable[[], None],
        write: Callable[[Any], None],
    ) -> Direct: ...
    def read_ready(self) -> None:
        """Receives once, and tells the protocol."""
    def write(self, data: object) -> None:
        """Sends, if nothing waits to be sent."""
    def set_buffered(self, buffered: bool) -> None:
        """Says whether the protocol gives the memory to receive into."""
    def close(self) -> None:
        """The descriptor is about to be closed: only the methods are called from now on."""

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
