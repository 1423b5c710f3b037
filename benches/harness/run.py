"""The benchmark: our server beside its peers, case by case. `docs/benchmarks.md` explains it.

    python benches/harness/run.py --ours .venv-newest/bin/granian-uring

In every round each entrant of a case is started afresh on its core, in another order, warmed up,
measured from outside, and stopped. Ratios are those of the rounds. What is measured is saved after
each sample: `--resume` goes on where a run was stopped. When the time is over, rounds are left out,
never cases. `--quick` is a part of it in five minutes.

Not here: what is asked (`cases.py`), who answers (`peers.py`), how it is measured (`measure.py`)
and shown (`report.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import report
from cases import Case, Entrant, all_cases
from measure import Bench
from peers import OURS, PEERS, REPOSITORY, Environment, environment, install_all
from results import Outcome, Results
from server import Failed

QUICK_PEERS = {OURS, "granian", "uvicorn", "fastpysgi", "gunicorn gthread"}
QUICK = {"rounds": 3, "seconds": 0.8, "limit": 4.75, "restarts": 3}
FULL = {"rounds": 5, "seconds": 2.0, "limit": 60.0, "restarts": 10}
# For each thing that is measured once.
STUDY_SECONDS = 180


@dataclass
class Run:
    """A run under way."""

    bench: Bench
    cases: list[Case]
    place: Environment
    other: Environment | None
    failed_installs: dict[str, str]
    results: Results
    path: Path
    limit_seconds: float
    with_studies: bool
    # How many restarts under systemd are measured.
    restarts: int
    # From when time is counted that is not in the results yet.
    begin: float
    # How long the last round took.
    round_seconds: float = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds of this run and those it goes on from."""
        return self.results.seconds + time.monotonic() - self.begin

    def save(self) -> None:
        """Writes what there is."""
        now = time.monotonic()
        self.results.seconds += now - self.begin
        self.begin = now
        self.results.save(self.path)

    def say(self, text: str) -> None:
        """Progress."""
        now, limit = int(self.elapsed), int(self.limit_seconds)
        times = f"{now // 60}:{now % 60:02} of {limit // 60}:{limit % 60:02}"
        print(f"[{times}] {text}", file=sys.stderr, flush=True)

    def rounds(self, most: int) -> None:
        """Rounds, as many as fit into the time; after the first, what is measured once."""
        for number in range(most):
            begin = self.elapsed
            if number and begin + self.round_seconds > self.limit_seconds:
                self.say(f"no time for round {number + 1} of {most}")
                return
            self.round(number)
            self.round_seconds = self.elapsed - begin
            if number == 0 and self.with_studies:
                self.studies()

    def round(self, number: int) -> None:
        """Every entrant of every case once."""
        for case in self.cases:
            for entrant in order(case.entrants, number):
                if self.elapsed > self.limit_seconds:
                    self.say("the time is over")
                    return
                self.sample(case, entrant, number)

    def sample(self, case: Case, entrant: Entrant, number: int) -> None:
        """One sample, unless there is one, or the entrant has failed."""
        outcome = self.results.outcome(case.name, entrant.name)
        if outcome.failure or str(number) in outcome.rounds:
            return
        label = f"round {number + 1} {case.name} {entrant.name}"
        try:
            sample = self.bench.sample(case, entrant, self.place_of(case, entrant))
        except (Failed, OSError, subprocess.SubprocessError) as failure:
            outcome.failure = str(failure)
            self.say(f"{label}: {outcome.failure}")
        else:
            outcome.rounds[str(number)] = sample
            figure = "bytes_each" if "bytes_each" in sample else "cpu_us"
            self.say(f"{label}: {sample[figure]:.2f} {figure}")
        self.save()

    def place_of(self, case: Case, entrant: Entrant) -> Environment:
        """Where an entrant is installed; `Failed` if it is not."""
        if entrant.peer in self.failed_installs:
            raise Failed(f"not installed: {self.failed_installs[entrant.peer]}")
        if not case.other_python:
            return self.place
        if self.other is None:
            raise Failed("no other Python was named")
        return self.other

    def studies(self) -> None:
        """What is measured once: system calls, the application in-process, restarts."""
        for case in self.cases:
            for entrant in case.entrants if case.count_calls else ():
                self.count_calls(case, entrant)
        studies = self.results.studies
        ours = self.place.ours
        if "in_process" not in studies:
            python, core = str(ours.parent / "python"), self.bench.server_core
            studies["in_process"] = self.study({core}, python, "in_process.py")
        if "restart" not in studies:
            cores = {self.bench.server_core, self.bench.load_core}
            restart = self.study(cores, sys.executable, "restart.py", str(self.restarts))
            studies["restart"] = restart
        self.save()

    def count_calls(self, case: Case, entrant: Entrant) -> None:
        """System calls of one entrant, in a run of their own: counting costs time."""
        outcome: Outcome = self.results.outcome(case.name, entrant.name)
        if outcome.failure or outcome.calls_per_answer is not None:
            return
        try:
            place = self.place_of(case, entrant)
            outcome.calls_per_answer = self.bench.calls(case, entrant, place)
        except (Failed, OSError, subprocess.SubprocessError) as failure:
            outcome.calls_per_answer = str(failure).splitlines()[0]
        self.say(f"system calls, {case.name} {entrant.name}: {outcome.calls_per_answer}")
        self.save()

    def study(self, cores: set[int], python: str, program: str, *words: str) -> dict[str, Any]:
        """The JSON of a program of this folder, or why there is none."""
        self.say(program)
        with subprocess.Popen(
            [python, str(Path(__file__).with_name(program)), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "GRANIAN_URING": str(self.place.ours)},
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        ) as process:
            try:
                out, errors = process.communicate(timeout=STUDY_SECONDS)
            except subprocess.TimeoutExpired:
                # It tidies up, so it is asked and not killed.
                process.terminate()
                out, errors = "", f"it took longer than {STUDY_SECONDS} s"
        if process.returncode or not out:
            return {"missing": errors.strip()[-500:] or f"it exited with {process.returncode}"}
        return dict(json.loads(out))


