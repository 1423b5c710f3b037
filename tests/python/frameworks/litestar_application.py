"""The contract in Litestar."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from litestar import Litestar, MediaType, Request, Response, WebSocket, get, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import Cookie, State, UploadFile
from litestar.params import FromPath, FromQuery, JSONBody, MultipartBody, URLEncodedBody
from litestar.response import File, ServerSentEvent, Stream

from frameworks import contract

words: asyncio.Queue[str] = asyncio.Queue()


@dataclass
class Upload:
    """The form of /upload."""

    name: str
    file: UploadFile


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    app.state.greeting = contract.GREETING
    yield
    contract.note("shut down")


@get("/items/{number:int}")
async def item(number: FromPath[int], q: FromQuery[str | None] = None) -> dict[str, Any]:
    return {"number": number, "query": q}


@post("/json", status_code=200)
async def json(data: JSONBody[dict[str, Any]]) -> dict[str, Any]:
    return data


@post("/form", status_code=200)
async def form(data: URLEncodedBody[dict[str, str]]) -> dict[str, str]:
    return data


@post("/upload", status_code=200)
async def upload(data: MultipartBody[Upload]) -> dict[str, Any]:
    return contract.describe(data.name, data.file.filename, await data.file.read())


@get("/stream")
async def stream() -> Stream:
    return Stream(contract.pieces())


@get("/endless")
async def endless() -> Stream:
    async def zeros() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(65536)
        finally:
            contract.note("endless is over")

    return Stream(zeros())


@get("/events")
async def events() -> ServerSentEvent:
    async def published() -> AsyncIterator[str]:
        while (word := await words.get()) != "end":
            yield word

    return ServerSentEvent(published())


@post("/publish/{word:str}", status_code=200, media_type=MediaType.TEXT)
async def publish(word: FromPath[str]) -> str:
    words.put_nowait(word)
    return "ok"


@get("/cookies")
async def cookies(request: Request[Any, Any, Any]) -> Response[dict[str, str]]:
    ours = [Cookie("b", value="2"), Cookie("c", value="3", httponly=True)]
    return Response(request.cookies, cookies=ours)


@post("/background", status_code=200)
async def background() -> Response[str]:
    async def work() -> None:
        contract.note(f"background {await words.get()}")

    return Response("accepted", media_type=MediaType.TEXT, background=BackgroundTask(work))


@get("/state", media_type=MediaType.TEXT)
async def state(state: State) -> str:
    greeting: str = state.greeting
    return greeting


@get("/file")
async def file() -> File:
    return File(contract.FILE)


@websocket("/talk")
async def talk(socket: WebSocket[Any, Any, Any]) -> None:
    offered = contract.SUBPROTOCOL in socket.scope["subprotocols"]
    await socket.accept(contract.SUBPROTOCOL if offered else None)
    while True:
        message: Any = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return contract.note(f"talk is over {message['code']}")
        if (text := message.get("text")) is None:
            await socket.send_bytes(message["bytes"])
        elif text.startswith("close "):
            _, code, reason = text.split()
            return await socket.close(int(code), reason)
        else:
            await socket.send_text(text)


app = Litestar(
    lifespan=[lifespan],
    route_handlers=[
        item,
        json,
        form,
        upload,
        stream,
        endless,
        events,
        publish,
        cookies,
        background,
        state,
        file,
        talk,
    ],
)
