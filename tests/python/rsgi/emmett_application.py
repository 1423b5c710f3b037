# mypy: disable-error-code="untyped-decorator, import-untyped"
"""An Emmett application, as its users write them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from emmett55 import App, abort, request, response, websocket
from emmett55.tools import service
from emmett_core.http.response import HTTPResponse

app = App(__name__)
FILE = Path(__file__)


@app.route("/items/<int:number>", methods="get")
@service.json
async def items(number: int) -> dict[str, Any]:
    """A path parameter and the query."""
    return {"number": number, "query": request.query_params.q, "client": request.client}


@app.route("/form", methods="post")
@service.json
async def form() -> dict[str, Any]:
    """A form, or JSON, or files of one."""
    fields = await request.body_params
    files = await request.files
    found: dict[str, Any] = dict(fields)
    for name, file in files.items():
        found[name] = [file.filename, len(await asyncio.to_thread(file.read))]
    return found


@app.route("/cookies", methods="get")
async def cookies() -> str:
    """Cookies both ways."""
    response.cookies["seen"] = "1"
    return "seen" if "seen" in request.cookies else "new"


@app.route("/missing", methods="get")
async def missing() -> str:
    """An error of the application's own choice."""
    abort(404, "nothing here")
    return ""


@app.route("/broken", methods="get")
async def broken() -> str:
    """An exception."""
    raise RuntimeError("broken on purpose")


@app.route("/file", methods=["get", "head"])
async def file() -> Any:
    """A file."""
    return response.wrap_file(FILE)


async def numbers() -> AsyncIterator[bytes]:
    """What is streamed."""
    for number in range(3):
        yield b"%d\n" % number
        await asyncio.sleep(0.01)


@app.route("/iterated", methods="get")
async def iterated() -> Any:
    """A stream that Emmett awaits."""
    return response.wrap_aiter(numbers())


@app.route("/streamed", methods="get")
async def streamed() -> Any:
    """A stream that watches for its client's going."""
    return await response.stream(numbers())


@app.websocket("/talk")
async def talk() -> None:
    """Says what it hears."""
    await websocket.accept()
    while True:
        await websocket.send(f"heard {await websocket.receive()}")


@app.websocket("/members")
async def members() -> None:
    """Refuses."""
    raise HTTPResponse(401)
