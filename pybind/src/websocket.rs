//! A WebSocket: what has come and waits for the application, what the application sends, and the
//! messages of ASGI for both. RSGI's objects for them are in `rsgi::websocket`.
//!
//! The protocol itself, back-pressure and every bound are the server's business
//! (`granian_uring::server`). Messages come as its events, into the [`Inbox`] of their request, and
//! the server is told when the application takes one, so that it reads on. An accepted WebSocket is
//! over for the application when it has closed it, or was told `websocket.disconnect`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use granian_uring::server::{Progress, SendError};
use granian_uring::websocket::{Event, Message, code};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::asgi::{self, as_bytes, headers_of, type_name, typed};
use crate::awaitable::{Found, News, Pending, Wanted};
use crate::exchange::{Data, Exchange, Stage};

/// What has come on a WebSocket and was not taken yet, in order.
#[derive(Default)]
pub struct Inbox {
    messages: VecDeque<Event>,
    /// Code and reason of the close, which is behind all messages, and stays.
    end: Option<(u16, String)>,
}

impl Inbox {
    pub fn push(&mut self, event: Event) {
        match event {
            // The application has closed while this was on its way.
            _ if self.end.is_some() => {}
            Event::Close { code, reason } => self.end = Some((code, reason)),
            message => self.messages.push_back(message),
        }
    }

    /// The application has ended the connection: nothing but that is news any more.
    fn close(&mut self, code: u16, reason: &str) {
        self.messages.clear();
        self.end.get_or_insert_with(|| (code, reason.to_owned()));
    }

    fn take(&mut self) -> Option<Event> {
        let end = || self.end.clone().map(|(code, reason)| Event::Close { code, reason });
        self.messages.pop_front().or_else(end)
    }
}

/// What a request that asks for a WebSocket can do beside being answered.
impl Exchange {
    /// Accept the WebSocket.
    pub fn accept<'h>(
        &self,
        subprotocol: Option<&str>,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    ) -> PyResult<Result<(), SendError>> {
        let accepted = self
            .worker()
            .with(|state| state.server.accept_websocket(self.id(), subprotocol, headers))?;
        if accepted.is_ok() {
            self.set_stage(Stage::Accepted);
        }
        Ok(accepted)
    }

    /// The next message or the close, if it is there.
    pub fn next_message(&self) -> PyResult<Option<Event>> {
        let next = self.worker().with(|state| {
            let event = state.inboxes.get_mut(&self.id())?.take()?;
            match &event {
                Event::Text(text) => state.server.took_message(self.id(), text.len()),
                Event::Binary(bytes) => state.server.took_message(self.id(), bytes.len()),
                Event::Pong(_) | Event::Close { .. } => {}
            }
            Some(event)
        })?;
        if let Some(Event::Close { .. }) = &next {
            self.told_gone();
        }
        Ok(next)
    }

    /// Send a message: text or bytes, as its data is.
    pub fn send_message(&self, data: Data<'_, '_>) -> PyResult<Result<Progress, SendError>> {
        let bytes = data.as_bytes()?;
        let payload = data.payload(bytes);
        let message = match data {
            Data::Text(text) => Message::Text(text.to_str()?),
            Data::Bytes(_) | Data::Empty => Message::Binary(bytes),
        };
        self.worker().with(|state| state.server.send_message(self.id(), message, payload))
    }

    /// Close the accepted WebSocket.
    pub fn close_websocket(&self, code: u16, reason: &str) -> PyResult<Result<(), SendError>> {
        let closed = self.worker().with(|state| {
            let closed = state.server.close_websocket(self.id(), code, reason);
            if let (Ok(()), Some(inbox)) = (&closed, state.inboxes.get_mut(&self.id())) {
                inbox.close(code, reason);
            }
            closed
        })?;
        if closed.is_ok() {
            self.set_stage(Stage::Ended);
        }
        Ok(closed)
    }

    /// The application does not want the WebSocket: a response without a body.
    pub fn deny(&self, status: u16) -> PyResult<Result<(), SendError>> {
        let headers: [(&[u8], &[u8]); 1] = [(b"content-length", b"0")];
        if let Err(error) = self.start(status, headers.into_iter())? {
            return Ok(Err(error));
        }
        Ok(self.send(Data::Empty, false)?.map(drop))
    }

    /// The application has returned: without a close of its own that means what it does elsewhere,
    /// that the purpose of the connection is fulfilled. Before an answer it is a failure.
    pub fn complete_websocket(&self) -> PyResult<Option<&'static str>> {
        if self.stage() == Stage::Accepted {
            // A client that has gone is found by `leave`.
            let _ = self.close_websocket(code::NORMAL, "")?;
        }
        self.leave()
    }
}

