//! Files as answers: the application names one and goes on; the server opens and sends it.
//!
//! A file whose whole path is in the kernel's caches is opened at once: that cannot wait for a disk
//! (`RESOLVE_CACHED`, openat2(2), Linux 5.12). Any other is opened in a thread, by a task of the
//! server's own (`granian_uring/files.py`). The ring reads the file as it is sent.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use granian_uring::proactor::FileRange;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::exchange::{Data, Exchange};
use crate::files;

/// An answer that is begun, and whose body is a file: see the stub file.
#[pyclass(frozen, module = "granian_uring._native")]
pub struct FileResponse {
    exchange: Py<Exchange>,
    #[pyo3(get)]
    path: PathBuf,
    start: u64,
    /// `None`: the end of the file.
    end: Option<u64>,
    opened: Mutex<Option<FileRange>>,
}

/// Have the bytes from `start` to before `end` sent, by whoever leaves the request after that.
pub fn send(
    py: Python<'_>,
    exchange: &Py<Exchange>,
    path: PathBuf,
    (start, end): (u64, Option<u64>),
) -> PyResult<()> {
    if let Some(file) = files::open_cached(&path)
        && let Ok(range) = part_of(file, start, end)
        && exchange.get().send_file(range)?.is_ok()
    {
        return Ok(());
    }
    exchange.get().hand_over();
    let response = FileResponse {
        exchange: exchange.clone_ref(py),
        path,
        start,
        end,
        opened: Mutex::default(),
    };
    exchange.get().worker().hosting(py)?.send_file.call1(py, (response,)).map(drop)
}

/// What there is of the part from `start` to before `end`.
fn part_of(file: File, start: u64, end: Option<u64>) -> io::Result<FileRange> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let end = end.map_or(metadata.len(), |end| end.min(metadata.len()));
    let length = usize::try_from(end.saturating_sub(start)).map_err(io::Error::other)?;
    Ok(FileRange::new(file, start, length))
}

#[pymethods]
impl FileResponse {
    /// Open the file. In a thread: it may wait for a disk.
    fn open(&self, py: Python<'_>) -> PyResult<()> {
        let range = py.detach(|| part_of(File::open(&self.path)?, self.start, self.end))?;
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(range);
        Ok(())
    }

    /// Send what was opened, all of it.
    fn send(&self, py: Python<'_>) -> PyResult<()> {
        let range = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        let range = range.ok_or_else(|| PyRuntimeError::new_err("the file was not opened"))?;
        let exchange = self.exchange.get();
        exchange.send_file(range)?.map_err(|error| exchange.refused(py, error))
    }

    /// There is no such file: the client gets a 404 in its place.
    fn missing(&self, py: Python<'_>) -> PyResult<()> {
        let exchange = self.exchange.get();
        exchange.discard()?;
        exchange.start(404, std::iter::empty())?.map_err(|error| exchange.refused(py, error))?;
        let sent = exchange.send(Data::Empty, false)?;
        sent.map(drop).map_err(|error| exchange.refused(py, error))
    }

    /// Nobody works on this answer any more: what was not sent of it will not be.
    fn finish(&self) -> PyResult<Option<&'static str>> {
        self.exchange.get().leave()
    }
}
