"""WebSockets of an ASGI application: https://asgi.readthedocs.io/en/latest/specs/www.html#websocket

With the client library `websockets`, and by hand where that would not do it. How they end is in
`test_websocket_ends.py`.
"""

import ast
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from asgi import frames
from asgi.client import get
from asgi.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, read_frame
from asgi.process import Server, StartServer
from asgi.websocket_app import REFUSED, goes_on

APP = "asgi.websocket_app:app"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with the WebSocket application."""
    with Server(app=APP) as server:
        server.wait_until_ready()
        yield server
        server.stop()


def open_client(server: Server, target: str, **options: Any) -> ClientConnection:
    """A client of the library's, without anything of the environment."""
    url = server.url.replace("http://", "ws://") + target
    client: ClientConnection = connect(url, proxy=None, max_size=None, **options)
    return client


def test_scope(server: Server) -> None:
    with open_client(server, "/scope/%C3%A9?a=b&c", subprotocols=["x", "y"]) as client:
        scope = ast.literal_eval(str(client.recv()))
        ours = client.local_address
    headers = dict(scope.pop("headers"))
    assert headers[b"upgrade"] == b"websocket" and headers[b"sec-websocket-protocol"] == b"x, y"
    assert isinstance(server.address, tuple)
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/scope/é",
        "raw_path": b"/scope/%C3%A9",
        "query_string": b"a=b&c",
        "root_path": "",
        "client": ours[:2],
        "server": server.address,
        "subprotocols": ["x", "y"],
        "state": {"shared": "from the lifespan"},
        "extensions": {"websocket.http.response": {}},
    }


def test_scope_behind_a_proxy_that_speaks_tls(start_server: StartServer) -> None:
    server = start_server("--proxy-headers", "--url-path-prefix=/api", app=APP)
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
    # `path` has the prefix at its front, which the application of the tests does not take off.
    with pytest.raises(InvalidStatus):
        open_client(server, "/scope", additional_headers=headers)
    server.log.wait_for("ERROR WebSocket /api/scope: the application raised KeyError")
    server = start_server("--proxy-headers", app=APP)
    with open_client(server, "/scope", additional_headers=headers) as client:
        scope = ast.literal_eval(str(client.recv()))
    assert (scope["scheme"], scope["client"][0]) == ("wss", "192.0.2.7")


def test_no_subprotocol_and_no_header_of_ours(server: Server) -> None:
    with server.connect() as client:
        names = [name for name, _ in frames.open_websocket(client, "/echo")]
    assert sorted(names) == ["connection", "date", "sec-websocket-accept", "server", "upgrade"]


def test_subprotocol_and_headers_of_the_application(server: Server) -> None:
    with open_client(server, "/choose", subprotocols=["a", "b"]) as client:
        assert client.recv() == "accepted"
        assert client.subprotocol == "b" and client.response is not None
        assert client.response.headers["x-one"] == "1"
        assert client.response.headers.get_all("set-cookie") == ["a=b", "c=d"]


@pytest.mark.parametrize("compression", ["deflate", None])
@pytest.mark.parametrize("data", ["", "text \N{SNOWMAN}", b"", b"\0\xff", "ab" * 5000, bytes(300)])
def test_echo(server: Server, data: str | bytes, compression: str | None) -> None:
    with open_client(server, "/echo", compression=compression) as client:
        for _ in range(3):
            client.send(data)
            found = client.recv()
            assert found == data and type(found) is type(data)


@pytest.mark.parametrize("deflate", ["off", "on", "context"])
def test_compression_is_what_the_option_says(start_server: StartServer, deflate: str) -> None:
    server = start_server(f"--ws-per-message-deflate={deflate}", app=APP)
    with open_client(server, "/echo") as client:
        assert client.response is not None
        agreed = client.response.headers.get("sec-websocket-extensions")
        client.send("again and again " * 1000)
        assert client.recv() == "again and again " * 1000
    if deflate == "off":
        assert agreed is None
    else:
        assert agreed is not None and agreed.startswith("permessage-deflate")
        assert ("server_no_context_takeover" in agreed) == (deflate == "on")


