//! One pass, and the preview of one: the only sequencer. A pass takes no hint about what changed and does not retry
//! inside; the next pass is the retry.
//!
//! 1. **Look**: one streamed read, joined with what the journal knows; of each due user 16 bytes stay in memory.
//! 2. **Judge** (`judge.rs`): tripwires around the read, limits after it, per policy. What exceeds them changes nothing.
//! 3. **Act**: batches, most urgent first (`batch.rs`). With the stream closed, each takes the write lock, reads its users
//!    again, plans them again, draws, writes, tells the journal, and commits.

use std::time::Instant;

use futures_util::StreamExt;
use tokio::sync::Notify;

use crate::complaint::complaint;
use crate::config::{Config, DatabaseConfig, Mode};
use crate::domain::{CostCenterRef, Limit, Share, Template, Timestamp, UserId};
use crate::fault::{self, Point};
use crate::inventory::{Counts, Facts, Now, Places, User};
use crate::journal::{Journal, JournalError, JournalReader, RefusedPlan};
use crate::logging::chain;
use crate::mint::{self, MintError};
use crate::plan::reminders::{self, Reminder};
use crate::plan::{PinAction, Plan, Planner, Reason, Step, Verdict, rules};
use crate::policy::Policy;
use crate::report::{ChangeKind, ChangeOutcome, Line, PassKind, PolicyReport, Problem, Report};
use crate::store::{Filter, Leadership, Pinless, Reader, Store, StoreError, Wanted};

use take_back::TakeBack;

mod batch;
mod commit;
mod draw;
mod filter;
mod halves;
mod judge;
mod making;
mod prepare;
mod remind;
pub mod restored;
pub mod take_back;

pub use prepare::announcement;

/// What a pass is asked to do.
#[derive(Clone, Debug)]
pub struct Ask {
    pub kind: PassKind,
    /// Our clock at the start.
    pub utc: Timestamp,
    /// When that clock was read: what it says later is counted from then.
    pub begun: Instant,
    /// Only users above this id: a poll.
    pub above: Option<UserId>,
    /// Only this user.
    pub login: Option<String>,
    /// In place of every policy's own limit, for this pass.
    pub max_users: Option<Limit<u64>>,
    pub max_replace: Option<Limit<Share>>,
    /// For a poll: the figures of the last full pass.
    pub counts: Option<Counts>,
    /// Since when no mail could be delivered; `None`: it goes, or nobody knows.
    pub undelivered_since: Option<Timestamp>,
    /// Let SQL leave out who is settled. Only a test says `false`: the plan must be the same.
    pub filtered: bool,
}

impl Ask {
    /// A full pass.
    pub fn full(kind: PassKind, utc: Timestamp) -> Ask {
        Ask {
            kind,
            utc,
            begun: Instant::now(),
            above: None,
            login: None,
            max_users: None,
            max_replace: None,
            counts: None,
            undelivered_since: None,
            filtered: true,
        }
    }

    fn is_full(&self) -> bool {
        self.above.is_none() && self.login.is_none()
    }
}

