"""How WebSockets end, and what they may cost meanwhile: closes from both sides, failures, drains,
clients that vanish or do not read, pings, and the access log.
"""

import signal
import time
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from asgi import frames
from asgi.client import Cut, get
from asgi.frames import BINARY, CLOSE, PING, PONG, TEXT, frame, read_frame
from asgi.process import Server, StartServer
from asgi.test_websocket import APP, open_client
from asgi.test_websocket import server as server


def end_of(server: Server, target: str) -> tuple[int, str]:
    """The code and reason that a client gets behind the message `before the end`."""
    with open_client(server, target) as client:
        assert client.recv() == "before the end"
        with pytest.raises(ConnectionClosed) as raised:
            client.recv()
    assert raised.value.rcvd is not None
    return raised.value.rcvd.code, raised.value.rcvd.reason


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/leave/return", (1000, "")),
        ("/leave/close", (1000, "")),
        ("/leave/close?code=3001&reason=bye", (3001, "bye")),
        ("/leave/raise", (1011, "")),
        ("/leave/cancelled", (1011, "")),
        ("/leave/raise-after-close", (1000, "")),
    ],
)
def test_ends_by_the_application(server: Server, target: str, expected: tuple[int, str]) -> None:
    mark, told = server.log.mark(), server.out.mark()
    assert end_of(server, target) == expected
    if "close?" in target:
        server.out.wait_for(r"told .*'code': 3001, 'reason': 'bye'", since=told)
    if target == "/leave/raise":
        server.log.wait_for("RuntimeError: after the accept$", since=mark)
        text = (
            "WebSocket /leave/raise: the application raised RuntimeError; its WebSocket was closed"
        )
        assert text in server.log.since(mark)
    if target == "/leave/return":
        assert "ERROR" not in server.log.since(mark)


@pytest.mark.parametrize("way", ["raise", "return"])
def test_no_answer_to_the_handshake_is_500(server: Server, way: str) -> None:
    mark = server.log.mark()
    with pytest.raises(InvalidStatus) as raised:
        open_client(server, f"/deny/{way}")
    assert raised.value.response.status_code == 500
    server.log.wait_for(f"ERROR WebSocket /deny/{way}: the application .* got a 500", since=mark)


def test_raising_within_a_denial_resets(server: Server) -> None:
    mark = server.log.mark()
    with server.connect() as client:
        client.send(get("/deny/half", *frames.HEADERS))
        with pytest.raises((ConnectionResetError, Cut)):
            client.read()
    server.log.wait_for("its answer had begun, so the connection was reset", since=mark)


@pytest.mark.parametrize(
    ("payload", "told"),
    [(b"", "1005 ''"), (b"\x03\xe9", "1001 ''"), (b"\x0f\xa0so long", "4000 'so long'")],
)
def test_close_by_the_client(server: Server, payload: bytes, told: str) -> None:
    """Messages before it are heard; what is sent after it is an OSError."""
    mark = server.out.mark()
    with server.connect() as client:
        frames.open_websocket(client, "/wait")
        server.out.wait_for("note: waiting", since=mark)
        client.send(frame(TEXT, b"last words") + frame(CLOSE, payload))
        assert read_frame(client) == (True, CLOSE, payload[:2])
        client.expect_end()
    server.out.wait_for("note: message 'last words'", since=mark)
    server.out.wait_for(f"note: disconnect {told}$", since=mark)
    for kind in ("send", "close"):
        told = f"websocket.{kind}: ClientDisconnected True .*the client has disconnected"
        server.out.wait_for(told, since=mark)


@pytest.mark.parametrize("way", ["reset", "close"])
def test_a_client_that_vanishes(server: Server, way: str) -> None:
    mark = server.out.mark()
    client = server.connect()
    frames.open_websocket(client, "/wait")
    server.out.wait_for("note: waiting", since=mark)
    client.send(frame(TEXT, b"heard"))
    server.out.wait_for("note: message 'heard'", since=mark)
    getattr(client, way)()
    server.out.wait_for("note: disconnect 1006 ''", since=mark)


def test_a_client_that_vanishes_before_the_accept(start_server: StartServer) -> None:
    server = start_server(app=APP)
    with server.connect() as client:
        client.send(get("/unaccepted", *frames.HEADERS))
        server.out.wait_for("note: undecided")
        client.reset()
    server.out.wait_for("note: disconnect 1006")
    server.out.wait_for("note: accept: ClientDisconnected")
    assert server.get("/inside").json() == {"websockets": 0, "requests": 1}
    assert "Traceback" not in server.log.text


def test_one_task_receives_while_another_closes(server: Server) -> None:
    mark = server.out.mark()
    with open_client(server, "/both") as client, pytest.raises(ConnectionClosed):
        client.recv()
    server.out.wait_for(r"receiver: .*'code': 4001, 'reason': 'enough'", since=mark)


def test_a_drain_says_service_restart(start_server: StartServer) -> None:
    server = start_server(app=APP)
    with server.connect() as client:
        frames.open_websocket(client, "/wait")
        server.out.wait_for("note: waiting")
        server.signal(signal.SIGTERM)
        assert read_frame(client).code == 1012
        server.out.wait_for("note: disconnect 1012 'service restart'")
        client.send(frame(CLOSE, b"\x03\xf4"))
        client.expect_end()
    # The task may clean up; it is waited for.
    server.out.wait_for("note: cleaned up")
    assert server.wait() == 0


