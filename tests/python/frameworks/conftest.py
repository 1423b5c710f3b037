"""Each framework's application, served by a process of its own for the tests of a module."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from asgi.process import Server

FILE_BYTES = 20_000_000
LOOPS = ["uring", "uvloop"]


@dataclass(frozen=True)
class Framework:
    """An application of this folder, and how its framework is served."""

    name: str
    interface: str
    """What `--interface auto` finds."""
    target: str
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    lacks: dict[str, str] = field(default_factory=dict)
    """What the framework does not have, and why. Tests that need it are not made for it."""
    says: str | None = None
    """A pattern of what it writes to the log in these tests, and is none of the server's."""


_READS = "it reads files itself, and sends what it has read"
_EMMETT = {
    "background": "no such thing in Emmett",
    "subprotocols": "RSGI 1.6 has none",
    "closing": "Emmett closes with 1000, or by a status of HTTP",
    "close codes": "RSGI 1.6 does not tell them",
    "shutdown": "RSGI tells applications, but Emmett has no event for it",
}
_DJANGO = {
    "background": "a task of Django's needs a worker of its own",
    "websocket": "Django's handlers speak HTTP only",
    "lifespan": "Django has none",
    "shutdown": "Django has none",
}

FRAMEWORKS = [
    Framework("starlette", "asgi", "starlette_application:app"),
    Framework("fastapi", "asgi", "fastapi_application:app"),
    Framework(
        "litestar",
        "asgi",
        "litestar_application:app",
        lacks={
            "shout": "its Stream takes the request's messages, to hear of a disconnect",
            "sent files": _READS,
        },
    ),
    Framework(
        "quart",
        "asgi",
        "quart_application:app",
        lacks={
            "close codes": "Quart cancels the handler when its client has closed",
            "sent files": _READS,
        },
    ),
    Framework("blacksheep", "asgi", "blacksheep_application:app", lacks={"sent files": _READS}),
    Framework(
        "django-asgi",
        "asgi",
        "django_async_application:asgi",
        arguments=("--factory",),
        lacks={
            **_DJANGO,
            "shout": "Django has read the whole body before it calls a view",
            "closed streams": "a cut stream is in a cycle, which a garbage collection ends",
            "sent files": _READS,
        },
        says="StreamingHttpResponse must consume synchronous iterators",
    ),
    Framework(
        "django-wsgi",
        "wsgi",
        "django_application:wsgi",
        arguments=("--factory",),
        lacks={**_DJANGO, "chunked": "Django reads as much of a body as its Content-Length says"},
    ),
    Framework(
        "flask",
        "wsgi",
        "flask_application:app",
        lacks={
            "websocket": "WSGI has none",
            "lifespan": "WSGI has none",
            "shutdown": "WSGI has none",
        },
    ),
    Framework(
        "emmett55",
        "rsgi",
        "emmett_application:app",
        environment={"EMMETT": "emmett55"},
        lacks=_EMMETT,
    ),
    Framework(
        "emmett",
        "rsgi",
        "emmett_application:app",
        environment={"EMMETT": "emmett"},
        lacks=_EMMETT,
    ),
]


@dataclass(frozen=True)
class Served:
    """A framework's application under way."""

    framework: Framework
    server: Server
    file: Path
    """What it serves as a file."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what a framework does not have: `needs` names it, `lacks` says why."""
    left_out = [item for item in items if _is_lacking(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _is_lacking(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function) or "served" not in item.fixturenames:
        return False
    framework, _loop = cast(tuple[Framework, str], item.callspec.params["served"])
    return any(mark.args[0] in framework.lacks for mark in item.iter_markers("needs"))


@pytest.fixture(scope="session")
def downloaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that applications serve, of random bytes."""
    path = tmp_path_factory.mktemp("frameworks") / "file.bin"
    path.write_bytes(random.Random(4).randbytes(FILE_BYTES))
    return path


@pytest.fixture(
    scope="module",
    params=[(framework, loop) for framework in FRAMEWORKS for loop in LOOPS],
    ids=lambda param: f"{param[0].name}-{param[1]}",
)
def served(
    request: pytest.FixtureRequest, downloaded: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """The application of a framework, on a loop. At the end it has nothing to complain about."""
    framework, loop = request.param
    environment = {
        "FRAMEWORKS_FILE": str(downloaded),
        # Where Emmett makes folders of its own.
        "EMMETT_ROOT": str(tmp_path_factory.mktemp("emmett")),
        **framework.environment,
    }
    arguments = ("--loop", loop, *framework.arguments)
    app = f"frameworks.{framework.target}"
    with Server(*arguments, app=app, environment=environment) as server:
        server.wait_until_ready()
        assert f"the application: {framework.interface.upper()}, " in server.log.text
        if loop == "uvloop":
            assert "/uvloop/" in Path(f"/proc/{server.pid}/maps").read_text()
        yield Served(framework, server, downloaded)
        server.stop()
        if "shutdown" not in framework.lacks:
            assert "note: shut down" in server.out.text
        complaints = _complaints(framework, server)
        assert complaints == [], server.log.text


def _complaints(framework: Framework, server: Server) -> list[str]:
    """Lines of errors and warnings, the server's and Python's, but for what the framework says."""
    bad = re.compile(r"ERROR|WARN|CRITICAL|Traceback|Warning|nraisable|never retrieved")
    lines = [*server.log.text.splitlines(), *server.out.text.splitlines()]
    return [
        line
        for line in lines
        if bad.search(line) and not (framework.says and re.search(framework.says, line))
    ]
