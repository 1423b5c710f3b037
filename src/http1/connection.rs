//! One connection: a cycle of one request and one response, and then the next.
//!
//! The caller keeps the input: [`Connection::next_event`] consumes from its front, and what is left
//! comes back at the front of the next call. Every step is asked of the table in `state` before
//! anything is written, and a refused one changes nothing.

use super::Limits;
use super::chunked::{self, Decoder};
use super::error::{NotFinished, ProtocolError, ResponseError};
use super::framing::{BodyPart, ResponseFraming, ResponseShape, next_of_length, response_framing};
use super::head::HeadReader;
use super::range::{self, RangeRequest, Selected};
use super::request::{BodyLength, RequestHead, Version};
use super::response::{
    AutomaticHeaders, BodyFrame, ResponseHead, Status, write_early_hints, write_trailers,
};
use super::state::{Request, Response, State, Step};
use std::mem;
use std::ops::Range;

/// What the client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A head; the first event of each cycle.
    Request(RequestHead),
    /// A piece of the body, never empty.
    Body(&'a [u8]),
    /// The request is complete; the last event of each cycle, also where there is no body.
    End,
}

/// What is still to come of a request's body.
#[derive(Clone, Copy, Debug)]
enum Incoming {
    Length(u64),
    Chunked(Decoder),
}

/// The server's side of one connection.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Connection {
    limits: Limits,
    state: State,
    /// Why nothing more can be read, once that is so.
    failure: Option<ProtocolError>,
    /// The head that was understood, and refused for the length of its body.
    refused: Option<Box<RequestHead>>,
    /// Whether this connection takes another request after this cycle, as far as is known.
    keeps_alive: bool,

    head_reader: HeadReader,
    incoming: Incoming,
    /// The client waits for `100 Continue`: asked for, not given, and no body came without it.
    awaits_continue: bool,

    /// The request's version, and whether its method is HEAD: the response depends on them.
    version: Version,
    to_head: bool,
    accepts_trailers: bool,
    /// The part that the client asks for.
    range: Option<Box<RangeRequest>>,

    response: ResponseHead,
    /// Decided when the head is given out.
    framing: ResponseFraming,
    /// The length of all body messages so far.
    sent: u64,
}

