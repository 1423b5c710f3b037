"""The server of the WSGI tests, in both of its modes."""

from collections.abc import Iterator

import pytest
from asgi.process import Server


@pytest.fixture(scope="module", params=["threads", "inline"])
def wsgi_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that the tests of a module share: threads beside the ring, or the ring's own."""
    arguments = ["--blocking-threads", "0"] if request.param == "inline" else []
    with Server(*arguments, app="wsgi.apps:app") as server:
        server.wait_until_ready()
        yield server
        server.stop()


@pytest.fixture(scope="module")
def threaded_server() -> Iterator[Server]:
    """A server with threads that the tests of a module share."""
    with Server(app="wsgi.apps:app") as server:
        server.wait_until_ready()
        yield server
        server.stop()
