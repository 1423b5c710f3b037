//! A WebSocket echo without Python: says back every message, compressed if the client likes it.
//! Shows what an embedder of the core has to do for it, and is what fuzzing clients are run
//! against.
//!
//!     cargo run --release --example websocket [ADDRESS]

use std::error::Error;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use granian_uring::config::{Config, WebSocket};
use granian_uring::proactor::uring::Uring;
use granian_uring::server::{Event, RequestId, Server};
use granian_uring::websocket::{self, Deflate, Message, Settings};

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8000".to_owned());
    let settings = Settings { deflate: Deflate::Context, ..Settings::default() };
    let websocket = Some(WebSocket { settings, ..WebSocket::default() });
    let mut server = Server::new(Uring::new()?, Config { websocket, ..Config::default() });
    server.add_listener(OwnedFd::from(TcpListener::bind(address)?))?;
    server.start_accepting();
    loop {
        server.turn(None)?;
        while let Some(event) = server.next_event() {
            match event {
                Event::Request(request) => begin(&mut server, request),
                Event::WebSocket(request, event) => echo(&mut server, request, &event),
                _ => {}
            }
        }
    }
}

/// Accept; any other request gets a 500 from the server. A peer that has left meanwhile is no error
/// of this loop, here and below.
fn begin(server: &mut Server<Uring>, request: RequestId) {
    let taken = server.take_request(request);
    let is_handshake = taken.is_some_and(|taken| taken.subprotocols.is_some());
    let none = std::iter::empty();
    if !is_handshake || server.accept_websocket(request, None, none).is_err() {
        server.finish(request);
    }
}

/// It echoes even for a client that does not read: an application would wait where it is told so.
fn echo(server: &mut Server<Uring>, request: RequestId, event: &websocket::Event) {
    let (message, length) = match event {
        websocket::Event::Text(text) => (Message::Text(text), text.len()),
        websocket::Event::Binary(bytes) => (Message::Binary(bytes), bytes.len()),
        websocket::Event::Close { .. } => {
            server.finish(request);
            return;
        }
        websocket::Event::Pong(_) => return,
    };
    let _ = server.send_message(request, message, None);
    server.took_message(request, length);
}
