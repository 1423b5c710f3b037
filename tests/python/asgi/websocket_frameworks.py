"""WebSockets as Starlette and FastAPI write them."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect, WebSocketException, status
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, WebSocketRoute

from asgi.apps import note


async def chat(websocket: WebSocket) -> None:
    """JSON, text and bytes; ends with its client."""
    await websocket.accept(subprotocol="chat", headers=[(b"x-room", b"one")])
    await websocket.send_json({"room": websocket.path_params["room"]})
    try:
        async for text in websocket.iter_text():
            await websocket.send_bytes(text.encode())
    finally:
        note("chat ended")


async def denied(websocket: WebSocket) -> None:
    """A denial response."""
    response = PlainTextResponse("members only", 402, headers={"x-why": "money"})
    await websocket.send_denial_response(response)


class Endpoint(WebSocketEndpoint):
    """Starlette's class."""

    encoding = "json"

    async def on_connect(self, websocket: WebSocket) -> None:
        await websocket.accept()

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        await websocket.send_json([data, data])

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        note(f"endpoint ended {close_code}")


api = FastAPI()


async def user(websocket: WebSocket, token: str | None = None) -> str:
    """A dependency, which may refuse."""
    if token is None:
        raise WebSocketException(status.WS_1008_POLICY_VIOLATION, "no token")
    if token == "forbidden":
        raise HTTPException(418, "a teapot")
    return token


@api.websocket("/hello/{name}")
async def hello(websocket: WebSocket, name: str, who: Annotated[str, Depends(user)]) -> None:
    """Greets until its client leaves."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(f"{await websocket.receive_text()} {name} from {who}")
    except WebSocketDisconnect as left:
        note(f"hello ended {left.code} {left.reason!r}")


@api.websocket("/late")
async def late(websocket: WebSocket) -> None:
    """Refuses after the accept."""
    await websocket.accept()
    raise WebSocketException(4003, "changed my mind")


app = Starlette(
    routes=[
        WebSocketRoute("/chat/{room}", chat),
        WebSocketRoute("/denied", denied),
        WebSocketRoute("/endpoint", Endpoint),
        Mount("/api", api),
    ]
)