@pytest.mark.parametrize("compression", ["deflate", None])
def test_ten_megabytes(server: Server, compression: str | None) -> None:
    data = bytes(range(256)) * 40_000
    with open_client(server, "/echo", compression=compression) as client:
        client.send(data)
        assert client.recv() == data
        client.send(data[:5_000_000].hex())
        assert client.recv() == data[:5_000_000].hex()


def test_fragments_with_a_ping_between(server: Server) -> None:
    with server.connect() as client:
        frames.open_websocket(client, "/echo")
        client.send(frame(TEXT, b"one ", fin=False) + frame(PING, b"are you there?"))
        assert read_frame(client) == (True, PONG, b"are you there?")
        client.send(frame(CONTINUATION, "\N{SNOWMAN}".encode()[:1], fin=False))
        client.send(frame(CONTINUATION, "\N{SNOWMAN}".encode()[1:]))
        assert read_frame(client) == (True, TEXT, "one \N{SNOWMAN}".encode())


def test_messages_behind_the_handshake_and_each_other(server: Server) -> None:
    """A client that does not wait for the answer; then all frames in one write."""
    sent = [(BINARY, bytes(n)) for n in (0, 1, 125, 126, 127, 65535, 65536)]
    with server.connect() as client:
        early = get("/echo", *frames.HEADERS)
        client.send(early + b"".join(frame(*one) for one in sent))
        client.read_head()
        assert [read_frame(client)[1:] for _ in sent] == sent
        client.send(frame(CLOSE))
        assert read_frame(client) == (True, CLOSE, b"")
        client.expect_end()


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (frame(TEXT, b"unmasked", masked=False), 1002),
        (frame(CONTINUATION, b"of nothing"), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(BINARY, bytes(10_001)), 1009),
        (frame(BINARY, bytes(6000), fin=False) + frame(CONTINUATION, bytes(6000)), 1009),
    ],
)
def test_misdeeds_of_a_client(start_server: StartServer, bad: bytes, code: int) -> None:
    server = start_server("--ws-max-size=10000", app=APP)
    with server.connect() as client:
        frames.open_websocket(client, "/echo")
        client.send(frame(BINARY, bytes(10_000)))
        assert read_frame(client).payload == bytes(10_000)
        client.send(bad)
        assert read_frame(client).code == code
        client.expect_end()
    server.out.wait_for(f"note: echo ended {code} '.+'")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"), 426),
        (("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key: short"), 400),
    ],
)
def test_a_handshake_that_cannot_be(server: Server, change: tuple[str, str], status: int) -> None:
    headers = [change[1] if header == change[0] else header for header in frames.HEADERS]
    with server.connect() as client:
        response = client.ask("/echo", *headers)
        assert response.status == status
        client.expect_end()


def test_without_websockets_a_handshake_is_a_request(start_server: StartServer) -> None:
    server = start_server("--no-ws", app=APP)
    with server.connect() as client:
        response = client.ask("/echo", *frames.HEADERS)
        assert (response.status, response.body[:1]) == (200, b"{")


def test_close_before_accept_is_403(server: Server) -> None:
    mark = server.out.mark()
    with server.connect() as client:
        response = client.ask("/deny/close", *frames.HEADERS)
        assert (response.status, response.body, response.closes) == (403, b"", False)
        server.out.wait_for("note: told .*'code': 1006", since=mark)
        # It is a connection like any other again.
        assert client.ask("/inside").status == 200


def test_denial_response(server: Server) -> None:
    with pytest.raises(InvalidStatus) as raised:
        open_client(server, "/deny/response")
    response = raised.value.response
    assert (response.status_code, response.body) == (401, b"who are you?")
    assert response.headers["www-authenticate"] == "Basic"


