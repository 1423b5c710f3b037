"""The contract in Django, with the views of a WSGI application."""

import json as json_format
import queue
from collections.abc import Iterator
from pathlib import Path

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

from frameworks import contract

words: queue.Queue[str] = queue.Queue()


def item(request: HttpRequest, number: int) -> HttpResponse:
    return JsonResponse({"number": number, "query": request.GET.get("q")})


def json(request: HttpRequest) -> HttpResponse:
    return JsonResponse(json_format.loads(request.body))


def form(request: HttpRequest) -> HttpResponse:
    return JsonResponse(request.POST.dict())


def upload(request: HttpRequest) -> HttpResponse:
    file = request.FILES["file"]
    return JsonResponse(contract.describe(request.POST["name"], file.name, file.read()))


def shout(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(line.upper() for line in request)


def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(contract.pieces())


def endless(request: HttpRequest) -> StreamingHttpResponse:
    def zeros() -> Iterator[bytes]:
        try:
            while True:
                yield bytes(65536)
        finally:
            contract.note("endless is over")

    return StreamingHttpResponse(zeros())


def events(request: HttpRequest) -> StreamingHttpResponse:
    published = (f"data: {word}\n\n" for word in iter(words.get, "end"))
    return StreamingHttpResponse(published, content_type="text/event-stream")


def publish(request: HttpRequest, word: str) -> HttpResponse:
    words.put(word)
    return HttpResponse("ok")


def cookies(request: HttpRequest) -> HttpResponse:
    response = JsonResponse(request.COOKIES)
    response.set_cookie("b", "2")
    response.set_cookie("c", "3", httponly=True)
    return response


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(Path(contract.FILE).open("rb"))


common = [
    path("items/<int:number>", item),
    path("json", json),
    path("form", form),
    path("upload", upload),
    path("cookies", cookies),
    path("file", file),
]
urlpatterns = [
    *common,
    path("shout", shout),
    path("stream", stream),
    path("endless", endless),
    path("events", events),
    path("publish/<word>", publish),
]


def configure(urls: str) -> None:
    """Settings, as a project's `settings.py` has them."""
    settings.configure(ROOT_URLCONF=urls, SECRET_KEY="only for tests", ALLOWED_HOSTS=["*"])
    django.setup()


def wsgi() -> object:
    """What a project's `wsgi.py` does."""
    configure(__name__)
    return get_wsgi_application()
