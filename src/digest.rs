//! Mail to administrators about what is wrong (product rule R34): a digest, one entry an incident, at most one an interval, the
//! first one a minute after the first problem.
//!
//! Whoever sees something tells a [`Digest`]; it keeps what is wrong in memory and mails on a connection of its own. It never
//! waits for the mail of users, which never waits for it, and never touches the journal.

use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::clock;
use crate::config::{AdminConfig, Config, Mode};
use crate::domain::Timestamp;
use crate::domain::time::span;
use crate::mail::{self, Delivery};
use crate::metrics::{MailOutcome, Metrics};
use crate::report::Report;

mod incidents;

use incidents::{Incident, Incidents, Subject, Told};

/// A digest that could not be sent is tried again after so long.
const TRY_AGAIN: Duration = Duration::from_secs(15 * 60);
/// How many incidents a mail tells of each sort.
const ENTRIES: usize = 50;

/// What is wrong, for administrators. Does nothing if the configuration names none; dropped, it mails no more.
pub struct Digest {
    desk: Option<Arc<Desk>>,
    task: Option<JoinHandle<()>>,
}

struct Desk {
    config: Arc<Config>,
    admin: AdminConfig,
    metrics: Arc<Metrics>,
    incidents: Mutex<Incidents>,
    news: Notify,
}

impl Digest {
    /// For one pass: [`finish`](Digest::finish) mails.
    pub fn new(config: &Arc<Config>, metrics: &Arc<Metrics>) -> Digest {
        // Who only observes sends no mail at all.
        let admin = config.admin.clone().filter(|_| config.mode == Mode::Enforce);
        let desk = admin.map(|admin| {
            let incidents = Mutex::new(Incidents::new(admin.interval));
            Arc::new(Desk { config: config.clone(), admin, metrics: metrics.clone(), incidents, news: Notify::new() })
        });
        Digest { desk, task: None }
    }

    /// For a daemon: mails by itself. To be called within a runtime.
    pub fn start(config: &Arc<Config>, metrics: &Arc<Metrics>) -> Digest {
        let mut digest = Digest::new(config, metrics);
        digest.task = digest.desk.clone().map(|desk| tokio::spawn(async move { desk.run().await }));
        digest
    }

    /// The same daemon with another configuration: what was told is not told again.
    pub fn renewed(&self, config: &Arc<Config>, metrics: &Arc<Metrics>) -> Digest {
        let mut digest = Digest::new(config, metrics);
        if let (Some(old), Some(new)) = (&self.desk, &digest.desk) {
            let databases: Vec<&str> = config.databases.iter().map(|database| database.name.as_str()).collect();
            *new.incidents() = old.incidents().renewed(new.admin.interval, &databases);
        }
        digest.task = digest.desk.clone().map(|desk| tokio::spawn(async move { desk.run().await }));
        digest
    }

    /// A pass has ended, so the database is there.
    pub fn pass(&self, report: &Report) {
        self.tell(|incidents, now| incidents.report(report, now));
    }

    /// The database is not available; it is again with the next pass.
    pub fn unavailable(&self, database: &str, why: &str) {
        self.tell(|incidents, now| incidents.lasts(database, Subject::Database, format!("the database is not available: {why}"), now));
    }

    /// The journal is in trouble; `None`: it is well.
    pub fn journal(&self, database: &str, trouble: Option<&str>) {
        self.tell(|incidents, now| match trouble {
            Some(trouble) => incidents.lasts(database, Subject::Journal, format!("the journal is in trouble: {trouble}"), now),
            None => incidents.over(database, &Subject::Journal, now),
        });
    }

    /// How many mails the journal holds that cannot be delivered.
    pub fn undeliverable(&self, database: &str, mails: u64) {
        let sentence = format!("{mails} mails cannot be delivered; `credkeeper journal list` tells which");
        self.tell(|incidents, now| match mails {
            0 => incidents.over(database, &Subject::Undeliverable, now),
            _ => incidents.lasts(database, Subject::Undeliverable, sentence, now),
        });
    }

    /// Nothing could be done at all.
    pub fn fatal(&self, database: &str, why: &str) {
        self.tell(|incidents, now| incidents.lasts(database, Subject::Fatal, format!("nothing could be done: {why}"), now));
    }

    /// Mails what is wrong now, if something is.
    pub async fn finish(self) {
        if let Some(desk) = &self.desk {
            desk.mail(clock::now(), true).await;
        }
    }

    fn tell(&self, what: impl FnOnce(&mut Incidents, Timestamp)) {
        if let Some(desk) = &self.desk {
            what(&mut desk.incidents(), clock::now());
            desk.news.notify_one();
        }
    }
}

impl Drop for Digest {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Desk {
    fn incidents(&self) -> MutexGuard<'_, Incidents> {
        self.incidents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self) {
        loop {
            let due = self.incidents().due();
            let now = clock::now();
            match due {
                Some(at) if at <= now => self.mail(now, false).await,
                Some(at) => tokio::select! {
                    () = self.news.notified() => {}
                    () = sleep(at.since(now)) => {}
                },
                None => self.news.notified().await,
            }
        }
    }

    async fn mail(&self, now: Timestamp, at_once: bool) {
        let Some((subject, text)) = self.incidents().told(now, at_once).map(|told| self.written(&told, now)) else { return };
        let mut sent = false;
        for (to, begun) in self.admin.email.iter().map(|to| (to, Instant::now())) {
            let delivery = mail::send_notice(&self.config.mail, to, "digest", &subject, &text, now).await;
            if let Some(outcome) = MailOutcome::ALL.iter().copied().find(|outcome| outcome.as_str() == delivery.outcome()) {
                self.metrics.mail(outcome, begun.elapsed().as_secs_f64());
            }
            match &delivery {
                Delivery::Accepted { .. } => sent = true,
                refused => {
                    let (why, todo) = (mail::what(refused), mail::remedy(refused, &self.config.mail.transport));
                    warn!(mail.outcome = refused.outcome(), "The digest to the administrator {to} was not sent: {why} → {todo}");
                }
            }
        }
        // One who was told is enough: whose address is wrong must not make the others read it again and again.
        if sent {
            info!("Told the administrators what is wrong");
            self.incidents().sent(now);
        } else {
            self.incidents().not_sent(now.plus(TRY_AGAIN));
        }
    }

    fn written(&self, told: &Told<'_>, now: Timestamp) -> (String, String) {
        let Told { new, lasting, over } = told;
        let mut text = format!("Credkeeper with {}, {now}\n", self.config.path.display());
        for (title, entries) in [("New", new), ("Still so", lasting), ("Over again", over)] {
            if entries.is_empty() {
                continue;
            }
            let _ = write!(text, "\n{title}:\n");
            entries.iter().take(ENTRIES).for_each(|(database, incident)| entry(&mut text, database, incident));
            if entries.len() > ENTRIES {
                let _ = writeln!(text, "- and {} more", entries.len() - ENTRIES);
            }
        }
        let _ = write!(
            text,
            "\n`credkeeper status` and `credkeeper doctor` tell how it stands; the log has each of these at its time.\n\
             No more than one such mail comes in {} (admin.interval).\n",
            span(self.admin.interval)
        );
        let subject = match new.is_empty() && lasting.is_empty() {
            true => format!("{}: over again", self.admin.subject),
            false => self.admin.subject.clone(),
        };
        (subject, text)
    }
}

fn entry(text: &mut String, database: &str, Incident { since, over, sentence, .. }: &Incident) {
    let until = over.map_or_else(String::new, |over| format!(" until {over}"));
    let _ = writeln!(text, "- {database}, since {since}{until}: {sentence}");
}
