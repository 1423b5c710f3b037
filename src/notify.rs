//! Telling systemd how the service is doing: the protocol of `sd_notify(3)`.
//!
//! [`take`] reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` and removes them. Readiness,
//! watchdog and stopping are claims about the whole server, and the application runs in the very
//! process that systemd listens to: with the variables at hand, a library of its own or a child
//! could say READY=1 before the listeners are armed, or keep a hung server alive. An application
//! that wants to speak for itself has no way to in this version.
//!
//! Not here: when to say what. That is the server's and the worker's.

#![allow(unsafe_code, reason = "the environment and the monotonic clock are C interfaces")]

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;
use std::{fmt, io, mem, process};

use socket2::{Domain, SockAddr, Socket, Type};

/// The variables that [`take`] removes.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// A message to the service manager, `sd_notify(3)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State<'a> {
    /// `READY=1`: start-up, or a reload, is done.
    Ready,
    /// `STATUS=`: one line for a person, shown by `systemctl status`.
    Status(&'a str),
    /// `STOPPING=1`: the drain has begun.
    Stopping,
    /// `RELOADING=1` with `MONOTONIC_USEC=`, which systemd 253 and later want beside it.
    Reloading,
    /// `WATCHDOG=1`: alive.
    Watchdog,
    /// `EXTEND_TIMEOUT_USEC=`: from now on, start or stop may take this much longer.
    ExtendTimeout(Duration),
}

/// Where the messages go; nowhere when no service manager waits for them.
#[derive(Debug)]
pub struct Notifier {
    destination: Option<(Socket, SockAddr)>,
}

/// A variable that the service manager set and that cannot be understood.
#[derive(Debug)]
pub enum NotifyError {
    /// `NOTIFY_SOCKET` is neither an absolute path nor an abstract name. Holds its value.
    InvalidSocket(OsString),
    /// `WATCHDOG_USEC` or `WATCHDOG_PID` is not a positive number. Holds its name and value.
    InvalidWatchdog(&'static str, String),
    /// No socket could be made to send from.
    Socket(io::Error),
}

impl fmt::Display for NotifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidSocket(value) => write!(
                f,
                "NOTIFY_SOCKET is {:?}, expected an absolute path or an abstract name (@name)\n\n\
                 hint: systemd sets it; unset it to run without a service manager",
                value.to_string_lossy()
            ),
            Self::InvalidWatchdog(name, value) => write!(
                f,
                "{name} is {value:?}, expected a positive number\n\nhint: systemd sets it from \
                 WatchdogSec=; unset it to run without a watchdog"
            ),
            Self::Socket(error) => write!(
                f,
                "cannot make a socket to notify the service manager: {error}\n\nhint: \
                 RestrictAddressFamilies= must allow AF_UNIX"
            ),
        }
    }
}

impl std::error::Error for NotifyError {}

/// The notifier and the watchdog's period of this process; the variables are gone afterwards, also
/// after an error. Without `NOTIFY_SOCKET` the notifier does nothing.
///
/// # Errors
/// [`NotifyError`] when a variable is set to something else than systemd sets.
///
/// # Safety
/// No other thread may read or change the environment meanwhile: call it before any is started.
pub unsafe fn take() -> Result<(Notifier, Option<Duration>), NotifyError> {
    let address = std::env::var_os("NOTIFY_SOCKET");
    let environment =
        |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let period = watchdog_period(environment, process::id());
    for variable in VARIABLES {
        // SAFETY: the caller promises that no other thread uses the environment.
        unsafe { std::env::remove_var(variable) };
    }
    let notifier = address.map_or_else(|| Ok(Notifier::silent()), Notifier::new)?;
    Ok((notifier, period?))
}

/// `WatchdogSec=` as `sd_watchdog_enabled(3)` reads it for the process `pid`: the time within which
/// a ping must come (send one each half of it). `None` when no watchdog waits for this process.
///
/// # Errors
/// [`NotifyError::InvalidWatchdog`].
pub fn watchdog_period(
    environment: impl Fn(&str) -> Option<String>,
    pid: u32,
) -> Result<Option<Duration>, NotifyError> {
    let positive = |name: &'static str| match environment(name) {
        None => Ok(None),
        Some(text) => match text.parse::<u64>() {
            Ok(value) if value > 0 && !text.starts_with('+') => Ok(Some(value)),
            _ => Err(NotifyError::InvalidWatchdog(name, text)),
        },
    };
    let Some(microseconds) = positive("WATCHDOG_USEC")? else { return Ok(None) };
    let ours = positive("WATCHDOG_PID")?.is_none_or(|owner| owner == u64::from(pid));
    // The largest value means "infinity" to systemd: no watchdog.
    Ok((ours && microseconds != u64::MAX).then(|| Duration::from_micros(microseconds)))
}

