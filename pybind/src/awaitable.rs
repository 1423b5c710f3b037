//! What `receive()`, `send()` and their kin return: awaitables that cost nothing when there is
//! nothing to wait for.
//!
//! All of them are coroutines in the sense of `collections.abc.Coroutine` (they have `send`,
//! `throw` and `close`), so that `asyncio.create_task(receive())` works as it does with servers
//! whose `receive` is an `async def`.

use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyStopIteration;
use pyo3::intern;
use pyo3::prelude::*;

use crate::exchange::Exchange;
use crate::{asgi, rsgi, websocket};

/// What is waited for. Each interface knows what to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The next message for ASGI's `receive`.
    Message,
    /// The next message for it on a WebSocket.
    SocketMessage,
    /// The whole body, for RSGI.
    Body,
    /// The next piece of the body, for RSGI.
    Piece,
    /// The accepted WebSocket, for RSGI.
    Transport,
    /// The next message on it.
    TransportMessage,
    /// The peer's going, for RSGI.
    Going,
    /// Room in the output, for a `send` that has given its bytes already.
    Room,
}

impl Wanted {
    /// The news that end the wait for it.
    pub fn news(self) -> News {
        match self {
            Self::Message
            | Self::SocketMessage
            | Self::Body
            | Self::Piece
            | Self::Transport
            | Self::TransportMessage
            | Self::Going => News::Readable,
            Self::Room => News::Writable,
        }
    }

    fn look_for(self, exchange: &Bound<'_, Exchange>) -> PyResult<Found> {
        match self {
            Self::Message => asgi::message(exchange),
            Self::SocketMessage => websocket::message(exchange),
            Self::Body => rsgi::body(exchange),
            Self::Piece => rsgi::piece(exchange),
            Self::Going => rsgi::going(exchange),
            Self::Transport => rsgi::transport(exchange),
            Self::TransportMessage => rsgi::message(exchange),
            Self::Room => exchange.get().look_for_room(exchange.py()),
        }
    }
}

/// What the server tells of a request under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    Readable,
    Writable,
}

/// What was found when looking for it.
pub enum Found {
    /// What the awaitable results in.
    Value(Py<PyAny>),
    /// The end of the wait; the awaitable results in None.
    Nothing,
    /// Not there yet: a future that is done when it is worth looking again.
    Wait(Py<PyAny>),
}

/// The result of `receive`, of a `send`, and of everything else that may have to wait.
#[pyclass(frozen, module = "granian_uring._native")]
pub struct Pending {
    /// `None`: there is nothing to wait for.
    goal: Option<Goal>,
}

struct Goal {
    exchange: Py<Exchange>,
    wanted: Wanted,
    /// The future that was waited for last.
    future: Mutex<Option<Py<PyAny>>>,
}

impl Pending {
    /// Nothing to wait for. One object serves all.
    pub fn done() -> Self {
        Self { goal: None }
    }

    pub fn new(exchange: Py<Exchange>, wanted: Wanted) -> Self {
        Self { goal: Some(Goal { exchange, wanted, future: Mutex::new(None) }) }
    }

    /// Leave the line: nobody waits here any more.
    fn forget(&self) {
        let Some(goal) = &self.goal else { return };
        let future = goal.future.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(future) = future {
            goal.exchange.get().forget(goal.wanted, &future);
        }
    }
}

#[pymethods]
impl Pending {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let Some(goal) = &self.goal else { return Ok(None) };
        match goal.wanted.look_for(goal.exchange.bind(py))? {
            Found::Value(value) => Err(PyStopIteration::new_err(value)),
            Found::Nothing => Ok(None),
            Found::Wait(future) => {
                // What `Future.__await__` does before it yields itself to the task.
                future.setattr(py, intern!(py, "_asyncio_future_blocking"), true)?;
                let mut last = goal.future.lock().unwrap_or_else(PoisonError::into_inner);
                let before = last.replace(future.clone_ref(py));
                drop(last);
                drop(before);
                Ok(Some(future))
            }
        }
    }

    fn send(&self, py: Python<'_>, _value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.__next__(py)?.ok_or_else(|| PyStopIteration::new_err(()))
    }

    #[pyo3(signature = (kind, value=None, traceback=None))]
    fn throw(
        &self,
        kind: &Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = traceback;
        self.forget();
        Err(thrown(kind, value))
    }

    fn close(&self) {
        self.forget();
    }
}
/// The exception that `throw` is given: an instance, or a class and maybe its instance or argument,
/// as for a generator's `throw`.
fn thrown(kind: &Bound<'_, PyAny>, value: Option<Bound<'_, PyAny>>) -> PyErr {
    match value {
        Some(value) if value.is_instance(kind).unwrap_or(false) => PyErr::from_value(value),
        Some(value) if kind.is_callable() => match kind.call1((value,)) {
            Ok(instance) => PyErr::from_value(instance),
            Err(error) => error,
        },
        _ => PyErr::from_value(kind.clone()),
    }
}
