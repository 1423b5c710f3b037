"""Whose fault it is that the server cannot start, and what the process says and returns then.

An `OperatorError` becomes a line on stderr, an empty line, and a hint; an `ApplicationError`
becomes the application's own traceback. Errors of clients never come here.
"""

from enum import IntEnum
from types import TracebackType

__all__ = [
    "ApplicationError",
    "ClientDisconnected",
    "ExitCode",
    "OperatorError",
    "ProtocolClosed",
    "ProtocolError",
    "is_disconnect",
]


class ExitCode(IntEnum):
    """What the process returns. `docs/options.md` has the table, and a test compares the two."""

    OK = 0
    OPERATOR = 1
    USAGE = 2
    APPLICATION = 3
    LIFESPAN = 4
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        """One sentence for the documentation."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "The server was asked to stop, and did.",
    ExitCode.OPERATOR: "A socket, a file, the kernel or a setting keeps the server from running.",
    ExitCode.USAGE: "The command line or a `GRANIAN_*` variable is wrong, or not supported yet.",
    ExitCode.APPLICATION: "The application cannot be imported, or is not one.",
    ExitCode.LIFESPAN: "The application's lifespan startup, or its `__rsgi_init__`, failed.",
    ExitCode.INTERRUPTED: "A second SIGINT ended the server at once (128 + SIGINT).",
}


class OperatorError(Exception):
    """What the operator can repair: what was expected and found, and a hint."""

    def __init__(self, message: str, hint: str, code: ExitCode = ExitCode.OPERATOR) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code

    def __str__(self) -> str:
        return f"{self.message}\n\nhint: {self.hint}"


class ApplicationError(Exception):
    """The application raised while it was imported or made. `error` is what it raised.

    Its traceback begins in the application: the frames of this package and of importlib above it
    are cut off.
    """

    def __init__(self, what: str, error: BaseException, traceback: TracebackType | None) -> None:
        super().__init__(what)
        self.what = what
        self.error = error.with_traceback(traceback)
        self.code = ExitCode.APPLICATION


class ClientDisconnected(OSError):
    """Raised by an application's `send` when its client has gone, as ASGI 2.4 wants.

    An application that does not catch it is left in peace: that is no error of its own.
    """


class ProtocolError(RuntimeError):
    """An RSGI application breaks the protocol: a stream as second answer, a body taken twice."""


class ProtocolClosed(RuntimeError):
    """There is nobody to read from or to send to: the client has gone, or the answer is complete.

    An RSGI application that does not catch it is left in peace if its client has gone.
    """


def is_disconnect(error: BaseException | None, most: int = 32) -> bool:
    """Whether `error` came of talking to a client that had left: at most so many steps back.

    A group of errors did if all of them did.
    """
    if error is None or most == 0:
        return False
    if isinstance(error, ClientDisconnected | ProtocolClosed):
        return True
    if isinstance(error, BaseExceptionGroup):
        return all(is_disconnect(one, most - 1) for one in error.exceptions)
    return is_disconnect(error.__cause__ or error.__context__, most - 1)
