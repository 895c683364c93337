//! Reminders (R33): of each user the last one, whether it was sent or is still to be. It has no secret in it: what the mail says
//! is read again when it goes, and whoever need not be reminded any more is not.
//!
//! ```text
//!            remind                   Accepted
//! nothing ──────────► to be sent ────────────────► said, until the PIN has lapsed ──► forgotten
//!                     │ │     ▲ │  Rejected, given up ▲   a later window: to be sent
//!          Gone ◄─────┘ └─────┘ └─────────────────────┘
//!          forgotten   Deferred
//! ```
//! It is written down before it is sent, and its answer after: a crash between the two repeats it under the same Message-ID.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::error::{Doing, JournalError};
use super::issue::immediate;
use super::ledger::json_array;
use super::retry::{self, Retry};
use super::{Answer, BookId, View, Writer, file};
use crate::domain::{IssuanceId, PolicyName, Timestamp, UserId, WallClock};
use crate::inventory::Lapse;

/// Wall clocks are at most 14 hours off UTC, and one that is set back must not find a window open again.
const LAPSED_FOR: Duration = Duration::from_secs(3 * 86_400);

/// A reminder as it is handed over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewReminder {
    pub user: UserId,
    pub policy: PolicyName,
    pub lapse: Lapse,
    pub message_id: String,
}

/// A reminder whose turn has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PendingReminder {
    /// From the same numbers as those of issuances: one names one mail.
    pub id: IssuanceId,
    pub book: BookId,
    pub user: UserId,
    pub policy: PolicyName,
    pub lapse: Lapse,
    pub message_id: String,
    /// Tries so far.
    pub attempts: u32,
}

const WHAT: &str = "reminders";

impl Writer {
    /// Takes the place of what was said before.
    pub(super) fn remind(&mut self, book: BookId, reminders: &[NewReminder], now: Timestamp) -> Result<(), JournalError> {
        let tx = immediate(&mut self.view.db, WHAT)?;
        let last: i64 = file::meta(&tx, "last_issuance")?;
        let mut insert = tx
            .prepare_cached(
                "INSERT OR REPLACE INTO reminder (database, user, id, policy, ends, window, message_id, next_attempt) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )
            .writing(WHAT)?;
        for (id, new) in (last + 1..).zip(reminders) {
            let window = new.lapse.window.as_secs() as i64;
            insert.execute(params![book.0, new.user.0, id, new.policy.0, new.lapse.end.0, window, new.message_id, now.0]).writing(WHAT)?;
        }
        drop(insert);
        tx.execute("UPDATE meta SET value = ?1 WHERE name = 'last_issuance'", [last + reminders.len() as i64]).writing(WHAT)?;
        tx.commit().writing(WHAT)
    }

    pub(super) fn reminded_of(
        &mut self,
        answers: &[(IssuanceId, Answer)],
        now: Timestamp,
        give_up_after: Duration,
    ) -> Result<(), JournalError> {
        let tx = immediate(&mut self.view.db, WHAT)?;
        for &(id, answer) in answers {
            let Some((attempts, first_try)) = tries(&tx, id)? else { continue }; // another one took its place meanwhile
            let attempts = attempts.saturating_add(1);
            let first_try = first_try.unwrap_or(now);
            let again = match answer {
                Answer::Gone => {
                    tx.prepare_cached("DELETE FROM reminder WHERE id = ?1").and_then(|mut s| s.execute([id.0])).writing(WHAT)?;
                    continue;
                }
                Answer::NoVerdict => {
                    tx.prepare_cached("UPDATE reminder SET next_attempt = ?2 WHERE id = ?1")
                        .and_then(|mut s| s.execute([id.0, now.0]))
                        .writing(WHAT)?;
                    continue;
                }
                Answer::Accepted | Answer::Rejected { .. } => None,
                Answer::Deferred { .. } => match retry::after(id, attempts, first_try, now, give_up_after) {
                    Retry::At(at) => Some(at.0),
                    Retry::GiveUp => None,
                },
            };
            tx.prepare_cached("UPDATE reminder SET attempts = ?2, first_try = ?3, next_attempt = ?4 WHERE id = ?1")
                .and_then(|mut s| s.execute(params![id.0, attempts, first_try.0, again]))
                .writing(WHAT)?;
        }
        tx.commit().writing(WHAT)
    }

    /// Lets go of PINs that have lapsed long ago: nobody is reminded of those.
    pub(super) fn forget_reminders(&mut self, now: Timestamp) -> Result<(), JournalError> {
        self.view
            .db
            .prepare_cached("DELETE FROM reminder WHERE ends < ?1")
            .and_then(|mut s| s.execute([now.minus(LAPSED_FOR).0]))
            .map(|_| ())
            .writing(WHAT)
    }
}

impl View {
    /// What these users were reminded of last, or are about to be.
    pub(super) fn reminded(&self, book: BookId, users: &[UserId]) -> Result<BTreeMap<UserId, Lapse>, JournalError> {
        let ids = json_array(users.iter().map(|user| user.0));
        let mut rows = self
            .db
            .prepare_cached(
                "SELECT r.user, r.ends, r.window FROM json_each(?1) j CROSS JOIN reminder r ON r.database = ?2 AND r.user = j.value",
            )
            .reading(WHAT)?;
        let found = rows.query_map(params![ids, book.0], |row| Ok((UserId(row.get(0)?), lapse(row, 1)?)));
        found.and_then(Iterator::collect).reading(WHAT)
    }

