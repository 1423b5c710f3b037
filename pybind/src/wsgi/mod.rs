//! WSGI, PEP 3333: synchronous applications, in threads beside the ring or on the ring's thread.
//!
//! ```text
//!   ring's thread, without the GIL        one lock           pool threads, with the GIL
//!   deliver ─► requests ──► ring.rs ──► jobs ────────► pool.rs ─► response.rs ─► application
//!   output  ◄─ answers  ◄── ring.rs ◄── messages ◄──── exchange.rs ◄─┘   input.rs ◄─┘
//! ```
//!
//! With `--blocking-threads` of 1 or more the ring's thread never holds the GIL for a request: the
//! loop of turns in [`ring`] runs detached inside `select`, until asyncio itself has something to
//! do. Many requests go over in one visit to the lock, and so do many answers. A thread takes one
//! request at a time from the common queue, and keeps the GIL from one to the next; it wakes the
//! ring when the queue is empty, or when nothing else would wake it within a millisecond.
//!
//! With `--blocking-threads 0` the application is called from `Worker.dispatch` ([`inline`]): no
//! hand-over, and nothing else runs meanwhile.
//!
//! | file | what lives there |
//! |---|---|
//! | `environ` | the environ of a request |
//! | `input` | `wsgi.input` |
//! | `response` | `start_response`, the write callable, and what becomes of the returned iterable |
//! | `exchange` | the way between the thread that runs the application and the ring |
//! | `pool` | the threads and the two queues |
//! | `ring` | the ring's side of the pool |
//! | `inline` | the application on the ring's thread |
//!
//! Not here: `wsgi.file_wrapper` and the log's words (`granian_uring/wsgi.py`), framing and
//! connections (the core).

mod environ;
mod exchange;
mod inline;
mod input;
mod pool;
mod response;
mod ring;

use std::sync::Arc;
use std::time::Duration;

use granian_uring::server::Request;
use pyo3::prelude::*;
use pyo3::types::PyDict;

pub use inline::Inline;
pub use input::Input;
pub use pool::Pool;
pub use response::StartResponse;
pub use ring::Ring;

use environ::Environs;
use exchange::Exchange;

/// The application, and what is needed to call it. The same for all threads.
pub struct Gateway {
    application: Py<PyAny>,
    environs: Environs,
    /// `failed(environ, error, consequence)`: log that the application broke the contract.
    failed: Py<PyAny>,
    /// `leave(error)`: the application raised `SystemExit` or `KeyboardInterrupt`.
    leave: Py<PyAny>,
}

impl Gateway {
    pub fn new(
        py: Python<'_>,
        application: Py<PyAny>,
        environ: Py<PyDict>,
        failed: Py<PyAny>,
        leave: Py<PyAny>,
    ) -> PyResult<Self> {
        // That of every request without a body.
        environ.bind(py).set_item("wsgi.input", Py::new(py, Input::new(None))?)?;
        let environs = Environs::new(py, environ)?;
        Ok(Self { application, environs, failed, leave })
    }

    fn environ<'py>(
        &self,
        py: Python<'py>,
        request: &Request,
        exchange: &Arc<Exchange>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let input = exchange.has_body().then(|| Py::new(py, Input::new(Some(exchange.clone()))));
        self.environs.environ(py, request, exchange.id(), input.transpose()?)
    }

    /// Tell the log. What fails here has nowhere else to go.
    fn report(
        &self,
        py: Python<'_>,
        environ: &Py<PyDict>,
        error: PyErr,
        consequence: Option<&str>,
    ) {
        if let Err(error) = self.failed.call1(py, (environ, error, consequence)) {
            error.write_unraisable(py, None);
        }
    }
}

/// Where the application runs.
pub enum Hosting {
    Threads(Arc<Pool>),
    Inline(Arc<Inline>),
}

impl Hosting {
    /// On at most `threads` threads that leave after `idle_seconds` without work; 0 threads are the
    /// ring's own.
    pub fn new(gateway: Gateway, threads: usize, idle_seconds: f64) -> PyResult<Self> {
        if threads == 0 {
            return Ok(Self::Inline(Inline::new(gateway)));
        }
        Ok(Self::Threads(Pool::new(gateway, threads, Duration::from_secs_f64(idle_seconds))?))
    }
}
