//! An id for each request, in a header of its own: the client's, or one that is made.
//!
//! The application and the access log see the same request head, so both find the id there.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use crate::http1::RequestHead;

/// An id of a client that is longer is none of ours to carry about.
const ID_BYTES: usize = 128;

/// Makes ids: 32 hexadecimal digits, the first half of this process alone, the second a number.
pub(super) struct RequestIds {
    /// In lower case.
    header: Box<[u8]>,
    seed: u64,
    count: u64,
}

impl RequestIds {
    pub(super) fn new(header: &str) -> Self {
        let seed = RandomState::new().hash_one(std::process::id());
        Self { header: header.to_ascii_lowercase().into_bytes().into(), seed, count: 0 }
    }

    /// See to it that `head` has exactly one id, of visible ASCII characters.
    pub(super) fn see_to(&mut self, head: &mut RequestHead) {
        let mut sent = head.headers().filter(|(name, _)| **name == *self.header);
        let is_usable = match (sent.next(), sent.next()) {
            (Some((_, id)), None) => {
                (1..=ID_BYTES).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
            }
            _ => false,
        };
        drop(sent);
        if !is_usable {
            self.count += 1;
            let id = format!("{:016x}{:016x}", self.seed, self.count);
            head.remove_headers(|name| *name == *self.header);
            head.set_header(&self.header, id.as_bytes());
        }
    }
}
