"""The two logs: `granian`, what happens to the server, on stderr; `granian.access`, a line for each
request, on stdout.

Under systemd, where a stream leads to the journal (`JOURNAL_STREAM`, systemd.exec(5)), lines carry
the journal's priority instead of a time and a level it would only repeat, sd-daemon(3). Elsewhere
they begin with an ISO time.

`AccessLog` makes the lines of the access log from Granian's ten atoms. What a client sends is
escaped, so that a line is always one line, and quotes in it are always its own.

Not here: when a request is logged, and by whom.
"""

import json
import logging
import logging.config
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from granian_uring.errors import OperatorError

__all__ = [
    "ACCESS_ATOMS",
    "AccessLog",
    "AccessRecord",
    "access_logger",
    "configure",
    "is_journal",
    "logger",
]

logger = logging.getLogger("granian")
access_logger = logging.getLogger("granian.access")

_REQUEST = '%(addr)s "%(method)s %(path)s %(protocol)s" %(status)d %(dt_ms).3f'


def configure(
    *, enabled: bool = True, level: str = "info", config: Path | None = None, access: bool = False
) -> None:
    """Sets both logs up. `config` is a dictConfig in JSON whose top-level keys replace ours.

    Raises `OperatorError` when `config` cannot be used. Call it after the sockets of systemd have
    been taken: a handler may start a thread.
    """
    declared = _defaults(enabled, level, access)
    if config is not None:
        declared.update(_read(config))
    try:
        logging.config.dictConfig(declared)
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        cause = f": {error.__cause__}" if error.__cause__ else ""
        raise OperatorError(
            f"--log-config {config} is not a logging configuration: {error}{cause}",
            "its keys are those of logging.config.dictConfig; ours are the loggers granian and "
            "granian.access",
        ) from None
    # Whatever the configuration says, "no" is no.
    logger.disabled = not enabled
    access_logger.disabled = not access


def is_journal(stream: TextIO | None) -> bool:
    """True when `stream` leads to the journal: `JOURNAL_STREAM` is its device and inode.

    None is what `sys` has for a stream that was closed before the program started.
    """
    if stream is None:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _defaults(enabled: bool, level: str, access: bool) -> dict[str, Any]:
    def handler(formatter: str, stream: str) -> dict[str, Any]:
        return {
            "class": "logging.StreamHandler",
            "formatter": formatter,
            "stream": f"ext://sys.{stream}",
        }

    def formatter(stream: TextIO | None, plain: dict[str, Any]) -> dict[str, Any]:
        return {"()": JournalFormatter} if is_journal(stream) else plain

    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "generic": formatter(sys.stderr, {"()": LineFormatter}),
            "access": formatter(sys.stdout, {"format": "%(message)s"}),
        },
        "handlers": {
            "console": handler("generic", "stderr"),
            "access": handler("access", "stdout"),
        },
        "loggers": {
            "granian": {
                "handlers": ["console"] if enabled else [],
                "level": level.upper(),
                "propagate": False,
            },
            "granian.access": {
                "handlers": ["access"] if access else [],
                "level": "INFO",
                "propagate": False,
            },
        },
    }


def _read(path: Path) -> dict[str, Any]:
    hint = "it is a JSON object, with the keys of logging.config.dictConfig"
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OperatorError(f"cannot read --log-config {path}: {error.strerror}", hint) from None
    except ValueError as error:
        raise OperatorError(f"--log-config {path} is not JSON: {error}", hint) from None
    if not isinstance(read, dict):
        raise OperatorError(f"--log-config {path} is not a JSON object", hint)
    return read


class LineFormatter(logging.Formatter):
    """`2026-01-31T03:00:00.123+0100 WARNING message`: local time, as a person at night has it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        local = time.localtime(record.created)
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", local)
        return f"{seconds}.{int(record.msecs):03d}{time.strftime('%z', local)}"


class JournalFormatter(logging.Formatter):
    """`<4>message`, on every line: the journal makes an entry of each line of a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_priority(record.levelno)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines() or [""])


def _priority(level: int) -> int:
    """The syslog priority of a level, sd-daemon(3)."""
    if level >= logging.CRITICAL:
        return 2
    if level >= logging.ERROR:
        return 3
    if level >= logging.WARNING:
        return 4
    return 6 if level >= logging.INFO else 7


# What nginx logs for a client that left before its answer.
_CLIENT_CLOSED_REQUEST = 499


