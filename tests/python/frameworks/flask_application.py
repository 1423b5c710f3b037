"""The contract in Flask."""

import queue
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, jsonify, make_response, request, send_file

from frameworks import contract

app = Flask(__name__)
words: queue.Queue[str] = queue.Queue()


@app.get("/items/<int:number>")
def item(number: int) -> dict[str, Any]:
    return {"number": number, "query": request.args.get("q")}


@app.post("/json")
def json() -> Response:
    return jsonify(request.get_json())


@app.post("/form")
def form() -> dict[str, str]:
    return dict(request.form)


@app.post("/upload")
def upload() -> dict[str, Any]:
    file = request.files["file"]
    return contract.describe(request.form["name"], file.filename, file.read())


@app.post("/shout")
def shout() -> Iterator[bytes]:
    lines = request.stream
    return (line.upper() for line in lines)


@app.get("/stream")
def stream() -> Iterator[bytes]:
    return contract.pieces()


@app.get("/endless")
def endless() -> Iterator[bytes]:
    def zeros() -> Iterator[bytes]:
        try:
            while True:
                yield bytes(65536)
        finally:
            contract.note("endless is over")

    return zeros()


@app.get("/events")
def events() -> Response:
    published = iter(words.get, "end")
    return Response((f"data: {word}\n\n" for word in published), mimetype="text/event-stream")


@app.post("/publish/<word>")
def publish(word: str) -> str:
    words.put(word)
    return "ok"


@app.get("/cookies")
def cookies() -> Response:
    response = make_response(jsonify(request.cookies))
    response.set_cookie("b", "2")
    response.set_cookie("c", "3", httponly=True)
    return response


@app.post("/background")
def background() -> Response:
    response = make_response("accepted")
    response.call_on_close(lambda: contract.note(f"background {words.get()}"))
    return response


@app.get("/file")
def file() -> Response:
    return send_file(contract.FILE)
