"""Starlette's and FastAPI's WebSockets, with a client library."""

import json
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from asgi.process import Server
from asgi.test_websocket import open_client


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with the application of both frameworks."""
    with Server(app="asgi.websocket_frameworks:app") as server:
        server.wait_until_ready()
        yield server
        server.stop()
        # That of test_starlette_ends_what_is_no_json, and no other.
        assert server.log.text.count(" ERROR ") == 1, server.log.text


def test_starlette(server: Server) -> None:
    mark = server.out.mark()
    with open_client(server, "/chat/blue", subprotocols=["chat"]) as client:
        assert client.subprotocol == "chat" and client.response is not None
        assert client.response.headers["x-room"] == "one"
        assert json.loads(client.recv()) == {"room": "blue"}
        client.send("snow \N{SNOWMAN}")
        assert client.recv() == "snow \N{SNOWMAN}".encode()
    server.out.wait_for("note: chat ended", since=mark)


def test_starlette_endpoint(server: Server) -> None:
    mark = server.out.mark()
    with open_client(server, "/endpoint") as client:
        client.send('{"a": 1}')
        assert json.loads(client.recv()) == [{"a": 1}, {"a": 1}]
        client.close(3000)
    server.out.wait_for("note: endpoint ended 3000", since=mark)


def test_starlette_ends_what_is_no_json(server: Server) -> None:
    with open_client(server, "/endpoint") as client:
        client.send("no JSON")
        with pytest.raises(ConnectionClosed) as raised:
            client.recv()
    assert raised.value.rcvd is not None and raised.value.rcvd.code == 1003
    server.log.wait_for("RuntimeError: Malformed JSON data received")


@pytest.mark.parametrize(
    ("target", "status"), [("/denied", 402), ("/nowhere", 403), ("/api/nowhere", 403)]
)
def test_denials(server: Server, target: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as raised:
        open_client(server, target)
    response = raised.value.response
    assert response.status_code == status
    if target == "/denied":
        assert (response.body, response.headers["x-why"]) == (b"members only", "money")


def test_fastapi(server: Server) -> None:
    mark = server.out.mark()
    with open_client(server, "/api/hello/Ada?token=Bob") as client:
        for word in ("hi", "bye"):
            client.send(word)
            assert client.recv() == f"{word} Ada from Bob"
        client.close(4001, "done")
    server.out.wait_for("note: hello ended 4001 'done'", since=mark)


@pytest.mark.parametrize(("query", "status"), [("", 403), ("?token=forbidden", 418)])
def test_fastapi_refuses(server: Server, query: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as raised:
        open_client(server, f"/api/hello/Ada{query}")
    assert raised.value.response.status_code == status


def test_fastapi_refuses_after_the_accept(server: Server) -> None:
    with open_client(server, "/api/late") as client, pytest.raises(ConnectionClosed) as raised:
        client.recv()
    assert raised.value.rcvd is not None
    assert (raised.value.rcvd.code, raised.value.rcvd.reason) == (4003, "changed my mind")
