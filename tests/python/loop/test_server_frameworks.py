"""anyio, httpx and Starlette inside the requests of a real server."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from . import starlette_application
from .server import ServerProcess

OK = (200, "ok")


@pytest.fixture(scope="module")
def anyio_server() -> Iterator[ServerProcess]:
    with ServerProcess("anyio_application:app") as server:
        yield server
        assert server.stop() == 0
        assert "Traceback" not in server.text, server.text


@pytest.fixture(scope="module", params=["app", "app_with_middleware"])
def starlette_server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    with ServerProcess(f"starlette_application:{request.param}") as server:
        yield server
        assert server.stop() == 0
        assert server.log.count("startup") == server.log.count("shutdown") == 1
        # Those of test_an_error_of_the_application, and no other.
        assert server.text.count("Traceback") == server.text.count("Error: broken on purpose")


@pytest.fixture
def client(starlette_server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=starlette_server.url, timeout=30) as client:
        yield client


@pytest.mark.parametrize(
    "handler",
    ["task_groups", "cancel_scopes", "threads", "sockets_and_processes", "asks_itself"],
)
def test_anyio_and_httpx_in_a_request(anyio_server: ServerProcess, handler: str) -> None:
    assert anyio_server.ask(f"/{handler}") == OK


def test_a_request_to_another_server(anyio_server: ServerProcess) -> None:
    with ServerProcess("application:app") as other:
        assert anyio_server.ask(f"/asks_another?{other.url}/timers") == OK


# --- Starlette -----------------------------------------------------------------------------------


def test_routes(client: httpx.Client) -> None:
    expected = {"number": 7, "query": "ä b", "body": None, "state": "from the startup"}
    assert client.get("/items/7", params={"q": "ä b"}).json() == expected
    body = {"list": list(range(10_000))}
    assert client.post("/items/8", json=body).json()["body"] == body
    assert client.get("/items/none").status_code == 404
    assert client.delete("/items/7").status_code == 405
    assert client.get("/in_a_thread").text == "from a thread"


def test_middleware_sees_every_answer(
    client: httpx.Client, starlette_server: ServerProcess, request: pytest.FixtureRequest
) -> None:
    stamp = client.get("/in_a_thread").headers.get("x-stamp")
    assert stamp == ("/in_a_thread" if "app_with_middleware" in request.node.name else None)


def test_a_stream_of_unknown_length(client: httpx.Client) -> None:
    answer = client.get("/count")
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.text.split() == [str(number) for number in range(100)]


def test_a_body_is_echoed_while_it_comes_in(starlette_server: ServerProcess) -> None:
    """More than all buffers on the way hold, so that neither side can wait for the other's end."""
    blob = os.urandom(8 << 20)

    async def exchange() -> bytes:
        reader, writer = await asyncio.open_connection(*starlette_server.address)
        head = f"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: {len(blob)}\r\n\r\n"
        writer.write(head.encode() + blob)
        answer_head = await reader.readuntil(b"\r\n\r\n")
        assert answer_head.startswith(b"HTTP/1.1 200 ")
        answer, _ = await asyncio.gather(reader.readexactly(len(blob)), writer.drain())
        writer.close()
        await writer.wait_closed()
        return answer

    async def bounded() -> bytes:
        async with asyncio.timeout(30):
            return await exchange()

    assert asyncio.run(bounded()) == blob


def test_background_tasks_run_after_the_answer(client: httpx.Client) -> None:
    assert client.get("/background").text == "accepted"
    assert client.get("/wait_for/background").text == "ok"


def test_a_file_and_a_part_of_it(client: httpx.Client) -> None:
    content = Path(starlette_application.__file__).read_bytes()
    whole = client.get("/file")
    assert whole.content == content
    assert client.head("/file").headers["content-length"] == str(len(content))
    part = client.get("/file", headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, content[10:20])


def test_is_disconnected() -> None:
    """Without middleware: Starlette's own hides the disconnect from `is_disconnected`."""
    with ServerProcess("starlette_application:app") as server:
        with socket.create_connection(server.address, 30) as connection:
            connection.sendall(b"GET /until_gone HTTP/1.1\r\nhost: x\r\n\r\n")
            server.wait_for("looking for the client")
        assert server.ask("/wait_for/gone") == OK


def test_a_stream_ends_with_its_client(client: httpx.Client) -> None:
    with client.stream("GET", "/endless") as answer:
        assert next(answer.iter_bytes(65536)) == bytes(65536)
    assert client.get("/wait_for/stream").text == "ok"


def test_an_error_of_the_application(client: httpx.Client) -> None:
    answer = client.get("/broken")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert client.get("/count").status_code == 200
