//! The protocol object of a request: the body comes from it, the answer goes to it.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use granian_uring::server::{Reading, SendError};
use pyo3::exceptions::{PyStopAsyncIteration, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use super::file;
use crate::asgi::{as_bytes, header_pairs, type_name};
use crate::awaitable::{Found, Pending, Wanted};
use crate::errors::{protocol_closed, protocol_error};
use crate::exchange::{Data, Exchange, Stage};

/// How the body is taken: once, in one of two ways.
const UNTAKEN: u8 = 0;
const WHOLE: u8 = 1;
const PIECES: u8 = 2;
/// In pieces, to the last one.
const TAKEN: u8 = 3;

/// See the stub file.
#[pyclass(frozen, extends = Exchange, name = "RSGIHTTPProtocol",
          module = "granian_uring._native")]
pub struct HttpProtocol {
    taking: AtomicU8,
    /// What has come so far of a body that is wanted whole.
    collected: Mutex<Vec<u8>>,
}

impl HttpProtocol {
    pub fn new() -> Self {
        Self { taking: AtomicU8::new(UNTAKEN), collected: Mutex::default() }
    }

    /// Take the one chance to read the body.
    fn take(&self, py: Python<'_>, how: u8) -> PyResult<()> {
        match self.taking.swap(how, Ordering::Relaxed) {
            UNTAKEN => Ok(()),
            before => {
                self.taking.store(before, Ordering::Relaxed);
                Err(protocol_error(py, &"the body of this request was asked for before"))
            }
        }
    }

    /// Keep a piece of the body; with the last one, give all of it.
    fn collect(&self, bytes: Vec<u8>, more: bool) -> Option<Vec<u8>> {
        let mut collected = self.collected.lock().unwrap_or_else(PoisonError::into_inner);
        if collected.is_empty() {
            *collected = bytes;
        } else {
            collected.extend_from_slice(&bytes);
        }
        (!more).then(|| std::mem::take(&mut *collected))
    }

    fn file(
        slf: &Bound<'_, Self>,
        status: u16,
        headers: &Bound<'_, PyAny>,
        path: PathBuf,
        part: (u64, Option<u64>),
    ) -> PyResult<()> {
        let exchange = slf.as_super();
        if begin(exchange, status, Some(headers))? {
            file::send(slf.py(), exchange.as_unbound(), path, part)?;
        }
        Ok(())
    }
}

#[pymethods]
impl HttpProtocol {
    fn __call__(slf: &Bound<'_, Self>) -> PyResult<Pending> {
        slf.get().take(slf.py(), WHOLE)?;
        Ok(Pending::new(slf.as_super().clone().unbind(), Wanted::Body))
    }

