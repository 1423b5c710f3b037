//! The chunked transfer coding, RFC 9112 §7.1: decoding for requests, size lines for responses.
//!
//! The decoder takes the framing byte by byte and consumes it, so that no cut of the input makes
//! it look twice; data is returned in place. Stricter than the grammar in one point: no white
//! space before a semicolon. Extensions are checked against the grammar, limited, line by line and
//! in sum, and dropped; trailers are checked to be field lines and dropped whatever their name, so
//! that none can be taken for a header of the request.

use super::Limits;
use super::error::ProtocolError;
use super::framing::{BodyPart, take};
use super::syntax::{is_field_byte, is_token_byte, write_hexadecimal};

/// Extensions as long as so many of the longest size lines are free; more must be outweighed by
/// data, or tiny chunks would make us read a multiple of what the limit of the body allows (RFC
/// 9112 §7.1.1). Who signs every chunk of 64 KiB stays far below that.
const FREE_EXTENSION_LINES: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    SizeStart,
    Size,
    Extension(Extension),
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    LastLineFeed,
    Done,
}

/// Within `";" name [ "=" ( token / quoted-string ) ]`, RFC 9112 §7.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    Start,
    Name,
    NameEnd,
    ValueStart,
    Value,
    Quoted,
    Escape,
    QuotedEnd,
}

/// One chunked body on its way in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decoder {
    place: Place,
    /// Of the chunk's data: what is still to come.
    remaining: u64,
    /// Data in all chunks so far, the announced rest of this one included.
    total: u64,
    /// Of the current size line, or of the trailer section: what was seen. Stops at 4 GiB, like a
    /// limit beyond.
    line_bytes: u32,
    /// By how much the extensions so far outweigh the data after them.
    extension_excess: u32,
}

impl Decoder {
    pub(super) const fn new() -> Self {
        Self { place: Place::SizeStart, remaining: 0, total: 0, line_bytes: 0, extension_excess: 0 }
    }

    /// Consumes framing and returns the next piece of data, or the end.
    pub(super) fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
        limits: &Limits,
    ) -> Result<BodyPart<'a>, ProtocolError> {
        loop {
            match self.place {
                Place::Done => return Ok(BodyPart::End),
                Place::Data if !input.is_empty() => return Ok(self.data(input)),
                _ => (),
            }
            let Some((&byte, rest)) = input.split_first() else { return Ok(BodyPart::NeedMore) };
            self.place = self.framing(byte, limits)?;
            *input = rest;
        }
    }

    fn data<'a>(&mut self, input: &mut &'a [u8]) -> BodyPart<'a> {
        let data = take(&mut self.remaining, input);
        if self.remaining == 0 {
            self.place = Place::DataReturn;
        }
        BodyPart::Data(data)
    }

    /// The place after one byte of framing.
    fn framing(&mut self, byte: u8, limits: &Limits) -> Result<Place, ProtocolError> {
        use Extension as E;
        match (self.place, byte) {
            (Place::SizeStart | Place::Size, _) if byte.is_ascii_hexdigit() => {
                self.size_digit(byte)?;
                self.size_line_byte(limits).map(|()| Place::Size)
            }
            (Place::Size, b';') => self.extension_byte(E::Start, limits),
            (Place::Size | Place::Extension(E::Name | E::Value | E::QuotedEnd), b'\r') => {
                Ok(Place::SizeLineFeed)
            }
            (Place::SizeStart | Place::Size | Place::Extension(_), b'\n') => {
                Err(ProtocolError::BareLineFeed)
            }
            (Place::SizeStart | Place::Size, _) => Err(ProtocolError::InvalidChunkSize),
            (Place::Extension(part), _) => {
                let next = extension(part, byte).ok_or(ProtocolError::InvalidChunkExtension)?;
                self.extension_byte(next, limits)
            }
            (Place::SizeLineFeed, b'\n') => self.size_line_end(limits),
            (Place::SizeLineFeed, _) => Err(ProtocolError::BareCarriageReturn),

            (Place::DataReturn, b'\r') => Ok(Place::DataLineFeed),
            (Place::DataLineFeed, b'\n') => Ok(Place::SizeStart),
            (Place::DataReturn | Place::DataLineFeed, _) => Err(ProtocolError::ChunkWithoutEnd),

            (place, _) => {
                self.line_bytes = self.line_bytes.saturating_add(1);
                if self.line_bytes as usize > limits.trailer_bytes {
                    return Err(ProtocolError::TrailersTooLong);
                }
                trailer(place, byte)
            }
        }
    }

    fn size_digit(&mut self, byte: u8) -> Result<(), ProtocolError> {
        let digit = char::from(byte).to_digit(16).ok_or(ProtocolError::InvalidChunkSize)?;
        let shifted = self.remaining.checked_mul(16).ok_or(ProtocolError::ChunkSizeOverflow)?;
        self.remaining = shifted + u64::from(digit);
        Ok(())
    }

    fn size_line_byte(&mut self, limits: &Limits) -> Result<(), ProtocolError> {
        self.line_bytes = self.line_bytes.saturating_add(1);
        if self.line_bytes as usize > limits.chunk_line_bytes {
            return Err(ProtocolError::ChunkLineTooLong);
        }
        Ok(())
    }

    fn extension_byte(&mut self, next: Extension, limits: &Limits) -> Result<Place, ProtocolError> {
        self.size_line_byte(limits)?;
        self.extension_excess = self.extension_excess.saturating_add(1);
        let free = limits.chunk_line_bytes.saturating_mul(FREE_EXTENSION_LINES);
        if self.extension_excess as usize > free {
            return Err(ProtocolError::ChunkExtensionsTooLong);
        }
        Ok(Place::Extension(next))
    }

    fn size_line_end(&mut self, limits: &Limits) -> Result<Place, ProtocolError> {
        self.line_bytes = 0;
        if self.remaining == 0 {
            return Ok(Place::TrailerStart);
        }
        let size = u32::try_from(self.remaining).unwrap_or(u32::MAX);
        self.extension_excess = self.extension_excess.saturating_sub(size);
        // Sizes add up: chunks of 2^63 would pass a limit one by one.
        let total = self.total.checked_add(self.remaining);
        self.total = total.ok_or(ProtocolError::ChunkSizeOverflow)?;
        if limits.body_bytes.is_some_and(|limit| self.total > limit) {
            return Err(ProtocolError::BodyTooLong);
        }
        Ok(Place::Data)
    }
}

