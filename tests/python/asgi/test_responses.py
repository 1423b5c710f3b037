"""Responses on the wire: framing, persistence, headers, large bodies and slow clients."""

import hashlib
import re
import time
from email.utils import parsedate_to_datetime

import httpx
import pytest

from asgi.apps import MIB, pattern
from asgi.client import get
from asgi.process import Server, StartServer
from asgi.test_bodies import chunked, post


def test_with_a_length(server: Server) -> None:
    with server.connect() as client:
        response = client.ask("/hello")
    assert (response.status, response.framing, response.body) == (200, "length", b"hello")
    assert response.header("connection") is None


def test_a_body_in_one_message_gets_its_length(server: Server) -> None:
    with server.connect() as client:
        assert client.ask("/headers").header("content-length") == "3"
        assert client.ask("/bare").header("content-length") == "0"


def test_a_body_in_pieces_is_chunked(server: Server) -> None:
    with server.connect() as client:
        for _ in range(2):
            response = client.ask("/stream")
            assert response.framing == "chunked"
            assert response.body == b"piece 0\npiece 1\npiece 2\n"


def test_pieces_are_sent_as_they_come(server: Server) -> None:
    with server.connect() as client:
        client.send(get("/stream?count=2&pause=0.5"))
        client.read_head()
        began = time.monotonic()
        assert b"piece 0" in client.receive(100)
        assert time.monotonic() - began < 0.25
        assert b"piece 1" in client.receive(100)
        assert time.monotonic() - began > 0.25


def test_http_1_0_gets_no_chunks_but_the_end_of_the_connection(server: Server) -> None:
    with server.connect() as client:
        client.send(get("/stream", "Connection: keep-alive", version="1.0"))
        response = client.read()
    assert (response.framing, response.closes) == ("close", True)
    assert response.body == b"piece 0\npiece 1\npiece 2\n"


def test_http_1_0_keeps_the_connection_when_asked_to(server: Server) -> None:
    with server.connect() as client:
        for _ in range(2):
            client.send(get("/hello", "Connection: keep-alive", version="1.0"))
            assert client.read().header("connection") == "keep-alive"
        client.send(get("/hello", version="1.0"))
        assert client.read().closes
        client.expect_end()


@pytest.mark.parametrize("target", ["/hello", "/stream", "/big?size=1&kind=bytes"])
def test_head_has_the_headers_and_no_body(server: Server, target: str) -> None:
    with server.connect() as client:
        asked = client.ask(target)
        head = client.ask(target, method="HEAD")
        # The next answer begins right behind the head.
        assert client.ask("/hello").body == b"hello"
    assert head.header("content-length") == asked.header("content-length")
    assert head.status == 200


def test_204_and_304_have_no_body(server: Server) -> None:
    with server.connect() as client:
        response = client.ask("/status/204")
        assert (response.status, response.header("content-length")) == (204, None)
        response = client.ask("/status/304")
        assert (response.status, response.header("content-length")) == (304, "4")
        assert client.ask("/hello").body == b"hello"


@pytest.mark.parametrize("code", [200, 201, 299, 404, 599, 999])
def test_any_final_status(server: Server, code: int) -> None:
    with server.connect() as client:
        response = client.ask(f"/status/{code}")
    assert (response.status, response.body) == (code, b"body")


def test_sixteen_pipelined_requests_are_answered_in_order(server: Server) -> None:
    with server.connect() as client:
        client.send(b"".join(get(f"/echo/{number}") for number in range(16)))
        for number in range(16):
            assert client.read().body == f"/echo/{number} ".encode()


def test_pipelined_requests_with_bodies_that_are_read_or_not(server: Server) -> None:
    requests, answers = [], []
    for number in range(24):
        data = f"body {number}".encode() * number
        target = f"/echo/{number}" if number % 3 else "/hello"
        answers.append(target.encode() + b" " + data if number % 3 else b"hello")
        requests.append(post(target, data) if number % 2 else chunked(target, [data] * bool(data)))
    with server.connect() as client:
        client.send(b"".join(requests))
        for answer in answers:
            assert client.read().body == answer


def test_pipelined_behind_a_slow_one(server: Server) -> None:
    with server.connect() as client:
        client.send(get("/stream?count=3&pause=0.02") + get("/hello") + get("/never_read"))
        assert client.read().framing == "chunked"
        assert [client.read().body for _ in range(2)] == [b"hello", b"hello"]


def test_the_client_closes(server: Server) -> None:
    with server.connect() as client:
        client.send(get("/hello", "Connection: close") + get("/hello"))
        assert client.read().closes
        client.expect_end()


def test_the_application_closes(server: Server) -> None:
    with server.connect() as client:
        response = client.ask("/closing")
        assert (response.body, response.closes) == (b"last", True)
        client.expect_end()


def test_date_and_server_are_added(server: Server) -> None:
    with server.connect() as client:
        response = client.ask("/hello")
    assert response.header("server") == "granian-uring"
    date = response.header("date")
    assert date is not None and re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", date)
    assert abs(parsedate_to_datetime(date).timestamp() - time.time()) < 2


