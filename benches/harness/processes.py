"""What the kernel tells of a server: of all its processes and threads together, from proc(5)."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")
# Of a few processes, each of whose readings is rounded down.
MOST_ROUNDED_SECONDS = 0.05


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (fields := stat_fields(entry)):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for one in found:
        found.extend(children.get(one, []))
    return found


def stat_fields(process: Path) -> list[str]:
    """The fields of /proc/PID/stat after the name, from the state on; empty if it is gone."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


@dataclass(frozen=True)
class Usage:
    """CPU time used so far, told in two ways."""

    # Nanoseconds by thread, exact, of threads that live: proc(5)'s schedstat.
    threads: dict[int, int]
    # User and system time of all threads that there ever were, and of children that were waited
    # for; its clock has ticks of 10 ms.
    seconds: float


def usage(pids: list[int]) -> Usage:
    """What these processes have used."""
    fields = [stat_fields(PROC / str(pid)) for pid in pids]
    ticks = sum(sum(map(int, one[11:15])) for one in fields if one)
    threads = {}
    for pid in pids:
        # A kernel may be built without schedstat, and a thread or process may end meanwhile.
        with contextlib.suppress(OSError):
            for thread in (PROC / str(pid) / "task").iterdir():
                threads[int(thread.name)] = int((thread / "schedstat").read_text().split()[0])
    return Usage(threads, ticks / TICKS_PER_SECOND)


def cpu_seconds(before: Usage, after: Usage) -> float:
    """CPU time between two readings: exact if no thread has ended between them."""
    by_ticks = after.seconds - before.seconds
    if not before.threads or not before.threads.keys() <= after.threads.keys():
        return by_ticks
    exact = sum(after.threads.values()) - sum(before.threads.values())
    # Where threads came and went, the exact clock has missed more than the ticks can have rounded.
    return by_ticks if by_ticks - exact / 1e9 > MOST_ROUNDED_SECONDS else exact / 1e9


def pss_bytes(pids: list[int]) -> int:
    """Proportional set size: shared pages are split among those who share them."""
    total = 0
    for pid in pids:
        # A child may have ended since it was listed.
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total
