"""`start_response`, the write callable, and what becomes of the iterable."""

import json
import random

import pytest
from asgi.client import Client, Cut, get
from asgi.process import Server, StartServer
from asgi.test_bodies import post

from wsgi.apps import MIB


@pytest.mark.parametrize(
    ("target", "framing", "body"),
    [
        ("/hello", "length", b"Hello, world!"),
        ("/sequence?sizes=", "length", b""),
        ("/sequence?sizes=3", "length", b"xxx"),
        ("/sequence?sizes=1,0,2", "length", b"xxx"),
        ("/sequence?sizes=1,0,2&tuple=1", "length", b"xxx"),
        ("/sequence?sizes=70000,70000", "chunked", b"x" * 140_000),
        ("/sequence?sizes=3000000", "length", b"x" * 3_000_000),
        ("/stream", "chunked", b"0" * 10 + b"1" * 10 + b"2" * 10),
        ("/stream?length=30", "length", b"0" * 10 + b"1" * 10 + b"2" * 10),
        ("/stream?pieces=0", "length", b""),
        ("/stream?size=0", "length", b""),
        ("/lazy", "chunked", b"lazy"),
        ("/written", "chunked", b"w0w1"),
        ("/written?returned=1", "chunked", b"w0w1 returned"),
        ("/written?length=4", "length", b"w0w1"),
        ("/by_file?size=2500", "chunked", b"f" * 2500),
    ],
)
def test_bodies_and_their_framing(
    wsgi_server: Server, target: str, framing: str, body: bytes
) -> None:
    with wsgi_server.connect() as client:
        for _ in range(2):
            response = client.ask(target)
            assert (response.status, response.framing, response.body) == (200, framing, body)
        head = client.ask(target, method="HEAD")
        assert (head.status, head.body) == (200, b"")
        assert client.ask("/hello").body == b"Hello, world!"


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ("200 OK", b"HTTP/1.1 200 OK"),
        ("200 Fine", b"HTTP/1.1 200 Fine"),
        ("404 Not Here, sorry", b"HTTP/1.1 404 Not Here, sorry"),
        ("418 I'm a teapot", b"HTTP/1.1 418 I'm a teapot"),
        ("200 d\u00e9j\u00e0 vu", b"HTTP/1.1 200 d\xe9j\xe0 vu"),
        ("201 ", b"HTTP/1.1 201 Created"),
        ("201", b"HTTP/1.1 201 Created"),
        ("799 ", b"HTTP/1.1 799 "),
    ],
)
def test_the_reason_phrase_is_the_application_s(
    wsgi_server: Server, status: str, line: bytes
) -> None:
    with wsgi_server.connect() as client:
        client.send(post("/start_with", json.dumps([status, []]).encode()))
        assert client.receive(len(line) + 2) == line + b"\r\n"


def test_http_1_0_gets_no_chunks(wsgi_server: Server) -> None:
    with wsgi_server.connect() as client:
        client.send(get("/stream", version="1.0"))
        response = client.read()
        assert (response.framing, len(response.body)) == ("close", 30)