/// The part of an extension after one more byte, if there may be one.
fn extension(part: Extension, byte: u8) -> Option<Extension> {
    use Extension as E;
    match (part, byte) {
        (E::Start | E::ValueStart, b' ' | b'\t') => Some(part),
        (E::Start | E::Name, _) if is_token_byte(byte) => Some(E::Name),
        (E::Name | E::NameEnd, b' ' | b'\t') => Some(E::NameEnd),
        (E::Name | E::NameEnd, b'=') => Some(E::ValueStart),
        (E::ValueStart | E::Value, _) if is_token_byte(byte) => Some(E::Value),
        (E::ValueStart, b'"') => Some(E::Quoted),
        (E::Quoted, b'"') => Some(E::QuotedEnd),
        (E::Quoted, b'\\') => Some(E::Escape),
        (E::Quoted | E::Escape, _) if is_field_byte(byte) => Some(E::Quoted),
        (E::Name | E::Value | E::QuotedEnd, b';') => Some(E::Start),
        _ => None,
    }
}

/// The place after one byte of the trailer section.
fn trailer(place: Place, byte: u8) -> Result<Place, ProtocolError> {
    match (place, byte) {
        (Place::TrailerStart, b'\r') => Ok(Place::LastLineFeed),
        (Place::TrailerStart | Place::TrailerName, _) if is_token_byte(byte) => {
            Ok(Place::TrailerName)
        }
        (Place::TrailerName, b':') => Ok(Place::TrailerValue),
        (Place::TrailerValue, b'\r') => Ok(Place::TrailerLineFeed),
        (Place::TrailerValue, _) if is_field_byte(byte) => Ok(Place::TrailerValue),
        (Place::TrailerLineFeed, b'\n') => Ok(Place::TrailerStart),
        (Place::LastLineFeed, b'\n') => Ok(Place::Done),
        (Place::TrailerLineFeed | Place::LastLineFeed, _) => Err(ProtocolError::BareCarriageReturn),
        (_, b'\n') => Err(ProtocolError::BareLineFeed),
        _ => Err(ProtocolError::InvalidTrailer),
    }
}

/// Appends the size line of a chunk of `length` bytes. Nothing for an empty piece, which would
/// read as the last chunk.
pub(super) fn write_size_line(length: usize, out: &mut Vec<u8>) {
    if length > 0 {
        write_hexadecimal(length as u64, out);
        out.extend_from_slice(b"\r\n");
    }
}

/// What follows the data of a chunk of `length` bytes, the last one if `end`.
pub(super) fn suffix(length: usize, end: bool) -> &'static [u8] {
    match (length, end) {
        (0, false) => b"",
        (0, true) => b"0\r\n\r\n",
        (_, false) => b"\r\n",
        (_, true) => b"\r\n0\r\n\r\n",
    }
}
