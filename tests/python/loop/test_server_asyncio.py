"""asyncio inside the requests of a real server. What is checked is in `application.py`."""

import asyncio
import http.client
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from .server import ServerProcess

OK = (200, "ok")


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess("application:app") as server:
        yield server
        assert server.stop() == 0
        assert "Traceback" not in server.text, server.text


@pytest.mark.parametrize(
    "handler",
    [
        "timers",
        "threads",
        "processes",
        "network",
        "signals",
        "readers_swapped",
        "never_waits",
        "cancels_itself",
        "thrown_into",
    ],
)
def test_asyncio_in_a_request(server: ServerProcess, handler: str) -> None:
    assert server.ask(f"/{handler}") == OK


@pytest.mark.parametrize("handler", ["timers", "threads", "network", "readers_swapped"])
def test_asyncio_in_many_requests_at_once(server: ServerProcess, handler: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.ask(f"/{handler}"), range(24)))
    assert answers == [OK] * 24


def test_a_reader_taken_over_in_the_turn_that_found_it_ready(server: ServerProcess) -> None:
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.ask, "/reader_left_over")
        server.wait_for("keeping the loop")
        second = server.ask("/reader_taken_over")
        assert (first.result(), second) == (OK, OK)


def test_context_variables_stay_in_their_request(server: ServerProcess) -> None:
    async def many() -> list[tuple[int, str]]:
        return await asyncio.gather(
            *(asyncio.to_thread(server.ask, f"/context?{number}") for number in range(30))
        )

    assert asyncio.run(many()) == [(200, str(number)) for number in range(30)]


def test_context_variables_stay_in_their_request_on_one_connection(server: ServerProcess) -> None:
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    for number in range(10):
        connection.request("GET", f"/context?{number}")
        assert connection.getresponse().read() == str(number).encode()
    connection.close()


def test_every_request_has_a_task_of_its_own(server: ServerProcess) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(server.ask, ["/current_task"] * 4))
    assert {status for status, _ in answers} == {200}
    # They ran at the same time, so that no address was used twice.
    assert len({task for _, task in answers}) == 4


def test_a_task_outlives_the_answer(server: ServerProcess) -> None:
    assert server.ask("/outlives") == OK
    assert server.ask("/outlived") == (200, "later")


def test_the_connection_belongs_to_the_thread_of_the_loop(server: ServerProcess) -> None:
    status, text = server.ask("/send_from_a_thread")
    assert status == 200 and "call_soon_threadsafe" in text


def trickle(server: ServerProcess, path: str, pieces: list[bytes], wait: float) -> bytes:
    """Sends a body in pieces, with pauses so that the server sees them one by one."""
    with socket.create_connection(server.address, 30) as connection:
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        length = f"content-length: {sum(map(len, pieces))}\r\n\r\n"
        connection.sendall((head + length).encode())
        for piece in pieces:
            # Not for readiness: the handler waits and gives up meanwhile.
            time.sleep(wait)
            connection.sendall(piece)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head_bytes, _, body = answer.partition(b"\r\n\r\n")
    assert head_bytes.startswith(b"HTTP/1.1 200 "), answer
    return body


PIECES = [f"piece {number};".encode() for number in range(12)]


@pytest.mark.parametrize("handler", ["receive_against_others", "receive_interrupted"])
def test_giving_up_a_receive_loses_no_bytes(server: ServerProcess, handler: str) -> None:
    assert trickle(server, f"/{handler}", PIECES, 0.02) == b"True " + b"".join(PIECES)


def test_a_receive_cancelled_when_its_bytes_arrive_loses_none(server: ServerProcess) -> None:
    pieces = PIECES * 10
    assert trickle(server, "/receive_cancelled_on_arrival", pieces, 0.001) == b"".join(pieces)


def test_receive_and_send_can_be_tasks(server: ServerProcess) -> None:
    assert server.ask("/receive_in_a_task", b"the body") == (200, "the body")


def test_a_task_of_receive_sees_the_client_leave(server: ServerProcess) -> None:
    with socket.create_connection(server.address, 30) as connection:
        connection.sendall(b"GET /disconnect_seen HTTP/1.1\r\nhost: x\r\n\r\n")
        server.wait_for("waiting for the client to leave")
    assert server.ask("/disconnect_was_seen") == OK


@pytest.mark.parametrize(
    ("target", "kinds"),
    [
        ("app", "Task Task"),
        ("app_with_own_tasks", "OwnTask OwnTask"),
        ("app_with_eager_tasks", "Task Task"),
    ],
)
def test_the_task_factory_of_the_application(target: str, kinds: str) -> None:
    with ServerProcess(f"application:{target}") as server:
        assert server.ask("/kind_of_task") == (200, kinds)
        for handler in ("timers", "never_waits", "network", "readers_swapped"):
            assert server.ask(f"/{handler}") == OK
        assert server.ask("/context?x") == (200, "x")
        assert trickle(server, "/receive_interrupted", PIECES, 0.01).endswith(b"".join(PIECES))
        assert server.stop() == 0
        assert "Traceback" not in server.text, server.text


@pytest.mark.parametrize(
    ("handler", "code", "said"),
    [
        ("exit_at_once", 7, "sys.exit(7)"),
        ("exit_later", 7, "sys.exit(7)"),
        ("interrupt_at_once", 130, "KeyboardInterrupt"),
        ("interrupt_later", 130, "KeyboardInterrupt"),
    ],
)
def test_a_handler_that_wants_to_exit(handler: str, code: int, said: str) -> None:
    with ServerProcess("application:app") as server, ThreadPoolExecutor(1) as pool:
        # Another request is under way: it is answered, since exiting means draining.
        other = pool.submit(server.ask, "/timers")
        assert server.ask("/timers") == OK
        status, _ = server.ask(f"/{handler}")
        assert status == 500
        assert other.result() == OK
        assert server.wait() == code
        assert said in server.text
        assert "Traceback" not in server.text, server.text


def test_a_startup_that_wants_to_exit() -> None:
    server = ServerProcess("application:app_that_exits_in_startup")
    assert server.wait() == 7
    assert "sys.exit(7)" in server.text and "listening" not in server.text
    assert "Traceback" not in server.text, server.text


def test_a_callback_that_wants_to_exit_cuts_no_request() -> None:
    with ServerProcess("application:app") as server:
        assert server.ask("/exit_in_a_callback") == OK
        assert server.wait() == 7


def test_stopping_gives_tasks_and_generators_the_time_to_clean_up() -> None:
    with ServerProcess("application:app") as server:
        assert server.ask("/left_for_shutdown") == OK
        assert server.stop() == 0
        assert "the generator has cleaned up" in server.log
        assert "the task has cleaned up" in server.log, server.text


@pytest.mark.parametrize("handler", ["slow_at_once", "slow_later"])
def test_debug_mode_warns_of_a_slow_handler(handler: str) -> None:
    with ServerProcess("application:app", {"PYTHONASYNCIODEBUG": "1"}) as server:
        assert server.ask(f"/{handler}") == OK
        slow = server.wait_for(r"Executing .* took 0\.[2-9]")
        for other in ("timers", "network", "threads", "readers_swapped"):
            assert server.ask(f"/{other}") == OK
        assert server.stop() == 0
    # An eager step runs within the call that begins requests, and is reported as that.
    eager = handler == "slow_at_once" and sys.version_info >= (3, 12)
    assert ("Worker.dispatch" if eager else "name='request'") in slow
