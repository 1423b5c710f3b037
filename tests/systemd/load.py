"""A load of real clients against one address, each of whose answers is checked whole.

Runs as its own process, outside the box: `python load.py ADDRESS`, where ADDRESS is `tcp:HOST:PORT`
or `unix:PATH`. It writes `ready` when every kind of client has had an answer, goes on until its
stdin ends, lets each client finish the request it is at, and writes a report (one line of JSON).
Pauses and bodies are random; `SEED` in the environment repeats those of a report.

The kinds of clients:

new        one request on a new connection, with `Connection: close`; then the end of the stream.
busy       keep-alive, the next request some milliseconds after the last answer.
pool       keep-alive, idle between 0.05 s and 1.5 s. Before a reuse it looks at the connection
           without waiting: an end of stream means closed, and a new connection is taken, as an
           HTTP client's connection pool does.
pipeline   four requests at once on a keep-alive connection, answered in order.
upload     256 KiB in pieces, answered with their SHA-256.
slow       a request that the application takes one second to answer.

What is counted, each request under exactly one of these:

ok         the whole answer came, and it is the answer to this request: status line, framing by
           exactly one of Content-Length and chunked, the unique id, and nothing after it.
refused    no connection could be made.
reset      the connection was reset before the whole answer had come.
cut        the stream ended before the whole answer had come.
hung       the whole answer had not come after `HUNG_SECONDS`.
wrong      an answer came, but not the right one; or bytes came that nobody asked for.

Everything but `ok` is a loss. Counted beside them, and not losses by themselves:

crossed    a request on a *reused* connection met the server's close before one byte of an answer:
           reset, or the end of the stream. It is sent again once, on a new connection, and that
           attempt is what counts above. No server can prevent it altogether: the request and the
           close pass each other on the wire.
resent     a pipelined request left unanswered after an answer that said `Connection: close`, sent
           again on a new connection. Without such an answer it is a loss (or `crossed`).
closed     a pool's connection that was found closed when looked at.

Not here: the restarts, and any judgement of the report. Those are the tests'.
"""

from __future__ import annotations

import asyncio
import collections
import hashlib
import itertools
import json
import os
import random
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

HUNG_SECONDS = 20.0
UPLOAD_BYTES = 256 * 1024
UPLOAD_PIECE_BYTES = 32 * 1024
PIPELINE_DEPTH = 4
# Clients of each kind: some hundred requests per second in all, which leaves both cores air, so
# that a long wait is the server's and not the load's own.
CLIENTS = {"new": 4, "busy": 3, "pool": 12, "pipeline": 2, "upload": 2, "slow": 6}

LOSSES = ("refused", "reset", "cut", "hung", "wrong")


class Loss(Exception):
    """A request that got no right answer; `kind` is one of `LOSSES`."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


@dataclass(frozen=True)
class Address:
    """Where the server listens."""

    family: socket.AddressFamily
    target: str | tuple[str, int]

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads `tcp:HOST:PORT` (an IPv6 host without brackets) or `unix:PATH`."""
        scheme, _, rest = text.partition(":")
        if scheme == "unix":
            return cls(socket.AF_UNIX, rest)
        host, _, port = rest.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return cls(family, (host, int(port)))


@dataclass(frozen=True)
class Request:
    """A request in the pieces in which it is sent, and what its answer must hold."""

    id: str
    pieces: Sequence[bytes]
    expected: dict[str, str]
    # What must follow the answer's first line in its body.
    tail: bytes = b""


