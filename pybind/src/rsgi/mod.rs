//! RSGI 1.6: the scope of a request, and the protocol object that its application talks to.
//!
//! A scope keeps the request's head and makes Python objects of it only where they are asked for.
//! The protocol object extends `exchange::Exchange` by RSGI's methods; `file` is the one place that
//! knows how files are sent.
//!
//! Where the specification leaves a choice: an answer can be begun once, a second one is a
//! `ProtocolError`; one whose client has gone is taken and dropped, only a stream's `send_*` say
//! it (`ProtocolClosed`). A stream ends with its transport, or when the application returns.
//!
//! <https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md>

mod file;
mod http;
mod scope;
mod websocket;

pub use file::FileResponse;
pub use http::{HttpProtocol, StreamTransport, body, going, piece};
pub use scope::{Headers, Scope};
pub use websocket::{WebsocketMessage, WebsocketProtocol, WebsocketTransport, message, transport};
