# mypy: disable-error-code="untyped-decorator"
"""The contract in BlackSheep."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from blacksheep import (
    Application,
    Cookie,
    Request,
    Response,
    StreamedContent,
    WebSocket,
    WebSocketDisconnectError,
    text,
)
from blacksheep import file as file_response
from blacksheep import json as json_response
from blacksheep.server.sse import ServerSentEventsResponse, TextServerSentEvent

from frameworks import contract

app = Application()
words: asyncio.Queue[str] = asyncio.Queue()
tasks: set[asyncio.Task[None]] = set()


@dataclass
class Greeting:
    """A service, which handlers get by its type."""

    text: str


@app.lifespan
async def lifespan() -> AsyncIterator[None]:
    app.services.register(Greeting, instance=Greeting(contract.GREETING))
    yield
    contract.note("shut down")


@app.router.get("/items/{number}")
async def item(number: int, q: str | None) -> Response:
    return json_response({"number": number, "query": q})


@app.router.post("/json")
async def json(request: Request) -> Response:
    return json_response(await request.json())


@app.router.post("/form")
async def form(request: Request) -> Response:
    return json_response(await request.form())


@app.router.post("/upload")
async def upload(request: Request) -> Response:
    parts = {part.name: part for part in await request.multipart() or []}
    name, file = parts[b"name"], parts[b"file"]
    assert file.file_name is not None
    return json_response(contract.describe(name.data.decode(), file.file_name.decode(), file.data))


@app.router.post("/shout")
async def shout(request: Request) -> Response:
    async def shouted() -> AsyncIterator[bytes]:
        # Its stub has another type.
        upload: Any = request.stream()
        async for piece in upload:
            if piece:
                yield piece.upper()

    return Response(200, content=StreamedContent(b"text/plain", shouted))


@app.router.get("/stream")
async def stream() -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in contract.pieces():
            yield piece

    return Response(200, content=StreamedContent(b"application/octet-stream", pieces))


@app.router.get("/endless")
async def endless() -> Response:
    async def zeros() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(65536)
        finally:
            contract.note("endless is over")

    return Response(200, content=StreamedContent(b"application/octet-stream", zeros))


@app.router.get("/events")
async def events() -> Response:
    async def published() -> AsyncIterator[TextServerSentEvent]:
        while (word := await words.get()) != "end":
            yield TextServerSentEvent(word)

    return ServerSentEventsResponse(published)


@app.router.post("/publish/{word}")
async def publish(word: str) -> Response:
    words.put_nowait(word)
    return text("ok")


@app.router.get("/cookies")
async def cookies(request: Request) -> Response:
    response = json_response(request.cookies)
    response.set_cookies([Cookie("b", "2"), Cookie("c", "3", http_only=True)])
    return response


@app.router.post("/background")
async def background() -> Response:
    async def work() -> None:
        contract.note(f"background {await words.get()}")

    tasks.add(task := asyncio.create_task(work()))
    task.add_done_callback(tasks.discard)
    return text("accepted")


@app.router.get("/state")
async def state(greeting: Greeting) -> Response:
    return text(greeting.text)


@app.router.get("/file")
async def file() -> Response:
    return file_response(contract.FILE, "application/octet-stream")


@app.router.ws("/talk")
async def talk(websocket: WebSocket) -> None:
    scope: Any = websocket.scope
    offered = contract.SUBPROTOCOL in scope["subprotocols"]
    await websocket.accept(subprotocol=contract.SUBPROTOCOL if offered else None)
    try:
        while True:
            message: Any = await websocket.receive()
            if (said := message.get("text")) is None:
                await websocket.send_bytes(message["bytes"])
            elif said.startswith("close "):
                _, code, reason = said.split()
                return await websocket.close(int(code), reason)
            else:
                await websocket.send_text(said)
    except WebSocketDisconnectError as gone:
        contract.note(f"talk is over {gone.code}")
