"""A Starlette application: routes, a path parameter, streaming, a lifespan with state.

granian-uring examples.starlette_app:app
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route


class State(TypedDict):
    """What the lifespan gives to every request."""

    greeting: str


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[State]:
    """Runs before the first request and after the last."""
    yield {"greeting": "Hello"}


async def home(request: Request) -> PlainTextResponse:
    """A line of text."""
    return PlainTextResponse(f"{request.state.greeting}, world!")


async def hello(request: Request) -> JSONResponse:
    """A path parameter, as JSON."""
    return JSONResponse({"message": f"{request.state.greeting}, {request.path_params['name']}!"})


async def upload(request: Request) -> JSONResponse:
    """Counts the bytes of a body as they come."""
    length = 0
    async for piece in request.stream():
        length += len(piece)
    return JSONResponse({"bytes": length})


async def count(_request: Request) -> StreamingResponse:
    """Lines that are sent as they are made."""

    async def lines() -> AsyncIterator[str]:
        for number in range(10):
            yield f"{number}\n"

    return StreamingResponse(lines(), media_type="text/plain")


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/", home),
        Route("/hello/{name}", hello),
        Route("/upload", upload, methods=["POST"]),
        Route("/count", count),
    ],
)
