"""The pool: growth, idle exit, what a thread keeps, and the way out."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from asgi.client import get
from asgi.process import Server, StartServer, run


def names(server: Server) -> set[str]:
    """The names of the server's WSGI threads, as the kernel has them."""
    tasks = Path(f"/proc/{server.pid}/task").iterdir()
    found = {(task / "comm").read_text().strip() for task in tasks}
    return {name for name in found if name.startswith("wsgi-")}


@pytest.mark.any_loop
def test_blocked_threads_are_joined_by_more(start_server: StartServer) -> None:
    server = start_server("--blocking-threads", "40", app="wsgi.apps:app")
    assert server.ask("/hello") and names(server) == {"wsgi-1"}
    clients = [server.connect() for _ in range(50)]
    mark = server.out.mark()
    for client in clients:
        client.send(get("/waiting?gate=crowd"))
    for _ in range(40):
        mark += 1
        server.out.wait_for("note: waits crowd", since=mark - 1)
    assert len(names(server)) == 40
    # The other ten wait for a thread. Nobody is left to open the gate.
    server.signal(signal.SIGTERM)
    server.log.wait_for("draining: 50 requests under way")
    server.process.kill()
    server.process.wait()


@pytest.mark.any_loop
def test_concurrency(start_server: StartServer) -> None:
    server = start_server("--blocking-threads", "64", app="wsgi.apps:app")
    clients = [server.connect() for _ in range(64)]
    begun = time.monotonic()
    for client in clients:
        client.send(get("/sleep?seconds=0.5"))
    used = {client.read().body for client in clients}
    assert time.monotonic() - begun < 5
    assert len(used) > 30


def test_one_thread_is_enough_for_short_work(start_server: StartServer) -> None:
    server = start_server("--blocking-threads", "8", app="wsgi.apps:app")
    with server.connect() as client:
        for _ in range(200):
            assert client.ask("/hello").status == 200
    # A second one, or a third, where the machine had no time for the first.
    assert len(names(server)) <= 3


def test_idle_threads_leave_and_one_stays(start_server: StartServer) -> None:
    server = start_server(
        "--blocking-threads",
        "16",
        "--blocking-threads-idle-timeout",
        "5",
        app="wsgi.apps:app",
    )
    clients = [server.connect() for _ in range(8)]
    for client in clients:
        client.send(get("/sleep?seconds=0.3"))
    for client in clients:
        client.read()
    assert len(names(server)) > 1
    deadline = time.monotonic() + 12
    while len(names(server)) > 1:
        assert time.monotonic() < deadline, names(server)
        os.sched_yield()
        time.sleep(0.05)
    assert server.ask("/hello") == "Hello, world!"


def test_a_thread_keeps_what_is_local_to_it(start_server: StartServer) -> None:
    server = start_server("--blocking-threads", "1", app="wsgi.apps:app")
    with server.connect() as client:
        found = [json.loads(client.ask("/thread").body) for _ in range(5)]
    assert found == [{"name": "wsgi-1", "requests": number} for number in range(1, 6)]


def test_inline_is_the_main_thread(start_server: StartServer) -> None:
    server = start_server("--blocking-threads", "0", app="wsgi.apps:app")
    assert json.loads(server.ask("/thread"))["name"] == "MainThread"
    assert names(server) == set()


def test_a_blocked_request_holds_up_no_answer(start_server: StartServer) -> None:
    server = start_server("--blocking-threads", "2", app="wsgi.apps:app")
    with server.connect() as blocked, server.connect() as free:
        mark = server.out.mark()
        blocked.send(get("/waiting?gate=held"))
        server.out.wait_for("note: waits held", since=mark)
        for _ in range(50):
            assert free.ask("/hello").status == 200
        free.ask("/open?gate=held")
        assert blocked.read().status == 200


def test_an_answer_does_not_wait_for_the_next_request(start_server: StartServer) -> None:
    """Both are in the queue of one thread; the second one blocks."""
    server = start_server("--blocking-threads", "1", app="wsgi.apps:app")
    clients = [server.connect() for _ in range(6)]
    for client in clients:
        assert client.ask("/hello").status == 200
    mark = server.out.mark()
    # While the thread works, the others gather in its queue.
    clients[0].send(get("/spin?seconds=0.3"))
    for client in clients[1:-1]:
        client.send(get("/hello"))
    clients[-1].send(get("/waiting?gate=next"))
    assert clients[0].read().body == b"spun"
    for client in clients[1:-1]:
        assert client.read().body == b"Hello, world!"
    server.out.wait_for("note: waits next", since=mark)
    server.process.kill()
    server.process.wait()


