//! The way of records from the ring's thread to the one that writes, and back.
//!
//! Both sides share a queue behind a lock, under which pointers are moved and nothing else is done:
//! the ring's thread never waits for formatting or writing. It comes when it has many records, or
//! has had one for [`PERIOD`], so that a request costs neither the lock nor a wake-up. The other side
//! takes all that waits, and gives the used records back when it comes for the next: their memory
//! goes round, and the ring's thread allocates nothing.

use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::format::Wants;
use super::{Format, KEPT_BYTES, Record};

/// A record waits at most this long on the ring's thread.
const PERIOD: Duration = Duration::from_millis(20);
/// So many records are handed over at once.
const BATCH: usize = 256;
/// Records that wait for the other side occupy at most this much; more are dropped and counted.
/// Those that it works on may occupy as much again.
const QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// Text that is formatted at once; a line more may make it longer.
const LINES_BYTES: usize = 64 * 1024;
/// Used records that are kept for the next requests.
const SPARE_RECORDS: usize = 4096;
/// Lost records are told at most this often.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How long the end waits for the last lines to be written.
const CLOSE: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
#[allow(clippy::vec_box, reason = "records are moved often, and a pointer is cheaper to move")]
struct Queue {
    waiting: Vec<Box<Record>>,
    /// What those occupy.
    bytes: usize,
    /// Records that the other side has taken and not finished.
    in_hand: usize,
    /// Used records on their way back.
    used: Vec<Box<Record>>,
    /// Records that the other side could not write.
    lost: u64,
    /// The other side waits to be woken.
    idle: bool,
    /// No more records will come.
    closing: bool,
    /// The other side is gone.
    over: bool,
}

#[derive(Debug, Default)]
struct Meeting {
    queue: Mutex<Queue>,
    /// For the other side: there are records, or no more will come.
    news: Condvar,
    /// For the ring's thread: the other side is gone.
    over: Condvar,
}

impl Meeting {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing that is done under the lock can leave it half done.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The access log as the ring's thread has it: takes records, never waits. Its end closes it.
#[derive(Debug)]
#[allow(clippy::vec_box, reason = "records are moved often, and a pointer is cheaper to move")]
pub struct AccessLog {
    meeting: Arc<Meeting>,
    wants: Wants,
    /// The records that were not handed over.
    batch: Vec<Box<Record>>,
    /// When the first of those is to be handed over at the latest.
    due: Option<Instant>,
    /// What those occupy.
    bytes: usize,
    spare: Vec<Box<Record>>,
    serial: u64,
    connections: u64,
    lost: u64,
    lost_told: Option<Instant>,
    /// The end waits until the other side has written everything.
    pub(super) is_awaited: bool,
}

impl AccessLog {
    /// A log, and the lines that come out of it. Whoever has the lines must go on asking for them,
    /// on another thread.
    #[must_use]
    pub fn new(format: Format) -> (Self, Lines) {
        let meeting = Arc::new(Meeting::default());
        let log = Self {
            meeting: Arc::clone(&meeting),
            wants: format.wants(),
            batch: Vec::new(),
            due: None,
            bytes: 0,
            spare: Vec::new(),
            serial: 0,
            connections: 0,
            lost: 0,
            lost_told: None,
            is_awaited: false,
        };
        let clock = Clock::new();
        let (taken, text) = (Vec::new(), Vec::new());
        (log, Lines { meeting, format, clock, taken, done: 0, begun: 0, text })
    }

    pub(crate) fn wants(&self) -> Wants {
        self.wants
    }

    /// The number of a new connection.
    pub(crate) fn connection(&mut self) -> u64 {
        self.connections += 1;
        self.connections
    }

    /// A record of a request that begins now.
    pub(crate) fn record(&mut self, now: Instant) -> Box<Record> {
        let mut record = self.spare.pop().unwrap_or_else(|| Box::new(Record::new(now)));
        record.reset(now);
        self.serial += 1;
        record.serial = self.serial;
        record
    }

    /// Take the record of a request that is over.
    pub(crate) fn push(&mut self, record: Box<Record>) {
        match self.batch.len() {
            0 => self.due = Some(record.ended + PERIOD),
            BATCH.. => self.due = Some(record.ended),
            _ => {}
        }
        self.bytes += record.size();
        self.batch.push(record);
    }

