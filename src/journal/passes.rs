//! Passes, as the caller wants them remembered.

use rusqlite::params;

use super::error::{Doing, JournalError};
use super::issue::immediate;
use super::{BookId, View, Writer};
use crate::domain::{PassId, Timestamp};
use crate::inventory::Baseline;

/// How many passes of each kind are kept. Polls come every few seconds; a caller does well to write down only those that did
/// something.
const KEPT: i64 = 100;

const BASELINE: &str = "the figures of the last full pass";

/// A pass, as it was written down.
#[derive(Clone, PartialEq, Debug)]
pub struct PassRecord {
    pub pass: PassId,
    pub kind: String,
    pub started: Timestamp,
    /// `None`: still running, or cut off.
    pub ended: Option<Timestamp>,
    pub outcome: Option<String>,
    /// `Null` until it has ended.
    pub totals: serde_json::Value,
}

impl Writer {
    pub(super) fn pass_started(&mut self, book: BookId, pass: &PassId, kind: &str, now: Timestamp) -> Result<(), JournalError> {
        const WHAT: &str = "the start of a pass";
        let tx = immediate(&mut self.view.db, WHAT)?;
        tx.prepare_cached("INSERT INTO pass (database, pass, kind, started) VALUES (?1, ?2, ?3, ?4)")
            .and_then(|mut s| s.execute(params![book.0, pass.0, kind, now.0]))
            .writing(WHAT)?;
        tx.prepare_cached(
            "DELETE FROM pass WHERE database = ?1 AND kind = ?2 \
             AND id <= (SELECT id FROM pass WHERE database = ?1 AND kind = ?2 ORDER BY id DESC LIMIT 1 OFFSET ?3)",
        )
        .and_then(|mut s| s.execute(params![book.0, kind, KEPT]))
        .writing(WHAT)?;
        tx.commit().writing(WHAT)
    }

    pub(super) fn pass_ended(
        &mut self,
        pass: &PassId,
        outcome: &str,
        totals: &serde_json::Value,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        self.view
            .db
            .prepare_cached("UPDATE pass SET ended = ?2, outcome = ?3, totals = ?4 WHERE pass = ?1")
            .and_then(|mut s| s.execute(params![pass.0, now.0, outcome, totals.to_string()]))
            .map(|_| ())
            .writing("the end of a pass")
    }
}

impl Writer {
    /// In the database's own row, apart from the passes: those are forgotten after a while, and a tripwire must not come loose by itself.
    pub(super) fn keep_baseline(&mut self, book: BookId, baseline: Baseline) -> Result<(), JournalError> {
        let value = serde_json::json!([baseline.users, baseline.pinless]).to_string();
        self.view
            .db
            .prepare_cached("UPDATE database SET baseline = ?2 WHERE id = ?1")
            .and_then(|mut s| s.execute(params![book.0, value]))
            .map(|_| ())
            .writing(BASELINE)
    }
}

impl View {
    pub(super) fn baseline(&self, book: BookId) -> Result<Option<Baseline>, JournalError> {
        let value: Option<String> =
            self.db.query_row("SELECT baseline FROM database WHERE id = ?1", [book.0], |row| row.get(0)).reading(BASELINE)?;
        let figures =
            value.map(|text| serde_json::from_str(&text)).transpose().map_err(|_| JournalError::NotUnderstood { what: BASELINE })?;
        Ok(figures.map(|(users, pinless)| Baseline { users, pinless }))
    }

    /// Newest first; no kinds means all.
    pub(super) fn passes(&self, book: BookId, kinds: &[String], limit: usize) -> Result<Vec<PassRecord>, JournalError> {
        const WHAT: &str = "passes";
        let kinds = serde_json::Value::from(kinds.to_vec());
        let mut rows = self
            .db
            .prepare_cached(
                "SELECT pass, kind, started, ended, outcome, totals FROM pass \
                 WHERE database = ?3 AND (?1 = '[]' OR kind IN (SELECT value FROM json_each(?1))) ORDER BY id DESC LIMIT ?2",
            )
            .reading(WHAT)?;
        let mut rows = rows.query(params![kinds.to_string(), limit as i64, book.0]).reading(WHAT)?;
        let mut passes = Vec::new();
        while let Some(row) = rows.next().reading(WHAT)? {
            let totals: Option<String> = row.get(5).reading(WHAT)?;
            let totals = totals.map(|text| serde_json::from_str(&text)).transpose();
            passes.push(PassRecord {
                pass: PassId(row.get(0).reading(WHAT)?),
                kind: row.get(1).reading(WHAT)?,
                started: Timestamp(row.get(2).reading(WHAT)?),
                ended: row.get::<_, Option<i64>>(3).reading(WHAT)?.map(Timestamp),
                outcome: row.get(4).reading(WHAT)?,
                totals: totals.map_err(|_| JournalError::NotUnderstood { what: "totals" })?.unwrap_or_default(),
            });
        }
        Ok(passes)
    }
}
