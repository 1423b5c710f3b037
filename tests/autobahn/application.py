"""Echo servers for the fuzzing client: whatever comes goes back."""

from typing import Any


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """For ASGI."""
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        message["type"] = "websocket.send"
        await send(message)
