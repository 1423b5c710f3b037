//! The ring as the guest of a loop that waits elsewhere: asyncio's own selector loop, uvloop, rloop,
//! and whichever loop a server is embedded in.
//!
//! Such a loop sleeps in its own `epoll`, so the ring is never waited for. It has a wake fd
//! ([`Server::wake_fd`](granian_uring::server::Server::wake_fd)), which the loop watches like any
//! other. [`run`] is the one callback: turns that do not wait, `dispatch`, and turns that submit
//! what the application has answered. The loop calls it
//!
//! - when the wake fd is readable,
//! - in its next iteration, if there is more to do than one call may, or when the server was used
//!   in between (a task that answers later): see [`Guest::asks`],
//! - at the server's next deadline, for which the loop has one timer.
//!
//! A call handles a bounded number of completions and of events, so that neither side starves the
//! other; where nothing happens the loop sleeps.

use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::worker::{State, Worker};

/// Turns before `dispatch`, and after it, at the most; each delivers a bounded number of
/// completions. More than one, because what a turn submits is often complete at once.
const TURNS: usize = 4;
/// Loops count their timers in milliseconds, and some round down: one that fires before its time
/// would be armed again and again.
const TIMER_STEP: Duration = Duration::from_millis(1);

/// The guest's side: what was agreed with the loop.
#[derive(Default)]
pub struct Guest {
    /// Whose guest we are; none on the loop of our own.
    host: Option<Host>,
    /// A call of [`run`] is under way, or will come by itself in the loop's next iteration.
    expected: bool,
    /// The loop's timer: when it fires, and its handle.
    timer: Option<(Instant, Py<PyAny>)>,
}

/// How the loop is reached.
struct Host {
    event_loop: Py<PyAny>,
    /// The callback, `Worker.turn`.
    turn: Py<PyAny>,
    /// `{"context": ...}`: a context of the callback's own, so that what one request sets in its is
    /// not seen by the next.
    options: Py<PyDict>,
    wake_fd: RawFd,
    /// The bell of the WSGI threads, which the loop watches as well.
    bell: Option<RawFd>,
}

impl Host {
    fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            event_loop: self.event_loop.clone_ref(py),
            turn: self.turn.clone_ref(py),
            options: self.options.clone_ref(py),
            wake_fd: self.wake_fd,
            bell: self.bell,
        }
    }

    fn call_soon(&self, py: Python<'_>) -> PyResult<()> {
        let options = Some(self.options.bind(py));
        let event_loop = self.event_loop.bind(py);
        event_loop.call_method(intern!(py, "call_soon"), (&self.turn,), options).map(drop)
    }

    /// Returns the handle of a timer that fires after `delay`.
    fn call_later(&self, py: Python<'_>, delay: Duration) -> PyResult<Py<PyAny>> {
        let options = Some(self.options.bind(py));
        let arguments = (delay.as_secs_f64(), &self.turn, true);
        let event_loop = self.event_loop.bind(py);
        Ok(event_loop.call_method(intern!(py, "call_later"), arguments, options)?.unbind())
    }
}

impl Guest {
    /// Whether the loop has to be asked for a call, now that the server was used: [`ask`] does it.
    #[inline]
    pub fn asks(&mut self) -> bool {
        self.host.is_some() && !std::mem::replace(&mut self.expected, true)
    }
}

/// Be a guest of `event_loop`, on which `turn` is to be called.
pub fn arrive(worker: &Bound<'_, Worker>, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = worker.py();
    let turn = worker.getattr(intern!(py, "turn"))?.unbind();
    let options = PyDict::new(py);
    options.set_item("context", py.import("contextvars")?.call_method0("copy_context")?)?;
    let wake_fd = worker.get().with(|state| state.server.wake_fd())?.map_err(PyOSError::new_err)?;
    event_loop.call_method1(intern!(py, "add_reader"), (wake_fd, &turn))?;
    let event_loop = event_loop.clone().unbind();
    let host = Host { event_loop, turn, options: options.unbind(), wake_fd, bell: None };
    worker.get().with(|state| state.guest.host = Some(host))
}

/// Have the loop watch the bell of the WSGI threads, if we are a guest.
///
/// Not through the ring: a ring's eventfd is not signalled from within the wake-up of another
/// eventfd, but by an RCU callback, and that once and never again (Linux 6.18).
pub fn watch_bell(py: Python<'_>, worker: &Worker) -> PyResult<()> {
    let watched = worker.with_state(|state| {
        let host = state.guest.host.as_mut()?;
        let bell = state.wsgi.as_mut()?.give_bell();
        host.bell = Some(bell);
        Some((bell, host.clone_ref(py)))
    })?;
    let Some((bell, host)) = watched else { return Ok(()) };
    host.event_loop.call_method1(py, intern!(py, "add_reader"), (bell, &host.turn)).map(drop)
}

