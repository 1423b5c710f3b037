//! What the access log is told about one connection: one record for each request, when it is over.
//!
//! A request is over when the kernel has taken the last byte of its answer, or when the connection
//! can send nothing more. Answers of ours in the place of the application's count, and so do
//! requests that were refused before they were understood.

use std::sync::Arc;
use std::time::Instant;

use crate::access_log::{AccessLog, Endpoints, Record};
use crate::http1::RequestHead;
use crate::listener::Address;
use crate::proxy::{Forwarded, TlsInfo};

/// The records of a connection whose requests are not over.
#[derive(Default)]
#[allow(clippy::vec_box, reason = "records are moved often, and a pointer is cheaper to move")]
pub(super) struct Trace {
    /// Made with the first request: most of what connects asks something, but not all.
    endpoints: Option<Arc<Endpoints>>,
    requests: u32,
    /// The request that is being answered.
    current: Option<Box<Record>>,
    /// Requests whose answers are given out and not sent yet.
    unsent: Vec<Box<Record>>,
    /// How many of those are in the send under way.
    sending: usize,
}

impl Trace {
    /// A request is there.
    #[inline]
    pub(super) fn begin(
        &mut self,
        (peer, local, tls): (&Address, &Address, Option<&Arc<TlsInfo>>),
        head: Option<&RequestHead>,
        forwarded: Option<&Forwarded>,
        now: Instant,
        log: &mut AccessLog,
    ) {
        let endpoints = self.endpoints.get_or_insert_with(|| {
            let connection = log.connection();
            let (peer, local) = (peer.clone(), local.clone());
            Arc::new(Endpoints { peer, local, connection, tls: tls.cloned() })
        });
        let mut record = log.record(now);
        self.requests += 1;
        record.number = self.requests;
        record.endpoints = Some(Arc::clone(endpoints));
        if let Some(forwarded) = forwarded {
            record.forwarded = Some(Box::new(forwarded.clone()));
        }
        match (&mut record.head, head) {
            (Some(old), Some(new)) if log.wants().headers => old.clone_from(new),
            (Some(old), Some(new)) => old.clone_line_from(new),
            (old, new) => *old = new.cloned(),
        }
        self.current = Some(record);
    }

    /// Whether there is a request that is not answered.
    pub(super) fn is_begun(&self) -> bool {
        self.current.is_some()
    }

    /// Bytes of the request's body were read.
    pub(super) fn read(&mut self, bytes: usize) {
        if let Some(record) = &mut self.current {
            record.request_body += bytes as u64;
        }
    }

    /// The head of the answer was given out; `written` begins with it.
    #[inline]
    pub(super) fn answer(&mut self, status: u16, written: &[u8], log: &AccessLog) {
        let Some(record) = &mut self.current else { return };
        record.status = status;
        if log.wants().response {
            let end = written.windows(4).position(|four| four == b"\r\n\r\n");
            record.response.extend_from_slice(&written[..end.unwrap_or(written.len())]);
        }
    }

    /// A whole answer of ours was given out.
    pub(super) fn refuse(&mut self, status: u16, written: &[u8], log: &AccessLog) {
        self.answer(status, written, log);
        let head = written.windows(4).position(|four| four == b"\r\n\r\n");
        self.give_out(head.map_or(0, |end| written.len() - end - 4));
        self.answered();
    }

    /// Bytes of the answer's body were given out.
    pub(super) fn give_out(&mut self, bytes: usize) {
        if let Some(record) = &mut self.current {
            record.response_body += bytes as u64;
        }
    }

    /// All of the answer was given out.
    pub(super) fn answered(&mut self) {
        self.unsent.extend(self.current.take());
    }

    /// All of it was sent already: there is nothing that the kernel still has to take.
    pub(super) fn answered_and_sent(&mut self, now: Instant, log: &mut AccessLog) {
        self.answered();
        self.sending = self.unsent.len();
        self.sent(now, log);
    }

    /// What was given out so far is being sent. `now` is asked for when a record wants it.
    pub(super) fn send(&mut self, now: impl FnOnce() -> Instant, log: &AccessLog) {
        self.sending = self.unsent.len();
        if log.wants().first_byte {
            let now = now();
            let begun = self.current.iter_mut().filter(|record| record.status != 0);
            for record in self.unsent.iter_mut().chain(begun) {
                record.first_byte.get_or_insert(now);
            }
        }
    }

    /// The send under way has ended: the kernel took everything.
    #[inline]
    pub(super) fn sent(&mut self, now: Instant, log: &mut AccessLog) {
        let mut complete = |mut record: Box<Record>| {
            record.ended = now;
            record.complete = true;
            log.push(record);
        };
        match (self.sending, self.unsent.len()) {
            (0, _) => return,
            // Without pipelining it is always this one, and there is nothing to move up.
            (1, 1) => self.unsent.pop().map_or((), &mut complete),
            (sent, _) => self.unsent.drain(..sent).for_each(complete),
        }
        self.sending = 0;
    }

    /// Nothing more can be sent.
    pub(super) fn lose(&mut self, now: Instant, log: &mut AccessLog) {
        for mut record in self.unsent.drain(..).chain(self.current.take()) {
            record.ended = now;
            log.push(record);
        }
        self.sending = 0;
    }
}
