"""Every option, once.

A field of `Settings` declares an option whole: its name and type, and through `option` its default,
bounds, unit, help and, where it goes to the compiled part, the name it has there. The command line
(`granian_uring.cli`), the `GRANIAN_*` variables and the rows of `docs/options.md` follow from
`OPTIONS`; a test compares them. `LATER` has the words of Granian that are understood and refused.

Not here: what an option does. The words are Granian's where Granian has them.
"""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import click

__all__ = ["GROUPS", "LATER", "OPTIONS", "LaterWord", "NotYet", "Option", "Settings"]

# Sections of --help and of docs/options.md, in order.
GROUPS = (
    "Sockets",
    "Application",
    "Requests",
    "HTTP/1.1",
    "WebSocket",
    "Proxy",
    "Logging",
    "Process",
)


@dataclasses.dataclass(frozen=True)
class Option:
    """One option, as the command line, the environment and the documentation need it."""

    name: str
    flag: str
    off_flag: str | None
    environment: str
    group: str
    help: str
    type: "click.ParamType[Any]"
    default: Any
    shown_default: str
    unit: str
    repeatable: bool
    native: str | None


@dataclasses.dataclass(frozen=True)
class LaterWord:
    """A word of Granian that is not there yet, except for the values that ask for what we do."""

    flag: str
    environment: str
    accepted: tuple[str, ...]
    hint: str
    switch: bool = False


class NotYet(click.UsageError):
    """Something Granian has and we do not have yet."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(f"{what} is not supported yet")
        self.hint = hint


class Octal(click.IntRange):
    """A file mode, in octal as chmod(1) takes it: `660`, `0660` and `0o660` are the same."""

    name = "octal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            mode = int(str(value), 8)
        except ValueError:
            mode = -1
        if not 0 <= mode <= 0o777:
            self.fail(f"{value!r} is not an octal mode from 000 to 777.", param, ctx)
        return mode


class PathPrefix(click.ParamType[str]):
    """A path to mount at: `/api`. A slash at its end is dropped."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        prefix = str(value).rstrip("/")
        if not str(value).startswith("/") or prefix.startswith("//"):
            self.fail(f"{value!r} does not begin with one slash.", param, ctx)
        return prefix


