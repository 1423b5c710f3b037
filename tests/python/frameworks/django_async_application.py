"""The contract in Django, with the views of an ASGI application where those differ."""

import asyncio
from collections.abc import AsyncIterator

from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from frameworks import contract
from frameworks.django_application import common, configure

words: asyncio.Queue[str] = asyncio.Queue()


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in contract.pieces():
            yield piece

    return StreamingHttpResponse(pieces())


async def endless(request: HttpRequest) -> StreamingHttpResponse:
    async def zeros() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(65536)
        finally:
            contract.note("endless is over")

    return StreamingHttpResponse(zeros())


async def events(request: HttpRequest) -> StreamingHttpResponse:
    async def published() -> AsyncIterator[str]:
        while (word := await words.get()) != "end":
            yield f"data: {word}\n\n"

    return StreamingHttpResponse(published(), content_type="text/event-stream")


async def publish(request: HttpRequest, word: str) -> HttpResponse:
    words.put_nowait(word)
    return HttpResponse("ok")


urlpatterns = [
    *common,
    path("stream", stream),
    path("endless", endless),
    path("events", events),
    path("publish/<word>", publish),
]


def asgi() -> object:
    """What a project's `asgi.py` does."""
    configure(__name__)
    return get_asgi_application()