    /// Of each database the same share, the oldest first.
    pub(super) fn due_reminders(
        &self,
        books: &[BookId],
        now: Timestamp,
        limit: usize,
        in_flight: &[IssuanceId],
    ) -> Result<Vec<PendingReminder>, JournalError> {
        let in_flight = json_array(in_flight.iter().map(|id| id.0));
        let mut due = Vec::new();
        for book in books {
            let mut rows = self
                .db
                .prepare_cached(
                    "SELECT id, user, policy, ends, window, message_id, attempts FROM reminder INDEXED BY reminder_queue \
                     WHERE database = ?1 AND next_attempt IS NOT NULL AND next_attempt <= ?2 \
                     AND id NOT IN (SELECT value FROM json_each(?3)) ORDER BY next_attempt LIMIT ?4",
                )
                .reading(WHAT)?;
            let pending = |row: &Row<'_>| {
                Ok(PendingReminder {
                    id: IssuanceId(row.get(0)?),
                    book: *book,
                    user: UserId(row.get(1)?),
                    policy: PolicyName(row.get(2)?),
                    lapse: lapse(row, 3)?,
                    message_id: row.get(5)?,
                    attempts: row.get(6)?,
                })
            };
            let found = rows.query_map(params![book.0, now.0, in_flight, limit as i64], pending);
            due.extend(found.and_then(Iterator::collect::<Result<Vec<_>, _>>).reading(WHAT)?);
        }
        Ok(due)
    }

    pub(super) fn next_reminder_at(&self, books: &[BookId], in_flight: &[IssuanceId]) -> Result<Option<Timestamp>, JournalError> {
        let in_flight = json_array(in_flight.iter().map(|id| id.0));
        let mut earliest: Option<i64> = None;
        for book in books {
            let at: Option<i64> = self
                .db
                .prepare_cached(
                    "SELECT next_attempt FROM reminder INDEXED BY reminder_queue WHERE database = ?1 AND next_attempt IS NOT NULL \
                     AND id NOT IN (SELECT value FROM json_each(?2)) ORDER BY next_attempt LIMIT 1",
                )
                .and_then(|mut s| s.query_row(params![book.0, in_flight], |row| row.get(0)).optional())
                .reading(WHAT)?;
            earliest = earliest.into_iter().chain(at).min();
        }
        Ok(earliest.map(Timestamp))
    }

    pub(super) fn reminders_waiting(&self, book: BookId) -> Result<u64, JournalError> {
        let sql = "SELECT count(*) FROM reminder INDEXED BY reminder_queue WHERE database = ?1 AND next_attempt IS NOT NULL";
        let waiting = self.db.prepare_cached(sql).and_then(|mut s| s.query_row([book.0], |row| row.get::<_, i64>(0)));
        waiting.map(|n| n.max(0).unsigned_abs()).reading(WHAT)
    }
}

/// Tries so far, and when the first was, of one that is still to be sent.
fn tries(db: &Connection, id: IssuanceId) -> Result<Option<(u32, Option<Timestamp>)>, JournalError> {
    db.prepare_cached("SELECT attempts, first_try FROM reminder WHERE id = ?1 AND next_attempt IS NOT NULL")
        .and_then(|mut s| s.query_row([id.0], |row| Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?.map(Timestamp)))).optional())
        .reading(WHAT)
}

/// From two columns.
fn lapse(row: &Row<'_>, first: usize) -> Result<Lapse, rusqlite::Error> {
    let window = row.get::<_, i64>(first + 1)?.max(0).unsigned_abs();
    Ok(Lapse { end: WallClock(row.get(first)?), window: Duration::from_secs(window) })
}
