//! What went wrong, by whose fault: the client's ([`ProtocolError`]), the application's
//! ([`ResponseError`]), or our own caller's ([`NotFinished`]).

use std::fmt;

/// A client's misdeed, one variant each. It ends the connection's reading side.
///
/// `Display` is one short sentence that shows nothing of the request and may be sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// A line feed without a carriage return before it, RFC 9112 §2.2.
    BareLineFeed,
    /// A carriage return without a line feed after it, RFC 9112 §2.2.
    BareCarriageReturn,
    /// A control character in the head, RFC 9110 §5.5.
    ControlCharacter,
    /// More empty lines before a request line than anyone needs, RFC 9112 §2.2.
    EmptyLines,
    /// Not `method SP target SP version`, RFC 9112 §3.
    MalformedRequestLine,
    /// A method that is not a token, RFC 9110 §9.1.
    InvalidMethod,
    /// CONNECT is for proxies, RFC 9110 §9.3.6.
    ConnectMethod,
    /// A target of none of the four forms, or with a character that no target has, RFC 9112 §3.2.
    InvalidTarget,
    /// A fragment in the target, RFC 9112 §3.2.
    FragmentInTarget,
    /// The asterisk-form with a method other than OPTIONS, RFC 9112 §3.2.4.
    AsteriskWithoutOptions,
    /// An absolute-form of a scheme other than http and https, or with a bad authority.
    InvalidAbsoluteTarget,
    /// More bytes than [`super::Limits::target_bytes`].
    TargetTooLong,
    /// What stands where `HTTP/1.1` should is no version, RFC 9112 §2.3.
    MalformedVersion,
    /// A version other than 1.0 and 1.1.
    UnsupportedVersion,
    /// More bytes than [`super::Limits::head_bytes`].
    HeadTooLong,
    /// More lines than [`super::Limits::header_count`].
    TooManyHeaders,
    /// A header line that starts with white space (line folding), RFC 9112 §5.2 and §2.2.
    FoldedHeader,
    /// White space between a header's name and the colon, RFC 9112 §5.1.
    SpaceBeforeColon,
    /// A header line without a colon.
    HeaderWithoutColon,
    /// A header name that is not a token, RFC 9110 §5.1.
    InvalidHeaderName,
    /// HTTP/1.1 without a Host, RFC 9112 §3.2.
    MissingHost,
    /// More than one Host, RFC 9112 §3.2.
    DuplicateHost,
    /// A Host that is no host, RFC 9112 §3.2.
    InvalidHost,
    /// An expectation other than 100-continue, RFC 9110 §10.1.1.
    UnknownExpectation,
    /// Transfer-Encoding in a message of HTTP/1.0, RFC 9112 §6.1.
    TransferEncodingInHttp10,
    /// Transfer-Encoding together with Content-Length, RFC 9112 §6.3.
    TransferEncodingAndLength,
    /// A transfer coding before `chunked` that we do not decode, RFC 9112 §6.1.
    UnknownTransferCoding,
    /// A Transfer-Encoding that does not end in exactly one `chunked`, RFC 9112 §6.3.
    ChunkedNotFinal,
    /// More than one Content-Length, even of the same value.
    DuplicateContentLength,
    /// A Content-Length that is not a number, or too large a one.
    InvalidContentLength,
    /// More bytes than [`super::Limits::body_bytes`].
    BodyTooLong,
    /// A chunk size that is not a hexadecimal number, RFC 9112 §7.1.
    InvalidChunkSize,
    /// A chunk size that no 64-bit number holds.
    ChunkSizeOverflow,
    /// A chunk extension that does not follow the grammar, RFC 9112 §7.1.1.
    InvalidChunkExtension,
    /// A chunk's size line has more bytes than [`super::Limits::chunk_line_bytes`].
    ChunkLineTooLong,
    /// The chunk extensions of a body outweigh its data, RFC 9112 §7.1.1.
    ChunkExtensionsTooLong,
    /// A chunk's data is not followed by a line end where its size says so.
    ChunkWithoutEnd,
    /// A trailer line that is no field line, RFC 9112 §7.1.2.
    InvalidTrailer,
    /// More bytes than [`super::Limits::trailer_bytes`].
    TrailersTooLong,
    /// The client closed its side within a message.
    Truncated,
}

