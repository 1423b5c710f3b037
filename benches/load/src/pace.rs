//! When the next request is due.

use std::time::{Duration, Instant};

/// What decides when a request begins, as long as a connection is free for it.
pub(crate) enum Pace {
    /// At once, until `end`.
    Closed { end: Instant },
    /// One each `interval` seconds from `begin` to `end`; `asked` have begun.
    Open { begin: Instant, end: Instant, interval: f64, asked: u64 },
    /// `left` requests, at most `window` at once.
    Counted { left: usize, window: usize },
}

impl Pace {
    /// As fast as answers come, for so long.
    pub(crate) fn closed(length: Duration) -> Self {
        Self::Closed { end: Instant::now() + length }
    }

    /// `rate` requests per second for so long, whatever the answers do.
    pub(crate) fn open(rate: f64, length: Duration) -> Self {
        let begin = Instant::now();
        Self::Open { begin, end: begin + length, interval: rate.recip(), asked: 0 }
    }

    /// Takes the next request if it is due; the time from which it counts.
    pub(crate) fn take(&mut self, now: Instant, under_way: usize) -> Option<Instant> {
        match self {
            Self::Closed { end } => (now < *end).then_some(now),
            Self::Open { begin, end, interval, asked } => {
                let due = due(*begin, *interval, *asked);
                if due > now || now >= *end {
                    return None;
                }
                *asked += 1;
                Some(due)
            }
            Self::Counted { left, window } => {
                if *left == 0 || under_way >= *window {
                    return None;
                }
                *left -= 1;
                Some(now)
            }
        }
    }

    /// Whether no request will come any more.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        match self {
            Self::Closed { end } | Self::Open { end, .. } => now >= *end,
            Self::Counted { left, .. } => *left == 0,
        }
    }

    /// How long to sleep at most: an open loop does not sleep, since epoll's milliseconds would
    /// show in the figures.
    pub(crate) fn sleep(&self) -> Duration {
        match self {
            Self::Open { .. } => Duration::ZERO,
            Self::Closed { .. } | Self::Counted { .. } => Duration::from_millis(50),
        }
    }

    /// Requests that were due and never began, because no connection was free.
    pub(crate) fn backlog(&self) -> u64 {
        match self {
            Self::Open { begin, end, interval, asked } => {
                let mut all = *asked;
                while due(*begin, *interval, all) < *end {
                    all += 1;
                }
                all - asked
            }
            Self::Closed { .. } | Self::Counted { .. } => 0,
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "there are far less than 2^52 requests")]
fn due(begin: Instant, interval: f64, number: u64) -> Instant {
    begin + Duration::from_secs_f64(interval * number as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_loop_counts_from_when_a_request_was_due() {
        let mut pace = Pace::open(100.0, Duration::from_secs(1));
        let Pace::Open { begin, .. } = pace else { unreachable!() };
        let late = begin + Duration::from_millis(25);
        let due: Vec<_> = std::iter::from_fn(|| pace.take(late, 0)).collect();
        assert_eq!(due, [0, 10, 20].map(|ms| begin + Duration::from_millis(ms)));
        assert_eq!(pace.backlog(), 97);
    }

    #[test]
    fn a_counted_pace_keeps_to_its_window() {
        let mut pace = Pace::Counted { left: 2, window: 1 };
        let now = Instant::now();
        assert!(pace.take(now, 1).is_none());
        assert!(pace.take(now, 0).is_some());
        assert!(!pace.is_over(now));
        assert!(pace.take(now, 0).is_some());
        assert!(pace.is_over(now));
    }
}
