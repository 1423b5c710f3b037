//! Proactors whose streams are driven by an async runtime of somebody else.
//!
//! A [`Host`] is what a crate can do: tell that a stream has bytes, send, read a file, each as a
//! future. [`Hosted`] makes a [`Proactor`] of it: it keeps those futures, polls the woken ones, and
//! makes completions of what they bring. A future is never dropped before it has ended: dropping
//! one loses what the kernel has done for it.
//!
//! What no crate offers is done beside the runtime, by a [`Beside`] of our own, whose fd the runtime
//! watches: accepting from a listener that stays as it is, with a cancellation that loses nobody;
//! the watch for a hang-up; the watch of fds that are not ours.
//!
//! The thread waits in a system call of ours, not in the runtime: both crates go back to sleep when
//! a signal has woken them, and Python's handlers would never run. Where the runtime has a ring, that
//! call is `io_uring_enter` on it, which also submits.
//!
//! Receiving is two steps, readiness and then recv(2) into a buffer that is leased at once: neither
//! crate can have the kernel choose a buffer, and an idle connection must not hold one.

mod buffers;
mod epoll;
mod operations;
mod ring;
mod wake;

pub mod monoio;
pub mod tokio_uring;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{OwnedFd, RawFd};
use std::time::{Duration, Instant};

use super::sending::{Sending, SpareBlocks, Step};
use super::sockets::{fd_of, receive, reset_on_close, shutdown, unacknowledged};
use super::uring::Uring;
use super::{Completion, Lease, ListenerId, Outgoing, Proactor, StreamId};
use buffers::Buffers;
use operations::Operations;
use wake::Wake;

/// Completions delivered by one `wait` at the most, so that the application gets its turn.
const COMPLETIONS_PER_WAIT: usize = 256;
/// How long a drop waits for the ends of what it cancelled.
const TEARDOWN_LIMIT: Duration = Duration::from_secs(2);

/// What a stream can be doing at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Waiting for bytes.
    Receive,
    /// Sending.
    Send,
}

/// Memory that is sent: vectors of a `Sending` that stays where it is until the send has ended.
#[derive(Clone, Copy, Debug)]
pub struct Vectors {
    first: *const libc::iovec,
    count: usize,
    message: *const libc::msghdr,
}

/// Memory that a block of a file is read into, of a `Sending` too.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    address: *mut u8,
    length: u32,
}

/// The operations of an async runtime, as futures.
///
/// All functions without `self` are called, and all futures polled and dropped, within
/// [`Host::run`]. A future submits at most one entry to a ring, when it is polled first.
pub trait Host {
    /// A connection, for the operations below. A clone is the same connection.
    type Stream: Clone + 'static;
    /// What does the rest.
    type Beside: Beside;
    /// The fd of that.
    type Watched: Clone + 'static;
    /// How many entries a [`Host::read`] submits when it ends.
    const ENTRIES_AFTER_READ: u32 = 0;

    /// Call `work` once in the context of the runtime. With `dispatch`, have the runtime look first
    /// for what the kernel has completed, and wake the futures that waited for it; without waiting.
    fn run(&mut self, dispatch: bool, work: &mut dyn FnMut());

    /// Give the kernel what the last [`Host::run`] has begun, `begun` operations at the most, and
    /// wait until there may be something to dispatch, `timeout` is over (`None`: never) or a signal
    /// has come.
    ///
    /// # Errors
    ///
    /// Only for what the caller cannot mend.
    fn wait(&mut self, begun: u32, timeout: Option<Duration>) -> io::Result<()>;

    /// An fd that is readable when there is something to dispatch.
    fn fd(&self) -> RawFd;

    /// Wait until the fd of the [`Beside`] is readable; the number says nothing.
    fn watch(beside: Self::Watched) -> impl Future<Output = io::Result<usize>> + 'static;

    /// Take a connected socket, which stays the caller's.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to have it watched.
    fn open(fd: RawFd) -> io::Result<Self::Stream>;

    /// Let go of it. No operation is under way.
    fn release(stream: Self::Stream);

