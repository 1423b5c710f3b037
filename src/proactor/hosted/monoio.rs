//! The runtime monoio: on `io_uring` ([`Monoio`]), and on epoll ([`Epoll`]).
//!
//! What the crate (0.2.4) lacks, and what is done instead:
//!
//! - Nobody but itself may wait: `block_on` goes back to sleep when a signal has woken it. So a task
//!   that is always runnable when we want it to be makes it look without waiting.
//! - A readiness that can be cancelled, and a cancellation without a hash set for each direction. On
//!   a ring see `ForeignRing::cancel`. On epoll nothing is under way in the kernel: an operation
//!   that is to end does not ask the crate again.
//! - A registered listener, `CLOEXEC` on what it accepts, a hang-up watch: see [`super::Beside`].
#![allow(unsafe_code, reason = "lends memory of ours to the kernel, and fds to the crate")]

use std::cell::{Cell, RefCell, UnsafeCell};
use std::future::poll_fn;
use std::io;
use std::mem;
use std::net::TcpStream as StdStream;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, RawFd};
use std::pin::pin;
use std::ptr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use monoio::buf::{IoBuf, IoBufMut, IoVecBuf};
use monoio::io::AsyncWriteRent;
use monoio::net::TcpStream;
use monoio::{Driver, IoUringDriver, LegacyDriver, RuntimeBuilder};

use super::buffers::BUFFERS;
use super::epoll::EpollBeside;
use super::ring::{ForeignRing, fd_made_by};
use super::{Direction, Host, Hosted, Room, Vectors, cancelled};
use crate::proactor::uring::{RingError, Uring, retry_enomem};

/// Entries of the submission queue; the crate takes no fewer.
const SUBMISSIONS: u32 = 256;
const COMPLETIONS: u32 = 2048;
/// Events that one `epoll_wait(2)` takes at the most; the crate takes no fewer.
const EVENTS: u32 = 256;

/// The proactor on monoio with `io_uring`.
pub type Monoio = Hosted<OnRing>;

/// monoio with its driver for `io_uring`.
pub struct OnRing {
    runtime: monoio::Runtime<IoUringDriver>,
    turnstile: Turnstile,
    ring: ForeignRing,
}

impl Hosted<OnRing> {
    /// Make a runtime for the calling thread, which alone may use it.
    ///
    /// # Errors
    ///
    /// [`RingError`] names the call that failed and what to change.
    pub fn new() -> Result<Self, RingError> {
        Self::with_buffers(BUFFERS)
    }

    /// The same with fewer receive buffers than usual: tests run out of them sooner.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn with_buffers(buffers: u16) -> Result<Self, RingError> {
        let beside = Uring::to_be_polled()?;
        let (mut runtime, fd) = fd_made_by("io_uring", || retry_enomem(build))
            .map_err(RingError::new("io_uring_setup"))?;
        let turnstile = Turnstile::install(&mut runtime);
        let watched = watch_through(&mut runtime, beside.as_raw_fd())
            .map_err(RingError::new("fcntl(F_DUPFD_CLOEXEC)"))?;
        let ring = ForeignRing::new(fd, beside.enter_flags());
        Ok(Self::assemble(OnRing { runtime, turnstile, ring }, beside, watched, buffers))
    }
}

/// The proactor on monoio with epoll, for kernels and containers without `io_uring`: no system call
/// of it is made. A file is read where it is sent, a block at a time; so that a disk that has to be
/// waited for keeps everybody waiting.
pub type Epoll = Hosted<OnEpoll>;

/// monoio with its driver for epoll.
pub struct OnEpoll {
    runtime: monoio::Runtime<LegacyDriver>,
    turnstile: Turnstile,
    /// The crate's epoll.
    epoll: RawFd,
}

impl Hosted<OnEpoll> {
    /// Make a runtime for the calling thread, which alone may use it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses an epoll, an eventfd or a duplicate of it.
    pub fn new() -> io::Result<Self> {
        Self::with_buffers(BUFFERS)
    }

