"""WebSockets of RSGI: the protocol object and the transport. What the server does with frames,
pings and drains is the same as for ASGI, and tested there.
"""

import signal
from collections.abc import Iterator

import pytest
from asgi import frames
from asgi.frames import CLOSE, TEXT, frame, read_frame
from asgi.process import Server, StartServer
from asgi.test_websocket import open_client
from websockets.exceptions import ConnectionClosed, InvalidStatus

APP = "rsgi.websocket_app:app"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with the WebSocket application."""
    with Server(app=APP) as server:
        server.wait_until_ready()
        yield server
        server.stop()


def test_scope(server: Server) -> None:
    with open_client(server, "/scope") as client:
        assert client.recv() == "ws GET websocket"
    assert server.get("/scope").text == "http"


@pytest.mark.parametrize("data", ["", "\N{SNOWMAN}", b"\xff", bytes(300), "ab" * 5_000_000])
def test_echo(server: Server, data: str | bytes) -> None:
    mark = server.out.mark()
    with open_client(server, "/echo") as client:
        for _ in range(2):
            client.send(data)
            found = client.recv()
            assert found == data and type(found) is type(data)
    server.out.wait_for("note: closed", since=mark + 1)


@pytest.mark.parametrize(("told", "status"), [(0, 403), (200, 403), (404, 404), (503, 503)])
def test_refusals(server: Server, told: int, status: int) -> None:
    with pytest.raises(InvalidStatus) as raised:
        open_client(server, f"/refuse/{told}")
    assert raised.value.response.status_code == status


def test_no_answer_is_500(server: Server) -> None:
    mark = server.log.mark()
    with pytest.raises(InvalidStatus) as raised:
        open_client(server, "/silent")
    assert raised.value.response.status_code == 500
    server.log.wait_for("ERROR WebSocket /silent: the application returned without", since=mark)


@pytest.mark.parametrize(
    ("way", "code"),
    [("0", 1000), ("200", 1000), ("500", 1011), ("4001", 4001), ("return", 1000), ("raise", 1011)],
)
def test_ends(server: Server, way: str, code: int) -> None:
    with open_client(server, f"/leave/{way}") as client, pytest.raises(ConnectionClosed) as raised:
        client.recv()
    assert raised.value.rcvd is not None and raised.value.rcvd.code == code


def test_misuse(server: Server) -> None:
    mark = server.out.mark()
    with server.connect() as client:
        frames.open_websocket(client, "/misuse")
        assert read_frame(client) == (True, TEXT, b"goes on")
        assert read_frame(client).code == 4000
        client.send(frame(CLOSE))
    server.out.wait_for("note: closed", since=mark)
    text = server.out.since(mark)
    assert "accept: this WebSocket was accepted or closed before" in text
    assert "send: send_bytes: data must be bytes, got str" in text
    assert "send: send_str: data must be str, got bytes" in text


def test_a_client_that_does_not_read_costs_little(server: Server) -> None:
    mark = server.out.mark()
    with server.connect() as warm:
        frames.open_websocket(warm, "/push")
        read_frame(warm)
    server.out.wait_for("push ended", since=mark)
    before, mark = server.status("VmRSS"), server.out.mark()
    with server.connect(receive_buffer=65536) as client:
        frames.open_websocket(client, "/push")
        assert int(server.out.wait_for(r"note: waits after (\d+)", since=mark)[1]) < 200
        assert server.status("VmRSS") - before < 1024
        client.reset()
    server.out.wait_for("push ended", since=mark)
    assert "Traceback" not in server.log.text.split("RuntimeError: after the accept")[-1]


def test_a_drain(start_server: StartServer) -> None:
    server = start_server(app=APP)
    with server.connect() as client:
        frames.open_websocket(client, "/echo")
        client.send(frame(TEXT, b"x"))
        assert read_frame(client).payload == b"x"
        server.signal(signal.SIGTERM)
        assert read_frame(client).code == 1012
        client.send(frame(CLOSE, b"\x03\xf4"))
        client.expect_end()
    assert server.wait() == 0
