//! One WSGI request under way: how the thread that runs the application reaches the ring, and hears
//! from it.
//!
//! From a pool thread that is a message and, where the thread has to wait, a condition variable;
//! it waits without the GIL. On the ring's own thread the server is asked directly, and a wait is
//! made of turns of the server.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use granian_uring::proactor::FileRange;
use granian_uring::server::{Body, Left, Progress, Reading, RequestId, SendError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::inline::Closings;
use super::pool::{Answer, Message, Piece, Pool};
use super::response::{Answering, Head};
use crate::errors::asgi_refusal;
use crate::exchange::{Data, SHARED_BODY_BYTES, SharedBytes};
use crate::selector;
use crate::worker::Worker;

/// Bytes of an answer that a thread may hand over before it waits for the ring to say that there is
/// room. The server holds as much again.
const WINDOW_BYTES: usize = 64 * 1024;
/// Bytes of a body that the ring reads ahead of the application.
pub const READ_AHEAD_BYTES: usize = 64 * 1024;

/// The way to the ring.
pub enum Link {
    Threads(Arc<Pool>),
    /// This is the ring's thread.
    Inline(Py<Worker>, Arc<Closings>),
}

/// A request that the application works on.
pub struct Exchange {
    id: RequestId,
    has_body: bool,
    link: Link,
    way: Mutex<Way>,
    news: Condvar,
}

#[derive(Default)]
struct Way {
    /// Bytes handed to the ring since it last said that there is room.
    pending: usize,
    /// The client is gone, or was refused.
    gone: bool,
    /// Of the body: read and not yet taken.
    body: Vec<u8>,
    body_ended: bool,
    /// The ring has been asked for more, and goes on until `body` is full.
    reading: bool,
}

/// The client is gone.
#[derive(Debug)]
pub struct Gone;

/// Whether the next piece can follow at once.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    Room,
    /// Only inline: go on when the server says [`granian_uring::server::Event::Writable`].
    Full,
}

impl Exchange {
    /// `body` is what came with the head; there is no more of it if `body_ended`.
    pub fn new(id: RequestId, link: Link, has_body: bool, body: Vec<u8>, body_ended: bool) -> Self {
        let way = Mutex::new(Way { body, body_ended, ..Way::default() });
        Self { id, has_body, link, way, news: Condvar::new() }
    }

    pub fn id(&self) -> RequestId {
        self.id
    }

    pub fn has_body(&self) -> bool {
        self.has_body
    }

    /// The next bytes of the body, at least one; none at its end. Waits without the GIL.
    pub fn read(self: &Arc<Self>, py: Python<'_>) -> Result<Vec<u8>, PyErr> {
        {
            let mut way = self.way();
            if way.body.is_empty() && !way.body_ended && !way.gone {
                match &self.link {
                    Link::Inline(worker, _) => {
                        drop(way);
                        return self.read_inline(py, worker.get());
                    }
                    Link::Threads(pool) => {
                        let ask = !std::mem::replace(&mut way.reading, true);
                        drop(way);
                        if ask {
                            pool.push(Message::Read(self.clone()));
                        }
                        py.detach(|| self.wait(|way| !way.body.is_empty() || way.body_ended));
                    }
                }
            }
        }
        let mut way = self.way();
        if way.gone && way.body.is_empty() && !way.body_ended {
            return Err(asgi_refusal(py, SendError::Gone));
        }
        let taken = std::mem::take(&mut way.body);
        if let Link::Threads(pool) = &self.link
            && !way.body_ended
            && !std::mem::replace(&mut way.reading, true)
        {
            drop(way);
            pool.push(Message::Read(self.clone()));
        }
        Ok(taken)
    }

    /// Send a piece of the answer, with its head if that was not given out yet. Waits without the
    /// GIL when the client is too far behind, except where it says [`Sent::Full`].
    pub fn send(
        self: &Arc<Self>,
        py: Python<'_>,
        head: Option<Head>,
        data: &Bound<'_, PyBytes>,
        last: bool,
    ) -> Result<Sent, Gone> {
        let pool = match &self.link {
            Link::Inline(worker, _) => {
                return self.send_inline(worker.get(), head.as_ref(), bytes_body(data), last);
            }
            Link::Threads(pool) => pool,
        };
        let length = data.as_bytes().len();
        let full = {
            let mut way = self.way();
            if way.gone {
                return Err(Gone);
            }
            way.pending += length;
            way.pending > WINDOW_BYTES && !last
        };
        let piece = Piece::new(pool, data);
        pool.push(Message::Answer(Answer { exchange: self.clone(), head, piece, last }));
        if full {
            py.detach(|| self.wait(|way| way.pending <= WINDOW_BYTES));
            if self.way().gone {
                return Err(Gone);
            }
        }
        Ok(Sent::Room)
    }

