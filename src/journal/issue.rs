//! Planned, committed, abandoned: the steps around a COMMIT, and what a crash left between them.

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::blob::{Before, Seals};
use super::book::Book;
use super::error::{Doing, JournalError};
use super::state::{Event, State, next};
use super::{BatchId, Because, BookId, Lane, NewIssuance, PinWritten, View, Writer, back, file, freed, mark};
use crate::domain::{CostCenter, Credential, IssuanceId, PassId, RoleId, StoredValue, Timestamp, UserId, WallClock};

/// Bits of `issuance.kinds`.
pub(super) const KIND_PIN: i64 = 1;
pub(super) const KIND_CODE: i64 = 2;
pub(super) const KIND_PASSWORD: i64 = 4;
pub(super) const KIND_CREDENTIAL: i64 = KIND_PIN | KIND_CODE | KIND_PASSWORD;
pub(super) const KIND_MOVED: i64 = 8;
pub(super) const KIND_EXTENDED: i64 = 16;
pub(super) const KIND_EXPIRED: i64 = 32;
pub(super) const KIND_DELETED: i64 = 64;
/// A role removed.
pub(super) const KIND_ROLE_REMOVED: i64 = 128;
/// A code took the place of another one, which our ledger did not foresee.
pub(super) const KIND_CODE_REPLACED: i64 = 512;
/// The same of a password.
pub(super) const KIND_PASSWORD_REPLACED: i64 = 1024;
/// An earlier issuance was taken back.
pub(super) const KIND_TAKES_BACK: i64 = 256;
/// The same of all that the user had.
pub(super) const KIND_REVOKED: i64 = 4096;
/// Nothing was changed: what was there already is told once more.
pub(super) const KIND_AGAIN: i64 = 2048;
/// A PIN that was there got another end.
pub(super) const KIND_END: i64 = KIND_EXTENDED | KIND_EXPIRED;

/// The bit that says that one of this kind was issued.
pub(super) fn kind_of(credential: Credential) -> i64 {
    match credential {
        Credential::Pin => KIND_PIN,
        Credential::Code => KIND_CODE,
        Credential::Password => KIND_PASSWORD,
    }
}

/// A batch whose COMMIT was never answered.
#[derive(Clone, Debug)]
pub struct Unresolved {
    pub batch: BatchId,
    pub written: Vec<Written>,
}

/// What an issuance wrote, to be looked for in the database.
#[derive(Clone, Debug)]
pub struct Written {
    pub issuance: IssuanceId,
    pub user: UserId,
    /// PINs with their ends.
    pub pins: Vec<(StoredValue, Option<WallClock>)>,
    /// An earlier issuance is taken back; then an empty code or password says that there is none any more.
    pub takes_back: bool,
    /// Those PINs are new: before, they stood nowhere.
    pub pins_are_new: bool,
    /// PINs that the user must not have any more.
    pub gone: Vec<StoredValue>,
    pub code: Option<StoredValue>,
    pub password: Option<StoredValue>,
    pub cost_center: Option<CostCenter>,
    /// A role that the user must not have any more.
    pub role_gone: Option<RoleId>,
}

/// Which issuances of a batch are in the database.
enum Landed<'a> {
    All,
    Nothing,
    Each(&'a [bool]),
}

