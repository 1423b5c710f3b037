//! What wakes the loop from another thread, for `call_soon_threadsafe`.
//!
//! asyncio sends a byte to itself for each call, and lets go of the GIL for that: with many threads
//! at work the caller then has to queue for it again. A write to an eventfd cannot block, so the GIL
//! is kept; and who finds the loop woken already has nothing to do.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

/// See the stub file.
#[pyclass(frozen, module = "granian_uring._native")]
pub struct Waker {
    /// Until it is closed.
    eventfd: Mutex<Option<File>>,
    /// It is readable, or about to be.
    woken: AtomicBool,
}

#[pymethods]
impl Waker {
    #[new]
    #[allow(unsafe_code, reason = "the standard library has no eventfd(2)")]
    fn new() -> PyResult<Self> {
        // SAFETY: the call touches no memory of ours.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(PyOSError::new_err(std::io::Error::last_os_error()));
        }
        // SAFETY: the kernel has just made this descriptor for us.
        let eventfd = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(Self { eventfd: Mutex::new(Some(eventfd)), woken: AtomicBool::new(false) })
    }

    /// -1 when it is closed, as a socket's.
    fn fileno(&self) -> RawFd {
        self.eventfd().as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Have the loop look for what it has to do.
    fn wake(&self) {
        if !self.woken.swap(true, Ordering::SeqCst)
            && let Some(eventfd) = self.eventfd().as_mut()
        {
            // It fails only where 2^64 - 2 wake-ups wait.
            let _ = eventfd.write(&1_u64.to_ne_bytes());
        }
    }

    /// The loop is awake. What it was woken for is in its queue, where it looks before it waits.
    fn clear(&self) {
        if let Some(eventfd) = self.eventfd().as_mut() {
            // It fails only where nobody has written yet, who will.
            let _ = eventfd.read(&mut [0; 8]);
        }
        self.woken.store(false, Ordering::SeqCst);
    }

    /// The loop is closed, and wakes no more.
    fn close(&self) {
        drop(self.eventfd().take());
    }
}

impl Waker {
    fn eventfd(&self) -> MutexGuard<'_, Option<File>> {
        self.eventfd.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
