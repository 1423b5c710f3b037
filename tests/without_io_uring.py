"""Runs a command in a sandbox without io_uring, as containers have it.

    python tests/without_io_uring.py COMMAND ARGUMENT...

A seccomp filter, which every child inherits, answers the io_uring calls with EPERM; with `--kill`
before the command it kills whoever makes one (SIGSYS), as SystemCallFilter= of systemd does unless
it is told otherwise. The filter is put on by prctl(2); nothing has to be installed.
"""

import ctypes
import os
import struct
import sys

# linux/prctl.h, linux/seccomp.h, linux/bpf_common.h.
PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
ALLOW = 0x7FFF0000
ERRNO = 0x00050000
KILL_PROCESS = 0x80000000
LOAD_WORD = 0x20
JUMP_IF_GREATER_OR_EQUAL = 0x35
JUMP_IF_GREATER = 0x25
RETURN = 0x06
EPERM = 1
# io_uring_setup, _enter and _register have these numbers on every architecture.
FIRST, LAST = 425, 427


class Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """`struct sock_filter`; the two jumps count instructions from the next one."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


def refuse_io_uring(answer: int) -> None:
    """Puts the filter on this process, for good."""
    program = b"".join(
        [
            # The number of the call is the first field of `struct seccomp_data`.
            instruction(LOAD_WORD, 0),
            instruction(JUMP_IF_GREATER_OR_EQUAL, FIRST, if_true=0, if_false=2),
            instruction(JUMP_IF_GREATER, LAST, if_true=1, if_false=0),
            instruction(RETURN, answer),
            instruction(RETURN, ALLOW),
        ]
    )
    described = Program(len(program) // 8, program)
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(described), 0, 0),
    ):
        if libc.prctl(*arguments):
            error = ctypes.get_errno()
            raise OSError(error, f"prctl({arguments[0]}): {os.strerror(error)}")


def main() -> None:
    command = sys.argv[1:]
    kills = command[:1] == ["--kill"]
    command = command[kills:]
    if not command:
        sys.exit(__doc__)
    refuse_io_uring(KILL_PROCESS if kills else ERRNO | EPERM)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
