//! The server: connections on a proactor, requests for an application, answers back.
//!
//! A plain state machine over completions, driven by [`Server::turn`]: submit what the last turn
//! produced, wait, deliver each completion to its connection. What happens to a connection is
//! decided in one file, `connection.rs`; accepting and draining are decided in `accept.rs` and
//! here.
//!
//! The application is not called from here. What it has to know waits in a queue
//! ([`Server::next_event`]), and it answers by [`RequestId`]; so the caller decides when foreign
//! code runs, and no borrow of the server is held while it does.
//!
//! What is not here: bytes of the protocol ([`crate::http1`]), system calls ([`crate::proactor`]),
//! Python.

mod accept;
mod connection;
mod heads;
mod request_id;
mod timers;
mod trace;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::access_log::AccessLog;
use crate::config::{Config, Overload};
use crate::http1::{AutomaticHeaders, ProtocolError, RequestHead, ResponseError, Status};
use crate::listener::Address;
use crate::proactor::{Completion, FileRange, Outgoing, Payload, Proactor, StreamId};
use crate::proxy::{Forwarded, Refusal, Scheme, TlsInfo};
use crate::websocket::{self, AcceptError, Codecs, Message};
use accept::Acceptor;
use connection::Connection;
use heads::SpareHeads;
use request_id::RequestIds;
use timers::Timers;

/// Trouble that lasts is told at most this often: the log is not to fill the disk as well.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Buffers of finished sends that are kept for the next ones.
const SPARE_OUTPUTS: usize = 256;

/// A request, from its head to the moment when the application is done with it. Never used again
/// by another request of this server (but for a number that comes round after 2^32 of them).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    stream: StreamId,
    number: u32,
}

impl RequestId {
    /// The connection that the request came on: a small number, used again after its close.
    #[must_use]
    pub fn stream(self) -> StreamId {
        self.stream
    }
}

/// What the application, or the log, has to know.
#[derive(Debug)]
pub enum Event {
    /// A request is there: [`Server::take_request`].
    Request(RequestId),
    /// [`Server::read_body`] has news after it said [`Reading::Wait`].
    Readable(RequestId),
    /// There is room after [`Server::send_body`] said [`Progress::Wait`], or the peer is gone.
    Writable(RequestId),
    /// News of an accepted WebSocket: a message, to be told of with [`Server::took_message`], or,
    /// last and once, the close (never a pong). Comes though the connection may be gone already.
    WebSocket(RequestId, websocket::Event),
    /// [`Server::drain`] is over: nothing is accepted, open or under way. Comes once.
    Drained,
    /// A listener could not accept, for a reason of this machine; it is tried again in a moment.
    /// Told at most once in ten seconds.
    AcceptFailed(io::Error),
    /// The application works on [`Config::backpressure`] requests, and others are refused. Told at
    /// most once in ten seconds. Only with [`Overload::Refuse`].
    Overloaded,
    /// A request took longer than [`Timeouts::request`](crate::config::Timeouts::request), and how
    /// its client was left: [`Left::Refused`] (with a 503) or [`Left::Aborted`]. Whoever works on it
    /// should stop.
    TimedOut(RequestId, Left),
    /// So many records of the access log were lost: its destination does not take them. Told at
    /// most once in ten seconds.
    AccessLost(u64),
    /// A peer's message was refused. Only with [`Config::report_refusals`].
    Refused(Address, ProtocolError),
    /// A connection to a listener with PROXY protocol was closed without an answer. Only with
    /// [`Config::report_refusals`].
    Unproxied(Address, Refusal),
}

/// A request, as [`Server::take_request`] gives it.
#[derive(Debug)]
pub struct Request {
    /// Request line and headers.
    pub head: Box<RequestHead>,
    /// The other end of the connection: the kernel's word, or a PROXY header's.
    pub peer: Address,
    /// Our end of the connection, likewise.
    pub local: Address,
    /// What a WebSocket handshake offers; `None` for any other request.
    pub subprotocols: Option<Vec<String>>,
    /// The TLS that a proxy ended, if a PROXY header told of it.
    pub tls: Option<Arc<TlsInfo>>,
    /// What a trusted peer told in this request's headers.
    pub forwarded: Option<Box<Forwarded>>,
}