    /// Wait until a receive would not block; the number says nothing. It may end early.
    fn readable(stream: Self::Stream) -> impl Future<Output = io::Result<usize>> + 'static;

    /// Send a part of what the vectors point at; how much.
    fn send(
        stream: Self::Stream,
        vectors: Vectors,
    ) -> impl Future<Output = io::Result<usize>> + 'static;

    /// Read a part of a file; how much.
    fn read(
        file: RawFd,
        offset: u64,
        room: Room,
    ) -> impl Future<Output = io::Result<usize>> + 'static;

    /// Have what is under way in this direction, which the kernel has been given, end with
    /// `ECANCELED`, or as it would have if it was faster. It may hit the other direction too, which
    /// then is begun again.
    fn cancel(&mut self, stream: &Self::Stream, direction: Direction);
}

/// What is done beside a runtime. Everything as in [`Proactor`].
#[allow(
    missing_docs,
    clippy::missing_errors_doc,
    reason = "the methods have the names and the meaning of the proactor's"
)]
pub trait Beside {
    fn register_listener(&mut self, listener: OwnedFd) -> io::Result<ListenerId>;
    fn accept(&mut self, listener: ListenerId);
    fn try_accept(&mut self, listener: ListenerId);
    fn watch_hang_up(&mut self, stream: StreamId);
    fn watch(&mut self, fd: RawFd);
    fn cancel(&mut self, operation: super::Operation);
    fn close(&mut self, stream: StreamId);
    /// Submit what was asked for, and append what has completed, a bounded number, without waiting.
    /// True when it is to be called again before anybody waits for its fd.
    fn collect(&mut self, completions: &mut Vec<Completion>) -> io::Result<bool>;
    /// An eventfd that makes our fd readable, and by that the runtime's, if there can be one.
    fn flag(&self) -> io::Result<Option<File>>;
}

impl Beside for Uring {
    fn register_listener(&mut self, listener: OwnedFd) -> io::Result<ListenerId> {
        Proactor::register_listener(self, listener)
    }

    fn accept(&mut self, listener: ListenerId) {
        Proactor::accept(self, listener);
    }

    fn try_accept(&mut self, listener: ListenerId) {
        Proactor::try_accept(self, listener);
    }

    fn watch_hang_up(&mut self, stream: StreamId) {
        Proactor::watch_hang_up(self, stream);
    }

    fn watch(&mut self, fd: RawFd) {
        Proactor::watch(self, fd);
    }

    fn cancel(&mut self, operation: super::Operation) {
        Proactor::cancel(self, operation);
    }

    fn close(&mut self, stream: StreamId) {
        Proactor::close(self, stream);
    }

    fn collect(&mut self, completions: &mut Vec<Completion>) -> io::Result<bool> {
        self.wait(Some(Instant::now()), completions)?;
        Ok(self.has_kernel_work() || Proactor::is_ready(self))
    }

    fn flag(&self) -> io::Result<Option<File>> {
        Ok(None)
    }
}

/// What a future is for.
#[derive(Clone, Copy)]
enum Kind {
    Readable(StreamId),
    Send(StreamId),
    ReadFile(StreamId),
    /// Until the fd of the [`Beside`] is readable.
    Beside,
}

/// An operation that begins with the next wait.
enum Asked {
    Receive(StreamId),
    Send(StreamId),
    Cancel(StreamId, Direction),
    Close(StreamId),
}

/// What a receive is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ReceiveState {
    #[default]
    Idle,
    UnderWay,
    /// It was asked to end.
    Cancelled,
}

struct StreamSlot<S> {
    /// From the accept until the close is asked for.
    open: bool,
    /// From the first operation on.
    stream: Option<S>,
    receive: ReceiveState,
    sending: Option<Box<Sending>>,
}

impl<S> Default for StreamSlot<S> {
    fn default() -> Self {
        Self { open: false, stream: None, receive: ReceiveState::Idle, sending: None }
    }
}

/// A proactor on an async runtime.
pub struct Hosted<H: Host> {
    state: State<H>,
    wake: Option<Wake>,
    host: H,
}

