//! What the log has said: of a tripwire once when it springs, and once when it is over; of a limit or a missing cost center once
//! with each full comparison. A poll every few seconds would say it again and again.

use std::collections::BTreeSet;

use crate::plan::tripwires::{Stop, Tripwire};
use crate::report::Report;

#[derive(Debug, Default)]
pub(super) struct Said {
    tripwires: BTreeSet<Tripwire>,
    /// Limits and missing cost centers, since the last full comparison.
    others: BTreeSet<String>,
}

/// What a report has to say that has not been said.
pub(super) struct News<'r> {
    pub(super) sprung: Vec<&'r Stop>,
    pub(super) over: Vec<Tripwire>,
}

impl Said {
    pub(super) fn news<'r>(&mut self, report: &'r Report) -> News<'r> {
        let now: BTreeSet<Tripwire> = report.stops.iter().map(Stop::tripwire).collect();
        if report.counts.is_some() {
            self.others.clear();
        }
        let over: Vec<Tripwire> = self.tripwires.iter().copied().filter(|known| !now.contains(known) && report.judged(*known)).collect();
        self.tripwires.retain(|known| !over.contains(known));
        let sprung = report.stops.iter().filter(|stop| self.tripwires.insert(stop.tripwire())).collect();
        News { sprung, over }
    }

    /// Whether this has not been said since the last full comparison.
    pub(super) fn is_new(&mut self, what: String) -> bool {
        self.others.insert(what)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{PassId, Timestamp};
    use crate::inventory::{Counts, ReadOnly};
    use crate::report::PassKind;

    #[test]
    fn a_limit_is_said_once_between_two_full_comparisons() {
        let report = |full: bool| {
            let report = Report::new(PassId("p".into()), "main".into(), PassKind::Poll, false, Timestamp(0), vec![]);
            Report { counts: full.then(Counts::default), ..report }
        };
        let mut said = Said::default();
        let mut says = |full| {
            said.news(&report(full));
            said.is_new("limit visitors pin_density".to_owned())
        };
        assert_eq!([true, false, false, true, false].map(&mut says), [true, false, false, true, false]);
    }

    #[test]
    fn a_tripwire_is_said_once_and_once_more_when_it_is_over() {
        let report = |full: bool, stops: &[Stop]| {
            let report = Report::new(PassId("p".into()), "main".into(), PassKind::Poll, false, Timestamp(0), vec![]);
            Report { counts: full.then(Counts::default), clock_skew: Some(0), stops: stops.to_vec(), ..report }
        };
        let (read_only, skew) = (Stop::ReadOnly(ReadOnly::Standby), Stop::ClockSkew { seconds: 99, allowed: Duration::ZERO });
        let shrunk = Stop::UsersShrunk { before: 9, now: 1, allowed: crate::domain::Share::percent(20.0).unwrap() };
        let mut said = Said::default();
        #[rustfmt::skip]
        let steps: Vec<(&str, Report, Vec<&str>, Vec<&str>)> = vec![
            ("all is well", report(true, &[]), vec![], vec![]),
            ("it springs", report(false, &[read_only]), vec!["read_only"], vec![]),
            ("it still does", report(false, &[read_only]), vec![], vec![]),
            ("another one beside it", report(false, &[read_only, skew]), vec!["clock_skew"], vec![]),
            ("one is over", report(false, &[skew]), vec![], vec!["read_only"]),
            ("the other too, and a full pass finds a third", report(true, &[shrunk]), vec!["users_shrunk"], vec!["clock_skew"]),
            ("a poll cannot tell that users are back", report(false, &[]), vec![], vec![]),
            ("a full pass can", report(true, &[]), vec![], vec!["users_shrunk"]),
            ("it springs again", report(false, &[read_only]), vec!["read_only"], vec![]),
        ];
        for (sentence, report, sprung, over) in steps {
            let news = said.news(&report);
            assert_eq!(news.sprung.iter().map(|s| s.tripwire().as_str()).collect::<Vec<_>>(), sprung, "{sentence}");
            assert_eq!(news.over.iter().map(|t| t.as_str()).collect::<Vec<_>>(), over, "{sentence}");
        }
    }
}
