"""What is asked: each case is an application, a way to ask, and those who answer.

`docs/benchmarks.md` says why each is here.
"""

from __future__ import annotations

from dataclasses import dataclass

from peers import NO_THREADS, ONE_THREAD, OURS

HELLO_BYTES = 13
FILE_BYTES = 50 * 1024
IDLE_CONNECTIONS = 10_000
KIB = 1024


@dataclass(frozen=True)
class Entrant:
    """Who answers a case: a peer with further options."""

    peer: str
    options: tuple[str, ...] = ()
    # What the options are called, where a peer takes part more than once.
    variant: str = ""

    @property
    def name(self) -> str:
        """What the report calls it."""
        return f"{self.peer} {self.variant}".strip()


@dataclass(frozen=True)
class Case:
    """One line of the report."""

    name: str
    group: str
    title: str
    interface: str
    # module:attribute of `apps/`.
    target: str
    # The arguments of `benches/load`, but address and times.
    load: tuple[str, ...]
    # The first is whom the others are compared with.
    entrants: tuple[Entrant, ...]
    # What the figures are for: a request, a message, a connection.
    unit: str = "request"
    path: str = "/"
    # In `--quick` too.
    quick: bool = False
    # On the other Python that was named.
    other_python: bool = False
    # System calls are counted, in a run of their own.
    count_calls: bool = False
    # Needs the database's stand-in beside the load.
    backend: bool = False
    # How much longer than others it is measured.
    stretch: float = 1.0


def entrants(*names: str) -> tuple[Entrant, ...]:
    """Ours and these."""
    return tuple(map(Entrant, (OURS, *names)))


MAIN = entrants("granian", "uvicorn", "fastpysgi")
ALL_ASGI = (*MAIN, *map(Entrant, ("socketify", "hypercorn", "gunicorn asgi")))
STREAMS = entrants("granian", "uvicorn", "hypercorn", "gunicorn asgi")
WEBSOCKETS = entrants("granian", "uvicorn", "socketify", "hypercorn", "gunicorn asgi")
RSGI = entrants("granian")
WSGI_POOL = (
    Entrant(OURS, ONE_THREAD),
    Entrant("granian", ONE_THREAD),
    Entrant("gunicorn gthread"),
)
WSGI_INLINE = (
    Entrant(OURS, NO_THREADS),
    Entrant("fastpysgi"),
    Entrant("uwsgi"),
    Entrant("socketify"),
)
# Granian takes no more connections than this, idle ones too.
MANY = ("--backlog", "16384", "--backpressure", "16384")
IDLE = (Entrant(OURS), Entrant("granian", MANY), *map(Entrant, ("uvicorn", "fastpysgi")))
LOOPS = ("uring", "asyncio", "uvloop", "rloop")
RUNTIMES = ("uring", "monoio", "tokio-uring", "epoll")


def get(expect: int, connections: int = 64) -> tuple[str, ...]:
    """GET in a closed loop."""
    return ("http", "--expect", str(expect), "--connections", str(connections))


def post(size: int) -> tuple[str, ...]:
    """POST of a body that comes back, in a closed loop."""
    return (*get(size), "--post", str(size))


def websocket(*more: str) -> tuple[str, ...]:
    """Messages of 128 bytes."""
    return ("websocket", "--connections", "64", "--message", "128", *more)


def interfaces() -> list[Case]:
    """Hello, in each interface."""
    hello = get(HELLO_BYTES)
    everyone = (*ALL_ASGI, Entrant("robyn"))
    return [
        Case("asgi-hello", "interfaces", "ASGI hello", "asgi", "asgi_apps:hello", hello, everyone,
             quick=True, count_calls=True),
        Case("rsgi-hello", "interfaces", "RSGI hello", "rsgi", "rsgi_apps:hello", hello, RSGI,
             quick=True, count_calls=True),
        Case("wsgi-pool", "interfaces", "WSGI hello, one thread", "wsgi", "wsgi_apps:hello", hello,
             WSGI_POOL, quick=True, count_calls=True),
        Case("wsgi-inline", "interfaces", "WSGI hello, on the thread of the I/O", "wsgi",
             "wsgi_apps:hello", hello, WSGI_INLINE, quick=True, count_calls=True),
        Case("asgi-hello-other", "interfaces", "ASGI hello, CPython", "asgi",
             "asgi_apps:hello", hello, MAIN[:3], other_python=True),
    ]  # fmt: skip


