"""The access log where it meets the rest: proxies, limits, timeouts, files, forks, and the end.

What a line looks like is tested in `test_program.py`, atoms in `src/access_log`, and that each
request has one line, however it ends, in the simulation.
"""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from asgi.client import Client, get
from asgi.process import Server, StartServer
from asgi.test_proxy import PROXY_1, TLS, listening, proxy_2, shown

WORDS = (
    "--access-log",
    "--access-log-fmt",
    "line: %(method)s %(path)s %(status)d %(completion)s %(body_bytes)d",
)

StartLogged = Callable[..., Server]


@pytest.fixture
def start_logged(start_server: StartServer) -> StartLogged:
    """Starts servers with the format of these tests."""

    def start(*words: str, app: str = "asgi.apps:app") -> Server:
        return start_server(*WORDS, *words, app=app)

    return start


def lines(server: Server) -> list[str]:
    """What the server has logged, when it has ended."""
    text = server.out.text.splitlines()
    return [line.removeprefix("line: ") for line in text if line.startswith("line: ")]


def post(target: str, *headers: str) -> bytes:
    """The head of a POST."""
    return get(target, *headers, method="POST")


def test_what_the_proxy_protocol_tells(start_server: StartServer) -> None:
    format = "%(addr)s %(port)s %(scheme)s %(tls_version)s %(tls_cipher)s"
    with listening() as listener:
        fd = listener.fileno()
        server = start_server(
            *("--access-log", "--access-log-fmt", format, "--access-log-json"),
            *("--fd", str(fd), "--proxy-protocol", shown(listener), "--proxy-headers"),
            *("--proxy-trusted", "127.0.0.1", "--proxy-trusted", "203.0.113.7"),
            pass_fds=(fd,),
        )

        def logged(client: Client, *headers: str) -> list[object]:
            mark = server.out.mark()
            client.ask("/hello", *headers)
            found = json.loads(server.out.wait_for(r"^\{.*\}$", since=mark).string)
            assert isinstance(found, dict)
            return list(found.values())

        tls = ["TLSv1.3", "TLS_AES_128_GCM_SHA256"]
        with Client(listener.getsockname()) as client:
            client.send(proxy_2(TLS))
            assert logged(client) == ["203.0.113.7", 40000, "https", *tls]
            # The peer of the header is a proxy too, and tells of a client that spoke no TLS.
            headers = ("X-Forwarded-For: 198.51.100.9", "X-Forwarded-Proto: http")
            assert logged(client, *headers) == ["198.51.100.9", None, "http", *tls]
        with Client(listener.getsockname()) as client:
            client.send(PROXY_1)
            assert logged(client) == ["203.0.113.7", 40000, "http", None, None]


def test_a_body_that_is_too_long_has_the_line_of_its_request(start_logged: StartLogged) -> None:
    server = start_logged("--max-body-size", "10")
    with server.connect() as client:
        client.send(post("/echo/told", "Content-Length: 11"))
        refused = client.read()
        assert refused.status == 413
    with server.connect() as client:
        client.send(post("/echo/found", "Transfer-Encoding: chunked") + b"b\r\n01234567890\r\n")
        assert client.read().status == 413
    with server.connect() as client:
        client.send(get("/hello", "Content-Length: 11", method="HEAD"))
        assert client.read("HEAD").status == 413
    server.stop()
    length = len(refused.body)
    assert sorted(lines(server)) == [
        "HEAD /hello 413 OK 0",
        f"POST /echo/found 413 OK {length}",
        f"POST /echo/told 413 OK {length}",
    ]


def test_a_body_that_is_too_long_has_the_id_and_the_client_of_its_request(
    start_server: StartServer,
) -> None:
    server = start_server(
        *("--access-log", "--access-log-fmt", "%(addr)s %(request_id)s %(status)d"),
        *("--max-body-size", "10", "--request-id-header", "X-Id", "--proxy-headers"),
    )
    with server.connect() as client:
        headers = ("Content-Length: 11", "X-Id: abc", "X-Forwarded-For: 203.0.113.7")
        client.send(post("/echo", *headers))
        assert client.read().status == 413
    server.out.wait_for(r"^203\.0\.113\.7 abc 413$")


def test_requests_that_are_refused_because_of_others(start_logged: StartLogged) -> None:
    server = start_logged("--backpressure", "1", "--overload", "refuse")
    with server.connect() as busy, server.connect() as client:
        busy.send(get("/disconnect"))
        server.out.wait_for("note: disconnect: waiting")
        assert client.ask("/hello").status == 503
        server.out.wait_for(r"^line: GET /hello 503 OK \d\d$")
        busy.reset()
        server.out.wait_for("^line: GET /disconnect 499 - 0$")


