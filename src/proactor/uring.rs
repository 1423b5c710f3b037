//! The proactor on `io_uring`: one ring, used by the thread that made it.
//!
//! Listeners are registered in the ring's file table and accepted by their index; accepted
//! connections are normal fds with `CLOEXEC`. Receives take their buffers from a ring of provided
//! buffers, so that an idle connection holds none. One `io_uring_enter` submits all that the last
//! turn produced and waits for more.
//!
//! Needs kernel 6.1 (`DEFER_TASKRUN`). Newer features are used where the kernel says it has them:
//! `IORING_ACCEPT_DONTWAIT` (6.10), `IORING_ENTER_NO_IOWAIT` (6.15).
//!
//! The life of memory that the kernel uses: a send's data and vectors live in a box in the stream's
//! slot until its completion; an accept's address lives in a box in the listener's slot; the
//! provided buffers live as long as the ring. [`Uring::drop`] cancels and reaps everything before
//! any of that is freed: the kernel tears a ring down asynchronously, and a ring that is dropped
//! with an armed accept goes on taking connections.
#![allow(unsafe_code, reason = "the kernel shares memory with us: the rings and the buffers")]

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use io_uring::types::{BufRingEntry, CancelBuilder, Fd, Fixed, Timespec};
use io_uring::{EnterFlags, IoUring, opcode, squeue};
use socket2::{SockAddr, SockAddrStorage};

use super::sending::{Sending, SpareBlocks, Step};
use super::sockets::{Listening, fd_of, reset_on_close, shutdown, unacknowledged};
use super::{Accepted, Completion, Lease, ListenerId, Operation, Outgoing, Proactor, StreamId};

/// Entries of the submission queue. When a turn produces more, they are submitted in several
/// calls. 256 entries of 64 bytes count 16 KiB against `RLIMIT_MEMLOCK`.
const SUBMISSIONS: u32 = 256;
/// How often a full submission queue is handed over before the kernel is taken for broken.
const SUBMIT_TRIES: usize = 10_000;
/// Entries of the completion queue, 16 bytes each. More completions than that wait in the kernel.
const COMPLETIONS: u32 = 2048;
/// Completions delivered by one `wait` at the most, so that the application gets its turn.
const COMPLETIONS_PER_WAIT: usize = 256;
/// Slots of the ring's file table: that many listeners. The kernel wants `RLIMIT_NOFILE` to be no
/// lower.
const LISTENERS: u32 = 64;
/// Number of provided buffers (a power of two), and the bytes of each: 2 MiB, touched as used.
const BUFFERS: u16 = 128;
const BUFFER_BYTES: u32 = 16 * 1024;
const BUFFER_GROUP: u16 = 0;
/// A dead ring's locked memory is still counted for 20 to 40 ms (measured), so `ENOMEM` is tried
/// again for this long.
const SETUP_RETRY: Duration = Duration::from_millis(500);
const SETUP_RETRY_STEP: Duration = Duration::from_millis(5);
/// How long a drop waits for the completions of what it cancelled. Cancelling takes microseconds;
/// the bound keeps a kernel fault from hanging the exit.
const TEARDOWN_LIMIT: Duration = Duration::from_secs(2);

/// `include/uapi/linux/io_uring.h`: flags in an entry's `ioprio`, and a feature bit that the crate
/// names otherwise.
const RECVSEND_POLL_FIRST: u16 = 1;
const ACCEPT_DONTWAIT: u16 = 2;

/// The kernel refused a ring. Displays what was called, what came, and a `hint:`.
#[derive(Debug)]
pub struct RingError {
    call: &'static str,
    source: io::Error,
}

impl RingError {
    pub(super) fn new(call: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self { call, source }
    }

    /// What was called, and what came.
    #[must_use]
    pub fn problem(&self) -> String {
        format!("the kernel refused an io_uring: {} failed: {}", self.call, self.source)
    }

    /// What to change.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self.source.raw_os_error() {
            Some(libc::EPERM) => {
                "io_uring is switched off for this process: see `sysctl kernel.io_uring_disabled` \
                 (0 allows it), a seccomp filter of the container runtime, or SystemCallFilter= of \
                 the unit (@system-service allows it)"
            }
            Some(libc::EACCES) => "a security module (SELinux, AppArmor) denies io_uring",
            Some(libc::ENOSYS) => {
                "this kernel has no io_uring, or a seccomp filter hides it; Linux 6.1 or newer is \
                 needed"
            }
            Some(libc::EINVAL) => {
                "the kernel is too old; Linux 6.1 or newer is needed (`uname -r`)"
            }
            Some(libc::ENOMEM) => {
                "the limit of locked memory is used up: raise LimitMEMLOCK= of the unit (8M is \
                 enough) or `ulimit -l`"
            }
            Some(libc::EMFILE | libc::ENFILE) => {
                "too many open files: raise LimitNOFILE= of the unit or `ulimit -n`"
            }
            _ => "see io_uring_setup(2) for this error",
        }
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}\n\nhint: {}", self.problem(), self.hint())
    }
}

