//! HTTP/1.1 as a machine that eats bytes and returns events (RFC 9110, RFC 9112): the server side.
//!
//! Bytes of a connection go into [`Connection::next_event`], which returns the request's head, the
//! pieces of its body and its end; the answer goes through [`Connection::start_response`] and
//! [`Connection::send_body`], which say what to put on the wire around the application's data.
//!
//! | file | what |
//! |---|---|
//! | `connection` | [`Connection`]: both directions of one connection, one request after another |
//! | `state` | every legal transition, in one table |
//! | `head` | from bytes to a [`RequestHead`]: completeness, limits, `httparse` |
//! | `request` | [`RequestHead`] and what its header fields mean |
//! | `target` | the four forms of a request target |
//! | `framing` | how long a body is: RFC 9112 §6.3, in its order |
//! | `range` | the part of a representation that a client asks for |
//! | `chunked` | the chunked transfer coding, both ways |
//! | `response` | encoding of a response's head |
//! | `syntax` | characters, lists and numbers of the grammar |
//! | `words` | bytes looked at eight at a time |
//! | `error` | whose fault it was: [`ProtocolError`] the client's, [`ResponseError`] the application's |
//!
//! Deliberately not here: sockets, clocks, timeouts, threads, a runtime; percent-decoding and the
//! rest of what an interface to applications needs; the protocol behind an upgrade (who does not call
//! [`Connection::switch_protocol`] answers an `Upgrade` request as plain HTTP); trailers of
//! requests, which are checked and dropped.
//!
//! Ambiguity is refused, never guessed: what two implementations could understand differently is
//! how requests are smuggled (RFC 9112 §11.2).

#![forbid(unsafe_code)]

mod chunked;
mod connection;
mod error;
mod framing;
mod head;
mod range;
mod request;
mod response;
mod state;
mod syntax;
mod target;
#[cfg(test)]
mod tests;
mod words;

pub use connection::{Connection, Event};
pub use error::{NotFinished, ProtocolError, ResponseError};
pub use request::{BodyLength, RequestHead, Version};
pub use response::{AutomaticHeaders, BodyFrame, Status, reason_phrase};
pub(crate) use syntax::{is_host, is_token, list};

/// What a client may ask of us at most. Each quantity has the status of the answer when it is
/// exceeded; all of them hold for incomplete input too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The request line and the header section with their line ends, in bytes; 431.
    pub head_bytes: usize,
    /// Header lines; 431. Never more than [`Limits::HEADER_COUNT_MAX`].
    pub header_count: usize,
    /// The request target, in bytes; 414.
    pub target_bytes: usize,
    /// The size line of one chunk, extensions included and line end excluded, in bytes; 400.
    pub chunk_line_bytes: usize,
    /// The trailer section of a chunked body with its line ends, in bytes; 431.
    pub trailer_bytes: usize,
    /// The body, in bytes, without its transfer coding; 413. `None`: no limit.
    pub body_bytes: Option<u64>,
}

impl Limits {
    /// The parser keeps the headers of one head on the stack, 32 bytes each, and room for these.
    pub const HEADER_COUNT_MAX: usize = 256;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Twice what proxies in front of us forward by default (nginx: 4 buffers of 8 KiB),
            // and what Python users know from h11.
            head_bytes: 64 * 1024,
            // What Apache and gunicorn allow; browsers send some 20, proxies add some 10.
            header_count: 100,
            // RFC 9112 §3 recommends at least 8000 octets for a request line.
            target_bytes: 8 * 1024,
            // A size has 16 digits at most; extensions are ignored by every known recipient, and
            // a long one per byte of data would be cheap for the client and work for us.
            chunk_line_bytes: 256,
            // Trailers are dropped; a checksum or a signature fits several times.
            trailer_bytes: 8 * 1024,
            // The body is streamed at the pace of the application, which knows what it accepts.
            body_bytes: None,
        }
    }
}
