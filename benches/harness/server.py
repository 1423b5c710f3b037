"""A server under measurement: started on its core, asked until it answers, stopped."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

APPLICATIONS = Path(__file__).resolve().parent / "apps"
START_SECONDS = 20.0
STOP_SECONDS = 3.0
ANSWER_SECONDS = 5.0
POLL_SECONDS = 0.001
LOG_LINES = 5


class Failed(Exception):
    """A server did not start, or did not answer as it should; the text is for the report."""


@dataclass(frozen=True)
class Running:
    """A started server."""

    pid: int
    port: int
    # From the start of the program to its first whole answer.
    first_answer_seconds: float

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def pin(core: int) -> Callable[[], None]:
    """What binds a new process to one core, sched_setaffinity(2)."""
    return lambda: os.sched_setaffinity(0, {core})


@contextmanager
def started(
    command: list[str], port: int, path: str, core: int, log: Path, extra: dict[str, str]
) -> Iterator[Running]:
    """A server pinned to one core, for the time of a block, with `extra` in its environment.

    What it writes goes into `log`, the last lines of which are in the error when it fails.
    """
    # Variables of the caller would change what is compared: with PYTHONDONTWRITEBYTECODE a program
    # that runs from its sources is compiled at each start, one that pip has installed is not.
    left_out = ("GRANIAN_", "PYTHON")
    environ = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
    begin = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=APPLICATIONS,
            env={**environ, **extra, "PORT": str(port), "PYTHONPATH": str(APPLICATIONS)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=pin(core),
            # So that all it has started can be stopped with it.
            start_new_session=True,
        )
    try:
        wait_for_answer(process, port, path)
        yield Running(process.pid, port, time.monotonic() - begin)
    except Failed as failure:
        raise Failed(f"{failure}\n{last_lines(log)}".strip()) from failure
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Asks it to end, and sees to it that nothing of its session is left."""
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    # The number of the session is that of its first process, and free only when all are gone.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for_answer(process: subprocess.Popen[bytes], port: int, path: str) -> None:
    """Asks until the first whole answer."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise Failed(f"exited with {process.returncode} at its start")
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
        try:
            client.connect()
        except OSError:
            time.sleep(POLL_SECONDS)
            continue
        with contextlib.closing(client):
            try:
                client.request("GET", path)
                answer = client.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                raise Failed(f"the first request failed: {error!r}") from error
        if answer.status != 200:
            raise Failed(f"expected status 200, found {answer.status} {body[:200]!r}")
        return
    raise Failed(f"did not answer in {START_SECONDS} s")


def last_lines(log: Path) -> str:
    """The end of a log."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return "\n".join(line[:200] for line in lines[-LOG_LINES:])
