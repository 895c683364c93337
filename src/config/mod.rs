//! `config.yaml`, checked. Only [`Config::load`] makes a [`Config`]; the rest of the crate accepts nothing else.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::{CodeCipher, Limit, Mailbox, PasswordEncoding, PinFormat, Secret, Template};
use crate::policy::{Needs, Pilot, Policy, Tripwires};
use crate::tls::{TlsSettings, Verify};

use read::Reader;
pub use schema_map::SchemaMap;
pub(crate) use url::is_loopback;

mod admin;
mod code_and_password;
mod conninfo;
mod credentials;
mod database;
mod encryption;
mod limits;
mod local;
mod log;
mod mail;
mod mode;
mod pin;
mod policies;
mod read;
mod reminders;
mod schedule;
pub mod schema_map;
pub(crate) mod sealed;
pub(crate) mod secrets;
mod templates;
mod units;
mod url;
mod validate;
mod yaml;

/// A configuration larger than this is another file, given by mistake.
const LARGEST_BYTES: u64 = 4 << 20;

#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from, absolute.
    pub path: PathBuf,
    pub mode: Mode,
    /// `None`: changes reach everybody whom a policy owns.
    pub pilot: Option<Pilot>,
    pub databases: Vec<DatabaseConfig>,
    /// The one that a command is about; `None`: all.
    pub only: Option<String>,
    pub schedule: Schedule,
    pub limits: GlobalLimits,
    pub mail: MailConfig,
    /// `None`: nobody is mailed about problems.
    pub admin: Option<AdminConfig>,
    pub templates: BTreeMap<String, Template>,
    pub journal: JournalConfig,
    pub http: Option<SocketAddr>,
    pub log: LogConfig,
    /// A password or the like stands in the file itself.
    pub secret_in_file: bool,
    /// What works but should be known: printed by `check-config` and at each start. One sentence each.
    pub warnings: Vec<String>,
}

/// `mode` (R36).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    Enforce,
    /// Every pass is a preview: nothing is changed and no mail is sent.
    Observe,
}

#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// Label in metrics and log; no other database of the configuration has it.
    pub name: String,
    /// Its own ones, or those of the top level.
    pub policies: Vec<Policy>,
    pub target: DatabaseTarget,
    /// `None`: the connection's default.
    pub schema: Option<String>,
    pub map: SchemaMap,
    pub pool_size: usize,
    pub connect_timeout: Duration,
    pub statement_timeout: Duration,
    pub pin_format: PinFormat,
    /// How card assignment codes are encrypted; `None`: no policy may issue one.
    pub cac_cipher: Option<CodeCipher>,
    pub password_encoding: PasswordEncoding,
    /// What its policies need of the schema.
    pub needs: Needs,
    pub template_user: Option<String>,
}

impl DatabaseConfig {
    /// What tells this database from others: the journal belongs to it. The host is left out, so that a failover or a new
    /// name of the server changes nothing.
    pub fn identity(&self) -> String {
        let schema = self.schema.as_deref().unwrap_or("default");
        match &self.target {
            DatabaseTarget::Sqlite { path } => format!("sqlite {}", path.display()),
            DatabaseTarget::Postgres { database, .. } => format!("postgres {database} {schema}"),
        }
    }

    /// Whether what is said to it leaves this machine unencrypted.
    pub fn is_plaintext(&self) -> bool {
        match &self.target {
            DatabaseTarget::Postgres { hosts, tls: None, .. } => hosts.iter().any(|(host, _)| !is_loopback(host)),
            DatabaseTarget::Postgres { .. } | DatabaseTarget::Sqlite { .. } => false,
        }
    }
}

#[derive(Clone, Debug)]
pub enum DatabaseTarget {
    /// A file of the sandbox.
    Sqlite { path: PathBuf },
    Postgres {
        /// Name or address, and port: never none. Of several the read-write one is used.
        hosts: Vec<(String, u16)>,
        database: String,
        user: String,
        password: Option<Secret>,
        /// `None`: unencrypted.
        tls: Option<TlsSettings>,
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
    pub tripwires: Tripwires,
}

#[derive(Clone, Debug)]
pub struct MailConfig {
    pub transport: TransportConfig,
    /// Display name and address of the sender; absent only with `TransportConfig::None`.
    pub from: Option<Sender>,
    pub envelope_from: Option<Mailbox>,
    /// Everything goes there instead of to its recipients: a rehearsal.
    pub redirect_to: Option<Mailbox>,
    /// Default 48 h.
    pub give_up_after: Duration,
    /// What cannot be delivered is taken back, and its user put on hold (R32); the default.
    pub take_back: bool,
}

/// Who is told what is wrong (R34).
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Never none.
    pub email: Vec<Mailbox>,
    /// At most one mail in each.
    pub interval: Duration,
    pub subject: String,
}

