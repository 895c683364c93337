//! Users on hold (R25): no pass changes anything of them until they are released.

use rusqlite::{OptionalExtension, Row, params};

use super::error::{Doing, JournalError};
use super::{BookId, View, Writer};
use crate::domain::{PassId, Timestamp, UserId};

/// A user on hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hold {
    pub user: UserId,
    /// As it was when the hold began.
    pub login: String,
    pub since: Timestamp,
    pub reason: String,
}

impl Writer {
    pub(super) fn hold(&mut self, book: BookId, user: UserId, login: &str, reason: &str, now: Timestamp) -> Result<bool, JournalError> {
        self.view
            .db
            .prepare_cached("INSERT INTO hold (database, user, login, since, reason) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING")
            .and_then(|mut s| s.execute(params![book.0, user.0, login, now.0, reason]))
            .map(|inserted| inserted > 0)
            .writing("a hold")
    }

    /// Of all whom the undoing of this pass put on hold; how many there were.
    pub(super) fn release_all(&mut self, book: BookId, pass: &PassId) -> Result<u64, JournalError> {
        self.view
            .db
            .prepare_cached("DELETE FROM hold WHERE database = ?1 AND pass = ?2")
            .and_then(|mut s| s.execute(params![book.0, pass.0]))
            .map(|deleted| deleted as u64)
            .writing("the end of holds")
    }

    pub(super) fn release(&mut self, book: BookId, user: UserId) -> Result<bool, JournalError> {
        self.view
            .db
            .prepare_cached("DELETE FROM hold WHERE database = ?1 AND user = ?2")
            .and_then(|mut s| s.execute([book.0, user.0]))
            .map(|deleted| deleted > 0)
            .writing("the end of a hold")
    }
}

impl View {
    pub(super) fn holds(&self, book: BookId, limit: usize) -> Result<Vec<Hold>, JournalError> {
        const WHAT: &str = "holds";
        let sql = "SELECT user, login, since, reason FROM hold WHERE database = ?1 ORDER BY since DESC, user LIMIT ?2";
        let mut rows = self.db.prepare_cached(sql).reading(WHAT)?;
        rows.query_map([book.0, limit as i64], told).and_then(Iterator::collect).reading(WHAT)
    }

    pub(super) fn hold_of(&self, book: BookId, user: UserId) -> Result<Option<Hold>, JournalError> {
        self.db
            .prepare_cached("SELECT user, login, since, reason FROM hold WHERE database = ?1 AND user = ?2")
            .and_then(|mut s| s.query_row([book.0, user.0], told).optional())
            .reading("a hold")
    }
}

fn told(row: &Row<'_>) -> Result<Hold, rusqlite::Error> {
    Ok(Hold { user: UserId(row.get(0)?), login: row.get(1)?, since: Timestamp(row.get(2)?), reason: row.get(3)? })
}