    /// A whole answer, to be handed over with the visit to the queue that looks for the next job;
    /// `None` inline, where it is sent at once.
    pub fn send_whole(
        self: &Arc<Self>,
        head: Head,
        data: &Bound<'_, PyBytes>,
    ) -> Result<Option<Message>, Gone> {
        match &self.link {
            Link::Inline(worker, _) => {
                self.send_inline(worker.get(), Some(&head), bytes_body(data), true).map(|_| None)
            }
            Link::Threads(pool) => {
                let (exchange, piece) = (self.clone(), Piece::new(pool, data));
                Ok(Some(Message::Answer(Answer { exchange, head: Some(head), piece, last: true })))
            }
        }
    }

    /// As [`Exchange::send_whole`], a file.
    pub fn send_file(
        self: &Arc<Self>,
        head: Option<Head>,
        range: FileRange,
    ) -> Result<Option<Message>, Gone> {
        match &self.link {
            Link::Inline(worker, _) => {
                self.send_inline(worker.get(), head.as_ref(), Body::File(range), true).map(|_| None)
            }
            Link::Threads(_) => {
                let (exchange, piece) = (self.clone(), Piece::File(range));
                Ok(Some(Message::Answer(Answer { exchange, head, piece, last: true })))
            }
        }
    }

    /// Have what the application returned closed, by who may call Python.
    pub fn close_later(&self, answering: Answering) {
        match &self.link {
            Link::Inline(_, closings) => closings.add(answering),
            Link::Threads(pool) => pool.close_later(answering),
        }
    }

    /// Hand over a message that [`Exchange::send_whole`] left to the caller.
    pub fn hand_over(&self, message: Message) {
        if let Link::Threads(pool) = &self.link {
            pool.push(message);
        }
    }

    /// Wait until there is room for more of the answer: only needed after [`Sent::Full`].
    pub fn wait_for_room(&self, py: Python<'_>) -> PyResult<Result<(), Gone>> {
        let Link::Inline(worker, _) = &self.link else { return Ok(Ok(())) };
        loop {
            match worker.get().with(|state| state.server.room(self.id))? {
                Ok(Progress::Ready) => return Ok(Ok(())),
                Ok(Progress::Wait) => selector::turn_within(py, worker.get())?,
                Err(_) => return Ok(Err(Gone)),
            }
        }
    }

    /// The application is done with a request that it has not answered in full.
    pub fn give_up(self: &Arc<Self>) {
        match &self.link {
            // The worker may be closed: then nothing is left to do.
            Link::Inline(worker, _) => {
                let _: PyResult<Left> = worker.get().finish(self.id);
            }
            Link::Threads(pool) => pool.push(Message::GiveUp(self.clone())),
        }
    }

    fn read_inline(&self, py: Python<'_>, worker: &Worker) -> PyResult<Vec<u8>> {
        loop {
            match worker.with(|state| state.server.read_body(self.id))? {
                Reading::Data { bytes, more } => {
                    self.way().body_ended = !more;
                    if !bytes.is_empty() || !more {
                        return Ok(bytes);
                    }
                }
                Reading::Wait => selector::turn_within(py, worker)?,
                Reading::Disconnected => return Err(asgi_refusal(py, SendError::Gone)),
            }
        }
    }

    fn send_inline(
        &self,
        worker: &Worker,
        head: Option<&Head>,
        body: Body<'_>,
        last: bool,
    ) -> Result<Sent, Gone> {
        let sent = worker.with(|state| {
            if let Some(head) = head {
                state.server.start_response(self.id, head.status(), head.fields())?;
            }
            let progress = state.server.send_body(self.id, body, !last)?;
            if last {
                state.server.finish(self.id);
            }
            Ok::<_, SendError>(progress)
        });
        match sent {
            Ok(Ok(Progress::Ready)) => Ok(Sent::Room),
            Ok(Ok(Progress::Wait)) => Ok(Sent::Full),
            // What the codec could refuse was checked before, or the worker is closed.
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    /// The ring: bytes of the body have come. True while it may read on.
    pub fn put_body(&self, bytes: Vec<u8>, ended: bool) -> bool {
        let mut way = self.way();
        if way.body.is_empty() {
            way.body = bytes;
        } else {
            way.body.extend_from_slice(&bytes);
        }
        way.body_ended = ended;
        way.reading = !ended && way.body.len() < READ_AHEAD_BYTES;
        self.news.notify_all();
        way.reading
    }

    /// The ring: what was handed over has been taken.
    pub fn make_room(&self) {
        self.way().pending = 0;
        self.news.notify_all();
    }

    /// The ring: the client is gone, or the ring is.
    pub fn lose(&self) {
        self.way().gone = true;
        self.news.notify_all();
    }

    fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wait, without the GIL, until `done` or the client is gone.
    fn wait(&self, done: impl Fn(&Way) -> bool) {
        let waits = |way: &mut Way| !way.gone && !done(way);
        drop(self.news.wait_while(self.way(), waits).unwrap_or_else(PoisonError::into_inner));
    }
}

fn bytes_body<'a>(data: &'a Bound<'_, PyBytes>) -> Body<'a> {
    let bytes = data.as_bytes();
    if bytes.len() < SHARED_BODY_BYTES {
        Body::Copied(bytes)
    } else {
        Body::Shared(Box::new(SharedBytes::new(Data::Bytes(data), bytes)))
    }
}
