//! The wake fd of a hosted proactor, for a loop of another kind: readable when the runtime's own fd is,
//! or an eventfd for what that fd knows nothing of.
//!
//! Around a ring it is an epoll with the two. A runtime on epoll has an epoll itself, and one in it
//! ([`super::epoll`]): there the eventfd is put into that one, and the runtime's fd is the wake fd. The
//! kernel allows five epolls in each other, and a server within a program on such a runtime, whose
//! loop has one too, would have six.
#![allow(unsafe_code, reason = "makes an epoll by system calls")]

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::proactor::uring::new_eventfd;

pub(super) struct Wake {
    fd: RawFd,
    /// What `fd` is, if it is ours.
    _epoll: Option<OwnedFd>,
    flag: File,
    /// The flag is readable.
    told: Cell<bool>,
}

impl Wake {
    /// Around the runtime's fd.
    pub(super) fn around(runtime: RawFd) -> io::Result<Self> {
        // SAFETY: no memory is involved; the result is checked.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the fd was just made, and nobody else has it.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let flag = new_eventfd()?;
        for fd in [runtime, flag.as_raw_fd()] {
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
            // SAFETY: one valid event that outlives the call.
            let result = unsafe {
                libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event)
            };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        let (fd, told) = (epoll.as_raw_fd(), Cell::new(false));
        Ok(Self { fd, _epoll: Some(epoll), flag, told })
    }

    /// The runtime's fd itself, which is readable when `flag` is.
    pub(super) fn within(runtime: RawFd, flag: File) -> Self {
        Self { fd: runtime, _epoll: None, flag, told: Cell::new(false) }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd
    }

    /// Whether the fd is to be readable whatever the runtime has.
    pub(super) fn tell(&self, readable: bool) {
        // Neither fails but for what is so already.
        if self.told.replace(readable) {
            let _ = (&self.flag).read(&mut [0; 8]);
        }
        if readable {
            let _ = (&self.flag).write(&1_u64.to_ne_bytes());
        }
    }
}
