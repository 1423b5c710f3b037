//! Taking over a listening socket that another process made.
//!
//! The kernel is asked what the descriptor is, and nothing about the socket is changed: file status
//! flags, options, backlog and path are shared with systemd and with every other generation of the
//! server. Only the descriptor's own close-on-exec flag is set.
//!
//! The [`Listener`] owns a *duplicate* of the number it was given. So adopting is sound whoever
//! else may believe to own that number, and fd 0 (`StandardInput=socket`) stays what it is.

#![allow(unsafe_code, reason = "a descriptor inherited from the parent is only a number")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::{io, mem};

use socket2::{Domain, SockRef, Type};

use super::{Address, ListenError, Listener};
use crate::activation::{FIRST_FD, set_close_on_exec};

/// Makes a [`Listener`] of the inherited descriptor `fd`, if it is one.
///
/// # Errors
/// [`ListenError`] says what the descriptor is instead.
pub fn adopt(fd: RawFd, name: Option<&str>) -> Result<Listener, ListenError> {
    let what = || describe(fd, name);
    let duplicate = duplicate(fd).map_err(|_| ListenError::Closed { what: what() })?;
    let socket = SockRef::from(&duplicate);

    // SO_DOMAIN also tells a socket from everything else: ENOTSOCK.
    let Ok(domain) = socket.domain() else {
        return Err(ListenError::NotASocket { what: what(), found: file_kind(&duplicate) });
    };
    if ![Domain::IPV4, Domain::IPV6, Domain::UNIX].contains(&domain) {
        return Err(ListenError::Family { what: what(), family: domain.into() });
    }
    let inspect = |error| ListenError::Inspect { what: what(), error };
    match socket.r#type().map_err(inspect)? {
        Type::STREAM => {}
        Type::DGRAM => return Err(ListenError::Datagram { what: what() }),
        Type::SEQPACKET => return Err(ListenError::SequentialPacket { what: what() }),
        other => return Err(ListenError::Type { what: what(), kind: other.into() }),
    }
    if !socket.is_listener().map_err(inspect)? {
        return Err(match socket.peer_addr() {
            Ok(_) => ListenError::Connection { what: what() },
            Err(_) => ListenError::NotListening { what: what() },
        });
    }
    let address = socket.local_addr().map_err(inspect)?;
    let address = Address::from_socket(&address)
        .ok_or_else(|| ListenError::Family { what: what(), family: domain.into() })?;
    if fd >= FIRST_FD {
        set_close_on_exec(fd);
    }
    let name = name.map(str::to_owned);
    Ok(Listener {
        name,
        address,
        fd: duplicate,
        inherited: true,
        file: None,
        proxy_protocol: false,
    })
}

/// `fd 3 ("web")`, or `fd 3`.
fn describe(fd: RawFd, name: Option<&str>) -> String {
    name.map_or_else(|| format!("fd {fd}"), |name| format!("fd {fd} (\"{name}\")"))
}

/// A close-on-exec duplicate, above the standard streams: `F_DUPFD_CLOEXEC`, `fcntl(2)`.
fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl takes plain numbers here; one that is not open gives EBADF.
    let duplicate = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, FIRST_FD) };
    if duplicate < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this number for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}

/// What a descriptor that is not a socket is, in words: `inode(7)`.
fn file_kind(fd: &OwnedFd) -> &'static str {
    // SAFETY: `stat` is plain integers, for which all zeroes is a value.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    // SAFETY: the descriptor is open because it is owned, and `stat` outlives the call.
    if unsafe { libc::fstat(fd.as_raw_fd(), &raw mut stat) } != 0 {
        return "something unknown";
    }
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => "a file",
        libc::S_IFDIR => "a directory",
        libc::S_IFIFO => "a pipe or FIFO",
        libc::S_IFCHR => "a character device",
        libc::S_IFBLK => "a block device",
        _ => "a kernel object (such as an eventfd or epoll)",
    }
}