impl Writer {
    pub(super) fn planned(
        &mut self,
        book: &Book,
        pass: &PassId,
        issuances: &[NewIssuance],
        now: Timestamp,
    ) -> Result<BatchId, JournalError> {
        const WHAT: &str = "a planned batch";
        let View { db, seals } = &mut self.view;
        let tx = immediate(db, WHAT)?;
        let last: i64 = file::meta(&tx, "last_issuance")?;
        let batch;
        {
            let end = last + issuances.len() as i64;
            tx.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'last_issuance'")
                .and_then(|mut s| s.execute([end]))
                .writing(WHAT)?;
            tx.prepare_cached("INSERT INTO batch (database, pass, state, first, last, planned_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")
                .and_then(|mut s| s.execute(params![book.id.0, pass.0, State::Planned.as_str(), last + 1, end, now.0]))
                .writing(WHAT)?;
            batch = tx.last_insert_rowid();
            let mut insert = tx
                .prepare_cached(
                    "INSERT INTO issuance (id, batch, user, login, policy, kinds, pin_expires, pin_print, replaced, due_since, lane, \
                     message_id, open, next_attempt, secret, before, database, takes_back, because, leaves_pinless) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 1, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
                )
                .writing(WHAT)?;
            for (id, new) in (last + 1..).map(IssuanceId).zip(issuances) {
                let row = PinColumns::of(new, seals, book);
                let changed = row.kind | other_kinds(new);
                let kinds = if changed == 0 && new.announcement.is_some() { KIND_AGAIN } else { changed };
                let inserted = insert.execute(params![
                    id.0,
                    batch,
                    new.user.0,
                    new.login,
                    new.policy.0,
                    kinds,
                    row.expires.map(|e| e.0),
                    row.prints,
                    new.replaced_unexpected[Credential::Pin] as i64,
                    new.due_since.0,
                    lane_number(new.lane),
                    new.announcement.as_ref().map(|a| a.message_id.as_str()),
                    now.0,
                    seals.secret(id, new)?,
                    seals.before(id, new)?,
                    book.id.0,
                    new.takes_back.as_ref().and_then(|back| back.of).map(|of| of.0),
                    new.takes_back.as_ref().map(|back| back::word(&back.because)),
                    new.takes_back.as_ref().map(|back| back.leaves_pinless),
                ]);
                match inserted {
                    Ok(_) => {}
                    // The only other unique thing is the id, which we have just counted.
                    Err(e) if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                        return Err(JournalError::AlreadyOpen { user: new.user });
                    }
                    Err(source) => return Err(JournalError::Write { what: WHAT, source }),
                }
                freed::note(&tx, seals, book, id, new, now).writing(WHAT)?;
            }
        }
        tx.commit().writing(WHAT)?;
        mark::note(&self.lock, last + issuances.len() as i64);
        self.tallies.of(book.id).arrived(State::Planned, issuances.len() as u64);
        Ok(BatchId(batch))
    }

    pub(super) fn committed(&mut self, batch: BatchId, now: Timestamp) -> Result<(), JournalError> {
        self.settle(batch, Landed::All, now)
    }

    pub(super) fn abandoned(&mut self, batch: BatchId, now: Timestamp) -> Result<(), JournalError> {
        self.settle(batch, Landed::Nothing, now)
    }

    pub(super) fn resolve(&mut self, batch: BatchId, landed: &[bool], now: Timestamp) -> Result<(), JournalError> {
        self.settle(batch, Landed::Each(landed), now)
    }

    /// From planned to what COMMIT has made of it, the whole batch in one transaction.
    fn settle(&mut self, batch: BatchId, landed: Landed, now: Timestamp) -> Result<(), JournalError> {
        const WHAT: &str = "the end of a transaction";
        let View { db, seals } = &mut self.view;
        let tx = immediate(db, WHAT)?;
        let (book, state, first, last) = batch_row(&tx, batch)?;
        let size = (last + 1 - first).max(0) as usize;
        let missing: Vec<i64> = match landed {
            Landed::All => Vec::new(),
            Landed::Nothing => (first..=last).collect(),
            Landed::Each(found) if found.len() == size => (first..).zip(found).filter(|(_, found)| !**found).map(|(id, _)| id).collect(),
            Landed::Each(found) => return Err(JournalError::VerdictsDoNotFit { expected: size, given: found.len() }),
        };
        let nothing = size == missing.len() && !matches!(landed, Landed::All);
        // The announced and the silent ones leave the same state, so one of the two stands for both.
        next(state, if nothing { Event::Refused } else { Event::Committed })?;
        let unannounced = if nothing {
            write_abandoned(&tx, batch, (first, last), now).map(|()| 0)
        } else {
            write_committed(&tx, batch, (first, last), &missing, now)
        }
        .writing(WHAT)?;
        let taken_back = if nothing { Vec::new() } else { back::took_back(&tx, seals, book, (first, last), now)? };
        tx.commit().writing(WHAT)?;
        let tally = self.tallies.of(book);
        taken_back.into_iter().for_each(|from| tally.moved(from, State::TakenBack, 1));
        tally.moved(state, State::Abandoned, missing.len() as u64);
        tally.moved(state, State::Unannounced, unannounced as u64);
        tally.moved(state, State::Committed, (size - missing.len() - unannounced) as u64);
        Ok(())
    }
}

