"""Every framework, unchanged, does here what it promises: one set of tests for all of them.

`contract.py` says what the applications answer, `conftest.py` what a framework does not have.
"""

import hashlib
import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from asgi.client import Client, get
from asgi.test_websocket import open_client
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from frameworks import contract
from frameworks.conftest import FILE_BYTES, Served

UPLOAD_BYTES = 5 * 1024 * 1024


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.server.url, trust_env=False, timeout=30) as client:
        yield client


# --- bodies --------------------------------------------------------------------------------------


def test_path_parameters_and_the_query(client: httpx.Client) -> None:
    response = client.get("/items/7", params={"q": "ä b"})
    assert (response.status_code, response.json()) == (200, {"number": 7, "query": "ä b"})
    assert client.get("/nowhere").status_code == 404


def test_json(client: httpx.Client) -> None:
    body = {"list": list(range(10_000)), "text": "ž \N{SNOWMAN}", "none": None}
    response = client.post("/json", json=body)
    assert (response.status_code, response.json()) == (200, body)


def test_a_form(client: httpx.Client) -> None:
    fields = {"a": "1 & 2", "b": "ž"}
    response = client.post("/form", data=fields)
    assert (response.status_code, response.json()) == (200, fields)


@pytest.mark.parametrize("seed", [1])
def test_a_multipart_upload(client: httpx.Client, seed: int) -> None:
    content = random.Random(seed).randbytes(UPLOAD_BYTES)
    files = {"file": ("big.bin", content, "application/octet-stream")}
    response = client.post("/upload", data={"name": "ä"}, files=files)
    assert response.status_code == 200
    assert response.json() == contract.describe("ä", "big.bin", content)


def test_cookies(client: httpx.Client) -> None:
    response = client.get("/cookies", headers={"Cookie": "a=1"})
    assert response.json() == {"a": "1"}
    ours = response.headers.get_list("set-cookie")
    assert sorted(cookie.partition(";")[0] for cookie in ours) == ["b=2", "c=3"]
    assert client.get("/cookies").json() == {"b": "2", "c": "3"}


# --- streams -------------------------------------------------------------------------------------


LINES = [f"line {number}\n".encode() for number in range(20)]


@pytest.mark.needs("shout")
@pytest.mark.parametrize("chunked", [pytest.param(True, marks=pytest.mark.needs("chunked")), False])
def test_an_upload_is_answered_while_it_comes(served: Served, chunked: bool) -> None:
    """Each line is sent when the answer to the one before it has been read."""
    length = sum(map(len, LINES))
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {length}"
    with served.server.connect() as client:
        client.send(f"POST /shout HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n".encode())
        for number, line in enumerate(LINES):
            client.send(b"%x\r\n%s\r\n" % (len(line), line) if chunked else line)
            if number == 0:
                assert client.read_head()[1] == 200
            answer = b""
            while len(answer) < len(line):
                answer += client.read_chunk()
            assert answer == line.upper()
        if chunked:
            client.send(b"0\r\n\r\n")
        assert client.read_chunk() == b""


def test_a_streamed_download(client: httpx.Client) -> None:
    with client.stream("GET", "/stream") as response:
        assert response.status_code == 200
        assert response.headers["transfer-encoding"] == "chunked"
        assert digest(response) == hashlib.sha256(b"".join(contract.pieces())).hexdigest()


def test_a_file(client: httpx.Client, served: Served) -> None:
    expected = hashlib.sha256(served.file.read_bytes()).hexdigest()
    with client.stream("GET", "/file") as response:
        assert response.status_code == 200
        assert int(response.headers.get("content-length", FILE_BYTES)) == FILE_BYTES
        assert digest(response) == expected


@pytest.mark.needs("sent files")
def test_a_file_is_read_by_the_ring(client: httpx.Client, served: Served) -> None:
    if os.environ.get("GRANIAN_RUNTIME") == "epoll":
        pytest.skip("on epoll there is no ring: files are read by pread(2)")
    before = read_by_calls(served)
    assert len(client.get("/file").content) == FILE_BYTES
    assert read_by_calls(served) - before < FILE_BYTES // 10


def read_by_calls(served: Served) -> int:
    """Bytes that the process has read by `read` and the like, of which the ring's are none."""
    # proc_pid_io(5): what was asked of the kernel by system calls.
    found = re.search(r"^rchar: (\d+)$", Path(f"/proc/{served.server.pid}/io").read_text(), re.M)
    assert found is not None
    return int(found[1])


def read_some(served: Served) -> None:
    """Reads a megabyte of a stream without an end, and leaves."""
    with served.server.connect() as client:
        client.send(get("/endless"))
        assert client.read_head()[1] == 200
        received = 0
        while received < 1_000_000:
            received += len(client.receive(65536))


