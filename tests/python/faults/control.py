"""The client that must not notice: asks all the time, checks every answer, and takes the time.

    python -m faults.control HOST PORT

A process of its own. It prints `asking` before its first request and again each second, goes on
until its stdin ends, and prints its figures as JSON. Ten threads ask each 100 ms, one behind the
other, in turns on a connection that stays and on a new one. The time of a request is from when it
was due, not from when it was sent: a server that stalls for a second makes a hundred requests late,
not one.
"""

import json
import select
import socket
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

CLIENTS = 10
INTERVAL_SECONDS = 0.1
PATIENCE_SECONDS = 20.0

Address = tuple[str, int]


def main() -> None:
    address = sys.argv[1], int(sys.argv[2])
    start = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as threads:
        clients = [threads.submit(ask_until_told, address, start, n) for n in range(CLIENTS)]
        print("asking", flush=True)
        while not told(1.0):
            print("asking", flush=True)
        times = sorted(seconds for client in clients for seconds in client.result())
    figures = {
        "requests": len(times),
        "median": statistics.median(times),
        "p99": times[len(times) * 99 // 100],
        "longest": times[-1],
    }
    print(json.dumps(figures), flush=True)


def told(seconds: float) -> bool:
    """Whether our stdin ends within so long."""
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def ask_until_told(address: Address, start: float, client: int) -> list[float]:
    """The seconds that each request took. Raises for any answer that is not the expected one."""
    times: list[float] = []
    due = start + client * INTERVAL_SECONDS / CLIENTS
    with connect(address) as kept:
        while not told(max(0.0, due - time.monotonic())):
            target = f"/echo/control-{client}-{len(times)}"
            if len(times) % 2:
                ask(kept, target)
            else:
                with connect(address) as new:
                    ask(new, target)
            times.append(time.monotonic() - due)
            due += INTERVAL_SECONDS
    return times


def connect(address: Address) -> socket.socket:
    """A connection."""
    client = socket.create_connection(address, PATIENCE_SECONDS)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def ask(connection: socket.socket, target: str) -> None:
    """One request; its answer must be 200, and its body that of this very request."""
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: control\r\n\r\n".encode())
    expected = f"{target} ".encode()
    answer = b""
    while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < len(expected):
        piece = connection.recv(65536)
        if not piece:
            raise AssertionError(f"{target}: the connection ended after {answer!r}")
        answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 ") or body != expected:
        raise AssertionError(f"{target}: the answer was {answer!r}")


if __name__ == "__main__":
    main()
