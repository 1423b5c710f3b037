"""Fixtures: servers that are started for a test, and seen to end by themselves after it.

`start_server` starts any number of them for one test; `server` is one that the tests of a module
share, with the application of `asgi/apps.py`. Both see to it at the end that SIGTERM ends the
process in time and with exit code 0.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from asgi.process import LOOP_ENVIRONMENT, Server, StartServer


def pytest_addoption(parser: pytest.Parser) -> None:
    """Has the servers of all tests run on another loop; `-m any_loop` selects a few tests."""
    parser.addoption("--server-loop", choices=["uring", "asyncio", "uvloop", "rloop"])


def pytest_configure(config: pytest.Config) -> None:
    if name := config.getoption("--server-loop"):
        LOOP_ENVIRONMENT["GRANIAN_LOOP"] = name


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Starts servers, waits until they are ready, and stops them after the test.

    With `ready=False` it returns at once. A test that sees to the end itself calls `wait`.
    """
    servers: list[Server] = []

    def start(*arguments: str, ready: bool = True, **options: Any) -> Server:
        servers.append(server := Server(*arguments, **options))
        return server.wait_until_ready() if ready else server

    try:
        yield start
        for server in servers:
            if server.process.returncode is None:
                server.stop()
    finally:
        for server in servers:
            server.__exit__(None, None, None)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that the tests of a module share."""
    with Server() as server:
        server.wait_until_ready()
        yield server
        server.stop()
