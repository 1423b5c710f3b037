//! The answer of a WSGI application: `start_response`, the write callable, and the iterable it
//! returned, PEP 3333 "The `start_response()` Callable" and "Buffering and Streaming".
//!
//! What the codec would refuse is refused here already, where it can still be an exception in the
//! application: types, header names and values, hop-by-hop headers, the length of the body.
//!
//! Exactly one thing ends a request: the last piece of its answer, or [`Exchange::give_up`].

use std::sync::Arc;

use granian_uring::http1::{Status, reason_phrase};
use granian_uring::proactor::FileRange;
use granian_uring::server::{Request, SendError};
use pyo3::exceptions::{PyAssertionError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyIterator, PyList, PyString, PyTuple};

use super::Gateway;
use super::exchange::{Exchange, Gone, Sent};
use super::pool::Message;
use crate::errors::{asgi_refusal, is_wish};
use crate::files;

/// A list or tuple of at most this many bytes is sent as one piece.
const JOINED_BYTES: usize = 64 * 1024;
/// RFC 9110 §7.6.1, RFC 2616 §13.5.1: an application must not use them.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailers",
    "transfer-encoding",
    "upgrade",
];

/// Status and header fields, checked.
pub struct Head {
    status: u16,
    /// The application's own words beside the status, if they are not the registered ones.
    reason: Option<Box<[u8]>>,
    text: Vec<u8>,
    /// Where each name and each value ends in `text`.
    ends: Vec<(usize, usize)>,
    declared: Option<u64>,
}

impl Head {
    /// Status code and reason phrase.
    pub fn status(&self) -> Status<'_> {
        Status { code: self.status, reason: self.reason.as_deref() }
    }

    /// Names and values.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |&(name, value)| {
            let field = (&self.text[start..name], &self.text[name..value]);
            start = value;
            field
        })
    }

    fn read(status: &Bound<'_, PyAny>, headers: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (status, reason) = read_status(status)?;
        let headers = headers.cast::<PyList>().map_err(|_| {
            PyTypeError::new_err(format!("headers must be a list, got {}", type_name(headers)))
        })?;
        let (text, ends) = (Vec::with_capacity(256), Vec::with_capacity(headers.len()));
        let mut head = Self { status, reason, text, ends, declared: None };
        for pair in headers.iter() {
            head.add(&pair)?;
        }
        Ok(head)
    }

    fn add(&mut self, pair: &Bound<'_, PyAny>) -> PyResult<()> {
        let (name, value) = match pair.cast::<PyTuple>() {
            Ok(pair) if pair.len() == 2 => (pair.get_item(0)?, pair.get_item(1)?),
            _ => {
                let name = type_name(pair);
                return Err(PyTypeError::new_err(format!(
                    "a header must be a tuple of name and value, got {name}"
                )));
            }
        };
        let start = self.text.len();
        push_latin1(&mut self.text, &name, "the name of a header")?;
        let between = self.text.len();
        push_latin1(&mut self.text, &value, "the value of a header")?;
        self.ends.push((between, self.text.len()));
        let (name, value) = self.text[start..].split_at(between - start);
        if name.is_empty() || !name.iter().all(|&byte| is_token_byte(byte)) {
            return Err(refused("expected a token as the name of a header, found", name));
        }
        if value.iter().any(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7f) {
            return Err(refused("expected no control characters in the value of header", name));
        }
        if HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop.as_bytes())) {
            return Err(refused("an application may not use a hop-by-hop header such as", name));
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = str::from_utf8(value).ok().map(str::trim);
            let length = length
                .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| refused("expected a number as Content-Length, found", value))?;
            if self.declared.replace(length).is_some() {
                return Err(PyValueError::new_err("expected one Content-Length, found two"));
            }
        }
        Ok(())
    }
}

fn refused(what: &str, found: &[u8]) -> PyErr {
    PyValueError::new_err(format!("{what} {:?}", found.escape_ascii().to_string()))
}

