"""What the kernel says about a listening socket that systemd holds.

`snapshot` takes a duplicate of PID 1's own descriptor (pidfd_getfd(2)) and reads the status flags,
every socket option that a server might touch, the backlog, and for a path its inode. Two snapshots
are equal exactly when nobody changed anything in between. Not read: what traffic itself changes,
such as the length of the queue.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Any

PIDFD_GETFD = 438  # the number of the system call on every architecture, pidfd_getfd(2)
TCP_LISTEN = 10  # include/net/tcp_states.h
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
UDIAG_SHOW_RQLEN = 0x10
UNIX_DIAG_RQLEN = 4

# Numbers from asm-generic/socket.h that Python's module has no name for.
SO_BUSY_POLL, SO_PREFER_BUSY_POLL, SO_ZEROCOPY, SO_TXTIME = 46, 69, 60, 61

SOCKET_OPTIONS = {
    name: getattr(socket, name)
    for name in (
        "SO_TYPE",
        "SO_DOMAIN",
        "SO_PROTOCOL",
        "SO_ACCEPTCONN",
        "SO_REUSEADDR",
        "SO_REUSEPORT",
        "SO_KEEPALIVE",
        "SO_LINGER",
        "SO_SNDBUF",
        "SO_RCVBUF",
        "SO_RCVLOWAT",
        "SO_SNDLOWAT",
        "SO_RCVTIMEO",
        "SO_SNDTIMEO",
        "SO_PRIORITY",
        "SO_MARK",
        "SO_PASSCRED",
        "SO_PASSSEC",
        "SO_OOBINLINE",
        "SO_BROADCAST",
        "SO_DONTROUTE",
        "SO_BINDTODEVICE",
    )
} | {
    "SO_BUSY_POLL": SO_BUSY_POLL,
    "SO_PREFER_BUSY_POLL": SO_PREFER_BUSY_POLL,
    "SO_ZEROCOPY": SO_ZEROCOPY,
    "SO_TXTIME": SO_TXTIME,
}
TCP_OPTIONS = {
    name: getattr(socket, name)
    for name in (
        "TCP_NODELAY",
        "TCP_CORK",
        "TCP_MAXSEG",
        "TCP_KEEPIDLE",
        "TCP_KEEPINTVL",
        "TCP_KEEPCNT",
        "TCP_SYNCNT",
        "TCP_LINGER2",
        "TCP_DEFER_ACCEPT",
        "TCP_WINDOW_CLAMP",
        "TCP_QUICKACK",
        "TCP_CONGESTION",
        "TCP_USER_TIMEOUT",
        "TCP_FASTOPEN",
        "TCP_NOTSENT_LOWAT",
    )
}
IPV4_OPTIONS = {"IP_TOS": socket.IP_TOS, "IP_TTL": socket.IP_TTL, "IP_TRANSPARENT": 19}
IPV6_OPTIONS = {"IPV6_V6ONLY": socket.IPV6_V6ONLY, "IPV6_TCLASS": socket.IPV6_TCLASS}


def snapshot(holder: int, address: str | tuple[str, int]) -> dict[str, Any]:
    """All that a server could change of the listening socket that process `holder` has at
    `address`: a path, or a host and a port."""
    number, sock = take(holder, address)
    with sock:
        found = {
            "fdinfo flags": fdinfo_flags(holder, number),
            "F_GETFL": fcntl.fcntl(sock, fcntl.F_GETFL),
            "F_GETOWN": fcntl.fcntl(sock, fcntl.F_GETOWN),
            "F_GETSIG": fcntl.fcntl(sock, fcntl.F_GETSIG),
            "name": sock.getsockname(),
            **options(sock, socket.SOL_SOCKET, SOCKET_OPTIONS),
        }
        if sock.family == socket.AF_UNIX:
            assert isinstance(address, str)
            found["backlog"] = unix_backlog(os.fstat(sock.fileno()).st_ino)
            path = Path(f"/proc/{holder}/root{address}").stat()
            # The change time tells of a chmod or chown even when it set what was there.
            fields = ("st_ino", "st_dev", "st_mode", "st_uid", "st_gid", "st_nlink", "st_ctime_ns")
            return found | {field: getattr(path, field) for field in fields}
        found["backlog"] = tcp_backlog(sock)
        found |= options(sock, socket.IPPROTO_TCP, TCP_OPTIONS)
        if sock.family == socket.AF_INET6:
            return found | options(sock, socket.IPPROTO_IPV6, IPV6_OPTIONS)
        return found | options(sock, socket.IPPROTO_IP, IPV4_OPTIONS)


def take(holder: int, address: str | tuple[str, int]) -> tuple[int, socket.socket]:
    """The number that the listening socket has in `holder`, and a duplicate of it."""
    pidfd = os.pidfd_open(holder)
    try:
        for number in sorted(int(link.name) for link in Path(f"/proc/{holder}/fd").iterdir()):
            try:
                fd = duplicate(pidfd, number)
            except OSError as error:
                if error.errno == errno.EBADF:
                    continue  # closed since it was listed
                raise
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.close(fd)
                continue
            sock = socket.socket(fileno=fd)
            if listens_at(sock, address):
                return number, sock
            sock.close()
    finally:
        os.close(pidfd)
    raise AssertionError(f"process {holder} does not listen at {address}")


def listens_at(sock: socket.socket, address: str | tuple[str, int]) -> bool:
    """Whether this is a stream socket that listens at `address`."""
    if sock.family not in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
        return False
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return False
    name = sock.getsockname()
    return bool((name if isinstance(name, str | bytes) else name[:2]) == address)


def duplicate(pidfd: int, number: int) -> int:
    """A duplicate of another process's descriptor, pidfd_getfd(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.syscall(PIDFD_GETFD, pidfd, number, 0))
    if fd < 0:
        raise OSError(ctypes.get_errno(), f"pidfd_getfd of fd {number}")
    return fd


