//! What asyncio's loop does for each callback, without a frame of Python: `call_soon`, the handle that
//! it returns, and the handles of descriptors that are ready.
//!
//! A step of a task that was woken is such a callback, so a request that waits for something costs
//! several. What is here does what `asyncio.base_events` and `asyncio.events` do, in the same order;
//! everything rare is left to them: debug mode, `call_soon_threadsafe`, timers, a failed callback
//! (`granian_uring/selector.py` chooses).
#![allow(unsafe_code, reason = "PyO3 has no way to enter a context")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit, ffi, intern};

use crate::errors::is_wish;
use crate::ready_files::{READ, WRITE};

/// See the stub file.
#[pyclass(frozen, module = "granian_uring._native")]
pub struct Callbacks {
    event_loop: Py<PyAny>,
    /// `append` of the loop's queue of what is to be run.
    append: Py<PyAny>,
    /// `describe(callback, args)` for a log, and `failed(handle, error)`.
    describe: Py<PyAny>,
    failed: Py<PyAny>,
    /// The loop is closed; somebody may have kept its `call_soon`.
    closed: AtomicBool,
}

#[pymethods]
impl Callbacks {
    #[new]
    fn new(
        event_loop: Py<PyAny>,
        append: Py<PyAny>,
        describe: Py<PyAny>,
        failed: Py<PyAny>,
    ) -> Self {
        Self { event_loop, append, describe, failed, closed: AtomicBool::new(false) }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// `call_soon` of a loop that is not in debug mode.
    #[pyo3(signature = (callback, *args, context=None))]
    fn call_soon<'py>(
        slf: &Bound<'py, Self>,
        callback: Py<PyAny>,
        args: Py<PyTuple>,
        context: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, Handle>> {
        let py = slf.py();
        if slf.get().closed.load(Ordering::Relaxed) {
            return Err(PyRuntimeError::new_err("Event loop is closed"));
        }
        let context = match context {
            Some(context) => context,
            None => current_context(py)?,
        };
        let call = Mutex::new(Some(Call { callback, args }));
        let handle = Bound::new(py, Handle { call, context, callbacks: slf.clone().unbind() })?;
        slf.get().append.call1(py, (&handle,))?;
        Ok(handle)
    }

    /// `_process_events`: what `select` has returned is to be run.
    fn process_events(&self, py: Python<'_>, events: &Bound<'_, PyList>) -> PyResult<()> {
        for event in events {
            let (key, mask): (Bound<'_, PyTuple>, u32) = event.extract()?;
            // `SelectorKey(fileobj, fd, events, data)`, data being `(reader, writer)`.
            let (reader, writer): (Bound<'_, PyAny>, Bound<'_, PyAny>) =
                key.get_item(3)?.extract()?;
            for (handle, kind, remove) in [
                (reader, READ, intern!(py, "_remove_reader")),
                (writer, WRITE, intern!(py, "_remove_writer")),
            ] {
                if mask & kind != 0 && !handle.is_none() {
                    self.process_event(&handle, &key.get_item(0)?, remove)?;
                }
            }
        }
        Ok(())
    }

    #[allow(clippy::needless_pass_by_value, reason = "the signature of the slot")]
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        visit.call(&self.append)?;
        visit.call(&self.describe)?;
        visit.call(&self.failed)
    }
}

impl Callbacks {
    fn process_event(
        &self,
        handle: &Bound<'_, PyAny>,
        file: &Bound<'_, PyAny>,
        remove: &Bound<'_, PyString>,
    ) -> PyResult<()> {
        let py = handle.py();
        if handle.getattr(intern!(py, "_cancelled"))?.is_truthy()? {
            return self.event_loop.call_method1(py, remove, (file,)).map(drop);
        }
        self.append.call1(py, (handle,)).map(drop)
    }
}

/// See the stub file.
#[pyclass(frozen, weakref, module = "granian_uring._native")]
pub struct Handle {
    /// Until it is cancelled.
    call: Mutex<Option<Call>>,
    context: Py<PyAny>,
    callbacks: Py<Callbacks>,
}

struct Call {
    callback: Py<PyAny>,
    args: Py<PyTuple>,
}

#[pymethods]
impl Handle {
    /// Run the callback, in its context.
    fn _run(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let Some((callback, args)) = this.parts(py) else { return Ok(()) };
        let Err(error) = call_in(this.context.bind(py), &callback, &args) else { return Ok(()) };
        if is_wish(py, &error) {
            return Err(error);
        }
        this.callbacks.get().failed.call1(py, (slf, error)).map(drop)
    }

