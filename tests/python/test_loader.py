"""Finding the application, and telling what it speaks."""

import asyncio
import functools
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest

from granian_uring.errors import ApplicationError, ExitCode, OperatorError
from granian_uring.loader import describe, entrance, interface, load


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; modules imported from it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def refusal(target: str, **options: Any) -> OperatorError:
    with pytest.raises(OperatorError) as caught:
        load(target, **options)
    return caught.value


def failure(target: str, **options: Any) -> str:
    """What the application raised, as the operator sees it."""
    with pytest.raises(ApplicationError) as caught:
        load(target, **options)
    assert caught.value.code == ExitCode.APPLICATION
    text = "".join(traceback.format_exception(caught.value.error))
    assert "granian_uring" not in text and "importlib" not in text, text
    return text


# --- load ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("web:app", "app"),
        ("web", "app"),
        ("web:other", "other"),
        ("web:box.inner.app", "inner"),
        ("shop.site:app", "site"),
        ("shop", "shop"),
    ],
)
def test_targets(directory: Path, target: str, expected: str) -> None:
    (directory / "web.py").write_text(
        "app = 'app'; other = 'other'\nclass box:\n class inner:\n  app = 'inner'\n"
    )
    (directory / "shop").mkdir()
    (directory / "shop" / "__init__.py").write_text("app = 'shop'\n")
    (directory / "shop" / "site.py").write_text("app = 'site'\n")
    assert load(target) == expected
    assert sys.path[0] == str(directory)


def test_the_working_directory_is_entered_and_searched_first(directory: Path) -> None:
    (directory / "web.py").write_text("app = 'outer'\n")
    inner = directory / "inner"
    inner.mkdir()
    (inner / "web.py").write_text("import os\napp = os.getcwd()\n")
    assert load("web", working_dir=inner) == str(inner)
    assert Path.cwd() == inner


@pytest.mark.parametrize(
    "target", ["", ":app", "web:", "web:a b", "web.py", "./web", "src/web.py:app"]
)
def test_what_is_no_target_is_a_wrong_line(target: str) -> None:
    error = refusal(target)
    assert error.code == ExitCode.USAGE
    if target == "src/web.py:app":
        assert error.hint.endswith("src.web:app")


def test_a_missing_module_is_told_from_an_import_error_inside(directory: Path) -> None:
    (directory / "web.py").write_text("import not_installed_anywhere\n")
    error = refusal("wbe:app")
    assert error.code == ExitCode.APPLICATION
    assert "no module 'wbe'" in error.message and str(directory) in error.message
    assert error.hint == "did you mean web?"
    assert "no module 'nowhere'" in refusal("nowhere.web:app").message

    text = failure("web:app")
    assert text.startswith("Traceback (most recent call last):\n")
    assert f'File "{directory}/web.py", line 1' in text
    assert text.endswith("ModuleNotFoundError: No module named 'not_installed_anywhere'\n")


def test_a_missing_submodule_is_told_from_its_package_s_own_failure(directory: Path) -> None:
    package = directory / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert "no module 'shop.site'" in refusal("shop.site:app").message
    (package / "site.py").write_text("import shop.missing\n")
    assert "shop.missing" in failure("shop.site:app")


def test_a_package_that_imports_the_missing_module_itself_shows_where(directory: Path) -> None:
    (directory / "shop").mkdir()
    (directory / "shop" / "__init__.py").write_text("import shop.site\n")
    assert 'shop/__init__.py", line 1' in failure("shop.site:app")


@pytest.mark.parametrize(
    ("source", "last"),
    [
        ("def f():\n    raise ValueError('no database')\nf()\n", "ValueError: no database"),
        ("import sys\nsys.exit('bye')\n", "SystemExit: bye"),
        ("app = (\n", "SyntaxError: '(' was never closed"),
        ("import helper\n", "KeyError: 'SECRET'"),
        (
            "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise OSError('x') from e\n",
            "OSError: x",
        ),
    ],
)
def test_an_application_s_own_traceback_and_nothing_of_ours(
    directory: Path, source: str, last: str
) -> None:
    (directory / "helper.py").write_text("secret = {}['SECRET']\n")
    (directory / "web.py").write_text(source)
    text = failure("web:app")
    assert text.endswith(f"{last}\n") and f"{directory}/web.py" in text


