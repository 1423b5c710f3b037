//! One ASGI request: what the application's `receive` and `send` do.
//!
//! The order of messages is the codec's business (`granian_uring::http1`): what it refuses becomes
//! a `RuntimeError` in its words. Here messages are taken apart and put together.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use granian_uring::proactor::{FileRange, Payload};
use granian_uring::server::{Body, Left, Progress, Reading, RequestId};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyString, PyTuple};

use crate::awaitable::{Found, Pending, Wanted};
use crate::errors::send_error;
use crate::files;
use crate::worker::Worker;

/// A body of at least this many bytes is sent from where it is instead of being copied. Below, a
/// copy is cheaper than a vector of its own (measured: they meet between 8 and 32 KiB).
pub const SHARED_BODY_BYTES: usize = 16 * 1024;

/// How far the answer has come.
const FRESH: u8 = 0;
const STARTED: u8 = 1;
/// As [`STARTED`], and the application has announced trailers.
const STARTED_WITH_TRAILERS: u8 = 2;
/// The body is over, and trailers are to come.
const TRAILERS: u8 = 3;
const ENDED: u8 = 4;
/// The application has returned.
const FINISHED: u8 = 5;

/// A request under way: its `receive` and `send` are given to the application.
#[pyclass(frozen, module = "granian_uring._native")]
pub struct Exchange {
    worker: Py<Worker>,
    id: RequestId,
    progress: AtomicU8,
    /// The application was told `http.disconnect`: it owes no answer any more.
    told_gone: AtomicBool,
    /// Until the last of them is there.
    trailers: Mutex<Vec<(Vec<u8>, Vec<u8>)>>,
}

impl Exchange {
    pub fn new(worker: Py<Worker>, id: RequestId) -> Self {
        Self {
            worker,
            id,
            progress: AtomicU8::new(FRESH),
            told_gone: AtomicBool::new(false),
            trailers: Mutex::default(),
        }
    }

    /// Look for what a [`Pending`] waits for.
    pub fn look_for(&self, py: Python<'_>, wanted: Wanted) -> PyResult<Found> {
        let worker = self.worker.get();
        match wanted {
            Wanted::Message => match worker.with(|state| state.server.read_body(self.id))? {
                Reading::Data { bytes, more } => Ok(Found::Message(request(py, &bytes, more)?)),
                Reading::Disconnected => {
                    self.told_gone.store(true, Ordering::Relaxed);
                    Ok(Found::Message(disconnect(py)?))
                }
                Reading::Wait => worker.wait_for(py, self.id, wanted).map(Found::Wait),
            },
            Wanted::Room => match worker.with(|state| state.server.room(self.id))? {
                Ok(Progress::Ready) => Ok(Found::Room),
                Ok(Progress::Wait) => worker.wait_for(py, self.id, wanted).map(Found::Wait),
                Err(error) => Err(send_error(py, error)),
            },
        }
    }

    /// Whether the application is done with this request.
    pub fn is_finished(&self) -> bool {
        self.progress.load(Ordering::Relaxed) == FINISHED
    }

    pub fn forget(&self, wanted: Wanted, future: &Py<PyAny>) {
        self.worker.get().forget(self.id, wanted, future);
    }

    fn start(&self, py: Python<'_>, message: &Bound<'_, PyDict>) -> PyResult<()> {
        let status = required(message, intern!(py, "status"))?;
        let status: u16 = status.extract().map_err(|_| not_a_status(&status))?;
        let headers = headers_of(message)?;
        let slices = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        self.worker
            .get()
            .with(|state| state.server.start_response(self.id, status, slices))?
            .map_err(|error| send_error(py, error))?;
        let trailers = flag(message, intern!(py, "trailers"))?;
        let started = if trailers { STARTED_WITH_TRAILERS } else { STARTED };
        self.progress.store(started, Ordering::Relaxed);
        Ok(())
    }

