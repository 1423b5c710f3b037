"""What the access log costs: instructions of the ring's thread per request, with and without it.

    cargo build --release --example hello && python3 benches/access_log.py

One keep-alive client asks `examples/hello` in a closed loop, under callgrind with a count for each
thread. Start and end cost the same however many requests there are: two counts of requests and the
difference of what they cost give what one request costs. `--connections` asks on several
connections at once, each turn of the server then serving all of them. Needs valgrind; counts are
the same on a busy machine, times would not be.
"""

import argparse
import contextlib
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

HELLO = Path(__file__).parents[1] / "target/release/examples/hello"
REQUEST = (
    b"GET /hello?name=world HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: wrk/4.2.0\r\n"
    b"Accept: text/html,application/xhtml+xml\r\nAccept-Encoding: gzip, deflate\r\n\r\n"
)
COUNTS = (20_000, 60_000)
SECONDS = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hello", type=Path, default=HELLO, help="the program to measure")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--most", type=float, help="fail if the log costs more percent than this")
    arguments = parser.parse_args()
    without = per_request(arguments.hello, arguments.connections, log=False)
    with_log = per_request(arguments.hello, arguments.connections, log=True)
    cost = (with_log / without - 1) * 100
    print(f"without the access log {without:8.1f} instructions per request")
    print(f"with the access log    {with_log:8.1f} instructions per request, {cost:+.2f} %")
    if arguments.most is not None and cost > arguments.most:
        print(f"error: that is more than {arguments.most:g} %", file=sys.stderr)
        return 1
    return 0


def per_request(hello: Path, connections: int, *, log: bool) -> float:
    few, many = (instructions(hello, connections, count, log=log) for count in COUNTS)
    return (many - few) / (COUNTS[1] - COUNTS[0])


def instructions(hello: Path, connections: int, requests: int, *, log: bool) -> int:
    """What the ring's thread, which is the first one, executes for so many requests."""
    with tempfile.TemporaryDirectory() as folder:
        with socket.create_server(("127.0.0.1", 0)) as free:
            address: tuple[str, int] = free.getsockname()
        command = [
            "valgrind",
            "--tool=callgrind",
            "--separate-threads=yes",
            "-q",
            "--fair-sched=yes",
        ]
        command += [f"--callgrind-out-file={folder}/out", str(hello), f"127.0.0.1:{address[1]}"]
        command += ["--requests", str(requests), *(["--access-log"] if log else [])]
        lines = Path(folder, "lines")
        with lines.open("wb") as out, subprocess.Popen(command, stdout=out) as process:
            try:
                ask(address, connections, requests)
                process.wait(SECONDS)
            finally:
                process.kill()
        written = lines.read_bytes().count(b"\n")
        if written != (requests if log else 0):
            raise SystemExit(f"error: {written} lines of the access log for {requests} requests")
        found = re.search(r"^(?:totals|summary): (\d+)", Path(folder, "out-01").read_text(), re.M)
        assert found is not None, "callgrind writes a sum"
        return int(found[1])


def ask(address: tuple[str, int], connections: int, requests: int) -> None:
    """Asks so often, on each connection in turn, and ends the connections."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(address)) for _ in range(connections)]
        for _ in range(requests // connections):
            for client in clients:
                client.sendall(REQUEST)
            for client in clients:
                answer = client.recv(4096)
                if not answer.endswith(b"Hello, world!"):
                    raise SystemExit(f"error: an answer was {answer!r}")
        for client in clients:
            client.shutdown(socket.SHUT_WR)


def connect(address: tuple[str, int]) -> socket.socket:
    """Connects as soon as the server is there: refused connections are tried again."""
    while True:
        try:
            client = socket.create_connection(address, timeout=SECONDS)
        except ConnectionRefusedError:
            continue
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client


if __name__ == "__main__":
    sys.exit(main())