def test_pieces_are_not_held_back(threaded_server: Server) -> None:
    with threaded_server.connect() as client:
        mark = threaded_server.out.mark()
        client.send(get("/gated_pieces?gate=pieces"))
        assert client.read_head()[1] == 200
        assert client.receive(100) == b"5\r\nfirst\r\n"
        threaded_server.out.wait_for("note: waits pieces", since=mark)
        threaded_server.ask("/open?gate=pieces")
        assert client.receive(100) in (b"6\r\nsecond\r\n", b"6\r\nsecond\r\n0\r\n\r\n")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_answers_without_a_body(wsgi_server: Server, status: str) -> None:
    with wsgi_server.connect() as client:
        client.send(post("/start_with", json.dumps([status, []]).encode()))
        response = client.read()
        assert (response.status, response.framing) == (int(status[:3]), "none")
        assert client.ask("/hello").body == b"Hello, world!"


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        ("200 OK", [["X-Twice", "1"], ["X-Twice", "2"]], None),
        ("200 OK", [["X-Latin", "\xe4"]], None),
        ("299", [], None),
        ("200 OK", [["Content-Length", "2"]], None),
        (200, [], "the status must be a str, got int"),
        ("OK", [], "expected a status such as '200 OK'"),
        ("2000 OK", [], "expected a status such as '200 OK'"),
        ("20x OK", [], "expected a status such as '200 OK'"),
        ("+20 OK", [], "expected a status such as '200 OK'"),
        ("100 Continue", [], "expected a status such as '200 OK'"),
        ("200 OK\r\nX: y", [], "expected a status such as '200 OK'"),
        ("200 \u20ac", [], "must be Latin-1"),
        ("200 OK", {"X": "y"}, "headers must be a list, got dict"),
        ("200 OK", ["xy"], "a header must be a tuple of name and value, got str"),
        ("200 OK", [["X"]], "a header must be a tuple"),
        ("200 OK", [["X", 1]], "the value of a header must be a str, got int"),
        ("200 OK", [[1, "x"]], "the name of a header must be a str, got int"),
        ("200 OK", [["", "x"]], "expected a token"),
        ("200 OK", [["X Y", "x"]], "expected a token"),
        ("200 OK", [["X:", "x"]], "expected a token"),
        ("200 OK", [["X", "a\r\nb: c"]], "expected no control characters"),
        ("200 OK", [["X", "a\0"]], "expected no control characters"),
        ("200 OK", [["X", "\u20ac"]], "must be Latin-1"),
        ("200 OK", [["Connection", "close"]], "hop-by-hop"),
        ("200 OK", [["transfer-encoding", "chunked"]], "hop-by-hop"),
        ("200 OK", [["Upgrade", "x"]], "hop-by-hop"),
        ("200 OK", [["Content-Length", "x"]], "expected a number as Content-Length"),
        ("200 OK", [["Content-Length", "2"], ["content-length", "2"]], "found two"),
    ],
)
def test_what_start_response_takes(
    wsgi_server: Server, status: object, headers: object, error: str | None
) -> None:
    mark = wsgi_server.log.mark()
    with wsgi_server.connect() as client:
        client.send(post("/start_with", json.dumps([status, headers]).encode()))
        response = client.read()
    if error is None:
        assert isinstance(headers, list)
        assert response.status == int(str(status)[:3]) and response.body == b"ok"
        for name, value in headers:
            assert value in response.all(name.lower())
    else:
        assert response.status == 500
        wsgi_server.log.wait_for(f"Error: .*{error}", since=mark)


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("before", "ValueError: before start"),
        ("after_start", "ValueError: after start"),
        ("no_start", "AssertionError: the application returned without calling"),
        ("no_start_body", "AssertionError: .*start_response"),
        ("none", "TypeError: 'NoneType' object is not iterable"),
        ("text", "TypeError: a response body must be bytes, got str"),
        ("write_text", "TypeError: a response body must be bytes, got str"),
        ("first_piece", "ValueError: while iterating"),
        ("twice", "AssertionError: start_response was called a second time"),
        ("short_list", "RuntimeError: the response body has 5 bytes, its content-length is 10"),
    ],
)
def test_a_failure_before_the_first_byte_is_a_500(
    wsgi_server: Server, how: str, error: str
) -> None:
    mark = wsgi_server.log.mark()
    with wsgi_server.connect() as client:
        assert client.ask(f"/fails?how={how}").status == 500
    wsgi_server.log.wait_for(error, since=mark)
    said = wsgi_server.log.since(mark)
    assert f"GET /fails: the application raised {error.split(':')[0]}" in said
    assert "the client got a 500" in said
    assert wsgi_server.ask("/hello") == "Hello, world!"


@pytest.mark.parametrize("how", ["second_piece", "text_later", "short"])
def test_a_failure_after_that_is_a_reset(wsgi_server: Server, how: str) -> None:
    mark = wsgi_server.log.mark(), wsgi_server.out.mark()
    with wsgi_server.connect() as client, pytest.raises((ConnectionResetError, Cut)):
        client.ask(f"/fails?how={how}")
    wsgi_server.log.wait_for("Error: ", since=mark[0])
    assert "its answer had begun, so the connection was reset" in wsgi_server.log.since(mark[0])
    wsgi_server.out.wait_for(f"note: closed {how}", since=mark[1])


@pytest.mark.parametrize(("how", "body"), [("long", b"123"), ("long_list", b"123")])
def test_a_body_is_cut_at_its_length(wsgi_server: Server, how: str, body: bytes) -> None:
    mark = wsgi_server.log.mark()
    with wsgi_server.connect() as client:
        assert client.ask(f"/fails?how={how}").body == body
        assert client.ask("/hello").body == b"Hello, world!"
    wsgi_server.log.wait_for("longer than its content-length of 3", since=mark)
    assert "the client had its answer" in wsgi_server.log.since(mark)


