//! What the journal knows of users: facts for the plan, history for people, and how many issuances are in which state.

use rusqlite::{Connection, OptionalExtension};

use super::View;
use super::error::{Doing, JournalError};
use super::issue::{KIND_CREDENTIAL, KIND_PIN, state_of};
use super::state::State;
use crate::domain::{PolicyName, Timestamp};
use crate::inventory::{Facts, User};

/// What is known of one user: the facts, and which of the PINs are ours.
pub(super) struct Known {
    facts: Facts,
    ours: Vec<bool>,
}

/// How many issuances are in each state, all states named.
pub type StateCounts = [(State, u64); State::ALL.len()];

/// The user's newest issuances of each meaning; greater ids are newer.
#[derive(Default)]
struct Newest {
    keeper: Option<(i64, String)>,
    pin: Option<(i64, Option<Vec<u8>>, Option<i64>)>,
    facts: Facts,
}

impl View {
    pub(super) fn facts(&self, users: &[User]) -> Result<Vec<Known>, JournalError> {
        const WHAT: &str = "what is known of users";
        let ids = json_array(users.iter().map(|u| u.id.0));
        let mut newest: Vec<Newest> = users.iter().map(|_| Newest::default()).collect();
        {
            // CROSS JOIN keeps SQLite from starting at the other end.
            let mut rows = self
                .db
                .prepare_cached(
                    "SELECT j.key, i.id, i.policy, i.kinds, i.pin_print, i.pin_expires, coalesce(i.state, b.state), b.planned_at \
                     FROM json_each(?1) j CROSS JOIN issuance i ON i.user = j.value JOIN batch b ON b.id = i.batch",
                )
                .reading(WHAT)?;
            let mut rows = rows.query([&ids]).reading(WHAT)?;
            while let Some(row) = rows.next().reading(WHAT)? {
                let state = state_of(row.get_ref(6).and_then(|v| Ok(v.as_str()?)).reading(WHAT)?)?;
                let (id, kinds): (i64, i64) = (row.get(1).reading(WHAT)?, row.get(3).reading(WHAT)?);
                let Some(known) = newest.get_mut(index(row).reading(WHAT)?) else { continue };
                known.facts.open |= state.is_open();
                if kinds & KIND_CREDENTIAL != 0 && state.was_made() {
                    let made = Timestamp(row.get(7).reading(WHAT)?);
                    known.facts.last_generated = known.facts.last_generated.max(Some(made));
                }
                if !state.is_in_force() {
                    continue;
                }
                if known.keeper.as_ref().is_none_or(|(newer, _)| *newer < id) {
                    known.keeper = Some((id, row.get(2).reading(WHAT)?));
                }
                if kinds & KIND_PIN != 0 && known.pin.as_ref().is_none_or(|(newer, ..)| *newer < id) {
                    known.pin = Some((id, row.get(4).reading(WHAT)?, row.get(5).reading(WHAT)?));
                }
            }
        }
        let mut held = self.db.prepare_cached("SELECT j.key FROM json_each(?1) j CROSS JOIN hold h ON h.user = j.value").reading(WHAT)?;
        let mut held = held.query([&ids]).reading(WHAT)?;
        while let Some(row) = held.next().reading(WHAT)? {
            if let Some(known) = newest.get_mut(index(row).reading(WHAT)?) {
                known.facts.held = true;
            }
        }
        Ok(users.iter().zip(newest).map(|(user, newest)| self.known(user, newest)).collect())
    }

    fn known(&self, user: &User, newest: Newest) -> Known {
        let ours = user.pins.iter().map(|stored| match &newest.pin {
            Some((_, Some(print), expires)) => {
                stored.expires.map(|e| e.0) == *expires && self.seals.fingerprint(user.id, &stored.value)[..] == print[..]
            }
            _ => false,
        });
        Known { ours: ours.collect(), facts: Facts { keeper: newest.keeper.map(|(_, policy)| PolicyName(policy)), ..newest.facts } }
    }

    pub(super) fn replaced_since(&self, policy: &PolicyName, since: Timestamp) -> Result<u64, JournalError> {
        self.db
            .prepare_cached(
                "SELECT coalesce(sum(i.replaced), 0) FROM issuance i JOIN batch b ON b.id = i.batch \
                 WHERE i.policy = ?1 AND i.replaced > 0 AND i.id >= (SELECT min(first) FROM batch WHERE planned_at >= ?2) \
                 AND b.planned_at >= ?2 AND coalesce(i.state, b.state) <> ?3",
            )
            .and_then(|mut s| s.query_row((&policy.0, since.0, State::Abandoned.as_str()), |r| r.get::<_, i64>(0)))
            .map(|sum| sum.max(0) as u64)
            .reading("what was replaced")
    }

    pub(super) fn oldest_open(&self) -> Result<Option<Timestamp>, JournalError> {
        self.db
            .prepare_cached(
                "SELECT b.planned_at FROM issuance i JOIN batch b ON b.id = i.batch \
                 WHERE i.id = (SELECT min(id) FROM issuance INDEXED BY issuance_queue WHERE open = 1)",
            )
            .and_then(|mut s| s.query_row([], |r| r.get(0).map(Timestamp)).optional())
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
            for (pin, ours) in user.pins.iter_mut().zip(known.ours) {
                pin.ours = ours;
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
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Tally([u64; State::ALL.len()]);

impl Tally {
    pub(super) fn count(db: &Connection) -> Result<Tally, JournalError> {
        const WHAT: &str = "counts by state";
        let mut tally = Tally([0; State::ALL.len()]);
        let mut rows = db
            .prepare_cached("SELECT coalesce(i.state, b.state), count(*) FROM issuance i JOIN batch b ON b.id = i.batch GROUP BY 1")
            .reading(WHAT)?;
        let mut rows = rows.query([]).reading(WHAT)?;
        while let Some(row) = rows.next().reading(WHAT)? {
            let state = state_of(row.get_ref(0).and_then(|v| Ok(v.as_str()?)).reading(WHAT)?)?;
            tally.0[state as usize] = row.get::<_, i64>(1).reading(WHAT)?.max(0) as u64;
        }
        Ok(tally)
    }

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

    pub(super) fn counts(&self) -> StateCounts {
        State::ALL.map(|state| (state, self.0[state as usize]))
    }
}
