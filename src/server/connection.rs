//! One connection: every decision about its life is in this file.
//!
//! A connection reacts to news (bytes, a finished send, a timer, the application's answer) by
//! changing its state only. Once a turn [`Connection::settle`] looks at that state and arms what it
//! asks for: a send, a receive, a hang-up watch, a deadline, the close. So there is one place where
//! operations start, and nothing has to be remembered between news and operation.
//!
//! Where the listener has PROXY protocol, a connection is [`Stage::Announced`] by a header first;
//! one that may not be, or is not, is reset without an answer.
//!
//! ```text
//! Announced ──header──► Open
//! Open ──answered, and no further request──► Lingering ──peer's end, or time──► Dead ──► closed
//!   └───────────peer gone, answer aborted, time─────────────────────────────────► Dead
//! ```

mod websocket;

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::heads::SpareHeads;
use super::trace::Trace;
use super::{
    Body, Event, Left, Progress, Reading, Request, RequestId, SendError, Shared, connection_scheme,
};
use crate::config::{Config, Timeouts};
use crate::http1::{self, ProtocolError, RequestHead, ResponseError, Status};
use crate::listener::Address;
use crate::proactor::{Accepted, FileRange, Lease, Operation, Outgoing, Proactor, StreamId};
use crate::proxy::{Forwarded, Refusal, TlsInfo, protocol};
use websocket::Link;

/// Output that may wait for the peer before the application has to. Python's own transports have
/// the same bound.
const HIGH_WATER_BYTES: usize = 64 * 1024;
/// Unread bytes of a request that are read and dropped after its answer, to keep the connection.
/// Beyond that a new connection is cheaper for both sides.
const DISCARD_BYTES: u64 = 256 * 1024;
/// Bytes read and dropped while the peer is expected to close.
const LINGER_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a body handed to the application at once.
const READ_BYTES: usize = 64 * 1024;
/// From the accept to the end of a PROXY header, which a proxy sends at once: time for a segment
/// or two that was lost. Part of the time for a head, and never longer.
const PROXY_HEADER: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A PROXY header is awaited.
    Announced,
    /// Requests are read and answered.
    Open,
    /// The last answer is given out; after it our side ends, and what the peer still sends is
    /// dropped until it ends its own.
    Lingering,
    /// Nothing more is read or sent; the stream is closed when no operation is under way.
    Dead,
    /// The close is under way.
    Closing,
}

/// What a connection waits for, which decides how long it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// For the application, or for nothing.
    Ours,
    /// For a PROXY header.
    ProxyHeader,
    /// For the first request.
    FirstRequest,
    /// For the rest of a head.
    Head,
    /// For the next request.
    NextRequest,
    /// For the body: the application reads it, or it is dropped.
    Body,
    /// For the peer to take our output.
    Write,
    /// For the peer to close.
    Linger,
    /// The peer ended its side, and the application waits for more of it.
    HalfClose,
    /// For the time of the next ping.
    NextPing,
    /// For a pong.
    Pong,
    /// For the peer's close frame.
    CloseFrame,
}

/// The request under way, as the application sees it.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Exchange {
    number: u32,
    begun: Instant,
    /// Until the application takes it.
    head: Option<Box<RequestHead>>,
    /// What a trusted peer told of it, likewise.
    forwarded: Option<Box<Forwarded>>,
    /// The application was told the end of the body.
    body_told: bool,
    /// The application waits in a read.
    reading: bool,
    /// The application waits for the peer's going, whatever there is to read.
    watched: bool,
    /// The application waits for room in the output.
    writing: bool,
    /// The peer has been silent after its end for so long that it counts as gone.
    presumed_gone: bool,
}

impl Exchange {
    /// The application waits for the peer: for more of the body, or for its going.
    fn awaits_news(&self) -> bool {
        self.reading || self.watched
    }

    /// The application waits for the peer's going, and takes nothing of what comes.
    fn awaits_end_alone(&self) -> bool {
        if self.reading { self.body_told } else { self.watched }
    }
}

/// Bytes received and not yet consumed. Empty, it holds no memory.
#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    start: usize,
}

impl Input {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Have room for `length` bytes in all, so that they are not moved each time some come.
    fn expect(&mut self, length: usize) {
        self.bytes.reserve_exact(length.saturating_sub(self.bytes.len()));
    }

    /// Keep only the last `length` bytes.
    fn keep(&mut self, length: usize) {
        self.start = self.bytes.len() - length;
        if length == 0 {
            *self = Self::default();
        }
    }
}

