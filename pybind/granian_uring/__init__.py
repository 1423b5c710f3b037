"""A Python application server for Linux on io_uring, socket-activated by systemd.

The program is `granian-uring` (`granian_uring.cli`); `Server` is one for a program of yours
(`granian_uring.embedded`). Importing this package starts nothing and does not load the compiled
part, `granian_uring._native`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from granian_uring.embedded import Server

__all__ = ["Server", "__version__"]


def __getattr__(name: str) -> Any:
    """`Server` and `__version__`, when asked for: one loads the compiled part, the other looks at
    the package's metadata, which is the one place that has it."""
    if name == "Server":
        from granian_uring import embedded

        return embedded.Server
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Late, because it drags in email and zipfile, which a server that starts has no need of.
    from importlib import metadata

    try:
        return metadata.version("granian-uring")
    except metadata.PackageNotFoundError:
        return "unknown (not installed)"
