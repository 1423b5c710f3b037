"""Log lines: what they look like, where they go, and what a client cannot do to them."""

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from granian_uring import _native, logs
from granian_uring.errors import OperatorError


@pytest.fixture(autouse=True)
def _leave_logging_as_found() -> Iterator[None]:
    yield
    for logger in (logs.logger, logs.access_logger):
        logger.handlers.clear()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
        logger.disabled = False


def run(script: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Logs from a process of its own, whose streams are pipes."""
    return subprocess.run(
        [sys.executable, "-c", f"from granian_uring import logs\n{script}"],
        text=True,
        timeout=60,
        check=True,
        **options,
    )


# --- configure -----------------------------------------------------------------------------------


def test_lines_have_time_level_and_text() -> None:
    script = (
        "logs.configure(access=True)\nlogs.logger.warning('full')\nlogs.logger.debug('hidden')\n"
        "logs.access_logger.info('its lines do not come by here')"
    )
    environment = {**os.environ, "TZ": "Asia/Kolkata"}
    ran = run(script, capture_output=True, env=environment)
    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0530 WARNING full\n"
    assert re.fullmatch(pattern, ran.stderr), ran.stderr
    assert ran.stdout == ""


def test_levels_and_switches() -> None:
    script = (
        "logs.configure(level='debug')\nlogs.logger.debug('shown')\nlogs.access_logger.info('off')\n"
        "logs.configure(enabled=False)\nlogs.logger.critical('off')\n"
        "logs.configure(level='error')\nlogs.logger.warning('off')\nlogs.logger.error('shown')"
    )
    ran = run(script, capture_output=True)
    assert [line.split(" ", 1)[1] for line in ran.stderr.splitlines()] == [
        "DEBUG shown",
        "ERROR shown",
    ]
    assert ran.stdout == ""


def test_loggers_of_the_application_are_left_alone() -> None:
    script = (
        "import logging\nlogging.basicConfig(format='app: %(message)s')\n"
        "before = logging.getLogger('app')\nlogs.configure()\n"
        "before.warning('heard')\nlogs.logger.warning('once')"
    )
    lines = run(script, capture_output=True).stderr.splitlines()
    assert lines[0] == "app: heard" and lines[1].endswith("WARNING once") and len(lines) == 2


def test_a_journal_gets_priorities_on_every_line_and_no_time(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    script = (
        "import os\nstatus = os.fstat(2)\n"
        "os.environ['JOURNAL_STREAM'] = f'{status.st_dev}:{status.st_ino}'\n"
        "logs.configure(access=True, level='debug')\n"
        "for level in ('debug', 'info', 'warning', 'error', 'critical'):\n"
        "    getattr(logs.logger, level)(level)\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    logs.logger.exception('failed')\n"
    )
    with journal.open("w") as stream:
        run(script, stdout=stream, stderr=stream)
    lines = journal.read_text().splitlines()
    assert lines[:6] == [
        "<7>debug",
        "<6>info",
        "<4>warning",
        "<3>error",
        "<2>critical",
        "<3>failed",
    ]
    assert lines[6] == "<3>Traceback (most recent call last):"
    assert "<3>ZeroDivisionError: division by zero" in lines
    assert all(re.match("<[2-7]>", line) for line in lines)


def test_another_stream_than_the_journal_s_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "log").open("w") as stream:
        status = os.fstat(stream.fileno())
        ours = f"{status.st_dev}:{status.st_ino}"
        for value, expected in [(ours, True), (f"{ours}0", False), ("", False), ("junk", False)]:
            monkeypatch.setenv("JOURNAL_STREAM", value)
            assert logs.is_journal(stream) is expected
        monkeypatch.delenv("JOURNAL_STREAM")
        assert not logs.is_journal(stream)
        monkeypatch.setenv("JOURNAL_STREAM", ours)
    assert not logs.is_journal(stream), "a closed stream leads nowhere"


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("journal", [True, False])
def test_a_configuration_that_says_nothing_leaves_the_defaults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, enabled: bool, journal: bool
) -> None:
    """Without a file the logs are set up another way, which takes less time."""
    monkeypatch.setattr(logs, "is_journal", lambda _stream: journal)
    empty = tmp_path / "log.json"
    empty.write_text("{}")

    def configured(config: Path | None) -> list[Any]:
        logs.configure(enabled=enabled, level="warn", config=config, access=True)
        return [
            (logger.level, logger.propagate, logger.disabled, [*map(described, logger.handlers)])
            for logger in (logs.logger, logs.access_logger)
        ]

    def described(handler: Any) -> tuple[Any, ...]:
        return type(handler), handler.stream, handler.level, type(handler.formatter)

    assert configured(None) == configured(empty)


def test_a_configuration_replaces_top_level_keys(tmp_path: Path) -> None:
    target = tmp_path / "out.log"
    file = tmp_path / "log.json"
    file.write_text(
        json.dumps(
            {
                "handlers": {"file": {"class": "logging.FileHandler", "filename": str(target)}},
                "loggers": {
                    "granian": {"handlers": ["file"], "level": "INFO"},
                    "granian.access": {"handlers": ["file"], "level": "INFO"},
                },
            }
        )
    )
    logs.configure(config=file)
    logs.logger.info("to the file")
    logs.access_logger.info("not asked for")
    for handler in logs.logger.handlers:
        handler.close()
    assert target.read_text() == "to the file\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"handlers": {"x": {"class": "no.such.Handler"}}}', "is not a logging configuration"),
        ('{"handlers": 3}', "is not a logging configuration"),
        ('{"version": 7}', "is not a logging configuration"),
    ],
)
def test_a_configuration_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "log.json"
    file.write_text(text)
    with pytest.raises(OperatorError) as caught:
        logs.configure(config=file)
    assert message in caught.value.message and str(file) in caught.value.message
    with pytest.raises(OperatorError, match="cannot read"):
        logs.configure(config=tmp_path / "gone.json")


# --- the access log ------------------------------------------------------------------------------


def compile(format: str | None, *, json: bool = False) -> _native.AccessLog:
    return _native.AccessLog(format, json=json, journal=False, request_id_header=None, fd=None)


@pytest.mark.parametrize("json", [False, True])
@pytest.mark.parametrize(
    "format",
    [None, "default", "common", "combined", "", "no atom", "100%% %(path)-4s|", "%(status)d",
     "%(header{X-Tag})s %(response_header{server})s", "%(dt_ms).1f %(ttfb_ms)s"],
)  # fmt: skip
def test_formats_that_can_be_used(format: str | None, json: bool) -> None:
    compile(format, json=json)


@pytest.mark.parametrize(
    "format",
    ["%(nothing)s", "%(header)s", "%(header{})s", "%(headers)s", "%(__class__)s", "%(path)d", "%s",
     "%(path)", "%", "%(path", "%d", "%(status)q", "%(path)1000s", "a\nb", "%(time)f"],
)  # fmt: skip
def test_a_wrong_format_is_an_error_at_start(format: str) -> None:
    with pytest.raises(OperatorError) as caught:
        compile(format)
    assert json.dumps(format) in caught.value.message
    assert "%(status)d" in caught.value.hint or "query_string, protocol" in caught.value.hint


def test_lines_for_a_handler_come_in_order_until_the_end() -> None:
    batches = [["a", "b"], [], ["100 %s"]]

    class Lines:
        def next(self) -> list[str] | None:
            return batches.pop(0) if batches else None

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    seen: list[str] = []
    logs.access_logger.addHandler(Handler())
    logs.access_logger.setLevel("INFO")
    logs.pass_on(Lines())  # type: ignore[arg-type]
    assert seen == ["a", "b", "100 %s"]