#[derive(Clone, Debug)]
pub struct Sender {
    pub name: Option<String>,
    pub address: Mailbox,
}

#[derive(Clone, Debug)]
pub enum TransportConfig {
    Smtp(Box<SmtpConfig>),
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
    pub encryption: Encryption,
    pub login: Option<MailLogin>,
}

impl SmtpConfig {
    /// Whether mail leaves this machine unencrypted.
    pub fn is_plaintext(&self) -> bool {
        matches!(self.encryption, Encryption::None) && !url::is_loopback(&self.host)
    }

    /// Whether anybody who answers is taken for the mail server, though the connection is encrypted.
    pub fn is_unverified(&self) -> bool {
        match &self.encryption {
            Encryption::StartTls(tls) | Encryption::Implicit(tls) => tls.verify == Verify::Nothing,
            Encryption::None => false,
        }
    }
}

/// How the connection to the mail server is protected. There is no "if the server likes": whoever stands between could make
/// it dislike.
#[derive(Clone, Debug)]
pub enum Encryption {
    None,
    /// Asked for after EHLO; a server that does not offer it gets no mail.
    StartTls(TlsSettings),
    /// From the first byte.
    Implicit(TlsSettings),
}

/// How we show the mail server who we are.
#[derive(Clone, Debug)]
pub struct MailLogin {
    pub user: String,
    pub proof: Proof,
}

#[derive(Clone, Debug)]
pub enum Proof {
    Password(Secret),
    /// By XOAUTH2, with an access token from there.
    Token(Box<TokenEndpoint>),
}

/// Who gives out access tokens to programs that show a secret (OAuth2, the client credentials grant of RFC 6749, 4.4).
#[derive(Clone, Debug)]
pub struct TokenEndpoint {
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    pub port: u16,
    /// With the query, if the address has one.
    pub path: String,
    /// `None`: unencrypted, which only this machine may be.
    pub tls: Option<TlsSettings>,
    pub client_id: String,
    pub client_secret: Secret,
    pub scope: Option<String>,
}

#[derive(Clone, Debug)]
pub struct JournalConfig {
    pub path: PathBuf,
    pub key: PathBuf,
    pub keep: Duration,
    /// For how long a pass can be undone (R28); default 7 days.
    pub undo_for: Duration,
}

#[derive(Clone, Debug)]
pub struct LogConfig {
    pub levels: Levels,
    pub json: bool,
    /// `None`: the standard error.
    pub file: Option<LogFile>,
    /// Besides.
    pub remote: Option<LogServer>,
}

/// How much of the log is heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Levels {
    pub default: tracing::Level,
    /// Of rooms (the modules of the crate) that differ.
    pub rooms: BTreeMap<String, tracing::Level>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogFile {
    pub path: PathBuf,
    /// No file grows beyond that, but for a single line that is longer.
    pub max_bytes: u64,
    /// How many full files stay.
    pub backups: u32,
}

/// A server that takes syslog (RFC 5424) over TCP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogServer {
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    pub port: u16,
    /// `None`: unencrypted.
    pub tls: Option<TlsSettings>,
}

impl fmt::Display for LogServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
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
    /// The databases that a command is about.
    pub fn selected(&self) -> impl Iterator<Item = &DatabaseConfig> {
        self.databases.iter().filter(|database| self.only.as_ref().is_none_or(|only| *only == database.name))
    }

    /// Whether what is told has to say of which database.
    pub fn has_several(&self) -> bool {
        self.databases.len() > 1
    }

    /// # Errors
    /// All that is wrong with the file, as far as one reading can tell.
    pub fn load(path: &Path) -> Result<Config, ConfigProblems> {
        let unreadable =
            |message: String| ConfigProblems { path: path.to_owned(), problems: vec![Problem { at: None, key: String::new(), message }] };
        let absolute = std::path::absolute(path).map_err(|error| unreadable(format!("cannot be found: {error}")))?;
        let text = read_text(&absolute).map_err(unreadable)?;
        parse(&text, &absolute, |name| std::env::var_os(name)).map_err(|problems| ConfigProblems { path: path.to_owned(), ..problems })
    }
}

