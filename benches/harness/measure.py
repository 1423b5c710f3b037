"""One sample: a server is started, warmed up, asked, and stopped; what it used is read outside.

The primary figure is the CPU time, user and system, of all processes and threads of the server
over the answers that were counted. `benches/load` stops after its warm-up with its connections open
and nothing under way, and goes on when it is told; so what is read before and after belongs to the
counted answers, whole.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cases import FILE_BYTES, Case, Entrant
from peers import PEERS, Environment
from processes import cpu_seconds, family, pss_bytes, usage
from server import Failed, Running, free_port, pin, started

WARM_UP_SECONDS = 0.3
# Beyond the time a load is asked for: its own hang limit and more.
LOAD_GRACE_SECONDS = 45.0
CALLS = "raw_syscalls:sys_enter"

Sample = dict[str, float]


@dataclass(frozen=True)
class Bench:
    """How to measure."""

    server_core: int
    load_core: int
    seconds: float
    # The load generator.
    program: Path
    # For logs and the file that is served.
    folder: Path

    def sample(self, case: Case, entrant: Entrant, place: Environment) -> Sample:
        """One round of one entrant. `Failed` says why there is none."""
        with self.server(case, entrant, place) as running:
            fresh = pss_bytes(family(running.pid))
            sample = {"first_answer_ms": running.first_answer_seconds * 1e3}
            sample["pss_fresh_mib"] = fresh / 2**20
            seconds = self.seconds * case.stretch
            with self.load(case, running, seconds) as load:
                pids = family(running.pid)
                before, warm = usage(pids), pss_bytes(pids)
                found = go(load)
                pids = family(running.pid)
                sample["cpu_seconds"] = used = cpu_seconds(before, usage(pids))
                sample["pss_after_mib"] = pss_bytes(pids) / 2**20
            if case.load[0] == "idle":
                return {**sample, "bytes_each": (warm - fresh) / found["answers"]}
            return {**sample, **figures(found, used, seconds)}

    def calls(self, case: Case, entrant: Entrant, place: Environment) -> float:
        """System calls per answer, connections and warm-up included."""
        if shutil.which("perf") is None:
            raise Failed("perf is not installed")
        with (
            self.server(case, entrant, place) as running,
            tempfile.NamedTemporaryFile("r") as out,
        ):
            pids = ",".join(map(str, family(running.pid)))
            perf = ["perf", "stat", "-x", ",", "-o", out.name, "-e", CALLS, "-p", pids, "--"]
            with self.load(case, running, self.seconds, *perf) as load:
                found = go(load)
            counts = [line.split(",")[0] for line in out.read().splitlines() if CALLS in line]
        if len(counts) != 1 or not counts[0].isdigit():
            raise Failed(f"perf counted {counts}")
        asked: int = found["answers"] + found["warm_answers"]
        return int(counts[0]) / asked

    @contextmanager
    def server(self, case: Case, entrant: Entrant, place: Environment) -> Iterator[Running]:
        """The entrant, serving the case's application; with the database if there is one."""
        peer = PEERS[entrant.peer]
        port = free_port()
        command = peer.command(place.bin(peer), port, case.interface, case.target)
        # The application comes last, and options are not taken behind it by all.
        command[len(command) - 1 : len(command) - 1] = entrant.options
        file = self.folder / "file"
        if not file.exists():
            file.write_bytes(b"x" * FILE_BYTES)
        extra = {"BENCH_FILE": str(file)}
        log = self.folder / f"{case.name}-{entrant.name.replace(' ', '-').replace('/', '-')}.log"
        with (
            self.backend(case, extra),
            started(command, port, case.path, self.server_core, log, extra) as running,
        ):
            yield running

    @contextmanager
    def backend(self, case: Case, extra: dict[str, str]) -> Iterator[None]:
        """The database's stand-in on the load's core, where the case asks for it."""
        if not case.backend:
            yield
            return
        program = Path(__file__).with_name("backend.py")
        with subprocess.Popen(
            [sys.executable, program],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=pin(self.load_core),
        ) as process:
            try:
                assert process.stdout is not None
                extra["BACKEND"] = f"127.0.0.1:{process.stdout.readline().strip()}"
                yield
            finally:
                process.kill()

    @contextmanager
    def load(
        self, case: Case, running: Running, seconds: float, *prefix: str
    ) -> Iterator[subprocess.Popen[str]]:
        """The load generator, warmed up; `prefix` is a command that runs it."""
        kind, *words = case.load
        command = [*prefix, str(self.program), kind, running.address, "--path", case.path, *words]
        if kind != "idle":
            command += ["--seconds", str(seconds), "--warm-up", str(WARM_UP_SECONDS)]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=pin(self.load_core),
        ) as process:
            try:
                assert process.stdout is not None
                # It ends by itself when an answer does not come, so this wait is bounded.
                if process.stdout.readline() != "warm\n":
                    raise Failed(f"the warm-up failed: {rest(process.stderr)}")
                yield process
            finally:
                process.kill()


def go(load: subprocess.Popen[str]) -> dict[str, Any]:
    """Lets a warm load run; its report."""
    try:
        out, errors = load.communicate("go\n", timeout=LOAD_GRACE_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"the load did not end in {LOAD_GRACE_SECONDS} s") from error
    if load.returncode:
        raise Failed(errors.strip()[-500:])
    return dict(json.loads(out))


def rest(stream: IO[str] | None) -> str:
    """What is left in a stream whose writer has ended."""
    return stream.read().strip()[-500:] if stream else ""


def figures(found: dict[str, Any], cpu: float, asked_seconds: float) -> Sample:
    """The figures of a load's report."""
    answers, seconds = found["answers"], found["seconds"]
    if not answers:
        raise Failed("no answer came")
    return {
        "cpu_us": cpu / answers * 1e6,
        "per_second": answers / seconds,
        # How much of its core the server had, and the load of its own. A closed loop that saturates
        # neither says little.
        "core_share": cpu / seconds,
        "load_share": found["load_cpu_seconds"] / seconds,
        # Of an open loop: the requests that were due and found no free connection.
        "backlog_share": found["backlog"] / (found["backlog"] + answers),
        "connects": found["connects"],
        **{f"{name}_us": value for name, value in found["latency_us"].items()},
    }
