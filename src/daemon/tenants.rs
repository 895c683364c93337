//! Several databases in one daemon: a task for each, which share the journal and the delivery. One that fails keeps none of
//! the others from being served; the daemon ends by itself only where nothing is left that works.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{Instrument, debug, error, error_span, info, warn};

use super::observe::Observer;
use super::schedule::{jittered, patience};
use super::{Common, Daemon, DaemonError, Kept, STANDBY, Shared, pause, wait_for};
use crate::clock;
use crate::complaint::complaint;
use crate::config::Mode;
use crate::deliver::{self, Delivery, Desk};
use crate::domain::printable;
use crate::journal::{JournalError, JournalFile, Owner};
use crate::logging::chain;
use crate::metrics::INSPECTION;

/// What the databases of one daemon share of each other's fate.
pub(super) struct Lot {
    databases: usize,
    fate: Mutex<Fate>,
}

#[derive(Default)]
struct Fate {
    /// Those that only a person can mend.
    broken: BTreeSet<String>,
    /// Whether any has ever come up.
    worked: bool,
}

impl Lot {
    pub(super) fn new(databases: usize) -> Lot {
        Lot { databases, fate: Mutex::default() }
    }

    /// The database can be worked on, by this instance or by the one that leads.
    pub(super) fn works(&self, database: &str) {
        let mut fate = self.fate.lock().unwrap_or_else(PoisonError::into_inner);
        fate.worked = true;
        fate.broken.remove(database);
    }

    /// Waiting will not mend it. Whether the daemon is to end: the only database, or the last of all that never came up.
    fn broke(&self, database: &str) -> bool {
        let mut fate = self.fate.lock().unwrap_or_else(PoisonError::into_inner);
        fate.broken.insert(database.to_owned());
        self.databases == 1 || (!fate.worked && fate.broken.len() == self.databases)
    }
}

impl Shared {
    /// What only a person can mend. Where others are served meanwhile it is told and tried again, less and less often.
    ///
    /// # Errors
    /// The same, if the daemon is to end.
    pub(super) fn broke(&self, error: DaemonError) -> Result<Duration, DaemonError> {
        let (name, said) = (&self.database.name, chain(&error));
        self.health.failing(name, &said, clock::now());
        if self.lot.broke(name) {
            return Err(error);
        }
        match &error {
            DaemonError::Store(e) => self.metrics.database_error(name, e.kind()),
            DaemonError::Inspection(_) => self.metrics.database_error(name, INSPECTION),
            _ => {}
        }
        self.digest.fatal(name, &said);
        let tries = self.tries.fetch_add(1, Ordering::Relaxed) + 1;
        let again = jittered(patience(tries), 0.2, rand::random());
        let seconds = again.as_secs();
        let mut known = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_deref() == Some(said.as_str()) {
            debug!(tries, "Database {} still cannot be served; tried again in {seconds} s", printable(name));
        } else {
            error!(
                "Database {} cannot be served, the others are not held up: {}. It is tried again in {seconds} s, and then less often",
                printable(name),
                complaint(&error)
            );
            *known = Some(said);
        }
        Ok(again)
    }

    /// A pass has come to its end.
    pub(super) fn mended(&self) {
        self.tries.store(0, Ordering::Relaxed);
        if self.complaint.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            info!("Database {} is served again", printable(&self.database.name));
        }
    }
}

/// Runs all databases until stopped, or until one of them ends the daemon.
///
/// `kept` is what goes over to the next configuration.
pub(super) async fn all(common: &Common, kept: &mut Kept) -> Result<(), DaemonError> {
    // Whoever ends the daemon ends all of it.
    let (ending, stop) = watch::channel(false);
    let asked = common.stop.clone();
    let common = Common { stop, ..common.clone() };
    let follow = ending.clone();
    let following = tokio::spawn(async move {
        wait_for(asked).await;
        follow.send_replace(true);
    });
    let ended = match common.config.mode {
        Mode::Enforce => enforce(&common, &ending, kept).await,
        Mode::Observe => {
            // Who only observes holds no lock.
            if let Some(journal) = std::mem::take(kept).journal {
                journal.close().await?;
            }
            let observe = |shared: Shared| Observer::new(shared).live();
            each(&common, &ending, observe).await
        }
    };
    following.abort();
    ended
}