    /// When to call [`AccessLog::hand_over`], if there is something to hand over.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// True when [`AccessLog::hand_over`] is to be called.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Hand the records over. Returns how many were lost when that is to be told: those that found
    /// no room, and those that could not be written.
    pub(crate) fn hand_over(&mut self, now: Instant) -> Option<u64> {
        self.due = None;
        let mut queue = self.meeting.lock();
        if queue.bytes + self.bytes > QUEUE_BYTES {
            self.lost += self.batch.len() as u64;
            self.spare.append(&mut self.batch);
        } else {
            queue.waiting.append(&mut self.batch);
            queue.bytes += self.bytes;
        }
        self.lost += mem::take(&mut queue.lost);
        self.spare.append(&mut queue.used);
        let wakes = mem::take(&mut queue.idle);
        drop(queue);
        self.bytes = 0;
        self.spare.truncate(SPARE_RECORDS);
        if wakes {
            self.meeting.news.notify_one();
        }
        let tells = self.lost > 0
            && self.lost_told.is_none_or(|told| now.duration_since(told) >= TELL_EVERY);
        tells.then(|| {
            self.lost_told = Some(now);
            mem::take(&mut self.lost)
        })
    }

    /// Hand the last records over, and wait for a moment until all are written if that is ours to
    /// wait for. Returns how many were lost and not told yet.
    pub(crate) fn close(&mut self) -> u64 {
        let told = self.hand_over(Instant::now()).unwrap_or(0);
        let mut queue = self.meeting.lock();
        queue.closing = true;
        self.meeting.news.notify_all();
        if self.is_awaited {
            let running = |queue: &mut Queue| !queue.over;
            let (ended, _) = self
                .meeting
                .over
                .wait_timeout_while(queue, CLOSE, running)
                .unwrap_or_else(PoisonError::into_inner);
            queue = ended;
            if !queue.over {
                self.lost += (queue.waiting.len() + queue.in_hand) as u64;
            }
            self.is_awaited = false;
        }
        told + mem::take(&mut self.lost) + mem::take(&mut queue.lost)
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.close();
    }
}

/// The lines of an access log, on the thread that writes them.
#[derive(Debug)]
#[allow(clippy::vec_box, reason = "records are moved often, and a pointer is cheaper to move")]
pub struct Lines {
    meeting: Arc<Meeting>,
    format: Format,
    clock: Clock,
    taken: Vec<Box<Record>>,
    /// How many of those are formatted, and how many were before the last call.
    done: usize,
    begun: usize,
    text: Vec<u8>,
}

impl Lines {
    /// The next lines, whole and each with its line feed: waits for them. `None` when no more will
    /// come.
    #[allow(clippy::should_implement_trait, reason = "what it lends is of one call")]
    pub fn next(&mut self) -> Option<&[u8]> {
        if self.done == self.taken.len() && !self.take() {
            return None;
        }
        self.text.clear();
        self.begun = self.done;
        self.clock.read();
        while let Some(record) = self.taken.get(self.done)
            && self.text.len() < LINES_BYTES
        {
            self.format.write(record, &mut self.clock, &mut self.text);
            self.done += 1;
        }
        Some(&self.text)
    }

    /// Say that the lines of the last call could not be written.
    pub fn lose(&mut self) {
        self.meeting.lock().lost += (self.done - self.begun) as u64;
    }

    /// Give the used records back, and wait for others. False when none will come.
    fn take(&mut self) -> bool {
        self.done = 0;
        self.taken.retain_mut(|record| {
            record.endpoints = None;
            record.size() <= KEPT_BYTES
        });
        let Meeting { news, .. } = &*self.meeting;
        let mut queue = self.meeting.lock();
        queue.in_hand = 0;
        queue.used.append(&mut self.taken);
        let nothing = |queue: &mut Queue| {
            queue.idle = queue.waiting.is_empty() && !queue.closing;
            queue.idle
        };
        queue = news.wait_while(queue, nothing).unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut queue.waiting, &mut self.taken);
        queue.in_hand = self.taken.len();
        queue.bytes = 0;
        !self.taken.is_empty()
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.meeting.lock().over = true;
        self.meeting.over.notify_all();
    }
}
