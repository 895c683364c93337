//! What the journal knows of users: facts for the plan, and how many issuances are in which state.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::book::Book;
use super::error::{Doing, JournalError};
use super::issue::{
    KIND_CODE_REPLACED, KIND_CREDENTIAL, KIND_END, KIND_PASSWORD, KIND_PASSWORD_REPLACED, KIND_PIN, KIND_TAKES_BACK, kind_of, state_of,
};
use super::state::State;
use super::{BookId, View};
use crate::domain::{Credential, Each, PolicyName, Timestamp, UserId};
use crate::inventory::{Facts, User};

/// What is known of one user: the facts, and for each of the PINs when we issued it and whether we wrote its end.
pub(super) struct Known {
    facts: Facts,
    pins: Vec<(Option<Timestamp>, bool)>,
    /// When we issued the password that is there.
    password: Option<Timestamp>,
}

/// How many issuances are in each state, all states named.
pub type StateCounts = [(State, u64); State::ALL.len()];

/// The user's newest issuances of each meaning; greater ids are newer.
#[derive(Default)]
struct Newest {
    keeper: Option<(i64, String)>,
    /// Those that say something of PINs or of a password that stand.
    rows: Vec<PrintRow>,
    facts: Facts,
}

/// An issuance that says which credentials stand.
struct PrintRow {
    id: i64,
    kinds: i64,
    /// 16 bytes for each stored value.
    prints: Vec<u8>,
    expires: Option<i64>,
    made: Timestamp,
}

impl PrintRow {
    fn tells_of(&self, print: &[u8; 16]) -> bool {
        self.prints.as_chunks::<16>().0.contains(print)
    }
}

impl View {
    pub(super) fn facts(&self, book: &Book, users: &[User]) -> Result<Vec<Known>, JournalError> {
        const WHAT: &str = "what is known of users";
        let ids = json_array(users.iter().map(|u| u.id.0));
        let mut newest: Vec<Newest> = users.iter().map(|_| Newest::default()).collect();
        {
            // CROSS JOIN keeps SQLite from starting at the other end.
            let mut rows = self
                .db
                .prepare_cached(
                    "SELECT j.key, i.id, i.policy, i.kinds, i.pin_print, i.pin_expires, coalesce(i.state, b.state), b.planned_at \
                     FROM json_each(?1) j CROSS JOIN issuance i ON i.database = ?2 AND i.user = j.value JOIN batch b ON b.id = i.batch",
                )
                .reading(WHAT)?;
            let mut rows = rows.query(params![ids, book.id.0]).reading(WHAT)?;
            while let Some(row) = rows.next().reading(WHAT)? {
                let state = state_of(row.get_ref(6).and_then(|v| Ok(v.as_str()?)).reading(WHAT)?)?;
                let (id, kinds): (i64, i64) = (row.get(1).reading(WHAT)?, row.get(3).reading(WHAT)?);
                let Some(known) = newest.get_mut(index(row).reading(WHAT)?) else { continue };
                known.facts.open |= state.is_open();
                let made = Timestamp(row.get(7).reading(WHAT)?);
                if kinds & KIND_CREDENTIAL != 0 && state.was_made() {
                    known.facts.last_generated = known.facts.last_generated.max(Some(made));
                }
                if !state.is_in_force() {
                    continue;
                }
                if kinds & KIND_TAKES_BACK != 0 {
                    continue;
                }
                if known.keeper.as_ref().is_none_or(|(newer, _)| *newer < id) {
                    known.keeper = Some((id, row.get(2).reading(WHAT)?));
                }
                if kinds & (KIND_PIN | KIND_END | KIND_PASSWORD) != 0 {
                    let prints: Option<Vec<u8>> = row.get(4).reading(WHAT)?;
                    let expires = row.get(5).reading(WHAT)?;
                    known.rows.push(PrintRow { id, kinds, prints: prints.unwrap_or_default(), expires, made });
                }
            }
        }
        let mut held = self
            .db
            .prepare_cached(
                "SELECT j.key, h.user, h.recipient FROM json_each(?1) j CROSS JOIN hold h ON h.database = ?2 AND h.user = j.value",
            )
            .reading(WHAT)?;
        let mut held = held.query(params![ids, book.id.0]).reading(WHAT)?;
        while let Some(row) = held.next().reading(WHAT)? {
            if let Some(known) = newest.get_mut(index(row).reading(WHAT)?) {
                known.facts.held = true;
                let recipient: Option<Vec<u8>> = row.get(2).reading(WHAT)?;
                let user = UserId(row.get(1).reading(WHAT)?);
                known.facts.held_for = recipient.and_then(|blob| self.seals.open_recipient(user, &blob));
            }
        }
        Ok(users.iter().zip(newest).map(|(user, newest)| self.known(book, user, newest)).collect())
    }

