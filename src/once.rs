//! `--once`: one full pass with delivery, and its preview.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::cli::{ExitStatus, Once};
use crate::clock;
use crate::config::{self, Config, DatabaseConfig};
use crate::deliver::{Delivery, Desk, Mode, Outlet};
use crate::digest::Digest;
use crate::journal::{Journal, JournalError, JournalFile, JournalReader, LOCK_WAIT, Owner};
use crate::logging::{Progress, chain};
use crate::metrics::{INSPECTION, Metrics};
use crate::reconcile::take_back::{self, TakeBack};
use crate::reconcile::{self, Ask, PassError, Watch, restored};
use crate::recover::recover;
use crate::report::file::ReportFile;
use crate::report::{Line, PassKind, ReminderTotals, Report};
use crate::store::{Check, CheckVerdict, Filter, Leadership, Reader, Store, StoreError};

/// How often `--wait` looks for the user.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Why no report came about.
#[derive(Debug, thiserror::Error)]
pub enum OnceError {
    #[error("another instance is at work: {0}; let it do the work, wait until it has ended, or end it")]
    Locked(String),
    /// The names of the checks that failed; each was told in full.
    #[error("what the inspection found must be mended first: {0}; nothing was changed")]
    Inspection(String),
    #[error("the database failed")]
    Store(#[from] StoreError),
    #[error("the journal failed")]
    Journal(#[from] JournalError),
    #[error("what an earlier run left behind could not be resolved")]
    Recovery(#[source] PassError),
    #[error(
        "the user {0} is not in the database; write the login exactly as the print system has it, capitals too; --wait 30s waits for a new one"
    )]
    NoSuchUser(String),
    #[error("the report {} cannot be written", path.display())]
    Report { path: PathBuf, source: io::Error },
}

impl OnceError {
    pub fn status(&self) -> ExitStatus {
        match self {
            OnceError::Locked(_) => ExitStatus::Locked,
            OnceError::NoSuchUser(_) => ExitStatus::Partial,
            _ => ExitStatus::Failed,
        }
    }
}

/// What came of one database.
pub struct Ended {
    pub database: String,
    pub outcome: Result<Report, OnceError>,
}

/// A database that a pass can begin on.
struct Begun<'a> {
    database: &'a DatabaseConfig,
    store: Arc<Store>,
}

