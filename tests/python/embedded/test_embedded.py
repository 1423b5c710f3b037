"""A server in this very process, on asyncio's loop and on uvloop, with real clients."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
import websockets.asyncio.client

from granian_uring import Server, embedded
from granian_uring.config import OPTIONS
from granian_uring.errors import OperatorError
from granian_uring.lifespan import LifespanFailed

# No test needs more than a few seconds, on a busy machine either.
LONGEST_SECONDS = 30
Main = Callable[[], Coroutine[Any, Any, Any]]
Run = Callable[[Main], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine to its end on a loop of its own; nothing hangs."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.SelectorEventLoop

    def run(main: Main) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(asyncio.wait_for(main(), LONGEST_SECONDS))

    return run


class Application:
    """An ASGI application that notes its lifespan."""

    def __init__(self, text: str = "hello", fails: bool = False) -> None:
        self.text = text
        self.fails = fails
        self.notes: list[str] = []
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await self._lifespan(receive, send)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            message = await receive()
            await send({"type": "websocket.send", "text": message["text"]})
            return None
        self.notes.append(scope["path"])
        if scope["path"] == "/wait":
            self.began.set()
            await self.go_on.wait()
        if scope["path"] == "/for-ever":
            self.began.set()
            await asyncio.Event().wait()
        body = b""
        more = True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.text.encode() + body})
        return None

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        if self.fails:
            await send({"type": "lifespan.startup.failed", "message": "on purpose"})
            return
        self.notes.append("startup")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.notes.append("shutdown")
        await send({"type": "lifespan.shutdown.complete"})


def url(server: Server, path: str = "/") -> str:
    return f"http://{server.addresses[0]}{path}"


async def ask(server: Server, path: str = "/", body: bytes = b"") -> str:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        response = await client.post(url(server, path), content=body)
        assert response.status_code == 200
        return response.text


def test_it_serves_and_gives_its_address(run: Run) -> None:
    application = Application()

    async def main() -> None:
        async with Server(application, port=0) as server:
            assert application.notes == ["startup"]
            assert await ask(server, body=b"x" * 300_000) == "hello" + "x" * 300_000
            address = server.addresses[0]
            async with websockets.asyncio.client.connect(f"ws://{address}") as client:
                await client.send("there and back")
                assert await client.recv() == "there and back"
        with pytest.raises(httpx.ConnectError):
            await ask(server)

    run(main)
    assert application.notes == ["startup", "/", "shutdown"]


def test_serve_ends_when_it_is_told_to(run: Run) -> None:
    application = Application()

    async def main() -> None:
        server = Server(application, port=0)
        serving = asyncio.create_task(server.serve())
        while not server.addresses or application.notes != ["startup"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        waiting = asyncio.create_task(ask(server, "/wait"))
        await application.began.wait()
        server.stop()
        await asyncio.sleep(0.05)
        # A drain: who is under way is answered.
        assert not serving.done()
        application.go_on.set()
        assert await waiting == "hello"
        await serving

    run(main)
    assert application.notes[-1] == "shutdown"


def test_cancelling_serve_drains_too(run: Run) -> None:
    application = Application()

    async def main() -> None:
        async with Server(application, port=0) as server:
            serving = asyncio.create_task(server.serve())
            assert await ask(server) == "hello"
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            assert await ask(server) == "hello"

    run(main)
    assert application.notes[-1] == "shutdown"


def test_the_drain_has_its_time(run: Run) -> None:
    application = Application()

    async def main() -> None:
        async with Server(application, port=0, graceful_timeout=0.2) as server:
            asking = asyncio.create_task(ask(server, "/for-ever"))
            await application.began.wait()
            began = time.monotonic()
        assert time.monotonic() - began < 5
        with pytest.raises(httpx.TransportError):
            await asking

    run(main)


def test_a_reload_loses_nobody(run: Run) -> None:
    first, second = Application("first "), Application("second ")

    async def main() -> None:
        async with Server(first, port=0) as server:
            address = server.addresses
            waiting = asyncio.create_task(ask(server, "/wait"))
            await first.began.wait()
            reloading = asyncio.create_task(server.reload(second))
            while "startup" not in second.notes or await ask(server) != "second ":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert not reloading.done()
            first.go_on.set()
            assert await waiting == "first "
            await reloading
            assert first.notes[-1] == "shutdown"
            assert server.addresses == address
            # One that does not start changes nothing.
            with pytest.raises(LifespanFailed, match="startup failed"):
                await server.reload(Application(fails=True))
            assert await ask(server) == "second "

    run(main)
    assert second.notes[-1] == "shutdown"


def test_a_reload_calls_the_factory_again(run: Run) -> None:
    made: list[Application] = []

    def make() -> Application:
        made.append(Application(f"number {len(made)}"))
        return made[-1]

    async def main() -> None:
        async with Server(make, factory=True, port=0) as server:
            assert await ask(server) == "number 0"
            await server.reload()
            assert await ask(server) == "number 1"

    run(main)
    assert [one.notes[-1] for one in made] == ["shutdown", "shutdown"]


def test_several_at_once_and_one_after_another(run: Run) -> None:
    async def main() -> None:
        for _ in range(2):
            async with contextlib.AsyncExitStack() as stack:
                servers = [
                    await stack.enter_async_context(Server(Application(name), port=0))
                    for name in "abc"
                ]
                asked = [ask(server) for server in servers for _ in range(10)]
                answers = await asyncio.gather(*asked)
                assert answers == ["a"] * 10 + ["b"] * 10 + ["c"] * 10

    run(main)


def wsgi_application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    time.sleep(0.05)
    start_response("200 OK", [("content-type", "text/plain")])
    return [threading.current_thread().name.encode(), environ["wsgi.input"].read()]


@pytest.mark.parametrize("threads", [0, 1, 8])
def test_wsgi(run: Run, threads: int) -> None:
    async def main() -> set[str]:
        async with Server(wsgi_application, port=0, blocking_threads=threads) as server:
            return set(await asyncio.gather(*(ask(server) for _ in range(16))))

    names = run(main)
    if threads == 0:
        assert names == {threading.current_thread().name}
    else:
        assert 1 <= len(names) <= threads and "MainThread" not in names
    # They have left; the kernel may take a moment to forget them.
    give_up = time.monotonic() + 10
    while wsgi_threads():
        assert time.monotonic() < give_up, wsgi_threads()


def wsgi_threads() -> list[str]:
    """Names of threads of this process that serve a WSGI application."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        # One that ends meanwhile is none.
        with contextlib.suppress(OSError):
            names.append(task.joinpath("comm").read_text())
    return [name for name in names if name.startswith("wsgi-")]


