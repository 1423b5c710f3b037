//! The life of a connection behind a WebSocket handshake.
//!
//! The request of the handshake stays the exchange until the close, so that the application names
//! the connection by it. Messages go to the application as events, in order, and outlive the
//! connection: who sends three and leaves is heard. The last event is the close, exactly once.
//! Back-pressure works both ways: nothing is read while the application holds
//! [`READ_BYTES`] of messages that it has not taken, or while the output is full (of pongs, say).
//!
//! ```text
//! handshake ──accepted──► open ──our close frame──► closing ──the peer's, or time──► Lingering
//!     └──answered by HTTP    └──────the peer's close frame, or its misdeed─────────────┘
//! ```

use std::mem;
use std::time::{Duration, Instant};

use super::{Connection, HIGH_WATER_BYTES, READ_BYTES, Stage, Waiting};
use crate::http1::{RequestHead, ResponseError};
use crate::proactor::{Lease, Payload, Proactor};
use crate::server::{Event, Left, Progress, RequestId, SendError, Shared};
use crate::websocket::{self, Framed, HandshakeError, Message, code, is_handshake};

/// What a message costs beside its bytes, in bytes: empty ones have a limit too.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// The WebSocket of a connection.
pub(super) struct Link {
    protocol: websocket::Connection,
    request: RequestId,
    /// Bytes of messages, with their overhead, that the application was given and has not taken.
    held: usize,
    /// The application knows that it is over, or has ended it.
    told_end: bool,
    /// When the next ping is due, if any.
    ping_at: Option<Instant>,
    /// When the pong is, which was asked for.
    pong_by: Option<Instant>,
}

impl Link {
    /// What a request asks for, if it asks for a WebSocket and that is possible here.
    pub(super) fn new<P>(
        head: &RequestHead,
        request: RequestId,
        shared: &Shared<P>,
    ) -> Result<Option<Box<Self>>, HandshakeError> {
        let Some(config) = &shared.config.websocket else { return Ok(None) };
        if !is_handshake(head) {
            return Ok(None);
        }
        let protocol = websocket::Connection::new(head, config.settings)?;
        Ok(Some(Box::new(Self {
            protocol,
            request,
            held: 0,
            told_end: false,
            ping_at: None,
            pong_by: None,
        })))
    }

    pub(super) fn subprotocols(&self) -> &[String] {
        self.protocol.subprotocols()
    }

    /// Reads frames as long as there is room; the result is the code and reason of the end.
    fn read(
        &mut self,
        input: &mut &[u8],
        output: &mut crate::proactor::Outgoing,
        codecs: &mut websocket::Codecs,
        events: &mut std::collections::VecDeque<Event>,
    ) -> Option<(u16, String)> {
        while self.has_room(output.length()) {
            match output.append_with(|out| self.protocol.next_event(input, codecs, out)) {
                Ok(None) => break,
                Ok(Some(websocket::Event::Pong(_))) => self.pong_by = None,
                Ok(Some(websocket::Event::Close { code, reason })) => return Some((code, reason)),
                Ok(Some(message)) => {
                    self.held += message_bytes(&message) + MESSAGE_OVERHEAD_BYTES;
                    events.push_back(Event::WebSocket(self.request, message));
                }
                Err(error) => return Some((error.code(), error.to_string())),
            }
        }
        None
    }

    /// Whether input is to be read on, with that many bytes of output waiting.
    fn has_room(&self, output_bytes: usize) -> bool {
        self.held < READ_BYTES && output_bytes <= HIGH_WATER_BYTES
    }
}