class HeaderName(click.ParamType[str]):
    """The name of a header: a token, RFC 9110 §5.6.2."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", str(value)):
            self.fail(f"{value!r} is not the name of a header.", param, ctx)
        return str(value)


class Seconds(click.FloatRange):
    """A time in seconds, with fractions."""

    name = "seconds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


def option(
    help: str,
    *,
    group: str,
    type: "click.ParamType[Any]" = click.STRING,
    default: Any = None,
    shown_default: str = "",
    unit: str = "",
    flag: str = "",
    environment: str = "",
    repeatable: bool = False,
    native: str | None = None,
) -> Any:
    """Declares an option on a field of `Settings`.

    A default of None (or of an empty tuple, for what may be repeated) means "not given";
    `shown_default` says what happens then. `flag` and `environment` are named where they do not
    follow from the field's name.
    """
    declared = {
        "help": help,
        "group": group,
        "type": type,
        "shown_default": shown_default,
        "unit": unit,
        "flag": flag,
        "environment": environment,
        "repeatable": repeatable,
        "native": native,
    }
    return dataclasses.field(default=() if repeatable else default, metadata=declared)


# A stage of a connection always ends; the clock is precise to a thirtieth of a second.
_STAGE = Seconds(min=0.1, max=86400)
_BYTES = click.IntRange(min=1, max=2**31 - 1)
_DIRECTORY = click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path)
_FILE = click.Path(dir_okay=False, resolve_path=True, path_type=Path)
_READABLE_FILE = click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What one run of the server was asked to be: the target and every option."""

    target: str
    """`module:attribute`; see `granian_uring.loader`."""

    fd_from_systemd: bool = option(
        "Use the sockets that systemd passed; an error if there are none.",
        group="Sockets",
        type=click.BOOL,
        default=False,
        shown_default="off; used all the same if no socket is asked for",
        native="fd_from_systemd",
    )
    fd_names: tuple[str, ...] = option(
        "Of the sockets that systemd passed, use those with this FileDescriptorName=.",
        group="Sockets",
        flag="--fd-name",
        environment="GRANIAN_FD_NAME",
        shown_default="all",
        repeatable=True,
        native="fd_names",
    )
    fds: tuple[int, ...] = option(
        "Use this inherited file descriptor, a listening socket.",
        group="Sockets",
        type=click.IntRange(min=0, max=2**31 - 1),
        flag="--fd",
        environment="GRANIAN_FD",
        repeatable=True,
        native="fds",
    )
    host: str | None = option(
        "Listen on this IP address, or on every address of this name.",
        group="Sockets",
        shown_default="127.0.0.1",
        native="host",
    )
    port: int | None = option(
        "Listen on this TCP port; 0 picks a free one.",
        group="Sockets",
        type=click.IntRange(min=0, max=65535),
        shown_default="8000",
        native="port",
    )
    uds: str | None = option(
        "Listen on this Unix socket: a path, or @name for an abstract one.",
        group="Sockets",
        native="uds",
    )
    uds_permissions: int | None = option(
        "The mode of the Unix socket's file.",
        group="Sockets",
        type=Octal(),
        shown_default="what the umask leaves",
        native="uds_permissions",
    )
    backlog: int = option(
        "How many connections the kernel queues for each socket that the server binds itself.",
        group="Sockets",
        type=click.IntRange(min=128, max=2**31 - 1),
        default=1024,
        unit="connections",
        native="backlog",
    )

    interface: str = option(
        "The application's protocol; auto looks at the application, asginl is ASGI without "
        "lifespan.",
        group="Application",
        type=click.Choice(["auto", "asgi", "asginl", "rsgi", "wsgi"]),
        default="auto",
    )
    factory: bool = option(
        "The target is a function that makes the application.",
        group="Application",
        type=click.BOOL,
        default=False,
    )
    working_dir: Path | None = option(
        "Change to this directory before the application is imported.",
        group="Application",
        type=_DIRECTORY,
        shown_default="the current one",
    )
    env_files: tuple[Path, ...] = option(
        "Read variables for the application from this dotenv file; those that are set win, and "
        "GRANIAN_* in it configure nothing.",
        group="Application",
        type=_READABLE_FILE,
        repeatable=True,
    )
    loop: str = option(
        "The event loop: uring, which auto means, is asyncio's own and waits on io_uring. Others "
        "wait in their own way; uvloop and rloop are packages to be installed.",
        group="Application",
        type=click.Choice(["auto", "uring", "asyncio", "uvloop", "rloop"]),
        default="auto",
    )
    url_path_prefix: str | None = option(
        "The path that the application is mounted at: root_path of ASGI, and the front of path; "
        "SCRIPT_NAME of WSGI.",
        group="Application",
        type=PathPrefix(),
    )
    blocking_threads: int | None = option(
        "At most so many threads run a WSGI application; 0 runs it on the thread of the ring.",
        group="Application",
        type=click.IntRange(min=0, max=2**16),
        shown_default="half of --backpressure for WSGI, 1 else",
        unit="threads",
    )
    blocking_threads_idle_timeout: float = option(
        "A thread of WSGI that had nothing to do for so long ends.",
        group="Application",
        type=Seconds(min=5, max=600),
        default=30.0,
        unit="seconds",
    )

    backpressure: int = option(
        "How many requests run at once in a worker; see --overload. Idle connections do not count.",
        group="Requests",
        type=click.IntRange(min=1, max=2**31 - 1),
        default=1024,
        unit="requests",
        native="backpressure",
    )
    overload: str = option(
        "Requests beyond --backpressure wait, or are refused at once with 503 and Retry-After.",
        group="Requests",
        type=click.Choice(["wait", "refuse"]),
        default="wait",
        native="overload",
    )
    max_connections: int | None = option(
        "How many connections a worker holds open; more wait in the kernel's queue.",
        group="Requests",
        type=click.IntRange(min=1, max=2**31 - 1),
        shown_default="what RLIMIT_NOFILE allows",
        unit="connections",
        native="max_connections",
    )
    request_timeout: float | None = option(
        "How long a request may take, from its head to the end of the answer; then it gets a 503, "
        "or a reset if the answer has begun, and its task is cancelled.",
        group="Requests",
        type=_STAGE,
        shown_default="no limit",
        unit="seconds",
        native="request_timeout",
    )
    max_body_size: int | None = option(
        "The longest request body; a longer one gets a 413, before it is read if its length is "
        "told.",
        group="Requests",
        type=click.IntRange(min=0, max=2**63 - 1),
        shown_default="no limit",
        unit="bytes",
        native="max_body_size",
    )
    graceful_timeout: float = option(
        "How long a drain may last; then the requests still running are cut.",
        group="Requests",
        type=Seconds(min=0, max=86400),
        default=30.0,
        unit="seconds",
    )
    default_headers: bool = option(
        "Add Date and Server to responses that have none.",
        group="Requests",
        type=click.BOOL,
        default=True,
        native="default_headers",
    )

    http1_keep_alive: bool = option(
        "Take further requests on a connection; without it every answer closes.",
        group="HTTP/1.1",
        type=click.BOOL,
        default=True,
        native="http1_keep_alive",
    )
    http1_pipeline_depth: int = option(
        "How many pipelined requests of one connection begin before it is the others' turn.",
        group="HTTP/1.1",
        type=click.IntRange(min=1, max=1024),
        default=16,
        unit="requests",
        native="http1_pipeline_depth",
    )
    http1_buffer_size: int = option(
        "The longest head, request line and headers, else 431; and how much unread input of a "
        "connection is held before no more is received.",
        group="HTTP/1.1",
        type=click.IntRange(min=8192, max=2**31 - 1),
        default=65536,
        unit="bytes",
        native="http1_buffer_size",
    )
    http1_max_headers: int = option(
        "The most header lines of a request; more get a 431.",
        group="HTTP/1.1",
        type=click.IntRange(min=1, max=256),
        default=100,
        unit="lines",
        native="http1_max_headers",
    )
    http1_max_target_size: int = option(
        "The longest request target; a longer one gets a 414.",
        group="HTTP/1.1",
        type=_BYTES,
        default=8192,
        unit="bytes",
        native="http1_max_target_size",
    )
    http1_max_trailer_size: int = option(
        "The longest trailer section of a chunked body; a longer one gets a 431.",
        group="HTTP/1.1",
        type=_BYTES,
        default=8192,
        unit="bytes",
        native="http1_max_trailer_size",
    )
    http1_first_byte_timeout: float = option(
        "From the connection to its first byte; then it is closed.",
        group="HTTP/1.1",
        type=_STAGE,
        default=30.0,
        unit="seconds",
        native="http1_first_byte_timeout",
    )
    http1_header_read_timeout: int = option(
        "From the first byte of a request to the end of its head; then 408.",
        group="HTTP/1.1",
        type=click.IntRange(min=1, max=60000),
        default=30000,
        unit="milliseconds",
        native="http1_header_read_timeout",
    )
    http1_keep_alive_timeout: float = option(
        "From an answer to the next request of the connection; then it is closed.",
        group="HTTP/1.1",
        type=_STAGE,
        default=75.0,
        unit="seconds",
        native="http1_keep_alive_timeout",
    )
    http1_body_timeout: float = option(
        "Without a byte of a body that the application waits for; then 408.",
        group="HTTP/1.1",
        type=_STAGE,
        default=60.0,
        unit="seconds",
        native="http1_body_timeout",
    )
    http1_body_min_rate: int = option(
        "What such a body has to make a second: the waiting for it may add up to "
        "--http1-body-timeout and a second for each so many bytes; then 408. 0 is no minimum.",
        group="HTTP/1.1",
        type=click.IntRange(min=0, max=2**31 - 1),
        default=240,
        unit="bytes",
        native="http1_body_min_rate",
    )
    http1_write_timeout: float = option(
        "Without a byte taken by a client for whom there is an answer; then a reset.",
        group="HTTP/1.1",
        type=_STAGE,
        default=60.0,
        unit="seconds",
        native="http1_write_timeout",
    )
    http1_linger_timeout: float = option(
        "From our last byte to the client's close; then we close.",
        group="HTTP/1.1",
        type=_STAGE,
        default=2.0,
        unit="seconds",
        native="http1_linger_timeout",
    )

    ws: bool = option(
        "Serve WebSockets; without it a handshake is a request like any other.",
        group="WebSocket",
        type=click.BOOL,
        default=True,
        environment="GRANIAN_WEBSOCKETS",
        native="ws",
    )
    ws_max_size: int = option(
        "The longest message of a client, decompressed; a longer one closes with 1009.",
        group="WebSocket",
        type=_BYTES,
        default=16 * 1024 * 1024,
        unit="bytes",
        native="ws_max_size",
    )
    ws_ping_interval: float = option(
        "From one ping to the next; 0 is no pings.",
        group="WebSocket",
        type=Seconds(min=0, max=86400),
        default=20.0,
        unit="seconds",
        native="ws_ping_interval",
    )
    ws_ping_timeout: float = option(
        "From a ping to its pong; then the connection is cut. 0 is no limit.",
        group="WebSocket",
        type=Seconds(min=0, max=86400),
        default=20.0,
        unit="seconds",
        native="ws_ping_timeout",
    )
    ws_per_message_deflate: str = option(
        "Compress messages for clients that offer permessage-deflate: each on its own, or in the "
        "context of those before it, which takes 415 KiB for each connection.",
        group="WebSocket",
        type=click.Choice(["off", "on", "context"]),
        default="on",
        native="ws_per_message_deflate",
    )

    proxy_headers: bool = option(
        "Take the client, the scheme and the server of a request from the headers of trusted "
        "peers.",
        group="Proxy",
        type=click.BOOL,
        default=False,
        native="proxy_headers",
    )
    proxy_headers_format: str = option(
        "Which headers the proxy writes: X-Forwarded-For, -Proto, -Host and -Port, or Forwarded "
        "(RFC 7239). The others are never read.",
        group="Proxy",
        type=click.Choice(["x-forwarded", "forwarded"]),
        default="x-forwarded",
        native="proxy_headers_format",
    )
    proxy_trusted: tuple[str, ...] = option(
        "Trust this peer: an IP address, a network, unix, unix:PATH, or * for everybody.",
        group="Proxy",
        shown_default="127.0.0.0/8, ::1, unix",
        repeatable=True,
        native="proxy_trusted",
    )
    proxy_protocol: tuple[str, ...] = option(
        "Connections to this listener, by its name or address, begin with a PROXY protocol header "
        "from a trusted peer; others are refused.",
        group="Proxy",
        repeatable=True,
        native="proxy_protocol",
    )
    proxy_rewrite_host: bool = option(
        "The host that a trusted peer's headers name replaces the request's Host.",
        group="Proxy",
        type=click.BOOL,
        default=False,
        native="proxy_rewrite_host",
    )
    proxy_prefix: bool = option(
        "The X-Forwarded-Prefix of a trusted peer goes in front of root_path and path.",
        group="Proxy",
        type=click.BOOL,
        default=False,
        native="proxy_prefix",
    )
    proxy_strip_untrusted: bool = option(
        "Remove Forwarded, X-Forwarded-* and X-Real-IP from requests of peers that are not "
        "trusted.",
        group="Proxy",
        type=click.BOOL,
        default=False,
        native="proxy_strip_untrusted",
    )

    log: bool = option(
        "Write the server's log to stderr.",
        group="Logging",
        type=click.BOOL,
        default=True,
        environment="GRANIAN_LOG_ENABLED",
    )
    log_level: str = option(
        "The least level that is written.",
        group="Logging",
        type=click.Choice(
            ["critical", "error", "warning", "warn", "info", "debug", "notset"],
            case_sensitive=False,
        ),
        default="info",
    )
    log_config: Path | None = option(
        "A JSON file for logging.config.dictConfig; its top-level keys replace the server's.",
        group="Logging",
        type=_READABLE_FILE,
    )
    access_log: bool = option(
        "Write a line for each request to stdout.",
        group="Logging",
        type=click.BOOL,
        default=False,
        environment="GRANIAN_LOG_ACCESS_ENABLED",
    )
    access_log_fmt: str | None = option(
        "The line's %-format, or default, common or combined; see docs/logging.md.",
        group="Logging",
        environment="GRANIAN_LOG_ACCESS_FMT",
        shown_default="default",
    )
    access_log_json: bool = option(
        "Make each line a JSON object; its keys are the atoms that the format names.",
        group="Logging",
        type=click.BOOL,
        default=False,
        environment="GRANIAN_LOG_ACCESS_JSON",
    )
    request_id_header: str | None = option(
        "See to it that each request has an id in this header: the client's, or one that is made.",
        group="Logging",
        type=HeaderName(),
        native="request_id_header",
    )

    runtime: str = option(
        "What drives the I/O of the server; auto is uring, or epoll where io_uring cannot be used. "
        "See docs/runtimes.md.",
        group="Process",
        type=click.Choice(["auto", "uring", "monoio", "tokio-uring", "epoll"]),
        default="auto",
    )
    pid_file: Path | None = option(
        "Write the process id to this file; an error if it names a live process.",
        group="Process",
        type=_FILE,
    )
    process_name: str | None = option(
        "The name that ps shows (needs granian-uring[pname]).",
        group="Process",
    )


