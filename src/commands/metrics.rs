//! The metrics as a configuration names and sets them.

use crate::clock;
use crate::config::{Config, DatabaseConfig, TransportConfig};
use crate::journal::State;
use crate::logging;
use crate::metrics::{Insecure, Metrics, Names, NamesOf};
use crate::store::StoreError;

/// All metrics at zero, for the names of this configuration, which was read just now.
pub fn metrics(config: &Config) -> Metrics {
    let metrics = with_names(config, Metrics::new);
    metrics.watch_log(logging::dropped);
    describe(config, &metrics);
    metrics
}

/// The same metrics for another configuration, which was read just now. To be called while no pass runs.
pub fn renew(config: &Config, metrics: &Metrics) {
    with_names(config, |names| metrics.renew(names));
    describe(config, metrics);
}

fn with_names<T>(config: &Config, make: impl FnOnce(Names<'_>) -> T) -> T {
    let names = |database: &DatabaseConfig| NamesOf {
        database: database.name.clone(),
        policies: database.policies.iter().map(|p| p.name.clone()).collect(),
        lengths: database.policies.iter().filter_map(|p| p.pin.as_ref()).map(|rule| rule.length).collect(),
        windows: database.policies.iter().flat_map(|p| &p.notify.reminders).copied().collect(),
    };
    let databases: Vec<NamesOf> = config.databases.iter().map(names).collect();
    let journal_states: Vec<&'static str> = State::ALL.iter().map(|s| s.as_str()).collect();
    make(Names { databases: &databases, error_classes: &StoreError::KINDS, journal_states: &journal_states })
}

fn describe(config: &Config, metrics: &Metrics) {
    metrics.config_read(clock::now());
    let (plaintext, unverified) = match &config.mail.transport {
        TransportConfig::Smtp(smtp) => (smtp.is_plaintext(), smtp.is_unverified()),
        TransportConfig::Directory(_) | TransportConfig::None => (false, false),
    };
    metrics.insecure(Insecure::MailPlaintext, plaintext);
    metrics.insecure(Insecure::MailUnverified, unverified);
    metrics.insecure(Insecure::DatabasePlaintext, config.databases.iter().any(DatabaseConfig::is_plaintext));
    metrics.insecure(Insecure::SecretInFile, config.secret_in_file);
}
