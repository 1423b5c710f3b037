//! One ASGI request: what the application's `receive` and `send` do.
//!
//! Here messages are taken apart and put together; what becomes of them is `exchange`'s business.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use granian_uring::proactor::FileRange;
use granian_uring::server::{Body, Reading};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyString, PyTuple};

use crate::awaitable::{Found, Pending, Wanted};
use crate::exchange::{Data, Exchange, Stage};
use crate::files;

/// An ASGI request under way: its `receive` and `send` are given to the application.
#[pyclass(frozen, extends = Exchange, name = "ASGIExchange", module = "granian_uring._native")]
pub struct AsgiExchange {
    /// Until the last of them is there.
    trailers: Mutex<Vec<(Vec<u8>, Vec<u8>)>>,
}

impl AsgiExchange {
    pub fn new() -> Self {
        Self { trailers: Mutex::default() }
    }

    fn trailers(slf: &Bound<'_, Self>, message: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = slf.py();
        let exchange = slf.as_super().get();
        if exchange.stage() != Stage::Trailers {
            return Err(PyRuntimeError::new_err(
                "http.response.trailers comes after the last http.response.body of a response \
                 that was started with trailers=True",
            ));
        }
        let mut kept = slf.get().trailers.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, value) in headers_of(message)? {
            kept.push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        }
        if flag(message, intern!(py, "more_trailers"))? {
            return Ok(());
        }
        let fields = kept.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
        exchange.send_trailers(fields)?.map_err(|error| exchange.refused(py, error))
    }
}

#[pymethods]
impl AsgiExchange {
    /// ASGI's `receive`.
    fn receive(slf: Bound<'_, Self>) -> Pending {
        Pending::new(slf.into_super().unbind(), Wanted::Message)
    }

    /// ASGI's `send`. The message takes effect at once; what is returned waits for the peer if it
    /// is too far behind.
    #[pyo3(signature = (message, /))]
    fn send(slf: &Bound<'_, Self>, message: &Bound<'_, PyAny>) -> PyResult<Py<Pending>> {
        let py = slf.py();
        let exchange = slf.as_super();
        let (message, kind) = typed(message)?;
        let kind = kind.to_str()?;
        if exchange.get().stage() >= Stage::Ended {
            return Err(PyRuntimeError::new_err(format!(
                "{kind} was sent after the end of the response (a http.response.body without \
                 more_body)"
            )));
        }
        match kind {
            "http.response.body" => return body(exchange, message),
            "http.response.start" => start(exchange, message)?,
            "http.response.pathsend" => return path(exchange, message),
            "http.response.zerocopysend" => return zero_copy(exchange, message),
            "http.response.trailers" => Self::trailers(slf, message)?,
            "http.response.early_hint" => early_hints(exchange, message)?,
            // Of tests alone, for who looks at the messages: nothing goes to the client.
            "http.response.debug" => {}
            other => {
                return Err(PyValueError::new_err(format!(
                    "unknown message type {other:?}: expected http.response.start, \
                     http.response.body, or that of an extension in the scope"
                )));
            }
        }
        Ok(exchange.get().worker().done(py))
    }
}

/// A message for `send`, and its type.
pub fn typed<'a, 'py>(
    message: &'a Bound<'py, PyAny>,
) -> PyResult<(&'a Bound<'py, PyDict>, Bound<'py, PyString>)> {
    let message = message.cast::<PyDict>().map_err(|_| {
        PyTypeError::new_err(format!("send takes a dict, got {}", type_name(message)))
    })?;
    let kind = required(message, intern!(message.py(), "type"))?;
    let kind = kind.cast_into::<PyString>().map_err(|error| {
        let name = type_name(&error.into_inner());
        PyTypeError::new_err(format!("a message's type is a str, got {name}"))
    })?;
    Ok((message, kind))
}

/// The next message for `receive`.
pub fn message(exchange: &Bound<'_, Exchange>) -> PyResult<Found> {
    let py = exchange.py();
    match exchange.get().read()? {
        Reading::Data { bytes, more } => Ok(Found::Value(request(py, &bytes, more)?)),
        Reading::Disconnected => Ok(Found::Value(disconnect(py)?)),
        Reading::Wait => exchange.get().wait_for(py, Wanted::Message),
    }
}

