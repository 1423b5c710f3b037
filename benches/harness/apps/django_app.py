"""A Django project in one file: one view, and the middleware that nearly every project has."""

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="of a benchmark",
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
    ],
)
django.setup()


def hello(request: HttpRequest) -> HttpResponse:
    """For WSGI."""
    return HttpResponse(b"Hello, world!", content_type="text/plain")


async def hello_async(request: HttpRequest) -> HttpResponse:
    """For ASGI: a view that needs no thread."""
    return HttpResponse(b"Hello, world!", content_type="text/plain")


urlpatterns = [path("", hello), path("async", hello_async)]
asgi = get_asgi_application()
wsgi = get_wsgi_application()