/// RFC 9110 §5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `200 OK`: three digits, and words after a space. Words that the status has anyway are left out.
fn read_status(status: &Bound<'_, PyAny>) -> PyResult<(u16, Option<Box<[u8]>>)> {
    let mut text = Vec::new();
    push_latin1(&mut text, status, "the status")?;
    let code = match &text[..] {
        [_, _, _] | [_, _, _, b' ', ..] if text[..3].iter().all(u8::is_ascii_digit) => &text[..3],
        _ => &[],
    };
    let controls = text.iter().any(u8::is_ascii_control);
    let number = str::from_utf8(code).ok().and_then(|code| code.parse::<u16>().ok());
    match number {
        Some(number) if (200..=999).contains(&number) && !controls => {
            let reason = text.get(4..).filter(|reason| !reason.is_empty());
            let own = reason.filter(|reason| *reason != reason_phrase(number).as_bytes());
            Ok((number, own.map(Box::from)))
        }
        _ => Err(refused("expected a status such as '200 OK', from 200 to 999, found", &text)),
    }
}

/// Append a `str` whose characters are bytes, PEP 3333 "A Note On String Types".
fn push_latin1(text: &mut Vec<u8>, value: &Bound<'_, PyAny>, what: &str) -> PyResult<()> {
    let string = value.cast::<PyString>().map_err(|_| {
        PyTypeError::new_err(format!("{what} must be a str, got {}", type_name(value)))
    })?;
    let utf8 = string.to_str()?;
    if utf8.is_ascii() {
        text.extend_from_slice(utf8.as_bytes());
        return Ok(());
    }
    for character in utf8.chars() {
        let byte = u8::try_from(character).map_err(|_| {
            PyValueError::new_err(format!("{what} must be Latin-1, found {character:?}"))
        })?;
        text.push(byte);
    }
    Ok(())
}

/// What an application is given as `start_response`.
#[pyclass(module = "granian_uring._native")]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct StartResponse {
    exchange: Arc<Exchange>,
    /// Until it is given out.
    head: Option<Head>,
    started: bool,
    given_out: bool,
    /// The answer is complete.
    ended: bool,
    to_head: bool,
    bodiless: bool,
    declared: Option<u64>,
    sent: u64,
}

#[pymethods]
impl StartResponse {
    #[pyo3(signature = (status, headers, exc_info=None, /))]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        status: &Bound<'py, PyAny>,
        headers: &Bound<'py, PyAny>,
        exc_info: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let mut this = slf.try_borrow_mut()?;
        if let Some(exc_info) = exc_info {
            if this.given_out {
                return Err(raised(exc_info)?);
            }
        } else if this.started {
            return Err(PyAssertionError::new_err(
                "start_response was called a second time without exc_info",
            ));
        }
        let head = Head::read(status, headers)?;
        this.started = true;
        this.bodiless = this.to_head || matches!(head.status, 204 | 304);
        this.declared = head.declared;
        this.head = Some(head);
        drop(this);
        slf.getattr(intern!(py, "write"))
    }

    /// The write callable.
    #[pyo3(signature = (data, /))]
    fn write(&mut self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let data = piece(data)?;
        if self.give(py, data)? == Sent::Full {
            let room = self.exchange.wait_for_room(py)?;
            room.map_err(|Gone| asgi_refusal(py, SendError::Gone))?;
        }
        Ok(())
    }
}

impl StartResponse {
    fn new(exchange: Arc<Exchange>, to_head: bool) -> Self {
        Self {
            exchange,
            head: None,
            started: false,
            given_out: false,
            ended: false,
            to_head,
            bodiless: false,
            declared: None,
            sent: 0,
        }
    }