def test_requests_that_take_too_long(start_logged: StartLogged) -> None:
    server = start_logged("--request-timeout", "0.2")
    with server.connect() as client:
        assert client.ask("/never").status == 503
    server.out.wait_for(r"^line: GET /never 503 OK \d\d$")
    with server.connect() as client:
        client.send(get("/stream?pause=10"))
        with pytest.raises(ConnectionResetError):
            client.read()
    server.out.wait_for("^line: GET /stream 200 - 8$")


def test_parts_of_files(start_logged: StartLogged, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    server = start_logged(app="asgi.extensions_app:app")
    with server.connect() as client:
        for asked, status, length in [
            ("bytes=2-4", 206, 3),
            ("bytes=20-", 416, 0),
            ("bytes=0-1,3-4", 200, 10),
        ]:
            mark = server.out.mark()
            response = client.ask(f"/path?path={file}", f"Range: {asked}")
            assert (response.status, len(response.body)) == (status, length)
            server.out.wait_for(f"^line: GET /path {status} OK {length}$", since=mark)
        client.ask(f"/path?path={file}", method="HEAD")
        server.out.wait_for("^line: HEAD /path 200 OK 0$")


def test_hints_and_trailers_are_no_bytes_of_the_body(start_server: StartServer) -> None:
    format = "%(status)d %(body_bytes)d %(response_header{link})s %(response_header{x-sum})s"
    words = ("--access-log", "--access-log-fmt", format)
    server = start_server(*words, app="asgi.extensions_app:app")
    with server.connect() as client:
        client.send(get("/early-hints"))
        assert client.read_head()[1] == 103
        assert client.read().body == b"nothing"
        server.out.wait_for("^200 7 - -$")
        client.send(get("/trailers", "Connection: TE, close", "TE: trailers"))
        assert b"x-sum: 1" in client.read_to_end()
        server.out.wait_for("^200 11 - -$")


FORKS = """
import os, sys
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError
    child = os.fork()
    if not child:
        {child}
    os.waitpid(child, 0)
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": b"parent"}})
"""


@pytest.mark.parametrize("child", ["os._exit(0)", "sys.exit(0)", "return", "raise RuntimeError"])
def test_a_forked_child_writes_no_lines(
    start_logged: StartLogged, tmp_path: Path, child: str
) -> None:
    (tmp_path / "forks.py").write_text(FORKS.format(child=child))
    server = start_logged("--working-dir", str(tmp_path), app="forks:app")
    with server.connect() as client:
        # The records of the first requests wait for their 20 ms while the next ones fork.
        client.send(b"".join(get(f"/{number}") for number in range(5)))
        for _ in range(5):
            assert client.read().body == b"parent"
    server.stop()
    assert lines(server) == [f"GET /{number} 200 OK 6" for number in range(5)]


def test_every_line_is_written_at_the_end(start_logged: StartLogged) -> None:
    server = start_logged("--graceful-timeout", "0.3")
    with server.connect() as slow, server.connect() as cut, server.connect() as half:
        slow.send(get("/gated?key=1"))
        server.out.wait_for("note: gated 1")
        cut.send(get("/never"))
        server.out.wait_for("note: never: waiting")
        half.send(get("/stream?pause=20"))
        half.read_head()
        server.ask("/hello")
        server.signal(signal.SIGTERM)
        server.log.wait_for("draining: 3 requests under way")
        server.log.wait_for("cut 3 connections")
        server.stop()
    assert sorted(lines(server)) == [
        "GET /gated 499 - 0",
        "GET /hello 200 OK 5",
        "GET /never 499 - 0",
        "GET /stream 200 - 8",
    ]


def test_a_killed_server_loses_the_last_lines_at_most(start_logged: StartLogged) -> None:
    server = start_logged()
    with server.connect() as client:
        for number in range(100):
            client.ask(f"/hello/{number}")
        server.out.wait_for("^line: GET /hello/99 200 OK 5$")
        last = time.monotonic()
        while time.monotonic() - last < 0.05:
            client.ask("/hello/last")
        server.process.kill()
        assert server.wait() == -signal.SIGKILL
    found = server.out.text.splitlines()
    assert found[:100] == [f"line: GET /hello/{number} 200 OK 5" for number in range(100)]
    # What is there is whole.
    assert set(found[100:]) == {"line: GET /hello/last 200 OK 5"}