impl Request {
    /// Who asks, as far as that is known.
    #[must_use]
    pub fn client(&self) -> &Address {
        self.forwarded.as_ref().and_then(|it| it.client.as_ref()).unwrap_or(&self.peer)
    }

    /// How they ask.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        let told = self.forwarded.as_ref().and_then(|it| it.scheme);
        told.unwrap_or_else(|| connection_scheme(self.tls.is_some()))
    }
}

/// The scheme of requests on a connection of which nothing else is told.
fn connection_scheme(is_tls: bool) -> Scheme {
    if is_tls { Scheme::Https } else { Scheme::Http }
}

/// What [`Server::read_body`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Reading {
    /// The next bytes of the body, maybe none; `more` is false with the last of them.
    Data {
        /// The bytes, without any transfer coding.
        bytes: Vec<u8>,
        /// Whether there may be more.
        more: bool,
    },
    /// Nothing yet; an [`Event::Readable`] will come.
    Wait,
    /// The peer is gone, or the request is over.
    Disconnected,
}

/// One piece of an answer's body.
pub enum Body<'a> {
    /// Copied into our output.
    Copied(&'a [u8]),
    /// Sent from where it is.
    Shared(Box<dyn Payload>),
    /// Read from a file as it is sent.
    File(FileRange),
    /// As [`Body::File`], and all of what the answer is about: where the client asks for a range of
    /// it, it gets that, RFC 9110 §14.2.
    WholeFile(FileRange),
}

impl Body<'_> {
    fn length(&self) -> usize {
        match self {
            Self::Copied(bytes) => bytes.len(),
            Self::Shared(payload) => payload.as_slice().len(),
            Self::File(range) | Self::WholeFile(range) => range.length(),
        }
    }
}

/// What [`Server::send_body`] says about the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is room for more.
    Ready,
    /// Wait with the next piece for an [`Event::Writable`].
    Wait,
}

/// Why an answer was not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum SendError {
    /// The peer is gone.
    Gone,
    /// The application breaks the protocol.
    Response(ResponseError),
    /// A WebSocket cannot be accepted like that.
    Accept(AcceptError),
    /// A message, or a close, that a WebSocket cannot send.
    Message(websocket::SendError),
}

impl From<ResponseError> for SendError {
    fn from(error: ResponseError) -> Self {
        Self::Response(error)
    }
}

/// How the application left a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The answer was complete, or the peer was gone.
    Answered,
    /// There was no answer; the peer got a 500.
    Refused,
    /// The answer had begun; the connection was reset, so that it does not look whole.
    Aborted,
}

/// Counts of what a server holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Connections open, lingering or closing.
    pub connections: usize,
    /// Requests that wait for the application.
    pub queued: usize,
    /// Requests that the application works on.
    pub running: usize,
}

/// What the connections of a server share.
struct Shared<P> {
    proactor: P,
    config: Config,
    timers: Timers<(StreamId, u32)>,
    /// News for requests under way, and for the log.
    events: VecDeque<Event>,
    /// Requests that no one has taken yet, in the order they came.
    queue: VecDeque<RequestId>,
    /// Requests that the application works on.
    running: usize,
    /// Connections whose state has changed since the last flush.
    touched: Vec<StreamId>,
    /// Connections that have had their share of this turn, with pipelined requests left.
    resting: Vec<StreamId>,
    spare_outputs: Vec<Outgoing>,
    spare_heads: SpareHeads,
    access_log: Option<AccessLog>,
    request_ids: Option<RequestIds>,
    now: Instant,
    next_number: u32,
    headers: ServerHeaders,
    codecs: Codecs,
    /// When draining began.
    draining_since: Option<Instant>,
    /// When an [`Event::Overloaded`] was the last time.
    overload_told: Option<Instant>,
}

impl<P> Shared<P> {
    /// Whether the application has as many requests as it may.
    fn is_busy(&self) -> bool {
        self.running + self.queue.len() >= self.config.backpressure
    }

    /// Whether a request that comes now gets a 503. Tells that, but not each time.
    fn refuses(&mut self) -> bool {
        if self.config.overload == Overload::Wait || !self.is_busy() {
            return false;
        }
        if self.overload_told.is_none_or(|told| self.now >= told + TELL_EVERY) {
            self.overload_told = Some(self.now);
            self.events.push_back(Event::Overloaded);
        }
        true
    }

