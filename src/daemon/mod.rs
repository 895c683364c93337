//! Runs until stopped. For each database (`tenants.rs`): leads, recovers, compares everything, and then looks for new users every few seconds. Each failure
//! is waited out with a growing pause; the next pass is the retry.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::clock;
use crate::config::{Config, DatabaseConfig};
use crate::deliver::Outlet;
use crate::digest::Digest;
use crate::domain::{Timestamp, UserId};
use crate::http::{self, Health};
use crate::inventory::Counts;
use crate::journal::{Journal, JournalError, JournalFile};
use crate::logging::chain;
use crate::metrics::Metrics;
use crate::plan::tripwires::Tripwire;
use crate::reconcile::{self, Ask, PassError, Watch};
use crate::recover::recover;
use crate::report::{PassKind, PassOutcome, Report};
use crate::store::{Check, CheckVerdict, Leadership, Reader, Store, StoreError};

mod life;
mod observe;
mod page;
mod reload;
mod requests;
mod said;
mod schedule;
mod tenants;
mod trust;
mod upkeep;
mod watermark;

pub use life::{Source, run};
use said::{News, Said};
use schedule::{backoff, jittered, until_resync};
use tenants::Lot;
use watermark::Watermark;

/// When a full comparison that a tripwire stopped is tried again, if its own time does not come sooner.
const STOPPED_AGAIN: Duration = Duration::from_secs(60);
/// How often a standby asks whether it may lead.
const STANDBY: Duration = Duration::from_secs(5);
/// A session that ended a moment ago, as ours does before a reload, may still hold the lead: asked so often, so soon again.
const HANDOVER: (u32, Duration) = (4, Duration::from_millis(250));
/// How long a pass may take for the batch in hand. What has to be left then is found by recovery.
const STOP_WITHIN: Duration = Duration::from_secs(6);

