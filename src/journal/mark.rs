//! How far the journal has been written, kept beside it in the lock file: a journal that was put back from a backup, or whose
//! write-ahead log somebody removed, opens without complaint, and knows less than it knew. What it has forgotten may have been
//! committed, and mails of it may have been sent; so it is not used before a person has seen that.
//!
//! The mark is not forced to disk with each batch. A power cut may leave it behind the journal, which is no harm.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use rusqlite::Connection;

use super::error::JournalError;
use super::file;
use crate::seal::suffixed;

/// The number of the newest issuance that was written down, as the lock file says; 0 if it says nothing.
fn read(mut lock: &File) -> io::Result<i64> {
    let mut text = String::new();
    lock.seek(SeekFrom::Start(0))?;
    lock.take(64).read_to_string(&mut text)?;
    Ok(text.trim().parse().unwrap_or(0))
}

/// Notes that issuances up to this number are written down.
pub(super) fn note(mut lock: &File, newest: i64) {
    // As wide whatever the number is, so that it never has to be cut.
    let noted = lock.seek(SeekFrom::Start(0)).and_then(|_| lock.write_all(format!("{newest:020}\n").as_bytes()));
    if let Err(error) = noted {
        tracing::debug!(%error, "Could not note how far the journal is written");
    }
}

/// # Errors
/// `db`, the journal at `path`, knows less than was written to it; `None`: it has no tables.
pub(super) fn check(lock: &File, db: Option<&Connection>, path: &Path) -> Result<(), JournalError> {
    let written = read(lock).unwrap_or(0);
    let known: i64 = db.map_or(Ok(0), |db| file::meta(db, "last_issuance"))?;
    if known >= written {
        return Ok(());
    }
    Err(JournalError::Behind { path: path.to_owned(), known, written, lock: suffixed(path, ".lock") })
}

/// The same for a reader, who does not hold the lock.
pub(super) fn check_for_reading(db: Option<&Connection>, path: &Path) -> Result<(), JournalError> {
    match File::open(suffixed(path, ".lock")) {
        Ok(lock) => check(&lock, db, path),
        Err(_) => Ok(()),
    }
}