    /// What was issued last took the place of everything before; since then, the newest word on a PIN counts.
    fn known(&self, book: &Book, user: &User, newest: Newest) -> Known {
        let mut rows = newest.rows;
        rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.id));
        let password = user.password.as_ref().filter(|_| rows.iter().any(|row| row.kinds & KIND_PASSWORD != 0)).and_then(|stored| {
            let print = self.seals.fingerprint(book, user.id, &stored.value);
            rows.iter().find(|row| row.kinds & KIND_PASSWORD != 0 && row.tells_of(&print)).map(|row| row.made)
        });
        rows.retain(|row| row.kinds & (KIND_PIN | KIND_END) != 0);
        let issued = |row: &PrintRow| row.kinds & KIND_PIN != 0;
        if let Some(last) = rows.iter().position(issued) {
            rows.truncate(last + 1);
        }
        let pins = user.pins.iter().map(|stored| {
            if rows.is_empty() {
                return (None, false);
            }
            let print = self.seals.fingerprint(book, user.id, &stored.value);
            let told = || rows.iter().filter(|row| row.tells_of(&print));
            let made = told().find(|row| issued(row)).map(|row| row.made);
            (made, told().next().is_some_and(|row| row.expires == stored.expires.map(|e| e.0)))
        });
        let facts = Facts { keeper: newest.keeper.map(|(_, policy)| PolicyName(policy)), ..newest.facts };
        Known { pins: pins.collect(), password, facts }
    }

    pub(super) fn replaced_since(&self, book: BookId, policy: &PolicyName, since: Timestamp) -> Result<Each<u64>, JournalError> {
        const WHAT: &str = "what was replaced";
        let mut statement = self
            .db
            .prepare_cached(
                "SELECT coalesce(sum(i.replaced), 0), count(*) FILTER (WHERE i.kinds & ?4 <> 0), count(*) FILTER (WHERE i.kinds & ?5 <> 0) \
                 FROM issuance i JOIN batch b ON b.id = i.batch \
                 WHERE +i.database = ?6 AND i.policy = ?1 AND (i.replaced > 0 OR i.kinds & (?4 | ?5) <> 0) \
                 AND i.id >= (SELECT min(first) FROM batch WHERE planned_at >= ?2) \
                 AND b.planned_at >= ?2 AND coalesce(i.state, b.state) <> ?3",
            )
            .reading(WHAT)?;
        let asked = params![policy.0, since.0, State::Abandoned.as_str(), KIND_CODE_REPLACED, KIND_PASSWORD_REPLACED, book.0];
        let sums: [i64; 3] = statement.query_row(asked, |r| Ok([r.get(0)?, r.get(1)?, r.get(2)?])).reading(WHAT)?;
        let mut replaced = Each::default();
        for (kind, sum) in Credential::ALL.into_iter().zip(sums) {
            replaced[kind] = sum.max(0).unsigned_abs();
        }
        Ok(replaced)
    }

    /// Of users above `above`, if it is given: a poll looks into the index of users; a full pass at the issuances that are old
    /// enough, which are the first ones, and the others not at all. With the wrong one of the two a ledger of a million rows takes
    /// ten seconds (measured), in which nobody else can write.
    pub(super) fn issued_until(
        &self,
        book: BookId,
        kind: Credential,
        until: Timestamp,
        above: Option<UserId>,
    ) -> Result<Vec<UserId>, JournalError> {
        const WHAT: &str = "the age of credentials";
        let in_force: Vec<&str> = State::ALL.into_iter().filter(|s| s.is_in_force()).map(State::as_str).collect();
        let in_force = serde_json::Value::from(in_force).to_string();
        let place = match above {
            Some(_) => "i.database = ?4 AND i.user > ?5",
            None => {
                "+i.database = ?4 AND i.user > ?5 \
                 AND i.id <= (SELECT last FROM batch WHERE planned_at <= ?2 ORDER BY planned_at DESC, id DESC LIMIT 1)"
            }
        };
        let mut rows = self
            .db
            .prepare_cached(&format!(
                "WITH old AS MATERIALIZED (SELECT i.id, i.user FROM issuance i JOIN batch b ON b.id = i.batch \
                   WHERE {place} AND i.kinds & ?1 <> 0 AND b.planned_at <= ?2 \
                     AND coalesce(i.state, b.state) IN (SELECT value FROM json_each(?3))) \
                 SELECT DISTINCT o.user FROM old o WHERE NOT EXISTS (SELECT 1 FROM issuance n JOIN batch m ON m.id = n.batch \
                     WHERE n.database = ?4 AND n.user = o.user AND n.id > o.id AND n.kinds & ?1 <> 0 \
                     AND coalesce(n.state, m.state) IN (SELECT value FROM json_each(?3))) \
                 ORDER BY o.user",
            ))
            .reading(WHAT)?;
        let above = above.map_or(i64::MIN, |user| user.0);
        let found = rows.query_map(params![kind_of(kind), until.0, in_force, book.0, above], |row| row.get(0).map(UserId));
        found.and_then(Iterator::collect).reading(WHAT)
    }

    pub(super) fn oldest_open(&self, book: BookId) -> Result<Option<Timestamp>, JournalError> {
        self.db
            .prepare_cached(
                "SELECT b.planned_at FROM issuance i JOIN batch b ON b.id = i.batch \
                 WHERE i.id = (SELECT min(id) FROM issuance INDEXED BY issuance_queue WHERE database = ?1 AND open = 1)",
            )
            .and_then(|mut s| s.query_row([book.0], |r| r.get(0).map(Timestamp)).optional())
            .reading("the oldest open issuance")
    }
}