/// Why the daemon gave up: nothing that waiting would mend.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("the page for health and metrics cannot be served")]
    Http(#[source] http::HttpError),
    #[error("the journal cannot be used")]
    Journal(#[from] JournalError),
    #[error("the database cannot be used")]
    Store(#[from] StoreError),
    /// The names of the checks that failed; each was told in full.
    #[error("what the inspection found must be mended first: {0}")]
    Inspection(String),
    #[error("what an earlier run left behind could not be resolved")]
    Recovery(#[source] PassError),
    #[error("a part of the daemon ended by itself")]
    Task(#[source] tokio::task::JoinError),
}

/// The daemon that changes what differs.
struct Daemon(Shared);

impl Deref for Daemon {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// What all databases have in common.
#[derive(Clone)]
struct Common {
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    /// What is wrong with any of them is one mail.
    digest: Arc<Digest>,
    stop: watch::Receiver<bool>,
}

/// What goes from one configuration over to the next.
#[derive(Default)]
struct Kept {
    /// With its lock; `None`: to be opened.
    journal: Option<JournalFile>,
    /// Since when nothing could be delivered.
    down_since: Option<Timestamp>,
}

/// What both daemons share, for one database: nothing of it can change anything.
struct Shared {
    config: Arc<Config>,
    database: DatabaseConfig,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    stop: watch::Receiver<bool>,
    said: Mutex<Said>,
    lot: Arc<Lot>,
    /// Tries in a row at a database that only a person can mend, and what was told of it.
    tries: AtomicU32,
    complaint: Mutex<Option<String>>,
    digest: Arc<Digest>,
}

async fn pause(stop: &watch::Receiver<bool>, span: Duration) {
    tokio::select! {
        () = sleep(span) => {}
        () = wait_for(stop.clone()) => {}
    }
}

impl Shared {
    fn new(common: &Common, database: &DatabaseConfig, lot: &Arc<Lot>) -> Shared {
        Shared {
            config: common.config.clone(),
            database: database.clone(),
            metrics: common.metrics.clone(),
            health: common.health.clone(),
            stop: common.stop.clone(),
            said: Mutex::default(),
            lot: lot.clone(),
            digest: common.digest.clone(),
            tries: AtomicU32::new(0),
            complaint: Mutex::default(),
        }
    }

    /// `forbids` says which failed checks end it.
    async fn inspect(&self, reader: &Reader, forbids: fn(&Check) -> bool) -> Result<(), DaemonError> {
        let mut failed = Vec::new();
        let checks = reader.inspect().await;
        let known = self.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for check in checks {
            let said = format!("{}: {} → {}", check.name, check.found, check.advice);
            match check.verdict {
                CheckVerdict::Ok => {}
                CheckVerdict::Failed if forbids(&check) => {
                    // What is tried again and again is said once.
                    if !known.as_ref().is_some_and(|known| known.contains(&said)) {
                        error!("Inspection: {said}");
                    }
                    failed.push(said);
                }
                CheckVerdict::Warning | CheckVerdict::Failed if known.is_some() => {}
                CheckVerdict::Warning | CheckVerdict::Failed => warn!("Inspection: {said}"),
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(DaemonError::Inspection(failed.join(" | "))) }
    }

    fn unavailable(&self, e: &StoreError) {
        self.metrics.database_error(&self.database.name, e.kind());
        self.health.failing(&self.database.name, &chain(e), clock::now());
        self.digest.unavailable(&self.database.name, &chain(e));
        warn!(error.kind = e.kind(), "The database is not available, trying again soon: {}", chain(e));
    }

    /// What somebody must do something about.
    fn stopped(&self, report: &Report) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let News { sprung, over } = said.news(report);
        for stop in sprung {
            error!(limit = stop.tripwire().as_str(), "{stop}");
        }
        for tripwire in over {
            info!(limit = tripwire.as_str(), "The tripwire {} stops nothing any more", tripwire.as_str());
        }
        for place in &report.pilot_missing {
            if said.is_new(format!("pilot {place}")) {
                error!(
                    "The pilot names cost center {place}, which the database does not have: nobody is covered by it → create it in the print system, or correct the pilot"
                );
            }
        }
        for blocker in &report.blockers {
            if said.is_new(format!("blocker {} {}", blocker.policy, blocker.missing)) {
                error!(policy = %blocker.policy, "Policy {} is blocked: the database has no {} → create it in the print system, or correct the policy; `credkeeper doctor` names those that are spelled nearly so", blocker.policy, blocker.missing);
            }
        }
        for refusal in &report.refusals {
            if said.is_new(format!("limit {} {}", refusal.policy, refusal.limit.as_str())) {
                error!(policy = %refusal.policy, limit = refusal.limit.as_str(), "{refusal}");
            }
        }
    }

    fn stopping(&self) -> bool {
        *self.stop.borrow()
    }

    async fn pause(&self, span: Duration) {
        pause(&self.stop, span).await;
    }
}

impl Daemon {
    async fn live(mut self, journal: JournalFile, outlet: Outlet) -> Result<(), DaemonError> {
        let mut failures = 0;
        while !self.stopping() {
            let overdue = overdue(self.stop.clone());
            let ended = tokio::select! {
                ended = self.reign(&journal, &outlet, &mut failures) => ended,
                () = overdue => {
                    warn!("What was in hand did not end in time and is left; what became of it is looked up before the next pass");
                    self.metrics.leader(&self.database.name, false);
                    break;
                }
            };
            match ended {
                Ok(()) => break,
                Err(DaemonError::Store(e)) if e.is_transient() => {
                    failures += 1;
                    self.unavailable(&e);
                    self.pause(jittered(backoff(failures), 0.2, rand::random())).await;
                }
                Err(other) => {
                    let again = self.broke(other)?;
                    self.pause(again).await;
                }
            }
        }
        Ok(())
    }

    /// From gaining the lead to losing it, or to the stop.
    async fn reign(&mut self, file: &JournalFile, outlet: &Outlet, failures: &mut u32) -> Result<(), DaemonError> {
        let stop = wait_for(self.stop.clone());
        let begun = tokio::select! {
            begun = self.begin(file) => begun?,
            () = stop => None, // until it leads, all may be dropped at any point
        };
        let Some((journal, store, lead)) = begun else { return Ok(()) };
        self.metrics.leader(&self.database.name, true);
        info!("Leading on database {}", self.database.name);
        let ended = match self.trusted(&journal, &store, &lead).await {
            Ok(()) => {
                outlet.serve(&self.database.name, &journal, &store);
                let ended = self.passes(&journal, &store, &lead, outlet, failures).await;
                outlet.leave(journal.book());
                ended
            }
            other => other,
        };
        self.metrics.leader(&self.database.name, false);
        ended
    }

    /// All that comes before the first pass. `None`: stopped before.
    async fn begin(&self, file: &JournalFile) -> Result<Option<(Journal, Arc<Store>, Leadership)>, DaemonError> {
        let journal = file.of(&self.database.name).await?;
        let store = Arc::new(Store::connect(&self.database).await?);
        // What passes by itself is waited out; whatever else is wrong the inspection tells, with what to do about it.
        if let Err(e) = store.reader().clock().await
            && e.is_transient()
        {
            return Err(e.into());
        }
        self.inspect(store.reader(), Check::forbids_pass).await?;
        self.lot.works(&self.database.name);
        Ok(self.lead(&store).await?.map(|lead| (journal, store, lead)))
    }

    async fn lead(&self, store: &Store) -> Result<Option<Leadership>, DaemonError> {
        let (mut told, mut tries) = (false, 0);
        while !self.stopping() {
            if let Some(lead) = store.lead().await? {
                return Ok(Some(lead));
            }
            tries += 1;
            if tries <= HANDOVER.0 {
                self.pause(HANDOVER.1).await;
                continue;
            }
            if !std::mem::replace(&mut told, true) {
                info!("Standing by: another instance leads on database {}", self.database.name);
                self.health.standby(&self.database.name);
            }
            self.pause(STANDBY).await;
        }
        Ok(None)
    }

    /// A full comparison first, then polls and full comparisons as scheduled.
    async fn passes(
        &mut self,
        journal: &Journal,
        store: &Arc<Store>,
        lead: &Leadership,
        outlet: &Outlet,
        failures: &mut u32,
    ) -> Result<(), DaemonError> {
        let mut watermark = Watermark::default();
        let mut resync_at = Instant::now();
        // Of the last full pass.
        let (mut counts, mut wrong_form, mut behind) = (None, false, false);
        while !self.stopping() {
            if self.serve(journal, store, lead, outlet).await? {
                resync_at = Instant::now();
            }
            let now = clock::now();
            let above = if Instant::now() >= resync_at { None } else { watermark.at(now) };
            let kind = if above.is_some() { PassKind::Poll } else { PassKind::Resync };
            let ask = Ask { above, counts, undelivered_since: outlet.down_since(), ..Ask::full(kind, now) };
            let (report, newest) = self.pass(journal, store, lead, &outlet.ring(), &ask).await?;
            let unasked = report.is_stopped() && report.counts.is_none();
            let Some(newest) = newest.filter(|_| report.error.is_none() && !unasked) else {
                if requests::waits(journal).await {
                    continue; // the pass made room for it
                }
                // The connection lives, and yet the pass ended early, or was stopped by what the database says of itself: it
                // will say more in the next one.
                *failures += 1;
                self.pause(jittered(backoff(*failures), 0.2, rand::random())).await;
                continue;
            };
            *failures = 0;
            self.mended();
            counts = report.counts.or(counts).map(|counts| grown(counts, &self.database, &report));
            if kind == PassKind::Resync {
                if !report.is_stopped() && watermark.is_behind(newest.0) {
                    watermark = Watermark::default();
                }
                behind = watermark.is_behind(newest.0);
                wrong_form = report.stops.iter().any(|stop| stop.tripwire() == Tripwire::UnexplainedPins);
                let jitter = self.config.schedule.jitter;
                let until = until_resync(&self.config.schedule.resync, schedule::utc(clock::now()));
                // What stopped it may soon be over, and until then nobody is served.
                let until = if report.is_stopped() { until.min(STOPPED_AGAIN) } else { until };
                resync_at = Instant::now() + jittered(until, jitter, rand::random());
            } else if watermark.is_behind(newest.0) && !std::mem::replace(&mut behind, true) {
                warn!("The newest user id is lower than it was: comparing everything");
                resync_at = Instant::now();
                continue;
            }
            match report.stops.as_slice() {
                [] => watermark.passed(now, newest.0),
                // Polls go on from where they were. A tripwire that springs at the start must not be walked around by them.
                _ if report.is_stopped() => {}
                _ => watermark.waits(newest.0),
            }
            // Where ids do not grow there is nothing to poll for, and in a wrong form a new user's PIN would be useless: sleep
            // until the full comparison.
            let until = resync_at.saturating_duration_since(Instant::now());
            let grows = self.database.map.users.id_grows && !wrong_form && watermark.at(clock::now()).is_some();
            let poll = jittered(self.config.schedule.poll, self.config.schedule.jitter, rand::random());
            let pause = if grows { poll.min(until) } else { until };
            tokio::select! {
                () = self.pause(pause) => {}
                () = requests::asked(journal) => {}
            }
        }
        Ok(())
    }

    /// Recovers, then one pass. An error of the database ends the reign; anything else is told and waited out.
    async fn pass(
        &self,
        journal: &Journal,
        store: &Store,
        lead: &Leadership,
        ring: &Notify,
        ask: &Ask,
    ) -> Result<(Report, Option<UserId>), DaemonError> {
        self.metrics.pass_started(&self.database.name, ask.kind, ask.utc);
        let stop = self.stop.clone();
        let asked = AtomicBool::new(false);
        let ends = || *stop.borrow() || asked.load(Ordering::Relaxed);
        let watch = Watch { progress: &|_, _| {}, line: &|_| {}, committed: ring, stop: &ends };
        let recovered = recover(store, journal, ask.utc).await.map_err(fatal)?;
        if recovered.resent > 0 {
            ring.notify_one();
        }
        let pass = reconcile::pass(store, lead, journal, &self.config, &self.database, ask, &watch);
        let mut passed = tokio::select! {
            passed = pass => passed,
            never = requests::note(journal, &asked) => match never {},
        };
        passed.report.recovered = recovered;
        if matches!(passed.error, Some(PassError::Stopped)) {
            let goes_on = if self.stopping() { "the next start" } else { "the next pass, after what an operator asks for," };
            info!(pass.id = %passed.report.pass, "Ended the pass after the batch in hand; {goes_on} goes on from there");
            return Ok((passed.report, None));
        }
        self.metrics.pass(&passed.report, clock::now());
        self.digest.pass(&passed.report);
        self.told(&passed.report);
        self.keep_journal(journal, ask.kind).await;
        match passed.error {
            Some(PassError::Store(e)) if !e.is_about_rows() => Err(DaemonError::Store(e)),
            Some(PassError::CommitUnknown(e)) => Err(DaemonError::Store(e)),
            _ => Ok((passed.report, passed.newest)),
        }
    }

    fn told(&self, report: &Report) {
        let (outcome, due, applied) = (report.outcome(), report.due(), report.applied());
        let ms = report.read_ms + report.plan_ms + report.write_ms;
        match outcome {
            PassOutcome::Unchanged | PassOutcome::Refused if report.kind == PassKind::Poll && applied == 0 => {
                tracing::debug!(pass.id = %report.pass, pass.kind = report.kind.as_str(), duration_ms = ms, "Poll: nothing to do");
            }
            PassOutcome::Failed => {
                warn!(pass.id = %report.pass, pass.kind = report.kind.as_str(), outcome = outcome.as_str(), duration_ms = ms,
                "The pass ended early: {}", report.error.as_deref().unwrap_or_default())
            }
            _ => {
                info!(pass.id = %report.pass, pass.kind = report.kind.as_str(), outcome = outcome.as_str(), due, applied, failed = report.failed(),
                duration_ms = ms, "Pass ended: {}", outcome.sentence())
            }
        }
        self.stopped(report);
        if outcome == PassOutcome::Failed {
            self.health.failing(&self.database.name, report.error.as_deref().unwrap_or_default(), clock::now());
        } else {
            self.health.ready(&self.database.name, clock::now());
        }
    }
}

/// The figures of the last full pass, with what passes have added since: polls judge by them how full a space is.
fn grown(mut counts: Counts, database: &DatabaseConfig, report: &Report) -> Counts {
    for (policy, told) in database.policies.iter().zip(&report.policies) {
        counts.pins += told.gained;
        if let (Some(lengths), Some(rule)) = (&mut counts.by_length, &policy.pin)
            && let Some(of_length) = lengths.get_mut(rule.length.digits() - 1)
        {
            *of_length += told.gained;
        }
    }
    counts
}

/// What recovery could not do: without it no pass may run.
fn fatal(error: PassError) -> DaemonError {
    match error {
        PassError::Store(e) | PassError::CommitUnknown(e) => DaemonError::Store(e),
        PassError::Journal(e) => DaemonError::Journal(e),
        other => DaemonError::Recovery(other),
    }
}

/// Ends when a stop was asked for so long ago that nothing more can be waited for.
async fn overdue(stop: watch::Receiver<bool>) {
    wait_for(stop).await;
    sleep(STOP_WITHIN).await;
}

/// Ends when `flag` turns true, or when nobody can turn it any more.
pub async fn wait_for(mut flag: watch::Receiver<bool>) {
    let _ = flag.wait_for(|stop| *stop).await;
}
