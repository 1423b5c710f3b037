"""The contract in FastAPI."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import BackgroundTasks, Body, FastAPI, File, Form, Request, UploadFile, WebSocket
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel

from frameworks import contract

words: asyncio.Queue[str] = asyncio.Queue()


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, str]]:
    yield {"greeting": contract.GREETING}
    contract.note("shut down")


app = FastAPI(lifespan=lifespan)


class Item(BaseModel):
    """What /items/{number} tells."""

    number: int
    query: str | None


class Fields(BaseModel):
    """The form of /form."""

    a: str
    b: str


@app.get("/items/{number}")
async def item(number: int, q: str | None = None) -> Item:
    return Item(number=number, query=q)


@app.post("/json")
async def json(body: Annotated[Any, Body()]) -> Any:
    return body


@app.post("/form")
async def form(fields: Annotated[Fields, Form()]) -> Fields:
    return fields


@app.post("/upload")
async def upload(
    name: Annotated[str, Form()], file: Annotated[UploadFile, File()]
) -> dict[str, Any]:
    return contract.describe(name, file.filename, await file.read())


@app.post("/shout")
async def shout(request: Request) -> StreamingResponse:
    return StreamingResponse(piece.upper() async for piece in request.stream())


@app.get("/stream")
def stream() -> StreamingResponse:
    return StreamingResponse(contract.pieces())


@app.get("/endless")
async def endless() -> StreamingResponse:
    async def zeros() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(65536)
        finally:
            contract.note("endless is over")

    return StreamingResponse(zeros())


@app.get("/events", response_class=EventSourceResponse)
async def events() -> AsyncIterator[ServerSentEvent]:
    while (word := await words.get()) != "end":
        yield ServerSentEvent(raw_data=word)


@app.post("/publish/{word}", response_class=PlainTextResponse)
async def publish(word: str) -> str:
    words.put_nowait(word)
    return "ok"


@app.get("/cookies")
async def cookies(request: Request) -> JSONResponse:
    response = JSONResponse(request.cookies)
    response.set_cookie("b", "2")
    response.set_cookie("c", "3", httponly=True)
    return response


@app.post("/background", response_class=PlainTextResponse)
async def background(tasks: BackgroundTasks) -> str:
    async def work() -> None:
        contract.note(f"background {await words.get()}")

    tasks.add_task(work)
    return "accepted"


@app.get("/state", response_class=PlainTextResponse)
async def state(request: Request) -> str:
    greeting: str = request.state.greeting
    return greeting


@app.get("/file")
async def file() -> FileResponse:
    return FileResponse(contract.FILE)


@app.websocket("/talk")
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
