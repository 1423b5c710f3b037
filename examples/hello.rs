//! The server without Python: answers every request with one line, until SIGTERM's default ends
//! it. Shows the loop that an embedder of the core writes, and measures what the core costs.
//!
//!     cargo run --release --example hello [ADDRESS]

use std::error::Error;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use granian_uring::config::Config;
use granian_uring::proactor::uring::Uring;
use granian_uring::server::{Body, Event, RequestId, SendError, Server};

const BODY: &[u8] = b"Hello, world!";

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8000".to_owned());
    let mut server = Server::new(Uring::new()?, Config::default());
    server.add_listener(OwnedFd::from(TcpListener::bind(address)?))?;
    server.start_accepting();
    loop {
        server.turn(None)?;
        while let Some(event) = server.next_event() {
            if let Event::Request(request) = event {
                // A peer that has left meanwhile is no error of this loop.
                let _ = answer(&mut server, request);
                server.finish(request);
            }
        }
    }
}

fn answer(server: &mut Server<Uring>, request: RequestId) -> Result<(), SendError> {
    let _ = server.take_request(request).ok_or(SendError::Gone)?;
    let headers: [(&[u8], &[u8]); 2] =
        [(b"content-type", b"text/plain"), (b"content-length", b"13")];
    server.start_response(request, 200, headers.into_iter())?;
    server.send_body(request, Body::Copied(BODY), false)?;
    Ok(())
}
