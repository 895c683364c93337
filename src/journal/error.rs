//! What can go wrong with the journal. Nothing here repeats a value from it.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;

use super::state::IllegalTransition;
use crate::domain::{IssuanceId, UserId};
use crate::seal::{KeyFileError, SealError};

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("another instance holds the journal {}", path.display())]
    Locked { path: PathBuf },
    #[error("cannot use the lock file {}", path.display())]
    Lock { path: PathBuf, source: io::Error },
    #[error("the journal's key is of no use")]
    Key(#[from] KeyFileError),
    #[error(
        "the journal {} has lost its key {}: put the key back; only if it is gone for good, move the journal away",
        journal.display(), key.display()
    )]
    KeyMissing { journal: PathBuf, key: PathBuf },
    #[error("the key {} does not belong to the journal {}", key.display(), journal.display())]
    KeyWrong { journal: PathBuf, key: PathBuf },
    #[error("{} is not a journal", path.display())]
    NotAJournal { path: PathBuf },
    #[error("the journal {} has version {version}, made by a newer credkeeper", path.display())]
    Newer { path: PathBuf, version: i64 },
    #[error("the journal {} was made by an older credkeeper: a pass (--once or the daemon) brings it up to date", path.display())]
    Older { path: PathBuf },
    /// A restored database or another one: what the journal knows would be wrong there.
    #[error("the journal {} belongs to the database “{recorded}”, not to “{given}”", path.display())]
    OtherDatabase { path: PathBuf, recorded: String, given: String },
    #[error("cannot look for the journal {}", path.display())]
    Inspect { path: PathBuf, source: io::Error },
    #[error("cannot create the journal {}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot open the journal {}", path.display())]
    Open { path: PathBuf, source: rusqlite::Error },
    /// The file keeps changing under a reader that must not leave traces.
    #[error("the journal {} is being opened or closed by another instance", path.display())]
    Unsettled { path: PathBuf },
    #[error("cannot read {what} from the journal")]
    Read { what: &'static str, source: rusqlite::Error },
    /// Nothing of the step was written.
    #[error("cannot write {what} to the journal")]
    Write { what: &'static str, source: rusqlite::Error },
    /// I4: planned twice, or planned while a mail is still on its way.
    #[error("user {user} already has an open issuance")]
    AlreadyOpen { user: UserId },
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    #[error("there is no batch {batch} in the journal")]
    NoSuchBatch { batch: i64 },
    #[error("the batch has {expected} issuances, and {given} verdicts were given")]
    VerdictsDoNotFit { expected: usize, given: usize },
    #[error("cannot seal a value for the journal")]
    Seal(#[source] SealError),
    #[error("issuance {issuance} cannot be unsealed")]
    Unseal { issuance: IssuanceId, source: SealError },
    /// Damage, or a version of ours that wrote something else.
    #[error("the journal holds an unknown value for {what}")]
    NotUnderstood { what: &'static str },
    #[error("the journal is closed")]
    Closed,
    #[error("cannot start the journal's thread")]
    Thread(#[source] io::Error),
}

impl JournalError {
    /// Closed set: metric label and log field.
    pub fn kind(&self) -> &'static str {
        match self {
            JournalError::Locked { .. } => "locked",
            JournalError::Lock { .. }
            | JournalError::Inspect { .. }
            | JournalError::Create { .. }
            | JournalError::Open { .. }
            | JournalError::Thread(_) => "open",
            JournalError::Key(_) | JournalError::KeyMissing { .. } | JournalError::KeyWrong { .. } => "key",
            JournalError::NotAJournal { .. }
            | JournalError::Newer { .. }
            | JournalError::Older { .. }
            | JournalError::NotUnderstood { .. } => "format",
            JournalError::OtherDatabase { .. } => "other_database",
            JournalError::Read { .. } | JournalError::Unsettled { .. } => "read",
            JournalError::Write { .. } => "write",
            JournalError::AlreadyOpen { .. }
            | JournalError::Illegal(_)
            | JournalError::NoSuchBatch { .. }
            | JournalError::VerdictsDoNotFit { .. } => "state",
            JournalError::Seal(_) | JournalError::Unseal { .. } => "seal",
            JournalError::Closed => "closed",
        }
    }

    /// Whether the same call may succeed later without anybody touching the journal: a lock goes away, and disks that are full
    /// are often emptied by others.
    pub fn is_transient(&self) -> bool {
        match self {
            JournalError::Locked { .. } | JournalError::Unsettled { .. } => true,
            JournalError::Read { source, .. } | JournalError::Write { source, .. } | JournalError::Open { source, .. } => {
                matches!(source.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull))
            }
            JournalError::Seal(SealError::NoRandomness) => true,
            _ => false,
        }
    }
}

/// Names the step for errors of the SQL library.
pub(super) trait Doing<T> {
    fn reading(self, what: &'static str) -> Result<T, JournalError>;
    fn writing(self, what: &'static str) -> Result<T, JournalError>;
}

impl<T> Doing<T> for Result<T, rusqlite::Error> {
    fn reading(self, what: &'static str) -> Result<T, JournalError> {
        self.map_err(|source| JournalError::Read { what, source })
    }

    fn writing(self, what: &'static str) -> Result<T, JournalError> {
        self.map_err(|source| JournalError::Write { what, source })
    }
}