def test_an_interrupt_is_not_the_application_s(directory: Path) -> None:
    (directory / "web.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load("web")


def test_a_missing_attribute_lists_near_names(directory: Path) -> None:
    (directory / "web.py").write_text("application = 1\nclass box: pass\n")
    error = refusal("web:aplication")
    assert "module 'web' has no attribute 'aplication'" in error.message
    assert error.hint == "did you mean application?"
    assert "application, box" in refusal("web:zzz").hint
    assert "class box has no attribute 'app'" in refusal("web:box.app").message


def test_a_factory_is_called(directory: Path) -> None:
    (directory / "web.py").write_text("def create(name='x'):\n    return 'made ' + name\n")
    assert load("web:create", factory=True) == "made x"
    assert callable(load("web:create"))


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("create = 1", "expected a function", "--factory"),
        ("async def create(): ...", "is async", "lifespan"),
        ("async def f(): ...\ndef create(): return f()", "returned an awaitable", "plain function"),
        ("def create(settings): ...", "needs arguments", "--factory"),
    ],
)
def test_what_is_no_factory(directory: Path, source: str, message: str, hint: str) -> None:
    (directory / "web.py").write_text(source)
    error = refusal("web:create", factory=True)
    assert message in error.message and hint in error.hint


def test_a_factory_s_failure_is_the_application_s(directory: Path) -> None:
    (directory / "web.py").write_text("def create():\n    return {}['SECRET']\n")
    text = failure("web:create", factory=True)
    assert "line 2, in create" in text and text.endswith("KeyError: 'SECRET'\n")


# --- interface -----------------------------------------------------------------------------------


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


async def rsgi(scope: Any, protocol: Any) -> None: ...


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


