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

use granian_uring::proactor::uring::Uring;
use granian_uring::server::Server;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::sockets::Notifier;
use crate::thread_bound::SameThread;
use crate::worker::Worker;

/// A wait longer than this is one without an end: asyncio's timeouts can be any number.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 3600);

/// The selector's side of a worker.
pub struct Selector {
    /// The epoll instance of Python's fds, once it is known.
    pub epoll: Option<RawFd>,
    /// The ring polls the epoll fd.
    armed: bool,
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
        Self { epoll: None, armed: false, watchdog: None }
    }

    /// The first ping is due at once, then one each half period.
    pub fn start_watchdog(&mut self, notifier: Py<Notifier>, period: Duration) {
        self.watchdog = Some(Watchdog { notifier, interval: period / 2, next: Instant::now() });
    }

    fn before_wait(
        &mut self,
        server: &mut Server<Uring>,
        deadline: Option<Instant>,
    ) -> Option<Instant> {
        if let (Some(epoll), false) = (self.epoll, self.armed) {
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

    fn after_wait(&mut self, server: &mut Server<Uring>) -> Turn {
        server.deliver();
        let mut foreign = false;
        while server.take_watched().is_some() {
            self.armed = false;
            foreign = true;
        }
        Turn { foreign, events: server.has_events() }
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
    worker.finish_unstarted(py)?;
    let deadline = timeout.and_then(deadline_after);
    let found = loop {
        let (completions, turn) = turn(py, worker, deadline)?;
        py.check_signals()?;
        let due = deadline.is_some_and(|deadline| deadline <= Instant::now());
        if turn.foreign || turn.events || due || completions == 0 {
            break turn;
        }
    };
    let hosting = worker.hosting(py)?;
    let ready = if found.foreign {
        hosting.foreign_select.bind(py).call1((0,))?.cast_into::<PyList>()?
    } else {
        PyList::empty(py)
    };
    if found.events {
        // Last, so that whoever waits for something else is called first.
        ready.append(hosting.dispatch_event.bind(py))?;
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
        Ok((completions, state.selector.after_wait(&mut state.server)))
    })?
}

/// asyncio's timeout as a point in time: `None` and what is too far away mean for ever.
fn deadline_after(seconds: f64) -> Option<Instant> {
    let wait = Duration::try_from_secs_f64(seconds.max(0.0)).ok()?;
    (wait < LONGEST_WAIT).then(|| Instant::now() + wait)
}