impl ProtocolError {
    /// The status that an answer to this misdeed has, RFC 9110 §15.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::BodyTooLong => 413,
            Self::TargetTooLong => 414,
            Self::UnknownExpectation => 417,
            Self::HeadTooLong | Self::TooManyHeaders | Self::TrailersTooLong => 431,
            Self::ConnectMethod | Self::UnknownTransferCoding => 501,
            Self::UnsupportedVersion => 505,
            _ => 400,
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::BareLineFeed => "a line ends without a carriage return",
            Self::BareCarriageReturn => "a carriage return is not followed by a line feed",
            Self::ControlCharacter => "the head contains a control character",
            Self::EmptyLines => "too many empty lines before the request line",
            Self::MalformedRequestLine => "the request line is not `method target version`",
            Self::InvalidMethod => "the method is not a token",
            Self::ConnectMethod => "the method CONNECT is not implemented",
            Self::InvalidTarget => "the request target is invalid",
            Self::FragmentInTarget => "the request target contains a fragment",
            Self::AsteriskWithoutOptions => "the request target `*` is only for OPTIONS",
            Self::InvalidAbsoluteTarget => "the request target is not a valid http or https URI",
            Self::TargetTooLong => "the request target is too long",
            Self::MalformedVersion => "the request line does not end in an HTTP version",
            Self::UnsupportedVersion => "only HTTP/1.0 and HTTP/1.1 are supported",
            Self::HeadTooLong => "the request's header section is too long",
            Self::TooManyHeaders => "the request has too many header fields",
            Self::FoldedHeader => "a header line starts with white space",
            Self::SpaceBeforeColon => "a header name is followed by white space",
            Self::HeaderWithoutColon => "a header line has no colon",
            Self::InvalidHeaderName => "a header name is not a token",
            Self::MissingHost => "the Host header is missing",
            Self::DuplicateHost => "there is more than one Host header",
            Self::InvalidHost => "the Host header is invalid",
            Self::UnknownExpectation => "only the expectation 100-continue is supported",
            Self::TransferEncodingInHttp10 => "HTTP/1.0 has no Transfer-Encoding",
            Self::TransferEncodingAndLength => {
                "Transfer-Encoding and Content-Length exclude each other"
            }
            Self::UnknownTransferCoding => "only the transfer coding chunked is implemented",
            Self::ChunkedNotFinal => "Transfer-Encoding does not end in one chunked",
            Self::DuplicateContentLength => "there is more than one Content-Length header",
            Self::InvalidContentLength => "the Content-Length is not a valid number",
            Self::BodyTooLong => "the request body is too long",
            Self::InvalidChunkSize => "a chunk size is not a hexadecimal number",
            Self::ChunkSizeOverflow => "a chunk size is too large",
            Self::InvalidChunkExtension => "a chunk extension is malformed",
            Self::ChunkLineTooLong => "the size line of a chunk is too long",
            Self::ChunkExtensionsTooLong => "the chunk extensions outweigh the data",
            Self::ChunkWithoutEnd => "a chunk does not end where its size says",
            Self::InvalidTrailer => "a trailer is not a valid header line",
            Self::TrailersTooLong => "the trailer section is too long",
            Self::Truncated => "the connection was closed within a request",
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.sentence())
    }
}

impl std::error::Error for ProtocolError {}

/// The application's fault: an answer that cannot be put on the wire. Nothing of the refused step
/// was written, and the state is as before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// A status that is not a number of three digits.
    InvalidStatus(u16),
    /// A 1xx status, which cannot be final ([`super::Connection::switch_protocol`] sends 101).
    InformationalStatus(u16),
    /// A reason phrase with control characters.
    InvalidReason,
    /// A header name that is not a token; the name, with what cannot be shown escaped.
    InvalidHeaderName(String),
    /// A header value with a carriage return, line feed or NUL; the header's name.
    InvalidHeaderValue(String),
    /// A trailer of which a recipient must know before the content; its name.
    ForbiddenTrailer(String),
    /// A Content-Length that is not a number; the value, with what cannot be shown escaped.
    InvalidContentLength(String),
    /// More than one Content-Length.
    DuplicateContentLength,
    /// The response was started although there is no request to answer.
    WithoutRequest,
    /// The response was started a second time, or after a part of another answer was given out.
    StartedTwice,
    /// A body came before the response was started.
    BodyBeforeStart,
    /// A body came after the response had ended.
    BodyAfterEnd,
    /// The body is longer than the Content-Length says.
    BodyTooLong {
        /// What the Content-Length says, in bytes.
        declared: u64,
        /// What was sent with this message, in bytes.
        sent: u64,
    },
    /// The body ended before the length that the Content-Length says.
    BodyTooShort {
        /// What the Content-Length says, in bytes.
        declared: u64,
        /// What was sent in all, in bytes.
        sent: u64,
    },
}

impl fmt::Display for ResponseError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidStatus(status) => {
                write!(formatter, "expected a response status from 200 to 999, found {status}")
            }
            Self::InformationalStatus(status) => {
                write!(formatter, "expected a final response status, found the interim {status}")
            }
            Self::InvalidReason => {
                formatter.write_str("expected no control characters in the reason phrase")
            }
            Self::InvalidHeaderName(name) => {
                write!(
                    formatter,
                    "expected a token as the name of a response header, found {name:?}"
                )
            }
            Self::InvalidHeaderValue(name) => write!(
                formatter,
                "expected no line end and no NUL in the value of response header {name:?}"
            ),
            Self::ForbiddenTrailer(name) => write!(
                formatter,
                "expected a field that may come after the content, found the trailer {name:?}"
            ),
            Self::InvalidContentLength(value) => {
                write!(
                    formatter,
                    "expected a number as the response's content-length, found {value:?}"
                )
            }
            Self::DuplicateContentLength => {
                formatter.write_str("expected one content-length in the response, found two")
            }
            Self::WithoutRequest => {
                formatter.write_str("the response was started without a request to answer")
            }
            Self::StartedTwice => formatter.write_str("the response was started twice"),
            Self::BodyBeforeStart => {
                formatter.write_str("a response body was sent before the response was started")
            }
            Self::BodyAfterEnd => {
                formatter.write_str("a response body was sent after the response had ended")
            }
            Self::BodyTooLong { declared, sent } => write!(
                formatter,
                "the response body is longer than its content-length: {declared} declared, {sent} sent"
            ),
            Self::BodyTooShort { declared, sent } => write!(
                formatter,
                "the response body is shorter than its content-length: {declared} declared, {sent} sent"
            ),
        }
    }
}

impl std::error::Error for ResponseError {}

/// The next cycle was asked for before request and response had both ended, or on a connection
/// that closes after its response: a mistake of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinished;

impl fmt::Display for NotFinished {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("this connection cannot take another request now")
    }
}

impl std::error::Error for NotFinished {}