    fn number(&mut self) -> u32 {
        self.next_number = self.next_number.wrapping_add(1);
        self.next_number
    }

    /// Give an output that is empty the memory of one that was used before.
    fn open_output(&mut self, output: &mut Outgoing) {
        if output.is_empty() {
            *output = self.spare_outputs.pop().unwrap_or_default();
        }
    }

    fn keep_output(&mut self, mut output: Outgoing) {
        output.clear();
        if self.spare_outputs.len() < SPARE_OUTPUTS {
            self.spare_outputs.push(output);
        }
    }
}

/// The `date` header's line, made once a second, which is also when the clock is read.
#[derive(Default)]
struct Date {
    /// When the next second begins.
    valid_until: Option<Instant>,
    line: String,
}

impl Date {
    /// The date at `now`.
    fn at(&mut self, now: Instant) -> &[u8] {
        if self.valid_until.is_none_or(|end| now >= end) {
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.line = format!("date: {}\r\n", httpdate::fmt_http_date(UNIX_EPOCH + since_epoch));
            let rest = 1_000_000_000 - u64::from(since_epoch.subsec_nanos());
            self.valid_until = Some(now + Duration::from_nanos(rest));
        }
        self.line.as_bytes()
    }
}

/// The headers that the server adds to answers, as the configuration wants it.
struct ServerHeaders {
    date: Option<Date>,
    /// The whole line.
    server: Option<Vec<u8>>,
}

impl ServerHeaders {
    fn new(config: &Config) -> Self {
        let server = config.server_header.as_ref();
        Self {
            date: config.date_header.then(Date::default),
            server: server.map(|value| format!("server: {value}\r\n").into_bytes()),
        }
    }

    fn at(&mut self, now: Instant) -> AutomaticHeaders<'_> {
        AutomaticHeaders {
            date: self.date.as_mut().map(|date| date.at(now)),
            server: self.server.as_deref(),
        }
    }
}

/// A server on a proactor `P`, for one thread.
pub struct Server<P> {
    shared: Shared<P>,
    /// By stream.
    #[allow(
        clippy::vec_box,
        reason = "a slot of a closed connection costs a pointer, not a state"
    )]
    connections: Vec<Option<Box<Connection>>>,
    open: usize,
    /// [`Server::next_event`] looks for news of requests under way before new requests.
    news_first: bool,
    acceptors: Vec<Acceptor>,
    accepting: bool,
    drained_told: bool,
    /// Accepting rests until then, after the machine refused an fd.
    accept_paused_until: Option<Instant>,
    /// When an [`Event::AcceptFailed`] was the last time.
    shortage_told: Option<Instant>,
    completions: Vec<Completion>,
    /// Watched fds that are readable.
    watched: Vec<RawFd>,
    due: Vec<(StreamId, u32)>,
}

impl<P: Proactor> Server<P> {
    /// A server without listeners.
    pub fn new(proactor: P, config: Config) -> Self {
        let headers = ServerHeaders::new(&config);
        let now = proactor.now();
        let request_ids = config.request_id_header.as_deref().map(RequestIds::new);
        Self {
            shared: Shared {
                proactor,
                config,
                access_log: None,
                request_ids,
                timers: Timers::new(now),
                events: VecDeque::new(),
                queue: VecDeque::new(),
                running: 0,
                touched: Vec::new(),
                resting: Vec::new(),
                spare_outputs: Vec::new(),
                spare_heads: SpareHeads::default(),
                now,
                next_number: 0,
                headers,
                codecs: Codecs::default(),
                draining_since: None,
                overload_told: None,
            },
            connections: Vec::new(),
            open: 0,
            news_first: true,
            acceptors: Vec::new(),
            accepting: false,
            drained_told: false,
            accept_paused_until: None,
            shortage_told: None,
            completions: Vec::new(),
            watched: Vec::new(),
            due: Vec::new(),
        }
    }

    /// Take a listening socket. Nothing is accepted before [`Server::start_accepting`].
    ///
    /// # Errors
    ///
    /// When the proactor cannot take it.
    pub fn add_listener(&mut self, listener: OwnedFd) -> io::Result<()> {
        self.register(listener, false)
    }