    /// The same with fewer receive buffers than usual: tests run out of them sooner.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn with_buffers(buffers: u16) -> io::Result<Self> {
        let beside = EpollBeside::new()?;
        let mut runtime = RuntimeBuilder::<LegacyDriver>::new().with_entries(EVENTS).build()?;
        let turnstile = Turnstile::install(&mut runtime);
        let watched = watch_through(&mut runtime, beside.fd())?;
        let epoll = beside.watched_by(watched.as_raw_fd())?;
        Ok(Self::assemble(OnEpoll { runtime, turnstile, epoll }, beside, watched, buffers))
    }
}

impl OnEpoll {
    /// Wait until the crate's epoll has something, without taking it: it tells each event once.
    fn wait_for_epoll(&self, timeout: Option<Duration>) -> io::Result<()> {
        let mut poll = libc::pollfd { fd: self.epoll, events: libc::POLLIN, revents: 0 };
        let timespec = timeout.map(|timeout| libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(timeout.subsec_nanos().cast_signed()),
        });
        let timespec = timespec.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: one valid pollfd and a timespec that outlive the call.
        let result = unsafe { libc::ppoll(&raw mut poll, 1, timespec, ptr::null()) };
        match io::Error::last_os_error() {
            error if result < 0 && error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}

impl Host for OnEpoll {
    type Stream = Rc<PolledConnection>;
    type Beside = EpollBeside;
    type Watched = Rc<TcpStream>;

    fn run(&mut self, dispatch: bool, work: &mut dyn FnMut()) {
        self.turnstile.run(&mut self.runtime, dispatch, work);
    }

    fn wait(&mut self, _: u32, timeout: Option<Duration>) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) { Ok(()) } else { self.wait_for_epoll(timeout) }
    }

    fn fd(&self) -> RawFd {
        self.epoll
    }

    fn watch(beside: Self::Watched) -> impl Future<Output = io::Result<usize>> + 'static {
        watch(beside)
    }

    fn open(fd: RawFd) -> io::Result<Self::Stream> {
        Ok(Rc::new(PolledConnection {
            connection: Connection::open(fd)?,
            receive: Ending::default(),
            send: Ending::default(),
        }))
    }

    fn release(stream: Self::Stream) {
        unshared(stream).connection.release();
    }

    fn readable(stream: Self::Stream) -> impl Future<Output = io::Result<usize>> + 'static {
        stream.receive.begin();
        async move {
            let mut readable = pin!(stream.connection.readable());
            let mut has_waited = false;
            let mut look = move |context: &mut Context<'_>| {
                // The crate would ask the kernel again, and the receive that comes now does too.
                if mem::replace(&mut has_waited, true) {
                    return Poll::Ready(Ok(0));
                }
                readable.as_mut().poll(context)
            };
            poll_fn(|context| stream.receive.poll(context, &mut look)).await
        }
    }

    fn send(
        stream: Self::Stream,
        vectors: Vectors,
    ) -> impl Future<Output = io::Result<usize>> + 'static {
        stream.send.begin();
        async move {
            let mut sent = pin!(stream.connection.send(vectors));
            poll_fn(|context| stream.send.poll(context, |context| sent.as_mut().poll(context)))
                .await
        }
    }

    async fn read(file: RawFd, offset: u64, room: Room) -> io::Result<usize> {
        read_now(file, offset, room)
    }

    fn cancel(&mut self, stream: &Self::Stream, direction: Direction) {
        match direction {
            Direction::Receive => stream.receive.cancel(),
            Direction::Send => stream.send.cancel(),
        }
    }
}

/// pread(2).
fn read_now(file: RawFd, offset: u64, room: Room) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: the room has that length and stays until the read has ended, which is here.
    let length = unsafe { libc::pread(file, room.address.cast(), room.length as usize, offset) };
    usize::try_from(length).map_err(|_| io::Error::last_os_error())
}