def test_nothing_is_doubled_and_the_framing_is_ours(server: Server) -> None:
    with server.connect() as client:
        response = client.ask("/headers")
        assert client.ask("/hello").body == b"hello"
    assert response.header("date") == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert response.header("server") == "mine"
    assert response.header("connection") is None
    assert response.framing == "length"
    assert response.all("set-cookie") == ["a=1", "b=2"]
    assert response.header("x-latin") == "é"


def test_no_default_headers(start_server: StartServer) -> None:
    server = start_server("--no-default-headers")
    with server.connect() as client:
        assert client.ask("/hello").headers == [("content-length", "5")]
        assert client.ask("/headers").header("server") == "mine"


def test_headers_of_any_iterable_and_any_bytes(server: Server) -> None:
    with server.connect() as client:
        response = client.ask("/bare/iterable")
    assert (response.header("x-a"), response.header("x-b")) == ("1", "2")
    assert response.body == b"iterable"


@pytest.mark.parametrize("kind", ["bytes", "bytearray", "memoryview"])
def test_fifty_megabytes_in_one_message(server: Server, kind: str) -> None:
    with server.connect() as client:
        for _ in range(2 if kind == "bytes" else 1):
            response = client.ask(f"/big?size=48&kind={kind}")
            found, expected = hashlib.sha256(response.body), hashlib.sha256(pattern(48 * MIB))
            assert found.hexdigest() == expected.hexdigest()


@pytest.mark.parametrize("piece", [4000, 65536, 1_000_000])
def test_a_client_that_does_not_read_holds_the_application_back(server: Server, piece: int) -> None:
    size = 64 if piece > 10_000 else 16
    server.ask("/hello")
    before, mark = server.status("VmRSS"), server.out.mark()
    with server.connect(receive_buffer=64 * 1024) as client:
        client.send(get(f"/endless?size={size}&piece={piece}"))
        waits = server.out.wait_for(r"send waits at (\d+)", since=mark)
        assert int(waits[1]) < 8 * MIB
        grown = server.status("VmRSS") - before
        assert grown < 8 * 1024, f"{grown} KiB more while the client did not read"
        assert server.ask("/hello") == "hello"
        body = client.read().body
    rounds = -(-size * MIB // piece)
    assert body == pattern(piece) * rounds


def test_a_client_that_never_reads_costs_little(server: Server) -> None:
    """A stream of 1 GiB in pieces of 64 KiB costs less than 1 MiB of the server's memory."""
    with server.connect() as client:
        assert len(client.ask("/endless?size=4&piece=65536").body) == 4 * MIB
    before, mark = server.status("VmRSS"), server.out.mark()
    with server.connect(receive_buffer=4096) as client:
        client.send(get("/endless?size=1024&piece=65536"))
        waits = server.out.wait_for(r"send waits at (\d+)", since=mark)
        assert int(waits[1]) < 8 * MIB
        grown = server.status("VmRSS") - before
        assert grown < 1024, f"{grown} KiB more while the client did not read"
        assert server.ask("/hello") == "hello"
        client.reset()


def test_a_large_body_to_a_slow_client(server: Server) -> None:
    with server.connect(receive_buffer=16 * 1024) as client:
        client.send(get("/big?size=4&kind=bytes", "Connection: close"))
        client.read_head()
        got = bytearray()
        while len(got) < 4 * MIB:
            got += client.receive(20_000)
        assert got == pattern(4 * MIB)
        client.expect_end()


@pytest.mark.parametrize(
    "target", ["/hello", "/stream", "/slow?seconds=0.5", "/stream?count=3&pause=0.5"]
)
def test_a_client_that_ends_its_side_gets_its_whole_answer(server: Server, target: str) -> None:
    with server.connect() as client:
        client.send(get(target))
        client.shut_down()
        response = client.read()
        assert response.status == 200
        if "stream" in target:
            assert response.body == b"piece 0\npiece 1\npiece 2\n"
        client.expect_end()


def test_a_client_that_ends_its_side_gets_a_large_answer_and_pipelined_ones(
    server: Server,
) -> None:
    with server.connect() as client:
        client.send(get("/echo/1") + get("/big?size=8&kind=bytes") + post("/echo/3", b"three"))
        client.shut_down()
        assert client.read().body == b"/echo/1 "
        assert client.read().body == pattern(8 * MIB)
        assert client.read().body == b"/echo/3 three"
        client.expect_end()


def test_an_ordinary_client(server: Server) -> None:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        assert client.get("/hello").text == "hello"
        posted = client.post("/echo", content=iter([b"in ", b"pieces"]))
        assert posted.content == b"/echo in pieces"
        with client.stream("GET", "/stream") as streamed:
            assert b"".join(streamed.iter_raw()) == b"piece 0\npiece 1\npiece 2\n"


def test_without_websockets_their_handshake_is_answered_as_plain_http(
    start_server: StartServer,
) -> None:
    server = start_server("--no-ws")
    upgrade = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )
    with server.connect() as client:
        response = client.ask("/hello", *upgrade)
        assert (response.status, response.body) == (200, b"hello")
        assert client.ask("/hello").body == b"hello"