def test_a_drain_does_not_wait_for_ever(start_server: StartServer) -> None:
    server = start_server("--graceful-timeout=0.5", app=APP)
    with server.connect() as client:
        frames.open_websocket(client, "/hang")
        server.out.wait_for("note: hanging")
        server.signal(signal.SIGTERM)
        assert read_frame(client).code == 1012
        server.out.wait_for("note: cancelled")
    assert server.wait() == 0
    server.log.wait_for("--graceful-timeout is over")


def test_a_client_that_does_not_read_costs_little(server: Server) -> None:
    """The application waits in `send`; of 1 GiB only what sockets hold is ever in memory."""
    mark = server.out.mark()
    with server.connect() as warm:
        frames.open_websocket(warm, "/push")
        read_frame(warm)
    server.out.wait_for("push ended: ClientDisconnected", since=mark)
    before, mark = server.status("VmRSS"), server.out.mark()
    with server.connect(receive_buffer=65536) as client:
        frames.open_websocket(client, "/push")
        count = int(server.out.wait_for(r"note: waits after (\d+)", since=mark)[1])
        assert count < 200, "the kernel's send buffer is at most 4 MiB, ours 64 KiB and a message"
        assert server.status("VmRSS") - before < 1024
        for _ in range(count):
            assert read_frame(client) == (True, BINARY, bytes(65536))
        client.reset()
    server.out.wait_for("push ended: ClientDisconnected", since=mark)


def test_an_application_that_does_not_receive_holds_its_client(server: Server) -> None:
    """The client is held back by TCP; once the application takes them all messages are there."""
    mark = server.out.mark()
    before = server.status("VmRSS")
    with server.connect() as client:
        frames.open_websocket(client, "/gated?key=slow")
        server.out.wait_for("note: gated", since=mark)
        client.socket.setblocking(False)
        message = frame(BINARY, bytes(8000))
        rest, messages, until = b"", 0, time.monotonic() + 0.5
        while time.monotonic() < until and messages < 20_000:
            if not rest:
                rest, messages = message, messages + 1
            try:
                rest = rest[client.socket.send(rest) :]
                until = time.monotonic() + 0.5
            except BlockingIOError:
                continue
        assert messages < 20_000, "160 MB were taken from a client that nobody listens to"
        assert server.status("VmRSS") - before < 1024
        client.socket.settimeout(10)
        assert server.ask("/open?key=slow") == "open"
        client.send(rest + frame(CLOSE))
        server.out.wait_for(f"took {messages} messages, {messages * 8000} bytes", since=mark)


def test_pings_and_a_client_that_answers(start_server: StartServer) -> None:
    server = start_server("--ws-ping-interval=0.1", "--ws-ping-timeout=0.3", app=APP)
    with server.connect() as client:
        frames.open_websocket(client, "/echo")
        for _ in range(6):
            fin, opcode, payload = read_frame(client)
            assert (fin, opcode) == (True, PING)
            client.send(frame(PONG, payload))
        client.send(frame(TEXT, b"alive"))
        assert TEXT in (read_frame(client).opcode, read_frame(client).opcode)


def test_no_pong_cuts(start_server: StartServer) -> None:
    server = start_server("--ws-ping-interval=0.1", "--ws-ping-timeout=0.1", app=APP)
    with server.connect() as client:
        frames.open_websocket(client, "/wait")
        assert read_frame(client).opcode == PING
        with pytest.raises((ConnectionResetError, Cut)):
            read_frame(client)
    server.out.wait_for("note: disconnect 1006 ''")


def test_no_limit_for_pongs_and_no_pings(start_server: StartServer) -> None:
    server = start_server("--ws-ping-interval=0.1", "--ws-ping-timeout=0", app=APP)
    with server.connect() as client:
        frames.open_websocket(client, "/echo")
        for _ in range(5):
            assert read_frame(client).opcode == PING
    server = start_server("--ws-ping-interval=0", app=APP)
    with server.connect() as client:
        frames.open_websocket(client, "/echo")
        client.expect_silence(0.5)


@pytest.fixture
def logged() -> Iterator[Server]:
    """A server with an access log of status, path and bytes of the body."""
    with Server("--access-log", "--access-log-fmt=%(status)d %(path)s", app=APP) as server:
        server.wait_until_ready()
        yield server
        server.stop()


def test_access_log_has_one_line_for_each(logged: Server) -> None:
    """It comes when the WebSocket has ended, and for those that were never one."""
    with open_client(logged, "/echo") as client:
        client.send("x")
        client.recv()
        assert " /echo" not in logged.out.text
    logged.out.wait_for("^101 /echo$")
    for path, status in (("/deny/close", 403), ("/deny/response", 401), ("/deny/return", 500)):
        with pytest.raises(InvalidStatus):
            open_client(logged, path)
        logged.out.wait_for(f"^{status} {path}$")
    with logged.connect() as raw:
        assert raw.ask("/echo/refused", "Connection: Upgrade", "Upgrade: websocket").status == 426
    logged.out.wait_for("^426 /echo/refused$")
    end_of(logged, "/leave/raise")
    logged.out.wait_for("^101 /leave/raise$")
    with logged.connect() as raw:
        frames.open_websocket(raw, "/wait")
        raw.reset()
    logged.out.wait_for("^101 /wait$")
    lines = [line for line in logged.out.text.splitlines() if "note:" not in line]
    assert len(lines) == 7, lines
