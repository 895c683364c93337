//! Issuances as they are told to people: by `explain` and `journal list`.

use std::collections::BTreeMap;

use rusqlite::{Params, Row};

use super::error::{Doing, JournalError};
use super::issue::{
    KIND_AGAIN, KIND_CODE, KIND_DELETED, KIND_EXPIRED, KIND_EXTENDED, KIND_MOVED, KIND_PASSWORD, KIND_PIN, KIND_REVOKED, KIND_ROLE_REMOVED,
    KIND_TAKES_BACK, state_of,
};
use super::state::State;
use super::{BookId, View};
use crate::domain::{IssuanceId, PassId, PolicyName, Timestamp, UserId, WallClock};

/// One issuance, told without its secrets.
#[derive(Clone, PartialEq, Debug)]
pub struct HistoryRow {
    pub issuance: IssuanceId,
    pub user: UserId,
    pub login: String,
    pub pass: PassId,
    pub policy: PolicyName,
    pub state: State,
    /// What was done, as the report says it.
    pub changes: Vec<&'static str>,
    pub pin_expires: Option<WallClock>,
    pub planned_at: Timestamp,
    /// When it was known whether it was committed.
    pub committed_at: Option<Timestamp>,
    /// When the mail was accepted, or whatever else ended it.
    pub ended_at: Option<Timestamp>,
    pub attempts: u32,
    /// When the mail is tried again; only while it waits.
    pub next_attempt: Option<Timestamp>,
    /// What the mail server said last.
    pub last_reply: Option<u16>,
    pub message_id: Option<String>,
}

impl View {
    /// The user's issuances, newest first.
    pub(super) fn user_history(&self, book: BookId, user: UserId, limit: usize) -> Result<Vec<HistoryRow>, JournalError> {
        self.history("WHERE i.database = ?1 AND i.user = ?2 ORDER BY i.id DESC LIMIT ?3", (book.0, user.0, limit as i64))
    }

    /// Issuances whose mail is not accepted yet, or never will be; oldest first.
    pub(super) fn unfinished(&self, book: BookId, limit: usize) -> Result<Vec<HistoryRow>, JournalError> {
        let condition = "WHERE +i.database = ?1 AND coalesce(i.state, b.state) IN (?2, ?3, ?4) ORDER BY i.id LIMIT ?5";
        let [planned, committed, undeliverable] = [State::Planned, State::Committed, State::Undeliverable].map(State::as_str);
        self.history(condition, (book.0, planned, committed, undeliverable, limit as i64))
    }

    pub(super) fn is_of(&self, book: BookId, issuance: IssuanceId) -> Result<bool, JournalError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM issuance WHERE id = ?1 AND database = ?2)";
        self.db.prepare_cached(sql).and_then(|mut s| s.query_row([issuance.0, book.0], |row| row.get(0))).reading("an issuance")
    }

    /// How many open issuances are to be told by each template.
    pub(super) fn templates(&self, book: BookId) -> Result<BTreeMap<String, u64>, JournalError> {
        const WHAT: &str = "the mails that wait";
        let sql =
            "SELECT id, user, secret FROM issuance WHERE open = 1 AND database = ?1 AND message_id IS NOT NULL AND secret IS NOT NULL";
        let mut statement = self.db.prepare_cached(sql).reading(WHAT)?;
        let mut rows = statement.query([book.0]).reading(WHAT)?;
        let mut templates = BTreeMap::new();
        while let Some(row) = rows.next().reading(WHAT)? {
            let (id, user) = (IssuanceId(row.get(0).reading(WHAT)?), UserId(row.get(1).reading(WHAT)?));
            let secret = row.get_ref(2).and_then(|value| Ok(value.as_blob()?)).reading(WHAT)?;
            if let Some(template) = self.seals.template(id, user, secret) {
                *templates.entry(template).or_default() += 1;
            }
        }
        Ok(templates)
    }

    fn history(&self, condition: &str, params: impl Params) -> Result<Vec<HistoryRow>, JournalError> {
        const WHAT: &str = "the history of issuances";
        let sql = format!(
            "SELECT i.id, b.pass, i.policy, coalesce(i.state, b.state), i.kinds, i.pin_expires, b.planned_at, b.settled_at, \
             i.settled_at, i.attempts, i.next_attempt, i.reply, i.message_id, i.user, i.login \
             FROM issuance i JOIN batch b ON b.id = i.batch {condition}"
        );
        let mut statement = self.db.prepare_cached(&sql).reading(WHAT)?;
        let mut rows = statement.query(params).reading(WHAT)?;
        let mut history = Vec::new();
        while let Some(row) = rows.next().reading(WHAT)? {
            let state = state_of(row.get_ref(3).and_then(|v| Ok(v.as_str()?)).reading(WHAT)?)?;
            history.push(told(row, state).reading(WHAT)?);
        }
        Ok(history)
    }
}

const CHANGES: [(i64, &str); 11] = [
    (KIND_PIN, "PIN issued"),
    (KIND_CODE, "card assignment code issued"),
    (KIND_PASSWORD, "password issued"),
    (KIND_EXTENDED, "PIN extended"),
    (KIND_EXPIRED, "PIN ended"),
    (KIND_DELETED, "PIN removed"),
    (KIND_MOVED, "moved"),
    (KIND_ROLE_REMOVED, "role removed"),
    (KIND_REVOKED, "revoked"),
    (KIND_TAKES_BACK, "taken back"),
    (KIND_AGAIN, "sent again"),
];

fn told(row: &Row<'_>, state: State) -> Result<HistoryRow, rusqlite::Error> {
    let kinds: i64 = row.get(4)?;
    let moment = |column: usize| row.get::<_, Option<i64>>(column).map(|at| at.map(Timestamp));
    Ok(HistoryRow {
        issuance: IssuanceId(row.get(0)?),
        user: UserId(row.get(13)?),
        login: row.get(14)?,
        pass: PassId(row.get(1)?),
        policy: PolicyName(row.get(2)?),
        state,
        changes: CHANGES
            .iter()
            .filter(|(kind, _)| kinds & kind != 0 && !(kinds & KIND_REVOKED != 0 && *kind == KIND_TAKES_BACK))
            .map(|(_, said)| *said)
            .collect(),
        pin_expires: row.get::<_, Option<i64>>(5)?.map(WallClock),
        planned_at: Timestamp(row.get(6)?),
        committed_at: moment(7)?.filter(|_| state != State::Abandoned),
        ended_at: moment(8)?,
        attempts: row.get(9)?,
        next_attempt: moment(10)?.filter(|_| state == State::Committed),
        last_reply: row.get(11)?,
        message_id: row.get(12)?,
    })
}
