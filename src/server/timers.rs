//! One timer wheel for all connections, and one deadline per `wait`: no syscall per timer.
//!
//! A connection has one deadline at a time, which mostly moves forward (every request postpones
//! it). So the wheel is lazy: an entry that comes up too early is put back by its owner, and
//! postponing costs nothing. Entries further away than one round wait in the last slot and are put
//! on again when it comes up.

use std::time::{Duration, Instant};

/// Resolution of the wheel: timeouts of a server are seconds, so this is precise enough, and a
/// crowd of connections that were accepted together comes up together.
const TICK: Duration = Duration::from_millis(32);
/// Slots: one round is about 33 s, longer than most timeouts.
const SLOTS: usize = 1024;
const WORDS: usize = SLOTS / 64;

/// The wheel. `T` names the owner of an entry.
pub(super) struct Timers<T> {
    start: Instant,
    /// No entry is on a tick before this one.
    next_tick: u64,
    /// The tick of the earliest entry, and when it comes up.
    earliest: Option<(u64, Instant)>,
    slots: Vec<Vec<T>>,
    /// One bit per slot: not empty.
    occupied: [u64; WORDS],
}

impl<T> Timers<T> {
    pub(super) fn new(now: Instant) -> Self {
        let mut slots = Vec::new();
        slots.resize_with(SLOTS, Vec::new);
        Self { start: now, next_tick: 0, earliest: None, slots, occupied: [0; WORDS] }
    }

    /// Put `owner` on for `deadline`. Returns when it will come up: at most one tick after the
    /// deadline, but earlier if that is more than one round away.
    pub(super) fn schedule(&mut self, owner: T, deadline: Instant, now: Instant) -> Instant {
        self.move_on(self.tick_at(now));
        let wanted = self.tick_at(deadline) + 1;
        let tick = wanted.clamp(self.next_tick, self.next_tick + SLOTS as u64 - 1);
        let slot = slot_of(tick);
        self.slots[slot].push(owner);
        self.occupied[slot / 64] |= 1 << (slot % 64);
        let up = self.time_of(tick);
        if self.earliest.is_none_or(|(earliest, _)| tick < earliest) {
            self.earliest = Some((tick, up));
        }
        up
    }

    /// When the next entry comes up.
    pub(super) fn next(&self) -> Option<Instant> {
        self.earliest.map(|(_, up)| up)
    }

    /// Move all that has come up at `now` to `due`. Mostly nothing has, which costs a comparison.
    pub(super) fn expire(&mut self, now: Instant, due: &mut Vec<T>) {
        while let Some((tick, up)) = self.earliest
            && up <= now
        {
            let slot = slot_of(tick);
            due.append(&mut self.slots[slot]);
            self.occupied[slot / 64] &= !(1 << (slot % 64));
            self.next_tick = tick + 1;
            self.earliest = self.find_earliest();
        }
    }

    /// Begin a round at `tick`, or at the earliest entry if that is before it.
    fn move_on(&mut self, tick: u64) {
        let free = self.earliest.map_or(tick, |(earliest, _)| tick.min(earliest));
        self.next_tick = self.next_tick.max(free);
    }

    fn find_earliest(&self) -> Option<(u64, Instant)> {
        let first = slot_of(self.next_tick);
        let position = self.first_occupied(first, SLOTS).or_else(|| self.first_occupied(0, first));
        position.map(|slot| {
            let tick = self.next_tick + ((slot + SLOTS - first) % SLOTS) as u64;
            (tick, self.time_of(tick))
        })
    }

    fn first_occupied(&self, from: usize, to: usize) -> Option<usize> {
        let mut slot = from;
        while slot < to {
            let word = self.occupied[slot / 64] >> (slot % 64);
            if word != 0 {
                let found = slot + word.trailing_zeros() as usize;
                return (found < to).then_some(found);
            }
            slot = (slot / 64 + 1) * 64;
        }
        None
    }

    fn tick_at(&self, time: Instant) -> u64 {
        let elapsed = time.saturating_duration_since(self.start).as_millis();
        u64::try_from(elapsed / TICK.as_millis()).unwrap_or(u64::MAX / 2)
    }

    fn time_of(&self, tick: u64) -> Instant {
        self.start + TICK * u32::try_from(tick).unwrap_or(u32::MAX)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the remainder is below SLOTS")]
fn slot_of(tick: u64) -> usize {
    (tick % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expired(timers: &mut Timers<u32>, now: Instant) -> Vec<u32> {
        let mut due = Vec::new();
        timers.expire(now, &mut due);
        due
    }

    #[test]
    fn comes_up_after_its_deadline_and_within_a_tick_of_it() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        let deadline = start + Duration::from_secs(1);
        let up = timers.schedule(7, deadline, start);
        assert!(up >= deadline && up <= deadline + TICK);
        assert_eq!(timers.next(), Some(up));
        assert!(expired(&mut timers, deadline).is_empty());
        assert_eq!(expired(&mut timers, up), [7]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_deadline_beyond_one_round_comes_up_early_and_can_be_put_on_again() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        let deadline = start + Duration::from_secs(100);
        let mut rounds = 0;
        let mut up = timers.schedule(1, deadline, start);
        while up < deadline {
            assert_eq!(expired(&mut timers, up), [1]);
            up = timers.schedule(1, deadline, up);
            rounds += 1;
        }
        assert_eq!(rounds, 3);
        assert_eq!(expired(&mut timers, up), [1]);
    }

    #[test]
    fn a_deadline_in_the_past_comes_up_with_the_next_tick() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        let now = start + Duration::from_secs(5);
        expired(&mut timers, now);
        let up = timers.schedule(1, start, now);
        assert!(up <= now + TICK);
        assert_eq!(expired(&mut timers, up), [1]);
    }

    #[test]
    fn a_deadline_within_a_round_of_now_is_kept_however_long_nothing_happened() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        let now = start + Duration::from_secs(1000);
        let deadline = now + Duration::from_secs(30);
        assert!(timers.schedule(1, deadline, now) >= deadline);
        assert!(expired(&mut timers, now).is_empty());
        assert_eq!(expired(&mut timers, deadline + TICK), [1]);
        // What is on the wheel is not passed over.
        let (now, later) = (now + Duration::from_secs(60), now + Duration::from_secs(80));
        let early = timers.schedule(2, now, now);
        timers.schedule(3, later, later);
        assert_eq!(timers.next(), Some(early));
        assert_eq!(expired(&mut timers, later + TICK), [2, 3]);
    }

    #[test]
    fn thousands_come_up_in_the_order_of_their_deadlines() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        for owner in 0..5000_u32 {
            let mixed = owner.wrapping_mul(2_654_435_761) % 30_000;
            timers.schedule(mixed, start + Duration::from_millis(u64::from(mixed)), start);
        }
        let mut last = 0;
        let mut seen = 0;
        while let Some(up) = timers.next() {
            let due = expired(&mut timers, up);
            assert!(!due.is_empty(), "the wheel named a time at which nothing came up");
            seen += due.len();
            let earliest = due.iter().min().copied().unwrap_or(0);
            assert!(earliest >= last);
            last = due.iter().max().copied().unwrap_or(0).saturating_sub(32);
        }
        assert_eq!(seen, 5000);
    }
}
