//! A request under way, whatever its application speaks: what is read, how far the answer is, and
//! its end, which comes once.
//!
//! An interface extends [`Exchange`] by the methods that it gives to the application (`asgi`,
//! `rsgi`). The order of an answer's parts is the codec's business (`granian_uring::http1`): what
//! it refuses becomes an exception in its words.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use granian_uring::proactor::{FileRange, Payload};
use granian_uring::server::{Body, Left, Progress, Reading, RequestId, SendError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::awaitable::{Found, Pending, Wanted};
use crate::worker::Worker;

/// A body of at least this many bytes is sent from where it is instead of being copied. Below, a
/// copy is cheaper than a vector of its own (measured: they meet between 8 and 32 KiB).
pub const SHARED_BODY_BYTES: usize = 16 * 1024;

/// How far an answer has come, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    Fresh,
    Started,
    /// As `Started`, and the application has announced trailers.
    StartedWithTrailers,
    /// The WebSocket is open.
    Accepted,
    /// The body is over, and trailers are to come.
    Trailers,
    /// Begun by the application, and completed by a task of the server's own.
    HandedOver,
    Ended,
    /// Everybody has left.
    Finished,
}

impl Stage {
    const ALL: [Self; 8] = [
        Self::Fresh,
        Self::Started,
        Self::StartedWithTrailers,
        Self::Accepted,
        Self::Trailers,
        Self::HandedOver,
        Self::Ended,
        Self::Finished,
    ];
}

/// A request under way.
#[pyclass(frozen, subclass, module = "granian_uring._native")]
pub struct Exchange {
    worker: Py<Worker>,
    id: RequestId,
    stage: AtomicU8,
    /// How many work on the answer: the application, and who completes it in its place.
    parties: AtomicU8,
    /// The application was told that its client is gone: it owes no answer any more.
    told_gone: AtomicBool,
    /// What the interface raises when an answer is not taken.
    refusal: Refusal,
}

