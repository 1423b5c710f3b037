"""Signals, and the drain: what a client sees while the server stops.

Each test has a server of its own; none of them needs systemd.
"""

import signal
import time

import pytest

from asgi.client import get
from asgi.process import StartServer


def test_a_request_under_way_is_finished(start_server: StartServer) -> None:
    server = start_server()
    with server.connect() as client:
        client.send(get("/slow?seconds=0.5"))
        server.out.wait_for("slow: began")
        server.signal(signal.SIGTERM)
        response = client.read()
        assert (response.status, response.closes) == (200, True)
        client.expect_end()
    assert server.wait() == 0
    server.log.wait_for("INFO SIGTERM: stopping")
    server.log.wait_for("INFO draining: 1 requests under way, at most 30 s")
    server.log.wait_for("INFO stopped")


def test_an_answer_that_is_being_sent_is_sent_to_its_end(start_server: StartServer) -> None:
    server = start_server()
    with server.connect() as client:
        client.send(get("/stream?count=5&pause=0.1"))
        client.read_head()
        server.signal(signal.SIGTERM)
        body = client.read_to_end()
    assert body.count(b"piece") == 5 and body.endswith(b"\r\n0\r\n\r\n")
    assert server.wait() == 0


def test_an_upload_under_way_is_finished(start_server: StartServer) -> None:
    server = start_server()
    with server.connect() as client:
        client.send(get("/echo", "Content-Length: 6", method="POST") + b"one")
        assert server.ask("/hello") == "hello"
        server.signal(signal.SIGTERM)
        server.log.wait_for("draining: 1 ")
        client.send(b"two")
        response = client.read()
        assert (response.body, response.closes) == (b"/echo onetwo", True)
    assert server.wait() == 0


def test_pipelined_requests_after_the_one_under_way(start_server: StartServer) -> None:
    """They are unanswered, behind an answer that says so: the client asks again elsewhere."""
    server = start_server()
    with server.connect() as client:
        client.send(get("/slow?seconds=0.3") + get("/hello"))
        server.out.wait_for("slow: began")
        server.signal(signal.SIGTERM)
        assert client.read().closes
        client.expect_end()
    assert server.wait() == 0


def test_an_idle_connection_is_usable_as_long_as_requests_are_under_way(
    start_server: StartServer,
) -> None:
    server = start_server()
    idle, asking, busy = (server.connect() for _ in range(3))
    for client in (idle, asking):
        assert not client.ask("/hello").closes
    busy.send(get("/slow?seconds=1"))
    server.out.wait_for("slow: began")
    server.signal(signal.SIGTERM)
    server.log.wait_for("draining: 1 ")
    idle.expect_silence(0.5)
    response = asking.ask("/hello")
    assert (response.body, response.closes) == (b"hello", True)
    asking.expect_end()
    assert busy.read().closes
    began = time.monotonic()
    idle.expect_end()
    assert time.monotonic() - began < 1
    assert server.wait(3) == 0


def test_idle_connections_alone_hold_nothing_up(start_server: StartServer) -> None:
    server = start_server()
    clients = [server.connect() for _ in range(20)]
    for client in clients:
        client.ask("/hello")
    began = time.monotonic()
    server.signal(signal.SIGTERM)
    for client in clients:
        client.expect_end()
    assert server.wait() == 0
    assert time.monotonic() - began < 1.5


def test_who_connected_before_is_answered_after(start_server: StartServer) -> None:
    """A connection that sent nothing yet has a second for it."""
    server = start_server()
    early, silent = server.connect(), server.connect()
    assert server.ask("/hello") == "hello"
    server.signal(signal.SIGTERM)
    server.log.wait_for("draining: 0 ")
    response = early.ask("/hello")
    assert (response.body, response.closes) == (b"hello", True)
    silent.expect_end()
    assert server.wait(3) == 0


def test_who_is_in_the_queue_is_answered_after(start_server: StartServer) -> None:
    """Nobody has accepted these; our own socket ends with us, so they are taken first."""
    server = start_server("--backpressure", "1")
    busy = server.connect()
    busy.send(get("/slow?seconds=0.5"))
    server.out.wait_for("slow: began")
    clients = [server.connect() for _ in range(10)]
    for number, client in enumerate(clients):
        client.send(get(f"/echo/{number}"))
    server.signal(signal.SIGTERM)
    assert busy.read().status == 200
    for number, client in enumerate(clients):
        response = client.read()
        assert (response.body, response.closes) == (f"/echo/{number} ".encode(), True)
    assert server.wait() == 0


def test_who_comes_later_is_refused(start_server: StartServer) -> None:
    server = start_server()
    with server.connect() as busy:
        busy.send(get("/slow?seconds=0.5"))
        server.out.wait_for("slow: began")
        server.signal(signal.SIGTERM)
        busy.read()
    assert server.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        server.connect()


@pytest.mark.parametrize("target", ["/stubborn", "/slow?seconds=60"])
def test_a_second_sigint_ends_at_once(start_server: StartServer, target: str) -> None:
    server = start_server()
    client = server.connect()
    client.send(get(target))
    server.out.wait_for("note: ")
    server.signal(signal.SIGINT)
    server.log.wait_for("SIGINT: stopping")
    server.log.wait_for("draining: 1 ")
    began = time.monotonic()
    server.signal(signal.SIGINT)
    assert server.wait(3) == 130
    assert time.monotonic() - began < 1
    server.log.wait_for("second SIGINT: ending at once")


def test_a_second_sigterm_changes_nothing(start_server: StartServer) -> None:
    server = start_server()
    with server.connect() as client:
        client.send(get("/slow?seconds=0.5"))
        server.out.wait_for("slow: began")
        for _ in range(3):
            server.signal(signal.SIGTERM)
        assert client.read().status == 200
    assert server.wait() == 0


def test_sighup_is_survived(start_server: StartServer) -> None:
    server = start_server()
    server.signal(signal.SIGHUP)
    server.log.wait_for("WARNING SIGHUP: reload is not there yet")
    assert server.ask("/hello") == "hello"


def test_a_thread_that_does_not_end_is_ended(start_server: StartServer) -> None:
    """Python itself would wait for it for ever; it has some seconds after everything else."""
    server = start_server("--graceful-timeout", "0")
    assert server.ask("/thread") == "left"
    began = time.monotonic()
    server.signal(signal.SIGTERM)
    assert server.wait(15) == 0
    assert 1 < time.monotonic() - began < 7
    server.log.wait_for("ERROR the time to stop is over, and threads still run: left-behind")
