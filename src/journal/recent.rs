//! What the ledger says stands in the database, held against what does: a restored database is known by what it lacks. And
//! taking the database as it is: what it lacks is in force no more.

use rusqlite::{OptionalExtension, params};

use super::book::Book;
use super::error::{Doing, JournalError};
use super::issue::{KIND_CODE, KIND_CREDENTIAL, KIND_DELETED, KIND_END, KIND_PASSWORD, KIND_PIN, KIND_TAKES_BACK, immediate, state_of};
use super::outbox::Row;
use super::state::{Event, State, next};
use super::{BookId, Journal, JournalReader, View, Writer};
use crate::domain::{IssuanceId, StoredValue, Timestamp, UserId, WallClock};
use crate::inventory::{Trace, User};

/// An issuance in force, as it is told to people and compared with the database.
#[derive(Clone, Debug)]
pub struct Recent {
    pub issuance: IssuanceId,
    pub user: UserId,
    pub login: String,
    pub state: State,
    pub planned_at: Timestamp,
    /// When the mail was accepted, or whatever else ended it.
    pub ended_at: Option<Timestamp>,
    kinds: i64,
    /// 16 bytes for each stored value.
    prints: Vec<u8>,
    expires: Option<WallClock>,
    before: Option<Vec<u8>>,
}

impl Recent {
    /// A credential was made; else a PIN that was there got another end.
    pub fn is_new_credential(&self) -> bool {
        self.kinds & KIND_CREDENTIAL != 0
    }
}

impl JournalReader {
    /// Of each user the newest issuance that says which credentials stand, of those planned since then; newest first.
    pub async fn newest_credentials(&self, since: Timestamp, limit: usize) -> Result<Vec<Recent>, JournalError> {
        self.look(move |view, book| view.newest_credentials(book.id, since, limit)).await
    }

    /// All issuances in force, from `oldest` on and before `below`, that say which credentials stand; newest first.
    pub async fn in_force(&self, oldest: IssuanceId, below: Option<IssuanceId>, limit: usize) -> Result<Vec<Recent>, JournalError> {
        self.look(move |view, book| view.in_force(book.id, oldest, below, limit)).await
    }

    /// What `users`, as the database has them at `wall`, show of each of these. `kinds_read`: whether codes and passwords were
    /// read with them.
    pub async fn traces(
        &self,
        recent: Vec<Recent>,
        users: Vec<User>,
        wall: WallClock,
        kinds_read: (bool, bool),
    ) -> Result<Vec<(Recent, Trace)>, JournalError> {
        self.look(move |view, book| {
            let of = |recent: &Recent| users.iter().find(|user| user.id == recent.user);
            Ok(recent.iter().map(|recent| (recent.clone(), view.trace(book, recent, of(recent), wall, kinds_read))).collect())
        })
        .await
    }
}

impl Journal {
    /// Takes the database as it is: `gone` is in force no more, and the figures of the last full pass, which were those of
    /// another state, are forgotten. What was told to users is counted for [`take_lost`](Journal::take_lost).
    /// `identity` is what the database is known as from now on.
    pub async fn adopt(&self, identity: String, gone: Vec<IssuanceId>, now: Timestamp) -> Result<(), JournalError> {
        self.write_in(move |w, book| w.adopt(book.id, &identity, &gone, now)).await
    }

    /// How many credentials that users were told of were lost with the database, since this was asked last.
    pub async fn take_lost(&self) -> Result<u64, JournalError> {
        self.write_in(|w, book| w.take_lost(book.id)).await
    }
}

const WHAT: &str = "what is in force";
const COLUMNS: &str = "SELECT i.id, i.user, i.login, coalesce(i.state, b.state), b.planned_at, i.settled_at, i.kinds, i.pin_print, \
                       i.pin_expires, i.before FROM issuance i JOIN batch b ON b.id = i.batch";

impl View {
    fn newest_credentials(&self, book: BookId, since: Timestamp, limit: usize) -> Result<Vec<Recent>, JournalError> {
        // From the end of the table backwards: with the index of users, a large ledger would be read as a whole.
        let condition = "WHERE +i.database = ?1 AND i.kinds & ?3 <> 0 AND coalesce(i.state, b.state) IN (SELECT value FROM json_each(?2)) \
             AND i.id >= (SELECT min(first) FROM batch WHERE planned_at >= ?5) AND b.planned_at >= ?5 \
             AND NOT EXISTS (SELECT 1 FROM issuance n JOIN batch m ON m.id = n.batch WHERE n.database = ?1 AND n.user = i.user AND n.id > i.id \
               AND n.kinds & ?4 <> 0 AND coalesce(n.state, m.state) IN (SELECT value FROM json_each(?2))) \
             ORDER BY i.id DESC LIMIT ?6";
        let any = KIND_CREDENTIAL | KIND_END | KIND_DELETED | KIND_TAKES_BACK;
        self.recent(condition, params![book.0, in_force(), KIND_CREDENTIAL, any, since.0, limit as i64])
    }

    fn in_force(&self, book: BookId, oldest: IssuanceId, below: Option<IssuanceId>, limit: usize) -> Result<Vec<Recent>, JournalError> {
        let condition = "WHERE +i.database = ?1 AND i.kinds & ?3 <> 0 AND coalesce(i.state, b.state) IN (SELECT value FROM json_each(?2)) \
             AND i.id >= ?4 AND i.id < ?5 ORDER BY i.id DESC LIMIT ?6";
        let below = below.map_or(i64::MAX, |id| id.0);
        self.recent(condition, params![book.0, in_force(), KIND_CREDENTIAL | KIND_END, oldest.0, below, limit as i64])
    }