fn build() -> io::Result<monoio::Runtime<IoUringDriver>> {
    let mut builder = io_uring_of_the_crates::IoUring::builder();
    builder
        .dontfork()
        .setup_single_issuer()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(COMPLETIONS);
    RuntimeBuilder::<IoUringDriver>::new().with_entries(SUBMISSIONS).uring_builder(builder).build()
}

/// Has the runtime look for completions without waiting, which it does only while a task can run.
#[derive(Clone, Default)]
struct Turnstile {
    /// Of the task.
    task: Rc<RefCell<Option<Waker>>>,
    /// Of who waits until the task was run.
    behind: Rc<RefCell<Option<Waker>>>,
}

impl Turnstile {
    fn install<D: Driver>(runtime: &mut monoio::Runtime<D>) -> Self {
        let turnstile = Self::default();
        let Self { task, behind } = turnstile.clone();
        runtime.block_on(async move {
            monoio::spawn(poll_fn(move |context| -> Poll<()> {
                *task.borrow_mut() = Some(context.waker().clone());
                if let Some(waker) = behind.borrow_mut().take() {
                    waker.wake();
                }
                Poll::Pending
            }));
        });
        turnstile
    }

    /// See [`Host::run`].
    fn run<D: Driver>(
        &self,
        runtime: &mut monoio::Runtime<D>,
        dispatch: bool,
        work: &mut dyn FnMut(),
    ) {
        let mut waits = dispatch;
        runtime.block_on(poll_fn(|context| {
            if waits {
                waits = false;
                *self.behind.borrow_mut() = Some(context.waker().clone());
                let task = self.task.borrow();
                task.as_ref().expect("a task runs before who waits is polled").wake_by_ref();
                return Poll::Pending;
            }
            work();
            Poll::Ready(())
        }));
    }
}

/// A connection, which the crate takes for TCP whatever it is: it only calls `poll`, `send` and
/// `writev` on it.
pub struct Connection(UnsafeCell<TcpStream>);

impl Connection {
    fn open(fd: RawFd) -> io::Result<Self> {
        // SAFETY: the fd is open; `release` takes it out again before it is closed.
        let stream = TcpStream::from_std(unsafe { StdStream::from_raw_fd(fd) })?;
        Ok(Self(UnsafeCell::new(stream)))
    }

    fn release(self) {
        // Its fd is the proactor's.
        let _ = self.0.into_inner().into_raw_fd();
    }

    async fn readable(&self) -> io::Result<usize> {
        // SAFETY: as in `send`.
        let stream = unsafe { &*self.0.get() };
        stream.readable(false).await.map(|()| 0)
    }

    async fn send(&self, vectors: Vectors) -> io::Result<usize> {
        // SAFETY: the crate's own halves share a stream like this. An operation clones the handle
        // of the fd when it is made, in this thread, and does not come back to the stream.
        let stream = unsafe { &mut *self.0.get() };
        if vectors.count == 1 {
            // SAFETY: there is one vector, which stays where it is until this has ended.
            let vector = unsafe { *vectors.first };
            let bytes = Bytes { address: vector.iov_base.cast(), length: vector.iov_len };
            stream.write(bytes).await.0
        } else {
            stream.writev(vectors).await.0
        }
    }
}

/// What only a stream's slot has, since no operation is under way that would have a clone.
fn unshared<T>(stream: Rc<T>) -> T {
    let Ok(stream) = Rc::try_unwrap(stream) else {
        unreachable!("a stream is released when nothing is under way on it")
    };
    stream
}

/// A connection on epoll.
pub struct PolledConnection {
    connection: Connection,
    receive: Ending,
    send: Ending,
}

/// Has an operation end before the crate ends it.
#[derive(Default)]
struct Ending {
    asked: Cell<bool>,
    /// Of the operation that waits.
    waker: Cell<Option<Waker>>,
}

impl Ending {
    fn begin(&self) {
        self.asked.set(false);
    }

