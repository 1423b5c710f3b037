//! From the pieces of frames to a message: the limit, the UTF-8.

use super::connection::Event;
use super::deflate::{Codecs, Stream};
use super::error::ProtocolError;
use super::frame::Mask;

/// Memory that is taken for a frame of which only the header is there: what a header says is cheap
/// for the peer.
const ADVANCE_BYTES: u64 = 64 * 1024;

/// A message on its way in.
#[derive(Debug)]
pub(super) struct Incoming {
    is_text: bool,
    compressed: bool,
    /// What was said so far, decompressed.
    data: Vec<u8>,
    /// The length of the front of `data` that was seen to be UTF-8.
    valid: usize,
}

impl Incoming {
    pub(super) fn new(is_text: bool, compressed: bool) -> Self {
        Self { is_text, compressed, data: Vec::new(), valid: 0 }
    }

    /// A frame of `length` bytes is to come: takes no byte of what is too long.
    pub(super) fn expect(&mut self, length: u64, max_bytes: usize) -> Result<(), ProtocolError> {
        if self.compressed {
            return Ok(());
        }
        let room = (max_bytes as u64).saturating_sub(self.data.len() as u64);
        if length > room {
            return Err(ProtocolError::MessageTooLong);
        }
        #[allow(clippy::cast_possible_truncation, reason = "ADVANCE_BYTES fits")]
        self.data.reserve(length.min(ADVANCE_BYTES) as usize);
        Ok(())
    }

    /// Takes in a piece of a frame's payload; it is the message's last if `end`.
    pub(super) fn push(
        &mut self,
        piece: &[u8],
        mask: &mut Mask,
        end: bool,
        max_bytes: usize,
        deflate: Option<(&mut Stream, &mut Codecs)>,
    ) -> Result<(), ProtocolError> {
        let mut result = Ok(());
        match deflate {
            Some((stream, codecs)) if self.compressed => {
                let mut scratch = codecs.take_scratch();
                scratch.extend_from_slice(piece);
                mask.apply(&mut scratch);
                result = stream.decompress(&scratch, max_bytes, codecs, &mut self.data);
                if end && result.is_ok() {
                    result = stream.end_message(max_bytes, codecs, &mut self.data);
                }
                codecs.keep_scratch(scratch);
            }
            _ => {
                let start = self.data.len();
                self.data.extend_from_slice(piece);
                mask.apply(&mut self.data[start..]);
            }
        }
        // The end of a message brings a look at all of it. What came before an error is looked at
        // first, so that the verdict does not depend on where the input was cut.
        if self.is_text && (!end || result.is_err()) {
            self.check_text()?;
        }
        result
    }

    /// Refuses a text at the first byte that no further byte can make valid.
    fn check_text(&mut self) -> Result<(), ProtocolError> {
        match str::from_utf8(&self.data[self.valid..]) {
            Ok(text) => self.valid += text.len(),
            Err(error) if error.error_len().is_none() => self.valid += error.valid_up_to(),
            Err(_) => return Err(ProtocolError::InvalidUtf8),
        }
        Ok(())
    }

    /// The whole message.
    pub(super) fn finish(self) -> Result<Event, ProtocolError> {
        if !self.is_text {
            return Ok(Event::Binary(self.data));
        }
        let text = String::from_utf8(self.data).map_err(|_| ProtocolError::InvalidUtf8)?;
        Ok(Event::Text(text))
    }
}
