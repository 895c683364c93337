//! What is wrong, as an administrator thinks of it: one entry an incident, not one a user and not one a pass. Pure: time is an
//! argument.
//!
//! ```text
//!            news                 a minute (an outage: five) later, and not within the interval
//!   quiet ─────────► something to tell ─────────────────────────────────────────────► a mail
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::{CostCenterRef, Mailbox, Timestamp, printable};
use crate::plan::Missing;
use crate::plan::limits::LimitKind;
use crate::plan::tripwires::{Stop, Tripwire};
use crate::report::{PassKind, Report};

/// News waits for so long for others, so that a burst is one mail.
pub(super) const SETTLE: Duration = Duration::from_secs(60);
/// What often passes by itself is told only if it has lasted so long.
const OUTAGE: Duration = Duration::from_secs(300);
/// What nobody mends is told again.
const AGAIN: Duration = Duration::from_secs(86_400);
/// How many logins of failed users an entry names.
const LOGINS: usize = 20;

/// What an incident is about; of a kind there is one at a time in a database.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Subject {
    /// Something that keeps the whole from working: the program ended.
    Fatal,
    Database,
    Journal,
    Pass,
    Tripwire(Tripwire),
    Limit(String, LimitKind),
    Blocker(String, Missing),
    Pilot(CostCenterRef),
    Failed(String),
    Undeliverable,
    Waiting,
}