class AccessRecord:
    """A request that is over, as the access log sees it; the attributes are the atoms.

    `scope` is ASGI's, `status` that of the answer (0 if none was begun: shown as 499, as nginx
    does), `seconds` how long it took.
    """

    __slots__ = ("_scope", "dt_ms", "status", "time")

    def __init__(self, scope: Mapping[str, Any], status: int, seconds: float) -> None:
        self._scope = scope
        self.time = time.time() - seconds
        self.dt_ms = seconds * 1000
        self.status = status or _CLIENT_CLOSED_REQUEST

    @property
    def addr(self) -> str:
        """The client's address, without the port; `-` for a Unix socket."""
        client = self._scope["client"]
        return str(client[0]) if client else "-"

    @property
    def path(self) -> str:
        return str(self._scope["path"])

    @property
    def query_string(self) -> str:
        return bytes(self._scope["query_string"]).decode("latin-1")

    @property
    def method(self) -> str:
        return str(self._scope["method"])

    @property
    def scheme(self) -> str:
        return str(self._scope["scheme"])

    @property
    def protocol(self) -> str:
        """`HTTP/1.1`."""
        return f"HTTP/{self._scope['http_version']}"

    @property
    def headers(self) -> Iterable[tuple[bytes, bytes]]:
        """The request's, with names in lower case."""
        headers: Iterable[tuple[bytes, bytes]] = self._scope["headers"]
        return headers


ACCESS_ATOMS = {
    "addr": "the client's address",
    "time": "when the request began, in local time",
    "dt_ms": "how long it took, in milliseconds",
    "status": "the response's status",
    "path": "the path",
    "query_string": "the query, without `?`",
    "method": "the method",
    "scheme": "`http` or `https`",
    "protocol": "`HTTP/1.1` or `HTTP/1.0`",
    "header{NAME}": "a header of the request, `-` if it has none",
}

# A request to try a format on.
_SAMPLE_SCOPE = {
    "client": ("127.0.0.1", 40000),
    "method": "GET",
    "path": "/",
    "query_string": b"",
    "scheme": "http",
    "http_version": "1.1",
    "headers": [],
}

_HEADER = re.compile(r"header\{([^{}()]+)\}")
_KEY = re.compile(r"%(?:%|\(([^()]*)\))")


class AccessLog:
    """A compiled format: called with an `AccessRecord`, it returns the line."""

    def __init__(self, format: str, atoms: dict[str, Callable[[AccessRecord], Any]]) -> None:
        self._format = format
        self._atoms = tuple(atoms.items())

    @classmethod
    def compile(cls, format: str | None = None) -> "AccessLog":
        """The access log of a %-format; without one, a line that fits where stdout leads to.

        Raises `OperatorError` for an atom that there is not, or a conversion that does not fit it.
        """
        if format is None:
            format = _REQUEST if is_journal(sys.stdout) else f"[%(time)s] {_REQUEST}"
        if "%" in _KEY.sub("", format):
            raise _unusable(format, "a % without an atom")
        log = cls(format, {name: _atom(name, format) for name in _KEY.findall(format) if name})
        try:
            log(AccessRecord(_SAMPLE_SCOPE, 200, 0.0005))
        except (KeyError, TypeError, ValueError) as error:
            raise _unusable(format, str(error)) from None
        return log

    def __call__(self, record: AccessRecord) -> str:
        return self._format % {name: atom(record) for name, atom in self._atoms}


def _unusable(format: str, reason: str) -> OperatorError:
    return OperatorError(
        f"--access-log-fmt {format!r} cannot be used: {reason}",
        "%(status)d and %(dt_ms).3f are numbers, every other atom is %(...)s; a percent sign is %%",
    )


def _atom(name: str, format: str) -> Callable[[AccessRecord], Any]:
    """The function that reads one atom of a record."""
    if header := _HEADER.fullmatch(name):
        return _header(header[1].strip().lower().encode("latin-1", "replace"))
    match name:
        case "time":
            return lambda record: _local_time(record.time)
        case "status" | "dt_ms":
            return lambda record: getattr(record, name)
        case _ if name in ACCESS_ATOMS and name.isidentifier():
            return lambda record: _escape(getattr(record, name))
    raise OperatorError(
        f"--access-log-fmt {format!r} has the unknown atom %({name})s",
        f"the atoms are {', '.join(ACCESS_ATOMS)}",
    )


def _header(wanted: bytes) -> Callable[[AccessRecord], str]:
    def read(record: AccessRecord) -> str:
        values = [value for name, value in record.headers if name == wanted]
        return _escape(b", ".join(values).decode("latin-1")) if values else "-"

    return read


def _local_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))


def _escape(text: str) -> str:
    r"""What a client sent, as printable characters on one line: the rest as `\xNN` or `\uNNNN`."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(c if c.isprintable() and c not in '"\\' else _escape_character(c) for c in text)


def _escape_character(character: str) -> str:
    code = ord(character)
    if character in '"\\':
        return "\\" + character
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
