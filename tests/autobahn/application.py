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


async def rsgi(scope: Any, protocol: Any) -> None:
    """For RSGI."""
    transport = await protocol.accept()
    while (message := await transport.receive()).kind != 0:
        if message.kind == 1:
            await transport.send_bytes(message.data)
        else:
            await transport.send_str(message.data)
