"""What each application of this folder answers, so that one set of tests fits all of them.

| request | answer |
|---|---|
| GET /items/{number}?q=... | `{"number": ..., "query": ...}` |
| POST /json | the JSON of its body |
| POST /form | the fields of a form, as JSON |
| POST /upload | of a multipart form: `{"name", "filename", "size", "sha256"}`, see `describe` |
| POST /shout | its body in upper case, each piece as it comes |
| GET /stream | the pieces of `pieces`, without a length |
| GET /endless | zeros without an end; the note `endless is over` when its client has gone |
| GET /events | server-sent events: what was published, as it is, until `end` |
| POST /publish/{word} | `ok`; the word goes to who waits for one |
| GET /cookies | the cookies it got, as JSON; sets `b` and `c` |
| POST /background | `accepted`; after that the note `background` with a published word |
| GET /state | what was made when the server started: `GREETING` |
| GET /file | the file `FILE` |
| WebSocket /talk | says what it hears, text or bytes; `close CODE REASON` makes it close so |

When the application has shut down there is the note `shut down`, and after each WebSocket the note
`talk is over` with its client's close code.
"""

import hashlib
import os
from collections.abc import Iterator
from typing import Any

__all__ = ["FILE", "GREETING", "SUBPROTOCOL", "describe", "note", "pieces"]

FILE = os.environ.get("FRAMEWORKS_FILE", "")
"""The path of the file that is downloaded."""
GREETING = "from the startup"
SUBPROTOCOL = "talk.example"
"""What /talk chooses from what it is offered."""


def note(text: str) -> None:
    """Tells the tests something, on stdout."""
    print(f"note: {text}", flush=True)


def pieces() -> Iterator[bytes]:
    """64 different ones of 64 KiB."""
    for number in range(64):
        yield hashlib.sha256(b"%d" % number).digest() * 2048


def describe(name: str, filename: str | None, content: bytes) -> dict[str, Any]:
    """The answer to an upload."""
    return {
        "name": name,
        "filename": filename,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
