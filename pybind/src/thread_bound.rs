//! State that one thread may use, inside objects that any thread may hold.
//!
//! A ring belongs to the thread that made it, and a server is a plain state machine. But Python
//! objects travel: an application may call `send` from a thread, the garbage collector may drop an
//! object anywhere, and a forked child has copies of them without the memory of the ring. Here that
//! becomes an error, or a leak, instead of a data race or a fault.
#![allow(unsafe_code, reason = "sharing what is checked at run time is beyond the compiler")]

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

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
        count_forks();
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

/// How many forks lie between this process and the one that loaded us, in the upper 16 bits, where
/// addresses of a process on 64 bits have nothing (and so the count is one of 65536).
static FORKS: AtomicUsize = AtomicUsize::new(0);

/// Have [`FORKS`] counted in each child.
fn count_forks() {
    extern "C" fn in_child() {
        FORKS.fetch_add(1 << 48, Ordering::Relaxed);
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler lives as long as the process, and only adds to a number.
        // It fails without memory: then a child is not told from its parent.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

/// A number that no other living thread has: the address of a thread-local variable, and in a child
/// another one than in its parent.
#[inline]
fn current_thread() -> usize {
    thread_local!(static MARK: u8 = const { 0 });
    MARK.with(|mark| std::ptr::from_ref(mark).addr()) ^ FORKS.load(Ordering::Relaxed)
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
