"""The two logs: `granian`, what happens to the server, on stderr; `granian.access`, a line for each
request, on stdout.

Under systemd, where a stream leads to the journal (`JOURNAL_STREAM`, systemd.exec(5)), lines carry
the journal's priority instead of a time and a level it would only repeat, sd-daemon(3). Elsewhere
they begin with an ISO time.

The lines of the access log are made by the compiled part, which writes them to stdout itself. They
come by here only when the logger `granian.access` has a handler, of `--log-config` or of the
application.
"""

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from granian_uring import _native
from granian_uring.errors import OperatorError

__all__ = [
    "access_logger",
    "configure",
    "is_journal",
    "logger",
    "pass_on",
]

logger = logging.getLogger("granian")
access_logger = logging.getLogger("granian.access")


def configure(
    *, enabled: bool = True, level: str = "info", config: Path | None = None, access: bool = False
) -> None:
    """Sets both logs up. `config` is a dictConfig in JSON whose top-level keys replace ours.

    Raises `OperatorError` when `config` cannot be used. Call it after the sockets of systemd have
    been taken: a handler may start a thread.
    """
    if config is None:
        _use_defaults(enabled, level)
    else:
        _use(config, _defaults(enabled, level))
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


def _use_defaults(enabled: bool, level: str) -> None:
    """Does what `_defaults` declares without `logging.config`, whose import would take longer."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter()())
    logger.handlers[:] = [handler] if enabled else []
    logger.setLevel(level.upper())
    access_logger.handlers.clear()
    access_logger.setLevel(logging.INFO)
    logger.propagate = access_logger.propagate = False


def _use(config: Path, declared: dict[str, Any]) -> None:
    """Sets both logs up as `declared`, with what is in `config` in its place."""
    import logging.config as logging_config

    declared.update(_read(config))
    try:
        logging_config.dictConfig(declared)
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        cause = f": {error.__cause__}" if error.__cause__ else ""
        raise OperatorError(
            f"--log-config {config} is not a logging configuration: {error}{cause}",
            "its keys are those of logging.config.dictConfig; ours are the loggers granian and "
            "granian.access",
        ) from None


def _defaults(enabled: bool, level: str) -> dict[str, Any]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"generic": {"()": _formatter()}},
        "handlers": {
            "console": {
                "class": "logging.StreamHandler",
                "formatter": "generic",
                "stream": "ext://sys.stderr",
            },
        },
        "loggers": {
            "granian": {
                "handlers": ["console"] if enabled else [],
                "level": level.upper(),
                "propagate": False,
            },
            # Without a handler its lines are written by the compiled part.
            "granian.access": {"handlers": [], "level": "INFO", "propagate": False},
        },
    }


def _formatter() -> type[logging.Formatter]:
    return JournalFormatter if is_journal(sys.stderr) else LineFormatter


def _read(path: Path) -> dict[str, Any]:
    import json

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


def pass_on(lines: _native.AccessLines) -> None:
    """Gives the lines of the access log to its logger, in order, until there will be no more."""
    while (batch := lines.next()) is not None:
        for line in batch:
            access_logger.info("%s", line)
