//! What can go wrong with the print system's database, told without ever repeating a value of it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::tls::{self, TlsError};

/// Variants are named for what failed; their cause says how.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("could not connect to {server}")]
    Connect { server: String, source: Cause },
    #[error("{step} failed")]
    Query { step: &'static str, source: Cause },
    #[error("{step} had no answer within {} s", after.as_secs())]
    Deadline { step: &'static str, after: Duration },
    #[error(
        "the write lock was not granted within {} s: another session of ours holds it (SELECT * FROM pg_locks WHERE locktype = 'advisory')",
        after.as_secs()
    )]
    WriteLock { after: Duration },
    #[error("could not lock {}", path.display())]
    LockFile { path: PathBuf, source: io::Error },
    #[error("the session that held the leadership has lost it")]
    LeadershipLost,
    /// A write of this transaction failed, was cut off or was torn: COMMIT was never sent.
    #[error("the transaction was rolled back because a write in it was not complete")]
    Incomplete,
    /// A connection pooler in between hands the server's sessions around (transaction or statement mode).
    #[error("a connection pooler shares one session of the server among many")]
    Pooler,
    #[error("the task that talks to the database ended early")]
    Task,
}

/// What the database or the network said, as far as it is fit to be printed: details and row contents are left out, since
/// they can quote stored PINs.
#[derive(Debug)]
pub struct Cause {
    pub(super) kind: Kind,
    /// SQLSTATE, where a PostgreSQL server spoke.
    pub(super) code: Option<String>,
    message: String,
    /// What to do about it, where the message alone does not tell.
    pub(super) remedy: Option<String>,
}

/// The closed set behind [`StoreError::kind`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Connect,
    Auth,
    Permission,
    Timeout,
    LockTimeout,
    Conflict,
    Constraint,
    ReadOnly,
    Schema,
    /// No encrypted connection could be made, or none to a server that can be trusted.
    Tls,
    Pooler,
    Query,
}

impl StoreError {
    /// Closed set: metric label and log field.
    pub fn kind(&self) -> &'static str {
        match self.of_kind() {
            Kind::Connect => "connect",
            Kind::Auth => "auth",
            Kind::Permission => "permission",
            Kind::Timeout => "timeout",
            Kind::LockTimeout => "lock_timeout",
            Kind::Conflict => "conflict",
            Kind::Constraint => "constraint",
            Kind::ReadOnly => "read_only",
            Kind::Schema => "schema",
            Kind::Tls => "tls",
            Kind::Pooler => "pooler",
            Kind::Query => "query",
        }
    }

    /// Every value of [`kind`](StoreError::kind), for metrics that start at zero.
    pub const KINDS: [&'static str; 12] = [
        "connect",
        "auth",
        "permission",
        "timeout",
        "lock_timeout",
        "conflict",
        "constraint",
        "read_only",
        "schema",
        "tls",
        "pooler",
        "query",
    ];

    /// Whether the same call may succeed later without anybody doing anything. A read-only server is: a failover ends it.
    pub fn is_transient(&self) -> bool {
        match self.of_kind() {
            Kind::Connect | Kind::Timeout | Kind::LockTimeout | Kind::Conflict | Kind::ReadOnly => true,
            Kind::Auth | Kind::Permission | Kind::Constraint | Kind::Schema | Kind::Tls | Kind::Pooler | Kind::Query => false,
        }
    }

    /// Whether the database refused these rows and would take others: a smaller batch may pass.
    pub fn is_about_rows(&self) -> bool {
        matches!(self, StoreError::Query { .. })
            && matches!(self.of_kind(), Kind::Constraint | Kind::Query | Kind::LockTimeout | Kind::Conflict)
    }

    fn of_kind(&self) -> Kind {
        match self {
            StoreError::Connect { source, .. } | StoreError::Query { source, .. } => source.kind,
            StoreError::Deadline { .. } => Kind::Timeout,
            StoreError::WriteLock { .. } => Kind::LockTimeout,
            StoreError::LeadershipLost => Kind::Connect,
            StoreError::Pooler => Kind::Pooler,
            StoreError::LockFile { .. } | StoreError::Incomplete | StoreError::Task => Kind::Query,
        }
    }

    /// What happened, and what to do about it, apart.
    pub(super) fn told(&self) -> (String, Option<&str>) {
        match self {
            StoreError::Connect { source, .. } | StoreError::Query { source, .. } => {
                (format!("{self}: {}", source.message), source.remedy.as_deref())
            }
            _ => (chain(self), None),
        }
    }

    pub(super) fn query(step: &'static str, source: impl Into<Cause>) -> StoreError {
        StoreError::Query { step, source: source.into() }
    }
}

