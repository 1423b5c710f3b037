"""Where a unit refuses io_uring: `--runtime auto` serves on epoll and says why, the others say so.

`SystemCallFilter=~@aio` kills whoever makes an io_uring call, or answers it with an error where
`SystemCallErrorNumber=` names one. The sysctl `kernel.io_uring_disabled=2` belongs to the whole
machine; for a service it is the same as a filter that answers `io_uring_setup` with EPERM.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from box import Service, message
from conftest import Place
from test_restart import restart_under_load

KILLED = "SystemCallFilter=~@aio\nSystemCallErrorNumber=kill\n"
REFUSED = "SystemCallFilter=~@aio\nSystemCallErrorNumber=EPERM\n"
SWITCHED_OFF = "SystemCallFilter=~io_uring_setup\nSystemCallErrorNumber=EPERM\n"
PROBLEMS = {
    KILLED: "a seccomp filter ends the process at io_uring_setup (SIGSYS)",
    REFUSED: "io_uring_setup failed: Operation not permitted",
    SWITCHED_OFF: "io_uring_setup failed: Operation not permitted",
}
EACH_REFUSAL = pytest.mark.parametrize(
    "refusal", PROBLEMS, ids=["killed", "refused", "switched off"]
)


def warnings(service: Service) -> list[str]:
    """The warnings in the journal, of every process of the service."""
    return [message(entry) for entry in service.journal() if entry["PRIORITY"] == "4"]


@EACH_REFUSAL
def test_a_service_without_io_uring_serves_and_restarts_on_epoll(
    service: Service, place: Place, refusal: str, report: Callable[[str], None]
) -> None:
    service.configure("apps:app", "--runtime auto", service=refusal)
    restart_under_load(service, place, 2, report)
    told = warnings(service)
    assert len(told) == 3, told
    for line in told:
        assert line.startswith("serving on epoll, without io_uring: "), line
        assert PROBLEMS[refusal] in line
        for place_of_the_fix in ("hint: ", "SystemCallFilter="):
            assert place_of_the_fix in line
    assert "the runtime: epoll" in service.log()


@EACH_REFUSAL
@pytest.mark.parametrize("runtime", ["uring", "monoio", "tokio-uring"])
def test_a_runtime_that_was_asked_for_is_never_another(
    service: Service, refusal: str, runtime: str
) -> None:
    service.configure("apps:app", f"--runtime {runtime}", service=f"{refusal}Restart=no\n")
    service.systemctl("start", service.name, check=False)
    assert service.show("Result", "ExecMainCode", "ExecMainStatus") == {
        "Result": "exit-code",
        "ExecMainCode": "1",
        "ExecMainStatus": "1",
    }
    log = service.log()
    assert f"error: --runtime {runtime} cannot be used: " in log
    assert PROBLEMS[refusal] in log and "--runtime epoll needs no io_uring" in log
    assert "Traceback" not in log


@pytest.mark.io_uring
def test_an_unprivileged_service_needs_little_locked_memory(
    service: Service, place: Place, report: Callable[[str], None]
) -> None:
    """64 KiB was the kernel's own limit for long, and is that of many containers."""
    service.configure("apps:app", "--runtime auto", service="LimitMEMLOCK=64K\n")
    restart_under_load(service, place, 2, report)
    assert "the runtime: uring" in service.log()
    assert not warnings(service)


@pytest.mark.io_uring
def test_a_service_with_too_little_locked_memory_serves_on_epoll(
    service: Service, place: Place
) -> None:
    service.configure("apps:app", "--runtime auto", service="LimitMEMLOCK=16K\n")
    assert place.get("/echo?id=first")["id"] == "first"
    (told,) = warnings(service)
    assert "serving on epoll, without io_uring: " in told and "LimitMEMLOCK=" in told