/// All but the runtime, which is busy running while this is used.
struct State<H: Host> {
    beside: H::Beside,
    /// The fd of `beside`, and whether the runtime watches it.
    watched: H::Watched,
    watching: bool,
    /// Something was asked of `beside`, or its fd was readable.
    look_beside: bool,
    operations: Operations<Kind, io::Result<usize>>,
    /// Operations that were begun since the last wait.
    begun: u32,
    asked: Vec<Asked>,
    /// What is to be cancelled once it was submitted.
    cancels: Vec<(StreamId, Direction)>,
    /// By fd.
    streams: Vec<StreamSlot<H::Stream>>,
    buffers: Buffers,
    /// Streams with bytes to receive, which are received when there is a buffer, and delivered.
    readable: VecDeque<StreamId>,
    /// Completions that no wait has delivered yet.
    ready: VecDeque<Completion>,
    collected: Vec<Completion>,
    /// Boxes of finished sends, for the next ones.
    #[allow(clippy::vec_box, reason = "the boxes are what is kept: their address is the kernel's")]
    spare_sendings: Vec<Box<Sending>>,
    spare_blocks: SpareBlocks,
}

fn cancelled() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}

fn is_cancelled<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(libc::ECANCELED))
}

impl<H: Host> State<H> {
    fn new(beside: H::Beside, watched: H::Watched, buffers: u16) -> Self {
        Self {
            beside,
            watched,
            watching: false,
            look_beside: false,
            operations: Operations::default(),
            begun: 0,
            asked: Vec::new(),
            cancels: Vec::new(),
            streams: Vec::new(),
            buffers: Buffers::new(buffers),
            readable: VecDeque::new(),
            ready: VecDeque::new(),
            collected: Vec::new(),
            spare_sendings: Vec::new(),
            spare_blocks: SpareBlocks::default(),
        }
    }

    fn slot(&mut self, stream: StreamId) -> &mut StreamSlot<H::Stream> {
        let slot = &mut self.streams[stream.index()];
        assert!(slot.open, "a stream is used between its accept and its close");
        slot
    }

    /// The stream as the runtime knows it.
    fn stream(&mut self, stream: StreamId) -> io::Result<H::Stream> {
        let slot = &mut self.streams[stream.index()];
        if slot.stream.is_none() {
            slot.stream = Some(H::open(fd_of(stream))?);
        }
        slot.stream.clone().ok_or_else(|| io::Error::other("the stream was just opened"))
    }

    fn begin(&mut self, kind: Kind, operation: impl Future<Output = io::Result<usize>> + 'static) {
        self.begun += 1;
        self.operations.begin(kind, operation);
    }

    /// Begin what was asked for, and go on with what was woken, until all of it waits.
    fn advance(&mut self) {
        if !mem::replace(&mut self.watching, true) {
            self.begin(Kind::Beside, H::watch(self.watched.clone()));
        }
        let mut asked = mem::take(&mut self.asked);
        for asked in asked.drain(..) {
            match asked {
                Asked::Receive(stream) => self.begin_receive(stream),
                Asked::Send(stream) => self.advance_send(stream),
                Asked::Cancel(stream, direction) => self.cancels.push((stream, direction)),
                Asked::Close(stream) => self.begin_close(stream),
            }
        }
        // Nothing was asked meanwhile; the memory is kept for what will be.
        self.asked = asked;
        while let Some((kind, result)) = self.operations.next() {
            match kind {
                Kind::Readable(stream) => self.has_become_readable(stream, result),
                Kind::Send(stream) => self.sent(stream, result),
                Kind::ReadFile(stream) => self.file_read(stream, result),
                // An error comes again at once where it stays: then `beside` is looked at each turn.
                Kind::Beside => {
                    self.watching = false;
                    self.look_beside = true;
                }
            }
        }
    }

    fn begin_receive(&mut self, stream: StreamId) {
        match self.stream(stream) {
            Ok(opened) => self.begin(Kind::Readable(stream), H::readable(opened)),
            Err(error) => self.end_receive(stream, Err(error)),
        }
    }

