"""The server as a process: started, watched, and seen to end by itself.

It is ready when its log names the address. Nothing here sleeps.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import httpx

from asgi.client import Client

HERE = Path(__file__).parents[1]
PROGRAM = Path(sys.executable).with_name("granian-uring")
# The runtime under test: auto finds uring here. A process gets nothing else of who runs the tests.
RUNTIME = os.environ.get("GRANIAN_RUNTIME") or "uring"
# What an idle connection may cost, on each runtime.
IDLE_BYTES = 2048
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "GRANIAN_RUNTIME": os.environ.get("GRANIAN_RUNTIME", "")}
# A busy machine builds something else meanwhile: a bound against hanging, not a promise of speed.
START_SECONDS = 20.0
STOP_SECONDS = 10.0
# What `pytest --server-loop` says: the loop of every server that is not told another.
LOOP_ENVIRONMENT: dict[str, str] = {}


def run(*arguments: str, cwd: Path = HERE, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program run to its end."""
    return subprocess.run(
        [PROGRAM, *arguments],
        cwd=cwd,
        env={**ENVIRONMENT, **LOOP_ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=20,
    )


class Lines:
    """What a process writes to a pipe, line by line, as it comes."""

    def __init__(self, pipe: IO[str]) -> None:
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._thread.start()

    def _read(self, pipe: IO[str]) -> None:
        with pipe:
            for line in pipe:
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def text(self) -> str:
        """Everything so far."""
        with self._changed:
            return "\n".join(self._lines)

    def mark(self) -> int:
        """Where the next line will be."""
        with self._changed:
            return len(self._lines)

    def since(self, mark: int) -> str:
        """Everything since a mark."""
        with self._changed:
            return "\n".join(self._lines[mark:])

    def has(self, pattern: str, *, since: int = 0, seconds: float) -> bool:
        """Whether such a line comes in this time: for what must *not* come."""
        try:
            self.wait_for(pattern, since=since, seconds=seconds)
        except AssertionError:
            return False
        return True

    def wait_for(self, pattern: str, *, since: int = 0, seconds: float = 10.0) -> re.Match[str]:
        """The first line, from `since` on, that the pattern is found in."""
        deadline = time.monotonic() + seconds
        compiled = re.compile(pattern)
        with self._changed:
            while True:
                for line in self._lines[since:]:
                    if found := compiled.search(line):
                        return found
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    written = "\n".join(self._lines[since:])
                    why = "the process ended" if self._ended else f"not within {seconds} s"
                    raise AssertionError(f"no line with {pattern!r} ({why}) in:\n{written}")
                self._changed.wait(left)

    def finish(self, seconds: float = 5.0) -> None:
        """Waits until the other end of the pipe is closed."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "somebody still holds the process's output"


class Server:
    """A server process. `log` is its stderr, `out` its stdout.

    It gets a free port unless `port` is false or the arguments name another socket.
    """

    def __init__(
        self,
        *arguments: str,
        app: str = "asgi.apps:app",
        environment: dict[str, str] | None = None,
        program: tuple[str, ...] = (),
        port: bool | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        if port is None:
            port = not {"--port", "--uds", "--fd"} & set(arguments)
        self.process = subprocess.Popen(
            [*program, str(PROGRAM), app, *(["--port", "0"] if port else []), *arguments],
            cwd=HERE,
            env={
                **ENVIRONMENT,
                **LOOP_ENVIRONMENT,
                "PYTHONDONTWRITEBYTECODE": "1",
                **(environment or {}),
            },
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="backslashreplace",
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        self.out = Lines(self.process.stdout)
        self.log = Lines(self.process.stderr)
        self.address: tuple[str, int] | str = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.out.finish()
        self.log.finish()

    def wait_until_ready(self) -> Self:
        """Waits for the log line that tells the address."""
        found = self.log.wait_for(r" listening on (http://(.*):(\d+)|unix:(.*))$", seconds=20)
        if found[4] is not None:
            path: str = found[4]
            self.address = "\0" + path[1:] if path.startswith("@") else path
        else:
            self.address = (found[2].strip("[]"), int(found[3]))
        return self

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def url(self) -> str:
        """The server's address for httpx."""
        assert isinstance(self.address, tuple)
        return f"http://{self.address[0]}:{self.address[1]}"

    def connect(self, *, receive_buffer: int | None = None) -> Client:
        """A new connection."""
        return Client(self.address, receive_buffer=receive_buffer)

    def ask(self, target: str = "/", *headers: str) -> str:
        """The body of a GET on a connection of its own; anything but 200 is an error."""
        with self.connect() as client:
            response = client.ask(target, "Connection: close", *headers)
            assert response.status == 200, response
            client.expect_end()
            return response.body.decode()

    def get(self, target: str) -> httpx.Response:
        """A GET by httpx, on a connection of its own."""
        return httpx.get(self.url + target, timeout=10, trust_env=False)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process."""
        self.process.send_signal(number)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Waits until the process has ended by itself; returns its exit code."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {seconds} s:\n{self.log.text}") from None
        self.log.finish()
        self.out.finish()
        return code

    def stop(self, code: int = 0, seconds: float = STOP_SECONDS) -> None:
        """Sends SIGTERM unless the process has ended; it must end with this code, in this time."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        found = self.wait(seconds)
        assert found == code, f"exit code {found}, expected {code}:\n{self.log.text}"

    def status(self, field: str) -> int:
        """A number of /proc/PID/status, such as VmRSS (in KiB)."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{field}:\s+(\d+)", text, re.MULTILINE)
        assert found is not None, field
        return int(found[1])

    def descriptors(self) -> int:
        """How many fds the process has open."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def cpu_seconds(self) -> float:
        """User and system time of the process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def wait_for_rest(self, seconds: float = 10) -> None:
        """Waits until all that is under way waits for somebody: then no CPU time is used."""
        deadline, used = time.monotonic() + seconds, -1.0
        while (now := self.cpu_seconds()) != used:
            assert time.monotonic() < deadline, "the server does not come to rest"
            used = now
            time.sleep(0.2)


StartServer = Callable[..., Server]
