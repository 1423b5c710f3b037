"""The runtimes side by side: CPU per request and system calls per request.

    make build && cargo build --release --example hello && python3 benches/runtimes.py

Two programs on each runtime: a plain ASGI hello in `granian-uring`, and the core alone
(`examples/hello.rs`). The server is pinned to one core, the load (wrk, keep-alive connections, one
request at a time on each) to another. In every round each is started afresh, in another order,
warmed up, and measured: CPU time of all its threads, over the answers that wrk counts. System calls
are counted by perf in a run of their own. Prints Markdown: median (minimum to maximum), and the
ratio to uring within each round.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNTIMES = ("uring", "monoio", "tokio-uring", "epoll")
SERVER_CORE, LOAD_CORE = 0, 1
START_SECONDS = 20.0
# Below this share of its core a server was not kept busy, or had not the core to itself.
SATURATED_SHARE = 0.9


def asgi(runtime: str, port: int) -> list[str]:
    program = ROOT / ".venv/bin/granian-uring"
    return [str(program), "examples.hello:app", "--port", str(port), "--runtime", runtime]


def core(runtime: str, port: int) -> list[str]:
    program = ROOT / "target/release/examples/hello"
    return [str(program), f"127.0.0.1:{port}", "--runtime", runtime]


PROGRAMS: dict[str, Callable[[str, int], list[str]]] = {"ASGI": asgi, "Rust only": core}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    options = parser.parse_args()
    for tool in ("wrk", "perf"):
        if shutil.which(tool) is None:
            raise SystemExit(f"error: {tool} is needed\n\nhint: apt-get install wrk linux-perf")
    for name, command in PROGRAMS.items():
        report(name, options.runtimes, *measure(command, options))


def measure(
    command: Callable[[str, int], list[str]], options: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Microseconds of CPU per request, one for each round, and system calls per request."""
    cpu: dict[str, list[float]] = {runtime: [] for runtime in options.runtimes}
    calls: dict[str, float] = {}
    for number in range(options.rounds + 1):
        for place in range(len(options.runtimes)):
            runtime = options.runtimes[(place + number) % len(options.runtimes)]
            with started(command, runtime) as (pid, port):
                wrk(port, 1, options.connections)
                if number == options.rounds:
                    calls[runtime] = system_calls(pid, port, options)
                    continue
                before, begin = cpu_seconds(pid), time.monotonic()
                answers = wrk(port, options.seconds, options.connections)
                used, lasted = cpu_seconds(pid) - before, time.monotonic() - begin
            cpu[runtime].append(used / answers * 1e6)
            share = used / lasted
            warning = "" if share >= SATURATED_SHARE else "  (not saturated)"
            shown = f"{cpu[runtime][-1]:6.2f} µs, {share:.0%} of the core{warning}"
            print(f"round {number + 1} {runtime:12} {shown}", file=sys.stderr)
    return cpu, calls


@contextmanager
def started(command: Callable[[str, int], list[str]], runtime: str) -> Iterator[tuple[int, int]]:
    """A server, answering; its process and its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        command(runtime, port),
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
    )
    try:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.005)
        else:
            raise SystemExit(f"error: {command(runtime, port)} does not serve")
        yield process.pid, port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def wrk(port: int, seconds: int, connections: int, *prefix: str) -> int:
    """The number of answers."""
    url = f"http://127.0.0.1:{port}/"
    done = subprocess.run(
        [*prefix, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", url],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE}),
    )
    counted = re.search(r"(\d+) requests in ", done.stdout)
    if counted is None or "Socket errors" in done.stdout or "Non-2xx" in done.stdout:
        raise SystemExit(f"error: not every answer was right:\n{done.stdout}")
    return int(counted[1])


def cpu_seconds(pid: int) -> float:
    """What all threads have run, from the scheduler: schedstat of proc(5), in nanoseconds."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def system_calls(pid: int, port: int, options: argparse.Namespace) -> float:
    out = ROOT / "build" / "system-calls.csv"
    out.parent.mkdir(exist_ok=True)
    perf = ["perf", "stat", "-x,", "-o", str(out), "-e", "raw_syscalls:sys_enter", "-p", str(pid)]
    answers = wrk(port, options.seconds, options.connections, *perf, "--")
    counted = re.search(r"^(\d+),", out.read_text(), re.M)
    if counted is None:
        raise SystemExit(f"error: perf counted nothing:\n{out.read_text()}")
    return int(counted[1]) / answers


def report(
    name: str, runtimes: list[str], cpu: dict[str, list[float]], calls: dict[str, float]
) -> None:
    share = f"as a share of {runtimes[0]}'s"
    print(f"| {name} | CPU per request, µs | {share} | system calls per request |")
    print("|---|---|---|---|")
    for runtime in runtimes:
        ratios = [one / base for one, base in zip(cpu[runtime], cpu[runtimes[0]], strict=True)]
        shown = (spread(cpu[runtime], ".2f"), spread(ratios, ".2f"), f"{calls[runtime]:.2f}")
        print(f"| `{runtime}` | {' | '.join(shown)} |")
    print(flush=True)


def spread(values: list[float], form: str) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


if __name__ == "__main__":
    main()
