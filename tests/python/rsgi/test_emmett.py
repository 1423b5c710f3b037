"""Emmett, the framework that RSGI was made for, runs as it is."""

from collections.abc import Iterator

import httpx
import pytest
from asgi.process import HERE, Server
from asgi.test_websocket import open_client
from websockets.exceptions import InvalidStatus

SOURCE = HERE / "rsgi" / "emmett_application.py"


@pytest.fixture(scope="module")
def emmett() -> Iterator[Server]:
    # Emmett looks for templates and the like beside the module: in the directory it runs in.
    with Server(app="rsgi.emmett_application:app") as server:
        server.wait_until_ready()
        assert "the application: RSGI, an object of type App" in server.log.text
        yield server
        server.stop()


@pytest.fixture
def client(emmett: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=emmett.url, trust_env=False, timeout=20) as client:
        yield client


def test_path_and_query(client: httpx.Client) -> None:
    found = client.get("/items/7", params={"q": "ä b"}).json()
    assert found == {"number": 7, "query": "ä b", "client": "127.0.0.1"}


def test_forms_json_and_files(client: httpx.Client) -> None:
    assert client.post("/form", data={"a": "1", "b": "ž"}).json() == {"a": "1", "b": "ž"}
    assert client.post("/form", json={"a": [1]}).json() == {"a": [1]}
    content = bytes(5 * 1024 * 1024)
    found = client.post("/form", data={"a": "1"}, files={"upload": ("big.bin", content)}).json()
    assert found == {"a": "1", "upload": ["big.bin", len(content)]}


def test_cookies(client: httpx.Client) -> None:
    assert [client.get("/cookies").text for _ in range(2)] == ["new", "seen"]


def test_errors(client: httpx.Client) -> None:
    assert client.get("/missing").status_code == 404
    assert client.get("/nowhere").status_code == 404
    assert client.get("/broken").status_code == 500


def test_files(client: httpx.Client) -> None:
    source = SOURCE.read_bytes()
    assert client.get("/file").content == source
    assert client.head("/file").status_code == 200
    part = client.get("/file", headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, source[10:20])


@pytest.mark.parametrize("target", ["/iterated", "/streamed"])
def test_streams(client: httpx.Client, emmett: Server, target: str) -> None:
    mark = emmett.log.mark()
    assert client.get(target).content == b"0\n1\n2\n"
    assert client.get("/items/1").status_code == 200
    assert "ERROR" not in emmett.log.since(mark)


def test_websockets(emmett: Server) -> None:
    mark = emmett.log.mark()
    with open_client(emmett, "/talk") as websocket:
        for word in ("one", "two"):
            websocket.send(word)
            assert websocket.recv() == f"heard {word}"
    with pytest.raises(InvalidStatus) as raised:
        open_client(emmett, "/members")
    assert raised.value.response.status_code == 401
    assert "ERROR WebSocket" not in emmett.log.since(mark)
