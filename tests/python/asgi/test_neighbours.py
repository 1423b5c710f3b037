"""What an application does beside answering does not harm the server: factories, forks, circles."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from asgi.client import get
from asgi.process import PROGRAM, StartServer, run

pytestmark = pytest.mark.any_loop

WRAPPING = """
import asyncio

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        asyncio.get_running_loop().set_task_factory(FACTORY)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return await send({"type": "lifespan.shutdown.complete"})
    await asyncio.sleep(0)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"answered"})

def wrapping(loop, coroutine, **options):
    async def around():
        return await coroutine
    return asyncio.Task(around(), loop=loop, **options)

def failing(loop, coroutine, **options):
    async def around():
        coroutine.close()
        raise RuntimeError("the factory's own trouble")
    ours = coroutine.__name__.startswith("serve_")
    return asyncio.Task(around() if ours else coroutine, loop=loop, **options)
"""


@pytest.mark.parametrize(("factory", "status"), [("wrapping", 200), ("failing", 500)])
def test_a_task_factory_that_wraps_the_coroutine(
    start_server: StartServer, tmp_path: Path, factory: str, status: int
) -> None:
    (tmp_path / "factories.py").write_text(WRAPPING.replace("FACTORY", factory))
    server = start_server("--working-dir", str(tmp_path), app="factories:app")
    for _ in range(3):
        with server.connect() as client:
            client.send(get("/"))
            assert client.read().status == status


FORKING = """
import multiprocessing, os, sys, time

async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/terminate":
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        child.join(5)
        body = str(child.exitcode)
    elif scope["path"] == "/exit":
        pid = os.fork()
        if pid == 0:
            sys.exit(7)
        body = str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    else:
        body = "alive"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body.encode()})
"""


def test_forked_children_have_their_own_signals_and_no_ring(
    start_server: StartServer, tmp_path: Path
) -> None:
    (tmp_path / "forks.py").write_text(FORKING)
    server = start_server("--working-dir", str(tmp_path), app="forks:app")
    assert server.ask("/terminate") == str(-signal.SIGTERM)
    assert server.ask("/exit") == "7"
    assert server.ask("/") == "alive"


def test_a_listener_that_was_shut_down_is_told_and_costs_nothing(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    (tmp_path / "hello.py").write_text(Path(__file__).with_name("apps.py").read_text())
    process = subprocess.Popen(
        [PROGRAM, "hello:app", "--fd", str(listener.fileno())],
        cwd=tmp_path,
        pass_fds=[listener.fileno()],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        while "listening on" not in process.stderr.readline():
            assert process.poll() is None
        listener.shutdown(socket.SHUT_RDWR)
        while "cannot accept" not in (line := process.stderr.readline()):
            assert line, "the log says nothing"
        before = cpu_seconds(process.pid)
        time.sleep(1)
        assert cpu_seconds(process.pid) - before < 0.2
    finally:
        process.terminate()
        assert process.wait(10) == 0


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("start", [b"GET / HT", b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Le"])
def test_a_head_that_never_ends_does_not_hold_up_a_restart(
    start_server: StartServer, start: bytes
) -> None:
    server = start_server("--graceful-timeout", "20")
    with server.connect() as client:
        client.send(start)
        server.ask("/hello")
        before = time.monotonic()
        server.stop()
        assert time.monotonic() - before < 4


def test_a_body_that_nobody_reads_does_not_hold_up_a_restart(start_server: StartServer) -> None:
    server = start_server("--graceful-timeout", "20")
    with server.connect() as client:
        client.send(get("/hello", "Content-Length: 1000", method="POST"))
        assert client.read().status == 200
        before = time.monotonic()
        server.stop()
        assert time.monotonic() - before < 4


def test_hang_up_before_the_application_is_there(tmp_path: Path) -> None:
    """SIGHUP is survived from the first moment, also while the application is imported."""
    (tmp_path / "slow.py").write_text(
        "import os, signal\n"
        "os.kill(os.getpid(), signal.SIGHUP)\n"
        "async def app(scope, receive, send): ...\n"
        "raise SystemExit('imported')\n"
    )
    done = run("slow:app", "--port", "0", cwd=tmp_path)
    assert done.returncode == 3
    assert "reload is not there yet" in done.stderr


def test_closed_standard_streams(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('imported')\n")
    words = f"exec {PROGRAM} broken:app --port 0 --access-log >&-"
    done: Any = subprocess.run(
        ["/bin/sh", "-c", words], cwd=tmp_path, stderr=subprocess.PIPE, text=True, timeout=20
    )
    assert done.returncode == 3, done.stderr
    assert "RuntimeError: imported" in done.stderr


def test_requests_are_freed_though_the_access_log_is_on(
    start_server: StartServer, tmp_path: Path
) -> None:
    (tmp_path / "circles.py").write_text(
        "import gc, weakref\n"
        "class Request: ...\n"
        "alive = weakref.WeakSet()\n"
        "async def app(scope, receive, send):\n"
        "    assert scope['type'] == 'http'\n"
        "    request = scope['request'] = Request()\n"
        "    request.send = send\n"
        "    alive.add(request)\n"
        "    gc.collect()\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': str(len(alive)).encode()})\n"
    )
    server = start_server("--access-log", "--working-dir", str(tmp_path), app="circles:app")
    counts = [int(server.ask("/")) for _ in range(20)]
    assert max(counts) <= 3, counts
