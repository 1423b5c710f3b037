//! WebSocket as a machine that eats bytes and returns events (RFC 6455), with compressed messages
//! (RFC 7692): the server side.
//!
//! A request that [asks for it](is_handshake) becomes a [`Connection`], which is accepted, or
//! answered by plain HTTP. From then on the bytes of the connection go into
//! [`Connection::next_event`], which returns whole messages; pings and the close handshake are
//! answered in the same call. What the application sends goes through [`Connection::send`] and
//! [`Connection::close`], which say what to put on the wire.
//!
//! | file | what |
//! |---|---|
//! | `connection` | [`Connection`]: both directions, from the request to the end |
//! | `state` | every legal transition, in one table |
//! | `handshake` | what a request asks for, and the answer to it |
//! | `extensions` | the extensions it offers; which of them we take |
//! | `frame` | headers of frames, both ways; masks |
//! | `message` | from the pieces of frames to a message: limit, UTF-8 |
//! | `deflate` | compression of messages, and the memory it takes: [`Codecs`] |
//! | `close` | close codes, and the payload of a close frame |
//! | `error` | whose fault it was: [`HandshakeError`] and [`ProtocolError`] the client's, [`AcceptError`] and [`SendError`] the application's |
//!
//! Deliberately not here: sockets, clocks (when to ping, how long to wait for a close), threads;
//! queues of messages. Messages are sent in one frame each, and given out whole.

#![forbid(unsafe_code)]

mod close;
mod connection;
mod deflate;
mod error;
mod extensions;
mod frame;
mod handshake;
mod message;
mod state;
#[cfg(test)]
mod tests;

pub use close::code;
pub use connection::{Connection, Event, Framed, Message};
pub use deflate::Codecs;
pub use error::{AcceptError, HandshakeError, ProtocolError, SendError};
pub use handshake::is_handshake;

/// What a server allows on its WebSocket connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A message from the peer, decompressed, in bytes; else close code 1009.
    pub max_message_bytes: usize,
    /// Whether messages may be compressed, if the client offers it.
    pub deflate: Deflate,
}

impl Default for Settings {
    fn default() -> Self {
        // What users of uvicorn and Granian know.
        Self { max_message_bytes: 16 * 1024 * 1024, deflate: Deflate::Off }
    }
}

/// Compression of messages (permessage-deflate, RFC 7692): what it costs in memory for each
/// connection is the price of its context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deflate {
    /// Offers are declined.
    #[default]
    Off,
    /// Each message is compressed on its own (no context takeover, either way). The codecs are
    /// shared by all connections: one holds memory (45 KiB) only while it is within a compressed
    /// message of the peer's.
    EachMessage,
    /// A message is compressed with what the ones before it said, unless the client declines:
    /// small messages that are alike shrink to a fraction. Costs 370 KiB for each connection that
    /// was sent one, and 45 KiB for each that has sent one, for as long as it lives.
    Context,
}
