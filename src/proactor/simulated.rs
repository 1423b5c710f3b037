//! A proactor without a kernel, for tests: one seed decides everything, and time is virtual.
//!
//! [`Simulated`] is the side of the server. [`World`] is the other one: clients that connect, send,
//! read, shut down, reset and close when the test says so, fds that become readable, accepts that
//! fail. Both share one state, so that a server may own its proactor while the test drives clients.
//!
//! `wait` delivers a random part of what can complete, in random order. Receives take a random part
//! of the bytes that are there, sends move bytes in random portions into a small buffer until all
//! are taken, a cancellation may lose the race, `wait` may return early as it does for a signal,
//! and there are few receive buffers. When nothing can complete the clock jumps to the deadline.
//!
//! Misuse of the trait panics. Not here: latency between the two sides, loss, reordering: TCP hides
//! them from a server.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{
    Accepted, Completion, Lease, ListenerId, Operation, Outgoing, Piece, Proactor, StreamId,
};
use crate::listener::Address;

/// Receive buffers: few, so that a turn with many receives runs out of them.
const BUFFERS: usize = 4;
const BUFFER_BYTES: usize = 2048;
/// Completions delivered by one `wait` at the most.
const COMPLETIONS_PER_WAIT: usize = 8;
/// Bytes that a connection holds for a client that does not read: this, or up to this much more.
const WINDOW_BYTES: usize = 4096;
/// A `wait` without deadline that nothing can end returns, as if a signal had come. That many in
/// a row are a server that spins.
const IDLE_WAITS: usize = 1000;

/// What [`Proactor::wake_fd`] says: no fd of a process, see [`World::is_readable`].
const WAKE_FD: RawFd = RawFd::MAX;

/// The generator splitmix64: every seed is good, and the sequence is the same everywhere.
pub struct Random(u64);

impl Random {
    /// The sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    #[allow(clippy::cast_possible_truncation, reason = "the remainder is below a usize")]
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A client of a simulated listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub usize);

/// What a client that has read everything sees of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// More may come.
    Open,
    /// The server has ended its writing side.
    End,
    /// The connection was reset.
    Reset,
}

/// How far one end of a connection has gone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Open,
    /// It has ended its writing side.
    Shut,
    /// What is sent to it resets the connection.
    Closed,
}

/// Both directions of a connection.
struct Connection {
    to_server: VecDeque<u8>,
    to_client: VecDeque<u8>,
    window: usize,
    client: End,
    server: End,
    reset: bool,
}

impl Connection {
    /// An RST destroys what was not read, in one direction or the other or both.
    fn reset(&mut self, random: &mut Random) {
        self.reset = true;
        if random.one_in(2) {
            self.to_server.clear();
        }
        if random.one_in(2) {
            self.to_client.clear();
        }
    }
}

/// An operation under way; true when it was asked to end.
type Cancelled = bool;

#[derive(Default)]
struct Listener {
    backlog: VecDeque<ClientId>,
    errors: VecDeque<i32>,
    accept: Option<Cancelled>,
    try_accept: bool,
}

struct Stream {
    client: ClientId,
    receive: Option<Cancelled>,
    send: Option<(Outgoing, usize, Cancelled)>,
    hang_up: Option<Cancelled>,
    resets: bool,
    closing: bool,
}

/// Something that could complete now.
#[derive(Clone, Copy)]
enum Candidate {
    Accept(usize),
    Receive(usize),
    Send(usize),
    HangUp(usize),
    Close(usize),
    Watch(RawFd),
}

struct State {
    random: Random,
    now: Instant,
    listeners: Vec<Listener>,
    /// By stream number; the smallest free one is used, as with fds.
    streams: Vec<Option<Stream>>,
    /// By client number.
    connections: Vec<Connection>,
    watched: BTreeSet<RawFd>,
    readable: BTreeSet<RawFd>,
    idle_waits: usize,
    /// Until then the machine has no fd for an accept.
    exhausted_until: Option<Instant>,
    accepts_exhausted: usize,
}

