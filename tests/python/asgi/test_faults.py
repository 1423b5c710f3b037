"""Applications that fail: what the client sees, what the log says, and that the next is served."""

import signal
import sys
import time

import pytest

from asgi.client import get
from asgi.process import Lines, Server, StartServer


def traceback_in(log: Lines, mark: int, last: str) -> str:
    """The log since `mark`, once the line `last` is there; exactly one traceback."""
    log.wait_for(last, since=mark)
    text = log.since(mark)
    assert text.count("Traceback (most recent call last)") == 1, text
    return text


@pytest.mark.parametrize(
    ("stage", "said"),
    [("before", "before the start"), ("between", "between start and body")],
)
def test_raising_before_a_byte_was_given_out_is_500(server: Server, stage: str, said: str) -> None:
    mark = server.log.mark()
    with server.connect() as client:
        response = client.ask(f"/fault/{stage}")
        assert (response.status, response.body) == (500, b"Internal Server Error\n")
        assert response.closes
        client.expect_end()
    text = traceback_in(server.log, mark, f"RuntimeError: {said}$")
    assert f"ERROR GET /fault/{stage}: the application raised RuntimeError; the client got" in text
    files = [line.split('"')[1] for line in text.splitlines() if line.startswith("  File ")]
    assert files and all(file.endswith("asgi/apps.py") for file in files), text
    assert server.ask("/hello") == "hello"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("stage", ["during", "during-length"])
def test_raising_during_the_body_resets(server: Server, stage: str, version: str) -> None:
    mark = server.log.mark()
    with server.connect() as client:
        client.send(get(f"/fault/{stage}", version=version))
        with pytest.raises(ConnectionResetError):
            client.read()
    text = traceback_in(server.log, mark, "RuntimeError: during the body$")
    assert "its answer had begun, so the connection was reset" in text
    assert server.ask("/hello") == "hello"


def test_raising_after_the_end_is_only_logged(server: Server) -> None:
    mark = server.log.mark()
    with server.connect() as client:
        for _ in range(2):
            assert client.ask("/fault/after").body == b"whole"
        assert client.ask("/hello").body == b"hello"
    server.log.wait_for("RuntimeError: after the end$", since=mark)
    assert "the client had its answer" in server.log.since(mark)


def test_raising_in_a_task_group_shows_every_exception(server: Server) -> None:
    mark = server.log.mark()
    with server.connect() as client:
        assert client.ask("/fault/group").status == 500
    server.log.wait_for("RuntimeError: in a group$", since=mark)


def test_raising_what_is_no_exception(server: Server) -> None:
    """It is the request's trouble alone, and the traceback is in the server's own log, once."""
    mark = server.log.mark()
    with server.connect() as client:
        assert client.ask("/fault/base").status == 500
    text = traceback_in(server.log, mark, "OwnBaseException: no Exception$")
    assert "ERROR GET /fault/base: the application raised OwnBaseException; the client" in text
    # Garbage collection would be when asyncio complains of an exception that nobody looked at.
    server.ask("/inside")
    assert "never retrieved" not in server.log.since(mark)


@pytest.mark.parametrize("target", ["/fault/cancelled", "/cancel_me"])
def test_being_cancelled_is_500(server: Server, target: str) -> None:
    mark = server.log.mark()
    with server.connect() as client:
        assert client.ask(target).status == 500
    text = traceback_in(server.log, mark, "CancelledError$")
    assert f"ERROR GET {target}: the application raised CancelledError; the client got" in text
    assert server.ask("/hello") == "hello"


def test_being_cancelled_before_the_first_step(server: Server) -> None:
    """Without eager tasks (before 3.12), when one request cancels others that came with it."""
    marks = server.out.mark(), server.log.mark()
    clients = [server.connect() for _ in range(8)]
    for client in clients:
        client.ask("/hello")
    with server.connect() as blocking:
        blocking.send(get("/block"))
        server.out.wait_for("blocking", since=marks[0])
        for number, client in enumerate(clients):
            client.send(get("/slow?seconds=0.01" if number else "/cancel_others"))
        statuses = [client.read().status for client in clients]
    assert statuses[0] == 200
    if sys.version_info < (3, 12):
        assert statuses[1:] == [500] * 7
        text = server.log.since(marks[1])
        assert text.count("raised CancelledError; the client got a 500") == 7
    else:
        assert statuses[1:] == [200] * 7
    for client in clients:
        client.close()
    assert server.get("/inside").json()["requests"] == 1