    /// As [`Server::add_listener`], but each connection begins with a PROXY protocol header
    /// ([`crate::proxy::protocol`]), and only peers that [`Config::proxy`] trusts may connect.
    ///
    /// # Errors
    ///
    /// When the proactor cannot take it.
    pub fn add_proxy_listener(&mut self, listener: OwnedFd) -> io::Result<()> {
        self.register(listener, true)
    }

    /// Log each request of connections that are accepted from now on.
    pub fn log_access(&mut self, log: AccessLog) {
        self.shared.access_log = Some(log);
    }

    /// End the access log: waits until it is written, as [`AccessLog`] says. Returns how many
    /// records were lost and not told yet. The end of the server does the same.
    pub fn close_access_log(&mut self) -> u64 {
        self.shared.access_log.as_mut().map_or(0, AccessLog::close)
    }

    /// Accept from the next flush on.
    pub fn start_accepting(&mut self) {
        self.accepting = true;
    }

    /// Look for `fd`, which is not a connection of ours: see [`Server::take_watched`].
    pub fn watch(&mut self, fd: RawFd) {
        self.shared.proactor.watch(fd);
    }

    /// A fd given to [`Server::watch`] that has become readable. It is watched no longer.
    pub fn take_watched(&mut self) -> Option<RawFd> {
        self.watched.pop()
    }

    /// One turn: [`Server::flush`], [`Server::wait`], [`Server::deliver`].
    ///
    /// # Errors
    ///
    /// When the proactor fails; the server cannot go on then.
    pub fn turn(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        self.flush();
        self.wait(deadline)?;
        self.deliver();
        Ok(())
    }

    /// Arm what the connections and listeners ask for since the last turn. Submits nothing yet.
    pub fn flush(&mut self) {
        // The application may have taken its time since the last turn: what begins to be waited for
        // begins now.
        self.shared.now = self.shared.proactor.now();
        self.settle_touched();
        self.arm_accepts();
        self.tell_drained();
        if let Some(log) = &mut self.shared.access_log
            && log.is_due(self.shared.now)
            && let Some(lost) = log.hand_over(self.shared.now)
        {
            self.shared.events.push_back(Event::AccessLost(lost));
        }
    }

    /// Submit, and wait for completions until `deadline` (`None`: for ever) or the next timer. The
    /// only part of a turn that blocks, and it touches nothing of the application's. Returns how
    /// many completions came: none when the time was up or a signal arrived.
    ///
    /// # Errors
    ///
    /// When the proactor fails; the server cannot go on then.
    pub fn wait(&mut self, deadline: Option<Instant>) -> io::Result<usize> {
        if self.has_work() {
            let now = self.shared.proactor.now();
            self.shared.proactor.wait(Some(now), &mut self.completions)?;
            return Ok(self.completions.len());
        }
        let deadline = [deadline, self.deadline()].into_iter().flatten().min();
        self.shared.proactor.wait(deadline, &mut self.completions)?;
        Ok(self.completions.len())
    }

    /// When the server wants its next turn, though nothing completes; `None`: it does not.
    pub fn deadline(&self) -> Option<Instant> {
        let log_due = self.shared.access_log.as_ref().and_then(AccessLog::due);
        let own =
            [self.shared.timers.next(), log_due, self.accept_paused_until, self.next_drain_look()];
        own.into_iter().flatten().min()
    }

    /// True when the server wants its next turn now: something waits to be submitted, or to be
    /// told.
    pub fn wants_turn(&self) -> bool {
        self.has_work() || !self.shared.touched.is_empty()
    }

    /// An fd for a loop that waits elsewhere, [`Proactor::wake_fd`]: a turn is wanted when it is
    /// readable.
    ///
    /// # Errors
    ///
    /// When the proactor cannot have one.
    pub fn wake_fd(&mut self) -> io::Result<RawFd> {
        self.shared.proactor.wake_fd()
    }

    /// True when [`Server::wait`] can be expected to block.
    pub fn would_block(&self, deadline: Option<Instant>) -> bool {
        !self.has_work()
            && !self.shared.proactor.is_ready()
            && deadline.is_none_or(|deadline| deadline > self.shared.proactor.now())
    }

