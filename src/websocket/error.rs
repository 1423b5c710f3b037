//! What went wrong, by whose fault: the client's ([`HandshakeError`], [`ProtocolError`]) or the
//! application's ([`AcceptError`], [`SendError`]).

use super::close::code;
use crate::http1::ResponseError;
use std::fmt;

/// An opening handshake that cannot be answered with yes, whatever the application wants.
///
/// `Display` is one short sentence that shows nothing of the request and may be sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// No Sec-WebSocket-Version, or another one than 13, RFC 6455 §4.2.1 and §4.4.
    UnsupportedVersion,
    /// Not one Sec-WebSocket-Key that is 16 bytes in base64, RFC 6455 §4.2.1.
    InvalidKey,
    /// A Sec-WebSocket-Protocol that is no list of tokens, RFC 6455 §4.1.
    InvalidSubprotocols,
    /// A Sec-WebSocket-Extensions that does not follow the grammar, RFC 6455 §9.1.
    InvalidExtensions,
    /// The request has a body. What follows the head has to be frames.
    HasBody,
}

impl HandshakeError {
    /// The status of the answer.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::UnsupportedVersion => 426,
            _ => 400,
        }
    }

    /// Headers that belong to the answer: what the client may try instead, RFC 6455 §4.4 and
    /// RFC 9110 §15.5.22.
    #[must_use]
    pub fn headers(self) -> &'static [(&'static [u8], &'static [u8])] {
        match self {
            Self::UnsupportedVersion => &[
                (b"sec-websocket-version", b"13"),
                (b"upgrade", b"websocket"),
                (b"connection", b"upgrade"),
            ],
            _ => &[],
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::UnsupportedVersion => "only version 13 of the WebSocket protocol is supported",
            Self::InvalidKey => "the Sec-WebSocket-Key is not 16 bytes in base64",
            Self::InvalidSubprotocols => "the Sec-WebSocket-Protocol is not a list of tokens",
            Self::InvalidExtensions => "the Sec-WebSocket-Extensions is invalid",
            Self::HasBody => "a WebSocket handshake has no body",
        })
    }
}

impl std::error::Error for HandshakeError {}

/// A client's misdeed on an accepted connection, one variant each. It ends the connection.
///
/// `Display` is one short sentence; it is the reason in the close frame that the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// A reserved bit that no agreed extension uses, RFC 6455 §5.2; or the bit of a compressed
    /// message on a frame that does not begin one, RFC 7692 §6.
    ReservedBit,
    /// An opcode without meaning, RFC 6455 §5.2.
    UnknownOpcode,
    /// A frame without a mask, RFC 6455 §5.1.
    NotMasked,
    /// A length that is not in its shortest form, or beyond 63 bits, RFC 6455 §5.2.
    InvalidLength,
    /// A control frame in fragments, RFC 6455 §5.5.
    FragmentedControl,
    /// A control frame of more than 125 bytes, RFC 6455 §5.5.
    ControlTooLong,
    /// A continuation of no message, RFC 6455 §5.4.
    NothingToContinue,
    /// A new message within another one, RFC 6455 §5.4.
    UnfinishedMessage,
    /// A text, or a reason to close, that is not UTF-8, RFC 6455 §8.1.
    InvalidUtf8,
    /// Compressed data that is not DEFLATE, RFC 7692 §7.2.2.
    InvalidDeflate,
    /// A close frame with half a code, or with one that is not for the wire, RFC 6455 §7.4.
    InvalidClose,
    /// More bytes than [`super::Settings::max_message_bytes`].
    MessageTooLong,
    /// The client closed its side without a close frame.
    Truncated,
}

impl ProtocolError {
    /// The close code of this misdeed, RFC 6455 §7.4.1.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::InvalidUtf8 | Self::InvalidDeflate => code::INVALID_PAYLOAD,
            Self::MessageTooLong => code::TOO_LONG,
            Self::Truncated => code::ABNORMAL,
            _ => code::PROTOCOL_ERROR,
        }
    }

    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::ReservedBit => "a reserved bit is set",
            Self::UnknownOpcode => "the opcode is unknown",
            Self::NotMasked => "a frame is not masked",
            Self::InvalidLength => "the length of a frame is invalid",
            Self::FragmentedControl => "a control frame is fragmented",
            Self::ControlTooLong => "a control frame is too long",
            Self::NothingToContinue => "there is no message to continue",
            Self::UnfinishedMessage => "a message begins within another",
            Self::InvalidUtf8 => "the text is not valid UTF-8",
            Self::InvalidDeflate => "the compressed data is invalid",
            Self::InvalidClose => "the close frame is invalid",
            Self::MessageTooLong => "the message is too long",
            Self::Truncated => "the connection was closed without a close frame",
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.sentence())
    }
}

impl std::error::Error for ProtocolError {}

/// The application's fault: a connection that cannot be accepted like that. Nothing was written,
/// and it may be accepted otherwise or rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// The connection was accepted or rejected before.
    NotConnecting,
    /// A subprotocol that the client did not offer; the name.
    NotOffered(String),
    /// A header that the handshake itself is made of; the name.
    ReservedHeader(String),
    /// Another header that cannot be sent.
    Response(ResponseError),
}

impl fmt::Display for AcceptError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnecting => {
                formatter.write_str("the WebSocket connection was accepted or rejected before")
            }
            Self::NotOffered(name) => {
                write!(formatter, "expected a subprotocol that the client offers, found {name:?}")
            }
            Self::ReservedHeader(name) => write!(
                formatter,
                "expected headers beside those of the WebSocket handshake, found {name:?}"
            ),
            Self::Response(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for AcceptError {}

/// The application's fault, or its bad luck: something that cannot be sent. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The connection was not accepted yet.
    NotAccepted,
    /// A close frame was sent or received before, or the client broke the protocol.
    Closed,
    /// A close code that may not be sent, RFC 6455 §7.4; the code.
    InvalidCode(u16),
    /// More bytes than a control frame has room for (RFC 6455 §5.5): 125 for a ping, 123 for the
    /// reason of a close; the length in bytes.
    TooLong(usize),
}

impl fmt::Display for SendError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAccepted => {
                formatter.write_str("the WebSocket connection was not accepted yet")
            }
            Self::Closed => formatter.write_str("the WebSocket connection is closed"),
            Self::InvalidCode(code) => write!(
                formatter,
                "expected a close code of 1000-1003, 1007-1014 or 3000-4999, found {code}"
            ),
            Self::TooLong(length) => write!(
                formatter,
                "expected at most 125 bytes in a ping and 123 in a close reason, found {length}"
            ),
        }
    }
}

impl std::error::Error for SendError {}