/// Which user a row of `json_each` is about.
fn index(row: &rusqlite::Row) -> Result<usize, rusqlite::Error> {
    row.get::<_, i64>(0).map(|at| at as usize)
}

/// Puts together what was asked and what is known.
pub(super) fn joined(users: Vec<User>, known: Vec<Known>) -> Vec<(User, Facts)> {
    users
        .into_iter()
        .zip(known)
        .map(|(mut user, known)| {
            for (pin, (issued, foreseen)) in user.pins.iter_mut().zip(known.pins) {
                (pin.issued, pin.foreseen) = (issued, foreseen);
            }
            if let Some(password) = &mut user.password {
                password.issued = known.password;
            }
            (user, known.facts)
        })
        .collect()
}

/// As an argument for `json_each`: a set of any size in one prepared statement.
pub(super) fn json_array(numbers: impl Iterator<Item = i64>) -> String {
    use std::fmt::Write;
    let mut text = String::from("[");
    for (index, number) in numbers.enumerate() {
        let _ = write!(text, "{}{number}", if index == 0 { "" } else { "," });
    }
    text.push(']');
    text
}

/// The counts by state, kept up with each step and counted once at start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Tally([u64; State::ALL.len()]);

/// Of each database.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Tallies(BTreeMap<BookId, Tally>);

impl Tallies {
    pub(super) fn count(db: &Connection) -> Result<Tallies, JournalError> {
        const WHAT: &str = "counts by state";
        let mut tallies = Tallies::default();
        let mut rows = db
            .prepare_cached(
                "SELECT coalesce(i.state, b.state), count(*), i.database FROM issuance i JOIN batch b ON b.id = i.batch GROUP BY 1, 3",
            )
            .reading(WHAT)?;
        let mut rows = rows.query([]).reading(WHAT)?;
        while let Some(row) = rows.next().reading(WHAT)? {
            let state = state_of(row.get_ref(0).and_then(|v| Ok(v.as_str()?)).reading(WHAT)?)?;
            let book = BookId(row.get(2).reading(WHAT)?);
            tallies.of(book).0[state as usize] = row.get::<_, i64>(1).reading(WHAT)?.max(0) as u64;
        }
        Ok(tallies)
    }

    pub(super) fn of(&mut self, book: BookId) -> &mut Tally {
        self.0.entry(book).or_default()
    }

    pub(super) fn counts(&self, book: BookId) -> StateCounts {
        self.0.get(&book).cloned().unwrap_or_default().counts()
    }
}

impl Tally {
    pub(super) fn arrived(&mut self, state: State, count: u64) {
        self.0[state as usize] += count;
    }

    pub(super) fn left(&mut self, state: State, count: u64) {
        self.0[state as usize] = self.0[state as usize].saturating_sub(count);
    }

    pub(super) fn moved(&mut self, from: State, to: State, count: u64) {
        self.left(from, count);
        self.arrived(to, count);
    }

    fn counts(&self) -> StateCounts {
        State::ALL.map(|state| (state, self.0[state as usize]))
    }
}