impl std::error::Error for RingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// What an entry's `user_data` says: the kind of operation above, its stream or listener below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Accept = 1,
    Receive,
    Send,
    /// A block of a file that a send is about to send.
    Read,
    HangUp,
    Close,
    Watch,
    Cancel,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Accept,
        Self::Receive,
        Self::Send,
        Self::Read,
        Self::HangUp,
        Self::Close,
        Self::Watch,
        Self::Cancel,
    ];

    fn tag(self, index: u32) -> u64 {
        (self as u64) << 32 | u64::from(index)
    }

    fn read(tag: u64) -> (Self, u32) {
        let kind = Self::ALL[(tag >> 32) as usize - 1];
        #[allow(clippy::cast_possible_truncation, reason = "the lower half is the index")]
        let index = tag as u32;
        (kind, index)
    }
}

/// What the accept of a listener is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AcceptState {
    Idle,
    /// Waits for a connection.
    Waiting,
    /// A sweep: takes a connection only if one waits already.
    Trying,
}

struct ListenerSlot {
    /// The ring's file table pins the file too.
    listening: Listening,
    state: AcceptState,
    /// Where the kernel writes the peer's address while an accept is under way.
    peer: Box<PeerAddress>,
}

/// What the hang-up watch of a stream is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum HangUpState {
    #[default]
    Idle,
    Watching,
    /// It was asked to end.
    Cancelled,
    /// The peer is gone; the poll is being cancelled.
    Seen,
}

struct PeerAddress {
    storage: SockAddrStorage,
    length: libc::socklen_t,
}

impl PeerAddress {
    fn new() -> Box<Self> {
        Box::new(Self { storage: SockAddrStorage::zeroed(), length: 0 })
    }
}

#[derive(Default)]
struct StreamSlot {
    /// From the accept until the close is asked for.
    open: bool,
    receiving: bool,
    /// The last receive has left bytes behind.
    more_waits: bool,
    hang_up: HangUpState,
    sending: Option<Box<Sending>>,
}

/// The proactor on `io_uring`.
pub struct Uring {
    ring: IoUring,
    buffers: Buffers,
    listeners: Vec<ListenerSlot>,
    /// By fd.
    streams: Vec<StreamSlot>,
    /// Receives that found no buffer; armed again when buffers have come back.
    starved: Vec<StreamId>,
    /// Completions that did not come from the kernel.
    ready: Vec<Completion>,
    /// Boxes of finished sends, for the next ones.
    #[allow(clippy::vec_box, reason = "the boxes are what is kept: their address is the kernel's")]
    spare_sendings: Vec<Box<Sending>>,
    spare_blocks: SpareBlocks,
    /// Entries given to the kernel, or about to be, whose completion has not been reaped.
    in_flight: usize,
    /// The eventfd of [`Proactor::wake_fd`], which the kernel signals, once somebody asked for it.
    wake: Option<File>,
    accept_dontwait: bool,
    enter_flags: EnterFlags,
}

impl Uring {
    /// Make a ring for the calling thread, which alone may use it.
    ///
    /// # Errors
    ///
    /// [`RingError`] names the call that failed and what to change.
    pub fn new() -> Result<Self, RingError> {
        Self::with_buffers(BUFFERS)
    }

    /// As [`Uring::new`], with fewer receive buffers than usual: tests run out of them sooner.
    ///
    /// # Errors
    ///
    /// As [`Uring::new`].
    ///
    /// # Panics
    ///
    /// For more buffers than usual, or none.
    pub fn with_buffers(count: u16) -> Result<Self, RingError> {
        let mut deferring = builder();
        deferring.setup_defer_taskrun();
        Self::build(&deferring, count)
    }

    /// A ring that somebody else waits for: its fd becomes readable when it has something, which
    /// that of a deferring one does only while somebody enters it.
    pub(super) fn to_be_polled() -> Result<Self, RingError> {
        let mut cooperative = builder();
        cooperative.setup_coop_taskrun();
        Self::build(&cooperative, 1)
    }

