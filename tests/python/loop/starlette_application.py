"""A Starlette application with a bit of everything."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

events: dict[str, asyncio.Event] = {}


def event(name: str) -> asyncio.Event:
    """The event of that name."""
    return events.setdefault(name, asyncio.Event())


class Stamp(BaseHTTPMiddleware):
    """Adds a header, and with that a task group around every request."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-stamp"] = request.url.path
        return response


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
    """Startup and shutdown, which leave a line each."""
    print("startup")
    await asyncio.sleep(0)
    yield {"greeting": "from the startup"}
    await asyncio.sleep(0)
    print("shutdown")


async def item(request: Request) -> Response:
    """Parameters, the lifespan's state, and a body in JSON."""
    body = await request.json() if request.method == "POST" else None
    found = {"number": request.path_params["number"], "query": request.query_params.get("q")}
    return JSONResponse({**found, "body": body, "state": request.state.greeting})


def in_a_thread(_request: Request) -> Response:
    """A handler that is no coroutine: Starlette runs it in a thread."""
    return PlainTextResponse("from a thread")


async def echo(request: Request) -> Response:
    """Sends the body back while it comes in."""
    length = request.headers["content-length"]
    return StreamingResponse(request.stream(), headers={"content-length": length})


async def count(_request: Request) -> Response:
    """A stream of unknown length."""

    async def numbers() -> AsyncIterator[str]:
        for number in range(100):
            yield f"{number}\n"
            await asyncio.sleep(0)

    return StreamingResponse(numbers(), media_type="text/plain")


async def background(_request: Request) -> Response:
    """Work after the answer."""
    event("background").clear()

    async def work() -> None:
        await asyncio.sleep(0.05)
        await run_in_threadpool(int)
        event("background").set()

    return PlainTextResponse("accepted", background=BackgroundTask(work))


async def wait_for(request: Request) -> Response:
    """Waits for an event of another request."""
    await asyncio.wait_for(event(request.path_params["name"]).wait(), 10)
    return PlainTextResponse("ok")


async def file(_request: Request) -> Response:
    """A file, with ranges."""
    return FileResponse(Path(__file__))


async def until_gone(request: Request) -> Response:
    """Looks whether its client is there until it is not."""
    print("looking for the client")
    while not await request.is_disconnected():  # noqa: ASYNC110 - what applications do
        await asyncio.sleep(0.01)
    event("gone").set()
    return PlainTextResponse("nobody reads this")


class Watched(StreamingResponse):
    """Tells when it is over, whether it was sent or cut."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            event("stream").set()


async def endless(_request: Request) -> Response:
    """A stream that ends only with its client."""

    async def forever() -> AsyncIterator[bytes]:
        while True:
            yield bytes(65536)
            await asyncio.sleep(0)

    return Watched(forever())


async def broken(_request: Request) -> Response:
    """An error of the application."""
    raise LookupError("broken on purpose")


routes = [
    Route("/items/{number:int}", item, methods=["GET", "POST"]),
    Route("/in_a_thread", in_a_thread),
    Route("/echo", echo, methods=["POST"]),
    Route("/count", count),
    Route("/background", background),
    Route("/wait_for/{name}", wait_for),
    Route("/file", file),
    Route("/until_gone", until_gone),
    Route("/endless", endless),
    Route("/broken", broken),
]

app = Starlette(routes=routes, lifespan=lifespan)
app_with_middleware = Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(Stamp)])
