"""What three codecs understand of the same bytes: ours, h11, and llhttp as httptools has it.

Each is given all bytes of a connection at once, after which the client closes, and answers every
request with an empty 404. A request counts when it is complete, its trailers do not.
"""

import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import h11
import httptools

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Request:
    method: bytes
    target: bytes
    version: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    keeps_alive: bool


@dataclass(frozen=True)
class Verdict:
    requests: tuple[Request, ...]
    error: str | None
    """What is wrong with what follows the requests; `None` if nothing is."""
    is_upgraded: bool = False
    """A request to change the protocol came next; neither it nor what follows was judged."""


TRUNCATED = "truncated"


def ours(connections: Iterable[bytes]) -> list[Verdict]:
    """The core itself, in one process for all of them: `examples/http1_verdicts.rs`."""
    lines = "".join(f"{connection.hex()}\n" for connection in connections)
    command = ["cargo", "run", "--locked", "--quiet", "--example", "http1_verdicts"]
    output = subprocess.run(command, cwd=ROOT, input=lines, stdout=-1, text=True, check=True).stdout
    return [our_verdict(json.loads(line)) for line in output.splitlines()]


def our_verdict(answer: dict[str, object]) -> Verdict:
    def request(value: dict[str, object]) -> Request:
        headers = value["headers"]
        assert isinstance(headers, list)
        return Request(
            method=bytes.fromhex(str(value["method"])),
            target=bytes.fromhex(str(value["target"])),
            version=str(value["version"]),
            headers=tuple((bytes.fromhex(name), bytes.fromhex(value)) for name, value in headers),
            body=bytes.fromhex(str(value["body"])),
            keeps_alive=bool(value["keeps_alive"]),
        )

    requests, error = answer["requests"], answer["error"]
    assert isinstance(requests, list)
    return Verdict(tuple(map(request, requests)), None if error is None else str(error))


def of_h11(connection: bytes) -> Verdict:
    machine = h11.Connection(h11.SERVER)
    machine.receive_data(connection)
    requests: list[Request] = []
    has_ended = False
    head: h11.Request | None = None
    body = b""
    try:
        while True:
            match machine.next_event():
                case h11.Request() as head:
                    pass
                case h11.Data(data=data):
                    body += bytes(data)
                case h11.EndOfMessage():
                    assert head is not None
                    keeps_alive = answer(machine)
                    requests.append(h11_request(head, body, keeps_alive))
                    head, body = None, b""
                    if not keeps_alive:
                        return Verdict(tuple(requests), None)
                case h11.NEED_DATA if not has_ended:
                    has_ended = True
                    machine.receive_data(b"")
                case h11.PAUSED if head is not None:
                    raise AssertionError("an answer lets it go on")
                case h11.ConnectionClosed():
                    return Verdict(tuple(requests), None)
                case event:
                    raise AssertionError(f"an event that cannot be: {event}")
    except h11.RemoteProtocolError as error:
        # What follows the colon shows the bytes.
        return Verdict(tuple(requests), TRUNCATED if has_ended else str(error).split(":")[0])


def answer(machine: h11.Connection) -> bool:
    machine.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
    machine.send(h11.EndOfMessage())
    if machine.our_state is not h11.DONE:
        return False
    machine.start_next_cycle()
    return True


def h11_request(head: h11.Request, body: bytes, keeps_alive: bool) -> Request:
    headers = tuple((bytes(name), bytes(value)) for name, value in head.headers)
    version = head.http_version.decode()
    return Request(head.method, head.target, version, headers, body, keeps_alive)


class Callbacks:
    """What httptools tells while it parses."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.requests: list[Request] = []
        self.is_within_request = False
        self.is_after_head = False
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""

    def on_message_begin(self) -> None:
        self.is_within_request, self.is_after_head = True, False
        self.target, self.headers, self.body = b"", [], b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.is_after_head:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.is_after_head = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_within_request = False
        self.requests.append(
            Request(
                self.parser.get_method(),
                self.target,
                self.parser.get_http_version(),
                tuple(self.headers),
                self.body,
                self.parser.should_keep_alive(),
            )
        )


def of_httptools(connection: bytes) -> Verdict:
    callbacks = Callbacks()
    error = None
    try:
        callbacks.parser.feed_data(connection)
    except httptools.HttpParserUpgrade:
        return Verdict(tuple(callbacks.requests[:-1]), None, is_upgraded=True)
    except httptools.HttpParserError as raised:
        error = str(raised)
    requests = tuple(callbacks.requests)
    if requests and not requests[-1].keeps_alive and not callbacks.is_within_request:
        # Whatever follows is nobody's.
        return Verdict(requests, None)
    if error is None and callbacks.is_within_request:
        error = TRUNCATED
    return Verdict(requests, error)