class Rsgi:
    """An RSGI application with hooks."""

    def __init__(self) -> None:
        self.notes: list[Any] = []

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.notes.append(loop.is_running())

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.notes.append("del")

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        protocol.response_str(200, [], scope.path)


def test_rsgi(run: Run) -> None:
    application = Rsgi()

    async def main() -> None:
        async with Server(application, port=0) as server:
            assert await ask(server, "/there") == "/there"

    run(main)
    assert application.notes == [True, "del"]


def test_sockets_that_are_given_stay_open(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            path = tmp_path / "socket"
            async with Server(Application(), fds=[listener.fileno()], uds=path) as server:
                assert await ask(server) == "hello"
                transport = httpx.AsyncHTTPTransport(uds=str(path))
                async with httpx.AsyncClient(transport=transport) as client:
                    assert (await client.get("http://x/")).text == "hello"
            assert not path.exists()
            assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1

    run(main)


def test_what_keeps_it_from_starting_is_raised(run: Run) -> None:
    async def main() -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            pytest.raises(OperatorError, match="in use"),
        ):
            await Server(Application(), port=listener.getsockname()[1]).serve()
        with pytest.raises(LifespanFailed, match="startup failed"):
            await Server(Application(fails=True), port=0).serve()
        with pytest.raises(OperatorError, match="expected a callable"):
            await Server(7, port=0).serve()
        server = Server(Application(), port=0)
        async with server:
            pass
        with pytest.raises(RuntimeError, match="serves once"):
            await server.serve()
        with pytest.raises(RuntimeError, match="does not serve"):
            await server.reload()

    before = descriptors()
    run(main)
    assert descriptors() == before


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="port: 70000 is not in the range"):
        Server(Application(), port=70000)
    with pytest.raises(ValueError, match="overload: 'maybe'"):
        Server(Application(), overload="maybe")
    with pytest.raises(TypeError, match="no option 'workers'"):
        Server(Application(), workers=2)  # type: ignore[call-arg]
    assert Server(Application(), uds="x", uds_permissions=0o660)._settings.uds_permissions == 0o660


# What is the process's: the command line has these alone.
OF_A_PROCESS = {"fd_from_systemd", "fd_names", "working_dir", "env_files", "loop"}
OF_A_PROCESS |= {"log", "log_level", "log_config", "pid_file", "process_name"}


def test_every_option_is_there() -> None:
    expected = {option.name for option in OPTIONS} - OF_A_PROCESS
    assert set(embedded.ServerOptions.__annotations__) == expected


def descriptors() -> set[str]:
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(f"{fd.name} {fd.readlink()}")
    return found


# What the first connection by uvloop opens: libuv's, for the day there is no other descriptor left.
LOOPS_OWN = {"/dev/null"}


