//! Whether the database is the one that the journal left: before the first pass of a reign, and before any mail, the newest
//! credentials in force are looked up. `plan::restored` judges what is found.

use futures_util::StreamExt;

use super::{Ask, PassError, Passed, chain, new_report};
use crate::config::{Config, DatabaseConfig};
use crate::domain::{Timestamp, UserId};
use crate::inventory::{Trace, User};
use crate::journal::{Journal, JournalReader, Recent};
use crate::plan::restored::{self, Cut};
use crate::plan::tripwires::{self, Stop};
use crate::store::{DueFilter, Filter, Reader};

/// How many of the newest credentials are looked up.
const LOOKED_UP: usize = 100;
/// Older ones say nothing that newer ones do not say better: a restored database lacks the newest first.
const RECENT: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);

/// What a look found.
pub struct LookedBack {
    /// Newest first.
    pub traces: Vec<(Recent, Trace)>,
    pub cut: Option<Cut>,
}

impl LookedBack {
    /// The oldest issuance that went with the database.
    pub fn oldest_gone(&self) -> Option<&Recent> {
        self.cut.and_then(|cut| self.traces.get(cut.at)).map(|(recent, _)| recent)
    }

    /// How many show this.
    pub fn count(&self, of: Trace) -> usize {
        self.traces.iter().filter(|(_, trace)| *trace == of).count()
    }

    /// What the administrator is told.
    pub fn stop(&self) -> Option<Stop> {
        let (Cut { gone, of, .. }, oldest) = (self.cut?, self.oldest_gone()?);
        Some(Stop::Restored { gone, of, since: oldest.planned_at })
    }
}

/// Looks the newest credentials up.
pub async fn look_back(
    reader: &Reader,
    journal: &JournalReader,
    config: &Config,
    database: &DatabaseConfig,
    now: Timestamp,
) -> Result<LookedBack, PassError> {
    let newest = journal.newest_credentials(now.minus(RECENT), LOOKED_UP).await?;
    let traces = traces(reader, journal, database, newest).await?;
    let mut cut = restored::cut(traces.iter().map(|(_, trace)| *trace));
    // Where PINs are read in another form than they are stored in, each of them seems to be gone: that has a tripwire of its own.
    if cut.is_some() {
        let counts = reader.counts().await?;
        if !tripwires::of_figures(&config.limits.tripwires, database.pin_format, None, &counts).is_empty() {
            cut = None;
        }
    }
    Ok(LookedBack { traces, cut })
}

/// What the database shows of each of these.
pub async fn traces(
    reader: &Reader,
    journal: &JournalReader,
    database: &DatabaseConfig,
    recent: Vec<Recent>,
) -> Result<Vec<(Recent, Trace)>, PassError> {
    if recent.is_empty() {
        return Ok(Vec::new());
    }
    let wall = reader.clock().await?;
    let mut ids: Vec<UserId> = recent.iter().map(|recent| recent.user).collect();
    ids.sort_unstable();
    ids.dedup();
    let filter = Filter { due: Some(DueFilter { users: ids, ..DueFilter::default() }), ..Filter::default() };
    let mut users: Vec<User> = Vec::new();
    let mut chunks = reader.read(&filter);
    while let Some(chunk) = chunks.next().await {
        users.extend(chunk?);
    }
    Ok(journal.traces(recent, users, wall, (database.needs.codes, database.needs.passwords)).await?)
}

/// The pass that does not begin because of `stop`, as any other is told and remembered.
pub async fn refused(journal: &Journal, config: &Config, database: &DatabaseConfig, ask: &Ask, stop: Stop) -> Result<Passed, PassError> {
    let mut report = new_report(config, database, ask, false);
    report.stops.push(stop);
    journal.pass_started(&report.pass, ask.kind.as_str(), ask.utc).await?;
    let summary = crate::report::json::render(&report);
    if let Err(e) = journal.pass_ended(&report.pass, report.outcome().as_str(), summary, ask.utc).await {
        tracing::warn!(error.kind = e.kind(), "Could not note the end of the pass in the journal: {}", chain(&e));
    }
    Ok(Passed { report, newest: None, error: None })
}