impl Connection {
    /// Accept the WebSocket that the request under way asks for.
    pub(in crate::server) fn accept_websocket<'h, P: Proactor>(
        &mut self,
        subprotocol: Option<&str>,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        shared: &mut Shared<P>,
    ) -> Result<(), SendError> {
        let Some(link) = &mut self.websocket else {
            return Err(SendError::Accept(websocket::AcceptError::NotConnecting));
        };
        shared.open_output(&mut self.output);
        let automatic = shared.headers.at(shared.now);
        let Self { http, output, trace, .. } = self;
        let accepted = output.append_with(|out| {
            let start = out.len();
            link.protocol.accept(subprotocol, headers, &automatic, http, out)?;
            if let (Some(trace), Some(log)) = (trace, &shared.access_log) {
                trace.answer(101, &out[start..], log);
            }
            Ok(())
        });
        accepted.map_err(SendError::Accept)?;
        link.ping_at = ping_interval(shared).map(|interval| shared.now + interval);
        self.read_frames(shared);
        Ok(())
    }

    /// Send a message; `shared_data` is the same bytes, kept where they are.
    pub(in crate::server) fn send_message<P: Proactor>(
        &mut self,
        message: Message<'_>,
        shared_data: Option<Box<dyn Payload>>,
        shared: &mut Shared<P>,
    ) -> Result<Progress, SendError> {
        let Some(link) = &mut self.websocket else { return Err(SendError::Gone) };
        shared.open_output(&mut self.output);
        let Self { output, exchange, trace, .. } = self;
        let codecs = &mut shared.codecs;
        let framed = output.append_with(|out| link.protocol.send(message, codecs, out));
        if let (Some(trace), true) = (trace, framed.is_ok()) {
            trace.give_out(message.length());
        }
        if framed.map_err(SendError::Message)? == Framed::Header {
            match (shared_data, message) {
                (Some(payload), _) => output.append_shared(payload),
                (None, Message::Text(text)) => output.append(text.as_bytes()),
                (None, Message::Binary(bytes)) => output.append(bytes),
            }
        }
        if output.length() > HIGH_WATER_BYTES
            && let Some(exchange) = exchange
        {
            exchange.writing = true;
            return Ok(Progress::Wait);
        }
        Ok(Progress::Ready)
    }

    /// The application ends the connection: nothing of it comes to the application any more.
    pub(in crate::server) fn close_websocket<P: Proactor>(
        &mut self,
        code: u16,
        reason: &str,
        shared: &mut Shared<P>,
    ) -> Result<(), SendError> {
        let Some(link) = &mut self.websocket else { return Err(SendError::Gone) };
        let closed = self.output.append_with(|out| link.protocol.close(code, reason, out));
        closed.map_err(SendError::Message)?;
        link.told_end = true;
        self.leave_exchange(shared);
        self.read_frames(shared);
        Ok(())
    }

    /// The application has taken a message of `length` bytes.
    pub(in crate::server) fn took_message<P: Proactor>(
        &mut self,
        length: usize,
        shared: &mut Shared<P>,
    ) {
        if let Some(link) = &mut self.websocket {
            link.held = link.held.saturating_sub(length + MESSAGE_OVERHEAD_BYTES);
            self.read_frames(shared);
        }
    }

    /// The application is done without having closed.
    pub(super) fn finish_websocket<P: Proactor>(&mut self, shared: &mut Shared<P>) -> Option<Left> {
        let open = self.websocket.as_ref()?.protocol.is_open();
        let closed = open && self.close_websocket(code::INTERNAL_ERROR, "", shared).is_ok();
        closed.then_some(Left::Aborted)
    }

    /// The handshake cannot be answered with yes.
    pub(super) fn refuse_handshake<P: Proactor>(
        &mut self,
        error: HandshakeError,
        shared: &mut Shared<P>,
    ) {
        self.http.close_after_response();
        let body = format!("{error}\n");
        let automatic = shared.headers.at(shared.now);
        let Self { http, output, trace, .. } = self;
        let written = output.append_with(|out| {
            let start = out.len();
            http.start_response(error.status(), error.headers().iter().copied(), &automatic)?;
            http.send_body(body.len(), true, out)?;
            out.extend_from_slice(body.as_bytes());
            if let (Some(trace), Some(log)) = (trace, &shared.access_log) {
                trace.refuse(error.status(), &out[start..], log);
            }
            Ok::<_, ResponseError>(())
        });
        if written.is_err() {
            return self.abort(shared);
        }
        self.input = super::Input::default();
        self.stage = Stage::Lingering;
    }

    /// Bytes of the peer: parsed where the kernel put them, if nothing waits before them.
    pub(super) fn receive_frames<P: Proactor>(&mut self, lease: &Lease, shared: &mut Shared<P>) {
        let ended = if self.input.is_empty() {
            let Shared { proactor, codecs, events, .. } = shared;
            let mut rest = proactor.bytes(lease);
            let Some(link) = &mut self.websocket else { return };
            let ended = link.read(&mut rest, &mut self.output, codecs, events);
            self.input.push(rest);
            ended
        } else {
            self.input.push(shared.proactor.bytes(lease));
            return self.read_frames(shared);
        };
        if let Some((code, reason)) = ended {
            self.end_websocket(code, reason, shared);
        }
    }

    /// Go on with the input there is, if there is room for what it says.
    pub(super) fn read_frames<P: Proactor>(&mut self, shared: &mut Shared<P>) {
        if self.stage != Stage::Open {
            return;
        }
        let Some(link) = &mut self.websocket else { return };
        let mut rest = self.input.rest();
        let ended = link.read(&mut rest, &mut self.output, &mut shared.codecs, &mut shared.events);
        let left = rest.len();
        self.input.keep(left);
        if let Some((code, reason)) = ended {
            self.end_websocket(code, reason, shared);
        } else if self.input_ended && link.has_room(self.output.length()) {
            self.end_websocket(code::ABNORMAL, String::new(), shared);
        }
    }

    /// Nothing more is read or sent: what is in the output goes, and then the connection.
    fn end_websocket<P: Proactor>(&mut self, code: u16, reason: String, shared: &mut Shared<P>) {
        self.stage = Stage::Lingering;
        self.input = super::Input::default();
        self.tell_end(code, reason, shared);
        self.leave_exchange(shared);
        if let (Some(trace), Some(log)) = (&mut self.trace, &mut shared.access_log) {
            if self.output.is_empty() && !self.sending {
                trace.answered_and_sent(shared.now, log);
            } else {
                trace.answered();
            }
        }
    }

    /// Tells the application once, if it knows of the connection at all.
    fn tell_end<P>(&mut self, code: u16, reason: String, shared: &mut Shared<P>) {
        let taken = self.exchange.as_ref().is_some_and(|exchange| exchange.head.is_none());
        if let Some(link) = &mut self.websocket
            && taken
            && !mem::replace(&mut link.told_end, true)
        {
            let event = websocket::Event::Close { code, reason };
            shared.events.push_back(Event::WebSocket(link.request, event));
        }
    }

    /// The connection is lost.
    pub(super) fn lose_websocket<P>(&mut self, shared: &mut Shared<P>) {
        self.tell_end(code::ABNORMAL, String::new(), shared);
        self.websocket = None;
    }

    /// A restart does not wait for messages.
    pub(super) fn drain_websocket<P: Proactor>(&mut self, shared: &mut Shared<P>) {
        if self.websocket.as_ref().is_some_and(|link| link.protocol.is_open()) {
            let reason = "service restart";
            self.tell_end(code::SERVICE_RESTART, reason.to_owned(), shared);
            let closed = self.close_websocket(code::SERVICE_RESTART, reason, shared);
            debug_assert!(closed.is_ok(), "an open connection can be closed");
        }
    }

    /// Whether to arm a receive, where a WebSocket is what decides about it.
    pub(super) fn websocket_wants_input(&self) -> Option<bool> {
        let link = self.websocket.as_ref()?;
        (self.stage == Stage::Open).then(|| {
            if link.protocol.is_open() {
                link.has_room(self.output.length())
            } else {
                // Before the answer, or after our close frame.
                self.exchange.is_none() || self.input.is_empty()
            }
        })
    }

    /// What a WebSocket waits for, from its request to the last close frame.
    pub(super) fn websocket_waits_for(&self) -> Waiting {
        match self.websocket.as_deref() {
            Some(_) if self.exchange.is_none() => Waiting::CloseFrame,
            Some(Link { pong_by: Some(_), .. }) => Waiting::Pong,
            Some(Link { ping_at: Some(_), .. }) => Waiting::NextPing,
            _ => Waiting::Ours,
        }
    }

    /// When a ping or a pong is due.
    pub(super) fn ping_due(&self) -> Option<Instant> {
        let link = self.websocket.as_ref()?;
        link.pong_by.or(link.ping_at)
    }

    /// Time for a ping.
    pub(super) fn send_ping<P: Proactor>(&mut self, shared: &mut Shared<P>) {
        let Some(config) = &shared.config.websocket else { return };
        let (Some(link), output) = (&mut self.websocket, &mut self.output) else { return };
        if output.append_with(|out| link.protocol.ping(b"", out)).is_ok() {
            link.pong_by = config.ping_timeout.map(|timeout| shared.now + timeout);
            link.ping_at = config.ping_interval.map(|interval| shared.now + interval);
        }
    }

    /// No pong came in time: the peer is gone, unless it is we who do not read.
    pub(super) fn miss_pong<P: Proactor>(&mut self, shared: &mut Shared<P>) {
        let output_bytes = self.output.length();
        match &mut self.websocket {
            Some(link) if !link.has_room(output_bytes) => link.pong_by = None,
            _ => self.abort(shared),
        }
    }
}

fn message_bytes(event: &websocket::Event) -> usize {
    match event {
        websocket::Event::Text(text) => text.len(),
        websocket::Event::Binary(bytes) => bytes.len(),
        websocket::Event::Pong(_) | websocket::Event::Close { .. } => 0,
    }
}

fn ping_interval<P>(shared: &Shared<P>) -> Option<Duration> {
    shared.config.websocket.as_ref()?.ping_interval
}
