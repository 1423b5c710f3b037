"""What the service tells systemd, and that it ends in time whatever the application does."""

from __future__ import annotations

import time

from box import Gate, Service, wait_for
from conftest import Place, send_get

# Catalogue numbers of systemd's own messages, sd-messages(3) and `journalctl --catalog`.
UNIT_FAILED = "d9b373ed55a64feb8242e02dbe79a49c"
PROCESS_EXITED = "98e322203f7a4ed290d09fe03c09fe15"

# The server's own deadline, and systemd's later one, for an application that does not end. The
# server may ask systemd for more time, so that the time is measured too.
DEADLINE = "--graceful-timeout 2"
STOP_SECONDS = 10
ENDED = ("inactive", "failed")


def test_ready_only_after_lifespan_startup(service: Service, place: Place, gate: Gate) -> None:
    service.configure("apps:gated_startup", service=gate.environment)
    service.systemctl("start", "--no-block", service.name)
    gate.reached()
    assert service.show("ActiveState") == {"ActiveState": "activating"}
    with place.connect() as client:
        send_get(client, "/echo?id=early")
        gate.open()
        service.until("ActiveState", "active")
    assert service.show("StatusText")["StatusText"], "no STATUS= was sent"


def test_failing_lifespan_startup_fails_the_unit(service: Service) -> None:
    service.configure("apps:failing_startup")
    service.systemctl("start", service.name, check=False)
    exited = service.until_logged(MESSAGE_ID=PROCESS_EXITED)
    assert (exited["EXIT_CODE"], exited["EXIT_STATUS"]) == ("exited", "4")
    log = service.log()
    assert "RuntimeError: the database is not there" in log
    assert "in open_the_database" in log, "no traceback"


def test_watchdog_kills_a_hung_loop(service: Service, place: Place, gate: Gate) -> None:
    """A handler blocks the loop: systemd ends the process, which first shows where it hung."""
    service.configure(service=f"WatchdogSec=1\n{gate.environment}")
    old = place.get("/echo?id=before")["pid"]
    with place.connect() as client:
        send_get(client, "/block?id=hung")
        gate.reached()
        assert service.until_logged(MESSAGE_ID=UNIT_FAILED)["UNIT_RESULT"] == "watchdog"
    assert "in block_the_loop" in service.log(), "no stack dump"
    assert place.get("/echo?id=after")["pid"] != old


def test_watchdog_is_fed_while_idle_and_busy(service: Service, place: Place) -> None:
    """No false alarm: the process outlives many watchdog periods."""
    service.configure(service="WatchdogSec=200ms")
    old = place.get("/echo?id=before")["pid"]
    assert place.get("/slow?seconds=2&id=idle")["pid"] == old
    for number in range(1000):
        assert place.get(f"/echo?id={number}")["pid"] == old


def test_terminated_during_lifespan_startup(service: Service, gate: Gate) -> None:
    service.configure(
        "apps:gated_startup",
        DEADLINE,
        service=f"TimeoutStopSec={STOP_SECONDS}\n{gate.environment}",
    )
    service.systemctl("start", "--no-block", service.name)
    gate.reached()
    stopped_by_itself(service)


def test_hanging_lifespan_shutdown(service: Service, place: Place, gate: Gate) -> None:
    service.configure(
        "apps:gated_shutdown",
        DEADLINE,
        service=f"TimeoutStopSec={STOP_SECONDS}\n{gate.environment}",
    )
    place.get("/echo?id=before")
    stopped_by_itself(service)
    gate.reached()


def test_thread_that_never_ends(service: Service, place: Place) -> None:
    service.configure("apps:lingering_thread", DEADLINE, service=f"TimeoutStopSec={STOP_SECONDS}")
    place.get("/echo?id=before")
    stopped_by_itself(service)


def stopped_by_itself(service: Service) -> None:
    """Stops the service, which must end at its own deadline (`DEADLINE`), unkilled by systemd."""
    begin = time.monotonic()
    service.systemctl("stop", "--no-block", service.name)
    wait_for("the end of the service", lambda: service.show("ActiveState")["ActiveState"] in ENDED)
    lasted = time.monotonic() - begin
    expected = {"ActiveState": "inactive", "Result": "success"}
    found = service.show(*expected)
    assert found == expected, f"expected {expected}, found {found} after {lasted:.1f} s"
    assert lasted < STOP_SECONDS, f"ended by itself, but only after {lasted:.1f} s"
