//! From which id on a poll looks for new users.
//!
//! Rows become visible out of order, and the print system may set a visitor's cost center a moment after the row appears.
//! So a poll looks again at everything that came within the last two minutes: the watermark is the greatest id seen by a
//! successful pass that *began* at least that long ago.

use std::collections::VecDeque;
use std::time::Duration;

use crate::domain::{Timestamp, UserId};

/// How long a row may take to become what it will be.
const SETTLING: Duration = Duration::from_secs(120);
/// How far below the newest id the first polls look, while no pass is old enough.
const FIRST_REACH: i64 = 10_000;

#[derive(Debug, Default)]
pub(super) struct Watermark {
    /// Greatest id of passes that began long enough ago, or the first reach.
    settled: Option<i64>,
    /// Younger successful passes: when they began, and the greatest id that they found.
    recent: VecDeque<(Timestamp, i64)>,
}

impl Watermark {
    /// A pass that began at `began` ended well; `newest` was the greatest id when it began.
    pub(super) fn passed(&mut self, began: Timestamp, newest: i64) {
        if self.settled.is_none() {
            self.settled = Some(newest.saturating_sub(FIRST_REACH).max(0));
        }
        self.recent.push_back((began, newest));
    }

    /// A full pass left users waiting (nothing could be delivered): polls look at them again.
    pub(super) fn waits(&mut self, newest: i64) {
        self.settled.get_or_insert(newest.saturating_sub(FIRST_REACH).max(0));
    }

    /// Polls look above this id; `None` until the first full pass has ended well.
    pub(super) fn at(&mut self, now: Timestamp) -> Option<UserId> {
        while let Some((began, newest)) = self.recent.front().copied()
            && now.since(began) >= SETTLING
        {
            self.settled = self.settled.max(Some(newest));
            self.recent.pop_front();
        }
        self.settled.map(UserId)
    }

    /// The table's newest id lies below the watermark: it was emptied or restored, and only a full pass can tell.
    pub(super) fn is_behind(&self, newest: i64) -> bool {
        self.settled.is_some_and(|settled| newest < settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_begin_after_the_first_pass_and_reach_back() {
        let mut mark = Watermark::default();
        assert_eq!(mark.at(Timestamp(0)), None);
        mark.passed(Timestamp(0), 50_000);
        assert_eq!(mark.at(Timestamp(1)), Some(UserId(40_000)));
        let mut small = Watermark::default();
        small.passed(Timestamp(0), 7);
        assert_eq!(small.at(Timestamp(1)), Some(UserId(0)));
    }

    #[test]
    fn only_a_pass_of_two_minutes_ago_moves_it() {
        let mut mark = Watermark::default();
        mark.passed(Timestamp(0), 50_000);
        mark.passed(Timestamp(60), 50_100);
        assert_eq!(mark.at(Timestamp(119)), Some(UserId(40_000)));
        assert_eq!(mark.at(Timestamp(120)), Some(UserId(50_000)));
        assert_eq!(mark.at(Timestamp(180)), Some(UserId(50_100)));
        mark.passed(Timestamp(190), 50_100);
        assert_eq!(mark.at(Timestamp(9_999)), Some(UserId(50_100)));
    }

    #[test]
    fn users_who_wait_for_the_mail_are_polled_again() {
        let mut mark = Watermark::default();
        mark.waits(50_000);
        assert_eq!(mark.at(Timestamp(500)), Some(UserId(40_000)));
        mark.passed(Timestamp(500), 50_000);
        mark.waits(60_000);
        assert_eq!(mark.at(Timestamp(900)), Some(UserId(50_000)));
    }

    #[test]
    fn a_restored_table_is_noticed() {
        let mut mark = Watermark::default();
        mark.passed(Timestamp(0), 50_000);
        mark.at(Timestamp(500));
        assert!(mark.is_behind(49_999));
        assert!(!mark.is_behind(50_000));
    }
}
