//! Two clocks that must never be mixed: ours (UTC) and the database column's (its own wall clock).

use std::fmt;
use std::time::Duration;

use chrono::DateTime;

/// A moment in UTC, whole seconds since 1970. Databases and files round; so do we, once, here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(pub i64);

/// A reading of the wall clock that the expiry column is written in: whole seconds from 1970-01-01 00:00:00 *of that
/// clock*. Only comparable with readings of the same column's clock (product rule R11).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WallClock(pub i64);

impl Timestamp {
    pub fn plus(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add_unsigned(span.as_secs()))
    }

    pub fn minus(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub_unsigned(span.as_secs()))
    }

    /// Time from `earlier` to this; zero if it is the other way round.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0).max(0) as u64)
    }
}

impl WallClock {
    pub fn plus(self, span: Duration) -> WallClock {
        WallClock(self.0.saturating_add_unsigned(span.as_secs()))
    }

    pub fn minus(self, span: Duration) -> WallClock {
        WallClock(self.0.saturating_sub_unsigned(span.as_secs()))
    }
}

fn render(seconds: i64, suffix: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match DateTime::from_timestamp(seconds, 0) {
        Some(at) => write!(f, "{}{suffix}", at.format("%Y-%m-%d %H:%M:%S")),
        None => write!(f, "second {seconds}{suffix}"),
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        render(self.0, "Z", f)
    }
}

impl fmt::Display for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        render(self.0, "", f)
    }
}

/// Prints a span the way the configuration writes it: `90s` as `90s`, `120s` as `2m`, `30d` as `30d`.
pub fn span(duration: Duration) -> String {
    let s = duration.as_secs();
    let ms = duration.subsec_millis();
    match s {
        _ if ms > 0 => format!("{}ms", duration.as_millis()),
        0 => "0s".to_owned(),
        _ if s.is_multiple_of(86_400) => format!("{}d", s / 86_400),
        _ if s.is_multiple_of(3_600) => format!("{}h", s / 3_600),
        _ if s.is_multiple_of(60) => format!("{}m", s / 60),
        _ => format!("{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_dates() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01 00:00:00Z");
        assert_eq!(WallClock(86_399).to_string(), "1970-01-01 23:59:59");
        assert_eq!(WallClock(i64::MAX).to_string(), format!("second {}", i64::MAX));
    }

    #[test]
    fn arithmetic_stops_at_the_ends_of_time() {
        assert_eq!(WallClock(i64::MAX).plus(Duration::from_secs(9)), WallClock(i64::MAX));
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
    }

    #[test]
    fn spans_read_as_configured() {
        for (ms, text) in [(500, "500ms"), (120_000, "2m"), (90_000, "90s"), (30 * 86_400_000, "30d"), (0, "0s")] {
            assert_eq!(span(Duration::from_millis(ms)), text);
        }
    }
}
