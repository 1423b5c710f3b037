"""Flask and Django, unchanged, found by `--interface auto`."""

from collections.abc import Iterator

import httpx
import pytest
from asgi.process import Server

from wsgi.apps import MIB


@pytest.fixture(params=["flask", "django"], scope="module")
def framework(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=["4", "0"], scope="module")
def client(request: pytest.FixtureRequest, framework: str) -> Iterator[httpx.Client]:
    options = ("--blocking-threads", request.param)
    with Server(*options, app=f"wsgi.frameworks:{framework}_app") as server:
        server.wait_until_ready()
        with httpx.Client(base_url=server.url, timeout=20, trust_env=False) as client:
            yield client
        server.stop()


def test_routes(client: httpx.Client) -> None:
    response = client.get("/items/7", params={"q": "ä b"})
    assert response.json() == {"number": 7, "query": "ä b"}
    assert client.get("/nothing").status_code == 404


def test_a_multipart_upload_of_five_megabytes(client: httpx.Client) -> None:
    data = b"\0\r\n--x" * (5 * MIB // 6)
    response = client.post("/upload", data={"name": "ä"}, files={"file": ("f", data)})
    assert response.json() == {"name": "ä", "size": len(data)}


def test_a_chunked_upload(client: httpx.Client, framework: str) -> None:
    pieces = [b"a" * 10, b"b" * 70_000, b"c"]
    # Django reads as much as CONTENT_LENGTH says, whatever wsgi.input_terminated says.
    expected = b"" if framework == "django" else b"".join(pieces)
    assert client.post("/raw", content=iter(pieces)).content == expected


def test_a_stream(client: httpx.Client) -> None:
    response = client.get("/stream")
    assert response.headers["transfer-encoding"] == "chunked"
    assert response.text == "".join(f"{number}\n" for number in range(1000))


def test_a_file(client: httpx.Client) -> None:
    response = client.get("/file")
    assert response.content == b"f" * MIB
    assert response.headers["content-length"] == str(MIB)


def test_cookies(client: httpx.Client) -> None:
    response = client.get("/cookies", headers={"Cookie": "a=1"})
    assert response.text == "1"
    assert len(response.headers.get_list("set-cookie")) == 2


def test_head(client: httpx.Client) -> None:
    response = client.head("/items/7")
    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) > 0


def test_an_error_of_the_application(client: httpx.Client) -> None:
    assert client.get("/fails").status_code == 500
    assert client.get("/items/1").status_code == 200
