//! The protocol object of a WebSocket handshake, and the transport of an accepted one.
//!
//! `close(status)` has one number for two things: the status of a refusal, and the end of what was
//! accepted. There a close code counts as it is, a status of 500 and above is a failure (1011), and
//! everything else the usual end (1000).

use granian_uring::server::SendError;
use granian_uring::websocket::{Event, code};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use super::http::as_text;
use crate::asgi::as_bytes;
use crate::awaitable::{Found, News, Pending, Wanted};
use crate::errors::{protocol_closed, protocol_error};
use crate::exchange::{Data, Exchange, Stage};

/// What a refusal is without a status that says so.
const FORBIDDEN: u16 = 403;

/// See the stub file.
#[pyclass(frozen, extends = Exchange, name = "RSGIWebsocketProtocol",
          module = "granian_uring._native")]
pub struct WebsocketProtocol;

#[pymethods]
impl WebsocketProtocol {
    fn accept(slf: Bound<'_, Self>) -> Pending {
        Pending::new(slf.into_super().unbind(), Wanted::Transport)
    }

    #[pyo3(signature = (status=None))]
    fn close(slf: &Bound<'_, Self>, status: Option<u16>) -> PyResult<()> {
        let py = slf.py();
        let exchange = slf.as_super().get();
        let status = status.unwrap_or(0);
        let closed = match exchange.stage() {
            Stage::Fresh => exchange.deny(refusal(status))?,
            Stage::Accepted => exchange.close_websocket(close_code(status), "")?,
            // It is over: a close more says nothing new.
            _ => return Ok(()),
        };
        match closed {
            Ok(()) | Err(SendError::Gone) => {
                exchange.worker().wake(py, exchange.id(), News::Readable)
            }
            Err(error) => Err(exchange.refused(py, error)),
        }
    }

    /// The application has returned. Then as `finish`.
    fn complete(slf: &Bound<'_, Self>) -> PyResult<Option<&'static str>> {
        slf.as_super().get().complete_websocket()
    }
}

fn refusal(status: u16) -> u16 {
    if (400..600).contains(&status) { status } else { FORBIDDEN }
}

fn close_code(status: u16) -> u16 {
    match status {
        500..600 => code::INTERNAL_ERROR,
        1000..5000 => status,
        _ => code::NORMAL,
    }
}

/// See the stub file.
#[pyclass(frozen, name = "RSGIWebsocketTransport", module = "granian_uring._native")]
pub struct WebsocketTransport {
    exchange: Py<Exchange>,
}

impl WebsocketTransport {
    fn send(&self, py: Python<'_>, data: Data<'_, '_>) -> PyResult<Py<Pending>> {
        let exchange = self.exchange.bind(py);
        if exchange.get().stage() != Stage::Accepted {
            return Err(protocol_closed(py));
        }
        Exchange::sent(exchange, exchange.get().send_message(data)?)
    }
}

#[pymethods]
impl WebsocketTransport {
    fn receive(&self, py: Python<'_>) -> Pending {
        Pending::new(self.exchange.clone_ref(py), Wanted::TransportMessage)
    }

    fn send_bytes(&self, data: Bound<'_, PyAny>) -> PyResult<Py<Pending>> {
        let data = as_bytes(data, "send_bytes: data")?;
        self.send(data.py(), Data::Bytes(&data))
    }

    fn send_str(&self, data: &Bound<'_, PyAny>) -> PyResult<Py<Pending>> {
        self.send(data.py(), Data::Text(as_text(data, "send_str: data")?))
    }
}

/// See the stub file.
#[pyclass(frozen, get_all, name = "RSGIWebsocketMessage", module = "granian_uring._native")]
pub struct WebsocketMessage {
    kind: u8,
    data: Option<Py<PyAny>>,
}

/// What [`Wanted::Transport`] does: it accepts.
pub fn transport(exchange: &Bound<'_, Exchange>) -> PyResult<Found> {
    let py = exchange.py();
    let this = exchange.get();
    if this.stage() != Stage::Fresh {
        return Err(protocol_error(py, &"this WebSocket was accepted or closed before"));
    }
    this.accept(None, [].into_iter())?.map_err(|error| this.refused(py, error))?;
    let transport = WebsocketTransport { exchange: exchange.clone().unbind() };
    Ok(Found::Value(Py::new(py, transport)?.into_any()))
}

/// What [`Wanted::TransportMessage`] looks for. The close comes once.
pub fn message(exchange: &Bound<'_, Exchange>) -> PyResult<Found> {
    let py = exchange.py();
    let this = exchange.get();
    let told_before = this.was_told_gone();
    let message = match this.next_message()? {
        Some(Event::Text(text)) => {
            WebsocketMessage { kind: 2, data: Some(PyString::new(py, &text).into_any().unbind()) }
        }
        Some(Event::Binary(bytes) | Event::Pong(bytes)) => {
            WebsocketMessage { kind: 1, data: Some(PyBytes::new(py, &bytes).into_any().unbind()) }
        }
        Some(Event::Close { .. }) if told_before => return Err(protocol_closed(py)),
        Some(Event::Close { .. }) => WebsocketMessage { kind: 0, data: None },
        None => return this.wait_for(py, Wanted::TransportMessage),
    };
    Ok(Found::Value(Py::new(py, message)?.into_any()))
}
