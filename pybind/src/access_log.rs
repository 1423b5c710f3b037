//! The access log as Python sees it: compiled before anything starts, opened when it is known where
//! its lines go.
//!
//! Lines for stdout are written by a thread of the core, which never has the GIL. Lines for Python's
//! `logging` are asked for by a thread of Python's own, which ends like any other of its threads.

use std::fs::File;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Mutex;

use granian_uring::access_log::{AccessLog as CoreLog, Format, Lines};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;

use crate::errors::operator_error;

/// See the stub file.
#[pyclass(frozen, module = "granian_uring._native")]
pub struct AccessLog {
    format: Format,
    /// A duplicate: the application may close or replace what it was made from.
    stream: Option<File>,
}

#[pymethods]
impl AccessLog {
    #[new]
    #[pyo3(signature = (format, *, json, journal, request_id_header, fd))]
    fn new(
        py: Python<'_>,
        format: Option<&str>,
        json: bool,
        journal: bool,
        request_id_header: Option<&str>,
        fd: Option<RawFd>,
    ) -> PyResult<Self> {
        let format = Format::compile(format, json, journal)
            .map_err(|error| operator_error(py, &error))?
            .with_request_id_header(request_id_header);
        let stream = fd.map(duplicate).transpose().map_err(PyOSError::new_err)?;
        Ok(Self { format, stream })
    }
}

impl AccessLog {
    /// Begin to log: `lines` are for who asks for them, else the stream gets them.
    pub fn open(&self, by_lines: bool) -> PyResult<(CoreLog, Option<AccessLines>)> {
        if by_lines {
            // A handler of Python's has its own idea of what a line begins with.
            let (log, lines) = CoreLog::new(self.format.clone().without_priority());
            return Ok((log, Some(AccessLines { lines: Mutex::new(lines) })));
        }
        let stream = self.stream.as_ref().map(File::try_clone).transpose();
        let Some(stream) = stream.map_err(PyOSError::new_err)? else {
            return Err(PyRuntimeError::new_err("the access log has no stream"));
        };
        let log = CoreLog::to_file(self.format.clone(), stream).map_err(PyOSError::new_err)?;
        Ok((log, None))
    }
}

/// See the stub file.
#[pyclass(frozen, module = "granian_uring._native")]
pub struct AccessLines {
    /// Two threads that ask would share the lines: each line goes to one of them.
    lines: Mutex<Lines>,
}

#[pymethods]
impl AccessLines {
    /// Wait for the next lines; `None` when no more will come.
    fn next(&self, py: Python<'_>) -> Option<Vec<String>> {
        py.detach(|| {
            let mut lines = self.lines.lock().ok()?;
            let text = String::from_utf8_lossy(lines.next()?);
            Some(text.lines().map(str::to_owned).collect())
        })
    }
}

#[allow(unsafe_code, reason = "a number of Python's becomes a descriptor")]
fn duplicate(fd: RawFd) -> std::io::Result<File> {
    // SAFETY: Python names a stream that it holds open, with the GIL, during this call.
    unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().map(File::from)
}
