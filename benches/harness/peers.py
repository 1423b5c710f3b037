"""Who answers: our server and its peers, how each is installed and what its command line is.

Every peer is the newest release of PyPI in an environment of its own, has one worker, and the
settings that its documentation gives for speed: uvloop, httptools, no access log.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
OURS = "granian-uring"
INSTALL_SECONDS = 600
# What the applications import, in every environment in the version of ours.
FRAMEWORKS = ("django", "fastapi")
NO_THREADS = ("--blocking-threads", "0")
ONE_THREAD = ("--blocking-threads", "1")

Command = Callable[[Path, int, str, str], list[str]]


@dataclass(frozen=True)
class Peer:
    """One of the compared servers."""

    name: str
    # What pip installs; empty for a program that cargo builds.
    packages: tuple[str, ...]
    # The command line, of the environment's `bin`, a port, an interface and the application.
    command: Command
    # Whether it serves the frameworks' cases.
    frameworks: bool = True


def granian(folder: Path, port: int, interface: str, target: str) -> list[str]:
    """Granian; `--no-ws` as in its own suite where there is no WebSocket."""
    words = ["--host", "127.0.0.1", "--port", str(port), "--interface", interface]
    words += ["--workers", "1", "--http", "1", "--loop", "uvloop"]
    return [str(folder / "granian"), *words, *no_websocket(target), target]


def ours(folder: Path, port: int, interface: str, target: str) -> list[str]:
    """Our server."""
    words = ["--host", "127.0.0.1", "--port", str(port), "--interface", interface]
    return [str(folder / "granian-uring"), *words, *no_websocket(target), target]


def no_websocket(target: str) -> list[str]:
    """Both Granian and we have this switch."""
    return [] if "websocket" in target else ["--no-ws"]


def idle_time(word: str) -> list[str]:
    """Some close an idle connection after 2 to 5 s, which our server and Granian do not."""
    return [word, "75"]


def uvicorn(folder: Path, port: int, interface: str, target: str) -> list[str]:
    """The usual uvicorn, on uvloop and httptools."""
    words = ["--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop", "--http", "httptools"]
    words += ["--no-access-log", "--log-level", "warning", *idle_time("--timeout-keep-alive")]
    return [str(folder / "uvicorn"), *words, target]


def hypercorn(folder: Path, port: int, interface: str, target: str) -> list[str]:
    """Hypercorn on uvloop."""
    words = ["--bind", f"127.0.0.1:{port}", "-k", "uvloop", "-w", "1", *idle_time("--keep-alive")]
    return [str(folder / "hypercorn"), *words, target]


def gunicorn_asgi(folder: Path, port: int, interface: str, target: str) -> list[str]:
    """Gunicorn's own ASGI worker."""
    words = ["-k", "asgi", "--asgi-loop", "uvloop"]
    return gunicorn(folder, port, words, target)


def gunicorn_gthread(folder: Path, port: int, interface: str, target: str) -> list[str]:
    """Gunicorn's threaded worker, with one thread."""
    return gunicorn(folder, port, ["-k", "gthread", "--threads", "1"], target)


def gunicorn(folder: Path, port: int, words: list[str], target: str) -> list[str]:
    """Gunicorn, with a worker of some kind."""
    common = ["--bind", f"127.0.0.1:{port}", "-w", "1", "--graceful-timeout", "1"]
    return [str(folder / "gunicorn"), *common, *idle_time("--keep-alive"), *words, target]


def uwsgi(folder: Path, port: int, interface: str, target: str) -> list[str]:
    """One process of uWSGI behind its router, without which it has no keep-alive for many."""
    words = ["--http", f"127.0.0.1:{port}", "--http-keepalive=1", "--home", str(folder.parent)]
    words += ["--module", target, "--need-app", "--master", "--processes", "1", "--die-on-term"]
    words += ["--disable-logging", "--listen", "1024"]
    return [str(folder / "uwsgi"), *words]


def fastpysgi(folder: Path, port: int, interface: str, target: str) -> list[str]:
    """A server that finds the interface by itself."""
    return [str(folder / "fastpysgi"), "--host", "127.0.0.1", "--port", str(port), target]


def socketify(folder: Path, port: int, interface: str, target: str) -> list[str]:
    """The command line of socketify for ASGI and WSGI."""
    words = ["-m", "socketify", target, "--host", "127.0.0.1", "--port", str(port)]
    return [str(folder / "python"), *words, "--interface", interface]


