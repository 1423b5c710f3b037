//! What one send carries: bytes of ours, bytes of somebody else, ranges of files, in their order.
//!
//! Everything here is owned until the send has completed, and comes back with the completion, so
//! that its memory can be used again and objects of the application be released where that is
//! allowed.

use std::fs::File;
use std::ops::Range;

/// Bytes that stay where they are while the kernel reads them.
///
/// # Safety
///
/// `as_slice` returns the same memory at every call, and that memory is neither moved, changed nor
/// freed before the value is dropped: the kernel may read it during all that time.
#[allow(unsafe_code, reason = "whoever implements it promises what the kernel relies on")]
pub unsafe trait Payload {
    /// The bytes.
    fn as_slice(&self) -> &[u8];
}

#[allow(unsafe_code, reason = "a promise about memory")]
// SAFETY: nobody else can reach the vector, whose memory does not move with it.
unsafe impl Payload for Vec<u8> {
    fn as_slice(&self) -> &[u8] {
        self
    }
}

/// A part of a regular file. The proactor reads it as it is sent, a block at a time, and never moves
/// the file's own position.
#[derive(Debug)]
pub struct FileRange {
    file: File,
    offset: u64,
    length: usize,
}

impl FileRange {
    /// The `length` bytes from `offset` on. A file that turns out to be shorter fails the send.
    #[must_use]
    pub fn new(file: File, offset: u64, length: usize) -> Self {
        Self { file, offset, length }
    }

    /// Number of bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// The part of this range that begins at `part.start` bytes of it. Nothing beyond its end.
    #[must_use]
    pub fn part(self, part: Range<usize>) -> Self {
        let end = part.end.min(self.length);
        let start = part.start.min(end);
        Self { offset: self.offset_of(start), length: end - start, file: self.file }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where in the file the byte at `position` of the range is.
    #[must_use]
    pub fn offset_of(&self, position: usize) -> u64 {
        self.offset + position as u64
    }
}

enum Chunk {
    /// Bytes of ours.
    Copied(Vec<u8>),
    /// Bytes of somebody else, sent from where they are.
    Shared(Box<dyn Payload>),
    File(FileRange),
}

/// A part of an [`Outgoing`], as the one who sends it sees it.
#[derive(Debug)]
pub enum Piece<'a> {
    /// Bytes in memory.
    Bytes(&'a [u8]),
    /// Bytes to be read first.
    File(&'a FileRange),
}

impl Piece<'_> {
    /// Number of bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::File(range) => range.length(),
        }
    }
}

/// A sequence of bytes to send.
#[derive(Default)]
pub struct Outgoing {
    chunks: Vec<Chunk>,
    length: usize,
}

/// A copied chunk that has grown beyond this many bytes is freed instead of kept for the next use:
/// keeping it would let one large answer cost memory for ever.
const KEPT_CHUNK_BYTES: usize = 16 * 1024;

impl Outgoing {
    /// Total number of bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// True when there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Append to the last chunk of our own through `write`, opening one if needed.
    pub fn append_with<R>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        if !matches!(self.chunks.last(), Some(Chunk::Copied(_))) {
            self.chunks.push(Chunk::Copied(Vec::new()));
        }
        let Some(Chunk::Copied(bytes)) = self.chunks.last_mut() else {
            unreachable!("the last chunk was just made one of our own")
        };
        let before = bytes.len();
        let result = write(bytes);
        self.length += bytes.len() - before;
        result
    }

    /// Append a copy of `bytes`.
    pub fn append(&mut self, bytes: &[u8]) {
        self.append_with(|chunk| chunk.extend_from_slice(bytes));
    }

    /// Append `payload` without copying it.
    pub fn append_shared(&mut self, payload: Box<dyn Payload>) {
        self.length += payload.as_slice().len();
        self.chunks.push(Chunk::Shared(payload));
    }

    /// Append a part of a file.
    pub fn append_file(&mut self, range: FileRange) {
        self.length += range.length();
        self.chunks.push(Chunk::File(range));
    }

    /// The pieces, in the order they are sent.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        self.chunks.iter().map(|chunk| match chunk {
            Chunk::Copied(bytes) => Piece::Bytes(bytes),
            Chunk::Shared(payload) => Piece::Bytes(payload.as_slice()),
            Chunk::File(range) => Piece::File(range),
        })
    }

    /// Forget the content; the memory of a small first chunk is kept for the next use.
    pub fn clear(&mut self) {
        self.length = 0;
        self.chunks.truncate(1);
        match self.chunks.first_mut() {
            Some(Chunk::Copied(bytes)) if bytes.capacity() <= KEPT_CHUNK_BYTES => bytes.clear(),
            _ => self.chunks.clear(),
        }
    }
}
