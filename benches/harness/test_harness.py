"""The benchmark itself: its arithmetic, its report, and one case of it without any peer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import cases
import pytest
import report
import run
import server
from cases import Case, Entrant
from figures import Spread, number, ratio, spread
from measure import Bench, figures
from peers import PEERS, REPOSITORY, Environment, environment
from processes import Usage, cpu_seconds, usage
from results import Outcome, Results
from server import Failed

OURS = Path(os.environ.get("GRANIAN_URING", Path(sys.executable).with_name("granian-uring")))
LOAD = REPOSITORY / "target" / "debug" / "load"
CASE = next(case for case in cases.all_cases() if case.name == "asgi-hello")


def samples(*values: float) -> dict[str, dict[str, float]]:
    """Rounds with one figure each."""
    return {str(place): {"cpu_us": value} for place, value in enumerate(values)}


def results(**outcomes: Outcome) -> Results:
    """Results of `CASE`, stored and read again as a later run would."""
    facts = {"python": "3.13.0", "versions": {}, "cpu": "a CPU", "cores": 2, "kernel": "6.18"}
    facts |= {"server_core": 0, "load_core": 1, "date": "2026-01-01", "seconds": 2.0}
    facts |= {"cases": [CASE.name, "churn"]}
    return Results(facts, {CASE.name: {name.replace("_", "-"): o for name, o in outcomes.items()}})


def test_a_spread_is_median_minimum_and_maximum() -> None:
    assert spread(samples(3, 1, 10), "cpu_us") == Spread(3, 1, 10)
    assert spread(samples(3), "p50_us") is None
    assert str(Spread(3, 1, 10)) == "3.00 (1.00 to 10.0)"


def test_ratios_are_of_rounds_that_both_have() -> None:
    # The machine was twice as slow in the second round: the ratio does not see it.
    assert ratio(samples(1, 2, 9), samples(2, 4), "cpu_us") == Spread(0.5, 0.5, 0.5)
    assert ratio(samples(1), {}, "cpu_us") is None


@pytest.mark.parametrize(
    ("value", "shown"), [(0.123, "0.12"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12,346")]
)
def test_a_number_has_the_digits_that_are_known(value: float, shown: str) -> None:
    assert number(value) == shown


def test_every_round_begins_with_another_entrant_and_has_all() -> None:
    entrants = (Entrant("a"), Entrant("b"), Entrant("c"))
    rounds = [[one.peer for one in run.order(entrants, number)] for number in range(3)]
    assert rounds == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]]


def test_a_case_is_named_once_and_its_entrants_are_known() -> None:
    names = [case.name for case in cases.all_cases()]
    assert len(set(names)) == len(names)
    for case in cases.all_cases():
        entrants = [one.name for one in case.entrants]
        assert len(set(entrants)) == len(entrants), case.name
        assert {one.peer for one in case.entrants} <= set(PEERS), case.name


def test_a_thread_that_ended_is_not_lost() -> None:
    before = Usage({1: 1_000_000, 2: 5_000_000}, 0.00)
    # Exact, while all that were there still are.
    assert cpu_seconds(before, Usage({1: 2_000_000, 2: 5_000_000}, 0.01)) == 0.001
    assert cpu_seconds(before, Usage({1: 2_000_000, 2: 5_000_000, 3: 7_000_000}, 0.01)) == 0.008
    # One is gone, or has come and gone: the ticks know.
    assert cpu_seconds(before, Usage({1: 2_000_000}, 0.03)) == 0.03
    assert cpu_seconds(before, Usage({1: 2_000_000, 2: 5_000_000}, 0.50)) == 0.50


def test_what_a_process_uses_is_read() -> None:
    before = usage([os.getpid()])
    begin = time.process_time()
    while time.process_time() < begin + 0.05:
        pass
    used = time.process_time() - begin
    assert cpu_seconds(before, usage([os.getpid()])) == pytest.approx(used, abs=0.02)


def test_cpu_is_shared_by_the_answers() -> None:
    latency = {"p50": 10.0, "p99": 20.0, "p99.9": 30.0, "max": 40.0, "mean": 11.0}
    found = {"answers": 1000, "seconds": 2.0, "backlog": 0, "connects": 0}
    sample = figures({**found, "load_cpu_seconds": 0.5, "latency_us": latency}, 1.5, 2.0)
    assert sample["cpu_us"] == pytest.approx(1500)
    assert sample["per_second"] == 500
    assert sample["core_share"] == 0.75
    with pytest.raises(Failed):
        figures({**found, "answers": 0}, 1.5, 2.0)


def test_the_report_is_written_from_the_stored_figures(tmp_path: Path) -> None:
    ours = Outcome(samples(8, 10, 9), calls_per_answer=0.04)
    granian = Outcome(samples(16, 20, 18), calls_per_answer=4.0)
    uvicorn = Outcome(failure="exited with 3 at its start\nno such option")
    path = tmp_path / "results.json"
    results(granian_uring=ours, granian=granian, uvicorn=uvicorn).save(path)
    found = Results.load(path)
    short = report.readme(found)
    assert (
        "| ASGI hello | 9.00 (8.00 to 10.0) | granian 18.0 (16.0 to 20.0) | 0.50 | "
        "18.0 (16.0 to 20.0) | 0.50 |" in short
    )
    text = "\n".join(report.body(found))
    assert "- uvicorn has no figures:\n  exited with 3 at its start\n  no such option" in text
    assert "| granian | 18.0 (16.0 to 20.0) | 0.50 |" in text
    assert "| 4.00 |" in text
    assert "the time was over: churn." in text


def test_what_is_not_to_be_believed_is_said() -> None:
    def doubts(case: Case, **sample: float) -> list[str]:
        return list(report.doubts(case, Outcome({"0": sample})))

    rate = next(case for case in cases.all_cases() if case.group == "latency")
    assert doubts(CASE, core_share=0.99, backlog_share=0, connects=0) == []
    assert "not saturated" in doubts(CASE, core_share=0.5)[0]
    assert doubts(CASE, core_share=0.5, load_share=0.99)[0].endswith("core was the full one")
    assert doubts(rate, core_share=0.5) == []
    assert "overloaded" in doubts(rate, core_share=1.0, backlog_share=0.3)[0]
    assert "closed connections" in doubts(CASE, connects=7)[0]


def test_nothing_of_a_server_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ignores SIGTERM, with a child that does too."""
    monkeypatch.setattr(server, "STOP_SECONDS", 0.1)
    script = "trap '' TERM; (trap '' TERM; echo child; sleep 60) & wait"
    process = subprocess.Popen(
        ["/bin/sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"child\n"
    server.stop(process)
    # All that has the pipe open is gone.
    assert process.stdout.read() == b""
    process.stdout.close()


def test_no_variable_of_the_caller_changes_a_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without bytecode ours, run from its sources, is compiled at each start; installed peers are
    not."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("GRANIAN_PORT", "1")
    log = tmp_path / "log"
    show = ["/bin/sh", "-c", "env; exit 3"]
    with pytest.raises(Failed), server.started(show, 1, "/", 0, log, {"GRANIAN_LOOP": "asyncio"}):
        pass
    names = {line.split("=")[0] for line in log.read_text().splitlines()}
    found = {name for name in names if name.startswith(("GRANIAN_", "PYTHON"))}
    assert found == {"GRANIAN_LOOP", "PYTHONPATH"}


def test_the_applications_alone_have_a_cost() -> None:
    program = REPOSITORY / "benches/harness/in_process.py"
    done = subprocess.run([sys.executable, program], capture_output=True, check=True, timeout=60)
    found = json.loads(done.stdout)["task_us"]
    assert 0 < found["asgi-hello"] < found["fastapi"] < found["django-asgi"]


def test_a_server_that_never_waits_is_told_from_one_that_does() -> None:
    [case] = [case for case in cases.all_cases() if case.name == "sweep-1"]
    waits, polls = Outcome(), Outcome()
    waits.rounds["0"] = {"core_share": 0.6, "load_share": 0.35}
    polls.rounds["0"] = {"core_share": 1.0, "load_share": 0.35}
    assert not [text for text in report.doubts(case, waits) if "again and again" in text]
    assert [text for text in report.doubts(case, polls) if "again and again" in text]


@pytest.fixture
def two_cores() -> None:
    """One for the server, one for the load."""
    if len(os.sched_getaffinity(0)) < 2:
        if os.environ.get("NO_SKIP") == "1":
            pytest.fail("a skip is not allowed here (NO_SKIP=1): two cores are needed")
        pytest.skip("two cores are needed")


def smoke(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A run of one case with our server alone."""
    words = ["--ours", str(OURS), "--load", str(LOAD), "--output", str(folder), "--no-studies"]
    words += ["--cases", CASE.name, "--peers", "granian-uring", "--seconds", "0.2"]
    # Matplotlib is not installed for a test: that there are no plots is a line in the report.
    words += ["--no-plots", *more]
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "benches/harness/run.py"), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.usefixtures("two_cores")
def test_a_run_measures_and_is_resumed(tmp_path: Path) -> None:
    assert LOAD.exists(), "hint: cargo build --package load"
    done = smoke(tmp_path, "--rounds", "1")
    assert done.returncode == 0, done.stderr
    stored = json.loads((tmp_path / "results.json").read_text())
    first = stored["cases"][CASE.name]["granian-uring"]["rounds"]["0"]
    assert first["per_second"] > 0
    # One core cannot be used for more than the time there was.
    assert 0 < first["cpu_seconds"] < 0.4
    again = smoke(tmp_path, "--rounds", "2", "--resume")
    assert again.returncode == 0, again.stderr
    rounds = json.loads((tmp_path / "results.json").read_text())["cases"][CASE.name]
    assert rounds["granian-uring"]["rounds"]["0"] == first
    assert list(rounds["granian-uring"]["rounds"]) == ["0", "1"]
    assert "ASGI hello" in (tmp_path / "report.md").read_text()


@pytest.mark.usefixtures("two_cores")
def test_a_server_that_does_not_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    wrong = tmp_path / "bin" / "granian-uring"
    wrong.parent.mkdir()
    wrong.write_text("#!/bin/sh\necho this cannot work >&2\nexit 3\n")
    wrong.chmod(0o755)
    bench = Bench(0, 1, 0.2, LOAD, tmp_path)
    place = Environment("3", Path(sys.executable), wrong, tmp_path)
    with pytest.raises(Failed, match=r"exited with 3 at its start\nthis cannot work"):
        bench.sample(CASE, CASE.entrants[0], place)


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize(
    "name",
    [
        "wsgi-pool",
        "echo-100k",
        "file-rsgi",
        "wait-10ms",
        "database",
        "ws-echo-asgi",
        "ws-broadcast-rsgi",
        "django-asgi",
        "rate-2000",
        "churn",
        "pipelining",
        "idle",
    ],
)
def test_each_kind_of_load_is_answered(name: str, tmp_path: Path) -> None:
    case = next(case for case in cases.all_cases() if case.name == name)
    few = tuple("100" if word == str(cases.IDLE_CONNECTIONS) else word for word in case.load)
    case = Case(**{**vars(case), "load": few})
    bench = Bench(0, 1, 0.1, LOAD, tmp_path)
    sample = bench.sample(case, case.entrants[0], environment(OURS, tmp_path))
    assert sample["bytes_each" if name == "idle" else "cpu_us"] > 0
    # A connection for each request, and otherwise none but those of the warm-up.
    assert (sample.get("connects", 0) > 0) == (name == "churn")


@pytest.mark.usefixtures("two_cores")
def test_a_wrong_answer_fails_the_case(tmp_path: Path) -> None:
    case = Case(**{**vars(CASE), "load": cases.get(14)})
    place = environment(OURS, tmp_path)
    bench = Bench(0, 1, 0.2, LOAD, tmp_path)
    with pytest.raises(Failed, match="expected a body of 14 bytes, found 13"):
        bench.sample(case, case.entrants[0], place)
