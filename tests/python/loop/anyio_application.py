"""An ASGI application whose handlers use anyio and httpx: see `application.py`."""

import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio
import httpx
from anyio import to_thread
from anyio.abc import SocketAttribute

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def app(scope: Any, receive: Receive, send: Send) -> None:
    """The application, which does not take part in the lifespan."""
    assert scope["type"] == "http"
    text = await globals()[scope["path"].removeprefix("/")](scope, receive)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": text.encode()})


async def hello(_scope: Any, _receive: Receive) -> str:
    """What others ask for."""
    return "ok"


async def task_groups(_scope: Any, _receive: Receive) -> str:
    """Children that end, one that starts up, and one that fails."""
    ended: list[int] = []

    async def end(number: int) -> None:
        await anyio.sleep(0.01)
        ended.append(number)

    async def fail() -> None:
        raise LookupError

    async def start(*, task_status: Any) -> None:
        task_status.started("started")
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(end, number)
    assert sorted(ended) == list(range(20))
    async with anyio.create_task_group() as group:
        assert await group.start(start) == "started"
        group.cancel_scope.cancel()
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            group.start_soon(fail)
        raise AssertionError("the failure was lost")
    except* LookupError:
        pass
    return "ok"


async def cancel_scopes(_scope: Any, receive: Receive) -> str:
    """Deadlines, shields, and a scope that is cancelled before what it encloses waits."""
    with anyio.move_on_after(0.01) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    try:
        with anyio.fail_after(0.01):
            await anyio.sleep_forever()
        raise AssertionError("the deadline did nothing")
    except TimeoutError:
        pass
    with anyio.CancelScope() as outer:
        outer.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.01)
        await anyio.sleep_forever()
    assert outer.cancelled_caught
    first = await receive()
    assert first["type"] == "http.request" and not first["more_body"]
    # What Starlette's is_disconnected does.
    for _ in range(3):
        message = None
        with anyio.CancelScope() as looking:
            looking.cancel()
            message = await receive()
        assert message is None and looking.cancelled_caught
    return "ok"


async def threads(_scope: Any, _receive: Receive) -> str:
    """A thread, and a call from there back into the loop."""

    def work() -> int:
        assert threading.current_thread() is not threading.main_thread()
        anyio.from_thread.run(anyio.sleep, 0.01)
        return anyio.from_thread.run_sync(threading.get_ident)

    assert await to_thread.run_sync(work) == threading.get_ident()
    return "ok"


async def sockets_and_processes(_scope: Any, _receive: Receive) -> str:
    """Its networking, its watching of a socket, and a child process."""

    async def echo(stream: Any) -> None:
        async with stream:
            async for piece in stream:
                await stream.send(piece)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, echo)
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"over there")
            assert await stream.receive() == b"over there"
        group.cancel_scope.cancel()
    left, right = socket.socketpair()
    with left, right:
        right.send(b"x")
        await anyio.wait_readable(left)
        await anyio.wait_writable(left)
    done = await anyio.run_process(["cat"], input=b"through a child")
    assert done.stdout == b"through a child"
    return "ok"


async def asks_itself(scope: Any, _receive: Receive) -> str:
    """Requests to the very server that runs this, many at once, on connections kept open."""
    host, port = scope["server"]
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=20) as client:
        for _ in range(3):
            answers = [None] * 10
            async with anyio.create_task_group() as group:
                for number in range(10):
                    group.start_soon(keep_answer, client, answers, number)
            assert answers == ["ok"] * 10
    return "ok"


async def keep_answer(client: httpx.AsyncClient, answers: list[Any], number: int) -> None:
    """One request of `asks_itself`."""
    answers[number] = (await client.get("/hello")).text


async def asks_another(scope: Any, _receive: Receive) -> str:
    """A request to the server whose URL is in the query, whose answer is handed on."""
    async with httpx.AsyncClient(timeout=20) as client:
        return (await client.get(scope["query_string"].decode())).text