/// A connection, from its accept to its close.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Connection {
    stream: StreamId,
    number: u32,
    peer: Address,
    local: Address,
    tls: Option<Arc<TlsInfo>>,
    http: http1::Connection,
    stage: Stage,
    input: Input,
    /// The peer has ended its side.
    input_ended: bool,
    output: Outgoing,
    exchange: Option<Exchange>,
    /// From the request that asks for it.
    websocket: Option<Box<Link>>,
    /// With an access log.
    trace: Option<Box<Trace>>,
    /// A request has been answered, or is being answered.
    served: bool,
    /// Our FIN is sent.
    ended: bool,
    /// Bytes dropped while lingering, or behind an answer.
    dropped: usize,
    /// Requests begun in this turn.
    begun: usize,
    /// Further requests may be in the input, and wait for room in the output or for the next turn.
    held: bool,
    /// Of the request's body: bytes that came while they were waited for, and how long that took
    /// until `waiting_since`.
    body_bytes: u64,
    body_waited: Duration,

    receiving: bool,
    /// The last receive has left bytes, or the end, with the kernel: the next one need not wait for
    /// the peer.
    more_waits: bool,
    sending: bool,
    watching: bool,
    cancelled: bool,
    /// Is in the list of touched connections.
    touched: bool,

    waiting: Waiting,
    waiting_since: Instant,
    /// Bytes of the send under way that were taken when the deadline was last looked at.
    taken: usize,
    /// When the earliest entry on the timer wheel comes up.
    scheduled: Option<Instant>,
}

impl Connection {
    pub(super) fn new<P>(accepted: Accepted, shared: &mut Shared<P>) -> Self {
        Self {
            stream: accepted.stream,
            number: shared.number(),
            peer: accepted.peer,
            local: accepted.local,
            tls: None,
            http: http1::Connection::new(shared.config.limits),
            stage: Stage::Open,
            input: Input::default(),
            input_ended: false,
            output: Outgoing::default(),
            exchange: None,
            websocket: None,
            trace: shared.access_log.as_ref().map(|_| Box::default()),
            served: false,
            ended: false,
            dropped: 0,
            begun: 0,
            held: false,
            body_bytes: 0,
            body_waited: Duration::ZERO,
            receiving: false,
            more_waits: false,
            sending: false,
            watching: false,
            cancelled: false,
            touched: false,
            waiting: Waiting::Ours,
            waiting_since: shared.now,
            taken: 0,
            scheduled: None,
        }
    }

    /// Let a PROXY header say whose connection this is, if it comes from a trusted peer.
    pub(super) fn expect_proxy_header<P: Proactor>(&mut self, shared: &mut Shared<P>) {
        self.stage = Stage::Announced;
        if !shared.config.proxy.trusted.trusts(&self.peer, &self.local) {
            self.refuse_connection(Refusal::Untrusted, shared);
        }
    }

    /// Have [`Connection::settle`] called before the next wait.
    pub(super) fn touch<P>(&mut self, shared: &mut Shared<P>) {
        if !mem::replace(&mut self.touched, true) {
            shared.touched.push(self.stream);
        }
    }

    pub(super) fn received<P: Proactor>(
        &mut self,
        result: io::Result<Lease>,
        shared: &mut Shared<P>,
    ) {
        self.receiving = false;
        let lease = match result {
            Ok(lease) => lease,
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => return,
            Err(_) => return self.die(shared),
        };
        if lease.length() == 0 {
            return self.input_ended(shared);
        }
        self.more_waits = lease.more_waits();
        if matches!(self.waiting, Waiting::Body) {
            self.body_bytes += lease.length() as u64;
            self.count_body_wait(shared.now);
            self.waiting_since = shared.now;
        }
        match self.stage {
            Stage::Announced => {
                self.input.push(shared.proactor.bytes(&lease));
                self.read_proxy_header(shared);
            }
            Stage::Open if self.awaits_request() && self.input.is_empty() && !self.is_full() => {
                // The way of nearly every request: parsed where the kernel put it.
                let mut rest = shared.proactor.bytes(&lease);
                let result = next_request(&mut self.http, &mut rest, &mut shared.spare_heads);
                if !rest.is_empty() {
                    self.input.push(rest);
                }
                self.begin(result, shared);
            }
            Stage::Open if self.websocket.is_some() => self.receive_frames(&lease, shared),
            Stage::Open => {
                self.input.push(shared.proactor.bytes(&lease));
                let most = most_ahead(&shared.config);
                if self.exchange_waits_for_body() && self.reads_ahead(most) {
                    let remaining = self.http.body_remaining().unwrap_or(u64::MAX);
                    self.input.expect(usize::try_from(remaining).unwrap_or(most).min(most));
                } else {
                    self.proceed(shared);
                }
            }
            Stage::Lingering => {
                self.dropped += lease.length();
                if self.dropped > LINGER_BYTES {
                    self.die(shared);
                }
            }
            Stage::Dead | Stage::Closing => {}
        }
    }

    pub(super) fn sent<P: Proactor>(&mut self, result: &io::Result<()>, shared: &mut Shared<P>) {
        self.sending = false;
        if result.is_err() {
            // The peer is gone, or a file could not be read: the answer is cut.
            return self.abort(shared);
        }
        if let (Some(trace), Some(log)) = (&mut self.trace, &mut shared.access_log) {
            trace.sent(shared.now, log);
        }
        // Another send may follow at once, and has its own time.
        self.waiting_since = shared.now;
        if !self.is_full() {
            self.wake_writer(shared);
            if self.websocket.is_some() {
                self.read_frames(shared);
            }
            self.resume(shared);
        }
    }

    /// Begin the next of the pipelined requests that were held back.
    pub(super) fn resume<P: Proactor>(&mut self, shared: &mut Shared<P>) {
        if self.held && self.stage == Stage::Open {
            self.next_request(shared);
        }
    }

