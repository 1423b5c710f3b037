//! The threads that run WSGI applications, and the queues between them and the ring.
//!
//! One lock guards both queues. A thread visits it once for each request: it leaves an answer and
//! takes the next job, which it looks for with the GIL held, so that no job waits in the hands of a
//! thread that waits for the GIL. Nobody waits for the GIL while holding the lock.
//!
//! Idle threads are kept in a stack: the one that worked last works next, and those at the bottom
//! leave when the idle time is over. The ring makes more when a job has waited for too long. Each
//! thread keeps its Python thread state for life, so that `threading.local` works.

#![allow(unsafe_code, reason = "an eventfd, and Python's memory read without the GIL")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use granian_uring::proactor::{FileRange, Payload};
use granian_uring::server::Request;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::Gateway;
use super::exchange::Exchange;
use super::response::{Answering, Head, serve};

/// A piece of at least this many bytes is sent from where it is. Below, a copy is cheaper than the
/// way back that the object has to take, to be released where the GIL is held.
const SHARED_PIECE_BYTES: usize = 64 * 1024;
/// Python code may recurse in C: as much as the main thread has.
const STACK_BYTES: usize = 8 * 1024 * 1024;

/// A request for the application.
pub struct Job {
    pub request: Request,
    pub exchange: Arc<Exchange>,
    /// When it was queued.
    pub since: Instant,
}

/// What a thread has for the ring.
pub enum Message {
    Answer(Answer),
    /// The application wants more of the body.
    Read(Arc<Exchange>),
    /// The application is done, and its answer is not complete.
    GiveUp(Arc<Exchange>),
}

/// A piece of an answer, the whole of it if it has a head and is the last.
pub struct Answer {
    pub exchange: Arc<Exchange>,
    pub head: Option<Head>,
    pub piece: Piece,
    pub last: bool,
}

/// Bytes of an answer's body.
pub enum Piece {
    Copied(Vec<u8>),
    Shared(Returned),
    /// The whole body.
    File(FileRange),
}

impl Piece {
    pub fn new(pool: &Arc<Pool>, data: &Bound<'_, PyBytes>) -> Self {
        let bytes = data.as_bytes();
        if bytes.len() < SHARED_PIECE_BYTES {
            return Self::Copied(bytes.to_vec());
        }
        let (start, length) = (bytes.as_ptr(), bytes.len());
        let object = Some(data.clone().unbind());
        Self::Shared(Returned { start, length, object, pool: pool.clone() })
    }
}

/// A bytes object that the kernel reads, and that goes back to a thread with the GIL after that.
pub struct Returned {
    start: *const u8,
    length: usize,
    /// `None` only within `drop`.
    object: Option<Py<PyBytes>>,
    pool: Arc<Pool>,
}

// SAFETY: the memory of a bytes object is neither moved nor changed while there is a reference to
// it, and `object` is one until the drop.
unsafe impl Payload for Returned {
    fn as_slice(&self) -> &[u8] {
        // SAFETY: as above; start and length are those of the object.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

// SAFETY: what it points to belongs to no thread: see above.
unsafe impl Send for Returned {}

impl Drop for Returned {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            self.pool.return_object(object);
        }
    }
}

/// What the lock guards.
#[derive(Default)]
struct Queues {
    jobs: std::collections::VecDeque<Job>,
    messages: Vec<Message>,
    /// Objects to release where the GIL is held.
    returned: Vec<Py<PyBytes>>,
    /// What applications returned, and what was sent of it: to be closed by a thread between two
    /// requests.
    closings: Vec<Answering>,
    /// Threads without work, the one that worked last on top.
    idle: Vec<Thread>,
    threads: usize,
    /// Threads that have not begun to work.
    starting: usize,
    /// Threads made so far, for their names.
    made: usize,
    /// The ring waits in the kernel, and would not see a message.
    ring_sleeps: bool,
    /// The ring wakes by itself in a moment: it looks after the jobs that nobody has taken.
    ring_looks: bool,
    /// Nothing comes or goes any more.
    closed: bool,
}

/// What the ring found in a visit.
pub struct Visit {
    /// When the oldest job was queued that nobody has taken yet.
    pub oldest: Option<Instant>,
}

/// Threads and queues.
pub struct Pool {
    gateway: Gateway,
    max_threads: usize,
    idle_time: Duration,
    queues: Mutex<Queues>,
    /// A thread has left.
    left: Condvar,
    /// An eventfd that wakes the ring.
    bell: File,
    /// This is a forked child: there are no threads here.
    abandoned: AtomicBool,
}

