"""A Flask and a Django application that do the same."""

import io
from collections.abc import Iterator

import django
import flask
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

MIB = 1024 * 1024

flask_app = flask.Flask(__name__)


@flask_app.get("/items/<int:number>")
def flask_item(number: int) -> flask.Response:
    return flask.jsonify(number=number, query=flask.request.args.get("q"))


@flask_app.post("/upload")
def flask_upload() -> flask.Response:
    file = flask.request.files["file"]
    return flask.jsonify(name=flask.request.form["name"], size=len(file.read()))


@flask_app.post("/raw")
def flask_raw() -> flask.Response:
    return flask.Response(flask.request.get_data())


@flask_app.get("/stream")
def flask_stream() -> flask.Response:
    return flask.Response(numbers(), mimetype="text/plain")


@flask_app.get("/file")
def flask_file() -> flask.Response:
    return flask.send_file(io.BytesIO(b"f" * MIB), mimetype="text/plain")


@flask_app.get("/cookies")
def flask_cookies() -> flask.Response:
    response = flask.make_response(flask.request.cookies.get("a", ""))
    response.set_cookie("b", "2")
    response.set_cookie("c", "3")
    return response


@flask_app.get("/fails")
def flask_fails() -> flask.Response:
    raise ValueError("broken on purpose")


def numbers() -> Iterator[bytes]:
    for number in range(1000):
        yield b"%d\n" % number


def item(request: HttpRequest, number: int) -> HttpResponse:
    return JsonResponse({"number": number, "query": request.GET.get("q")})


def upload(request: HttpRequest) -> HttpResponse:
    file = request.FILES["file"]
    return JsonResponse({"name": request.POST["name"], "size": len(file.read())})


def raw(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body)


def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(numbers(), content_type="text/plain")


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(io.BytesIO(b"f" * MIB), content_type="text/plain")


def cookies(request: HttpRequest) -> HttpResponse:
    response = HttpResponse(request.COOKIES.get("a", ""))
    response.set_cookie("b", "2")
    response.set_cookie("c", "3")
    return response


def fails(request: HttpRequest) -> HttpResponse:
    raise ValueError("broken on purpose")


urlpatterns = [
    path("items/<int:number>", item),
    path("upload", upload),
    path("raw", raw),
    path("stream", stream),
    path("file", file),
    path("cookies", cookies),
    path("fails", fails),
]

settings.configure(
    ROOT_URLCONF=__name__,
    SECRET_KEY="only for tests",
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    DATA_UPLOAD_MAX_MEMORY_SIZE=None,
)
django.setup()
django_app = get_wsgi_application()