    pub(super) fn hung_up<P: Proactor>(&mut self, result: &io::Result<()>, shared: &mut Shared<P>) {
        self.watching = false;
        // While lingering both sides may have ended with bytes of the peer unread, and a close
        // would then be a reset, which destroys our answer: the receive will tell the end.
        if result.is_ok() && self.stage == Stage::Open {
            self.die(shared);
        }
    }

    /// Arm what the state asks for. Called once a turn for a connection that was touched.
    pub(super) fn settle<P: Proactor>(&mut self, shared: &mut Shared<P>) {
        self.touched = false;
        self.begun = 0;
        if shared.draining_since.is_some() && self.stage == Stage::Open {
            self.drain_websocket(shared);
        }
        match self.stage {
            Stage::Announced | Stage::Open | Stage::Lingering => self.arm(shared),
            Stage::Dead => self.wind_up(shared),
            Stage::Closing => return,
        }
        self.set_deadline(shared);
    }

    /// A timer entry of this connection came up: its deadline may have moved meanwhile.
    pub(super) fn timer_came_up<P: Proactor>(&mut self, shared: &mut Shared<P>) {
        self.scheduled = None;
        self.touch(shared);
        // What this turn has brought so far may have ended the wait.
        self.update_waiting(shared.now);
        if self.due(shared).is_none_or(|due| due > shared.now) {
            return;
        }
        if self.request_due(shared).is_some_and(|due| due <= shared.now) {
            return self.time_out(shared);
        }
        match self.waiting {
            Waiting::Ours => {}
            Waiting::ProxyHeader => self.refuse_connection(Refusal::Late, shared),
            Waiting::Head | Waiting::Body if self.can_refuse() => {
                self.refuse(408, "the request did not come in time", shared);
            }
            Waiting::FirstRequest | Waiting::NextRequest => self.close_idle(shared),
            Waiting::Write => {
                let taken = shared.proactor.sent_so_far(self.stream);
                if taken == self.taken {
                    return self.abort(shared);
                }
                self.taken = taken;
                self.waiting_since = shared.now;
            }
            Waiting::HalfClose => {
                if let Some(exchange) = &mut self.exchange {
                    exchange.presumed_gone = true;
                }
                self.wake_reader(shared);
            }
            Waiting::NextPing => self.send_ping(shared),
            Waiting::Pong => self.miss_pong(shared),
            Waiting::CloseFrame => self.stage = Stage::Lingering,
            Waiting::Head | Waiting::Body | Waiting::Linger => self.die(shared),
        }
    }

    pub(super) fn take_request(&mut self) -> Option<Request> {
        let exchange = self.exchange.as_mut()?;
        let head = exchange.head.take()?;
        let forwarded = exchange.forwarded.take();
        let subprotocols = self.websocket.as_ref().map(|link| link.subprotocols().to_vec());
        let (peer, local) = (self.peer.clone(), self.local.clone());
        Some(Request { head, peer, local, subprotocols, tls: self.tls.clone(), forwarded })
    }

    pub(super) fn read_body<P: Proactor>(&mut self, shared: &mut Shared<P>) -> Reading {
        let ahead = self.reads_ahead(most_ahead(&shared.config));
        let Some(exchange) = &mut self.exchange else { return Reading::Disconnected };
        if !exchange.body_told {
            if ahead {
                exchange.reading = true;
                return Reading::Wait;
            }
            match read_pieces(&mut self.http, &mut self.input) {
                Ok((bytes, ended)) if ended || !bytes.is_empty() => {
                    exchange.body_told = ended;
                    if let Some(trace) = &mut self.trace {
                        trace.read(bytes.len());
                    }
                    return Reading::Data { bytes, more: !ended };
                }
                Ok(_) => {}
                Err(error) => {
                    self.refuse_message(error, shared);
                    return Reading::Disconnected;
                }
            }
            if self.input_ended {
                // Not at once: answers to requests before this one may still be on their way.
                self.refuse_message(ProtocolError::Truncated, shared);
                return Reading::Disconnected;
            }
            shared.open_output(&mut self.output);
            self.output.append_with(|out| self.http.write_continue(out));
        }
        if exchange.presumed_gone {
            return Reading::Disconnected;
        }
        exchange.reading = true;
        Reading::Wait
    }

    pub(super) fn watch_peer(&mut self) -> bool {
        let Some(exchange) = &mut self.exchange else { return true };
        exchange.watched = !exchange.presumed_gone;
        exchange.presumed_gone
    }

    pub(super) fn discard_response(&mut self) {
        self.http.discard_response();
    }

