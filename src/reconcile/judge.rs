//! Judging: whether a pass may write at all (tripwires), and what of its plan may be done (limits, PIN space).

use std::collections::HashMap;
use std::time::Duration;

use tracing::info;

use super::{Ask, Looked, PassError};
use crate::config::{Config, DatabaseConfig};
use crate::domain::{Credential, Each, UserId};
use crate::inventory::{Baseline, Counts, Pulse};
use crate::journal::JournalReader;
use crate::plan::density::densities;
use crate::plan::limits::{self, Figures};
use crate::plan::tripwires::{self, Pinless};
use crate::plan::{PolicyTotals, Step};
use crate::policy::Policy;
use crate::report::Report;
use crate::store::{Reader, StoreError};

/// Asks the database how it is, and judges that.
pub(super) async fn pulse(reader: &Reader, config: &Config, ask: &Ask, report: &mut Report) -> Result<Pulse, StoreError> {
    let asked = ask.begun.elapsed();
    let pulse = reader.pulse().await?;
    let skew = skew(ask, asked, ask.begun.elapsed(), &pulse);
    report.clock_skew = Some(skew);
    report.stops.extend(tripwires::of_pulse(&config.limits.tripwires, &pulse, skew));
    Ok(pulse)
}

/// How many seconds the database's clock is ahead of ours: it was read at some moment between question and answer.
fn skew(ask: &Ask, asked: Duration, answered: Duration, pulse: &Pulse) -> i64 {
    let (earliest, latest) = (ask.utc.plus(asked).0, ask.utc.plus(answered + Duration::from_secs(1)).0);
    match pulse.utc.0 {
        behind if behind < earliest => behind.saturating_sub(earliest),
        ahead if ahead > latest => ahead.saturating_sub(latest),
        _ => 0,
    }
}

/// Asks for the figures of a full pass, and judges them against those of the last one.
pub(super) async fn figures(
    reader: &Reader,
    journal: Option<&JournalReader>,
    config: &Config,
    database: &DatabaseConfig,
    report: &mut Report,
) -> Result<(Counts, Option<Baseline>), PassError> {
    let counts = reader.counts().await?;
    report.counts = Some(counts);
    let baseline = match journal {
        Some(journal) => journal.baseline().await?,
        None => None,
    };
    report.stops.extend(tripwires::of_figures(&config.limits.tripwires, database.pin_format, baseline, &counts));
    Ok((counts, baseline))
}

/// Judges how many users without a PIN the read of a full pass has found; `None`: nobody looked for them.
pub(super) fn pinless(config: &Config, baseline: Option<Baseline>, found: Option<u64>, report: &mut Report) {
    report.pinless = found;
    let before = baseline.and_then(|b| Some(Pinless { users: b.users, pinless: b.pinless? }));
    let now = report.counts.and_then(|c| Some(Pinless { users: c.users, pinless: found? }));
    if let (Some(before), Some(now)) = (before, now) {
        report.stops.extend(tripwires::of_pinless(&config.limits.tripwires, before, now));
    }
}

/// Takes out of the plan what may not be done.
pub(super) async fn plan(
    reader: &Reader,
    journal: Option<&JournalReader>,
    config: &Config,
    database: &DatabaseConfig,
    ask: &Ask,
    looked: &mut Looked,
    report: &mut Report,
) -> Result<(), PassError> {
    if report.is_stopped() && !report.dry_run {
        looked.plan.steps.clear();
        return Ok(());
    }
    // A poll asks nothing that costs as much as there are users, if it can help it.
    let mut known = looked.counts.or(ask.counts);
    for (index, policy) in database.policies.iter().enumerate() {
        if looked.plan.totals[index].due == 0 {
            continue;
        }
        let totals = &unapproved(journal, ask, index, policy, looked).await?;
        let mut policy = policy.clone();
        policy.limits.users_per_pass = ask.max_users.unwrap_or(policy.limits.users_per_pass);
        policy.limits.replace_percent = ask.max_replace.unwrap_or(policy.limits.replace_percent);
        let mut figures = Figures::default();
        if Credential::ALL.into_iter().any(|kind| totals.replaced[kind] > 0) {
            let day = ask.utc.minus(Duration::from_secs(86_400));
            let stored = counts(reader, &mut known).await?;
            Credential::ALL.into_iter().for_each(|kind| figures.stored[kind] = stored.of(kind));
            figures.replaced_last_day = match journal {
                Some(journal) => journal.replaced_since(&policy.name, day).await?,
                None => Each::default(),
            };
        }
        if let Some(refusal) = limits::judge(&policy, totals, figures, || looked.plan.id(index, &policy.name.0)) {
            report.policies[index].refused = true;
            report.refusals.push(refusal);
            let steps = looked.plan.steps.iter().filter(|step| step.policy() == index).copied().collect();
            looked.refused.push((index, steps));
        }
    }
    looked.plan.steps.retain(|step| !report.policies[step.policy()].refused);
    crowding(reader, database, &mut known, looked, report).await?;
    delivery(config, ask, looked, report);
    if report.is_stopped() {
        looked.plan.steps.clear();
    }
    Ok(())
}

