"""The report of a run: Markdown with every figure, a short table for the README, and the plots.

    python benches/harness/report.py target/bench

Reads `results.json` in that folder, so it can be written again without measuring again.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from cases import Case, all_cases
from figures import Spread, number, ratio, spread
from peers import OURS, REPOSITORY, run
from results import Outcome, Results

# Below this share of its core a closed loop's server was not saturated, and had its core shared.
SATURATED_SHARE = 0.9
# A server that answers less of an open loop's requests than this is overloaded by the rate.
SERVED_SHARE = 0.99
# A server and its only client take turns; so much more than a core between the two is polling.
POLLING_SHARE = 0.2

NOT_SHOWN = """\
- A network: client and server are one machine, and talk over loopback.
- More than one core for a server, and how servers scale over cores.
- TLS and HTTP/2.
- Slow clients, large uploads, and everything else that is about robustness, not speed.
- Kernel memory: PSS is what a process has in user space; a socket costs the kernel some KiB more.
- Peers under `systemctl restart`: they take no part in it.
"""


def write(results: Results, folder: Path, venvs: Path | None) -> str:
    """Writes `report.md` into `folder`, with plots if it is told where to install what draws
    them; the table for the README."""
    short = readme(results)
    plots = draw(folder, venvs) if venvs else []
    text = "\n".join([*head(results), short, "", *plots, *body(results), "## Not shown", ""])
    (folder / "report.md").write_text(text + NOT_SHOWN)
    return f"{short}\n\nwritten: {folder / 'report.md'}"


def measured(results: Results) -> Iterator[tuple[Case, dict[str, Outcome]]]:
    """The cases of which there are figures, in their order."""
    for case in all_cases():
        if case.name in results.cases:
            yield case, results.cases[case.name]


def figure_of(case: Case) -> str:
    """The name of a case's primary figure."""
    return "bytes_each" if case.load[0] == "idle" else "cpu_us"


def head(results: Results) -> list[str]:
    """What the figures belong to."""
    facts = results.facts
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    rounds = [len(one.rounds) for case in results.cases.values() for one in case.values()]
    return [
        "# Benchmark",
        "",
        f"- Machine: {facts['cpu']}, {facts['cores']} cores, Linux {facts['kernel']}",
        f"- CPython {facts['python']}; {versions}",
        f"- The server is pinned to core {facts['server_core']}, the load to core "
        f"{facts['load_core']}; one worker each",
        f"- {facts['date']}; {facts['seconds']} s per sample; up to {max(rounds, default=0)} "
        f"rounds, each with every entrant started afresh and in another order; "
        f"{results.seconds / 60:.0f} minutes in all",
        "",
        "Figures are the median (minimum to maximum) of the rounds. *Ratio* is the first line's "
        "figure over this line's, round by round: below 1, the first is the cheaper one.",
        "`docs/benchmarks.md` says how it is measured.",
        "",
        "## In short",
        "",
    ]


