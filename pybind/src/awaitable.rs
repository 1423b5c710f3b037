//! What `receive()` and `send()` return: awaitables that cost nothing when there is nothing to
//! wait for.
//!
//! All of them are coroutines in the sense of `collections.abc.Coroutine` (they have `send`,
//! `throw` and `close`), so that `asyncio.create_task(receive())` works as it does with servers
//! whose `receive` is an `async def`.

use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyStopIteration;
use pyo3::intern;
use pyo3::prelude::*;

use crate::asgi::Exchange;

/// The result of a `send` that need not wait. One object serves all.
#[pyclass(frozen, module = "granian_uring._native")]
pub struct Done;

#[pymethods]
impl Done {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[allow(clippy::unused_self, reason = "the protocol of an iterator")]
    fn __next__(&self) -> Option<Py<PyAny>> {
        None
    }

    #[allow(clippy::unused_self, reason = "the protocol of a coroutine")]
    fn send(&self, _value: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(PyStopIteration::new_err(()))
    }

    #[pyo3(signature = (kind, value=None, traceback=None))]
    #[allow(clippy::unused_self, reason = "the protocol of a coroutine")]
    fn throw(
        &self,
        kind: &Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = traceback;
        Err(thrown(kind, value))
    }

    #[allow(clippy::unused_self, reason = "the protocol of a coroutine")]
    fn close(&self) {}
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The next message for `receive`.
    Message,
    /// Room in the output, for a `send` that has given its bytes already.
    Room,
}

/// What was found when looking for it.
pub enum Found {
    Message(Py<PyAny>),
    Room,
    /// Not there yet: a future that is done when it is worth looking again.
    Wait(Py<PyAny>),
}

/// The result of `receive`, and of a `send` that has to wait.
#[pyclass(frozen, module = "granian_uring._native")]
pub struct Pending {
    exchange: Py<Exchange>,
    wanted: Wanted,
    /// The future that was waited for last.
    future: Mutex<Option<Py<PyAny>>>,
}

impl Pending {
    pub fn new(exchange: Py<Exchange>, wanted: Wanted) -> Self {
        Self { exchange, wanted, future: Mutex::new(None) }
    }

    /// Leave the line: nobody waits here any more.
    fn forget(&self) {
        let future = self.future.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(future) = future {
            self.exchange.get().forget(self.wanted, &future);
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
        match self.exchange.get().look_for(py, self.wanted)? {
            Found::Message(message) => Err(PyStopIteration::new_err(message)),
            Found::Room => Ok(None),
            Found::Wait(future) => {
                // What `Future.__await__` does before it yields itself to the task.
                future.setattr(py, intern!(py, "_asyncio_future_blocking"), true)?;
                let mut last = self.future.lock().unwrap_or_else(PoisonError::into_inner);
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