    fn build(builder: &io_uring::Builder, count: u16) -> Result<Self, RingError> {
        assert!((1..=BUFFERS).contains(&count), "from 1 to {BUFFERS} buffers");
        let ring = retry_enomem(|| builder.build(SUBMISSIONS))
            .map_err(RingError::new("io_uring_setup"))?;
        ring.submitter()
            .register_files_sparse(LISTENERS)
            .map_err(RingError::new("io_uring_register(IORING_REGISTER_FILES2)"))?;
        let buffers = retry_enomem(|| Buffers::register(&ring, count))
            .map_err(RingError::new("io_uring_register(IORING_REGISTER_PBUF_RING)"))?;
        let parameters = ring.params();
        let mut enter_flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if parameters.is_feature_no_iowait() {
            enter_flags |= EnterFlags::NO_IOWAIT;
        }
        let mut made = Self {
            // RECVSEND_BUNDLE and ACCEPT_DONTWAIT came with the same kernel, 6.10; only the first
            // has a feature bit.
            accept_dontwait: parameters.is_feature_recvsend_bundle(),
            enter_flags,
            ring,
            buffers,
            listeners: Vec::new(),
            streams: Vec::new(),
            starved: Vec::new(),
            ready: Vec::new(),
            spare_sendings: Vec::new(),
            spare_blocks: SpareBlocks::default(),
            in_flight: 0,
            wake: None,
        };
        // A seccomp filter may allow the other calls and refuse this one.
        made.enter(0, Some(Duration::ZERO)).map_err(RingError::new("io_uring_enter"))?;
        Ok(made)
    }

    /// Behave as on a kernel before 6.10, which has no `IORING_ACCEPT_DONTWAIT`: for tests.
    pub fn forget_accept_dontwait(&mut self) {
        self.accept_dontwait = false;
    }

    /// How a ring of this kernel is entered.
    pub(super) fn enter_flags(&self) -> EnterFlags {
        self.enter_flags
    }

    fn slot(&mut self, stream: StreamId) -> &mut StreamSlot {
        let slot = &mut self.streams[stream.index()];
        assert!(slot.open, "a stream is used between its accept and its close");
        slot
    }

    /// Queue an entry. Its memory is kept until its completion by the slot it belongs to.
    fn push(&mut self, entry: squeue::Entry, kind: Kind, index: u32) {
        let entry = entry.user_data(kind.tag(index));
        self.in_flight += 1;
        for _ in 0..SUBMIT_TRIES {
            // SAFETY: whatever the entry points to lives until its completion: see the head of
            // this file; the slots keep it.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // The queue is full: hand it over. The kernel consumes entries even where it has to
            // refuse them, so this makes room, unless memory is short for the moment.
            let _ = self.enter(0, Some(Duration::ZERO));
        }
        panic!("the kernel takes no more entries: the ring is of no use");
    }

    fn push_accept(&mut self, listener: ListenerId, dont_wait: bool) {
        let slot = &mut self.listeners[listener.0 as usize];
        slot.peer.length = SockAddrStorage::zeroed().size_of();
        let entry = opcode::Accept::new(
            Fixed(listener.0),
            (&raw mut slot.peer.storage).cast(),
            &raw mut slot.peer.length,
        )
        .flags(libc::SOCK_CLOEXEC)
        .build();
        let entry = if dont_wait { with_ioprio(entry, ACCEPT_DONTWAIT) } else { entry };
        self.push(entry, Kind::Accept, listener.0);
    }

    fn push_receive(&mut self, stream: StreamId) {
        // POLL_FIRST: unless the last receive left bytes behind there is usually nothing to read
        // yet when one is armed, so the first try would be for nothing.
        let more_waits = mem::take(&mut self.slot(stream).more_waits);
        let entry = opcode::Recv::new(Fd(fd_of(stream)), ptr::null_mut(), 0)
            .buf_group(BUFFER_GROUP)
            .ioprio(if more_waits { 0 } else { RECVSEND_POLL_FIRST })
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(entry, Kind::Receive, stream.0);
    }

    /// Send what is left of the stream's data, or read what must be there first.
    fn advance_send(&mut self, stream: StreamId) {
        let Some(sending) = self.streams[stream.index()].sending.as_mut() else {
            unreachable!("a send is continued only while it is under way")
        };
        let (entry, kind) = match sending.next_step(&mut self.spare_blocks) {
            Step::Read { file, offset, to, length } => {
                (opcode::Read::new(Fd(file), to, length).offset(offset).build(), Kind::Read)
            }
            Step::Send => (send_entry(sending, Fd(fd_of(stream))), Kind::Send),
        };
        self.push(entry, kind, stream.0);
    }

