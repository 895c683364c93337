//! What keeps the file small and clean.

use std::time::Duration;

use rusqlite::params;

use super::error::{Doing, JournalError};
use super::issue::{KIND_END, KIND_PASSWORD, KIND_PIN, immediate, state_of};
use super::state::State;
use super::{BookId, Writer, freed};
use crate::domain::{IssuanceId, Timestamp};

/// Wall clocks are at most 14 hours off UTC; a day later a PIN has surely expired.
const WALL_CLOCK_SLACK: Duration = Duration::from_secs(86_400);

/// For how long what has ended is kept.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    pub issuances: Duration,
    /// What stood there before: so long a pass can be undone (R28).
    pub before_images: Duration,
}

/// One step of forgetting.
pub(super) struct Forgotten {
    pub(super) deleted: u64,
    /// Where to go on; `None` at the end.
    pub(super) next: Option<IssuanceId>,
}

impl Writer {
    pub(super) fn checkpoint(&mut self) -> Result<bool, JournalError> {
        let busy: i64 = self.view.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get(0)).writing("the write-ahead log")?;
        Ok(busy == 0)
    }

    /// Looks through `rows` issuances after `from`.
    pub(super) fn forget_step(&mut self, from: IssuanceId, rows: u32, keep: Keep, now: Timestamp) -> Result<Forgotten, JournalError> {
        const WHAT: &str = "what is forgotten";
        let tx = immediate(&mut self.view.db, WHAT)?;
        let to: Option<i64> = tx
            .prepare_cached("SELECT max(id) FROM (SELECT id FROM issuance WHERE id > ?1 ORDER BY id LIMIT ?2)")
            .and_then(|mut s| s.query_row([from.0, rows.into()], |r| r.get(0)))
            .reading(WHAT)?;
        let Some(to) = to else { return Ok(Forgotten { deleted: 0, next: None }) };
        let in_force: Vec<&str> = State::ALL.into_iter().filter(|s| s.is_in_force()).map(State::as_str).collect();
        let in_force = serde_json::Value::from(in_force).to_string();
        tx.prepare_cached(
            "UPDATE issuance SET before = NULL WHERE id > ?1 AND id <= ?2 AND before IS NOT NULL AND open IS NULL AND settled_at < ?3",
        )
        .and_then(|mut s| s.execute([from.0, to, now.minus(keep.before_images).0]))
        .writing(WHAT)?;
        let mut deleted = Vec::new();
        {
            // Kept by the ledger: in force, nothing newer in force says the same of the same user, and its PIN may still be
            // valid, if need be with an end that it got later. A password has no end: the newest of each user stays, because its
            // age may be asked for.
            let mut forget = tx
                .prepare_cached(
                    "DELETE FROM issuance AS i WHERE i.id > ?1 AND i.id <= ?2 AND i.open IS NULL AND i.settled_at < ?3 AND NOT ( \
                       coalesce(i.state, (SELECT state FROM batch WHERE id = i.batch)) IN (SELECT value FROM json_each(?4)) \
                       AND (i.kinds & ?5 = 0 OR i.pin_expires IS NULL OR i.pin_expires > ?6 OR EXISTS ( \
                         SELECT 1 FROM issuance n JOIN batch b ON b.id = n.batch WHERE n.database = i.database AND n.user = i.user AND n.id > i.id \
                         AND n.kinds & ?7 <> 0 AND n.pin_expires > ?6 \
                         AND coalesce(n.state, b.state) IN (SELECT value FROM json_each(?4)))) \
                       AND NOT EXISTS (SELECT 1 FROM issuance n JOIN batch b ON b.id = n.batch WHERE n.database = i.database AND n.user = i.user AND n.id > i.id \
                         AND (n.kinds & ?5 <> 0 OR (i.kinds & ?5 = 0 AND (i.kinds & ?7 = 0 OR n.kinds & ?7 <> 0))) \
                         AND coalesce(n.state, b.state) IN (SELECT value FROM json_each(?4)))) \
                     AND NOT ( \
                       i.kinds & ?8 <> 0 AND coalesce(i.state, (SELECT state FROM batch WHERE id = i.batch)) IN (SELECT value FROM json_each(?4)) \
                       AND NOT EXISTS (SELECT 1 FROM issuance n JOIN batch b ON b.id = n.batch WHERE n.database = i.database AND n.user = i.user \
                         AND n.id > i.id AND n.kinds & ?8 <> 0 AND coalesce(n.state, b.state) IN (SELECT value FROM json_each(?4)))) \
                     RETURNING coalesce(state, (SELECT state FROM batch WHERE id = batch)), database",
                )
                .writing(WHAT)?;
            let expired = now.minus(WALL_CLOCK_SLACK).0;
            let asked = params![from.0, to, now.minus(keep.issuances).0, in_force, KIND_PIN, expired, KIND_END, KIND_PASSWORD];
            let mut rows = forget.query(asked).writing(WHAT)?;
            while let Some(row) = rows.next().writing(WHAT)? {
                let state = state_of(row.get_ref(0).and_then(|v| Ok(v.as_str()?)).reading(WHAT)?)?;
                deleted.push((BookId(row.get(1).reading(WHAT)?), state));
            }
        }
        freed::expire(&tx, now).writing(WHAT)?;
        tx.prepare_cached(
            "DELETE FROM batch WHERE state <> ?3 AND last > ?1 AND first <= ?2 \
             AND NOT EXISTS (SELECT 1 FROM issuance WHERE id BETWEEN first AND last)",
        )
        .and_then(|mut s| s.execute(params![from.0, to, State::Planned.as_str()]))
        .writing(WHAT)?;
        tx.commit().writing(WHAT)?;
        for &(book, state) in &deleted {
            self.tallies.of(book).left(state, 1);
        }
        Ok(Forgotten { deleted: deleted.len() as u64, next: Some(IssuanceId(to)) })
    }
}
