//! One connection, from the request that asks for it to the end: frames in, messages out, and the
//! other way round.
//!
//! The caller keeps the input: [`Connection::next_event`] consumes from its front, and what is left
//! (a part of a frame's header, or of a control frame: less than 140 bytes) comes back at the front
//! of the next call. Payload is taken as it comes. Answers that the protocol asks for are appended
//! to the output in the same call: never more bytes than were consumed, but for one close frame.
//! So a caller that does not read on while its output is full is not flooded by pings.
//!
//! Every step is asked of the table in `state` before anything is written, and a refused one
//! changes nothing.

use super::Settings;
use super::close;
use super::deflate::{Codecs, Stream};
use super::error::{AcceptError, HandshakeError, ProtocolError, SendError};
use super::frame::{CONTROL_BYTES_MAX, FrameHeader, Mask, Opcode, write_header};
use super::handshake::Offer;
use super::message::Incoming;
use super::state::{State, Step};
use crate::http1::{self, AutomaticHeaders, RequestHead};

/// What the client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole text message.
    Text(String),
    /// A whole binary message.
    Binary(Vec<u8>),
    /// The payload of a pong, asked for or not (RFC 6455 §5.5.3).
    Pong(Vec<u8>),
    /// The client's close frame; the last event. Its answer is in the output, unless it is itself
    /// an answer: the connection is to be closed when the output has gone (RFC 6455 §7.1.1).
    Close {
        /// The close code, [`close::code::NO_STATUS`] where the client gave none.
        code: u16,
        /// Empty where the client gave none.
        reason: String,
    },
}

/// A message of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Text.
    Text(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
}

impl<'a> Message<'a> {
    /// Number of bytes.
    #[must_use]
    pub fn length(self) -> usize {
        self.parts().1.len()
    }

    fn parts(self) -> (Opcode, &'a [u8]) {
        match self {
            Self::Text(text) => (Opcode::Text, text.as_bytes()),
            Self::Binary(bytes) => (Opcode::Binary, bytes),
        }
    }
}

/// What [`Connection::send`] has appended to the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Framed {
    /// The frame's header: the message itself has to follow as it is, copied or not.
    Header,
    /// The whole frame, compressed.
    Whole,
}

/// What the next bytes of the input are.
#[derive(Clone, Copy, Debug)]
enum Place {
    Header,
    Payload { remaining: u64, mask: Mask, fin: bool },
}

/// The server's side of one connection.
#[derive(Debug)]
pub struct Connection {
    max_message_bytes: usize,
    state: State,
    /// Why nothing more can be read, once that is so.
    failure: Option<ProtocolError>,
    /// Until the connection is accepted or rejected.
    offer: Option<Box<Offer>>,
    /// If both sides have agreed on compression, until the close.
    deflate: Option<Box<Stream>>,
    place: Place,
    /// The message of which a part has come.
    incoming: Option<Incoming>,
}

impl Connection {
    /// The connection that a request asks for, which [`super::is_handshake`].
    ///
    /// # Errors
    /// The request is to be answered with the error's status and headers.
    pub fn new(head: &RequestHead, settings: Settings) -> Result<Self, HandshakeError> {
        let offer = Offer::new(head, settings.deflate)?;
        Ok(Self {
            max_message_bytes: settings.max_message_bytes,
            state: State::Connecting,
            failure: None,
            offer: Some(Box::new(offer)),
            deflate: None,
            place: Place::Header,
            incoming: None,
        })
    }

    /// The subprotocols that the client offers, in its order of preference; none once the
    /// connection was accepted or rejected.
    #[must_use]
    pub fn subprotocols(&self) -> &[String] {
        self.offer.as_ref().map_or(&[], |offer| &offer.subprotocols)
    }

