//! Waiting at a ring that a crate has made and keeps to itself.
//!
//! The fd is all that is needed: the kernel knows the queues by it. Entering it submits what the
//! crate has queued, does the kernel's deferred work, and waits; what has completed is left to the
//! crate. And what it has submitted can be cancelled.
#![allow(unsafe_code, reason = "enters a ring by its fd")]

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use io_uring::EnterFlags;
use io_uring::types::Timespec;

use crate::proactor::uring::EnterArguments;

/// Where a new kind of fd is looked for, one thread at a time.
static MAKING: Mutex<()> = Mutex::new(());
/// `include/uapi/linux/io_uring.h`.
const REGISTER_SYNC_CANCEL: libc::c_uint = 24;
const CANCEL_ALL: u32 = 1;
const CANCEL_FD: u32 = 2;
/// How often something is made anew because another thread has made one too.
const TRIES: usize = 10;

/// Call `open`, and find the fd of the kind `[kind]` that it has opened (proc(5), `anon_inode`).
///
/// # Errors
///
/// What `open` fails with, or that no single fd was found.
pub(super) fn fd_made_by<T>(
    kind: &str,
    mut open: impl FnMut() -> io::Result<T>,
) -> io::Result<(T, RawFd)> {
    let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..TRIES {
        let before = fds_of(kind)?;
        let opened = open()?;
        let mut new = fds_of(kind)?.into_iter().filter(|fd| !before.contains(fd));
        if let (Some(fd), None) = (new.next(), new.next()) {
            return Ok((opened, fd));
        }
    }
    Err(io::Error::other(format!("no single new [{kind}] in /proc/self/fd")))
}

/// The fds of this process of the kind `[kind]`.
pub(super) fn fds_of(kind: &str) -> io::Result<BTreeSet<RawFd>> {
    let name = format!("anon_inode:[{kind}]");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let is_one = fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == &*name);
        if is_one && let Some(fd) = entry.file_name().to_str().and_then(|it| it.parse().ok()) {
            found.insert(fd);
        }
    }
    Ok(found)
}

/// `struct io_uring_sync_cancel_reg`.
#[repr(C)]
#[derive(Default)]
struct SyncCancel {
    address: u64,
    fd: i32,
    flags: u32,
    /// Seconds and nanoseconds that the call waits for what cannot be cancelled at once.
    timeout: [i64; 2],
    rest: [u64; 4],
}

/// The ring of a crate.
pub(super) struct ForeignRing {
    fd: RawFd,
    flags: EnterFlags,
}

impl ForeignRing {
    /// `flags` as another ring of this kernel is entered with.
    pub(super) fn new(fd: RawFd, flags: EnterFlags) -> Self {
        Self { fd, flags }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd
    }

    /// Submit `queued` entries, which are all, and wait for a completion, at most `timeout`.
    pub(super) fn wait(&self, queued: u32, timeout: Option<Duration>) -> io::Result<()> {
        let want = u32::from(timeout != Some(Duration::ZERO));
        let submitted = self.enter(queued, want, timeout)?;
        if submitted < queued && want > 0 {
            // With fewer entries than were announced the kernel does not wait.
            self.enter(0, want, timeout)?;
        }
        Ok(())
    }

    /// Have all that the kernel does for this ring with `fd` end: the number of an operation is the
    /// crate's secret.
    pub(super) fn cancel(&self, fd: RawFd) {
        let which = SyncCancel { fd, flags: CANCEL_FD | CANCEL_ALL, ..SyncCancel::default() };
        // SAFETY: the kernel reads the structure in this call only. What is cancelled completes as
        // any operation does, and its memory stays until then.
        let _ = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.fd,
                REGISTER_SYNC_CANCEL,
                ptr::from_ref(&which),
                1,
            )
        };
        // It fails where nothing is found: that has ended.
    }

    fn enter(&self, queued: u32, want: u32, timeout: Option<Duration>) -> io::Result<u32> {
        let timespec = timeout
            .map(|timeout| Timespec::new().sec(timeout.as_secs()).nsec(timeout.subsec_nanos()));
        let arguments = EnterArguments::with_timeout(timespec.as_ref());
        // SAFETY: the arguments and the timespec that they point to outlive the call. The entries
        // are the crate's, which keeps what they point to.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.fd,
                queued,
                want,
                self.flags.bits(),
                ptr::from_ref(&arguments),
                mem::size_of::<EnterArguments>(),
            )
        };
        let error = match u32::try_from(result) {
            Ok(submitted) => return Ok(submitted),
            Err(_) => io::Error::last_os_error(),
        };
        match error.raw_os_error() {
            // The deadline, a signal, or a full completion queue that is about to be reaped.
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(queued),
            _ => Err(error),
        }
    }
}