    pub(super) fn start_response<'h, P>(
        &mut self,
        status: Status<'h>,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        shared: &mut Shared<P>,
    ) -> Result<(), SendError> {
        let automatic = shared.headers.at(shared.now);
        self.http.start_response(status, headers, &automatic)?;
        if self.websocket.is_some() {
            // A handshake that is answered like any request is none.
            self.websocket = None;
        }
        Ok(())
    }

    pub(super) fn send_body<P: Proactor>(
        &mut self,
        body: Body<'_>,
        more: bool,
        shared: &mut Shared<P>,
    ) -> Result<Progress, SendError> {
        self.before_output(shared);
        let body = match body {
            Body::WholeFile(file) => Body::File(self.select_range(file)),
            body => body,
        };
        let Self { http, output, trace, .. } = self;
        let length = body.length();
        let begins = http.response_pending();
        let frame = output.append_with(|out| {
            let start = out.len();
            let frame = http.send_body(length, !more, out)?;
            if let (Some(trace), Some(log)) = (trace, &shared.access_log) {
                if begins {
                    trace.answer(http.response_status(), &out[start..], log);
                }
                trace.give_out(frame.suffix.map_or(0, |_| length));
            }
            Ok::<_, ResponseError>(frame)
        })?;
        if let Some(suffix) = frame.suffix {
            match body {
                Body::Copied(bytes) => output.append(bytes),
                Body::Shared(payload) => output.append_shared(payload),
                Body::File(range) | Body::WholeFile(range) => output.append_file(range),
            }
            if !suffix.is_empty() {
                output.append(suffix);
            }
        }
        if !more {
            self.answered(shared);
        } else if self.is_full()
            && let Some(exchange) = &mut self.exchange
        {
            exchange.writing = true;
            return Ok(Progress::Wait);
        }
        Ok(Progress::Ready)
    }

    /// The part of `file` that the client asks for, if the answer leaves that open.
    fn select_range(&mut self, file: FileRange) -> FileRange {
        let part = self.http.select_range(file.length() as u64);
        let within = |position: u64| usize::try_from(position).unwrap_or(usize::MAX);
        file.part(within(part.start)..within(part.end))
    }

    pub(super) fn send_trailers<'h, P: Proactor>(
        &mut self,
        fields: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        shared: &mut Shared<P>,
    ) -> Result<(), SendError> {
        self.before_output(shared);
        let Self { http, output, trace, .. } = self;
        let begins = http.response_pending();
        output.append_with(|out| {
            let start = out.len();
            http.send_trailers(fields, out)?;
            if begins && let (Some(trace), Some(log)) = (trace, &shared.access_log) {
                trace.answer(http.response_status(), &out[start..], log);
            }
            Ok::<_, ResponseError>(())
        })?;
        self.answered(shared);
        Ok(())
    }

    pub(super) fn send_early_hints<'h, P>(
        &mut self,
        links: impl Iterator<Item = &'h [u8]>,
        shared: &mut Shared<P>,
    ) -> Result<(), SendError> {
        shared.open_output(&mut self.output);
        let Self { http, output, .. } = self;
        Ok(output.append_with(|out| http.write_early_hints(links, out))?)
    }

    /// A part of the answer is about to be given out.
    fn before_output<P>(&mut self, shared: &mut Shared<P>) {
        if self.http.response_pending() && !self.may_be_used_again(shared) {
            self.http.close_after_response();
        }
        shared.open_output(&mut self.output);
    }

    pub(super) fn room(&self) -> Progress {
        let waits = self.exchange.as_ref().is_some_and(|exchange| exchange.writing);
        if waits { Progress::Wait } else { Progress::Ready }
    }

    /// The application is done with the request under way, which it has not answered in full.
    pub(super) fn finish<P: Proactor>(&mut self, shared: &mut Shared<P>) -> Left {
        if let Some(left) = self.finish_websocket(shared) {
            left
        } else if self.can_refuse() {
            self.refuse(500, "Internal Server Error", shared);
            Left::Refused
        } else {
            self.abort(shared);
            Left::Aborted
        }
    }

    /// Whether this connection is one of those that draining closes when they have been quiet, and
    /// until when it stays usable.
    pub(super) fn idle_until<P>(&self, shared: &Shared<P>) -> Option<Instant> {
        let timeouts = &shared.config.timeouts;
        // Not what it waited for before this turn: a part of a head may have come.
        let quiet = match self.waits_for() {
            Waiting::FirstRequest => timeouts.drain_first,
            Waiting::NextRequest => timeouts.drain_idle,
            _ => return None,
        };
        let since = shared.draining_since?.max(self.waiting_since);
        (self.stage == Stage::Open).then_some(since + quiet)
    }

    /// Close a connection on which nothing is under way, with a FIN.
    pub(super) fn close_idle<P: Proactor>(&mut self, shared: &mut Shared<P>) {
        if !self.is_over() {
            shared.proactor.shutdown(self.stream);
            self.ended = true;
            self.die(shared);
        }
    }

    /// Reset the connection: what was sent of an answer must not look whole.
    pub(super) fn abort<P: Proactor>(&mut self, shared: &mut Shared<P>) {
        if !self.is_over() {
            shared.proactor.reset_on_close(self.stream);
            self.die(shared);
        }
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Whether `number` is the request under way here.
    pub(super) fn serves(&self, number: u32) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.number == number)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.exchange.is_some() || !self.output.is_empty() || self.sending
    }

    /// Bytes of unread input, and of output that was not given to the proactor.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.input.rest().len(), self.output.length())
    }

    /// Whether the peer has to take some output before there may be more.
    fn is_full(&self) -> bool {
        self.output.length() > HIGH_WATER_BYTES
    }

    /// Nothing more is read or sent.
    fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Dead | Stage::Closing)
    }

    /// Between requests, or within a head.
    fn awaits_request(&self) -> bool {
        self.exchange.is_none() && self.http.is_between_requests()
    }

    /// Whether an answer of our own is possible: nothing of another was given out.
    fn can_refuse(&self) -> bool {
        self.stage == Stage::Open && (!self.http.response_started() || self.http.response_pending())
    }

    /// Whether a part of an answer was given out, and not all of it has gone to the kernel.
    fn has_begun_answer(&self) -> bool {
        let http = &self.http;
        let incomplete =
            http.response_started() && !http.response_pending() && !http.response_ended();
        incomplete || self.sending || !self.output.is_empty()
    }

    /// Whether another request may follow the answer that is about to be given out.
    fn may_be_used_again<P>(&self, shared: &Shared<P>) -> bool {
        let unread = self.http.body_remaining().unwrap_or(0);
        shared.config.keep_alive
            && shared.draining_since.is_none()
            && unread <= DISCARD_BYTES + self.input.rest().len() as u64
            && !(self.input_ended && self.input.is_empty())
    }

    /// Look for the PROXY header; what is behind it is the client's.
    fn read_proxy_header<P: Proactor>(&mut self, shared: &mut Shared<P>) {
        match protocol::parse(self.input.rest()) {
            Ok(Some((header, length))) => {
                if let Some((client, server)) = header.ends {
                    (self.peer, self.local) = (client, server);
                }
                self.tls = header.tls.map(Arc::new);
                self.stage = Stage::Open;
                let rest = self.input.rest().len() - length;
                self.input.keep(rest);
                if rest > 0 {
                    self.next_request(shared);
                }
            }
            Ok(None) => {}
            Err(refusal) => self.refuse_connection(refusal, shared),
        }
    }

    /// End a connection that is not what its listener is for, without an answer.
    fn refuse_connection<P: Proactor>(&mut self, refusal: Refusal, shared: &mut Shared<P>) {
        if shared.config.report_refusals {
            shared.events.push_back(Event::Unproxied(self.peer.clone(), refusal));
        }
        self.abort(shared);
    }

    /// The result of looking for a request's head.
    fn begin<P: Proactor>(
        &mut self,
        result: Result<Option<Box<RequestHead>>, ProtocolError>,
        shared: &mut Shared<P>,
    ) {
        match result {
            Ok(Some(mut head)) => {
                let forwarded = self.prepare(&mut head, shared);
                if shared.refuses() {
                    return self.refuse(503, "the server is busy; try again in a moment", shared);
                }
                let number = shared.number();
                self.served = true;
                self.begun += 1;
                self.body_bytes = 0;
                self.body_waited = Duration::ZERO;
                let request = RequestId { stream: self.stream, number };
                if head.is_upgrade() {
                    match Link::new(&head, request, shared) {
                        Ok(link) => self.websocket = link,
                        Err(error) => return self.refuse_handshake(error, shared),
                    }
                }
                self.exchange = Some(Exchange {
                    number,
                    begun: shared.now,
                    head: Some(head),
                    forwarded,
                    body_told: false,
                    reading: false,
                    watched: false,
                    writing: false,
                    presumed_gone: false,
                });
                shared.queue.push_back(request);
            }
            Ok(None) => {}
            Err(error) => self.refuse_message(error, shared),
        }
    }

    /// See to a head that was understood: its id, what a proxy tells, its record.
    fn prepare<P>(
        &mut self,
        head: &mut RequestHead,
        shared: &mut Shared<P>,
    ) -> Option<Box<Forwarded>> {
        if let Some(ids) = &mut shared.request_ids {
            ids.see_to(head);
        }
        let forwarded = self.resolve(head, &shared.config);
        self.log_begin(Some(head), forwarded.as_deref(), shared);
        forwarded
    }

    /// What a trusted peer tells of a request in its headers.
    fn resolve(&self, head: &mut RequestHead, config: &Config) -> Option<Box<Forwarded>> {
        if !config.proxy.is_active() {
            return None;
        }
        let scheme = connection_scheme(self.tls.is_some());
        config.proxy.resolve(head, (&self.peer, &self.local), scheme)
    }

    /// Begin the record of a request, which was understood or not.
    fn log_begin<P>(
        &mut self,
        head: Option<&RequestHead>,
        forwarded: Option<&Forwarded>,
        shared: &mut Shared<P>,
    ) {
        if let (Some(trace), Some(log)) = (&mut self.trace, &mut shared.access_log) {
            let ends = (&self.peer, &self.local, self.tls.as_ref());
            trace.begin(ends, head, forwarded, shared.now, log);
        }
    }

    /// Go on with the input there is: a head, a body somebody waits for, a body nobody wants.
    fn proceed<P: Proactor>(&mut self, shared: &mut Shared<P>) {
        if self.exchange.is_some() {
            // What follows the request's end is for later.
            if self.exchange_waits_for_body() {
                self.wake_reader(shared);
            }
        } else if self.http.response_ended() {
            self.answered(shared);
        } else {
            self.next_request(shared);
        }
    }

    /// Begin the next request, if its head is there. Not above the high-water mark, or a client that
    /// asks on and on and takes no answer would cost memory without bound; and only a share of each
    /// turn, or nobody else would be served while it lasts.
    fn next_request<P: Proactor>(&mut self, shared: &mut Shared<P>) {
        self.held = true;
        if self.is_full() {
            return;
        }
        if self.begun >= shared.config.pipeline_depth {
            return shared.resting.push(self.stream);
        }
        self.held = false;
        let mut rest = self.input.rest();
        let result = next_request(&mut self.http, &mut rest, &mut shared.spare_heads);
        let left = rest.len();
        self.input.keep(left);
        self.begin(result, shared);
        if self.input_ended && self.exchange.is_none() && self.stage == Stage::Open {
            // The rest of this head will never come, or there was no further request.
            self.stage = Stage::Lingering;
        }
    }

    /// The answer is given out: drop what is left of its request, then go on to the next.
    fn answered<P: Proactor>(&mut self, shared: &mut Shared<P>) {
        if let Some(trace) = &mut self.trace {
            trace.answered();
        }
        if self.exchange.is_some() {
            self.leave_exchange(shared);
            self.dropped = 0;
        }
        while !self.http.request_ended() {
            match read_pieces(&mut self.http, &mut self.input) {
                Ok((bytes, _)) if !bytes.is_empty() => self.dropped += bytes.len(),
                Ok((_, true)) => {}
                Ok((_, false)) if self.may_drop_more() => return,
                Ok((_, false)) | Err(_) => {
                    self.stage = Stage::Lingering;
                    return;
                }
            }
        }
        if self.http.next_cycle().is_err() {
            self.stage = Stage::Lingering;
        } else if self.input_ended || !self.input.is_empty() {
            self.next_request(shared);
        }
    }

    /// Whether to wait for more of a body that nobody wants.
    fn may_drop_more(&self) -> bool {
        self.http.keeps_alive() && !self.input_ended && self.dropped as u64 <= DISCARD_BYTES
    }

    fn input_ended<P: Proactor>(&mut self, shared: &mut Shared<P>) {
        self.input_ended = true;
        // The end was what waited.
        self.more_waits = false;
        match self.stage {
            Stage::Open if self.websocket.is_some() => self.read_frames(shared),
            Stage::Open if self.exchange.is_some() => {
                // A body that was cut is news for a reader; a whole request gets its answer.
                if !self.http.request_ended() && self.exchange_waits_for_body() {
                    self.wake_reader(shared);
                }
            }
            Stage::Open | Stage::Lingering if !self.output.is_empty() || self.sending => {
                self.stage = Stage::Lingering;
            }
            Stage::Announced | Stage::Open | Stage::Lingering => self.die(shared),
            Stage::Dead | Stage::Closing => {}
        }
    }

    /// The request has taken all the time it may.
    fn time_out<P: Proactor>(&mut self, shared: &mut Shared<P>) {
        let Some(number) = self.exchange.as_ref().map(|exchange| exchange.number) else { return };
        let left = if self.can_refuse() {
            self.refuse(503, "the request took too long", shared);
            Left::Refused
        } else {
            self.abort(shared);
            Left::Aborted
        };
        let request = RequestId { stream: self.stream, number };
        shared.events.push_back(Event::TimedOut(request, left));
    }

    /// Whether to receive more of the body, which the kernel holds already, before the application
    /// is given what is there: once for much, not for each buffer. What is held stays within `most`.
    fn reads_ahead(&self, most: usize) -> bool {
        let there = self.input.rest().len();
        let incomplete =
            self.http.body_remaining().is_none_or(|remaining| remaining > there as u64);
        self.more_waits && incomplete && there < most
    }

    fn exchange_waits_for_body(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.reading && !exchange.body_told)
    }

    /// The peer broke the protocol.
    fn refuse_message<P: Proactor>(&mut self, error: ProtocolError, shared: &mut Shared<P>) {
        if shared.config.report_refusals {
            shared.events.push_back(Event::Refused(self.peer.clone(), error));
        }
        if let Some(mut head) = self.http.take_refused_head() {
            self.prepare(&mut head, shared);
        }
        if self.can_refuse() {
            self.refuse(error.status(), &error.to_string(), shared);
        } else {
            self.abort(shared);
        }
    }

    /// Answer in the place of the application, and read no further.
    fn refuse<P: Proactor>(&mut self, status: u16, message: &str, shared: &mut Shared<P>) {
        if self.trace.as_ref().is_some_and(|trace| !trace.is_begun()) {
            self.log_begin(None, None, shared);
        }
        self.http.discard_response();
        let automatic = shared.headers.at(shared.now);
        let Self { http, output, trace, .. } = self;
        let written = output.append_with(|out| {
            let start = out.len();
            http.write_error(status, message, &automatic, out)?;
            if let (Some(trace), Some(log)) = (trace, &shared.access_log) {
                trace.refuse(status, &out[start..], log);
            }
            Ok::<_, ResponseError>(())
        });
        match written {
            Ok(()) => {
                self.stage = Stage::Lingering;
                self.input = Input::default();
                self.held = false;
                self.leave_exchange(shared);
            }
            Err(_) => self.abort(shared),
        }
    }

    /// Nothing more can be read or sent. An answer that is cut by it must not look whole.
    fn die<P: Proactor>(&mut self, shared: &mut Shared<P>) {
        if self.is_over() {
            return;
        }
        if self.has_begun_answer() {
            shared.proactor.reset_on_close(self.stream);
        }
        self.stage = Stage::Dead;
        if let (Some(trace), Some(log)) = (&mut self.trace, &mut shared.access_log) {
            trace.lose(shared.proactor.now(), log);
        }
        self.input = Input::default();
        let output = mem::take(&mut self.output);
        shared.keep_output(output);
        self.lose_websocket(shared);
        self.leave_exchange(shared);
    }

    /// The request is over; whoever waits for something of it is told.
    fn leave_exchange<P>(&mut self, shared: &mut Shared<P>) {
        self.wake_reader(shared);
        self.wake_writer(shared);
        self.exchange = None;
    }

    fn wake_reader<P>(&mut self, shared: &mut Shared<P>) {
        if let Some(exchange) = &mut self.exchange
            && (mem::take(&mut exchange.reading) | mem::take(&mut exchange.watched))
        {
            let request = RequestId { stream: self.stream, number: exchange.number };
            shared.events.push_back(Event::Readable(request));
        }
    }

    fn wake_writer<P>(&mut self, shared: &mut Shared<P>) {
        if let Some(exchange) = &mut self.exchange
            && mem::take(&mut exchange.writing)
        {
            let request = RequestId { stream: self.stream, number: exchange.number };
            shared.events.push_back(Event::Writable(request));
        }
    }

    fn arm<P: Proactor>(&mut self, shared: &mut Shared<P>) {
        if !self.sending && !self.output.is_empty() {
            self.sending = true;
            self.taken = 0;
            if let (Some(trace), Some(log)) = (&mut self.trace, &shared.access_log) {
                trace.send(|| shared.proactor.now(), log);
            }
            shared.proactor.send(self.stream, mem::take(&mut self.output));
        }
        if self.stage == Stage::Lingering {
            if self.input_ended && !self.sending {
                self.die(shared);
                return self.wind_up(shared);
            }
            if !self.sending && !mem::replace(&mut self.ended, true) {
                shared.proactor.shutdown(self.stream);
            }
        }
        if !self.input_ended && !self.receiving && self.wants_input(shared.config.limits.head_bytes)
        {
            self.receiving = true;
            shared.proactor.receive(self.stream);
        }
        if !self.receiving && !self.watching && self.exchange.is_some() {
            self.watching = true;
            shared.proactor.watch_hang_up(self.stream);
        }
    }

    /// While the application runs a receive stays armed, so that the peer's going is seen; but at
    /// most one buffer is held back. An application that waits for the peer's going alone is told
    /// of its end behind a few further requests too.
    fn wants_input(&self, most: usize) -> bool {
        if let Some(wants) = self.websocket_wants_input() {
            return wants;
        }
        match (&self.exchange, self.stage) {
            (_, Stage::Lingering) => true,
            // The end, too, is for later than the requests before it.
            (None, _) => !self.held,
            (Some(exchange), _) if exchange.awaits_end_alone() => self.input.rest().len() < most,
            (Some(exchange), _) => exchange.reading || self.input.is_empty(),
        }
    }

    /// Cancel what is under way; close when nothing is.
    fn wind_up<P: Proactor>(&mut self, shared: &mut Shared<P>) {
        if self.receiving || self.sending || self.watching {
            if mem::replace(&mut self.cancelled, true) {
                return;
            }
            let operations = [
                (self.receiving, Operation::Receive(self.stream)),
                (self.sending, Operation::Send(self.stream)),
                (self.watching, Operation::HangUp(self.stream)),
            ];
            for (_, operation) in operations.into_iter().filter(|(armed, _)| *armed) {
                shared.proactor.cancel(operation);
            }
        } else {
            self.stage = Stage::Closing;
            shared.proactor.close(self.stream);
        }
    }

    fn update_waiting(&mut self, now: Instant) {
        let waiting = self.waits_for();
        if waiting != self.waiting {
            if self.waiting == Waiting::Body {
                self.count_body_wait(now);
            }
            self.waiting = waiting;
            self.waiting_since = now;
        }
    }

    /// The time until `now` was spent waiting for a body.
    fn count_body_wait(&mut self, now: Instant) {
        self.body_waited += now.saturating_duration_since(self.waiting_since);
    }

    fn set_deadline<P: Proactor>(&mut self, shared: &mut Shared<P>) {
        self.update_waiting(shared.now);
        let Some(deadline) = self.due(shared) else { return };
        if self.scheduled.is_none_or(|scheduled| scheduled > deadline) {
            let up = shared.timers.schedule((self.stream, self.number), deadline, shared.now);
            self.scheduled = Some(up);
        }
    }

    fn waits_for(&self) -> Waiting {
        match (self.stage, &self.exchange) {
            (Stage::Dead | Stage::Closing, _) => Waiting::Ours,
            _ if self.sending || !self.output.is_empty() => Waiting::Write,
            (Stage::Lingering, _) => Waiting::Linger,
            (Stage::Open, _) if self.websocket.is_some() => self.websocket_waits_for(),
            (Stage::Announced, _) => Waiting::ProxyHeader,
            (Stage::Open, Some(exchange)) => match (exchange.reading, exchange.body_told) {
                _ if self.input_ended && exchange.awaits_news() => Waiting::HalfClose,
                (true, false) => Waiting::Body,
                _ => Waiting::Ours,
            },
            (Stage::Open, None) if !self.http.is_between_requests() => Waiting::Body,
            (Stage::Open, None) if !self.input.is_empty() => Waiting::Head,
            (Stage::Open, None) if self.served => Waiting::NextRequest,
            (Stage::Open, None) => Waiting::FirstRequest,
        }
    }

    /// When to look after this connection.
    fn due<P>(&self, shared: &Shared<P>) -> Option<Instant> {
        match (self.peer_due(shared), self.request_due(shared)) {
            (Some(peer), Some(request)) => Some(peer.min(request)),
            (peer, request) => peer.or(request),
        }
    }

    /// When the request under way has taken all the time it may.
    fn request_due<P>(&self, shared: &Shared<P>) -> Option<Instant> {
        let timeout = shared.config.timeouts.request?;
        // A WebSocket is meant to last; pings find out when its client has gone.
        if self.websocket.is_some() {
            return None;
        }
        Some(self.exchange.as_ref()?.begun + timeout)
    }

    /// How long the body may still keep us waiting: see [`Timeouts::body_min_rate`].
    ///
    /// [`Timeouts::body_min_rate`]: crate::config::Timeouts::body_min_rate
    fn body_patience(&self, timeouts: &Timeouts) -> Duration {
        if timeouts.body_min_rate == 0 {
            return timeouts.body;
        }
        let earned = self.body_bytes.saturating_mul(1000) / u64::from(timeouts.body_min_rate);
        let all = timeouts.body.saturating_add(Duration::from_millis(earned));
        all.saturating_sub(self.body_waited).min(timeouts.body)
    }

    /// When the peer has kept us waiting for too long. A restart waits while draining, so nobody may
    /// hold it up by doing nothing.
    fn peer_due<P>(&self, shared: &Shared<P>) -> Option<Instant> {
        let timeouts = &shared.config.timeouts;
        let usual = match self.waiting {
            Waiting::Ours => return None,
            Waiting::ProxyHeader => timeouts.head.min(PROXY_HEADER),
            Waiting::FirstRequest => timeouts.first_byte,
            Waiting::Head => timeouts.head,
            Waiting::NextRequest => timeouts.keep_alive,
            Waiting::Body => self.body_patience(timeouts),
            Waiting::Write => timeouts.write,
            Waiting::Linger => timeouts.linger,
            Waiting::HalfClose => timeouts.half_close,
            Waiting::NextPing | Waiting::Pong => return self.ping_due(),
            Waiting::CloseFrame => timeouts.close_frame,
        };
        let due = self.waiting_since + usual;
        let draining = match self.waiting {
            Waiting::ProxyHeader | Waiting::Head => timeouts.drain_first,
            Waiting::Body if self.exchange.is_none() => timeouts.drain_linger,
            Waiting::Write => timeouts.drain_write,
            Waiting::Linger | Waiting::CloseFrame => timeouts.drain_linger,
            _ => return Some(due),
        };
        let drained = shared.draining_since.map(|since| since.max(self.waiting_since) + draining);
        Some(drained.map_or(due, |drained| drained.min(due)))
    }
}

