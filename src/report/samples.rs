//! Reports for tests, and the comparison with a golden file.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::{ChangeKind, ChangeOutcome, MailTotals, PassKind, PolicyReport, Problem, Recovered, ReminderTotals, Report};
use crate::domain::{CostCenterRef, PassId, PinLength, PolicyName, RoleRef, Share, Timestamp, UserId};
use crate::inventory::Counts;
use crate::plan::density::Density;
use crate::plan::limits::{LimitKind, Refusal};
use crate::plan::tripwires::Stop;
use crate::plan::{Blocker, Failure, Missing, Skip};

/// Compares with `tests/data/{name}`; with `UPDATE_GOLDENS=1` it writes that file instead.
pub(crate) fn golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
        std::fs::write(&path, actual).expect("the golden can be written");
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    assert!(wanted == actual, "{name} differs; look, and regenerate with UPDATE_GOLDENS=1 if it is right:\n{actual}");
}

pub(crate) fn policy(name: &str) -> PolicyReport {
    PolicyReport::new(PolicyName(name.to_owned()))
}

/// A full pass that found nothing to do.
pub(crate) fn quiet() -> Report {
    Report {
        pass: PassId("5f1c02aa".to_owned()),
        database: "main".to_owned(),
        kind: PassKind::Resync,
        dry_run: false,
        observe: false,
        started: Timestamp(1_785_312_000),
        read_ms: 1_240,
        plan_ms: 85,
        write_ms: 0,
        seen: 0,
        counts: Some(Counts { users: 10_000, pins: 9_980, newest: 12_345, ..Counts::default() }),
        delivery_judged: false,
        pinless: Some(20),
        policies: vec![policy("visitors"), policy("employees")],
        blockers: vec![],
        pilot_missing: vec![],
        stops: vec![],
        densities: vec![],
        clock_skew: Some(0),
        refusals: vec![],
        problems: vec![],
        mail: MailTotals::default(),
        reminders: ReminderTotals::default(),
        recovered: Recovered::default(),
        collisions: 0,
        error: None,
    }
}

/// A pass that did its work.
pub(crate) fn changed() -> Report {
    let mut report = quiet();
    report.seen = 15;
    report.write_ms = 310;
    let visitors = &mut report.policies[0];
    visitors.due = 12;
    visitors.count(ChangeKind::PinIssued, ChangeOutcome::Applied, 12);
    visitors.count(ChangeKind::PinDeleted, ChangeOutcome::Applied, 2);
    visitors.count(ChangeKind::CostCenterMoved, ChangeOutcome::Applied, 11);
    visitors.skipped = BTreeMap::from([(Skip::DeliveryPending, 2), (Skip::Held, 1)]);
    report.mail = MailTotals { accepted: 12, ..MailTotals::default() };
    report
}

/// The same, before it was done.
pub(crate) fn preview() -> Report {
    let mut report = changed();
    report.kind = PassKind::Once;
    report.dry_run = true;
    report.write_ms = 0;
    report.mail = MailTotals::default();
    report.reminders.due = 7;
    report
}

/// A pass that a tripwire stopped.
pub(crate) fn stopped() -> Report {
    let mut report = quiet();
    report.kind = PassKind::Once;
    report.clock_skew = Some(-75);
    report.stops = vec![
        Stop::ClockSkew { seconds: -75, allowed: Duration::from_secs(60) },
        Stop::Restored { gone: 47, of: 48, since: Timestamp(1_785_000_000) },
        Stop::UsersShrunk { before: 20_000, now: 10_000, allowed: Share::percent(20.0).expect("a share") },
    ];
    report
}

/// A pass in which most of what can go wrong did.
pub(crate) fn troubled() -> Report {
    let mut report = changed();
    report.kind = PassKind::Once;
    let visitors = &mut report.policies[0];
    visitors.failed = 1;
    visitors.changed_meanwhile = 1;
    visitors.count(ChangeKind::PinIssued, ChangeOutcome::Failed, 1);
    visitors.count(ChangeKind::RoleRemoved, ChangeOutcome::Applied, 3);
    visitors.count(ChangeKind::PinIssued, ChangeOutcome::ChangedMeanwhile, 1);
    visitors.skipped.insert(Skip::BadAddress, 1);
    report.policies[1].due = 4_000;
    report.policies[1].refused = true;
    report.collisions = 3;
    report.policies.push(policy("students"));
    report.policies[2].skipped.insert(Skip::Blocked, 40);
    let students = report.policies[2].policy.clone();
    report.blockers.push(Blocker { policy: students.clone(), missing: Missing::Role(RoleRef::Name("Student".to_owned())) });
    report.blockers.push(Blocker { policy: students, missing: Missing::CostCenter(CostCenterRef::Name("Has PIN".to_owned())) });
    report.refusals.push(Refusal {
        kept: true,
        policy: report.policies[1].policy.clone(),
        limit: LimitKind::UsersPerPass,
        kind: None,
        plan: "0123456789ab".to_owned(),
        asked: 4_000,
        allowed: "1000".to_owned(),
        of: None,
    });
    let first = report.policies[0].policy.clone();
    report.densities.push(Density {
        policy: first.clone(),
        length: PinLength::new(4).expect("a length"),
        stored: 212,
        added: 12,
        allowed: false,
    });
    report.pilot_missing.push(CostCenterRef::Number(4_711));
    report.problem(Problem::skipped(UserId(77), "eve\u{1b}[2J\nadmin", &first, Skip::BadAddress));
    let refused = Failure::DatabaseRefused;
    report.problem(Problem::failed(UserId(78), "bob", &first, refused, refused.sentence().to_owned()));
    report.mail = MailTotals { accepted: 9, deferred: 2, rejected: 1, waiting: 2 };
    report.reminders = ReminderTotals { due: 5, accepted: 4, deferred: 1, rejected: 1, waiting: 1 };
    report.recovered = Recovered { resent: 3, abandoned: 1, superseded: 1, lost_after_delivery: 12 };
    report
}
