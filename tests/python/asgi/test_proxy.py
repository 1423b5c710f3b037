"""Behind a proxy: who is believed, and what the application is told then.

127.0.0.1 is the trusted proxy of most tests, and 127.0.0.2 somebody else. What each header means is
tested in `src/proxy`.
"""

import ast
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from asgi.client import Client, get
from asgi.process import Server, StartServer, run

FORWARDED = (
    "X-Forwarded-For: 203.0.113.7",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: example.org",
    "X-Forwarded-Prefix: /outer",
)
PROXY_1 = b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 443\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def proxy_2(*vectors: bytes, command: int = 0x21) -> bytes:
    """A header of version 2, as `PROXY_1`."""
    ends = socket.inet_aton("203.0.113.7") + socket.inet_aton("192.0.2.1")
    rest = ends + struct.pack("!HH", 40000, 443) + b"".join(vectors)
    return SIGNATURE + struct.pack("!BBH", command, 0x11, len(rest)) + rest


def vector(kind: int, value: bytes) -> bytes:
    """One of its vectors."""
    return struct.pack("!BH", kind, len(value)) + value


def scope_of(client: Client, *headers: str, target: str = "/scope") -> dict[str, Any]:
    """The scope of one request."""
    response = client.ask(target, *headers)
    assert response.status == 200, response
    found = ast.literal_eval(response.body.decode())
    assert isinstance(found, dict)
    return found


def from_(server: Server, source: str) -> Client:
    """A client with this address."""
    return Client(server.address, source=source)


