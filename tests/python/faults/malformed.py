"""Messages that are wrong, and messages without end."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator
from itertools import repeat

from faults.clients import Address, Peer, check, request, status_of

# Valid ones, to be changed. The application answers each of them with 200.
MODELS = [
    request("/hello", "Accept: */*", "Cookie: a=b; c=d"),
    request("/hello", version="1.0"),
    request("/hello?a=%20b#", "Connection: keep-alive, close") + request("/hello"),
    request("/sink", "Content-Length: 5", method="POST", body=b"abcde"),
    request("/sink", "Expect: 100-continue", "Content-Length: 2", method="POST", body=b"ab"),
    request(
        "/sink",
        "Transfer-Encoding: chunked",
        "Trailer: X-Sum",
        method="POST",
        body=b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n",
    ),
    request("http://attack/hello", "Transfer-Encoding: gzip, chunked"),
]
# Bytes that mean something, put where they mean something else.
TOKENS = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b"%",
    b"\xff",
    b"HTTP/1.1",
    b"Content-Length: 7\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: other\r\n",
    b"18446744073709551616",
    b"-1",
    b"ffffffffffffffff",
]


def mutated(chooser: random.Random) -> bytes:
    """A request with one to four changes."""
    data = bytearray(chooser.choice(MODELS))
    for _ in range(chooser.randrange(1, 5)):
        begin = chooser.randrange(len(data) + 1)
        end = min(len(data), begin + chooser.randrange(1, 12))
        match chooser.randrange(5):
            case 0:
                data[begin:end] = chooser.randbytes(end - begin)
            case 1:
                del data[begin:end]
            case 2:
                data[begin:begin] = data[begin:end] * chooser.randrange(1, 20)
            case 3:
                data[begin:begin] = chooser.choice(TOKENS)
            case _:
                data[begin:end] = chooser.choice(TOKENS)
    return bytes(data)


async def send_garbage(address: Address, seed: int, number: int) -> str:
    """One connection full of garbage. Returns what came of it: a status, or how it ended."""
    chooser = random.Random(f"{seed}/{number}")
    if chooser.random() < 0.3:
        data = chooser.randbytes(chooser.randrange(1, 400)) + chooser.choice([b"", b"\r\n\r\n"])
    else:
        data = mutated(chooser)
    async with Peer(address, number) as peer:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            # In two parts, so that the seam is anywhere.
            seam = chooser.randrange(len(data) + 1)
            await peer.send(data[:seam])
            if chooser.random() < 0.3:
                await asyncio.sleep(0)
            await peer.send(data[seam:])
        match chooser.randrange(5):
            case 0:
                return "closed"
            case 1:
                peer.reset()
                return "reset"
        peer.shut_down()
        answer = await peer.read_to_end()
    if not answer:
        return "no answer"
    status = status_of(answer)
    known = {100, 200, 400, 413, 414, 417, 431, 501, 505}
    check(status in known, f"garbage {seed}/{number}: {data!r} was answered by {answer!r}")
    return str(status)


# Messages without end, or nearly: their pieces, and the statuses that may stop them.

CHUNKED = request("/sink", "Transfer-Encoding: chunked", method="POST")
START = b"GET /hello HTTP/1.1\r\nHost: attack\r\n"
PIECE = b"x" * 4096
BOMBS: dict[str, tuple[Callable[[], Iterator[bytes]], set[int]]] = {
    "many headers": (lambda: iter([START, b"X-A: 1\r\n" * 300, b"\r\n"]), {431}),
    "headers without end": (lambda: _then(START, b"X-Bomb: " + PIECE + b"\r\n"), {431}),
    "small headers without end": (lambda: _then(START, b"a:\r\n" * 100), {431}),
    "one huge header": (lambda: iter([START, b"X: ", PIECE * 64, b"\r\n\r\n"]), {431}),
    "a value without end": (lambda: _then(START + b"X: ", PIECE), {431}),
    "a name without end": (lambda: _then(START, PIECE), {431}),
    "white space without end": (lambda: _then(START + b"X:", b" " * 4096), {431}),
    "a huge target": (lambda: iter([b"GET /", PIECE * 4, b" HTTP/1.1\r\n"]), {414}),
    "a target without end": (lambda: _then(b"GET /", PIECE), {414, 431}),
    "a method without end": (lambda: _then(b"", PIECE.upper()), {400, 414, 431, 501}),
    "empty lines without end": (lambda: repeat(b"\r\n" * 2048), {400, 431}),
    "a chunk extension": (lambda: _then(CHUNKED + b"1;", PIECE), {400}),
    "a chunk size without end": (lambda: _then(CHUNKED, b"0" * 4096), {400}),
    "trailers without end": (lambda: _then(CHUNKED + b"0\r\n", b"X: " + PIECE + b"\r\n"), {431}),
    "small trailers without end": (lambda: _then(CHUNKED + b"0\r\n", b"a:\r\n" * 100), {431}),
    "extensions that outweigh the data": (
        lambda: iter([CHUNKED, (b"1;" + b"x" * 200 + b"\r\nx\r\n") * 1000, b"0\r\n\r\n"]),
        {400},
    ),
    "a thousand extensions": (
        lambda: iter(
            [CHUNKED, (b"c8;" + b"x" * 16 + b"\r\n" + b"x" * 200 + b"\r\n") * 1000, b"0\r\n\r\n"]
        ),
        {200},
    ),
    "tiny chunks": (lambda: iter([CHUNKED, *[b"1\r\nx\r\n" * 1000] * 50, b"0\r\n\r\n"]), {200}),
}
# What a connection can be made to take beyond the server's limits: the kernel's buffers on both
# sides, and what is read and dropped so that the answer is not destroyed.
ENOUGH_BYTES = 32 << 20


def _then(start: bytes, piece: bytes) -> Iterator[bytes]:
    yield start
    yield from repeat(piece)


async def send_bomb(address: Address, number: int, name: str) -> int:
    """Sends until the server has had enough. Returns the status with which it said so."""
    pieces, statuses = BOMBS[name]
    answer, sent = b"", 0
    async with Peer(address, number) as peer:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for piece in pieces():
                await peer.send(piece)
                sent += len(piece)
                if answer := peer.received():
                    break
                check(sent < ENOUGH_BYTES, f"{name}: the server takes all that is sent")
                await asyncio.sleep(0)
        answer = answer or await peer.receive()
    status = status_of(answer)
    check(status in statuses, f"{name}: expected one of {statuses}, found {answer[:200]!r}")
    return status
