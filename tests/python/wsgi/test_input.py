"""`wsgi.input`: exact to the byte, as it comes, and never held whole."""

import hashlib
import io
import json
import random
import threading
from ast import literal_eval

import pytest
from asgi.client import Client, get
from asgi.process import Server, StartServer
from asgi.test_bodies import chunked, post

from wsgi.apps import MIB, run_calls


def lines(chooser: random.Random, length: int) -> bytes:
    """Bytes with line ends at random places."""
    data = bytearray(chooser.randbytes(length).replace(b"\n", b"x"))
    for _ in range(chooser.choice([0, 3, length // 40])):
        if length:
            data[chooser.randrange(length)] = ord("\n")
    return bytes(data)


def split(chooser: random.Random, data: bytes) -> list[bytes]:
    """Pieces of random sizes."""
    pieces = []
    while data:
        size = chooser.choice([1, 10, 1000, 20_000, 100_000])
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def test_any_calls_find_what_a_file_has(wsgi_server: Server) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chooser = random.Random(seed)
    with wsgi_server.connect() as client:
        for number in range(150):
            data = lines(chooser, chooser.choice([0, 1, 50, 3000, 60_000, 200_000]))
            pieces = split(chooser, data)
            target = f"/replay?seed={number}"
            if chooser.random() < 0.5:
                client.send(chunked(target, pieces))
            else:
                client.send(get(target, f"Content-Length: {len(data)}", method="POST"))
                for piece in pieces:
                    client.send(piece)
            found = literal_eval(client.read().body.decode("latin-1"))
            expected = run_calls(io.BytesIO(data), random.Random(number))
            assert found == expected, f"request {number}, {len(data)} bytes"


def test_iteration_gives_lines_with_their_ends(wsgi_server: Server) -> None:
    data = b"one\ntwo\n\nthree"
    with wsgi_server.connect() as client:
        for request in (post("/iterate", data), chunked("/iterate", [data[:5], data[5:]])):
            client.send(request)
            assert literal_eval(client.read().body.decode()) == [data.splitlines(True), []]


def test_no_body_is_an_empty_stream(wsgi_server: Server) -> None:
    with wsgi_server.connect() as client:
        for request in (get("/whole"), post("/whole", b""), chunked("/whole", [])):
            client.send(request)
            assert client.read().body == b""


@pytest.mark.parametrize("way", [post, lambda target, data: chunked(target, [data])])
def test_four_megabytes_both_ways(wsgi_server: Server, way: object) -> None:
    data = random.Random(4).randbytes(4 * MIB)
    with wsgi_server.connect() as client:
        assert callable(way)
        for target in ("/whole", "/echo"):
            sender = threading.Thread(target=client.send, args=(way(target, data),))
            sender.start()
            assert client.read().body == data
            sender.join()


def test_a_slow_client(wsgi_server: Server) -> None:
    with wsgi_server.connect() as slow, wsgi_server.connect() as other:
        slow.send(get("/whole", "Content-Length: 5", method="POST"))
        for byte in b"12345":
            # Somebody else is served in between, in both modes.
            assert other.ask("/hello").status == 200
            slow.send(bytes([byte]))
        assert slow.read().body == b"12345"


def test_an_unread_body_does_not_disturb_the_next_request(wsgi_server: Server) -> None:
    with wsgi_server.connect() as client:
        client.send(post("/unread", b"x" * 100_000) + get("/hello"))
        assert client.read().body == b"not read"
        assert client.read().body == b"Hello, world!"


def test_continue_is_sent_when_the_application_reads(threaded_server: Server) -> None:
    server = threaded_server
    with server.connect() as client:
        expect = ("Content-Length: 4", "Expect: 100-continue")
        mark = server.out.mark()
        client.send(get("/late_read?gate=continue", *expect, method="POST"))
        server.out.wait_for("note: waits continue", since=mark)
        client.expect_silence(0.1)
        client.socket.settimeout(10)
        assert server.ask("/open?gate=continue") == "opened"
        assert client.read_head()[1] == 100
        client.send(b"body")
        assert client.read().body == b"body"


def test_no_continue_for_a_body_that_nobody_reads(threaded_server: Server) -> None:
    with threaded_server.connect() as client:
        client.send(get("/unread", "Content-Length: 4", "Expect: 100-continue", method="POST"))
        response = client.read()
        assert (response.status, response.body, response.closes) == (200, b"not read", True)


def test_a_client_that_leaves_within_its_body_is_an_oserror(threaded_server: Server) -> None:
    for leave in (Client.close, Client.reset):
        mark = threaded_server.out.mark()
        client = threaded_server.connect()
        client.send(get("/cut_upload", "Content-Length: 100000", method="POST") + b"x" * 1000)
        threaded_server.out.wait_for("note: read", since=mark)
        leave(client)
        threaded_server.out.wait_for(r"note: ClientDisconnected \d+", since=mark)
    assert "Traceback" not in threaded_server.log.text


def test_a_broken_chunk_is_refused_while_it_is_read(threaded_server: Server) -> None:
    with threaded_server.connect() as client:
        mark = threaded_server.out.mark()
        client.send(get("/cut_upload", "Transfer-Encoding: chunked", method="POST"))
        client.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        threaded_server.out.wait_for("note: read", since=mark)
        client.send(b"nonsense\r\n")
        assert client.read().status == 400


def test_a_body_that_nobody_reads_yet_is_not_held_whole(start_server: StartServer) -> None:
    server = start_server(app="wsgi.apps:app")
    with server.connect() as client:
        assert client.ask("/hello").status == 200
        before, mark = server.status("VmRSS"), server.out.mark()
        head = get("/late_read?gate=held", f"Content-Length: {64 * MIB}", method="POST")
        client.socket.settimeout(1)
        client.send(head)
        server.out.wait_for("note: waits held", since=mark)
        with pytest.raises(TimeoutError):
            client.send(bytes(64 * MIB))
        assert server.status("VmRSS") - before < 1024
    # Its client is gone, so the read that follows fails at once.
    server.ask("/open?gate=held")


def test_bodies_of_many_at_once(wsgi_server: Server) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")

    def one(number: int) -> None:
        data = random.Random(seed + number).randbytes(300_000)
        with wsgi_server.connect() as client:
            client.send(post("/checksum", data))
            found = json.loads(client.read().body)
            assert found == {"length": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        done.append(number)

    done: list[int] = []
    threads = [threading.Thread(target=one, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(20))
