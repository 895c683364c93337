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
    #[error("the journal {} has lost its key {}", journal.display(), key.display())]
    KeyMissing { journal: PathBuf, key: PathBuf },
    #[error("the key {} does not belong to the journal {}", key.display(), journal.display())]
    KeyWrong { journal: PathBuf, key: PathBuf },
    #[error("{} is not a journal", path.display())]
    NotAJournal { path: PathBuf },
    #[error("the journal {} is damaged ({found}), so nothing is changed", path.display())]
    Damaged { path: PathBuf, found: String },
    /// It was put back from a backup, or emptied, or has lost its write-ahead log.
    #[error(
        "the journal {} ends with issuance {known}, and {written} were written to it: an older one was put in its place, or its -wal file was \
         removed ({} tells how far it was written)",
        path.display(), lock.display()
    )]
    Behind { path: PathBuf, known: i64, written: i64, lock: PathBuf },
    #[error("the journal {} has version {version}, made by a newer credkeeper", path.display())]
    Newer { path: PathBuf, version: i64 },
    #[error("the journal {} was made by an older credkeeper", path.display())]
    Older { path: PathBuf },
    /// A restored database or another one: what the journal knows would be wrong there.
    #[error("the journal {} knows the database of this name as “{recorded}”, not as “{given}”", path.display())]
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
            | JournalError::Damaged { .. }
            | JournalError::Behind { .. }
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

    /// What to do about it: a clause that begins with a verb. `None` where only we could.
    pub fn remedy(&self) -> Option<&'static str> {
        const LOST: &str = "put back the key that it was made with, from a backup; only if that is gone for good, move the journal away: then the \
                            mails that wait in it are never sent, and those users need a new PIN";
        const DAMAGED: &str = "restore the journal and its key from a backup; only if there is none, move it away: then the mails that wait \
                               in it are never sent, and what was issued until now is not known any more";
        Some(match self {
            JournalError::Older { .. } => {
                "run a pass that changes something (--once, or the daemon, with mode: enforce): it brings the journal up to date"
            }
            JournalError::Locked { .. } => "wait until that instance has ended, or end it; `credkeeper status` works beside it",
            JournalError::Key(KeyFileError::Malformed { .. }) => {
                "put the right file back from a backup: a key is one line of 64 hexadecimal digits"
            }
            JournalError::KeyMissing { .. } | JournalError::KeyWrong { .. } => LOST,
            JournalError::NotAJournal { .. } => "correct journal.path, or move that file away",
            JournalError::Damaged { .. } => DAMAGED,
            JournalError::Behind { .. } => {
                "put the newest journal back, with its -wal file; only if that is gone for good, remove the .lock file: then it is not known any \
                 more what was issued since, and the mails of it are never sent"
            }
            JournalError::Newer { .. } => "run that newer version again, or name another journal in journal.path",
            JournalError::OtherDatabase { .. } => {
                "if it is the wrong one, correct `url`; if it is to take the place of the one before, `credkeeper journal adopt` with its name \
                 tells what is lost with that and goes on with it; if both are to be served, give this one a name in the configuration that the \
                 journal does not know yet"
            }
            JournalError::Lock { source, .. }
            | JournalError::Inspect { source, .. }
            | JournalError::Create { source, .. }
            | JournalError::Key(KeyFileError::Read { source, .. } | KeyFileError::Write { source, .. }) => folder(source),
            JournalError::Open { source, .. } | JournalError::Read { source, .. } | JournalError::Write { source, .. } => {
                match source.sqlite_error_code() {
                    Some(ErrorCode::DiskFull) => "make room on the journal's disk; until then nothing is changed in the database",
                    Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => DAMAGED,
                    Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "end what else has the journal open, such as a backup",
                    _ => "see that the journal is on a local disk that this account may write",
                }
            }
            JournalError::Unsettled { .. } => "try again",
            JournalError::Unseal { .. } | JournalError::NotUnderstood { .. } => DAMAGED,
            JournalError::Key(KeyFileError::NoRandomness)
            | JournalError::AlreadyOpen { .. }
            | JournalError::Illegal(_)
            | JournalError::NoSuchBatch { .. }
            | JournalError::VerdictsDoNotFit { .. }
            | JournalError::Seal(_)
            | JournalError::Closed
            | JournalError::Thread(_) => return None,
        })
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

/// What to do about a folder that is not there or may not be written.
pub fn folder(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "make that folder, for the account that runs credkeeper alone, or correct journal.path and journal.key",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on that disk",
        _ => "give the account that runs credkeeper the right to write in that folder, or name another one in journal.path and journal.key",
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
