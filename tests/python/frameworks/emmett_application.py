# mypy: disable-error-code="untyped-decorator"
"""The contract in Emmett, whose two packages have the same names for what is needed here."""

import asyncio
import importlib
import os
from collections.abc import AsyncIterator
from typing import Any

from emmett_core.extensions import Extension, Signals, listen_signal

from frameworks import contract

# `emmett`, or `emmett55`, which has no ORM and no templates.
emmett: Any = importlib.import_module(os.environ["EMMETT"])
tools: Any = importlib.import_module(os.environ["EMMETT"] + ".tools")
request, response, websocket = emmett.request, emmett.response, emmett.websocket
service, sse = tools.service, tools.sse

app = emmett.App(__name__, root_path=os.environ["EMMETT_ROOT"])
words: asyncio.Queue[str] = asyncio.Queue()


class Greeting(Extension):
    """What is done when there is a loop."""

    namespace = "greeting"

    @listen_signal(Signals.after_loop)
    def started(self, loop: asyncio.AbstractEventLoop) -> None:
        self.config["greeting"] = loop.run_until_complete(asyncio.sleep(0, contract.GREETING))


app.use_extension(Greeting)


@app.route("/items/<int:number>", methods="get")
@service.json
async def item(number: int) -> dict[str, Any]:
    return {"number": number, "query": request.query_params.q}


@app.route("/json", methods="post")
@service.json
async def json() -> Any:
    return await request.body_params


@app.route("/form", methods="post")
@service.json
async def form() -> Any:
    return await request.body_params


@app.route("/upload", methods="post")
@service.json
async def upload() -> dict[str, Any]:
    file = (await request.files).file
    return contract.describe((await request.body_params).name, file.filename, file.read())


@app.route("/shout", methods="post")
async def shout() -> Any:
    body = request.body
    return response.wrap_aiter(piece.upper() async for piece in body)


@app.route("/stream", methods="get")
async def stream() -> Any:
    return response.wrap_iter(contract.pieces())


@app.route("/endless", methods="get")
async def endless() -> Any:
    async def zeros() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(65536)
        finally:
            contract.note("endless is over")

    return response.wrap_aiter(zeros())


@app.route("/events", methods="get")
@sse()
async def events() -> AsyncIterator[dict[str, str]]:
    while (word := await words.get()) != "end":
        yield {"data": word}


@app.route("/publish/<str:word>", methods="post")
async def publish(word: str) -> str:
    words.put_nowait(word)
    return "ok"


@app.route("/cookies", methods="get")
@service.json
async def cookies() -> dict[str, str]:
    response.cookies["b"] = "2"
    response.cookies["c"] = "3"
    response.cookies["c"]["httponly"] = True
    return {name: cookie.value for name, cookie in request.cookies.items()}


@app.route("/state", methods="get")
async def state() -> Any:
    return app.ext.Greeting.config.greeting


@app.route("/file", methods="get")
async def file() -> Any:
    return response.wrap_file(contract.FILE)


@app.websocket("/talk")
async def talk() -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send(await websocket.receive())
    except asyncio.CancelledError:
        contract.note("talk is over")
        raise
