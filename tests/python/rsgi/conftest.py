"""A server with an RSGI application, for the tests of a module."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from asgi.process import Server

from rsgi.apps import MIB, pattern

FILE_BYTES = 5 * MIB + 321


@pytest.fixture(scope="module")
def served_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "file.bin"
    path.write_bytes(pattern(FILE_BYTES))
    return path


@pytest.fixture(scope="module")
def server(served_file: Path) -> Iterator[Server]:
    environment = {"RSGI_TEST_FILE": str(served_file)}
    with Server("--log-level", "debug", app="rsgi.apps:app", environment=environment) as server:
        server.wait_until_ready()
        yield server
        server.stop()
        assert "nraisable" not in server.log.text and "never retrieved" not in server.log.text
