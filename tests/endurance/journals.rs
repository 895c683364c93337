//! What a journal says of itself, read beside the program.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// As `src/journal/file.rs` counts them.
const PIN: i64 = 1;
const MOVED: i64 = 8;

pub struct Batch {
    pub id: i64,
    pub pass: String,
    /// Seconds of the epoch.
    pub planned_at: i64,
    pub issuances: Vec<Issuance>,
}

pub struct Issuance {
    pub user: i64,
    pub pin: bool,
    pub moved: bool,
    pub state: String,
}

pub fn batches(journal: &Path) -> Vec<Batch> {
    let db = open(journal);
    let mut statement = db
        .prepare(
            "SELECT b.id, b.pass, b.planned_at, i.user, i.kinds, coalesce(i.state, b.state)
               FROM batch b JOIN issuance i ON i.batch = b.id ORDER BY b.id, i.id",
        )
        .unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut all: Vec<Batch> = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let id = row.get(0).unwrap();
        if all.last().is_none_or(|batch| batch.id != id) {
            all.push(Batch { id, pass: row.get(1).unwrap(), planned_at: row.get(2).unwrap(), issuances: Vec::new() });
        }
        let kinds: i64 = row.get(4).unwrap();
        let issuance = Issuance { user: row.get(3).unwrap(), pin: kinds & PIN != 0, moved: kinds & MOVED != 0, state: row.get(5).unwrap() };
        all.last_mut().expect("a batch").issuances.push(issuance);
    }
    all
}

/// How many issuances are in these states; 0 where there is no journal yet.
pub fn count(journal: &Path, states: &[&str]) -> i64 {
    if !journal.exists() {
        return 0;
    }
    let list: Vec<String> = states.iter().map(|state| format!("'{state}'")).collect();
    let sql =
        format!("SELECT count(*) FROM issuance i JOIN batch b ON b.id = i.batch WHERE coalesce(i.state, b.state) IN ({})", list.join(","));
    open(journal).query_row(&sql, [], |row| row.get(0)).unwrap()
}

/// What is not at its end.
pub const OPEN: [&str; 2] = ["planned", "committed"];

fn open(journal: &Path) -> Connection {
    let db = Connection::open_with_flags(journal, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    db.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    db
}