/// A WebSocket for ASGI: its `receive` and `send` are given to the application.
#[pyclass(frozen, extends = Exchange, name = "ASGIWebSocket", module = "granian_uring._native")]
pub struct AsgiWebSocket {
    /// The application was told `websocket.connect`.
    told_connect: AtomicBool,
}

impl AsgiWebSocket {
    pub fn new() -> Self {
        Self { told_connect: AtomicBool::new(false) }
    }
}

#[pymethods]
impl AsgiWebSocket {
    /// ASGI's `receive`.
    fn receive(slf: Bound<'_, Self>) -> Pending {
        Pending::new(slf.into_super().unbind(), Wanted::SocketMessage)
    }

    /// ASGI's `send`. The message takes effect at once; what is returned waits for the peer if it
    /// is too far behind.
    #[pyo3(signature = (message, /))]
    fn send(slf: &Bound<'_, Self>, message: &Bound<'_, PyAny>) -> PyResult<Py<Pending>> {
        let exchange = slf.as_super();
        let (message, kind) = typed(message)?;
        let kind = kind.to_str()?;
        check_order(kind, exchange.get().stage())?;
        match kind {
            "websocket.send" => return send(exchange, message),
            "websocket.http.response.body" => return asgi::body(exchange, message),
            "websocket.accept" => accept(exchange, message)?,
            "websocket.close" => close(exchange, message)?,
            _ => asgi::start(exchange, message)?,
        }
        let worker = exchange.get().worker();
        // Who waits in `receive` meanwhile waits for something else now, or for nothing.
        worker.wake(slf.py(), exchange.get().id(), News::Readable)?;
        Ok(worker.done(slf.py()))
    }

