//! PINs that were freed go to nobody for a while (R7). A keyed fingerprint of each is kept, which names neither the PIN nor
//! who had it, and is the same whatever the form that the PIN stood in.

use rusqlite::{Transaction, params};

use super::blob::Seals;
use super::book::Book;
use super::error::{Doing, JournalError};
use super::{NewIssuance, View};
use crate::domain::{IssuanceId, StoredValue, Timestamp};

/// Within the transaction that writes down the issuance: should that turn out never to have happened, [`forget`] is called.
pub(super) fn note(
    tx: &Transaction<'_>,
    seals: &Seals,
    book: &Book,
    id: IssuanceId,
    new: &NewIssuance,
    now: Timestamp,
) -> rusqlite::Result<()> {
    if new.quarantine.is_zero() {
        return Ok(());
    }
    let until = now.plus(new.quarantine);
    for print in new.freed().iter().filter_map(|pin| seals.freed_print(book, &pin.value)) {
        tx.prepare_cached(
            "INSERT INTO freed (print, issuance, until) VALUES (?1, ?2, ?3) \
             ON CONFLICT (print) DO UPDATE SET issuance = excluded.issuance, until = max(until, excluded.until)",
        )?
        .execute(params![print, id.0, until.0])?;
    }
    Ok(())
}

/// Of issuances that never reached the database.
pub(super) fn forget(tx: &Transaction<'_>, (first, last): (i64, i64)) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM freed WHERE issuance BETWEEN ?1 AND ?2")?.execute([first, last]).map(|_| ())
}

/// What has served its time.
pub(super) fn expire(tx: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM freed WHERE until <= ?1")?.execute([now.0]).map(|_| ())
}

impl View {
    pub(super) fn quarantined(&self, book: &Book, pins: &[StoredValue], now: Timestamp) -> Result<Vec<bool>, JournalError> {
        const WHAT: &str = "freed PINs";
        let any: bool = self
            .db
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM freed)")
            .and_then(|mut s| s.query_row([], |row| row.get(0)))
            .reading(WHAT)?;
        if !any {
            return Ok(vec![false; pins.len()]);
        }
        let mut held = self.db.prepare_cached("SELECT 1 FROM freed WHERE print = ?1 AND until > ?2").reading(WHAT)?;
        let is_held = |pin: &StoredValue| match self.seals.freed_print(book, pin) {
            Some(print) => held.exists(params![print, now.0]),
            None => Ok(false),
        };
        pins.iter().map(is_held).collect::<rusqlite::Result<_>>().reading(WHAT)
    }
}
