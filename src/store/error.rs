//! What can go wrong with the print system's database, told without ever repeating a value of it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::error::{DbError, Severity, SqlState};

/// Variants are named for what failed; their cause says how.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("could not connect to {server}")]
    Connect { server: String, source: Cause },
    #[error("{step} failed")]
    Query { step: &'static str, source: Cause },
    #[error("{step} had no answer within {} s", after.as_secs())]
    Deadline { step: &'static str, after: Duration },
    #[error("the write lock was not granted within {} s", after.as_secs())]
    WriteLock { after: Duration },
    #[error("could not lock {}", path.display())]
    LockFile { path: PathBuf, source: std::io::Error },
    #[error("the session that held the leadership has lost it")]
    LeadershipLost,
    /// A write of this transaction failed, was cut off or was torn: COMMIT was never sent.
    #[error("the transaction was rolled back because a write in it was not complete")]
    Incomplete,
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
            Kind::Query => "query",
        }
    }

    /// Every value of [`kind`](StoreError::kind), for metrics that start at zero.
    pub const KINDS: [&'static str; 10] =
        ["connect", "auth", "permission", "timeout", "lock_timeout", "conflict", "constraint", "read_only", "schema", "query"];

    /// Whether the same call may succeed later without anybody doing anything. A read-only server is: a failover ends it.
    pub fn is_transient(&self) -> bool {
        match self.of_kind() {
            Kind::Connect | Kind::Timeout | Kind::LockTimeout | Kind::Conflict | Kind::ReadOnly => true,
            Kind::Auth | Kind::Permission | Kind::Constraint | Kind::Schema | Kind::Query => false,
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
            StoreError::LockFile { .. } | StoreError::Incomplete | StoreError::Task => Kind::Query,
        }
    }

    pub(super) fn query(step: &'static str, source: impl Into<Cause>) -> StoreError {
        StoreError::Query { step, source: source.into() }
    }
}

impl Cause {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Cause {
        Cause { kind, code: None, message: message.into() }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Cause {}

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
            return Cause { kind: kind_of(db.code()), message: printable(db), code: Some(code) };
        }
        let mut message = error.to_string();
        let source = std::error::Error::source(&error);
        let network = error.is_closed() || source.is_some_and(|s| s.is::<std::io::Error>()) || message.starts_with("timeout");
        let login = message.starts_with("authentication") || message.starts_with("invalid configuration");
        // Conversions quote the value that they could not convert; everything else names hosts and protocol steps.
        if !message.contains("serializing")
            && let Some(source) = source
        {
            message = format!("{message}: {source}");
        }
        let kind = match (network, login) {
            (true, _) => Kind::Connect,
            (_, true) => Kind::Auth,
            _ => Kind::Query,
        };
        Cause::new(kind, message)
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
