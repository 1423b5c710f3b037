//! The operations under way: one future each, polled when the runtime has woken it.
//!
//! They are not tasks of the runtime: so they need neither its allocations nor its queue, and what
//! they bring can be used where they are polled.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// A future with one result.
pub(super) type Operation<T> = Pin<Box<dyn Future<Output = T>>>;

struct Slot<K, T> {
    /// What the operation is, as whoever began it calls it; and the future, until it has ended.
    operation: Option<(K, Operation<T>)>,
    waker: Waker,
}

/// Slots whose operation was woken. Behind a lock because a waker may be sent elsewhere; none is.
#[derive(Default)]
struct Woken(Mutex<Vec<usize>>);

struct SlotWaker {
    slot: usize,
    woken: Arc<Woken>,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.0.lock().unwrap_or_else(PoisonError::into_inner).push(self.slot);
    }
}

/// Operations of a kind `K` each, that bring a `T` each.
pub(super) struct Operations<K, T> {
    slots: Vec<Slot<K, T>>,
    free: Vec<usize>,
    woken: Arc<Woken>,
    /// To be polled, in the order in which they were begun or woken.
    due: VecDeque<usize>,
}

impl<K, T> Default for Operations<K, T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), woken: Arc::default(), due: VecDeque::new() }
    }
}

impl<K: Copy, T> Operations<K, T> {
    /// How many have not ended.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Take an operation, which begins with the coming [`Operations::next`].
    pub(super) fn begin(&mut self, kind: K, operation: impl Future<Output = T> + 'static) {
        let slot = self.free.pop().unwrap_or_else(|| self.new_slot());
        self.slots[slot].operation = Some((kind, Box::pin(operation)));
        self.due.push_back(slot);
    }

    fn new_slot(&mut self) -> usize {
        let slot = self.slots.len();
        let woken = Arc::clone(&self.woken);
        let waker = Waker::from(Arc::new(SlotWaker { slot, woken }));
        self.slots.push(Slot { operation: None, waker });
        slot
    }

    /// Poll what was begun and what was woken, until one of them ends; `None` when all of them wait.
    pub(super) fn next(&mut self) -> Option<(K, T)> {
        loop {
            let Some(index) = self.due.pop_front() else {
                self.due
                    .extend(self.woken.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..));
                if self.due.is_empty() {
                    return None;
                }
                continue;
            };
            let slot = &mut self.slots[index];
            // A runtime may wake an operation that has ended, or the one that came after it.
            let Some((kind, operation)) = slot.operation.as_mut() else { continue };
            let mut context = Context::from_waker(&slot.waker);
            if let Poll::Ready(result) = operation.as_mut().poll(&mut context) {
                let kind = *kind;
                slot.operation = None;
                self.free.push(index);
                return Some((kind, result));
            }
        }
    }

    /// Give up what has not ended.
    pub(super) fn clear(&mut self) {
        self.due.clear();
        self.free.clear();
        self.slots.clear();
    }
}
