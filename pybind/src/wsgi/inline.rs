//! The application on the ring's own thread: `--blocking-threads 0`.
//!
//! It is called from `Worker.dispatch`, so there is no hand-over, and nothing else runs until it
//! returns. Three things keep one client from holding up the rest:
//!
//! - The application is called when the body of its request is there, or [`GATHERED_BYTES`] of it.
//! - An iterable that has no room rests, and goes on when the client has taken what there is.
//! - Where the application itself has to wait, in a read beyond that and in its write callable, the
//!   server goes on turning: answers go out and requests come in, but no other one is begun.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use granian_uring::http1::BodyLength;
use granian_uring::server::{Event, Reading, Request, RequestId};
use pyo3::prelude::*;

use super::Gateway;
use super::exchange::{Exchange, Link};
use super::response::{Answering, Step, begin};
use crate::worker::Worker;

/// Bytes of a body that are waited for before the application is called.
const GATHERED_BYTES: usize = 256 * 1024;

/// The application, and requests that wait for their client.
pub struct Inline {
    gateway: Gateway,
    /// The application is called when more of the body has come.
    gathering: Mutex<HashMap<RequestId, Gathering>>,
    /// The answer goes on when there is room.
    resting: Mutex<HashMap<RequestId, Answering>>,
    closings: Arc<Closings>,
}

/// What applications returned, and what was sent of it by the kernel: to be closed by the next
/// `dispatch`.
#[derive(Default)]
pub struct Closings(Mutex<Vec<Answering>>);

impl Closings {
    pub fn add(&self, answering: Answering) {
        lock(&self.0).push(answering);
    }

    pub fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }
}

struct Gathering {
    request: Request,
    body: Vec<u8>,
}

impl Inline {
    pub fn new(gateway: Gateway) -> Arc<Self> {
        Arc::new(Self {
            gateway,
            gathering: Mutex::default(),
            resting: Mutex::default(),
            closings: Arc::default(),
        })
    }

    pub fn closings(&self) -> Arc<Closings> {
        self.closings.clone()
    }

    /// Close what was sent.
    pub fn close_sent(&self, py: Python<'_>) {
        let sent = std::mem::take(&mut *lock(&self.closings.0));
        for answering in sent {
            answering.close(py, &self.gateway);
        }
    }

    /// Handle what the server has to say. True if it was for us.
    pub fn handle(&self, worker: &Bound<'_, Worker>, event: &Event) -> PyResult<bool> {
        match *event {
            Event::Request(id) => self.request(worker, id)?,
            Event::Readable(id) => {
                let gathering = lock(&self.gathering).remove(&id);
                if let Some(gathering) = gathering {
                    self.gather(worker, id, gathering)?;
                }
            }
            Event::Writable(id) => {
                let resting = lock(&self.resting).remove(&id);
                if let Some(answering) = resting {
                    self.keep(id, answering.go_on(worker.py(), &self.gateway));
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Nothing is answered any more: close every iterable.
    pub fn close(&self, py: Python<'_>) {
        let resting = std::mem::take(&mut *lock(&self.resting));
        for (_, answering) in resting {
            answering.close(py, &self.gateway);
        }
    }

    fn request(&self, worker: &Bound<'_, Worker>, id: RequestId) -> PyResult<()> {
        let ring = worker.get();
        // Its client may have left while it waited in the queue.
        let Some(request) = ring.with(|state| state.server.take_request(id))? else {
            return ring.finish(id).map(drop);
        };
        match request.head.body_length() {
            BodyLength::None | BodyLength::Length(0) => {
                self.call(worker, id, request, (false, Vec::new(), true))
            }
            _ => self.gather(worker, id, Gathering { request, body: Vec::new() }),
        }
    }

    fn gather(
        &self,
        worker: &Bound<'_, Worker>,
        id: RequestId,
        mut gathering: Gathering,
    ) -> PyResult<()> {
        let ring = worker.get();
        loop {
            match ring.with(|state| state.server.read_body(id))? {
                Reading::Data { bytes, more } => {
                    gathering.body.extend_from_slice(&bytes);
                    if !more || gathering.body.len() >= GATHERED_BYTES {
                        let Gathering { request, body } = gathering;
                        return self.call(worker, id, request, (true, body, !more));
                    }
                }
                Reading::Wait => {
                    lock(&self.gathering).insert(id, gathering);
                    return Ok(());
                }
                Reading::Disconnected => return ring.finish(id).map(drop),
            }
        }
    }

    fn call(
        &self,
        worker: &Bound<'_, Worker>,
        id: RequestId,
        request: Request,
        (has_body, body, body_ended): (bool, Vec<u8>, bool),
    ) -> PyResult<()> {
        let link = Link::Inline(worker.clone().unbind(), self.closings.clone());
        let exchange = Arc::new(Exchange::new(id, link, has_body, body, body_ended));
        let step = begin(worker.py(), &self.gateway, &request, &exchange);
        self.keep(id, step);
        worker.get().with(|state| state.server.give_back(request))
    }

    fn keep(&self, id: RequestId, step: Step) {
        if let Step::Wait(answering) = step {
            lock(&self.resting).insert(id, answering);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
