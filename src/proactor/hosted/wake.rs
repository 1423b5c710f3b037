//! The wake fd of a hosted proactor, for a loop of another kind: an epoll with the runtime's own fd,
//! and with an eventfd for what that fd knows nothing of.
#![allow(unsafe_code, reason = "makes an epoll by system calls")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::proactor::uring::new_eventfd;

pub(super) struct Wake {
    epoll: OwnedFd,
    flag: File,
}

impl Wake {
    pub(super) fn new(runtime: RawFd) -> io::Result<Self> {
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
        Ok(Self { epoll, flag })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Whether the fd is to be readable whatever the runtime has.
    pub(super) fn tell(&self, readable: bool) {
        // Neither fails but for what is so already.
        let _ = (&self.flag).read(&mut [0; 8]);
        if readable {
            let _ = (&self.flag).write(&1_u64.to_ne_bytes());
        }
    }
}