    /// Give out a piece, with the head if it is the first. Beyond a declared length it is an error.
    fn give(&mut self, py: Python<'_>, data: &Bound<'_, PyBytes>) -> PyResult<Sent> {
        let length = data.as_bytes().len() as u64;
        if !self.started {
            return Err(PyAssertionError::new_err(
                "a body was given before start_response was called",
            ));
        }
        if length == 0 {
            return Ok(Sent::Room);
        }
        let fits = self.declared.map_or(u64::MAX, |declared| declared - self.sent);
        if self.ended || length > fits {
            if !self.ended && fits > 0 {
                let kept = &data.as_bytes()[..usize::try_from(fits)?];
                self.send(py, &PyBytes::new(py, kept), true)?;
            }
            let declared = self.declared.unwrap_or_default();
            return Err(PyRuntimeError::new_err(format!(
                "the response body is longer than its content-length of {declared}"
            )));
        }
        self.send(py, data, self.declared == Some(self.sent + length))
    }

    fn send(&mut self, py: Python<'_>, data: &Bound<'_, PyBytes>, last: bool) -> PyResult<Sent> {
        let head = self.head.take();
        self.given_out = true;
        let sent = self
            .exchange
            .send(py, head, data, last)
            .map_err(|Gone| asgi_refusal(py, SendError::Gone))?;
        self.sent += data.as_bytes().len() as u64;
        self.ended = last;
        Ok(sent)
    }

    /// The iterable is exhausted.
    fn end(&mut self, py: Python<'_>) -> PyResult<()> {
        if self.ended {
            return Ok(());
        }
        self.check_complete(self.sent)?;
        self.send(py, &PyBytes::new(py, b""), true).map(drop)
    }

    fn check_complete(&self, sent: u64) -> PyResult<()> {
        if !self.started {
            return Err(PyAssertionError::new_err(
                "the application returned without calling start_response",
            ));
        }
        match self.declared {
            Some(declared) if sent < declared && !self.bodiless => Err(PyRuntimeError::new_err(
                format!("the response body has {sent} bytes, its content-length is {declared}"),
            )),
            _ => Ok(()),
        }
    }

    /// The whole body is known: send all of it, or leave it to the caller to hand over.
    fn give_whole(
        &mut self,
        py: Python<'_>,
        data: &Bound<'_, PyBytes>,
    ) -> PyResult<Option<Message>> {
        let length = data.as_bytes().len() as u64;
        self.check_complete(length)?;
        if self.declared.is_some_and(|declared| length > declared) {
            // Cut at its length, and an error.
            self.give(py, data)?;
        }
        let Some(head) = self.head.take() else {
            self.give(py, data)?;
            return self.end(py).map(|()| None);
        };
        self.given_out = true;
        let message = self
            .exchange
            .send_whole(head, data)
            .map_err(|Gone| asgi_refusal(py, SendError::Gone))?;
        self.ended = true;
        Ok(message)
    }

    /// The whole body is a file. It is sent up to the declared length.
    fn give_file(&mut self, py: Python<'_>, range: FileRange) -> PyResult<Option<Message>> {
        let declared = self.declared.map_or(Ok(usize::MAX), usize::try_from)?;
        let range = range.part(0..declared);
        self.given_out = true;
        self.ended = true;
        let head = self.head.take();
        self.exchange.send_file(head, range).map_err(|Gone| asgi_refusal(py, SendError::Gone))
    }
}

/// The exception of `exc_info`, to be raised again.
fn raised(exc_info: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let (_, value, traceback) =
        exc_info.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
    let with_traceback = value.call_method1(intern!(value.py(), "with_traceback"), (traceback,))?;
    Ok(PyErr::from_value(with_traceback))
}

/// What is left of a request after its application was called: the iterable.
pub struct Answering {
    environ: Py<PyDict>,
    response: Py<StartResponse>,
    iterable: Py<PyAny>,
    iterator: Py<PyIterator>,
    /// The iterable has one element, so the first piece is the whole body.
    sole: bool,
}

/// How far an answer came.
pub enum Step {
    Done(Option<Message>),
    /// Only inline: go on when there is room.
    Wait(Answering),
}

