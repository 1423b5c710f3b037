//! Points in time, as a person or a program reads them in a log.
//!
//! A record has points of the monotonic clock, so that the ring's thread reads no other; here they
//! become times of day. The text of a second is made once.
#![allow(unsafe_code, reason = "the local time zone is to be had from the C library alone")]

use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How a point in time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// `2026-01-31 03:00:00 +0100`: local time, as Granian writes it.
    Local,
    /// `2026-01-31T02:00:00.123Z`, RFC 3339.
    Utc,
    /// `31/Jan/2026:03:00:00 +0100`: local time in the Common Log Format.
    CommonLog,
    /// `1769824800.123`: seconds since 1970.
    Epoch,
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The text of one second.
#[derive(Debug)]
struct Cached {
    style: Style,
    second: u64,
    text: String,
}

/// Turns points of the monotonic clock into times of day.
#[derive(Debug)]
pub(super) struct Clock {
    now: Instant,
    since_epoch: Duration,
    cached: Vec<Cached>,
}

impl Clock {
    pub(super) fn new() -> Self {
        // Reads the time zone now, on the thread that starts the program: the C library reads the
        // environment for it once, and others may change that later.
        let _ = local(0);
        Self { now: Instant::now(), since_epoch: Duration::ZERO, cached: Vec::new() }
    }

    /// Look at both clocks. What is asked for afterwards is about this moment or before it.
    pub(super) fn read(&mut self) {
        self.now = Instant::now();
        self.since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    }

    /// The time since 1970 at `moment`.
    pub(super) fn since_epoch(&self, moment: Instant) -> Duration {
        self.since_epoch.saturating_sub(self.now.saturating_duration_since(moment))
    }

    /// Append the time of `moment`.
    pub(super) fn write(&mut self, moment: Instant, style: Style, out: &mut Vec<u8>) {
        let time = self.since_epoch(moment);
        let second = time.as_secs();
        let index = self.cached.iter().position(|cached| cached.style == style);
        let index = index.unwrap_or_else(|| {
            self.cached.push(Cached { style, second, text: text(second, style) });
            self.cached.len() - 1
        });
        let cached = &mut self.cached[index];
        if cached.second != second {
            *cached = Cached { style, second, text: text(second, style) };
        }
        out.extend_from_slice(cached.text.as_bytes());
        let milliseconds = time.subsec_millis();
        let written = match style {
            Style::Local | Style::CommonLog => Ok(()),
            Style::Utc => write!(out, ".{milliseconds:03}Z"),
            Style::Epoch => write!(out, ".{milliseconds:03}"),
        };
        written.expect("a vector takes everything");
    }
}

/// A second as text, but for its fraction.
fn text(second: u64, style: Style) -> String {
    let (day, month, year) = match style {
        Style::Epoch => return second.to_string(),
        Style::Local | Style::CommonLog => {
            let time = local(second);
            let offset = offset(&time);
            return match style {
                Style::CommonLog => format!(
                    "{:02}/{}/{:04}:{} {offset}",
                    time.tm_mday,
                    MONTHS[usize::try_from(time.tm_mon).unwrap_or(0) % 12],
                    time.tm_year + 1900,
                    day_time(&time),
                ),
                _ => format!(
                    "{:04}-{:02}-{:02} {} {offset}",
                    time.tm_year + 1900,
                    time.tm_mon + 1,
                    time.tm_mday,
                    day_time(&time),
                ),
            };
        }
        Style::Utc => civil(second / 86_400),
    };
    let (hour, minute, second) = (second / 3600 % 24, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

fn day_time(time: &libc::tm) -> String {
    format!("{:02}:{:02}:{:02}", time.tm_hour, time.tm_min, time.tm_sec)
}

/// The offset from UTC: `+0530`.
fn offset(time: &libc::tm) -> String {
    let sign = if time.tm_gmtoff < 0 { '-' } else { '+' };
    let minutes = time.tm_gmtoff.unsigned_abs() / 60;
    format!("{sign}{:02}{:02}", minutes / 60, minutes % 60)
}

/// The day, month and year of a day since 1970 in the Gregorian calendar. Years are counted from
/// March, so that the day that is not in every year is a year's last; 400 of them are 146,097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day + 2) / 153;
    let day = day - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (day, month, cycle * 400 + year + u64::from(month <= 2))
}

/// The local time of a second since 1970, localtime(3).
fn local(second: u64) -> libc::tm {
    let second = libc::time_t::try_from(second).unwrap_or(0);
    // SAFETY: a `tm` is integers and a pointer that may be null; all zero is one of its values.
    let mut time: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both point to values of this function, and the second is written, nothing else. A
    // year that does not fit leaves it as it is.
    unsafe { libc::localtime_r(&raw const second, &raw mut time) };
    time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_the_calendar() {
        for (days, date) in [
            (0, (1, 1, 1970)),
            (59, (1, 3, 1970)),
            (789, (29, 2, 1972)),
            (11_016, (29, 2, 2000)),
            (11_017, (1, 3, 2000)),
            (47_540, (28, 2, 2100)),
            (47_541, (1, 3, 2100)),
            (2_932_896, (31, 12, 9999)),
        ] {
            assert_eq!(civil(days), date, "{days}");
        }
    }

    #[test]
    fn every_style() {
        let mut clock = Clock::new();
        clock.since_epoch = Duration::from_millis(1_769_824_800_123);
        let moment = clock.now;
        let mut written = |style| {
            let mut out = Vec::new();
            clock.write(moment, style, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(Style::Utc), "2026-01-31T02:00:00.123Z");
        assert_eq!(written(Style::Epoch), "1769824800.123");
        // The zone of the machine that runs this: the parts are in their places in any.
        let local = written(Style::Local);
        let common = written(Style::CommonLog);
        assert!(local.starts_with("2026-01-3") && local.len() == 25, "{local}");
        assert!(common[2..].starts_with("/Jan/2026:") && common.len() == 26, "{common}");
        assert_eq!(local[11..], common[12..]);
    }

    #[test]
    fn a_moment_before_the_last_look_is_so_much_earlier() {
        let mut clock = Clock::new();
        clock.read();
        let since = clock.since_epoch;
        let moment = clock.now.checked_sub(Duration::from_millis(1500)).unwrap();
        assert_eq!(clock.since_epoch(moment) + Duration::from_millis(1500), since);
        assert_eq!(clock.since_epoch(clock.now + Duration::from_secs(1)), since);
    }
}
