"""Finding the application: from `module:attribute` to a callable, and to what it speaks.

`load` imports, takes the attribute, and calls it if it is a factory. What the application raises
meanwhile is an `ApplicationError` that carries its own traceback, from its own first frame on; what
the operator got wrong (no such module, no such attribute) is an `OperatorError` with a hint.

`interface` looks at what was found. Its rules, in order:

1. `__rsgi__` is RSGI, as its specification says, whatever else the object speaks.
2. An async callable that takes three arguments is ASGI (also as an instance, a bound method, a
   partial, compiled by Cython, or under decorators that keep `__wrapped__`), and so is a class that
   takes three and can be awaited. An async callable of two arguments is RSGI.
3. A plain callable that needs exactly two arguments is WSGI, the same ways; but RSGI if the first
   of them is called `scope`: a function that returns the awaitable.
4. A plain callable that takes three is ASGI: a wrapper that returns the awaitable.
5. One argument is ASGI 2, if it is called `scope`, or the callable is a class whose instances are
   called with two. None at all looks like a factory.
6. A wrapper of `*args` (that of `wsgiref.validate` and many decorators) is what the one callable
   is that it closes over. Where there is none or there are several, and where there is no
   signature, it cannot be told: `--interface` says it.

`entrance` gives what is called for a request.
"""

import contextlib
import functools
import importlib
import inspect
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from granian_uring.errors import ApplicationError, ExitCode, OperatorError

__all__ = ["describe", "entrance", "interface", "load"]

DEFAULT_ATTRIBUTE = "app"

_WHAT_ASGI_IS = (
    "an ASGI application is `async def app(scope, receive, send)`, an RSGI application "
    "`async def app(scope, protocol)`"
)
_WHAT_ALL_ARE = f"{_WHAT_ASGI_IS}, a WSGI application `def app(environ, start_response)`"
_SAY_IT = "say it with --interface asgi, rsgi or wsgi"


def load(target: str, *, factory: bool = False, working_dir: Path | None = None) -> Any:
    """Imports the application that `target` names: `module:attribute.of.it`, or `module` alone.

    Changes to `working_dir` first, and puts the working directory at the head of `sys.path`. Raises
    `OperatorError` (its `code` says what is wrong: the line, the directory, the application) and
    `ApplicationError`.
    """
    module_name, attribute = _split(target)
    if working_dir is not None:
        try:
            os.chdir(working_dir)
        except OSError as error:
            raise OperatorError(
                f"cannot change to --working-dir {working_dir}: {error.strerror}",
                "the server's user must be able to enter it",
            ) from None
    directory = str(Path.cwd())
    if directory not in sys.path[:1]:
        sys.path.insert(0, directory)

    found = _attribute(_import(module_name, target), attribute, target)
    return _make(found, target) if factory else found


def interface(application: Any, wanted: str = "auto") -> str:
    """`asgi`, `asginl`, `rsgi` or `wsgi`: what `application` is, or what `--interface` says it is.

    Raises `OperatorError` for what is something else.
    """
    speaks_rsgi = _speaks_rsgi(application)
    if not callable(application) and not (speaks_rsgi and wanted in ("auto", "rsgi")):
        raise _refusal(
            f"the application is {_describe(application)}, expected a callable",
            "name the application object itself, as MODULE:ATTRIBUTE",
        )
    if wanted != "auto":
        return wanted
    if speaks_rsgi:
        return "rsgi"

    application = _behind_wrappers(application)
    takes = _takes(application)
    if takes is None:
        raise _refusal(
            f"cannot tell what {_describe(application)} speaks: it has no signature", _SAY_IT
        )
    if not _is_async(application):
        return _plain_interface(application, takes)
    if takes(3):
        return "asgi"
    if takes(2):
        return "rsgi"
    if takes(0):
        raise _looks_like_factory(application)
    raise _refusal(
        f"{_describe(application)} is async, but takes neither three arguments nor two",
        _WHAT_ASGI_IS,
    )


def entrance(application: Any, interface: str) -> Any:
    """What is called for a request: `__rsgi__` of an object that has it; ASGI 2 as if it were 3."""
    if interface == "rsgi":
        return application.__rsgi__ if _speaks_rsgi(application) else application
    if interface == "wsgi" or not _is_asgi2(application):
        return application

    async def single(scope: Any, receive: Any, send: Any) -> None:
        await application(scope)(receive, send)

    return single


