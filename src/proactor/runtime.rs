//! Which proactor a server runs on, decided when it starts.
//!
//! A program that serves is compiled once, for a [`Runtime`]; [`Choice`] makes one. That has two
//! steps, since what may need a child process ([`super::seccomp`]) belongs to the beginning of a
//! program, and a ring to the thread that is to use it.

use std::fmt;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::str::FromStr;
use std::time::Instant;

use super::hosted::monoio::{Epoll, Monoio};
use super::hosted::tokio_uring::TokioUring;
use super::seccomp::{self, FilterError};
use super::uring::{RingError, Uring};
use super::{Completion, Lease, ListenerId, Operation, Outgoing, Proactor, StreamId};

/// A proactor that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Uring`].
    Uring,
    /// [`Monoio`].
    Monoio,
    /// [`TokioUring`].
    TokioUring,
    /// [`Epoll`].
    Epoll,
}

impl Kind {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Uring, Self::Monoio, Self::TokioUring, Self::Epoll];

    /// Its word for `--runtime`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Monoio => "monoio",
            Self::TokioUring => "tokio-uring",
            Self::Epoll => "epoll",
        }
    }

    fn needs_io_uring(self) -> bool {
        self != Self::Epoll
    }

    fn open(self) -> Result<Runtime, Refusal> {
        let proactor: Box<dyn Proactor> = match self {
            Self::Uring => Box::new(Uring::new()?),
            Self::Monoio => Box::new(Monoio::new()?),
            Self::TokioUring => Box::new(TokioUring::new()?),
            Self::Epoll => Box::new(Epoll::new().map_err(|error| epoll_refusal(&error))?),
        };
        Ok(Runtime { kind: self, proactor })
    }
}

/// What `--runtime` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The best that can be used here.
    Auto,
    /// This one, or an error.
    Exactly(Kind),
}

impl FromStr for Wish {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        if word == "auto" {
            return Ok(Self::Auto);
        }
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == word);
        kind.map(Self::Exactly).ok_or_else(|| format!("expected a runtime, found {word:?}"))
    }
}

/// Why a runtime cannot be used. Displays as a problem, an empty line, and a `hint:`.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// What came instead of what was expected.
    pub problem: String,
    /// What to change.
    pub hint: String,
}

impl From<RingError> for Refusal {
    fn from(error: RingError) -> Self {
        Self { problem: error.problem(), hint: error.hint().to_owned() }
    }
}

fn epoll_refusal(error: &io::Error) -> Refusal {
    Refusal {
        problem: format!("the kernel refused an epoll: {error}"),
        hint: "it takes some open files (LimitNOFILE= of the unit, `ulimit -n`) and a thread for \
               each listener (TasksMax=, `ulimit -u`)"
            .to_owned(),
    }
}

impl From<FilterError> for Refusal {
    fn from(error: FilterError) -> Self {
        Self { problem: error.to_string(), hint: error.hint().to_owned() }
    }
}

impl Refusal {
    /// The refusal of the one runtime that was asked for.
    fn of(self, kind: Kind) -> Self {
        Self {
            problem: format!("--runtime {} cannot be used: {}", kind.name(), self.problem),
            hint: format!("{}; --runtime epoll needs no io_uring", self.hint),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}\n\nhint: {}", self.problem, self.hint)
    }
}

impl std::error::Error for Refusal {}

/// A wish, and what a seccomp filter says to it.
#[derive(Debug)]
pub struct Choice {
    wish: Wish,
    /// With [`Wish::Auto`]: `io_uring` must not even be tried.
    barred: Option<Refusal>,
}

impl Choice {
    /// Look whether the wish can be tried. Makes a child where a seccomp filter is on: call it
    /// early, while the process is small.
    ///
    /// # Errors
    ///
    /// When trying it would end the process.
    pub fn new(wish: Wish) -> Result<Self, Refusal> {
        let barred = match wish {
            Wish::Exactly(kind) if !kind.needs_io_uring() => None,
            _ => seccomp::check().err().map(Refusal::from),
        };
        match (wish, barred) {
            (Wish::Exactly(kind), Some(refusal)) => Err(refusal.of(kind)),
            (wish, barred) => Ok(Self { wish, barred }),
        }
    }

    /// Make the runtime, for the calling thread, which alone may use it. Comes with why it is not
    /// the best one.
    ///
    /// # Errors
    ///
    /// When the one that is wished for, or the last resort, cannot be used.
    pub fn open(&self) -> Result<(Runtime, Option<Refusal>), Refusal> {
        match self.wish {
            Wish::Exactly(kind) => Ok((kind.open().map_err(|refusal| refusal.of(kind))?, None)),
            Wish::Auto => match self.barred.clone().map_or_else(|| Kind::Uring.open(), Err) {
                Ok(runtime) => Ok((runtime, None)),
                Err(refusal) => Ok((Kind::Epoll.open()?, Some(refusal))),
            },
        }
    }
}

/// The proactor that was chosen. That it is behind a pointer costs a request 0.3 % more
/// instructions (callgrind, `examples/hello.rs`, one connection), so the server is there once for all.
pub struct Runtime {
    kind: Kind,
    proactor: Box<dyn Proactor>,
}

impl Runtime {
    /// Which one it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl Proactor for Runtime {
    fn now(&self) -> Instant {
        self.proactor.now()
    }

    fn register_listener(&mut self, listener: OwnedFd) -> io::Result<ListenerId> {
        self.proactor.register_listener(listener)
    }

    fn accept(&mut self, listener: ListenerId) {
        self.proactor.accept(listener);
    }

    fn try_accept(&mut self, listener: ListenerId) {
        self.proactor.try_accept(listener);
    }

    fn receive(&mut self, stream: StreamId) {
        self.proactor.receive(stream);
    }

    fn send(&mut self, stream: StreamId, data: Outgoing) {
        self.proactor.send(stream, data);
    }

    fn sent_so_far(&self, stream: StreamId) -> usize {
        self.proactor.sent_so_far(stream)
    }

    fn watch_hang_up(&mut self, stream: StreamId) {
        self.proactor.watch_hang_up(stream);
    }

    fn shutdown(&mut self, stream: StreamId) {
        self.proactor.shutdown(stream);
    }

    fn reset_on_close(&mut self, stream: StreamId) {
        self.proactor.reset_on_close(stream);
    }

    fn close(&mut self, stream: StreamId) {
        self.proactor.close(stream);
    }

    fn cancel(&mut self, operation: Operation) {
        self.proactor.cancel(operation);
    }

    fn watch(&mut self, fd: RawFd) {
        self.proactor.watch(fd);
    }

    fn is_ready(&self) -> bool {
        self.proactor.is_ready()
    }

    fn wake_fd(&mut self) -> io::Result<RawFd> {
        self.proactor.wake_fd()
    }

    fn wait(
        &mut self,
        deadline: Option<Instant>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        self.proactor.wait(deadline, completions)
    }

    fn bytes(&self, lease: &Lease) -> &[u8] {
        self.proactor.bytes(lease)
    }
}
