//! `mode: observe`: a daemon that only reports. All that it works with stands in [`Observer`], and nothing of that can write or
//! send: the reading half of the store, the journal as a reader sees it, and no delivery. It takes no lock either, so it may
//! run beside a daemon that works.
//!
//! There are full comparisons only: nobody whom it sees is waiting for it.

use std::time::Duration;

use tokio::sync::Notify;
use tracing::{info, warn};

use super::schedule::{self, backoff, jittered, until_resync};
use super::{DaemonError, Shared, wait_for};
use crate::clock;
use crate::journal::{JournalReader, Owner};
use crate::logging::chain;
use crate::reconcile::{self, Ask, Watch};
use crate::report::{ChangeOutcome, PassKind, PassOutcome, PolicyReport, Report};
use crate::store::{Check, Reader};

pub(super) struct Observer {
    shared: Shared,
    /// `None` before the first comparison.
    reader: Option<Reader>,
    /// Opened anew for each comparison: there may be none yet. `None`: nothing is known of anybody.
    journal: Option<JournalReader>,
}

impl Observer {
    pub(super) fn new(shared: Shared) -> Observer {
        Observer { shared, reader: None, journal: None }
    }

    /// Previews until stopped.
    pub(super) async fn live(mut self) -> Result<(), DaemonError> {
        info!("Observing database {}: nothing is changed and no mail is sent (mode: observe)", self.shared.database.name);
        let mut failures = 0;
        let mut inspected = false;
        while !self.shared.stopping() {
            let stop = wait_for(self.shared.stop.clone());
            let ended = tokio::select! {
                ended = self.comparison(&mut inspected) => ended,
                () = stop => break, // a preview may be dropped at any point
            };
            let again = match ended {
                Ok(report) if report.error.is_none() => {
                    failures = 0;
                    self.shared.mended();
                    let schedule = &self.shared.config.schedule;
                    jittered(until_resync(&schedule.resync, schedule::utc(clock::now())), schedule.jitter, rand::random())
                }
                Ok(_) => after(&mut failures),
                Err(DaemonError::Store(e)) if e.is_transient() => {
                    self.shared.unavailable(&e);
                    after(&mut failures)
                }
                Err(DaemonError::Journal(e)) if e.is_transient() => {
                    warn!(error.kind = e.kind(), "The journal cannot be read now, trying again soon: {}", chain(&e));
                    after(&mut failures)
                }
                Err(other) => self.shared.broke(other)?,
            };
            self.shared.pause(again).await;
        }
        Ok(())
    }

    async fn comparison(&mut self, inspected: &mut bool) -> Result<Report, DaemonError> {
        let Shared { config, database, metrics, .. } = &self.shared;
        let reader = match &self.reader {
            Some(reader) => reader,
            None => self.reader.insert(Reader::connect(database).await?),
        };
        // What passes by itself is waited out; whatever else is wrong the inspection tells.
        if let Err(e) = reader.pulse().await
            && e.is_transient()
        {
            return Err(e.into());
        }
        if !*inspected {
            self.shared.inspect(reader, Check::forbids_preview).await?;
            *inspected = true;
            self.shared.lot.works(&database.name);
        }
        self.journal = JournalReader::open(&config.journal, Owner::all(&config.databases), &database.name).await?;
        let ask = Ask::full(PassKind::Resync, clock::now());
        metrics.pass_started(&database.name, ask.kind, ask.utc);
        let watch = Watch { progress: &|_, _| {}, line: &|_| {}, committed: &Notify::new(), stop: &|| false };
        let report = reconcile::preview(reader, self.journal.as_ref(), config, database, &ask, &watch).await;
        metrics.pass(&report, clock::now());
        self.told(&report);
        Ok(report)
    }

    fn told(&self, report: &Report) {
        let Shared { database, health, .. } = &self.shared;
        let outcome = report.outcome();
        if outcome == PassOutcome::Failed {
            let error = report.error.as_deref().unwrap_or_default();
            warn!(pass.id = %report.pass, outcome = outcome.as_str(), "The comparison ended early: {error}");
            health.failing(&database.name, error, clock::now());
            return;
        }
        let due = report.due();
        info!(pass.id = %report.pass, pass.kind = report.kind.as_str(), due, duration_ms = report.read_ms + report.plan_ms,
            "Observed, and nothing changed: {due} users are due");
        for policy in &report.policies {
            if let Some(would) = would(policy) {
                info!(pass.id = %report.pass, policy = %policy.policy, due = policy.due, "Policy {}: a pass would make {would}", policy.policy);
            }
        }
        self.shared.stopped(report);
        health.ready(&database.name, clock::now());
    }
}

fn after(failures: &mut u32) -> Duration {
    *failures += 1;
    jittered(backoff(*failures), 0.2, rand::random())
}

/// `12 PINs issued, 3 users moved to another cost center`.
fn would(policy: &PolicyReport) -> Option<String> {
    let applied = policy.changes.iter().filter(|((_, outcome), _)| *outcome == ChangeOutcome::Applied);
    let said: Vec<String> = applied.map(|((change, _), n)| format!("{n} {}", change.sentence())).collect();
    (!said.is_empty()).then(|| said.join(", "))
}