/// The exception for an answer that was not taken.
pub type Refusal = fn(Python<'_>, SendError) -> PyErr;

impl Exchange {
    pub fn new(worker: Py<Worker>, id: RequestId, refusal: Refusal) -> Self {
        Self {
            worker,
            id,
            stage: AtomicU8::new(Stage::Fresh as u8),
            parties: AtomicU8::new(1),
            told_gone: AtomicBool::new(false),
            refusal,
        }
    }

    pub fn worker(&self) -> &Worker {
        self.worker.get()
    }

    pub fn id(&self) -> RequestId {
        self.id
    }

    pub fn stage(&self) -> Stage {
        Stage::ALL[usize::from(self.stage.load(Ordering::Relaxed))]
    }

    pub fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// Somebody else completes the answer from here on, and leaves the request too.
    pub fn hand_over(&self) {
        self.set_stage(Stage::HandedOver);
        self.parties.fetch_add(1, Ordering::Relaxed);
    }

    /// Read on in the body. Who is told that the peer is gone owes no answer.
    pub fn read(&self) -> PyResult<Reading> {
        let reading = self.worker().with(|state| state.server.read_body(self.id))?;
        if reading == Reading::Disconnected {
            self.told_gone();
        }
        Ok(reading)
    }

    /// The application was told that its client is gone.
    pub fn told_gone(&self) {
        self.told_gone.store(true, Ordering::Relaxed);
    }

    pub fn was_told_gone(&self) -> bool {
        self.told_gone.load(Ordering::Relaxed)
    }

    /// Whether the peer is gone, or the request over.
    pub fn is_gone(&self) -> PyResult<bool> {
        let gone = self.worker().with(|state| state.server.watch_peer(self.id))?;
        if gone {
            self.told_gone();
        }
        Ok(gone)
    }

    /// Whether there is room for more of the answer.
    pub fn look_for_room(&self, py: Python<'_>) -> PyResult<Found> {
        match self.worker().with(|state| state.server.room(self.id))? {
            Ok(Progress::Ready) => Ok(Found::Nothing),
            Ok(Progress::Wait) => self.wait_for(py, Wanted::Room),
            Err(error) => Err(self.refused(py, error)),
        }
    }

    pub fn wait_for(&self, py: Python<'_>, wanted: Wanted) -> PyResult<Found> {
        self.worker().wait_for(py, self.id, wanted).map(Found::Wait)
    }

    pub fn forget(&self, wanted: Wanted, future: &Py<PyAny>) {
        self.worker().forget(self.id, wanted, future);
    }

    /// The interface's exception for what was not taken.
    pub fn refused(&self, py: Python<'_>, error: SendError) -> PyErr {
        (self.refusal)(py, error)
    }

    /// Begin the answer.
    pub fn start<'h>(
        &self,
        status: u16,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    ) -> PyResult<Result<(), SendError>> {
        let started =
            self.worker().with(|state| state.server.start_response(self.id, status, headers))?;
        if started.is_ok() {
            self.set_stage(Stage::Started);
        }
        Ok(started)
    }

    /// Take back an answer of which nothing was sent.
    pub fn discard(&self) -> PyResult<()> {
        self.set_stage(Stage::Fresh);
        self.worker().with(|state| state.server.discard_response(self.id))
    }

    /// Send a piece of the body, the last one unless there is `more`.
    pub fn send(&self, data: Data<'_, '_>, more: bool) -> PyResult<Result<Progress, SendError>> {
        let bytes = data.as_bytes()?;
        let body = match data.payload(bytes) {
            Some(payload) => Body::Shared(payload),
            None => Body::Copied(bytes),
        };
        self.give(body, more)
    }

    /// Send a part of a file as the whole body.
    pub fn send_file(&self, range: FileRange) -> PyResult<Result<(), SendError>> {
        Ok(self.give(Body::File(range), false)?.map(drop))
    }

    /// Send a piece of the body, the last one unless there is `more`; trailers may follow it.
    pub fn give(&self, body: Body<'_>, more: bool) -> PyResult<Result<Progress, SendError>> {
        let trailers = self.stage() == Stage::StartedWithTrailers;
        let unfinished = more || trailers;
        let sent = self.worker().with(|state| state.server.send_body(self.id, body, unfinished))?;
        if sent.is_ok() {
            if !unfinished {
                self.set_stage(Stage::Ended);
            } else if !more {
                self.set_stage(Stage::Trailers);
            }
        }
        Ok(sent)
    }

    /// The trailers of an answer whose body is over.
    pub fn send_trailers<'h>(
        &self,
        fields: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    ) -> PyResult<Result<(), SendError>> {
        let sent = self.worker().with(|state| state.server.send_trailers(self.id, fields))?;
        if sent.is_ok() {
            self.set_stage(Stage::Ended);
        }
        Ok(sent)
    }

    /// Links that the answer will have, before it begins.
    pub fn send_early_hints<'h>(
        &self,
        links: impl Iterator<Item = &'h [u8]>,
    ) -> PyResult<Result<(), SendError>> {
        self.worker().with(|state| state.server.send_early_hints(self.id, links))
    }

    /// What a `send` returns to the application: done, or waiting for the peer.
    pub fn sent(
        slf: &Bound<'_, Self>,
        progress: Result<Progress, SendError>,
    ) -> PyResult<Py<Pending>> {
        let py = slf.py();
        match progress {
            Ok(Progress::Ready) => Ok(slf.get().worker().done(py)),
            Ok(Progress::Wait) => Py::new(py, Pending::new(slf.clone().unbind(), Wanted::Room)),
            Err(error) => Err(slf.get().refused(py, error)),
        }
    }

    /// Who worked on this request does so no longer. With the last of them it is over, answered or
    /// not; the result is `finish`'s.
    pub fn leave(&self) -> PyResult<Option<&'static str>> {
        let before = self.stage();
        if before == Stage::Finished || self.parties.fetch_sub(1, Ordering::Relaxed) > 1 {
            return Ok(None);
        }
        self.set_stage(Stage::Finished);
        let left = self.worker().finish(self.id)?;
        Ok(match left {
            Left::Answered if before == Stage::Ended => None,
            Left::Answered => Some("gone"),
            _ if self.was_told_gone() => Some("gone"),
            Left::Refused => Some("refused"),
            Left::Aborted if before == Stage::Accepted => Some("failed"),
            Left::Aborted => Some("aborted"),
        })
    }
}