    fn __aiter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().take(slf.py(), PIECES)?;
        Ok(slf)
    }

    fn __anext__(slf: &Bound<'_, Self>) -> PyResult<Pending> {
        match slf.get().taking.load(Ordering::Relaxed) {
            PIECES => Ok(Pending::new(slf.as_super().clone().unbind(), Wanted::Piece)),
            TAKEN => Err(PyStopAsyncIteration::new_err(())),
            _ => Err(protocol_error(slf.py(), &"pieces of the body come by `async for`")),
        }
    }

    fn client_disconnect(slf: Bound<'_, Self>) -> Pending {
        Pending::new(slf.into_super().unbind(), Wanted::Going)
    }

    #[pyo3(signature = (status=200, headers=None))]
    fn response_empty(
        slf: &Bound<'_, Self>,
        status: u16,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        answer(slf.as_super(), status, headers, Data::Empty)
    }

    #[pyo3(signature = (status=200, headers=None, body=None))]
    fn response_bytes(
        slf: &Bound<'_, Self>,
        status: u16,
        headers: Option<&Bound<'_, PyAny>>,
        body: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        match body {
            Some(body) => {
                let body = as_bytes(body, "response_bytes: body")?;
                answer(slf.as_super(), status, headers, Data::Bytes(&body))
            }
            None => answer(slf.as_super(), status, headers, Data::Empty),
        }
    }

    #[pyo3(signature = (status=200, headers=None, body=None))]
    fn response_str(
        slf: &Bound<'_, Self>,
        status: u16,
        headers: Option<&Bound<'_, PyAny>>,
        body: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        match body {
            Some(body) => {
                let body = as_text(body, "response_str: body")?;
                answer(slf.as_super(), status, headers, Data::Text(body))
            }
            None => answer(slf.as_super(), status, headers, Data::Empty),
        }
    }

    fn response_file(
        slf: &Bound<'_, Self>,
        status: u16,
        headers: &Bound<'_, PyAny>,
        file: PathBuf,
    ) -> PyResult<()> {
        Self::file(slf, status, headers, file, (0, None))
    }

    /// The part from `start` to before `end`.
    fn response_file_range(
        slf: &Bound<'_, Self>,
        status: u16,
        headers: &Bound<'_, PyAny>,
        file: PathBuf,
        start: u64,
        end: u64,
    ) -> PyResult<()> {
        if start >= end {
            return Err(PyValueError::new_err(format!(
                "response_file_range: expected start < end, got {start} and {end}"
            )));
        }
        Self::file(slf, status, headers, file, (start, Some(end)))
    }

    #[pyo3(signature = (status=200, headers=None))]
    fn response_stream(
        slf: &Bound<'_, Self>,
        status: u16,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<StreamTransport> {
        if slf.as_super().get().stage() != Stage::Fresh {
            return Err(protocol_error(slf.py(), &"this request was answered before"));
        }
        begin(slf.as_super(), status, headers)?;
        Ok(StreamTransport { exchange: slf.as_super().clone().unbind() })
    }

    /// The application has returned: its stream ends with that. Then as `finish`.
    fn complete(slf: &Bound<'_, Self>) -> PyResult<Option<&'static str>> {
        let exchange = slf.as_super().get();
        end_stream(exchange)?;
        exchange.leave()
    }
}

/// Where the pieces of a streamed answer go.
#[pyclass(frozen, name = "RSGIHTTPStreamTransport", module = "granian_uring._native")]
pub struct StreamTransport {
    exchange: Py<Exchange>,
}

impl StreamTransport {
    fn send(&self, py: Python<'_>, data: Data<'_, '_>) -> PyResult<Py<Pending>> {
        let exchange = self.exchange.bind(py);
        if exchange.get().stage() != Stage::Started {
            return Err(protocol_closed(py));
        }
        Exchange::sent(exchange, exchange.get().send(data, true)?)
    }
}

#[pymethods]
impl StreamTransport {
    fn send_bytes(&self, data: Bound<'_, PyAny>) -> PyResult<Py<Pending>> {
        let data = as_bytes(data, "send_bytes: data")?;
        self.send(data.py(), Data::Bytes(&data))
    }

    fn send_str(&self, data: &Bound<'_, PyAny>) -> PyResult<Py<Pending>> {
        self.send(data.py(), Data::Text(as_text(data, "send_str: data")?))
    }
}

impl Drop for StreamTransport {
    /// Nobody can send any more: the answer is complete. One that failed is not made to look so,
    /// because the exception has the frames that hold the transport until the request is left.
    fn drop(&mut self) {
        if self.exchange.get().stage() == Stage::Started {
            // On another thread, or when the worker is closed, nothing is left to do.
            let _ = end_stream(self.exchange.get());
        }
    }
}

/// What [`Wanted::Body`] looks for.
pub fn body(exchange: &Bound<'_, Exchange>) -> PyResult<Found> {
    let py = exchange.py();
    let protocol = exchange.cast::<HttpProtocol>()?.get();
    loop {
        match exchange.get().read()? {
            Reading::Data { bytes, more } => {
                if let Some(whole) = protocol.collect(bytes, more) {
                    return Ok(Found::Value(PyBytes::new(py, &whole).into_any().unbind()));
                }
            }
            Reading::Disconnected => return Err(protocol_closed(py)),
            Reading::Wait => return exchange.get().wait_for(py, Wanted::Body),
        }
    }
}

/// What [`Wanted::Piece`] looks for.
pub fn piece(exchange: &Bound<'_, Exchange>) -> PyResult<Found> {
    let py = exchange.py();
    let protocol = exchange.cast::<HttpProtocol>()?.get();
    if protocol.taking.load(Ordering::Relaxed) == TAKEN {
        return Err(PyStopAsyncIteration::new_err(()));
    }
    match exchange.get().read()? {
        Reading::Data { bytes, more } => {
            if !more {
                protocol.taking.store(TAKEN, Ordering::Relaxed);
            }
            if bytes.is_empty() && !more {
                return Err(PyStopAsyncIteration::new_err(()));
            }
            Ok(Found::Value(PyBytes::new(py, &bytes).into_any().unbind()))
        }
        Reading::Disconnected => Err(protocol_closed(py)),
        Reading::Wait => exchange.get().wait_for(py, Wanted::Piece),
    }
}

/// What [`Wanted::Going`] looks for.
pub fn going(exchange: &Bound<'_, Exchange>) -> PyResult<Found> {
    if exchange.get().is_gone()? {
        Ok(Found::Nothing)
    } else {
        exchange.get().wait_for(exchange.py(), Wanted::Going)
    }
}

/// A whole answer. What the codec refuses is as if it had not been tried.
fn answer(
    exchange: &Bound<'_, Exchange>,
    status: u16,
    headers: Option<&Bound<'_, PyAny>>,
    data: Data<'_, '_>,
) -> PyResult<()> {
    let py = exchange.py();
    if !begin(exchange, status, headers)? {
        return Ok(());
    }
    let this = exchange.get();
    let error = match this.send(data, false) {
        Ok(Ok(_) | Err(SendError::Gone)) => return Ok(()),
        Ok(Err(error)) => this.refused(py, error),
        Err(error) => error,
    };
    this.discard()?;
    Err(error)
}

/// Take the one chance to answer. False when nothing of this answer matters: the client is gone, or
/// there was one before. Granian takes a second answer without a word, and Emmett gives one behind
/// each stream.
fn begin(
    exchange: &Bound<'_, Exchange>,
    status: u16,
    headers: Option<&Bound<'_, PyAny>>,
) -> PyResult<bool> {
    let py = exchange.py();
    let this = exchange.get();
    if this.stage() != Stage::Fresh {
        return Ok(false);
    }
    let pairs = headers
        .map(|headers| {
            header_pairs(headers, |item| as_text(&item, "names and values of headers").cloned())
        })
        .transpose()?
        .unwrap_or_default();
    let encoded = pairs
        .iter()
        .map(|(name, value)| Ok((latin1(name)?, latin1(value)?)))
        .collect::<PyResult<Vec<_>>>()?;
    match this.start(status, encoded.iter().map(|(name, value)| (&**name, &**value)))? {
        Ok(()) => Ok(true),
        Err(SendError::Gone) => {
            this.set_stage(Stage::Started);
            Ok(false)
        }
        Err(error) => Err(this.refused(py, error)),
    }
}

/// The last piece of a stream, if there is one. What cannot be ended (the body is too short) is
/// found by who leaves the request.
fn end_stream(exchange: &Exchange) -> PyResult<()> {
    if exchange.stage() == Stage::Started {
        // An error here is also what `leave` finds.
        let _ = exchange.send(Data::Empty, false)?;
    }
    Ok(())
}

pub fn as_text<'a, 'py>(
    value: &'a Bound<'py, PyAny>,
    what: &str,
) -> PyResult<&'a Bound<'py, PyString>> {
    value
        .cast::<PyString>()
        .map_err(|_| PyTypeError::new_err(format!("{what} must be str, got {}", type_name(value))))
}

/// What a header has on the wire: ASCII nearly always, else Latin-1.
fn latin1<'a>(text: &'a Bound<'_, PyString>) -> PyResult<Cow<'a, [u8]>> {
    let utf8 = text.to_str()?;
    if utf8.is_ascii() {
        return Ok(Cow::Borrowed(utf8.as_bytes()));
    }
    let bytes = utf8.chars().map(|char| u8::try_from(u32::from(char)).ok());
    bytes.collect::<Option<Vec<_>>>().map(Cow::Owned).ok_or_else(|| {
        PyValueError::new_err(format!("a header must be Latin-1, got {}", utf8.escape_unicode()))
    })
}
