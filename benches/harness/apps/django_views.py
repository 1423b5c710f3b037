"""The views and addresses of `django_app.py`: a module of its own, as Django imports it by name."""

from django.http import HttpRequest, HttpResponse
from django.urls import path


def hello(request: HttpRequest) -> HttpResponse:
    """For WSGI."""
    return HttpResponse(b"Hello, world!", content_type="text/plain")


async def hello_async(request: HttpRequest) -> HttpResponse:
    """For ASGI: a view that needs no thread."""
    return HttpResponse(b"Hello, world!", content_type="text/plain")


urlpatterns = [path("", hello), path("async", hello_async)]
