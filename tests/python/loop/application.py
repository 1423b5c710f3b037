"""An ASGI application whose handlers use asyncio, and check what they see.

`/name` is answered by the function `name` below, with what it returns. A failed check raises, so
that the client gets a 500 and the log has the traceback. Handlers that answer by themselves return
None. The application is a plain callable: what it does before its first `await` belongs to its
request as well.
"""

import asyncio
import contextvars
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
background: set[asyncio.Task[None]] = set()
kept: list[Any] = []


class OwnTask(asyncio.Task[Any]):
    """What a task factory of an application may make."""


def app(scope: Any, receive: Receive, send: Send) -> Awaitable[None]:
    """The application."""
    if scope["type"] == "lifespan":
        return lifespan(receive, send)
    assert variable.get(None) is None, "a context variable came from another request"
    variable.set(scope["query_string"].decode())
    return answer(scope, receive, send)


def app_with_own_tasks(scope: Any, receive: Receive, send: Send) -> Awaitable[None]:
    """The application, with a task factory set by its startup."""
    if scope["type"] == "lifespan":
        factory = lambda loop, coro, **options: OwnTask(coro, loop=loop, **options)  # noqa: E731
        asyncio.get_running_loop().set_task_factory(factory)
    return app(scope, receive, send)


def app_with_eager_tasks(scope: Any, receive: Receive, send: Send) -> Awaitable[None]:
    """The application, with asyncio's eager tasks everywhere (3.12)."""
    if scope["type"] == "lifespan" and sys.version_info >= (3, 12):
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    return app(scope, receive, send)


def app_that_exits_in_startup(scope: Any, receive: Receive, send: Send) -> Awaitable[None]:
    """An application whose startup ends the process."""

    async def startup() -> None:
        await receive()
        sys.exit(7)

    return startup()


async def lifespan(receive: Receive, send: Send) -> None:
    """Takes part, and does nothing."""
    for _ in range(2):
        message = await receive()
        await send({"type": f"{message['type']}.complete"})


async def answer(scope: Any, receive: Receive, send: Send) -> None:
    """Calls the handler, and sends what it returns."""
    text = await globals()[scope["path"].removeprefix("/")](receive, send)
    if text is not None:
        await reply(send, text)


async def reply(send: Send, text: str) -> None:
    """A whole answer."""
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": text.encode()})


# --- what asyncio offers ---------------------------------------------------------------------


async def timers(_receive: Receive, _send: Send) -> str:
    """Sleeping, ordered callbacks, timeouts, a task group and cancellation."""
    loop = asyncio.get_running_loop()
    seen: list[int] = []
    loop.call_later(0.02, seen.append, 2)
    loop.call_later(0.01, seen.append, 1)
    loop.call_soon(seen.append, 0)
    await asyncio.sleep(0.05)
    assert seen == [0, 1, 2]
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(30)
        raise AssertionError("the timeout did nothing")
    except TimeoutError:
        pass
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.sleep(0.001, number)) for number in range(50)]
    assert [task.result() for task in tasks] == list(range(50))
    try:
        async with asyncio.TaskGroup() as group:
            sibling = group.create_task(asyncio.sleep(30))
            group.create_task(asyncio.wait_for(asyncio.sleep(30), 0.01))
    except* TimeoutError:
        assert sibling.cancelled()
    return "ok"


async def threads(_receive: Receive, _send: Send) -> str:
    """Executors and wake-ups from threads."""
    loop = asyncio.get_running_loop()
    assert await asyncio.to_thread(threading.get_ident) != threading.get_ident()
    assert await loop.run_in_executor(None, pow, 2, 10) == 1024
    woken = asyncio.Event()
    threading.Timer(0.01, loop.call_soon_threadsafe, [woken.set]).start()
    await asyncio.wait_for(woken.wait(), 10)
    return "ok"


async def send_from_a_thread(_receive: Receive, send: Send) -> str:
    """The connection belongs to the loop's thread: another one is told so."""
    try:
        await asyncio.to_thread(lambda: asyncio.run(reply(send, "from a thread")))
    except RuntimeError as error:
        return str(error)
    return "it was allowed"


async def processes(_receive: Receive, _send: Send) -> str:
    """Children with pipes, and children made by fork."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec("cat", stdin=pipe, stdout=pipe)
    blob = os.urandom(300_000)
    out, _ = await child.communicate(blob)
    assert out == blob and child.returncode == 0
    endless = await asyncio.create_subprocess_exec("cat", stdin=pipe)
    endless.kill()
    assert await endless.wait() == -signal.SIGKILL
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        assert await loop.run_in_executor(pool, pow, 2, 10) == 1024
    return "ok"


async def network(_receive: Receive, _send: Send) -> str:
    """Streams of asyncio's own against each other."""
    blob = os.urandom(1 << 20)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(blob)
        writer.write_eof()
        received = await reader.read(-1)
        writer.close()
    assert received == blob
    return "ok"