@pytest.mark.parametrize("later", ["", "?later=1"])
def test_sys_exit_stops_the_server_with_its_code(start_server: StartServer, later: str) -> None:
    server = start_server()
    with server.connect() as client:
        assert client.ask(f"/exits{later}").status == 500
    assert server.wait() == 7
    server.log.wait_for(r"the application called sys\.exit\(7\): stopping")


def test_an_application_that_never_reads_or_answers_is_left_in_peace(server: Server) -> None:
    marks = server.out.mark(), server.log.mark()
    client = server.connect()
    client.send(get("/disconnect", "Content-Length: 1000000", method="POST") + bytes(100_000))
    server.out.wait_for("disconnect: waiting", since=marks[0])
    assert server.ask("/hello") == "hello"
    client.reset()
    server.out.wait_for("disconnect: {'type': 'http.disconnect'}", since=marks[0])
    # The client has left: nobody misses an answer.
    assert server.ask("/hello") == "hello"
    assert "ERROR" not in server.log.since(marks[1])


def test_send_after_the_client_left_raises_an_oserror(server: Server) -> None:
    mark = server.out.mark()
    client = server.connect()
    client.send(get("/send_late?catch=1"))
    client.read_head()
    client.reset()
    server.out.wait_for("send raised ClientDisconnected, an OSError: .", since=mark)
    server.out.wait_for("send_late: over", since=mark)


def test_a_send_that_waits_is_woken_when_the_client_leaves(server: Server) -> None:
    mark = server.out.mark()
    client = server.connect()
    client.send(get("/send_blocked"))
    client.read_head()
    server.ask("/hello")
    client.reset()
    server.out.wait_for("blocked send raised ClientDisconnected", since=mark, seconds=1)


@pytest.mark.parametrize("target", ["/send_late", "/send_late?group=alone"])
def test_not_catching_that_is_no_error(start_server: StartServer, target: str) -> None:
    server = start_server("--log-level", "debug")
    client = server.connect()
    client.send(get(target))
    client.read_head()
    client.reset()
    server.log.wait_for("DEBUG GET /send_late: the client left before its answer was complete")
    assert server.ask("/hello") == "hello"
    assert "Traceback" not in server.log.text


def test_an_error_beside_that_is_one(server: Server) -> None:
    mark = server.log.mark()
    with server.connect() as client:
        client.send(get("/send_late?group=mixed"))
        client.read_head()
    server.log.wait_for("ERROR GET /send_late: the application raised LookupError", since=mark)
    server.log.wait_for("ValueError: another", since=mark)


def test_raising_something_else_after_the_client_left_does_not_claim_an_answer(
    server: Server,
) -> None:
    marks = server.out.mark(), server.log.mark()
    client = server.connect()
    client.send(get("/raise_when_left", "Content-Length: 10", method="POST"))
    server.out.wait_for("raise_when_left: waiting", since=marks[0])
    client.reset()
    line = server.log.wait_for("POST /raise_when_left: .*", since=marks[1])[0]
    assert line.endswith(
        "the application raised RuntimeError; nobody waited for its answer any more"
    )


def test_a_drain_cuts_who_never_answers(start_server: StartServer) -> None:
    server = start_server("--graceful-timeout", "0.3", ready=True)
    clients = [server.connect() for _ in range(3)]
    for client in clients:
        client.send(get("/never"))
    idle = server.connect()
    assert idle.ask("/hello").body == b"hello"
    for _ in clients:
        server.out.wait_for("never: waiting")
    assert server.get("/inside").json()["requests"] == 4
    began = time.monotonic()
    server.signal(signal.SIGTERM)
    for client in clients:
        with pytest.raises(ConnectionResetError):
            client.read()
    assert server.wait() == 0
    assert 0.25 < time.monotonic() - began < 2
    assert server.out.text.count("never: cancelled") == 3
    server.log.wait_for(
        "WARNING --graceful-timeout is over: cut 3 connections with a request under way"
    )
    assert "ERROR" not in server.log.text and "Traceback" not in server.log.text


def test_a_drain_ends_though_a_request_does_not_let_itself_be_cancelled(
    start_server: StartServer,
) -> None:
    server = start_server("--graceful-timeout", "0")
    client = server.connect()
    client.send(get("/stubborn"))
    server.out.wait_for("stubborn: waiting")
    began = time.monotonic()
    server.signal(signal.SIGTERM)
    with pytest.raises(ConnectionResetError):
        client.read()
    assert server.wait() == 0
    assert time.monotonic() - began < 4
    server.out.wait_for("stubborn: not cancelled")
