"""The servers that are compared: how each is installed, started and stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
OURS = "granian-uring"
START_SECONDS = 30.0
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Server:
    """One of the compared servers; `program` is its command, `options` what follows the address."""

    name: str
    packages: tuple[str, ...]
    program: Path
    options: tuple[str, ...]

    @property
    def python(self) -> Path:
        """The interpreter of the environment that the program is in."""
        return self.program.parent / "python"

    def command(self, port: int) -> list[str]:
        """The command line."""
        return [str(self.program), "--host", "127.0.0.1", "--port", str(port), *self.options]

    def versions(self) -> dict[str, str]:
        """The installed versions of its packages."""
        code = "import sys; from importlib.metadata import version as v; "
        code += "print(*(v(p) for p in sys.argv[1:]))"
        done = subprocess.run(
            [self.python, "-c", code, *self.packages], capture_output=True, text=True, check=True
        )
        return dict(zip(self.packages, done.stdout.split(), strict=True))


def compared(ours: Path, environments: Path) -> list[Server]:
    """Ours first, then the peers, each in an environment of its own under `environments`."""
    target = "hello_app:app"
    granian = (
        "--interface",
        "asgi",
        "--loop",
        "uvloop",
        "--http",
        "1",
        "--no-ws",
        "--workers",
        "1",
    )
    uvicorn = ("--loop", "uvloop", "--http", "httptools", "--no-access-log")
    return [
        Server(OURS, (OURS,), ours, ("--interface", "asgi", target)),
        Server(
            "granian",
            ("granian", "uvloop"),
            environments / "granian" / "bin" / "granian",
            (*granian, target),
        ),
        Server(
            "uvicorn",
            ("uvicorn", "uvloop", "httptools"),
            environments / "uvicorn" / "bin" / "uvicorn",
            (*uvicorn, "--log-level", "warning", target),
        ),
    ]


def install(server: Server, python: str, *, newest: bool) -> None:
    """Makes a peer's environment when it is not there; `newest` brings it up to date."""
    if server.program.exists() and not newest:
        return
    environment = server.program.parent.parent
    subprocess.run([python, "-m", "venv", environment], check=True)
    pip = [str(server.python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--upgrade", *server.packages], check=True)


class Running:
    """A started server."""

    def __init__(self, pid: int, port: int, first_answer_seconds: float) -> None:
        self.pid = pid
        self.port = port
        # From the start of the program to its first whole answer.
        self.first_answer_seconds = first_answer_seconds

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/"


@contextmanager
def started(server: Server, core: int) -> Iterator[Running]:
    """A server pinned to one core, for the time of a block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    begin = time.monotonic()
    # A GRANIAN_* variable of the caller would change what is compared.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GRANIAN_")}
    process = subprocess.Popen(
        server.command(port),
        cwd=HERE,
        env=environment,
        stdout=subprocess.DEVNULL,
        preexec_fn=pin(core),
    )
    try:
        wait_for_answer(process, server, port)
        yield Running(process.pid, port, time.monotonic() - begin)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def pin(core: int) -> Callable[[], None]:
    """What binds a new process to one core, sched_setaffinity(2)."""
    return lambda: os.sched_setaffinity(0, {core})


def wait_for_answer(process: subprocess.Popen[bytes], server: Server, port: int) -> None:
    """Asks until the first whole answer."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"error: {server.name} exited with {process.returncode} at its start")
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=1) as client,
        ):
            client.sendall(REQUEST)
            answer = b"".join(iter(lambda: client.recv(4096), b""))
            if not answer.startswith(b"HTTP/1.1 200") or not answer.endswith(b"Hello, world!"):
                raise SystemExit(f"error: {server.name} answered {answer!r}")
            return
        time.sleep(0.001)
    raise SystemExit(f"error: {server.name} did not answer in {START_SECONDS} s")
