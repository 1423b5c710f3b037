"""A small Django project: one view, and the middleware that nearly every project has."""

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

settings.configure(
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="of a benchmark",
    ROOT_URLCONF="django_views",
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
    ],
)
django.setup()

asgi = get_asgi_application()
wsgi = get_wsgi_application()
