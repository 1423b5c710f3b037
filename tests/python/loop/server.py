"""The real server as a process, with one of the applications of this folder."""

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from asgi.process import LOOP_ENVIRONMENT

PROGRAM = Path(sys.executable).with_name("granian-uring")
# For whatever is waited for. Generous: a machine may be busy with other things.
LONGEST_SECONDS = 30


class ServerProcess:
    """`granian-uring TARGET` on a port of its own; ready when entered, gone when left.

    `log` has the lines of stdout and stderr, `address` and `url` where it listens.
    """

    def __init__(self, target: str, environment: Mapping[str, str] | None = None) -> None:
        self.log: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._process = subprocess.Popen(
            [PROGRAM, "--port", "0", "--working-dir", Path(__file__).parent, target],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                **LOOP_ENVIRONMENT,
                **(environment or {}),
            },
        )
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def __enter__(self) -> "ServerProcess":
        try:
            line = self.wait_for(r"listening on http://\S+:\d+$")
        except AssertionError:
            self._kill()
            raise
        self.address = ("127.0.0.1", int(line.rpartition(":")[2]))
        self.url = f"http://127.0.0.1:{self.address[1]}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._kill()
        if error is not None:
            print(self.text)

    @property
    def text(self) -> str:
        """The log as one string."""
        return "\n".join(self.log)

    def wait_for(self, pattern: str) -> str:
        """The first line of the log that `pattern` is found in, when it is there."""
        with self._news:
            found = self._news.wait_for(lambda: self._find(pattern) or self._ended, LONGEST_SECONDS)
            assert found and self._find(pattern), f"no line has {pattern!r}:\n{self.text}"
        return self._find(pattern) or ""

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, str]:
        """Status and text of the answer to a request on a connection of its own."""
        connection = http.client.HTTPConnection(*self.address, timeout=LONGEST_SECONDS)
        try:
            connection.request("GET" if body is None else "POST", path, body)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def stop(self) -> int:
        """Asks it to stop; returns its exit code, when all of its log has been read."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """The exit code of a server that is about to end by itself."""
        code = self._process.wait(LONGEST_SECONDS)
        self._reading.join()
        return code

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reading.join()

    def _find(self, pattern: str) -> str | None:
        return next((line for line in self.log if re.search(pattern, line)), None)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with self._news:
                    self.log.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()