impl Cause {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Cause {
        Cause { kind, code: None, message: message.into(), remedy: None }
    }

    pub(super) fn with_remedy(self, remedy: &str) -> Cause {
        Cause { remedy: Some(remedy.to_owned()), ..self }
    }

    /// What stands for the refusals of all hosts: one that tells more than that nobody answered, if there is any.
    pub(super) fn of_hosts(mut refusals: Vec<(String, Cause)>) -> Cause {
        let telling = refusals.iter().position(|(_, cause)| cause.kind != Kind::Connect).unwrap_or(0);
        match refusals.len() {
            0 => Cause::new(Kind::Connect, "no host is named"),
            1 => refusals.remove(0).1,
            _ => {
                let each = |of: &dyn Fn(&Cause) -> Option<String>| {
                    let said = refusals.iter().filter_map(|(host, cause)| Some((host, of(cause)?)));
                    said.map(|(host, said)| format!("{host}: {said}")).collect::<Vec<_>>().join("; ")
                };
                let (message, remedy) = (each(&|cause| Some(cause.message.clone())), each(&|cause| cause.remedy.clone()));
                Cause { message, remedy: Some(remedy).filter(|remedy| !remedy.is_empty()), ..refusals.remove(telling).1 }
            }
        }
    }

    /// Without the remedy.
    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.remedy.as_ref().map_or(Ok(()), |remedy| write!(f, " → {remedy}"))
    }
}

impl std::error::Error for Cause {}

/// How the keys of a database's encryption are called.
const KEYS: tls::Keys = tls::Keys {
    ca_file: "`tls.ca_file`",
    client: "`tls.client_cert` and `tls.client_key`",
    other_name: "verify another name (`tls.server_name`) or none (`tls.mode: verify-ca`)",
};

const NO_TLS: &str = "switch TLS on at the server (ssl = on in postgresql.conf, with ssl_cert_file and ssl_key_file); or, if the network \
                      between is trusted, set `tls: {mode: disable}`. The other modes, require, verify-ca and verify-full, need TLS at the server";

const PRIMARY: &str = "name the primary in `url`, or all hosts with commas in between: the one that takes changes is found";

/// Where something accepts the connection and never speaks.
pub(super) const SILENT: &str =
    "something listens there and says nothing: see whether the port in `url` is PostgreSQL's, and whether that server hangs";

/// What to do where no connection came about or one broke, as far as the operating system tells.
fn unreached(error: Option<&io::Error>) -> &'static str {
    match error.map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => {
            "nothing listens there: start PostgreSQL, or correct host and port in `url` (the bundled server listens on 5433), or \
             listen_addresses in postgresql.conf"
        }
        Some(io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
            "nothing comes back: see whether that machine is up, correct the host in `url`, and open the port in the firewalls in between"
        }
        _ if error.is_some_and(|error| error.to_string().contains("lookup")) => {
            "the name has no address: correct the host in `url`, or the name service of this machine"
        }
        _ => "the server, or something in between, broke off: see its log, and whether the port in `url` is PostgreSQL's",
    }
}

/// What to do about an SQLSTATE, where that is the same for everybody.
fn remedy_of(code: &str) -> Option<&'static str> {
    Some(match code {
        "57P03" => "the server is starting up or shutting down: try again; if it lasts, see its log",
        "53300" => "lower `pool_size`, or raise the limit: max_connections, or the CONNECTION LIMIT of the role or the database",
        "57014" => "see what keeps the database busy (SELECT * FROM pg_stat_activity), or raise `statement_timeout`",
        "55P03" => {
            "see who holds the table (SELECT * FROM pg_locks, pg_stat_activity): an upgrade or an export of the print system, perhaps"
        }
        "25006" => PRIMARY,
        _ => return None,
    })
}

impl From<TlsError> for Cause {
    fn from(error: TlsError) -> Cause {
        Cause::new(Kind::Tls, chain(&error))
    }
}

/// Whether the server itself refused, so that nothing of the statement stands. FATAL and PANIC end the session at a moment
/// that nobody knows: after them a COMMIT may stand.
pub(super) fn refused(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|e| match e.parsed_severity() {
        Some(severity) => severity == Severity::Error,
        None => e.severity() == "ERROR",
    })
}

