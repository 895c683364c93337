//! When a mail that was put off is tried again: a pure function of the issuance, the attempt and the time.

use std::time::Duration;

use crate::domain::scatter::scatter;
use crate::domain::{IssuanceId, Timestamp};

const FIRST_PAUSE_SECONDS: u64 = 15;
const LONGEST_PAUSE_SECONDS: u64 = 15 * 60;

/// What follows a temporary failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Retry {
    At(Timestamp),
    GiveUp,
}

/// `attempt` counts from 1; `first_try` is when that one was. The last try falls on the deadline itself, so that a long pause
/// does not cut the promised time short.
pub(super) fn after(issuance: IssuanceId, attempt: u32, first_try: Timestamp, now: Timestamp, give_up_after: Duration) -> Retry {
    let deadline = first_try.plus(give_up_after);
    if now >= deadline {
        return Retry::GiveUp;
    }
    Retry::At(now.plus(pause(issuance, attempt)).min(deadline))
}

/// 15 s, doubling to 15 min, up to 20 % less or more. The difference comes from the issuance and the attempt, not from chance:
/// a thousand mails put off together do not come back together, and a test can tell when each one will.
fn pause(issuance: IssuanceId, attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    let base = (FIRST_PAUSE_SECONDS << doublings).min(LONGEST_PAUSE_SECONDS);
    let thousandths = 800 + scatter((issuance.0 as u64) << 8 ^ u64::from(attempt)) % 401;
    Duration::from_secs((base * thousandths + 500) / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_DAYS: Duration = Duration::from_secs(48 * 3600);

    #[test]
    fn pauses_double_from_15_seconds_to_15_minutes_give_or_take_a_fifth() {
        for id in 0..500 {
            for (attempt, base) in
                [(1, 15), (2, 30), (3, 60), (4, 120), (5, 240), (6, 480), (7, 900), (8, 900), (1000, 900), (u32::MAX, 900)]
            {
                let seconds = pause(IssuanceId(id), attempt).as_secs();
                assert!((base * 8 / 10..=base * 12 / 10).contains(&seconds), "{seconds} s after attempt {attempt}");
            }
        }
    }

    #[test]
    fn mails_put_off_together_come_back_spread_out_and_always_at_the_same_moment() {
        let pauses: Vec<u64> = (0..1000).map(|id| pause(IssuanceId(id), 7).as_secs()).collect();
        let different: std::collections::BTreeSet<u64> = pauses.iter().copied().collect();
        assert!(different.len() > 200, "only {} different pauses", different.len());
        let mean = pauses.iter().sum::<u64>() / 1000;
        assert!((880..=920).contains(&mean), "the mean pause is {mean} s");
        assert_eq!(pause(IssuanceId(42), 3), pause(IssuanceId(42), 3));
    }

    #[test]
    fn after_the_deadline_there_is_no_other_try_and_the_last_one_falls_on_it() {
        let first = Timestamp(1_000_000);
        let deadline = first.plus(TWO_DAYS);
        let id = IssuanceId(1);
        assert_eq!(after(id, 1, first, first, Duration::ZERO), Retry::GiveUp);
        assert!(matches!(after(id, 1, first, first, TWO_DAYS), Retry::At(at) if (1_000_012..=1_000_018).contains(&at.0)));
        assert_eq!(after(id, 200, first, Timestamp(deadline.0 - 1), TWO_DAYS), Retry::At(deadline));
        assert_eq!(after(id, 200, first, deadline, TWO_DAYS), Retry::GiveUp);
    }

    #[test]
    fn a_clock_that_jumps_back_shortens_nothing() {
        assert!(matches!(after(IssuanceId(1), 3, Timestamp(500), Timestamp(100), TWO_DAYS), Retry::At(at) if at.0 < 200));
    }
}