/// How much of a body is read ahead: what is held stays within the bound of a head.
fn most_ahead(config: &Config) -> usize {
    READ_BYTES.min(config.limits.head_bytes)
}

/// Look for the head of a request; the end of one without a body is taken at once.
fn next_request(
    http: &mut http1::Connection,
    input: &mut &[u8],
    spare: &mut SpareHeads,
) -> Result<Option<Box<RequestHead>>, ProtocolError> {
    let mut head = spare.take();
    let is_there = http.next_head(input, &mut head);
    if !matches!(is_there, Ok(true)) {
        spare.keep(head);
        return is_there.map(|_| None);
    }
    if http.body_remaining() == Some(0) {
        http.next_event(input)?;
    }
    Ok(Some(head))
}

/// Decode up to [`READ_BYTES`] of the body. The flag says whether its end was reached.
fn read_pieces(
    http: &mut http1::Connection,
    input: &mut Input,
) -> Result<(Vec<u8>, bool), ProtocolError> {
    let mut bytes = Vec::new();
    // All that is there is one piece.
    let mut whole = false;
    let mut rest = input.rest();
    let mut result = Ok(());
    while !http.request_ended() && bytes.len() < READ_BYTES {
        match http.next_event(&mut rest) {
            Ok(Some(http1::Event::Body(piece))) if piece.len() == input.bytes.len() => whole = true,
            Ok(Some(http1::Event::Body(piece))) => bytes.extend_from_slice(piece),
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    let left = rest.len();
    if whole {
        // Given away, not copied.
        bytes = mem::take(&mut input.bytes);
    }
    input.keep(left);
    result.map(|()| (bytes, http.request_ended()))
}
