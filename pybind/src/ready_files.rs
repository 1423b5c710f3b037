//! What `selectors.EpollSelector.select(0)` does: Python's own descriptors that are ready.
//!
//! Once for each turn that brings one, which is each round trip of an application to its database.
#![allow(unsafe_code, reason = "epoll_wait(2) fills an array")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

/// Ready descriptors that are told at once. What is beyond them is told by the next call.
const EVENTS: usize = 256;
/// `selectors.EVENT_READ` and `selectors.EVENT_WRITE`.
pub const READ: u32 = 1;
pub const WRITE: u32 = 2;

/// See the stub file.
#[pyclass(frozen, module = "granian_uring._native")]
pub struct ReadyFiles {
    epoll: RawFd,
    /// The keys of the selector, by descriptor.
    keys: Py<PyDict>,
}

#[pymethods]
impl ReadyFiles {
    #[new]
    fn new(epoll: RawFd, keys: Py<PyDict>) -> Self {
        Self { epoll, keys }
    }

    /// Keys with what they are ready for, without waiting. `_timeout` is that of a selector: 0.
    #[pyo3(signature = (_timeout=None, /))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        _timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let mut room = [const { MaybeUninit::uninit() }; EVENTS];
        let keys = self.keys.bind(py);
        let ready = PyList::empty(py);
        for event in poll(self.epoll, &mut room).map_err(PyOSError::new_err)? {
            // Python registers each descriptor with its number as data, in the lower half of it.
            let fd = event.u64 & u64::from(u32::MAX);
            // One that was forgotten meanwhile has no key.
            let Some(key) = keys.get_item(fd)? else { continue };
            // `SelectorKey(fileobj, fd, events, data)`.
            let wanted: u32 = key.cast::<PyTuple>()?.get_item(2)?.extract()?;
            ready.append((key, kinds(event.events) & wanted))?;
        }
        Ok(ready)
    }
}

/// `epoll_wait(2)` without waiting.
fn poll(
    epoll: RawFd,
    room: &mut [MaybeUninit<libc::epoll_event>; EVENTS],
) -> io::Result<&[libc::epoll_event]> {
    let size = i32::try_from(EVENTS).expect("a small number");
    // SAFETY: the kernel writes at the most `size` events to the array.
    let count = unsafe { libc::epoll_wait(epoll, room.as_mut_ptr().cast(), size, 0) };
    let Ok(count) = usize::try_from(count) else {
        let error = io::Error::last_os_error();
        // As the selector does: the loop comes back.
        return if error.kind() == io::ErrorKind::Interrupted { Ok(&[]) } else { Err(error) };
    };
    // SAFETY: so many were written, one behind the other.
    Ok(unsafe { std::slice::from_raw_parts(room.as_ptr().cast(), count) })
}

/// An error or a hang-up is news for whoever waits for either.
fn kinds(mask: u32) -> u32 {
    let is_not = |one: i32| mask & !one.cast_unsigned() != 0;
    (u32::from(is_not(libc::EPOLLIN)) * WRITE) | (u32::from(is_not(libc::EPOLLOUT)) * READ)
}
