"""A Python application server for Linux on io_uring, socket-activated by systemd.

The program is `granian-uring` (`granian_uring.cli`). Importing this package starts nothing and does
not load the compiled part, `granian_uring._native`.
"""

from importlib import metadata

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    """`__version__`, read when asked for: the package's metadata is the one place that has it."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return metadata.version("granian-uring")
    except metadata.PackageNotFoundError:
        return "unknown (not installed)"
