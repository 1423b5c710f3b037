"""An option exists once: declarations, command line, environment and documentation agree."""

import dataclasses
import inspect
import os
import re
from pathlib import Path

import click
import pytest

from granian_uring import _native, cli, config
from granian_uring.config import LATER, OPTIONS, LaterWord, Option
from granian_uring.errors import ExitCode

DOCUMENT = Path(__file__).parents[2] / "docs" / "options.md"

# The command line of Granian 2.8.7: every word is an option here, or understood and refused.
GRANIAN_WORDS = (
    "host",
    "port",
    "uds",
    "uds-permissions",
    "interface",
    "http",
    "ws",
    "workers",
    "blocking-threads",
    "blocking-threads-idle-timeout",
    "runtime-threads",
    "runtime-blocking-threads",
    "runtime-mode",
    "loop",
    "task-impl",
    "backlog",
    "backpressure",
    "http1-buffer-size",
    "http1-header-read-timeout",
    "http1-keep-alive",
    "http1-pipeline-flush",
    "http2-adaptive-window",
    "http2-initial-connection-window-size",
    "http2-initial-stream-window-size",
    "http2-keep-alive-interval",
    "http2-keep-alive-timeout",
    "http2-max-concurrent-streams",
    "http2-max-frame-size",
    "http2-max-headers-size",
    "http2-max-send-buffer-size",
    "log",
    "log-level",
    "log-config",
    "access-log",
    "access-log-fmt",
    "ssl-certificate",
    "ssl-keyfile",
    "ssl-keyfile-password",
    "ssl-protocol-min",
    "ssl-ca",
    "ssl-crl",
    "ssl-client-verify",
    "url-path-prefix",
    "respawn-failed-workers",
    "respawn-interval",
    "rss-sample-interval",
    "rss-samples",
    "workers-lifetime",
    "workers-max-rss",
    "workers-kill-timeout",
    "factory",
    "working-dir",
    "env-files",
    "static-path-route",
    "static-path-mount",
    "static-path-dir-to-file",
    "static-path-expires",
    "metrics",
    "metrics-scrape-interval",
    "metrics-address",
    "metrics-port",
    "reload",
    "reload-paths",
    "reload-ignore-dirs",
    "reload-ignore-patterns",
    "reload-ignore-paths",
    "reload-tick",
    "reload-ignore-worker-failure",
    "process-name",
    "pid-file",
)

DECLARED: tuple[Option | LaterWord, ...] = (*OPTIONS, *LATER)

# Where Granian's variable does not follow from the word.
GRANIAN_VARIABLES = {
    "ws": "GRANIAN_WEBSOCKETS",
    "log": "GRANIAN_LOG_ENABLED",
    "access-log": "GRANIAN_LOG_ACCESS_ENABLED",
    "access-log-fmt": "GRANIAN_LOG_ACCESS_FMT",
    "metrics": "GRANIAN_METRICS_ENABLED",
}


def test_granian_words_and_variables_are_all_there() -> None:
    ours = {declared.flag: declared.environment for declared in DECLARED}
    assert len(GRANIAN_WORDS) == 70
    for word in GRANIAN_WORDS:
        variable = GRANIAN_VARIABLES.get(word, "GRANIAN_" + word.replace("-", "_").upper())
        assert ours.get(f"--{word}") == variable


def test_flags_and_variables_are_unique() -> None:
    assert len({entry.flag for entry in DECLARED}) == len(DECLARED)
    assert len({entry.environment for entry in DECLARED}) == len(DECLARED)


def test_settings_are_the_target_and_the_options() -> None:
    fields = [field.name for field in dataclasses.fields(config.Settings)]
    assert fields == ["target", *(option.name for option in OPTIONS)]
    defaults = config.Settings(target="app")
    assert all(getattr(defaults, option.name) == option.default for option in OPTIONS)


