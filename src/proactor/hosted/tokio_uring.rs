//! The runtime tokio-uring.
//!
//! What the crate (0.5.0) lacks, and what is done instead:
//!
//! - Nobody but itself may wait, and it cannot be told to look without waiting: a future that yields
//!   makes it ask its epoll, where the ring's fd is; what has completed is found by a task of its
//!   own, in a later pass.
//! - A receive that waits without a buffer: it is an entry of ours, given to its ring as an
//!   `UnsubmittedOneshot`.
//! - A cancellation: see `ForeignRing::cancel`.
//! - A registered listener, `CLOEXEC` on what it accepts, a hang-up watch: see [`super::Beside`].
//!
//! It polls the ring's fd, which a ring with `DEFER_TASKRUN` does not signal: it hangs with it.
#![allow(unsafe_code, reason = "lends memory of ours to the kernel")]

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::task::Poll;
use std::time::Duration;

use io_uring_of_the_crates::types::Fd;
use io_uring_of_the_crates::{IoUring, cqueue, opcode, squeue};
use tokio_uring::{OneshotOutputTransform, UnsubmittedOneshot};

use super::buffers::BUFFERS;
use super::ring::{ForeignRing, fd_made_by};
use super::{Direction, Host, Hosted, Room, Vectors};
use crate::proactor::uring::{RingError, Uring, retry_enomem};

const SUBMISSIONS: u32 = 256;
const COMPLETIONS: u32 = 2048;

/// The proactor on tokio-uring.
pub type TokioUring = Hosted<OnTokio>;

/// tokio-uring.
pub struct OnTokio {
    runtime: tokio_uring::Runtime,
    ring: ForeignRing,
}

impl Hosted<OnTokio> {
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
        let (runtime, fd) = fd_made_by("io_uring", || retry_enomem(build))
            .map_err(RingError::new("io_uring_setup"))?;
        let ring = ForeignRing::new(fd, beside.enter_flags());
        let watched = beside.as_raw_fd();
        Ok(Self::assemble(OnTokio { runtime, ring }, beside, watched, buffers))
    }
}

fn build() -> io::Result<tokio_uring::Runtime> {
    let mut ring = IoUring::builder();
    ring.dontfork()
        .setup_single_issuer()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(COMPLETIONS);
    tokio_uring::Runtime::new(tokio_uring::builder().entries(SUBMISSIONS).uring_builder(&ring))
}

/// What a completion says, and nothing to keep: memory is the proactor's.
struct Plain;

impl OneshotOutputTransform for Plain {
    type Output = io::Result<usize>;
    type StoredData = ();

    fn transform_oneshot_output(self, (): (), entry: cqueue::Entry) -> io::Result<usize> {
        match entry.result() {
            error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
            value => Ok(value.cast_unsigned() as usize),
        }
    }
}

/// Give an entry to the ring of the runtime that runs.
async fn submit(entry: squeue::Entry) -> io::Result<usize> {
    UnsubmittedOneshot::new((), Plain, entry).submit().await
}

async fn readable(fd: RawFd) -> io::Result<usize> {
    submit(opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).build()).await
}

impl Host for OnTokio {
    type Stream = RawFd;
    type Beside = Uring;
    type Watched = RawFd;

    fn run(&mut self, dispatch: bool, work: &mut dyn FnMut()) {
        // The first pass has the runtime ask its epoll, the second one runs the task that takes
        // the completions, which wakes ours for the third.
        let mut passes = if dispatch { 2 } else { 0 };
        self.runtime.block_on(poll_fn(|context| {
            if passes == 0 {
                work();
                return Poll::Ready(());
            }
            passes -= 1;
            if passes == 1 {
                let mut yielding = std::pin::pin!(tokio::task::yield_now());
                return yielding.as_mut().poll(context);
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }));
    }

    fn wait(&mut self, begun: u32, timeout: Option<Duration>) -> io::Result<()> {
        self.ring.wait(begun, timeout)
    }

    fn fd(&self) -> RawFd {
        self.ring.fd()
    }

    fn watch(beside: Self::Watched) -> impl Future<Output = io::Result<usize>> + 'static {
        readable(beside)
    }

    fn open(fd: RawFd) -> io::Result<Self::Stream> {
        Ok(fd)
    }

    fn release(_: Self::Stream) {}

    fn readable(stream: Self::Stream) -> impl Future<Output = io::Result<usize>> + 'static {
        readable(stream)
    }

    async fn send(stream: Self::Stream, vectors: Vectors) -> io::Result<usize> {
        // Not MSG_WAITALL: with it a slow but steady peer could not be told from a stalled one.
        let flags = libc::MSG_NOSIGNAL;
        let entry = if vectors.count == 1 {
            // SAFETY: there is one vector, which stays where it is until this has ended.
            let vector = unsafe { *vectors.first };
            let length = u32::try_from(vector.iov_len).unwrap_or(i32::MAX as u32);
            opcode::Send::new(Fd(stream), vector.iov_base.cast(), length).flags(flags).build()
        } else {
            opcode::SendMsg::new(Fd(stream), vectors.message).flags(flags.cast_unsigned()).build()
        };
        submit(entry).await
    }

    async fn read(file: RawFd, offset: u64, room: Room) -> io::Result<usize> {
        let entry = opcode::Read::new(Fd(file), room.address, room.length).offset(offset).build();
        submit(entry).await
    }

    fn cancel(&mut self, stream: &Self::Stream, _: Direction) {
        self.ring.cancel(*stream);
    }
}