TOLD = {
    "send-before-accept": "RuntimeError: expected websocket.accept, websocket.close or "
    "websocket.http.response.start on a WebSocket that is not accepted yet, found websocket.send",
    "body-before-start": "RuntimeError: expected websocket.accept, websocket.close or "
    "websocket.http.response.start on a WebSocket that is not accepted yet, found "
    "websocket.http.response.body",
    "accept-twice": "RuntimeError: expected websocket.send or websocket.close on an accepted "
    "WebSocket, found websocket.accept",
    "deny-after-accept": "RuntimeError: expected websocket.send or websocket.close on an accepted "
    "WebSocket, found websocket.http.response.start",
    "accept-after-denial": "RuntimeError: expected websocket.http.response.body after "
    "websocket.http.response.start, found websocket.accept",
    "send-after-denial": "RuntimeError: expected websocket.http.response.body after "
    "websocket.http.response.start, found websocket.send",
    "start-twice": "RuntimeError: expected websocket.http.response.body after "
    "websocket.http.response.start, found websocket.http.response.start",
    "send-after-close": "RuntimeError: expected nothing after websocket.close, or after the end of "
    "the response, found websocket.send",
    "close-after-close": "RuntimeError: expected nothing after websocket.close, or after the end "
    "of the response, found websocket.close",
    "accept-after-close": "RuntimeError: expected nothing after websocket.close, or after the end "
    "of the response, found websocket.accept",
    "nothing-to-send": "ValueError: websocket.send has neither bytes nor text",
    "none-to-send": "ValueError: websocket.send has neither bytes nor text",
    "bytes-as-text": "TypeError: text of a WebSocket's message must be a str, got bytes",
    "text-as-bytes": "TypeError: websocket.send: bytes must be bytes, got str",
    "surrogate": "UnicodeEncodeError: 'utf-8' codec can't encode character '\\ud800' in "
    "position 0: surrogates not allowed",
    "code-1005": "RuntimeError: expected a close code of 1000-1003, 1007-1014 or 3000-4999, found "
    "1005",
    "code-70000": "TypeError: websocket.close: expected a close code, found 70000",
    "code-text": "TypeError: websocket.close: expected a close code, found '1000'",
    "long-reason": "RuntimeError: expected at most 125 bytes in a ping and 123 in a close reason, "
    "found 124",
    "not-offered": 'RuntimeError: expected a subprotocol that the client offers, found "c"',
    "subprotocol-bytes": "TypeError: subprotocol of a WebSocket's message must be a str, got bytes",
    "reserved-header": "RuntimeError: expected headers beside those of the WebSocket handshake, "
    'found "sec-websocket-accept"',
    "injection": "RuntimeError: expected no line end and no NUL in the value of response header "
    '"x"',
    "status-101": "RuntimeError: expected a final response status, found the interim 101",
    "unknown-type": 'ValueError: unknown message type "http.response.start": expected '
    "websocket.accept, websocket.send, websocket.close, or that of an extension in the scope",
    "no-type": "ValueError: the message has no type",
    "not-a-dict": "TypeError: send takes a dict, got str",
}


def test_every_case_is_told() -> None:
    assert TOLD.keys() == REFUSED.keys()


@pytest.mark.parametrize("case", TOLD)
def test_what_an_application_may_not_send(server: Server, case: str) -> None:
    """It is as if it had not been tried: where nothing else was sent, the WebSocket goes on."""
    mark = server.out.mark()
    with server.connect() as client:
        client.send(get(f"/refused/{case}", *frames.HEADERS, "Sec-WebSocket-Protocol: a, b"))
        found = server.out.wait_for(f"note: {case}: (.*)", since=mark)[1]
        assert found == TOLD[case]
        if goes_on(case):
            assert client.read_head()[1] == 101
            assert read_frame(client) == (True, TEXT, b"goes on")


def test_many_clients_leave_nothing_behind(server: Server) -> None:
    """Each sees its own messages; then tasks and scopes are gone, without a collector's help."""

    def talk(number: int) -> None:
        with open_client(server, "/echo") as client:
            for count in range(20):
                client.send(f"{number} {count}" * (1 + count * 50))
                assert client.recv() == f"{number} {count}" * (1 + count * 50)
        done.append(number)

    done: list[int] = []
    for _ in range(3):
        threads = [threading.Thread(target=talk, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert len(done) == 48
    assert server.get("/inside").json() == {"websockets": 0, "requests": 1}
