"""`python -m granian_uring`: the same program as `granian-uring`."""

from granian_uring.cli import program

program()
