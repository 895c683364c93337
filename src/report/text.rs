//! The report for a person at a terminal. What others wrote (logins, names, a server's answer) is shown
//! [`printable()`].

use std::fmt::Write;

use super::{ChangeKind, ChangeOutcome, PROBLEMS, PassKind, PassOutcome, PolicyReport, Report};
use crate::domain::printable;
use crate::domain::printable::Printable;
use crate::plan::density::{Crowding, Density};

/// Several lines, the last one ended. Sections without anything to say are left out.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = write(report, &mut text);
    text
}

/// A section for each of several databases; of one without a report, why.
pub fn several(ended: &[(&str, Result<&Report, String>)]) -> String {
    let one = |(database, outcome): &(&str, Result<&Report, String>)| match outcome {
        Ok(report) => render(report),
        Err(error) => format!("No pass over {}: {}\n", printable(database), printable(error)),
    };
    ended.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    let Report { pass, kind, started, dry_run, .. } = report;
    let dry = match (dry_run, report.observe) {
        (_, true) => ", mode: observe: nothing was changed and no mail sent",
        (true, false) => ", dry run: nothing was written",
        (false, false) => "",
    };
    let kind = match kind {
        PassKind::Once if report.counts.is_none() => "a single pass",
        kind => kind.sentence(),
    };
    writeln!(out, "Pass {pass} over {}: {kind}{dry}", printable(&report.database))?;
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let (read, plan, write) = (seconds(report.read_ms), seconds(report.plan_ms), seconds(report.write_ms));
    writeln!(out, "Begun {started}; reading took {read:.1} s, planning {plan:.1} s, writing {write:.1} s")?;
    match report.counts {
        Some(c) => writeln!(out, "{} users with {} PINs; {} looked at one by one", c.users, c.pins, report.seen)?,
        None => writeln!(out, "{} users looked at", report.seen)?,
    }
    writeln!(out, "\n{}", printable(&verdict(report)))?;

    table(report, out)?;
    skipped(report, out)?;
    section(
        out,
        if report.is_stopped() { "Stopped" } else { "Held up" },
        report.stops.iter().map(|s| format!("{s} [{}]", s.tripwire().as_str())),
    )?;
    section(out, "Refused", report.refusals.iter().map(ToString::to_string))?;
    let blocked = report.blockers.iter().map(|b| {
        let (policy, missing) = (&b.policy, &b.missing);
        format!("policy {policy}: there is no {missing} in the database; create it or correct the policy (`credkeeper doctor` names what is spelled nearly so). Its users are left alone")
    });
    let missing = report.pilot_missing.iter().map(|place| {
        format!("the pilot: there is no cost center {place} in the database; create it or correct the pilot. Nobody is covered by it")
    });
    section(out, "Blocked", blocked.chain(missing))?;
    section(out, "PIN space", report.densities.iter().filter(|d| d.crowding() != Crowding::Fine).map(crowded))?;
    let title = if report.problems.len() < PROBLEMS { "Problems".to_owned() } else { format!("Problems, the first {PROBLEMS}") };
    let problems =
        report.problems.iter().map(|p| format!("{} (user {}, policy {}): {} [{}]", p.login, p.user, p.policy, p.sentence, p.code));
    section(out, &title, problems)?;
    section(out, "Mail", mail(report))?;
    section(out, "Reminders that a PIN is about to lapse", reminders(report))?;
    section(out, "Left open by an earlier crash or a lost answer", recovered(report))
}

fn crowded(density: &Density) -> String {
    let advice = match density.crowding() {
        Crowding::TooDense => "none is issued: take a longer pin.length, or set pin.allow_dense: true",
        _ => "guesses at a printer meet somebody's PIN too often: a longer pin.length gives more room",
    };
    format!("{density}; {advice}")
}