def test_a_client_that_never_reads_costs_little(served: Served) -> None:
    """Less than 1 MiB, of a stream without an end in pieces of 64 KiB."""
    read_some(served)
    server = served.server
    server.wait_for_rest()
    before = server.status("VmRSS")
    with server.connect(receive_buffer=4096) as client:
        client.send(get("/endless"))
        assert client.read_head()[1] == 200
        server.wait_for_rest()
        grown = server.status("VmRSS") - before
    assert grown < 1024, f"{grown} KiB more while the client did not read"


def test_a_stream_ends_with_its_client(served: Served) -> None:
    mark = served.server.out.mark()
    read_some(served)
    if "closed streams" not in served.framework.lacks:
        served.server.out.wait_for("note: endless is over", since=mark)
    assert json.loads(served.server.ask("/items/1"))["number"] == 1


def test_events_arrive_as_they_are_made(served: Served, client: httpx.Client) -> None:
    """The next one is made when the one before it has been read."""
    with served.server.connect() as listener:
        listener.send(get("/events"))
        for number in range(5):
            assert client.post(f"/publish/word-{number}").text == "ok"
            if number == 0:
                _version, status, headers = listener.read_head()
                assert status == 200
                assert dict(headers)["content-type"].startswith("text/event-stream")
            assert read_event(listener) == f"data: word-{number}"
        client.post("/publish/end")
        assert listener.read_chunk() == b""


def read_event(listener: Client) -> str:
    """The next event, without the empty line that ends it."""
    text = b""
    while not text.replace(b"\r\n", b"\n").endswith(b"\n\n"):
        text += listener.read_chunk()
    return text.decode().strip()


def digest(response: httpx.Response) -> str:
    """The SHA-256 of a body, as it comes."""
    found = hashlib.sha256()
    for piece in response.iter_bytes():
        found.update(piece)
    return found.hexdigest()


# --- beside requests -----------------------------------------------------------------------------


@pytest.mark.needs("background")
def test_a_background_task_runs_after_the_answer(served: Served, client: httpx.Client) -> None:
    """It waits for a word that is published when the answer is there."""
    mark = served.server.out.mark()
    assert client.post("/background").text == "accepted"
    assert client.post("/publish/later").text == "ok"
    served.server.out.wait_for("note: background later", since=mark)


@pytest.mark.needs("lifespan")
def test_what_was_made_at_the_start_is_there(client: httpx.Client) -> None:
    assert client.get("/state").text == contract.GREETING


# --- WebSockets ----------------------------------------------------------------------------------


@pytest.mark.needs("websocket")
def test_messages_of_both_kinds(served: Served) -> None:
    with open_client(served.server, "/talk") as websocket:
        for message in ("hello", "ž \N{SNOWMAN}" * 10_000, b"\0\xff", bytes(300_000)):
            websocket.send(message)
            assert websocket.recv() == message


@pytest.mark.needs("websocket")
def test_many_messages_stay_in_order(served: Served) -> None:
    """All are under way before the first answer is read, some more than fit into one read."""
    messages = [
        json.dumps({"number": number, "padding": "x" * (number % 97)}) for number in range(3000)
    ]
    with open_client(served.server, "/talk", max_queue=None) as websocket:
        for message in messages:
            websocket.send(message)
        assert [websocket.recv() for _ in messages] == messages


@pytest.mark.needs("websocket")
@pytest.mark.needs("subprotocols")
def test_a_subprotocol(served: Served) -> None:
    offered = [Subprotocol("other.example"), Subprotocol(contract.SUBPROTOCOL)]
    with open_client(served.server, "/talk", subprotocols=offered) as websocket:
        assert websocket.subprotocol == contract.SUBPROTOCOL
    with open_client(served.server, "/talk") as websocket:
        assert websocket.subprotocol is None


@pytest.mark.needs("websocket")
@pytest.mark.needs("closing")
def test_the_application_closes(served: Served) -> None:
    with open_client(served.server, "/talk") as websocket:
        websocket.send("close 4001 enough")
        with pytest.raises(ConnectionClosed) as raised:
            websocket.recv()
    assert raised.value.rcvd is not None
    assert (raised.value.rcvd.code, raised.value.rcvd.reason) == (4001, "enough")


@pytest.mark.needs("websocket")
def test_the_client_closes(served: Served) -> None:
    mark = served.server.out.mark()
    with open_client(served.server, "/talk") as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"
        websocket.close(3001)
        assert websocket.close_code == 3001
    told = "" if "close codes" in served.framework.lacks else " 3001"
    served.server.out.wait_for(f"note: talk is over{told}$", since=mark)
