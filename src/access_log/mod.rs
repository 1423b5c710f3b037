//! The access log: a line for each request that is over, however it ended.
//!
//! The ring's thread copies what is known of a request into a [`Record`] whose memory is used again
//! and again, and hands the records of a turn over ([`AccessLog`]). Everything else happens on
//! another thread: it takes what waits, formats it ([`Lines`]) and writes it in one piece
//! ([`AccessLog::to_file`]), or the embedder asks for the lines and does with them what it likes
//! ([`AccessLog::new`]). A destination that takes nothing costs lines, which are counted, and never
//! the ring's time.
//!
//! | file | what |
//! |---|---|
//! | `queue` | the way from the ring's thread to the other one, and its bounds |
//! | `format` | a %-format or JSON, compiled once |
//! | `atoms` | what there is to know about a request, by name |
//! | `escape` | bytes of a client as text that is one line |
//! | `clock` | points in time as a person or a program reads them |
//! | `writer` | the thread that writes to a file descriptor |
//!
//! Not here: when a request is over, which is decided in `src/server/trace.rs`; files by name and
//! their rotation, which are the business of whoever reads our output.

mod atoms;
mod clock;
mod escape;
mod format;
mod queue;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::time::Instant;

use crate::http1::RequestHead;
use crate::listener::Address;
use crate::proxy::{Forwarded, TlsInfo};

pub use atoms::{ATOMS, AtomRow};
pub use format::{Format, FormatError};
pub use queue::{AccessLog, Lines};

/// The two ends of a connection, which its records share.
#[derive(Debug)]
pub struct Endpoints {
    /// Who asks.
    pub peer: Address,
    /// Our end.
    pub local: Address,
    /// The number of the connection in this process, from 1.
    pub connection: u64,
    /// The TLS that a proxy in front of us has ended, as it tells.
    pub tls: Option<Arc<TlsInfo>>,
}

/// A request that is over.
#[derive(Debug)]
pub struct Record {
    /// Whose it was; `None` in a record that is not used.
    pub endpoints: Option<Arc<Endpoints>>,
    /// What a trusted proxy told of the request in its headers.
    pub forwarded: Option<Box<Forwarded>>,
    /// The request's head; `None` when it was refused before it was understood.
    pub head: Option<RequestHead>,
    /// The number of the request on its connection, from 1.
    pub number: u32,
    /// The number of the record in this process, from 1.
    pub serial: u64,
    /// When the head was there.
    pub begun: Instant,
    /// When the first byte of the answer was given to the kernel, if that is asked for.
    pub first_byte: Option<Instant>,
    /// When the last byte of the answer was taken by the kernel, or the connection was over.
    pub ended: Instant,
    /// The status of the answer; 0 when none was begun.
    pub status: u16,
    /// The head of the answer as it was sent, if that is asked for.
    pub response: Vec<u8>,
    /// Bytes of the answer's body that were given out, without any transfer coding.
    pub response_body: u64,
    /// Bytes of the request's body that were read for the application.
    pub request_body: u64,
    /// The kernel took all of the answer.
    pub complete: bool,
}

/// Memory that a record may keep from one use to the next; a larger head is freed.
const KEPT_BYTES: usize = 4 * 1024;

impl Record {
    fn new(now: Instant) -> Self {
        Self {
            endpoints: None,
            forwarded: None,
            head: None,
            number: 0,
            serial: 0,
            begun: now,
            first_byte: None,
            ended: now,
            status: 0,
            response: Vec::new(),
            response_body: 0,
            request_body: 0,
            complete: false,
        }
    }

    /// Make it the record of a new request.
    fn reset(&mut self, now: Instant) {
        self.begun = now;
        self.forwarded = None;
        self.first_byte = None;
        self.status = 0;
        self.response.clear();
        self.response_body = 0;
        self.request_body = 0;
        self.complete = false;
    }

    /// What it occupies, in bytes, about.
    fn size(&self) -> usize {
        let head = self.head.as_ref().map_or(0, RequestHead::memory);
        size_of::<Self>() + head + self.response.capacity()
    }
}
