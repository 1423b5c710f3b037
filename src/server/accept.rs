//! Accepting and draining: when an accept is armed, how it is given up without losing a client.
//!
//! One single-shot accept for each listener, armed while there is room, and armed again only after
//! the turn's work: several processes then share a listener evenly, and a process that dies takes
//! at most one connection per listener with it. Never multishot: it would pull the whole queue of
//! an inherited listener into this process.
//!
//! To stop: arm no more, cancel, wait for the accept's end, serve whoever came with it, then sweep:
//! take whoever waits already, without waiting. A process that was woken for a connection and then
//! cancels would strand it, since the kernel does not wake an idle sibling again.

use std::io;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::{Event, Server, TELL_EVERY};
use crate::config::Overload;
use crate::proactor::{Accepted, ListenerId, Operation, Proactor};

/// How long accepting rests after an error that would come again: no fd, no memory, a listener that
/// is none any more. Whoever connects stays in the queue meanwhile.
const PAUSE: Duration = Duration::from_millis(100);
/// Accepts of one sweep at the most: under a flood of new ones it would not end, and
/// what is left in the queue of an inherited listener is the next process's.
const SWEEP_LIMIT: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Armed,
    Cancelling,
    Sweeping,
    Stopped,
}

/// A listener's accept.
pub(super) struct Acceptor {
    listener: ListenerId,
    /// Each connection begins with a PROXY header.
    proxy_protocol: bool,
    state: State,
    swept: usize,
}

impl Acceptor {
    pub(super) fn new(listener: ListenerId, proxy_protocol: bool) -> Self {
        Self { listener, proxy_protocol, state: State::Idle, swept: 0 }
    }

    pub(super) fn is_armed(&self) -> bool {
        self.state == State::Armed
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state == State::Stopped
    }

    /// One step towards the end.
    fn stop<P: Proactor>(&mut self, proactor: &mut P) {
        match self.state {
            State::Armed => {
                proactor.cancel(Operation::Accept(self.listener));
                self.state = State::Cancelling;
            }
            State::Idle if self.swept < SWEEP_LIMIT => {
                proactor.try_accept(self.listener);
                self.state = State::Sweeping;
            }
            State::Idle => self.state = State::Stopped,
            State::Cancelling | State::Sweeping | State::Stopped => {}
        }
    }
}

impl<P: Proactor> Server<P> {
    pub(super) fn arm_accepts(&mut self) {
        if self.shared.draining_since.is_some() {
            // Nothing is tried again: a pause that stayed would end every wait at once.
            self.accept_paused_until = None;
            for acceptor in &mut self.acceptors {
                acceptor.stop(&mut self.shared.proactor);
            }
            return;
        }
        if !self.accepting || !self.has_room() {
            return;
        }
        for acceptor in &mut self.acceptors {
            if acceptor.state == State::Idle {
                self.shared.proactor.accept(acceptor.listener);
                acceptor.state = State::Armed;
            }
        }
    }

    fn has_room(&mut self) -> bool {
        if self.accept_paused_until.is_some_and(|until| until > self.shared.now) {
            return false;
        }
        self.accept_paused_until = None;
        let config = &self.shared.config;
        let waits = config.overload == Overload::Wait && self.shared.is_busy();
        !waits && self.open < config.max_connections
    }

    pub(super) fn accepted(&mut self, listener: ListenerId, result: io::Result<Accepted>) {
        let acceptor = &mut self.acceptors[listener.0 as usize];
        let sweeping = acceptor.state == State::Sweeping;
        acceptor.swept += usize::from(sweeping);
        let over = result.as_ref().is_err_and(ends_sweep);
        acceptor.state = if sweeping && over { State::Stopped } else { State::Idle };
        match result {
            Ok(accepted) => {
                let proxy_protocol = acceptor.proxy_protocol;
                self.open_connection(accepted, proxy_protocol);
            }
            Err(error) if !is_passing(&error) => {
                let now = self.shared.now;
                self.accept_paused_until = Some(now + PAUSE);
                if self.shortage_told.is_none_or(|told| now >= told + TELL_EVERY) {
                    self.shortage_told = Some(now);
                    self.shared.events.push_back(Event::AcceptFailed(error));
                }
            }
            Err(_) => {}
        }
    }

    fn open_connection(&mut self, accepted: Accepted, proxy_protocol: bool) {
        let index = accepted.stream.index();
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, || None);
        }
        let mut connection = Box::new(Connection::new(accepted, &mut self.shared));
        if proxy_protocol {
            connection.expect_proxy_header(&mut self.shared);
        }
        connection.touch(&mut self.shared);
        self.connections[index] = Some(connection);
        self.open += 1;
    }

    /// When to look for idle connections to close, if draining waits for nothing else.
    pub(super) fn next_drain_look(&self) -> Option<Instant> {
        if !self.waits_for_idle_only() {
            return None;
        }
        self.connections.iter().flatten().filter_map(|it| it.idle_until(&self.shared)).min()
    }

    /// While draining, an idle connection stays usable as long as requests are under way anyway.
    /// Afterwards it is closed when it has been quiet for a moment: this runs right after a wait
    /// has brought everything that had arrived, which is the last look.
    pub(super) fn close_idle_when_draining(&mut self) {
        if !self.waits_for_idle_only() || self.shared.proactor.is_ready() {
            return;
        }
        for connection in self.connections.iter_mut().flatten() {
            if connection.idle_until(&self.shared).is_some_and(|until| until <= self.shared.now) {
                connection.close_idle(&mut self.shared);
                connection.touch(&mut self.shared);
            }
        }
    }

    fn waits_for_idle_only(&self) -> bool {
        self.shared.draining_since.is_some()
            && self.shared.running == 0
            && self.shared.queue.is_empty()
    }
}

/// Nobody waits, or nobody can be taken. Any other error is of one client that left while it was in
/// the queue, `accept(2)`; others may wait behind it.
fn ends_sweep(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || !is_passing(error)
}

/// An error of one client or of a moment, `accept(2)`: cancelled, nobody there, or a client that left
/// while it was in the queue. Every other would come again at once.
fn is_passing(error: &io::Error) -> bool {
    let passing = [
        libc::ECANCELED,
        libc::EAGAIN,
        libc::EINTR,
        libc::ECONNABORTED,
        libc::ENETDOWN,
        libc::EPROTO,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::ENONET,
        libc::EHOSTUNREACH,
        libc::EOPNOTSUPP,
        libc::ENETUNREACH,
    ];
    error.kind() == io::ErrorKind::WouldBlock
        || error.raw_os_error().is_some_and(|code| passing.contains(&code))
}