    fn has_become_readable(&mut self, stream: StreamId, result: io::Result<usize>) {
        let asked_to_end = self.streams[stream.index()].receive == ReceiveState::Cancelled;
        match result {
            Ok(_) => self.readable.push_back(stream),
            // It was the send that was to be cancelled.
            Err(_) if is_cancelled(&result) && !asked_to_end => self.begin_receive(stream),
            Err(error) => self.end_receive(stream, Err(error)),
        }
    }

    fn end_receive(&mut self, stream: StreamId, result: io::Result<Lease>) {
        self.streams[stream.index()].receive = ReceiveState::Idle;
        self.ready.push_back(Completion::Received { stream, result });
    }

    /// Send what is left of the stream's data, or read what must be there first.
    fn advance_send(&mut self, stream: StreamId) {
        let opened = match self.stream(stream) {
            Ok(opened) => opened,
            Err(error) => return self.end_send(stream, Err(error)),
        };
        let Some(sending) = self.streams[stream.index()].sending.as_mut() else {
            unreachable!("a send is continued only while it is under way")
        };
        if sending.is_whole() {
            return self.end_send(stream, Ok(()));
        }
        match sending.next_step(&mut self.spare_blocks) {
            Step::Read { file, offset, to, length } => {
                let room = Room { address: to, length };
                self.begin(Kind::ReadFile(stream), H::read(file, offset, room));
            }
            Step::Send => {
                let message = sending.message();
                let vectors = sending.vectors();
                let (first, count) = (vectors.as_ptr(), vectors.len());
                let vectors = Vectors { first, count, message };
                self.begin(Kind::Send(stream), H::send(opened, vectors));
            }
        }
    }

    fn sending(&mut self, stream: StreamId) -> &mut Sending {
        let Some(sending) = self.streams[stream.index()].sending.as_mut() else {
            unreachable!("a send completes only while it is under way")
        };
        sending
    }

    fn sent(&mut self, stream: StreamId, result: io::Result<usize>) {
        let sending = self.sending(stream);
        match result {
            Ok(length) => {
                sending.sent(length);
                if sending.is_whole() {
                    self.end_send(stream, Ok(()));
                } else {
                    self.go_on_sending(stream);
                }
            }
            // It was the receive that was to be cancelled.
            Err(_) if is_cancelled(&result) => self.go_on_sending(stream),
            Err(error) => self.end_send(stream, Err(error)),
        }
    }

    /// A block of a file is there.
    fn file_read(&mut self, stream: StreamId, result: io::Result<usize>) {
        self.begun += H::ENTRIES_AFTER_READ;
        match result {
            // The file has become shorter than it was when its length was promised.
            Ok(0) => self.end_send(stream, Err(io::ErrorKind::UnexpectedEof.into())),
            Ok(length) => {
                self.sending(stream).block_read(length);
                self.go_on_sending(stream);
            }
            Err(error) => self.end_send(stream, Err(error)),
        }
    }

    fn go_on_sending(&mut self, stream: StreamId) {
        if self.sending(stream).cancelled {
            return self.end_send(stream, Err(cancelled()));
        }
        self.advance_send(stream);
    }

    fn end_send(&mut self, stream: StreamId, result: io::Result<()>) {
        let Some(mut sending) = self.streams[stream.index()].sending.take() else { return };
        let data = sending.end(&mut self.spare_blocks);
        if self.spare_sendings.len() < COMPLETIONS_PER_WAIT {
            self.spare_sendings.push(sending);
        }
        self.ready.push_back(Completion::Sent { stream, result, data });
    }

    fn begin_close(&mut self, stream: StreamId) {
        if let Some(opened) = self.streams[stream.index()].stream.take() {
            H::release(opened);
        }
        self.beside.close(stream);
        self.look_beside = true;
    }

    /// What has completed beside the runtime.
    fn collect(&mut self) -> io::Result<()> {
        if !self.look_beside {
            return Ok(());
        }
        self.look_beside = self.beside.collect(&mut self.collected)?;
        for completion in self.collected.drain(..) {
            if let Completion::Accepted { result: Ok(accepted), .. } = &completion {
                let index = accepted.stream.index();
                if self.streams.len() <= index {
                    self.streams.resize_with(index + 1, StreamSlot::default);
                }
                self.streams[index].open = true;
            }
            self.ready.push_back(completion);
        }
        Ok(())
    }