def fdinfo_flags(pid: int, number: int) -> str:
    """The flags line of proc_pid_fdinfo(5): the status flags, and close-on-exec in `pid`."""
    lines = Path(f"/proc/{pid}/fdinfo/{number}").read_text().splitlines()
    return next(line for line in lines if line.startswith("flags:"))


def options(sock: socket.socket, level: int, names: dict[str, int]) -> dict[str, str]:
    """The values of socket options as the kernel's bytes, or the errno of an unknown one."""
    found = {}
    for name, number in names.items():
        try:
            found[name] = sock.getsockopt(level, number, 128).hex()
        except OSError as error:
            found[name] = f"errno {error.errno}"
    return found


def tcp_backlog(sock: socket.socket) -> int:
    """The bound of a listening TCP socket's queue: `tcpi_sacked` of struct tcp_info, tcp(7)."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    state = info[0]
    assert state == TCP_LISTEN, f"TCP state {state}, expected {TCP_LISTEN} (listening)"
    # Eight bytes, then u32: rto, ato, snd_mss, rcv_mss, unacked, sacked.
    return int(struct.unpack_from("=I", info, 8 + 5 * 4)[0])


def unix_backlog(inode: int) -> int:
    """The bound of a listening Unix socket's queue, by its socket inode, sock_diag(7)."""
    # struct unix_diag_req: family, protocol, pad, states, inode, show, cookie (any).
    request = struct.pack("=BBHIII8s", socket.AF_UNIX, 0, 0, 1 << TCP_LISTEN, inode,
                          UDIAG_SHOW_RQLEN, b"\xff" * 8)  # fmt: skip
    head = struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as netlink:
        netlink.send(head + request)
        reply = netlink.recv(8192)
    # struct nlmsghdr (16 bytes), struct unix_diag_msg (16 bytes), then attributes.
    kind = struct.unpack_from("=H", reply, 4)[0]
    assert kind == SOCK_DIAG_BY_FAMILY, f"sock_diag answered with type {kind}"
    at = 32
    while at < len(reply):
        size, attribute = struct.unpack_from("=HH", reply, at)
        if attribute == UNIX_DIAG_RQLEN:
            return int(struct.unpack_from("=II", reply, at + 4)[1])
        at += (size + 3) & ~3
    raise AssertionError("sock_diag told no queue length")
