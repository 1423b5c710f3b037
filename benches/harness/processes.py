"""What the kernel tells of a server: of all its processes and threads together, from proc(5)."""

from __future__ import annotations

import os
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


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


def cpu_seconds(pids: list[int]) -> float:
    """User and system time used so far, of all threads."""
    fields = [stat_fields(PROC / str(pid)) for pid in pids]
    return sum(int(one[11]) + int(one[12]) for one in fields if one) / TICKS_PER_SECOND


def pss_bytes(pids: list[int]) -> int:
    """Proportional set size: shared pages are split among those who share them."""
    total = 0
    for pid in pids:
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def context_switches(pids: list[int]) -> int:
    """How often a thread was put on a core so far: an idle server's wake-ups."""
    total = 0
    for pid in pids:
        for thread in (PROC / str(pid) / "task").iterdir():
            for line in (thread / "status").read_text().splitlines():
                if "voluntary_ctxt_switches" in line:
                    total += int(line.split()[1])
    return total


def iowait_seconds(core: int) -> float:
    """The time a core has so far been idle with I/O said to be outstanding."""
    for line in (PROC / "stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            return int(fields[4]) / TICKS_PER_SECOND
    raise SystemExit(f"error: core {core} is not in /proc/stat")
