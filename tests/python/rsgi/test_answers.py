"""Every kind of answer, what is refused, and what becomes of an application that fails."""

import signal
from pathlib import Path

import pytest
from asgi.client import Response, get
from asgi.process import Server, StartServer

from rsgi.apps import MIB, REFUSED, pattern
from rsgi.conftest import FILE_BYTES


def ask(server: Server, target: str, method: str = "GET") -> Response:
    with server.connect() as client:
        response = client.ask(target, method=method)
        # The connection is good for another.
        assert client.ask("/hello").body == b"hello"
    return response


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("empty", 201, b""),
        ("empty-defaults", 200, b""),
        ("bytes", 202, b"\0bytes"),
        ("memoryview", 200, b"array"),
        ("bytes-defaults", 200, b""),
        ("str", 203, "žluťoučký".encode()),
        ("str-large", 200, ("ž" * MIB).encode()),
        ("str-defaults", 200, b""),
        ("named", 200, b"named"),
        ("not-found", 404, b""),
        ("large", 200, pattern(8 * MIB)),
    ],
)
def test_kinds(server: Server, kind: str, status: int, body: bytes) -> None:
    response = ask(server, f"/kinds/{kind}")
    assert (response.status, response.framing) == (status, "length")
    assert response.body == body
    assert response.header("x-kind") in (kind, None)
    assert response.header("content-length") == str(len(body))
    head = ask(server, f"/kinds/{kind}", "HEAD")
    # An empty body for HEAD tells nothing of the length that GET would have.
    assert (head.status, head.header("content-length")) == (
        status,
        str(len(body)) if body else None,
    )


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body(server: Server, status: int) -> None:
    response = ask(server, f"/status/{status}")
    assert (response.status, response.body) == (status, b"")


def test_headers(server: Server) -> None:
    response = ask(server, "/own_headers")
    assert response.header("x-latin") == "é"
    assert response.all("set-cookie") == ["a=1", "b=2"]
    assert response.header("date") and response.header("server")


EXPECTED = {
    "status-text": "TypeError",
    "status-99": "ProtocolError",
    "status-101": "ProtocolError",
    "header-bytes": "TypeError: names and values of headers must be str, got bytes",
    "header-number": "TypeError: names and values of headers must be str, got int",
    "header-single": "TypeError: a header must be a pair of name and value, got str",
    "header-triple": "TypeError: a header must be a pair of name and value, got tuple",
    "headers-number": "TypeError",
    "header-unicode": "ValueError: a header must be Latin-1",
    "header-inject": "ProtocolError",
    "name-inject": "ProtocolError",
    "body-str": "TypeError: response_bytes: body must be bytes, got str",
    "body-int": "TypeError: response_bytes: body must be bytes, got int",
    "body-bytes": "TypeError: response_str: body must be str, got bytes",
    "body-surrogate": "UnicodeEncodeError",
    "too-long": "ProtocolError",
    "too-short": "ProtocolError",
    "file-number": "TypeError",
    "range-empty": "ValueError: response_file_range: expected start < end, got 5 and 5",
    "range-negative": "OverflowError",
    "file-status": "ProtocolError",
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_can_be_made_good(server: Server, case: str) -> None:
    response = ask(server, f"/refused/{case}")
    assert response.status == 200
    assert response.body.decode().startswith(EXPECTED[case]), response.body


@pytest.mark.parametrize(
    ("target", "body"), [("/twice", b"first"), ("/twice?stream=1", b"first last")]
)
def test_a_second_answer_does_nothing(server: Server, target: str, body: bytes) -> None:
    mark, log = server.out.mark(), server.log.mark()
    response = ask(server, target)
    assert (response.status, response.body) == (200, body)
    server.out.wait_for("again: this request was answered before", since=mark)
    assert server.log.since(log) == ""


# --- files ---------------------------------------------------------------------------------------


def test_a_file(server: Server) -> None:
    for length in (None, FILE_BYTES):
        response = ask(server, f"/file?length={length}" if length else "/file")
        assert response.body == pattern(FILE_BYTES)
        assert response.framing == "length"


def test_a_file_that_is_opened_in_a_thread(server: Server, served_file: Path) -> None:
    """The kernel opens nothing behind a link of /proc without a visit to the file system."""
    response = ask(server, f"/file?path=/proc/self/root{served_file}&length={FILE_BYTES}")
    assert response.body == pattern(FILE_BYTES)


def test_a_file_for_head(server: Server) -> None:
    response = ask(server, f"/file?length={FILE_BYTES}", "HEAD")
    assert (response.status, response.header("content-length")) == (200, str(FILE_BYTES))


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 1), (10, 200_000), (FILE_BYTES - 1, FILE_BYTES), (FILE_BYTES - 5, FILE_BYTES + 100)],
)
def test_a_part_of_a_file(server: Server, start: int, end: int) -> None:
    """From `start` to before `end`, or to the end of the file."""
    response = ask(server, f"/file?start={start}&end={end}")
    assert (response.status, response.body) == (206, pattern(FILE_BYTES)[start:end])