/// The totals without the steps that an operator has approved: these count towards no limit.
async fn unapproved(
    journal: Option<&JournalReader>,
    ask: &Ask,
    index: usize,
    policy: &Policy,
    looked: &mut Looked,
) -> Result<PolicyTotals, PassError> {
    let plans = match journal {
        Some(journal) => journal.approved(&policy.name, ask.utc).await?,
        None => Vec::new(),
    };
    let approved: HashMap<UserId, Step> =
        plans.iter().flat_map(|(_, steps)| Step::from_kept(steps, index)).map(|step| (step.user, step)).collect();
    if approved.is_empty() {
        return Ok(looked.plan.totals[index].clone());
    }
    let is_approved = |step: &Step| approved.get(&step.user).is_some_and(|judged| judged.covers(step));
    let (through, judged): (Vec<&Step>, Vec<&Step>) =
        looked.plan.steps.iter().filter(|step| step.policy() == index).partition(|step| is_approved(step));
    if !through.is_empty() {
        info!(policy = %policy.name, users = through.len(), "Policy {}: {} users are changed as an operator has approved", policy.name, through.len());
    }
    let totals = PolicyTotals::of(judged.into_iter());
    looked.approved.extend(plans.into_iter().map(|(plan, _)| (index, plan)));
    Ok(totals)
}

/// What the next full pass is compared with: the figures with which this one began, and those served whom it found without a
/// PIN. An import that was served must not hide a loss of as many PINs, and a PIN that we took is no loss.
pub(super) fn baseline(counts: &Counts, report: &Report) -> Baseline {
    let (gained, lost) = report.policies.iter().fold((0, 0), |(gained, lost), policy| (gained + policy.gained, lost + policy.lost));
    Baseline { users: counts.users, pinless: report.pinless.map(|pinless| pinless.saturating_sub(gained) + lost) }
}

/// The PIN space of each policy (R8). Where it is too full, its users get no new PIN; whoever is only moved, is moved.
async fn crowding(
    reader: &Reader,
    database: &DatabaseConfig,
    known: &mut Option<Counts>,
    looked: &mut Looked,
    report: &mut Report,
) -> Result<(), PassError> {
    if looked.counts.is_none() && !looked.plan.steps.iter().any(Step::issues_pin) {
        return Ok(());
    }
    let mut added = vec![0; database.policies.len()];
    looked.plan.steps.iter().filter(|step| is_first_pin(step)).for_each(|step| added[step.policy()] += 1);
    report.densities = densities(&database.policies, &counts(reader, known).await?, &added);
    let mut full = vec![false; database.policies.len()];
    for density in &report.densities {
        let Some(index) = database.policies.iter().position(|policy| policy.name == density.policy) else { continue };
        // A space that nobody draws from is told, and stops nothing.
        if looked.plan.steps.iter().any(|step| step.policy() == index && step.issues_pin()) {
            let refusal = limits::judge_density(density, || looked.plan.id(index, &density.policy.0));
            full[index] = refusal.is_some();
            report.refusals.extend(refusal);
        }
    }
    looked.plan.steps.retain(|step| !(full[step.policy()] && step.issues_pin()));
    Ok(())
}

/// While nothing can be delivered, nothing more is made that would have to be. Moves go on.
fn delivery(config: &Config, ask: &Ask, looked: &mut Looked, report: &mut Report) {
    let users = looked.plan.steps.iter().filter(|step| step.is_told()).count() as u64;
    report.delivery_judged = !report.is_stopped() && (users > 0 || ask.undelivered_since.is_none());
    if let Some(stop) = tripwires::of_delivery(&config.limits.tripwires, ask.undelivered_since, ask.utc, users) {
        looked.plan.steps.retain(|step| !step.is_told());
        report.stops.push(stop);
    }
}

/// Whether a PIN is issued that takes no other one's place.
fn is_first_pin(step: &Step) -> bool {
    step.issues_pin() && step.touched == 0
}

/// Asked once.
async fn counts(reader: &Reader, known: &mut Option<Counts>) -> Result<Counts, StoreError> {
    match *known {
        Some(counts) => Ok(counts),
        None => Ok(*known.insert(reader.counts().await?)),
    }
}