def bodies() -> list[Case]:
    """Answers and requests of some length, and a file."""
    sizes = {"10": ("10 B", 10), "1k": ("1 KB", KIB), "10k": ("10 KB", 10 * KIB)}
    sizes["100k"] = ("100 KB", 100 * KIB)
    cases = [
        Case(f"plain-{name}", "plain", f"{title} answer, ASGI", "asgi", f"asgi_apps:plain_{name}",
             get(size), MAIN)
        for name, (title, size) in sizes.items()
    ]  # fmt: skip
    for size, those in ((1, MAIN), (10, ALL_ASGI), (100, MAIN)):
        cases.append(
            Case(f"echo-{size}k", "echo", f"{size} KB echo, ASGI", "asgi", "asgi_apps:echo",
                 post(size * KIB), those, quick=size == 10, count_calls=size == 10)
        )  # fmt: skip
    file = get(FILE_BYTES)
    return [
        *cases,
        Case("echo-10k-rsgi", "echo", "10 KB echo, RSGI", "rsgi", "rsgi_apps:echo", post(10 * KIB),
             RSGI, quick=True),
        Case("echo-10k-wsgi", "echo", "10 KB echo, WSGI, one thread", "wsgi", "wsgi_apps:echo",
             post(10 * KIB), WSGI_POOL),
        Case("file-asgi", "file", "50 KB file, ASGI (pathsend)", "asgi", "asgi_apps:file", file,
             ALL_ASGI, quick=True, count_calls=True),
        Case("file-rsgi", "file", "50 KB file, RSGI (response_file)", "rsgi", "rsgi_apps:file",
             file, RSGI, count_calls=True),
        Case("file-wsgi", "file", "50 KB file, WSGI (file_wrapper)", "wsgi", "wsgi_apps:file",
             file, WSGI_POOL, count_calls=True),
    ]  # fmt: skip


def waits() -> list[Case]:
    """Applications that wait: long I/O, and a database."""
    return [
        *(
            Case(f"wait-{ms}ms", "long I/O", f"{ms} ms of waiting, 512 connections", "asgi",
                 f"asgi_apps:wait_{ms}ms", get(HELLO_BYTES, 512), STREAMS)
            for ms in (10, 100)
        ),
        Case("database", "applications", "three round trips to a database", "asgi",
             "asgi_apps:database", get(3 * 17), STREAMS, backend=True),
    ]  # fmt: skip


def websockets() -> list[Case]:
    """Messages of 128 bytes, 64 clients."""
    return [
        Case("ws-echo-asgi", "websocket", "WebSocket echo, ASGI", "asgi",
             "asgi_apps:websocket_echo", websocket(), WEBSOCKETS, "message", quick=True,
             count_calls=True),
        Case("ws-echo-rsgi", "websocket", "WebSocket echo, RSGI", "rsgi",
             "rsgi_apps:websocket_echo", websocket(), RSGI, "message", quick=True),
        Case("ws-broadcast-asgi", "websocket", "WebSocket broadcast, ASGI", "asgi",
             "asgi_apps:websocket_broadcast", websocket("--broadcast"), WEBSOCKETS, "message"),
        Case("ws-broadcast-rsgi", "websocket", "WebSocket broadcast, RSGI", "rsgi",
             "rsgi_apps:websocket_broadcast", websocket("--broadcast"), RSGI, "message"),
    ]  # fmt: skip


