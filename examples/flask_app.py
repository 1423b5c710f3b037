"""A Flask application: `make run APP=examples.flask_app:app`, with `pip install flask`.

Flask speaks WSGI, which `--interface auto` finds out. Up to 16 requests at a time:

    granian-uring --blocking-threads 16 examples.flask_app:app
"""

from collections.abc import Iterator

from flask import Flask, Response, request

app = Flask(__name__)


@app.get("/")
def hello() -> str:
    """A short answer."""
    return "Hello, world!\n"


@app.post("/lines")
def lines() -> dict[str, int]:
    """Counts the lines of an upload of any size, as they come."""
    return {"lines": sum(1 for _ in request.stream)}


@app.get("/numbers")
def numbers() -> Response:
    """A stream: sent as it is made, and made no faster than the client takes it."""

    def generate() -> Iterator[str]:
        for number in range(1_000_000):
            yield f"{number}\n"

    return Response(generate(), mimetype="text/plain")