def plain(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
    return asgi(scope, receive, send)


def asgi2(scope: Any) -> Callable[[Any, Any], Awaitable[None]]:
    async def instance(receive: Any, send: Any) -> None: ...

    return instance


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return wrapper


def bare(function: Any) -> Any:
    return lambda *arguments, **named: function(*arguments, **named)


class Framework:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async def method(self, scope: Any, receive: Any, send: Any) -> None: ...

    @staticmethod
    async def static(scope: Any, receive: Any, send: Any) -> None: ...


class Configured:
    async def __call__(self, debug: bool, scope: Any, receive: Any, send: Any) -> None: ...


class Both(Framework):
    async def __rsgi__(self, scope: Any, protocol: Any) -> None: ...


class OnlyRsgi:
    async def __rsgi__(self, scope: Any, protocol: Any) -> None: ...


class CallableRsgi:
    async def __call__(self, scope: Any, protocol: Any) -> None: ...


def plain_rsgi(scope: Any, protocol: Any) -> Awaitable[None]:
    return rsgi(scope, protocol)


class SyncFramework:
    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return []


class Endpoint:
    def __init__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def __await__(self) -> Iterator[Any]:
        return iter(())


class Asgi2Class:
    def __init__(self, anything: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


class CallOfItsOwn:
    """As sentry-sdk's middleware: the call is an attribute of the object."""

    __slots__ = ("__call__",)

    def __init__(self) -> None:
        self.__call__ = self.run

    async def run(self, scope: Any, receive: Any, send: Any) -> None: ...


async def configured(debug: bool, scope: Any, receive: Any, send: Any) -> None: ...


@pytest.mark.parametrize(
    "application",
    [
        asgi,
        plain,
        decorated(asgi),
        bare(asgi),
        Framework(),
        Framework().method,
        Framework.static,
        functools.partial(configured, True),
        functools.partial(Configured(), True),
        functools.partial(asgi),
        decorated(functools.partial(asgi)),
        Endpoint,
        CallOfItsOwn(),
        asgi2,
        Asgi2Class,
        bare(Both()),
        functools.partial(asgi2),
    ],
    ids=lambda application: getattr(application, "__qualname__", type(application).__qualname__),
)
def test_asgi_is_recognised(application: Any) -> None:
    assert interface(application) == "asgi"


class WsgiClass:
    """As PEP 3333 shows it: an instance is the iterable of a response."""

    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __iter__(self) -> Iterator[bytes]:
        yield b""


def bound(name: str, environ: Any, start_response: Any, exc_info: Any = None) -> list[bytes]:
    return []


@pytest.mark.parametrize(
    "application",
    [
        wsgi,
        SyncFramework(),
        SyncFramework().__call__,
        decorated(wsgi),
        bare(wsgi),
        bare(bare(functools.partial(bound, "name"))),
        validator(wsgi),
        WsgiClass,
        functools.partial(bound, "name"),
    ],
    ids=str,
)
def test_wsgi_is_recognised(application: Any) -> None:
    assert interface(application) == "wsgi"


@pytest.mark.parametrize(
    "application",
    [
        rsgi,
        plain_rsgi,
        decorated(rsgi),
        decorated(plain_rsgi),
        Both(),
        OnlyRsgi(),
        CallableRsgi(),
        bare(rsgi),
        functools.partial(CallableRsgi()),
        OnlyRsgi().__rsgi__,
    ],
    ids=lambda application: getattr(application, "__qualname__", type(application).__qualname__),
)
def test_rsgi_is_recognised(application: Any) -> None:
    assert interface(application) == "rsgi"


def test_a_coroutine_function_of_cython_is_known_by_its_mark() -> None:
    """It has no flag that says so, but asyncio's mark."""

    def compiled(a: Any, b: Any) -> None: ...

    compiled._is_coroutine = object()  # type: ignore[attr-defined]
    assert interface(compiled) == "rsgi"


def test_the_entrance_is_rsgi_s_method() -> None:
    both = Both()
    assert entrance(both, "rsgi") == both.__rsgi__
    assert entrance(both, "asgi") is both
    assert entrance(rsgi, "rsgi") is rsgi


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("wanted", ["auto", "asgi", "asginl"])
def test_asgi_2_is_served_as_asgi_3(wanted: str, wrapped: bool) -> None:
    called: list[Any] = []

    def old(scope: Any) -> Any:
        async def instance(receive: Any, send: Any) -> None:
            called.append((scope, receive, send))

        return instance

    application = bare(old) if wrapped else old
    found = entrance(application, interface(application, wanted))
    asyncio.run(found("scope", "receive", "send"))
    assert called == [("scope", "receive", "send")]


@pytest.mark.parametrize(
    ("application", "wanted", "found"),
    [
        (asgi, "auto", "ASGI, function asgi"),
        (asgi, "asginl", "ASGI without lifespan, function asgi"),
        (Asgi2Class, "auto", "ASGI 2, class Asgi2Class"),
        (OnlyRsgi(), "auto", "RSGI, an object of type OnlyRsgi"),
        (wsgi, "auto", "WSGI, function wsgi"),
    ],
    ids=str,
)
def test_what_was_found_is_said(application: Any, wanted: str, found: str) -> None:
    assert describe(application, interface(application, wanted)) == found


@pytest.mark.parametrize(
    ("application", "message", "hint"),
    [
        (lambda *anything: asgi, "takes any arguments", "--interface"),
        (lambda settings: asgi, "takes one argument", "called scope"),
        (Both, "looks like a factory", "--factory"),
        (Framework, "looks like a factory", "--factory"),
        (lambda: asgi, "looks like a factory", "--factory"),
        (lambda a, b, c, d: None, "none of the arguments", "async def app"),
        (42, "expected a callable", "MODULE:ATTRIBUTE"),
        (os, "the module os", "MODULE:ATTRIBUTE"),
    ],
    ids=str,
)
def test_everything_else_is_named(application: Any, message: str, hint: str) -> None:
    with pytest.raises(OperatorError) as caught:
        interface(application)
    assert caught.value.code == ExitCode.APPLICATION
    assert message in caught.value.message and hint in caught.value.hint


def test_what_the_operator_says_goes() -> None:
    assert interface(wsgi, "asgi") == "asgi"
    assert interface(asgi, "asginl") == "asginl"
    assert interface(wsgi, "rsgi") == "rsgi"
    assert interface(iter, "wsgi") == "wsgi"
    assert interface(Both(), "asgi") == "asgi"
    for application in (42, OnlyRsgi()):
        with pytest.raises(OperatorError):
            interface(application, "asgi")


def test_what_has_no_signature_is_asked_for() -> None:
    with pytest.raises(OperatorError) as caught:
        interface(iter)
    assert (
        "cannot tell" in caught.value.message
        and caught.value.hint == "say it with --interface asgi, rsgi or wsgi"
    )
