//! The report for a program. The keys are a promise, described in `docs/report.md`: they may be added to, never renamed.

use serde_json::{Map, Value, json};

use super::{ChangeKind, ChangeOutcome, PassOutcome, PolicyReport, Report};
use crate::domain::printable::printable_json;
use crate::domain::{CostCenterRef, RoleRef};
use crate::plan::{Blocker, Missing, Skip};

/// What came of each of several databases, or why there is no report of it.
pub fn several(ended: &[(&str, Result<&Report, String>)]) -> Value {
    let one = |(database, outcome): &(&str, Result<&Report, String>)| match outcome {
        Ok(report) => render(report),
        Err(error) => json!({"database": database, "outcome": PassOutcome::Failed.as_str(), "error": error}),
    };
    ended.iter().map(one).collect()
}

/// Counts of a closed set are all there, zeros too, so that a query needs no default.
pub fn render(report: &Report) -> Value {
    let Report { mail, reminders, recovered, .. } = report;
    json!({
        "pass": report.pass.0,
        "database": report.database,
        "kind": report.kind.as_str(),
        "dry_run": report.dry_run,
        "observe": report.observe,
        "outcome": report.outcome().as_str(),
        // As RFC 3339 wants it.
        "started": report.started.to_string().replacen(' ', "T", 1),
        "duration_ms": {"read": report.read_ms, "plan": report.plan_ms, "write": report.write_ms},
        "seen": report.seen,
        "counts": report.counts.map(|c| json!({"users": c.users, "pinless": report.pinless, "pins": c.pins, "foreign_pins": c.foreign.total()})),
        "policies": report.policies.iter().map(policy).collect::<Vec<_>>(),
        "blockers": report.blockers.iter().map(blocker).collect::<Vec<_>>(),
        "pilot_missing": report.pilot_missing.iter().map(cost_center).collect::<Vec<_>>(),
        "stops": report.stops.iter().map(|s| json!({
            "limit": s.tripwire().as_str(),
            "found": s.found(),
            "allowed": s.allowed(),
            "message": s.to_string(),
        })).collect::<Vec<_>>(),
        "densities": report.densities.iter().map(|d| json!({
            "policy": d.policy.0,
            "length": d.length.digits(),
            "stored": d.stored,
            "added": d.added,
            "of": d.length.space(),
            "verdict": d.crowding().as_str(),
        })).collect::<Vec<_>>(),
        "clock_skew": report.clock_skew,
        "refusals": report.refusals.iter().map(|r| json!({
            "policy": r.policy.0,
            "limit": r.limit.as_str(),
            "plan": r.plan,
            "asked": r.asked,
            "allowed": r.allowed,
            "of": r.of,
            "message": r.to_string(),
        })).collect::<Vec<_>>(),
        "problems": report.problems.iter().map(|p| json!({
            "user": p.user.0,
            "login": p.login,
            "policy": p.policy.0,
            "code": p.code,
            "message": p.sentence,
        })).collect::<Vec<_>>(),
        "mail": {"accepted": mail.accepted, "deferred": mail.deferred, "rejected": mail.rejected, "waiting": mail.waiting},
        "reminders": {
            "due": reminders.due,
            "accepted": reminders.accepted,
            "deferred": reminders.deferred,
            "rejected": reminders.rejected,
            "waiting": reminders.waiting,
        },
        "recovered": {
            "resent": recovered.resent,
            "abandoned": recovered.abandoned,
            "superseded": recovered.superseded,
            "lost_after_delivery": recovered.lost_after_delivery,
        },
        "error": report.error,
    })
}

/// As printed: indented, safe to show on a terminal, ended with a line break.
pub fn text(value: &Value) -> String {
    let mut text = printable_json(&format!("{value:#}")).into_owned();
    text.push('\n');
    text
}

fn cost_center(named: &CostCenterRef) -> Value {
    match named {
        CostCenterRef::Number(number) => json!(number),
        CostCenterRef::Name(name) => json!(name),
    }
}

fn blocker(blocker: &Blocker) -> Value {
    let policy = &blocker.policy.0;
    match &blocker.missing {
        Missing::CostCenter(named) => json!({"policy": policy, "cost_center": cost_center(named)}),
        Missing::Role(RoleRef::Id(id)) => json!({"policy": policy, "role": id.0}),
        Missing::Role(RoleRef::Name(name)) => json!({"policy": policy, "role": name}),
    }
}

fn policy(policy: &PolicyReport) -> Value {
    let count = |n: Option<&u64>| Value::from(n.copied().unwrap_or_default());
    let skipped: Map<String, Value> = Skip::ALL.iter().map(|s| (s.as_str().to_owned(), count(policy.skipped.get(s)))).collect();
    let changes: Map<String, Value> = ChangeKind::ALL
        .iter()
        .map(|kind| {
            let outcomes = ChangeOutcome::ALL.iter().map(|o| (o.as_str().to_owned(), count(policy.changes.get(&(*kind, *o)))));
            (kind.as_str().to_owned(), Value::Object(outcomes.collect()))
        })
        .collect();
    json!({
        "policy": policy.policy.0,
        "due": policy.due,
        "refused": policy.refused,
        "skipped": skipped,
        "changes": changes,
        "failed": policy.failed,
        "changed_meanwhile": policy.changed_meanwhile,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::{golden, preview, quiet, stopped, troubled};

    #[test]
    fn reports_read_as_the_goldens_do() {
        for (name, report) in [("quiet", quiet()), ("preview", preview()), ("troubled", troubled()), ("stopped", stopped())] {
            golden(&format!("report/{name}.json"), &text(&render(&report)));
        }
    }

    #[test]
    fn every_key_is_described_in_the_manual() {
        fn keys(value: &Value, into: &mut Vec<String>) {
            match value {
                Value::Object(map) => map.iter().for_each(|(k, v)| {
                    into.push(k.clone());
                    keys(v, into);
                }),
                Value::Array(items) => items.iter().for_each(|v| keys(v, into)),
                _ => {}
            }
        }
        let manual = include_str!("../../docs/report.md");
        let mut all = Vec::new();
        keys(&render(&troubled()), &mut all);
        keys(&render(&stopped()), &mut all);
        for key in all {
            assert!(manual.contains(&format!("`{key}`")), "docs/report.md says nothing of `{key}`");
        }
    }
}