def _option(field: "dataclasses.Field[Any]") -> Option:
    declared = dict(field.metadata)
    flag = declared.pop("flag") or "--" + field.name.replace("_", "-")
    environment = declared.pop("environment") or "GRANIAN_" + field.name.upper()
    shown_default = declared.pop("shown_default") or _shown(field.default)
    # --fd-from-systemd has no opposite: without it, what else is asked for decides.
    two_sided = declared["type"] is click.BOOL and field.name != "fd_from_systemd"
    return Option(
        name=field.name,
        flag=flag,
        off_flag="--no-" + flag.removeprefix("--") if two_sided else None,
        environment=environment,
        shown_default=shown_default,
        default=field.default,
        **declared,
    )


def _shown(default: object) -> str:
    match default:
        case None | ():
            return ""
        case bool():
            return "on" if default else "off"
        case float():
            return f"{default:g}"
        case _:
            return str(default)


OPTIONS = tuple(_option(field) for field in dataclasses.fields(Settings) if field.metadata)


def _later(
    flag: str,
    hint: str,
    *,
    accepted: tuple[str, ...] = (),
    environment: str = "",
    switch: bool = False,
) -> LaterWord:
    return LaterWord(
        flag=flag,
        environment=environment or "GRANIAN_" + flag.removeprefix("--").replace("-", "_").upper(),
        accepted=accepted,
        hint=hint,
        switch=switch,
    )


