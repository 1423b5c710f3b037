"""Instructions, counted by callgrind: the same on a busy machine, where times would not be.

What a program executes in user space is counted, not what the kernel does for it.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
HELLO = REPOSITORY / "target/release/examples/hello"
REQUEST = (
    b"GET /hello?name=world HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: wrk/4.2.0\r\n"
    b"Accept: text/html,application/xhtml+xml\r\nAccept-Encoding: gzip, deflate\r\n\r\n"
)
SECONDS = 60


def require() -> None:
    """Ends the program if there is no valgrind."""
    if shutil.which("valgrind") is None:
        raise SystemExit("error: valgrind is missing\n\nhint: apt-get install valgrind")


def command(out: Path, options: Sequence[str], program: Sequence[str]) -> list[str]:
    """The command line that counts `program` into `out`."""
    valgrind = ["valgrind", "--tool=callgrind", "-q", f"--callgrind-out-file={out}"]
    return [*valgrind, *options, *program]


def total(out: Path) -> int:
    """The sum that callgrind wrote."""
    found = re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.MULTILINE)
    assert found is not None, "callgrind writes a sum"
    return int(found[1])


def within(function: str, program: Sequence[str]) -> int:
    """Instructions of `program` between the call of `function` and its return."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        options = [f"--toggle-collect=*{function}*"]
        # Where the program is a Python, the order of its sets and dicts is to be the same.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        result = subprocess.run(
            command(out, options, program), capture_output=True, text=True, env=environment
        )
        if result.returncode:
            raise SystemExit(f"error: {' '.join(program)}\n{result.stderr}")
        if not (counted := total(out)):
            raise SystemExit(f"error: expected a call of {function} in {' '.join(program)}")
        return counted


def per_request(
    hello: Path, counts: tuple[int, int], connections: int = 1, options: Sequence[str] = ()
) -> float:
    """Instructions per request of the ring's thread of `examples/hello`, run with `options`.

    A keep-alive client on each of `connections` asks in a closed loop. Start and end cost the same
    however many requests there are: two counts of requests and the difference of what they cost
    give what one request costs.
    """
    few, many = (serve(hello, count, connections, options) for count in counts)
    return (many - few) / (counts[1] - counts[0])


def serve(hello: Path, requests: int, connections: int, options: Sequence[str]) -> int:
    """What the ring's thread, which is the first one, executes for so many requests."""
    with tempfile.TemporaryDirectory() as folder:
        with socket.create_server(("127.0.0.1", 0)) as free:
            address: tuple[str, int] = free.getsockname()
        program = [str(hello), f"127.0.0.1:{address[1]}", "--requests", str(requests), *options]
        threads = ["--separate-threads=yes", "--fair-sched=yes"]
        lines = Path(folder, "lines")
        started = command(Path(folder, "out"), threads, program)
        with lines.open("wb") as out, subprocess.Popen(started, stdout=out) as process:
            try:
                ask(address, process, connections, requests)
                process.wait(SECONDS)
            finally:
                process.kill()
        written = lines.read_bytes().count(b"\n")
        if written != (requests if "--access-log" in options else 0):
            raise SystemExit(f"error: {written} lines of the access log for {requests} requests")
        return total(Path(folder, "out-01"))


def ask(
    address: tuple[str, int], server: subprocess.Popen[bytes], connections: int, requests: int
) -> None:
    """Asks so often, on each connection in turn, and ends the connections."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(address, server)) for _ in range(connections)]
        for _ in range(requests // connections):
            for client in clients:
                client.sendall(REQUEST)
            for client in clients:
                answer = client.recv(4096)
                if not answer.endswith(b"Hello, world!"):
                    raise SystemExit(f"error: an answer was {answer!r}")
        for client in clients:
            client.shutdown(socket.SHUT_WR)


def connect(address: tuple[str, int], server: subprocess.Popen[bytes]) -> socket.socket:
    """Connects as soon as the server is there: refused connections are tried again."""
    while True:
        try:
            client = socket.create_connection(address, timeout=SECONDS)
        except ConnectionRefusedError:
            if server.poll() is not None:
                raise SystemExit(f"error: the server ended with {server.returncode}") from None
            continue
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client
