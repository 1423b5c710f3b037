//! The server without Python: answers every request with one line, until SIGTERM's default ends
//! it. Shows the loop that an embedder of the core writes, and measures what the core costs.
//!
//!     cargo run --release --example hello [ADDRESS] [--runtime NAME] [--access-log] [--requests N]
//!
//! `--access-log` writes a line for each request to stdout; with `--requests` it ends after that
//! many, so that a program can count what they cost (`benches/access_log.py`).

use std::error::Error;
use std::fs::File;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};

use granian_uring::access_log::{AccessLog, Format};
use granian_uring::config::Config;
use granian_uring::proactor::Proactor;
use granian_uring::proactor::hosted::monoio::{Epoll, Monoio};
use granian_uring::proactor::hosted::tokio_uring::TokioUring;
use granian_uring::proactor::uring::Uring;
use granian_uring::server::{Body, Event, RequestId, SendError, Server};

const BODY: &[u8] = b"Hello, world!";

/// What the command line asks for.
struct Options {
    address: String,
    runtime: String,
    logs: bool,
    requests: u64,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        address: "127.0.0.1:8000".to_owned(),
        runtime: "uring".to_owned(),
        logs: false,
        requests: u64::MAX,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--access-log" => options.logs = true,
            "--requests" => {
                options.requests = arguments.next().ok_or("--requests needs a number")?.parse()?;
            }
            "--runtime" => options.runtime = arguments.next().ok_or("--runtime needs a name")?,
            word if word.starts_with('-') => return Err(format!("{word} is not known").into()),
            _ => options.address = argument,
        }
    }
    Ok(options)
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    match options.runtime.as_str() {
        "uring" => serve(Uring::new()?, &options),
        "monoio" => serve(Monoio::new()?, &options),
        "epoll" => serve(Epoll::new()?, &options),
        "tokio-uring" => serve(TokioUring::new()?, &options),
        other => Err(format!("no runtime is called {other}").into()),
    }
}

fn serve<P: Proactor>(proactor: P, options: &Options) -> Result<(), Box<dyn Error>> {
    let mut server = Server::new(proactor, Config::default());
    server.add_listener(OwnedFd::from(TcpListener::bind(&options.address)?))?;
    if options.logs {
        let stdout = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
        server.log_access(AccessLog::to_file(Format::compile(None, false, false)?, stdout)?);
    }
    server.start_accepting();
    let mut answered = 0;
    while answered < options.requests {
        server.turn(None)?;
        answered += answer_all(&mut server);
    }
    // The last answers are given out, and not sent yet; and who is connected may ask once more.
    server.drain();
    while !server.is_drained() {
        server.turn(None)?;
        answer_all(&mut server);
    }
    Ok(())
}

/// Answer what the last turn brought; how many requests that were.
fn answer_all(server: &mut Server<impl Proactor>) -> u64 {
    let mut answered = 0;
    while let Some(event) = server.next_event() {
        if let Event::Request(request) = event {
            // A peer that has left meanwhile is no error of this loop.
            let _ = answer(server, request);
            server.finish(request);
            answered += 1;
        }
    }
    answered
}

fn answer(server: &mut Server<impl Proactor>, request: RequestId) -> Result<(), SendError> {
    let taken = server.take_request(request).ok_or(SendError::Gone)?;
    server.give_back(taken);
    let headers: [(&[u8], &[u8]); 2] =
        [(b"content-type", b"text/plain"), (b"content-length", b"13")];
    server.start_response(request, 200, headers.into_iter())?;
    server.send_body(request, Body::Copied(BODY), false)?;
    Ok(())
}