def describe(application: Any, interface: str) -> str:
    """What was found, for the log."""
    kind = interface.upper()
    if interface == "asginl":
        kind = "ASGI without lifespan"
    elif interface == "asgi" and _is_asgi2(application):
        kind = "ASGI 2"
    return f"{kind}, {_describe(application)}"


def _plain_interface(application: Any, takes: Callable[[int], bool]) -> str:
    """The rules for a callable that is not async itself."""
    if takes(2) and not takes(1) and not _takes_any(application):
        return "rsgi" if _first_argument(application) == "scope" else "wsgi"
    if _takes_any(application):
        raise _refusal(
            f"cannot tell what {_describe(application)} speaks: it takes any arguments", _SAY_IT
        )
    if takes(3) or _is_asgi2(application):
        return "asgi"
    if takes(1) and not takes(0):
        raise _refusal(
            f"{_describe(application)} takes one argument, which no application does",
            f"{_WHAT_ALL_ARE}; the one argument of ASGI 2 is called scope",
        )
    if takes(0):
        raise _looks_like_factory(application)
    raise _refusal(
        f"{_describe(application)} takes none of the arguments of an application", _WHAT_ALL_ARE
    )


def _speaks_rsgi(application: Any) -> bool:
    """It is an object with `__rsgi__`, and not the class of such."""
    return hasattr(application, "__rsgi__") and not inspect.isclass(application)


def _is_asgi2(application: Any) -> bool:
    """Called with the scope, it gives what is called with `receive` and `send`."""
    application = _behind_wrappers(application)
    takes = _takes(application)
    if takes is None or not takes(1) or takes(0) or takes(3) or _is_async(application):
        return False
    if inspect.isclass(application):
        # Of a class, as of its instances: `self` is the third.
        call = getattr(application, "__call__", None)  # noqa: B004 - its signature is asked for
        takes_two = _takes(call)
        return _is_coroutine_function(call) and takes_two is not None and takes_two(3)
    return _first_argument(application) == "scope"


def _first_argument(application: Any) -> str | None:
    signature = _signature(application)
    return next(iter(signature.parameters), None) if signature else None


def _split(target: str) -> tuple[str, str]:
    module_name, colon, attribute = target.partition(":")
    if not colon:
        attribute = DEFAULT_ATTRIBUTE
    parts = [*module_name.split("."), *attribute.split(".")]
    path = module_name.removesuffix(".py")
    if path == module_name and all(part.isidentifier() for part in parts):
        return module_name, attribute
    if path != module_name or "/" in path:
        hint = f"a module is named with dots: {path.strip('./').replace('/', '.')}:{attribute}"
    else:
        hint = "MODULE:ATTRIBUTE, such as app:app or package.web:app"
    raise OperatorError(f"{target!r} is not the name of an application", hint, ExitCode.USAGE)


