"""ASGI's extensions on the wire: files, trailers, early hints."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgi.apps import MIB, pattern
from asgi.client import Client, get
from asgi.process import Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that these tests share."""
    with Server(app="asgi.extensions_app:app") as server:
        server.wait_until_ready()
        yield server
        server.stop()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small file."""
    path = tmp_path / "file.txt"
    path.write_bytes(b"0123456789")
    return path


def test_extensions_are_offered_and_each_request_has_its_own(server: Server) -> None:
    always: dict[str, object] = {
        "http.response.early_hint": {},
        "http.response.pathsend": {},
        "http.response.zerocopysend": {},
    }
    with server.connect() as client:
        for _ in range(2):
            assert json.loads(client.ask("/offered").body) == always
        with_trailers = always | {"http.response.trailers": {}}
        assert json.loads(client.ask("/offered", "TE: trailers").body) == with_trailers
        assert json.loads(client.ask("/offered").body) == always


@pytest.mark.parametrize("length", [0, 1, 50_000, 64 * 1024, 5 * MIB + 1])
def test_a_file_is_sent_whole(server: Server, tmp_path: Path, length: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(pattern(length))
    with server.connect() as client:
        for declared in ("", f"&length={length}"):
            response = client.ask(f"/path?path={path}{declared}")
            assert (response.status, response.framing) == (200, "length")
            assert response.header("accept-ranges") == "bytes"
            assert response.body == pattern(length)
        assert client.ask(f"/path?path={path}", method="HEAD").header("content-length") in (
            None if length == 0 else str(length),
            str(length),
        )
        assert client.ask("/debug").body == b"hello"


def test_a_file_that_changes_places_is_still_sent(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(pattern(8 * MIB))
    with server.connect(receive_buffer=4096) as client:
        client.send(get(f"/path?path={path}"))
        client.read_head()
        path.unlink()
        path.write_bytes(b"another")
        received = b""
        while len(received) < 8 * MIB:
            received += client.receive(MIB)
        assert received == pattern(8 * MIB)


def test_a_range_is_answered_unless_the_application_does_it(server: Server, file: Path) -> None:
    with server.connect() as client:
        part = client.ask(f"/path?path={file}&length=10", "Range: bytes=2-4")
        assert (part.status, part.body) == (206, b"234")
        assert part.header("content-range") == "bytes 2-4/10"
        tail = client.ask(f"/path?path={file}", "Range: bytes=-3", 'If-Range: "one"')
        assert (tail.status, tail.body) == (206, b"789")
        beyond = client.ask(f"/path?path={file}", "Range: bytes=10-")
        assert (beyond.status, beyond.body) == (416, b"")
        assert beyond.header("content-range") == "bytes */10"
        for headers in (['If-Range: "two"', "Range: bytes=2-4"], ["Range: bytes=0-1,3-4"]):
            whole = client.ask(f"/path?path={file}", *headers)
            assert (whole.status, whole.body) == (200, b"0123456789")
        target = f"/path?path={file}&header=accept-ranges:none"
        assert client.ask(target, "Range: bytes=2-4").body == b"0123456789"
        missing = client.ask(f"/path?path={file}&status=404", "Range: bytes=2-4")
        assert (missing.status, missing.body) == (404, b"0123456789")


def test_a_file_that_cannot_be_sent_is_the_applications_error(
    server: Server, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, error in (
        (tmp_path / "missing", "FileNotFoundError"),
        (tmp_path, "expected a regular file"),
        (fifo, "expected a regular file"),
    ):
        mark = server.log.mark()
        with server.connect() as client:
            assert client.ask(f"/path?path={path}").status == 500
        server.log.wait_for(error, since=mark)


def test_a_file_that_shrinks_while_it_is_sent_is_never_an_answer_that_looks_whole(
    server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * (32 * MIB))
    with server.connect(receive_buffer=4096) as client:
        client.send(get(f"/path?path={path}"))
        client.read_head()
        os.truncate(path, 100)
        with pytest.raises(ConnectionResetError):
            while client.socket.recv(MIB):
                pass


def test_parts_of_an_open_file_are_sent_between_bytes(server: Server, file: Path) -> None:
    with server.connect() as client:
        response = client.ask(f"/zero-copy?path={file}")
        assert response.framing == "chunked"
        assert response.body == b"1234<between>345678901"
        mark = server.log.mark()
        client.send(get(f"/zero-copy?path={file}&offset=9"))
        with pytest.raises(ConnectionResetError):
            client.read()
        expected = "expected a part of the file's 10 bytes, found 2 bytes from 9 on"
        server.log.wait_for(expected, since=mark)


def test_files_wait_for_a_client_that_does_not_read(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * MIB)
    with server.connect() as warm:
        warm.ask(f"/path?path={path}")
    before = server.status("VmRSS")
    fds = server.descriptors()
    clients = [server.connect(receive_buffer=4096) for _ in range(20)]
    for client in clients:
        client.send(get(f"/endless-copy?path={path}"))
        client.read_head()
    server.wait_for_rest()
    assert server.status("VmRSS") - before < 20 * 1024
    for client in clients:
        client.reset()
    deadline = time.monotonic() + 10
    while server.descriptors() > fds:
        assert time.monotonic() < deadline, "the files or the connections stay open"
        time.sleep(0.05)


def read_trailers(client: Client) -> bytes:
    """Everything behind the last chunk."""
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        received += client.receive(1000)
    return received.split(b"\r\n0\r\n", 1)[1]


def test_trailers_go_to_who_takes_them(server: Server) -> None:
    with server.connect() as client:
        client.send(get("/trailers", "TE: trailers"))
        client.read_head()
        assert read_trailers(client) == b"x-sum: 1\r\nx-end: 2\r\n\r\n"
        assert client.ask("/trailers").body == b"hello world"


def test_trailers_that_are_announced_must_come_and_others_must_not(server: Server) -> None:
    with server.connect() as client:
        client.send(get("/trailers-missing", "TE: trailers"))
        with pytest.raises(ConnectionResetError):
            client.read()
    server.log.wait_for("without completing its response")
    with server.connect() as client:
        assert client.ask("/trailers-unannounced").status == 500
    server.log.wait_for("started with trailers=True")


def test_early_hints_come_before_the_answer(server: Server) -> None:
    with server.connect() as client:
        client.send(
            b"POST /early-hints HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        version, status, headers = client.read_head()
        assert (version, status) == ("1.1", 103)
        assert headers == [
            ("link", "</a.css>; rel=preload"),
            ("link", "</b.js>; rel=preload"),
        ]
        assert client.read_head()[1] == 100
        client.send(b"hi")
        assert client.read().body == b"hi"
        client.send(get("/early-hints", version="1.0"))
        assert client.read().status == 200


def test_the_debug_message_does_nothing(server: Server) -> None:
    with server.connect() as client:
        assert client.ask("/debug").body == b"hello"
