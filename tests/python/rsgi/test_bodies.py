"""Bodies and streams, in both directions, with clients that are slow, or leave."""

import hashlib
import random

import pytest
from asgi.client import Client, get
from asgi.process import Server

from rsgi.apps import MIB, pattern


def post(target: str, data: bytes, *headers: str) -> bytes:
    return get(target, f"Content-Length: {len(data)}", *headers, method="POST") + data


def chunked(target: str, *pieces: bytes) -> bytes:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return get(target, "Transfer-Encoding: chunked", method="POST") + framed + b"0\r\n\r\n"


def checksum(data: bytes) -> str:
    return f"{len(data)} {hashlib.sha256(data).hexdigest()} True"


@pytest.mark.parametrize("length", [0, 1, 65536, 3 * MIB + 5])
def test_a_whole_body(server: Server, length: int) -> None:
    data = pattern(length)
    with server.connect() as client:
        client.send(post("/echo", data))
        assert client.read().body == data
        client.send(
            chunked("/echo", *([data[:7], data[7:]] if length > 7 else [data] * (length > 0)))
        )
        assert client.read().body == data
        assert client.ask("/echo").body == b""


@pytest.mark.parametrize("length", [0, 1, 65536, 3 * MIB + 5])
def test_a_body_in_pieces(server: Server, length: int) -> None:
    data = pattern(length)
    with server.connect() as client:
        client.send(post("/checksum", data))
        assert client.read().body.decode() == checksum(data)
        pieces = [data[i : i + 100_000] for i in range(0, length, 100_000)]
        client.send(chunked("/checksum", *pieces))
        assert client.read().body.decode() == checksum(data)


def test_a_body_to_a_slow_application(server: Server) -> None:
    data = random.Random(8).randbytes(8 * MIB)
    with server.connect() as client:
        client.send(post("/checksum?pause=0.005", data))
        assert client.read().body.decode() == checksum(data)


def test_pieces_come_and_go_as_they_arrive(server: Server) -> None:
    mark = server.out.mark()
    with server.connect() as client:
        client.send(get("/pieces", "Content-Length: 6", method="POST"))
        client.send(b"one")
        server.out.wait_for("piece b'one'$", since=mark)
        assert client.read_head()[1] == 200
        assert client.receive(100) == b"3\r\none\r\n"
        client.send(b"two")
        server.out.wait_for("piece b'two'$", since=mark)
        assert client._read_chunks() == b"two"
        assert client.ask("/hello").body == b"hello"


@pytest.mark.parametrize("how", ["whole", "pieces"])
def test_a_body_is_taken_once(server: Server, how: str) -> None:
    with server.connect() as client:
        client.send(post(f"/body_twice/{how}", b"body"))
        found = client.read().body.decode()
    assert found == repr(["the body of this request was asked for before"] * 2)


def test_a_body_that_does_not_come_in_the_application_s_time(server: Server) -> None:
    with server.connect() as client:
        client.send(get("/with_timeout", "Content-Length: 4", method="POST"))
        assert client.read().status == 408


def test_a_body_after_the_answer(server: Server) -> None:
    mark = server.out.mark()
    with server.connect() as client:
        client.send(post("/read_late", b"body"))
        assert client.read().status == 200
        server.out.wait_for("late: the client has disconnected, or its request is", since=mark)


@pytest.mark.parametrize("how", ["whole", "pieces"])
def test_a_client_that_leaves_within_its_body(server: Server, how: str) -> None:
    """The application is told, and it is no error of its own."""
    marks = server.out.mark(), server.log.mark()
    with server.connect() as client:
        client.send(get(f"/read_until_gone/{how}", "Content-Length: 9", method="POST") + b"body")
        server.out.wait_for("reading", since=marks[0])
    server.out.wait_for("closed", since=marks[0])
    server.log.wait_for("the client left before its answer was complete", since=marks[1])
    assert "ERROR" not in server.log.since(marks[1])


# --- streams -------------------------------------------------------------------------------------

STREAMED = "".join(f"pieče {number}\n-" for number in range(3)).encode()


def test_a_stream(server: Server) -> None:
    with server.connect() as client:
        for _ in range(2):
            response = client.ask("/stream")
            assert (response.body, response.framing) == (STREAMED, "chunked")
            assert response.header("x-kind") == "stream"
        assert client.ask("/stream?count=0").body == b""
        assert client.ask("/stream", method="HEAD").status == 200
        client.send(get("/stream", version="1.0"))
        response = client.read()
        assert (response.body, response.framing) == (STREAMED, "close")


