//! State that one thread may use, inside objects that any thread may hold.
//!
//! A ring belongs to the thread that made it, and a server is a plain state machine. But Python
//! objects travel: an application may call `send` from a thread, and the garbage collector may drop
//! an object anywhere. Here that becomes an error, or a leak, instead of a data race.
#![allow(unsafe_code, reason = "sharing what is checked at run time is beyond the compiler")]

use std::cell::RefCell;
use std::mem::ManuallyDrop;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// A `T` that only the thread that made it can reach.
pub struct ThreadBound<T> {
    owner: usize,
    value: ManuallyDrop<RefCell<T>>,
}

// SAFETY: `with` and `drop` reach the value only on the owner's thread, which they check.
unsafe impl<T> Send for ThreadBound<T> {}
// SAFETY: as above; `owner` never changes.
unsafe impl<T> Sync for ThreadBound<T> {}

impl<T> ThreadBound<T> {
    pub fn new(value: T) -> Self {
        Self { owner: current_thread(), value: ManuallyDrop::new(RefCell::new(value)) }
    }

    /// Use the value. `act` must not call into Python: whatever runs there could come back here.
    ///
    /// # Errors
    ///
    /// `RuntimeError` on another thread than the owner's.
    #[inline]
    pub fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> PyResult<R> {
        if self.owner != current_thread() {
            return Err(PyRuntimeError::new_err(
                "called from a thread that does not run the event loop; use \
                 loop.call_soon_threadsafe or asyncio.run_coroutine_threadsafe",
            ));
        }
        Ok(act(&mut self.value.borrow_mut()))
    }
}

impl<T> Drop for ThreadBound<T> {
    fn drop(&mut self) {
        if self.owner == current_thread() {
            // SAFETY: dropped once, here, on the thread it belongs to.
            unsafe { ManuallyDrop::drop(&mut self.value) }
        }
    }
}

/// A number that no other living thread has: the address of a thread-local variable.
#[inline]
fn current_thread() -> usize {
    thread_local!(static MARK: u8 = const { 0 });
    MARK.with(|mark| std::ptr::from_ref(mark).addr())
}

/// A value that goes into [`Python::detach`], which wants `Send` because the closure runs without
/// the GIL. It runs on the same thread, so nothing is sent.
pub struct SameThread<T>(pub T);

// SAFETY: only `Python::detach` is given one, and it calls its closure on the calling thread.
unsafe impl<T> Send for SameThread<T> {}

impl<T> SameThread<T> {
    /// The value; a method, so that closures capture the wrapper and not its field.
    pub fn into_inner(self) -> T {
        self.0
    }
}
