//! The timer wheel, with as many entries as a busy server has connections.

use crate::case::Case;
use std::hint::black_box;
use std::time::{Duration, Instant};

#[allow(dead_code, reason = "its tests run elsewhere")]
#[path = "../../src/server/timers.rs"]
mod wheel;

use wheel::Timers;

/// What keep-alive connections have by default.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Time that passes from one entry to the next: with the timeout, 5000 are on the wheel.
const STEP: Duration = Duration::from_millis(1);
/// Steps after which as many come up as are put on.
const STEPS: u32 = 10_000;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("timers", "a turn in which nothing comes up", || {
            let mut wheel = Wheel::turning();
            move || {
                black_box(wheel.timers.next());
                wheel.timers.expire(black_box(wheel.now), &mut wheel.due);
            }
        }),
        Case::new("timers", "an entry put on and come up", || {
            let mut wheel = Wheel::turning();
            move || wheel.step()
        }),
    ]
}

/// A wheel on which a deadline is put at each step.
struct Wheel {
    timers: Timers<(u32, u32)>,
    now: Instant,
    due: Vec<(u32, u32)>,
}

impl Wheel {
    fn turning() -> Self {
        let now = Instant::now();
        let mut wheel = Self { timers: Timers::new(now), now, due: Vec::new() };
        for _ in 0..STEPS {
            wheel.step();
        }
        wheel
    }

    fn step(&mut self) {
        self.now += STEP;
        self.timers.schedule(black_box((1, 2)), self.now + TIMEOUT, self.now);
        self.timers.expire(self.now, &mut self.due);
        self.due.clear();
    }
}
