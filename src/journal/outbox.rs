//! The mail side: whose turn it is, and what became of each try.

use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use tracing::error;

use super::error::{Doing, JournalError};
use super::issue::{Written, immediate, lane_number, state_of};
use super::ledger::json_array;
use super::retry::{self, Retry};
use super::state::{Event, IllegalTransition, State, next};
use super::{Announcement, BookId, Lane, View, Writer};
use crate::domain::{Code, IssuanceId, Password, Pin, PolicyName, Timestamp, UserId, WallClock};

/// A mail whose turn has come.
#[derive(Clone, Debug)]
pub struct PendingMail {
    pub id: IssuanceId,
    pub book: BookId,
    pub user: UserId,
    pub policy: PolicyName,
    pub announcement: Announcement,
    /// Issued, or there already and told with the rest.
    pub pin: Option<Pin>,
    /// The end of that PIN.
    pub expires: Option<WallClock>,
    pub code: Option<Code>,
    pub password: Option<Password>,
    pub due_since: Timestamp,
    pub committed_at: Timestamp,
    /// Tries so far.
    pub attempts: u32,
    /// What must still stand in the database if the mail goes out more than 60 s after COMMIT. Only what the mail tells: a user
    /// who has been moved on meanwhile still needs to know the PIN.
    pub written: Written,
}

/// What became of a try.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    Accepted,
    /// For good: the recipient does not exist, and the like.
    Rejected {
        code: u16,
    },
    /// For now; no code where there was no answer.
    Deferred {
        code: Option<u16>,
    },
    /// Not tried: the database no longer holds what the mail would tell.
    Gone,
    /// Tried, and the site was at fault (R32): counts as no try. The mail stays due, behind all that waited meanwhile, so that those of
    /// whom the server says so for ever are not each time the first to find out.
    NoVerdict,
}

/// An issuance after its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answered {
    pub id: IssuanceId,
    /// `None`: there is no such issuance.
    pub state: Option<Result<State, IllegalTransition>>,
}

impl Writer {
    pub(super) fn due_mail(
        &mut self,
        books: &[BookId],
        now: Timestamp,
        limit: usize,
        in_flight: &[IssuanceId],
    ) -> Result<Vec<PendingMail>, JournalError> {
        let in_flight = json_array(in_flight.iter().map(|id| id.0));
        let mut books = books.to_vec();
        books.sort_unstable();
        // The import of one tenant must not make the visitors of another wait.
        let next = books.partition_point(|book| *book <= self.served);
        books.rotate_left(next);
        let mut here = self.view.in_turn(&books, self.turn, now, limit, &in_flight)?.into_iter();
        let mut there = self.view.in_turn(&books, other_lane(self.turn), now, limit, &in_flight)?.into_iter();
        let mut mails = Vec::new();
        while mails.len() < limit {
            let Some(id) = here.next().or_else(|| there.next()) else { break };
            std::mem::swap(&mut here, &mut there);
            self.turn = other_lane(self.turn);
            match self.view.mail(id) {
                Ok(Some(mail)) => {
                    self.served = mail.book;
                    mails.push(mail);
                }
                Ok(None) => {}
                Err(error @ (JournalError::Unseal { .. } | JournalError::NotUnderstood { .. })) => self.unreadable(id, &error, now)?,
                Err(error) => return Err(error),
            }
        }
        Ok(mails)
    }

    /// One damaged row must not keep all others from being sent (I7), and must not vanish either (I2).
    fn unreadable(&mut self, id: i64, error: &JournalError, now: Timestamp) -> Result<(), JournalError> {
        error!(issuance.id = id, error.kind = error.kind(), "A mail in the journal cannot be read and counts as undeliverable: {error}");
        const WHAT: &str = "an unreadable mail";
        let tx = immediate(&mut self.view.db, WHAT)?;
        let Some(row) = Row::load(&tx, id)? else { return Ok(()) };
        let after = next(row.state, Event::Rejected)?;
        row.end(&tx, id, after, row.attempts, None, now)?;
        tx.commit().writing(WHAT)?;
        self.tallies.of(row.book).moved(row.state, after, 1);
        Ok(())
    }