/// `length` bytes of `data` from `start` on.
fn bytes_of(data: &Outgoing, start: usize, length: usize) -> io::Result<Vec<u8>> {
    let mut found = Vec::with_capacity(length);
    let mut skip = start;
    for piece in data.pieces() {
        let taken = piece.length().saturating_sub(skip).min(length - found.len());
        match piece {
            Piece::Bytes(bytes) => found.extend(bytes.iter().skip(skip).take(taken)),
            Piece::File(range) if taken > 0 => {
                let mut block = vec![0; taken];
                range.file().read_exact_at(&mut block, range.offset_of(skip))?;
                found.append(&mut block);
            }
            Piece::File(_) => {}
        }
        skip = skip.saturating_sub(piece.length());
    }
    Ok(found)
}

fn os_error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

impl State {
    fn stream(&mut self, stream: StreamId) -> &mut Stream {
        let stream = self.streams.get_mut(stream.index()).and_then(Option::as_mut);
        let stream = stream.expect("a stream is used between its accept and its close");
        assert!(!stream.closing, "a stream is not used after its close was asked for");
        stream
    }

    fn connection(&self, stream: &Stream) -> &Connection {
        &self.connections[stream.client.0]
    }

    fn can_receive(&self, stream: &Stream) -> bool {
        let connection = self.connection(stream);
        connection.reset || connection.client >= End::Shut || !connection.to_server.is_empty()
    }

    fn can_send(&self, stream: &Stream) -> bool {
        let connection = self.connection(stream);
        let room = connection.to_client.len() < connection.window;
        let empty = stream.send.as_ref().is_some_and(|(data, ..)| data.is_empty());
        connection.reset || connection.server >= End::Shut || room || empty
    }

    fn has_hung_up(&self, stream: &Stream) -> bool {
        let connection = self.connection(stream);
        connection.reset || (connection.client >= End::Shut && connection.server >= End::Shut)
    }