/// `environment` is asked for `{env: NAME}` and for the state directory.
fn parse(text: &str, path: &Path, environment: impl Fn(&str) -> Option<OsString> + 'static) -> Result<Config, ConfigProblems> {
    let reader = Reader::new(path.parent().unwrap_or(Path::new("")).to_owned(), environment);
    let config = match yaml::parse(text) {
        Ok(mut tree) if matches!(tree.data, yaml::Data::Map(_)) => {
            reader.sweep(&tree, "");
            let seal_key = sealed::key_path(&tree, &reader);
            sealed::open_all(&mut tree, &reader, seal_key);
            validate::validate(&tree, &reader, path)
        }
        Ok(tree) => {
            let empty = if matches!(tree.data, yaml::Data::Null) { "nothing is written here; " } else { "" };
            let expected = "expected a mapping with `databases` and `policies`; `credkeeper sandbox DIR` makes a config.yaml to start from";
            reader.problem(tree.at, "", format!("{empty}{expected}"));
            None
        }
        Err(error) => {
            reader.problem(error.at, "", error.message);
            None
        }
    };
    match config {
        Some(config) if !reader.has_problems() => {
            let secret_in_file = reader.shows_secret();
            Ok(Config { secret_in_file, warnings: reader.into_warnings(), ..config })
        }
        _ => {
            if !reader.has_problems() {
                reader.problem(None, "", "cannot be used, and credkeeper does not know why: please report this");
            }
            Err(reader.into_problems(path))
        }
    }
}

/// Where the key of sealed values is, or is to be made, for the configuration at `path`; which need not be finished, nor be
/// there.
///
/// # Errors
/// `seal_key` says something else than a file, or the configuration cannot be read at all.
pub fn seal_key(path: &Path) -> Result<PathBuf, ConfigProblems> {
    let unreadable =
        |message: String| ConfigProblems { path: path.to_owned(), problems: vec![Problem { at: None, key: String::new(), message }] };
    let absolute = std::path::absolute(path).map_err(|error| unreadable(format!("cannot be found: {error}")))?;
    let text = if absolute.exists() { read_text(&absolute).map_err(unreadable)? } else { String::new() };
    let reader = Reader::new(absolute.parent().unwrap_or(Path::new("")).to_owned(), |_| None);
    sealed::key_path_in(&text, &reader).ok_or_else(|| reader.into_problems(path))
}

/// An error and its cause.
fn sentence(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

fn read_text(path: &Path) -> Result<String, String> {
    let folder = path.parent().unwrap_or(path).display();
    let bytes = match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => return Err("is a directory; name the file in it, with --config FILE".to_owned()),
        Ok(meta) if meta.len() > LARGEST_BYTES => {
            return Err("is larger than 4 MiB, so it is another file; name the right one with --config FILE".to_owned());
        }
        Ok(_) => std::fs::read(path),
        Err(error) => Err(error),
    };
    let bytes = bytes.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("does not exist in {folder}; name the file with --config FILE, or make one to start from with `credkeeper sandbox DIR`")
        }
        std::io::ErrorKind::PermissionDenied => {
            format!("may not be read by this account; give it the right to read the file and to enter {folder}")
        }
        _ => format!("cannot be read: {error}"),
    })?;
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("is UTF-16 (“Unicode” in older editors); save it as UTF-8".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        format!("is not UTF-8: line {line} has other bytes; save it as UTF-8")
    })
}

impl fmt::Display for ConfigProblems {
    /// One problem a line: `config.yaml:12:7: policies[0].pin.length: is required: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:{problem}", self.path.display())?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.at {
            write!(f, "{line}:{column}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.message)
    }
}

impl std::error::Error for ConfigProblems {}

#[cfg(test)]
mod tests;