async fn enforce(common: &Common, ending: &watch::Sender<bool>, kept: &mut Kept) -> Result<(), DaemonError> {
    let Some(journal) = journal(common, kept.journal.take()).await? else { return Ok(()) };
    kept.journal = Some(journal.clone());
    journal.serve_requests(true, clock::now()).await?;
    for left in journal.left().await? {
        if left.open > 0 { warn!("{left}") } else { info!("{left}") }
    }
    let desk = Desk {
        journal: journal.clone(),
        config: common.config.clone(),
        metrics: common.metrics.clone(),
        down_since: kept.down_since.take(),
    };
    let delivery = Delivery::start(desk, deliver::Mode::Daemon);
    let outlet = delivery.outlet();
    let passes = async {
        let ended = each(common, ending, |shared| Daemon(shared).live(journal.clone(), outlet.clone())).await;
        ending.send_replace(true);
        ended
    };
    // Both at once: a mail server that does not answer and a batch that takes long must not add up.
    let mails = async {
        wait_for(common.stop.clone()).await;
        delivery.stop().await;
    };
    let (ended, ()) = tokio::join!(passes, mails);
    kept.down_since = outlet.down_since();
    ended?;
    journal.checkpoint().await?;
    Ok(())
}

/// A task for each database. The first error ends them all.
async fn each<F>(common: &Common, ending: &watch::Sender<bool>, live: impl Fn(Shared) -> F) -> Result<(), DaemonError>
where
    F: Future<Output = Result<(), DaemonError>> + Send + 'static,
{
    let lot = Arc::new(Lot::new(common.config.databases.len()));
    let mut tasks = JoinSet::new();
    for database in &common.config.databases {
        let shared = Shared::new(common, database, &lot);
        let task = live(shared);
        if common.config.databases.len() == 1 {
            tasks.spawn(task);
        } else {
            tasks.spawn(task.instrument(error_span!("database", database = %database.name)));
        }
    }
    let mut outcome = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.unwrap_or_else(|e| Err(DaemonError::Task(e)));
        if ended.is_err() {
            ending.send_replace(true);
        }
        outcome = outcome.and(ended);
    }
    outcome
}

/// Takes the journal's file lock, if it is not `kept`; as standby until it is free. `None`: stopped before.
async fn journal(common: &Common, kept: Option<JournalFile>) -> Result<Option<JournalFile>, DaemonError> {
    let Common { config, health, stop, .. } = common;
    if let Some(journal) = kept {
        return Ok(Some(journal.passed_on(Owner::all(&config.databases)).await?));
    }
    let mut told = false;
    while !*stop.borrow() {
        match JournalFile::open(&config.journal, Owner::all(&config.databases), Duration::ZERO).await {
            Ok(journal) => return Ok(Some(journal)),
            Err(JournalError::Locked { .. }) => {
                if !std::mem::replace(&mut told, true) {
                    info!("Standing by: another instance holds the journal {}", config.journal.path.display());
                    config.databases.iter().for_each(|database| health.standby(&database.name));
                }
                pause(stop, STANDBY).await;
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_ends_where_nothing_works_and_never_did() {
        assert!(Lot::new(1).broke("only"), "as ever");
        let lot = Lot::new(2);
        assert!(!lot.broke("a") && !lot.broke("a") && lot.broke("b"), "all that there are");
        let lot = Lot::new(2);
        assert!(!lot.broke("a"));
        lot.works("b");
        assert!(!lot.broke("b") && !lot.broke("a"), "what once worked may work again");
    }
}
