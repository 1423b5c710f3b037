//! Where the ring and asyncio meet: one turn of the server inside `select()`.
//!
//! `asyncio.SelectorEventLoop(RingSelector(worker))` calls `select(timeout)` once an iteration. The
//! selector of Python's own fds is an epoll instance, whose fd the ring polls; a turn waits for
//! both worlds at once. What came for the application waits in the server: `select` only adds the
//! key of a permanent reader to its answer, and asyncio calls `Worker.dispatch` in its ready phase,
//! behind all other events. So no code of the application runs inside `select`, where it could
//! break what asyncio has collected already.
//!
//! Who holds the GIL: we, everywhere, except inside `Server::wait` when it is expected to block.
//! That part touches no Python object. Completions are delivered with the GIL held, because what a
//! finished send gives back may be a Python object. The server stays borrowed while the GIL is
//! released; other threads cannot get at it (`ThreadBound`).
//!
//! Every early return of the wait that may be a signal's goes back to Python, whose handlers wait
//! for it: the kernel hides EINTR when entries were submitted in the same call.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use granian_uring::proactor::runtime::Runtime;
use granian_uring::server::Server;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::sockets::Notifier;
use crate::thread_bound::SameThread;
use crate::worker::{State, Worker};
use crate::wsgi;

/// A wait longer than this is one without an end: asyncio's timeouts can be any number.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 3600);

/// The selector's side of a worker.
pub struct Selector {
    /// The epoll instance of Python's fds, once it is known.
    pub epoll: Option<RawFd>,
    /// The ring polls the epoll fd.
    armed: bool,
    /// Python's own fds are ready, and Python was not told yet.
    foreign: bool,
    watchdog: Option<Watchdog>,
}

/// Signs of life for the service manager: from the turn itself, so that a hung loop is silent.
struct Watchdog {
    notifier: Py<Notifier>,
    interval: Duration,
    next: Instant,
}

/// What one turn found for Python.
struct Turn {
    /// Python's own fds are ready.
    foreign: bool,
    /// The server has events.
    events: bool,
}

impl Selector {
    pub fn new() -> Self {
        Self { epoll: None, armed: false, foreign: false, watchdog: None }
    }

    /// The first ping is due at once, then one each half period.
    pub fn start_watchdog(&mut self, notifier: Py<Notifier>, period: Duration) {
        self.watchdog = Some(Watchdog { notifier, interval: period / 2, next: Instant::now() });
    }

    /// When the watchdog wants its next ping.
    pub fn deadline(&self) -> Option<Instant> {
        self.watchdog.as_ref().map(|watchdog| watchdog.next)
    }

    /// Before each wait. Returns how long it may last at the most.
    pub fn before_wait(
        &mut self,
        server: &mut Server<Runtime>,
        deadline: Option<Instant>,
    ) -> Option<Instant> {
        // What is ready already would end the wait at once, and again and again until Python is told.
        if let (Some(epoll), false, false) = (self.epoll, self.armed, self.foreign) {
            server.watch(epoll);
            self.armed = true;
        }
        server.flush();
        let Some(watchdog) = &mut self.watchdog else { return deadline };
        let now = Instant::now();
        if now >= watchdog.next {
            watchdog.notifier.get().send_watchdog();
            watchdog.next = now + watchdog.interval;
        }
        Some(deadline.map_or(watchdog.next, |deadline| deadline.min(watchdog.next)))
    }

    /// After each wait. `wsgi` has an fd of its own in the ring.
    pub fn after_wait(&mut self, server: &mut Server<Runtime>, mut wsgi: Option<&mut wsgi::Ring>) {
        server.deliver();
        while let Some(fd) = server.take_watched() {
            if !wsgi.as_mut().is_some_and(|ring| ring.hears(fd)) {
                self.armed = false;
                self.foreign = true;
            }
        }
    }
}

