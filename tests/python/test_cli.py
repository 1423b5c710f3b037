"""The program as a shell sees it: words in, settings or an error and an exit code out."""

import os
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import granian_uring
from granian_uring import cli
from granian_uring.config import LATER, LaterWord, Settings
from granian_uring.errors import ApplicationError, ExitCode, OperatorError


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GRANIAN_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Settings], int]], None]:
    """Puts a function in the place of `granian_uring.worker.run`."""

    def replace(run: Callable[[Settings], int]) -> None:
        module = types.ModuleType("granian_uring.worker")
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "granian_uring.worker", module)

    return replace


def settings(*arguments: str) -> Settings:
    parsed = cli.parse(["web:app", *arguments])
    assert parsed is not None
    return parsed


def test_nothing_given_is_told_from_the_defaults() -> None:
    assert settings() == Settings(target="web:app")
    assert settings().host is None and settings().port is None


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--host", "::1"], "host", "::1"),
        (["--port", "0"], "port", 0),
        (["--uds-permissions", "660"], "uds_permissions", 0o660),
        (["--uds-permissions", "0o007"], "uds_permissions", 0o007),
        (["--fd", "3", "--fd", "5"], "fds", (3, 5)),
        (["--fd-name", "web", "--fd-name", ""], "fd_names", ("web", "")),
        (["--fd-from-systemd"], "fd_from_systemd", True),
        (["--factory"], "factory", True),
        (["--no-log"], "log", False),
        (["--access-log"], "access_log", True),
        (["--no-default-headers"], "default_headers", False),
        (["--graceful-timeout", "2.5"], "graceful_timeout", 2.5),
        (["--overload", "refuse"], "overload", "refuse"),
        (["--request-timeout", "0.5"], "request_timeout", 0.5),
        (["--max-body-size", "0"], "max_body_size", 0),
        (["--http1-header-read-timeout", "1"], "http1_header_read_timeout", 1),
        (["--http1-buffer-size", "8192"], "http1_buffer_size", 8192),
        (["--no-http1-keep-alive"], "http1_keep_alive", False),
        (["--http1-body-min-rate", "0"], "http1_body_min_rate", 0),
        (["--log-level", "WARN"], "log_level", "warn"),
        (["--interface", "asginl"], "interface", "asginl"),
        (["--working-dir", "/tmp"], "working_dir", Path("/tmp")),
        (["--url-path-prefix", "/api/"], "url_path_prefix", "/api"),
        (["--url-path-prefix", "/"], "url_path_prefix", ""),
        (["--proxy-headers"], "proxy_headers", True),
        (["--proxy-headers-format", "forwarded"], "proxy_headers_format", "forwarded"),
        (
            ["--proxy-trusted", "::1", "--proxy-trusted", "unix:/a"],
            "proxy_trusted",
            ("::1", "unix:/a"),
        ),
        (["--proxy-protocol", "web", "--proxy-protocol", "@a"], "proxy_protocol", ("web", "@a")),
    ],
)
def test_words(arguments: list[str], name: str, value: object) -> None:
    assert getattr(settings(*arguments), name) == value


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("GRANIAN_HOST", "localhost", "host", "localhost"),
        ("GRANIAN_HOST", "", "host", None),
        ("GRANIAN_FD_FROM_SYSTEMD", "1", "fd_from_systemd", True),
        ("GRANIAN_FD_FROM_SYSTEMD", "false", "fd_from_systemd", False),
        ("GRANIAN_FD_NAME", "web admin", "fd_names", ("web", "admin")),
        ("GRANIAN_FD", "3 4", "fds", (3, 4)),
        ("GRANIAN_LOG_ENABLED", "0", "log", False),
        ("GRANIAN_LOG_ACCESS_ENABLED", "yes", "access_log", True),
        ("GRANIAN_LOG_ACCESS_FMT", "%(path)s", "access_log_fmt", "%(path)s"),
        ("GRANIAN_DEFAULT_HEADERS", "off", "default_headers", False),
        ("GRANIAN_UDS_PERMISSIONS", "600", "uds_permissions", 0o600),
        ("GRANIAN_PROXY_HEADERS", "1", "proxy_headers", True),
        ("GRANIAN_PROXY_TRUSTED", "10.0.0.0/8 unix", "proxy_trusted", ("10.0.0.0/8", "unix")),
        ("GRANIAN_HTTP1_KEEP_ALIVE", "0", "http1_keep_alive", False),
        ("GRANIAN_HTTP1_HEADER_READ_TIMEOUT", "60000", "http1_header_read_timeout", 60000),
        ("GRANIAN_WORKERS", "1", "backlog", 1024),
        ("GRANIAN_WEBSOCKETS", "0", "ws", False),
        ("GRANIAN_WS_PING_INTERVAL", "0", "ws_ping_interval", 0.0),
    ],
)
def test_variables(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, name: str, value: object
) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(settings(), name) == value