/// The beginning of an answer.
pub fn start(exchange: &Bound<'_, Exchange>, message: &Bound<'_, PyDict>) -> PyResult<()> {
    let py = exchange.py();
    let this = exchange.get();
    let status = required(message, intern!(py, "status"))?;
    let status: u16 = status.extract().map_err(|_| not_a_status(&status))?;
    let headers = headers_of(message)?;
    let slices = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    this.start(status, slices)?.map_err(|error| this.refused(py, error))?;
    if flag(message, intern!(py, "trailers"))? {
        this.set_stage(Stage::StartedWithTrailers);
    }
    Ok(())
}

/// A piece of an answer's body.
pub fn body(exchange: &Bound<'_, Exchange>, message: &Bound<'_, PyDict>) -> PyResult<Py<Pending>> {
    let py = exchange.py();
    let more = flag(message, intern!(py, "more_body"))?;
    let progress = match message.get_item(intern!(py, "body"))? {
        Some(body) => exchange.get().send(Data::Bytes(&body_bytes(body)?), more)?,
        None => exchange.get().send(Data::Empty, more)?,
    };
    Exchange::sent(exchange, progress)
}

/// `http.response.pathsend`: a file, or the part of it that the client asks for.
fn path(exchange: &Bound<'_, Exchange>, message: &Bound<'_, PyDict>) -> PyResult<Py<Pending>> {
    let py = exchange.py();
    let path: PathBuf = required(message, intern!(py, "path"))?.extract()?;
    let (file, length) = files::open(&path)?;
    let body = Body::WholeFile(FileRange::new(file, 0, length));
    Exchange::sent(exchange, exchange.get().give(body, false)?)
}

/// `http.response.zerocopysend`: a part of an open file.
fn zero_copy(exchange: &Bound<'_, Exchange>, message: &Bound<'_, PyDict>) -> PyResult<Py<Pending>> {
    let py = exchange.py();
    let more = flag(message, intern!(py, "more_body"))?;
    let file = required(message, intern!(py, "file"))?;
    let number = |key| -> PyResult<Option<u64>> {
        message.get_item(key)?.filter(|it| !it.is_none()).map(|it| it.extract()).transpose()
    };
    let offset = number(intern!(py, "offset"))?;
    let count = number(intern!(py, "count"))?;
    let range = files::part(&file, offset, count)?;
    Exchange::sent(exchange, exchange.get().give(Body::File(range), more)?)
}

fn early_hints(exchange: &Bound<'_, Exchange>, message: &Bound<'_, PyDict>) -> PyResult<()> {
    let py = exchange.py();
    let links = required(message, intern!(py, "links"))?
        .try_iter()?
        .map(|link| as_bytes(link?, "links of http.response.early_hint"))
        .collect::<PyResult<Vec<_>>>()?;
    let links = links.iter().map(PyBytesMethods::as_bytes);
    let this = exchange.get();
    this.send_early_hints(links)?.map_err(|error| this.refused(py, error))
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

pub type HeaderPair<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>);

/// Whether `key` is there and true.
fn flag(message: &Bound<'_, PyDict>, key: &Bound<'_, PyString>) -> PyResult<bool> {
    message.get_item(key)?.map_or(Ok(false), |value| value.is_truthy())
}

/// The headers of a message; none is as good as empty.
pub fn headers_of<'py>(message: &Bound<'py, PyDict>) -> PyResult<Vec<HeaderPair<'py>>> {
    match message.get_item(intern!(message.py(), "headers"))? {
        Some(headers) if !headers.is_none() => header_pairs(&headers, header_bytes),
        _ => Ok(Vec::new()),
    }
}

/// Any iterable of pairs, each item of which `convert` takes or refuses.
pub fn header_pairs<'py, T>(
    headers: &Bound<'py, PyAny>,
    convert: impl Fn(Bound<'py, PyAny>) -> PyResult<T>,
) -> PyResult<Vec<(T, T)>> {
    let pair = |pair: &Bound<'py, PyAny>| {
        let (name, value) = match pair.cast_exact::<PyTuple>() {
            Ok(pair) if pair.len() == 2 => (pair.get_item(0)?, pair.get_item(1)?),
            _ => pair_of(pair)?,
        };
        Ok((convert(name)?, convert(value)?))
    };
    match headers.cast_exact::<PyList>() {
        Ok(list) => list.iter().map(|item| pair(&item)).collect(),
        Err(_) => headers.try_iter()?.map(|item| pair(&item?)).collect(),
    }
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
pub fn as_bytes<'py>(value: Bound<'py, PyAny>, what: &str) -> PyResult<Bound<'py, PyBytes>> {
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

pub fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "an object".to_owned(), |name| name.to_string())
}
