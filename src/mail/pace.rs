//! Spreads mails over time, for servers that allow so many a minute (Exchange Online: 30).

use std::time::{Duration, Instant};

use crate::domain::Limit;

/// A bucket of tokens that starts full: a minute's worth of mails may go at once, then they follow evenly.
///
/// Kept as the one moment at which the bucket would be full again (the "virtual scheduling" form of the same rule): no
/// rounding, nothing to refill.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Between two mails, once the bucket is empty; zero: no limit.
    interval: Duration,
    /// How far ahead of the even rhythm mails may run.
    slack: Duration,
    full_at: Option<Instant>,
}

impl Bucket {
    /// A limit of 0 counts as 1: mail that never goes is `transport: none`, not a pace.
    pub fn new(mails_per_minute: Limit<u64>) -> Bucket {
        let minute = Duration::from_secs(60);
        let interval = match mails_per_minute {
            Limit::At(mails) => Duration::from_nanos(minute.as_nanos() as u64 / mails.max(1)),
            Limit::Unlimited => Duration::ZERO,
        };
        Bucket { interval, slack: minute.saturating_sub(interval), full_at: None }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// How long to wait before there is one; nothing is taken.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let ahead = self.full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        if !self.interval.is_zero() {
            if ahead > self.slack {
                return Err(ahead - self.slack);
            }
            self.full_at = Some(now + ahead + self.interval);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many mails go in the first `seconds`, asked again whenever the bucket says so.
    fn sent(limit: Limit<u64>, seconds: u64) -> usize {
        let start = Instant::now();
        let mut bucket = Bucket::new(limit);
        let (mut now, mut sent) = (start, 0);
        while now < start + Duration::from_secs(seconds) && sent < 100_000 {
            match bucket.take(now) {
                Ok(()) => sent += 1,
                Err(wait) => now += wait,
            }
        }
        sent
    }

    #[test]
    fn a_minutes_worth_goes_at_once_then_mails_follow_evenly() {
        assert_eq!(sent(Limit::At(30), 1), 30);
        assert_eq!(sent(Limit::At(30), 60), 30 + 29);
        assert_eq!(sent(Limit::At(30), 601), 30 + 300);
        assert_eq!(sent(Limit::At(1), 150), 3);
    }

    #[test]
    fn a_minute_of_silence_fills_the_bucket_and_an_hour_does_not_overfill_it() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Limit::At(30));
        for later in [0, 60, 3660] {
            let now = start + Duration::from_secs(later);
            assert_eq!((0..100).filter(|_| bucket.take(now).is_ok()).count(), 30, "after {later} s");
        }
    }

    #[test]
    fn unlimited_and_absurd_limits_never_wait() {
        assert_eq!(sent(Limit::Unlimited, 1), 100_000);
        assert_eq!(sent(Limit::At(u64::MAX), 1), 100_000);
        assert_eq!(sent(Limit::At(0), 59), 1);
    }
}
