//! What is done beside a runtime on epoll: accepting, in threads, and watches, in an epoll of our own.
//!
//! accept(2) takes no flag that would keep it from waiting, and `O_NONBLOCK` belongs to the socket
//! that systemd and every generation share: it is left alone. So every listener has a thread that
//! waits in accept(2), only while an accept is armed. Several processes that wait so are woken one
//! for each connection, as with a ring.
//!
//! To cancel is to interrupt that thread by a signal whose handler does nothing. A signal that comes
//! just before accept(2) is entered is lost, so a timer repeats it until the thread has seen that it
//! is to stop. The kernel prefers a connection to a signal, so that nobody is lost.
#![allow(unsafe_code, reason = "accepts, polls, and sends signals by system calls")]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{SockAddr, SockAddrStorage};

use super::Beside;
use super::ring::fds_of;
use super::{cancelled, fd_of};
use crate::proactor::sockets::Listening;
use crate::proactor::uring::new_eventfd;
use crate::proactor::{Completion, ListenerId, Operation, StreamId};

/// Each has a thread.
const LISTENERS: usize = 64;
/// Ignored where nobody handles it, and used by hardly anybody.
const SIGNAL: libc::c_int = libc::SIGURG;
/// How often it is repeated.
const REPEAT: Duration = Duration::from_millis(1);
/// Events that one look takes at the most.
const EVENTS: u8 = 128;
/// How often an fd is to be readable with the bell, and silent without, to be taken for the crate's.
const PROOFS: usize = 4;
/// A thread that only waits needs no more.
const STACK_BYTES: usize = 64 * 1024;

/// What an event of the epoll is about, in the upper half of its data; an fd in the lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bell,
    HangUp,
    Watch,
    /// Not for us: see [`Beside::flag`].
    Flag,
}

impl Kind {
    fn data(self, fd: RawFd) -> u64 {
        (self as u64) << 32 | u64::from(fd.cast_unsigned())
    }

    fn read(data: u64) -> (Self, RawFd) {
        let kind = [Self::Bell, Self::HangUp, Self::Watch, Self::Flag][(data >> 32) as usize];
        #[allow(clippy::cast_possible_truncation, reason = "the lower half is the fd")]
        let fd = data as u32;
        (kind, fd.cast_signed())
    }
}

/// See the head of this file.
pub struct EpollBeside {
    epoll: OwnedFd,
    acceptors: Vec<Acceptor>,
    /// What the acceptors have to tell.
    news: Arc<News>,
    ready: VecDeque<Completion>,
    /// By fd: the hang-up watch is armed.
    watching: Vec<bool>,
    /// By fd: accepted and not closed.
    open: Vec<bool>,
}

impl EpollBeside {
    pub(super) fn new() -> io::Result<Self> {
        install_handler()?;
        // SAFETY: no memory is involved; the result is checked by `owned`.
        let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        let beside = Self {
            epoll,
            acceptors: Vec::new(),
            news: Arc::new(News { ended: Mutex::default(), bell: new_eventfd()? }),
            ready: VecDeque::new(),
            watching: Vec::new(),
            open: Vec::new(),
        };
        let bell = beside.news.bell.as_raw_fd();
        beside.control(libc::EPOLL_CTL_ADD, bell, libc::EPOLLIN, Kind::Bell)?;
        Ok(beside)
    }

    pub(super) fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// The epoll that watches this one's, through a duplicate: the crate's, which does not tell its
    /// fd. It is known by what it does, since other threads open and close epolls meanwhile: it
    /// is readable while the bell rings, and at no other time.
    pub(super) fn watched_by(&self, duplicate: RawFd) -> io::Result<RawFd> {
        let mut found = fds_of("eventpoll")?;
        found.retain(|fd| *fd != self.fd() && *fd != duplicate);
        for _ in 0..PROOFS {
            self.news.ring();
            found.retain(|fd| is_readable(*fd));
            self.news.silence();
            found.retain(|fd| !is_readable(*fd));
        }
        match (found.pop_first(), found.pop_first()) {
            (Some(fd), None) => Ok(fd),
            _ => Err(io::Error::other("no single [eventpoll] of the runtime in /proc/self/fd")),
        }
    }