def order(entrants: tuple[Entrant, ...], number: int) -> Iterator[Entrant]:
    """The entrants of a round: each round begins with another one."""
    for place in range(len(entrants)):
        yield entrants[(place + number) % len(entrants)]


def chosen(options: argparse.Namespace) -> list[Case]:
    """The cases and entrants that were asked for."""
    cases = []
    for case in all_cases():
        if options.cases and case.name not in options.cases:
            continue
        if options.quick and not options.cases and not case.quick:
            continue
        peers = set(options.peers or (QUICK_PEERS if options.quick else PEERS))
        these = tuple(one for one in case.entrants if one.peer in peers)
        if these:
            cases.append(Case(**{**vars(case), "entrants": these}))
    return cases


def describe(options: argparse.Namespace, place: Environment, cases: list[Case]) -> dict[str, Any]:
    """What the figures belong to."""
    model = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    names = sorted({one.peer for case in cases for one in case.entrants})
    versions: dict[str, str] = {}
    for name in names:
        try:
            versions |= place.versions(PEERS[name])
        except (OSError, subprocess.CalledProcessError):
            continue
    if OURS in versions:
        versions[OURS] += f" ({commit()})"
    return {
        "cpu": model[0] if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": place.version,
        "versions": versions,
        "server_core": options.server_core,
        "load_core": options.load_core,
        "seconds": options.seconds,
        "date": time.strftime("%Y-%m-%d"),
        "cases": [case.name for case in cases],
    }