    fn body(slf: &Bound<'_, Self>, message: &Bound<'_, PyDict>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let more = flag(message, intern!(py, "more_body"))?;
        let bytes = match message.get_item(intern!(py, "body"))? {
            Some(body) => body_bytes(body)?,
            None => PyBytes::new(py, b""),
        };
        if bytes.as_bytes().len() >= SHARED_BODY_BYTES {
            let payload = Box::new(SharedBytes::new(&bytes));
            Self::give_out(slf, Body::Shared(payload), more)
        } else {
            Self::give_out(slf, Body::Copied(bytes.as_bytes()), more)
        }
    }

    /// Send a piece of the body, the last one unless there is `more` or trailers follow.
    fn give_out(slf: &Bound<'_, Self>, body: Body<'_>, more: bool) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let this = slf.get();
        let worker = this.worker.get();
        let trailers = this.progress.load(Ordering::Relaxed) == STARTED_WITH_TRAILERS;
        let progress = worker
            .with(|state| state.server.send_body(this.id, body, more || trailers))?
            .map_err(|error| send_error(py, error))?;
        if !more && trailers {
            this.progress.store(TRAILERS, Ordering::Relaxed);
        } else if !more {
            this.progress.store(ENDED, Ordering::Relaxed);
        }
        match progress {
            Progress::Ready => Ok(worker.done(py)),
            Progress::Wait => {
                Ok(Py::new(py, Pending::new(slf.clone().unbind(), Wanted::Room))?.into_any())
            }
        }
    }

    /// `http.response.pathsend`: a file, or the part of it that the client asks for.
    fn path(slf: &Bound<'_, Self>, message: &Bound<'_, PyDict>) -> PyResult<Py<PyAny>> {
        let path: PathBuf = required(message, intern!(slf.py(), "path"))?.extract()?;
        let (file, length) = files::open(&path)?;
        let body = Body::WholeFile(FileRange::new(file, 0, length));
        Self::give_out(slf, body, false)
    }

    /// `http.response.zerocopysend`: a part of an open file.
    fn zero_copy(slf: &Bound<'_, Self>, message: &Bound<'_, PyDict>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let more = flag(message, intern!(py, "more_body"))?;
        let file = required(message, intern!(py, "file"))?;
        let number = |key| -> PyResult<Option<u64>> {
            message.get_item(key)?.filter(|it| !it.is_none()).map(|it| it.extract()).transpose()
        };
        let offset = number(intern!(py, "offset"))?;
        let count = number(intern!(py, "count"))?;
        let range = files::part(&file, offset, count)?;
        Self::give_out(slf, Body::File(range), more)
    }

    fn trailers(&self, py: Python<'_>, message: &Bound<'_, PyDict>) -> PyResult<()> {
        if self.progress.load(Ordering::Relaxed) != TRAILERS {
            return Err(PyRuntimeError::new_err(
                "http.response.trailers comes after the last http.response.body of a response \
                 that was started with trailers=True",
            ));
        }
        let mut kept = self.trailers.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, value) in headers_of(message)? {
            kept.push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        }
        if flag(message, intern!(py, "more_trailers"))? {
            return Ok(());
        }
        let fields = kept.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
        self.worker
            .get()
            .with(|state| state.server.send_trailers(self.id, fields))?
            .map_err(|error| send_error(py, error))?;
        drop(kept);
        self.progress.store(ENDED, Ordering::Relaxed);
        Ok(())
    }

    fn early_hints(&self, py: Python<'_>, message: &Bound<'_, PyDict>) -> PyResult<()> {
        let links = required(message, intern!(py, "links"))?
            .try_iter()?
            .map(|link| as_bytes(link?, "links of http.response.early_hint"))
            .collect::<PyResult<Vec<_>>>()?;
        let links = links.iter().map(PyBytesMethods::as_bytes);
        self.worker
            .get()
            .with(|state| state.server.send_early_hints(self.id, links))?
            .map_err(|error| send_error(py, error))
    }
}

#[pymethods]
impl Exchange {
    /// ASGI's `receive`.
    fn receive(slf: Py<Self>) -> Pending {
        Pending::new(slf, Wanted::Message)
    }

