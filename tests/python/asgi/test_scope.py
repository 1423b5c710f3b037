"""The ASGI connection scope, exactly: https://asgi.readthedocs.io/en/latest/specs/www.html."""

import ast
import socket
from pathlib import Path
from typing import Any

import pytest

from asgi.client import Client, get
from asgi.process import Server, StartServer


def scope_of(client: Client, request: bytes) -> dict[str, Any]:
    """The scope that a request to `/scope` made."""
    client.send(request)
    response = client.read()
    assert response.status == 200, response
    found = ast.literal_eval(response.body.decode())
    assert isinstance(found, dict)
    return found


def test_the_whole_scope(server: Server) -> None:
    with server.connect() as client:
        found = scope_of(
            client,
            b"GET /scope/a%20b%2Fc/%C3%A9?q=%20x&y=+ HTTP/1.1\r\n"
            b"HOST: Example.ORG\r\nX-Twice: 1\r\nAccept:  text/plain \r\nx-tWICE: 2\r\n\r\n",
        )
        assert found == {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/scope/a b/c/é",
            "raw_path": b"/scope/a%20b%2Fc/%C3%A9",
            "query_string": b"q=%20x&y=+",
            "root_path": "",
            "headers": [
                (b"host", b"Example.ORG"),
                (b"x-twice", b"1"),
                (b"accept", b"text/plain"),
                (b"x-twice", b"2"),
            ],
            "client": client.socket.getsockname(),
            "server": server.address,
            "extensions": {
                "http.response.early_hint": {},
                "http.response.pathsend": {},
                "http.response.zerocopysend": {},
            },
            "state": {"shared": ["from the lifespan"], "number": 1},
        }
        # Equality would take these for what they are not.
        assert type(found["client"]) is tuple and type(found["client"][1]) is int
        assert type(found["server"]) is tuple and type(found["server"][1]) is int
        assert all(type(pair) is tuple for pair in found["headers"])


def test_a_request_changes_its_own_copy_only(server: Server) -> None:
    with server.connect() as client:
        first = scope_of(client, get("/scope"))
        second = scope_of(client, get("/scope"))
    assert second["state"] == first["state"] == {"shared": ["from the lifespan"], "number": 1}
    assert second["asgi"] == {"version": "3.0", "spec_version": "2.5"}


def test_requests_of_one_connection_share_nothing_of_each_other(server: Server) -> None:
    with server.connect() as client:
        scope_of(client, get("/scope/first?one", "X-First: 1", "Cookie: a"))
        found = scope_of(client, b"PURGE /scope HTTP/1.1\r\nHost: other\r\n\r\n")
    assert (found["method"], found["query_string"]) == ("PURGE", b"")
    assert found["headers"] == [(b"host", b"other")]


def test_http_1_0(server: Server) -> None:
    with server.connect() as client:
        found = scope_of(client, b"GET /scope HTTP/1.0\r\n\r\n")
    assert (found["http_version"], found["headers"]) == ("1.0", [])


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        (b"/scope", "/scope", b"/scope", b""),
        (b"/scope?", "/scope", b"/scope", b""),
        (b"/scope?a?b", "/scope", b"/scope", b"a?b"),
        (b"/scope/%ff", "/scope/�", b"/scope/%ff", b""),
        (b"/scope/%zz%4", "/scope/%zz%4", b"/scope/%zz%4", b""),
        (b"/scope/%2541", "/scope/%41", b"/scope/%2541", b""),
        (b"/scope/..//x", "/scope/..//x", b"/scope/..//x", b""),
        (b"http://else.where:81/scope/a?b", "/scope/a", b"/scope/a", b"b"),
    ],
)
def test_targets(server: Server, target: bytes, path: str, raw_path: bytes, query: bytes) -> None:
    with server.connect() as client:
        found = scope_of(client, b"GET " + target + b" HTTP/1.1\r\nHost: test\r\n\r\n")
    assert (found["path"], found["raw_path"], found["query_string"]) == (path, raw_path, query)


def test_root_path_is_the_prefix_and_part_of_the_path(start_server: StartServer) -> None:
    server = start_server("--url-path-prefix", "/api")
    with server.connect() as client:
        found = scope_of(client, get("/api/scope/x"))
    assert (found["root_path"], found["path"]) == ("/api", "/api/scope/x")
    assert found["raw_path"] == b"/api/scope/x"


def test_without_lifespan_there_is_no_state(start_server: StartServer) -> None:
    server = start_server("--interface", "asginl")
    with server.connect() as client:
        assert "state" not in scope_of(client, get("/scope"))


def test_ipv6(start_server: StartServer) -> None:
    server = start_server("--host", "::1")
    assert server.address[0] == "::1"
    with server.connect() as client:
        found = scope_of(client, get("/scope"))
        assert found["client"] == client.socket.getsockname()[:2]
        assert found["server"] == server.address


def test_ipv4_on_a_dual_stack_listener_is_shown_as_ipv4(start_server: StartServer) -> None:
    server = start_server("--host", "::")
    port = server.address[1]
    assert isinstance(port, int)
    with Client(("127.0.0.1", port)) as client:
        found = scope_of(client, get("/scope"))
        assert found["client"] == client.socket.getsockname()
        assert found["server"] == ("127.0.0.1", port)
    with Client(("::1", port)) as client:
        found = scope_of(client, get("/scope"))
        assert found["client"] == ("::1", client.socket.getsockname()[1])


def test_a_unix_socket(start_server: StartServer, tmp_path: Path) -> None:
    path = str(tmp_path / "web.sock")
    server = start_server("--uds", path)
    with server.connect() as client:
        found = scope_of(client, get("/scope"))
    assert (found["client"], found["server"]) == (None, (path, None))


def test_an_abstract_socket(start_server: StartServer, tmp_path: Path) -> None:
    name = f"@granian-uring-{tmp_path.name}-{tmp_path.stat().st_ino}"
    server = start_server("--uds", name)
    with server.connect() as client:
        found = scope_of(client, get("/scope"))
    assert (found["client"], found["server"]) == (None, (name, None))


def test_a_client_with_an_address_on_a_unix_socket(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server("--uds", str(tmp_path / "web.sock"))
    client = socket.socket(socket.AF_UNIX)
    client.bind(str(tmp_path / "client.sock"))
    assert isinstance(server.address, str)
    client.connect(server.address)
    with client:
        client.sendall(get("/scope", "Connection: close"))
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert b"'client': None" in answer


def test_a_request_is_a_task_of_its_own(server: Server) -> None:
    assert server.ask("/task") == "request done"
