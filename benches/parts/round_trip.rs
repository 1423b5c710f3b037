//! One request and its answer over loopback, on each runtime: the whole server without Python.
//!
//! Client and server take turns in one thread, so that nothing depends on who is scheduled when.
//! What the client does is in the figure too, and the same for all.

use crate::case::Case;
use granian_uring::config::Config;
use granian_uring::proactor::Proactor;
use granian_uring::proactor::uring::Uring;
use granian_uring::server::{Body, Event, RequestId, Server};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n";
const BODY: &[u8] = b"Hello, world!";

/// A line for each runtime.
pub(super) fn cases() -> Vec<Case> {
    vec![on("uring", || Uring::new().expect("this kernel has io_uring"))]
}

fn on<P: Proactor + 'static>(runtime: &'static str, proactor: fn() -> P) -> Case {
    Case::new("round trip", runtime, move || {
        let mut pair = Pair::new(proactor()).expect("there is a loopback interface");
        move || pair.round_trip().expect("the connection lives on")
    })
}

/// A server, and its only client.
struct Pair<P> {
    server: Server<P>,
    client: TcpStream,
    answer: [u8; 512],
}

impl<P: Proactor> Pair<P> {
    fn new(proactor: P) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        client.set_nodelay(true)?;
        client.set_nonblocking(true)?;
        let mut server = Server::new(proactor, Config::default());
        server.add_listener(OwnedFd::from(listener))?;
        server.start_accepting();
        Ok(Self { server, client, answer: [0; 512] })
    }

    fn round_trip(&mut self) -> io::Result<()> {
        self.client.write_all(REQUEST)?;
        loop {
            // As long as there is no answer, something is under way that completes.
            self.server.turn(None)?;
            while let Some(event) = self.server.next_event() {
                if let Event::Request(request) = event {
                    self.answer(request);
                }
            }
            match self.client.read(&mut self.answer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => (),
                Err(error) => return Err(error),
                Ok(length) => {
                    assert!(self.answer[..length].ends_with(BODY), "a whole answer in one piece");
                    return Ok(());
                }
            }
        }
    }

    fn answer(&mut self, request: RequestId) {
        let taken = self.server.take_request(request).map(|taken| self.server.give_back(taken));
        let headers: [(&[u8], &[u8]); 2] =
            [(b"content-type", b"text/plain"), (b"content-length", b"13")];
        let started = self.server.start_response(request, 200, headers.into_iter());
        let sent = self.server.send_body(request, Body::Copied(BODY), false);
        assert!(taken.is_some() && started.is_ok() && sent.is_ok(), "the client is there");
        self.server.finish(request);
    }
}