    /// ASGI's `send`. The message takes effect at once; what is returned waits for the peer if it
    /// is too far behind.
    #[pyo3(signature = (message, /))]
    fn send(slf: &Bound<'_, Self>, message: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let this = slf.get();
        let message = message.cast::<PyDict>().map_err(|_| {
            PyTypeError::new_err(format!("send takes a dict, got {}", type_name(message)))
        })?;
        let kind = required(message, intern!(py, "type"))?;
        let kind = kind.cast::<PyString>().map_err(|_| {
            PyTypeError::new_err(format!("a message's type is a str, got {}", type_name(&kind)))
        })?;
        let kind = kind.to_str()?;
        if this.progress.load(Ordering::Relaxed) >= ENDED {
            return Err(PyRuntimeError::new_err(format!(
                "{kind} was sent after the end of the response (a http.response.body without \
                 more_body)"
            )));
        }
        match kind {
            "http.response.body" => return Self::body(slf, message),
            "http.response.start" => this.start(py, message)?,
            "http.response.pathsend" => return Self::path(slf, message),
            "http.response.zerocopysend" => return Self::zero_copy(slf, message),
            "http.response.trailers" => this.trailers(py, message)?,
            "http.response.early_hint" => this.early_hints(py, message)?,
            // Of tests alone, for who looks at the messages: nothing goes to the client.
            "http.response.debug" => {}
            other => {
                return Err(PyValueError::new_err(format!(
                    "unknown message type {other:?}: expected http.response.start, \
                     http.response.body, or that of an extension in the scope"
                )));
            }
        }
        Ok(this.worker.get().done(py))
    }

    /// The task of this request has ended; if nobody called `finish`, its coroutine never ran to
    /// its end.
    fn task_ended(&self, _task: &Bound<'_, PyAny>) {
        if !self.is_finished() {
            self.progress.store(FINISHED, Ordering::Relaxed);
            self.worker.get().finish_unstarted(self.id);
        }
    }

    /// The application is done with this request, however that came. `None` when it was answered;
    /// else "gone" (its client left, or was refused, before that), "refused" (the client got a 500
    /// in its place) or "aborted" (the connection was reset in the middle of an answer). To be
    /// called once.
    fn finish(&self) -> PyResult<Option<&'static str>> {
        let left = self.worker.get().finish(self.id)?;
        let progress = self.progress.swap(FINISHED, Ordering::Relaxed);
        Ok(match left {
            Left::Answered if progress == ENDED => None,
            Left::Answered => Some("gone"),
            _ if self.told_gone.load(Ordering::Relaxed) => Some("gone"),
            Left::Refused => Some("refused"),
            Left::Aborted => Some("aborted"),
        })
    }
}

impl Drop for Exchange {
    /// A task that is cancelled before its first step throws its coroutine away without running
    /// it, and nobody called `finish`.
    fn drop(&mut self) {
        if *self.progress.get_mut() != FINISHED {
            self.worker.get().finish_unstarted(self.id);
        }
    }
}

/// A bytes object that the kernel reads: it is immutable, and kept until the send is over.
pub struct SharedBytes {
    start: *const u8,
    length: usize,
    /// Keeps the memory. Dropped where the GIL is held: see the head of `selector.rs`.
    _object: Py<PyBytes>,
}

impl SharedBytes {
    pub fn new(bytes: &Bound<'_, PyBytes>) -> Self {
        let slice = bytes.as_bytes();
        Self { start: slice.as_ptr(), length: slice.len(), _object: bytes.clone().unbind() }
    }
}

