//! The response side: whatever an application says in answer to whatever request, a client that was
//! written independently reads what was meant, or sees that the answer is broken.

#![no_main]

#[path = "../../tests/http1/mod.rs"]
mod http1;

use http1::exchange::{Exchange, REQUESTS};
use libfuzzer_sys::arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;

/// Names that mean something to us; others are made up.
const NAMES: [&str; 6] =
    ["content-length", "Connection", "transfer-encoding", "Date", "server", "x-name"];

#[derive(Debug)]
struct Input(Exchange);

impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let request = *bytes.choose(&REQUESTS)?;
        let status = bytes.int_in_range(0..=1100)?;
        let mut headers = Vec::new();
        for _ in 0..bytes.int_in_range(0..=6)? {
            let name = match NAMES.get(bytes.int_in_range(0..=NAMES.len())?) {
                Some(name) => name.as_bytes().to_vec(),
                None => some_bytes(bytes)?,
            };
            headers.push((name, some_bytes(bytes)?));
        }
        let mut messages = Vec::new();
        for _ in 0..bytes.int_in_range(1..=5)? {
            messages.push(some_bytes(bytes)?);
        }
        Ok(Self(Exchange { request, status, headers, messages }))
    }
}

fn some_bytes(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let length = bytes.int_in_range(0..=40)?;
    Ok(bytes.bytes(length.min(bytes.len()))?.to_vec())
}

fuzz_target!(|input: Input| input.0.check());