@pytest.mark.parametrize("path", ["/nowhere/at/all", "/", "."])
def test_a_file_that_cannot_be_opened_is_404(server: Server, path: str) -> None:
    mark = server.log.mark()
    response = ask(server, f"/file?path={path}&length=5")
    assert (response.status, response.body) == (404, b"")
    server.log.wait_for(f"WARNING {path}: .*; the client got a 404", since=mark)


@pytest.mark.parametrize("length", [FILE_BYTES + 1, FILE_BYTES - 1])
def test_a_file_of_another_length_than_promised_is_500(server: Server, length: int) -> None:
    mark = server.log.mark()
    with server.connect() as client:
        assert client.ask(f"/file?length={length}").status == 500
    server.log.wait_for("ERROR .*file.bin could not be sent as it was promised", since=mark)


def test_a_file_is_sent_while_the_application_goes_on(server: Server) -> None:
    mark = server.out.mark()
    with server.connect() as client:
        client.send(get("/file?work=1"))
        assert client.read().body == pattern(FILE_BYTES)
        assert "worked" not in server.out.since(mark)
        # It may go on until it returns, and the connection is used meanwhile.
        assert client.ask("/gate").status == 200
    server.out.wait_for("worked", since=mark)


def test_a_drain_waits_for_an_application_behind_its_file(
    start_server: StartServer, served_file: Path
) -> None:
    environment = {"RSGI_TEST_FILE": str(served_file)}
    server = start_server(app="rsgi.apps:app", environment=environment)
    with server.connect() as client, server.connect() as other:
        other.ask("/hello")
        client.send(get("/file?work=1"))
        assert client.read().body == pattern(FILE_BYTES)
        other.send(get("/never"))
        server.out.wait_for("never: waiting")
        server.signal(signal.SIGTERM)
        server.log.wait_for("draining: 2 requests under way")
    server.process.kill()
    server.process.wait()


def test_an_application_that_raises_behind_its_file(server: Server) -> None:
    mark = server.log.mark()
    response = ask(server, f"/file?raise=1&length={FILE_BYTES}")
    assert response.body == pattern(FILE_BYTES)
    server.log.wait_for("the application raised RuntimeError; the client had its", since=mark)


def test_a_client_that_does_not_read_its_file_holds_little(server: Server) -> None:
    ask(server, "/file")
    before = server.status("VmRSS")
    clients = [server.connect(receive_buffer=4096) for _ in range(4)]
    for client in clients:
        client.send(get("/file"))
        client.receive(1)
    assert server.ask("/hello") == "hello"
    grown = server.status("VmRSS") - before
    assert grown < 4 * 1024, f"{grown} KiB more for four clients that do not read"
    for client in clients:
        client.reset()
    assert server.ask("/hello") == "hello"


# --- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("before", "the application raised RuntimeError; the client got a 500"),
        ("cancelled", "the application raised CancelledError; the client got a 500"),
        ("unsent", "the application raised RuntimeError; the client got a 500"),
        ("nothing", "the application returned without completing its response; the client got"),
    ],
)
def test_failing_before_a_byte_was_given_out_is_500(server: Server, stage: str, said: str) -> None:
    mark = server.log.mark()
    with server.connect() as client:
        response = client.ask(f"/fault/{stage}")
        assert (response.status, response.closes) == (500, True)
        client.expect_end()
    server.log.wait_for(f"ERROR GET /fault/{stage}: {said}", since=mark)


def test_failing_during_a_stream_resets(server: Server) -> None:
    mark = server.log.mark()
    with server.connect() as client:
        client.send(get("/fault/during"))
        with pytest.raises(ConnectionResetError):
            client.read()
    server.log.wait_for("its answer had begun, so the connection was reset", since=mark)
    text = server.log.since(mark)
    assert text.count("Traceback") == 1 and "worker.py" not in text


def test_failing_after_the_answer_is_only_logged(server: Server) -> None:
    mark = server.log.mark()
    assert ask(server, "/fault/after").body == b"whole"
    server.log.wait_for("the client had its answer", since=mark)


def test_what_is_the_server_s_to_call_hurts_nobody_else(server: Server) -> None:
    with server.connect() as client:
        assert client.ask("/finish").status == 500
    assert server.ask("/hello") == "hello"


def test_sys_exit_stops_the_server_with_its_code(start_server: StartServer) -> None:
    server = start_server(app="rsgi.apps:app")
    with server.connect() as client:
        assert client.ask("/exits").status == 500
    assert server.wait() == 7


def test_a_drain_that_takes_too_long_cancels(start_server: StartServer) -> None:
    server = start_server("--graceful-timeout", "0.2", app="rsgi.apps:app")
    with server.connect() as client:
        client.send(get("/never"))
        server.out.wait_for("never: waiting")
        server.signal(signal.SIGTERM)
        with pytest.raises(ConnectionResetError):
            client.read()
    assert server.wait() == 0
    assert "never: cancelled" in server.out.text and "Traceback" not in server.log.text