    fn candidates(&self) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for (index, listener) in self.listeners.iter().enumerate() {
            let comes = !listener.backlog.is_empty() || !listener.errors.is_empty();
            if listener.try_accept || listener.accept.is_some_and(|cancelled| cancelled || comes) {
                candidates.push(Candidate::Accept(index));
            }
        }
        for (index, stream) in self.streams.iter().enumerate() {
            let Some(stream) = stream else { continue };
            if stream.receive.is_some_and(|cancelled| cancelled || self.can_receive(stream)) {
                candidates.push(Candidate::Receive(index));
            }
            if stream.send.as_ref().is_some_and(|send| send.2 || self.can_send(stream)) {
                candidates.push(Candidate::Send(index));
            }
            if stream.hang_up.is_some_and(|cancelled| cancelled || self.has_hung_up(stream)) {
                candidates.push(Candidate::HangUp(index));
            }
            if stream.closing {
                candidates.push(Candidate::Close(index));
            }
        }
        candidates.extend(self.watched.intersection(&self.readable).copied().map(Candidate::Watch));
        candidates
    }

    /// The end of an accept, or of a try.
    fn end_accept(&mut self, index: usize) -> Completion {
        let listener = &mut self.listeners[index];
        let comes = !listener.backlog.is_empty() || !listener.errors.is_empty();
        let cancelled = listener.accept.take().is_some_and(|cancelled| cancelled);
        listener.try_accept = false;
        let result = if cancelled && (!comes || self.random.one_in(2)) {
            Err(os_error(libc::ECANCELED))
        } else if let Some(error) = listener.errors.pop_front() {
            Err(os_error(error))
        } else if comes && self.exhausted_until.is_some_and(|until| until > self.now) {
            self.accepts_exhausted += 1;
            Err(os_error(libc::EMFILE))
        } else if let Some(client) = listener.backlog.pop_front() {
            let free = self.streams.iter().position(Option::is_none);
            let number = free.unwrap_or(self.streams.len());
            if free.is_none() {
                self.streams.push(None);
            }
            self.streams[number] = Some(Stream {
                client,
                receive: None,
                send: None,
                hang_up: None,
                resets: false,
                closing: false,
            });
            Ok(Accepted {
                stream: StreamId(number_of(number)),
                peer: loopback(10_000 + client.0),
                local: loopback(8000 + index),
            })
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        };
        Completion::Accepted { listener: ListenerId(number_of(index)), result }
    }

    /// The bytes that a receive takes and whether it says that more waits, which it does not
    /// always; or how it failed.
    fn end_receive(&mut self, index: usize) -> io::Result<(Vec<u8>, bool)> {
        let stream = self.streams[index].as_mut().expect("a candidate is an open stream");
        let cancelled = stream.receive.take() == Some(true);
        let connection = &mut self.connections[stream.client.0];
        let there = connection.to_server.len();
        let ended = connection.client >= End::Shut;
        let comes = there > 0 || connection.reset || ended;
        if cancelled && (!comes || self.random.one_in(2)) {
            Err(os_error(libc::ECANCELED))
        } else if there > 0 {
            let most = there.min(BUFFER_BYTES);
            let taken = if self.random.one_in(2) { most } else { 1 + self.random.below(most) };
            // The end counts as well, as with the kernel's TCP.
            let more_waits = (taken < there || ended) && self.random.one_in(2);
            Ok((connection.to_server.drain(..taken).collect(), more_waits))
        } else if connection.reset {
            Err(os_error(libc::ECONNRESET))
        } else {
            Ok((Vec::new(), self.random.one_in(2)))
        }
    }

    /// Move bytes of a send; a completion when it has ended.
    fn advance_send(&mut self, index: usize) -> Option<Completion> {
        let stream = self.streams[index].as_mut().expect("a candidate is an open stream");
        let (data, mut sent, cancelled) = stream.send.take().expect("a candidate sends");
        let connection = &mut self.connections[stream.client.0];
        let length = data.length();
        let mut result = None;
        if connection.reset || connection.server >= End::Shut {
            result =
                Some(Err(os_error(if connection.reset { libc::ECONNRESET } else { libc::EPIPE })));
        } else if cancelled && self.random.one_in(2) {
            result = Some(Err(os_error(libc::ECANCELED)));
        } else {
            let room = connection.window.saturating_sub(connection.to_client.len());
            let most = room.min(length - sent);
            let taken = if most == 0 { 0 } else { 1 + self.random.below(most) };
            match bytes_of(&data, sent, taken) {
                Ok(bytes) => connection.to_client.extend(bytes),
                Err(error) => result = Some(Err(error)),
            }
            sent += taken;
            if connection.client == End::Closed && taken > 0 {
                connection.reset(&mut self.random);
            }
            if sent == length && result.is_none() {
                result = Some(Ok(()));
            }
        }
        let Some(result) = result else {
            stream.send = Some((data, sent, cancelled));
            return None;
        };
        Some(Completion::Sent { stream: StreamId(number_of(index)), result, data })
    }

    fn end_hang_up(&mut self, index: usize) -> Completion {
        let stream = self.streams[index].as_mut().expect("a candidate is an open stream");
        let cancelled = stream.hang_up.take() == Some(true);
        let gone = self.streams[index].as_ref().is_some_and(|stream| self.has_hung_up(stream));
        let lost = cancelled && (!gone || self.random.one_in(2));
        let result = if lost { Err(os_error(libc::ECANCELED)) } else { Ok(()) };
        Completion::HungUp { stream: StreamId(number_of(index)), result }
    }

    fn end_close(&mut self, index: usize) -> Completion {
        let stream = self.streams[index].take().expect("a candidate is an open stream");
        self.close_server_side(stream.client);
        if stream.resets {
            self.connections[stream.client.0].reset(&mut self.random);
        }
        Completion::Closed { stream: StreamId(number_of(index)) }
    }

    /// Closing with unread bytes resets the connection.
    fn close_server_side(&mut self, client: ClientId) {
        let connection = &mut self.connections[client.0];
        connection.server = End::Closed;
        if !connection.to_server.is_empty() {
            connection.reset(&mut self.random);
        }
    }

    fn shuffle(&mut self, candidates: &mut [Candidate]) {
        for last in (1..candidates.len()).rev() {
            candidates.swap(last, self.random.below(last + 1));
        }
    }
}

fn number_of(index: usize) -> u32 {
    u32::try_from(index).expect("tables of a test are small")
}