def test_nothing_is_left_behind(run: Run) -> None:
    async def main() -> None:
        tasks, fds = asyncio.all_tasks(), descriptors()
        kept: list[weakref.ref[Any]] = []
        for application in (Application(), Rsgi(), wsgi_application):
            async with Server(application, port=0) as server:
                assert await ask(server)
                assert server._generation is not None
                kept.append(weakref.ref(server._generation._worker))
                await server.reload()
            del server
        # The last round of callbacks, and asyncio's own cycles.
        await asyncio.sleep(0.1)
        gc.collect()
        assert asyncio.all_tasks() == tasks
        assert [one() for one in kept] == [None] * 3
        left = {fd.split()[1] for fd in descriptors() - fds}
        assert left <= LOOPS_OWN, left

    run(main)


def test_the_process_stays_as_it_is(run: Run) -> None:
    def state() -> Any:
        import resource

        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        handlers.append(signal.getsignal(signal.SIGHUP))
        logger = logging.getLogger("granian")
        return (
            handlers[1:],
            resource.getrlimit(resource.RLIMIT_NOFILE),
            logger.handlers,
            logger.level,
            dict(os.environ),
            Path.cwd(),
        )

    async def main() -> None:
        interrupt = signal.getsignal(signal.SIGINT)
        before = state()
        async with Server(Application(), port=0) as server:
            assert await ask(server) == "hello"
            assert state() == before
            assert signal.getsignal(signal.SIGINT) is interrupt
        assert state() == before

    run(main)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_does_no_harm(run: Run) -> None:
    """It has the objects without the ring's memory, and drops them."""

    async def main() -> None:
        async with Server(Application(), port=0) as server:
            assert await ask(server) == "hello"
            pid = os.fork()
            if pid == 0:
                code = 1
                with contextlib.suppress(BaseException):
                    generation = server._generation
                    assert generation is not None
                    try:
                        generation._worker.census  # noqa: B018 - the look is what is tried
                    except RuntimeError:
                        code = 0
                    server._generation = None
                    del generation
                    gc.collect()
                os._exit(code)
            _, status = await asyncio.to_thread(os.waitpid, pid, 0)
            assert status == 0
            assert await ask(server) == "hello"

    run(main)


def test_its_access_log_goes_to_logging(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Server(Application(), port=0, access_log=True) as server:
            await ask(server, "/logged")

    with caplog.at_level(logging.INFO, logger="granian.access"):
        run(main)
    lines = [record.message for record in caplog.records if record.name == "granian.access"]
    assert len(lines) == 1 and "/logged" in lines[0]


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a program that embeds a server; it is gone after the test."""
    started = []

    def start(text: str) -> subprocess.Popen[str]:
        (tmp_path / "program.py").write_text(text)
        program = subprocess.Popen(
            [sys.executable, tmp_path / "program.py"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # What a shell runs in the background ignores SIGINT, and hands that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(program)
        return program

    yield start
    for program in started:
        program.kill()
        program.communicate()


PROGRAM = """
import asyncio, sys
import granian_uring

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive(); await send({"type": "lifespan.startup.complete"})
        await receive(); print("shutdown", flush=True)
        return await send({"type": "lifespan.shutdown.complete"})
    if scope["path"] == "/exit":
        sys.exit(5)

async def main():
    async with granian_uring.Server(app, port=0) as server:
        print(server.addresses[0], flush=True)
        await server.serve()

asyncio.run(main())
"""


def test_an_interrupt_is_the_loop_s(script: Callable[[str], subprocess.Popen[str]]) -> None:
    """asyncio.run cancels the main task, which drains."""
    program = script(PROGRAM)
    assert program.stdout is not None
    assert program.stdout.readline().startswith("127.0.0.1:")
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=LONGEST_SECONDS)
    assert out == "shutdown\n" and "KeyboardInterrupt" in err
    assert program.returncode == -signal.SIGINT


def test_sys_exit_of_a_handler_leaves_the_loop(
    script: Callable[[str], subprocess.Popen[str]],
) -> None:
    program = script(PROGRAM)
    assert program.stdout is not None
    address = program.stdout.readline().strip()
    assert httpx.get(f"http://{address}/exit", trust_env=False, timeout=10).status_code == 500
    program.communicate(timeout=LONGEST_SECONDS)
    assert program.returncode == 5


def test_it_runs_on_the_loop_of_the_program(tmp_path: Path) -> None:
    """A server inside an application of the program, whose loop is on a ring itself."""
    from loop.ring import ring_runner

    async def main() -> Any:
        async with Server(Application("inner"), port=0) as server:
            return await asyncio.gather(*(ask(server) for _ in range(5)))

    with ring_runner() as runner:
        assert runner.run(main()) == ["inner"] * 5