def test_the_command_has_exactly_the_declared_options() -> None:
    parameters = {
        parameter.opts[0]: parameter
        for parameter in cli.command().params
        if isinstance(parameter, click.Option)
    }
    assert set(parameters) - {"--version"} == {entry.flag for entry in DECLARED}
    for option in OPTIONS:
        parameter = parameters[option.flag]
        assert parameter.name == option.name
        assert parameter.envvar == option.environment
        assert parameter.secondary_opts == ([option.off_flag] if option.off_flag else [])
        assert parameter.multiple is option.repeatable
        assert not parameter.hidden and parameter.expose_value
        assert option.group in config.GROUPS
    for word in LATER:
        assert parameters[word.flag].hidden and parameters[word.flag].envvar == word.environment


def test_documentation_has_the_declarations() -> None:
    """`UPDATE=1` writes what is declared between the marks of docs/options.md."""
    found = DOCUMENT.read_text(encoding="utf-8")
    expected = found
    for name, table in _tables().items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        head, rest = expected.split(begin)
        _, tail = rest.split(end)
        expected = head + begin + table + end + tail
    if os.environ.get("UPDATE"):
        DOCUMENT.write_text(expected, encoding="utf-8")
    elif found != expected:
        pytest.fail("docs/options.md is not what is declared\n\nhint: run the tests with UPDATE=1")


def _tables() -> dict[str, str]:
    head = "| option | variable | value | default | what it does |\n|---|---|---|---|---|\n"
    tables = {
        group: head + "".join(_option_row(option) for option in OPTIONS if option.group == group)
        for group in config.GROUPS
    }
    tables["Granian"] = "| word | variable | passes | otherwise |\n|---|---|---|---|\n" + "".join(
        map(_later_row, LATER)
    )
    tables["exit codes"] = "| code | when |\n|---|---|\n" + "".join(
        f"| {code.value} | {code.meaning} |\n" for code in ExitCode
    )
    return tables


def _option_row(option: Option) -> str:
    flags = " / ".join(f"`{flag}`" for flag in (option.flag, option.off_flag) if flag)
    value = f"{_value(option.type)} {option.unit}".strip()
    value += ", may be repeated" if option.repeatable else ""
    shown = option.shown_default or "-"
    return f"| {flags} | `{option.environment}` | {value} | {shown} | {option.help} |\n"


def _value(kind: "click.ParamType[object]") -> str:
    match kind:
        case click.Choice(choices=choices):
            return ", ".join(choices)
        case click.types.BoolParamType():
            return "switch"
        case config.Octal():
            return "octal, 000 to 777"
        case click.IntRange(min=least, max=most) | click.FloatRange(min=least, max=most):
            return f"{least}.." if most == 2**31 - 1 else f"{least}..{most}"
        case _:
            return kind.name


def _later_row(word: LaterWord) -> str:
    off = f"--no-{word.flag.removeprefix('--')}"
    if word.switch:
        passes = ", ".join(f"`{word.flag if side == 'on' else off}`" for side in word.accepted)
    else:
        passes = ", ".join(word.accepted)
    flags = f"`{word.flag}` / `{off}`" if word.switch else f"`{word.flag}`"
    return f"| {flags} | `{word.environment}` | {passes or '-'} | {word.hint or '-'} |\n"


def test_native_names_are_those_of_the_compiled_part() -> None:
    """Options that go to Rust: arguments of `open_listeners`, or fields of `WorkerOptions`."""
    arguments = set(inspect.signature(_native.open_listeners).parameters) - {"activation"}
    source = Path(__file__).parents[2] / "pybind" / "src" / "config.rs"
    struct = source.read_text().split("pub struct WorkerOptions {")[1].split("}")[0]
    # What is not an option: whether the log wants to know of refusals.
    fields = set(re.findall(r"^    (\w+):", struct, re.MULTILINE)) - {"report_refusals"}
    declared = {option.native for option in OPTIONS if option.native is not None}
    assert declared == arguments | fields