@contextmanager
def listening() -> Iterator[socket.socket]:
    """A socket for `--fd`, whose address is known before the server starts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener


def shown(listener: socket.socket) -> str:
    """The address of a listener, as `--proxy-protocol` takes it."""
    host, port = listener.getsockname()
    return f"{host}:{port}"


def test_headers_count_only_where_that_is_asked_for(server: Server) -> None:
    with server.connect() as client:
        found = scope_of(client, *FORWARDED)
        assert found["client"] == client.socket.getsockname()
        assert (found["scheme"], found["server"]) == ("http", server.address)
        assert (b"x-forwarded-for", b"203.0.113.7") in found["headers"]


def test_only_trusted_peers_are_believed(start_server: StartServer) -> None:
    server = start_server("--proxy-headers", "--proxy-trusted", "127.0.0.1")
    with from_(server, "127.0.0.1") as client:
        found = scope_of(client, *FORWARDED)
        assert found["client"] == ("203.0.113.7", 0)
        assert type(found["client"]) is tuple and type(found["client"][1]) is int
        assert (found["scheme"], found["server"]) == ("https", ("example.org", 443))
        # Neither is asked for.
        assert (found["root_path"], found["path"]) == ("", "/scope")
        assert (b"host", b"test") in found["headers"]
    with from_(server, "127.0.0.2") as client:
        found = scope_of(client, *FORWARDED)
        assert found["client"] == client.socket.getsockname()
        assert (found["scheme"], found["server"]) == ("http", server.address)
        assert (b"x-forwarded-for", b"203.0.113.7") in found["headers"]


def test_each_request_of_a_connection_has_a_client_of_its_own(start_server: StartServer) -> None:
    server = start_server("--proxy-headers", "--access-log", "--access-log-fmt", "<%(addr)s>")
    with server.connect() as client:
        own = client.socket.getsockname()
        for told, expected in [
            ("203.0.113.7", ("203.0.113.7", 0)),
            ("", own),
            ("[2001:db8::7]:80", ("2001:db8::7", 80)),
            ("made up", own),
            ("evil, 203.0.113.8:9, 127.0.0.3", ("203.0.113.8", 9)),
        ]:
            found = scope_of(client, f"X-Forwarded-For: {told}")
            assert found["client"] == expected, told
            server.out.wait_for(f"^<{expected[0]}>$")
        assert scope_of(client)["client"] == own


def test_the_other_family_of_headers(start_server: StartServer) -> None:
    server = start_server("--proxy-headers", "--proxy-headers-format", "forwarded")
    with server.connect() as client:
        element = 'Forwarded: for=made-up, for="[2001:db8::7]:80";proto=https;host=example.org'
        found = scope_of(client, element, "X-Forwarded-For: 203.0.113.7")
        assert found["client"] == ("2001:db8::7", 80)
        assert (found["scheme"], found["server"]) == ("https", ("example.org", 443))


@pytest.mark.parametrize("trusted", [[], ["unix"], ["unix:{path}"], ["*"]])
def test_unix_sockets_are_trusted(
    start_server: StartServer, tmp_path: Path, trusted: list[str]
) -> None:
    path = str(tmp_path / "web.sock")
    words = [word for one in trusted for word in ("--proxy-trusted", one.format(path=path))]
    server = start_server("--uds", path, "--proxy-headers", *words)
    with server.connect() as client:
        found = scope_of(client, *FORWARDED)
        assert (found["client"], found["scheme"]) == (("203.0.113.7", 0), "https")
        found = scope_of(client)
        assert (found["client"], found["scheme"], found["server"]) == (None, "http", (path, None))


@pytest.mark.parametrize("trusted", ["127.0.0.1", "unix:/run/another.sock"])
def test_unix_sockets_that_are_not_trusted(
    start_server: StartServer, tmp_path: Path, trusted: str
) -> None:
    path = str(tmp_path / "web.sock")
    server = start_server("--uds", path, "--proxy-headers", "--proxy-trusted", trusted)
    with server.connect() as client:
        found = scope_of(client, *FORWARDED)
        assert (found["client"], found["scheme"], found["server"]) == (None, "http", (path, None))


def test_headers_of_others_can_be_removed(start_server: StartServer) -> None:
    server = start_server("--proxy-strip-untrusted", "--proxy-trusted", "127.0.0.1")
    sent = (*FORWARDED, "Forwarded: for=_x", "X-Real-IP: 203.0.113.7", "X_Forwarded_For: a")
    with from_(server, "127.0.0.2") as client:
        found = scope_of(client, *sent, "X-Last: kept")
        assert found["headers"] == [(b"host", b"test"), (b"x-last", b"kept")]
    with from_(server, "127.0.0.1") as client:
        found = scope_of(client, *sent)
        assert len(found["headers"]) == 1 + len(sent)
        # They were not to be read.
        assert found["client"] == client.socket.getsockname()


def test_what_starlette_makes_of_it(start_server: StartServer) -> None:
    server = start_server(
        "--proxy-headers", "--proxy-rewrite-host", "--proxy-prefix", app="asgi.urls:app"
    )
    with server.connect() as client:
        told = json.loads(client.ask("/who?q=1", *FORWARDED).body)
        assert told == {
            "client": ["203.0.113.7", 0],
            "url": "https://example.org/outer/who?q=1",
            "base_url": "https://example.org/outer/",
            "url_for": "https://example.org/outer/shop/7",
        }
        told = json.loads(client.ask("/shop/3", "X-Forwarded-Port: 8443", *FORWARDED).body)
        assert told["url"] == "https://example.org:8443/outer/shop/3"
        told = json.loads(client.ask("/who", "X-Forwarded-Prefix: //evil.example").body)
        assert told["url"] == "http://test/who"


@pytest.mark.parametrize(
    ("received", "path"),
    [
        ("/api/scope", "/api/scope"),
        ("/scope", "/api/scope"),
        ("/scope/api", "/api/scope/api"),
        ("/scope%2Fapi", "/api/scope/api"),
        ("/%61pi/scope", "/api/scope"),
    ],
)
def test_path_has_the_prefix_whether_or_not_the_proxy_took_it_off(
    prefixed: Server, received: str, path: str
) -> None:
    with prefixed.connect() as client:
        found = scope_of(client, target=received)
        assert (found["root_path"], found["path"]) == ("/api", path)
        assert found["raw_path"] == received.encode()
        found = scope_of(client, "X-Forwarded-Prefix: /outer/", target=received)
        assert (found["root_path"], found["path"]) == ("/outer/api", "/outer" + path)
        assert found["raw_path"] == received.encode()


@pytest.fixture(scope="module")
def prefixed() -> Iterator[Server]:
    """A server below `/api`."""
    words = ("--url-path-prefix", "/api/", "--proxy-headers", "--proxy-prefix")
    with Server(*words) as server:
        yield server.wait_until_ready()
        server.stop()


def test_a_prefix_ends_where_a_segment_does(prefixed: Server) -> None:
    with prefixed.connect() as client:
        # Not below /api: this application says hello to what it does not know.
        assert client.ask("/apish/scope").body == b"hello"


def test_starlette_below_a_prefix(start_server: StartServer) -> None:
    server = start_server("--url-path-prefix", "/api", app="asgi.urls:app")
    with server.connect() as client:
        for target in ("/api/who", "/who"):
            told = json.loads(client.ask(target).body)
            assert told["url"] == "http://test/api/who"
            assert told["url_for"] == "http://test/api/shop/7"


TLS = vector(
    0x20, b"\1\0\0\0\0" + vector(0x21, b"TLSv1.3") + vector(0x23, b"TLS_AES_128_GCM_SHA256")
)


@pytest.mark.parametrize(
    ("header", "scheme"),
    [(PROXY_1, "http"), (proxy_2(), "http"), (proxy_2(TLS), "https")],
    ids=["1", "2", "tls"],
)
def test_proxy_protocol(start_server: StartServer, header: bytes, scheme: str) -> None:
    with listening() as proxied, listening() as plain:
        fds = (proxied.fileno(), plain.fileno())
        words = [word for fd in fds for word in ("--fd", str(fd))]
        start_server(*words, "--proxy-protocol", shown(proxied), "--proxy-headers", pass_fds=fds)
        with Client(proxied.getsockname()) as client:
            client.send(header)
            for _ in range(2):
                found = scope_of(client, *FORWARDED)
                # Who it names is not trusted.
                assert found["client"] == ("203.0.113.7", 40000)
                assert (found["scheme"], found["server"]) == (scheme, ("192.0.2.1", 443))
        # The next connection on that place has nothing of it, also with the same ends.
        with Client(proxied.getsockname()) as client:
            client.send(proxy_2())
            assert scope_of(client)["scheme"] == "http"
        with Client(proxied.getsockname()) as client:
            client.send(proxy_2(command=0x20) + get("/scope"))
            found = ast.literal_eval(client.read().body.decode())
            assert found["client"] == client.socket.getsockname()
            assert (found["scheme"], found["server"]) == ("http", proxied.getsockname())
        with Client(plain.getsockname()) as client:
            found = scope_of(client)
            assert found["client"] == client.socket.getsockname()
        with Client(plain.getsockname()) as client:
            client.send(header + get("/scope"))
            assert client.read().status == 400


def test_headers_count_if_the_address_of_the_proxy_protocol_is_trusted(
    start_server: StartServer, tmp_path: Path
) -> None:
    path = str(tmp_path / "web.sock")
    server = start_server(
        *("--uds", path, "--proxy-protocol", path, "--proxy-headers"),
        *("--proxy-trusted", "unix", "--proxy-trusted", "203.0.113.0/24"),
    )
    with server.connect() as client:
        client.send(PROXY_1)
        found = scope_of(client, "X-Forwarded-For: 198.51.100.1")
        assert found["client"] == ("198.51.100.1", 0)


def assert_refused(server: Server, source: str, begin: bytes) -> None:
    """A connection ends without a byte, perhaps before its client knows that there is one."""
    with suppress(ConnectionResetError, BrokenPipeError), from_(server, source) as client:
        client.send(begin)
        assert client.read_to_end() == b""


def test_proxy_protocol_is_for_trusted_peers_and_must_be_there(start_server: StartServer) -> None:
    with listening() as listener:
        fd = listener.fileno()
        server = start_server(
            *("--fd", str(fd), "--proxy-protocol", shown(listener)),
            *("--proxy-trusted", "127.0.0.1", "--log-level", "debug"),
            pass_fds=(fd,),
        )
        # Refused before a byte of theirs.
        assert_refused(server, "127.0.0.2", b"")
        server.log.wait_for(r"DEBUG refused 127\.0\.0\.2:\d+: not one of --proxy-trusted")
        for begin, reason in [
            (get("/scope"), "expected a PROXY protocol header"),
            (b"PROXY TCP4 203.0.113.7\r\n" + get("/scope"), "malformed"),
            (SIGNATURE + b"\x31\x11\0\0", "malformed"),
            (proxy_2(vector(3, b"\0\0\0\0")) + get("/scope"), "checksum"),
        ]:
            mark = server.log.mark()
            assert_refused(server, "127.0.0.1", begin)
            server.log.wait_for(rf"DEBUG refused 127\.0\.0\.1:\d+: .*{reason}", since=mark)
        with from_(server, "127.0.0.1") as client:
            client.send(PROXY_1)
            assert scope_of(client)["client"] == ("203.0.113.7", 40000)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--proxy-trusted", "localhost"], "expected an IP address, a network, unix"),
        (["--proxy-trusted", "10.0.0.1/8"], "10.0.0.1/8"),
        (["--proxy-protocol", "web"], "expected one of the listeners unix:@granian-uring-proxy"),
        (["--access-log-fmt", "%(adr)s"], "unknown atom %(adr)s"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_the_application_is_imported(
    words: list[str], message: str
) -> None:
    # An application that is not there would be another error, with another code.
    ended = run("not.there:app", "--uds", "@granian-uring-proxy", *words)
    assert ended.returncode == 1, ended.stderr
    error, empty, hint = ended.stderr.splitlines()
    assert error.startswith("error: ") and message in error, ended.stderr
    assert empty == "" and hint.startswith("hint: ")