#[pymethods]
impl Exchange {
    /// The task of this request has ended; if nobody called `finish`, its coroutine never ran to
    /// its end.
    fn task_ended(&self, _task: &Bound<'_, PyAny>) {
        if !matches!(self.stage(), Stage::HandedOver | Stage::Finished) {
            self.set_stage(Stage::Finished);
            self.worker().finish_unstarted(self.id);
        }
    }

    /// The application is done with this request, however that came. `None` when it was answered,
    /// or is about to be; else "gone" (its client left, or was refused, before that), "refused"
    /// (the client got a 500 in its place), "aborted" (the connection was reset in the middle of an
    /// answer) or "failed" (an open WebSocket was closed with code 1011).
    fn finish(&self) -> PyResult<Option<&'static str>> {
        self.leave()
    }

    /// The application has returned. As `finish`, but for interfaces in which that says more.
    fn complete(&self) -> PyResult<Option<&'static str>> {
        self.leave()
    }
}

impl Drop for Exchange {
    /// A task that is cancelled before its first step throws its coroutine away without running
    /// it, and nobody called `finish`.
    fn drop(&mut self) {
        if self.stage() != Stage::Finished {
            self.worker().finish_unstarted(self.id);
        }
    }
}

/// A piece of a body, as Python has it.
#[derive(Clone, Copy)]
pub enum Data<'a, 'py> {
    Bytes(&'a Bound<'py, PyBytes>),
    /// Sent as UTF-8.
    Text(&'a Bound<'py, PyString>),
    Empty,
}

impl<'a> Data<'a, '_> {
    pub fn as_bytes(self) -> PyResult<&'a [u8]> {
        Ok(match self {
            Self::Bytes(bytes) => bytes.as_bytes(),
            Self::Text(text) => text.to_str()?.as_bytes(),
            Self::Empty => b"",
        })
    }

    /// `bytes`, which are ours, to be sent from where they are, if that is cheaper than a copy.
    pub fn payload(self, bytes: &[u8]) -> Option<Box<dyn Payload>> {
        (bytes.len() >= SHARED_BODY_BYTES)
            .then(|| Box::new(SharedBytes::new(self, bytes)) as Box<dyn Payload>)
    }

    fn object(self) -> Option<Py<PyAny>> {
        match self {
            Self::Bytes(bytes) => Some(bytes.clone().into_any().unbind()),
            Self::Text(text) => Some(text.clone().into_any().unbind()),
            Self::Empty => None,
        }
    }
}

/// The bytes of a bytes object, or the UTF-8 of a str, that the kernel reads: both are immutable,
/// and kept until the send is over.
pub struct SharedBytes {
    start: *const u8,
    length: usize,
    /// Keeps the memory. Dropped where the GIL is held: see the head of `selector.rs`.
    _object: Option<Py<PyAny>>,
}

impl SharedBytes {
    /// `bytes` are those of `data`.
    pub fn new(data: Data<'_, '_>, bytes: &[u8]) -> Self {
        Self { start: bytes.as_ptr(), length: bytes.len(), _object: data.object() }
    }
}

#[allow(unsafe_code, reason = "the kernel reads Python's memory, without the GIL")]
// SAFETY: the memory of a bytes object, and the UTF-8 that a str keeps of itself, are neither moved
// nor changed while there is a reference to the object, and `_object` is one.
unsafe impl Payload for SharedBytes {
    fn as_slice(&self) -> &[u8] {
        // SAFETY: as above; start and length are those of the object.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}
