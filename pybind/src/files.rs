//! Files that the application gives to be sent: opened, or taken from an open one, and measured.
//!
//! The server reads them as it sends them (`granian_uring::proactor`). `open` opens one at once: it
//! costs microseconds on a local disk. `open_cached` does only where nothing can wait.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::{BorrowedFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use granian_uring::proactor::FileRange;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;

use crate::errors::os_error_arguments;

/// A regular file, and its length in bytes. Anything else is an `OSError`.
pub fn open(path: &Path) -> PyResult<(File, usize)> {
    // Without O_NONBLOCK a FIFO would wait for its writer.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| os_error(&error, path))?;
    let length = regular_length(&file)?;
    Ok((file, length))
}

/// The file at `path`, if the kernel can open it without waiting for a disk: `RESOLVE_CACHED` of
/// openat2(2), Linux 5.12.
#[allow(unsafe_code, reason = "no crate of ours has openat2(2)")]
pub fn open_cached(path: &Path) -> Option<File> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: `struct open_how` is plain data for which all zeros is "nothing".
    let mut how: libc::open_how = unsafe { mem::zeroed() };
    // Without O_NONBLOCK a FIFO would wait for its writer.
    how.flags = u64::from((libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK).cast_unsigned());
    how.resolve = libc::RESOLVE_CACHED;
    // SAFETY: path and structure outlive the call, which is told the structure's size.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            libc::AT_FDCWD,
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Some(unsafe { File::from_raw_fd(fd) })
}

/// `count` bytes (or all there are) of an open file from `offset` on (or from its position). The
/// application may close it at once, and its position stays where it is.
pub fn part(
    file: &Bound<'_, PyAny>,
    offset: Option<u64>,
    count: Option<u64>,
) -> PyResult<FileRange> {
    let py = file.py();
    let fd: RawFd = file.call_method0(intern!(py, "fileno"))?.extract()?;
    let offset = match offset {
        Some(offset) => offset,
        None => file.call_method0(intern!(py, "tell"))?.extract()?,
    };
    if fd < 0 {
        return Err(PyValueError::new_err(format!("expected an open file, found descriptor {fd}")));
    }
    // SAFETY: the object that has just told the number is alive, and its descriptor open; we only
    // duplicate it.
    #[allow(unsafe_code, reason = "Python knows a descriptor as a number")]
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let duplicate = File::from(borrowed.try_clone_to_owned()?);
    let there = regular_length(&duplicate)? as u64;
    let rest = there.saturating_sub(offset);
    let length = count.unwrap_or(rest);
    if length > rest {
        return Err(PyValueError::new_err(format!(
            "expected a part of the file's {there} bytes, found {length} bytes from {offset} on"
        )));
    }
    Ok(FileRange::new(duplicate, offset, as_length(length)))
}

fn regular_length(file: &File) -> PyResult<usize> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(PyOSError::new_err((libc::EINVAL, "expected a regular file")));
    }
    Ok(as_length(metadata.len()))
}

/// The exception that Python's own `open` raises.
fn os_error(error: &io::Error, path: &Path) -> PyErr {
    match error.raw_os_error() {
        Some(number) => {
            let (number, text) = os_error_arguments(number);
            PyOSError::new_err((number, text, path.to_path_buf()))
        }
        None => PyValueError::new_err(error.to_string()),
    }
}

/// A `usize` has 64 bits on every system that this runs on.
fn as_length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