def test_a_stream_ends_with_its_transport(server: Server) -> None:
    mark = server.out.mark()
    with server.connect() as client:
        assert client.ask("/stream/dropped").body == STREAMED
        assert "worked" not in server.out.since(mark)
        assert client.ask("/gate").status == 200
    server.out.wait_for("worked", since=mark)


def test_a_stream_ends_when_the_application_returns(server: Server) -> None:
    with server.connect() as client:
        assert client.ask("/stream/kept").body == STREAMED
        assert client.ask("/stream_after").body.startswith(b"the client has disconnected, or its")


def test_what_a_stream_refuses(server: Server) -> None:
    with server.connect() as client:
        lines = client.ask("/stream_refused").body.decode().splitlines()
    assert lines == [
        "send_bytes: data must be bytes, got str",
        "send_bytes: data must be bytes, got int",
        "send_bytes: data must be bytes, got NoneType",
        "send_str: data must be str, got bytes",
    ]


@pytest.mark.parametrize(("case", "end"), [("part", ConnectionResetError), ("nothing", None)])
def test_a_stream_shorter_than_promised(
    server: Server, case: str, end: type[Exception] | None
) -> None:
    mark = server.log.mark()
    with server.connect() as client:
        client.send(get(f"/stream_short/{case}"))
        if end is None:
            assert client.read().status == 500
        else:
            with pytest.raises(end):
                client.read()
    server.log.wait_for("returned without completing its response", since=mark)


def warm_up(server: Server) -> None:
    with server.connect() as client:
        assert len(client.ask("/endless?size=4").body) == 4 * MIB


def test_a_client_that_does_not_read_holds_the_application_back(server: Server) -> None:
    """A stream of 1 GiB costs less than 1 MiB of the server's memory."""
    warm_up(server)
    before, mark = server.status("VmRSS"), server.out.mark()
    with server.connect(receive_buffer=64 * 1024) as client:
        client.send(get("/endless?size=1024"))
        waits = server.out.wait_for(r"send waits at (\d+)", since=mark)
        assert int(waits[1]) < 8 * MIB
        grown = server.status("VmRSS") - before
        assert grown < 1024, f"{grown} KiB more while the client did not read"
        assert server.ask("/hello") == "hello"
        assert client.read_head()[1] == 200
        received = sum(len(client.receive(MIB)) for _ in range(100))
        assert received > 0
        client.reset()


def test_a_slow_client_gets_all_of_a_stream(server: Server) -> None:
    with server.connect(receive_buffer=16 * 1024) as client:
        response = client.ask("/endless?size=2")
        assert response.body == pattern(65536) * (2 * MIB // 65536)


def test_a_client_that_leaves_within_a_stream(server: Server) -> None:
    marks = server.out.mark(), server.log.mark()
    with server.connect() as client:
        client.send(get("/until_gone"))
        server.out.wait_for("streaming", since=marks[0])
        client.receive(1000)
    server.out.wait_for("closed", since=marks[0])
    server.log.wait_for("the client left before its answer was complete", since=marks[1])
    assert "ERROR" not in server.log.since(marks[1])


# --- client_disconnect ---------------------------------------------------------------------------


def leave(client: Client, how: str) -> None:
    {"close": client.close, "reset": client.reset, "shut_down": client.shut_down}[how]()


@pytest.mark.parametrize("how", ["close", "reset", "shut_down"])
@pytest.mark.parametrize("case", ["read", "unread"])
@pytest.mark.parametrize("body", [b"", b"body"])
def test_the_client_s_going_is_told(server: Server, how: str, case: str, body: bytes) -> None:
    """Also where nobody has read its body, and when it only ends its side and is silent."""
    mark = server.out.mark()
    client = server.connect()
    client.send(post(f"/disconnect/{case}", body) if body else get(f"/disconnect/{case}"))
    server.out.wait_for("waiting", since=mark)
    leave(client, how)
    server.out.wait_for("gone", since=mark)
    server.out.wait_for("answered", since=mark)
    if how == "shut_down":
        assert client.read().body == b"to nobody"
        client.close()


def test_watching_takes_nothing_of_the_body(server: Server) -> None:
    mark = server.out.mark()
    data = pattern(300_000)
    with server.connect() as client:
        client.send(get("/watch", f"Content-Length: {len(data)}", method="POST") + data[:1000])
        server.out.wait_for("watching", since=mark)
        server.ask("/gate")
        client.send(data[1000:])
        assert client.read().body == data
        # The watch ends with the request at the latest.
        server.out.wait_for("released", since=mark)
        assert client.ask("/hello").body == b"hello"
