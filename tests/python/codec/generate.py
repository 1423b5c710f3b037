"""Requests that are valid, that are put together from parts, and that are damaged.

One seed decides everything, so that a run can be repeated.
"""

from random import Random

NAMES = [b"Accept", b"Cookie", b"x-a", b"X_B", b"Content-Type", b"Origin", b"a!#$%&'*+-.^_`|~0"]
VALUES = [b"", b"a", b"a, b", b"text/html;q=0.8", b'"quoted, \\" value"', b"caf\xe9", b"a\tb  c"]
TARGETS = [b"/", b"/a/b?c=d", b"/%41%zz%", b"//a", b"/a?b?c&d=[e]|{f}", b"/a;b=c@d:e,f"]
METHODS = [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"]


def valid(random: Random) -> bytes:
    """Requests that every codec must understand, and in one way; the last may close."""
    requests = [valid_request(random) for _ in range(random.randint(1, 3))]
    return b"".join(requests)


def valid_request(random: Random) -> bytes:
    lines = [random.choice([b"Host: ", b"host:"]) + random.choice([b"a.example:80", b"[::1]"])]
    for _ in range(random.randint(0, 4)):
        lines.append(random.choice(NAMES) + random.choice([b":", b": "]) + random.choice(VALUES))
    if random.random() < 0.1:
        lines.append(b"Connection: close")
    body = random.randbytes(random.randint(0, 30))
    match random.randint(0, 2):
        case 0:
            body = b""
        case 1:
            lines.append(b"Content-Length: %d" % len(body))
        case 2:
            lines.append(b"Transfer-Encoding: chunked")
            body = chunks(random, body)
    random.shuffle(lines)
    line = b" ".join([random.choice(METHODS), random.choice(TARGETS), b"HTTP/1.1"])
    return b"\r\n".join([line, *lines, b"", body])


def chunks(random: Random, data: bytes) -> bytes:
    wire = b""
    while data:
        size = random.randint(1, len(data))
        extension = random.choice([b"", b";a", b";a=b", b';a="b;c"'])
        wire += b"%x%b\r\n%b\r\n" % (size, extension, data[:size])
        data = data[size:]
    return wire + b"0\r\n" + random.choice([b"", b"Digest: a\r\n"]) + b"\r\n"


LINES = [
    b"Host: a",
    b"Host: b:80",
    b"Host:",
    b"Host: [::1",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: upgrade",
    b"Upgrade: websocket",
    b"Expect: 100-continue",
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"Content-Length: 5, 5",
    b"Content-Length: +5",
    b"Content-Length : 5",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, gzip",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: Chunked",
    b"Transfer-Encoding:\tchunked",
    b" folded",
    b"A: b",
    b"A",
]
BODIES = [
    b"",
    b"hello",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5\nhello\n0\n\n",
    b"0\r\n\r\n",
    b"0\r\nA: b\r\n\r\n",
    b"0\r\nContent-Length: 9\r\n\r\n",
    b"05;a=b\r\nhello\r\n0;c\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"fffffffffffffffff\r\n",
]
ODD_PARTS_OF_LINE = (
    [b"CONNECT", b"TRACE", b"get", b"FOO", b"M-SEARCH", b""],
    [b"*", b"a", b"http://b.example/c", b"http://", b"a:80", b"/#b", b"/\xe9", b""],
    [b"HTTP/1.0", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1", b""],
)


def assembled(random: Random) -> bytes:
    """Parts that may fit together or not; mostly one of them is odd."""
    wire = b""
    for _ in range(random.randint(1, 2)):
        line = [random.choice(METHODS), random.choice(TARGETS), b"HTTP/1.1"]
        if random.random() < 0.3:
            index = random.randrange(len(line))
            line[index] = random.choice(ODD_PARTS_OF_LINE[index])
        lines = random.choices(LINES, k=random.choice([0, 1, 1, 2, 4]))
        if random.random() < 0.9:
            lines.insert(random.randint(0, len(lines)), b"Host: a.example")
        end = random.choice([b"\r\n"] * 30 + [b"\n", b"\r"])
        wire += end.join([b" ".join(line), *lines, b"", b""]) + random.choice([b"", *BODIES])
    return wire


FAVOURITES = [bytes([byte]) for byte in b'\r\n :;,0aF\0\t/?#*%"=-+_\x0b\x7f\x80\xff'] + [b"\r\n"]


def damaged(random: Random, originals: list[bytes]) -> bytes:
    """One or two of the originals, with a few bytes changed, removed, added or exchanged."""
    wire = b"".join(random.choices(originals, k=random.randint(1, 2)))
    for _ in range(random.randint(1, 3)):
        position = random.randint(0, len(wire))
        before, after = wire[:position], wire[position:]
        match random.randint(0, 4):
            case 0:
                wire = before + random.choice(FAVOURITES) + after[1:]
            case 1:
                wire = before + random.randbytes(1) + after[1:]
            case 2:
                wire = before + after[1:]
            case 3:
                wire = before + random.choice(FAVOURITES) + after
            case 4:
                wire = before + after[1:2] + after[0:1] + after[2:]
    return wire
