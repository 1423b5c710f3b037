"""The socket that systemd made: how the service gets it, and that it stays as it was made."""

from __future__ import annotations

from pathlib import Path

import pytest
from box import Gate, Service, message
from conftest import Place, read_json, send_get
from listener import snapshot


@pytest.mark.parametrize("place", ["tcp", "tcp6", "unix"], indirect=True)
def test_first_connection_starts_the_service(service: Service, place: Place) -> None:
    assert service.show("ActiveState") == {"ActiveState": "inactive"}
    assert place.get("/echo?id=first")["id"] == "first"
    assert service.show("ActiveState") == {"ActiveState": "active"}


@pytest.mark.parametrize("place", ["tcp", "tcp6", "unix"], indirect=True)
def test_socket_stays_as_systemd_made_it(service: Service, place: Place, gate: Gate) -> None:
    """Flags, options, backlog and path, before the service, while it serves, drains and is gone."""
    holder = service.box.init_pid
    # systemd itself clears O_NONBLOCK when it hands the socket over, so what it made is seen once
    # a process that does nothing has been given the socket.
    service.set("Type=oneshot\nExecStart=\nExecStart=/bin/true\nWorkingDirectory=/")
    service.systemctl("start", service.name)
    made = snapshot(holder, place.name)
    assert made["backlog"] > 0
    service.configure(service=gate.environment)
    place.get("/echo?id=1")
    assert snapshot(holder, place.name) == made, "changed by the start"
    service.restart()
    assert snapshot(holder, place.name) == made, "changed by a restart"
    with place.connect() as client:
        send_get(client, "/gate?id=2")
        gate.reached()
        service.systemctl("stop", "--no-block", service.name)
        service.until("ActiveState", "deactivating")
        assert snapshot(holder, place.name) == made, "changed by the drain"
        gate.open()
        assert read_json(client)["id"] == "2"
    service.until("ActiveState", "inactive")
    assert snapshot(holder, place.name) == made, "changed by the stop"
    assert place.get("/echo?id=3")["id"] == "3", "the socket does not start the service again"


def test_one_service_serves_several_sockets(service: Service, place: Place) -> None:
    """Two sockets in one unit: each is served, and by the same process."""
    second = Place.unix(service.box, "/run/granian-uring-test/second.sock")
    service.systemctl("stop", service.socket_name)
    service.listen_at(place.listen, second.listen)
    service.listen()
    assert place.get("/echo?id=tcp")["pid"] == second.get("/echo?id=unix")["pid"]


def test_unprivileged_service_with_little_locked_memory(service: Service, place: Place) -> None:
    """The example's sandbox holds, and under it many connections are served at once."""
    place.get("/echo?id=first")
    process = Path(f"/proc/{service.main_pid()}")
    status = dict(
        line.split(":\t", 1)
        for line in (process / "status").read_text().splitlines()
        if "\t" in line
    )
    assert "0" not in status["Uid"].split(), "runs as root"
    assert int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2", "no system call filter"
    limits = (process / "limits").read_text().splitlines()
    locked = next(line for line in limits if line.startswith("Max locked memory")).split()
    assert locked[3:5] == ["8388608", "8388608"]
    clients = [place.connect() for _ in range(200)]
    for number, client in enumerate(clients):
        send_get(client, f"/slow?seconds=0.2&id={number}")
    for number, client in enumerate(clients):
        with client:
            assert read_json(client)["id"] == str(number)


def test_sockets_for_another_process_are_refused_in_words(service: Service) -> None:
    """A shell that stays between systemd and the server is the process that LISTEN_PID names."""
    # `$$` is a plain dollar sign in a unit file; the shell tells its own process id.
    service.configure(prefix="/bin/sh -c 'echo shell $$$$; ", suffix="; true'")
    service.systemctl("start", "--no-block", service.name)
    hint = service.until_logged(MESSAGE="hint:")
    own, invocation = hint["_PID"], hint["_SYSTEMD_INVOCATION_ID"]
    log = [one for one in service.journal() if one.get("_SYSTEMD_INVOCATION_ID") == invocation]
    shell = next(one["_PID"] for one in log if message(one).startswith("shell "))
    text = "\n".join(message(one) for one in log if one["_PID"] == own)
    for word in ("LISTEN_PID", own, shell, "exec"):
        assert word in text, f"{word} is not named: {text}"


def test_application_that_cannot_start_does_not_cost_the_socket(
    service: Service, place: Place
) -> None:
    """The example's limits: with a client in the queue the service is tried again and again, past
    systemd's default limit of five starts, and the client is served once the fault is mended."""
    service.configure("apps:not_there")
    with place.connect() as client:
        send_get(client, "/echo?id=patient")
        for _ in range(6):
            service.systemctl("restart", service.name, check=False)
        service.until("NRestarts", "2")
        assert service.show("ActiveState", unit=service.socket_name) == {"ActiveState": "active"}
        service.configure()
        assert read_json(client)["id"] == "patient"