def _import(name: str, target: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    # An application that calls sys.exit() while it is imported has failed, and should say where.
    except BaseException as error:
        traceback = _own_frames(error.__traceback__)
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        # Without a frame of the application nobody but us asked for the module.
        if traceback is None and missing and f"{name}.".startswith(f"{missing}."):
            raise _no_module(missing) from None
        what = f"the application {target!r} could not be imported"
        raise ApplicationError(what, error, traceback) from None


def _no_module(missing: str) -> OperatorError:
    directory = Path.cwd()
    there = [path.stem for path in directory.glob("*.py")]
    there += [path.parent.name for path in directory.glob("*/__init__.py")]
    return _refusal(
        f"there is no module {missing!r}, neither in {directory} nor among the installed packages",
        _did_you_mean(missing, there)
        or "start in the directory that has it, or name that with --working-dir",
    )


def _attribute(module: ModuleType, path: str, target: str) -> Any:
    found: Any = module
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            there = [entry for entry in dir(found) if not entry.startswith("_")]
            where = f"module {module.__name__!r}" if found is module else _describe(found)
            raise _refusal(
                f"{where} has no attribute {name!r} ({target!r} was asked for)",
                _did_you_mean(name, there) or f"it has {', '.join(there[:10]) or 'none'}",
            ) from None
        except Exception as error:
            what = f"the application {target!r} could not be had"
            raise ApplicationError(what, error, _own_frames(error.__traceback__)) from None
    return found


def _make(factory: Any, target: str) -> Any:
    """Calls an application factory, which takes no arguments and is not async."""
    if not callable(factory):
        raise _refusal(
            f"{target!r} is {_describe(factory)}, expected a function that makes the application",
            "leave --factory out if it is the application itself",
        )
    if inspect.iscoroutinefunction(factory):
        raise _refusal(
            f"the factory {target!r} is async",
            "no loop runs yet: make the application in a plain function, and open what needs the "
            "loop in its lifespan startup",
        )
    takes = _takes(factory)
    if takes is not None and not takes(0):
        raise _refusal(
            f"the factory {target!r} needs arguments",
            "leave --factory out if it is the application itself; a factory is called without any",
        )
    try:
        application = factory()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        what = f"the factory {target!r} failed"
        raise ApplicationError(what, error, _own_frames(error.__traceback__)) from None
    if inspect.isawaitable(application):
        if inspect.iscoroutine(application):
            application.close()
        raise _refusal(
            f"the factory {target!r} returned an awaitable, expected the application",
            "no loop runs yet: make the application in a plain function",
        )
    return application


def _own_frames(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is neither this module's nor importlib's."""
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        importing = file.startswith("<frozen importlib") or file == importlib.__file__
        if file != __file__ and not importing:
            return traceback
        traceback = traceback.tb_next
    return None


def _is_async(application: Any) -> bool:
    """Calling it (or, for a class that can be awaited, an instance) gives something to await."""
    if inspect.isclass(application):
        return hasattr(application, "__await__")
    return _is_coroutine_function(inspect.unwrap(_called(application)))


def _is_coroutine_function(function: Any) -> bool:
    """Also one that Cython has compiled, which has asyncio's mark in place of a flag."""
    while isinstance(function, functools.partial):
        function = function.func
    marked = getattr(function, "_is_coroutine", None) is not None
    return marked or inspect.iscoroutinefunction(function)


def _called(application: Any) -> Any:
    """What a call of `application` runs: of an object, its `__call__`.

    Asked of the object and not of its type, because some (sentry-sdk's middleware) set it there.
    """
    if inspect.isclass(application) or inspect.isroutine(application):
        return application
    return application if isinstance(application, functools.partial) else application.__call__


def _signature(application: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(_called(application))
    except (TypeError, ValueError):
        return None


def _takes(application: Any) -> Callable[[int], bool] | None:
    """Whether it can be called with so many positional arguments; None without a signature."""
    signature = _signature(application)
    if signature is None:
        return None

    def takes(count: int) -> bool:
        try:
            signature.bind(*range(count))
        except TypeError:
            return False
        return True

    return takes


def _takes_any(application: Any) -> bool:
    """It has `*args`, and nothing before them, as wrappers have."""
    signature = _signature(application)
    parameters = signature.parameters.values() if signature else ()
    return any(p.kind is p.VAR_POSITIONAL for p in itertools.islice(parameters, 1))


def _behind_wrappers(application: Any) -> Any:
    """What has a signature that tells something, behind functions that pass on any arguments.

    It is the only callable that such a function closes over. What closes over none or several is
    given back as it is.
    """
    seen: set[int] = set()
    while _takes_any(application) and id(application) not in seen:
        seen.add(id(application))
        function = inspect.unwrap(_called(application))
        closed_over = list(filter(callable, _closed_over(function)))
        if len(closed_over) != 1:
            break
        application = closed_over[0]
    return application


def _closed_over(function: Any) -> Iterator[Any]:
    """The values of a function's free variables, as far as they have one."""
    for cell in getattr(function, "__closure__", None) or ():
        with contextlib.suppress(ValueError):
            yield cell.cell_contents


def _describe(value: Any) -> str:
    name = getattr(value, "__qualname__", None)
    if isinstance(name, str):
        return f"{'class' if inspect.isclass(value) else 'function'} {name}"
    if isinstance(value, ModuleType):
        return f"the module {value.__name__}"
    return f"an object of type {type(value).__qualname__}"


def _did_you_mean(name: str, there: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, there, n=3)
    return f"did you mean {' or '.join(near)}?" if near else ""


def _refusal(message: str, hint: str) -> OperatorError:
    return OperatorError(message, hint, ExitCode.APPLICATION)


def _looks_like_factory(application: Any) -> OperatorError:
    return _refusal(
        f"{_describe(application)} takes no arguments: it looks like a factory",
        "add --factory, or name the application that it makes",
    )
