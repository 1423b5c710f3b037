"""`systemctl restart` under load loses nothing, takes no longer than it must, and brings a new
process with a new environment. What counts as a loss stands at the head of load.py."""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
from box import Gate, Restart, Service
from conftest import Place, load, read_json, send_get
from load import LOSSES

# What a restart may add to a new request's wait, beside the drain and the start of the process.
OVERHEAD_SECONDS = 0.150
# Requests that cross the server's close on a reused connection, of all requests: a handful in
# thousands is physics, more is a server that closes its idle connections too hastily.
CROSSED_SHARE = 0.002
# How long the load runs between two restarts: the pools fill; under the one second of the slow
# requests that waited in the queue, so that they are in flight again.
STEADY_SECONDS = 0.5


@pytest.mark.parametrize(
    ("place", "restarts"), [("tcp", 20), ("tcp6", 5), ("unix", 5)], indirect=["place"]
)
def test_restarts_under_load_lose_nothing(
    service: Service, place: Place, restarts: int, report: Callable[[str], None]
) -> None:
    restart_under_load(service, place, restarts, report)


def restart_under_load(
    service: Service, place: Place, restarts: int, report: Callable[[str], None]
) -> None:
    """Restarts so often, each time with a new environment; nothing is lost, and each waits for no
    longer than it must."""
    service.set("Environment=GENERATION=0", drop_in="generation")
    pids = {place.get("/echo?id=0")["pid"]}
    times: list[Restart] = []
    with load(place) as running:
        for generation in range(1, restarts + 1):
            time.sleep(STEADY_SECONDS)
            service.set(f"Environment=GENERATION={generation}", drop_in="generation")
            times.append(service.restart())
            answer = place.get("/echo?id=after")
            assert answer["generation"] == str(generation)
            assert answer["pid"] not in pids, "the old process answered after the restart"
            pids.add(answer["pid"])
        time.sleep(STEADY_SECONDS)
        found = running.finish()
    tell(place, found, times, report)
    lost = {kind: total(found, kind) for kind in LOSSES if total(found, kind)}
    assert not lost, "\n".join([str(lost), *found["losses"]])
    assert found["crossed"] <= CROSSED_SHARE * total(found, "ok")
    # Every process answered the load, each with its own environment.
    assert {int(generation) for _, generation in found["servers"]} == set(range(restarts + 1))
    assert {pid for pid, _ in found["servers"]} == pids
    for restart in times:
        assert any(begin < restart.terminated < end for begin, end in found["spans"]["slow"]), (
            "no one-second request was in flight: the test shows less than it says"
        )
    assert max(overheads(found, times)) <= OVERHEAD_SECONDS


def total(found: dict[str, Any], outcome: str) -> int:
    """How many requests of all kinds of clients had an outcome."""
    return sum(counts.get(outcome, 0) for counts in found["outcomes"].values())


def overheads(found: dict[str, Any], times: list[Restart]) -> list[float]:
    """For each restart: the longest wait of a new connection's request, less drain and start.

    A request belongs to a restart when it overlaps the time from SIGTERM to half a second after
    READY, so that a slow first answer counts too.
    """
    return [
        max(
            end - begin
            for begin, end in found["spans"]["new"]
            if end >= restart.terminated and begin <= restart.ready + 0.5
        )
        - restart.drain
        - restart.start
        for restart in times
    ]


def tell(
    place: Place, found: dict[str, Any], times: list[Restart], report: Callable[[str], None]
) -> None:
    """Reports the figures of a run."""
    outcomes = {kind: total(found, kind) for kind in ("ok", *LOSSES)}
    others = {name: found[name] for name in ("crossed", "resent", "closed")}
    report(f"{len(times)} restarts on {place.listen}: {outcomes}, {others}, seed {found['seed']}")
    figures = {
        "drain": [restart.drain for restart in times],
        "start to READY": [restart.start for restart in times],
        "a new request's wait beyond both": overheads(found, times),
    }
    for name, values in figures.items():
        median, worst = statistics.median(values) * 1000, max(values) * 1000
        report(f"  {name}: median {median:.0f} ms, worst {worst:.0f} ms")


def test_drain_may_last_longer_than_the_stop_timeout(service: Service, place: Place) -> None:
    """The server extends TimeoutStopSec= while it drains (EXTEND_TIMEOUT_USEC, sd_notify(3))."""
    service.configure("apps:app", "--graceful-timeout 10", service="TimeoutStopSec=2")
    old = place.get("/echo?id=before")["pid"]
    with place.connect() as client:
        send_get(client, "/slow?seconds=5&id=long")
        # This one is answered after the long one was taken up.
        assert place.get("/echo?id=between")["pid"] == old
        restart = service.restart()
        assert read_json(client)["pid"] == old
    assert restart.drain > 2, f"drained in {restart.drain} s: the request did not outlast the limit"
    assert "Main process exited" not in service.log(), "the old process did not end by itself"
    assert place.get("/echo?id=after")["pid"] != old


def test_killed_service_loses_at_most_one_unread_connection(
    service: Service, place: Place, gate: Gate
) -> None:
    """SIGKILL while clients wait in the queue: whom it had not accepted the next process serves."""
    service.configure(service=gate.environment)
    old = place.get("/echo?id=before")["pid"]
    clients = [place.connect()]
    try:
        send_get(clients[0], "/block?id=blocker")
        gate.reached()
        # Who connects from here on finds a server that takes up nothing more.
        waiting = [place.connect() for _ in range(10)]
        clients += waiting
        for number, client in enumerate(waiting):
            send_get(client, f"/echo?id={number}")
        service.systemctl("kill", "--kill-who=main", "--signal=KILL", service.name)
        answers = [answer_or_none(client) for client in waiting]
    finally:
        for client in clients:
            client.close()
    lost = answers.count(None)
    assert lost <= 1, f"{lost} of {len(waiting)} connections were lost with the process"
    for number, answer in enumerate(answers):
        if answer is not None:
            assert answer["id"] == str(number)
            assert answer["pid"] != old


def answer_or_none(client: socket.socket) -> dict[str, Any] | None:
    """The answer, or None when the connection ended without a byte of one."""
    try:
        return read_json(client)
    except ConnectionResetError:
        return None
    except AssertionError as error:
        if "found b''" in str(error):
            return None
        raise
