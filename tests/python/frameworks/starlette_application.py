"""The contract in Starlette."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from frameworks import contract

words: asyncio.Queue[str] = asyncio.Queue()


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, str]]:
    yield {"greeting": contract.GREETING}
    contract.note("shut down")


async def item(request: Request) -> Response:
    found = {"number": request.path_params["number"], "query": request.query_params.get("q")}
    return JSONResponse(found)


async def json(request: Request) -> Response:
    return JSONResponse(await request.json())


async def form(request: Request) -> Response:
    async with request.form() as fields:
        return JSONResponse(dict(fields))


async def upload(request: Request) -> Response:
    async with request.form() as fields:
        name, file = fields["name"], fields["file"]
        assert isinstance(name, str) and isinstance(file, UploadFile)
        return JSONResponse(contract.describe(name, file.filename, await file.read()))


async def shout(request: Request) -> Response:
    return StreamingResponse(piece.upper() async for piece in request.stream())


async def stream(_request: Request) -> Response:
    return StreamingResponse(contract.pieces())


async def endless(_request: Request) -> Response:
    async def zeros() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(65536)
        finally:
            contract.note("endless is over")

    return StreamingResponse(zeros())


async def events(_request: Request) -> Response:
    async def published() -> AsyncIterator[str]:
        while (word := await words.get()) != "end":
            yield f"data: {word}\n\n"

    return StreamingResponse(published(), media_type="text/event-stream")


async def publish(request: Request) -> Response:
    words.put_nowait(request.path_params["word"])
    return PlainTextResponse("ok")


async def cookies(request: Request) -> Response:
    response = JSONResponse(request.cookies)
    response.set_cookie("b", "2")
    response.set_cookie("c", "3", httponly=True)
    return response


async def background(_request: Request) -> Response:
    async def work() -> None:
        contract.note(f"background {await words.get()}")

    return PlainTextResponse("accepted", background=BackgroundTask(work))


async def state(request: Request) -> Response:
    return PlainTextResponse(request.state.greeting)


async def file(_request: Request) -> Response:
    return FileResponse(contract.FILE)


async def talk(websocket: WebSocket) -> None:
    offered = contract.SUBPROTOCOL in websocket.scope["subprotocols"]
    await websocket.accept(contract.SUBPROTOCOL if offered else None)
    while (message := await websocket.receive())["type"] == "websocket.receive":
        if (text := message.get("text")) is None:
            await websocket.send_bytes(message["bytes"])
        elif text.startswith("close "):
            _, code, reason = text.split()
            return await websocket.close(int(code), reason)
        else:
            await websocket.send_text(text)
    contract.note(f"talk is over {message['code']}")


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/items/{number:int}", item),
        Route("/json", json, methods=["POST"]),
        Route("/form", form, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]),
        Route("/shout", shout, methods=["POST"]),
        Route("/stream", stream),
        Route("/endless", endless),
        Route("/events", events),
        Route("/publish/{word}", publish, methods=["POST"]),
        Route("/cookies", cookies),
        Route("/background", background, methods=["POST"]),
        Route("/state", state),
        Route("/file", file),
        WebSocketRoute("/talk", talk),
    ],
)