    /// Submit what is queued and wait for `want` completions, at most `timeout`.
    fn enter(&mut self, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        let timespec = timeout
            .map(|timeout| Timespec::new().sec(timeout.as_secs()).nsec(timeout.subsec_nanos()));
        let arguments = EnterArguments::with_timeout(timespec.as_ref());
        let queued = u32::try_from(self.ring.submission().len())
            .expect("the queue has 256 entries at the most");
        // SAFETY: `arguments` has the layout of `struct io_uring_getevents_arg` and outlives the
        // call, and so does the timespec it points to.
        let result = unsafe {
            self.ring.submitter().enter(queued, want, self.enter_flags.bits(), Some(&arguments))
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // The deadline, a signal, or a full completion queue that is about to be reaped.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn reap(&mut self, completions: &mut Vec<Completion>, limit: usize) {
        for _ in 0..limit {
            let Some(entry) = self.ring.completion().next() else { return };
            let more = io_uring::cqueue::more(entry.flags());
            self.in_flight -= usize::from(!more);
            let (kind, index) = Kind::read(entry.user_data());
            let result = match entry.result() {
                error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
                value => Ok(value.cast_unsigned()),
            };
            let completion = match kind {
                Kind::Accept => self.accepted(ListenerId(index), result),
                Kind::Receive => self.received(StreamId(index), result, entry.flags()),
                Kind::Send => self.sent(StreamId(index), result),
                Kind::Read => self.file_read(StreamId(index), result),
                Kind::HangUp => self.hung_up(StreamId(index), result, more),
                Kind::Close => Some(Completion::Closed { stream: StreamId(index) }),
                Kind::Watch => Some(Completion::Readable { fd: fd_of(StreamId(index)) }),
                Kind::Cancel => None,
            };
            completions.extend(completion);
        }
    }

    fn accepted(&mut self, listener: ListenerId, result: io::Result<u32>) -> Option<Completion> {
        let slot = &mut self.listeners[listener.0 as usize];
        let cancelled =
            matches!(&result, Err(error) if error.raw_os_error() == Some(libc::ECANCELED));
        if slot.state == AcceptState::Trying && cancelled {
            if slot.listening.has_clients() {
                // Before 6.10: somebody came between the try and its cancellation.
                self.try_by_cancelling(listener);
                return None;
            }
            slot.state = AcceptState::Idle;
            return Some(Completion::Accepted {
                listener,
                result: Err(io::ErrorKind::WouldBlock.into()),
            });
        }
        slot.state = AcceptState::Idle;
        let result = result.map(|fd| {
            let stream = StreamId(fd);
            let accepted = slot.describe(stream);
            if self.streams.len() <= stream.index() {
                self.streams.resize_with(stream.index() + 1, StreamSlot::default);
            }
            self.streams[stream.index()].open = true;
            accepted
        });
        Some(Completion::Accepted { listener, result })
    }

    fn received(
        &mut self,
        stream: StreamId,
        result: io::Result<u32>,
        flags: u32,
    ) -> Option<Completion> {
        let buffer = io_uring::cqueue::buffer_select(flags);
        if let Some(buffer) = buffer {
            self.buffers.leased.push(buffer);
        }
        if matches!(&result, Err(error) if error.raw_os_error() == Some(libc::ENOBUFS)) {
            self.starved.push(stream);
            return None;
        }
        let more_waits = io_uring::cqueue::sock_nonempty(flags);
        let slot = self.slot(stream);
        slot.receiving = false;
        slot.more_waits = more_waits;
        let turn = self.buffers.turn;
        let result = result.map(|length| Lease {
            // The end of the peer's data may come without a buffer; no byte of it is read.
            buffer: buffer.unwrap_or(0),
            length: length as usize,
            more_waits,
            turn,
        });
        Some(Completion::Received { stream, result })
    }

    fn sent(&mut self, stream: StreamId, result: io::Result<u32>) -> Option<Completion> {
        let Some(sending) = self.slot(stream).sending.as_mut() else {
            unreachable!("a send completes only while it is under way")
        };
        match result.map(|length| sending.sent(length as usize)) {
            Ok(()) if sending.is_whole() => self.end_send(stream, Ok(())),
            Ok(()) => self.go_on_sending(stream),
            Err(error) => self.end_send(stream, Err(error)),
        }
    }

    /// A block of a file is there.
    fn file_read(&mut self, stream: StreamId, result: io::Result<u32>) -> Option<Completion> {
        let Some(sending) = self.slot(stream).sending.as_mut() else {
            unreachable!("a block is read only while its send is under way")
        };
        match result {
            // The file has become shorter than it was when its length was promised.
            Ok(0) => self.end_send(stream, Err(io::ErrorKind::UnexpectedEof.into())),
            Ok(length) => {
                sending.block_read(length as usize);
                self.go_on_sending(stream)
            }
            Err(error) => self.end_send(stream, Err(error)),
        }
    }

    fn go_on_sending(&mut self, stream: StreamId) -> Option<Completion> {
        if self.slot(stream).sending.as_ref().is_some_and(|sending| sending.cancelled) {
            // The kernel ends a cancelled send that has sent a part with the length of that part.
            return self.end_send(stream, Err(io::Error::from_raw_os_error(libc::ECANCELED)));
        }
        self.advance_send(stream);
        None
    }

    fn end_send(&mut self, stream: StreamId, result: io::Result<()>) -> Option<Completion> {
        let mut sending = self.slot(stream).sending.take()?;
        let data = sending.end(&mut self.spare_blocks);
        if self.spare_sendings.len() < COMPLETIONS_PER_WAIT {
            self.spare_sendings.push(sending);
        }
        Some(Completion::Sent { stream, result, data })
    }

    fn push_hang_up(&mut self, stream: StreamId) {
        // No event is asked for, but the kernel adds POLLHUP, POLLERR and, unlike poll(2),
        // POLLRDHUP: a half-close. A single-shot poll would end with it at every arming; a
        // multishot poll is edge-triggered, tells it once and goes on.
        let entry = opcode::PollAdd::new(Fd(fd_of(stream)), 0).multi(true).build();
        self.push(entry, Kind::HangUp, stream.0);
    }

    /// One event of a hang-up watch, or its end.
    fn hung_up(
        &mut self,
        stream: StreamId,
        result: io::Result<u32>,
        more: bool,
    ) -> Option<Completion> {
        let gone = (libc::POLLHUP | libc::POLLERR).cast_unsigned();
        let slot = self.slot(stream);
        if matches!(&result, Ok(events) if events & u32::from(gone) != 0) {
            slot.hang_up = HangUpState::Seen;
            if more {
                self.push_cancel(Kind::HangUp.tag(stream.0));
            }
        }
        if more {
            return None;
        }
        let state = mem::take(&mut self.slot(stream).hang_up);
        let result = match (state, result) {
            (HangUpState::Seen, _) => Ok(()),
            (HangUpState::Watching, Ok(_)) => {
                // The completion queue was full, which ends a multishot poll early.
                self.slot(stream).hang_up = HangUpState::Watching;
                self.push_hang_up(stream);
                return None;
            }
            (_, Ok(_)) => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
            (_, Err(error)) => Err(error),
        };
        Some(Completion::HungUp { stream, result })
    }

    fn push_cancel(&mut self, tag: u64) {
        self.push(opcode::AsyncCancel::new(tag).build(), Kind::Cancel, 0);
    }

    /// A sweep without `IORING_ACCEPT_DONTWAIT`: an accept takes what waits, else its cancellation
    /// right behind it ends it.
    fn try_by_cancelling(&mut self, listener: ListenerId) {
        self.push_accept(listener, false);
        self.cancel(Operation::Accept(listener));
    }

    /// Make the wake fd tell the truth: unreadable, unless another `wait` would deliver something.
    ///
    /// The kernel signals it for what `enter` itself has completed, which is reaped by now, and for
    /// the first piece of deferred work only. So what came before the read has to be looked for, and
    /// what reaping has queued (the rest of a send) has to be submitted.
    fn settle_wake(&mut self) {
        let Some(mut wake) = self.wake.as_ref() else { return };
        // It fails when nothing was signalled.
        let _ = wake.read(&mut [0; 8]);
        if self.has_kernel_work() || self.is_ready() || !self.starved.is_empty() {
            let _ = wake.write(&1_u64.to_ne_bytes());
        }
    }

    /// Whether the kernel has to be entered: to take entries, or to do work that it deferred.
    pub(super) fn has_kernel_work(&self) -> bool {
        // SAFETY: no other queue object is alive here; this one only reads counters and flags.
        let submission = unsafe { self.ring.submission_shared() };
        !submission.is_empty() || submission.taskrun() || submission.cq_overflow()
    }

    /// Cancel everything, reap until the kernel holds nothing of ours, and close what is open.
    fn tear_down(&mut self) {
        let deadline = Instant::now() + TEARDOWN_LIMIT;
        let mut completions = Vec::new();
        while self.in_flight > 0 && Instant::now() < deadline {
            // What is still queued must be with the kernel before it can be cancelled there.
            let _ = self.enter(0, Some(Duration::ZERO));
            let _ = self.ring.submitter().register_sync_cancel(None, CancelBuilder::any());
            let _ = self.enter(1, Some(Duration::from_millis(10)));
            self.reap(&mut completions, usize::MAX);
            self.starved.clear();
            completions.clear();
        }
        let _ = self.ring.submitter().unregister_files();
        for (fd, _) in (0..).zip(&self.streams).filter(|(_, slot)| slot.open) {
            // SAFETY: the accept made this fd for us, and no close of it was asked for.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}

impl AsRawFd for Uring {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.tear_down();
        if self.in_flight > 0 {
            // The kernel still uses this memory: losing it is safe, freeing it is not.
            mem::forget(mem::take(&mut self.streams));
            mem::forget(mem::take(&mut self.listeners));
            self.buffers.leak = true;
        }
    }
}

impl Proactor for Uring {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn register_listener(&mut self, listener: OwnedFd) -> io::Result<ListenerId> {
        let index = u32::try_from(self.listeners.len()).unwrap_or(u32::MAX);
        if index >= LISTENERS {
            return Err(io::Error::other(format!("more than {LISTENERS} listeners")));
        }
        let listening = Listening::new(listener)?;
        self.ring.submitter().register_files_update(index, &[listening.as_raw_fd()])?;
        self.listeners.push(ListenerSlot {
            listening,
            state: AcceptState::Idle,
            peer: PeerAddress::new(),
        });
        Ok(ListenerId(index))
    }

    fn accept(&mut self, listener: ListenerId) {
        let state =
            mem::replace(&mut self.listeners[listener.0 as usize].state, AcceptState::Waiting);
        assert_eq!(state, AcceptState::Idle, "a listener has one accept at a time");
        self.push_accept(listener, false);
    }

    fn try_accept(&mut self, listener: ListenerId) {
        let state =
            mem::replace(&mut self.listeners[listener.0 as usize].state, AcceptState::Trying);
        assert_eq!(state, AcceptState::Idle, "a listener has one accept at a time");
        if self.accept_dontwait {
            self.push_accept(listener, true);
        } else {
            self.try_by_cancelling(listener);
        }
    }

    fn receive(&mut self, stream: StreamId) {
        let before = mem::replace(&mut self.slot(stream).receiving, true);
        assert!(!before, "a stream has one receive at a time");
        self.push_receive(stream);
    }

    fn send(&mut self, stream: StreamId, data: Outgoing) {
        assert!(self.slot(stream).sending.is_none(), "a stream has one send at a time");
        let mut sending = self.spare_sendings.pop().unwrap_or_default();
        sending.begin(data);
        self.slot(stream).sending = Some(sending);
        self.advance_send(stream);
    }

    fn sent_so_far(&self, stream: StreamId) -> usize {
        let sending = self.streams[stream.index()].sending.as_ref();
        sending.map_or(0, |sending| sending.sent_so_far().saturating_sub(unacknowledged(stream)))
    }

    fn watch_hang_up(&mut self, stream: StreamId) {
        let before = mem::replace(&mut self.slot(stream).hang_up, HangUpState::Watching);
        assert_eq!(before, HangUpState::Idle, "a stream has one hang-up watch at a time");
        self.push_hang_up(stream);
    }

    fn shutdown(&mut self, stream: StreamId) {
        shutdown(stream);
    }

    fn reset_on_close(&mut self, stream: StreamId) {
        reset_on_close(stream);
    }

    fn close(&mut self, stream: StreamId) {
        let slot = self.slot(stream);
        let idle = !slot.receiving && slot.hang_up == HangUpState::Idle && slot.sending.is_none();
        assert!(idle, "a stream is closed when nothing is under way on it");
        slot.open = false;
        slot.more_waits = false;
        let entry = opcode::Close::new(Fd(fd_of(stream))).build();
        self.push(entry, Kind::Close, stream.0);
    }

    fn cancel(&mut self, operation: Operation) {
        let tag = match operation {
            Operation::Accept(listener) => Kind::Accept.tag(listener.0),
            Operation::Receive(stream) => {
                if let Some(position) = self.starved.iter().position(|one| *one == stream) {
                    self.starved.swap_remove(position);
                    self.slot(stream).receiving = false;
                    let result = Err(io::Error::from_raw_os_error(libc::ECANCELED));
                    self.ready.push(Completion::Received { stream, result });
                    return;
                }
                Kind::Receive.tag(stream.0)
            }
            Operation::Send(stream) => {
                let mut kind = Kind::Send;
                if let Some(sending) = self.slot(stream).sending.as_mut() {
                    sending.cancelled = true;
                    if sending.is_reading() {
                        kind = Kind::Read;
                    }
                }
                kind.tag(stream.0)
            }
            Operation::HangUp(stream) => {
                let state = &mut self.slot(stream).hang_up;
                if *state == HangUpState::Watching {
                    *state = HangUpState::Cancelled;
                }
                Kind::HangUp.tag(stream.0)
            }
        };
        self.push_cancel(tag);
    }

    fn watch(&mut self, fd: RawFd) {
        let entry = opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).build();
        self.push(entry, Kind::Watch, fd.cast_unsigned());
    }

    fn is_ready(&self) -> bool {
        // A starved receive is armed again by the next wait, and may have bytes at once, but does
        // not make that wait return: it is not counted here.
        // SAFETY: no other queue object is alive here; this one only compares two counters.
        !self.ready.is_empty() || !unsafe { self.ring.completion_shared() }.is_empty()
    }

    fn wake_fd(&mut self) -> io::Result<RawFd> {
        if let Some(wake) = &self.wake {
            return Ok(wake.as_raw_fd());
        }
        let wake = new_eventfd()?;
        let fd = wake.as_raw_fd();
        self.ring.submitter().register_eventfd(fd)?;
        self.wake = Some(wake);
        self.settle_wake();
        Ok(fd)
    }

    fn wait(
        &mut self,
        deadline: Option<Instant>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        self.buffers.take_back();
        for stream in mem::take(&mut self.starved) {
            self.push_receive(stream);
        }
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if self.is_ready() || timeout == Some(Duration::ZERO) {
            if self.has_kernel_work() {
                self.enter(0, Some(Duration::ZERO))?;
            }
        } else {
            self.enter(1, timeout)?;
        }
        completions.append(&mut self.ready);
        self.reap(completions, COMPLETIONS_PER_WAIT);
        self.settle_wake();
        Ok(())
    }

    fn bytes(&self, lease: &Lease) -> &[u8] {
        assert_eq!(lease.turn, self.buffers.turn, "a lease ends with the next wait");
        self.buffers.bytes(lease.buffer, lease.length)
    }
}

impl ListenerSlot {
    fn describe(&mut self, stream: StreamId) -> Accepted {
        // SAFETY: the kernel wrote `length` bytes of a socket address into the storage.
        let peer = unsafe {
            let storage = mem::replace(&mut self.peer.storage, SockAddrStorage::zeroed());
            SockAddr::new(storage, self.peer.length)
        };
        self.listening.describe(stream, &peer)
    }
}

/// `struct io_uring_getevents_arg`, `io_uring_enter(2)`.
#[repr(C)]
pub(super) struct EnterArguments {
    signal_mask: u64,
    signal_mask_bytes: u32,
    min_wait_microseconds: u32,
    timespec: u64,
}

impl EnterArguments {
    /// Without a timeout the wait lasts until there is something. The timespec has to outlive it.
    pub(super) fn with_timeout(timespec: Option<&Timespec>) -> Self {
        Self {
            signal_mask: 0,
            signal_mask_bytes: 0,
            min_wait_microseconds: 0,
            timespec: timespec.map_or(0, |timespec| ptr::from_ref(timespec).addr() as u64),
        }
    }
}

/// The ring of provided buffers, and the buffers.
struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    tail: u16,
    /// Buffers that completions of this turn hold.
    leased: Vec<u16>,
    turn: u32,
    /// Set when the kernel may still use the memory.
    leak: bool,
}

impl Buffers {
    const ENTRIES_BYTES: usize = BUFFERS as usize * mem::size_of::<BufRingEntry>();
    const MEMORY_BYTES: usize = BUFFERS as usize * BUFFER_BYTES as usize;