/// The outcome in one sentence.
fn verdict(report: &Report) -> String {
    let (due, applied, failed) = (report.due(), report.applied(), report.failed());
    let skipped: u64 = report.policies.iter().flat_map(|p| p.skipped.values()).sum();
    match report.outcome() {
        PassOutcome::Failed => {
            let error = report.error.as_deref().unwrap_or("the reason is not known");
            format!("FAILED: the pass ended early, and the figures hold up to there: {error}")
        }
        PassOutcome::Refused if report.is_stopped() && report.dry_run => {
            "REFUSED: a tripwire would stop a pass before it changes anything, see below.".to_owned()
        }
        PassOutcome::Refused if report.is_stopped() => {
            "REFUSED: a tripwire stopped the pass before it changed anything, see below.".to_owned()
        }
        PassOutcome::Refused if report.dry_run => "REFUSED: a pass would leave part of the work undone, see below.".to_owned(),
        PassOutcome::Refused => "REFUSED: part of the work was not done, see below.".to_owned(),
        PassOutcome::Partial => format!("PARTLY DONE: {applied} changes, but {failed} users failed, see below."),
        _ if report.dry_run && due > 0 => format!("{} would be changed.", users(due)),
        PassOutcome::Changed => format!("Done: {applied} changes."),
        PassOutcome::Unchanged if due > 0 => {
            "Nothing was changed: who was due was no longer as planned; the next pass looks again.".to_owned()
        }
        PassOutcome::Unchanged if skipped > 0 => format!("Nothing to do now: {} left alone for the reasons below.", users(skipped)),
        PassOutcome::Unchanged => "Nothing to do: everybody is as the policies want.".to_owned(),
    }
}

fn users(n: u64) -> String {
    if n == 1 { "1 user".to_owned() } else { format!("{n} users") }
}