_ONE_PROCESS = (
    "the server is one process with one thread; start several behind one .socket unit for more"
)
_NO_HTTP2 = "HTTP/1.1 is spoken; put a proxy that speaks HTTP/2 in front"
_NO_TLS = "let a proxy in front speak TLS, over --uds or a loopback address"
_NO_STATIC = "let a proxy or the application serve files"
_NO_METRICS = "let the application export its own"
_NO_RELOAD = "`systemctl restart` loses no request"
_NO_LIMIT = "systemd has MemoryMax=, RuntimeMaxSec= and Restart="

# Granian's words that are not options here, with the values that ask for what is done anyway: those
# pass in silence. "on" and "off" are the two sides of a switch. The order is Granian's.
LATER = (
    _later("--http", _NO_HTTP2, accepted=("auto", "1")),
    _later("--workers", _ONE_PROCESS, accepted=("1",)),
    _later("--runtime-threads", _ONE_PROCESS, accepted=("1",)),
    _later("--runtime-blocking-threads", "there is no such pool: leave the word out"),
    _later("--runtime-mode", _ONE_PROCESS, accepted=("auto", "st")),
    _later("--task-impl", "tasks are asyncio's own: asyncio", accepted=("asyncio",)),
    _later(
        "--http1-pipeline-flush",
        "pipelined responses are sent together anyway: leave the word out",
        accepted=("off",),
        switch=True,
    ),
    _later("--http2-adaptive-window", _NO_HTTP2, accepted=("off",), switch=True),
    _later("--http2-initial-connection-window-size", _NO_HTTP2),
    _later("--http2-initial-stream-window-size", _NO_HTTP2),
    _later("--http2-keep-alive-interval", _NO_HTTP2),
    _later("--http2-keep-alive-timeout", _NO_HTTP2),
    _later("--http2-max-concurrent-streams", _NO_HTTP2),
    _later("--http2-max-frame-size", _NO_HTTP2),
    _later("--http2-max-headers-size", _NO_HTTP2),
    _later("--http2-max-send-buffer-size", _NO_HTTP2),
    _later("--ssl-certificate", _NO_TLS),
    _later("--ssl-keyfile", _NO_TLS),
    _later("--ssl-keyfile-password", _NO_TLS),
    _later("--ssl-protocol-min", _NO_TLS),
    _later("--ssl-ca", _NO_TLS),
    _later("--ssl-crl", _NO_TLS),
    _later("--ssl-client-verify", _NO_TLS, accepted=("off",), switch=True),
    _later(
        "--respawn-failed-workers",
        "Restart=on-failure in the .service unit does it",
        accepted=("off",),
        switch=True,
    ),
    _later("--respawn-interval", "RestartSec= in the .service unit does it"),
    _later("--rss-sample-interval", _NO_LIMIT),
    _later("--rss-samples", _NO_LIMIT),
    _later("--workers-lifetime", _NO_LIMIT),
    _later("--workers-max-rss", _NO_LIMIT),
    _later("--workers-kill-timeout", "--graceful-timeout bounds the drain"),
    _later("--static-path-route", _NO_STATIC),
    _later("--static-path-mount", _NO_STATIC),
    _later("--static-path-dir-to-file", _NO_STATIC),
    _later("--static-path-expires", _NO_STATIC),
    _later(
        "--metrics",
        _NO_METRICS,
        accepted=("off",),
        environment="GRANIAN_METRICS_ENABLED",
        switch=True,
    ),
    _later("--metrics-scrape-interval", _NO_METRICS),
    _later("--metrics-address", _NO_METRICS),
    _later("--metrics-port", _NO_METRICS),
    _later("--reload", _NO_RELOAD, accepted=("off",), switch=True),
    _later("--reload-paths", _NO_RELOAD),
    _later("--reload-ignore-dirs", _NO_RELOAD),
    _later("--reload-ignore-patterns", _NO_RELOAD),
    _later("--reload-ignore-paths", _NO_RELOAD),
    _later("--reload-tick", _NO_RELOAD),
    _later("--reload-ignore-worker-failure", _NO_RELOAD, accepted=("off",), switch=True),
)
