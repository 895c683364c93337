//! What a monitor sees: counters and gauges in a registry of our own.
//!
//! Base units; `_total` on counters only; moments as `_timestamp_seconds`. Labels come from the configuration's own names
//! and from closed sets: never a user, an address or a message. Every combination is there at 0 from the start, so that a
//! rule such as `increase(…) > 0` sees the first event. Each metric is moved in one place: a [`Report`] moves those of
//! passes, the courier, the store and the daemon theirs.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::domain::{PinLength, PolicyName, Timestamp};
use crate::plan::{Skip, codes};
use crate::report::{ChangeKind, ChangeOutcome, PassKind, PassOutcome, Recovered, Report};

mod brakes;
mod reminders;
mod renew;
#[cfg(test)]
mod tests;

use brakes::Brakes;
pub use reminders::ReminderOutcome;
use reminders::Reminders;

/// All metrics. Cheap to move, never blocks for long; share it in an `Arc`.
pub struct Metrics {
    registry: Registry,
    leader: IntGaugeVec,
    passes: IntCounterVec,
    pass_duration: HistogramVec,
    last_attempt: IntGaugeVec,
    last_success: IntGaugeVec,
    pass_unfinished: GaugeVec,
    users: IntGaugeVec,
    users_skipped: IntGaugeVec,
    changes: IntCounterVec,
    pin_collisions: IntCounterVec,
    delivery: HistogramVec,
    journal_entries: IntGaugeVec,
    journal_oldest: IntGaugeVec,
    journal_write_errors: IntCounter,
    recovered: IntCounterVec,
    mails: IntCounterVec,
    mail_duration: HistogramVec,
    mail_certificate: IntGauge,
    database_errors: IntCounterVec,
    brakes: Brakes,
    reminders: Reminders,
    config_reload: IntGauge,
    config_reload_success: IntGauge,
    config_insecure: IntGaugeVec,
    log_lines_dropped: IntCounterVec,
    /// Asked for the lines that each sink of the log has dropped, whenever the metrics are read.
    log_drops: OnceLock<LogDrops>,
    /// Start of the pass in hand, by database.
    running: Mutex<HashMap<String, Timestamp>>,
}

/// The names that labels take besides the closed sets below.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    pub databases: &'a [NamesOf],
    /// What the store's errors answer as their kind.
    pub error_classes: &'a [&'static str],
    /// The journal's states.
    pub journal_states: &'a [&'static str],
}

codes!(
    /// Label `outcome` of `mails_total`: how one attempt to send ended.
    MailOutcome {
        Accepted = "accepted", "the mail server took it";
        Deferred = "deferred", "the mail server asked to try again later";
        Rejected = "rejected", "the mail server refused it for good";
        ConnectError = "connect_error", "the mail server could not be reached";
        TlsError = "tls_error", "there was no encryption, or no certificate that could be trusted";
        AuthError = "auth_error", "the mail server refused the login, or offered none";
        Unknown = "unknown", "the connection broke before the mail server answered";
    }
);
codes!(
    /// Label `what` of `config_insecure`.
    Insecure {
        MailPlaintext = "mail_plaintext", "mail leaves this machine unencrypted";
        MailUnverified = "mail_unverified", "the certificate of the mail server is not verified";
        DatabasePlaintext = "database_plaintext", "the connection to the database is unencrypted and leaves this machine";
        SecretInFile = "secret_in_config", "a password stands in the configuration file itself";
    }
);

/// The names that belong to one database.
#[derive(Clone, Debug)]
pub struct NamesOf {
    pub database: String,
    pub policies: Vec<PolicyName>,
    /// Of the PINs that policies issue.
    pub lengths: Vec<PinLength>,
    /// How long before the end of a PIN some policy reminds of it.
    pub windows: Vec<Duration>,
}

/// Class of `database_errors_total` for what the inspection found, besides the kinds of the store's errors.
pub const INSPECTION: &str = "inspection";

