//! When the next look is due. Pure: the clock and the dice are arguments.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::config::Resync;
use crate::domain::Timestamp;

/// How long after `now` the next full comparison is due.
pub(super) fn until_resync(resync: &Resync, now: DateTime<Utc>) -> Duration {
    match resync {
        Resync::Every(interval) => *interval,
        // An expression that never comes again (a past year) is looked at again in a day.
        Resync::Cron(expression) => {
            expression.after(&now).next().and_then(|at| (at - now).to_std().ok()).unwrap_or(Duration::from_secs(86_400))
        }
    }
}

/// `base` longer or shorter by up to the share `jitter`; `dice` from 0 to 1.
pub(super) fn jittered(base: Duration, jitter: f64, dice: f64) -> Duration {
    base.mul_f64((1.0 + jitter * (2.0 * dice - 1.0)).max(0.0))
}

/// The pause after `failures` passes in a row that failed: 1 s, doubling, at most a minute.
pub(super) fn backoff(failures: u32) -> Duration {
    Duration::from_secs(1u64 << failures.saturating_sub(1).min(6)).min(Duration::from_secs(60))
}

/// The pause after `tries` at a database that only a person can mend: 5 s, doubling, at most five minutes.
pub(super) fn patience(tries: u32) -> Duration {
    Duration::from_secs(5u64 << tries.saturating_sub(1).min(6)).min(Duration::from_secs(300))
}

/// UTC as the schedule needs it.
pub(super) fn utc(now: Timestamp) -> DateTime<Utc> {
    DateTime::from_timestamp(now.0, 0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    #[test]
    fn intervals_and_expressions_give_the_next_time() {
        let now = utc(Timestamp(600 * 7 + 60)); // 01:11:00
        assert_eq!(until_resync(&Resync::Every(Duration::from_secs(9)), now), Duration::from_secs(9));
        let ten = Resync::Cron(Box::new(cron::Schedule::from_str("0 */10 * * * *").unwrap()));
        assert_eq!(until_resync(&ten, now), Duration::from_secs(540));
    }

    #[test]
    fn jitter_stays_within_its_share() {
        let base = Duration::from_secs(10);
        assert_eq!(jittered(base, 0.1, 0.0), Duration::from_secs(9));
        assert_eq!(jittered(base, 0.1, 0.5), base);
        assert_eq!(jittered(base, 0.1, 1.0), Duration::from_secs(11));
        assert_eq!(jittered(base, 0.0, 0.9), base);
    }

    #[test]
    fn pauses_grow_and_end() {
        assert_eq!([1, 2, 3, 7, 8, 99].map(|n| backoff(n).as_secs()), [1, 2, 4, 60, 60, 60]);
    }
}