impl From<tokio_postgres::Error> for Cause {
    fn from(error: tokio_postgres::Error) -> Cause {
        if let Some(db) = error.as_db_error() {
            let code = db.code().code().to_owned();
            let remedy = remedy_of(&code).map(str::to_owned);
            return Cause { code: Some(code), remedy, ..Cause::new(kind_of(db.code()), printable(db)) };
        }
        if let Some(tls::Explanation { what, remedy }) = tls::explain(&error, &KEYS) {
            return Cause::new(Kind::Tls, what).with_remedy(&remedy);
        }
        let mut message = error.to_string();
        let source = std::error::Error::source(&error);
        let said = source.map(ToString::to_string).unwrap_or_default();
        if message.ends_with("TLS handshake") && said == "server does not support TLS" {
            return Cause::new(Kind::Tls, "the server does not offer TLS").with_remedy(NO_TLS);
        }
        if said == "database does not allow writes" {
            return Cause::new(Kind::ReadOnly, "the server takes no changes (a standby?)").with_remedy(PRIMARY);
        }
        let io = source.and_then(|source| source.downcast_ref::<io::Error>());
        let network = error.is_closed() || io.is_some() || message.starts_with("timeout");
        let login = message.starts_with("authentication") || message.starts_with("invalid configuration");
        // Conversions quote the value that they could not convert; everything else names hosts and protocol steps.
        if message == "error connecting to server" && io.is_some() {
            message = said.clone();
        } else if !message.contains("serializing")
            && let Some(source) = source
        {
            message = format!("{message}: {source}");
        }
        let kind = match (network, login) {
            (true, _) => Kind::Connect,
            (_, true) => Kind::Auth,
            _ => Kind::Query,
        };
        let remedy = match kind {
            Kind::Connect => Some(unreached(io).to_owned()),
            Kind::Auth if said == "password missing" => Some("the server asks for a password: set `password: {file: PATH}`".to_owned()),
            Kind::Auth => Some("let pg_hba.conf of the server ask this role for scram-sha-256".to_owned()),
            _ => None,
        };
        Cause { remedy, ..Cause::new(kind, message) }
    }
}

impl From<rusqlite::Error> for Cause {
    fn from(error: rusqlite::Error) -> Cause {
        use rusqlite::ErrorCode;
        let kind = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Kind::LockTimeout,
            Some(ErrorCode::ConstraintViolation) => Kind::Constraint,
            Some(ErrorCode::ReadOnly) => Kind::ReadOnly,
            Some(ErrorCode::CannotOpen | ErrorCode::NotADatabase) => Kind::Connect,
            Some(ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => Kind::Permission,
            _ if matches!(&error, rusqlite::Error::SqlInputError { .. } | rusqlite::Error::SqliteFailure(..))
                && error.to_string().contains("no such") =>
            {
                Kind::Schema
            }
            _ => Kind::Query,
        };
        Cause::new(kind, error.to_string())
    }
}

/// An error and its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        line = format!("{line}: {cause}");
        next = cause.source();
    }
    line
}

fn kind_of(state: &SqlState) -> Kind {
    let code = state.code();
    match code {
        "57014" | "25P03" | "57P05" => Kind::Timeout,
        "55P03" => Kind::LockTimeout,
        "25006" => Kind::ReadOnly,
        "42501" => Kind::Permission,
        "42P01" | "42703" | "42704" | "42804" | "42883" | "3D000" | "3F000" => Kind::Schema,
        _ => match &code[..2] {
            "08" | "53" | "57" => Kind::Connect,
            "28" => Kind::Auth,
            "40" => Kind::Conflict,
            "23" => Kind::Constraint,
            _ => Kind::Query,
        },
    }
}

/// The server's sentence, without detail, hint and context; and not even the sentence where it quotes values (class 22) or
/// was written by somebody's trigger (class P0).
fn printable(error: &DbError) -> String {
    let code = error.code().code();
    match &code[..2] {
        "22" | "P0" => {
            let column = error.column().map(|c| format!(" for column {c}")).unwrap_or_default();
            format!("the server refused a value{column} (SQLSTATE {code})")
        }
        _ => format!("{} (SQLSTATE {code})", error.message()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_in_the_published_set() {
        for code in ["57014", "55P03", "25006", "42501", "42P01", "08006", "53300", "57P01", "28P01", "40001", "23505", "22001", "XX000"] {
            let error = StoreError::query("test", Cause::new(kind_of(&SqlState::from_code(code)), "x"));
            assert!(StoreError::KINDS.contains(&error.kind()), "{code}");
        }
    }

    #[test]
    fn what_passes_by_itself_is_transient() {
        let transient = |code: &str| StoreError::query("test", Cause::new(kind_of(&SqlState::from_code(code)), "x")).is_transient();
        for code in ["57P01", "53300", "40P01", "57014", "55P03", "25006"] {
            assert!(transient(code), "{code}");
        }
        for code in ["28P01", "42501", "23505", "42703", "3D000", "22001"] {
            assert!(!transient(code), "{code}");
        }
    }
}
