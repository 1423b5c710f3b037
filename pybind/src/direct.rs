//! The usual read and the usual write of a socket that the application opened through asyncio: from
//! the system call to the protocol without a frame of Python in between.
//!
//! Everything else is left to asyncio's own transport, whose subclass owns a [`Direct`]
//! (`granian_uring/transport.py`): the end of the stream, buffered protocols, what the kernel does
//! not take at once. So there is one place that knows what a transport does, and it is asyncio's.
#![allow(unsafe_code, reason = "recv(2) and send(2) on a descriptor that Python holds as a number")]

use std::cell::RefCell;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView, PySlice, PyString};
use pyo3::{PyTraverseError, PyVisit};

use crate::errors::{is_wish, os_error_arguments};

/// Bytes received at once, as asyncio's transports do.
const RECEIVE_BYTES: usize = 256 * 1024;
/// There is no such descriptor.
const CLOSED: RawFd = -1;

thread_local! {
    /// Where bytes are received before their number is known; touched as used.
    static RECEIVED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// See the stub file.
#[pyclass(frozen, module = "granian_uring._native")]
pub struct Direct {
    /// `CLOSED` as soon as the transport is about to close it.
    fd: AtomicI32,
    /// The protocol gives the memory to receive into: asyncio's own way.
    buffered: AtomicBool,
    transport: Py<PyAny>,
    /// `_read_ready` and `write` of asyncio's transport, as methods of `transport`.
    read_ready: Py<PyAny>,
    write: Py<PyAny>,
}

#[pymethods]
impl Direct {
    #[new]
    fn new(fd: RawFd, transport: Py<PyAny>, read_ready: Py<PyAny>, write: Py<PyAny>) -> Self {
        let (fd, buffered) = (AtomicI32::new(fd), AtomicBool::new(true));
        Self { fd, buffered, transport, read_ready, write }
    }

    /// Whether the protocol gives the memory to receive into.
    fn set_buffered(&self, buffered: bool) {
        self.buffered.store(buffered, Ordering::Relaxed);
    }

    /// The descriptor is about to be closed.
    fn close(&self) {
        self.fd.store(CLOSED, Ordering::Relaxed);
    }

    /// There is something to read.
    fn read_ready(&self, py: Python<'_>) -> PyResult<()> {
        let fd = self.fd.load(Ordering::Relaxed);
        let transport = self.transport.bind(py);
        let leave = fd == CLOSED || self.buffered.load(Ordering::Relaxed);
        if leave || transport.getattr(intern!(py, "_conn_lost"))?.is_truthy()? {
            return self.read_ready.call0(py).map(drop);
        }
        let data = match receive(py, fd) {
            Ok(Some(data)) => data,
            // The end of the stream is still there for whoever looks again.
            Ok(None) => return self.read_ready.call0(py).map(drop),
            Err(error) if is_for_now(&error) => return Ok(()),
            Err(error) => {
                let text = intern!(py, "Fatal read error on socket transport");
                return fail(transport, os_error(&error), text);
            }
        };
        let protocol = transport.getattr(intern!(py, "_protocol"))?;
        match protocol.call_method1(intern!(py, "data_received"), (data,)) {
            Ok(_) => Ok(()),
            Err(error) => {
                let text = intern!(py, "Fatal error: protocol.data_received() call failed.");
                fail(transport, error, text)
            }
        }
    }

    /// A transport's `write`.
    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = data.py();
        let fd = self.fd.load(Ordering::Relaxed);
        let transport = self.transport.bind(py);
        let bytes = match data.cast_exact::<PyBytes>() {
            Ok(bytes) if fd != CLOSED && may_send(transport)? => bytes.as_bytes(),
            _ => return self.write.call1(py, (data,)).map(drop),
        };
        match send(fd, bytes) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(sent) => {
                let rest = PySlice::new(py, sent.cast_signed(), bytes.len().cast_signed(), 1);
                let rest = PyMemoryView::from(data)?.get_item(rest)?;
                self.write.call1(py, (rest,)).map(drop)
            }
            Err(error) if is_for_now(&error) => self.write.call1(py, (data,)).map(drop),
            Err(error) => {
                let text = intern!(py, "Fatal write error on socket transport");
                fail(transport, os_error(&error), text)
            }
        }
    }

    #[allow(clippy::needless_pass_by_value, reason = "the signature of the slot")]
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.transport)?;
        visit.call(&self.read_ready)?;
        visit.call(&self.write)
    }
}

/// Whether bytes may go to the kernel now: nothing waits before them, and nothing forbids it.
fn may_send(transport: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = transport.py();
    let is = |name: &Bound<'_, PyString>| transport.getattr(name)?.is_truthy();
    Ok(!is(intern!(py, "_buffer"))?
        && !is(intern!(py, "_eof"))?
        && !is(intern!(py, "_conn_lost"))?
        && transport.getattr(intern!(py, "_empty_waiter"))?.is_none())
}

/// The transport's end by an error; what is meant for the loop itself is passed on.
fn fail(transport: &Bound<'_, PyAny>, error: PyErr, text: &Bound<'_, PyString>) -> PyResult<()> {
    let py = transport.py();
    if is_wish(py, &error) {
        return Err(error);
    }
    transport.call_method1(intern!(py, "_fatal_error"), (error, text)).map(drop)
}

fn os_error(error: &io::Error) -> PyErr {
    PyOSError::new_err(os_error_arguments(error.raw_os_error().unwrap_or(libc::EIO)))
}

fn is_for_now(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// What is there to receive; `None` at the end of the stream.
fn receive(py: Python<'_>, fd: RawFd) -> io::Result<Option<Bound<'_, PyBytes>>> {
    RECEIVED.with_borrow_mut(|room| {
        room.reserve_exact(RECEIVE_BYTES);
        // SAFETY: the kernel writes at the most so many bytes to memory that the vector owns.
        let received =
            unsafe { libc::recv(fd, room.as_mut_ptr().cast(), RECEIVE_BYTES, libc::MSG_DONTWAIT) };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: the kernel has written so many bytes there.
        let bytes = unsafe { std::slice::from_raw_parts(room.as_ptr(), received) };
        Ok((received > 0).then(|| PyBytes::new(py, bytes)))
    })
}

fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads bytes that outlive the call.
    let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