impl View {
    pub(super) fn unresolved(&self, book: BookId) -> Result<Vec<Unresolved>, JournalError> {
        const WHAT: &str = "unresolved batches";
        let mut batches = self
            .db
            .prepare_cached("SELECT id, first, last FROM batch WHERE state = 'planned' AND database = ?1 ORDER BY id")
            .reading(WHAT)?;
        let batches: Result<Vec<(i64, i64, i64)>, _> =
            batches.query_map([book.0], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).reading(WHAT)?.collect();
        let mut rows = self
            .db
            .prepare_cached(
                "SELECT id, user, pin_expires, message_id, secret, before, kinds FROM issuance WHERE id BETWEEN ?1 AND ?2 ORDER BY id",
            )
            .reading(WHAT)?;
        let mut unresolved = Vec::new();
        for (batch, first, last) in batches.reading(WHAT)? {
            let mut written = Vec::new();
            let mut each = rows.query([first, last]).reading(WHAT)?;
            while let Some(row) = each.next().reading(WHAT)? {
                written.push(self.written(row)?);
            }
            unresolved.push(Unresolved { batch: BatchId(batch), written });
        }
        Ok(unresolved)
    }

    /// Of a row that begins with id, user, pin_expires, message_id, secret, before, kinds.
    fn written(&self, row: &Row) -> Result<Written, JournalError> {
        const WHAT: &str = "an issuance";
        let (issuance, user) = (IssuanceId(row.get(0).reading(WHAT)?), UserId(row.get(1).reading(WHAT)?));
        let expires = row.get::<_, Option<i64>>(2).reading(WHAT)?.map(WallClock);
        let secret: Option<Vec<u8>> = row.get(4).reading(WHAT)?;
        let before: Option<Vec<u8>> = row.get(5).reading(WHAT)?;
        let kinds: i64 = row.get(6).reading(WHAT)?;
        let before = match before {
            Some(blob) => self.seals.open_before(issuance, user, &blob)?,
            None => Before::default(),
        };
        let mut written = Written {
            issuance,
            user,
            pins: Vec::new(),
            takes_back: kinds & KIND_TAKES_BACK != 0,
            pins_are_new: kinds & KIND_PIN != 0,
            gone: Vec::new(),
            code: None,
            password: None,
            cost_center: before.moved.map(|(_, to)| to),
            role_gone: before.role.map(|role| role.id),
        };
        if let Some(blob) = secret {
            let secret = self.seals.open_secret(issuance, user, row.get(3).reading(WHAT)?, &blob)?;
            written.pins = secret.stored.into_iter().map(|stored| (stored, expires)).collect();
            written.code = secret.code.map(|(_, stored)| stored);
            written.password = secret.password.map(|(_, stored)| stored);
        }
        if kinds & KIND_END != 0 {
            written.pins = before.pins.into_iter().map(|pin| (pin.value, expires)).collect();
        } else if kinds & KIND_DELETED != 0 {
            written.gone = before.pins.into_iter().map(|pin| pin.value).collect();
        } else if kinds & KIND_TAKES_BACK != 0 {
            let none = || StoredValue::new(String::new());
            written.gone = before.pins.into_iter().map(|pin| pin.value).collect();
            written.pins = before.after.pins.into_iter().map(|pin| (pin.value, pin.expires)).collect();
            written.code = before.after.code.map(|code| code.unwrap_or_else(none));
            written.password = before.after.password.map(|password| password.unwrap_or_else(none));
        }
        Ok(written)
    }
}

/// The bits of all that is not about PINs.
fn other_kinds(new: &NewIssuance) -> i64 {
    let bits = [
        (new.code.is_some(), KIND_CODE),
        (new.password.is_some(), KIND_PASSWORD),
        (new.moved.is_some() && new.takes_back.is_none(), KIND_MOVED),
        (new.role_removed.is_some(), KIND_ROLE_REMOVED),
        (new.takes_back.is_some(), KIND_TAKES_BACK),
        (new.takes_back.as_ref().is_some_and(|back| back.because == Because::Revoked), KIND_REVOKED),
        (new.replaced_unexpected[Credential::Code] > 0, KIND_CODE_REPLACED),
        (new.replaced_unexpected[Credential::Password] > 0, KIND_PASSWORD_REPLACED),
    ];
    bits.into_iter().filter(|(holds, _)| *holds).fold(0, |kinds, (_, bit)| kinds | bit)
}

/// What a row says of PINs.
struct PinColumns {
    kind: i64,
    expires: Option<WallClock>,
    /// 16 bytes for each credential that stands in the database as the row says.
    prints: Option<Vec<u8>>,
}

