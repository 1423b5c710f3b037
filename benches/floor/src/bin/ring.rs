//! The floor of a hello on `io_uring`: accept, receive, send, and no more. It does not parse: it
//! takes every request of a connection for as long as its first one.
//!
//!     ring ADDRESS
//!
//! What a real server costs beyond this is what it does with a request. The flags of the ring are
//! those of `src/proactor/uring.rs`, so that the two differ in nothing else.
#![allow(unsafe_code, reason = "the kernel shares memory with us: the ring and the buffers")]

use std::error::Error;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::ptr;

use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};

const BUFFER_BYTES: usize = 16 * 1024;
/// The very bytes of our server's answer, but that the date stands still.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\
    date: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: granian-uring\r\ncontent-length: 13\r\n\r\n\
    Hello, world!";
/// `include/uapi/linux/io_uring.h`: in an entry's `ioprio`, do not try before there is something.
const RECVSEND_POLL_FIRST: u16 = 1;

const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;

/// A connection. Its memory stays where it is until the process ends, so that the kernel may use
/// it at any time.
struct Connection {
    received: Box<[u8; BUFFER_BYTES]>,
    /// Of a request; known when the first one has come.
    request_bytes: Option<usize>,
    /// Bytes of a request whose end has not come.
    rest: usize,
    /// As many answers as are under way, and how much of them is sent.
    answers: Vec<u8>,
    sent: usize,
}

struct Loop {
    ring: IoUring,
    listener: TcpListener,
    /// By fd.
    connections: Vec<Option<Connection>>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("expected an address")?;
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(2048)
        .build(256)?;
    let listener = TcpListener::bind(address)?;
    let mut floor = Loop { ring, listener, connections: Vec::new() };
    floor.accept();
    let mut completions = Vec::with_capacity(2048);
    loop {
        floor.ring.submit_and_wait(1)?;
        let entries = floor.ring.completion();
        completions.extend(entries.map(|entry| (entry.user_data(), entry.result())));
        for (tag, result) in completions.drain(..) {
            floor.complete(tag, result)?;
        }
    }
}

impl Loop {
    fn complete(&mut self, tag: u64, result: i32) -> Result<(), Box<dyn Error>> {
        #[allow(clippy::cast_possible_truncation, reason = "the lower half is the fd")]
        let fd = (tag as u32).cast_signed();
        match tag >> 32 {
            ACCEPT => {
                self.accept();
                self.open(check(result)?)?;
            }
            RECEIVE if result <= 0 => close(fd)?,
            RECEIVE => self.received(fd, usize::try_from(result)?)?,
            _ if result <= 0 => close(fd)?,
            _ => self.sent(fd, usize::try_from(result)?)?,
        }
        Ok(())
    }

    fn accept(&mut self) {
        let fd = self.listener.as_raw_fd();
        let entry = opcode::Accept::new(Fd(fd), ptr::null_mut(), ptr::null_mut())
            .flags(libc::SOCK_CLOEXEC)
            .build();
        self.push(entry, ACCEPT, fd);
    }

    fn open(&mut self, fd: i32) -> Result<(), Box<dyn Error>> {
        let one: libc::c_int = 1;
        // SAFETY: the value lives through the call, and its length is that of an int; the fd is
        // the accept's, ours alone.
        check(unsafe {
            libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, (&raw const one).cast(), 4)
        })?;
        let index = usize::try_from(fd)?;
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, || None);
        }
        // A place is used again, so that memory which the kernel has known is never freed.
        let connection = self.connections[index].get_or_insert_with(|| Connection {
            received: Box::new([0; BUFFER_BYTES]),
            request_bytes: None,
            rest: 0,
            answers: Vec::new(),
            sent: 0,
        });
        connection.rest = 0;
        connection.request_bytes = None;
        self.receive(fd)
    }

    fn receive(&mut self, fd: i32) -> Result<(), Box<dyn Error>> {
        let connection = self.connection(fd)?;
        #[allow(clippy::cast_possible_truncation, reason = "16384 is a u32")]
        let length = BUFFER_BYTES as u32;
        let entry = opcode::Recv::new(Fd(fd), connection.received.as_mut_ptr(), length)
            .ioprio(RECVSEND_POLL_FIRST)
            .build();
        self.push(entry, RECEIVE, fd);
        Ok(())
    }

    fn received(&mut self, fd: i32, length: usize) -> Result<(), Box<dyn Error>> {
        let connection = self.connection(fd)?;
        let request_bytes = match connection.request_bytes {
            Some(bytes) => bytes,
            None => first_head(&connection.received[..length]).ok_or("expected a whole head")?,
        };
        let bytes = connection.rest + length;
        connection.rest = bytes % request_bytes;
        connection.sent = 0;
        connection.answers.clear();
        for _ in 0..bytes / request_bytes {
            connection.answers.extend_from_slice(ANSWER);
        }
        connection.request_bytes = Some(request_bytes);
        if connection.answers.is_empty() { self.receive(fd) } else { self.send(fd) }
    }

    fn send(&mut self, fd: i32) -> Result<(), Box<dyn Error>> {
        let connection = self.connection(fd)?;
        let left = &connection.answers[connection.sent..];
        let entry = opcode::Send::new(Fd(fd), left.as_ptr(), u32::try_from(left.len())?)
            .flags(libc::MSG_NOSIGNAL)
            .build();
        self.push(entry, SEND, fd);
        Ok(())
    }

    fn sent(&mut self, fd: i32, length: usize) -> Result<(), Box<dyn Error>> {
        let connection = self.connection(fd)?;
        connection.sent += length;
        if connection.sent < connection.answers.len() { self.send(fd) } else { self.receive(fd) }
    }

    fn connection(&mut self, fd: i32) -> Result<&mut Connection, Box<dyn Error>> {
        let place = self.connections.get_mut(usize::try_from(fd)?);
        place.and_then(Option::as_mut).ok_or_else(|| "a completion of no connection".into())
    }

    fn push(&mut self, entry: squeue::Entry, kind: u64, fd: i32) {
        let entry = entry.user_data(kind << 32 | u64::from(fd.unsigned_abs()));
        // SAFETY: what the entry points to is a connection's, which is never freed, and whose
        // vector of answers is changed only when no send is under way.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            // The queue is full: the kernel takes all of it. If it cannot, the next try tells.
            let _ = self.ring.submit();
        }
    }
}

/// Closes a connection of which nothing is under way.
fn close(fd: i32) -> io::Result<()> {
    // SAFETY: the fd is a connection's, ours alone; its one operation has just completed.
    check(unsafe { libc::close(fd) }).map(drop)
}

/// The length of the first head.
fn first_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|end| end + 4)
}

/// What the kernel returned, or the error that it is.
fn check(result: i32) -> io::Result<i32> {
    match result {
        0.. => Ok(result),
        -1 => Err(io::Error::last_os_error()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}