    /// True when it must not wait.
    fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.readable.is_empty() || self.look_beside
    }

    fn deliver(&mut self, completions: &mut Vec<Completion>) {
        let most = completions.len() + COMPLETIONS_PER_WAIT;
        for _ in 0..self.readable.len().min(COMPLETIONS_PER_WAIT) {
            let Some(stream) = self.readable.pop_front() else { break };
            match self.buffers.fill(|buffer| receive(stream, buffer)) {
                None => {
                    self.readable.push_front(stream);
                    break;
                }
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.streams[stream.index()].receive == ReceiveState::Cancelled {
                        self.end_receive(stream, Err(cancelled()));
                    } else {
                        self.asked.push(Asked::Receive(stream));
                    }
                }
                Some(result) => {
                    self.streams[stream.index()].receive = ReceiveState::Idle;
                    completions.push(Completion::Received { stream, result });
                }
            }
        }
        while completions.len() < most {
            let Some(completion) = self.ready.pop_front() else { break };
            completions.push(completion);
        }
    }

    /// Ask for the end of everything.
    fn cancel_all(&mut self) {
        for index in (0..).take(self.streams.len()) {
            let stream = StreamId(index);
            let slot = &mut self.streams[stream.index()];
            if mem::take(&mut slot.receive) != ReceiveState::Idle {
                slot.receive = ReceiveState::Cancelled;
                self.asked.push(Asked::Cancel(stream, Direction::Receive));
            }
            if let Some(sending) = slot.sending.as_mut() {
                sending.cancelled = true;
                self.asked.push(Asked::Cancel(stream, Direction::Send));
            }
        }
    }
}

impl<H: Host> Hosted<H> {
    fn assemble(host: H, beside: H::Beside, watched: H::Watched, buffers: u16) -> Self {
        Self { state: State::new(beside, watched, buffers), wake: None, host }
    }

    fn turn(&mut self, dispatch: bool) {
        let Self { state, host, .. } = self;
        host.run(dispatch, &mut || state.advance());
    }

    /// Submit, wait at most so long, and see what has completed.
    fn wait_at_most(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let begun = mem::take(&mut self.state.begun);
        if self.state.cancels.is_empty() {
            self.host.wait(begun, timeout)?;
        } else {
            // What is cancelled has to be with the kernel, and then ends at once.
            self.host.wait(begun, Some(Duration::ZERO))?;
            for (stream, direction) in self.state.cancels.drain(..) {
                if let Some(opened) = &self.state.streams[stream.index()].stream {
                    self.host.cancel(opened, direction);
                }
            }
        }
        self.turn(true);
        self.state.collect()
    }

    /// Make the wake fd tell what the runtime's own fd does not: that there is something to begin,
    /// or left to deliver.
    fn settle_wake(&self) {
        if let Some(wake) = &self.wake {
            let state = &self.state;
            let to_begin = state.begun > 0 || !state.asked.is_empty() || !state.watching;
            wake.tell(to_begin || state.has_work());
        }
    }

    /// Cancel everything, and wait until no operation has memory of ours.
    fn tear_down(&mut self) {
        let deadline = Instant::now() + TEARDOWN_LIMIT;
        self.state.cancel_all();
        self.turn(false);
        // The watch of the fd beside stays.
        while self.state.operations.len() > 1 && Instant::now() < deadline {
            if self.wait_at_most(Some(Duration::from_millis(10))).is_err() {
                break;
            }
        }
        let leak = self.state.operations.len() > 1;
        let Self { state, host, .. } = self;
        host.run(false, &mut || {
            state.operations.clear();
            for slot in &mut state.streams {
                if let Some(stream) = slot.stream.take() {
                    H::release(stream);
                }
            }
        });
        host.run(true, &mut || {});
        if leak {
            // The kernel still uses this memory: losing it is safe, freeing it is not.
            mem::forget(mem::take(&mut state.streams));
        }
    }
}

impl<H: Host> Drop for Hosted<H> {
    fn drop(&mut self) {
        self.tear_down();
    }
}