def frameworks() -> list[Case]:
    """Frameworks, whose own cost every server has."""
    item = len(b'{"item_id":42,"q":null}')
    hello = get(HELLO_BYTES)
    return [
        Case("fastapi", "applications", "FastAPI", "asgi", "fastapi_app:app", get(item), ALL_ASGI,
             path="/items/42", quick=True),
        Case("django-asgi", "applications", "Django, ASGI", "asgi", "django_app:asgi", hello,
             STREAMS, path="/async"),
        Case("django-wsgi", "applications", "Django, WSGI, one thread", "wsgi", "django_app:wsgi",
             hello, WSGI_POOL),
        Case("django-wsgi-inline", "applications", "Django, WSGI, on the thread of the I/O", "wsgi",
             "django_app:wsgi", hello, WSGI_INLINE),
    ]  # fmt: skip


def connections() -> list[Case]:
    """How clients come: few and many, new ones, in a hurry, or not at all."""
    hello = "asgi_apps:hello"
    sweep = [
        Case(f"sweep-{number}", "concurrency", f"ASGI hello, {count(number)}", "asgi", hello,
             get(HELLO_BYTES, number), MAIN)
        for number in (1, 8, 256, 1024)
    ]  # fmt: skip
    rates = [
        Case(f"rate-{rate}", "latency", f"ASGI hello at {rate:,} per second", "asgi", hello,
             (*get(HELLO_BYTES), "--rate", str(rate)), MAIN, quick=rate == 2000, stretch=1.5)
        for rate in (2000, 10_000)
    ]  # fmt: skip
    idle = ("idle", "--expect", str(HELLO_BYTES), "--connections", str(IDLE_CONNECTIONS))
    return [
        *sweep,
        *rates,
        Case("churn", "connections", "ASGI hello, a connection for each request", "asgi", hello,
             (*get(HELLO_BYTES), "--churn"), MAIN),
        Case("pipelining", "connections", "ASGI hello, 16 requests at once", "asgi", hello,
             (*get(HELLO_BYTES), "--pipeline", "16"), MAIN),
        Case("idle", "idle", f"{IDLE_CONNECTIONS:,} idle connections", "asgi", hello, idle, IDLE,
             "connection"),
    ]  # fmt: skip


def floors() -> list[Case]:
    """Our loops and runtimes side by side, and the server without Python beside its floor."""
    hello = get(HELLO_BYTES)
    runtimes = tuple(Entrant(OURS, ("--runtime", name), name) for name in RUNTIMES)
    rust = tuple(
        Entrant("examples/hello", () if name == "uring" else ("--runtime", name), name)
        for name in RUNTIMES
    )
    rust += (Entrant("bare ring loop"), Entrant("hyper"))
    loops = tuple(Entrant(OURS, ("--loop", name), name) for name in LOOPS)
    return [
        Case("loops", "runtimes", "ASGI hello on each loop", "asgi", "asgi_apps:hello", hello,
             loops, count_calls=True),
        Case("loops-database", "runtimes", "three round trips to a database on each loop", "asgi",
             "asgi_apps:database", get(3 * 17), loops, backend=True),
        Case("runtimes", "runtimes", "ASGI hello on each runtime", "asgi", "asgi_apps:hello", hello,
             runtimes, count_calls=True),
        Case("rust-hello", "floor", "hello without Python", "", "", hello, rust, count_calls=True),
        Case("rust-pipelined", "floor", "hello without Python, 16 requests at once", "", "",
             (*hello, "--pipeline", "16"), rust),
    ]  # fmt: skip


def count(connections: int) -> str:
    """In words."""
    return f"{connections} connection{'s' if connections > 1 else ''}"


def all_cases() -> list[Case]:
    """Every case, in the order of the report."""
    return [
        *interfaces(),
        *floors(),
        *bodies(),
        *waits(),
        *websockets(),
        *frameworks(),
        *connections(),
    ]