@dataclass(frozen=True)
class Answer:
    """A whole answer, its framing already found right."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def says_close(self) -> bool:
        """Whether the server wants no further request on this connection, RFC 9112 section 9.6."""
        return "close" in self.headers.get("connection", "").lower().split(", ")


@dataclass
class Report:
    """Counts and times of a run; all times are seconds of CLOCK_MONOTONIC."""

    seed: int
    outcomes: dict[str, collections.Counter[str]] = field(
        default_factory=lambda: {kind: collections.Counter() for kind in CLIENTS}
    )
    crossed: int = 0
    resent: int = 0
    closed: int = 0
    losses: list[str] = field(default_factory=list)
    # Of each request of a `new` and of a `slow` client: before connect, after the whole answer.
    spans: dict[str, list[tuple[float, float]]] = field(
        default_factory=lambda: {"new": [], "slow": []}
    )
    # The pairs of process id and generation that answered.
    servers: set[tuple[int, str]] = field(default_factory=set)

    def lose(self, client: str, loss: Loss, request: Request) -> None:
        """Counts a loss and keeps its story."""
        self.outcomes[client][loss.kind] += 1
        self.losses.append(f"{time.monotonic():.3f} {client} request {request.id}: {loss}")

    def to_json(self) -> str:
        """The report as one line."""
        return json.dumps({**vars(self), "servers": sorted(self.servers)})


class Connection:
    """A client's connection: sends requests, reads whole answers, raises `Loss`."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self.reused = False
        # No byte has come since the last request was begun.
        self.silent = True

    @classmethod
    async def open(cls, address: Address) -> Connection:
        """Connects, or raises `Loss` of kind refused."""
        sock = socket.socket(address.family, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            if address.family == socket.AF_UNIX:
                # A full queue is EAGAIN here, which asyncio would take for "in progress".
                sock.connect(address.target)
            else:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await asyncio.get_running_loop().sock_connect(sock, address.target)
        except OSError as error:
            sock.close()
            raise Loss("refused", str(error)) from error
        return cls(sock)

    async def send(self, pieces: Sequence[bytes]) -> None:
        """Sends the pieces, letting other clients run between them."""
        self.silent = not self._buffer
        for piece in pieces:
            try:
                await self._loop.sock_sendall(self._socket, piece)
            except OSError as error:
                raise Loss("reset", f"while sending: {error}") from error
            await asyncio.sleep(0)

    async def answer(self) -> Answer:
        """Reads one whole answer and checks its framing."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            await self._fill()
        status, headers = parse_head(bytes(self._buffer[:end]))
        del self._buffer[: end + 4]
        if ("content-length" in headers) == ("transfer-encoding" in headers):
            raise Loss("wrong", f"framed by both or neither of length and chunks: {headers}")
        if "content-length" in headers:
            body = await self._take(int(headers["content-length"]))
        elif headers["transfer-encoding"] == "chunked":
            body = b"".join([chunk async for chunk in self._chunks()])
        else:
            raise Loss("wrong", f"transfer-encoding {headers['transfer-encoding']!r}")
        return Answer(status, headers, body)

    def look(self) -> bool:
        """Whether the connection is still open, without waiting; bytes are a `Loss` (wrong)."""
        try:
            data = self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        if data:
            raise Loss("wrong", "bytes on an idle connection")
        return False

    async def end(self) -> None:
        """Waits for the end of the stream after an answer that said close."""
        try:
            data = bytes(self._buffer) or await self._loop.sock_recv(self._socket, 100)
        except OSError:
            return  # the whole answer is here already: how the stream ends loses nothing
        if data:
            raise Loss("wrong", f"bytes after the last answer: {data!r}")

    def close(self) -> None:
        """Closes our end."""
        self._socket.close()

    async def _fill(self) -> None:
        try:
            data = await self._loop.sock_recv(self._socket, 65536)
        except OSError as error:
            raise Loss("reset", str(error)) from error
        if not data:
            raise Loss("cut", f"end of stream after {len(self._buffer)} bytes of an answer")
        self.silent = False
        self._buffer += data

    async def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._fill()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            await self._fill()
        return (await self._take(end + 2))[:-2]

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self._line(), 16):
            yield await self._take(size)
            if await self._line():
                raise Loss("wrong", "a chunk longer than its size says")
        if await self._line():
            raise Loss("wrong", "a trailer that nobody sent")


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """The status and the headers, names in lower case, of an answer's head without its end."""
    start, *lines = head.decode("latin-1").split("\r\n")
    if not start.startswith("HTTP/1.1 ") or not start[9:12].isdigit():
        raise Loss("wrong", f"status line {start!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name.lower() in headers:
            raise Loss("wrong", f"header line {line!r}")
        headers[name.lower()] = value.strip()
    return int(start[9:12]), headers


class Load:
    """All clients, and the report they fill."""

    def __init__(self, address: Address, seed: int) -> None:
        self.address = address
        self.report = Report(seed)
        self.stopped = asyncio.Event()
        self._ids = (f"{os.getpid()}-{number}" for number in itertools.count())
        self._answered = dict.fromkeys(CLIENTS, False)
        self._announced = False

    async def run(self) -> None:
        """Runs every client until `stopped` is set, each to the end of its current request."""
        kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "new": self._new,
            "busy": self._busy,
            "pool": self._pool,
            "pipeline": self._pipeline,
            "upload": self._upload,
            "slow": self._slow,
        }
        async with asyncio.TaskGroup() as group:
            for kind, count in CLIENTS.items():
                for _ in range(count):
                    group.create_task(self._repeat(kinds[kind]))

    async def _repeat(self, client: Callable[[], Awaitable[None]]) -> None:
        while not self.stopped.is_set():
            await client()

    # --- the clients: each is one life of a connection -----------------------------------------

    async def _new(self) -> None:
        request = self.get("/chunked" if random.random() < 0.3 else "/echo", close=True)
        await self._ask_timed("new", request)
        await asyncio.sleep(0.02)

    async def _busy(self) -> None:
        connection: Connection | None = None
        while not self.stopped.is_set():
            connection = await self.ask("busy", connection, self.get("/echo"))
            await asyncio.sleep(random.uniform(0.001, 0.01))
        self._drop(connection)

    async def _pool(self) -> None:
        connection: Connection | None = None
        while not self.stopped.is_set():
            request = self.get("/echo")
            try:
                if connection is not None and not connection.look():
                    self.report.closed += 1
                    self._drop(connection)
                    connection = None
            except Loss as loss:
                self.report.lose("pool", loss, request)
                self._drop(connection)
                return
            connection = await self.ask("pool", connection, request)
            await asyncio.sleep(random.uniform(0.05, 1.5))
        self._drop(connection)

    async def _upload(self) -> None:
        await self.ask("upload", None, self._post(random.randbytes(UPLOAD_BYTES)))
        await asyncio.sleep(0.05)

    async def _slow(self) -> None:
        await self._ask_timed("slow", self.get("/slow?seconds=1", close=True))
        # Out of step with each other and with the restarts.
        await asyncio.sleep(random.uniform(0, 0.3))

    async def _pipeline(self) -> None:
        connection: Connection | None = None
        waiting: list[Request] = []
        while waiting or not self.stopped.is_set():
            while len(waiting) < PIPELINE_DEPTH:
                waiting.append(self.get("/echo"))
            connection, left = await self.ask_together(connection, waiting)
            self.report.resent += len(left)
            waiting = left
            await asyncio.sleep(0 if left else 0.02)
            if self.stopped.is_set() and not left:
                break
        self._drop(connection)

    # --- asking ---------------------------------------------------------------------------------

    async def _ask_timed(self, client: str, request: Request) -> None:
        begin = time.monotonic()
        await self.ask(client, None, request)
        self.report.spans[client].append((begin, time.monotonic()))

    async def ask(
        self, client: str, connection: Connection | None, request: Request
    ) -> Connection | None:
        """Asks once, and again once if the request crossed a close; counts the outcome.

        Returns the connection when it can be used again.
        """
        connection, _, loss = await self._attempt(client, connection, [request])
        if loss is not None and loss.kind == "crossed":
            self.report.crossed += 1
            connection, _, loss = await self._attempt(client, None, [request])
        if loss is not None:
            self.report.lose(client, loss, request)
        return connection

    async def ask_together(
        self, connection: Connection | None, requests: list[Request]
    ) -> tuple[Connection | None, list[Request]]:
        """Asks all at once; returns the connection when it can be used again, and the requests
        that an answer with `Connection: close` left unanswered."""
        connection, left, loss = await self._attempt("pipeline", connection, requests)
        if loss is not None and loss.kind == "crossed":
            self.report.crossed += len(requests)
            connection, left, loss = await self._attempt("pipeline", None, requests)
        if loss is not None:
            for request in left:
                self.report.lose("pipeline", loss, request)
            left = []
        return connection, left

    async def _attempt(
        self, client: str, connection: Connection | None, requests: list[Request]
    ) -> tuple[Connection | None, list[Request], Loss | None]:
        """Sends the requests at once and reads their answers in order.

        Returns the connection if it lives, the requests without an answer, and what went wrong;
        a `Loss` of kind "crossed" if this is what the head of this file calls so.
        """
        left = list(requests)
        try:
            async with asyncio.timeout(HUNG_SECONDS):
                if connection is None:
                    connection = await Connection.open(self.address)
                await connection.send([piece for request in requests for piece in request.pieces])
                while left:
                    answer = await connection.answer()
                    self._check(left[0], answer)
                    if answer.says_close:
                        await connection.end()
                    self._count_ok(client)
                    left.pop(0)
                    if answer.says_close:
                        connection.close()
                        return None, left, None
                connection.reused = True
                return connection, left, None
        except TimeoutError:
            loss = Loss("hung", f"no whole answer in {HUNG_SECONDS} s")
        except (ValueError, KeyError) as error:
            loss = Loss("wrong", f"{type(error).__name__}: {error}")
        except Loss as found:
            loss = found
            if connection is not None and connection.reused and connection.silent:
                loss = Loss("crossed", str(found)) if found.kind in ("reset", "cut") else found
        self._drop(connection)
        return None, left, loss

    def _check(self, request: Request, answer: Answer) -> None:
        """Raises `Loss` (wrong) unless this is the answer to the request."""
        line, _, tail = answer.body.partition(b"\n")
        found = json.loads(line) if answer.status == 200 else {}
        server = (found.pop("pid", 0), found.pop("generation", ""))
        if found != request.expected or tail != request.tail:
            raise Loss("wrong", f"expected {request.expected}, found {answer}"[:500])
        self.report.servers.add(server)

    def _count_ok(self, client: str) -> None:
        self.report.outcomes[client]["ok"] += 1
        self._answered[client] = True
        if not self._announced and all(self._answered.values()):
            self._announced = True
            print("ready", flush=True)

    def _drop(self, connection: Connection | None) -> None:
        if connection is not None:
            connection.close()

    # --- requests -------------------------------------------------------------------------------

    def get(self, path: str, *, close: bool = False) -> Request:
        """A request with an id of its own."""
        id = next(self._ids)
        path += f"{'&' if '?' in path else '?'}id={id}"
        head = f"GET {path} HTTP/1.1\r\nHost: load\r\n"
        head += "Connection: close\r\n\r\n" if close else "\r\n"
        tail = b"".join(b"%s %d\n" % (id.encode(), n) for n in range(5)) if "/ch" in path else b""
        return Request(id, [head.encode()], {"id": id}, tail)

    def _post(self, body: bytes) -> Request:
        id = next(self._ids)
        head = f"POST /upload?id={id} HTTP/1.1\r\nHost: load\r\nContent-Length: {len(body)}\r\n"
        pieces = [f"{head}Connection: close\r\n\r\n".encode()]
        pieces += [
            body[at : at + UPLOAD_PIECE_BYTES] for at in range(0, len(body), UPLOAD_PIECE_BYTES)
        ]
        return Request(id, pieces, {"id": id, "sha256": hashlib.sha256(body).hexdigest()})


async def main(address: Address, seed: int) -> None:
    """Runs the load until stdin ends and prints the report."""
    load = Load(address, seed)
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    running = asyncio.create_task(load.run())
    await asyncio.wait([running, asyncio.create_task(stdin.read())], return_when="FIRST_COMPLETED")
    load.stopped.set()
    await running
    print(load.report.to_json(), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: load.py tcp:HOST:PORT | unix:PATH")
    seed = int(os.environ.get("SEED") or random.randrange(1 << 32))
    random.seed(seed)
    asyncio.run(main(Address.parse(sys.argv[1]), seed))
