//! Compression of messages (RFC 7692 §7.2), and the memory that it takes.
//!
//! A codec is big (a compressor takes some 370 KiB, a decompressor 45 KiB), and a connection that
//! keeps no context from one message to the next needs one only while it is at work. So those are
//! lent from [`Codecs`], which all connections of a thread share. A connection that has agreed on a
//! context gets codecs of its own, with its first compressed message.

use super::error::ProtocolError;
use super::extensions::Agreed;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What ends each message and is not sent: an empty stored block, RFC 7692 §7.2.1.
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// Messages below it are sent as they are where each is compressed on its own: they hardly shrink.
const WORTH_IT_BYTES: usize = 256;
const WINDOW_BITS_MAX: u8 = 15;
/// Decompressors that are kept for the next messages. More are at work at the same time only while
/// peers are within messages.
const SPARE_DECOMPRESSORS: usize = 8;
/// Memory that is kept from one message to the next.
const SCRATCH_BYTES: usize = 64 * 1024;
/// What the first step of decompression has room for.
const FIRST_ROOM_BYTES: usize = 1024;

/// Codecs and buffers that the connections of a thread share. Empty until the first message is
/// compressed.
#[derive(Debug, Default)]
pub struct Codecs {
    /// By window bits.
    compressors: [Option<Compress>; WINDOW_BITS_MAX as usize + 1],
    decompressors: Vec<Decompress>,
    /// Compressed data on its way in (unmasked) or out.
    scratch: Vec<u8>,
}

impl Codecs {
    /// An empty buffer; to be given back with [`Codecs::keep_scratch`].
    pub(super) fn take_scratch(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.scratch)
    }

    pub(super) fn keep_scratch(&mut self, mut scratch: Vec<u8>) {
        scratch.clear();
        scratch.shrink_to(SCRATCH_BYTES);
        self.scratch = scratch;
    }
}

/// The compression of one connection.
#[derive(Debug)]
pub(super) struct Stream {
    agreed: Agreed,
    /// With our context.
    compressor: Option<Compress>,
    /// Within a message, or with the client's context.
    decompressor: Option<Decompress>,
    /// Nothing was decompressed since the last message or final block.
    at_boundary: bool,
}

impl Stream {
    pub(super) fn new(agreed: Agreed) -> Self {
        Self { agreed, compressor: None, decompressor: None, at_boundary: true }
    }

    /// Appends `data` to `out` as a compressed message. False, and nothing appended: it is to be
    /// sent as it is.
    pub(super) fn compress(&mut self, data: &[u8], codecs: &mut Codecs, out: &mut Vec<u8>) -> bool {
        let bits = self.agreed.server_window_bits.unwrap_or(WINDOW_BITS_MAX);
        let new = || Compress::new_with_window_bits(Compression::default(), false, bits);
        if self.agreed.server_alone {
            if data.len() < WORTH_IT_BYTES {
                return false;
            }
            let compressor = codecs.compressors[usize::from(bits)].get_or_insert_with(new);
            let start = out.len();
            deflate(compressor, data, out);
            compressor.reset();
            if out.len() - start >= data.len() {
                out.truncate(start);
                return false;
            }
        } else {
            // An empty message has no data to flush behind, and costs nothing as it is.
            if data.is_empty() {
                return false;
            }
            deflate(self.compressor.get_or_insert_with(new), data, out);
        }
        true
    }

    /// Appends what `data`, a piece of a compressed message, decompresses to, as long as `out` is
    /// not longer than `max_bytes` then.
    pub(super) fn decompress(
        &mut self,
        data: &[u8],
        max_bytes: usize,
        codecs: &mut Codecs,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        if data.is_empty() {
            return Ok(());
        }
        let decompressor = self.decompressor.get_or_insert_with(|| {
            codecs.decompressors.pop().unwrap_or_else(|| Decompress::new(false))
        });
        self.at_boundary = inflate(decompressor, data, max_bytes, out)?;
        Ok(())
    }

    /// The message has ended: appends what is left of it.
    pub(super) fn end_message(
        &mut self,
        max_bytes: usize,
        codecs: &mut Codecs,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        // Behind a final block (RFC 7692 §7.2.3.4) there is nothing that the tail could end.
        if !self.at_boundary {
            self.decompress(&TAIL, max_bytes, codecs, out)?;
        }
        self.at_boundary = true;
        if self.agreed.client_alone {
            self.give_back(codecs);
        }
        Ok(())
    }

    fn give_back(&mut self, codecs: &mut Codecs) {
        if let Some(mut decompressor) = self.decompressor.take()
            && codecs.decompressors.len() < SPARE_DECOMPRESSORS
        {
            decompressor.reset(false);
            codecs.decompressors.push(decompressor);
        }
    }
}

/// Appends `data` compressed, up to a byte boundary, without the tail.
fn deflate(compressor: &mut Compress, mut data: &[u8], out: &mut Vec<u8>) {
    loop {
        // zlib wants room for its marker, or it writes it again.
        out.reserve((data.len() / 2).max(64));
        let before = compressor.total_in();
        let result = compressor.compress_vec(data, out, FlushCompress::Sync);
        result.expect("a compressor that was made with valid parameters takes all input");
        data = &data[difference(compressor.total_in(), before)..];
        if data.is_empty() && out.len() < out.capacity() {
            break;
        }
    }
    debug_assert!(out.ends_with(&TAIL));
    out.truncate(out.len() - TAIL.len());
}

/// Appends `data` decompressed. The result is whether it ended with a final block, behind which
/// everything begins anew.
fn inflate(
    decompressor: &mut Decompress,
    mut data: &[u8],
    max_bytes: usize,
    out: &mut Vec<u8>,
) -> Result<bool, ProtocolError> {
    loop {
        if out.len() == out.capacity() {
            // Twice as much each time, so that growing costs linear time, but no bomb more than a
            // byte beyond the limit.
            let room = out.len().max(FIRST_ROOM_BYTES).min(max_bytes.saturating_add(1) - out.len());
            out.reserve_exact(room);
        }
        let before = (decompressor.total_in(), out.len());
        let status = decompressor
            .decompress_vec(data, out, FlushDecompress::None)
            .map_err(|_| ProtocolError::InvalidDeflate)?;
        let consumed = difference(decompressor.total_in(), before.0);
        data = &data[consumed..];
        if out.len() > max_bytes {
            return Err(ProtocolError::MessageTooLong);
        }
        let ended = status == Status::StreamEnd;
        if ended {
            decompressor.reset(false);
        }
        if data.is_empty() && (ended || out.len() < out.capacity()) {
            return Ok(ended);
        }
        if !ended && consumed == 0 && out.len() == before.1 && out.len() < out.capacity() {
            return Err(ProtocolError::InvalidDeflate);
        }
    }
}

/// How much a counter of bytes within one buffer has moved.
fn difference(after: u64, before: u64) -> usize {
    usize::try_from(after - before).expect("no more is consumed than a buffer holds")
}
