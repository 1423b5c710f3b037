//! The request side of a connection: no input makes it panic, and no cut changes what it
//! understands. The last two bytes say where the cut is, so that any request is a seed as it is.

#![no_main]

#[path = "../../tests/http1/mod.rs"]
mod http1;

use http1::transcript::transcribe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let cut = data.last_chunk().map_or(0, |last| usize::from(u16::from_le_bytes(*last)));
    let (start, rest) = data.split_at(cut % (data.len() + 1));
    assert_eq!(transcribe([start, rest]), transcribe([data]));
});