@pytest.mark.parametrize("threads", ["0", "1", "8"])
def test_many_clients_at_once(start_server: StartServer, threads: str) -> None:
    server = start_server("--blocking-threads", threads, app="wsgi.apps:app")

    def one() -> None:
        with server.connect() as client:
            for _ in range(50):
                assert client.ask("/stream?pieces=4").body[:1] == b"0"
                assert client.ask("/hello").body == b"Hello, world!"
            done.append(1)

    done: list[int] = []
    workers = [threading.Thread(target=one) for _ in range(16)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(done) == 16


@pytest.mark.parametrize("threads", ["0", "4"])
def test_a_running_request_is_answered_while_draining(
    start_server: StartServer, threads: str
) -> None:
    server = start_server("--blocking-threads", threads, app="wsgi.apps:app")
    with server.connect() as client:
        client.send(get("/sleep?seconds=1"))
        if threads == "4":
            # It runs: one thread is there for it.
            while not names(server):
                os.sched_yield()
        server.signal(signal.SIGTERM)
        response = client.read()
        assert response.status == 200
    assert server.wait() == 0


def test_what_does_not_end_is_cut_in_time(start_server: StartServer) -> None:
    server = start_server(
        "--blocking-threads", "4", "--graceful-timeout", "0.5", app="wsgi.apps:app"
    )
    with server.connect() as client:
        mark = server.out.mark()
        client.send(get("/waiting?gate=never"))
        server.out.wait_for("note: waits never", since=mark)
        server.signal(signal.SIGTERM)
        with pytest.raises(ConnectionResetError):
            client.read()
    assert server.wait(20) == 0
    assert "cut 1 connections" in server.log.text


def test_a_stream_that_nobody_reads_is_cut_in_time(start_server: StartServer) -> None:
    for threads in ("0", "4"):
        server = start_server(
            "--blocking-threads", threads, "--graceful-timeout", "0.5", app="wsgi.apps:app"
        )
        with server.connect(receive_buffer=4096) as client:
            mark = server.out.mark()
            client.send(get("/stream?pieces=100000&size=65536&told=1"))
            server.out.wait_for("note: piece 3$", since=mark)
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
            server.out.wait_for("note: closed stream", since=mark)


@pytest.mark.parametrize("threads", ["0", "4"])
def test_sys_exit_stops_the_server(start_server: StartServer, threads: str) -> None:
    server = start_server("--blocking-threads", threads, app="wsgi.apps:app")
    with server.connect() as client:
        assert client.ask("/exits").status == 500
    assert server.wait() == 7
    assert "the application called sys.exit(7): stopping" in server.log.text


@pytest.mark.parametrize("threads", ["0", "4"])
def test_children(start_server: StartServer, threads: str) -> None:
    server = start_server("--blocking-threads", threads, app="wsgi.apps:app")
    assert server.ask("/child") == "from a child\n"


def test_a_fork_that_comes_back_ends(start_server: StartServer) -> None:
    server = start_server("--blocking-threads", "4", app="wsgi.apps:app")
    assert server.ask("/forks") == "the child ended with 0"
    assert server.ask("/hello") == "Hello, world!"


def test_an_idle_server_does_nothing(start_server: StartServer) -> None:
    server = start_server("--blocking-threads", "4", app="wsgi.apps:app")
    with server.connect() as client:
        client.send(get("/waiting?gate=idle"))
        server.out.wait_for("note: waits idle")
        before = server.cpu_seconds()
        client.expect_silence(1.0)
        assert server.cpu_seconds() - before <= 0.05
        client.socket.settimeout(10)
        server.ask("/open?gate=idle")
        assert client.read().status == 200


@pytest.mark.parametrize("threads", ["0", "4"])
def test_a_write_that_waits_does_not_spin(start_server: StartServer, threads: str) -> None:
    """Also when something else of Python's becomes ready meanwhile: a signal's number."""
    server = start_server("--blocking-threads", threads, app="wsgi.apps:app")
    with server.connect(receive_buffer=4096) as client:
        client.send(get("/written?told=1&pieces=100000&size=32768"))
        server.out.wait_for("note: written 3$")
        last = 4
        while server.out.has(f"note: written {last}$", seconds=0.5):
            last += 1
        server.signal(signal.SIGHUP)
        before = server.cpu_seconds()
        assert not server.out.has(f"note: written {last}$", seconds=1.0)
        assert server.cpu_seconds() - before <= 0.1
    server.log.wait_for("SIGHUP: reload is not there yet")


def test_signals_are_heard_while_requests_run(start_server: StartServer) -> None:
    server = start_server("--blocking-threads", "4", app="wsgi.apps:app")
    with server.connect() as client:
        client.send(get("/waiting?gate=signals"))
        server.out.wait_for("note: waits signals")
        for number in range(3):
            mark = server.log.mark()
            server.signal(signal.SIGHUP)
            server.log.wait_for("SIGHUP", since=mark)
            assert server.ask("/hello") == "Hello, world!", number
        server.ask("/open?gate=signals")
        assert client.read().status == 200


def test_threads_are_for_wsgi() -> None:
    done = run("asgi.apps:app", "--blocking-threads", "3", "--port", "0")
    assert done.returncode == 2
    assert "error: --blocking-threads 3 is for WSGI, and the application is ASGI" in done.stderr
    assert "\n\nhint: " in done.stderr