#[allow(unsafe_code, reason = "the kernel reads Python's memory, without the GIL")]
// SAFETY: the memory of a bytes object is neither moved nor changed while there is a reference to
// it, and `_object` is one.
unsafe impl Payload for SharedBytes {
    fn as_slice(&self) -> &[u8] {
        // SAFETY: as above; start and length are those of the object.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

fn request(py: Python<'_>, bytes: &[u8], more: bool) -> PyResult<Py<PyAny>> {
    let message = PyDict::new(py);
    message.set_item(intern!(py, "type"), intern!(py, "http.request"))?;
    message.set_item(intern!(py, "body"), PyBytes::new(py, bytes))?;
    message.set_item(intern!(py, "more_body"), more)?;
    Ok(message.into_any().unbind())
}

fn disconnect(py: Python<'_>) -> PyResult<Py<PyAny>> {
    let message = PyDict::new(py);
    message.set_item(intern!(py, "type"), intern!(py, "http.disconnect"))?;
    Ok(message.into_any().unbind())
}

fn required<'py>(
    message: &Bound<'py, PyDict>,
    key: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    message.get_item(key)?.ok_or_else(|| PyValueError::new_err(format!("the message has no {key}")))
}

fn not_a_status(value: &Bound<'_, PyAny>) -> PyErr {
    if value.is_instance_of::<PyInt>() {
        PyRuntimeError::new_err(format!(
            "expected a response status from 200 to 999, found {value}"
        ))
    } else {
        let name = type_name(value);
        PyTypeError::new_err(format!("http.response.start: status must be an int, got {name}"))
    }
}

type HeaderPair<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>);

/// Whether `key` is there and true.
fn flag(message: &Bound<'_, PyDict>, key: &Bound<'_, PyString>) -> PyResult<bool> {
    message.get_item(key)?.map_or(Ok(false), |value| value.is_truthy())
}

/// The headers of a message; none is as good as empty.
fn headers_of<'py>(message: &Bound<'py, PyDict>) -> PyResult<Vec<HeaderPair<'py>>> {
    match message.get_item(intern!(message.py(), "headers"))? {
        Some(headers) if !headers.is_none() => header_pairs(&headers),
        _ => Ok(Vec::new()),
    }
}

/// Any iterable of pairs of bytes.
fn header_pairs<'py>(headers: &Bound<'py, PyAny>) -> PyResult<Vec<HeaderPair<'py>>> {
    match headers.cast_exact::<PyList>() {
        Ok(list) => list.iter().map(|pair| header_pair(&pair)).collect(),
        Err(_) => headers.try_iter()?.map(|pair| header_pair(&pair?)).collect(),
    }
}

fn header_pair<'py>(pair: &Bound<'py, PyAny>) -> PyResult<HeaderPair<'py>> {
    let (name, value) = match pair.cast_exact::<PyTuple>() {
        Ok(pair) if pair.len() == 2 => (pair.get_item(0)?, pair.get_item(1)?),
        _ => pair_of(pair)?,
    };
    Ok((header_bytes(name)?, header_bytes(value)?))
}

/// The two items of an iterable: lists are as good as tuples, they are what JSON makes of them.
fn pair_of<'py>(pair: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let items = match pair.try_iter() {
        Ok(items) if !pair.is_instance_of::<PyString>() => items.collect::<PyResult<Vec<_>>>()?,
        _ => Vec::new(),
    };
    <[_; 2]>::try_from(items).map(|[name, value]| (name, value)).map_err(|_| {
        let name = type_name(pair);
        PyTypeError::new_err(format!("a header must be a pair of name and value, got {name}"))
    })
}

fn header_bytes(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyBytes>> {
    if value.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err("names and values of headers must be bytes, got str"));
    }
    as_bytes(value, "names and values of headers")
}

fn body_bytes(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyBytes>> {
    as_bytes(value, "http.response.body: body")
}

/// A bytes object itself, or a copy of what a bytearray, a memoryview or a subclass holds.
fn as_bytes<'py>(value: Bound<'py, PyAny>, what: &str) -> PyResult<Bound<'py, PyBytes>> {
    let value = match value.cast_into_exact::<PyBytes>() {
        Ok(bytes) => return Ok(bytes),
        Err(error) => error.into_inner(),
    };
    let py = value.py();
    if value.is_instance_of::<PyInt>() || value.is_instance_of::<PyString>() {
        let name = type_name(&value);
        return Err(PyTypeError::new_err(format!("{what} must be bytes, got {name}")));
    }
    let copied = py.get_type::<PyBytes>().call1((&value,)).map_err(|_| {
        PyTypeError::new_err(format!("{what} must be bytes, got {}", type_name(&value)))
    })?;
    Ok(copied.cast_into::<PyBytes>()?)
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "an object".to_owned(), |name| name.to_string())
}
