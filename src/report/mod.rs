//! What a pass did, as totals and the first problems: text for a person, JSON for a program. Holds no secret, so it can
//! be printed to anyone.

use std::collections::BTreeMap;

use crate::domain::{CostCenterRef, PassId, PolicyName, Timestamp, UserId};
use crate::inventory::Counts;
use crate::plan::density::Density;
use crate::plan::limits::Refusal;
use crate::plan::tripwires::{Stop, Tripwire};
use crate::plan::{Blocker, Failure, Skip, codes};

pub mod file;
pub mod json;
#[cfg(test)]
pub(crate) mod samples;
pub mod text;

/// One pass over one database, or the preview of one.
#[derive(Clone, Debug)]
pub struct Report {
    pub pass: PassId,
    pub database: String,
    pub kind: PassKind,
    /// Nothing was written: the figures say what would be.
    pub dry_run: bool,
    /// A dry run because of `mode: observe`.
    pub observe: bool,
    pub started: Timestamp,
    pub read_ms: u64,
    pub plan_ms: u64,
    pub write_ms: u64,
    /// Rows looked at one by one; the others were settled by the database's own look.
    pub seen: u64,
    /// Only after a full pass.
    pub counts: Option<Counts>,
    /// Real users without any PIN, where a full pass looked for them.
    pub pinless: Option<u64>,
    /// Whether it was looked at if mail goes.
    pub delivery_judged: bool,
    /// One for each policy, in their order.
    pub policies: Vec<PolicyReport>,
    pub blockers: Vec<Blocker>,
    /// Cost centers that the pilot names and the database lacks: nobody is covered by them.
    pub pilot_missing: Vec<CostCenterRef>,
    /// Sprung tripwires.
    pub stops: Vec<Stop>,
    /// How full the PIN space of each policy is; empty where it was not asked.
    pub densities: Vec<Density>,
    /// How many seconds the database's clock is ahead of ours; `None`: it was not asked.
    pub clock_skew: Option<i64>,
    pub refusals: Vec<Refusal>,
    /// The first [`PROBLEMS`] users with something wrong, those first for whom something failed; the totals count all of them.
    pub problems: Vec<Problem>,
    pub mail: MailTotals,
    pub reminders: ReminderTotals,
    pub recovered: Recovered,
    /// Drawn PINs that turned out to be taken.
    pub collisions: u64,
    /// Why the pass ended early; the totals hold up to there.
    pub error: Option<String>,
}

/// How many problems a report names.
pub const PROBLEMS: usize = 100;

#[derive(Clone, Debug)]
pub struct PolicyReport {
    pub policy: PolicyName,
    pub due: u64,
    pub refused: bool,
    pub skipped: BTreeMap<Skip, u64>,
    pub changes: BTreeMap<(ChangeKind, ChangeOutcome), u64>,
    /// Users whose change failed.
    pub failed: u64,
    /// Users who were no longer as planned.
    pub changed_meanwhile: u64,
    /// Users who had no PIN and got one.
    pub gained: u64,
    /// Users whose PINs were removed.
    pub lost: u64,
}

/// One user with something wrong. The login is the site's own name for the user, and no secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    pub user: UserId,
    pub login: String,
    pub policy: PolicyName,
    /// A reason code, as in `explain`.
    pub code: &'static str,
    pub sentence: String,
    /// Something went wrong; else the user is only left alone for now.
    pub is_failure: bool,
}

impl Problem {
    pub fn skipped(user: UserId, login: &str, policy: &PolicyName, skip: Skip) -> Problem {
        let (login, policy) = (login.to_owned(), policy.clone());
        Problem { user, login, policy, code: skip.as_str(), sentence: skip.sentence().to_owned(), is_failure: false }
    }

    pub fn failed(user: UserId, login: &str, policy: &PolicyName, failure: Failure, sentence: String) -> Problem {
        Problem { user, login: login.to_owned(), policy: policy.clone(), code: failure.as_str(), sentence, is_failure: true }
    }
}

/// One user in a report's list.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    pub user: UserId,
    pub login: &'a str,
    pub policy: &'a str,
    /// due, skipped, applied, changed_meanwhile or failed.
    pub state: &'static str,
    /// Reason codes of what is or would be changed, or why not.
    pub codes: &'a [&'static str],
}

/// Mail handled while the pass ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MailTotals {
    pub accepted: u64,
    pub deferred: u64,
    pub rejected: u64,
    /// Left in the journal.
    pub waiting: u64,
}

/// Reminders that a PIN is about to lapse.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReminderTotals {
    /// Found by this pass; in a preview, those that a pass would send.
    pub due: u64,
    /// Handled while the pass ran, those of earlier passes too.
    pub accepted: u64,
    pub deferred: u64,
    pub rejected: u64,
    /// Left in the journal.
    pub waiting: u64,
}

/// What an earlier crash left behind, and what became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// Found in the database: their mails are sent.
    pub resent: u64,
    /// Not found: forgotten.
    pub abandoned: u64,
    /// Gone again before the mail was sent: no mail.
    pub superseded: u64,
    /// Mailed, and lost with a database that was restored from an older backup and then adopted.
    pub lost_after_delivery: u64,
}

