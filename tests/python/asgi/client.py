"""A client on a raw socket, for tests that must see every byte and the way a connection ends.

It follows RFC 9112 to the letter and forgives nothing: an answer that is cut, a chunk that is
framed wrongly or a byte too many is an exception.
"""

import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Self

__all__ = ["Client", "Cut", "Response", "get"]

# Nothing on a loopback interface takes longer: whoever waits for this has found a hang.
TIMEOUT_SECONDS = 10.0


class Cut(Exception):
    """The connection ended with a FIN within an answer."""


@dataclass(frozen=True)
class Response:
    """One answer as it came."""

    status: int
    version: str
    headers: list[tuple[str, str]]
    """Names in lower case, in the order they came."""
    body: bytes
    framing: str
    """`length`, `chunked`, `close` or `none`."""

    def all(self, name: str) -> list[str]:
        """The values of every header of this name."""
        return [value for other, value in self.headers if other == name]

    def header(self, name: str) -> str | None:
        """The value of a header that must not be there twice."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    @property
    def closes(self) -> bool:
        """The server says that it closes the connection."""
        return self.header("connection") == "close"


def get(target: str = "/", *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    """The bytes of a request without a body."""
    lines = [f"{method} {target} HTTP/{version}", "Host: test", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


class Client:
    """One connection."""

    def __init__(
        self,
        address: tuple[str, int] | str,
        *,
        receive_buffer: int | None = None,
        source: str | None = None,
    ):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        if isinstance(address, tuple) and ":" in address[0]:
            family = socket.AF_INET6
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(TIMEOUT_SECONDS)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source is not None:
            self.socket.bind((source, 0))
        self.socket.connect(address)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection with a FIN (the kernel makes it a RST if bytes were not read)."""
        self.socket.close()

    def reset(self) -> None:
        """Ends the connection with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data: bytes | memoryview) -> None:
        """Sends all of `data`."""
        self.socket.sendall(data)

    def shut_down(self) -> None:
        """Ends our side only."""
        self.socket.shutdown(socket.SHUT_WR)

    def ask(self, target: str = "/", *headers: str, method: str = "GET") -> Response:
        """Sends a request without a body and reads the answer."""
        self.send(get(target, *headers, method=method))
        return self.read(method)

    def read(self, method: str = "GET") -> Response:
        """Reads one answer, to a request with this method."""
        version, status, headers = self.read_head()
        lengths = [value for name, value in headers if name == "content-length"]
        codings = [value for name, value in headers if name == "transfer-encoding"]
        assert len(lengths) + len(codings) <= 1, f"ambiguous framing: {headers}"
        if method == "HEAD" or status in (204, 304) or status < 200:
            body, framing = b"", "none"
        elif codings:
            assert codings == ["chunked"] and version == "1.1", (version, codings)
            body, framing = self._read_chunks(), "chunked"
        elif lengths:
            body, framing = self._exactly(int(lengths[0])), "length"
        else:
            body, framing = self.read_to_end(), "close"
        return Response(status, version, headers, body, framing)

    def read_head(self) -> tuple[str, int, list[tuple[str, str]]]:
        """Reads a status line and headers: (version, status, headers)."""
        lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        protocol, status, _phrase = lines[0].split(" ", 2)
        assert protocol in ("HTTP/1.1", "HTTP/1.0"), lines[0]
        headers = []
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            assert colon and name == name.strip() and "\n" not in line, line
            headers.append((name.lower(), value.strip()))
        return protocol.removeprefix("HTTP/"), int(status), headers

    def read_to_end(self) -> bytes:
        """Everything up to the server's FIN."""
        pieces = [self._buffer]
        self._buffer = b""
        while piece := self.socket.recv(1 << 20):
            pieces.append(piece)
        return b"".join(pieces)

    def expect_end(self) -> None:
        """The server ends its side, with a FIN and without a further byte."""
        rest = self.read_to_end()
        assert rest == b"", f"more came: {rest[:200]!r}"

    def expect_silence(self, seconds: float) -> None:
        """Nothing comes for so long: for what must *not* happen, where there is no event."""
        assert not self._buffer
        self.socket.settimeout(seconds)
        try:
            found = self.socket.recv(1000)
        except TimeoutError:
            return
        finally:
            self.socket.settimeout(TIMEOUT_SECONDS)
        raise AssertionError(f"expected silence, found {found!r}")

    def receive(self, length: int) -> bytes:
        """At most `length` bytes, at least one."""
        if not self._buffer:
            self._more()
        found, self._buffer = self._buffer[:length], self._buffer[length:]
        return found

    def read_chunk(self) -> bytes:
        """Reads one chunk of a chunked body; empty at its end."""
        chunk = self._exactly(int(self._until(b"\r\n"), 16))
        assert self._exactly(2) == b"\r\n"
        return chunk

    def _read_chunks(self) -> bytes:
        return b"".join(iter(self.read_chunk, b""))

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._more()
        found, _, self._buffer = self._buffer.partition(mark)
        return found

    def _exactly(self, length: int) -> bytes:
        pieces = [self._buffer[:length]]
        self._buffer = self._buffer[length:]
        missing = length - len(pieces[0])
        while missing:
            piece = self.socket.recv(min(missing, 1 << 20))
            if not piece:
                raise Cut(f"{missing} of {length} bytes are missing")
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def _more(self) -> None:
        piece = self.socket.recv(1 << 16)
        if not piece:
            raise Cut(f"the connection ended after {self._buffer[:100]!r}")
        self._buffer += piece
