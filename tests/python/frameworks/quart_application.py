"""The contract in Quart."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from quart import (
    Quart,
    Response,
    current_app,
    jsonify,
    make_response,
    request,
    send_file,
    websocket,
)

from frameworks import contract

app = Quart(__name__)
words: asyncio.Queue[str] = asyncio.Queue()


@app.while_serving
async def lifespan() -> AsyncGenerator[None, None]:
    app.config["GREETING"] = contract.GREETING
    yield
    contract.note("shut down")


@app.get("/items/<int:number>")
async def item(number: int) -> dict[str, Any]:
    return {"number": number, "query": request.args.get("q")}


@app.post("/json")
async def json() -> Response:
    return jsonify(await request.get_json())


@app.post("/form")
async def form() -> dict[str, str]:
    return dict(await request.form)


@app.post("/upload")
async def upload() -> dict[str, Any]:
    file = (await request.files)["file"]
    return contract.describe((await request.form)["name"], file.filename, file.read())


@app.post("/shout")
async def shout() -> AsyncIterator[bytes]:
    return (piece.upper() async for piece in request.body)


@app.get("/stream")
async def stream() -> Response:
    return Response(contract.pieces())


@app.get("/endless")
async def endless() -> AsyncIterator[bytes]:
    async def zeros() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(65536)
        finally:
            contract.note("endless is over")

    return zeros()


@app.get("/events")
async def events() -> Response:
    async def published() -> AsyncIterator[str]:
        while (word := await words.get()) != "end":
            yield f"data: {word}\n\n"

    return Response(published(), mimetype="text/event-stream")


@app.post("/publish/<word>")
async def publish(word: str) -> str:
    words.put_nowait(word)
    return "ok"


@app.get("/cookies")
async def cookies() -> Response:
    response = await make_response(jsonify(request.cookies))
    assert isinstance(response, Response)
    response.set_cookie("b", "2")
    response.set_cookie("c", "3", httponly=True)
    return response


@app.post("/background")
async def background() -> str:
    async def work() -> None:
        contract.note(f"background {await words.get()}")

    app.add_background_task(work)
    return "accepted"


@app.get("/state")
async def state() -> str:
    greeting: str = current_app.config["GREETING"]
    return greeting


@app.get("/file")
async def file() -> Response:
    return await send_file(contract.FILE)


@app.websocket("/talk")
async def talk() -> None:
    offered = contract.SUBPROTOCOL in websocket.requested_subprotocols
    await websocket.accept(subprotocol=contract.SUBPROTOCOL if offered else None)
    try:
        while True:
            message = await websocket.receive()
            if isinstance(message, str) and message.startswith("close "):
                _, code, reason = message.split()
                return await websocket.close(int(code), reason)
            await websocket.send(message)
    except asyncio.CancelledError:
        contract.note("talk is over")
        raise
