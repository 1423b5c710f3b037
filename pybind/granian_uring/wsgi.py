"""WSGI, PEP 3333: what of it is Python.

The application runs in threads of `granian_uring._native.Worker`, which makes the environ, reads
bodies and sends answers: see `pybind/src/wsgi/`. Here are the part of the environ that all requests
have in common, `wsgi.file_wrapper`, and what the log says when an application fails.
"""

import io
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from granian_uring._native import VERSION, Worker
from granian_uring.config import Settings
from granian_uring.errors import ExitCode, OperatorError, is_disconnect

__all__ = ["FileWrapper", "check_threads", "host"]

logger = logging.getLogger("granian")

_BLOCK_BYTES = 64 * 1024


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class FileWrapper:
    """`wsgi.file_wrapper`: an iterable over the blocks of a file, which it closes.

    `block_bytes` is what is read at a time. Where the kernel can send the file nobody iterates.
    """

    def __init__(self, file: _Readable, block_bytes: int = _BLOCK_BYTES) -> None:
        self._file = file
        self._block_bytes = block_bytes
        # Only what can be closed is asked to: the server looks for this attribute.
        close = getattr(file, "close", None)
        if close is not None:
            self.close: Callable[[], None] = close

    def plain_file(self) -> io.FileIO | io.BufferedReader | io.BufferedRandom | None:
        """The file, if its bytes are those of its descriptor.

        Only of Python's own types that is known: a `GzipFile` has a descriptor too.
        """
        file: Any = self._file
        raw = file.raw if type(file) in (io.BufferedReader, io.BufferedRandom) else file
        if type(raw) is not io.FileIO or raw.closed:
            return None
        file.flush()
        return file  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block = self._file.read(self._block_bytes)
        if not block:
            raise StopIteration
        return block


def check_threads(threads: int | None, interface: str) -> None:
    """Refuses `--blocking-threads` for what does not run in threads."""
    if interface != "wsgi" and threads not in (None, 1):
        raise OperatorError(
            f"--blocking-threads {threads} is for WSGI, and the application is "
            f"{interface.removesuffix('nl').upper()}",
            "leave it out: such an application runs on the thread of the loop",
            ExitCode.USAGE,
        )


def host(
    worker: Worker,
    application: Any,
    settings: Settings,
    leave: Callable[[KeyboardInterrupt | SystemExit], None],
) -> None:
    """Serves `application`. `leave` is called when it raises the wish to stop the server."""
    threads = settings.blocking_threads
    if threads is None:
        threads = max(1, settings.backpressure // 2)
    where = f"up to {threads} threads" if threads else "the thread of the ring"
    logger.info("it runs on %s", where)
    worker.host_wsgi(
        application,
        environ=_environ(settings.url_path_prefix, multithread=threads > 1),
        failed=_failed,
        leave=leave,
        threads=threads,
        idle_seconds=settings.blocking_threads_idle_timeout,
    )


def _environ(prefix: str | None, *, multithread: bool) -> dict[str, Any]:
    """What every environ has, "environ Variables" of PEP 3333."""
    return {
        # A path in the bytes of its characters, as PATH_INFO.
        "SCRIPT_NAME": (prefix or "").encode().decode("latin-1"),
        "SERVER_SOFTWARE": f"granian-uring/{VERSION}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": multithread,
        # One process serves; what else systemd starts is not known here.
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileWrapper,
    }


_CONSEQUENCES = {
    None: "the client had its answer",
    "refused": "the client got a 500",
    "aborted": "its answer had begun, so the connection was reset",
}


def _failed(environ: dict[str, Any], error: BaseException, left: str | None) -> None:
    """Logs that the application raised, or broke the contract of PEP 3333."""
    what = ascii(f"{environ.get('REQUEST_METHOD')} {environ.get('PATH_INFO')}")[1:-1]
    if is_disconnect(error):
        logger.debug("%s: the client left before its answer was complete", what)
        return
    logger.error(
        "%s: the application raised %s; %s",
        what,
        type(error).__name__,
        _CONSEQUENCES[left],
        exc_info=(type(error), error, error.__traceback__),
    )
