"""Under each attack others are served as if nothing was, and after it nothing is left.

What "served" means is in `control.py`: a client in a process of its own, whose median must stay
below 100 ms and whose 99th percentile below 1 s, every answer being the right one. What "nothing
left" means is `Victim.is_as_before`. Memory during the attack is bounded too: by what the kernel
notes as the peak (`VmHWM`, set back before each attack through `clear_refs`).

`FAULTS_SEED=7` repeats what was random in a run that printed that seed.
"""

import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from asgi.client import get
from asgi.process import HERE, IDLE_BYTES, RUNTIME, Lines, Server

from faults.attacks import IDLE

SEED = int(os.environ.get("FAULTS_SEED") or random.randrange(2**32))
# An attack takes seconds; this is against hanging.
ATTACK_SECONDS = 120.0
# The connections of an attack, and what else its processes have open.
DESCRIPTORS = IDLE + 500
# How much more the process may have at the most while an attack lasts: 5,000 idle connections are
# 6 MiB, 50 clients that do not read 64 KiB each and what their application is about to send.
PEAK_KIB = 16 * 1024
# The crates keep what the most connections at a time have needed; nothing else stays.
KEPT_KIB = 0 if RUNTIME == "uring" else IDLE * IDLE_BYTES // 1024
# The fds of rings. monoio is given a duplicate of the second ring's, which it closes itself.
RING_FDS = {"uring": 1, "tokio-uring": 2, "monoio": 3}