/// Call the application and send what it returns. In a pool thread that is all; what it returns is
/// an answer that was not handed over yet.
pub fn serve(
    py: Python<'_>,
    gateway: &Gateway,
    request: &Request,
    exchange: &Arc<Exchange>,
) -> Option<Message> {
    match begin(py, gateway, request, exchange) {
        Step::Done(message) => message,
        Step::Wait(_) => unreachable!("a pool thread waits for room within its send"),
    }
}

/// Call the application and send what it returns, as far as there is room.
pub fn begin(
    py: Python<'_>,
    gateway: &Gateway,
    request: &Request,
    exchange: &Arc<Exchange>,
) -> Step {
    let to_head = request.head.method() == "HEAD";
    let made = gateway
        .environ(py, request, exchange)
        .and_then(|it| Ok((it, Bound::new(py, StartResponse::new(exchange.clone(), to_head))?)));
    let (environ, response) = match made {
        Ok(made) => made,
        Err(error) => {
            error.write_unraisable(py, None);
            exchange.give_up();
            return Step::Done(None);
        }
    };
    let called = gateway.application.bind(py).call1((&environ, &response));
    let environ = environ.unbind();
    match called.and_then(|iterable| known(&iterable, &response).map(|known| (iterable, known))) {
        Ok((_, Some(message))) => Step::Done(message),
        Ok((iterable, None)) => match iterable.try_iter() {
            Ok(iterator) => {
                let sole = matches!(iterable.len(), Ok(1));
                let (iterable, iterator) = (iterable.unbind(), iterator.unbind());
                let response = response.unbind();
                let answering = Answering { environ, response, iterable, iterator, sole };
                match answering.file(py, gateway) {
                    Some(range) => answering.send_file(py, gateway, range),
                    None => answering.go_on(py, gateway),
                }
            }
            Err(error) => {
                fail(py, gateway, &environ, &response, error);
                Step::Done(None)
            }
        },
        Err(error) => {
            fail(py, gateway, &environ, &response, error);
            Step::Done(None)
        }
    }
}

/// A list or tuple of little is the whole body: send it at once. `None`: it has to be iterated.
#[allow(clippy::option_option, reason = "the inner one is a message for the caller, if any")]
fn known(
    iterable: &Bound<'_, PyAny>,
    response: &Bound<'_, StartResponse>,
) -> PyResult<Option<Option<Message>>> {
    let py = iterable.py();
    let items: Vec<Bound<'_, PyAny>> = if let Ok(list) = iterable.cast_exact::<PyList>() {
        if list.len() == 1 {
            let item = list.get_item(0)?;
            return response.try_borrow_mut()?.give_whole(py, piece(&item)?).map(Some);
        }
        list.iter().collect()
    } else if let Ok(tuple) = iterable.cast_exact::<PyTuple>() {
        tuple.iter().collect()
    } else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    for item in &items {
        let item = piece(item)?.as_bytes();
        if bytes.len() + item.len() > JOINED_BYTES {
            return Ok(None);
        }
        bytes.extend_from_slice(item);
    }
    response.try_borrow_mut()?.give_whole(py, &PyBytes::new(py, &bytes)).map(Some)
}

impl Answering {
    /// Iterate until the end, an error, or until there is no room; close the iterable at the end.
    pub fn go_on(self, py: Python<'_>, gateway: &Gateway) -> Step {
        match self.iterate(py) {
            Ok(false) => return Step::Wait(self),
            Ok(true) => {}
            Err(error) => fail(py, gateway, &self.environ, self.response.bind(py), error),
        }
        self.close(py, gateway);
        Step::Done(None)
    }

    /// What the kernel can send of what was returned, PEP 3333 "Optional Platform-Specific File
    /// Handling": from the file's position to its end. Anything else is iterated, also where that
    /// will fail, and what looks empty (as the files of `/proc` do).
    fn file(&self, py: Python<'_>, gateway: &Gateway) -> Option<FileRange> {
        let wrapper = self.iterable.bind(py);
        if !wrapper.get_type().is(&gateway.file_wrapper) {
            return None;
        }
        let file = wrapper.call_method0(intern!(py, "plain_file")).ok()?;
        if file.is_none() || self.response.bind(py).try_borrow().ok()?.head.is_none() {
            return None;
        }
        files::part(&file, None, None).ok().filter(|range| range.length() > 0)
    }

