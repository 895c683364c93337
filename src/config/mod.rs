//! `config.yaml`, checked. Only [`Config::load`] makes a [`Config`]; the rest of the crate accepts nothing else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::{Limit, Mailbox, PinFormat, Secret, Template};
use crate::policy::Policy;

pub mod schema_map;
pub use schema_map::SchemaMap;

#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from, absolute.
    pub path: PathBuf,
    pub databases: Vec<DatabaseConfig>,
    pub schedule: Schedule,
    pub limits: GlobalLimits,
    pub policies: Vec<Policy>,
    pub mail: MailConfig,
    pub templates: BTreeMap<String, Template>,
    pub journal: JournalConfig,
    pub http: Option<SocketAddr>,
    pub log: LogConfig,
    /// What works but should be known: printed by `check-config` and at each start. One sentence each.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// Label in metrics and log.
    pub name: String,
    pub target: DatabaseTarget,
    /// `None`: the connection's default.
    pub schema: Option<String>,
    pub map: SchemaMap,
    pub pool_size: usize,
    pub connect_timeout: Duration,
    pub statement_timeout: Duration,
    pub pin_format: PinFormat,
    pub template_user: Option<String>,
}

#[derive(Clone, Debug)]
pub enum DatabaseTarget {
    /// A file of the sandbox.
    Sqlite {
        path: PathBuf,
    },
    Postgres {
        hosts: Vec<(String, u16)>,
        database: String,
        user: String,
        password: Option<Secret>,
    },
}

#[derive(Clone, Debug)]
pub struct Schedule {
    pub poll: Duration,
    pub resync: Resync,
    /// 0 to 1.
    pub jitter: f64,
}

#[derive(Clone, Debug)]
pub enum Resync {
    Every(Duration),
    /// Evaluated in UTC.
    Cron(Box<cron::Schedule>),
}

#[derive(Clone, Debug)]
pub struct GlobalLimits {
    pub mails_per_minute: Limit<u64>,
    /// Users in one transaction, at least 1.
    pub batch_size: usize,
}

#[derive(Clone, Debug)]
pub struct MailConfig {
    pub transport: TransportConfig,
    /// Display name and address of the sender; absent only with `TransportConfig::None`.
    pub from: Option<Sender>,
    pub envelope_from: Option<Mailbox>,
    /// Default 48 h.
    pub give_up_after: Duration,
}

#[derive(Clone, Debug)]
pub struct Sender {
    pub name: Option<String>,
    pub address: Mailbox,
}

#[derive(Clone, Debug)]
pub enum TransportConfig {
    Smtp(SmtpConfig),
    Directory(PathBuf),
    None,
}

#[derive(Clone, Debug)]
pub struct SmtpConfig {
    pub host: String,
    pub port: u16,
    pub hello_name: Option<String>,
    pub connections: usize,
    pub timeout: Duration,
}

#[derive(Clone, Debug)]
pub struct JournalConfig {
    pub path: PathBuf,
    pub key: PathBuf,
    pub keep: Duration,
}

#[derive(Clone, Debug)]
pub struct LogConfig {
    /// error, warn, info, debug or trace.
    pub level: tracing::Level,
    pub json: bool,
}

/// All that is wrong with a configuration, in the order of the file.
#[derive(Debug)]
pub struct ConfigProblems {
    pub path: PathBuf,
    pub problems: Vec<Problem>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// 1-based line and column in the file, where known.
    pub at: Option<(usize, usize)>,
    /// Dotted, as `policies[0].pin.length`; empty for the file itself.
    pub key: String,
    /// What is wrong and what would be accepted.
    pub message: String,
}

impl Config {
    pub fn load(_path: &Path) -> Result<Config, ConfigProblems> {
        todo!()
    }
}
