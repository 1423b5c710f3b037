"""The scope and its headers."""

import ast
from pathlib import Path
from typing import Any

import pytest
from asgi.client import get
from asgi.process import Server, StartServer


def asked(server: Server, target: str, *headers: str, **options: Any) -> dict[str, Any]:
    with server.connect() as client:
        client.send(get(target, *headers, **options))
        response = client.read(options.get("method", "GET"))
    assert response.status == 200, response
    found: dict[str, Any] = ast.literal_eval(response.body.decode())
    return found


def test_the_scope_has_every_attribute(server: Server) -> None:
    with server.connect() as client:
        address = client.socket.getsockname()
        client.send(get("/scope/a%20%C5%BE/%ff?x=%41&y=b", "X-One: 1", "Accept: */*"))
        found = ast.literal_eval(client.read().body.decode())
    assert found == {
        "authority": None,
        "client": f"{address[0]}:{address[1]}",
        "headers": [("host", "test"), ("x-one", "1"), ("accept", "*/*")],
        "http_version": "1.1",
        "method": "GET",
        "path": "/scope/a ž/\ufffd",
        "proto": "http",
        "query_string": "x=%41&y=b",
        "rsgi_version": "1.6",
        "scheme": "http",
        "server": server.url.removeprefix("http://"),
    }


def test_http_1_0_is_1_and_a_method_is_as_sent(server: Server) -> None:
    assert asked(server, "/scope", version="1.0")["http_version"] == "1"
    assert asked(server, "/scope", method="PURGE")["method"] == "PURGE"
    assert asked(server, "/scope")["query_string"] == ""


def test_a_unix_socket_s_path_is_the_server(start_server: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    server = start_server("--uds", str(path), app="rsgi.apps:app")
    found = asked(server, "/scope")
    assert (found["server"], found["client"]) == (str(path), "")


def test_ipv6_addresses_are_in_brackets(start_server: StartServer) -> None:
    server = start_server("--host", "::1", "--port", "0", app="rsgi.apps:app")
    found = asked(server, "/scope")
    assert found["client"].startswith("[::1]:") and found["server"].startswith("[::1]:")


def test_what_a_trusted_proxy_tells(start_server: StartServer) -> None:
    server = start_server("--proxy-headers", app="rsgi.apps:app")
    told = ("X-Forwarded-For: 2001:db8::1", "X-Forwarded-Proto: https")
    found = asked(server, "/scope", *told)
    assert (found["client"], found["scheme"]) == ("[2001:db8::1]:0", "https")


def test_the_headers_are_a_mapping(server: Server) -> None:
    lines = ("X-Twice: 1", "X-Latin: \xe9", "x-twice: 2")
    found = asked(server, "/headers", *lines)
    assert found == {
        "keys": ["host", "x-twice", "x-latin"],
        "values": ["test", "1", "é", "2"],
        "iterated": ["host", "x-twice", "x-latin"],
        "dict": {"host": "test", "x-twice": "1", "x-latin": "é"},
        "length": 3,
        "get": ["1", None, 3],
        "all": [["1", "2"], []],
        "in": [True, False],
        "item": "é",
        "missing": ("nothing",),
        "immutable": True,
    }


def test_a_request_has_a_task_and_a_context_of_its_own(server: Server) -> None:
    assert [server.ask("/task") for _ in range(3)] == ["request clean"] * 3


@pytest.mark.parametrize("interface", ["auto", "rsgi"])
def test_the_log_says_what_was_found(start_server: StartServer, interface: str) -> None:
    server = start_server("--interface", interface, app="rsgi.apps:app")
    server.log.wait_for("INFO the application: RSGI, function app$")
    assert server.ask("/hello") == "hello"


def test_the_access_log(start_server: StartServer) -> None:
    server = start_server("--access-log", app="rsgi.apps:app")
    server.ask("/hello?a=b")
    server.out.wait_for(r'"GET /hello HTTP/1.1" 200')
    with server.connect() as client:
        assert client.ask("/fault/before").status == 500
    server.out.wait_for(r'"GET /fault/before HTTP/1.1" 500')