    /// Send `range`, and close what was returned when that is over, or will not be.
    fn send_file(self, py: Python<'_>, gateway: &Gateway, range: FileRange) -> Step {
        let response = self.response.clone_ref(py);
        let checked = response.bind(py).try_borrow().map_err(PyErr::from).and_then(|response| {
            response.check_complete(range.length() as u64)?;
            Ok(response.exchange.clone())
        });
        let exchange = match checked {
            Ok(exchange) => exchange,
            Err(error) => {
                fail(py, gateway, &self.environ, response.bind(py), error);
                self.close(py, gateway);
                return Step::Done(None);
            }
        };
        let environ = self.environ.clone_ref(py);
        let range = range.with(Box::new(Closing { answering: Some(self), exchange }));
        let given = response.bind(py).try_borrow_mut().map_err(PyErr::from);
        match given.and_then(|mut response| response.give_file(py, range)) {
            Ok(message) => Step::Done(message),
            Err(error) => {
                fail(py, gateway, &environ, response.bind(py), error);
                Step::Done(None)
            }
        }
    }

    /// Close the iterable, which is called once whatever happened.
    pub fn close(self, py: Python<'_>, gateway: &Gateway) {
        let closed = match self.iterable.bind(py).getattr_opt(intern!(py, "close")) {
            Ok(Some(close)) => close.call0().map(drop),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = closed {
            fail(py, gateway, &self.environ, self.response.bind(py), error);
        }
    }

    /// True at the end, false when there is no room.
    fn iterate(&self, py: Python<'_>) -> PyResult<bool> {
        let response = self.response.bind(py);
        for item in self.iterator.bind(py).clone() {
            let item = item?;
            let data = piece(&item)?;
            let mut response = response.try_borrow_mut()?;
            if self.sole && response.declared.is_none() && !response.given_out {
                // PEP 3333, "Handling the Content-Length Header".
                if let Some(message) = response.give_whole(py, data)? {
                    response.exchange.hand_over(message);
                }
            } else if response.give(py, data)? == Sent::Full {
                return Ok(false);
            }
        }
        response.try_borrow_mut()?.end(py)?;
        Ok(true)
    }
}

/// Goes with a file that the kernel reads: its end is the time to close what was returned.
struct Closing {
    /// `None` only within `drop`.
    answering: Option<Answering>,
    exchange: Arc<Exchange>,
}

impl Drop for Closing {
    /// On the ring's thread, where Python cannot be called.
    fn drop(&mut self) {
        if let Some(answering) = self.answering.take() {
            self.exchange.close_later(answering);
        }
    }
}

/// The application raised, or broke the contract: log it, and answer in its place if that can be.
fn fail(
    py: Python<'_>,
    gateway: &Gateway,
    environ: &Py<PyDict>,
    response: &Bound<'_, StartResponse>,
    error: PyErr,
) {
    let consequence = match response.try_borrow_mut() {
        Ok(response) if response.ended => None,
        Ok(mut response) => {
            response.ended = true;
            response.exchange.give_up();
            Some(if response.given_out { "aborted" } else { "refused" })
        }
        // Another thread of the application writes at this moment, and will find no one.
        Err(_) => Some("aborted"),
    };
    if is_wish(py, &error) {
        if let Err(error) = gateway.leave.call1(py, (error,)) {
            error.write_unraisable(py, None);
        }
    } else {
        gateway.report(py, environ, error, consequence);
    }
}

fn piece<'a, 'py>(value: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyBytes>> {
    value.cast::<PyBytes>().map_err(|_| {
        PyTypeError::new_err(format!("a response body must be bytes, got {}", type_name(value)))
    })
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    let name = value.get_type().name();
    name.map_or_else(|_| "an object".to_owned(), |name| name.to_string())
}
