//! The parts of the server, measured each on its own: `benches/README.md` says how to read them.
//!
//! One program for all, because linking takes as long as the release's: the profile is the same.

mod case;
mod http1;
mod round_trip;
mod timers;
mod websocket;

use criterion::Criterion;
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let cases = [http1::cases(), websocket::cases(), timers::cases(), round_trip::cases()];
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let criterion = |_: &[String]| Criterion::default().configure_from_args();
    case::measure(cases.into_iter().flatten().collect(), &arguments, criterion)
}
