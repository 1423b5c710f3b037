"""A real systemd for the tests, and in it the example units under test.

`Box` drives the script `systemd-box`, which boots systemd as PID 1 of its own namespaces.
`Service` installs the very files of `examples/systemd` in a box, unchanged; what a test must have
otherwise (where the program and the application lie, the address, a limit) goes into drop-ins
beside them, as an operator would do it.

The program under test is `.venv/bin/granian-uring` of the repository, or what the environment
variable `GRANIAN_URING` names.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
EXAMPLES = REPOSITORY / "examples" / "systemd"
PROGRAM = Path(os.environ.get("GRANIAN_URING", REPOSITORY / ".venv" / "bin" / "granian-uring"))
# Whoever runs the tests chooses the runtime for all services that do not choose one.
_RUNTIME = os.environ.get("GRANIAN_RUNTIME")
RUNTIME = f"Environment=GRANIAN_RUNTIME={_RUNTIME}\n" if _RUNTIME else ""
# The bound on every wait for an event; only a failing test reaches it.
EVENT_SECONDS = 30.0

T = TypeVar("T")


def wait_for(what: str, probe: Callable[[], T | None]) -> T:
    """The first true result of `probe`; an error that names `what` after `EVENT_SECONDS`."""
    end = time.monotonic() + EVENT_SECONDS
    while not (found := probe()):
        if time.monotonic() > end:
            raise AssertionError(f"not seen in {EVENT_SECONDS} s: {what}")
        time.sleep(0.02)
    return found


class Box:
    """A booted systemd. Its root file system and network are the machine's own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.init_pid = 0

    def up(self) -> None:
        """Boots."""
        self._script("up")
        self.init_pid = int(self._script("status").split()[1])

    def down(self) -> None:
        """Stops every unit and removes every trace."""
        self._script("down")

    def run(self, *command: str, check: bool = True) -> str:
        """Standard output of a command run inside."""
        return self._script("exec", *command, check=check)

    @property
    def units(self) -> Path:
        """The folder that is /etc/systemd/system inside."""
        return Path(self._script("units").strip())

    def main_pid(self, unit: str) -> int:
        """The main process of a unit, by the number it has outside the box."""
        inside = self.run("systemctl", "show", "-P", "MainPID", unit).strip()
        for pid in self._script("pids", unit).split():
            status = Path(f"/proc/{pid}/status").read_text()
            if f"\t{inside}\n" in status[status.index("NSpid:") :]:
                return int(pid)
        raise AssertionError(f"{unit} has no main process")

    def _script(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            [HERE / "systemd-box", "-n", self._name, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{arguments} exited with {done.returncode}:\n{done.stderr}")
        return done.stdout


@dataclass(frozen=True)
class Restart:
    """The times of one `systemctl restart`, in seconds of CLOCK_MONOTONIC."""

    # systemd left the state active: the moment of SIGTERM.
    terminated: float
    # The old main process was gone, seen from outside through a pidfd.
    exited: float
    # The new main process was forked.
    started: float
    # The new main process said READY=1.
    ready: float

    @property
    def drain(self) -> float:
        """How long the old process took to end."""
        return self.exited - self.terminated

    @property
    def start(self) -> float:
        """How long the new process took from its start to READY."""
        return self.ready - self.started


class Service:
    """The example pair, installed in a box; `stop` and `remove` it after use."""

    name = "granian-uring.service"
    socket_name = "granian-uring.socket"

    def __init__(self, box: Box, listen: str) -> None:
        """`listen`: the `ListenStream=` in place of the example's."""
        self.box = box
        for unit in (self.name, self.socket_name):
            (box.units / unit).write_bytes((EXAMPLES / unit).read_bytes())
        self.listen_at(listen)
        box.run("journalctl", "--sync")
        shown = box.run("journalctl", "-n", "0", "--show-cursor", "-q").split("cursor: ")
        self._cursor = shown[1].strip()

    def listen_at(self, *addresses: str) -> None:
        """Sets the `ListenStream=` lines."""
        lines = "".join(f"ListenStream={address}\n" for address in addresses)
        self._drop_in(self.socket_name, "test", f"[Socket]\nListenStream=\n{lines}")
        self.systemctl("daemon-reload")

    def configure(
        self,
        app: str = "apps:app",
        *options: str,
        service: str = "",
        prefix: str = "",
        suffix: str = "",
    ) -> None:
        """Serves `app` with further options on the command line, which may stand between a prefix
        and a suffix, and further lines under [Service]."""
        words = (f"{prefix}{PROGRAM}", "--fd-from-systemd", *options, f"{app}{suffix}")
        command = " ".join(words)
        readable = " ".join(str(path) for path in self._paths())
        self.set(
            f"ExecStart=\nExecStart={command}\nWorkingDirectory={HERE}\n"
            # The program, a Python and this folder may lie in a home or in /tmp.
            f"ProtectHome=tmpfs\nBindReadOnlyPaths={readable}\n{RUNTIME}{service}"
        )

    def set(self, lines: str, *, drop_in: str = "test") -> None:
        """Writes a drop-in with these lines under [Service] and reloads systemd."""
        self._drop_in(self.name, drop_in, f"[Service]\n{lines}\n")
        self.systemctl("daemon-reload")

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        """Runs systemctl inside."""
        return self.box.run("systemctl", *arguments, check=check)

    def listen(self) -> None:
        """Starts the socket unit."""
        self.systemctl("start", self.socket_name)

    def show(self, *properties: str, unit: str | None = None) -> dict[str, str]:
        """Properties of the service, or of another unit."""
        options = [f"--property={name}" for name in properties]
        lines = self.systemctl("show", *options, unit or self.name).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def until(self, name: str, value: str, *, unit: str | None = None) -> None:
        """Waits until a property has a value."""
        wait_for(f"{name}={value}", lambda: self.show(name, unit=unit)[name] == value)

    def main_pid(self) -> int:
        """The main process, by its number outside the box."""
        return self.box.main_pid(self.name)

    def restart(self) -> Restart:
        """`systemctl restart`, timed."""
        exited: list[float] = []
        watcher = threading.Thread(target=watch_exit, args=(self.main_pid(), exited))
        watcher.start()
        self.systemctl("restart", self.name)
        watcher.join(EVENT_SECONDS)
        names = ("ActiveExit", "ExecMainStart", "ActiveEnter")
        shown = self.show(*(f"{name}TimestampMonotonic" for name in names))
        terminated, started, ready = (
            int(shown[f"{name}TimestampMonotonic"]) / 1e6 for name in names
        )
        return Restart(terminated, exited[0], started, ready)

    def journal(self) -> list[dict[str, Any]]:
        """The unit's journal entries since it was installed, oldest first."""
        self.box.run("journalctl", "--sync")
        text = self.box.run(
            "journalctl", "-o", "json", "--all", f"--after-cursor={self._cursor}", "-u", self.name
        )
        return [json.loads(line) for line in text.splitlines()]

    def log(self) -> str:
        """The messages of the journal, one a line."""
        return "\n".join(message(entry) for entry in self.journal())

    def until_logged(self, **fields: str) -> dict[str, Any]:
        """Waits for a journal entry whose fields hold these texts."""

        def find() -> dict[str, Any] | None:
            for entry in self.journal():
                if all(text in str(entry.get(name, "")) for name, text in fields.items()):
                    return entry
            return None

        return wait_for(f"journal entry {fields}", find)

    def remove(self) -> None:
        """Stops both units and takes their files away."""
        self.systemctl("kill", "--signal=KILL", self.name, check=False)
        self.systemctl("stop", self.socket_name, self.name, check=False)
        self.systemctl("reset-failed", check=False)
        for unit in (self.name, self.socket_name):
            for drop_in in (self.box.units / f"{unit}.d").glob("*.conf"):
                drop_in.unlink()
            (self.box.units / unit).unlink(missing_ok=True)
        self.systemctl("daemon-reload")

    def _drop_in(self, unit: str, name: str, text: str) -> None:
        folder = self.box.units / f"{unit}.d"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.conf").write_text(text)

    def _paths(self) -> Iterator[Path]:
        """What the service must be able to read."""
        yield REPOSITORY
        environment = PROGRAM.parent.parent
        yield environment
        python = (environment / "bin" / "python").resolve()
        if not python.is_relative_to("/usr"):
            yield python.parent.parent


def message(entry: dict[str, Any]) -> str:
    """The text of a journal entry, which is a list of bytes when it is not plain text."""
    text = entry.get("MESSAGE", "")
    return bytes(text).decode(errors="replace") if isinstance(text, list) else str(text)


def watch_exit(pid: int, exited: list[float]) -> None:
    """Appends the time at which a process ends."""
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if poll.poll(int(EVENT_SECONDS * 1000)):
            exited.append(time.monotonic())
    finally:
        os.close(pidfd)


class Gate:
    """Where an application tells that it has come to a point, and waits to be let on."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(EVENT_SECONDS)
        self._waiting: socket.socket | None = None
        host, port = self._listener.getsockname()
        self.environment = f"Environment=GATE={host}:{port}\n"

    def reached(self) -> None:
        """Waits until the application is there."""
        self._waiting, _ = self._listener.accept()

    def open(self) -> None:
        """Lets the application go on."""
        assert self._waiting is not None, "nobody waits at the gate"
        self._waiting.close()

    def close(self) -> None:
        """Ends the gate; whoever waits there goes on."""
        self._listener.close()
        if self._waiting is not None:
            self._waiting.close()


@contextmanager
def gate() -> Iterator[Gate]:
    """A gate for the time of a block."""
    gate = Gate()
    try:
        yield gate
    finally:
        gate.close()