impl Connection {
    /// A connection on which nothing happened yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        // Spans within a head are 32 bits wide.
        let head_bytes = limits.head_bytes.min(u32::MAX as usize);
        Self {
            limits: Limits { head_bytes, ..limits },
            state: State::START,
            failure: None,
            refused: None,
            keeps_alive: true,
            head_reader: HeadReader::default(),
            incoming: Incoming::Length(0),
            awaits_continue: false,
            version: Version::Http11,
            to_head: false,
            accepts_trailers: false,
            range: None,
            response: ResponseHead::default(),
            framing: ResponseFraming::UntilClose,
            sent: 0,
        }
    }

    /// The next event, with exactly its bytes consumed from the front of `input`. `None`: read
    /// more (what is left in `input` must be at its front the next time), or, after
    /// [`Event::End`], begin the next cycle first; pipelined bytes stay in `input` untouched.
    ///
    /// # Errors
    /// The client broke the protocol or a limit. From then on every call returns the same error.
    pub fn next_event<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<Event<'a>>, ProtocolError> {
        if self.state.request == Request::Idle {
            let mut head = RequestHead::default();
            let is_there = self.next_head(input, &mut head)?;
            return Ok(is_there.then_some(Event::Request(head)));
        }
        let result = match self.state.request {
            Request::Idle | Request::Ended => Ok(None),
            Request::Body => self.read_body(input),
            Request::Failed => Err(self.failure.unwrap_or(ProtocolError::Truncated)),
        };
        result.inspect_err(|error| self.fail(*error))
    }

    /// As [`Connection::next_event`], where that would return [`Event::Request`]: the head is read
    /// into `head`, whose memory is used again, and `true` says that it is there. In the middle of a
    /// cycle it is `false`. Unless it is `true`, what `head` holds is of no meaning.
    ///
    /// # Errors
    /// As [`Connection::next_event`].
    pub fn next_head(
        &mut self,
        input: &mut &[u8],
        head: &mut RequestHead,
    ) -> Result<bool, ProtocolError> {
        match self.state.request {
            Request::Idle => self.read_head(input, head).inspect_err(|error| self.fail(*error)),
            Request::Body | Request::Ended => Ok(false),
            Request::Failed => Err(self.failure.unwrap_or(ProtocolError::Truncated)),
        }
    }

    /// The head of a request that was refused for the length of its body, which it tells: it has no
    /// event, but is worth a line in a log. Given out once.
    pub fn take_refused_head(&mut self) -> Option<Box<RequestHead>> {
        self.refused.take()
    }

    /// What the client's closing of its side means, with `unconsumed` bytes of input left.
    ///
    /// # Errors
    /// A message was cut. Fine are the time between requests and after the end of one.
    pub fn end_of_input(&self, unconsumed: usize) -> Result<(), ProtocolError> {
        match self.state.request {
            Request::Ended => Ok(()),
            Request::Idle if unconsumed == 0 => Ok(()),
            Request::Idle | Request::Body => Err(ProtocolError::Truncated),
            Request::Failed => Err(self.failure.unwrap_or(ProtocolError::Truncated)),
        }
    }

    /// Tells the client in the answer, if its head was not given out yet, that the connection
    /// closes after it, and takes no further request.
    pub fn close_after_response(&mut self) {
        self.keeps_alive = false;
    }

    /// Appends `100 Continue` if the client waits for it; else nothing. To be called when the
    /// application wants the body, RFC 9110 §10.1.1.
    pub fn write_continue(&mut self, out: &mut Vec<u8>) {
        if self.awaits_continue && matches!(self.state.response, Response::Idle | Response::Pending)
        {
            out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            self.awaits_continue = false;
        }
    }

    /// Appends `103 Early Hints`, RFC 8297, if the client speaks HTTP/1.1 (RFC 9110 §15.2).
    ///
    /// # Errors
    /// A link that cannot be sent, no request to answer, or a response that was started. Nothing was
    /// appended.
    pub fn write_early_hints<'h>(
        &mut self,
        links: impl Iterator<Item = &'h [u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), ResponseError> {
        match (self.state.request, self.state.response) {
            (Request::Idle, _) => Err(ResponseError::WithoutRequest),
            (_, Response::Idle) if self.version == Version::Http10 => Ok(()),
            (_, Response::Idle) => write_early_hints(links, out),
            _ => Err(ResponseError::StartedTwice),
        }
    }

    /// Checks and keeps the head of the response. Nothing of it goes on the wire before the first
    /// [`Connection::send_body`], so that a failing application can still be answered for.
    ///
    /// # Errors
    /// The head cannot be sent, or it is not the time for one. The response is as if not started.
    pub fn start_response<'h>(
        &mut self,
        status: impl Into<Status<'h>>,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        automatic: &AutomaticHeaders<'_>,
    ) -> Result<(), ResponseError> {
        let Some(started) = self.state.after(Step::ResponseStart) else {
            return Err(match self.state.response {
                Response::Idle => ResponseError::WithoutRequest,
                _ => ResponseError::StartedTwice,
            });
        };
        self.response.encode(status.into(), headers, automatic)?;
        self.state = started;
        Ok(())
    }

    /// Makes the [pending](Connection::response_pending) response, if it is the 200 of a GET, the
    /// answer to what the request's Range asks for, RFC 9110 §14.2: 206 or 416, unless the
    /// application has decided about ranges itself. `length` is that of the whole representation in
    /// bytes; returns the part to send.
    pub fn select_range(&mut self, length: u64) -> Range<u64> {
        let head = &mut self.response;
        let decided =
            head.field(b"accept-ranges").is_some() || head.field(b"content-range").is_some();
        let is_whole = head.declared.is_none_or(|declared| declared == length);
        if self.state.response != Response::Pending || head.status != 200 || decided || !is_whole {
            return 0..length;
        }
        head.add(b"accept-ranges", b"bytes");
        let Some(asked) = self.range.take() else { return 0..length };
        if let Some(if_range) = &asked.if_range
            && !range::is_same(if_range, head.field(b"etag"), head.field(b"last-modified"))
        {
            return 0..length;
        }
        let (status, part, described) = match range::select(&asked.range, length) {
            Selected::Whole => return 0..length,
            Selected::Part(part) => {
                let described = format!("bytes {}-{}/{length}", part.start, part.end - 1);
                (206, part, described)
            }
            Selected::Unsatisfiable => (416, 0..0, format!("bytes */{length}")),
        };
        head.become_status(status, part.end - part.start);
        head.add(b"content-range", described.as_bytes());
        part
    }

    /// Forgets a response that is [pending](Connection::response_pending); else does nothing.
    pub fn discard_response(&mut self) {
        if let Some(discarded) = self.state.after(Step::ResponseDiscard) {
            self.state = discarded;
        }
    }

    /// Frames one body message of `length` bytes, the last one if `end`: appends to `prefix` what
    /// goes before the data (with the first message, the head) and says what follows it.
    ///
    /// # Errors
    /// The body does not fit the Content-Length, or it is not the time for one. Nothing was
    /// appended.
    pub fn send_body(
        &mut self,
        length: usize,
        end: bool,
        prefix: &mut Vec<u8>,
    ) -> Result<BodyFrame, ResponseError> {
        match self.state.response {
            Response::Idle => return Err(ResponseError::BodyBeforeStart),
            Response::Ended => return Err(ResponseError::BodyAfterEnd),
            Response::Pending | Response::Body => (),
        }
        let pending = self.state.after(Step::ResponseHead);
        let framing = if pending.is_some() {
            response_framing(ResponseShape {
                status: self.response.status,
                to_head: self.to_head,
                version: self.version,
                declared: self.response.declared,
                first: length as u64,
                is_whole: end,
            })
        } else {
            self.framing
        };
        let sent = self.sent.saturating_add(length as u64);
        check_length(framing, sent, end)?;
        self.sent = sent;
        if let Some(given_out) = pending {
            self.give_out_head(framing, given_out, prefix);
        }
        if end && let Some(ended) = self.state.after(Step::ResponseEnd) {
            self.state = ended;
        }
        Ok(match framing {
            ResponseFraming::Bodiless(_) => BodyFrame { suffix: None },
            ResponseFraming::Length(_) | ResponseFraming::UntilClose => {
                BodyFrame { suffix: Some(b"") }
            }
            ResponseFraming::Chunked => {
                chunked::write_size_line(length, prefix);
                BodyFrame { suffix: Some(chunked::suffix(length, end)) }
            }
        })
    }

    /// Ends the response with trailers, which are sent if its body is chunked and the client takes
    /// them (RFC 9110 §6.5.1), and dropped otherwise.
    ///
    /// # Errors
    /// As [`Connection::send_body`], or a field that cannot be a trailer. Nothing was appended.
    pub fn send_trailers<'h>(
        &mut self,
        fields: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        out: &mut Vec<u8>,
    ) -> Result<(), ResponseError> {
        let mut trailers = Vec::new();
        write_trailers(fields, &mut trailers)?;
        let frame = self.send_body(0, true, out)?;
        if self.framing == ResponseFraming::Chunked && self.accepts_trailers {
            out.extend_from_slice(b"0\r\n");
            out.extend_from_slice(&trailers);
        } else {
            out.extend_from_slice(frame.suffix.unwrap_or_default());
        }
        Ok(())
    }

    /// Appends a whole answer of ours: a line of text, and the connection closes after it. For a
    /// request that cannot be served, or none that came in time.
    ///
    /// # Errors
    /// A part of another answer was given out already, or the status is none.
    pub fn write_error(
        &mut self,
        status: u16,
        message: &str,
        automatic: &AutomaticHeaders<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ResponseError> {
        let ended = self.state.after(Step::ResponseError).ok_or(ResponseError::StartedTwice)?;
        let content_type: (&[u8], &[u8]) = (b"content-type", b"text/plain; charset=utf-8");
        // RFC 9110 §15.6.4: it is worth trying again, and in a moment.
        let retry_after: Option<(&[u8], &[u8])> = (status == 503).then_some((b"retry-after", b"1"));
        let headers = std::iter::once(content_type).chain(retry_after);
        self.response.encode(status.into(), headers, automatic)?;
        self.state = ended;
        self.keeps_alive = false;
        let framing = ResponseFraming::Length(message.len() as u64 + 1);
        self.response.finish(framing, Some(b"close"), out);
        if !self.to_head {
            out.extend_from_slice(message.as_bytes());
            out.push(b'\n');
        }
        Ok(())
    }

    /// Appends `101 Switching Protocols` with `headers`, of which `upgrade` is one, and the
    /// `connection: upgrade` that belongs to it (RFC 9110 §7.8). This connection takes no further
    /// request; what follows in the input is for the other protocol.
    ///
    /// # Errors
    /// The head cannot be sent, the request has not [ended](Event::End), or a response was
    /// started. Nothing was appended.
    pub fn switch_protocol<'h>(
        &mut self,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        automatic: &AutomaticHeaders<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ResponseError> {
        let Some(switched) = self.state.after(Step::ResponseSwitch) else {
            return Err(match self.state.response {
                Response::Idle => ResponseError::WithoutRequest,
                _ => ResponseError::StartedTwice,
            });
        };
        self.response.encode_switch(headers, automatic)?;
        self.state = switched;
        self.keeps_alive = false;
        self.response.finish(ResponseFraming::Bodiless(None), Some(b"upgrade"), out);
        Ok(())
    }

    /// Begins the next cycle on this connection.
    ///
    /// # Errors
    /// Request and response have not both ended, or the connection closes after this response.
    pub fn next_cycle(&mut self) -> Result<(), NotFinished> {
        match self.state.after(Step::NextCycle) {
            Some(next) if self.keeps_alive => {
                self.state = next;
                self.head_reader = HeadReader::default();
                self.incoming = Incoming::Length(0);
                self.to_head = false;
                self.sent = 0;
                self.response.rest();
                Ok(())
            }
            _ => Err(NotFinished),
        }
    }

    /// Whether nothing of the next request was returned as an event.
    #[must_use]
    pub fn is_between_requests(&self) -> bool {
        self.state.request == Request::Idle
    }

    /// Whether [`Event::End`] was returned.
    #[must_use]
    pub fn request_ended(&self) -> bool {
        self.state.request == Request::Ended
    }

    /// Whether the application has started its response, or we have sent one of ours.
    #[must_use]
    pub fn response_started(&self) -> bool {
        self.state.response != Response::Idle
    }

    /// Whether the response was started and no byte of it was given out: it can be discarded.
    #[must_use]
    pub fn response_pending(&self) -> bool {
        self.state.response == Response::Pending
    }

    /// The status of the response that was started, or of our own.
    #[must_use]
    pub fn response_status(&self) -> u16 {
        self.response.status
    }

    /// Whether all of the response was given out.
    #[must_use]
    pub fn response_ended(&self) -> bool {
        self.state.response == Response::Ended
    }

    /// Bytes of the request's body that are still to come; `None` where only the chunks will tell.
    #[must_use]
    pub fn body_remaining(&self) -> Option<u64> {
        match (self.state.request, self.incoming) {
            (Request::Body, Incoming::Length(remaining)) => Some(remaining),
            (Request::Body, Incoming::Chunked(_)) => None,
            _ => Some(0),
        }
    }

    /// Whether this connection takes another request after this response. Final once the response
    /// has ended.
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        self.keeps_alive
    }

    /// The client broke the protocol: nothing more can be read.
    #[cold]
    fn fail(&mut self, error: ProtocolError) {
        if let Some(failed) = self.state.after(Step::RequestFail) {
            self.state = failed;
            self.failure = Some(error);
            self.keeps_alive = false;
        }
    }

    fn read_head(
        &mut self,
        input: &mut &[u8],
        head: &mut RequestHead,
    ) -> Result<bool, ProtocolError> {
        if input.is_empty() || !self.head_reader.next(input, &self.limits, head)? {
            return Ok(false);
        }
        self.version = head.version();
        self.to_head = head.is_head();
        self.accepts_trailers = head.accepts_trailers();
        self.range = head.range_request();
        self.keeps_alive &= head.keeps_alive();
        self.incoming = match head.body_length() {
            BodyLength::None => Incoming::Length(0),
            BodyLength::Length(length)
                if self.limits.body_bytes.is_some_and(|max| length > max) =>
            {
                self.refused = Some(Box::new(mem::take(head)));
                return Err(ProtocolError::BodyTooLong);
            }
            BodyLength::Length(length) => Incoming::Length(length),
            BodyLength::Chunked => Incoming::Chunked(Decoder::new()),
        };
        self.awaits_continue = head.expects_continue();
        if let Some(begun) = self.state.after(Step::RequestHead) {
            self.state = begun;
        }
        Ok(true)
    }

    fn read_body<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, ProtocolError> {
        if !input.is_empty() {
            // A client that sends its body no longer waits to be told.
            self.awaits_continue = false;
        }
        let found = match &mut self.incoming {
            Incoming::Length(remaining) => next_of_length(remaining, input),
            Incoming::Chunked(decoder) => decoder.next(input, &self.limits)?,
        };
        Ok(match found {
            BodyPart::Data(data) => Some(Event::Body(data)),
            BodyPart::NeedMore => None,
            BodyPart::End => {
                if let Some(ended) = self.state.after(Step::RequestEnd) {
                    self.state = ended;
                }
                Some(Event::End)
            }
        })
    }

    /// Appends the head with its last fields: framing, and whether the connection lives on.
    fn give_out_head(&mut self, framing: ResponseFraming, state: State, prefix: &mut Vec<u8>) {
        // A client that was never told to send its body may send it or not, RFC 9110 §10.1.1: what
        // follows on the connection would be a guess.
        if self.response.close || self.awaits_continue || framing == ResponseFraming::UntilClose {
            self.keeps_alive = false;
        }
        let option: Option<&[u8]> = match (self.keeps_alive, self.version) {
            (false, _) => Some(b"close"),
            (true, Version::Http10) => Some(b"keep-alive"),
            (true, Version::Http11) => None,
        };
        self.response.finish(framing, option, prefix);
        self.framing = framing;
        self.state = state;
    }
}

/// Whether `sent` bytes in all fit the promise of the head.
fn check_length(framing: ResponseFraming, sent: u64, end: bool) -> Result<(), ResponseError> {
    match framing {
        ResponseFraming::Length(declared) if sent > declared => {
            Err(ResponseError::BodyTooLong { declared, sent })
        }
        ResponseFraming::Length(declared) if end && sent < declared => {
            Err(ResponseError::BodyTooShort { declared, sent })
        }
        _ => Ok(()),
    }
}