fn loopback(port: usize) -> Address {
    let port = u16::try_from(port).expect("a test has fewer clients than ports");
    Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// The clients' side of a [`Simulated`], and the faults.
#[derive(Clone)]
pub struct World(Rc<RefCell<State>>);

impl World {
    /// Something to give to [`Proactor::register_listener`]: the simulator never looks at it. The
    /// first one registered is `ListenerId(0)`, and so on.
    ///
    /// # Panics
    ///
    /// Without a `/dev/null`.
    #[must_use]
    pub fn listening_socket() -> OwnedFd {
        File::open("/dev/null").expect("every Linux has /dev/null").into()
    }

    /// A client in the listener's backlog.
    #[must_use]
    pub fn connect(&self, listener: ListenerId) -> ClientId {
        let state = &mut *self.0.borrow_mut();
        let client = ClientId(state.connections.len());
        state.connections.push(Connection {
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            window: WINDOW_BYTES + state.random.below(WINDOW_BYTES),
            client: End::Open,
            server: End::Open,
            reset: false,
        });
        state.listeners[listener.0 as usize].backlog.push_back(client);
        client
    }

    /// Send; a connection that the server has closed is reset by it.
    ///
    /// # Panics
    ///
    /// After the client ended its writing side.
    pub fn client_send(&self, client: ClientId, bytes: &[u8]) {
        let state = &mut *self.0.borrow_mut();
        let connection = &mut state.connections[client.0];
        assert!(connection.client == End::Open, "a client sends before it ends its writing side");
        if connection.server == End::Closed {
            connection.reset(&mut state.random);
        } else if !connection.reset {
            connection.to_server.extend(bytes);
        }
    }

    /// What has come, at most `limit` bytes. A client that does not call this has full buffers
    /// soon, and sends to it stay under way.
    #[must_use]
    pub fn client_receive(&self, client: ClientId, limit: usize) -> Vec<u8> {
        let to_client = &mut self.0.borrow_mut().connections[client.0].to_client;
        let length = to_client.len().min(limit);
        to_client.drain(..length).collect()
    }

    /// What a client sees that has read everything.
    #[must_use]
    pub fn client_sees(&self, client: ClientId) -> Sight {
        let connection = &self.0.borrow().connections[client.0];
        if connection.reset {
            Sight::Reset
        } else if connection.server >= End::Shut && connection.to_client.is_empty() {
            Sight::End
        } else {
            Sight::Open
        }
    }

    /// True when the server has ended its side, whether or not the client has read so far.
    #[must_use]
    pub fn server_has_ended(&self, client: ClientId) -> bool {
        self.0.borrow().connections[client.0].server >= End::Shut
    }

    /// Bytes that the client has sent and the server has not received.
    #[must_use]
    pub fn bytes_unreceived(&self, client: ClientId) -> usize {
        self.0.borrow().connections[client.0].to_server.len()
    }

    /// End the client's writing side (FIN); it still reads.
    pub fn client_shutdown(&self, client: ClientId) {
        self.0.borrow_mut().connections[client.0].client = End::Shut;
    }

    /// Close. To the server this looks as [`World::client_shutdown`] does, until it sends; with
    /// unread bytes it is a reset at once.
    pub fn client_close(&self, client: ClientId) {
        let state = &mut *self.0.borrow_mut();
        let connection = &mut state.connections[client.0];
        connection.client = End::Closed;
        if !connection.to_client.is_empty() {
            connection.reset(&mut state.random);
        }
    }

    /// Reset (RST).
    pub fn client_reset(&self, client: ClientId) {
        let state = &mut *self.0.borrow_mut();
        state.connections[client.0].reset(&mut state.random);
    }

    /// Let the listener's next accept fail with this errno, as `EMFILE` does: the client stays in
    /// the backlog.
    pub fn fail_accept(&self, listener: ListenerId, errno: i32) {
        self.0.borrow_mut().listeners[listener.0 as usize].errors.push_back(errno);
    }

    /// Let every accept fail with `EMFILE` for so long, while clients stay in the backlog.
    pub fn exhaust_descriptors(&self, time: Duration) {
        let state = &mut *self.0.borrow_mut();
        state.exhausted_until = Some(state.now + time);
    }

    /// How many accepts have failed because of [`World::exhaust_descriptors`].
    #[must_use]
    pub fn accepts_exhausted(&self) -> usize {
        self.0.borrow().accepts_exhausted
    }

    /// Let time pass outside of `wait`, as an application does that keeps the thread.
    pub fn pass(&self, time: Duration) {
        self.0.borrow_mut().now += time;
    }

    /// Make an fd given to [`Proactor::watch`] readable. It stays so.
    pub fn make_readable(&self, fd: RawFd) {
        self.0.borrow_mut().readable.insert(fd);
    }

    /// Make an fd given to [`Proactor::watch`] unreadable again.
    pub fn make_unreadable(&self, fd: RawFd) {
        self.0.borrow_mut().readable.remove(&fd);
    }

    /// Whether an fd is readable: one that was made so, or the wake fd.
    #[must_use]
    pub fn is_readable(&self, fd: RawFd) -> bool {
        if fd == WAKE_FD { !self.is_idle() } else { self.0.borrow().readable.contains(&fd) }
    }

    /// True when nothing can complete before a client acts: from here on `wait` only moves the
    /// clock.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.0.borrow().candidates().is_empty()
    }

    /// Number of clients in the listener's backlog.
    #[must_use]
    pub fn waiting(&self, listener: ListenerId) -> usize {
        self.0.borrow().listeners[listener.0 as usize].backlog.len()
    }

    /// Number of streams that the server has not closed.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.0.borrow().streams.iter().flatten().count()
    }
}

