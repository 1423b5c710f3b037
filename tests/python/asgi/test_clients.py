"""Clients that vanish, stall, send nonsense or come in crowds: nothing leaks, others are served."""

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from asgi.client import Client, Cut, get
from asgi.process import Server, StartServer


def new_seed() -> int:
    """A seed that a failing test shows."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return seed


def holdings(server: Server) -> dict[str, Any]:
    """What the process holds: its fds, and what the application sees from within."""
    # Before the look from within, whose own connection would count until it is closed.
    descriptors = server.descriptors()
    found: dict[str, Any] = server.get("/inside").json()
    found["descriptors"] = descriptors
    return found


def settled(server: Server, base: dict[str, Any], seconds: float = 5.0) -> None:
    """What the process holds gets back to `base`: clients that left are gone for good.

    A close is told to the server by nobody but the kernel, so there is no event to wait for.
    """
    deadline = time.monotonic() + seconds
    while True:
        # So that the connection of the last look may go.
        time.sleep(0.02)
        found = holdings(server)
        if all(found[what] <= base[what] for what in base):
            return
        assert time.monotonic() < deadline, f"before {base}, now {found}\n{server.log.text[-3000:]}"


@pytest.fixture
def watched(server: Server) -> Iterator[Server]:
    """The module's server; it holds no more after the test than it held before."""
    looks = [holdings(server) for _ in range(3)]
    # The connection of the last look may still be closing.
    base = {what: min(look[what] for look in looks) for what in looks[0]}
    yield server
    settled(server, base)
    assert server.ask("/hello") == "hello"


def after_connect(client: Client, chooser: random.Random) -> None:
    """Nothing was said."""


def mid_head(client: Client, chooser: random.Random) -> None:
    request = get("/hello", "X-Header: value")
    client.send(request[: chooser.randrange(1, len(request))])


def mid_body(client: Client, chooser: random.Random) -> None:
    target = chooser.choice(["/checksum", "/mid_body", "/hello", "/echo", "/disconnect"])
    framing = chooser.choice(["Content-Length: 1000", "Transfer-Encoding: chunked"])
    client.send(get(target, framing, method="POST") + b"100\r\nabc"[: chooser.randrange(9)])


def while_it_runs(client: Client, chooser: random.Random) -> None:
    target = chooser.choice(["/disconnect", "/slow?seconds=0.05", "/after_end", "/raise_when_left"])
    client.send(get(target))
    if chooser.random() < 0.5:
        time.sleep(0.002)


def mid_response(client: Client, chooser: random.Random) -> None:
    target = chooser.choice(
        ["/send_late", "/send_blocked", "/big?size=2&kind=bytes", "/big?size=2&kind=bytearray"]
    )
    client.send(get(target))
    if chooser.random() < 0.5:
        client.receive(1000)


def pipelined(client: Client, chooser: random.Random) -> None:
    client.send(get("/slow?seconds=0.01") + get("/stream") * chooser.randrange(30) + b"GET /x")


@pytest.mark.parametrize("how", ["close", "reset", "shut_down"])
@pytest.mark.parametrize(
    "stage", [after_connect, mid_head, mid_body, while_it_runs, mid_response, pipelined]
)
def test_vanishing(watched: Server, stage: Any, how: str) -> None:
    """Twelve rounds in each of 18 ways: over 200."""
    chooser = random.Random(new_seed())
    kept = []
    for _ in range(12):
        client = watched.connect()
        stage(client, chooser)
        if how == "shut_down":
            client.shut_down()
            kept.append(client)
        else:
            getattr(client, how)()
    assert watched.ask("/hello") == "hello"
    for client in kept:
        with contextlib.suppress(OSError):
            while len(client.socket.recv(1 << 16)) > 0 and stage is not mid_response:
                pass
        client.close()
    assert "Unraisable" not in watched.log.text and "unraisable" not in watched.log.text


def test_slow_heads_do_not_hinder_others(watched: Server) -> None:
    clients = [watched.connect() for _ in range(20)]
    for client in clients:
        client.send(b"GET /hello HT")
    request = get("/hello")
    for position in range(13, len(request)):
        for client in clients:
            client.send(request[position : position + 1])
        if position % 5 == 0:
            began = time.monotonic()
            assert watched.ask("/hello") == "hello"
            assert time.monotonic() - began < 0.5
    for client in clients:
        assert client.read().body == b"hello"
        client.close()


def test_garbage(watched: Server) -> None:
    """500 heads that are garbage: each is answered by an error and a close, or asks for more."""
    chooser = random.Random(new_seed())
    statuses: dict[int, int] = {}
    with watched.connect() as client:
        model = get("/hello", "Content-Length: 3", method="POST") + b"abc"
    for number in range(500):
        if number % 2:
            data = chooser.randbytes(chooser.randrange(1, 200)) + b"\r\n\r\n"
        else:
            changed = bytearray(model)
            for _ in range(chooser.randrange(1, 4)):
                changed[chooser.randrange(len(changed))] = chooser.randrange(256)
            data = bytes(changed)
        with watched.connect() as client:
            client.send(data)
            client.shut_down()
            with contextlib.suppress(Cut):
                response = client.read()
                statuses[response.status] = statuses.get(response.status, 0) + 1
                if response.status >= 400:
                    assert response.closes, response
                    client.expect_end()
    assert set(statuses) <= {200, 400, 408, 414, 417, 431, 500, 501, 505}, statuses
    assert statuses[400] > 200, statuses


