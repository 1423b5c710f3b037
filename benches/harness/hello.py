"""CPU per request, system calls, memory and idle behaviour, side by side with peers.

    python benches/harness/hello.py --python python3.13

The server is pinned to one core, the load generator (wrk) to another. In every round each server
is started afresh, in a different order, warmed up, and measured: user and system time of all its
processes and threads, over the answers that wrk counts. Compared are the ratios within a round,
shown with their spread, since a machine's speed drifts between rounds. System calls are counted in
a round of their own, because counting costs time. Writes a Markdown table and a JSON file.

The peers' environments are made on first use, with the newest releases of PyPI; `--newest` brings
them up to date. Ours is the build in `.venv`, or what `--ours` names: measure a release build.

Not here: other workloads than one small answer, and the restart under load (tests/systemd).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from processes import context_switches, cpu_seconds, family, iowait_seconds, pss_bytes
from servers import OURS, Running, Server, compared, install, pin, started

REPOSITORY = Path(__file__).resolve().parent.parent.parent
WARM_UP_SECONDS = 1
IDLE_SECONDS = 5
SATURATED_SHARE = 0.9
SYSTEM_CALLS = "raw_syscalls:sys_enter"


@dataclass
class Result:
    """What was measured of one server; lists hold one value per round."""

    versions: dict[str, str]
    cpu_us_per_request: list[float] = field(default_factory=list)
    requests_per_second: list[float] = field(default_factory=list)
    # How much of its core the server had. Well below 1, something else had the core (or wrk was the
    # slower one), and the round says little: the server was not saturated.
    core_share: list[float] = field(default_factory=list)
    first_answer_ms: list[float] = field(default_factory=list)
    pss_fresh_mib: list[float] = field(default_factory=list)
    pss_after_load_mib: list[float] = field(default_factory=list)
    system_calls_per_request: float | str = "not measured"
    idle_context_switches: int = 0
    idle_iowait_share: float = 0.0


@dataclass(frozen=True)
class Bench:
    """How to measure."""

    server_core: int
    load_core: int
    connections: int
    seconds: int

    def wrk(self, url: str, seconds: int, *prefix: str) -> tuple[int, float]:
        """Answers and seconds of one run of wrk; `prefix` is a command that runs it."""
        command = [*prefix, "wrk", "-t1", f"-c{self.connections}", f"-d{seconds}s", url]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, preexec_fn=pin(self.load_core)
        )
        if "Socket errors" in done.stdout or "Non-2xx" in done.stdout:
            raise SystemExit(f"error: not every answer was right:\n{done.stdout}")
        counted = re.search(r"(\d+) requests in ", done.stdout)
        rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
        if counted is None or rate is None:
            raise SystemExit(f"error: expected a report of wrk, found:\n{done.stdout}")
        return int(counted[1]), int(counted[1]) / float(rate[1])

    def round(self, server: Server, result: Result) -> None:
        """One round of one server."""
        with started(server, self.server_core) as running:
            pids = family(running.pid)
            result.first_answer_ms.append(running.first_answer_seconds * 1e3)
            result.pss_fresh_mib.append(pss_bytes(pids) / 2**20)
            self.wrk(running.url, WARM_UP_SECONDS)
            pids = family(running.pid)
            before = cpu_seconds(pids)
            answers, seconds = self.wrk(running.url, self.seconds)
            used = cpu_seconds(pids) - before
            result.cpu_us_per_request.append(used / answers * 1e6)
            result.requests_per_second.append(answers / seconds)
            result.core_share.append(used / seconds)
            result.pss_after_load_mib.append(pss_bytes(pids) / 2**20)

    def extras(self, server: Server, result: Result) -> None:
        """What needs a run of its own: system calls under load, and an idle while."""
        with started(server, self.server_core) as running:
            self.wrk(running.url, WARM_UP_SECONDS)
            result.system_calls_per_request = self.system_calls(running)
            pids = family(running.pid)
            time.sleep(1)  # what the load left behind ends
            switches, waited = context_switches(pids), iowait_seconds(self.server_core)
            time.sleep(IDLE_SECONDS)
            result.idle_context_switches = context_switches(pids) - switches
            waited = iowait_seconds(self.server_core) - waited
            result.idle_iowait_share = waited / IDLE_SECONDS

    def system_calls(self, running: Running) -> float | str:
        """System calls per request, or why they could not be counted."""
        if shutil.which("perf") is None:
            return "perf is not installed"
        pids = ",".join(map(str, family(running.pid)))
        with tempfile.NamedTemporaryFile("r") as out:
            perf = ["perf", "stat", "-x", ",", "-o", out.name, "-e", SYSTEM_CALLS, "-p", pids, "--"]
            try:
                answers, _ = self.wrk(running.url, self.seconds, *perf)
            except subprocess.CalledProcessError as error:
                return f"perf failed: {error.stderr.strip().splitlines()[-1:]}"
            counts = [line.split(",")[0] for line in out.read().splitlines() if "," in line]
        if len(counts) != 1 or not counts[0].isdigit():
            return f"perf counted {counts}"
        return int(counts[0]) / answers


def main() -> None:
    """Measures and prints."""
    options = parse_options()
    check_tools(options)
    version = python_version(options.python)
    environments = options.venvs.resolve() / version
    servers = [s for s in compared(options.ours, environments) if s.name in options.servers]
    for server in servers:
        if server.name == OURS:
            check_ours(server, version)
        else:
            install(server, options.python, newest=options.newest)
    bench = Bench(options.server_core, options.load_core, options.connections, options.seconds)
    os.sched_setaffinity(0, {options.load_core})
    results = measure(bench, servers, options.rounds)
    machine = describe_machine(version)
    print(table(bench, machine, results))
    warn_of_unsaturated(results)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    data = {"machine": machine, "bench": asdict(bench)}
    data["results"] = {name: asdict(result) for name, result in results.items()}
    options.output.write_text(json.dumps(data, indent=2) + "\n")
    print(f"\nwritten: {options.output}", file=sys.stderr)


def measure(bench: Bench, servers: list[Server], rounds: int) -> dict[str, Result]:
    """All rounds, each in another order, then the runs for the rest."""
    results = {server.name: Result(server.versions()) for server in servers}
    for number in range(rounds):
        for place in range(len(servers)):
            server = servers[(place + number) % len(servers)]
            bench.round(server, results[server.name])
            cpu = results[server.name].cpu_us_per_request[-1]
            print(f"round {number + 1} {server.name}: {cpu:.2f} µs", file=sys.stderr)
    for server in servers:
        bench.extras(server, results[server.name])
    return results


def warn_of_unsaturated(results: dict[str, Result]) -> None:
    """Says which servers were not kept busy, so that their figures are not believed."""
    for name, result in results.items():
        if (lowest := min(result.core_share)) < SATURATED_SHARE:
            print(
                f"warning: {name} had only {lowest:.0%} of its core in a round, expected at least "
                f"{SATURATED_SHARE:.0%}\n\nhint: measure on a machine that does nothing else",
                file=sys.stderr,
            )


def parse_options() -> argparse.Namespace:
    """The command line."""
    names = [server.name for server in compared(Path(), Path())]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--python", default=sys.executable, help="interpreter of the peers (default: this one)")
    add("--ours", type=Path, default=REPOSITORY / ".venv/bin/granian-uring", help="our program")
    add("--servers", nargs="+", choices=names, default=names, help="which to compare")
    add("--rounds", type=int, default=5, help="alternating rounds (default 5)")
    add("--seconds", type=int, default=5, help="seconds of load per round (default 5)")
    add("--connections", type=int, default=64, help="connections (default 64)")
    add("--server-core", type=int, default=0, help="core of the server (default 0)")
    add("--load-core", type=int, default=1, help="core of the load generator (default 1)")
    add("--venvs", type=Path, default=REPOSITORY / "build/bench-venvs", help="peers' environments")
    add("--newest", action="store_true", help="update the peers to their newest releases")
    add("--output", type=Path, default=REPOSITORY / "build/bench-hello.json", help="JSON file")
    return parser.parse_args()


def check_tools(options: argparse.Namespace) -> None:
    """Ends with a message when something needed is missing."""
    if shutil.which("wrk") is None:
        raise SystemExit("error: wrk was not found on PATH\n\nhint: apt-get install wrk")
    needed = {options.server_core, options.load_core}
    if len(needed) < 2 or not needed <= os.sched_getaffinity(0):
        found = sorted(os.sched_getaffinity(0))
        raise SystemExit(f"error: two cores are needed, {sorted(needed)}, usable are {found}")


def check_ours(server: Server, version: str) -> None:
    """Ours must be built, and for the interpreter of the peers."""
    if not server.program.exists():
        raise SystemExit(f"error: {server.program} does not exist\n\nhint: run `make build`")
    if (found := python_version(str(server.python))) != version:
        raise SystemExit(
            f"error: expected {server.program} to run on CPython {version}, found {found}\n\n"
            "hint: run `make build PYTHON=...`, or choose another interpreter with --python"
        )


def python_version(python: str) -> str:
    """An interpreter's version, such as 3.13.0."""
    code = "import platform; print(platform.python_version())"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"error: {python} does not run: {error}") from error
    return done.stdout.strip()