impl Pool {
    /// A pool of at most `max_threads`, none of which runs yet.
    pub fn new(gateway: Gateway, max_threads: usize, idle_time: Duration) -> io::Result<Arc<Self>> {
        // SAFETY: no pointers; the result is checked.
        let bell = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if bell < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Arc::new(Self {
            gateway,
            max_threads,
            idle_time,
            queues: Mutex::default(),
            left: Condvar::new(),
            // SAFETY: the fd was just made, and nobody else has it.
            bell: unsafe { File::from_raw_fd(bell) },
            abandoned: AtomicBool::new(false),
        }))
    }

    /// Readable when the ring is wanted.
    pub fn bell(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    /// The ring has heard the bell.
    pub fn silence(&self) {
        let _ = (&self.bell).read(&mut [0; 8]);
    }

    fn ring(&self) {
        // It fails only when it rings already.
        let _ = (&self.bell).write(&1_u64.to_ne_bytes());
    }

    /// Leave a message for the ring, and release what it gave back: with the GIL, like
    /// [`Pool::exchange`].
    pub fn push(&self, message: Message) {
        if self.abandoned.load(Ordering::Relaxed) {
            // The lock may be held for ever by a thread that is not here.
            leave_child();
        }
        let mut queues = self.queues();
        if queues.closed {
            drop(queues);
            let (Message::Answer(Answer { exchange, .. })
            | Message::Read(exchange)
            | Message::GiveUp(exchange)) = &message;
            return exchange.lose();
        }
        queues.messages.push(message);
        let wake = std::mem::take(&mut queues.ring_sleeps);
        let returned = std::mem::take(&mut queues.returned);
        drop(queues);
        drop(returned);
        if wake {
            self.ring();
        }
    }

    /// Leave an answer, and take the next job. The answer need not wake a ring that looks by itself
    /// in a moment, as long as there is more to do here.
    fn exchange(&self, py: Python<'_>, answer: Option<Message>) -> Option<Job> {
        let mut queues = self.queues();
        let job = queues.jobs.pop_front();
        if !queues.closed {
            queues.messages.extend(answer);
        }
        let wake = !queues.messages.is_empty()
            && queues.ring_sleeps
            && !(queues.ring_looks && job.is_some());
        if wake {
            queues.ring_sleeps = false;
        }
        let returned = std::mem::take(&mut queues.returned);
        let closings = std::mem::take(&mut queues.closings);
        drop(queues);
        drop(returned);
        if wake {
            self.ring();
        }
        for answering in closings {
            answering.close(py, &self.gateway);
        }
        job
    }

    /// Wait for work, without the GIL. False when this thread shall leave.
    fn rest(&self) -> bool {
        let mut queues = self.queues();
        let quiet = queues.jobs.is_empty() && queues.returned.is_empty();
        if !quiet || !queues.closings.is_empty() {
            return true;
        }
        let myself = thread::current();
        queues.idle.push(myself.clone());
        let deadline = Instant::now() + self.idle_time;
        loop {
            if queues.closed {
                return false;
            }
            drop(queues);
            thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
            queues = self.queues();
            let Some(place) = queues.idle.iter().position(|idle| idle.id() == myself.id()) else {
                return true;
            };
            // The last one stays: the next request need not wait for a thread to start.
            if Instant::now() >= deadline && queues.threads > 1 {
                queues.idle.remove(place);
                return false;
            }
            if Instant::now() >= deadline {
                queues.idle.remove(place);
                return true;
            }
        }
    }

    /// The ring: hand over `jobs` and take the `messages`. The ring is awake from here on.
    pub fn visit(self: &Arc<Self>, jobs: &mut Vec<Job>, messages: &mut Vec<Message>) -> Visit {
        let mut queues = self.queues();
        queues.ring_sleeps = false;
        messages.append(&mut queues.messages);
        let some = !jobs.is_empty();
        queues.jobs.extend(jobs.drain(..));
        let oldest = queues.jobs.front().map(|job| job.since);
        let worker = if some { queues.idle.pop() } else { None };
        let first = some && queues.threads == 0;
        drop(queues);
        if let Some(worker) = worker {
            worker.unpark();
        }
        if first {
            self.grow(1, true);
        }
        Visit { oldest }
    }

    /// The ring: wake `count` idle threads, and start the rest if there are not as many: but not
    /// while others are about to begin.
    pub fn grow(self: &Arc<Self>, count: usize, may_start: bool) {
        let mut queues = self.queues();
        // On a busy machine a thread may not get to its one job in time: another would not either.
        let count = count.min(queues.jobs.len());
        let kept = queues.idle.len().saturating_sub(count);
        let woken = queues.idle.split_off(kept);
        let may_start = may_start && queues.starting == 0 && !queues.closed;
        let wanted = (count - woken.len()).min(self.max_threads - queues.threads);
        let wanted = if may_start { wanted } else { 0 };
        queues.threads += wanted;
        queues.starting += wanted;
        let made = queues.made;
        queues.made += wanted;
        drop(queues);
        woken.iter().for_each(Thread::unpark);
        for number in 0..wanted {
            let pool = self.clone();
            let builder = thread::Builder::new().name(format!("wsgi-{}", made + number + 1));
            if builder.stack_size(STACK_BYTES).spawn(move || pool.work()).is_err() {
                // The machine is short of something; the jobs wait, and it is tried again.
                self.begun(wanted - number);
                self.leave(wanted - number);
                return;
            }
        }
    }

    /// The ring goes to sleep, for a moment only if it `looks` after jobs. False when there are
    /// messages, so that it must not.
    pub fn lie_down(&self, looks: bool) -> bool {
        let mut queues = self.queues();
        queues.ring_sleeps = queues.messages.is_empty();
        queues.ring_looks = looks;
        queues.ring_sleeps
    }

    /// Nothing comes or goes any more: threads leave when they are done with what they do.
    pub fn close(&self) {
        let mut queues = self.queues();
        queues.closed = true;
        let idle = std::mem::take(&mut queues.idle);
        let (jobs, messages) =
            (std::mem::take(&mut queues.jobs), std::mem::take(&mut queues.messages));
        drop(queues);
        for message in &messages {
            if let Message::Answer(Answer { exchange, .. }) | Message::Read(exchange) = message {
                exchange.lose();
            }
        }
        drop((jobs, messages));
        idle.iter().for_each(Thread::unpark);
    }

    /// Wait, without the GIL, until all threads have left.
    pub fn join(&self) {
        if self.abandoned.load(Ordering::Relaxed) {
            return;
        }
        let some = |queues: &mut Queues| queues.threads > 0;
        drop(self.left.wait_while(self.queues(), some).unwrap_or_else(PoisonError::into_inner));
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.queues().threads
    }

    /// In a forked child, where the threads are not.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    fn return_object(&self, object: Py<PyBytes>) {
        self.leave_to_a_thread(|queues| queues.returned.push(object));
    }

    /// The ring: what was returned is sent, or will not be.
    pub fn close_later(&self, answering: Answering) {
        self.leave_to_a_thread(|queues| queues.closings.push(answering));
    }

    /// Close what no thread has closed, when the ring is gone and none may come by any more.
    pub fn close_rest(&self, py: Python<'_>) {
        let closings = std::mem::take(&mut self.queues().closings);
        for answering in closings {
            answering.close(py, &self.gateway);
        }
    }

    fn leave_to_a_thread(&self, leave: impl FnOnce(&mut Queues)) {
        let mut queues = self.queues();
        leave(&mut queues);
        let worker = queues.idle.pop();
        drop(queues);
        if let Some(worker) = worker {
            worker.unpark();
        }
    }

    fn begun(&self, count: usize) {
        self.queues().starting -= count;
    }

    fn leave(&self, count: usize) {
        self.queues().threads -= count;
        self.left.notify_all();
    }

    /// The life of a thread.
    fn work(self: Arc<Self>) {
        Python::attach(|py| {
            name_thread(py);
            self.begun(1);
            let mut answer = None;
            loop {
                match self.exchange(py, answer.take()) {
                    Some(job) => {
                        answer = serve(py, &self.gateway, &job.request, &job.exchange);
                        if self.abandoned.load(Ordering::Relaxed) {
                            leave_child();
                        }
                    }
                    None if py.detach(|| self.rest()) => {}
                    None => break,
                }
            }
        });
        self.leave(1);
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Give the thread its name in Python too, where logs and profilers look for it.
fn name_thread(py: Python<'_>) {
    let current = thread::current();
    let name = current.name().unwrap_or("wsgi");
    let named = py
        .import("threading")
        .and_then(|threading| threading.call_method0("current_thread"))
        .and_then(|thread| thread.setattr("name", name));
    if let Err(error) = named {
        error.write_unraisable(py, None);
    }
}

/// The application forked, and its child came back from the call: the rest of this thread, and its
/// client, are the parent's.
fn leave_child() -> ! {
    // SAFETY: it does not return.
    unsafe { libc::_exit(0) }
}