/// The simulated proactor. Dropping it does what the death of a process does: open streams are
/// closed, and who waits in a backlog goes on waiting.
pub struct Simulated {
    state: Rc<RefCell<State>>,
    /// The bytes leased in this turn.
    buffers: Vec<Vec<u8>>,
    turn: u32,
}

impl Simulated {
    /// The proactor of this seed: the same calls meet the same fate.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: Random::new(seed),
            now: Instant::now(),
            listeners: Vec::new(),
            streams: Vec::new(),
            connections: Vec::new(),
            watched: BTreeSet::new(),
            readable: BTreeSet::new(),
            idle_waits: 0,
            exhausted_until: None,
            accepts_exhausted: 0,
        };
        Self { state: Rc::new(RefCell::new(state)), buffers: Vec::new(), turn: 0 }
    }

    /// The other side.
    #[must_use]
    pub fn world(&self) -> World {
        World(Rc::clone(&self.state))
    }

    /// Let a candidate end; `None` when it goes on: a send with bytes left, a receive that found no
    /// buffer.
    fn complete(&mut self, state: &mut State, candidate: Candidate) -> Option<Completion> {
        Some(match candidate {
            Candidate::Accept(index) => state.end_accept(index),
            Candidate::Receive(_) if self.buffers.len() == BUFFERS => return None,
            Candidate::Receive(index) => {
                let result = state.end_receive(index).map(|(bytes, more_waits)| {
                    let buffer = u16::try_from(self.buffers.len()).expect("BUFFERS are few");
                    let length = bytes.len();
                    self.buffers.push(bytes);
                    Lease { buffer, length, more_waits, turn: self.turn }
                });
                Completion::Received { stream: StreamId(number_of(index)), result }
            }
            Candidate::Send(index) => return state.advance_send(index),
            Candidate::HangUp(index) => state.end_hang_up(index),
            Candidate::Close(index) => state.end_close(index),
            Candidate::Watch(fd) => {
                state.watched.remove(&fd);
                Completion::Readable { fd }
            }
        })
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        let state = &mut *self.state.borrow_mut();
        for stream in std::mem::take(&mut state.streams).into_iter().flatten() {
            state.close_server_side(stream.client);
        }
        for listener in &mut state.listeners {
            listener.accept = None;
            listener.try_accept = false;
        }
        state.watched.clear();
    }
}

impl Proactor for Simulated {
    fn now(&self) -> Instant {
        self.state.borrow().now
    }

    fn register_listener(&mut self, _listener: OwnedFd) -> io::Result<ListenerId> {
        let listeners = &mut self.state.borrow_mut().listeners;
        listeners.push(Listener::default());
        Ok(ListenerId(number_of(listeners.len() - 1)))
    }

    fn accept(&mut self, listener: ListenerId) {
        let listener = &mut self.state.borrow_mut().listeners[listener.0 as usize];
        let idle = listener.accept.is_none() && !listener.try_accept;
        assert!(idle, "a listener has one accept at a time");
        listener.accept = Some(false);
    }