def robyn(folder: Path, port: int, interface: str, target: str) -> list[str]:
    """Robyn, which has an interface of its own; the port is in the environment."""
    return [str(folder / "python"), "robyn_app.py", "--log-level", "WARN"]


def native(program: str) -> Command:
    """A program that cargo has built, which takes the address as its first argument."""
    path = REPOSITORY / "target" / "release" / program
    return lambda folder, port, interface, target: [str(path), f"127.0.0.1:{port}"]


PEERS = {
    peer.name: peer
    for peer in (
        Peer(OURS, (OURS,), ours),
        Peer("granian", ("granian", "uvloop"), granian),
        Peer("uvicorn", ("uvicorn", "uvloop", "httptools", "websockets"), uvicorn),
        Peer("fastpysgi", ("fastpysgi",), fastpysgi),
        Peer("socketify", ("socketify",), socketify),
        Peer("hypercorn", ("hypercorn", "uvloop"), hypercorn),
        Peer("gunicorn asgi", ("gunicorn", "gunicorn-h1c", "uvloop"), gunicorn_asgi),
        Peer("gunicorn gthread", ("gunicorn", "gunicorn-h1c", "uvloop"), gunicorn_gthread),
        Peer("uwsgi", ("uwsgi",), uwsgi),
        Peer("robyn", ("robyn",), robyn, frameworks=False),
        Peer("examples/hello", (), native("examples/hello")),
        Peer("bare ring loop", (), native("ring")),
        Peer("hyper", (), native("hyper")),
    )
}


@dataclass(frozen=True)
class Environment:
    """Where the peers of one Python are; ours is the build that is measured."""

    version: str
    python: Path
    ours: Path
    folder: Path

    def bin(self, peer: Peer) -> Path:
        """The folder of a peer's programs."""
        if peer.name == OURS:
            return self.ours.parent
        return self.folder / peer.packages[0] / "bin" if peer.packages else Path()

    def versions(self, peer: Peer) -> dict[str, str]:
        """The installed versions of a peer's packages."""
        return installed(self.bin(peer) / "python", peer.packages) if peer.packages else {}

    def install(self, peer: Peer, *, newest: bool) -> None:
        """Makes a peer's environment where it is not there; `newest` brings it up to date.

        An error is a `subprocess.CalledProcessError` whose `stderr` is pip's.
        """
        if peer.name == OURS or not peer.packages:
            return
        root = self.bin(peer).parent
        done = root / ".installed"
        frameworks = installed(self.ours.parent / "python", FRAMEWORKS) if peer.frameworks else {}
        wanted = [*peer.packages, *(f"{name}=={found}" for name, found in frameworks.items())]
        if not newest and done.exists() and done.read_text() == " ".join(wanted):
            return
        if not (root / "bin" / "python").exists():
            run([str(self.python), "-m", "venv", str(root)])
        pip = [str(root / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        run([*pip, "install", "--quiet", "--upgrade", *wanted])
        done.write_text(" ".join(wanted))


def run(command: list[str]) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=INSTALL_SECONDS
    )
    return done.stdout


def installed(python: Path, packages: tuple[str, ...]) -> dict[str, str]:
    """The versions of these packages in the environment of an interpreter."""
    code = "import sys; from importlib.metadata import version as v; "
    code += "print(*(v(p) for p in sys.argv[1:]))"
    found = run([str(python), "-c", code, *packages])
    return dict(zip(packages, found.split(), strict=True))


def environment(ours: Path, folder: Path) -> Environment:
    """The environment of our program, whose Python is the peers' too."""
    if not ours.exists():
        raise SystemExit(f"error: {ours} does not exist\n\nhint: run `make build`")
    code = "import platform, sys; print(platform.python_version(), sys.base_prefix)"
    version, prefix = run([str(ours.parent / "python"), "-c", code]).split()
    python = Path(prefix) / "bin" / "python3"
    return Environment(version, python, ours, folder / version)


def install_all(names: set[str], place: Environment, *, newest: bool) -> dict[str, str]:
    """Installs these peers; those that cannot be, with pip's last lines."""
    failed = {}
    for name in sorted(names):
        try:
            place.install(PEERS[name], newest=newest)
        except subprocess.CalledProcessError as error:
            failed[name] = "\n".join((error.stderr or error.stdout).strip().splitlines()[-3:])
        except subprocess.TimeoutExpired:
            failed[name] = f"the installation took longer than {INSTALL_SECONDS} s"
        if name in failed:
            print(f"not installed: {name}: {failed[name]}", file=sys.stderr)
    return failed