    /// Register the ring for `BUFFERS` buffers, and provide the first `count` of them.
    fn register(ring: &IoUring, count: u16) -> io::Result<Self> {
        let entries = map_memory(Self::ENTRIES_BYTES)?.cast();
        let memory = map_memory(Self::MEMORY_BYTES)?;
        let mut buffers =
            Self { entries, memory, tail: 0, leased: Vec::new(), turn: 0, leak: false };
        // SAFETY: the entries are page-aligned memory of the right size, which `Buffers` frees
        // only after the ring is gone (field order of `Uring`; see `leak`).
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                entries.as_ptr() as u64,
                BUFFERS,
                BUFFER_GROUP,
                0,
            )?;
        }
        buffers.leased.extend(0..count);
        buffers.take_back();
        Ok(buffers)
    }

    /// Give the leased buffers to the kernel again. All leases end.
    fn take_back(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        if self.leased.is_empty() {
            return;
        }
        for buffer in self.leased.drain(..) {
            let position = usize::from(self.tail & (BUFFERS - 1));
            // SAFETY: the position is below BUFFERS, so the entry is inside the ring, and the
            // kernel does not read it before the tail has moved over it. Its `resv` field, which
            // holds the tail in the first entry, is not written.
            unsafe {
                let entry = &mut *self.entries.as_ptr().add(position);
                entry.set_addr(
                    self.memory.as_ptr().add(usize::from(buffer) * BUFFER_BYTES as usize) as u64,
                );
                entry.set_len(BUFFER_BYTES);
                entry.set_bid(buffer);
            }
            self.tail = self.tail.wrapping_add(1);
        }
        // SAFETY: the tail is an aligned u16 inside the first entry, shared with the kernel, which
        // reads it with acquire semantics; nobody else in this process touches it.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    fn bytes(&self, buffer: u16, length: usize) -> &[u8] {
        assert!(
            buffer < BUFFERS && length <= BUFFER_BYTES as usize,
            "the kernel filled one buffer of ours"
        );
        // SAFETY: inside the mapping by the assertion; the kernel wrote `length` bytes and does
        // not touch the buffer again before `take_back`, which needs `&mut self`.
        unsafe {
            let start = self.memory.as_ptr().add(usize::from(buffer) * BUFFER_BYTES as usize);
            std::slice::from_raw_parts(start, length)
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if self.leak {
            return;
        }
        // SAFETY: both were mapped by `register` with these sizes, and the ring that used them is
        // dropped before this field of `Uring`.
        unsafe {
            libc::munmap(self.entries.as_ptr().cast(), Self::ENTRIES_BYTES);
            libc::munmap(self.memory.as_ptr().cast(), Self::MEMORY_BYTES);
        }
    }
}

