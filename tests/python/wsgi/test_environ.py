"""The environ: PEP 3333 "environ Variables", CGI/1.1 (RFC 3875)."""

import json
from pathlib import Path
from typing import Any

import pytest
from asgi.client import get
from asgi.process import Server, StartServer

import granian_uring


def environ(server: Server, target: str = "/environ", *headers: str, **how: str) -> dict[str, Any]:
    """The environ of a request."""
    with server.connect() as client:
        client.send(get(target, *headers, **how))
        found: dict[str, Any] = json.loads(client.read().body)
        return found


def test_what_every_request_has(wsgi_server: Server) -> None:
    assert isinstance(wsgi_server.address, tuple)
    host, port = wsgi_server.address
    with wsgi_server.connect() as client:
        own_host, own_port = client.socket.getsockname()
        for _ in range(2):
            found = json.loads(client.ask("/environ?a=1&b=%20").body)
            expected = {
                "REQUEST_METHOD": "GET",
                "SCRIPT_NAME": "",
                "PATH_INFO": "/environ",
                "QUERY_STRING": "a=1&b=%20",
                "RAW_URI": "/environ?a=1&b=%20",
                "REQUEST_URI": "/environ?a=1&b=%20",
                "SERVER_PROTOCOL": "HTTP/1.1",
                "SERVER_SOFTWARE": f"granian-uring/{granian_uring.__version__}",
                "SERVER_NAME": host,
                "SERVER_PORT": str(port),
                "REMOTE_ADDR": own_host,
                "REMOTE_PORT": str(own_port),
                "HTTP_HOST": "test",
                "wsgi.url_scheme": "http",
                "wsgi.run_once": False,
                "wsgi.multiprocess": False,
                "wsgi.input_terminated": True,
                "version": [1, 0],
            }
            assert {name: found.get(name) for name in expected} == expected
            assert "CONTENT_LENGTH" not in found and "CONTENT_TYPE" not in found
            assert not [name for name in found if name.startswith("HTTP_")][1:]


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/environ", "/environ", ""),
        ("/environ/%C3%A4%20b%2Fc?%C3%A4", "/environ/ä b/c", "%C3%A4"),
        ("/environ/%ff", "/environ/\xff", ""),
        ("/environ/%zz%4", "/environ/%zz%4", ""),
        ("http://other.example/environ/x?y", "/environ/x", "y"),
        ("/environ?", "/environ", ""),
        ("/environ//a/../b", "/environ//a/../b", ""),
    ],
)
def test_paths(wsgi_server: Server, target: str, path: str, query: str) -> None:
    found = environ(wsgi_server, target)
    bytes_of_path = found["PATH_INFO"].encode("latin-1")
    expected = path.encode("latin-1") if "\xff" in path else path.encode()
    assert (bytes_of_path, found["QUERY_STRING"]) == (expected, query)
    assert found["RAW_URI"] == found["REQUEST_URI"] == target


def test_headers(wsgi_server: Server) -> None:
    found = environ(
        wsgi_server,
        "/environ",
        "Content-Type: text/x",
        "Content-Length: 0",
        "X-Forwarded-For: 1.1.1.1",
        "x-own-thing: \xe4",
        "X-Forwarded-For: 2.2.2.2",
        "Cookie: a=1",
        "Cookie: b=2",
        "Accept: a/b",
        "X_Forwarded_Proto: https",
        "Host_: evil",
        method="POST",
    )
    assert found["CONTENT_TYPE"] == "text/x" and found["CONTENT_LENGTH"] == "0"
    assert found["HTTP_X_FORWARDED_FOR"] == "1.1.1.1,2.2.2.2"
    assert found["HTTP_COOKIE"] == "a=1; b=2"
    assert found["HTTP_X_OWN_THING"] == "\xe4"
    assert found["HTTP_ACCEPT"] == "a/b"
    # Names with an underscore could stand for others, and are dropped.
    assert "HTTP_X_FORWARDED_PROTO" not in found and "HTTP_HOST_" not in found
    assert "HTTP_CONTENT_TYPE" not in found and "HTTP_CONTENT_LENGTH" not in found


def test_http_1_0(wsgi_server: Server) -> None:
    assert environ(wsgi_server, version="1.0")["SERVER_PROTOCOL"] == "HTTP/1.0"
    assert environ(wsgi_server)["SERVER_PROTOCOL"] == "HTTP/1.1"


def test_a_query_does_not_stay(wsgi_server: Server) -> None:
    with wsgi_server.connect() as client:
        assert json.loads(client.ask("/environ?x").body)["QUERY_STRING"] == "x"
        assert json.loads(client.ask("/environ").body)["QUERY_STRING"] == ""


@pytest.mark.parametrize(("threads", "multithread"), [("0", False), ("1", False), ("2", True)])
def test_multithread_is_true_to_the_setting(
    start_server: StartServer, threads: str, multithread: bool
) -> None:
    server = start_server("--blocking-threads", threads, app="wsgi.apps:app")
    assert environ(server)["wsgi.multithread"] is multithread


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/mount/p%C3%A4th/environ/x", "/environ/x"),
        ("/environ/x", "/environ/x"),
        ("/environ/mount/p%C3%A4th", "/environ/mount/päth"),
    ],
)
def test_the_prefix_is_script_name(start_server: StartServer, target: str, path: str) -> None:
    server = start_server("--url-path-prefix", "/mount/päth/", app="wsgi.apps:app")
    found = environ(server, target)
    names = (found["SCRIPT_NAME"], found["PATH_INFO"])
    assert [name.encode("latin-1").decode() for name in names] == ["/mount/päth", path]


def test_a_unix_socket_has_a_server_name(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--uds", str(tmp_path / "socket"), app="wsgi.apps:app")
    found = environ(server)
    names = ("SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR")
    assert [found[name] for name in names] == ["localhost", "80", ""]


def test_what_a_trusted_proxy_tells(start_server: StartServer) -> None:
    options = ("--proxy-headers", "--proxy-trusted", "127.0.0.1", "--proxy-prefix")
    server = start_server(*options, "--url-path-prefix", "/in", app="wsgi.apps:app")
    headers = ("X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https", "X-Forwarded-Prefix: /out")
    found = environ(server, "/in/environ", *headers)
    assert (found["REMOTE_ADDR"], found["wsgi.url_scheme"]) == ("192.0.2.7", "https")
    assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == ("/out/in", "/environ")
    found = environ(server, "/environ")
    assert (found["REMOTE_ADDR"], found["wsgi.url_scheme"]) == ("127.0.0.1", "http")


def test_a_websocket_handshake_is_a_request_like_any_other(wsgi_server: Server) -> None:
    handshake = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )
    assert environ(wsgi_server, "/environ", *handshake)["HTTP_UPGRADE"] == "websocket"