    /// Hand the completions and the timers that came up to their connections.
    pub fn deliver(&mut self) {
        self.shared.now = self.shared.proactor.now();
        let mut completions = mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            self.complete(completion);
        }
        self.completions = completions;
        self.resume_resting();
        self.expire_timers();
        self.close_idle_when_draining();
        self.tell_drained();
    }

    /// The next thing that the application or the log has to know. Requests come only while the
    /// application works on fewer than [`Config::backpressure`]; each must be left with
    /// [`Server::finish`].
    pub fn next_event(&mut self) -> Option<Event> {
        // In turns: neither a crowd of uploads nor one of new requests keeps the other from being
        // seen.
        if self.news_first
            && let Some(event) = self.shared.events.pop_front()
        {
            self.news_first = false;
            return Some(event);
        }
        self.news_first = true;
        if self.shared.running < self.shared.config.backpressure
            && let Some(request) = self.shared.queue.pop_front()
        {
            self.shared.running += 1;
            return Some(Event::Request(request));
        }
        self.shared.events.pop_front()
    }

    /// True when [`Server::next_event`] has something.
    #[must_use]
    pub fn has_events(&self) -> bool {
        let Shared { events, queue, running, config, .. } = &self.shared;
        !events.is_empty() || (!queue.is_empty() && *running < config.backpressure)
    }

    /// True when there is something to do before anything else happens.
    fn has_work(&self) -> bool {
        self.has_events() || !self.shared.resting.is_empty()
    }

    /// The request of an [`Event::Request`]; `None` when its peer is gone already.
    pub fn take_request(&mut self, request: RequestId) -> Option<Request> {
        self.current(request)?.take_request()
    }

    /// A request that was taken and is not needed any more: its memory is used for others. Nobody
    /// has to give it back.
    pub fn give_back(&mut self, request: Request) {
        self.shared.spare_heads.keep(request.head);
    }

    /// Read on in the body of a request.
    pub fn read_body(&mut self, request: RequestId) -> Reading {
        self.with(request, Connection::read_body).unwrap_or(Reading::Disconnected)
    }

    /// Whether the peer of a request is gone, or the request over. If not, an [`Event::Readable`]
    /// will come when it may be; it may come earlier too.
    pub fn watch_peer(&mut self, request: RequestId) -> bool {
        self.with(request, |connection, _| connection.watch_peer()).unwrap_or(true)
    }

    /// Begin an answer. Nothing is sent before the first [`Server::send_body`].
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`], or what is wrong with the answer.
    pub fn start_response<'h>(
        &mut self,
        request: RequestId,
        status: impl Into<Status<'h>>,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    ) -> Result<(), SendError> {
        let Some((connection, shared)) = self.parts(request) else { return Err(SendError::Gone) };
        connection.start_response(status.into(), headers, shared)
    }

    /// Take back an answer of which nothing was sent; without one, nothing happens.
    pub fn discard_response(&mut self, request: RequestId) {
        if let Some(connection) = self.current(request) {
            connection.discard_response();
        }
    }

    /// Send a piece of the answer's body; `more` is false with the last.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`], or what is wrong with the answer.
    pub fn send_body(
        &mut self,
        request: RequestId,
        body: Body<'_>,
        more: bool,
    ) -> Result<Progress, SendError> {
        self.with(request, |connection, shared| connection.send_body(body, more, shared))
            .unwrap_or(Err(SendError::Gone))
    }

    /// Send `103 Early Hints` with these values of Link fields, RFC 8297, before the answer begins.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`], or what is wrong with the hints.
    pub fn send_early_hints<'h>(
        &mut self,
        request: RequestId,
        links: impl Iterator<Item = &'h [u8]>,
    ) -> Result<(), SendError> {
        self.with(request, |connection, shared| connection.send_early_hints(links, shared))
            .unwrap_or(Err(SendError::Gone))
    }

    /// End an answer with trailers, instead of the last [`Server::send_body`].
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`], or what is wrong with the answer.
    pub fn send_trailers<'h>(
        &mut self,
        request: RequestId,
        fields: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    ) -> Result<(), SendError> {
        self.with(request, |connection, shared| connection.send_trailers(fields, shared))
            .unwrap_or(Err(SendError::Gone))
    }

    /// Whether the output has room, after [`Server::send_body`] said [`Progress::Wait`].
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`].
    pub fn room(&mut self, request: RequestId) -> Result<Progress, SendError> {
        self.current(request).map(|connection| connection.room()).ok_or(SendError::Gone)
    }

    /// Accept the WebSocket that a request asks for. To decline is to answer the request.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`], or what is wrong with the answer.
    pub fn accept_websocket<'h>(
        &mut self,
        request: RequestId,
        subprotocol: Option<&str>,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    ) -> Result<(), SendError> {
        self.with(request, |connection, shared| {
            connection.accept_websocket(subprotocol, headers, shared)
        })
        .unwrap_or(Err(SendError::Gone))
    }

    /// Send a message on an accepted WebSocket. `payload`: the same bytes, to be sent from where
    /// they are instead of copied.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`], or why it cannot be sent.
    pub fn send_message(
        &mut self,
        request: RequestId,
        message: Message<'_>,
        payload: Option<Box<dyn Payload>>,
    ) -> Result<Progress, SendError> {
        self.with(request, |connection, shared| connection.send_message(message, payload, shared))
            .unwrap_or(Err(SendError::Gone))
    }

    /// Close an accepted WebSocket; no more news of it comes, but for messages among the events now.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`], or why it cannot be closed like that.
    pub fn close_websocket(
        &mut self,
        request: RequestId,
        code: u16,
        reason: &str,
    ) -> Result<(), SendError> {
        self.with(request, |connection, shared| connection.close_websocket(code, reason, shared))
            .unwrap_or(Err(SendError::Gone))
    }

    /// The application has taken a message of `length` bytes, which makes room for others.
    pub fn took_message(&mut self, request: RequestId, length: usize) {
        self.with(request, |connection, shared| connection.took_message(length, shared));
    }

    /// The application is done with a request: answer in its place if it has not (close code 1011
    /// on an open WebSocket). To be called once for each [`Event::Request`].
    pub fn finish(&mut self, request: RequestId) -> Left {
        self.shared.running -= 1;
        self.with(request, Connection::finish).unwrap_or(Left::Answered)
    }

    /// Stop accepting, tell busy peers to close after their answer, close idle connections when
    /// they have been quiet for a moment. Goes on turn by turn until [`Server::is_drained`].
    pub fn drain(&mut self) {
        if self.shared.draining_since.is_none() {
            self.shared.now = self.shared.proactor.now();
            self.shared.draining_since = Some(self.shared.now);
            for connection in self.connections.iter_mut().flatten() {
                connection.touch(&mut self.shared);
            }
        }
    }

    /// True when draining is over: no accept is armed, no request is under way, no connection open.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.shared.draining_since.is_some()
            && self.acceptors.iter().all(Acceptor::is_stopped)
            && self.census() == Census::default()
    }

    /// Cut every connection. Returns how many requests were under way.
    pub fn cut(&mut self) -> usize {
        let Self { connections, shared, .. } = self;
        let mut cut = 0;
        for connection in connections.iter_mut().flatten() {
            if connection.is_busy() {
                cut += 1;
                connection.abort(shared);
            } else {
                connection.close_idle(shared);
            }
            connection.touch(shared);
        }
        cut
    }

    /// What the server holds.
    #[must_use]
    pub fn census(&self) -> Census {
        let Shared { queue, running, .. } = &self.shared;
        Census { connections: self.open, queued: queue.len(), running: *running }
    }

    /// The most bytes that one connection holds of input that was not read, and of output that was
    /// not given to the proactor. For tests: it looks at every connection.
    #[must_use]
    pub fn most_held(&self) -> (usize, usize) {
        let held = self.connections.iter().flatten().map(|connection| connection.held());
        held.fold((0, 0), |most, held| (most.0.max(held.0), most.1.max(held.1)))
    }

    /// True when every listener has its accept armed.
    #[must_use]
    pub fn is_accepting(&self) -> bool {
        self.acceptors.iter().all(Acceptor::is_armed)
    }

    /// The proactor, for tests that look at it from the other side.
    pub fn proactor(&mut self) -> &mut P {
        &mut self.shared.proactor
    }

    fn register(&mut self, listener: OwnedFd, proxy_protocol: bool) -> io::Result<()> {
        let listener = self.shared.proactor.register_listener(listener)?;
        self.acceptors.push(Acceptor::new(listener, proxy_protocol));
        Ok(())
    }

    fn complete(&mut self, completion: Completion) {
        let (stream, news) = match completion {
            Completion::Accepted { listener, result } => return self.accepted(listener, result),
            Completion::Readable { fd } => return self.watched.push(fd),
            Completion::Closed { stream } => {
                self.connections[stream.index()] = None;
                self.open -= 1;
                return;
            }
            Completion::Received { stream, result } => (stream, News::Received(result)),
            Completion::Sent { stream, result, data } => {
                self.shared.keep_output(data);
                (stream, News::Sent(result))
            }
            Completion::HungUp { stream, result } => (stream, News::HungUp(result)),
        };
        let Some(connection) = self.connections[stream.index()].as_deref_mut() else {
            unreachable!("a stream has completions only between its accept and its close")
        };
        match news {
            News::Received(result) => connection.received(result, &mut self.shared),
            News::Sent(result) => connection.sent(&result, &mut self.shared),
            News::HungUp(result) => connection.hung_up(&result, &mut self.shared),
        }
        connection.touch(&mut self.shared);
    }

    fn tell_drained(&mut self) {
        if !self.drained_told && self.is_drained() {
            self.drained_told = true;
            self.shared.events.push_back(Event::Drained);
        }
    }

    fn settle_touched(&mut self) {
        let mut touched = mem::take(&mut self.shared.touched);
        for stream in touched.drain(..) {
            if let Some(connection) = self.connections[stream.index()].as_deref_mut() {
                connection.settle(&mut self.shared);
            }
        }
        // What settling touches anew is looked at in the next turn.
        touched.append(&mut self.shared.touched);
        self.shared.touched = touched;
    }

    /// Connections that had their share of the last turn go on, behind all other news.
    fn resume_resting(&mut self) {
        let mut resting = mem::take(&mut self.shared.resting);
        for stream in resting.drain(..) {
            if let Some(connection) = self.connections[stream.index()].as_deref_mut() {
                connection.resume(&mut self.shared);
                connection.touch(&mut self.shared);
            }
        }
        // What resumed may have used up its share again.
        resting.append(&mut self.shared.resting);
        self.shared.resting = resting;
    }

    fn expire_timers(&mut self) {
        let mut due = mem::take(&mut self.due);
        self.shared.timers.expire(self.shared.now, &mut due);
        for (stream, number) in due.drain(..) {
            if let Some(connection) = self.connections[stream.index()].as_deref_mut()
                && connection.number() == number
            {
                connection.timer_came_up(&mut self.shared);
            }
        }
        self.due = due;
    }

    fn current(&mut self, request: RequestId) -> Option<&mut Connection> {
        self.parts(request).map(|(connection, _)| connection)
    }

    /// The connection on which `request` is under way, and what it shares with others.
    fn parts(&mut self, request: RequestId) -> Option<(&mut Connection, &mut Shared<P>)> {
        let connection = self.connections.get_mut(request.stream.index())?.as_deref_mut()?;
        connection.serves(request.number).then_some((connection, &mut self.shared))
    }

    fn with<R>(
        &mut self,
        request: RequestId,
        act: impl FnOnce(&mut Connection, &mut Shared<P>) -> R,
    ) -> Option<R> {
        let (connection, shared) = self.parts(request)?;
        let result = act(connection, shared);
        connection.touch(shared);
        Some(result)
    }
}

/// What came of an operation on a stream.
enum News {
    Received(io::Result<crate::proactor::Lease>),
    Sent(io::Result<()>),
    HungUp(io::Result<()>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_that_are_added_are_whole() {
        let config = Config { server_header: Some("name".to_owned()), ..Config::default() };
        let mut headers = ServerHeaders::new(&config);
        let AutomaticHeaders { date, server } = headers.at(Instant::now());
        assert_eq!(server, Some(&b"server: name\r\n"[..]));
        let date = date.unwrap();
        assert!(date.starts_with(b"date: ") && date.ends_with(b" GMT\r\n") && date.len() == 37);
    }
}