    fn cancel(&self) {
        self.asked.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll(
        &self,
        context: &mut Context<'_>,
        operation: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.asked.get() {
            return Poll::Ready(Err(cancelled()));
        }
        let result = operation(context);
        if result.is_pending() {
            self.waker.set(Some(context.waker().clone()));
        }
        result
    }
}

/// Bytes that stay where they are until a send has ended.
struct Bytes {
    address: *const u8,
    length: usize,
}

// SAFETY: the `Sending` that the bytes are of stays as it is until the operation has ended.
unsafe impl IoBuf for Bytes {
    fn read_ptr(&self) -> *const u8 {
        self.address
    }

    fn bytes_init(&self) -> usize {
        self.length
    }
}

// SAFETY: as above.
unsafe impl IoVecBuf for Vectors {
    fn read_iovec_ptr(&self) -> *const libc::iovec {
        self.first
    }

    fn read_iovec_len(&self) -> usize {
        self.count
    }
}

// SAFETY: as above; nobody reads the room before the operation has ended.
unsafe impl IoBufMut for Room {
    fn write_ptr(&mut self) -> *mut u8 {
        self.address
    }

    fn bytes_total(&mut self) -> usize {
        self.length as usize
    }

    unsafe fn set_init(&mut self, _: usize) {}
}

/// Have the runtime know a duplicate of `fd`.
fn watch_through<D: Driver>(
    runtime: &mut monoio::Runtime<D>,
    fd: RawFd,
) -> io::Result<Rc<TcpStream>> {
    // SAFETY: the fd is that of a `Beside`, which is alive.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
    runtime.block_on(async { TcpStream::from_std(StdStream::from(fd)) }).map(Rc::new)
}

async fn watch(watched: Rc<TcpStream>) -> io::Result<usize> {
    watched.readable(false).await.map(|()| 0)
}

/// The crate closes every file that it was given, so it is given a duplicate.
async fn read(file: RawFd, offset: u64, room: Room) -> io::Result<usize> {
    // SAFETY: the file is of the `FileRange` that is being sent, which lives until this has ended.
    let duplicate = unsafe { BorrowedFd::borrow_raw(file) }.try_clone_to_owned()?;
    monoio::fs::File::from_std(duplicate.into())?.read_at(room, offset).await.0
}

impl Host for OnRing {
    type Stream = Rc<Connection>;
    type Beside = Uring;
    type Watched = Rc<TcpStream>;
    /// The close of the duplicate, and a cancellation of that close: it is not waited for.
    const ENTRIES_AFTER_READ: u32 = 2;

    fn run(&mut self, dispatch: bool, work: &mut dyn FnMut()) {
        self.turnstile.run(&mut self.runtime, dispatch, work);
    }

    fn wait(&mut self, begun: u32, timeout: Option<Duration>) -> io::Result<()> {
        self.ring.wait(begun, timeout)
    }

    fn fd(&self) -> RawFd {
        self.ring.fd()
    }

    fn watch(beside: Self::Watched) -> impl Future<Output = io::Result<usize>> + 'static {
        watch(beside)
    }

    fn open(fd: RawFd) -> io::Result<Self::Stream> {
        Connection::open(fd).map(Rc::new)
    }

    fn release(stream: Self::Stream) {
        unshared(stream).release();
    }

    async fn readable(stream: Self::Stream) -> io::Result<usize> {
        stream.readable().await
    }

    async fn send(stream: Self::Stream, vectors: Vectors) -> io::Result<usize> {
        stream.send(vectors).await
    }

    fn read(
        file: RawFd,
        offset: u64,
        room: Room,
    ) -> impl Future<Output = io::Result<usize>> + 'static {
        read(file, offset, room)
    }

    fn cancel(&mut self, stream: &Self::Stream, _: Direction) {
        // SAFETY: as in `Connection::send`.
        self.ring.cancel(unsafe { &*stream.0.get() }.as_raw_fd());
    }
}
