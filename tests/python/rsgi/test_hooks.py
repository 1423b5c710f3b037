"""`__rsgi_init__` before the first request, `__rsgi_del__` after the last."""

import signal
import time

import pytest
from asgi.client import get
from asgi.process import StartServer

pytestmark = pytest.mark.any_loop


def test_the_hooks_come_in_order(start_server: StartServer) -> None:
    server = start_server(app="rsgi.apps:hooked")
    server.out.wait_for("init")
    with server.connect() as client:
        client.send(get("/slow"))
        server.out.wait_for("began")
        server.signal(signal.SIGTERM)
        assert client.read().body == b"hooked"
    assert server.wait() == 0
    notes = server.out.text.splitlines()
    assert notes == ["note: init awaited", "note: began", "note: del awaited"]


def test_an_init_that_fails_ends_the_process(start_server: StartServer) -> None:
    server = start_server(app="rsgi.apps:fails_to_start", ready=False)
    assert server.wait() == 4
    log = server.log.text
    assert log.count("Traceback (most recent call last)") == 1 and "lifespan.py" not in log
    assert "the application's __rsgi_init__ failed" in log and "no database" in log
    assert "nothing was accepted" in log and "listening" not in log
    assert "del" not in server.out.text


def test_sys_exit_in_init_is_the_exit_code(start_server: StartServer) -> None:
    server = start_server(app="rsgi.apps:exits_at_start", ready=False)
    assert server.wait() == 9
    assert "nothing was accepted" in server.log.text


def test_a_del_that_fails_is_logged(start_server: StartServer) -> None:
    server = start_server(app="rsgi.apps:fails_to_stop")
    assert server.ask("/") == "hooked"
    server.stop()
    assert "the application's __rsgi_del__ failed" in server.log.text
    assert "RuntimeError: cannot close" in server.log.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_being_told_to_stop_while_it_starts(
    start_server: StartServer, number: signal.Signals
) -> None:
    server = start_server(app="rsgi.apps:waits", ready=False)
    server.out.wait_for("starting")
    began = time.monotonic()
    server.signal(number)
    assert server.wait() == 0
    assert time.monotonic() - began < 5
    assert "listening" not in server.log.text
    assert "del awaited" in server.out.text