    /// The application has returned. Then as `finish`.
    fn complete(slf: &Bound<'_, Self>) -> PyResult<Option<&'static str>> {
        slf.as_super().get().complete_websocket()
    }
}

/// Whether a message of this type may be sent now.
fn check_order(kind: &str, stage: Stage) -> PyResult<()> {
    let (is_due, expected) = match stage {
        Stage::Fresh => (
            matches!(
                kind,
                "websocket.accept" | "websocket.close" | "websocket.http.response.start"
            ),
            "websocket.accept, websocket.close or websocket.http.response.start on a WebSocket \
             that is not accepted yet",
        ),
        Stage::Accepted => (
            matches!(kind, "websocket.send" | "websocket.close"),
            "websocket.send or websocket.close on an accepted WebSocket",
        ),
        Stage::Ended | Stage::Finished => {
            (false, "nothing after websocket.close, or after the end of the response")
        }
        _ => (
            kind == "websocket.http.response.body",
            "websocket.http.response.body after websocket.http.response.start",
        ),
    };
    let is_known = matches!(
        kind,
        "websocket.accept"
            | "websocket.send"
            | "websocket.close"
            | "websocket.http.response.start"
            | "websocket.http.response.body"
    );
    match (is_due, is_known) {
        (true, _) => Ok(()),
        (false, true) => Err(PyRuntimeError::new_err(format!("expected {expected}, found {kind}"))),
        (false, false) => Err(PyValueError::new_err(format!(
            "unknown message type {kind:?}: expected websocket.accept, websocket.send, \
             websocket.close, or that of an extension in the scope"
        ))),
    }
}

fn accept(exchange: &Bound<'_, Exchange>, message: &Bound<'_, PyDict>) -> PyResult<()> {
    let py = exchange.py();
    let subprotocol = text(message, intern!(py, "subprotocol"))?;
    let subprotocol = subprotocol.as_ref().map(|it| it.to_str()).transpose()?;
    let headers = headers_of(message)?;
    let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let this = exchange.get();
    this.accept(subprotocol, headers)?.map_err(|error| this.refused(py, error))
}

fn send(exchange: &Bound<'_, Exchange>, message: &Bound<'_, PyDict>) -> PyResult<Py<Pending>> {
    let py = exchange.py();
    let this = exchange.get();
    let bytes = message.get_item(intern!(py, "bytes"))?.filter(|it| !it.is_none());
    let progress = if let Some(bytes) = bytes {
        this.send_message(Data::Bytes(&as_bytes(bytes, "websocket.send: bytes")?))?
    } else if let Some(text) = text(message, intern!(py, "text"))? {
        this.send_message(Data::Text(&text))?
    } else {
        return Err(PyValueError::new_err("websocket.send has neither bytes nor text"));
    };
    Exchange::sent(exchange, progress)
}

fn close(exchange: &Bound<'_, Exchange>, message: &Bound<'_, PyDict>) -> PyResult<()> {
    let py = exchange.py();
    let this = exchange.get();
    let closed = if this.stage() == Stage::Fresh {
        // What ASGI says a refusal is.
        this.deny(403)?
    } else {
        let code = match message.get_item(intern!(py, "code"))?.filter(|it| !it.is_none()) {
            Some(code) => code.extract().map_err(|_| not_a_code(&code))?,
            None => code::NORMAL,
        };
        let reason = text(message, intern!(py, "reason"))?;
        this.close_websocket(code, reason.as_ref().map_or(Ok(""), |it| it.to_str())?)?
    };
    closed.map_err(|error| this.refused(py, error))
}

/// A str that may be missing or None.
fn text<'py>(
    message: &Bound<'py, PyDict>,
    key: &Bound<'py, PyString>,
) -> PyResult<Option<Bound<'py, PyString>>> {
    let Some(value) = message.get_item(key)?.filter(|it| !it.is_none()) else { return Ok(None) };
    value.cast_into::<PyString>().map(Some).map_err(|error| {
        let name = type_name(&error.into_inner());
        PyTypeError::new_err(format!("{key} of a WebSocket's message must be a str, got {name}"))
    })
}

fn not_a_code(value: &Bound<'_, PyAny>) -> PyErr {
    let found = value.repr().map_or_else(|_| type_name(value), |text| text.to_string());
    PyTypeError::new_err(format!("websocket.close: expected a close code, found {found}"))
}

/// The next message for `receive`.
pub fn message(exchange: &Bound<'_, Exchange>) -> PyResult<Found> {
    let py = exchange.py();
    let told_connect = &exchange.cast::<AsgiWebSocket>()?.get().told_connect;
    if !told_connect.swap(true, Ordering::Relaxed) {
        let message = PyDict::new(py);
        message.set_item(intern!(py, "type"), intern!(py, "websocket.connect"))?;
        return Ok(Found::Value(message.into_any().unbind()));
    }
    let this = exchange.get();
    match this.next_message()? {
        Some(event) => Ok(Found::Value(news(py, event)?.into_any().unbind())),
        // It is answered like any request.
        None if this.stage() >= Stage::Ended
            || (this.stage() == Stage::Started && this.is_gone()?) =>
        {
            let end = Event::Close { code: code::ABNORMAL, reason: String::new() };
            Ok(Found::Value(news(py, end)?.into_any().unbind()))
        }
        None => this.wait_for(py, Wanted::SocketMessage),
    }
}

fn news(py: Python<'_>, event: Event) -> PyResult<Bound<'_, PyDict>> {
    let message = PyDict::new(py);
    let receive = intern!(py, "websocket.receive");
    let kind = match event {
        Event::Text(text) => {
            message.set_item(intern!(py, "text"), text)?;
            receive
        }
        Event::Binary(bytes) | Event::Pong(bytes) => {
            message.set_item(intern!(py, "bytes"), PyBytes::new(py, &bytes))?;
            receive
        }
        Event::Close { code, reason } => {
            message.set_item(intern!(py, "code"), code)?;
            message.set_item(intern!(py, "reason"), reason)?;
            intern!(py, "websocket.disconnect")
        }
    };
    message.set_item(intern!(py, "type"), kind)?;
    Ok(message)
}
