//! The kernel behind one small trait: operations go in, completions come out of [`Proactor::wait`].
//!
//! An operation is named by what it works on ([`Operation`]): a stream has at most one receive, one
//! send, one hang-up watch and one close under way, a listener at most one accept. So a completion
//! needs no token: it says which stream or listener it is about, and the owner of that stream knows
//! the rest.
//!
//! The laws, each a test run against every implementation (`tests/proactor_laws.rs`):
//!
//! 1. Every operation completes exactly once, cancelled ones too; its memory lives until then.
//! 2. When a cancelled accept has completed, the kernel holds no accept of ours; a connection that
//!    arrived meanwhile is delivered, not lost.
//! 3. A send completes when the kernel has taken every byte, or with an error; a short send is
//!    continued inside.
//! 4. An idle connection holds no receive buffer. A buffer is leased until the next `wait`. Running
//!    out of buffers stays inside. Where a lease says that more waits, the next receive completes
//!    whatever the peer does.
//! 5. `wait` never blocks past its deadline, and delivers a bounded number of completions a call.
//! 6. The wake fd is readable, or becomes so, as long as a further `wait` would deliver something of
//!    what was submitted; a `wait` after which that is not so makes it unreadable.
//!
//! What is not here: what a connection means (that is [`crate::server`]).

pub mod hosted;
mod outgoing;
pub mod runtime;
pub mod seccomp;
mod sending;
pub mod simulated;
mod sockets;
pub mod uring;

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::time::Instant;

use crate::listener::Address;
pub use outgoing::{FileRange, Outgoing, Payload, Piece};

/// A listener given to a proactor with [`Proactor::register_listener`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u32);

/// An accepted connection. Its number is small and is used again after the close has completed, so
/// that a table can be indexed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);

impl StreamId {
    /// The position of this stream in a table.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// An operation that can be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The accept of a listener.
    Accept(ListenerId),
    /// The receive of a stream.
    Receive(StreamId),
    /// The send of a stream.
    Send(StreamId),
    /// The hang-up watch of a stream.
    HangUp(StreamId),
}

/// A connection that a listener accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The new stream; from now on it is ours to close.
    pub stream: StreamId,
    /// Who connected.
    pub peer: Address,
    /// Our end, as the client named it (the listener may be bound to every address).
    pub local: Address,
}

/// Received bytes, in a buffer of the proactor: read them with [`Proactor::bytes`] before the next
/// [`Proactor::wait`], which takes the buffer back.
#[derive(Debug)]
pub struct Lease {
    buffer: u16,
    length: usize,
    more_waits: bool,
    turn: u32,
}

impl Lease {
    /// Number of bytes received; 0 means that the peer has shut down its writing side.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Whether the kernel says that it holds more of the peer's bytes already, or the end of them:
    /// another receive completes without news from the peer. False where nothing is known of it.
    #[must_use]
    pub fn more_waits(&self) -> bool {
        self.more_waits
    }
}

/// The end of an operation, or news of a watched fd.
pub enum Completion {
    /// An accept ended. `WouldBlock` is the answer of [`Proactor::try_accept`] when nobody waits;
    /// `ECANCELED` that of a cancelled accept.
    Accepted {
        /// The listener whose accept ended.
        listener: ListenerId,
        /// The connection, or why there is none.
        result: io::Result<Accepted>,
    },
    /// A receive ended.
    Received {
        /// The stream whose receive ended.
        stream: StreamId,
        /// The bytes, empty at the end of the peer's data.
        result: io::Result<Lease>,
    },
    /// A send ended: all of it, or an error.
    Sent {
        /// The stream whose send ended.
        stream: StreamId,
        /// Whether every byte was taken.
        result: io::Result<()>,
        /// What was to be sent, given back.
        data: Outgoing,
    },
    /// A hang-up watch ended: `Ok` when the peer is gone (reset, or both directions closed).
    HungUp {
        /// The stream that was watched.
        stream: StreamId,
        /// `ECANCELED` when the watch was cancelled.
        result: io::Result<()>,
    },
    /// A close ended; the stream's number may come again.
    Closed {
        /// The stream that is gone.
        stream: StreamId,
    },
    /// A watched fd is readable.
    Readable {
        /// The fd given to [`Proactor::watch`].
        fd: RawFd,
    },
}

/// A driver of I/O for one thread. See the module's head for its laws.
pub trait Proactor {
    /// The time, as this proactor tells it (a simulated one has a clock of its own).
    fn now(&self) -> Instant;

    /// Take a listening socket. Nothing about the socket is changed.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the registration, or there are too many listeners.
    fn register_listener(&mut self, listener: OwnedFd) -> io::Result<ListenerId>;

    /// Accept one connection, whenever it comes. Completes with [`Completion::Accepted`].
    fn accept(&mut self, listener: ListenerId);

    /// Accept one connection if one waits already, else complete with `WouldBlock`.
    fn try_accept(&mut self, listener: ListenerId);

    /// Receive once. Completes with [`Completion::Received`].
    fn receive(&mut self, stream: StreamId);

    /// Send all of `data`. Completes with [`Completion::Sent`].
    fn send(&mut self, stream: StreamId, data: Outgoing);

    /// How many bytes of the send under way have reached the peer, as far as the kernel knows; 0 when
    /// there is none.
    fn sent_so_far(&self, stream: StreamId) -> usize;

    /// Watch for the peer's going while no receive is armed. Completes with [`Completion::HungUp`].
    fn watch_hang_up(&mut self, stream: StreamId);

    /// End our writing side (FIN), at once and without a completion: shutdown(2) never blocks.
    fn shutdown(&mut self, stream: StreamId);

    /// Make the coming close a reset (RST), which no peer takes for the end of an answer.
    fn reset_on_close(&mut self, stream: StreamId);

    /// Close the stream, on which no other operation may be under way. Completes with
    /// [`Completion::Closed`].
    fn close(&mut self, stream: StreamId);

    /// Ask for the end of an operation that is under way. The operation itself completes as ever:
    /// with `ECANCELED`, or as it would have if it was faster. Cancelling what has already
    /// completed does nothing.
    fn cancel(&mut self, operation: Operation);

    /// Tell once when `fd`, which is not ours, is readable. Completes with [`Completion::Readable`].
    fn watch(&mut self, fd: RawFd);

    /// True when the next `wait` cannot block, whatever its deadline.
    fn is_ready(&self) -> bool;

    /// An fd for whoever waits elsewhere, in an event loop of another kind: it is readable when
    /// `wait` has something to deliver. Only to be polled; it is the proactor's, and always the
    /// same. Costs something at each `wait` from then on. A `wait` must have submitted what is
    /// waited for, and an eventfd is better watched by that loop itself than by [`Proactor::watch`].
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    fn wake_fd(&mut self) -> io::Result<RawFd>;

    /// Submit what was asked for and wait until something completes, `deadline` has come (`None`:
    /// never) or a signal arrives. All leases end here. Appends to `completions`.
    ///
    /// # Errors
    ///
    /// Only for what the caller cannot mend: the ring itself failed.
    fn wait(
        &mut self,
        deadline: Option<Instant>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()>;

    /// The bytes of a lease of this turn.
    ///
    /// # Panics
    ///
    /// When the lease is older than the last `wait`.
    fn bytes(&self, lease: &Lease) -> &[u8];
}
