"""Servers on loops that wait elsewhere, `--loop`: what is not said of each loop in other tests.

The suites of the interfaces run on any of these with `pytest --server-loop uvloop`.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from asgi.process import Server, StartServer, run

APP = "loop.hosted_application:app"
HOSTS = ["asyncio", "uvloop", "rloop"]
# A loop that is never come to would take for ever; a busy machine may take this long.
LONGEST_SECONDS = 2.0


@pytest.fixture(params=HOSTS)
def hosted(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server("--loop", request.param, app=APP) as server:
        server.wait_until_ready()
        yield server
        server.stop()
        assert "Traceback" not in server.log.text, server.log.text


@pytest.mark.parametrize(
    ("name", "module", "selector"),
    [
        ("auto", "asyncio.", "RingSelector"),
        ("uring", "asyncio.", "RingSelector"),
        ("asyncio", "asyncio.", "EpollSelector"),
        ("uvloop", "uvloop", ""),
        ("rloop", "rloop", ""),
    ],
)
def test_the_loop_is_the_one_that_was_asked_for(
    start_server: StartServer, name: str, module: str, selector: str
) -> None:
    found = start_server("--loop", name, app=APP).ask("/kind")
    assert found.startswith(module) and selector in found


def test_the_variable_of_granian_says_it_too(start_server: StartServer) -> None:
    server = start_server(app=APP, environment={"GRANIAN_LOOP": "uvloop"})
    assert server.ask("/kind").startswith("uvloop")


@pytest.mark.parametrize("name", ["uvloop", "rloop"])
def test_a_missing_package_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("raise ImportError('it is not here')")
    ended = run("--loop", name, "--port", "0", APP, PYTHONPATH=str(tmp_path))
    assert ended.returncode == 1
    assert f"error: --loop {name} needs the package {name}" in ended.stderr
    assert f"hint: `pip install {name}`" in ended.stderr
    assert "Traceback" not in ended.stderr


def switches(server: Server) -> int:
    return server.status("voluntary_ctxt_switches")


def test_an_idle_server_sleeps(hosted: Server) -> None:
    """Also with an idle connection, whose timeout is far away."""
    with hosted.connect() as client:
        assert client.ask("/kind").status == 200
        # What the answer leaves behind is over in a moment: one of these seconds is quiet.
        wakeups = []
        for _ in range(4):
            before = switches(hosted), hosted.cpu_seconds()
            time.sleep(1)
            wakeups.append(switches(hosted) - before[0])
            if not wakeups[-1]:
                assert hosted.cpu_seconds() == before[1]
                return
        pytest.fail(f"it woke up {wakeups} times in each second of doing nothing")


def test_an_answer_given_between_two_turns_goes_out_at_once(hosted: Server) -> None:
    with hosted.connect() as client:
        began = time.monotonic()
        for _ in range(20):
            assert client.ask("/echo_later").body == b"later"
        assert time.monotonic() - began < LONGEST_SECONDS


def test_a_busy_application_does_not_starve_the_server(hosted: Server) -> None:
    assert hosted.ask("/spin") == "spins"
    began = time.monotonic()
    for _ in range(20):
        assert hosted.ask("/echo_later") == "later"
    assert time.monotonic() - began < LONGEST_SECONDS


def test_a_busy_server_does_not_starve_the_application(hosted: Server) -> None:
    def hammer(until: float) -> int:
        with hosted.connect() as client:
            count = 0
            while time.monotonic() < until:
                # Pipelined: there is always more to do.
                client.send(b"GET /kind HTTP/1.1\r\nhost: x\r\n\r\n" * 16)
                for _ in range(16):
                    assert client.read().status == 200
                count += 16
            return count

    with ThreadPoolExecutor(4) as pool:
        crowd = [pool.submit(hammer, time.monotonic() + 1.5) for _ in range(4)]
        longest = float(hosted.ask("/heartbeat"))
        assert sum(one.result() for one in crowd) > 100
    assert longest < 0.5


def test_a_policy_of_the_application_changes_nothing(
    start_server: StartServer, tmp_path: Path
) -> None:
    (tmp_path / "policy_app.py").write_text(
        "import asyncio, uvloop\n"
        "asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())\n"
        "from loop.hosted_application import app\n"
    )
    environment = {"PYTHONPATH": f"{tmp_path}", "PYTHONWARNINGS": "ignore::DeprecationWarning"}
    for name in ("uring", "asyncio"):
        server = start_server("--loop", name, app="policy_app:app", environment=environment)
        assert server.ask("/kind").startswith("asyncio.")


def test_deadlines_come_up_though_nothing_else_happens(start_server: StartServer) -> None:
    for name in HOSTS:
        server = start_server("--loop", name, "--http1-first-byte-timeout", "0.3", app=APP)
        with server.connect() as client:
            began = time.monotonic()
            client.expect_end()
            assert 0.2 < time.monotonic() - began < 0.3 + LONGEST_SECONDS
