//! What systemd says about the sockets it passed: `LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES`.
//!
//! [`parse`] is a pure function over an environment and a process id; [`take`] applies it to this
//! process, once, and removes the variables so that no child believes the sockets are its own.
//! The rules are those of `sd_listen_fds_with_names(3)`.
//!
//! Not here: whether a passed number is an open, listening socket. [`crate::listener::adopt`] asks
//! the kernel for that, and [`crate::listener::open`] decides what a missing activation means.

#![allow(unsafe_code, reason = "environment and descriptor flags are process-wide C state")]

use std::fmt;
use std::ops::Range;
use std::os::fd::RawFd;

/// The first passed descriptor, `SD_LISTEN_FDS_START` of `sd_listen_fds(3)`.
pub const FIRST_FD: RawFd = 3;

/// More descriptors than a process can hold: the kernel's default `fs.nr_open`, `proc_sys_fs(5)`.
pub const COUNT_LIMIT: i32 = 1 << 20;

/// The variables that [`take`] removes.
pub const VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The descriptors that were passed to this process, in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activation {
    /// At least one.
    pub fds: Vec<PassedFd>,
}

/// One passed descriptor. Nothing about it has been checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedFd {
    /// Its number.
    pub fd: RawFd,
    /// `FileDescriptorName=` of its unit, possibly empty; `None` without `LISTEN_FDNAMES`.
    pub name: Option<String>,
}

/// Why there is no activation. `Display` has the message and a `hint:` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActivationError {
    /// A variable is not set: nothing was passed. Holds its name.
    Absent(&'static str),
    /// `LISTEN_FDS=0`.
    Empty,
    /// The sockets were meant for another process.
    OtherProcess {
        /// `LISTEN_PID`.
        listen_pid: u32,
        /// This process.
        pid: u32,
    },
    /// `LISTEN_PID` is not a process id. Holds its value.
    InvalidPid(String),
    /// `LISTEN_FDS` is not a count of descriptors. Holds its value.
    InvalidCount(String),
    /// `LISTEN_FDNAMES` does not have one name per descriptor.
    NameCount {
        /// Names found.
        names: usize,
        /// `LISTEN_FDS`.
        fds: usize,
    },
}

impl ActivationError {
    /// True when nothing was passed to this very process, false when something was passed that
    /// cannot be understood.
    #[must_use]
    pub fn nothing_passed(&self) -> bool {
        matches!(self, Self::Absent(_) | Self::Empty | Self::OtherProcess { .. })
    }
}

impl fmt::Display for ActivationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = "start the service through its .socket unit (systemctl start NAME.socket), or \
                     try it with systemd-socket-activate --listen=ADDRESS PROGRAM";
        let starter = "the program that starts the server wrote it; systemd itself sets \
                       LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES together";
        match self {
            Self::Absent(variable) => {
                write!(f, "no socket was passed: {variable} is not set\n\nhint: {start}")
            }
            Self::Empty => write!(f, "no socket was passed: LISTEN_FDS is 0\n\nhint: {start}"),
            Self::OtherProcess { listen_pid, pid } => write!(
                f,
                "the sockets were passed to process {listen_pid} (LISTEN_PID), but this is process \
                 {pid}\n\nhint: a shell or wrapper stands between systemd and the server: let it \
                 end in `exec granian-uring ...`, or put the server itself into ExecStart="
            ),
            Self::InvalidPid(found) => {
                write!(f, "LISTEN_PID is {found:?}, expected a process id\n\nhint: {starter}")
            }
            Self::InvalidCount(found) => write!(
                f,
                "LISTEN_FDS is {found:?}, expected a number from 1 to {COUNT_LIMIT}\n\nhint: \
                 {starter}"
            ),
            Self::NameCount { names, fds } => write!(
                f,
                "LISTEN_FDNAMES has {names} names for {fds} descriptors (LISTEN_FDS)\n\nhint: \
                 {starter}; names are separated by ':', one for each descriptor"
            ),
        }
    }
}

impl std::error::Error for ActivationError {}

/// Reads the three variables as `sd_listen_fds_with_names(3)` does, for the process `pid`.
///
/// # Errors
/// [`ActivationError`], in the order of the checks: absent, whose, how many, which names.
pub fn parse(
    environment: impl Fn(&str) -> Option<String>,
    pid: u32,
) -> Result<Activation, ActivationError> {
    let numbers = passed_numbers(&environment, pid)?;
    let Some(names) = environment("LISTEN_FDNAMES") else {
        return Ok(Activation { fds: numbers.map(|fd| PassedFd { fd, name: None }).collect() });
    };
    let names: Vec<&str> = names.split(':').collect();
    if names.len() != numbers.len() {
        return Err(ActivationError::NameCount { names: names.len(), fds: numbers.len() });
    }
    let fds = numbers.zip(names).map(|(fd, name)| PassedFd { fd, name: Some(name.to_owned()) });
    Ok(Activation { fds: fds.collect() })
}

/// Which descriptors were passed to the process `pid`.
fn passed_numbers(
    environment: impl Fn(&str) -> Option<String>,
    pid: u32,
) -> Result<Range<RawFd>, ActivationError> {
    let listen_pid = environment("LISTEN_PID").ok_or(ActivationError::Absent("LISTEN_PID"))?;
    let count = environment("LISTEN_FDS").ok_or(ActivationError::Absent("LISTEN_FDS"))?;

    let listen_pid = match decimal(&listen_pid).and_then(|pid| u32::try_from(pid).ok()) {
        Some(pid) if pid > 0 => pid,
        _ => return Err(ActivationError::InvalidPid(listen_pid)),
    };
    if listen_pid != pid {
        return Err(ActivationError::OtherProcess { listen_pid, pid });
    }

    let count = match decimal(&count) {
        Some(0) => return Err(ActivationError::Empty),
        Some(count) if count <= COUNT_LIMIT => count,
        _ => return Err(ActivationError::InvalidCount(count)),
    };
    Ok(FIRST_FD..FIRST_FD + count)
}

