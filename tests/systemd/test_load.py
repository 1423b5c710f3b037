"""The load's own judgement: servers that do one thing wrong, and how that is counted.

The restart tests say "nothing was lost"; these show that a loss would have been seen.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from collections.abc import Awaitable, Callable

import load
import pytest
from load import Address, Connection, Load, Report

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
# What a server does with one request: the request's id to the bytes that it answers.
Reply = Callable[[str], bytes]


def right(id: str, *, headers: str = "", status: int = 200) -> bytes:
    """A right answer."""
    body = json.dumps({"id": id, "pid": 1, "generation": "0"}) + "\n"
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return (head + body).encode()


def right_and_close(id: str) -> bytes:
    """A right answer that ends the connection."""
    return right(id, headers="Connection: close\r\n")


def in_chunks(id: str) -> bytes:
    """A right answer in chunks."""
    body = right(id).partition(b"\r\n\r\n")[2]
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"5\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (body[:5], len(body) - 5, body[5:])


def reset(writer: asyncio.StreamWriter) -> None:
    """Closes with a reset: SO_LINGER with a time of zero, socket(7)."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    writer.transport.abort()


def replying(*replies: Reply, end: Callable[[asyncio.StreamWriter], None]) -> Serve:
    """A server that gives these replies on each connection, and then ends it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in replies:
            writer.write(reply(await read_id(reader)))
            await writer.drain()
        if end is reset:
            await asyncio.sleep(0.05)  # the client reads what was sent, which a reset would drop
        end(writer)

    return serve


async def read_id(reader: asyncio.StreamReader) -> str:
    """The id of the next request."""
    found = re.search(rb"id=([\w-]+)", await reader.readuntil(b"\r\n\r\n"))
    assert found is not None
    return found[1].decode()


def judged(serve: Serve, ask: Callable[[Load], Awaitable[None]]) -> Report:
    """What the load reports of one client's requests to a server."""

    async def run() -> Report:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        judge = Load(Address.parse(f"tcp:{host}:{port}"), seed=0)
        async with server:
            await ask(judge)
        return judge.report

    return asyncio.run(run())


async def ask_once(judge: Load) -> None:
    """A request on a new connection."""
    await judge.ask("new", None, judge.get("/echo"))


async def ask_twice(judge: Load) -> None:
    """A second request on the same connection, when the server has had time to end it."""
    connection = await judge.ask("busy", None, judge.get("/echo"))
    await asyncio.sleep(0.1)
    await judge.ask("busy", connection, judge.get("/echo"))


async def ask_together(judge: Load) -> None:
    """Pipelined requests, then those that were left."""
    requests = [judge.get("/echo") for _ in range(3)]
    connection, left = await judge.ask_together(None, requests)
    judge.report.resent += len(left)
    while left:
        connection, left = await judge.ask_together(connection, left)


close = asyncio.StreamWriter.close


@pytest.mark.parametrize(
    ("kind", "serve"),
    [
        ("ok", replying(right, end=close)),
        ("ok", replying(right_and_close, end=close)),
        ("ok", replying(in_chunks, end=close)),
        ("cut", replying(lambda id: b"", end=close)),
        ("cut", replying(lambda id: right(id)[:-1], end=close)),
        ("cut", replying(lambda id: in_chunks(id)[:-2], end=close)),
        ("reset", replying(lambda id: right(id)[:-1], end=reset)),
        ("wrong", replying(lambda id: right("another"), end=close)),
        ("wrong", replying(lambda id: right(id, status=500), end=close)),
        ("wrong", replying(lambda id: right_and_close(id) + b"!", end=close)),
        ("wrong", replying(lambda id: in_chunks(id).replace(b"\r\n5\r", b"\r\n4\r"), end=close)),
        (
            "wrong",
            replying(lambda id: right(id, headers="Transfer-Encoding: chunked\r\n"), end=close),
        ),
        ("wrong", replying(lambda id: b"HTTP/1.1 200 OK\r\n\r\n", end=close)),
        ("hung", replying(lambda id: right(id)[:-1], right, end=close)),
    ],
)
def test_outcome_of_one_request(kind: str, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "HUNG_SECONDS", 0.5)
    report = judged(serve, ask_once)
    assert report.outcomes["new"] == {kind: 1}, report.losses
    assert report.crossed == 0


def test_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]

    async def run() -> Report:
        judge = Load(Address.parse(f"tcp:127.0.0.1:{port}"), seed=0)
        await ask_once(judge)
        return judge.report

    assert asyncio.run(run()).outcomes["new"] == {"refused": 1}


@pytest.mark.parametrize("end", [close, reset])
def test_crossed_request_is_asked_again(end: Callable[[asyncio.StreamWriter], None]) -> None:
    report = judged(replying(right, end=end), ask_twice)
    assert report.outcomes["busy"] == {"ok": 2}, report.losses
    assert report.crossed == 1


def test_crossed_request_whose_second_attempt_fails_is_a_loss() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            writer.write(right(await read_id(reader)))
        writer.close()

    report = judged(serve, ask_twice)
    assert report.crossed == 1
    assert sum(report.outcomes["busy"].values()) == 2
    assert report.outcomes["busy"]["ok"] == 1


def test_a_byte_of_an_answer_makes_it_a_cut() -> None:
    report = judged(replying(right, lambda id: b"H", end=close), ask_twice)
    assert report.crossed == 0
    assert report.outcomes["busy"] == {"ok": 1, "cut": 1}


def test_pipelined_requests_left_after_a_close_are_sent_again() -> None:
    report = judged(replying(right, right_and_close, end=close), ask_together)
    assert report.outcomes["pipeline"] == {"ok": 3}, report.losses
    assert report.resent == 1


def test_pipelined_requests_left_without_a_close_are_lost() -> None:
    report = judged(replying(right, end=asyncio.StreamWriter.write_eof), ask_together)
    assert report.outcomes["pipeline"] == {"ok": 1, "cut": 2}
    assert report.resent == 0


def test_look_sees_a_closed_connection() -> None:
    async def look(judge: Load) -> None:
        connection = await Connection.open(judge.address)
        await asyncio.sleep(0.1)
        judge.report.closed += not connection.look()
        connection.close()

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    assert judged(hang_up, look).closed == 1
    assert judged(keep, look).closed == 0