    fn try_accept(&mut self, listener: ListenerId) {
        let listener = &mut self.state.borrow_mut().listeners[listener.0 as usize];
        let idle = listener.accept.is_none() && !listener.try_accept;
        assert!(idle, "a listener has one accept at a time");
        listener.try_accept = true;
    }

    fn receive(&mut self, stream: StreamId) {
        let before = self.state.borrow_mut().stream(stream).receive.replace(false);
        assert!(before.is_none(), "a stream has one receive at a time");
    }

    fn send(&mut self, stream: StreamId, data: Outgoing) {
        let before = self.state.borrow_mut().stream(stream).send.replace((data, 0, false));
        assert!(before.is_none(), "a stream has one send at a time");
    }

    fn sent_so_far(&self, stream: StreamId) -> usize {
        self.state.borrow_mut().stream(stream).send.as_ref().map_or(0, |(_, sent, _)| *sent)
    }

    fn watch_hang_up(&mut self, stream: StreamId) {
        let before = self.state.borrow_mut().stream(stream).hang_up.replace(false);
        assert!(before.is_none(), "a stream has one hang-up watch at a time");
    }

    fn shutdown(&mut self, stream: StreamId) {
        let state = &mut *self.state.borrow_mut();
        let client = state.stream(stream).client;
        state.connections[client.0].server = End::Shut;
    }

    fn reset_on_close(&mut self, stream: StreamId) {
        self.state.borrow_mut().stream(stream).resets = true;
    }

    fn close(&mut self, stream: StreamId) {
        let state = &mut *self.state.borrow_mut();
        let stream = state.stream(stream);
        let idle = stream.receive.is_none() && stream.send.is_none() && stream.hang_up.is_none();
        assert!(idle, "a stream is closed when nothing is under way on it");
        stream.closing = true;
    }

    fn cancel(&mut self, operation: Operation) {
        let state = &mut *self.state.borrow_mut();
        let under_way = match operation {
            Operation::Accept(listener) => state.listeners[listener.0 as usize].accept.as_mut(),
            Operation::Receive(stream) => state.stream(stream).receive.as_mut(),
            Operation::Send(stream) => state.stream(stream).send.as_mut().map(|send| &mut send.2),
            Operation::HangUp(stream) => state.stream(stream).hang_up.as_mut(),
        };
        if let Some(cancelled) = under_way {
            *cancelled = true;
        }
    }

    fn watch(&mut self, fd: RawFd) {
        let new = self.state.borrow_mut().watched.insert(fd);
        assert!(new, "an fd is watched once at a time");
    }

    fn is_ready(&self) -> bool {
        !self.state.borrow().candidates().is_empty()
    }

    fn wake_fd(&mut self) -> io::Result<RawFd> {
        Ok(WAKE_FD)
    }

    fn wait(
        &mut self,
        deadline: Option<Instant>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        self.turn += 1;
        self.buffers.clear();
        let shared = Rc::clone(&self.state);
        let state = &mut *shared.borrow_mut();
        if state.random.one_in(16) {
            return Ok(()); // as after a signal
        }
        let before = completions.len();
        loop {
            let mut candidates = state.candidates();
            if candidates.is_empty() {
                break;
            }
            state.shuffle(&mut candidates);
            let bound = candidates.len().min(COMPLETIONS_PER_WAIT);
            candidates.truncate(1 + state.random.below(bound));
            for candidate in candidates {
                completions.extend(self.complete(state, candidate));
            }
            if completions.len() > before {
                let passed = Duration::from_micros(state.random.below(100) as u64);
                let latest = deadline.map_or(state.now + passed, |at| at.max(state.now));
                state.now = latest.min(state.now + passed);
                state.idle_waits = 0;
                return Ok(());
            }
        }
        match deadline {
            Some(deadline) => state.now = state.now.max(deadline),
            None => state.idle_waits += 1,
        }
        assert!(
            state.idle_waits < IDLE_WAITS,
            "the server waits for what cannot happen, and spins"
        );
        Ok(())
    }

    fn bytes(&self, lease: &Lease) -> &[u8] {
        assert_eq!(lease.turn, self.turn, "a lease ends with the next wait");
        &self.buffers[usize::from(lease.buffer)]
    }
}