def test_a_failure_in_close_is_logged(wsgi_server: Server) -> None:
    mark = wsgi_server.log.mark()
    assert wsgi_server.ask("/fails?how=close") == "whole"
    wsgi_server.log.wait_for("ValueError: in close", since=mark)


def test_exc_info_replaces_an_answer_that_has_not_begun(wsgi_server: Server) -> None:
    with wsgi_server.connect() as client:
        response = client.ask("/excused")
    assert (response.status, response.body) == (503, b"excused")
    assert response.header("x-excused") == "yes" and response.header("x-first") is None


def test_exc_info_is_raised_when_it_has_begun(wsgi_server: Server) -> None:
    mark = wsgi_server.log.mark()
    with wsgi_server.connect() as client, pytest.raises((ConnectionResetError, Cut)):
        client.ask("/excused?begun")
    wsgi_server.log.wait_for("ValueError: to be excused", since=mark)


@pytest.mark.parametrize("target", ["/stream", "/stream?length=30", "/stream?pieces=0"])
def test_an_iterable_is_closed_once(wsgi_server: Server, target: str) -> None:
    mark = wsgi_server.out.mark()
    assert wsgi_server.get(target).status_code == 200
    wsgi_server.out.wait_for("note: closed stream", since=mark)
    assert wsgi_server.get("/hello").status_code == 200
    assert wsgi_server.out.since(mark).count("closed stream") == 1


def test_a_file_is_closed(wsgi_server: Server) -> None:
    mark = wsgi_server.out.mark()
    assert wsgi_server.get("/by_file?size=5000").content == b"f" * 5000
    wsgi_server.out.wait_for("note: closed file", since=mark)


def test_a_client_that_leaves_ends_the_iteration_and_closes(wsgi_server: Server) -> None:
    for leave in (Client.close, Client.reset):
        mark = wsgi_server.out.mark()
        client = wsgi_server.connect()
        client.send(get("/stream?pieces=1000000&size=65536"))
        client.receive(1000)
        leave(client)
        wsgi_server.out.wait_for("note: closed stream", since=mark)
    assert "Traceback" not in wsgi_server.log.text.split("in close")[-1][-200:]


def test_wsgi_errors_is_the_log(wsgi_server: Server) -> None:
    mark = wsgi_server.log.mark()
    assert wsgi_server.ask("/errors") == "told"
    wsgi_server.log.wait_for("^one line$", since=mark)
    wsgi_server.log.wait_for("^two parts$", since=mark)


@pytest.mark.parametrize("target", ["/stream?told=1&pieces=16000", "/written?told=1&pieces=16000"])
@pytest.mark.parametrize("threads", ["0", "4"])
def test_a_client_that_never_reads_costs_little(
    start_server: StartServer, target: str, threads: str
) -> None:
    server = start_server("--blocking-threads", threads, app="wsgi.apps:app")
    assert server.ask("/stream?pieces=100&size=65536")
    before, mark = server.status("VmRSS"), server.out.mark()
    with server.connect(receive_buffer=4096) as client:
        # A gigabyte in pieces of 64 KiB; a write is of two bytes a unit.
        size = 65536 if "stream" in target else 32768
        client.send(get(f"{target}&size={size}"))
        server.out.wait_for("note: (piece|written) 3$", since=mark)
        taken = 4
        while server.out.has(f"note: [a-z]+ {taken}$", since=mark, seconds=0.5):
            taken += 1
            assert taken < 200
        assert server.status("VmRSS") - before < 1024
        # Others are served meanwhile; inline, a write keeps the ring's thread.
        if threads != "0" or "stream" in target:
            assert server.ask("/hello") == "Hello, world!"


def test_pipelined_requests_are_answered_in_order(wsgi_server: Server) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chooser = random.Random(seed)
    with wsgi_server.connect() as client:
        sizes = [chooser.choice([0, 1, 100, 70_000]) for _ in range(40)]
        client.send(b"".join(get(f"/sequence?sizes={size}") for size in sizes))
        assert [len(client.read().body) for _ in sizes] == sizes


def test_a_download(wsgi_server: Server) -> None:
    assert len(wsgi_server.get(f"/sequence?sizes={20 * MIB}").content) == 20 * MIB
    found = wsgi_server.get("/stream?pieces=320&size=65536").content
    assert found == b"".join(b"%d" % (number % 10) * 65536 for number in range(320))