class Program:
    """A module of this folder as a process."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"faults.{module}", *arguments],
            cwd=HERE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        self.out = Lines(self.process.stdout)
        self.errors = Lines(self.process.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.out.finish()
        self.errors.finish()

    def wait_for(self, line: str, *, since: int = 0) -> None:
        """Waits until the program says this, from a mark of its output on."""
        try:
            self.out.wait_for(f"^{line}$", since=since, seconds=ATTACK_SECONDS)
        except AssertionError:
            raise AssertionError(f"no {line!r} came:\n{self.errors.text[-5000:]}") from None

    def go_on(self) -> None:
        """Tells a program that holds to go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """Waits until the program has ended by itself; what it printed last."""
        code = self.process.wait(ATTACK_SECONDS)
        self.out.finish()
        self.errors.finish()
        assert code == 0, f"exit code {code}:\n{self.errors.text[-5000:]}"
        found: dict[str, Any] = json.loads(self.out.text.splitlines()[-1])
        return found

    def stop(self) -> dict[str, Any]:
        """Ends a program that goes on until its stdin ends; what it printed last."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.result()


class Victim:
    """A server, and what it held before it was attacked."""

    def __init__(self, server: Server) -> None:
        self.server = server
        assert isinstance(server.address, tuple)
        self.address = (server.address[0], str(server.address[1]))
        # Before there was a connection.
        self.outside = self.look_outside()
        self.warm_up()
        self.rss = server.status("VmRSS")
        self.inside = {"connections": 1, "queued": 0, "running": 1, "exchanges": 1}
        self.inside["tasks"] = self.look_inside()["tasks"]

    def warm_up(self) -> None:
        """Asks for everything that the attacks ask for, so that it is loaded and has its memory."""
        with Program("control", *self.address) as control:
            control.wait_for("asking")
            for _ in range(50):
                with self.server.connect() as client:
                    assert client.ask("/hello").body == b"hello"
                    client.send(get("/sink", "Content-Length: 100000", method="POST"))
                    client.send(bytes(100_000))
                    assert client.read().body == b"100000"
                    assert len(client.ask("/flood?size=1").body) == 1 << 20
            control.stop()

    def look_outside(self) -> dict[str, int]:
        """What the kernel holds for the process."""
        return {"descriptors": self.server.descriptors(), "operations": self.operations()}

    def look_inside(self) -> dict[str, int]:
        """What the process itself says that it holds, this look included."""
        found: dict[str, int] = json.loads(self.server.ask("/holdings"))
        return found

    def operations(self) -> int:
        """How many operations the kernel waits with for our rings, as it tells in fdinfo; where
        there is no ring, how many fds it watches for us.
        """
        if RUNTIME == "epoll":
            return sum(told.count("tfd:") for told in self.told_of("eventpoll"))
        while True:
            rings = [told.partition("PollList:")[2] for told in self.told_of("io_uring")]
            assert len(rings) == RING_FDS[RUNTIME], rings
            counts = [ring.partition("CqOverflowList:")[0].count("op=") for ring in rings]
            # The list is left out while a ring is at work; an idle one waits for something.
            if all(counts):
                return sum(counts)

    def told_of(self, kind: str) -> list[str]:
        """What the kernel tells of each fd of this kind, proc_pid_fdinfo(5)."""
        folder = Path(f"/proc/{self.server.pid}")
        told = []
        for fd in (folder / "fd").iterdir():
            # Connections come and go.
            with contextlib.suppress(FileNotFoundError):
                if str(fd.readlink()) == f"anon_inode:[{kind}]":
                    told.append((folder / "fdinfo" / fd.name).read_text())
        return told

    def is_as_before(self, seconds: float = 15.0) -> None:
        """Connections, requests, tasks, fds, operations and memory are what they were.

        A close is told to the server by nobody but the kernel, so there is no event to wait for.
        """
        deadline = time.monotonic() + seconds
        for look, before in ((self.look_outside, self.outside), (self.look_inside, self.inside)):
            while any((found := look())[what] > before[what] for what in before):
                assert time.monotonic() < deadline, f"before {before}, now {found}"
                time.sleep(0.01)
        rss, most = self.server.status("VmRSS"), self.rss * 1.1 + 8 * 1024 + KEPT_KIB
        assert rss <= most, f"{rss} KiB resident, {self.rss} before the attacks"
        assert self.server.process.poll() is None
        for sign in ("ERROR", "WARNING", "Traceback", "raisable", "panicked"):
            assert sign not in self.server.log.text, self.server.log.text[-5000:]

    def forget_peak(self) -> None:
        """Lets the kernel note the peak of resident memory anew, proc_pid_clear_refs(5)."""
        Path(f"/proc/{self.server.pid}/clear_refs").write_text("5")

    def private_bytes(self) -> int:
        """Memory that is the process's alone and was written to, proc_pid_smaps(5)."""
        lines = Path(f"/proc/{self.server.pid}/smaps_rollup").read_text().splitlines()
        (kib,) = [line.split()[1] for line in lines if line.startswith("Private_Dirty:")]
        return int(kib) * 1024

    def switches(self) -> int:
        """How often the threads of the process have stopped running: it slept as long as this
        stays the same, and who sleeps makes no system call.
        """
        total = 0
        for task in Path(f"/proc/{self.server.pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if "voluntary_ctxt_switches" in line:
                    total += int(line.split()[1])
        return total

    def sleeps(self, seconds: float, within: float) -> None:
        """The process does nothing at all for so long, and begins with it in time."""
        deadline = time.monotonic() + within
        before = self.switches()
        while True:
            # What must not happen has no event.
            time.sleep(seconds)
            after = self.switches()
            if after == before:
                return
            assert time.monotonic() < deadline, f"{after - before} wake-ups in {seconds} s"
            before = after


def need_descriptors() -> None:
    """Raises our limit of open files, and so that of the programs we start."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        reason = f"{DESCRIPTORS} open files are needed, the hard limit is {hard}"
        if os.environ.get("NO_SKIP") == "1":
            pytest.fail(f"a skip is not allowed here (NO_SKIP=1): {reason}", pytrace=False)
        pytest.skip(reason)
    limit = DESCRIPTORS if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    """A server that all attacks of the module are on, one after the other."""
    need_descriptors()
    with Server(app="faults.application:app") as server:
        yield Victim(server.wait_until_ready())
        server.stop()


@pytest.fixture
def fresh_victim() -> Iterator[Victim]:
    """A server that has freed no memory that another attack took."""
    need_descriptors()
    with Server(app="faults.application:app") as server:
        yield Victim(server.wait_until_ready())
        server.stop()


def run_attack(
    victim: Victim,
    name: str,
    report: list[str],
    look: Callable[[], str] | None = None,
) -> None:
    """Has the server attacked, and others served meanwhile. `look` looks while the attack holds."""
    print(f"seed {SEED}")
    victim.forget_peak()
    began, seen = time.monotonic(), ""
    with (
        Program("control", *victim.address) as control,
        Program("attacks", name, *victim.address, str(SEED)) as attack,
    ):
        control.wait_for("asking")
        if look is not None:
            attack.wait_for("holding")
            seen = f"; {look()}"
            # Others are served for a second at least.
            control.wait_for("asking", since=control.out.mark() + 1)
            attack.go_on()
        outcomes = attack.result()
        figures = control.stop()
    seconds = time.monotonic() - began
    peak = victim.server.status("VmHWM")
    report.append(
        f"{name} (seed {SEED}): {seconds:.1f} s; control: {figures['requests']} requests, median "
        f"{figures['median'] * 1e3:.1f} ms, p99 {figures['p99'] * 1e3:.0f} ms, longest "
        f"{figures['longest'] * 1e3:.0f} ms; RSS {victim.rss / 1024:.1f} MiB at first, "
        f"{peak / 1024:.1f} at the most, {victim.server.status('VmRSS') / 1024:.1f} after{seen}; "
        + ", ".join(f"{what} {count}" for what, count in sorted(outcomes.items()))
    )
    assert figures["median"] < 0.1 and figures["p99"] < 1.0, figures
    assert peak <= victim.rss + PEAK_KIB, f"peak {peak} KiB, before the attacks {victim.rss} KiB"
    victim.is_as_before()


def test_idle_connections_hold_little_and_wake_nobody(
    fresh_victim: Victim, report: list[str]
) -> None:
    victim = fresh_victim
    before = victim.private_bytes()
    with Program("attacks", "idle", *victim.address, str(SEED)) as attack:
        attack.wait_for("holding")
        each = (victim.private_bytes() - before) / IDLE
        assert json.loads(victim.server.ask("/holdings"))["connections"] == IDLE + 1
        victim.sleeps(1.0, within=10.0)
        attack.go_on()
        outcomes = attack.result()
    report.append(f"idle: {outcomes['connections']} connections, {each:.0f} bytes each")
    assert 100 < each < IDLE_BYTES, f"{each:.0f} bytes for an idle connection"
    victim.is_as_before()


@pytest.mark.parametrize(
    "name",
    [
        "dropped",
        "aborted_uploads",
        "reset_responses",
        "half_closes",
        "slow_heads",
        "slow_bodies",
        "pipelining",
        "uploading",
        "expectations",
        "garbage",
        "bombs",
    ],
)
def test_attack(victim: Victim, report: list[str], name: str) -> None:
    run_attack(victim, name, report)


@pytest.mark.parametrize(
    "name",
    [
        "idle",
        "silent",
        "not_reading",
        "pipelining_without_reading",
    ],
)
def test_attack_that_holds(victim: Victim, report: list[str], name: str) -> None:
    """Connections in a state that nothing but a timeout would end: others do not mind."""

    def look() -> str:
        held: int = json.loads(victim.server.ask("/holdings"))["connections"]
        return f"{held - 1} connections held"

    run_attack(victim, name, report, look)


def test_afterwards_the_server_sleeps(victim: Victim) -> None:
    """What is left of the attacks are entries on the timer wheel, which comes round in 33 s."""
    victim.sleeps(2.0, within=45.0)
    victim.is_as_before()