impl Subject {
    /// For how long it must have lasted to be told.
    fn patience(&self) -> Duration {
        match self {
            Subject::Database | Subject::Pass | Subject::Journal => OUTAGE,
            _ => SETTLE,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Incident {
    pub(super) since: Timestamp,
    /// `None`: it lasts.
    pub(super) over: Option<Timestamp>,
    /// As seen last.
    pub(super) sentence: String,
    told: bool,
}

impl Incident {
    /// Whether a mail that goes now tells it: once one goes, nothing is too young but what may pass by itself.
    fn is_ripe(&self, subject: &Subject, now: Timestamp) -> bool {
        let age = now.since(self.since);
        age >= subject.patience() || (subject.patience() == SETTLE && age > Duration::ZERO)
    }
}

/// All that is wrong, by database.
#[derive(Clone, Debug)]
pub(super) struct Incidents {
    interval: Duration,
    known: BTreeMap<(String, Subject), Incident>,
    /// When a mail was sent last, or has failed.
    last: Option<Timestamp>,
    not_before: Timestamp,
}

/// What a mail tells.
#[derive(Debug)]
pub(super) struct Told<'a> {
    pub(super) new: Vec<(&'a str, &'a Incident)>,
    pub(super) lasting: Vec<(&'a str, &'a Incident)>,
    pub(super) over: Vec<(&'a str, &'a Incident)>,
}

impl Incidents {
    pub(super) fn new(interval: Duration) -> Incidents {
        Incidents { interval, known: BTreeMap::new(), last: None, not_before: Timestamp(0) }
    }

    /// Those of `databases`, with another interval.
    pub(super) fn renewed(&self, interval: Duration, databases: &[&str]) -> Incidents {
        let mut renewed = Incidents { interval, ..self.clone() };
        renewed.known.retain(|(database, _), _| databases.contains(&database.as_str()));
        renewed
    }

    pub(super) fn lasts(&mut self, database: &str, subject: Subject, sentence: impl Into<String>, now: Timestamp) {
        let sentence = printable(&sentence.into()).into_owned();
        let new = Incident { since: now, over: None, sentence: sentence.clone(), told: false };
        // For what grows, to have been told of less is not to have been told.
        let grows = subject == Subject::Undeliverable;
        let incident = self.known.entry((database.to_owned(), subject)).or_insert(new);
        // What was over, was not told as such and is there again has lasted, for whoever reads mails.
        incident.over = None;
        incident.told &= !grows || incident.sentence == sentence;
        incident.sentence = sentence;
    }

    pub(super) fn over(&mut self, database: &str, subject: &Subject, now: Timestamp) {
        self.over_where(database, now, |known| known == subject);
    }

    fn over_where(&mut self, database: &str, now: Timestamp, which: impl Fn(&Subject) -> bool) {
        self.known.retain(|(of, subject), incident| {
            if of != database || !which(subject) || incident.over.is_some() {
                return true;
            }
            incident.over = Some(now);
            // What came and went before anybody was told is worth a word only if it was no trifle.
            incident.told || now.since(incident.since) >= subject.patience()
        });
    }

    /// A pass has ended. What it says nothing of is not over: a poll looks at few users, and asks for no figures.
    pub(super) fn report(&mut self, report: &Report, now: Timestamp) {
        let of = report.database.as_str();
        self.over(of, &Subject::Database, now);
        self.over(of, &Subject::Fatal, now);
        match &report.error {
            Some(error) => self.lasts(of, Subject::Pass, format!("passes end early: {error}"), now),
            None => self.over(of, &Subject::Pass, now),
        }
        let mut seen = Vec::new();
        let mut found = |subject: Subject, sentence: String| seen.push((subject, sentence));
        report.stops.iter().for_each(|stop| found(Subject::Tripwire(stop.tripwire()), stop.to_string()));
        for refusal in &report.refusals {
            found(Subject::Limit(refusal.policy.0.clone(), refusal.limit), refusal.to_string());
        }
        for blocker in &report.blockers {
            let sentence = format!("policy {} is blocked: the database has no {}", blocker.policy, blocker.missing);
            found(Subject::Blocker(blocker.policy.0.clone(), blocker.missing.clone()), sentence);
        }
        for place in &report.pilot_missing {
            let sentence = format!("the pilot names cost center {place}, which the database does not have: nobody is covered by it");
            found(Subject::Pilot(place.clone()), sentence);
        }
        for policy in report.policies.iter().filter(|policy| policy.failed > 0) {
            found(Subject::Failed(policy.policy.0.clone()), failed(report, &policy.policy.0, policy.failed));
        }
        if report.kind == PassKind::Once && report.mail.rejected > 0 {
            let sentence =
                format!("{} mails were refused for good; `credkeeper status` and `journal list` tell which", report.mail.rejected);
            found(Subject::Undeliverable, sentence);
        }
        if report.kind == PassKind::Once && report.mail.waiting > 0 {
            let sentence =
                format!("{} mails wait in the journal for the next run; `credkeeper doctor` tells what keeps them", report.mail.waiting);
            found(Subject::Waiting, sentence);
        }
        let sprung: Vec<Tripwire> = report.stops.iter().map(Stop::tripwire).collect();
        let full = report.counts.is_some() && report.error.is_none();
        self.over_where(of, now, |known| match known {
            Subject::Tripwire(tripwire) => !sprung.contains(tripwire) && report.judged(*tripwire),
            Subject::Limit(..) | Subject::Blocker(..) | Subject::Pilot(_) | Subject::Failed(_) => {
                full && !seen.iter().any(|(subject, _)| subject == known)
            }
            Subject::Fatal | Subject::Database | Subject::Journal | Subject::Pass | Subject::Undeliverable | Subject::Waiting => false,
        });
        seen.into_iter().for_each(|(subject, sentence)| self.lasts(of, subject, sentence, now));
    }

    /// When the next mail should go; `None`: there is nothing to tell.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let ripe = self.known.iter().map(|((_, subject), incident)| match (incident.over, incident.told, self.last) {
            (None, true, Some(last)) => last.plus(AGAIN),
            (None, ..) => incident.since.plus(subject.patience()),
            (Some(over), ..) => over.plus(SETTLE),
        });
        let next = self.last.map_or(Timestamp(0), |last| last.plus(self.interval)).max(self.not_before);
        ripe.min().map(|at| at.max(next))
    }

    /// What a mail would tell now; `at_once`: whatever is wrong, however young. `None`: nothing.
    pub(super) fn told(&self, now: Timestamp, at_once: bool) -> Option<Told<'_>> {
        let mut told = Told { new: Vec::new(), lasting: Vec::new(), over: Vec::new() };
        for ((database, subject), incident) in &self.known {
            let entry = (database.as_str(), incident);
            match incident {
                // In this very second it may not be all: it is told in the next mail.
                Incident { over: Some(over), .. } if *over < now => told.over.push(entry),
                Incident { over: Some(_), .. } => {}
                Incident { told: true, .. } => told.lasting.push(entry),
                _ if at_once || incident.is_ripe(subject, now) => told.new.push(entry),
                _ => {}
            }
        }
        let is_empty = told.new.is_empty() && told.lasting.is_empty() && told.over.is_empty();
        (!is_empty).then_some(told)
    }

    /// A mail about all that was wrong at `now` has gone.
    pub(super) fn sent(&mut self, now: Timestamp) {
        self.last = Some(now);
        self.known.retain(|(_, subject), incident| {
            incident.told |= incident.is_ripe(subject, now);
            incident.over.is_none_or(|over| over >= now)
        });
    }

    /// It has not gone; to be tried again.
    pub(super) fn not_sent(&mut self, not_before: Timestamp) {
        self.not_before = not_before;
    }
}

/// `3 users of policy visitors failed: no PIN is free (2), … : v…@example.org, jdoe`.
fn failed(report: &Report, policy: &str, total: u64) -> String {
    let problems = || report.problems.iter().filter(|problem| problem.is_failure && problem.policy.0 == policy);
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    problems().for_each(|problem| *reasons.entry(problem.code).or_default() += 1);
    let reasons: Vec<String> = reasons.iter().map(|(code, users)| format!("{code} ({users})")).collect();
    let logins: Vec<String> = problems().take(LOGINS).map(|problem| masked(&problem.login)).collect();
    let more = if total > logins.len() as u64 { ", …" } else { "" };
    format!("{total} users of policy {policy} failed: {}: {}{more}", reasons.join(", "), logins.join(", "))
}

/// Mail crosses other people's servers: no address in full, as in the log.
fn masked(login: &str) -> String {
    match login.contains('@') {
        true => Mailbox::parse(login).map_or_else(|_| "…".to_owned(), |mailbox| mailbox.to_string()),
        false => login.to_owned(),
    }
}

#[cfg(test)]
mod tests;
