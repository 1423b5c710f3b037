//! Whether a seccomp filter ends this process where it asks for an `io_uring`.
//!
//! A filter may answer a call with an error, which a ring's setup reports like any other, or with
//! SIGSYS, which cannot be caught. So a child finds out: it makes the calls with arguments that the
//! kernel refuses (a filter judges a call before the kernel looks at them) and tells of each one
//! that it has survived. Processes without a filter need no child.
#![allow(unsafe_code, reason = "a child process, and calls that have no wrapper")]

use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

/// What a ring calls, and the arguments that make nothing of it: no parameters, no ring.
const CALLS: [(&str, libc::c_long, libc::c_long); 3] = [
    ("io_uring_setup", libc::SYS_io_uring_setup, 0),
    ("io_uring_register", libc::SYS_io_uring_register, -1),
    ("io_uring_enter", libc::SYS_io_uring_enter, -1),
];

/// Why this process must not ask for a ring. Displays as `RingError` does.
#[derive(Debug)]
pub enum FilterError {
    /// The filter kills whoever makes this call.
    Kills {
        /// The call's name.
        call: &'static str,
    },
    /// There is a filter, and no child could be made to try it.
    Untried(io::Error),
}

impl FilterError {
    /// What to change.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Kills { .. } => {
                "allow io_uring in SystemCallFilter= of the unit (@system-service holds it) or in \
                 the seccomp profile of the container"
            }
            Self::Untried(_) => {
                "let the service have another process while it starts: TasksMax= of the unit, \
                 `ulimit -u`"
            }
        }
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kills { call } => {
                write!(formatter, "a seccomp filter ends the process at {call} (SIGSYS)")
            }
            Self::Untried(error) => write!(
                formatter,
                "a seccomp filter may refuse io_uring, and no process could be started to try: \
                 {error}"
            ),
        }
    }
}

impl std::error::Error for FilterError {}

/// Find out. Costs a fork where there is a filter: call it early, while the process is small.
///
/// # Errors
///
/// When asking for a ring would end this process, or that cannot be told.
pub fn check() -> Result<(), FilterError> {
    if !has_filter() {
        return Ok(());
    }
    let survived = survived_calls().map_err(FilterError::Untried)?;
    match CALLS.get(survived) {
        Some((call, ..)) => Err(FilterError::Kills { call }),
        None => Ok(()),
    }
}

/// Where prctl itself is refused there is a filter too.
fn has_filter() -> bool {
    // SAFETY: PR_GET_SECCOMP (prctl(2)) takes no argument and touches no memory.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP) != 0 }
}

/// How many of [`CALLS`] a child lived to tell of.
fn survived_calls() -> io::Result<usize> {
    let (mut reader, writer) = io::pipe()?;
    // SAFETY: the child makes system calls and nothing else, so it does not matter what other
    // threads were in the middle of.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => try_calls(writer.as_raw_fd()),
        child => child,
    };
    drop(writer);
    let mut told = Vec::new();
    let result = reader.read_to_end(&mut told);
    reap(child);
    result.map(|_| told.len())
}

/// The child: a byte for each call after which it is still there.
fn try_calls(writer: RawFd) -> ! {
    // SAFETY: no call is given memory but the write, one static byte; the others get numbers that
    // are no ring and no address. PR_SET_DUMPABLE, so that a death here leaves no core dump.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0);
        for (_, number, argument) in CALLS {
            libc::syscall(number, argument, 0, 0, 0, 0, 0);
            libc::write(writer, ptr::from_ref(&b'.').cast(), 1);
        }
        libc::_exit(0)
    }
}

fn reap(child: libc::pid_t) {
    loop {
        // SAFETY: our own child; no status is asked for. It fails with ECHILD where SIGCHLD is
        // ignored, and then nothing is left to reap.
        let done = unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
        if done != -1 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}
