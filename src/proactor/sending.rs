//! A send under way: what is sent, how far it came, and the memory that the kernel reads meanwhile.
//!
//! Bytes in memory go to the kernel from where they are, as many as one call takes. A file is read a
//! block at a time into memory of the send's own, and goes on from there together with what stands
//! before and behind it: for a small file that is one read and one send for head and body.
//! (`splice(2)` through a pipe would save the copy, but a ring runs every splice on a thread of its
//! own.)
#![allow(unsafe_code, reason = "the kernel reads memory of ours, and writes blocks of files")]

use std::mem;
use std::os::fd::{AsRawFd, RawFd};

use super::{Outgoing, Piece};

/// `sendmsg(2)` takes at most `UIO_MAXIOV` vectors; fewer keep the vectors small.
const VECTORS_PER_SEND: usize = 64;
/// Bytes of a file that are read at once. A peer that reads slowly holds that much memory.
const BLOCK_BYTES: usize = 64 * 1024;

/// What has to be done next.
pub(super) enum Step {
    /// What [`Sending::vectors`] point at is to be given to the kernel.
    Send,
    /// A block of a file is to be read, and then [`Sending::block_read`].
    Read { file: RawFd, offset: u64, to: *mut u8, length: u32 },
}

/// The block of a file that was read last.
#[derive(Default)]
struct Block {
    /// Where in the whole its first byte is.
    start: usize,
    bytes: Vec<u8>,
    /// The kernel writes into it.
    reading: bool,
}

/// See the head of this file. It stays where it is, in a box, while an operation is under way.
pub(super) struct Sending {
    data: Outgoing,
    /// Bytes that the kernel has taken.
    sent: usize,
    /// It is not continued any more.
    pub(super) cancelled: bool,
    block: Block,
    vectors: Vec<libc::iovec>,
    message: libc::msghdr,
}

impl Default for Sending {
    fn default() -> Self {
        Self {
            data: Outgoing::default(),
            sent: 0,
            cancelled: false,
            block: Block::default(),
            vectors: Vec::new(),
            // SAFETY: `struct msghdr` is plain data for which all zeros is "nothing".
            message: unsafe { mem::zeroed() },
        }
    }
}

impl Sending {
    /// Take `data`, of which nothing is sent yet.
    pub(super) fn begin(&mut self, data: Outgoing) {
        self.data = data;
        self.sent = 0;
        self.cancelled = false;
    }

    /// The end of it: what was to be sent is given back, and the block's memory to the allocator.
    pub(super) fn end(&mut self) -> Outgoing {
        self.block = Block::default();
        mem::take(&mut self.data)
    }

    pub(super) fn sent_so_far(&self) -> usize {
        self.sent
    }

    pub(super) fn is_whole(&self) -> bool {
        self.sent >= self.data.length()
    }

    pub(super) fn is_reading(&self) -> bool {
        self.block.reading
    }

    /// The kernel has taken `length` bytes more.
    pub(super) fn sent(&mut self, length: usize) {
        self.sent += length;
    }

    /// The kernel has written `length` bytes of the file.
    pub(super) fn block_read(&mut self, length: usize) {
        assert!(length <= self.block.bytes.capacity(), "the kernel was given that much room");
        // SAFETY: the kernel has written that many bytes at the beginning of the vector's memory.
        unsafe { self.block.bytes.set_len(length) };
        self.block.reading = false;
    }

    /// Point the vectors at what has not been sent, or at as much of it as one call takes. Where a
    /// file comes of which no byte is there, it has to be read first: so that what stands before
    /// it goes along.
    pub(super) fn next_step(&mut self) -> Step {
        self.vectors.clear();
        let mut start = 0;
        let mut block_used = false;
        for piece in self.data.pieces() {
            let end = start + piece.length();
            let from = self.sent.max(start);
            if from < end && self.vectors.len() < VECTORS_PER_SEND {
                match piece {
                    Piece::Bytes(bytes) => self.vectors.push(vector(&bytes[from - start..])),
                    Piece::File(range) => {
                        let there = self.block.rest(from);
                        if there.is_empty() && block_used {
                            break;
                        }
                        if there.is_empty() {
                            let length = (end - from).min(BLOCK_BYTES);
                            let offset = range.offset_of(from - start);
                            let file = range.file().as_raw_fd();
                            return self.block.read(from, file, offset, length);
                        }
                        block_used = true;
                        self.vectors.push(vector(there));
                        if from + there.len() < end {
                            break;
                        }
                    }
                }
            }
            start = end;
        }
        Step::Send
    }

    /// What [`Sending::next_step`] pointed at, until the next one.
    pub(super) fn vectors(&self) -> &[libc::iovec] {
        &self.vectors
    }