def test_files_in_a_variable_and_the_line_before_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = [tmp_path / "a.env", tmp_path / "b.env"]
    for file in files:
        file.touch()
    monkeypatch.setenv("GRANIAN_ENV_FILES", ":".join(map(str, files)))
    monkeypatch.setenv("GRANIAN_PORT", "1")
    parsed = settings("--port", "2")
    assert parsed.env_files == tuple(files)
    assert parsed.port == 2


def test_paths_do_not_depend_on_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings("--pid-file", "web.pid").pid_file == tmp_path / "web.pid"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument"),
        (["web:app", "--port", "65536"], "--port"),
        (["web:app", "--backlog", "127"], "--backlog"),
        (["web:app", "--backpressure", "0"], "--backpressure"),
        (["web:app", "--graceful-timeout", "nan"], "--graceful-timeout"),
        (["web:app", "--graceful-timeout", "-1"], "--graceful-timeout"),
        (["web:app", "--uds-permissions", "888"], "octal"),
        (["web:app", "--uds-permissions", "1777"], "octal"),
        (["web:app", "--interface", "cgi"], "--interface"),
        (["web:app", "--unheard-of"], "--unheard-of"),
        (["web:app", "--url-path-prefix", "api"], "does not begin with one slash"),
        (["web:app", "--url-path-prefix", "//api"], "does not begin with one slash"),
        (["web:app", "--proxy-headers-format", "x"], "--proxy-headers-format"),
        (["web:app", "--log-config", "/nowhere/log.json"], "--log-config"),
    ],
)
def test_a_wrong_line_is_two_lines_and_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.main(arguments) == 2
    _assert_error(capsys, message)


def _assert_error(capsys: pytest.CaptureFixture[str], message: str) -> None:
    error, empty, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and message in error
    assert empty == "" and hint.startswith("hint: ")


def _refused(word: LaterWord) -> list[str]:
    if not word.switch:
        return [word.flag, "17"]
    return [word.flag if "on" not in word.accepted else f"--no-{word.flag[2:]}"]


@pytest.mark.parametrize("word", LATER, ids=str)
def test_later_words_are_not_yet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: LaterWord
) -> None:
    line = _refused(word)
    # A value that could be a secret is not repeated.
    expected = f"error: {' '.join(line if word.accepted else line[:1])} is not supported yet"
    assert cli.main(["web:app", *line]) == ExitCode.USAGE
    _assert_error(capsys, expected)
    monkeypatch.setenv(
        word.environment, "17" if not word.switch else str("on" not in word.accepted)
    )
    assert cli.main(["web:app"]) == ExitCode.USAGE
    _assert_error(capsys, expected)


@pytest.mark.parametrize("word", [word for word in LATER if word.accepted], ids=str)
def test_later_words_pass_where_they_ask_for_what_is_done(
    monkeypatch: pytest.MonkeyPatch, word: LaterWord
) -> None:
    for accepted in word.accepted:
        off = f"--no-{word.flag[2:]}"
        line = [word.flag, accepted]
        if word.switch:
            line = [word.flag if accepted == "on" else off]
        assert settings(*line) == Settings(target="web:app")
        monkeypatch.setenv(word.environment, accepted)
        assert settings() == Settings(target="web:app")


def test_help_and_version_need_no_compiled_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == ExitCode.OK
    assert capsys.readouterr().out == f"granian-uring {granian_uring.__version__}\n"
    for flag in ("-h", "--help"):
        assert cli.main([flag]) == ExitCode.OK
        text = capsys.readouterr().out
        assert "Sockets:" in text and "--fd-from-systemd" in text and "--ssl-ca" not in text


def test_the_module_is_the_program() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "granian_uring", "web:app", "--workers", "2"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == ExitCode.USAGE
    assert ran.stderr.startswith("error: --workers 2 is not supported yet\n\nhint: ")


def test_main_returns_what_the_worker_returns(worker: Any) -> None:
    seen: list[Settings] = []

    def run(given: Settings) -> int:
        seen.append(given)
        return ExitCode.LIFESPAN

    worker(run)
    assert cli.main(["web:app", "--port", "0"]) == ExitCode.LIFESPAN
    assert seen == [Settings(target="web:app", port=0)]


def test_an_operator_s_error_is_two_lines(worker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: Settings) -> int:
        raise OperatorError("cannot listen", "choose another port")

    worker(run)
    assert cli.main(["web:app"]) == 1
    assert capsys.readouterr().err == "error: cannot listen\n\nhint: choose another port\n"


def test_an_application_s_error_is_its_traceback(
    worker: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: Settings) -> int:
        raise ApplicationError(
            "the application 'web:app' could not be imported", ValueError("x"), None
        )

    worker(run)
    assert cli.main(["web:app"]) == 3
    text = capsys.readouterr().err
    assert text.startswith("ValueError: x\n") and "could not be imported" in text