impl PinColumns {
    fn of(new: &NewIssuance, seals: &Seals, book: &Book) -> PinColumns {
        let prints = |pins: &mut dyn Iterator<Item = &StoredValue>| {
            let all: Vec<u8> = pins.flat_map(|value| seals.fingerprint(book, new.user, value)).collect();
            (!all.is_empty()).then_some(all)
        };
        // One column holds the prints of all that stands as the row says, whatever its kind.
        let values = || new.code.iter().map(|code| &code.stored).chain(new.password.iter().map(|password| &password.stored));
        let ended = |kind, to: WallClock| PinColumns {
            kind,
            expires: Some(to),
            prints: prints(&mut new.before().iter().map(|p| &p.value).chain(values())),
        };
        match &new.pin {
            None => PinColumns { kind: 0, expires: None, prints: prints(&mut values()) },
            Some(PinWritten::Issued(issued)) => {
                PinColumns { kind: KIND_PIN, expires: issued.expires, prints: prints(&mut [&issued.stored].into_iter().chain(values())) }
            }
            Some(PinWritten::Extended { to, .. }) => ended(KIND_EXTENDED, *to),
            Some(PinWritten::Expired { to, .. }) => ended(KIND_EXPIRED, *to),
            Some(PinWritten::Deleted { .. }) => PinColumns { kind: KIND_DELETED, expires: None, prints: prints(&mut values()) },
        }
    }
}

fn write_abandoned(tx: &Transaction, batch: BatchId, (first, last): (i64, i64), now: Timestamp) -> Result<(), rusqlite::Error> {
    write_batch(tx, batch, State::Abandoned, now)?;
    tx.prepare_cached("UPDATE issuance SET open = NULL, secret = NULL, before = NULL, settled_at = ?3 WHERE id BETWEEN ?1 AND ?2")?
        .execute([first, last, now.0])?;
    freed::forget(tx, (first, last))
}

/// Returns how many ended as unannounced.
fn write_committed(
    tx: &Transaction,
    batch: BatchId,
    (first, last): (i64, i64),
    missing: &[i64],
    now: Timestamp,
) -> Result<usize, rusqlite::Error> {
    write_batch(tx, batch, State::Committed, now)?;
    let mut abandon =
        tx.prepare_cached("UPDATE issuance SET state = ?2, open = NULL, secret = NULL, before = NULL, settled_at = ?3 WHERE id = ?1")?;
    for id in missing {
        abandon.execute(params![id, State::Abandoned.as_str(), now.0])?;
        freed::forget(tx, (*id, *id))?;
    }
    // Who is served though on hold is told at another address than the one that ended in a take-back.
    tx.prepare_cached(
        "DELETE FROM hold AS h WHERE h.recipient IS NOT NULL AND EXISTS (SELECT 1 FROM issuance i WHERE i.id BETWEEN ?1 AND ?2 \
         AND i.database = h.database AND i.user = h.user AND i.message_id IS NOT NULL AND i.state IS NULL)",
    )?
    .execute([first, last])?;
    tx.prepare_cached(
        "UPDATE issuance SET state = ?3, open = NULL, secret = NULL, settled_at = ?4 \
         WHERE id BETWEEN ?1 AND ?2 AND state IS NULL AND message_id IS NULL",
    )?
    .execute(params![first, last, State::Unannounced.as_str(), now.0])
}

fn write_batch(tx: &Transaction, batch: BatchId, state: State, now: Timestamp) -> Result<(), rusqlite::Error> {
    tx.prepare_cached("UPDATE batch SET state = ?2, settled_at = ?3 WHERE id = ?1")?.execute(params![batch.0, state.as_str(), now.0])?;
    Ok(())
}

pub(super) fn immediate<'a>(db: &'a mut Connection, what: &'static str) -> Result<Transaction<'a>, JournalError> {
    db.transaction_with_behavior(TransactionBehavior::Immediate).writing(what)
}

pub(super) fn lane_number(lane: Lane) -> i64 {
    match lane {
        Lane::Poll => 0,
        Lane::Backlog => 1,
    }
}

pub(super) fn state_of(text: &str) -> Result<State, JournalError> {
    State::parse(text).ok_or(JournalError::NotUnderstood { what: "a state" })
}

fn batch_row(db: &Connection, batch: BatchId) -> Result<(BookId, State, i64, i64), JournalError> {
    const WHAT: &str = "a batch";
    let found = db
        .prepare_cached("SELECT state, first, last, database FROM batch WHERE id = ?1")
        .and_then(|mut s| s.query_row([batch.0], |r| Ok((r.get::<_, String>(0)?, r.get(1)?, r.get(2)?, r.get(3)?))).optional())
        .reading(WHAT)?;
    let (state, first, last, book) = found.ok_or(JournalError::NoSuchBatch { batch: batch.0 })?;
    Ok((BookId(book), state_of(&state)?, first, last))
}