/// Told of the users of one database, which is named first.
type Tell<'a> = &'a (dyn Fn(&str, Line<'_>) + Sync);

/// Runs one pass over each database in turn, or with `dry_run` its preview, and tells what came of it; of `--user`, over
/// those that have the user. A database that fails keeps none of the others from its pass.
///
/// # Errors
/// When no pass could be begun on the only database, the user is in none, or the report could not be written.
pub async fn run(config: Arc<Config>, asked: &Once, metrics: Arc<Metrics>, progress: &Progress) -> Result<Vec<Ended>, OnceError> {
    let unwritten = |source| OnceError::Report { path: asked.report.clone().unwrap_or_default(), source };
    let several = config.databases.len() > 1;
    let file = asked.report.as_deref().map(|path| ReportFile::create(path, several)).transpose().map_err(unwritten)?;
    let tell = |database: &str, line: Line<'_>| {
        if let Some(file) = &file {
            file.line(database, line);
        }
    };
    let mut ended = if asked.dry_run || config.mode == config::Mode::Observe {
        previews(&config, asked, &metrics, &tell).await?
    } else {
        let digest = Digest::new(&config, &metrics);
        let passed = passes(&config, asked, &metrics, &tell, progress).await;
        tell_administrators(digest, &config, &passed).await;
        passed?
    };
    for Ended { database, outcome } in &ended {
        match outcome {
            Err(OnceError::Store(e)) => metrics.database_error(database, e.kind()),
            Err(OnceError::Inspection(_)) => metrics.database_error(database, INSPECTION),
            _ => {}
        }
    }
    if !several && ended.iter().any(|one| one.outcome.is_err()) {
        return ended.pop().map_or(Ok(Vec::new()), |one| one.outcome.map(|_| Vec::new()));
    }
    if let Some(file) = file {
        let told: Vec<_> = ended.iter().map(|one| (one.database.as_str(), one.outcome.as_ref().map_err(|e| chain(e)))).collect();
        file.finish(&told).map_err(unwritten)?;
    }
    Ok(ended)
}

/// One mail of all that is wrong.
async fn tell_administrators(digest: Digest, config: &Config, passed: &Result<Vec<Ended>, OnceError>) {
    match passed {
        Ok(ended) => {
            for Ended { database, outcome } in ended {
                match outcome {
                    Ok(report) => digest.pass(report),
                    Err(error) if error.status() == ExitStatus::Failed => digest.fatal(database, &chain(error)),
                    Err(_) => {}
                }
            }
        }
        Err(error) if error.status() == ExitStatus::Failed => {
            config.selected().for_each(|database| digest.fatal(&database.name, &chain(error)));
        }
        Err(_) => {}
    }
    digest.finish().await;
}

async fn previews(config: &Config, asked: &Once, metrics: &Metrics, tell: Tell<'_>) -> Result<Vec<Ended>, OnceError> {
    let mut ended = Vec::new();
    let mut begun = Vec::new();
    for database in config.selected() {
        let reader = async {
            let reader = Reader::connect(database).await?;
            inspect(&reader, Check::forbids_preview).await?;
            Ok(reader)
        };
        match reader.await {
            Ok(reader) => begun.push((database, reader)),
            Err(e) => ended.push(failed(database, e)),
        }
    }
    let readers: Vec<(&DatabaseConfig, &Reader)> = begun.iter().map(|(database, reader)| (*database, reader)).collect();
    let having = wait_for_user(&readers, asked, &mut ended).await?;
    for (database, reader) in readers.into_iter().filter(|(database, _)| having.contains(&database.name)) {
        let line = |line: Line<'_>| tell(&database.name, line);
        let report = async {
            let journal = JournalReader::open(&config.journal, Owner::all(&config.databases), &database.name).await?;
            let watch = Watch { progress: &|_, _| {}, line: &line, committed: &Notify::new(), stop: &|| false };
            let report = reconcile::preview(reader, journal.as_ref(), config, database, &ask(asked), &watch).await;
            metrics.pass(&report, clock::now());
            Ok(report)
        };
        ended.push(Ended { database: database.name.clone(), outcome: report.await });
    }
    Ok(in_order(config, ended))
}

async fn passes(
    config: &Arc<Config>,
    asked: &Once,
    metrics: &Arc<Metrics>,
    tell: Tell<'_>,
    progress: &Progress,
) -> Result<Vec<Ended>, OnceError> {
    let mut ended = Vec::new();
    let mut begun = Vec::new();
    for database in config.selected() {
        let store = async {
            let store = Arc::new(Store::connect(database).await?);
            inspect(store.reader(), Check::forbids_pass).await?;
            Ok(store)
        };
        match store.await {
            Ok(store) => begun.push(Begun { database, store }),
            Err(e) => ended.push(failed(database, e)),
        }
    }
    let readers: Vec<(&DatabaseConfig, &Reader)> = begun.iter().map(|one| (one.database, one.store.reader())).collect();
    let having = wait_for_user(&readers, asked, &mut ended).await?;
    begun.retain(|one| having.contains(&one.database.name));
    if begun.is_empty() {
        return Ok(in_order(config, ended));
    }
    let file = match JournalFile::open(&config.journal, Owner::all(&config.databases), LOCK_WAIT).await {
        Err(JournalError::Locked { path }) => {
            let locked = || OnceError::Locked(format!("the journal {} is in its hands", path.display()));
            ended.extend(begun.iter().map(|one| failed(one.database, locked())));
            return Ok(in_order(config, ended));
        }
        other => other?,
    };
    file.serve_requests(false, clock::now()).await?;
    told_of_left(&file).await?;
    let desk = Desk { journal: file.clone(), config: config.clone(), metrics: metrics.clone(), down_since: None };
    let delivery = Delivery::start(desk, Mode::Once);
    let outlet = delivery.outlet();
    let mut passed = Vec::new();
    for Begun { database, store } in begun {
        let line = |line: Line<'_>| tell(&database.name, line);
        match pass(config, database, &store, &file, &outlet, asked, metrics, &line, progress).await {
            Ok((journal, lead, report)) => passed.push((database, store, journal, lead, report)),
            Err(e) => ended.push(failed(database, e)),
        }
    }
    let delivered = delivery.finish(progress).await;
    for (database, store, journal, lead, mut report) in passed {
        take_back_now(config, database, &store, &journal, &lead, &mut report).await;
        let counted = delivered.get(&journal.book()).copied().unwrap_or_default();
        report.mail = counted.totals;
        report.reminders = ReminderTotals { due: report.reminders.due, ..counted.reminders };
        report.recovered.superseded += counted.superseded;
        metrics.pass(&report, clock::now());
        let counts = journal.reader().counts().await?.map(|(state, n)| (state.as_str(), n));
        let plans = journal.reader().refused_policies(clock::now()).await?;
        metrics.journal(&database.name, &counts, journal.reader().oldest_open().await?, plans);
        ended.push(Ended { database: database.name.clone(), outcome: Ok(report) });
    }
    file.checkpoint().await?;
    file.close().await?;
    Ok(in_order(config, ended))
}

/// One pass; the lead is to be kept until the mail is out.
#[expect(clippy::too_many_arguments, reason = "what all passes share, and what is this one's own")]
async fn pass(
    config: &Config,
    database: &DatabaseConfig,
    store: &Arc<Store>,
    file: &JournalFile,
    outlet: &Outlet,
    asked: &Once,
    metrics: &Metrics,
    line: &(dyn Fn(Line<'_>) + Sync),
    progress: &Progress,
) -> Result<(Journal, Leadership, Report), OnceError> {
    let journal = file.of(&database.name).await?;
    let leads_elsewhere = || OnceError::Locked("it leads on this database, with a journal of its own".to_owned());
    let lead = store.lead_within(LOCK_WAIT).await?.ok_or_else(leads_elsewhere)?;
    metrics.leader(&database.name, true);
    let ask = ask(asked);
    // Before anything is looked up or mailed: if it is an older one, all that the journal would conclude from it is wrong.
    let found = restored::look_back(store.reader(), journal.reader(), config, database, ask.utc).await.map_err(unlooked)?;
    if let Some(stop) = found.stop() {
        let passed = restored::refused(&journal, config, database, &ask, stop).await.map_err(unlooked)?;
        return Ok((journal, lead, passed.report));
    }
    let recovered = recover(store, &journal, clock::now()).await.map_err(OnceError::Recovery)?;
    outlet.serve(&database.name, &journal, store);
    let ring = outlet.ring();
    metrics.pass_started(&database.name, ask.kind, ask.utc);
    progress.stage("Reading", None);
    let shown = AtomicU64::new(0);
    let done = |done: u64, total: u64| {
        let before = shown.swap(done, Ordering::Relaxed);
        if before == 0 {
            progress.stage("Changing", Some(total));
        }
        progress.advance(done - before);
    };
    let watch = Watch { progress: &done, line, committed: &ring, stop: &|| false };
    let passed = reconcile::pass(store, &lead, &journal, config, database, &ask, &watch).await;
    progress.done();
    Ok((journal, lead, Report { recovered, ..passed.report }))
}

/// What the mail server has just refused for good: the next pass may be a day away.
async fn take_back_now(
    config: &Config,
    database: &DatabaseConfig,
    store: &Store,
    journal: &Journal,
    lead: &Leadership,
    report: &mut Report,
) {
    if report.error.is_some() || report.is_stopped() {
        return;
    }
    let (pass, utc) = (report.pass.clone(), clock::now());
    let taking = TakeBack { store, lead, journal, config, database, stop: &|| false, pass, utc };
    if let Err(e) = take_back::undeliverable(&taking, report).await {
        report.error = Some(chain(&e));
    }
}

/// What keeps from looking whether the database is the one that the journal left.
fn unlooked(error: PassError) -> OnceError {
    match error {
        PassError::Store(e) => OnceError::Store(e),
        PassError::Journal(e) => OnceError::Journal(e),
        other => OnceError::Recovery(other),
    }
}

fn failed(database: &DatabaseConfig, error: OnceError) -> Ended {
    Ended { database: database.name.clone(), outcome: Err(error) }
}

/// As the configuration names them.
fn in_order(config: &Config, mut ended: Vec<Ended>) -> Vec<Ended> {
    ended.sort_by_key(|one| config.databases.iter().position(|database| database.name == one.database));
    ended
}

async fn told_of_left(journal: &JournalFile) -> Result<(), JournalError> {
    journal.left().await?.iter().filter(|left| left.open > 0).for_each(|left| warn!("{left}"));
    Ok(())
}

fn ask(asked: &Once) -> Ask {
    Ask { login: asked.user.clone(), max_users: asked.max_users, max_replace: asked.max_replace, ..Ask::full(PassKind::Once, clock::now()) }
}

/// `forbids` says which failed checks end it.
async fn inspect(reader: &Reader, forbids: fn(&Check) -> bool) -> Result<(), OnceError> {
    let checks = reader.inspect().await;
    let (bad, rest): (Vec<&Check>, Vec<&Check>) = checks.iter().partition(|check| forbids(check));
    for Check { name, found, advice, .. } in rest.iter().filter(|check| check.verdict != CheckVerdict::Ok) {
        warn!("Inspection: {name}: {found} → {advice}");
    }
    for Check { name, found, advice, .. } in &bad {
        error!("Inspection: {name}: {found} → {advice}");
    }
    let failed: Vec<&str> = bad.iter().map(|check| check.name).collect();
    if failed.is_empty() { Ok(()) } else { Err(OnceError::Inspection(failed.join(", "))) }
}

/// The names of those that have the `--user`, if need be after `--wait`; without, of all. One that cannot be asked has ended.
async fn wait_for_user(
    readers: &[(&DatabaseConfig, &Reader)],
    asked: &Once,
    ended: &mut Vec<Ended>,
) -> Result<BTreeSet<String>, OnceError> {
    let Some(login) = &asked.user else { return Ok(readers.iter().map(|(database, _)| database.name.clone()).collect()) };
    let until = Instant::now() + asked.wait.unwrap_or_default();
    let mut readers = readers.to_vec();
    loop {
        let mut having = BTreeSet::new();
        let mut still = Vec::new();
        for (database, reader) in readers {
            match has(reader, login).await {
                Ok(true) => drop(having.insert(database.name.clone())),
                Ok(false) => still.push((database, reader)),
                Err(e) => ended.push(failed(database, e.into())),
            }
        }
        // What could not be asked may have the user: it has said why.
        if !having.is_empty() || (still.is_empty() && !ended.is_empty()) {
            return Ok(having);
        }
        if Instant::now() >= until {
            return if ended.is_empty() { Err(OnceError::NoSuchUser(login.clone())) } else { Ok(having) };
        }
        info!("The user is not in the database yet; looking again");
        sleep(LOOK_AGAIN).await;
        readers = still;
    }
}

async fn has(reader: &Reader, login: &str) -> Result<bool, StoreError> {
    let filter = Filter { login: Some(login.to_owned()), ..Filter::default() };
    let mut found = reader.read(&filter);
    while let Some(users) = found.next().await {
        if !users?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}