/// `RingSelector.select`: turns until there is something for Python, the time is up, or a signal
/// may have come.
pub fn select<'py>(
    worker: &Bound<'py, Worker>,
    timeout: Option<f64>,
) -> PyResult<Bound<'py, PyList>> {
    let py = worker.py();
    let worker = worker.get();
    let deadline = timeout.and_then(deadline_after);
    let (threaded, waits) = worker
        .with(|state| (state.wsgi.is_some(), state.selector.foreign || !state.held.is_empty()))?;
    let found = loop {
        let (completions, turn) = if threaded {
            turns_without_python(py, worker, deadline)?
        } else {
            turn(py, worker, if waits { Some(Instant::now()) } else { deadline })?
        };
        py.check_signals()?;
        let due = deadline.is_some_and(|deadline| deadline <= Instant::now());
        if turn.foreign || turn.events || due || completions == 0 {
            break turn;
        }
    };
    let ring_loop = worker.ring_loop(py)?;
    let ready = if found.foreign {
        ring_loop.foreign_select.bind(py).call1((0,))?.cast_into::<PyList>()?
    } else {
        PyList::empty(py)
    };
    if found.events {
        // Last, so that whoever waits for something else is called first.
        ready.append(ring_loop.dispatch_event.bind(py))?;
    }
    Ok(ready)
}

fn turn(py: Python<'_>, worker: &Worker, deadline: Option<Instant>) -> PyResult<(usize, Turn)> {
    worker.with(|state| {
        let deadline = state.selector.before_wait(&mut state.server, deadline);
        let server = &mut state.server;
        let completions = if server.would_block(deadline) {
            let server = SameThread(server);
            py.detach(|| server.into_inner().wait(deadline))
        } else {
            server.wait(deadline)
        };
        let completions = completions.map_err(PyOSError::new_err)?;
        state.selector.after_wait(&mut state.server, None);
        let foreign = std::mem::take(&mut state.selector.foreign);
        Ok((completions, Turn { foreign, events: state.has_events() }))
    })?
}

/// A turn while the application waits within its call, on this thread. Whatever it brings is held
/// back until `dispatch` comes to it.
pub fn turn_within(py: Python<'_>, worker: &Worker) -> PyResult<()> {
    worker.with(|state| {
        while let Some(event) = state.server.next_event() {
            state.held.push_back(event);
        }
    })?;
    let (_, turn) = turn(py, worker, None)?;
    worker.with(|state| state.selector.foreign |= turn.foreign)?;
    py.check_signals()
}

/// Turns with WSGI threads beside the ring: requests and answers come and go without Python, until
/// asyncio has something to do. A signal is that too: Python writes its number to the fd that
/// asyncio gave to `signal.set_wakeup_fd`, whichever thread takes it.
fn turns_without_python(
    py: Python<'_>,
    worker: &Worker,
    deadline: Option<Instant>,
) -> PyResult<(usize, Turn)> {
    let result = worker.with(|state| {
        let state = SameThread(state);
        py.detach(|| {
            let State { server, selector, wsgi, .. } = state.into_inner();
            let Some(ring) = wsgi else { return Ok((0, Turn { foreign: false, events: false })) };
            loop {
                let until = selector.before_wait(server, deadline);
                let until = ring.before_wait(server, until);
                let completions = server.wait(until)?;
                selector.after_wait(server, Some(&mut *ring));
                ring.after_wait(server);
                let foreign = std::mem::take(&mut selector.foreign);
                let events = ring.has_notices();
                let due = deadline.is_some_and(|deadline| deadline <= Instant::now());
                if foreign || events || due {
                    return Ok((completions, Turn { foreign, events }));
                }
            }
        })
    })?;
    result.map_err(|error: std::io::Error| PyOSError::new_err(error))
}

/// asyncio's timeout as a point in time: `None` and what is too far away mean for ever.
fn deadline_after(seconds: f64) -> Option<Instant> {
    let wait = Duration::try_from_secs_f64(seconds.max(0.0)).ok()?;
    (wait < LONGEST_WAIT).then(|| Instant::now() + wait)
}