    fn control(
        &self,
        what: libc::c_int,
        fd: RawFd,
        events: libc::c_int,
        kind: Kind,
    ) -> io::Result<()> {
        let events = events.cast_unsigned();
        let mut event = libc::epoll_event { events, u64: kind.data(fd) };
        // SAFETY: one valid event that outlives the call.
        match unsafe { libc::epoll_ctl(self.fd(), what, fd, &raw mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Tell once. An fd that was closed has left by itself, and its number may have come again.
    fn arm(&self, fd: RawFd, events: libc::c_int, kind: Kind) -> io::Result<()> {
        let events = events | libc::EPOLLONESHOT;
        match self.control(libc::EPOLL_CTL_MOD, fd, events, kind) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                self.control(libc::EPOLL_CTL_ADD, fd, events, kind)
            }
            result => result,
        }
    }

    fn watches(&mut self, stream: StreamId) -> &mut bool {
        let index = stream.index();
        if self.watching.len() <= index {
            self.watching.resize(index + 1, false);
        }
        &mut self.watching[index]
    }

    /// End the hang-up watch, if there is one.
    fn end_hang_up(&mut self, stream: StreamId, result: io::Result<()>) {
        if mem::take(self.watches(stream)) {
            // It fails when the fd was never added.
            let _ = self.control(libc::EPOLL_CTL_DEL, fd_of(stream), 0, Kind::HangUp);
            self.ready.push_back(Completion::HungUp { stream, result });
        }
    }

    fn accepted(&mut self, listener: u32, result: io::Result<(OwnedFd, SockAddr)>) {
        let acceptor = &mut self.acceptors[listener as usize];
        acceptor.armed = false;
        acceptor.orders.end_cancellation();
        let result = result.map(|(fd, peer)| {
            use std::os::fd::IntoRawFd;
            let stream = StreamId(fd.into_raw_fd().cast_unsigned());
            if self.open.len() <= stream.index() {
                self.open.resize(stream.index() + 1, false);
            }
            self.open[stream.index()] = true;
            acceptor.listening.describe(stream, &peer)
        });
        self.ready.push_back(Completion::Accepted { listener: ListenerId(listener), result });
    }

    fn begin_accept(&mut self, listener: ListenerId, wish: Wish) {
        let acceptor = &mut self.acceptors[listener.0 as usize];
        assert!(!acceptor.armed, "a listener has one accept at a time");
        acceptor.armed = true;
        acceptor.orders.give(wish);
    }
}

impl Beside for EpollBeside {
    fn register_listener(&mut self, listener: OwnedFd) -> io::Result<ListenerId> {
        let index = self.acceptors.len();
        if index >= LISTENERS {
            return Err(io::Error::other(format!("more than {LISTENERS} listeners")));
        }
        let id = u32::try_from(index).expect("there are few listeners");
        self.acceptors.push(Acceptor::start(id, Listening::new(listener)?, &self.news)?);
        Ok(ListenerId(id))
    }

    fn accept(&mut self, listener: ListenerId) {
        self.begin_accept(listener, Wish::Accept);
    }

    fn try_accept(&mut self, listener: ListenerId) {
        self.begin_accept(listener, Wish::Try);
    }

    fn watch_hang_up(&mut self, stream: StreamId) {
        let before = mem::replace(self.watches(stream), true);
        assert!(!before, "a stream has one hang-up watch at a time");
        // No event is asked for: EPOLLHUP and EPOLLERR are always told, a half-close is not.
        if let Err(error) = self.arm(fd_of(stream), 0, Kind::HangUp) {
            self.end_hang_up(stream, Err(error));
        }
    }

    fn watch(&mut self, fd: RawFd) {
        if self.arm(fd, libc::EPOLLIN, Kind::Watch).is_err() {
            // A regular file, which epoll refuses, is always readable; who reads from what is no fd
            // learns that.
            self.ready.push_back(Completion::Readable { fd });
        }
    }

    fn cancel(&mut self, operation: Operation) {
        match operation {
            Operation::Accept(listener) => {
                let acceptor = &self.acceptors[listener.0 as usize];
                if acceptor.armed {
                    acceptor.interrupt();
                }
            }
            Operation::HangUp(stream) => self.end_hang_up(stream, Err(cancelled())),
            Operation::Receive(_) | Operation::Send(_) => {}
        }
    }

    fn close(&mut self, stream: StreamId) {
        let watched = *self.watches(stream);
        assert!(!watched, "a stream is closed when nothing is under way on it");
        self.open[stream.index()] = false;
        // SAFETY: the accept made this fd for us, and this is its only close.
        drop(unsafe { OwnedFd::from_raw_fd(fd_of(stream)) });
        self.ready.push_back(Completion::Closed { stream });
    }