/// One line for each policy.
fn table(report: &Report, out: &mut String) -> std::fmt::Result {
    if report.policies.is_empty() {
        return Ok(());
    }
    let done = |p: &PolicyReport, kind| p.changes.get(&(kind, ChangeOutcome::Applied)).copied().unwrap_or_default();
    let would = |done: &'static str, planned| if report.dry_run { planned } else { done };
    // What nobody has need not be shown; the others are there always, so that a table of nothing is one.
    let always = [ChangeKind::PinIssued, ChangeKind::PinDeleted, ChangeKind::CostCenterMoved];
    let mut kinds = vec![
        (ChangeKind::PinIssued, would("PINs issued", "PINs to issue")),
        (ChangeKind::PinExtended, would("PINs extended", "PINs to extend")),
        (ChangeKind::PinExpired, would("PINs ended", "PINs to end")),
        (ChangeKind::PinDeleted, would("PINs removed", "PINs to remove")),
        (ChangeKind::CacIssued, would("codes issued", "codes to issue")),
        (ChangeKind::PasswordIssued, would("passwords issued", "passwords to issue")),
        (ChangeKind::CostCenterMoved, would("moved", "to move")),
        (ChangeKind::RoleRemoved, would("roles removed", "roles to remove")),
    ];
    kinds.retain(|(kind, _)| always.contains(kind) || report.policies.iter().any(|p| done(p, *kind) > 0));

    let mut head = vec!["policy", "due"];
    head.extend(kinds.iter().map(|(_, title)| *title));
    head.extend(["skipped", "failed", "changed meanwhile", ""]);
    let mut rows = vec![head.into_iter().map(str::to_owned).collect::<Vec<String>>()];
    for p in &report.policies {
        let mut figures = vec![p.due];
        figures.extend(kinds.iter().map(|(kind, _)| done(p, *kind)));
        figures.extend([p.skipped.values().sum(), p.failed, p.changed_meanwhile]);
        let mut row = vec![printable(&p.policy.0).into_owned()];
        row.extend(figures.iter().map(u64::to_string));
        row.push(if p.refused { "refused".to_owned() } else { String::new() });
        rows.push(row);
    }
    let columns = rows[0].len();
    let widths: Vec<usize> = (0..columns).map(|i| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or_default()).collect();
    writeln!(out)?;
    for row in &rows {
        let mut line = String::new();
        for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match i {
                0 => write!(line, "{cell:<width$}")?,
                _ if i + 1 == columns => write!(line, "  {cell}")?,
                _ => write!(line, "  {cell:>width$}")?,
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn skipped(report: &Report, out: &mut String) -> std::fmt::Result {
    let of = |p: &PolicyReport| -> Vec<String> {
        let line =
            |(skip, n): (&crate::plan::Skip, &u64)| format!("policy {}: {n} because {} [{}]", p.policy, skip.sentence(), skip.as_str());
        p.skipped.iter().filter(|(_, n)| **n > 0).map(line).collect()
    };
    section(out, "Skipped for now", report.policies.iter().flat_map(of))
}

fn mail(report: &Report) -> Option<String> {
    let m = report.mail;
    let all = [
        (m.accepted, "accepted by the mail server"),
        (m.deferred, "deferred"),
        (m.rejected, "rejected"),
        (m.waiting, "waiting in the journal for the next pass (the log, and `credkeeper doctor`, say what keeps mail from going)"),
    ];
    let said: Vec<String> = all.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    (!said.is_empty()).then(|| said.join(", "))
}

fn reminders(report: &Report) -> Option<String> {
    let r = report.reminders;
    if report.dry_run {
        return (r.due > 0).then(|| format!("{} would be reminded", users(r.due)));
    }
    let all = [
        (r.due, "found due"),
        (r.accepted, "accepted by the mail server"),
        (r.deferred, "deferred"),
        (r.rejected, "rejected, and not sent again"),
        (r.waiting, "waiting in the journal for the next pass"),
    ];
    let said: Vec<String> = all.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    (!said.is_empty()).then(|| said.join(", "))
}

fn recovered(report: &Report) -> Vec<String> {
    let r = report.recovered;
    [
        (r.resent, "found in the database; the mail is sent"),
        (r.abandoned, "never reached the database; forgotten, no mail"),
        (r.superseded, "replaced meanwhile by somebody else; no mail"),
        (r.lost_after_delivery, "mailed, and lost with the database that was restored; found when it was adopted"),
    ]
    .iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, what)| format!("{n} {what}"))
    .collect()
}

/// A heading and indented lines; nothing if there are none.
fn section(out: &mut String, title: &str, lines: impl IntoIterator<Item = String>) -> std::fmt::Result {
    for (i, line) in lines.into_iter().enumerate() {
        if i == 0 {
            writeln!(out, "\n{title}")?;
        }
        out.write_str("  ")?;
        Printable(&mut *out).write_str(&line)?;
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::printable::is_unprintable;
    use crate::report::samples::{changed, golden, preview, quiet, stopped, troubled};

    #[test]
    fn reports_read_as_the_goldens_do() {
        let mut failed = quiet();
        (failed.counts, failed.error) = (None, Some("the connection to the database was lost: connection reset\nby peer".to_owned()));
        let observed = Report { observe: true, ..preview() };
        for (name, report) in [
            ("quiet", quiet()),
            ("changed", changed()),
            ("preview", preview()),
            ("troubled", troubled()),
            ("failed", failed),
            ("stopped", stopped()),
            ("observed", observed),
        ] {
            golden(&format!("report/{name}.txt"), &render(&report));
        }
    }

    #[test]
    fn a_login_cannot_command_the_terminal() {
        let text = render(&troubled());
        assert!(!text.chars().any(|c| c != '\n' && is_unprintable(c)));
        assert!(text.contains(r"eve\u{1b}[2J\nadmin (user 77"), "{text}");
    }

    #[test]
    fn nothing_to_do_is_said_plainly() {
        assert!(render(&quiet()).contains("Nothing to do: everybody is as the policies want."));
        let mut skips = quiet();
        skips.policies[0].skipped.insert(crate::plan::Skip::Held, 1);
        assert!(render(&skips).contains("Nothing to do now: 1 user left alone"));
    }

    #[test]
    fn a_dry_run_never_says_that_something_was_done() {
        let text = render(&preview());
        assert!(text.contains("12 users would be changed.") && text.contains("PINs to issue") && !text.contains("issued"), "{text}");
    }
}
