"""Limits and timeouts as options of the process, and what an application sees of them.

What each does to the byte is tested in virtual time (`tests/limits.rs`); here is that the options
reach the core, with one real clock.
"""

import re
from pathlib import Path

import pytest

from asgi.client import Client, Response, get
from asgi.process import IDLE_BYTES, Server, StartServer


def refusal(client: Client, status: int) -> Response:
    """Reads an answer of the server's own: a line of text, and the connection closes."""
    response = client.read()
    assert response.status == status, response
    assert response.closes and response.framing == "length"
    assert response.header("content-type") == "text/plain; charset=utf-8"
    assert response.body.endswith(b"\n") and len(response.body) < 100
    client.shut_down()
    client.expect_end()
    return response


HEADERS = [f"X-{number}: 1" for number in range(8)]


@pytest.mark.parametrize(
    ("option", "request_bytes", "status"),
    [
        (("--max-body-size", "9"), get("/echo", "Content-Length: 10", method="POST"), 413),
        (("--http1-max-target-size", "9"), get("/123456789"), 414),
        (("--http1-max-headers", "8"), get("/hello", *HEADERS), 431),
        (("--http1-buffer-size", "8192"), get("/hello", "X-Long: " + "x" * 8192), 431),
        (
            ("--http1-max-trailer-size", "9"),
            get("/echo", "Transfer-Encoding: chunked", method="POST") + b"0\r\nX-Trail: 1\r\n\r\n",
            431,
        ),
        (("--http1-header-read-timeout", "300"), b"GET /hello HTTP/1.1\r\nHo", 408),
        (
            ("--http1-body-timeout", "0.3"),
            get("/echo", "Content-Length: 10", method="POST") + b"half",
            408,
        ),
        (("--request-timeout", "0.3"), get("/never"), 503),
    ],
)
def test_refusals(
    start_server: StartServer, option: tuple[str, str], request_bytes: bytes, status: int
) -> None:
    server = start_server(*option)
    with server.connect() as client:
        client.send(request_bytes)
        refusal(client, status)
    assert server.ask("/hello") == "hello"


@pytest.mark.parametrize(
    ("option", "sent"),
    [
        (("--http1-first-byte-timeout", "0.3"), b""),
        (("--http1-keep-alive-timeout", "0.3"), get("/hello")),
        (("--http1-linger-timeout", "0.3"), get("/hello", "Connection: close")),
    ],
)
def test_quiet_ends(start_server: StartServer, option: tuple[str, str], sent: bytes) -> None:
    server = start_server(*option)
    with server.connect() as client:
        if sent:
            client.send(sent)
            assert client.read().status == 200
        client.expect_end()


def test_a_client_that_takes_nothing_is_cut(start_server: StartServer) -> None:
    server = start_server("--http1-write-timeout", "0.3")
    with server.connect(receive_buffer=4096) as client:
        client.send(get("/send_blocked"))
        server.out.wait_for("note: blocked send raised ClientDisconnected")
        with pytest.raises(ConnectionResetError):
            client.read_to_end()


def test_without_keep_alive_every_answer_closes(start_server: StartServer) -> None:
    server = start_server("--no-http1-keep-alive")
    with server.connect() as client:
        client.send(get("/hello") + get("/hello"))
        assert client.read().closes
        client.shut_down()
        client.expect_end()


def test_a_body_that_drips_is_refused(start_server: StartServer) -> None:
    # Without the rate this client would be served for 1000 s.
    server = start_server("--http1-body-timeout", "1", "--http1-body-min-rate", "100")
    with server.connect() as client:
        client.send(get("/echo", "Content-Length: 2000", method="POST"))
        client.socket.settimeout(0.5)
        for _ in range(5):
            client.send(b"x")
            try:
                answer = client.socket.recv(1000)
                break
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_request_that_takes_too_long_is_cancelled(start_server: StartServer) -> None:
    server = start_server("--request-timeout", "0.3")
    with server.connect() as client:
        client.send(get("/never"))
        assert refusal(client, 503).header("retry-after") == "1"
    server.out.wait_for("note: never: cancelled")
    server.log.wait_for(
        "WARNING a request took longer than --request-timeout; the client got a 503"
    )
    with server.connect() as client:
        client.send(get("/send_late?catch=1"))
        with pytest.raises(ConnectionResetError):
            client.read_to_end()
    server.out.wait_for("note: send_late: over")
    server.log.wait_for("its answer had begun, so the connection was reset")
    assert server.ask("/hello") == "hello"
    assert "Traceback" not in server.log.text and "ERROR" not in server.log.text


def test_overload_refuses_if_asked_to(start_server: StartServer) -> None:
    server = start_server("--backpressure", "1", "--overload", "refuse")
    with server.connect() as idle, server.connect() as busy, server.connect() as other:
        assert idle.ask("/hello").status == 200
        busy.send(get("/disconnect"))
        server.out.wait_for("note: disconnect: waiting")
        other.send(get("/hello"))
        assert refusal(other, 503).header("retry-after") == "1"
        server.log.wait_for("WARNING as many requests run as --backpressure allows")
        busy.reset()
        server.out.wait_for("note: disconnect: {")
        assert idle.ask("/hello").status == 200


def test_who_pipelines_flat_out_leaves_others_their_turn(start_server: StartServer) -> None:
    """250 requests of 4 ms come in one piece; another client asks after the first of them."""
    server = start_server()
    count = 250
    with server.connect() as greedy, server.connect() as other:
        assert other.ask("/hello").status == 200
        greedy.send(get("/block?seconds=0.004") * count)
        assert greedy.read().status == 200
        assert other.ask("/hello").status == 200
        begun = len(re.findall("note: blocking", server.out.text))
        assert begun < count // 2, f"{begun} of {count} came first"
        for _ in range(count - 1):
            assert greedy.read().status == 200


def test_an_idle_connection_costs_little(start_server: StartServer) -> None:
    """Little memory of the process, also after an answer with a long head."""
    server = start_server()
    clients = [server.connect() for _ in range(100)]
    for client in clients:
        assert client.ask("/long_head").status == 200
    before = private_kib(server)
    count = 1500
    for _ in range(count):
        clients.append(server.connect())
        assert clients[-1].ask("/long_head").status == 200
    each = (private_kib(server) - before) * 1024 / count
    for client in clients:
        client.close()
    assert each < IDLE_BYTES, f"{each:.0f} bytes for each idle connection"


def private_kib(server: Server) -> int:
    """Memory that the process alone has, in KiB."""
    text = Path(f"/proc/{server.pid}/smaps_rollup").read_text()
    found = re.search(r"^Private_Dirty:\s+(\d+)", text, re.MULTILINE)
    assert found is not None
    return int(found[1])
