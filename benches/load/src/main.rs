//! The load generator of the benchmark harness: one thread, epoll, every answer checked.
//!
//!     load http      ADDRESS [--path P] [--connections N] [--seconds S] [--warm-up S] [--post BYTES]
//!                            [--expect BYTES] [--pipeline N] [--rate PER_SECOND] [--churn]
//!     load idle      ADDRESS [--path P] [--connections N] [--expect BYTES]
//!     load websocket ADDRESS [--path P] [--connections N] [--seconds S] [--warm-up S]
//!                            [--message BYTES] [--broadcast]
//!
//! It talks with who measures: after the warm-up it writes `warm`, with every connection open and
//! no request under way, and waits for a line on stdin. Then it runs, ends what is under way, and
//! writes one line of JSON. So what a server uses between the two is used for the answers counted.
//!
//! An answer of another status or length, a connection that breaks, or ten seconds without an
//! answer ends it with exit code 1 and a line on stderr.
//!
//! `http` asks again as soon as an answer is there (closed loop); with `--rate` it asks at that
//! pace whatever the answers do (open loop), and a request's time counts from when it was due, so
//! a server that stalls is charged for all who would have come meanwhile. It does not sleep then.
//! `idle` asks once on each connection, holds them, and asks once more at the end.

mod answer;
mod client;
mod http;
mod options;
mod pace;
mod report;
mod websocket;

use std::io::{self, Write};
use std::process::ExitCode;

use options::{Kind, Options};

/// What ends a run: a wrong answer, or a connection that broke.
pub(crate) type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let run = Options::parse(std::env::args().skip(1)).and_then(|options| match options.kind {
        Kind::Http => http::run(&options),
        Kind::Idle => http::run_idle(&options),
        Kind::WebSocket => websocket::run(&options),
    });
    match run.and_then(|report| Ok(writeln!(io::stdout(), "{report}")?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "error: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Says that the warm-up is over, and waits for who measures.
pub(crate) fn wait_for_go() -> Result<(), Failure> {
    let mut out = io::stdout();
    writeln!(out, "warm")?;
    out.flush()?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(())
}
