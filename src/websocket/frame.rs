//! Frames (RFC 6455 §5.2): their headers, both ways, and the masks of clients.

use super::error::ProtocolError;

/// What a control frame carries at most, RFC 6455 §5.5.
pub(super) const CONTROL_BYTES_MAX: usize = 125;
/// The longest header that we send: two bytes, and eight of length.
const HEADER_BYTES_MAX: usize = 10;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2_AND_RSV3: u8 = 0x30;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;

/// What a frame is, RFC 6455 §5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

impl Opcode {
    fn new(byte: u8) -> Option<Self> {
        Some(match byte & OPCODE {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The header of a client's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) opcode: Opcode,
    /// The last frame of its message.
    pub(super) fin: bool,
    /// The message is compressed.
    pub(super) compressed: bool,
    /// Of the payload, in bytes.
    pub(super) length: u64,
    pub(super) mask: Mask,
}

impl FrameHeader {
    /// The header at the front of `input` and its own length, if it is all there. What is wrong
    /// with a frame is said as soon as its first two bytes show it.
    pub(super) fn parse(
        input: &[u8],
        takes_compressed: bool,
    ) -> Result<Option<(Self, usize)>, ProtocolError> {
        let [first, second, rest @ ..] = input else { return Ok(None) };
        let opcode = Opcode::new(*first).ok_or(ProtocolError::UnknownOpcode)?;
        let fin = first & FIN != 0;
        let compressed = first & RSV1 != 0;
        // RFC 7692 §6: only the first frame of a message has the bit.
        let may_be_compressed = takes_compressed && matches!(opcode, Opcode::Text | Opcode::Binary);
        if first & RSV2_AND_RSV3 != 0 || (compressed && !may_be_compressed) {
            return Err(ProtocolError::ReservedBit);
        }
        if second & MASKED == 0 {
            return Err(ProtocolError::NotMasked);
        }
        let short = second & LENGTH;
        if opcode.is_control() {
            if !fin {
                return Err(ProtocolError::FragmentedControl);
            }
            if usize::from(short) > CONTROL_BYTES_MAX {
                return Err(ProtocolError::ControlTooLong);
            }
        }
        let Some((length, rest)) = long_length(short, rest)? else { return Ok(None) };
        let Some(mask) = rest.first_chunk() else { return Ok(None) };
        let header = Self { opcode, fin, compressed, length, mask: Mask(*mask) };
        Ok(Some((header, input.len() - rest.len() + mask.len())))
    }
}

/// The length of a payload, and what follows it; `short` is what the second byte says.
fn long_length(short: u8, input: &[u8]) -> Result<Option<(u64, &[u8])>, ProtocolError> {
    let (length, shortest, rest) = match short {
        126 => {
            let Some((bytes, rest)) = input.split_first_chunk() else { return Ok(None) };
            (u64::from(u16::from_be_bytes(*bytes)), 126, rest)
        }
        127 => {
            let Some((bytes, rest)) = input.split_first_chunk() else { return Ok(None) };
            (u64::from_be_bytes(*bytes), 1 << 16, rest)
        }
        _ => (u64::from(short), 0, input),
    };
    // Two ways to say the same length are two ways to understand a frame.
    if length < shortest || length > i64::MAX as u64 {
        return Err(ProtocolError::InvalidLength);
    }
    Ok(Some((length, rest)))
}

/// What a payload is masked with, RFC 6455 §5.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mask([u8; 4]);

impl Mask {
    /// Unmasks the next `bytes` of a payload, and goes on to what follows them.
    pub(super) fn apply(&mut self, bytes: &mut [u8]) {
        let Self([a, b, c, d]) = *self;
        let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let (words, rest) = bytes.as_chunks_mut();
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
        }
        for (byte, mask) in rest.iter_mut().zip(self.0.iter().cycle()) {
            *byte ^= mask;
        }
        self.0.rotate_left(rest.len() % 4);
    }
}

/// Appends the header of a frame of ours: a whole message or a control frame, without a mask.
pub(super) fn write_header(opcode: Opcode, compressed: bool, length: usize, out: &mut Vec<u8>) {
    let mut header = [0; HEADER_BYTES_MAX];
    header[0] = FIN | if compressed { RSV1 } else { 0 } | opcode as u8;
    let bytes = (length as u64).to_be_bytes();
    let used = match length {
        0..126 => {
            header[1] = bytes[7];
            2
        }
        126..0x1_0000 => {
            header[1] = 126;
            header[2..4].copy_from_slice(&bytes[6..]);
            4
        }
        _ => {
            header[1] = 127;
            header[2..10].copy_from_slice(&bytes);
            10
        }
    };
    out.extend_from_slice(&header[..used]);
}
