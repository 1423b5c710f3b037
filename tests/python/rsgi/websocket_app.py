"""WebSockets of an RSGI application: the first part of the path says what happens."""

import asyncio
from typing import Any

from asgi.apps import note

from granian_uring.rsgi import (
    HTTPProtocol,
    ProtocolClosed,
    ProtocolError,
    Scope,
    WebsocketMessageType,
    WebsocketProtocol,
    WebsocketTransport,
)


async def app(scope: Scope, protocol: HTTPProtocol | WebsocketProtocol) -> None:
    """Serves WebSockets; a request gets its scope's protocol."""
    if isinstance(protocol, HTTPProtocol):
        return protocol.response_str(200, [], scope.proto)
    match scope.path.strip("/").split("/"):
        case ["echo"]:
            await echo(await protocol.accept())
        case ["scope"]:
            transport = await protocol.accept()
            await transport.send_str(f"{scope.proto} {scope.method} {scope.headers['upgrade']}")
            await transport.receive()
        case ["refuse", status]:
            protocol.close(int(status) or None)
            protocol.close()
        case ["leave", "raise"]:
            await protocol.accept()
            raise RuntimeError("after the accept")
        case ["leave", "return"]:
            await protocol.accept()
        case ["leave", status]:
            await protocol.accept()
            protocol.close(int(status) or None)
        case ["silent"]:
            pass
        case ["misuse"]:
            await misuse(protocol)
        case ["push"]:
            await push(await protocol.accept())


async def echo(transport: WebsocketTransport) -> None:
    """Sends back what comes; a close comes once."""
    while (message := await transport.receive()).kind != WebsocketMessageType.close:
        if message.kind == WebsocketMessageType.bytes:
            assert isinstance(message.data, bytes)
            await transport.send_bytes(message.data)
        else:
            assert message.kind == WebsocketMessageType.string and isinstance(message.data, str)
            await transport.send_str(message.data)
    assert message.data is None
    for what in (transport.receive, lambda: transport.send_str("too late")):
        try:
            await what()
        except ProtocolClosed:
            note("closed")


async def misuse(protocol: WebsocketProtocol) -> None:
    """What is refused, and changes nothing."""
    transport = await protocol.accept()
    try:
        await protocol.accept()
    except ProtocolError as error:
        note(f"accept: {error}")
    wrong: list[tuple[Any, Any]] = [(transport.send_bytes, "text"), (transport.send_str, b"bytes")]
    for send, data in wrong:
        try:
            await send(data)
        except TypeError as error:
            note(f"send: {error}")
    await transport.send_str("goes on")
    protocol.close(4000)
    try:
        await transport.send_str("after the close")
    except ProtocolClosed:
        note("closed")


async def push(transport: WebsocketTransport) -> None:
    """Sends 64 KiB messages up to 1 GiB; notes where it had to wait, and how it ended."""
    data, told = bytes(65536), False
    for count in range(16 * 1024):
        try:
            # A client that has gone is told by the call, or by what it returns.
            waiting = asyncio.ensure_future(transport.send_bytes(data))
            done, _ = await asyncio.wait([waiting], timeout=None if told else 0.5)
            if not done:
                told = True
                note(f"waits after {count}")
            await waiting
        except ProtocolClosed:
            note("push ended")
            raise