@pytest.mark.parametrize(
    ("request_bytes", "status", "said"),
    [
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: t\r\n\r\n", 414, b"target"),
        (get("/", *[f"X-{i}: {i}" for i in range(120)]), 431, b"too many header"),
        (get("/", "X: " + "x" * 70_000), 431, b"too long"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, b"Host header is missing"),
        (get("/", "Content-Length: 1", "Content-Length: 2"), 400, b"more than one Content-Length"),
        (get("/", "Content-Length: 1", "Transfer-Encoding: chunked"), 400, b"exclude each other"),
        (get("/", "Content-Length: -1"), 400, b"not a valid number"),
        (get("/", "Transfer-Encoding: gzip"), 400, b"does not end in one chunked"),
        (get("/", "Transfer-Encoding: gzip, chunked"), 501, b"only the transfer coding"),
        (get("/", "Bad Name: 1"), 400, b"name"),
        (b"GET / HTTP/1.1\r\nHost: t\r\nX : 1\r\n\r\n", 400, b"white space"),
        (b"GET / HTTP/1.1\r\nHost: t\r\n folded\r\n\r\n", 400, b"white space"),
        (b"GET / HTTP/2.0\r\nHost: t\r\n\r\n", 505, b"only HTTP/1.0 and HTTP/1.1"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, b"only HTTP/1.0 and HTTP/1.1"),
        (get("/", "Expect: tea"), 417, b"100-continue"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, b""),
    ],
)
def test_refusals_say_why_and_close(
    watched: Server, request_bytes: bytes, status: int, said: bytes
) -> None:
    with watched.connect() as client:
        client.send(request_bytes)
        response = client.read()
        assert (response.status, response.closes) == (status, True), response
        assert said in response.body
        assert response.header("content-type") == "text/plain; charset=utf-8"
        client.expect_end()


def test_a_header_bomb_is_not_read_to_its_end(watched: Server) -> None:
    with watched.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: t\r\n")
        line = b"X-Bomb: " + b"x" * 4000 + b"\r\n"
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(10_000):
                client.send(line)
        with contextlib.suppress(ConnectionResetError):
            assert client.read().status == 431


def test_running_out_of_descriptors(start_server: StartServer) -> None:
    """The rest of the clients wait in the queue; the server neither spins nor floods its log."""
    limit = 300
    server = start_server(
        "--max-connections", "1000", program=("prlimit", f"--nofile={limit}:{limit}")
    )
    server.ask("/hello")
    clients = [server.connect() for _ in range(limit + 20)]
    server.log.wait_for("WARNING cannot accept: Too many open files .*waits in the queue")
    before, mark = server.cpu_seconds(), server.log.mark()
    began = time.monotonic()
    # One of the accepted is served all the while.
    for _ in range(10):
        assert clients[0].ask("/hello").body == b"hello"
        time.sleep(0.1)
    seconds = time.monotonic() - began
    assert server.cpu_seconds() - before < 0.3 * seconds
    assert "cannot accept" not in server.log.since(mark)
    for client in clients[:50]:
        client.close()
    for client in clients[50:]:
        assert client.ask("/hello").body == b"hello"
        client.close()
    assert server.ask("/hello") == "hello"


def test_backpressure_bounds_requests_and_not_connections(start_server: StartServer) -> None:
    server = start_server("--backpressure", "2")
    idle = [server.connect() for _ in range(5)]
    for client in idle:
        assert client.ask("/hello").body == b"hello"
    clients = [server.connect() for _ in range(6)]
    for client in clients:
        client.send(get("/slow?seconds=0.1"))
    # What is noted is the most that ever ran at once.
    assert {client.read().body for client in clients} == {b"2"}
    for client in idle:
        assert client.ask("/hello").body == b"hello"


def test_pipelined_requests_do_not_get_around_backpressure(start_server: StartServer) -> None:
    server = start_server("--backpressure", "1")
    clients = [server.connect() for _ in range(3)]
    for client in clients:
        client.send(get("/slow?seconds=0.02") * 3)
    assert {client.read().body for client in clients for _ in range(3)} == {b"1"}


def test_max_connections(start_server: StartServer) -> None:
    server = start_server("--max-connections", "3")
    clients = [server.connect() for _ in range(3)]
    for client in clients:
        assert client.ask("/hello").body == b"hello"
    with server.connect() as waiting:
        waiting.send(get("/hello"))
        waiting.expect_silence(0.3)
        assert clients[1].ask("/hello").body == b"hello"
        clients[0].close()
        assert waiting.read().body == b"hello"


def test_many_clients_at_once(watched: Server) -> None:
    """A crowd of threads: every answer is its own client's, in order, and none is lost."""
    failures: list[BaseException] = []

    def ask(number: int) -> None:
        try:
            for turn in range(20):
                with watched.connect() as client:
                    for one in range(5):
                        target = f"/echo/{number}/{turn}/{one}"
                        assert client.ask(target).body == f"{target} ".encode()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures, failures


def test_more_operations_than_the_ring_has_entries(watched: Server) -> None:
    """A thousand connections ask at once: the submission queue has 256 entries, buffers are 128."""
    clients = [watched.connect() for _ in range(1000)]
    for client in clients:
        client.send(get("/hello"))
    for client in clients:
        assert client.read().body == b"hello"
    for client in clients:
        client.send(get("/checksum", "Content-Length: 40000", method="POST") + bytes(40000))
    for client in clients:
        assert client.read().status == 200
    for client in clients:
        client.close()