async def signals(_receive: Receive, _send: Send) -> str:
    """A handler of the application, for a signal that the server leaves alone."""
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, came.set)
    threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGUSR1]).start()
    await asyncio.wait_for(came.wait(), 10)
    loop.remove_signal_handler(signal.SIGUSR1)
    return "ok"


def take_one(sock: socket.socket, taken: "asyncio.Future[bytes]") -> None:
    """A reader that gives its first byte to `taken`."""
    if not taken.done():
        taken.set_result(sock.recv(1))


# --- what a request is to asyncio ------------------------------------------------------------


async def readers_swapped(_receive: Receive, _send: Send) -> str:
    """Replaces a reader in the request's first step."""
    loop = asyncio.get_running_loop()
    left, right = socket.socketpair()
    called = loop.create_future()
    loop.add_reader(left, called.set_exception, AssertionError("the reader had been removed"))
    right.send(b"x")
    loop.remove_reader(left)
    loop.add_reader(left, lambda: take_one(left, called))
    assert await asyncio.wait_for(called, 10) == b"x"
    loop.remove_reader(left)
    left.close()
    right.close()
    return "ok"


async def reader_left_over(_receive: Receive, _send: Send) -> str:
    """Leaves a reader behind whose descriptor is ready, and keeps the loop for a while."""
    left, right = socket.socketpair()
    asyncio.get_running_loop().add_reader(left, lambda: None)
    right.send(b"x")
    kept[:] = [left, right]
    print("keeping the loop")
    time.sleep(0.3)  # noqa: ASYNC251 - the next turn is to find the descriptor and a request
    return "ok"


async def reader_taken_over(_receive: Receive, _send: Send) -> str:
    """Takes the descriptor over in its first step, in a turn that has found it ready."""
    loop = asyncio.get_running_loop()
    left, right = kept
    loop.remove_reader(left)
    called = loop.create_future()
    loop.add_reader(left, lambda: take_one(left, called))
    assert await asyncio.wait_for(called, 10) == b"x"
    loop.remove_reader(left)
    left.close()
    right.close()
    return "ok"


async def context(_receive: Receive, _send: Send) -> str:
    """The context variable that `app` set, before and after waiting, and in children."""
    before = variable.get()
    await asyncio.sleep(0.01)
    child = await asyncio.create_task(asyncio.sleep(0, variable.get()))
    in_thread = await asyncio.to_thread(variable.get)
    assert before == variable.get() == child == in_thread
    return before


async def current_task(_receive: Receive, _send: Send) -> str:
    """The request's task is a real one, before and after waiting."""
    task = asyncio.current_task()
    assert isinstance(task, asyncio.Task) and task in asyncio.all_tasks()
    before = len(asyncio.all_tasks())
    await asyncio.sleep(0.05)
    assert asyncio.current_task() is task and not task.done() and before > 0
    return f"{id(task)}"


async def kind_of_task(_receive: Receive, _send: Send) -> str:
    """The class of the request's task, and of one that it makes."""
    child = asyncio.create_task(asyncio.sleep(0))
    await child
    return f"{type(asyncio.current_task()).__name__} {type(child).__name__}"


async def never_waits(_receive: Receive, send: Send) -> None:
    """Answers in one step, during which the loop does not run."""
    ran: list[bool] = []
    asyncio.get_running_loop().call_soon(ran.append, True)
    await reply(send, "ok" if asyncio.current_task() in asyncio.all_tasks() else "no task")
    assert not ran


