//! Taking back: what of earlier issuances can be undone, and what becomes of them once it is.
//!
//! A take-back is an issuance of its own, staged like any other: planned before its COMMIT, looked up after a crash. Once it is
//! known to stand, and in the same step, the one that it takes back has ended and its user is on hold (R25).

use rusqlite::{OptionalExtension, Transaction, params};

use super::blob::{Before, Seals};
use super::book::Book;
use super::error::{Doing, JournalError};
use super::issue::{
    KIND_AGAIN, KIND_CODE, KIND_DELETED, KIND_EXPIRED, KIND_EXTENDED, KIND_PASSWORD, KIND_PIN, KIND_TAKES_BACK, immediate, state_of,
};
use super::state::{Event, State, next};
use super::{Because, BookId, Journal, JournalReader, View, Writer, freed};
use crate::domain::{IssuanceId, PassId, PolicyName, StoredValue, Timestamp, UserId, WallClock};
use crate::inventory::{Past, PastPins, PastValue, User};

/// What is to be taken back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UndoOf {
    /// Whatever could not be delivered.
    Undeliverable,
    Pass(PassId),
    One(IssuanceId),
}

impl UndoOf {
    pub fn because(&self) -> Because {
        match self {
            UndoOf::Undeliverable => Because::Undeliverable,
            UndoOf::Pass(pass) => Because::Undone(pass.clone()),
            UndoOf::One(_) => Because::Asked,
        }
    }
}

/// An issuance that can be taken back.
#[derive(Clone, Debug)]
pub struct Undo {
    pub issuance: IssuanceId,
    pub user: UserId,
    pub login: String,
    pub policy: PolicyName,
    pub state: State,
    /// Without [`Past::ours`], which [`JournalReader::matched`] fills in.
    pub past: Past,
    prints: Vec<u8>,
}

impl Undo {
    /// All that a user has, whoever wrote it; of no issuance.
    pub fn whole(user: UserId, login: &str, policy: PolicyName) -> Undo {
        let (login, past, prints) = (login.to_owned(), Past::default(), Vec::new());
        Undo { issuance: IssuanceId(0), user, login, policy, state: State::Unannounced, past, prints }
    }
}

impl JournalReader {
    /// Issuances in force that can be taken back, in the order of their ids, and how many more there are whose before-image is
    /// not there any more or cannot be read.
    pub async fn undoable(&self, of: UndoOf) -> Result<(Vec<Undo>, u64), JournalError> {
        self.look(move |view, book| view.undoable(book, &of)).await
    }

    /// Fills in which of the values that they wrote these users still have.
    pub async fn matched(&self, undos: Vec<(Undo, User)>) -> Result<Vec<(Undo, User)>, JournalError> {
        self.look(move |view, book| {
            let mut undos = undos.clone();
            undos.iter_mut().for_each(|(undo, user)| undo.matched(&view.seals, book, user));
            Ok(undos)
        })
        .await
    }
}

impl Journal {
    /// Of those whose mail still waits it is not sent any more: they count as undeliverable from now on. What the courier has in
    /// hand may still arrive.
    pub async fn withhold(&self, issuances: Vec<IssuanceId>, now: Timestamp) -> Result<(), JournalError> {
        self.file.write(move |w| w.withhold(&issuances, now)).await
    }

    /// Nothing of these stands any more: they have ended without us.
    pub async fn gone(&self, issuances: Vec<IssuanceId>, now: Timestamp) -> Result<(), JournalError> {
        self.file.write(move |w| w.end_all(&issuances, Event::Gone, now)).await
    }

    /// Ends the holds of all whom the undoing of `pass` put on hold.
    pub async fn release_all(&self, pass: &PassId) -> Result<u64, JournalError> {
        let pass = pass.clone();
        self.write_in(move |w, book| w.release_all(book.id, &pass)).await
    }
}

impl Undo {
    fn matched(&mut self, seals: &Seals, book: &Book, user: &User) {
        let (prints, id) = (&self.prints, self.user);
        let ours = |value: &StoredValue| prints.as_chunks::<16>().0.contains(&seals.fingerprint(book, id, value));
        self.past.ours = user.pins.iter().map(|pin| ours(&pin.value)).collect();
        if let Some(code) = &mut self.past.code {
            code.stands = user.code.as_ref().is_some_and(ours);
        }
        if let Some(password) = &mut self.past.password {
            password.stands = user.password.as_ref().is_some_and(|password| ours(&password.value));
        }
    }
}

