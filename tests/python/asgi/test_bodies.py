"""Bodies of requests: framing, pace, `100 Continue`, and what `receive` says at the end."""

import hashlib
import json
import random
import time

import pytest

from asgi.apps import MIB
from asgi.client import Client, get
from asgi.process import Server, StartServer


def post(target: str, body: bytes, *headers: str) -> bytes:
    """A POST with a length."""
    return get(target, f"Content-Length: {len(body)}", *headers, method="POST") + body


def chunked(target: str, chunks: list[bytes], *headers: str) -> bytes:
    """A POST in these chunks."""
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    head = get(target, "Transfer-Encoding: chunked", *headers, method="POST")
    return head + framed + b"0\r\n\r\n"


def checksum(client: Client) -> dict[str, int | str]:
    """The answer of `/checksum`."""
    response = client.read()
    assert response.status == 200, response
    found: dict[str, int | str] = json.loads(response.body)
    return found


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_an_empty_body_is_one_message(server: Server) -> None:
    with server.connect() as client:
        for request in (get("/checksum"), post("/checksum", b""), chunked("/checksum", [])):
            client.send(request)
            assert checksum(client) == {
                "length": 0,
                "sha256": sha(b""),
                "messages": 1,
                "largest": 0,
            }


def test_a_body_in_pieces_of_any_size(server: Server) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chooser = random.Random(seed)
    with server.connect() as client:
        for _ in range(30):
            data = chooser.randbytes(chooser.choice([1, 100, 5000, 70_000]))
            if chooser.random() < 0.5:
                request = post("/checksum", data)
            else:
                size = chooser.choice([1 + len(data) // 50, 4096, 1 << 20])
                chunks = [data[i : i + size] for i in range(0, len(data), size)]
                request = chunked("/checksum", chunks)
            while request:
                size = chooser.choice([1, 2, 50, 1000, 100_000])
                client.send(request[:size])
                request = request[size:]
                if size > 2 and chooser.random() < 0.1:
                    time.sleep(0.001)
            found = checksum(client)
            assert (found["length"], found["sha256"]) == (len(data), sha(data))


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_eight_mebibytes_to_a_slow_reader(server: Server, framing: str) -> None:
    data = random.Random(8).randbytes(8 * MIB)
    pieces = [data[i : i + 100_000] for i in range(0, len(data), 100_000)]
    target = "/checksum?pause=0.005"
    with server.connect() as client:
        client.send(post(target, data) if framing == "length" else chunked(target, pieces))
        found = checksum(client)
    assert (found["length"], found["sha256"]) == (len(data), sha(data))
    assert isinstance(found["largest"], int) and found["largest"] <= 128 * 1024


def test_an_upload_that_nobody_reads_does_not_fill_the_memory(server: Server) -> None:
    """The client is held back instead; when the application reads at last, all of it comes."""
    data = bytes(64 * MIB)
    with server.connect() as client:
        server.ask("/checksum")
        before = server.status("VmRSS")
        client.send(get("/gated?key=upload", f"Content-Length: {len(data)}", method="POST"))
        server.out.wait_for("gated upload")
        client.socket.settimeout(0.5)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < len(data):
                sent += client.socket.send(data[sent : sent + 65536])
        assert sent < 16 * MIB, "more than the kernel's buffers were taken"
        grown = server.status("VmRSS") - before
        assert grown < 2 * 1024, f"{grown} KiB more while nobody read"
        client.socket.settimeout(10)
        server.ask("/open?key=upload")
        client.send(data[sent:])
        assert client.read().body.decode() == f"{len(data)} {sha(data)}"


def test_pieces_come_as_they_arrive(server: Server) -> None:
    mark = server.out.mark()
    with server.connect() as client:
        client.send(get("/pieces", "Content-Length: 6", method="POST"))
        client.send(b"one")
        server.out.wait_for("piece b'one' True", since=mark)
        client.send(b"two")
        server.out.wait_for("piece b'two' False", since=mark)
        assert client.read().body == b"all"


def test_continue_is_said_when_the_application_wants_the_body(server: Server) -> None:
    with server.connect() as client:
        client.send(get("/gated?key=c", "Content-Length: 4", "Expect: 100-continue", method="POST"))
        server.out.wait_for("gated c")
        client.expect_silence(0.1)
        server.ask("/open?key=c")
        assert client.read_head() == ("1.1", 100, [])
        client.send(b"body")
        assert client.read().body.decode() == f"4 {sha(b'body')}"
        assert client.ask("/hello").body == b"hello"


def test_continue_is_not_said_to_whom_is_answered_at_once(server: Server) -> None:
    with server.connect() as client:
        client.send(get("/hello", "Content-Length: 4", "Expect: 100-continue", method="POST"))
        response = client.read()
        assert (response.status, response.body) == (200, b"hello")
        # Whether the body still comes nobody knows, so nothing may follow on this connection.
        assert response.closes
        client.expect_end()


def test_continue_is_not_said_to_whom_sends_the_body_anyway(server: Server) -> None:
    with server.connect() as client:
        client.send(post("/checksum", b"body", "Expect: 100-continue"))
        assert checksum(client)["sha256"] == sha(b"body")


def test_continue_is_not_said_to_http_1_0(server: Server) -> None:
    with server.connect() as client:
        head = b"POST /checksum HTTP/1.0\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        client.send(head)
        client.expect_silence(0.1)
        client.send(b"body")
        assert checksum(client)["sha256"] == sha(b"body")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_small_body_that_nobody_read_is_skipped(server: Server, framing: str) -> None:
    data = b"GET /never HTTP/1.1\r\n\r\n" * 1000
    with server.connect() as client:
        for _ in range(3):
            client.send(post("/hello", data) if framing == "length" else chunked("/hello", [data]))
            assert client.read().body == b"hello"
        assert client.ask("/echo").body == b"/echo "


def test_a_large_body_that_nobody_read_ends_the_connection_politely(server: Server) -> None:
    """The client reads the whole answer although it is still sending: no reset destroys it."""
    with server.connect() as client:
        client.send(get("/hello", f"Content-Length: {64 * MIB}", method="POST"))
        client.send(bytes(3 * MIB))
        response = client.read()
        assert (response.body, response.closes) == (b"hello", True)
        client.expect_end()


def test_receive_after_the_end_waits_for_a_reset(server: Server) -> None:
    mark = server.out.mark()
    client = server.connect()
    client.send(post("/after_end", b"body"))
    server.out.wait_for("read to the end", since=mark)
    client.reset()
    server.out.wait_for("after the end: {'type': 'http.disconnect'}", since=mark, seconds=0.5)
    server.out.wait_for("again: {'type': 'http.disconnect'}", since=mark, seconds=0.5)


def test_receive_after_the_end_waits_for_a_close(server: Server) -> None:
    """A FIN alone may be half a close, so the server takes its time to believe it."""
    mark, log_mark = server.out.mark(), server.log.mark()
    client = server.connect()
    client.send(post("/after_end", b"body"))
    server.out.wait_for("read to the end", since=mark)
    began = time.monotonic()
    client.close()
    server.out.wait_for("after the end: {'type': 'http.disconnect'}", since=mark, seconds=3)
    assert time.monotonic() - began > 0.9
    server.out.wait_for("again: {'type': 'http.disconnect'}", since=mark)
    # An application that leaves then has done nothing wrong.
    assert server.ask("/hello") == "hello"
    assert "ERROR" not in server.log.since(log_mark)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_body_that_is_cut_is_a_disconnect(server: Server, how: str) -> None:
    mark = server.out.mark()
    client = server.connect()
    client.send(get("/mid_body", "Content-Length: 100", method="POST") + b"ten bytes.")
    server.out.wait_for("reading", since=mark)
    client.close() if how == "close" else client.reset()
    server.out.wait_for("left: {'type': 'http.disconnect'}", since=mark, seconds=0.5)


def test_receive_after_the_answer_is_a_disconnect(server: Server) -> None:
    mark = server.out.mark()
    with server.connect() as client:
        client.send(post("/after_answer", b"body"))
        assert client.read().body == b"answered"
        server.out.wait_for("after the answer: {'type': 'http.disconnect'}", since=mark)


def test_a_receive_that_is_cancelled_can_be_repeated(server: Server) -> None:
    assert server.ask("/receive_twice") == "fine"


def test_a_chunk_that_is_framed_wrongly_is_400_while_that_is_possible(
    start_server: StartServer,
) -> None:
    server = start_server()
    with server.connect() as client:
        head = get("/checksum", "Transfer-Encoding: chunked", method="POST")
        client.send(head + b"3\r\nabc\r\nxyz\r\n")
        response = client.read()
        assert response.status == 400 and response.closes
        assert b"chunk size" in response.body
        client.expect_end()


def test_the_end_of_a_client_that_came_with_its_body_is_the_end(server: Server) -> None:
    """The kernel counts an end among what waits: it is no further piece to wait for."""
    whole = chunked("/checksum", [b"hello"])
    cut = post("/checksum", b"x" * 50)[:-45]
    for _ in range(20):
        for request, status in ((whole, 200), (cut, 400)):
            with server.connect() as client:
                client.send(request)
                client.shut_down()
                assert client.read().status == status
