//! The settings of a server, as the core reads them. Where they come from (a command line, the
//! environment) is not its business.

use std::time::Duration;

use crate::http1::Limits;

/// Everything that can be set about a [`crate::server::Server`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Requests that the application works on at the same time; more wait, and no connection is
    /// accepted while they do. At least 1.
    pub backpressure: usize,
    /// Connections open at the same time; more stay in the listener's queue. At least 1.
    pub max_connections: usize,
    /// Limits on what a peer may send.
    pub limits: Limits,
    /// How long each stage of a connection may last.
    pub timeouts: Timeouts,
    /// Add a `date` header to answers that have none (RFC 9110 §6.6.1).
    pub date_header: bool,
    /// Add this `server` header to answers that have none (RFC 9110 §10.2.4).
    pub server_header: Option<String>,
    /// See to it that the head of each request has exactly one header with this name, an id: the
    /// client's if it is printable, else one that is made.
    pub request_id_header: Option<String>,
    /// Tell of each refused message with an [`crate::server::Event::Refused`].
    pub report_refusals: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backpressure: 1024,
            max_connections: 16 * 1024,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            date_header: true,
            server_header: Some("granian-uring".to_owned()),
            request_id_header: None,
            report_refusals: false,
        }
    }
}

/// How long each stage of a connection may last.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// From the accept to the first byte, and from that of any request to the end of its head; then
    /// a close, or 408 (RFC 9110 §15.5.9) if a byte came.
    pub head: Duration,
    /// Between two requests of a connection; then it is closed.
    pub keep_alive: Duration,
    /// Without a byte of a body that the application waits for; then 408.
    pub body: Duration,
    /// Without a byte acknowledged by a peer for whom there is an answer; then the connection is cut.
    pub write: Duration,
    /// From our last byte to the peer's: a close while the peer still sends would destroy what it
    /// has not read yet (RFC 9112 §9.6).
    pub linger: Duration,
    /// From the end of the peer's data to the moment when an application that waits for more is
    /// told `http.disconnect`. A client that only shut down its writing side cannot be told from
    /// one that has gone until something is sent to it; its answer is sent in any case.
    pub half_close: Duration,
    /// While draining: how long a connection on which a request was answered stays usable at
    /// least. The next request of a busy client comes within milliseconds.
    pub drain_idle: Duration,
    /// While draining: how long a connection may take until its first request, and any to the end
    /// of a head. Whoever connects is about to ask.
    pub drain_first: Duration,
    /// While draining: without a byte taken by a peer for whom there is an answer. The restart waits
    /// for it.
    pub drain_write: Duration,
    /// While draining: how long the peer may take to close after our last byte.
    pub drain_linger: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            body: Duration::from_secs(60),
            write: Duration::from_secs(60),
            linger: Duration::from_secs(2),
            half_close: Duration::from_secs(1),
            drain_idle: Duration::from_millis(100),
            drain_first: Duration::from_secs(1),
            drain_write: Duration::from_secs(5),
            drain_linger: Duration::from_millis(500),
        }
    }
}