def describe_machine(version: str) -> dict[str, str]:
    """What the figures belong to."""
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    done = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False)
    return {
        "cpu": f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores",
        "kernel": platform.release(),
        "python": f"CPython {version}",
        "load": " ".join(done.stdout.split()[:2]),
    }


def table(bench: Bench, machine: dict[str, str], results: dict[str, Result]) -> str:
    """The results as Markdown."""
    head = ["", *(f"{name} {result.versions[name]}" for name, result in results.items())]
    rows = [head, ["---"] * len(head)]
    per_round = {
        "CPU per request, µs": "cpu_us_per_request",
        "requests per second": "requests_per_second",
        "share of its core the server had": "core_share",
        "start to first answer, ms": "first_answer_ms",
        "PSS when fresh, MiB": "pss_fresh_mib",
        "PSS after load, MiB": "pss_after_load_mib",
    }
    for label, name in per_round.items():
        rows.append([label, *(spread(getattr(one, name)) for one in results.values())])
    rows[3:3] = [ratio_row(results)] if OURS in results else []
    extras: dict[str, list[Any]] = {
        "system calls per request": [one.system_calls_per_request for one in results.values()],
        f"context switches in {IDLE_SECONDS} idle seconds": [
            one.idle_context_switches for one in results.values()
        ],
        "iowait while idle": [f"{one.idle_iowait_share:.0%}" for one in results.values()],
    }
    rows += [[label, *map(cell, values)] for label, values in extras.items()]
    others = {
        f"{package} {version}"
        for name, result in results.items()
        for package, version in result.versions.items()
        if package != name
    }
    facts = ", ".join([*machine.values(), *sorted(others)])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    rounds = len(next(iter(results.values())).cpu_us_per_request)
    lines += ["", f"Median (minimum to maximum) of {rounds} rounds of {bench.seconds} s with "
              f"{bench.connections} connections. {facts}."]  # fmt: skip
    return "\n".join(lines)


def ratio_row(results: dict[str, Result]) -> list[str]:
    """Our CPU per request over each peer's, round by round."""
    ours = results[OURS].cpu_us_per_request
    cells = []
    for name, peer in results.items():
        pairs = zip(ours, peer.cpu_us_per_request, strict=True)
        cells.append("" if name == OURS else spread([a / b for a, b in pairs]))
    return ["ours, as a share of it", *cells]


def spread(values: list[float]) -> str:
    """Median, minimum and maximum."""
    median, low, high = statistics.median(values), min(values), max(values)
    digits = 0 if median >= 1000 else 1 if median >= 100 else 2
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def cell(value: float | str) -> str:
    """A single figure, or the reason why there is none."""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