impl View {
    fn undoable(&self, book: &Book, of: &UndoOf) -> Result<(Vec<Undo>, u64), JournalError> {
        const WHAT: &str = "what can be taken back";
        let (condition, asked) = match of {
            UndoOf::Undeliverable => ("i.database = ?1 AND i.state = 'undeliverable' AND ?2 IS NULL", rusqlite::types::Value::Null),
            UndoOf::Pass(pass) => ("+i.database = ?1 AND b.pass = ?2", pass.0.clone().into()),
            UndoOf::One(id) => ("+i.database = ?1 AND i.id = ?2", id.0.into()),
        };
        let order = if matches!(of, UndoOf::Pass(_)) {
            "batch b CROSS JOIN issuance i ON i.id BETWEEN b.first AND b.last"
        } else {
            "issuance i JOIN batch b ON b.id = i.batch"
        };
        let sql = format!(
            "SELECT i.id, i.user, i.login, i.policy, coalesce(i.state, b.state), i.kinds, i.pin_expires, i.pin_print, i.before \
             FROM {order} WHERE {condition} AND i.kinds & ?3 = 0 ORDER BY i.id"
        );
        let mut statement = self.db.prepare_cached(&sql).reading(WHAT)?;
        let mut rows = statement.query(params![book.id.0, asked, KIND_AGAIN | KIND_TAKES_BACK]).reading(WHAT)?;
        let (mut undos, mut lost) = (Vec::new(), 0);
        while let Some(row) = rows.next().reading(WHAT)? {
            let state = state_of(row.get_ref(4).and_then(|v| Ok(v.as_str()?)).reading(WHAT)?)?;
            if !state.is_in_force() {
                continue;
            }
            let (issuance, user) = (IssuanceId(row.get(0).reading(WHAT)?), UserId(row.get(1).reading(WHAT)?));
            let kinds: i64 = row.get(5).reading(WHAT)?;
            let before: Option<Vec<u8>> = row.get(8).reading(WHAT)?;
            // A first PIN alone took the place of nothing, and has no before-image.
            let before = match before {
                Some(blob) => self.seals.open_before(issuance, user, &blob).ok(),
                None => (kinds & !KIND_PIN == 0).then(Before::default),
            };
            let Some(before) = before else {
                lost += 1;
                continue;
            };
            undos.push(Undo {
                issuance,
                user,
                login: row.get(2).reading(WHAT)?,
                policy: PolicyName(row.get(3).reading(WHAT)?),
                state,
                past: past(kinds, row.get::<_, Option<i64>>(6).reading(WHAT)?.map(WallClock), before),
                prints: row.get::<_, Option<Vec<u8>>>(7).reading(WHAT)?.unwrap_or_default(),
            });
        }
        Ok((undos, lost))
    }
}

fn past(kinds: i64, to: Option<WallClock>, before: Before) -> Past {
    let Before { pins, moved, code, password, role, after: _ } = before;
    let value = |kind: i64, replaced: Option<Option<StoredValue>>| {
        (kinds & kind != 0).then(|| PastValue { replaced: replaced.flatten(), stands: false })
    };
    Past {
        pins: if kinds & KIND_PIN != 0 {
            PastPins::Issued { replaced: pins }
        } else if kinds & (KIND_EXTENDED | KIND_EXPIRED) != 0 {
            PastPins::Ended { pins, to }
        } else if kinds & KIND_DELETED != 0 {
            PastPins::Deleted { pins }
        } else {
            PastPins::Untouched
        },
        code: value(KIND_CODE, code),
        password: value(KIND_PASSWORD, password),
        moved,
        role,
        ours: Vec::new(),
    }
}

impl Writer {
    fn withhold(&mut self, issuances: &[IssuanceId], now: Timestamp) -> Result<(), JournalError> {
        self.end_all(issuances, Event::Withheld, now)
    }

    /// Those that `event` says nothing to stay as they are.
    fn end_all(&mut self, issuances: &[IssuanceId], event: Event, now: Timestamp) -> Result<(), JournalError> {
        const WHAT: &str = "the end of issuances";
        let tx = immediate(&mut self.view.db, WHAT)?;
        let mut moves = Vec::new();
        for id in issuances {
            let Some((book, state)) = row(&tx, *id)? else { continue };
            let Ok(after) = next(state, event) else { continue };
            end(&tx, *id, after, now)?;
            moves.push((book, state, after));
        }
        tx.commit().writing(WHAT)?;
        moves.into_iter().for_each(|(book, from, to)| self.tallies.of(book).moved(from, to, 1));
        Ok(())
    }
}

