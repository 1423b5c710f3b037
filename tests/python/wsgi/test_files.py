"""`wsgi.file_wrapper`: a plain file is sent by the ring, anything else is iterated."""

import gzip
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from asgi.client import Client, Cut, get
from asgi.process import Server, StartServer

from wsgi.apps import MIB

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Path]:
    """A file of 200 MB, mostly a hole."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(200 * MIB)
        file.seek(150 * MIB)
        file.write(CONTENT)
    yield path
    path.unlink()


@pytest.mark.parametrize("how", ["raw", "buffered", "temporary"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_plain_file_has_a_length_and_is_closed(
    wsgi_server: Server, path: Path, how: str, method: str
) -> None:
    first = wsgi_server.out.mark()
    with wsgi_server.connect() as client:
        for _ in range(3):
            mark = wsgi_server.out.mark()
            response = client.ask(f"/opened?path={path}&how={how}", method=method)
            assert response.all("content-length") == [str(len(CONTENT))]
            assert response.body == (CONTENT if method == "GET" else b"")
            wsgi_server.out.wait_for(f"note: closed {how}", since=mark)
        assert client.ask("/hello", method=method).status == 200
    assert wsgi_server.out.since(first).count("note: closed") == 3


def test_from_its_position_as_far_as_was_declared(wsgi_server: Server, path: Path) -> None:
    for query, expected in (
        ("offset=1000", CONTENT[1000:]),
        ("offset=1000&how=read", CONTENT[1003:]),
        ("offset=1000&declared=5000", CONTENT[1000:6000]),
        (f"offset={len(CONTENT)}", b""),
        (f"offset={len(CONTENT) + 1}", b""),
        ("how=temporary&offset=70001", CONTENT[70001:]),
        ("how=written", b"written, " + CONTENT),
    ):
        with wsgi_server.connect() as client:
            assert client.ask(f"/opened?path={path}&{query}").body == expected, query


def test_what_has_a_descriptor_and_other_bytes_is_iterated(
    wsgi_server: Server, tmp_path: Path
) -> None:
    with gzip.open(tmp_path / "file.gz", "wb") as file:
        file.write(CONTENT)
    response = wsgi_server.get(f"/opened?how=gzip&path={tmp_path}/file.gz")
    assert response.content == CONTENT
    assert wsgi_server.get("/opened?path=/proc/self/status").text.startswith("Name:")


def test_ranges_are_left_to_the_application(wsgi_server: Server, path: Path) -> None:
    with wsgi_server.connect() as client:
        response = client.ask(f"/opened?path={path}", "Range: bytes=1-2")
        assert (response.status, response.body) == (200, CONTENT)


def test_less_than_was_declared_is_an_error(wsgi_server: Server, path: Path) -> None:
    mark, out = wsgi_server.log.mark(), wsgi_server.out.mark()
    with wsgi_server.connect() as client:
        assert client.ask(f"/opened?path={path}&declared={len(CONTENT) + 1}").status == 500
    wsgi_server.log.wait_for(f"the response body has {len(CONTENT)} bytes", since=mark)
    wsgi_server.out.wait_for("note: closed buffered", since=out)


def test_no_body_is_sent_where_none_may_be(wsgi_server: Server, path: Path) -> None:
    with wsgi_server.connect() as client:
        response = client.ask(f"/opened?path={path}&status=304%20Not%20Modified")
        assert (response.status, response.body) == (304, b"")
        assert client.ask("/hello").body == b"Hello, world!"


def test_a_file_that_shrinks_is_a_reset(wsgi_server: Server, large: Path) -> None:
    mark = wsgi_server.out.mark()
    client = wsgi_server.connect(receive_buffer=4096)
    client.send(get(f"/opened?path={large}"))
    assert client.receive(1000)
    with large.open("r+b") as file:
        file.truncate(20 * MIB)
    with pytest.raises((ConnectionResetError, Cut)):
        client.read_to_end()
    client.close()
    wsgi_server.out.wait_for("note: closed buffered", since=mark)
    assert wsgi_server.ask("/hello") == "Hello, world!"


def test_a_client_that_leaves_has_the_file_closed(wsgi_server: Server, large: Path) -> None:
    for leave in (Client.close, Client.reset):
        mark = wsgi_server.out.mark()
        client = wsgi_server.connect(receive_buffer=4096)
        client.send(get(f"/opened?path={large}"))
        client.receive(1000)
        assert not wsgi_server.out.has("note: closed", since=mark, seconds=0.2)
        leave(client)
        wsgi_server.out.wait_for("note: closed buffered", since=mark)


@pytest.mark.parametrize("threads", ["0", "1"])
def test_a_large_file_to_slow_clients(start_server: StartServer, large: Path, threads: str) -> None:
    """It costs neither memory nor a thread."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chooser = random.Random(seed)
    server = start_server("--blocking-threads", threads, app="wsgi.apps:app")
    assert server.get(f"/opened?path={large}&offset={199 * MIB}").status_code == 200
    before = server.status("VmRSS")
    clients = [server.connect(receive_buffer=4096) for _ in range(3)]
    for client in clients:
        client.send(get(f"/opened?path={large}"))
        client.receive(chooser.randrange(1, 100_000))
    assert server.ask("/hello") == "Hello, world!"
    assert server.status("VmRSS") - before < 2048
    clients[0].receive(1)
    for client in clients[1:]:
        client.close()
    with server.connect() as client:
        body = client.ask(f"/opened?path={large}").body
    assert len(body) == 200 * MIB and body[150 * MIB :].startswith(CONTENT)
    assert server.status("VmRSS") - before < 2048
    mark = server.out.mark()
    server.signal(signal.SIGTERM)
    server.log.wait_for("draining")
    clients[0].close()
    server.out.wait_for("note: closed buffered", since=mark)
    server.wait()
