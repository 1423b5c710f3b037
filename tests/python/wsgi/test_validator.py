"""`wsgiref.validate.validator` finds nothing: it checks the server as well as the application."""

from collections.abc import Iterator

import pytest
from asgi.client import Client, Cut, get
from asgi.process import Server
from asgi.test_bodies import chunked, post


@pytest.fixture(params=["0", "1", "4"], scope="module")
def validated(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server whose application is under the validator."""
    with Server("--blocking-threads", request.param, app="wsgi.apps:validated") as server:
        server.wait_until_ready()
        yield server
        server.stop()
        assert "Assertion" not in server.log.text.replace(EXPECTED, ""), server.log.text
        assert "Warning" not in server.log.text, server.log.text


EXPECTED = "AssertionError: start_response was called a second time without exc_info"


def test_answers(validated: Server) -> None:
    targets = [
        "/hello",
        "/environ?x=%20",
        "/stream",
        "/stream?length=30",
        "/stream?pieces=0",
        "/sequence?sizes=1,2",
        "/written",
        "/written?returned=1",
        "/by_file?size=5000",
        "/excused",
        "/errors",
        "/thread",
    ]
    with validated.connect() as client:
        for target in targets:
            expected = 503 if target == "/excused" else 200
            assert client.ask(target).status == expected, target
            assert client.ask(target, method="HEAD").status == expected, target


def test_bodies(validated: Server) -> None:
    # The validator allows read only with a size.
    with validated.connect() as client:
        for target in ("/checksum", "/echo", "/unread", "/iterate"):
            for request in (
                post(target, b"a\nb", "Content-Type: text/x"),
                chunked(target, [b"a", b"\nb"]),
                post(target, b""),
            ):
                client.send(request)
                assert client.read().status == 200, (target, request)


def test_failures(validated: Server) -> None:
    for how in ("before", "after_start", "first_piece"):
        with validated.connect() as client:
            assert client.ask(f"/fails?how={how}").status == 500
    with validated.connect() as client, pytest.raises((ConnectionResetError, Cut)):
        client.ask("/fails?how=second_piece")


def test_clients_that_leave(validated: Server) -> None:
    for leave in (Client.close, Client.reset):
        client = validated.connect()
        client.send(get("/stream?pieces=1000&size=65536"))
        client.receive(1000)
        leave(client)
    assert validated.ask("/hello") == "Hello, world!"
