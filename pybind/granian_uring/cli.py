"""The command line: words and `GRANIAN_*` variables become `Settings`, errors become exit codes.

The click command is built from `granian_uring.config`; nothing about an option is said here. `main`
prepares the process (variables, name, pid file) and hands over to `granian_uring.worker.run`.

Errors of the operator are printed as `error: ...`, an empty line, and `hint: ...`; an application
that cannot be imported shows its own traceback. Every other exception is a bug and shows as one.
"""

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

import granian_uring
from granian_uring import config
from granian_uring.config import LATER, OPTIONS, LaterWord, NotYet, Option, Settings
from granian_uring.errors import ApplicationError, ExitCode, OperatorError
from granian_uring.guard import ExitGuard

__all__ = ["command", "main", "parse", "program"]

_PROGRAM = "granian-uring"
# Threads of an application that could not be served may run this long.
_THREADS_SECONDS = 2.0
_LATER_NOTE = (
    "Granian's other words are understood: they pass where they ask for what is done anyway, and "
    "are refused with a reason otherwise."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program and returns its exit code. `arguments` are without the program's name."""
    try:
        settings = parse(arguments)
        if settings is None:
            return ExitCode.OK
        return _run(settings)
    except click.ClickException as error:
        hint = error.hint if isinstance(error, NotYet) else f"`{_PROGRAM} --help` lists the options"
        _print_error(f"{error.format_message().rstrip('.')}\n\nhint: {hint}")
        return ExitCode.USAGE
    except OperatorError as error:
        _print_error(str(error))
        return error.code
    except ApplicationError as error:
        traceback.print_exception(error.error)
        _print_error(f"{error.what}; its traceback is above")
        return error.code


def program() -> NoReturn:
    """`main` as a process of its own, which ends also if it leaves threads behind."""
    code = main()
    if code != ExitCode.OK:
        # The application may have started threads before something failed.
        guard = ExitGuard()
        guard.code = code
        guard.start(_THREADS_SECONDS)
    sys.exit(code)


def parse(arguments: Sequence[str] | None = None) -> Settings | None:
    """The settings of a command line (by default the process's own) and of the environment.

    None when the question was only for `--help` or `--version`, which is answered on stdout. Raises
    `click.ClickException` for what cannot be understood, or is not there yet.
    """
    found: Settings | int | None = command().main(
        None if arguments is None else list(arguments), _PROGRAM, standalone_mode=False
    )
    return found if isinstance(found, Settings) else None


def command() -> click.Command:
    """The click command, whose result is `Settings`."""
    target = click.Argument(["target"], metavar="MODULE[:ATTRIBUTE]")
    version = click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_show_version,
        help="Show the version and exit.",
    )
    return _Command(
        _PROGRAM,
        callback=lambda **values: Settings(**values),
        params=[target, *map(_parameter, OPTIONS), *map(_later_parameter, LATER), version],
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Serve the ASGI, RSGI or WSGI application that MODULE:ATTRIBUTE names (app:app if it "
        "is called so; MODULE alone means MODULE:app).",
        epilog=_LATER_NOTE,
    )


def _show_version(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    """As `click.version_option` does, but the version is looked up now, and need not be known."""
    if asked and not context.resilient_parsing:
        click.echo(f"{_PROGRAM} {granian_uring.__version__}")
        context.exit()


class _Command(click.Command):
    """Lists the options of --help in the groups of the declarations."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups = {option.name: option.group for option in OPTIONS}
        options = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
        for group in (*config.GROUPS, "Other"):
            members = [o for o in options if groups.get(o.name or "", "Other") == group]
            rows = [row for o in members if (row := o.get_help_record(ctx)) is not None]
            if rows:
                with formatter.section(group):
                    formatter.write_dl(rows)


class _Option(click.Option):
    """Shows the default in the declaration's words, and no bounds (docs/options.md has them)."""

    def __init__(self, names: Sequence[str], *, option: Option, **attributes: Any) -> None:
        super().__init__(names, **attributes)
        self._shown_default = option.shown_default

    def get_help_extra(self, ctx: click.Context) -> Any:
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        if self._shown_default:
            extra["default"] = self._shown_default
        return extra


def _parameter(option: Option) -> click.Option:
    flag = f"{option.flag}/{option.off_flag}" if option.off_flag else option.flag
    return _Option(
        [flag, option.name],
        option=option,
        type=option.type,
        metavar=option.unit.upper() or None,
        is_flag=option.type is click.BOOL,
        default=option.default,
        multiple=option.repeatable,
        envvar=option.environment,
        show_envvar=True,
        help=option.help,
    )


def _later_parameter(word: LaterWord) -> click.Option:
    """A hidden option that passes, or says that it is not there yet."""

    def check(_context: click.Context, _parameter: click.Parameter, values: Any) -> None:
        for value in (values,) if word.switch else values:
            if value is not None:
                _check_later(word, value)

    flag = f"{word.flag}/--no-{word.flag.removeprefix('--')}" if word.switch else word.flag
    return click.Option(
        [flag, word.flag.removeprefix("--").replace("-", "_")],
        # A default of None tells "not given" from "off".
        default=None,
        is_flag=word.switch,
        type=click.BOOL if word.switch else click.STRING,
        # Some of Granian's may be given more than once.
        multiple=not word.switch,
        envvar=word.environment,
        hidden=True,
        expose_value=False,
        callback=check,
    )


def _check_later(word: LaterWord, value: str | bool) -> None:
    if word.switch:
        side = "on" if value else "off"
        shown = word.flag if value else f"--no-{word.flag.removeprefix('--')}"
    else:
        side = str(value)
        # Where no value passes it says nothing, and may be a secret (--ssl-keyfile-password).
        shown = f"{word.flag} {value}" if word.accepted else word.flag
    if side not in word.accepted:
        raise NotYet(shown, word.hint)


def _run(settings: Settings) -> int:
    _load_environment(settings.env_files)
    _name_process(settings.process_name)
    # Late, because it needs the compiled part, which --help and a wrong option do not.
    from granian_uring.worker import run

    with _pid_file(settings.pid_file):
        return run(settings)


def _load_environment(files: Sequence[Path]) -> None:
    """Reads dotenv files as Granian does: what is set already wins, also over later files."""
    if not files:
        return
    try:
        import dotenv
    except ImportError:
        raise OperatorError(
            "--env-files needs the package python-dotenv, which is not installed",
            "pip install 'granian-uring[dotenv]', or use EnvironmentFile= in the .service unit",
        ) from None
    for file in files:
        dotenv.load_dotenv(file, override=False)


def _name_process(name: str | None) -> None:
    if name is None:
        return
    try:
        import setproctitle
    except ImportError:
        raise OperatorError(
            "--process-name needs the package setproctitle, which is not installed",
            "pip install 'granian-uring[pname]', or leave --process-name out",
        ) from None
    setproctitle.setproctitle(name)


@contextmanager
def _pid_file(path: Path | None) -> Iterator[None]:
    """Holds the process id in `path`, and removes the file if it still has it."""
    if path is None:
        yield
        return
    pid = os.getpid()
    holder = _pid_in(path)
    if holder is not None and holder != pid and _is_alive(holder):
        raise OperatorError(
            f"--pid-file {path} names process {holder}, which is alive",
            "stop that server first, or choose another file",
        )
    try:
        path.write_text(f"{pid}\n")
    except OSError as error:
        raise OperatorError(
            f"cannot write --pid-file {path}: {error.strerror}",
            "systemd needs no pid file (Type=notify); elsewhere the directory must exist and be "
            "writable",
        ) from None
    try:
        yield
    finally:
        if os.getpid() == pid and _pid_in(path) == pid:
            path.unlink(missing_ok=True)


def _pid_in(path: Path) -> int | None:
    try:
        pid = int(path.read_text())
    except (OSError, ValueError):
        return None
    return pid if pid > 0 else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _print_error(text: str) -> None:
    print(f"error: {text}", file=sys.stderr, flush=True)
