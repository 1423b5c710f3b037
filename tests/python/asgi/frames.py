"""WebSocket frames by hand, RFC 6455 5.2, for what no client library would send."""

import os
import struct
from typing import NamedTuple

from asgi.client import Client, get

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

HEADERS = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


class Frame(NamedTuple):
    """A frame of the server's."""

    fin: bool
    opcode: int
    payload: bytes

    @property
    def code(self) -> int:
        """The code of a close frame."""
        assert self.opcode == CLOSE, self
        return int.from_bytes(self.payload[:2], "big")


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True) -> bytes:
    """The bytes of a client's frame."""
    head = bytes([fin << 7 | opcode])
    length, bit = len(payload), masked << 7
    if length < 126:
        head += bytes([bit | length])
    elif length < 65536:
        head += struct.pack("!BH", bit | 126, length)
    else:
        head += struct.pack("!BQ", bit | 127, length)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    stream = (mask * (length // 4 + 1))[:length]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")
    return head + mask + mixed.to_bytes(length, "big")


def open_websocket(client: Client, target: str, *headers: str) -> list[tuple[str, str]]:
    """The handshake of RFC 6455 1.3; returns the headers of its answer."""
    client.send(get(target, *HEADERS, *headers))
    version, status, answered = client.read_head()
    assert (version, status) == ("1.1", 101), status
    assert ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") in answered
    return answered


def read_frame(client: Client) -> Frame:
    """The server's next frame."""
    first, second = exactly(client, 2)
    assert first & 0x70 == 0 and second & 0x80 == 0
    length = second
    if second == 126:
        length = int.from_bytes(exactly(client, 2), "big")
    elif second == 127:
        length = int.from_bytes(exactly(client, 8), "big")
    return Frame(bool(first & 0x80), first & 0x0F, exactly(client, length))


def exactly(client: Client, length: int) -> bytes:
    """So many bytes."""
    pieces = []
    while length:
        pieces.append(client.receive(length))
        length -= len(pieces[-1])
    return b"".join(pieces)
