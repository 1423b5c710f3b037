//! `wsgi.input`, PEP 3333 "Input and Error Streams".
//!
//! Bytes come from the ring as they are asked for, and at most a small part of a body is read
//! ahead; what `read()` and `readline()` return is of course as large as the application wants it.
//! The end of the stream is the end of the body, also of a chunked one (`wsgi.input_terminated`).

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::exchange::Exchange;

/// The body of a request, as a stream.
#[pyclass(module = "granian_uring._native")]
pub struct Input {
    /// `None`: the request has no body.
    exchange: Option<Arc<Exchange>>,
    /// Received and not yet read: from `start` on.
    buffer: Vec<u8>,
    start: usize,
    ended: bool,
}

impl Input {
    pub fn new(exchange: Option<Arc<Exchange>>) -> Self {
        let ended = exchange.is_none();
        Self { exchange, buffer: Vec::new(), start: 0, ended }
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Get more bytes; `false` when there are none.
    fn fill(&mut self, py: Python<'_>) -> PyResult<bool> {
        let Some(exchange) = self.exchange.as_ref().filter(|_| !self.ended) else {
            return Ok(false);
        };
        let bytes = exchange.read(py)?;
        self.ended = bytes.is_empty();
        if self.start == self.buffer.len() {
            self.buffer = bytes;
        } else {
            self.buffer.drain(..self.start);
            self.buffer.extend_from_slice(&bytes);
        }
        self.start = 0;
        Ok(!self.ended)
    }

    fn take<'py>(&mut self, py: Python<'py>, length: usize) -> Bound<'py, PyBytes> {
        let taken = PyBytes::new(py, &self.rest()[..length]);
        self.start += length;
        if self.start == self.buffer.len() {
            self.buffer = Vec::new();
            self.start = 0;
        }
        taken
    }

    fn line<'py>(&mut self, py: Python<'py>, limit: usize) -> PyResult<Bound<'py, PyBytes>> {
        let mut searched = 0;
        loop {
            let rest = self.rest();
            let reach = rest.len().min(limit);
            if let Some(position) = rest[searched..reach].iter().position(|&byte| byte == b'\n') {
                return Ok(self.take(py, searched + position + 1));
            }
            searched = reach;
            if reach == limit || !self.fill(py)? {
                return Ok(self.take(py, reach));
            }
        }
    }
}

/// `size` of Python's streams: nothing and a negative number mean "no limit".
fn limit(size: Option<isize>) -> usize {
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX)
}

#[pymethods]
impl Input {
    #[pyo3(signature = (size=None, /))]
    fn read<'py>(&mut self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let limit = limit(size);
        while self.rest().len() < limit && self.fill(py)? {}
        let length = self.rest().len().min(limit);
        Ok(self.take(py, length))
    }

    #[pyo3(signature = (size=None, /))]
    fn readline<'py>(
        &mut self,
        py: Python<'py>,
        size: Option<isize>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        self.line(py, limit(size))
    }

    /// All lines, or as many as have `hint` bytes together.
    #[pyo3(signature = (hint=None, /))]
    fn readlines<'py>(
        &mut self,
        py: Python<'py>,
        hint: Option<isize>,
    ) -> PyResult<Bound<'py, PyList>> {
        let limit = match hint {
            Some(hint) if hint > 0 => hint.unsigned_abs(),
            _ => usize::MAX,
        };
        let lines = PyList::empty(py);
        let mut total = 0;
        while total < limit {
            let line = self.line(py, usize::MAX)?;
            if line.as_bytes().is_empty() {
                break;
            }
            total += line.as_bytes().len();
            lines.append(line)?;
        }
        Ok(lines)
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.line(py, usize::MAX)?;
        Ok(Some(line).filter(|line| !line.as_bytes().is_empty()))
    }
}
