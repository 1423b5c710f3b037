"""What the systemd tests share: one box for all of them, a fresh service for each.

Without root, systemd or a cgroup v2 tree these tests cannot run; then they are skipped, and say so.
With `NO_SKIP=1` in the environment a skip is a failure.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from box import EVENT_SECONDS, HERE, PROGRAM, Box, Gate, Service, gate

REPORT_LINES = pytest.StashKey[list[str]]()


def missing() -> str | None:
    """What these tests need and this machine has not."""
    if os.geteuid() != 0:
        return "they need root: a real systemd is booted in namespaces of its own"
    if not Path("/usr/lib/systemd/systemd").exists():
        return "systemd is not installed: apt-get install systemd"
    for tool in ("unshare", "nsenter", "setpriv", "findmnt", "flock"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed: apt-get install util-linux mount"
    mounts = Path("/proc/mounts").read_text().splitlines()
    if not any(line.split()[2] == "cgroup2" for line in mounts):
        return "no cgroup v2 tree is mounted on this machine"
    return None


def skip(reason: str) -> None:
    """Skips a test, or fails it where skips are not allowed."""
    if os.environ.get("NO_SKIP") == "1":
        pytest.fail(f"a skip is not allowed here (NO_SKIP=1): {reason}", pytrace=False)
    pytest.skip(reason)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Prints what was measured, and loudly what was not tested."""
    lines = config.stash.setdefault(REPORT_LINES, [])
    if reason := missing():
        lines.append(f"THE SYSTEMD TESTS DID NOT RUN: {reason}")
    if lines:
        terminalreporter.section("systemd")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def box() -> Iterator[Box]:
    """A booted systemd."""
    if reason := missing():
        skip(reason)
    if not PROGRAM.exists():
        pytest.fail(f"{PROGRAM} is not there\n\nhint: run `make build`", pytrace=False)
    box = Box(f"granian-uring-{os.getpid()}")
    box.up()
    try:
        yield box
    finally:
        box.down()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Adds a line to the summary at the end of the run."""
    return request.config.stash.setdefault(REPORT_LINES, []).append


@dataclass(frozen=True)
class Place:
    """Where a service listens, in the words of systemd, of the load, and of this process."""

    listen: str
    load: str
    family: socket.AddressFamily
    target: str | tuple[str, int]
    # As the socket's own name is told by the kernel.
    name: str | tuple[str, int]

    @classmethod
    def unix(cls, box: Box, path: str) -> Place:
        """A path inside the box, reached from outside through its PID 1."""
        outside = f"/proc/{box.init_pid}/root{path}"
        return cls(path, f"unix:{outside}", socket.AF_UNIX, outside, path)

    def connect(self, timeout: float = 30.0) -> socket.socket:
        """A connection whose every wait is bounded."""
        client = socket.socket(self.family, socket.SOCK_STREAM)
        client.settimeout(timeout)
        client.connect(self.target)
        return client

    def get(self, path: str, timeout: float = 30.0) -> dict[str, Any]:
        """The JSON of a whole answer to one request on a connection of its own."""
        with self.connect(timeout) as client:
            send_get(client, path)
            return read_json(client)


def send_get(client: socket.socket, path: str) -> None:
    """Sends one request that is to be the connection's last."""
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())


def read_json(client: socket.socket) -> dict[str, Any]:
    """Reads to the end of the stream; the answer must be whole, 200 and JSON."""
    data = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), f"expected a whole answer, found {data!r}"
    assert f"content-length: {len(body)}" in head.decode().lower(), f"cut: {data!r}"
    return dict(json.loads(body))


@pytest.fixture(params=["tcp"])
def place(request: pytest.FixtureRequest, box: Box) -> Place:
    """Where this test's service listens; parametrize indirectly with tcp, tcp6 or unix."""
    if request.param == "unix":
        return Place.unix(box, "/run/granian-uring-test/http.sock")
    host, family = {"tcp": ("127.0.0.1", socket.AF_INET), "tcp6": ("::1", socket.AF_INET6)}[
        request.param
    ]
    try:
        with socket.create_server((host, 0), family=family) as free:
            port = free.getsockname()[1]
    except OSError as error:
        skip(f"no loopback address {host}: {error}")
    listen = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Place(listen, f"tcp:{host}:{port}", family, (host, port), (host, port))


@pytest.fixture
def service(box: Box, place: Place) -> Iterator[Service]:
    """The example units, listening at `place` and serving `apps:app`."""
    service = Service(box, place.listen)
    try:
        service.configure()
        service.listen()
        yield service
    finally:
        log = service.log()
        service.remove()
        # Shown by pytest when the test failed.
        print(f"--- journal of {service.name}\n{log}")


@pytest.fixture(name="gate")
def gate_fixture() -> Iterator[Gate]:
    """A point where the application waits for the test."""
    with gate() as made:
        yield made


class Load:
    """The running load generator."""

    def __init__(self, place: Place) -> None:
        self._process = subprocess.Popen(
            [sys.executable, HERE / "load.py", place.load],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], EVENT_SECONDS)[0]:
            self.kill()
            raise AssertionError(f"some clients had no right answer in {EVENT_SECONDS} s")
        assert self._process.stdout.readline() == "ready\n", "the load generator failed"

    def finish(self) -> dict[str, Any]:
        """Lets the clients end their requests; the report."""
        out, _ = self._process.communicate(timeout=60)
        return dict(json.loads(out))

    def kill(self) -> None:
        """Ends it, whatever it does."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def load(place: Place) -> Iterator[Load]:
    """A load for the time of a block."""
    running = Load(place)
    try:
        yield running
    finally:
        running.kill()