    fn cancel(&self) {
        let call = self.call().take();
        // Not before the lock is open: their end may run Python.
        drop(call);
    }

    fn cancelled(&self) -> bool {
        self.call().is_none()
    }

    fn get_context(&self, py: Python<'_>) -> Py<PyAny> {
        self.context.clone_ref(py)
    }

    // What asyncio itself, and who looks behind it, knows of a handle.

    #[getter(_cancelled)]
    fn is_cancelled(&self) -> bool {
        self.call().is_none()
    }

    #[getter(_context)]
    fn own_context(&self, py: Python<'_>) -> Py<PyAny> {
        self.context.clone_ref(py)
    }

    #[getter(_callback)]
    fn callback<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.parts(py).map(|(callback, _)| callback)
    }

    #[getter(_args)]
    fn args<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyTuple>> {
        self.parts(py).map(|(_, args)| args)
    }

    #[getter(_loop)]
    fn event_loop(&self, py: Python<'_>) -> Py<PyAny> {
        self.callbacks.get().event_loop.clone_ref(py)
    }

    /// Traces are kept in debug mode alone, in which asyncio's own handles are used.
    #[classattr]
    #[pyo3(name = "_source_traceback")]
    fn source_traceback() -> Option<Py<PyAny>> {
        None
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let Some((callback, args)) = self.parts(py) else {
            return Ok("<Handle cancelled>".to_owned());
        };
        let described = self.callbacks.get().describe.call1(py, (callback, args))?;
        Ok(format!("<Handle {described}>"))
    }

    #[allow(clippy::needless_pass_by_value, reason = "the signature of the slot")]
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Whoever has it locked runs no Python meanwhile, and so is not here.
        if let Some(call) = self.call().as_ref() {
            visit.call(&call.callback)?;
            visit.call(&call.args)?;
        }
        visit.call(&self.context)?;
        visit.call(&self.callbacks)
    }

    fn __clear__(&self) {
        self.cancel();
    }
}

impl Handle {
    fn call(&self) -> MutexGuard<'_, Option<Call>> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parts<'py>(&self, py: Python<'py>) -> Option<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let call = self.call();
        let Call { callback, args } = call.as_ref()?;
        Some((callback.bind(py).clone(), args.bind(py).clone()))
    }
}

/// A copy of the context that is current, `contextvars.copy_context()`.
fn current_context(py: Python<'_>) -> PyResult<Py<PyAny>> {
    // SAFETY: the GIL is held; the result is a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) }.map(Bound::unbind)
}

/// `context.run(callback, *args)`, whose result nobody wants.
fn call_in(
    context: &Bound<'_, PyAny>,
    callback: &Bound<'_, PyAny>,
    args: &Bound<'_, PyTuple>,
) -> PyResult<()> {
    let py = context.py();
    // SAFETY: the GIL is held; what is no context is refused with a TypeError.
    if unsafe { ffi::PyContext_Enter(context.as_ptr()) } < 0 {
        return Err(PyErr::fetch(py));
    }
    // An exception is taken out of the thread's state here, and so survives the exit.
    let result = callback.call1(args);
    // SAFETY: as above; the context was entered on this thread, and a callback leaves those it enters.
    if unsafe { ffi::PyContext_Exit(context.as_ptr()) } < 0 {
        return Err(PyErr::fetch(py));
    }
    result.map(drop)
}
