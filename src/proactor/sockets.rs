//! What the proactors on a kernel do to sockets by plain system calls, none of which blocks.
#![allow(unsafe_code, reason = "asks the kernel about fds, and borrows those of streams")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef};

use super::{Accepted, StreamId};
use crate::listener::Address;

/// A listening socket, and what every connection that it accepts has in common.
pub(super) struct Listening {
    fd: OwnedFd,
    address: Address,
    /// TCP: accepted connections get `TCP_NODELAY`.
    tcp: bool,
}

impl Listening {
    /// Ask the kernel what kind of socket it is. Nothing about it is changed.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let socket = SockRef::from(&fd);
        let tcp = socket.domain()? != Domain::UNIX;
        let address = address_of(&socket.local_addr()?);
        Ok(Self { fd, address, tcp })
    }

    /// True when an accept would not block, unless somebody else is faster.
    pub(super) fn has_clients(&self) -> bool {
        is_readable(self.fd.as_raw_fd())
    }

    /// Both addresses of a new connection, which also gets its `TCP_NODELAY` here: on the accepted
    /// socket, since the listener may be systemd's.
    pub(super) fn describe(&self, stream: StreamId, peer: &SockAddr) -> Accepted {
        // SAFETY: the fd was just accepted and is ours until it is closed by the proactor.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd_of(stream)) };
        let socket = SockRef::from(&borrowed);
        if self.tcp {
            // It fails when the peer is gone already; the first receive will say so.
            let _ = socket.set_tcp_nodelay(true);
        }
        let local = if self.address.is_unspecified() {
            socket.local_addr().map_or_else(|_| self.address.clone(), |it| address_of(&it))
        } else {
            self.address.clone()
        };
        Accepted { stream, peer: address_of(peer), local }
    }
}

impl AsRawFd for Listening {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// The fd of a stream: its number.
pub(super) fn fd_of(stream: StreamId) -> RawFd {
    stream.0.cast_signed()
}

/// Bytes in the socket's send queue that the peer has not acknowledged, tcp(7) and unix(7).
pub(super) fn unacknowledged(stream: StreamId) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ writes one int, to a variable that outlives the call.
    unsafe { libc::ioctl(fd_of(stream), libc::TIOCOUTQ, &raw mut bytes) };
    usize::try_from(bytes).unwrap_or(0)
}

/// Receive what is there, without waiting.
pub(super) fn receive(stream: StreamId, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes no more than the buffer's length into it, and only in this call.
    let length = unsafe {
        let start = buffer.as_mut_ptr().cast();
        libc::recv(fd_of(stream), start, buffer.len(), libc::MSG_DONTWAIT)
    };
    usize::try_from(length).map_err(|_| io::Error::last_os_error())
}

/// See [`super::Proactor::shutdown`].
pub(super) fn shutdown(stream: StreamId) {
    // SAFETY: the fd is ours until its close completes; shutdown(2) touches no memory.
    // It fails only when the peer is gone already, and then there is nobody to tell.
    unsafe { libc::shutdown(fd_of(stream), libc::SHUT_WR) };
}

/// See [`super::Proactor::reset_on_close`].
pub(super) fn reset_on_close(stream: StreamId) {
    // SAFETY: the fd is ours until its close completes.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd_of(stream)) };
    // It fails only when the peer is gone already.
    let _ = SockRef::from(&borrowed).set_linger(Some(Duration::ZERO));
}

fn is_readable(fd: RawFd) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd that outlives the call.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
}

fn address_of(address: &SockAddr) -> Address {
    // Only stream sockets of IP and Unix are registered; a Unix client has no name as a rule.
    Address::from_socket(address).unwrap_or(Address::UnixUnnamed)
}
