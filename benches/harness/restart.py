"""`systemctl restart` under load, in the real systemd of the tests: what is lost, and who waits.

python restart.py RESTARTS

The box, the unit files, the load and its bookkeeping are those of `tests/systemd`, where the same
is a test with bounds; here it is a figure. Writes JSON: the figures, or why there are none. The
program is the one that `GRANIAN_URING` names.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent.parent / "tests" / "systemd"
sys.path.insert(0, str(TESTS))
from box import Box, Service  # noqa: E402
from conftest import Place, load, missing  # noqa: E402
from load import LOSSES  # noqa: E402
from server import free_port  # noqa: E402
from test_restart import STEADY_SECONDS, total  # noqa: E402


def main() -> None:
    """Measures and prints."""
    if reason := missing():
        print(json.dumps({"missing": reason}))
        return
    # Who has waited long enough asks us to end, and the box has to be taken down.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    box = Box(f"granian-uring-bench-{os.getpid()}")
    box.up()
    try:
        print(json.dumps(measure(box, int(sys.argv[1]))))
    finally:
        box.down()


def measure(box: Box, restarts: int) -> dict[str, Any]:
    """The figures of so many restarts."""
    address = ("127.0.0.1", free_port())
    listen = f"127.0.0.1:{address[1]}"
    place = Place(listen, f"tcp:{listen}", socket.AF_INET, address, address)
    service = Service(box, listen)
    try:
        service.configure()
        service.listen()
        place.get("/echo?id=0")
        times = []
        with load(place) as running:
            for _ in range(restarts):
                time.sleep(STEADY_SECONDS)
                times.append(service.restart())
            time.sleep(STEADY_SECONDS)
            found = running.finish()
    finally:
        service.remove()
    waits = [end - begin for begin, end in found["spans"]["new"]]
    return {
        "restarts": restarts,
        "answered": total(found, "ok"),
        "lost": {kind: total(found, kind) for kind in LOSSES},
        "crossed": found["crossed"],
        # Of requests on new connections; the rest of a drain and a start are in it.
        "slowest_ms": max(waits) * 1e3,
        "drain_ms": statistics.median(one.drain for one in times) * 1e3,
        "start_ms": statistics.median(one.start for one in times) * 1e3,
    }


if __name__ == "__main__":
    main()