/// Fresh zeroed pages.
fn map_memory(length: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a new private anonymous mapping; it replaces nothing.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mmap returned address 0"))
}

fn builder() -> io_uring::Builder {
    let mut builder = IoUring::builder();
    builder
        .dontfork()
        .setup_single_issuer()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(COMPLETIONS);
    builder
}

/// The entry that sends what the vectors point at.
fn send_entry(sending: &mut Sending, stream: Fd) -> squeue::Entry {
    // Not MSG_WAITALL: with it a slow but steady peer could not be told from a stalled one.
    let flags = libc::MSG_NOSIGNAL;
    if let [only] = *sending.vectors() {
        let length = u32::try_from(only.iov_len).unwrap_or(i32::MAX as u32);
        opcode::Send::new(stream, only.iov_base.cast(), length).flags(flags).build()
    } else {
        let message = sending.message();
        opcode::SendMsg::new(stream, message).flags(flags.cast_unsigned()).build()
    }
}

pub(super) fn new_eventfd() -> io::Result<File> {
    // SAFETY: no pointers; the result is checked.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the fd was just made, and nobody else has it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

pub(super) fn retry_enomem<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + SETUP_RETRY;
    loop {
        match attempt() {
            Err(error)
                if error.raw_os_error() == Some(libc::ENOMEM) && Instant::now() < deadline =>
            {
                std::thread::sleep(SETUP_RETRY_STEP);
            }
            result => return result,
        }
    }
}