/// Label `sink` of `log_lines_dropped_total`.
const LOG_SINKS: [&str; 3] = ["stderr", "file", "remote"];
type LogDrops = fn() -> [(&'static str, u64); LOG_SINKS.len()];

/// What can go wrong with the metrics.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    #[error("cannot write the metrics file {}", path.display())]
    WriteFile { path: PathBuf, source: std::io::Error },
}

impl MetricsError {
    pub fn kind(&self) -> &'static str {
        match self {
            MetricsError::WriteFile { .. } => "metrics_file",
        }
    }

    pub fn is_transient(&self) -> bool {
        false
    }
}

/// Seconds: a pass over a few new users to one over a million.
const PASS_BUCKETS: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0];
/// Seconds: a relay that answers at once to one that holds us to our timeout.
const MAIL_BUCKETS: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Seconds: a visitor who waits at the printer to a mail server that was down for a weekend.
const DELIVERY_BUCKETS: &[f64] = &[1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0, 172_800.0];

/// Which commit was built, where the build was told.
const REVISION: &str = match option_env!("CREDKEEPER_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

const STAGES: [&str; 3] = ["read", "plan", "write"];
const USER_STATES: [&str; 4] = ["due", "skipped", "failed", "held"];
const RECOVERED: [&str; 4] = ["resent", "abandoned", "superseded", "lost_after_delivery"];

impl Metrics {
    pub fn new(names: Names<'_>) -> Metrics {
        let registry = Registry::new();
        let counters = |name, help, labels: &[&str]| register(&registry, IntCounterVec::new(opts(name, help), labels));
        let gauges = |name, help, labels: &[&str]| register(&registry, IntGaugeVec::new(opts(name, help), labels));
        let histograms = |name: &str, help, buckets: &[f64], labels: &[&str]| {
            let opts = HistogramOpts::new(format!("credkeeper_{name}"), help).buckets(buckets.to_vec());
            register(&registry, HistogramVec::new(opts, labels))
        };
        gauges("build_info", "1; the labels say which build this is.", &["version", "revision"])
            .with_label_values(&[env!("CARGO_PKG_VERSION"), REVISION])
            .set(1);
        let metrics = Metrics {
            leader: gauges("leader", "1 while this instance is the active one for the database.", &["database"]),
            passes: counters("passes_total", "Passes that ended, by outcome; previews are not counted.", &["database", "kind", "outcome"]),
            pass_duration: histograms(
                "pass_duration_seconds",
                "How long each stage of a pass took.",
                PASS_BUCKETS,
                &["database", "kind", "stage"],
            ),
            last_attempt: gauges("last_attempt_timestamp_seconds", "When a pass last began.", &["database", "kind"]),
            last_success: gauges(
                "last_success_timestamp_seconds",
                "When a pass last came to its end; one that a limit refused did, one that lost the database did not.",
                &["database", "kind"],
            ),
            pass_unfinished: register(
                &registry,
                GaugeVec::new(
                    opts("pass_unfinished_seconds", "How long the pass in hand has been running; 0 between passes."),
                    &["database"],
                ),
            ),
            users: gauges(
                "users",
                "Users as the last full comparison found them, by the owning policy; settled ones under policy=\"\".",
                &["database", "policy", "state"],
            ),
            users_skipped: gauges(
                "users_skipped",
                "Users who were due in the last full comparison and were left alone, by reason.",
                &["database", "policy", "reason"],
            ),
            changes: counters("changes_total", "Changes to the database, by outcome.", &["database", "policy", "change", "outcome"]),
            pin_collisions: counters(
                "pin_collisions_total",
                "PINs drawn that somebody else had already; they were drawn again.",
                &["database"],
            ),
            delivery: histograms(
                "delivery_seconds",
                "From the moment a user was first seen due until the mail server accepted the mail.",
                DELIVERY_BUCKETS,
                &["database", "policy"],
            ),
            journal_entries: gauges("journal_entries", "Issuances in the journal, by state.", &["database", "state"]),
            journal_oldest: gauges(
                "journal_oldest_timestamp_seconds",
                "When the oldest issuance that is not finished was planned; 0 if there is none.",
                &["database"],
            ),
            journal_write_errors: register(
                &registry,
                IntCounter::with_opts(opts(
                    "journal_write_errors_total",
                    "Writes to the journal that failed; nothing is changed in the database without it.",
                )),
            ),
            recovered: counters(
                "recovered_total",
                "Issuances that a crash or a lost answer left open, by what became of them.",
                &["database", "outcome"],
            ),
            mails: counters("mails_total", "Attempts to send a mail, by outcome.", &["outcome"]),
            mail_duration: histograms("mail_duration_seconds", "How long an attempt to send a mail took.", MAIL_BUCKETS, &[]),
            mail_certificate: register(
                &registry,
                IntGauge::with_opts(opts(
                    "mail_certificate_expiry_timestamp_seconds",
                    "When the certificate ends that the mail server showed last; 0 before the first encrypted connection.",
                )),
            ),
            database_errors: counters("database_errors_total", "Errors of the database, by what failed.", &["database", "class"]),
            brakes: Brakes::new(&registry),
            reminders: Reminders::new(&registry),
            config_reload: register(
                &registry,
                IntGauge::with_opts(opts("config_reload_timestamp_seconds", "When the configuration in force was read.")),
            ),
            config_reload_success: register(
                &registry,
                IntGauge::with_opts(opts("config_reload_success", "1 if the configuration read last is in force, 0 if it was refused.")),
            ),
            config_insecure: gauges("config_insecure", "1 where the configuration gives up a protection.", &["what"]),
            log_lines_dropped: counters(
                "log_lines_dropped_total",
                "Lines of the log that a sink has not got: it could not be written, or not fast enough.",
                &["sink"],
            ),
            log_drops: OnceLock::new(),
            running: Mutex::default(),
            registry,
        };
        metrics.touch(names);
        metrics
    }

    /// Brings every combination of labels into being.
    fn touch(&self, names: Names<'_>) {
        for outcome in MailOutcome::ALL {
            self.mails.with_label_values(&[outcome.as_str()]);
        }
        for what in Insecure::ALL {
            self.config_insecure.with_label_values(&[what.as_str()]);
        }
        LOG_SINKS.iter().for_each(|sink| _ = self.log_lines_dropped.with_label_values(&[sink]));
        self.mail_duration.with_label_values(&[] as &[&str]);
        self.brakes.touch(&names);
        self.reminders.touch(&names);
        for NamesOf { database, policies, .. } in names.databases {
            let db = database.as_str();
            self.leader.with_label_values(&[db]);
            self.pass_unfinished.with_label_values(&[db]);
            self.pin_collisions.with_label_values(&[db]);
            self.journal_oldest.with_label_values(&[db]);
            self.users.with_label_values(&[db, "", "settled"]);
            for kind in PassKind::ALL.iter().map(|k| k.as_str()) {
                self.last_attempt.with_label_values(&[db, kind]);
                self.last_success.with_label_values(&[db, kind]);
                PassOutcome::ALL.iter().for_each(|o| _ = self.passes.with_label_values(&[db, kind, o.as_str()]));
                STAGES.iter().for_each(|stage| _ = self.pass_duration.with_label_values(&[db, kind, stage]));
            }
            RECOVERED.iter().for_each(|outcome| _ = self.recovered.with_label_values(&[db, outcome]));
            names.journal_states.iter().for_each(|state| _ = self.journal_entries.with_label_values(&[db, state]));
            names.error_classes.iter().chain(&[INSPECTION]).for_each(|class| _ = self.database_errors.with_label_values(&[db, class]));
            for policy in policies.iter().map(|p| p.0.as_str()) {
                self.delivery.with_label_values(&[db, policy]);
                USER_STATES.iter().for_each(|state| _ = self.users.with_label_values(&[db, policy, state]));
                skip_reasons().for_each(|skip| _ = self.users_skipped.with_label_values(&[db, policy, skip.as_str()]));
                for change in ChangeKind::ALL {
                    for outcome in ChangeOutcome::ALL {
                        self.changes.with_label_values(&[db, policy, change.as_str(), outcome.as_str()]);
                    }
                }
            }
        }
    }

    /// A pass begins. It counts as unfinished until [`pass`](Metrics::pass) is told about its end.
    pub fn pass_started(&self, database: &str, kind: PassKind, now: Timestamp) {
        self.last_attempt.with_label_values(&[database, kind.as_str()]).set(now.0);
        self.running().insert(database.to_owned(), now);
    }

    /// A pass has ended. A preview moves only what describes the users, and, where there are only previews, that it came to
    /// its end.
    pub fn pass(&self, report: &Report, now: Timestamp) {
        let db = report.database.as_str();
        let kind = report.kind.as_str();
        self.running().remove(db);
        for (stage, ms) in STAGES.iter().zip([report.read_ms, report.plan_ms, report.write_ms]) {
            self.pass_duration.with_label_values(&[db, kind, stage]).observe(ms as f64 / 1000.0);
        }
        self.brakes.pass(report);
        // A poll sees new users only, an interrupted pass some, and a stopped one nobody: none says how all stand.
        let looked = report.error.is_none() && (report.dry_run || !report.is_stopped());
        if let Some(counts) = report.counts.filter(|_| looked) {
            self.users_as_found(report, counts.users);
        }
        if report.observe && report.outcome() != PassOutcome::Failed {
            self.last_success.with_label_values(&[db, kind]).set(now.0);
        }
        if report.dry_run {
            return;
        }
        self.passes.with_label_values(&[db, kind, report.outcome().as_str()]).inc();
        if report.outcome() != PassOutcome::Failed {
            self.last_success.with_label_values(&[db, kind]).set(now.0);
        }
        self.pin_collisions.with_label_values(&[db]).inc_by(report.collisions);
        for policy in &report.policies {
            for ((change, outcome), by) in &policy.changes {
                self.changes.with_label_values(&[db, &policy.policy.0, change.as_str(), outcome.as_str()]).inc_by(*by);
            }
        }
        let Recovered { resent, abandoned, superseded, lost_after_delivery } = report.recovered;
        for (outcome, by) in RECOVERED.iter().zip([resent, abandoned, superseded, lost_after_delivery]) {
            self.recovered.with_label_values(&[db, outcome]).inc_by(by);
        }
    }

    fn users_as_found(&self, report: &Report, users: u64) {
        let db = report.database.as_str();
        let set = |policy: &str, state: &str, n: u64| self.users.with_label_values(&[db, policy, state]).set(n.cast_signed());
        let mut unsettled = 0;
        for policy in &report.policies {
            let name = policy.policy.0.as_str();
            let by_reason = |skip: Skip| policy.skipped.get(&skip).copied().unwrap_or_default();
            let skipped: u64 = skip_reasons().map(by_reason).sum();
            let held = by_reason(Skip::Held);
            for skip in skip_reasons() {
                self.users_skipped.with_label_values(&[db, name, skip.as_str()]).set(by_reason(skip).cast_signed());
            }
            for (state, n) in USER_STATES.iter().zip([policy.due, skipped, policy.failed, held]) {
                set(name, state, n);
            }
            unsettled += policy.due + skipped + held;
        }
        // Those whom no policy owns are settled too: nothing is to be done for them.
        set("", "settled", users.saturating_sub(unsettled));
    }

    /// One attempt to send a mail has ended.
    pub fn mail(&self, outcome: MailOutcome, seconds: f64) {
        self.mails.with_label_values(&[outcome.as_str()]).inc();
        self.mail_duration.with_label_values(&[] as &[&str]).observe(seconds);
    }

    /// The mail server showed a certificate that ends then.
    pub fn mail_certificate(&self, expires: Timestamp) {
        self.mail_certificate.set(expires.0);
    }

    /// A mail was accepted, `seconds` after its user was first seen due.
    pub fn delivered(&self, database: &str, policy: &PolicyName, seconds: f64) {
        self.delivery.with_label_values(&[database, &policy.0]).observe(seconds.max(0.0));
    }

    /// One attempt to remind somebody has ended, or was not made.
    pub fn reminder(&self, database: &str, outcome: ReminderOutcome) {
        self.reminders.ended(database, outcome);
    }

    /// A reminder was accepted, so long after its window had opened.
    pub fn reminded(&self, database: &str, window: Duration, after: Duration) {
        self.reminders.accepted(database, window, after);
    }

    /// How the journal stands: entries by state, when the oldest that is not finished was planned, and of how many policies a plan
    /// waits to be approved.
    pub fn journal(&self, database: &str, entries: &[(&'static str, u64)], oldest: Option<Timestamp>, plans: u64) {
        self.brakes.waiting(database, plans);
        for (state, n) in entries {
            self.journal_entries.with_label_values(&[database, state]).set(n.cast_signed());
        }
        self.journal_oldest.with_label_values(&[database]).set(oldest.map_or(0, |at| at.0));
    }

    pub fn journal_write_error(&self) {
        self.journal_write_errors.inc();
    }

    /// `class` is the kind of the store's error.
    pub fn database_error(&self, database: &str, class: &'static str) {
        self.database_errors.with_label_values(&[database, class]).inc();
    }

    pub fn leader(&self, database: &str, leads: bool) {
        self.leader.with_label_values(&[database]).set(leads.into());
    }

    /// A configuration was read, and is in force.
    pub fn config_read(&self, now: Timestamp) {
        self.config_reload.set(now.0);
        self.config_reload_success.set(1);
    }

    /// A configuration was read and refused; the one before is still in force.
    pub fn config_refused(&self) {
        self.config_reload_success.set(0);
    }

    pub fn insecure(&self, what: Insecure, is: bool) {
        self.config_insecure.with_label_values(&[what.as_str()]).set(is.into());
    }

    /// Who counts what the log loses; once.
    pub fn watch_log(&self, drops: LogDrops) {
        let _ = self.log_drops.set(drops);
    }

    /// The text format of Prometheus, version 0.0.4.
    pub fn render(&self, now: Timestamp) -> String {
        let running = {
            // Under the lock, so that two readers at once do not both add what is new.
            let running = self.running();
            for (sink, lines) in self.log_drops.get().map(|drops| drops()).into_iter().flatten() {
                let counter = self.log_lines_dropped.with_label_values(&[sink]);
                counter.inc_by(lines.saturating_sub(counter.get()));
            }
            running.clone()
        };
        for family in self.pass_unfinished.collect() {
            for label in family.get_metric().iter().flat_map(|m| m.get_label()) {
                let seconds = running.get(label.value()).map_or(0, |start| now.since(*start).as_secs());
                self.pass_unfinished.with_label_values(&[label.value()]).set(seconds as f64);
            }
        }
        // Encoding into memory fails only for a metric without a name or without samples, and `gather` gives neither.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }

    /// Writes [`render`](Metrics::render) for the node exporter's textfile collector, which must never see half a file.
    ///
    /// # Errors
    /// When the file cannot be written or put in place.
    pub fn write_file(&self, path: &Path, now: Timestamp) -> Result<(), MetricsError> {
        let write = || {
            let mut temporary = path.as_os_str().to_owned();
            // Not *.prom: the collector must not take it.
            temporary.push(format!(".{}.tmp", std::process::id()));
            let temporary = PathBuf::from(temporary);
            let result = std::fs::File::create(&temporary)
                .and_then(|mut file| file.write_all(self.render(now).as_bytes()))
                .and_then(|()| std::fs::rename(&temporary, path));
            if result.is_err() {
                let _ = std::fs::remove_file(&temporary);
            }
            result
        };
        write().map_err(|source| MetricsError::WriteFile { path: path.to_owned(), source })
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<String, Timestamp>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reasons of `users_skipped`. A hold is a state of its own.
fn skip_reasons() -> impl Iterator<Item = Skip> {
    Skip::ALL.iter().copied().filter(|skip| *skip != Skip::Held)
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("credkeeper_{name}"), help)
}

/// # Panics
/// When two metrics have one name or a name is not one: a mistake in this file, which every test finds.
fn register<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("a metric of ours is well-formed");
    registry.register(Box::new(collector.clone())).expect("no two metrics of ours have one name");
    collector
}
