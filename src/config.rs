//! The settings of a server, as the core reads them. Where they come from (a command line, the
//! environment) is not its business.

use std::time::Duration;

use crate::http1::Limits;
use crate::proxy;
use crate::websocket;

/// Everything that can be set about a [`crate::server::Server`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Requests that the application works on at the same time. At least 1.
    pub backpressure: usize,
    /// What becomes of requests beyond [`Config::backpressure`].
    pub overload: Overload,
    /// Connections open at the same time; more stay in the listener's queue. At least 1.
    pub max_connections: usize,
    /// Whether a connection takes further requests after an answer (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// Pipelined requests of one connection that begin in one turn; the next ones begin in the next
    /// turn, after everybody else's news. At least 1.
    pub pipeline_depth: usize,
    /// Limits on what a peer may send. Unread input of a connection is held up to
    /// [`Limits::head_bytes`] and one receive buffer.
    pub limits: Limits,
    /// How long each stage of a connection may last.
    pub timeouts: Timeouts,
    /// How WebSocket connections are served; without it a handshake is a request like any other.
    pub websocket: Option<WebSocket>,
    /// Add a `date` header to answers that have none (RFC 9110 §6.6.1).
    pub date_header: bool,
    /// Add this `server` header to answers that have none (RFC 9110 §10.2.4).
    pub server_header: Option<String>,
    /// See to it that the head of each request has exactly one header with this name, an id: the
    /// client's if it is printable, else one that is made.
    pub request_id_header: Option<String>,
    /// What proxies in front are believed.
    pub proxy: proxy::Options,
    /// Tell of each refused message with an [`crate::server::Event::Refused`], and of each refused
    /// connection with an [`crate::server::Event::Unproxied`].
    pub report_refusals: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backpressure: 1024,
            overload: Overload::Wait,
            max_connections: 16 * 1024,
            keep_alive: true,
            // What load generators pipeline, and few others do: deep enough that one write carries
            // many answers, shallow enough that nobody notices the neighbour.
            pipeline_depth: 16,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            websocket: None,
            date_header: true,
            server_header: Some("granian-uring".to_owned()),
            proxy: proxy::Options::default(),
            request_id_header: None,
            report_refusals: false,
        }
    }
}

/// How WebSocket connections are served.
#[derive(Clone, Debug)]
pub struct WebSocket {
    /// What is allowed on one.
    pub settings: websocket::Settings,
    /// From one ping to the next; `None`: no pings.
    pub ping_interval: Option<Duration>,
    /// From a ping to its pong; then the connection is cut. `None`: no pong is waited for.
    pub ping_timeout: Option<Duration>,
}

impl Default for WebSocket {
    fn default() -> Self {
        Self {
            settings: websocket::Settings::default(),
            // What users of uvicorn know.
            ping_interval: Some(Duration::from_secs(20)),
            ping_timeout: Some(Duration::from_secs(20)),
        }
    }
}

/// What becomes of requests beyond those that the application works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overload {
    /// They wait, and no connection is accepted while they do: who connects stays in the listener's
    /// queue, where a sibling may take it.
    Wait,
    /// They get a 503 with `Retry-After` (RFC 9110 §15.6.4) at once, and accepting goes on.
    Refuse,
}

/// How long each stage of a connection may last.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// From the accept to the first byte; then a close.
    pub first_byte: Duration,
    /// From the first byte of a request to the end of its head, however it drips; then 408
    /// (RFC 9110 §15.5.9).
    pub head: Duration,
    /// Between two requests of a connection; then it is closed.
    pub keep_alive: Duration,
    /// Without a byte of a body that the application waits for; then 408.
    pub body: Duration,
    /// Bytes a second that such a body has to make on the whole: the waiting for it may add up to
    /// [`Timeouts::body`] and a second for each so many bytes. Then 408. 0: no minimum.
    pub body_min_rate: u32,
    /// From the end of a head to the end of the answer as the application gives it; then 503, or a
    /// reset if a part of the answer was given out. `None`: no limit.
    pub request: Option<Duration>,
    /// Without a byte acknowledged by a peer for whom there is an answer; then the connection is cut.
    pub write: Duration,
    /// From our last byte to the peer's: a close while the peer still sends would destroy what it
    /// has not read yet (RFC 9112 §9.6).
    pub linger: Duration,
    /// From the end of the peer's data to the moment when an application that waits for more is
    /// told `http.disconnect`. A client that only shut down its writing side cannot be told from
    /// one that has gone until something is sent to it; its answer is sent in any case.
    pub half_close: Duration,
    /// From our close frame to the peer's; then our side ends without it.
    pub close_frame: Duration,
    /// While draining: how long a connection on which a request was answered stays usable at
    /// least. The next request of a busy client comes within milliseconds.
    pub drain_idle: Duration,
    /// While draining: how long a connection may take until its first request, and any to the end
    /// of a head. Whoever connects is about to ask.
    pub drain_first: Duration,
    /// While draining: without a byte taken by a peer for whom there is an answer. The restart waits
    /// for it.
    pub drain_write: Duration,
    /// While draining: how long the peer may take to close after our last byte, or close frame.
    pub drain_linger: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(30),
            head: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            body: Duration::from_secs(60),
            // What Kestrel asks for: who is slower is broken, or means harm.
            body_min_rate: 240,
            request: None,
            write: Duration::from_secs(60),
            linger: Duration::from_secs(2),
            half_close: Duration::from_secs(1),
            close_frame: Duration::from_secs(10),
            drain_idle: Duration::from_millis(100),
            drain_first: Duration::from_secs(1),
            drain_write: Duration::from_secs(5),
            drain_linger: Duration::from_millis(500),
        }
    }
}