    fn recent(&self, condition: &str, params: impl rusqlite::Params) -> Result<Vec<Recent>, JournalError> {
        let mut statement = self.db.prepare_cached(&format!("{COLUMNS} {condition}")).reading(WHAT)?;
        let mut rows = statement.query(params).reading(WHAT)?;
        let mut recent = Vec::new();
        while let Some(row) = rows.next().reading(WHAT)? {
            recent.push(Recent {
                issuance: IssuanceId(row.get(0).reading(WHAT)?),
                user: UserId(row.get(1).reading(WHAT)?),
                login: row.get(2).reading(WHAT)?,
                state: state_of(row.get_ref(3).and_then(|v| Ok(v.as_str()?)).reading(WHAT)?)?,
                planned_at: Timestamp(row.get(4).reading(WHAT)?),
                ended_at: row.get::<_, Option<i64>>(5).reading(WHAT)?.map(Timestamp),
                kinds: row.get(6).reading(WHAT)?,
                prints: row.get::<_, Option<Vec<u8>>>(7).reading(WHAT)?.unwrap_or_default(),
                expires: row.get::<_, Option<i64>>(8).reading(WHAT)?.map(WallClock),
                before: row.get(9).reading(WHAT)?,
            });
        }
        Ok(recent)
    }

    fn trace(&self, book: &Book, recent: &Recent, user: Option<&User>, wall: WallClock, (codes, passwords): (bool, bool)) -> Trace {
        let Some(user) = user else { return Trace::NoUser };
        let is_its = |value: &StoredValue| {
            let print = self.seals.fingerprint(book, user.id, value);
            recent.prints.as_chunks::<16>().0.contains(&print)
        };
        let another_end = recent.kinds & KIND_END != 0;
        let holds = user.pins.iter().any(|pin| is_its(&pin.value) && (!another_end || pin.expires == recent.expires))
            || user.code.as_ref().is_some_and(is_its)
            || user.password.as_ref().is_some_and(|password| is_its(&password.value));
        if holds {
            return Trace::Stands;
        }
        let pin = recent.kinds & (KIND_PIN | KIND_END) != 0;
        let told = pin || (codes && recent.kinds & KIND_CODE != 0) || (passwords && recent.kinds & KIND_PASSWORD != 0);
        let lapsed = pin && recent.expires.is_some_and(|end| end <= wall);
        if !told || lapsed {
            Trace::Untold
        } else if self.rest_stands(recent, user) {
            Trace::Stands
        } else {
            Trace::Gone
        }
    }

    /// One transaction made all of the change. Where the user is still where it was moved to, or the PINs that were replaced
    /// have not come back, the database is no older than that: somebody has removed what was issued.
    fn rest_stands(&self, recent: &Recent, user: &User) -> bool {
        let opened = recent.before.as_ref().and_then(|blob| self.seals.open_before(recent.issuance, recent.user, blob).ok());
        let Some(before) = opened else { return false };
        let moved = before.moved.is_some_and(|(_, to)| (user.cost_center.id, user.cost_center.number) == (to.id, to.number));
        let replaced = recent.kinds & KIND_PIN != 0 && !before.pins.is_empty();
        moved || (replaced && !user.pins.iter().any(|pin| before.pins.iter().any(|before| before.value == pin.value)))
    }
}

impl Writer {
    fn adopt(&mut self, book: BookId, identity: &str, gone: &[IssuanceId], now: Timestamp) -> Result<(), JournalError> {
        const WHAT: &str = "what the database has lost";
        let tx = immediate(&mut self.view.db, WHAT)?;
        let (mut lost, mut moves) = (0_i64, Vec::with_capacity(gone.len()));
        for id in gone {
            let Some(row) = Row::load(&tx, id.0)?.filter(|row| row.state.is_in_force()) else { continue };
            let after = next(row.state, Event::Gone)?;
            row.end(&tx, id.0, after, row.attempts, None, now)?;
            lost += i64::from(row.state == State::Delivered);
            moves.push((row.state, after));
        }
        tx.prepare_cached("UPDATE database SET identity = ?2, baseline = NULL WHERE id = ?1")
            .and_then(|mut s| s.execute(params![book.0, identity]))
            .writing(WHAT)?;
        tx.prepare_cached("INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value")
            .and_then(|mut s| s.execute(params![lost_of(book), lost]))
            .writing(WHAT)?;
        tx.commit().writing(WHAT)?;
        let tally = self.tallies.of(book);
        moves.into_iter().for_each(|(from, to)| tally.moved(from, to, 1));
        Ok(())
    }

    fn take_lost(&mut self, book: BookId) -> Result<u64, JournalError> {
        const WHAT: &str = "what the database has lost";
        let name = lost_of(book);
        let lost: Option<i64> =
            self.view.db.query_row("SELECT value FROM meta WHERE name = ?1", [&name], |row| row.get(0)).optional().reading(WHAT)?;
        let Some(lost) = lost else { return Ok(0) };
        self.view.db.execute("DELETE FROM meta WHERE name = ?1", [&name]).writing(WHAT)?;
        Ok(lost.max(0).unsigned_abs())
    }
}

/// Under which name `meta` counts them.
fn lost_of(book: BookId) -> String {
    format!("lost {}", book.0)
}

fn in_force() -> String {
    let in_force: Vec<&str> = State::ALL.into_iter().filter(|s| s.is_in_force()).map(State::as_str).collect();
    serde_json::Value::from(in_force).to_string()
}