    pub(super) fn retry(&mut self, issuances: &[IssuanceId], now: Timestamp) -> Result<u64, JournalError> {
        const WHAT: &str = "mails that are tried again";
        let tx = immediate(&mut self.view.db, WHAT)?;
        let mut moves = Vec::new();
        for issuance in issuances {
            let Some(row) = Row::load(&tx, issuance.0)? else { continue };
            let after = match row.state {
                State::Committed => State::Committed,
                other => match next(other, Event::Retried) {
                    Ok(after) => after,
                    Err(_) => continue,
                },
            };
            let retried = tx.prepare_cached(
                "UPDATE issuance SET state = ?2, open = 1, attempts = 0, first_try = NULL, next_attempt = ?3, reply = NULL, settled_at = NULL \
                 WHERE id = ?1",
            )
            .and_then(|mut s| s.execute(params![issuance.0, after.as_str(), now.0]));
            match retried {
                Ok(_) => moves.push((row.book, row.state, after)),
                // A later change of the user is still to be mailed (I4): that one must not keep the others back.
                Err(e) if issuances.len() > 1 && e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {}
                Err(e) => return Err(e).writing(WHAT),
            }
        }
        tx.commit().writing(WHAT)?;
        let retried = moves.len() as u64;
        moves.into_iter().for_each(|(book, from, to)| self.tallies.of(book).moved(from, to, 1));
        Ok(retried)
    }

    pub(super) fn attempted(
        &mut self,
        answers: &[(IssuanceId, Answer)],
        now: Timestamp,
        give_up_after: Duration,
    ) -> Result<Vec<Answered>, JournalError> {
        const WHAT: &str = "what became of mails";
        let tx = immediate(&mut self.view.db, WHAT)?;
        let mut answered = Vec::with_capacity(answers.len());
        let mut moves = Vec::with_capacity(answers.len());
        for &(id, answer) in answers {
            let Some(row) = Row::load(&tx, id.0)? else {
                answered.push(Answered { id, state: None });
                continue;
            };
            let attempts = row.attempts.saturating_add(1);
            let first_try = row.first_try.unwrap_or(now);
            let (event, again, attempts, reply) = match answer {
                Answer::Accepted => (Event::Accepted, None, attempts, None),
                Answer::Rejected { code } => (Event::Rejected, None, attempts, Some(code)),
                Answer::Gone => (Event::Gone, None, row.attempts, None),
                Answer::NoVerdict => {
                    tx.prepare_cached("UPDATE issuance SET next_attempt = ?2 WHERE id = ?1 AND open = 1")
                        .and_then(|mut s| s.execute([id.0, now.0]))
                        .writing(WHAT)?;
                    answered.push(Answered { id, state: Some(Ok(row.state)) });
                    continue;
                }
                Answer::Deferred { code } => match retry::after(id, attempts, first_try, now, give_up_after) {
                    Retry::At(at) => (Event::Deferred, Some(at), attempts, code),
                    Retry::GiveUp => (Event::GaveUp, None, attempts, code),
                },
            };
            let after = next(row.state, event);
            match (after, again) {
                (Ok(_), Some(at)) => tx
                    .prepare_cached("UPDATE issuance SET attempts = ?2, first_try = ?3, next_attempt = ?4, reply = ?5 WHERE id = ?1")
                    .and_then(|mut s| s.execute(params![id.0, attempts, first_try.0, at.0, reply]))
                    .map(|_| ())
                    .writing(WHAT)?,
                (Ok(after), None) => row.end(&tx, id.0, after, attempts, reply, now)?,
                (Err(_), _) => {}
            }
            if let Ok(after) = after {
                moves.push((row.book, row.state, after));
            }
            answered.push(Answered { id, state: Some(after) });
        }
        tx.commit().writing(WHAT)?;
        for (book, from, to) in moves {
            self.tallies.of(book).moved(from, to, 1);
        }
        Ok(answered)
    }
}

