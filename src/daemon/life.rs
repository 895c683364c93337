//! From the start to the stop, over all configurations that follow each other.
//!
//! ```text
//!            asked: read it, check it ── wrong ──► told, and nothing changes
//!   work ───────────┤
//!     ▲             └─ right ──► the batch and the mails in hand end ──► the new one takes its place ─┐
//!     └───────────────────────────── begins anew, with a full comparison ─────────────────────────────┘
//! ```

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::page::{Page, Turn};
use super::schedule::{jittered, patience};
use super::{Common, DaemonError, Kept, pause, reload, tenants, wait_for};
use crate::clock;
use crate::complaint::complaint;
use crate::config::Config;
use crate::digest::Digest;
use crate::http::Health;
use crate::logging::chain;
use crate::metrics::Metrics;

/// Where another configuration comes from.
pub struct Source {
    /// Changes when somebody asks to read it again.
    pub asked: watch::Receiver<()>,
    /// Reads and checks it; all that is wrong with it, a sentence each.
    pub read: Arc<dyn Fn() -> Result<Config, Vec<String>> + Send + Sync>,
    /// Told what is in force from now on, before anything is done by it and while no pass runs.
    pub taken: Arc<dyn Fn(&Config) + Send + Sync>,
}

/// Runs until `stop` says so.
///
/// # Errors
/// When something is wrong that a person has to mend. What passes by itself is waited out; and once another configuration was
/// taken up, nothing ends it but a stop: the next one may mend what this one broke.
pub async fn run(config: Arc<Config>, metrics: Arc<Metrics>, stop: watch::Receiver<bool>, source: Source) -> Result<(), DaemonError> {
    let health = Arc::new(Health::new(names(&config)));
    let page = Page::open(config.http, &health, &metrics).await.map_err(DaemonError::Http)?;
    let digest = Arc::new(Digest::start(&config, &metrics));
    Life { config, metrics, stop, source, health, page, digest, kept: Kept::default(), patient: false }.live().await
}

struct Life {
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    stop: watch::Receiver<bool>,
    source: Source,
    health: Arc<Health>,
    page: Page,
    digest: Arc<Digest>,
    kept: Kept,
    /// What only a person can mend is waited for.
    patient: bool,
}

/// A configuration that can be taken up.
struct Prepared {
    config: Arc<Config>,
    turn: Turn,
}

impl Life {
    async fn live(mut self) -> Result<(), DaemonError> {
        loop {
            let (end, ends) = watch::channel(false);
            let (mut work, stop) = (self.work(ends), wait_for(self.stop.clone()));
            let prepared = tokio::select! {
                prepared = self.asked() => Some(prepared),
                ended = &mut work => return ended.map_err(DaemonError::Task)?.0,
                () = stop => None,
            };
            end.send_replace(true);
            let (ended, kept) = work.await.map_err(DaemonError::Task)?;
            let Some(prepared) = prepared.filter(|_| !*self.stop.borrow()) else {
                if ended.is_ok() {
                    info!("Stopped");
                }
                return ended;
            };
            if let Err(e) = ended {
                warn!("The work under the configuration before did not end in good order: {}", chain(&e));
            }
            self.kept = kept;
            self.take_up(prepared).await;
        }
    }

    /// All databases at work, until `stop` or an error.
    fn work(&mut self, stop: watch::Receiver<bool>) -> JoinHandle<(Result<(), DaemonError>, Kept)> {
        let Life { config, metrics, health, digest, patient, .. } = &*self;
        let (patient, digest, health) = (*patient, digest.clone(), health.clone());
        let common = Common { config: config.clone(), metrics: metrics.clone(), health, digest, stop };
        let mut kept = std::mem::take(&mut self.kept);
        tokio::spawn(async move {
            let mut tries = 0;
            loop {
                match tenants::all(&common, &mut kept).await {
                    Err(e) if patient && !*common.stop.borrow() => {
                        tries += 1;
                        let again = jittered(patience(tries), 0.2, rand::random());
                        error!(
                            "Nothing is served: {}. It is tried again in {} s, or when the configuration is read again",
                            complaint(&e),
                            again.as_secs()
                        );
                        common.config.databases.iter().for_each(|database| common.health.failing(&database.name, &chain(&e), clock::now()));
                        pause(&common.stop, again).await;
                        if *common.stop.borrow() {
                            return (Ok(()), kept); // it has been told
                        }
                    }
                    ended => return (ended, kept),
                }
            }
        })
    }

    /// Waits until somebody asks to read the configuration again, and it can be taken up.
    async fn asked(&mut self) -> Prepared {
        loop {
            if self.source.asked.changed().await.is_err() {
                return std::future::pending().await; // nobody can ask any more
            }
            info!("Reading the configuration {} again", self.config.path.display());
            match self.prepare().await {
                Ok(prepared) => return prepared,
                Err(problems) => self.refuse(&problems),
            }
        }
    }

    async fn prepare(&self) -> Result<Prepared, Vec<String>> {
        let read = self.source.read.clone();
        let config = tokio::task::spawn_blocking(move || read()).await.map_err(|e| vec![e.to_string()])??;
        let problems = reload::unfit(&self.config, &config).await;
        if !problems.is_empty() {
            return Err(problems);
        }
        let turn = self.page.prepare(config.http).await.map_err(|e| vec![chain(&e)])?;
        Ok(Prepared { config: Arc::new(config), turn })
    }

    fn refuse(&self, problems: &[String]) {
        problems.iter().for_each(|problem| error!("{problem}"));
        let n = problems.len();
        error!(problems = n, "The configuration is refused ({n} problems), and the one before stays in force → mend it, and ask again");
        self.metrics.config_refused();
    }

    /// While nothing is at work.
    async fn take_up(&mut self, Prepared { config, turn }: Prepared) {
        // The last batch may have issued what the first look did not see.
        let problems = reload::unfit(&self.config, &config).await;
        if !problems.is_empty() {
            return self.refuse(&problems);
        }
        self.page.turn(turn).await;
        (self.source.taken)(&config);
        self.health.begin(names(&config));
        self.digest = Arc::new(self.digest.renewed(&config, &self.metrics));
        self.config = config;
        self.patient = true;
        info!("The new configuration is in force");
    }
}

fn names(config: &Config) -> impl Iterator<Item = &str> {
    config.databases.iter().map(|database| database.name.as_str())
}