/// Set the field that the crate has no setter for on every operation.
fn with_ioprio(mut entry: squeue::Entry, value: u16) -> squeue::Entry {
    const { assert!(mem::size_of::<squeue::Entry>() == 64) };
    // SAFETY: an entry is `struct io_uring_sqe`, 64 bytes of plain data aligned to 8; `ioprio` is
    // the u16 at offset 2 (io_uring.h, a stable kernel ABI).
    unsafe { (&raw mut entry).cast::<u16>().add(1).write(value) };
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(call: &'static str, errno: i32) -> String {
        RingError::new(call)(io::Error::from_raw_os_error(errno)).to_string()
    }

    #[test]
    fn a_refused_ring_says_what_failed_and_what_to_change() {
        let table = [
            (libc::EPERM, "Operation not permitted", "kernel.io_uring_disabled"),
            (libc::EPERM, "Operation not permitted", "seccomp"),
            (libc::EACCES, "Permission denied", "security module"),
            (libc::ENOSYS, "Function not implemented", "6.1 or newer"),
            (libc::EINVAL, "Invalid argument", "6.1 or newer"),
            (libc::ENOMEM, "Cannot allocate memory", "LimitMEMLOCK="),
            (libc::EMFILE, "Too many open files", "LimitNOFILE="),
            (libc::ENFILE, "Too many open files in system", "LimitNOFILE="),
            (libc::EIO, "Input/output error", "io_uring_setup(2)"),
        ];
        for (errno, found, advice) in table {
            let message = message("io_uring_setup", errno);
            let (problem, hint) = message.split_once("\n\nhint: ").expect("a hint on its own line");
            assert!(problem.contains("io_uring_setup failed: "), "{message}");
            assert!(problem.contains(found), "{message}");
            assert!(hint.contains(advice), "{message}");
            assert!(!hint.contains('\n'), "{message}");
        }
    }

    #[test]
    fn a_refused_registration_is_named_too() {
        let call = "io_uring_register(IORING_REGISTER_PBUF_RING)";
        assert!(message(call, libc::ENOMEM).contains(&format!("{call} failed: ")));
    }

    #[test]
    fn a_tag_keeps_its_kind_and_its_index() {
        for kind in Kind::ALL {
            for index in [0, 1, u32::MAX] {
                assert_eq!(Kind::read(kind.tag(index)), (kind, index));
            }
        }
    }
}
