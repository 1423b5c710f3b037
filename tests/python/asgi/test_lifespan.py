"""The lifespan protocol: https://asgi.readthedocs.io/en/latest/specs/lifespan.html."""

import signal
import time

import pytest

from asgi.process import StartServer


def application(name: str) -> str:
    return f"asgi.apps:{name}"


def test_startup_comes_before_the_first_request_and_shutdown_after_the_last(
    start_server: StartServer,
) -> None:
    server = start_server(app=application("ordered"))
    # It was written before the log said "listening", but comes through another pipe.
    server.out.wait_for("note: started")
    notes = server.out.text.splitlines()
    assert notes == [
        "note: lifespan scope: {'type': 'lifespan', 'asgi': {'version': '3.0', "
        "'spec_version': '2.0'}, 'state': {}}",
        "note: received: {'type': 'lifespan.startup'}",
        "note: started",
    ]
    with server.connect() as client:
        client.send(b"GET /slow?seconds=0.3 HTTP/1.1\r\nHost: test\r\n\r\n")
        server.out.wait_for("slow: began")
        server.signal(signal.SIGTERM)
        assert client.read().status == 200
    assert server.wait() == 0
    assert server.out.text.splitlines()[3:] == [
        "note: slow: began",
        "note: received: {'type': 'lifespan.shutdown'}",
        "note: stopped",
    ]


@pytest.mark.parametrize("name", ["unsupported", "returns"])
def test_an_application_without_lifespan_is_served(start_server: StartServer, name: str) -> None:
    server = start_server(app=application(name))
    assert server.ask("/hello") == "hello"
    server.stop()
    assert "Traceback" not in server.log.text and "ERROR" not in server.log.text


def test_asginl_never_calls_it(start_server: StartServer) -> None:
    server = start_server("--interface", "asginl", app=application("ordered"))
    assert server.ask("/hello") == "hello"
    server.stop()
    assert server.out.text == ""


def test_raising_after_taking_the_startup_ends_the_process(start_server: StartServer) -> None:
    server = start_server(app=application("raises_in_startup"), ready=False)
    assert server.wait() == 4
    log = server.log.text
    assert log.count("Traceback (most recent call last)") == 1
    assert "RuntimeError: no database" in log
    files = [line.split('"')[1] for line in log.splitlines() if line.startswith("  File ")]
    assert files and all(file.endswith("asgi/apps.py") for file in files), log
    assert "the application could not start; nothing was accepted" in log
    assert "listening" not in log


def test_startup_failed(start_server: StartServer) -> None:
    server = start_server(app=application("startup_failed"), ready=False)
    assert server.wait() == 4
    server.log.wait_for("ERROR the application's startup failed: no database: refused$")
    assert "Traceback" not in server.log.text and "listening" not in server.log.text


def test_a_wrong_answer_names_what_was_expected(start_server: StartServer) -> None:
    server = start_server(app=application("wrong_answer"), ready=False)
    assert server.wait() == 4
    server.log.wait_for(
        "the application answered lifespan.startup with 'lifespan.start', expected "
        "lifespan.startup.complete"
    )


def test_an_answer_that_is_no_message(start_server: StartServer) -> None:
    server = start_server(app=application("no_dict_answer"), ready=False)
    assert server.wait() == 4
    server.log.wait_for("TypeError: send takes a dict, got str")


@pytest.mark.parametrize("name", ["startup_hangs", "startup_stubborn"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_ends_a_startup_that_hangs(
    start_server: StartServer, name: str, number: signal.Signals
) -> None:
    server = start_server("--graceful-timeout", "1", app=application(name), ready=False)
    server.out.wait_for("startup hangs")
    began = time.monotonic()
    server.signal(number)
    assert server.wait() == 0
    assert time.monotonic() - began < 3
    server.log.wait_for("told to stop before the application had started")
    assert "listening" not in server.log.text


def test_exit_in_startup(start_server: StartServer) -> None:
    server = start_server(app=application("exits_in_startup"), ready=False)
    assert server.wait() == 9
    assert "listening" not in server.log.text


def test_shutdown_failed_is_logged(start_server: StartServer) -> None:
    server = start_server(app=application("shutdown_failed"))
    server.stop()
    server.log.wait_for("ERROR the application's shutdown failed: the cache is not written$")


def test_raising_in_the_shutdown_is_logged(start_server: StartServer) -> None:
    server = start_server(app=application("raises_in_shutdown"))
    server.stop()
    server.log.wait_for("RuntimeError: in the shutdown$")


def test_a_shutdown_that_hangs_is_bounded(start_server: StartServer) -> None:
    server = start_server("--graceful-timeout", "0", app=application("shutdown_hangs"))
    began = time.monotonic()
    server.signal(signal.SIGTERM)
    server.out.wait_for("shutdown hangs")
    assert server.wait() == 0
    assert 4.5 < time.monotonic() - began < 8
    server.log.wait_for("ERROR the application's lifespan shutdown took more than 5 s")


def test_a_second_sigint_ends_a_shutdown_that_hangs(start_server: StartServer) -> None:
    server = start_server(app=application("shutdown_hangs"))
    server.signal(signal.SIGINT)
    server.out.wait_for("shutdown hangs")
    server.signal(signal.SIGINT)
    assert server.wait(2) == 130


def test_a_lifespan_that_ends_early_does_not_end_the_service(start_server: StartServer) -> None:
    server = start_server(app=application("dies_while_serving"))
    server.log.wait_for("RuntimeError: while serving$")
    assert server.ask("/hello") == "hello"
    server.stop()