impl View {
    /// The ids of a lane's due mails, one of each database after the other.
    fn in_turn(&self, books: &[BookId], lane: Lane, now: Timestamp, limit: usize, in_flight: &str) -> Result<Vec<i64>, JournalError> {
        let queues: Result<Vec<Vec<i64>>, _> = books.iter().map(|book| self.queued(*book, lane, now, limit, in_flight)).collect();
        let mut queues: Vec<_> = queues?.into_iter().map(Vec::into_iter).collect();
        let mut ids = Vec::new();
        while !queues.is_empty() {
            queues.retain_mut(|queue| queue.next().map(|id| ids.push(id)).is_some());
        }
        Ok(ids)
    }

    /// The ids of one database's due mails in a lane. Those of batches that are only planned stand in the queue too, and are passed over.
    fn queued(&self, book: BookId, lane: Lane, now: Timestamp, limit: usize, in_flight: &str) -> Result<Vec<i64>, JournalError> {
        const WHAT: &str = "the mail queue";
        let mut ids = self
            .db
            .prepare_cached(
                "SELECT i.id FROM issuance i INDEXED BY issuance_queue CROSS JOIN batch b ON b.id = i.batch \
                 WHERE i.open = 1 AND i.database = ?6 AND i.lane = ?1 AND i.next_attempt <= ?2 AND coalesce(i.state, b.state) = ?5 \
                 AND i.id NOT IN (SELECT value FROM json_each(?3)) ORDER BY i.next_attempt, i.id LIMIT ?4",
            )
            .reading(WHAT)?;
        ids.query_map(params![lane_number(lane), now.0, in_flight, limit as i64, State::Committed.as_str(), book.0], |r| r.get(0))
            .and_then(Iterator::collect)
            .reading(WHAT)
    }

    pub(super) fn next_mail_at(&self, books: &[BookId], in_flight: &[IssuanceId]) -> Result<Option<Timestamp>, JournalError> {
        const WHAT: &str = "the mail queue";
        let in_flight = json_array(in_flight.iter().map(|id| id.0));
        let mut earliest: Option<i64> = None;
        for (book, lane) in books.iter().flat_map(|book| [(book, Lane::Poll), (book, Lane::Backlog)]) {
            let at: Option<i64> = self
                .db
                .prepare_cached(
                    "SELECT i.next_attempt FROM issuance i INDEXED BY issuance_queue CROSS JOIN batch b ON b.id = i.batch \
                     WHERE i.open = 1 AND i.database = ?4 AND i.lane = ?1 AND coalesce(i.state, b.state) = ?3 \
                     AND i.id NOT IN (SELECT value FROM json_each(?2)) ORDER BY i.next_attempt LIMIT 1",
                )
                .and_then(|mut s| {
                    s.query_row(params![lane_number(lane), in_flight, State::Committed.as_str(), book.0], |r| r.get(0)).optional()
                })
                .reading(WHAT)?;
            earliest = earliest.into_iter().chain(at).min();
        }
        Ok(earliest.map(Timestamp))
    }

    pub(super) fn mail_of(&self, issuance: IssuanceId) -> Result<Option<PendingMail>, JournalError> {
        let waits = Row::load(&self.db, issuance.0)?.is_some_and(|row| matches!(row.state, State::Committed | State::Undeliverable));
        if waits { self.mail(issuance.0) } else { Ok(None) }
    }