def readme(results: Results) -> str:
    """One line for each case: ours, the best peer, Granian."""
    lines = [
        f"| CPython {results.facts['python']} | {OURS} | best peer | ratio | Granian | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for case, outcomes in measured(results):
        line = readme_line(results.title(case), case, outcomes)
        lines += [line] if line else []
    unit = "CPU per request or message in µs, of all processes and threads"
    lines += ["", f"{unit}; memory of an idle connection in bytes.", ""]
    return "\n".join([*lines, *servers(results), *floor(results)]).strip()


def servers(results: Results) -> list[str]:
    """One line for each server: its start, memory, system calls, and latencies at fixed rates."""
    hello = results.cases.get("asgi-hello", {})
    rates = [case for case in all_cases() if case.group == "latency"]
    rates = [case for case in rates if case.name in results.cases]
    names = [name for name, outcome in hello.items() if outcome.rounds]
    if not names:
        return []
    head = ["ASGI hello", "start, ms", "memory, MiB", "system calls"]
    rows = [[*head, *(f"µs at {case.load[-1]} per second: p50 / p99 / p99.9" for case in rates)]]
    rows.append(["---"] * len(rows[0]))
    for name in names:
        rounds = hello[name].rounds
        cells = [str(spread(rounds, figure)) for figure in ("first_answer_ms", "pss_fresh_mib")]
        at_rates = [latencies(results.cases[case.name].get(name)) for case in rates]
        rows.append([name, *cells, calls(hello[name]), *at_rates])
    return [*(f"| {' | '.join(row)} |" for row in rows), ""]


def latencies(outcome: Outcome | None) -> str:
    """The medians of three quantiles."""
    found = [spread(outcome.rounds, f"{q}_us") for q in ("p50", "p99", "p99.9")] if outcome else []
    return " / ".join(number(one.median) for one in found if one)


def readme_line(shown: str, case: Case, outcomes: dict[str, Outcome]) -> str | None:
    """One case; none if it has no peers, or ours was not measured."""
    name = figure_of(case)
    first = case.entrants[0]
    ours = outcomes.get(first.name)
    peers = {
        one.name: outcomes[one.name]
        for one in case.entrants[1:]
        if one.name in outcomes and one.peer != first.peer and outcomes[one.name].rounds
    }
    if not ours or not ours.rounds or not peers or first.peer != OURS:
        return None
    best = min(peers, key=lambda peer: median(peers[peer], name))
    cells = [shown, str(spread(ours.rounds, name)), best_cell(best, peers[best], name)]
    cells.append(str(ratio(ours.rounds, peers[best].rounds, name) or ""))
    if granian := peers.get("granian"):
        figure = spread(granian.rounds, name)
        cells += [str(figure), str(ratio(ours.rounds, granian.rounds, name) or "")]
    else:
        cells += ["", ""]
    return f"| {' | '.join(cells)} |"


def median(outcome: Outcome, name: str) -> float:
    """The median of a figure; beyond all others where there is none."""
    found = spread(outcome.rounds, name)
    return found.median if found else float("inf")


def best_cell(peer: str, outcome: Outcome, name: str) -> str:
    """A figure and whose it is."""
    return f"{peer} {spread(outcome.rounds, name)}"


def body(results: Results) -> list[str]:
    """Every case, in groups."""
    lines = left_out(results)
    group = ""
    for case, outcomes in measured(results):
        if case.group != group:
            group = case.group
            lines += [f"## {group[0].upper()}{group[1:]}", ""]
        asked = f"`{' '.join(case.load)}`, `{case.target or 'hello'}`"
        lines += [f"### {results.title(case)}", "", asked, ""]
        lines += table(case, outcomes)
        lines += remarks(case, outcomes)
    return [*lines, *studies(results)]


def left_out(results: Results) -> list[str]:
    """The cases that there was no time for."""
    names = [name for name in results.facts["cases"] if name not in results.cases]
    return [f"Not measured, since the time was over: {', '.join(names)}.", ""] if names else []


def table(case: Case, outcomes: dict[str, Outcome]) -> list[str]:
    """The figures of a case."""
    entrants = [one.name for one in case.entrants if one.name in outcomes]
    columns = idle_columns() if case.load[0] == "idle" else load_columns(case)
    counted = any(isinstance(one.calls_per_answer, float) for one in outcomes.values())
    primary = figure_of(case)
    first = outcomes[entrants[0]]
    labels = ["", *columns]
    labels.insert(2, "ratio")
    rows = [[*labels, *(["system calls"] if counted else [])]]
    for name in entrants:
        outcome = outcomes[name]
        if not outcome.rounds:
            continue
        cells = [str(spread(outcome.rounds, figure) or "-") for figure in columns.values()]
        against = ratio(first.rounds, outcome.rounds, primary) if outcome is not first else None
        cells.insert(1, str(against or ""))
        rows.append([name, *cells, *([calls(outcome)] if counted else [])])
    rows.insert(1, ["---"] * len(rows[0]))
    return [*(f"| {' | '.join(row)} |" for row in rows), ""]


def load_columns(case: Case) -> dict[str, str]:
    """Titles and names of the figures of a load."""
    return {
        f"CPU per {case.unit}, µs": "cpu_us",
        "per second": "per_second",
        "p50, µs": "p50_us",
        "p99, µs": "p99_us",
        "p99.9, µs": "p99.9_us",
        "PSS fresh, MiB": "pss_fresh_mib",
        "PSS after, MiB": "pss_after_mib",
        "first answer, ms": "first_answer_ms",
    }


def idle_columns() -> dict[str, str]:
    """Titles and names of the figures of idle connections."""
    return {
        "bytes for each": "bytes_each",
        "PSS fresh, MiB": "pss_fresh_mib",
        "PSS after, MiB": "pss_after_mib",
    }


def calls(outcome: Outcome) -> str:
    """System calls per answer, or why they are not known."""
    found = outcome.calls_per_answer
    return f"{found:.2f}" if isinstance(found, float) else str(found or "-")


def remarks(case: Case, outcomes: dict[str, Outcome]) -> list[str]:
    """What a reader has to know to believe the table, and who is missing in it."""
    lines = []
    for name, outcome in outcomes.items():
        if outcome.failure:
            shown = outcome.failure.replace("\n", "\n  ")
            lines.append(f"- {name} has no{' more' if outcome.rounds else ''} figures:\n  {shown}")
        lines += [f"- {name}: {text}" for text in doubts(case, outcome)]
    return [*lines, ""] if lines else []


def doubts(case: Case, outcome: Outcome) -> Iterator[str]:
    """What makes a figure less than it seems."""
    share = spread(outcome.rounds, "core_share")
    backlog = spread(outcome.rounds, "backlog_share")
    connects = spread(outcome.rounds, "connects")
    if backlog and backlog.high > 1 - SERVED_SHARE:
        yield f"overloaded: up to {backlog.high:.0%} of the requests that were due never began"
    elif share and share.low < SATURATED_SHARE and saturates(case):
        load = spread(outcome.rounds, "load_share")
        full = load is not None and load.high > SATURATED_SHARE
        why = ": the load's core was the full one" if full else ""
        yield f"had only {share.low:.0%} of its core in a round, so it was not saturated{why}"
    if polls(case, outcome):
        yield (
            "had its core while the only client was busy: it looks again and again instead of "
            "waiting, so its CPU is the time that passes"
        )
    if connects and connects.low > 0 and "--churn" not in case.load:
        yield f"closed connections that the load had to make again ({connects})"


def polls(case: Case, outcome: Outcome) -> bool:
    """Whether a server runs while its one client does, which takes turns with it."""
    share, load = spread(outcome.rounds, "core_share"), spread(outcome.rounds, "load_share")
    alone = case.load[-2:] == ("--connections", "1")
    return bool(alone and share and load and share.median + load.median > 1 + POLLING_SHARE)


def saturates(case: Case) -> bool:
    """Whether the load asks for more than a server can give."""
    return "--rate" not in case.load and case.group != "long I/O" and case.load[0] != "idle"


def studies(results: Results) -> list[str]:
    """What was measured once."""
    found = floor(results)
    lines = ["## The floor", "", *found] if found else []
    restart = results.studies.get("restart")
    if restart:
        lines += ["## `systemctl restart` under load", ""]
        lines += [missing(restart) or restarted(restart), ""]
    return lines


def floor(results: Results) -> list[str]:
    """Cases beside their floor: a bare ring loop, and the application without a server."""
    lines = [*in_process(results), *without_python(results)]
    return [*lines, ""] if lines else []


def in_process(results: Results) -> list[str]:
    """Applications without a server, and what we add to them and to a bare ring loop."""
    inside = results.studies.get("in_process")
    if not inside:
        return []
    if reason := missing(inside):
        return [f"What the applications cost without a server is not known. {reason}"]
    ring = figure(results, "rust-hello", "bare ring loop")
    if ring is None:
        return []
    rows = []
    for case, task_us in inside["task_us"].items():
        mine = figure(results, case, OURS)
        if mine:
            sum_us = ring.median + task_us
            over = f"{mine.median / sum_us:.2f}"
            rows.append(f"| {case} | {number(task_us)} | {number(sum_us)} | {mine} | {over} |")
    if not rows:
        return []
    return [
        f"The floor of a case is the application alone, each call a Task (CPython "
        f"{inside['python']}), and a bare ring loop, {ring} µs: what no server is spared.",
        "",
        f"| case | application, µs | floor, µs | {OURS}, µs | over the floor |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
    ]


def without_python(results: Results) -> list[str]:
    """The server without Python beside a bare ring loop and hyper."""
    lines = []
    for case in ("rust-hello", "rust-pipelined"):
        outcomes = results.cases.get(case, {})
        ours = outcomes.get("examples/hello uring")
        for name, called in (("bare ring loop", "a bare ring loop"), ("hyper", "hyper")):
            peer = outcomes.get(name)
            shares = ratio(ours.rounds, peer.rounds, "cpu_us") if ours and peer else None
            if shares:
                how = "pipelined, " if case == "rust-pipelined" else ""
                lines.append(f"Without Python, {how}it costs {shares} of what {called} does.")
    return lines


def figure(results: Results, case: str, entrant: str) -> Spread | None:
    """The CPU of one entrant, if it was measured."""
    outcome = results.cases.get(case, {}).get(entrant)
    return spread(outcome.rounds, "cpu_us") if outcome else None


def missing(study: dict[str, object]) -> str | None:
    """Why a study has no figures."""
    return f"Not measured: {study['missing']}" if "missing" in study else None


def restarted(found: dict[str, object]) -> str:
    """Restarts in a sentence."""
    lost = ", ".join(f"{count} {kind}" for kind, count in dict(found["lost"]).items())  # type: ignore[call-overload]
    return (
        f"{found['restarts']} times in a real systemd, under the load of `tests/systemd/load.py`, "
        f"each answer checked whole: {found['answered']} answered; {lost}. The slowest request on "
        f"a new connection took {found['slowest_ms']:.0f} ms; in the median a drain took "
        f"{found['drain_ms']:.0f} ms (the requests in flight, some of which last a second) and a "
        f"start {found['start_ms']:.0f} ms."
    )


def draw(folder: Path, venvs: Path) -> list[str]:
    """The plots, by matplotlib in an environment of its own; their lines in the report."""
    root = venvs / "plots"
    python = root / "bin" / "python"
    try:
        if not (root / ".installed").exists():
            run([sys.executable, "-m", "venv", str(root)])
            run([str(python), "-m", "pip", "install", "--quiet", "matplotlib"])
            (root / ".installed").touch()
        program = Path(__file__).with_name("plots.py")
        names = run([str(python), str(program), str(folder)]).split()
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        return [f"There are no plots: {str(detail).strip().splitlines()[-1]}", ""]
    return [line for name in names for line in (f"![{name}]({name}.svg)", "")]


def main() -> None:
    """Writes the report again."""
    folder = Path(sys.argv[1]).resolve()
    results = Results.load(folder / "results.json")
    print(write(results, folder, REPOSITORY / "build" / "bench-venvs"))


if __name__ == "__main__":
    main()