impl<H: Host> Proactor for Hosted<H> {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn register_listener(&mut self, listener: OwnedFd) -> io::Result<ListenerId> {
        self.state.beside.register_listener(listener)
    }

    fn accept(&mut self, listener: ListenerId) {
        self.state.beside.accept(listener);
        self.state.look_beside = true;
    }

    fn try_accept(&mut self, listener: ListenerId) {
        self.state.beside.try_accept(listener);
        self.state.look_beside = true;
    }

    fn receive(&mut self, stream: StreamId) {
        let before = mem::replace(&mut self.state.slot(stream).receive, ReceiveState::UnderWay);
        assert_eq!(before, ReceiveState::Idle, "a stream has one receive at a time");
        self.state.asked.push(Asked::Receive(stream));
    }

    fn send(&mut self, stream: StreamId, data: Outgoing) {
        assert!(self.state.slot(stream).sending.is_none(), "a stream has one send at a time");
        let mut sending = self.state.spare_sendings.pop().unwrap_or_default();
        sending.begin(data);
        self.state.slot(stream).sending = Some(sending);
        self.state.asked.push(Asked::Send(stream));
    }

    fn sent_so_far(&self, stream: StreamId) -> usize {
        let sending = self.state.streams[stream.index()].sending.as_ref();
        sending.map_or(0, |sending| sending.sent_so_far().saturating_sub(unacknowledged(stream)))
    }

    fn watch_hang_up(&mut self, stream: StreamId) {
        let _ = self.state.slot(stream);
        self.state.beside.watch_hang_up(stream);
        self.state.look_beside = true;
    }

    fn shutdown(&mut self, stream: StreamId) {
        shutdown(stream);
    }

    fn reset_on_close(&mut self, stream: StreamId) {
        reset_on_close(stream);
    }

    fn close(&mut self, stream: StreamId) {
        let slot = self.state.slot(stream);
        let idle = slot.receive == ReceiveState::Idle && slot.sending.is_none();
        assert!(idle, "a stream is closed when nothing is under way on it");
        slot.open = false;
        self.state.asked.push(Asked::Close(stream));
    }

    fn cancel(&mut self, operation: super::Operation) {
        match operation {
            super::Operation::Accept(_) | super::Operation::HangUp(_) => {
                self.state.beside.cancel(operation);
                self.state.look_beside = true;
            }
            super::Operation::Receive(stream) => {
                let receive = &mut self.state.slot(stream).receive;
                if *receive == ReceiveState::UnderWay {
                    *receive = ReceiveState::Cancelled;
                    self.state.asked.push(Asked::Cancel(stream, Direction::Receive));
                }
            }
            super::Operation::Send(stream) => {
                if let Some(sending) = self.state.slot(stream).sending.as_mut() {
                    sending.cancelled = true;
                    self.state.asked.push(Asked::Cancel(stream, Direction::Send));
                }
            }
        }
    }

    fn watch(&mut self, fd: RawFd) {
        self.state.beside.watch(fd);
        self.state.look_beside = true;
    }

    fn is_ready(&self) -> bool {
        !self.state.ready.is_empty()
    }

    fn wake_fd(&mut self) -> io::Result<RawFd> {
        if self.wake.is_none() {
            self.wake = Some(match self.state.beside.flag()? {
                Some(flag) => Wake::within(self.host.fd(), flag),
                None => Wake::around(self.host.fd())?,
            });
            self.settle_wake();
        }
        self.wake.as_ref().map(Wake::fd).ok_or_else(|| io::Error::other("the wake fd is gone"))
    }

    fn wait(
        &mut self,
        deadline: Option<Instant>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        self.state.buffers.take_back();
        // Or the runtime would find what was told to others.
        if let Some(wake) = &self.wake {
            wake.tell(false);
        }
        self.turn(false);
        self.state.collect()?;
        let timeout = if self.state.has_work() {
            Some(Duration::ZERO)
        } else {
            deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
        };
        self.wait_at_most(timeout)?;
        self.state.deliver(completions);
        self.settle_wake();
        Ok(())
    }

    fn bytes(&self, lease: &Lease) -> &[u8] {
        self.state.buffers.bytes(lease)
    }
}