/// Of those of a batch that stand: what each takes back has ended, and its user is on hold. The states until then.
pub(super) fn took_back(
    tx: &Transaction<'_>,
    seals: &Seals,
    book: BookId,
    (first, last): (i64, i64),
    now: Timestamp,
) -> Result<Vec<State>, JournalError> {
    const WHAT: &str = "what was taken back";
    // A PIN that we took is no loss that a tripwire should see.
    tx.prepare_cached(
        "UPDATE database SET baseline = json_set(baseline, '$[1]', json_extract(baseline, '$[1]') + (SELECT count(*) FROM issuance \
           WHERE id BETWEEN ?2 AND ?3 AND leaves_pinless = 1 AND coalesce(state, '') <> ?4)) \
         WHERE id = ?1 AND json_extract(baseline, '$[1]') IS NOT NULL \
           AND EXISTS (SELECT 1 FROM issuance WHERE id BETWEEN ?2 AND ?3 AND leaves_pinless = 1)",
    )
    .and_then(|mut s| s.execute(params![book.0, first, last, State::Abandoned.as_str()]))
    .writing(WHAT)?;
    let mut rows = tx
        .prepare_cached(
            "SELECT takes_back, user, login, because FROM issuance \
             WHERE id BETWEEN ?1 AND ?2 AND takes_back IS NOT NULL AND coalesce(state, '') <> ?3",
        )
        .reading(WHAT)?;
    let rows = rows.query_map(params![first, last, State::Abandoned.as_str()], |r| {
        Ok((IssuanceId(r.get(0)?), UserId(r.get(1)?), r.get::<_, String>(2)?, r.get::<_, String>(3)?))
    });
    let rows: Vec<_> = rows.reading(WHAT)?.collect::<Result<_, _>>().reading(WHAT)?;
    let mut states = Vec::with_capacity(rows.len());
    for (of, user, login, because) in rows {
        let because = parsed(&because);
        if let Some((_, state)) = row(tx, of)?
            && let Ok(after) = next(state, Event::TakenBack)
        {
            let failed = if because == Because::Undeliverable { recipient(tx, seals, of, user)? } else { None };
            end(tx, of, after, now)?;
            freed::forget(tx, (of.0, of.0)).writing(WHAT)?;
            let pass = if let Because::Undone(pass) = &because { Some(&pass.0) } else { None };
            tx.prepare_cached(
                "INSERT INTO hold (database, user, login, since, reason, recipient, pass) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
                 ON CONFLICT DO NOTHING",
            )
            .and_then(|mut s| s.execute(params![book.0, user.0, login, now.0, because.to_string(), failed, pass]))
            .writing(WHAT)?;
            states.push(state);
        }
    }
    Ok(states)
}

/// To whom its mail could not be delivered, sealed for the hold.
fn recipient(tx: &Transaction<'_>, seals: &Seals, of: IssuanceId, user: UserId) -> Result<Option<Vec<u8>>, JournalError> {
    let row: Option<(Option<Vec<u8>>, Option<String>)> = tx
        .prepare_cached("SELECT secret, message_id FROM issuance WHERE id = ?1")
        .and_then(|mut s| s.query_row([of.0], |r| Ok((r.get(0)?, r.get(1)?))).optional())
        .reading("a recipient")?;
    let Some((Some(blob), message_id)) = row else { return Ok(None) };
    // What cannot be read keeps the user on hold until somebody ends that.
    let secret = seals.open_secret(of, user, message_id, &blob).ok();
    secret.and_then(|secret| secret.announcement).map(|mail| seals.recipient(user, &mail.recipient)).transpose()
}

fn row(tx: &Transaction<'_>, id: IssuanceId) -> Result<Option<(BookId, State)>, JournalError> {
    let found = tx
        .prepare_cached("SELECT i.database, coalesce(i.state, b.state) FROM issuance i JOIN batch b ON b.id = i.batch WHERE i.id = ?1")
        .and_then(|mut s| s.query_row([id.0], |r| Ok((BookId(r.get(0)?), r.get::<_, String>(1)?))).optional())
        .reading("an issuance")?;
    found.map(|(book, state)| Ok((book, state_of(&state)?))).transpose()
}

fn end(tx: &Transaction<'_>, id: IssuanceId, after: State, now: Timestamp) -> Result<(), JournalError> {
    tx.prepare_cached(
        "UPDATE issuance SET state = ?2, open = NULL, settled_at = ?3, secret = CASE WHEN ?4 THEN secret END, \
         before = CASE WHEN ?5 THEN before END WHERE id = ?1",
    )
    .and_then(|mut s| s.execute(params![id.0, after.as_str(), now.0, after.keeps_secret(), after.is_in_force()]))
    .map(drop)
    .writing("the end of an issuance")
}

const UNDELIVERABLE: &str = "undeliverable";
const ASKED: &str = "asked";
const REVOKED: &str = "revoked";

/// As in the file.
pub(super) fn word(because: &Because) -> String {
    match because {
        Because::Undeliverable => UNDELIVERABLE.to_owned(),
        Because::Asked => ASKED.to_owned(),
        Because::Revoked => REVOKED.to_owned(),
        Because::Undone(pass) => format!("pass {pass}"),
    }
}

fn parsed(word: &str) -> Because {
    match word.strip_prefix("pass ") {
        Some(pass) => Because::Undone(PassId(pass.to_owned())),
        None if word == UNDELIVERABLE => Because::Undeliverable,
        None if word == REVOKED => Because::Revoked,
        None => Because::Asked,
    }
}