    fn mail(&self, id: i64) -> Result<Option<PendingMail>, JournalError> {
        const WHAT: &str = "a mail";
        let mut rows = self
            .db
            .prepare_cached(
                "SELECT i.user, i.policy, i.message_id, i.secret, i.pin_expires, i.due_since, b.settled_at, i.attempts, i.database \
                 FROM issuance i JOIN batch b ON b.id = i.batch WHERE i.id = ?1",
            )
            .reading(WHAT)?;
        let mut rows = rows.query([id]).reading(WHAT)?;
        let Some(row) = rows.next().reading(WHAT)? else { return Ok(None) };
        let (id, user) = (IssuanceId(id), UserId(row.get(0).reading(WHAT)?));
        let blob: Option<Vec<u8>> = row.get(3).reading(WHAT)?;
        let blob = blob.ok_or(JournalError::NotUnderstood { what: "a mail without a secret" })?;
        let secret = self.seals.open_secret(id, user, row.get(2).reading(WHAT)?, &blob)?;
        let announcement = secret.announcement.ok_or(JournalError::NotUnderstood { what: "a mail without a recipient" })?;
        let ends = row.get::<_, Option<i64>>(4).reading(WHAT)?.map(WallClock);
        // A PIN that was there already brings its own end.
        let (pin, stored, expires) = match (secret.pin, secret.stored, secret.existing) {
            (None, None, Some(there)) => (Some(there.pin), Some(there.stored), there.expires),
            (pin, stored, _) => (pin, stored, ends),
        };
        let (code, code_stored) = secret.code.or(secret.again.code).unzip();
        let (password, password_stored) = secret.password.or(secret.again.password).unzip();
        Ok(Some(PendingMail {
            id,
            book: BookId(row.get(8).reading(WHAT)?),
            user,
            policy: PolicyName(row.get(1).reading(WHAT)?),
            announcement,
            pin,
            expires,
            code,
            password,
            due_since: Timestamp(row.get(5).reading(WHAT)?),
            committed_at: Timestamp(row.get(6).reading(WHAT)?),
            attempts: row.get(7).reading(WHAT)?,
            written: Written {
                issuance: id,
                user,
                pins: stored.into_iter().map(|stored| (stored, expires)).collect(),
                takes_back: false,
                pins_are_new: false,
                gone: Vec::new(),
                code: code_stored,
                password: password_stored,
                cost_center: None,
                role_gone: None,
            },
        }))
    }
}

/// What a try changes of an issuance.
pub(super) struct Row {
    book: BookId,
    pub(super) state: State,
    pub(super) attempts: u32,
    first_try: Option<Timestamp>,
}

impl Row {
    pub(super) fn load(db: &Connection, id: i64) -> Result<Option<Row>, JournalError> {
        let found = db
            .prepare_cached(
                "SELECT coalesce(i.state, b.state), i.attempts, i.first_try, i.database FROM issuance i JOIN batch b ON b.id = i.batch WHERE i.id = ?1",
            )
            .and_then(|mut s| s.query_row([id], |r| Ok((r.get::<_, String>(0)?, r.get(1)?, r.get::<_, Option<i64>>(2)?, r.get(3)?))).optional())
            .reading("an issuance")?;
        match found {
            Some((state, attempts, first_try, book)) => {
                Ok(Some(Row { book: BookId(book), state: state_of(&state)?, attempts, first_try: first_try.map(Timestamp) }))
            }
            None => Ok(None),
        }
    }

    /// The last state but for what take-back and retry do; the secret goes in the same step where that state needs none.
    pub(super) fn end(
        &self,
        db: &Connection,
        id: i64,
        after: State,
        attempts: u32,
        reply: Option<u16>,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        db.prepare_cached(
            "UPDATE issuance SET state = ?2, open = NULL, attempts = ?3, first_try = ?4, reply = ?5, settled_at = ?6, \
             secret = CASE WHEN ?7 THEN secret END WHERE id = ?1",
        )
        .and_then(|mut s| {
            let first_try = self.first_try.or((attempts > 0).then_some(now)).map(|t| t.0);
            s.execute(params![id, after.as_str(), attempts, first_try, reply, now.0, after.keeps_secret()])
        })
        .map(|_| ())
        .writing("the end of an issuance")
    }
}

fn other_lane(lane: Lane) -> Lane {
    match lane {
        Lane::Poll => Lane::Backlog,
        Lane::Backlog => Lane::Poll,
    }
}