    /// The same as a message for `sendmsg(2)`.
    pub(super) fn message(&mut self) -> *const libc::msghdr {
        self.message.msg_iov = self.vectors.as_mut_ptr();
        self.message.msg_iovlen = self.vectors.len();
        &raw const self.message
    }
}

impl Block {
    /// Its bytes from the position `from` of the whole on; none where it ends before or begins
    /// behind.
    fn rest(&self, from: usize) -> &[u8] {
        from.checked_sub(self.start).and_then(|skip| self.bytes.get(skip..)).unwrap_or_default()
    }

    fn read(&mut self, start: usize, file: RawFd, offset: u64, length: usize) -> Step {
        self.start = start;
        self.bytes.clear();
        self.bytes.reserve_exact(length);
        self.reading = true;
        let length = u32::try_from(length).expect("a block is shorter than 4 GiB");
        Step::Read { file, offset, to: self.bytes.as_mut_ptr(), length }
    }
}

fn vector(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::proactor::{FileRange, Payload};

    struct Bytes(Vec<u8>);

    // SAFETY: nobody touches the vector before it is dropped with this value.
    unsafe impl Payload for Bytes {
        fn as_slice(&self) -> &[u8] {
            &self.0
        }
    }

    fn pointed_at(sending: &Sending) -> Vec<u8> {
        let slices = sending.vectors.iter().map(|vector| {
            // SAFETY: the vectors point into memory of `sending`, which is alive and unchanged.
            unsafe { std::slice::from_raw_parts(vector.iov_base.cast::<u8>(), vector.iov_len) }
        });
        slices.flatten().copied().collect()
    }

    /// A kernel rarely stops within a chunk, so no test on sockets gets there.
    #[test]
    fn a_short_send_goes_on_at_the_byte_where_it_stopped() {
        let mut data = Outgoing::default();
        let mut whole = Vec::new();
        for number in 0..100_u8 {
            let chunk = vec![number; usize::from(number % 4)];
            whole.extend_from_slice(&chunk);
            // Chunks of our own are merged; shared ones stay apart.
            data.append_shared(Box::new(Bytes(chunk)));
        }
        let mut sending = Sending::default();
        sending.begin(data);
        for sent in 0..whole.len() {
            sending.sent = sent;
            assert!(matches!(sending.next_step(), Step::Send));
            let found = pointed_at(&sending);
            assert!(whole[sent..].starts_with(&found), "after {sent} bytes");
            assert!(sending.vectors.len() == VECTORS_PER_SEND || sent + found.len() == whole.len());
        }
    }

    /// Every length of a short send, with files whose blocks end within it.
    #[test]
    fn files_between_bytes_are_sent_in_order_whatever_the_kernel_takes_at_once() {
        let content: Vec<u8> = (0..=250_u8).cycle().take(2 * BLOCK_BYTES + 777).collect();
        let file = tempfile(&content);
        let ranges = [(0, 5), (700, BLOCK_BYTES), (3, BLOCK_BYTES + 9), (9, 0)];
        for taken_at_once in [1000, 4093, BLOCK_BYTES - 1, BLOCK_BYTES + 1, usize::MAX] {
            let mut data = Outgoing::default();
            let mut whole = Vec::new();
            for (offset, length) in ranges {
                data.append(b"head");
                whole.extend_from_slice(b"head");
                let clone = file.try_clone().expect("a clone of the file");
                data.append_file(FileRange::new(clone, offset as u64, length));
                whole.extend_from_slice(&content[offset..offset + length]);
            }
            let mut sending = Sending::default();
            sending.begin(data);
            let mut sent = Vec::new();
            while !sending.is_whole() {
                match sending.next_step() {
                    Step::Read { offset, to, length, .. } => {
                        // SAFETY: the block has room for that many bytes at that place.
                        let room = unsafe { std::slice::from_raw_parts_mut(to, length as usize) };
                        let read = file.read_at(room, offset).expect("a regular file");
                        sending.block_read(read);
                    }
                    Step::Send => {
                        let mut taken = pointed_at(&sending);
                        assert!(!taken.is_empty(), "a send of nothing would never end");
                        taken.truncate(taken_at_once);
                        sending.sent(taken.len());
                        sent.extend_from_slice(&taken);
                    }
                }
            }
            assert!(sent == whole, "{taken_at_once} bytes at once");
        }
    }

    fn tempfile(content: &[u8]) -> std::fs::File {
        use std::os::fd::FromRawFd;
        // SAFETY: a fresh descriptor that nobody else knows.
        let file = unsafe {
            std::fs::File::from_raw_fd(libc::memfd_create(c"file".as_ptr(), libc::MFD_CLOEXEC))
        };
        file.write_all_at(content, 0).expect("memory for a small file");
        file
    }
}
