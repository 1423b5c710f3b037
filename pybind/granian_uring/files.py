"""Sending a file as the body of an answer, for applications that only name it.

A task of the server's own has the file opened in a thread, where that may wait for a disk; the
ring reads it as it is sent. A file that cannot be opened is a 404 for the client and a line in the
log; one that does not have the Content-Length that was promised for it is a 500.
"""

import asyncio
import logging

from granian_uring import _native
from granian_uring.errors import ProtocolClosed, ProtocolError

__all__ = ["send"]

logger = logging.getLogger("granian")


async def send(response: _native.FileResponse) -> None:
    """Completes the answer, and leaves its request."""
    try:
        await _send(response)
    except ProtocolClosed:
        logger.debug("%s: the client left before it was sent", response.path)
    except ProtocolError as error:
        logger.error("%s could not be sent as it was promised: %s", response.path, error)
    finally:
        response.finish()


async def _send(response: _native.FileResponse) -> None:
    try:
        await asyncio.get_running_loop().run_in_executor(None, response.open)
    except OSError as error:
        logger.warning("%s: %s; the client got a 404", response.path, error)
        response.missing()
    else:
        response.send()