async def cancels_itself(_receive: Receive, _send: Send) -> str:
    """Cancellation of the request's own task, taken back."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        task.uncancel()
    return "ok"


async def outlives(_receive: Receive, _send: Send) -> str:
    """Leaves a task behind that goes on after the answer."""

    async def later() -> None:
        await asyncio.sleep(0.05)
        kept.append("later")

    kept.clear()
    task = asyncio.create_task(later())
    background.add(task)
    task.add_done_callback(background.discard)
    return "ok"


async def outlived(_receive: Receive, _send: Send) -> str:
    """Waits for what `outlives` left behind."""
    await asyncio.wait_for(asyncio.gather(*background), 10)
    return " ".join(kept)


async def left_for_shutdown(_receive: Receive, _send: Send) -> str:
    """Leaves behind a task and a generator that have something to clean up."""

    async def endless() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            print("the task has cleaned up")

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            print("the generator has cleaned up")

    background.add(asyncio.create_task(endless()))
    kept.append(numbers())
    await anext(kept[-1])
    return "ok"


# --- receive and send as awaitables ----------------------------------------------------------


async def body_of(receive: Receive) -> bytes:
    """The rest of the body."""
    body, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request", message
        body += message["body"]
        more = message["more_body"]
    return body


async def receive_in_a_task(receive: Receive, send: Send) -> None:
    """`receive` and `send` as tasks, and in `gather`."""
    first: Message = await asyncio.create_task(receive())  # type: ignore[arg-type]
    rest = b"" if not first["more_body"] else await body_of(receive)
    start = {"type": "http.response.start", "status": 200}
    await asyncio.create_task(send(start))  # type: ignore[arg-type]
    body = {"type": "http.response.body", "body": first["body"] + rest, "more_body": True}
    end = {"type": "http.response.body"}
    await asyncio.gather(send(body), send(end))


async def receive_against_others(receive: Receive, _send: Send) -> str:
    """Waits for the next message or for something else, whatever is first, to the end."""
    body, more, others = b"", True, 0
    receiving: asyncio.Future[Message] = asyncio.ensure_future(receive())
    while more:
        other: asyncio.Future[None] = asyncio.create_task(asyncio.sleep(0.005))
        both: set[asyncio.Future[Any]] = {receiving, other}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        others += other.done()
        if receiving.done():
            body += receiving.result()["body"]
            more = receiving.result()["more_body"]
            receiving = asyncio.ensure_future(receive())
    receiving.cancel()
    return f"{others > 0} {body.decode()}"


async def receive_interrupted(receive: Receive, _send: Send) -> str:
    """Gives up waiting for the next message, over and over, and loses none."""
    body, more, given_up = b"", True, 0
    while more:
        try:
            message = await asyncio.wait_for(receive(), 0.001)
        except TimeoutError:
            given_up += 1
            continue
        body += message["body"]
        more = message["more_body"]
    return f"{given_up > 0} {body.decode()}"


async def receive_cancelled_on_arrival(receive: Receive, _send: Send) -> str:
    """Cancels a waiting `receive` in the iteration that has news for it."""
    body, more = b"", True
    while more:
        waiting: asyncio.Future[Message] = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        if not waiting.done():
            waiting.cancel()
        await asyncio.wait({waiting})
        if not waiting.cancelled():
            body += waiting.result()["body"]
            more = waiting.result()["more_body"]
    return body.decode()


async def thrown_into(receive: Receive, send: Send) -> None:
    """`throw` in its three forms, as callers of a coroutine's `throw` use it."""
    await send({"type": "http.response.start", "status": 200})
    end = {"type": "http.response.body", "body": b"ok"}
    error = LookupError("mine")
    forms = [(error,), (LookupError, error, None), (LookupError, "mine"), (LookupError,)]
    for form in forms:
        awaitables: list[Any] = [receive(), send({**end, "body": b"", "more_body": True})]
        for awaitable in awaitables:
            try:
                awaitable.throw(*form)
            except LookupError as caught:
                assert caught is error if error in form else type(caught) is LookupError
                assert caught.args == (() if form == (LookupError,) else ("mine",))
    await send(end)


async def disconnect_seen(receive: Receive, _send: Send) -> str:
    """Waits for the end of the client in a task, while the handler does something else."""
    await body_of(receive)
    watching: asyncio.Future[Message] = asyncio.ensure_future(receive())
    kept[:] = [asyncio.Event()]
    print("waiting for the client to leave")
    message = await asyncio.wait_for(watching, 10)
    kept[0].set()
    return str(message["type"])


async def disconnect_was_seen(_receive: Receive, _send: Send) -> str:
    """Whether `disconnect_seen` has."""
    await asyncio.wait_for(kept[0].wait(), 10)
    return "ok"


# --- trouble -----------------------------------------------------------------------------------


async def slow_at_once(_receive: Receive, _send: Send) -> str:
    """Keeps the loop in its first step."""
    time.sleep(0.2)  # noqa: ASYNC251 - the slowness itself
    return "ok"


async def slow_later(_receive: Receive, _send: Send) -> str:
    """Keeps the loop after waiting."""
    await asyncio.sleep(0)
    time.sleep(0.2)  # noqa: ASYNC251 - the slowness itself
    return "ok"


async def exit_at_once(_receive: Receive, _send: Send) -> str:
    """Wants the process to end, in its first step."""
    sys.exit(7)


async def exit_later(_receive: Receive, _send: Send) -> str:
    """Wants the process to end, after waiting."""
    await asyncio.sleep(0.01)
    sys.exit(7)


async def interrupt_at_once(_receive: Receive, _send: Send) -> str:
    """As if someone had pressed ^C, in its first step."""
    raise KeyboardInterrupt


async def interrupt_later(_receive: Receive, _send: Send) -> str:
    """As if someone had pressed ^C, after waiting."""
    await asyncio.sleep(0.01)
    raise KeyboardInterrupt


async def exit_in_a_callback(_receive: Receive, _send: Send) -> str:
    """Wants the process to end, from outside of any request, and answers afterwards."""
    asyncio.get_running_loop().call_soon(sys.exit, 7)
    await asyncio.sleep(0.1)
    return "ok"