impl Notifier {
    /// A notifier for the value of `NOTIFY_SOCKET`: an absolute path, or `@name`.
    ///
    /// # Errors
    /// [`NotifyError::InvalidSocket`], [`NotifyError::Socket`].
    pub fn new(address: OsString) -> Result<Self, NotifyError> {
        let mut name = address.as_bytes().to_vec();
        match name.first() {
            Some(b'/') => {}
            Some(b'@') if name.len() > 1 => name[0] = 0,
            _ => return Err(NotifyError::InvalidSocket(address)),
        }
        let Ok(destination) = SockAddr::unix(OsString::from_vec(name)) else {
            return Err(NotifyError::InvalidSocket(address));
        };
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None).map_err(NotifyError::Socket)?;
        Ok(Self { destination: Some((socket, destination)) })
    }

    /// A notifier that sends nothing, for a server that no service manager watches.
    #[must_use]
    pub fn silent() -> Self {
        Self { destination: None }
    }

    /// True when somebody reads the messages.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.destination.is_some()
    }

    /// Sends one message with all of `states`, and never waits.
    ///
    /// # Errors
    /// `WouldBlock` when the manager's queue is full: what must arrive (`READY=1`) is sent again on
    /// the next turn. Anything else from `sendto(2)`: the manager is gone, worth one log line.
    pub fn send(&self, states: &[State<'_>]) -> io::Result<()> {
        let Some((socket, destination)) = &self.destination else { return Ok(()) };
        let message: String = states.iter().map(State::line).collect();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        socket.send_to_with_flags(message.as_bytes(), destination, flags).map(drop)
    }
}

impl State<'_> {
    fn line(&self) -> String {
        match self {
            Self::Ready => "READY=1\n".to_owned(),
            // A newline would begin another assignment.
            Self::Status(text) => format!("STATUS={}\n", text.replace(['\n', '\r', '\0'], " ")),
            Self::Stopping => "STOPPING=1\n".to_owned(),
            Self::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}\n", monotonic_usec()),
            Self::Watchdog => "WATCHDOG=1\n".to_owned(),
            Self::ExtendTimeout(time) => format!("EXTEND_TIMEOUT_USEC={}\n", time.as_micros()),
        }
    }
}

/// `CLOCK_MONOTONIC` in microseconds, which `std::time::Instant` does not give away.
fn monotonic_usec() -> i64 {
    // SAFETY: `timespec` is plain integers, for which all zeroes is a value.
    let mut now: libc::timespec = unsafe { mem::zeroed() };
    // SAFETY: `now` outlives the call; this clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchdog_is_ours_or_nobodys() {
        let period = |usec: Option<&str>, owner: Option<&str>| {
            let environment = |name: &str| match name {
                "WATCHDOG_USEC" => usec.map(str::to_owned),
                "WATCHDOG_PID" => owner.map(str::to_owned),
                _ => panic!("{name} is none of VARIABLES"),
            };
            watchdog_period(environment, 42)
        };
        assert_eq!(period(None, None).unwrap(), None);
        assert_eq!(period(None, Some("42")).unwrap(), None);
        assert_eq!(period(Some("1500000"), None).unwrap(), Some(Duration::from_millis(1500)));
        assert_eq!(period(Some("1500000"), Some("42")).unwrap(), Some(Duration::from_millis(1500)));
        assert_eq!(period(Some("1500000"), Some("7")).unwrap(), None);
        assert_eq!(period(Some("18446744073709551615"), None).unwrap(), None);
        for (usec, owner, name) in [
            ("0", "42", "WATCHDOG_USEC"),
            ("-1", "42", "WATCHDOG_USEC"),
            ("+1", "42", "WATCHDOG_USEC"),
            ("", "42", "WATCHDOG_USEC"),
            ("1s", "42", "WATCHDOG_USEC"),
            ("1", "0", "WATCHDOG_PID"),
            ("1", "me", "WATCHDOG_PID"),
        ] {
            let error = period(Some(usec), Some(owner)).expect_err("a malformed value is an error");
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }

    #[test]
    fn status_cannot_smuggle_an_assignment() {
        assert_eq!(State::Status("a\nREADY=1\r\0b").line(), "STATUS=a READY=1  b\n");
    }
}
