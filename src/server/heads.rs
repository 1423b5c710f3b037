//! Heads of requests that are done with: their memory is used for the next ones, so that a request
//! allocates nothing for its own.

use crate::http1::RequestHead;

/// As many are kept: a turn may bring a request on each connection that was waited for.
const SPARE_HEADS: usize = 256;
/// Of a head with more memory than that none is kept: most fit, and one large one costs nothing
/// for ever.
const KEPT_BYTES: usize = 4 * 1024;

/// Heads to be read into.
#[derive(Default)]
#[allow(clippy::vec_box, reason = "a head moves often, and a pointer is cheaper to move")]
pub(super) struct SpareHeads(Vec<Box<RequestHead>>);

impl SpareHeads {
    /// A head with whatever content.
    #[allow(clippy::unnecessary_box_returns, reason = "its box is used again, too")]
    pub(super) fn take(&mut self) -> Box<RequestHead> {
        self.0.pop().unwrap_or_default()
    }

    /// Nobody needs this one any more.
    pub(super) fn keep(&mut self, head: Box<RequestHead>) {
        if self.0.len() < SPARE_HEADS && head.memory() <= KEPT_BYTES {
            self.0.push(head);
        }
    }
}