def commit() -> str:
    """The commit that is measured, with a word when the tree has changes."""
    git = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "no commit"


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    names = [case.name for case in all_cases()]
    ours = REPOSITORY / ".venv/bin/granian-uring"
    add("--ours", type=Path, default=ours, help="our program; its Python is the peers' too")
    add("--other", type=Path, help="our program on another Python, for one case")
    add("--cases", nargs="+", choices=names, metavar="CASE", help=", ".join(names))
    add("--peers", nargs="+", choices=PEERS, metavar="PEER", help=", ".join(PEERS))
    add("--quick", action="store_true", help="a part of the cases and peers, in five minutes")
    add("--rounds", type=int, help="alternating rounds (5, quick 3)")
    add("--seconds", type=float, help="seconds of load per sample (2, quick 0.8)")
    add("--limit", type=float, help="minutes after which no round begins (60, quick 4.75)")
    more = "go on with what is in the output folder, and try again what failed"
    add("--restarts", type=int, help="restarts under load that are measured (10, quick 3)")
    add("--resume", action="store_true", help=more)
    add("--no-studies", action="store_true", help="only rounds")
    add("--no-plots", action="store_true", help="no matplotlib is installed, nothing drawn")
    add("--newest", action="store_true", help="update the peers to their newest releases")
    add("--server-core", type=int, default=0, help="core of the server (0)")
    add("--load-core", type=int, default=1, help="core of the load (1)")
    load = REPOSITORY / "target/release/load"
    add("--load", type=Path, default=load, help="the load generator")
    add("--output", type=Path, default=REPOSITORY / "target/bench", help="folder of the results")
    add("--venvs", type=Path, default=REPOSITORY / "build/bench-venvs", help="peers' environments")
    options = parser.parse_args()
    for name, value in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def check(options: argparse.Namespace) -> None:
    """Ends with a message when something needed is missing."""
    if not options.load.exists():
        hint = "hint: run `make bench`, which builds it"
        raise SystemExit(f"error: {options.load} does not exist\n\n{hint}")
    needed = {options.server_core, options.load_core}
    if len(needed) < 2 or not needed <= os.sched_getaffinity(0):
        found = sorted(os.sched_getaffinity(0))
        raise SystemExit(f"error: two cores are needed, {sorted(needed)}, usable are {found}")


def prepare(options: argparse.Namespace) -> Run:
    """Installs the peers, and reads what an earlier run has left."""
    cases = chosen(options)
    place = environment(options.ours.absolute(), options.venvs.resolve())
    other = None
    if options.other:
        other = environment(options.other.absolute(), options.venvs.resolve())
    here = {one.peer for case in cases if not case.other_python for one in case.entrants}
    there = {one.peer for case in cases if case.other_python for one in case.entrants}
    failed = install_all(here, place, newest=options.newest)
    if other:
        failed |= install_all(there, other, newest=options.newest)
    facts = describe(options, place, cases)
    if other:
        facts["other_python"] = other.version
    output = options.output.resolve()
    (output / "logs").mkdir(parents=True, exist_ok=True)
    path = output / "results.json"
    results = Results.load(path) if options.resume and path.exists() else Results(facts)
    results.forget_failures()
    results.facts["cases"] = sorted({*results.facts["cases"], *facts["cases"]})
    if results.facts["versions"] != facts["versions"]:
        raise SystemExit(
            f"error: {path} has figures of other versions\n\nhint: leave out --resume to begin anew"
        )
    bench = Bench(
        options.server_core,
        options.load_core,
        options.seconds,
        options.load.absolute(),
        output / "logs",
    )
    return Run(
        bench,
        cases,
        place,
        other,
        failed,
        results,
        path,
        limit_seconds=options.limit * 60,
        with_studies=not options.no_studies,
        restarts=options.restarts,
        begin=time.monotonic(),
    )


def main() -> None:
    """Measures, and writes the report."""
    options = parse_options()
    check(options)
    run = prepare(options)
    # This process disturbs the load, if anything, and not the server.
    os.sched_setaffinity(0, {options.load_core})
    try:
        run.rounds(options.rounds)
    except KeyboardInterrupt:
        run.say("interrupted: --resume goes on from here")
    run.save()
    os.sched_setaffinity(0, {options.server_core, options.load_core})
    venvs = None if options.no_plots else options.venvs.resolve()
    print(report.write(run.results, run.path.parent, venvs))


if __name__ == "__main__":
    main()