    /// Accepts the connection: `http`, on which the request came, appends its last response, with
    /// `headers` of the application's.
    ///
    /// # Errors
    /// The answer cannot be sent, or it is not the time for one. Nothing was appended.
    pub fn accept<'h>(
        &mut self,
        subprotocol: Option<&str>,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        automatic: &AutomaticHeaders<'_>,
        http: &mut http1::Connection,
        out: &mut Vec<u8>,
    ) -> Result<(), AcceptError> {
        let (Some(open), Some(offer)) = (self.state.after(Step::Accept), &self.offer) else {
            return Err(AcceptError::NotConnecting);
        };
        offer
            .answer(subprotocol, headers, |fields| {
                http.switch_protocol(fields.iter().copied(), automatic, out)
            })?
            .map_err(AcceptError::Response)?;
        self.deflate = offer.deflate.map(|agreed| Box::new(Stream::new(agreed)));
        self.offer = None;
        self.state = open;
        Ok(())
    }

    /// The request is answered by plain HTTP instead. Does nothing once the connection was
    /// accepted.
    pub fn reject(&mut self) {
        if let Some(closed) = self.state.after(Step::Reject) {
            self.state = closed;
            self.offer = None;
        }
    }

    /// The next event, with its bytes consumed from the front of `input`; what the protocol has to
    /// answer is appended to `out`. `None`: read more (what is left in `input` must be at its front
    /// the next time), or accept the connection first.
    ///
    /// # Errors
    /// The client broke the protocol or a limit. It was told in `out`, unless a close frame was
    /// sent before; the connection is to be closed when that has gone. From then on every call
    /// returns the same error.
    pub fn next_event(
        &mut self,
        input: &mut &[u8],
        codecs: &mut Codecs,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, ProtocolError> {
        match self.state {
            State::Connecting => Ok(None),
            State::Closed => {
                // RFC 6455 §1.4: what follows a close is ignored.
                *input = &[];
                self.failure.map_or(Ok(None), Err)
            }
            State::Open | State::Closing => {
                let result = self.read(input, codecs, out);
                if let Err(error) = result {
                    self.fail(error, out);
                }
                result
            }
        }
    }

    /// What the client's closing of its side means.
    ///
    /// # Errors
    /// There was no close frame, or the client broke the protocol before.
    pub fn end_of_input(&self) -> Result<(), ProtocolError> {
        match (self.state, self.failure) {
            (State::Closed, None) => Ok(()),
            (_, failure) => Err(failure.unwrap_or(ProtocolError::Truncated)),
        }
    }

    /// Frames one message: appends what goes before it, or all of it, to `out`.
    ///
    /// # Errors
    /// It is not the time for messages.
    pub fn send(
        &mut self,
        message: Message<'_>,
        codecs: &mut Codecs,
        out: &mut Vec<u8>,
    ) -> Result<Framed, SendError> {
        self.step(Step::Send)?;
        let (opcode, data) = message.parts();
        if let Some(stream) = &mut self.deflate {
            let mut compressed = codecs.take_scratch();
            let shrinks = stream.compress(data, codecs, &mut compressed);
            if shrinks {
                write_header(opcode, true, compressed.len(), out);
                out.extend_from_slice(&compressed);
            }
            codecs.keep_scratch(compressed);
            if shrinks {
                return Ok(Framed::Whole);
            }
        }
        write_header(opcode, false, data.len(), out);
        Ok(Framed::Header)
    }

    /// Appends a ping. Its [`Event::Pong`] has the same payload, at most 125 bytes.
    ///
    /// # Errors
    /// It is not the time for pings, or the payload is too long.
    pub fn ping(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), SendError> {
        if payload.len() > CONTROL_BYTES_MAX {
            return Err(SendError::TooLong(payload.len()));
        }
        self.step(Step::Send)?;
        write_control(Opcode::Ping, &[payload], out);
        Ok(())
    }

    /// Appends a close frame; what the client still sends is dropped until its [`Event::Close`].
    /// `reason` has at most 123 bytes.
    ///
    /// # Errors
    /// It is not the time for a close, or it cannot be sent.
    pub fn close(&mut self, code: u16, reason: &str, out: &mut Vec<u8>) -> Result<(), SendError> {
        close::check(code, reason)?;
        self.step(Step::SendClose)?;
        self.incoming = None;
        self.deflate = None;
        write_control(Opcode::Close, &[&code.to_be_bytes(), reason.as_bytes()], out);
        Ok(())
    }

    /// Whether messages can be sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether nothing more is to be sent or read: the close handshake is complete, the client
    /// broke the protocol, or the connection was rejected.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    fn step(&mut self, step: Step) -> Result<(), SendError> {
        self.state = self.state.after(step).ok_or(match self.state {
            State::Connecting => SendError::NotAccepted,
            _ => SendError::Closed,
        })?;
        Ok(())
    }

    /// Reads frames up to the next event, or to the end of the input.
    fn read(
        &mut self,
        input: &mut &[u8],
        codecs: &mut Codecs,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, ProtocolError> {
        loop {
            let event = match self.place {
                Place::Header => {
                    // After our close frame nothing is decompressed, but frames still say it.
                    let takes_compressed = self.deflate.is_some() || self.state == State::Closing;
                    let Some((header, length)) = FrameHeader::parse(input, takes_compressed)?
                    else {
                        return Ok(None);
                    };
                    if header.opcode.is_control() {
                        let Some(payload) = control_payload(&header, length, input) else {
                            return Ok(None);
                        };
                        self.control(header.opcode, payload.as_slice(), out)?
                    } else {
                        self.begin_frame(&header)?;
                        *input = &input[length..];
                        None
                    }
                }
                Place::Payload { remaining, .. } if remaining > 0 && input.is_empty() => {
                    return Ok(None);
                }
                Place::Payload { remaining, mask, fin } => {
                    self.payload(remaining, mask, fin, input, codecs)?
                }
            };
            if event.is_some() {
                return Ok(event);
            }
            if self.state == State::Closed {
                *input = &[];
                return Ok(None);
            }
        }
    }

    /// A frame of a message begins.
    fn begin_frame(&mut self, header: &FrameHeader) -> Result<(), ProtocolError> {
        if self.state == State::Open {
            let incoming = match (header.opcode, &mut self.incoming) {
                (Opcode::Continuation, None) => return Err(ProtocolError::NothingToContinue),
                (Opcode::Continuation, Some(incoming)) => incoming,
                (_, Some(_)) => return Err(ProtocolError::UnfinishedMessage),
                (opcode, empty) => {
                    empty.insert(Incoming::new(opcode == Opcode::Text, header.compressed))
                }
            };
            incoming.expect(header.length, self.max_message_bytes)?;
        }
        self.place =
            Place::Payload { remaining: header.length, mask: header.mask, fin: header.fin };
        Ok(())
    }

    /// Takes what there is of a frame's payload.
    fn payload(
        &mut self,
        remaining: u64,
        mut mask: Mask,
        fin: bool,
        input: &mut &[u8],
        codecs: &mut Codecs,
    ) -> Result<Option<Event>, ProtocolError> {
        // More than fits in memory is more than there is of input.
        let wanted = usize::try_from(remaining).unwrap_or(usize::MAX);
        let (piece, rest) = input.split_at(wanted.min(input.len()));
        *input = rest;
        let remaining = remaining - piece.len() as u64;
        let ends_message = remaining == 0 && fin;
        // None: we have sent our close frame.
        if let Some(incoming) = &mut self.incoming {
            let deflate = self.deflate.as_deref_mut().map(|stream| (stream, codecs));
            incoming.push(piece, &mut mask, ends_message, self.max_message_bytes, deflate)?;
        }
        if remaining > 0 {
            self.place = Place::Payload { remaining, mask, fin };
            return Ok(None);
        }
        self.place = Place::Header;
        match &mut self.incoming {
            incoming if fin => incoming.take().map(Incoming::finish).transpose(),
            _ => Ok(None),
        }
    }

    /// A whole control frame has come.
    fn control(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, ProtocolError> {
        match opcode {
            Opcode::Ping if self.state == State::Open => {
                write_control(Opcode::Pong, &[payload], out);
                Ok(None)
            }
            Opcode::Pong if self.state == State::Open => Ok(Some(Event::Pong(payload.to_vec()))),
            Opcode::Close => {
                let (code, reason) = close::read(payload)?;
                if self.state == State::Open {
                    // RFC 6455 §5.5.1: the answer has the same code; without one, none.
                    let code = &payload[..payload.len().min(2)];
                    write_control(Opcode::Close, &[code], out);
                }
                self.end(Step::ReceiveClose);
                Ok(Some(Event::Close { code, reason }))
            }
            _ => Ok(None),
        }
    }

    /// The client broke the protocol: say so, if we may, and read no further.
    fn fail(&mut self, error: ProtocolError, out: &mut Vec<u8>) {
        if self.state == State::Open {
            let reason = error.sentence().as_bytes();
            write_control(Opcode::Close, &[&error.code().to_be_bytes(), reason], out);
        }
        self.failure = Some(error);
        self.end(Step::Fail);
    }

    fn end(&mut self, step: Step) {
        if let Some(closed) = self.state.after(step) {
            self.state = closed;
        }
        self.incoming = None;
        self.deflate = None;
    }
}

/// The payload of a control frame, unmasked.
struct ControlPayload {
    bytes: [u8; CONTROL_BYTES_MAX],
    length: usize,
}

impl ControlPayload {
    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Consumes a control frame from the front of `input`, if it is all there.
fn control_payload(
    header: &FrameHeader,
    header_bytes: usize,
    input: &mut &[u8],
) -> Option<ControlPayload> {
    let length = usize::try_from(header.length).ok()?;
    let masked = input.get(header_bytes..header_bytes + length)?;
    *input = &input[header_bytes + length..];
    let mut payload = ControlPayload { bytes: [0; CONTROL_BYTES_MAX], length };
    payload.bytes[..length].copy_from_slice(masked);
    let mut mask = header.mask;
    mask.apply(&mut payload.bytes[..length]);
    Some(payload)
}

/// Appends a control frame with `parts` as its payload.
fn write_control(opcode: Opcode, parts: &[&[u8]], out: &mut Vec<u8>) {
    write_header(opcode, false, parts.iter().map(|part| part.len()).sum(), out);
    for part in parts {
        out.extend_from_slice(part);
    }
}
