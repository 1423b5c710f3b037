"""Robyn has an interface of its own: the same hello in its words.

PORT=8000 python robyn_app.py
"""

import os

from robyn import Headers, Response, Robyn

app = Robyn(__file__)


@app.get("/")
async def hello() -> Response:
    """The smallest whole answer."""
    return Response(200, Headers({"content-type": "text/plain"}), "Hello, world!")


app.start(host="127.0.0.1", port=int(os.environ["PORT"]))
