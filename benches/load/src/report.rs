//! What a run has found, as one line of JSON.

use std::fmt;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Failure;

/// Latencies up to a minute, in nanoseconds, with three digits.
const LONGEST_NS: u64 = 60_000_000_000;

/// The answers of one run.
pub(crate) struct Report {
    /// Answers of the warm-up, which are in none of the other figures.
    pub(crate) warm_answers: u64,
    pub(crate) answers: u64,
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
    /// Requests of an open loop that never began.
    pub(crate) backlog: u64,
    /// Connections that were made in the measured time.
    pub(crate) connects: u64,
    latencies: Histogram<u64>,
    /// What this program itself used, to tell whether it was the slower one.
    cpu_ns: u64,
}

impl Report {
    /// An empty one.
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self {
            warm_answers: 0,
            answers: 0,
            elapsed: Duration::ZERO,
            backlog: 0,
            connects: 0,
            latencies: Histogram::new_with_max(LONGEST_NS, 3)?,
            cpu_ns: 0,
        })
    }

    /// What was counted so far was the warm-up.
    pub(crate) fn start(&mut self) -> Result<(), Failure> {
        self.warm_answers = self.answers;
        self.answers = 0;
        self.connects = 0;
        self.latencies.reset();
        self.cpu_ns = own_cpu_ns()?;
        Ok(())
    }

    /// Counts the answers to requests that were due at `since`.
    pub(crate) fn count(&mut self, answers: usize, since: Instant, now: Instant) {
        let nanoseconds = u64::try_from((now - since).as_nanos()).unwrap_or(LONGEST_NS);
        self.answers += answers as u64;
        self.latencies.saturating_record_n(nanoseconds.max(1), answers as u64);
    }

    /// The measured time is over.
    pub(crate) fn finish(&mut self, elapsed: Duration, backlog: u64) -> Result<(), Failure> {
        self.elapsed = elapsed;
        self.backlog = backlog;
        self.cpu_ns = own_cpu_ns()? - self.cpu_ns;
        Ok(())
    }

    #[allow(clippy::cast_precision_loss, reason = "nanoseconds of a minute fit into 52 bits")]
    fn quantile_us(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e3
    }
}

impl fmt::Display for Report {
    #[allow(clippy::cast_precision_loss, reason = "nanoseconds of a minute fit into 52 bits")]
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{{\"answers\": {}, \"seconds\": {:.6}, \"warm_answers\": {}, \"backlog\": {}, ",
            self.answers,
            self.elapsed.as_secs_f64(),
            self.warm_answers,
            self.backlog
        )?;
        write!(
            out,
            "\"connects\": {}, \"load_cpu_seconds\": {:.6}, \"latency_us\": {{",
            self.connects,
            self.cpu_ns as f64 / 1e9
        )?;
        for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
            write!(out, "\"{name}\": {:.1}, ", self.quantile_us(quantile))?;
        }
        write!(
            out,
            "\"max\": {:.1}, \"mean\": {:.1}}}}}",
            self.quantile_us(1.0),
            self.latencies.mean() / 1e3
        )
    }
}

/// CPU time of this thread, which is the whole program: the first field of proc(5)'s schedstat.
fn own_cpu_ns() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn the_warm_up_is_not_in_the_figures() {
        let mut report = Report::new().unwrap();
        let since = Instant::now();
        report.count(5, since, since + Duration::from_secs(9));
        report.start().unwrap();
        report.count(2, since, since + Duration::from_micros(100));
        report.finish(Duration::from_secs(2), 0).unwrap();
        let text = report.to_string();
        assert!(text.starts_with("{\"answers\": 2, \"seconds\": 2.000000, \"warm_answers\": 5,"));
        assert!(text.contains("\"max\": 100."), "{text}");
    }
}
