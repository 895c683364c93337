//! What an onlooker knows of issuances: the rows of the journal's file, and what each of them left in the database.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use credkeeper::journal::State;
use rusqlite::{Connection, OpenFlags};

use crate::database::Snapshot;

/// Bits of `issuance.kinds`, as the journal's file has them.
pub const PIN: i64 = 1;
pub const CODE: i64 = 2;
pub const PASSWORD: i64 = 4;
pub const MOVED: i64 = 8;
pub const ENDS: i64 = 16 | 32;
pub const DELETED: i64 = 64;
/// An earlier one is taken back: all of its kinds may change.
pub const BACK: i64 = 256;

/// An issuance as the file has it.
#[derive(Clone, Debug)]
pub struct Row {
    pub id: i64,
    pub user: i64,
    pub kinds: i64,
    pub message_id: Option<String>,
    pub state: State,
    pub open: bool,
    pub has_secret: bool,
}

/// What an issuance left in the database, at the moment of its COMMIT.
#[derive(Clone, Debug)]
pub struct Made {
    pub at: Duration,
    pub user: i64,
    pub message_id: Option<String>,
    pub pin: Option<String>,
    pub code: Option<String>,
    pub password: Option<String>,
}

pub struct Ledger {
    path: PathBuf,
    connection: Option<Connection>,
    /// The last batch that was planned, as long as its COMMIT was not seen.
    pub pending: Vec<Row>,
    /// By issuance.
    pub made: BTreeMap<i64, Made>,
}

impl Ledger {
    pub fn new(path: PathBuf) -> Ledger {
        Ledger { path, connection: None, pending: Vec::new(), made: BTreeMap::new() }
    }

    fn connection(&mut self) -> Option<&Connection> {
        if self.connection.is_none() && self.path.exists() {
            self.connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE).ok();
        }
        self.connection.as_ref()
    }

    /// All issuances; none as long as there is no journal.
    pub fn rows(&mut self) -> Vec<Row> {
        self.read("").unwrap_or_default()
    }

    fn read(&mut self, which: &str) -> Option<Vec<Row>> {
        let sql = format!(
            "SELECT i.id, i.user, i.kinds, i.message_id, coalesce(i.state, b.state), i.open IS NOT NULL, i.secret IS NOT NULL
             FROM issuance i JOIN batch b ON b.id = i.batch {which} ORDER BY i.id"
        );
        let mut statement = self.connection()?.prepare_cached(&sql).ok()?;
        let row = |row: &rusqlite::Row<'_>| {
            let state: String = row.get(4)?;
            Ok(Row {
                id: row.get(0)?,
                user: row.get(1)?,
                kinds: row.get(2)?,
                message_id: row.get(3)?,
                state: State::ALL.into_iter().find(|known| known.as_str() == state).expect("a state"),
                open: row.get(5)?,
                has_secret: row.get(6)?,
            })
        };
        Some(statement.query_map([], row).unwrap().map(Result::unwrap).collect())
    }

    /// The journal has a batch on disk that is about to be committed.
    pub fn planned(&mut self) {
        self.pending = self.read("WHERE b.id = (SELECT max(id) FROM batch)").expect("a journal");
    }

    pub fn pending_said(&self) -> String {
        self.pending.iter().map(|row| format!("#{} user {} kinds {}", row.id, row.user, row.kinds)).collect::<Vec<_>>().join(", ")
    }

    /// The pending batch stands in the database.
    pub fn landed(&mut self, before: &Snapshot, after: &Snapshot, at: Duration) {
        for row in std::mem::take(&mut self.pending) {
            let person = &after.people[&row.user];
            let pin = after.pins_of(row.user).map(|pin| &pin.value).find(|value| !before.holds(row.user, value));
            self.made.insert(
                row.id,
                Made {
                    at,
                    user: row.user,
                    pin: pin.filter(|_| row.kinds & PIN != 0).cloned(),
                    code: (row.kinds & CODE != 0).then(|| person.code.clone()),
                    password: (row.kinds & PASSWORD != 0).then(|| person.password.clone()),
                    message_id: row.message_id,
                },
            );
        }
    }

    /// Whether the journal has this user on hold after a take-back.
    pub fn holds(&mut self, user: i64) -> bool {
        self.connection().is_some_and(|db| {
            db.query_row("SELECT EXISTS (SELECT 1 FROM hold WHERE user = ?1 AND reason LIKE 'taken back%')", [user], |row| row.get(0))
                .unwrap_or(false)
        })
    }

    /// Something that the program did not do; for mistakes on purpose.
    pub fn tamper(&mut self, sql: &str) {
        if let Some(connection) = self.connection() {
            connection.execute_batch(sql).unwrap();
        }
    }
}