codes!(
    /// Label `kind` of the pass metrics.
    PassKind {
        Poll = "poll", "a look for new users";
        Resync = "resync", "a full comparison";
        Once = "once", "a single full pass";
    }
);
codes!(
    /// Label `outcome` of `passes_total`.
    PassOutcome {
        Changed = "changed", "changes were made";
        Unchanged = "unchanged", "nothing was to do";
        Partial = "partial", "changes were made, but some users failed";
        Failed = "failed", "the pass ended early";
        Refused = "refused", "a limit, a tripwire or a blocker stopped something";
    }
);
codes!(
    /// Label `change` of `changes_total`.
    ChangeKind {
        PinIssued = "pin_issued", "PINs issued";
        PinExtended = "pin_extended", "PINs that got a later end";
        PinExpired = "pin_expired", "PINs ended";
        PinDeleted = "pin_deleted", "PINs removed";
        CacIssued = "cac_issued", "card assignment codes issued";
        PasswordIssued = "password_issued", "passwords issued";
        CostCenterMoved = "cost_center_moved", "users moved to another cost center";
        RoleRemoved = "role_removed", "roles removed";
        TakenBack = "taken_back", "users of whom was taken back what could not be delivered";
    }
);
codes!(
    /// Label `outcome` of `changes_total`.
    ChangeOutcome {
        Applied = "applied", "applied";
        ChangedMeanwhile = "changed_meanwhile", "no longer as planned";
        Failed = "failed", "failed";
    }
);

impl ChangeKind {
    /// What the log says when it has happened.
    pub fn done(self) -> &'static str {
        match self {
            ChangeKind::PinIssued => "issued a PIN",
            ChangeKind::PinExtended => "gave a PIN a new end",
            ChangeKind::PinExpired => "ended a PIN",
            ChangeKind::PinDeleted => "removed a PIN",
            ChangeKind::CacIssued => "issued a card assignment code",
            ChangeKind::PasswordIssued => "issued a password",
            ChangeKind::CostCenterMoved => "changed the cost center",
            ChangeKind::RoleRemoved => "removed a role",
            ChangeKind::TakenBack => "took back what was issued",
        }
    }
}

impl PolicyReport {
    pub fn new(policy: PolicyName) -> PolicyReport {
        PolicyReport {
            policy,
            due: 0,
            refused: false,
            skipped: BTreeMap::new(),
            changes: BTreeMap::new(),
            failed: 0,
            changed_meanwhile: 0,
            gained: 0,
            lost: 0,
        }
    }

    pub fn count(&mut self, kind: ChangeKind, outcome: ChangeOutcome, by: u64) {
        if by > 0 {
            *self.changes.entry((kind, outcome)).or_default() += by;
        }
    }

    /// Changes of all kinds that were made.
    pub fn applied(&self) -> u64 {
        self.changes.iter().filter(|((_, outcome), _)| *outcome == ChangeOutcome::Applied).map(|(_, n)| n).sum()
    }
}

impl Report {
    /// The report of a pass that has done nothing yet.
    pub fn new(pass: PassId, database: String, kind: PassKind, dry_run: bool, started: Timestamp, policies: Vec<PolicyReport>) -> Report {
        Report {
            pass,
            database,
            kind,
            dry_run,
            observe: false,
            started,
            read_ms: 0,
            plan_ms: 0,
            write_ms: 0,
            seen: 0,
            counts: None,
            pinless: None,
            delivery_judged: false,
            policies,
            blockers: Vec::new(),
            pilot_missing: Vec::new(),
            stops: Vec::new(),
            densities: Vec::new(),
            clock_skew: None,
            refusals: Vec::new(),
            problems: Vec::new(),
            mail: MailTotals::default(),
            reminders: ReminderTotals::default(),
            recovered: Recovered::default(),
            collisions: 0,
            error: None,
        }
    }

    /// The problem is counted by whoever reports it; here only the first are kept, failures before all others.
    pub fn problem(&mut self, problem: Problem) {
        let failures = self.problems.partition_point(|p| p.is_failure);
        let place = if problem.is_failure { failures } else { self.problems.len() };
        if place < PROBLEMS {
            self.problems.insert(place, problem);
            self.problems.truncate(PROBLEMS);
        }
    }

    pub fn due(&self) -> u64 {
        self.policies.iter().map(|p| p.due).sum()
    }

    pub fn failed(&self) -> u64 {
        self.policies.iter().map(|p| p.failed).sum()
    }

    pub fn applied(&self) -> u64 {
        self.policies.iter().map(PolicyReport::applied).sum()
    }

    /// Whether a tripwire forbids every change.
    pub fn is_stopped(&self) -> bool {
        self.stops.iter().any(Stop::ends_the_pass)
    }

    /// Whether this pass could see that the tripwire is not sprung: a poll asks for no figures, and where nobody is due, nobody
    /// asks whether mail goes.
    pub fn judged(&self, tripwire: Tripwire) -> bool {
        let full = self.counts.is_some() && self.error.is_none();
        match tripwire {
            // A pass that asks for the time began, so the database was found to be no older one.
            Tripwire::ReadOnly | Tripwire::ClockSkew | Tripwire::Restored => self.clock_skew.is_some(),
            Tripwire::DeliveryDown => self.delivery_judged,
            Tripwire::UsersShrunk | Tripwire::UnexplainedPins => full,
            Tripwire::PinlessRise => full && self.pinless.is_some(),
        }
    }

    /// Whether a limit, a tripwire or a missing cost center left work undone.
    pub fn is_refused(&self) -> bool {
        !(self.refusals.is_empty() && self.blockers.is_empty() && self.stops.is_empty() && self.pilot_missing.is_empty())
    }

    /// Whether somebody has not got a mail that was due.
    pub fn is_undelivered(&self) -> bool {
        self.mail.rejected > 0 || self.mail.waiting > 0 || self.reminders.rejected > 0 || self.reminders.waiting > 0
    }

    /// The worst that happened decides.
    pub fn outcome(&self) -> PassOutcome {
        if self.error.is_some() {
            PassOutcome::Failed
        } else if self.is_refused() {
            PassOutcome::Refused
        } else if self.failed() > 0 {
            PassOutcome::Partial
        } else if self.applied() > 0 {
            PassOutcome::Changed
        } else {
            PassOutcome::Unchanged
        }
    }
}