/// What watches a pass. Nothing of it can change the outcome.
pub struct Watch<'a> {
    /// Told how many of the due users are done.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
    /// Told of each user that is due, skipped, changed or failed.
    pub line: &'a (dyn Fn(Line<'_>) + Sync),
    /// Rung after each commit: there may be mail to send.
    pub committed: &'a Notify,
    /// Asked between batches, and while reading.
    pub stop: &'a (dyn Fn() -> bool + Sync),
}

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    #[error("the database failed")]
    Store(#[from] StoreError),
    #[error("the journal failed, so nothing more was changed")]
    Journal(#[from] JournalError),
    #[error("no credential could be drawn")]
    Mint(#[from] MintError),
    #[error("COMMIT was not answered; what became of it is looked up before the next pass")]
    CommitUnknown(#[source] StoreError),
    #[error("stopped before the end, as asked")]
    Stopped,
}

impl PassError {
    /// Closed set: metric label and log field.
    pub fn kind(&self) -> &'static str {
        match self {
            PassError::Store(e) | PassError::CommitUnknown(e) => e.kind(),
            PassError::Journal(e) => e.kind(),
            PassError::Mint(_) => "mint",
            PassError::Stopped => "stopped",
        }
    }
}

/// What the read found, and what the plan makes of it.
pub struct Looked {
    pub now: Now,
    pub places: Places,
    pub plan: Plan,
    pub counts: Option<Counts>,
    /// The policies that a limit has stopped, and their steps.
    pub refused: Vec<(usize, Vec<Step>)>,
    /// The plans of a policy that an operator has approved.
    pub approved: Vec<(usize, String)>,
    /// Who is to be reminded, and has not been; only a full look, or one at a single user, asks.
    pub reminders: Vec<Reminder>,
}

/// The outcome of a pass: what is told, and what the schedule needs.
pub struct Passed {
    pub report: Report,
    /// The greatest user id there was when the read began.
    pub newest: Option<UserId>,
    pub error: Option<PassError>,
}

/// What would be done. Given only the reading half of the store, and at most a journal that is open for reading.
pub async fn preview(
    reader: &Reader,
    journal: Option<&JournalReader>,
    config: &Config,
    database: &DatabaseConfig,
    ask: &Ask,
    watch: &Watch<'_>,
) -> Report {
    let mut report = new_report(config, database, ask, true);
    let read = Instant::now();
    if let (Some(journal), None) = (journal, ask.above) {
        match restored::look_back(reader, journal, config, database, ask.utc).await {
            Ok(found) => report.stops.extend(found.stop()),
            Err(error) => {
                report.error = Some(chain(&error));
                return report;
            }
        }
    }
    match look(reader, journal, config, database, ask, &mut report, watch).await {
        Err(error) => report.error = Some(chain(&error)),
        Ok(mut looked) => {
            report.read_ms = millis(read);
            match judge::plan(reader, journal, config, database, ask, &mut looked, &mut report).await {
                Ok(()) => looked.plan.steps.iter().for_each(|step| would(step, &mut report)),
                Err(error) => report.error = Some(chain(&error)),
            }
        }
    }
    report
}

/// Looks, judges and acts.
pub async fn pass(
    store: &Store,
    lead: &Leadership,
    journal: &Journal,
    config: &Config,
    database: &DatabaseConfig,
    ask: &Ask,
    watch: &Watch<'_>,
) -> Passed {
    let mut report = new_report(config, database, ask, false);
    let mut newest = None;
    let ended = async {
        // Polls come every few seconds: only what they changed is worth a write.
        if ask.kind != PassKind::Poll {
            journal.pass_started(&report.pass, ask.kind.as_str(), ask.utc).await?;
            fault::at(Point::PassStarted).await;
        }
        newest = Some(store.reader().newest().await?);
        let read = Instant::now();
        let mut looked = look(store.reader(), Some(journal.reader()), config, database, ask, &mut report, watch).await?;
        report.read_ms = millis(read);
        let judging = Instant::now();
        judge::plan(store.reader(), Some(journal.reader()), config, database, ask, &mut looked, &mut report).await?;
        report.plan_ms = millis(judging);
        keep_refused(journal, database, &mut looked, &mut report, ask.utc).await?;
        fault::at(Point::PassJudged).await;
        let writing = Instant::now();
        if !report.is_stopped() && ask.login.is_none() {
            let pass = report.pass.clone();
            let taking = TakeBack { store, lead, journal, config, database, stop: watch.stop, pass, utc: ask.utc };
            take_back::undeliverable(&taking, &mut report).await?;
        }
        let acted = batch::Batches {
            store,
            lead,
            journal,
            config,
            database,
            watch,
            looked: &looked,
            pass: report.pass.clone(),
            kind: ask.kind,
            utc: ask.utc,
        }
        .run(&mut report)
        .await;
        report.write_ms = millis(writing);
        acted?;
        if report.is_stopped() {
            return Ok(());
        }
        let used: Vec<String> =
            looked.approved.drain(..).filter(|(index, _)| !report.policies[*index].refused).map(|(_, plan)| plan).collect();
        journal.approval_used(used).await?;
        if ask.is_full() && report.stops.is_empty() {
            let done = report.policies.iter().filter(|policy| !policy.refused).map(|policy| policy.policy.clone());
            journal.refusals_over(done.collect()).await?;
        }
        remind::note(journal, config, database, &looked.reminders, ask.utc, watch).await
    }
    .await;
    fault::at(Point::PassActed).await;
    let error = ended.err();
    report.error = error.as_ref().map(|e| complaint(e));
    let summary = crate::report::json::render(&report);
    if ask.kind != PassKind::Poll
        && let Err(e) = journal.pass_ended(&report.pass, report.outcome().as_str(), summary, ask.utc).await
    {
        tracing::warn!(error.kind = e.kind(), "Could not note the end of the pass in the journal: {}", chain(&e));
    }
    fault::at(Point::PassEnded).await;
    if let (Some(counts), None, false) = (report.counts, &error, report.is_stopped())
        && let Err(e) = journal.keep_baseline(judge::baseline(&counts, &report)).await
    {
        tracing::warn!(error.kind = e.kind(), "Could not note the figures of the pass in the journal: {}", chain(&e));
    }
    Passed { report, newest, error }
}

/// What a limit refused waits in the journal for somebody to approve it.
async fn keep_refused(
    journal: &Journal,
    database: &DatabaseConfig,
    looked: &mut Looked,
    report: &mut Report,
    now: Timestamp,
) -> Result<(), JournalError> {
    for (index, steps) in looked.refused.drain(..) {
        let policy = database.policies[index].name.clone();
        let Some(refusal) = report.refusals.iter_mut().find(|refusal| refusal.policy == policy) else { continue };
        let users = steps.len() as u64;
        let (plan, limit) = (refusal.plan.clone(), refusal.limit.as_str().to_owned());
        let refused = RefusedPlan { plan, policy, limit, users, refused_at: now, approved_until: None };
        journal.refuse(refused, Step::kept(&steps)).await?;
        refusal.kept = true;
    }
    Ok(())
}

/// Reads, joins with the journal, and plans. Totals and skipped users go into the report. What a tripwire stops
/// beforehand is not even read, but by a preview.
pub async fn look(
    reader: &Reader,
    journal: Option<&JournalReader>,
    config: &Config,
    database: &DatabaseConfig,
    ask: &Ask,
    report: &mut Report,
    watch: &Watch<'_>,
) -> Result<Looked, PassError> {
    let pulse = judge::pulse(reader, config, ask, report).await?;
    let now = Now { utc: ask.utc, wall: pulse.wall };
    let stopped = |report: &Report| report.is_stopped() && !report.dry_run;
    let nothing = |places, counts| Looked {
        now,
        places,
        plan: Plan::new(&database.policies),
        counts,
        refused: Vec::new(),
        approved: Vec::new(),
        reminders: Vec::new(),
    };
    if stopped(report) {
        return Ok(nothing(Places::default(), None));
    }
    let places = reader.places(&wanted(config, database)).await?;
    let figures = if ask.is_full() { Some(judge::figures(reader, journal, config, database, report).await?) } else { None };
    let (counts, baseline) = figures.map_or((None, None), |(counts, baseline)| (Some(counts), baseline));
    if stopped(report) {
        return Ok(nothing(places, counts));
    }

    let planner = Planner::new(&database.policies, &places, now).with_pilot(config.pilot.as_ref());
    let mut plan = Plan::new(&database.policies);
    plan.blockers = planner.blockers();
    report.blockers.clone_from(&plan.blockers);
    report.pilot_missing = pilot_missing(config, &places);
    let mut due = (ask.filtered && ask.login.is_none()).then(|| filter::due(&database.policies, &places, now.wall));
    if let (Some(due), Some(journal)) = (&mut due, journal) {
        for (kind, until) in filter::aged(&database.policies, now.utc) {
            due.users.extend(journal.issued_until(kind, until, ask.above).await?);
        }
        due.users.sort_unstable();
    }
    let pinless = Pinless::default();
    let mut chunks = reader.read_counting(&Filter { due, above: ask.above, login: ask.login.clone() }, &pinless);
    let mut reminders = Vec::new();
    let reminds = ask.above.is_none() && reminders::remind(&database.policies);
    while let Some(chunk) = chunks.next().await {
        if (watch.stop)() {
            return Err(PassError::Stopped);
        }
        let users = with_facts(journal, chunk?).await?;
        for (user, facts) in &users {
            let verdict = planner.verdict(user, facts);
            tell(&database.policies, user, verdict, report, watch);
            plan.add(verdict);
        }
        if reminds {
            reminders.extend(remind::news(&planner, journal, &users).await?);
        }
    }
    drop(chunks); // an open read could block the writer on other servers
    judge::pinless(config, baseline, pinless.get().copied(), report);
    plan.order();
    report.seen = plan.seen;
    report.reminders.due = reminders.len() as u64;
    for (told, totals) in report.policies.iter_mut().zip(&plan.totals) {
        told.due = totals.due;
        told.skipped.clone_from(&totals.skipped);
        told.failed = totals.failed;
    }
    Ok(Looked { now, places, plan, counts, refused: Vec::new(), approved: Vec::new(), reminders })
}

/// Joins users with what the journal knows of them; without a journal nothing is known.
pub async fn with_facts(journal: Option<&JournalReader>, users: Vec<User>) -> Result<Vec<(User, Facts)>, JournalError> {
    match journal {
        Some(journal) => journal.facts(users).await,
        None => Ok(users.into_iter().map(|u| (u, Facts::default())).collect()),
    }
}

fn tell(policies: &[Policy], user: &User, verdict: Verdict, report: &mut Report, watch: &Watch<'_>) {
    let line = |policy: usize, state, codes: &[&'static str]| {
        (watch.line)(Line { user: user.id, login: &user.login, policy: &policies[policy].name.0, state, codes });
    };
    match verdict {
        Verdict::Due(step) => line(step.policy(), "due", &step_codes(&step)),
        Verdict::Skipped { policy, skip } => {
            tracing::debug!(user.id = %user.id, reason = skip.as_str(), "Left user {} alone: {}", user.id, skip.sentence());
            line(policy, "skipped", &[skip.as_str()]);
            report.problem(Problem::skipped(user.id, &user.login, &policies[policy].name, skip));
        }
        Verdict::Failed { policy, failure } => {
            let name = &policies[policy].name;
            tracing::warn!(user.id = %user.id, %policy, reason = failure.as_str(), "Nothing for user {}: {}", user.id, failure.sentence());
            line(policy, "failed", &[failure.as_str()]);
            report.problem(Problem::failed(user.id, &user.login, name, failure, failure.sentence().to_owned()));
        }
        Verdict::Settled { .. } | Verdict::Untouched(_) => {}
    }
}

fn step_codes(step: &Step) -> Vec<&'static str> {
    step.reasons().map(Reason::as_str).collect()
}

/// Counts a step of a preview as the change that it would be.
fn would(step: &Step, report: &mut Report) {
    let told = &mut report.policies[step.policy()];
    changes(step).for_each(|(kind, n)| told.count(kind, ChangeOutcome::Applied, n));
}

/// The changes that a step asks for, and how many of each.
fn changes(step: &Step) -> impl Iterator<Item = (ChangeKind, u64)> + use<> {
    let touched = u64::from(step.touched);
    let pins = match step.pin.map(|pin| pin.action) {
        None => [None, None],
        Some(PinAction::Issue) => [Some((ChangeKind::PinIssued, 1)), Some((ChangeKind::PinDeleted, touched.saturating_sub(1)))],
        Some(PinAction::Extend) => [Some((ChangeKind::PinExtended, touched)), None],
        Some(PinAction::Expire) => [Some((ChangeKind::PinExpired, touched)), None],
        Some(PinAction::Delete) => [Some((ChangeKind::PinDeleted, touched)), None],
    };
    let others = [
        step.code().map(|_| (ChangeKind::CacIssued, 1)),
        step.password().map(|_| (ChangeKind::PasswordIssued, 1)),
        step.cost_center().map(|_| (ChangeKind::CostCenterMoved, 1)),
        step.role().map(|_| (ChangeKind::RoleRemoved, 1)),
    ];
    pins.into_iter().chain(others).flatten().filter(|(_, n)| *n > 0)
}

/// Every cost center and role that the policies and the pilot name.
pub fn wanted(config: &Config, database: &DatabaseConfig) -> Wanted {
    let of_pilot = config.pilot.iter().flat_map(|pilot| &pilot.cost_center);
    let of_templates = config.templates.values().flat_map(Template::cost_centers);
    Wanted {
        cost_centers: database.policies.iter().flat_map(rules::named).chain(of_pilot).chain(of_templates).cloned().collect(),
        roles: database.policies.iter().flat_map(rules::named_roles).cloned().collect(),
    }
}

/// What the pilot names and the database lacks.
pub fn pilot_missing(config: &Config, places: &Places) -> Vec<CostCenterRef> {
    let named = config.pilot.iter().flat_map(|pilot| &pilot.cost_center);
    named.filter(|named| places.get(named).is_none()).cloned().collect()
}

fn new_report(config: &Config, database: &DatabaseConfig, ask: &Ask, dry_run: bool) -> Report {
    let policies = database.policies.iter().map(|p| PolicyReport::new(p.name.clone())).collect();
    let report = Report::new(mint::pass_id(), database.name.clone(), ask.kind, dry_run, ask.utc, policies);
    Report { observe: dry_run && config.mode == Mode::Observe, ..report }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
