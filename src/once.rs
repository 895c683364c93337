//! `--once`: one full pass with delivery, and its preview.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::cli::{ExitStatus, Once};
use crate::clock;
use crate::config::{self, Config, DatabaseConfig};
use crate::deliver::{Delivery, Desk, Mode};
use crate::digest::Digest;
use crate::journal::{Journal, JournalError, JournalReader, LOCK_WAIT};
use crate::logging::{Progress, chain};
use crate::metrics::Metrics;
use crate::reconcile::{self, Ask, PassError, Watch};
use crate::recover::recover;
use crate::report::file::ReportFile;
use crate::report::{Line, PassKind, Report};
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

/// Runs one pass, or with `dry_run` its preview, and tells what came of it.
///
/// # Errors
/// When no pass could be begun, or its report not be written.
pub async fn run(config: Arc<Config>, asked: &Once, metrics: Arc<Metrics>, progress: &Progress) -> Result<Report, OnceError> {
    let database = &config.databases[0]; // the configuration demands exactly one
    let unwritten = |source| OnceError::Report { path: asked.report.clone().unwrap_or_default(), source };
    let file = asked.report.as_deref().map(ReportFile::create).transpose().map_err(unwritten)?;
    let line = |line: Line<'_>| {
        if let Some(file) = &file {
            file.line(line);
        }
    };
    let report = if asked.dry_run || config.mode == config::Mode::Observe {
        let report = preview(&config, database, asked, &line).await?;
        metrics.pass(&report, clock::now());
        report
    } else {
        let digest = Digest::new(&config, &metrics);
        let passed = pass(config.clone(), database, asked, metrics, &line, progress).await;
        match &passed {
            Ok(report) => digest.pass(report),
            Err(error) if error.status() == ExitStatus::Failed => digest.fatal(&database.name, &chain(error)),
            Err(_) => {}
        }
        digest.finish().await;
        passed?
    };
    if let Some(file) = file {
        file.finish(&report).map_err(unwritten)?;
    }
    Ok(report)
}

async fn preview(config: &Config, database: &DatabaseConfig, asked: &Once, line: &(dyn Fn(Line<'_>) + Sync)) -> Result<Report, OnceError> {
    let reader = Reader::connect(database).await?;
    inspect(config, &reader, Check::forbids_preview).await?;
    wait_for_user(&reader, asked).await?;
    let journal = JournalReader::open(&config.journal, &database.identity()).await?;
    let watch = Watch { progress: &|_, _| {}, line, committed: &Notify::new(), stop: &|| false };
    Ok(reconcile::preview(&reader, journal.as_ref(), config, database, &ask(asked), &watch).await)
}

async fn pass(
    config: Arc<Config>,
    database: &DatabaseConfig,
    asked: &Once,
    metrics: Arc<Metrics>,
    line: &(dyn Fn(Line<'_>) + Sync),
    progress: &Progress,
) -> Result<Report, OnceError> {
    let store = Arc::new(Store::connect(database).await?);
    inspect(&config, store.reader(), Check::forbids_pass).await?;
    wait_for_user(store.reader(), asked).await?;
    let journal = match Journal::open(&config.journal, &database.name, &database.identity(), LOCK_WAIT).await {
        Err(JournalError::Locked { path }) => return Err(OnceError::Locked(format!("the journal {} is in its hands", path.display()))),
        other => other?,
    };
    let lead = lead(&store).await?;
    metrics.leader(&database.name, true);
    let recovered = recover(&store, &journal, clock::now()).await.map_err(OnceError::Recovery)?;

    let desk = Desk {
        journal: journal.clone(),
        store: store.clone(),
        config: config.clone(),
        database: database.name.clone(),
        metrics: metrics.clone(),
    };
    let delivery = Delivery::start(desk, Mode::Once, None);
    let ring = delivery.ring();
    ring.notify_one();
    let ask = ask(asked);
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
    let passed = reconcile::pass(&store, &lead, &journal, &config, database, &ask, &watch).await;
    progress.done();
    let mut report = passed.report;
    report.recovered = recovered;
    let (totals, superseded) = delivery.finish(progress).await;
    report.mail = totals;
    report.recovered.superseded += superseded;
    metrics.pass(&report, clock::now());
    let counts = journal.reader().counts().await?.map(|(state, n)| (state.as_str(), n));
    metrics.journal(&database.name, &counts, journal.reader().oldest_open().await?);
    journal.checkpoint().await?;
    journal.close().await?;
    Ok(report)
}

fn ask(asked: &Once) -> Ask {
    Ask { login: asked.user.clone(), max_users: asked.max_users, max_replace: asked.max_replace, ..Ask::full(PassKind::Once, clock::now()) }
}

/// `forbids` says which failed checks end it.
async fn inspect(config: &Config, reader: &Reader, forbids: fn(&Check) -> bool) -> Result<(), OnceError> {
    let checks = reader.inspect(&reconcile::needs(config)).await;
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

/// With `--user`: the user must be there, if need be after `--wait`.
async fn wait_for_user(reader: &Reader, asked: &Once) -> Result<(), OnceError> {
    use futures_util::StreamExt;
    let Some(login) = &asked.user else { return Ok(()) };
    let until = Instant::now() + asked.wait.unwrap_or_default();
    loop {
        let filter = Filter { login: Some(login.clone()), ..Filter::default() };
        let mut found = reader.read(&filter);
        while let Some(users) = found.next().await {
            if !users?.is_empty() {
                return Ok(());
            }
        }
        if Instant::now() >= until {
            return Err(OnceError::NoSuchUser(login.clone()));
        }
        info!("The user is not in the database yet; looking again");
        sleep(LOOK_AGAIN).await;
    }
}

async fn lead(store: &Store) -> Result<Leadership, OnceError> {
    let until = Instant::now() + LOCK_WAIT;
    loop {
        if let Some(lead) = store.lead().await? {
            return Ok(lead);
        }
        if Instant::now() >= until {
            return Err(OnceError::Locked("it leads on this database, with a journal of its own".to_owned()));
        }
        sleep(LOOK_AGAIN).await;
    }
}
