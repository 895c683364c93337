use super::*;
use crate::domain::{PassId, PolicyName, UserId};
use crate::inventory::{Counts, ReadOnly};
use crate::plan::Failure;
use crate::report::{PolicyReport, Problem};

type Event<'a> = &'a dyn Fn(&mut Incidents, Timestamp);
/// The second at which it happens.
type At<'a> = (i64, Event<'a>);

const HOUR: Duration = Duration::from_secs(3_600);

fn report(full: bool) -> Report {
    let policies = vec![PolicyReport::new(PolicyName("visitors".into()))];
    let report = Report::new(PassId("p".into()), "main".into(), PassKind::Poll, false, Timestamp(0), policies);
    Report { counts: full.then(Counts::default), clock_skew: Some(0), ..report }
}

fn sprung(full: bool) -> Report {
    Report { stops: vec![Stop::ReadOnly(ReadOnly::Standby)], ..report(full) }
}

fn failing(users: usize) -> Report {
    let mut report = report(true);
    report.policies[0].failed = users as u64;
    for user in 0..users {
        let login = if user == 0 { "jdoe".to_owned() } else { format!("visitor{user}@example.org") };
        let policy = PolicyName("visitors".into());
        report.problem(Problem::failed(UserId(user as i64), &login, &policy, Failure::SpaceFull, "full".to_owned()));
    }
    report
}

/// Plays what happened, each at its second, and mails whenever one is due; the seconds of the mails, and how many entries each
/// had: new, lasting, over.
fn mails(interval: Duration, events: &[At<'_>], until: i64) -> Vec<(i64, [usize; 3])> {
    let mut incidents = Incidents::new(interval);
    let mut sent = Vec::new();
    for second in 1..=until {
        let now = Timestamp(second);
        events.iter().filter(|(at, _)| *at == second).for_each(|(_, event)| event(&mut incidents, now));
        if incidents.due().is_some_and(|at| at <= now) {
            let told = incidents.told(now, false).expect("what is due has something to tell");
            sent.push((second, [told.new.len(), told.lasting.len(), told.over.len()]));
            incidents.sent(now);
        }
    }
    sent
}

#[test]
fn a_burst_is_one_mail_and_the_next_waits_for_the_interval() {
    let events: [At<'_>; 4] = [
        (100, &|all, now| all.report(&sprung(true), now)),
        (130, &|all, now| all.report(&Report { stops: sprung(true).stops, ..failing(3) }, now)),
        (200, &|all, now| all.journal_trouble("the disk is full", now)),
        (9_000, &|all, now| all.report(&report(true), now)),
    ];
    // The journal's trouble waits for the next mail that may go; then comes what is over, and never only what lasts.
    assert_eq!(mails(HOUR, &events, 20_000), [(160, [2, 0, 0]), (3_760, [1, 2, 0]), (9_060, [0, 1, 2])]);
}

#[test]
fn nobody_reads_the_same_news_again_before_a_day_has_passed() {
    let all_the_time: Vec<At<'_>> =
        (10..2_000).map(|n| (n * 60, (&|all: &mut Incidents, now| all.report(&sprung(true), now)) as Event<'_>)).collect();
    assert_eq!(mails(HOUR, &all_the_time, 120_000), [(660, [1, 0, 0]), (660 + 86_400, [0, 1, 0])]);
}

#[test]
fn a_short_outage_is_no_news_and_a_long_one_is_told_and_told_to_be_over() {
    let down = |all: &mut Incidents, now| all.lasts("main", Subject::Database, "down", now);
    let up = |all: &mut Incidents, now| all.report(&report(false), now);
    assert_eq!(mails(HOUR, &[(100, &down), (390, &up)], 9_000), []);
    assert_eq!(mails(HOUR, &[(100, &down), (390, &down), (900, &up)], 9_000), [(400, [1, 0, 0]), (4_000, [0, 0, 1])]);
    // Between two mails it came and went.
    let events: [At<'_>; 3] = [(100, &|all, now| all.report(&sprung(true), now)), (1_000, &down), (2_000, &up)];
    assert_eq!(mails(HOUR, &events, 9_000), [(160, [1, 0, 0]), (3_760, [0, 0, 2])]);
}

#[test]
fn another_configuration_tells_nothing_twice_and_forgets_databases_that_left() {
    let mut incidents = Incidents::new(HOUR);
    incidents.lasts("main", Subject::Undeliverable, "3 mails", Timestamp(1));
    incidents.lasts("gone", Subject::Undeliverable, "4 mails", Timestamp(1));
    assert!(incidents.told(Timestamp(100), true).is_some());
    incidents.sent(Timestamp(100));
    let mut renewed = incidents.renewed(HOUR * 2, &["main"]);
    assert!(
        renewed
            .told(Timestamp(100 + 7_300), true)
            .is_none_or(|told| told.new.is_empty() && told.lasting.iter().all(|(of, _)| *of == "main"))
    );
    renewed.lasts("new", Subject::Fatal, "nothing goes", Timestamp(200));
    let told = renewed.told(Timestamp(100 + 7_300), true).unwrap();
    assert_eq!(told.new.iter().map(|(of, _)| *of).collect::<Vec<_>>(), ["new"]);
}

#[test]
fn a_poll_ends_nothing_that_it_did_not_look_at() {
    let mut all = Incidents::new(HOUR);
    all.report(&failing(3), Timestamp(0));
    all.sent(Timestamp(100));
    all.report(&report(false), Timestamp(200));
    assert_eq!(all.told(Timestamp(300), false).map(|told| (told.lasting.len(), told.over.len())), Some((1, 0)));
    all.report(&report(true), Timestamp(400));
    assert_eq!(all.told(Timestamp(500), false).map(|told| (told.lasting.len(), told.over.len())), Some((0, 1)));
}

#[test]
fn more_undeliverable_mails_are_news() {
    let count = |n: u64| move |all: &mut Incidents, now| all.lasts("main", Subject::Undeliverable, format!("{n} mails"), now);
    let events: [At<'_>; 3] = [(100, &count(1)), (200, &count(1)), (9_000, &count(2))];
    assert_eq!(mails(HOUR, &events, 20_000), [(160, [1, 0, 0]), (9_000, [1, 0, 0])]);
}

#[test]
fn failed_users_are_one_entry_with_twenty_masked_logins() {
    let mut all = Incidents::new(HOUR);
    all.report(&failing(150), Timestamp(0));
    let told = all.told(Timestamp(0), true).unwrap();
    assert_eq!(told.new.len(), 1);
    let sentence = &told.new[0].1.sentence;
    assert!(sentence.starts_with("150 users of policy visitors failed: pin_space_full (100): jdoe, v…@example.org, "), "{sentence}");
    assert!(sentence.ends_with(", …") && sentence.matches("v…@example.org").count() == 19 && !sentence.contains("visitor1"), "{sentence}");
}

#[test]
fn what_was_not_sent_is_tried_later_and_not_lost() {
    let mut all = Incidents::new(HOUR);
    all.report(&sprung(true), Timestamp(0));
    all.not_sent(Timestamp(1_000));
    assert_eq!(all.due(), Some(Timestamp(1_000)));
    assert_eq!(all.told(Timestamp(1_000), false).map(|told| told.new.len()), Some(1));
}

impl Incidents {
    fn journal_trouble(&mut self, why: &str, now: Timestamp) {
        self.lasts("main", Subject::Journal, why, now);
    }
}