    fn collect(&mut self, completions: &mut Vec<Completion>) -> io::Result<bool> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS as usize];
        // SAFETY: the kernel writes at most that many events, in this call only.
        let count = unsafe { libc::epoll_wait(self.fd(), events.as_mut_ptr(), EVENTS.into(), 0) };
        // An interrupted look finds nothing, and there is another one.
        let count = usize::try_from(count).unwrap_or(0);
        for event in &events[..count] {
            match Kind::read(event.u64) {
                (Kind::Bell, _) => {
                    for (listener, result) in self.news.take() {
                        self.accepted(listener, result);
                    }
                }
                (Kind::HangUp, fd) => self.end_hang_up(StreamId(fd.cast_unsigned()), Ok(())),
                (Kind::Watch, fd) => self.ready.push_back(Completion::Readable { fd }),
                (Kind::Flag, _) => {}
            }
        }
        completions.extend(self.ready.drain(..));
        Ok(count == usize::from(EVENTS))
    }

    fn flag(&self) -> io::Result<Option<File>> {
        let flag = new_eventfd()?;
        self.control(libc::EPOLL_CTL_ADD, flag.as_raw_fd(), libc::EPOLLIN, Kind::Flag)?;
        Ok(Some(flag))
    }
}

impl Drop for EpollBeside {
    fn drop(&mut self) {
        for acceptor in &mut self.acceptors {
            acceptor.stop();
        }
        // Who was accepted meanwhile has the fd closed with the news.
        for (fd, _) in (0..).zip(&self.open).filter(|(_, open)| **open) {
            // SAFETY: the accept made this fd for us, and no close of it was asked for.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}

type Taken = (u32, io::Result<(OwnedFd, SockAddr)>);

/// Ends of accepts, from their threads.
struct News {
    ended: Mutex<Vec<Taken>>,
    bell: File,
}

impl News {
    fn tell(&self, taken: Taken) {
        lock(&self.ended).push(taken);
        self.ring();
    }

    fn ring(&self) {
        // It fails only when the bell has been rung 2^64 times.
        let _ = (&self.bell).write(&1_u64.to_ne_bytes());
    }

    fn silence(&self) {
        // It fails when nobody has rung.
        let _ = (&self.bell).read(&mut [0; 8]);
    }

    fn take(&self) -> Vec<Taken> {
        self.silence();
        mem::take(&mut *lock(&self.ended))
    }
}

/// What a thread is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wish {
    #[default]
    Nothing,
    /// Take the next connection, whenever it comes.
    Accept,
    /// Take one that waits already.
    Try,
    Leave,
}

#[derive(Default)]
struct Orders {
    wish: Mutex<Wish>,
    given: Condvar,
    /// The accept that is under way is to end.
    cancelled: Mutex<bool>,
    /// Sends the signal to the thread, once it has made it.
    timer: Mutex<Option<Timer>>,
}

impl Orders {
    fn give(&self, wish: Wish) {
        *lock(&self.wish) = wish;
        self.given.notify_one();
    }

    fn await_wish(&self) -> Wish {
        let wish = lock(&self.wish);
        let mut wish = self
            .given
            .wait_while(wish, |wish| *wish == Wish::Nothing)
            .unwrap_or_else(PoisonError::into_inner);
        mem::take(&mut *wish)
    }

    /// When an accept has ended, however it did: the next one is not cancelled.
    fn end_cancellation(&self) {
        if mem::take(&mut *lock(&self.cancelled)) {
            self.repeat_signal(false);
        }
    }

    fn repeat_signal(&self, repeat: bool) {
        if let Some(timer) = lock(&self.timer).as_ref() {
            timer.set(if repeat { REPEAT } else { Duration::ZERO });
        }
    }
}

/// The side of the proactor.
struct Acceptor {
    listening: Arc<Listening>,
    orders: Arc<Orders>,
    armed: bool,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    fn start(id: u32, listening: Listening, news: &Arc<News>) -> io::Result<Self> {
        let listening = Arc::new(listening);
        let orders = Arc::<Orders>::default();
        let mut side = AcceptorThread {
            id,
            listening: Arc::clone(&listening),
            orders: Arc::clone(&orders),
            news: Arc::clone(news),
        };
        let thread = thread::Builder::new()
            .name("accept".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || side.run())?;
        Ok(Self { listening, orders, armed: false, thread: Some(thread) })
    }

    fn interrupt(&self) {
        let mut cancelled = lock(&self.orders.cancelled);
        *cancelled = true;
        self.orders.repeat_signal(true);
    }

    fn stop(&mut self) {
        if self.armed {
            self.interrupt();
        }
        // An accept under way ends first, and the wish is taken after it.
        self.orders.give(Wish::Leave);
        if let Some(thread) = self.thread.take() {
            // It does not panic.
            let _ = thread.join();
        }
    }
}

/// The side of the thread.
struct AcceptorThread {
    id: u32,
    listening: Arc<Listening>,
    orders: Arc<Orders>,
    news: Arc<News>,
}

impl AcceptorThread {
    fn run(&mut self) {
        let ready = block_other_signals().and_then(|()| Timer::for_this_thread());
        let refused = ready.map(|timer| *lock(&self.orders.timer) = Some(timer)).err();
        loop {
            let wish = self.orders.await_wish();
            if wish == Wish::Leave {
                break;
            }
            let result = match &refused {
                // Without its timer an accept could not be cancelled.
                Some(error) => Err(io::Error::new(error.kind(), error.to_string())),
                None if wish == Wish::Try => self.take_who_waits(),
                None => self.accept(),
            };
            self.news.tell((self.id, result));
        }
    }

    fn accept(&self) -> io::Result<(OwnedFd, SockAddr)> {
        loop {
            if *lock(&self.orders.cancelled) {
                return Err(cancelled());
            }
            match accept(self.listening.as_raw_fd()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Somebody has made the listener one that does not wait.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.await_client(),
                result => return result,
            }
        }
    }

    /// Until somebody may wait, or a signal has come.
    fn await_client(&self) {
        let fd = self.listening.as_raw_fd();
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd that outlives the call.
        unsafe { libc::poll(&raw mut poll, 1, -1) };
    }

    /// Another process may be faster between the look and the accept, which then is interrupted.
    fn take_who_waits(&self) -> io::Result<(OwnedFd, SockAddr)> {
        self.orders.repeat_signal(true);
        let result = loop {
            if !self.listening.has_clients() {
                break Err(io::ErrorKind::WouldBlock.into());
            }
            match accept(self.listening.as_raw_fd()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        self.orders.repeat_signal(false);
        result
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// False also for an fd that another thread has closed.
fn is_readable(fd: RawFd) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd that outlives the call, which does not wait.
    unsafe { libc::poll(&raw mut poll, 1, 0) };
    poll.revents & libc::POLLIN != 0
}

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a system call has just made it, for the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// accept4(2), of a socket that does not wait: epoll wants that.
fn accept(listener: RawFd) -> io::Result<(OwnedFd, SockAddr)> {
    let mut storage = SockAddrStorage::zeroed();
    let mut length = storage.size_of();
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the kernel writes at most `length` bytes of an address, in this call only.
    let fd = unsafe { libc::accept4(listener, (&raw mut storage).cast(), &raw mut length, flags) };
    let fd = owned(fd)?;
    // SAFETY: the kernel wrote `length` bytes of a socket address into the storage.
    Ok((fd, unsafe { SockAddr::new(storage, length) }))
}

extern "C" fn do_nothing(_: libc::c_int) {}

/// Give the signal a handler, unless somebody else did: any handler interrupts, if the system calls
/// that it interrupts are not begun again.
fn install_handler() -> io::Result<()> {
    // SAFETY: valid structures that outlive the calls; all zeros is a valid one. The handler does
    // nothing, which is safe whenever it runs.
    unsafe {
        let mut present: libc::sigaction = mem::zeroed();
        if libc::sigaction(SIGNAL, ptr::null(), &raw mut present) != 0 {
            return Err(io::Error::last_os_error());
        }
        if present.sa_sigaction != libc::SIG_DFL && present.sa_sigaction != libc::SIG_IGN {
            return Ok(());
        }
        let mut ours: libc::sigaction = mem::zeroed();
        ours.sa_sigaction = do_nothing as extern "C" fn(libc::c_int) as usize;
        match libc::sigaction(SIGNAL, &raw const ours, ptr::null_mut()) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Signals of the process are for its other threads: they interrupt their waits.
fn block_other_signals() -> io::Result<()> {
    // SAFETY: a valid set that outlives the call.
    let result = unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::sigdelset(&raw mut set, SIGNAL);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

/// Sends the signal to one thread, `timer_create(2)`.
struct Timer(libc::timer_t);

// SAFETY: the kernel's number for the timer, which any thread of the process may use.
unsafe impl Send for Timer {}

impl Timer {
    fn for_this_thread() -> io::Result<Self> {
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: valid structures that outlive the call; all zeros is a valid `sigevent`.
        let result = unsafe {
            let mut event: libc::sigevent = mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = SIGNAL;
            event.sigev_notify_thread_id = libc::gettid();
            libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer)
        };
        if result == 0 { Ok(Self(timer)) } else { Err(io::Error::last_os_error()) }
    }

    /// Every `interval` from now on; zero: no more.
    fn set(&self, interval: Duration) {
        let interval = libc::timespec {
            tv_sec: 0,
            tv_nsec: libc::c_long::from(interval.subsec_nanos().cast_signed()),
        };
        let times = libc::itimerspec { it_interval: interval, it_value: interval };
        // SAFETY: a timer that lives until the drop, and a valid structure. It fails for no timer
        // of ours.
        unsafe { libc::timer_settime(self.0, 0, &raw const times, ptr::null_mut()) };
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: made by `for_this_thread`, and used by nobody any more.
        unsafe { libc::timer_delete(self.0) };
    }
}