def test_main_leaves_no_thread_behind_in_a_process_that_goes_on(worker: Any) -> None:
    """The guard of the way out ended whoever had called `main` for an application like this."""

    def run(_: Settings) -> int:
        raise ApplicationError("the application 'web:app' is broken", ValueError("x"), None)

    worker(run)
    before = set(threading.enumerate())
    assert cli.main(["web:app"]) == ExitCode.APPLICATION
    assert set(threading.enumerate()) == before


def test_a_bug_of_ours_is_not_hidden(worker: Any) -> None:
    def run(_: Settings) -> int:
        raise ZeroDivisionError

    worker(run)
    with pytest.raises(ZeroDivisionError):
        cli.main(["web:app"])


# --- the process ---------------------------------------------------------------------------------


def test_env_files_are_there_before_the_worker_and_configure_nothing(
    worker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("dotenv")
    (tmp_path / "a.env").write_text("FROM_FILE=a\nSET=file\nGRANIAN_PORT=1\n")
    (tmp_path / "b.env").write_text("FROM_FILE=b\nONLY_B=b\n")
    for name in ("FROM_FILE", "ONLY_B", "GRANIAN_PORT"):
        # Known to monkeypatch, so that it takes away again what the file sets.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("SET", "before")
    seen: dict[str, object] = {}

    def run(given: Settings) -> int:
        seen.update({name: os.environ.get(name) for name in ("FROM_FILE", "SET", "ONLY_B")})
        seen["port"] = given.port
        return 0

    worker(run)
    files = [f"--env-files={tmp_path / name}" for name in ("a.env", "b.env")]
    assert cli.main(["web:app", *files]) == ExitCode.OK
    assert seen == {"FROM_FILE": "a", "SET": "before", "ONLY_B": "b", "port": None}


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("dotenv", ["--env-files", __file__], "granian-uring[dotenv]"),
        ("setproctitle", ["--process-name", "web"], "granian-uring[pname]"),
    ],
)
def test_an_extra_that_is_not_installed_is_named(
    worker: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    package: str,
    arguments: list[str],
    extra: str,
) -> None:
    worker(lambda _: pytest.fail("the worker must not run"))
    monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(["web:app", *arguments]) == ExitCode.OPERATOR
    text = capsys.readouterr().err
    assert "which is not installed\n\nhint: pip install" in text and extra in text


def test_the_process_name_is_what_ps_shows() -> None:
    pytest.importorskip("setproctitle")
    script = (
        "from granian_uring import cli; from pathlib import Path; cli._name_process('my web');"
        "print(Path('/proc/self/cmdline').read_bytes().rstrip(b'\\0').decode())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout == "my web\n"


def test_the_pid_file_lives_as_long_as_the_server(worker: Any, tmp_path: Path) -> None:
    file = tmp_path / "web.pid"
    worker(lambda _: int(file.read_text() == f"{os.getpid()}\n"))
    assert cli.main(["web:app", "--pid-file", str(file)]) == 1, "the file had the process id"
    assert not file.exists()


def test_the_pid_file_of_a_dead_process_is_replaced(worker: Any, tmp_path: Path) -> None:
    file = tmp_path / "web.pid"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(60)
    for stale in (f"{dead.pid}\n", "junk", "", "-1", "99999999999999999999"):
        file.write_text(stale)
        worker(lambda _: ExitCode.OK)
        assert cli.main(["web:app", "--pid-file", str(file)]) == ExitCode.OK
        assert not file.exists()


def test_the_pid_file_of_a_live_process_is_an_error(
    worker: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worker(lambda _: pytest.fail("the worker must not run"))
    file = tmp_path / "web.pid"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as alive:
        file.write_text(f"{alive.pid}\n")
        assert cli.main(["web:app", "--pid-file", str(file)]) == ExitCode.OPERATOR
        alive.send_signal(signal.SIGKILL)
    _assert_error(capsys, f"names process {alive.pid}, which is alive")
    assert file.read_text() == f"{alive.pid}\n"


def test_a_pid_file_that_cannot_be_written_is_an_error(
    worker: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worker(lambda _: pytest.fail("the worker must not run"))
    assert cli.main(["web:app", "--pid-file", str(tmp_path / "no" / "web.pid")]) == 1
    _assert_error(capsys, "cannot write --pid-file")


def test_the_pid_file_of_a_successor_is_left_alone(worker: Any, tmp_path: Path) -> None:
    file = tmp_path / "web.pid"
    worker(lambda _: file.write_text("1\n") and 0)
    assert cli.main(["web:app", "--pid-file", str(file)]) == ExitCode.OK
    assert file.read_text() == "1\n"