/// Leave the loop, before the ring goes: it is called no more.
pub fn leave(py: Python<'_>, worker: &Worker) -> PyResult<()> {
    let guest = worker.with_state(|state| std::mem::take(&mut state.guest))?;
    if let Some((_, timer)) = guest.timer {
        timer.call_method0(py, intern!(py, "cancel"))?;
    }
    if let Some(host) = guest.host {
        for fd in [Some(host.wake_fd), host.bell].into_iter().flatten() {
            // A loop that is closed watches nothing any more, and says so.
            let _ = host.event_loop.call_method1(py, intern!(py, "remove_reader"), (fd,));
        }
    }
    Ok(())
}

/// The callback. `timer`: it is the timer that calls, and so is gone.
pub fn run(worker: &Bound<'_, Worker>, timer: bool) -> PyResult<()> {
    let py = worker.py();
    let this = worker.get();
    let begun = this.with_state(|state| {
        state.guest.expected = true;
        if let Some(ring) = &state.wsgi {
            ring.silence();
        }
        if timer { state.guest.timer.take() } else { None }
    });
    // Called once more after the end.
    let Ok(fired) = begun else { return Ok(()) };
    drop(fired);
    turns(this)?;
    let dispatched = Worker::dispatch(worker);
    // Also after a wish to exit: what was answered before it goes out.
    if turns(this)? {
        arm_timer(py, this)?;
        this.with_state(|state| state.guest.expected = false)?;
    } else {
        ask_for_call(py, this)?;
    }
    dispatched
}

/// Ask the loop for a call, after [`Guest::asks`] said so.
pub fn ask(worker: &Worker) {
    Python::attach(|py| {
        // It fails only if the loop is closed: then nothing is served any more.
        let _ = ask_for_call(py, worker);
    });
}

fn ask_for_call(py: Python<'_>, worker: &Worker) -> PyResult<()> {
    let host = worker.with_state(|state| state.guest.host.as_ref().map(|it| it.clone_ref(py)))?;
    host.map_or(Ok(()), |host| host.call_soon(py))
}

/// Turns, until there is something for the application, or nothing more to do: then it is true.
fn turns(worker: &Worker) -> PyResult<bool> {
    let rests = worker.with_state(|state| {
        for _ in 0..TURNS {
            let completions = turn(state)?;
            if state.has_events() {
                return Ok(false);
            }
            if completions == 0 && !state.server.wants_turn() {
                return Ok(state.wsgi.as_mut().is_none_or(crate::wsgi::Ring::lie_down));
            }
        }
        Ok(false)
    })?;
    rests.map_err(|error: io::Error| PyOSError::new_err(error))
}

fn turn(state: &mut State) -> io::Result<usize> {
    let State { server, selector, wsgi, .. } = state;
    let now = Instant::now();
    selector.before_wait(server, None);
    if let Some(ring) = wsgi {
        ring.before_wait(server, None);
    }
    let completions = server.wait(Some(now))?;
    selector.after_wait(server, wsgi.as_mut());
    if let Some(ring) = wsgi {
        ring.after_wait(server);
    }
    Ok(completions)
}

/// See to it that the loop calls at the next deadline. A timer that fires too early stays, and does
/// no harm: deadlines mostly move on.
fn arm_timer(py: Python<'_>, worker: &Worker) -> PyResult<()> {
    let needed = worker.with_state(|state| {
        let own = [state.server.deadline(), state.selector.deadline()];
        let wsgi = state.wsgi.as_ref().and_then(crate::wsgi::Ring::deadline);
        let deadline = own.into_iter().chain([wsgi]).flatten().min()?;
        let Guest { host, timer, .. } = &mut state.guest;
        if timer.as_ref().is_some_and(|(at, _)| *at <= deadline) {
            return None;
        }
        Some((deadline, timer.take(), host.as_ref()?.clone_ref(py)))
    })?;
    let Some((deadline, before, host)) = needed else { return Ok(()) };
    if let Some((_, handle)) = before {
        handle.call_method0(py, intern!(py, "cancel"))?;
    }
    let delay = deadline.saturating_duration_since(Instant::now()) + TIMER_STEP;
    let handle = host.call_later(py, delay)?;
    worker.with_state(|state| state.guest.timer = Some((deadline, handle)))
}