/// [`parse`] of this process's environment; then the variables are gone (also after an error), and
/// each passed descriptor is close-on-exec, so that no child inherits it.
///
/// # Errors
/// As [`parse`].
///
/// # Safety
/// No other thread may read or change the environment meanwhile: call it before any is started.
pub unsafe fn take() -> Result<Activation, ActivationError> {
    let environment =
        |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let pid = std::process::id();
    let activation = parse(environment, pid);
    // Also when only the names are wrong.
    let numbers = passed_numbers(environment, pid);
    for variable in VARIABLES {
        // SAFETY: the caller promises that no other thread uses the environment.
        unsafe { std::env::remove_var(variable) };
    }
    numbers.into_iter().flatten().for_each(set_close_on_exec);
    activation
}

/// Sets `FD_CLOEXEC`, `fcntl(2)`. A number that is not open is left to
/// [`crate::listener::adopt`], which can say more about it.
pub(crate) fn set_close_on_exec(fd: RawFd) {
    // SAFETY: F_SETFD touches no memory; on a number that is not open it only returns EBADF.
    unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// A number of decimal digits alone: no sign, no space, which `str::parse` would partly allow.
fn decimal(text: &str) -> Option<i32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PID: u32 = 4242;

    /// `LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES`.
    type Variables<'a> = (Option<&'a str>, Option<&'a str>, Option<&'a str>);

    fn parse_variables((pid, fds, names): Variables<'_>) -> Result<Vec<PassedFd>, ActivationError> {
        let environment = |name: &str| {
            let value = match name {
                "LISTEN_PID" => pid,
                "LISTEN_FDS" => fds,
                "LISTEN_FDNAMES" => names,
                _ => panic!("{name} is none of VARIABLES"),
            };
            value.map(str::to_owned)
        };
        parse(environment, PID).map(|activation| activation.fds)
    }

    #[test]
    fn names_belong_to_numbers_in_order() {
        let named = |fd, name: &str| PassedFd { fd, name: Some(name.to_owned()) };
        let unnamed = |fd| PassedFd { fd, name: None };
        let table = [
            ("1", None, vec![unnamed(3)]),
            ("2", None, vec![unnamed(3), unnamed(4)]),
            ("1", Some("web"), vec![named(3, "web")]),
            ("1", Some(""), vec![named(3, "")]),
            ("3", Some("web::web"), vec![named(3, "web"), named(4, ""), named(5, "web")]),
            ("2", Some("b.socket:a"), vec![named(3, "b.socket"), named(4, "a")]),
            ("2", Some(":"), vec![named(3, ""), named(4, "")]),
        ];
        for (fds, names, expected) in table {
            let found = parse_variables((Some("4242"), Some(fds), names));
            assert_eq!(found, Ok(expected), "LISTEN_FDS={fds} LISTEN_FDNAMES={names:?}");
        }
    }

    #[test]
    fn every_breach_has_its_own_error() {
        use ActivationError::{Absent, Empty, InvalidCount, InvalidPid, NameCount, OtherProcess};
        let pid = Some("4242");
        let count = |value: &str| InvalidCount(value.to_owned());
        let bad_pid = |value: &str| InvalidPid(value.to_owned());
        let table: [(Variables<'_>, ActivationError); 23] = [
            ((None, None, None), Absent("LISTEN_PID")),
            ((None, Some("1"), None), Absent("LISTEN_PID")),
            ((pid, None, None), Absent("LISTEN_FDS")),
            ((Some("7"), Some("1"), None), OtherProcess { listen_pid: 7, pid: PID }),
            ((Some("7"), Some("junk"), None), OtherProcess { listen_pid: 7, pid: PID }),
            ((Some(""), Some("1"), None), bad_pid("")),
            ((Some("0"), Some("1"), None), bad_pid("0")),
            ((Some("-1"), Some("1"), None), bad_pid("-1")),
            ((Some("+4242"), Some("1"), None), bad_pid("+4242")),
            ((Some("4242 "), Some("1"), None), bad_pid("4242 ")),
            ((Some("99999999999"), Some("1"), None), bad_pid("99999999999")),
            ((pid, Some("0"), None), Empty),
            ((pid, Some(""), None), count("")),
            ((pid, Some("-1"), None), count("-1")),
            ((pid, Some("+1"), None), count("+1")),
            ((pid, Some("1.0"), None), count("1.0")),
            ((pid, Some("two"), None), count("two")),
            ((pid, Some("1048577"), None), count("1048577")),
            ((pid, Some("2147483647"), None), count("2147483647")),
            ((pid, Some("99999999999999999999"), None), count("99999999999999999999")),
            ((pid, Some("2"), Some("web")), NameCount { names: 1, fds: 2 }),
            ((pid, Some("1"), Some("web:api")), NameCount { names: 2, fds: 1 }),
            ((pid, Some("2"), Some("")), NameCount { names: 1, fds: 2 }),
        ];
        for (variables, expected) in table {
            assert_eq!(parse_variables(variables), Err(expected), "{variables:?}");
        }
    }

    #[test]
    fn messages_say_what_was_found_and_what_to_do() {
        let text = ActivationError::OtherProcess { listen_pid: 7, pid: 8 }.to_string();
        let (message, hint) = text.split_once("\n\nhint: ").expect("a hint after an empty line");
        assert!(message.contains("process 7") && message.contains("process 8"), "{message}");
        assert!(hint.contains("exec "), "{hint}");
    }
}
