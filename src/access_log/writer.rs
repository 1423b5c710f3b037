//! The thread that writes the lines of an access log to a file descriptor.
//!
//! All lines of a look are one write, so that they stay whole beside what others write there. An
//! error (nobody reads a pipe any more, a disk is full) costs these lines; the next ones are tried
//! again.
#![allow(unsafe_code, reason = "poll(2), for a descriptor that somebody has made non-blocking")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::thread;

use super::{AccessLog, Format, Lines};

impl AccessLog {
    /// A log that is written to `file` by a thread of its own: each line at most 20 ms after its
    /// request was over, as far as `file` takes it. The end of the log waits for the last line, for
    /// at most 2 s.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub fn to_file(format: Format, file: File) -> io::Result<Self> {
        let (mut log, mut lines) = Self::new(format);
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_lines(&mut lines, &file))?;
        log.is_awaited = true;
        Ok(log)
    }
}

fn write_lines(lines: &mut Lines, file: &File) {
    // A part of a line was written, and its end was not.
    let mut torn = false;
    while let Some(text) = lines.next() {
        let mut rest = text;
        let result =
            if torn { write_whole(file, &mut &b"\n"[..]) } else { Ok(()) }.and_then(|()| {
                torn = false;
                write_whole(file, &mut rest)
            });
        if result.is_err() {
            let written = &text[..text.len() - rest.len()];
            torn |= !written.is_empty() && !written.ends_with(b"\n");
            lines.lose();
        }
    }
}

/// Write all of `rest`; what is left in it after an error was not written.
fn write_whole(mut file: &File, rest: &mut &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => *rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_until_writable(file),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait_until_writable(file: &File) {
    let mut polled = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one entry, of this function, and the descriptor is open as long as `file` is. The
    // result does not matter: the next write tells.
    unsafe { libc::poll(&raw mut polled, 1, -1) };
}
