//! The file itself: what is in it, and who may open it when.
//!
//! ```text
//! journal with tables   key     what a writer does              what a reader does
//! no                    no      makes the key, then the tables  there is no journal
//! no                    yes     uses the key, makes the tables  there is no journal
//! yes                   no      refuses                         refuses
//! yes                   yes     opens the check value with it, refuses if that fails
//! ```
//! A file without tables is what a crash on the first start leaves, so it counts as absent, unless it is known to have had some
//! (`mark.rs`); its tables come in one transaction. The key comes first, because a journal whose key is lost could never be read again.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::JournalPlace;
use super::blob::Seals;
use super::error::{Doing, JournalError};
use super::ledger::Tallies;
use super::{BookId, Lane, View, Writer, mark};
use crate::domain::Key;
use crate::fault;
use crate::seal;

/// In the header of the file, so that `file` and we can tell a journal from any other SQLite file: “crkp”.
const APPLICATION_ID: i64 = 0x6372_6b70;
const VERSION: i64 = 4;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// State lies on the batch until a row differs: most batches are committed with one small write (protocol-cost.md §2).
/// `open` is 1 while the state is planned or committed, else NULL. Times are seconds since 1970, UTC, but for `pin_expires`,
/// which is on the database's wall clock.
const SCHEMA: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL);
CREATE TABLE batch (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    pass TEXT NOT NULL,
    state TEXT NOT NULL,
    -- Its issuances have the ids from first to last.
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    planned_at INTEGER NOT NULL,
    -- When it was known whether it was committed.
    settled_at INTEGER
);
CREATE INDEX batch_planned_at ON batch (planned_at);
CREATE INDEX batch_unresolved ON batch (id) WHERE state = 'planned';
CREATE TABLE issuance (
    id INTEGER PRIMARY KEY,
    batch INTEGER NOT NULL,
    user INTEGER NOT NULL,
    login TEXT NOT NULL,
    policy TEXT NOT NULL,
    -- Sum of 1 PIN, 2 card assignment code, 4 password, 8 moved, 16 PINs extended, 32 PINs expired, 64 PINs deleted, 128 role removed,
    -- 256 taken back, 512 a code replaced, 1024 a password replaced, both without what our own ledger expected; 2048 told again,
    -- 4096 revoked.
    kinds INTEGER NOT NULL,
    pin_expires INTEGER,
    -- Keyed fingerprints of the stored values that were issued, or got another end, 16 bytes each.
    pin_print BLOB,
    -- Stored PINs that went, without the renewals that our own ledger expected.
    replaced INTEGER NOT NULL,
    due_since INTEGER NOT NULL,
    -- 0 poll, 1 backlog.
    lane INTEGER NOT NULL,
    -- NULL: nobody is told.
    message_id TEXT,
    -- NULL: the batch's.
    state TEXT,
    open INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    first_try INTEGER,
    next_attempt INTEGER,
    reply INTEGER,
    settled_at INTEGER,
    -- Sealed: credentials, stored values, recipient, what the mail says. NULL once it is no longer needed.
    secret BLOB,
    -- Sealed: what stood there before.
    before BLOB
);
CREATE UNIQUE INDEX issuance_one_open ON issuance (user) WHERE open = 1;
CREATE INDEX issuance_user ON issuance (user);
CREATE INDEX issuance_queue ON issuance (lane, next_attempt) WHERE open = 1;
CREATE INDEX issuance_replaced ON issuance (policy) WHERE replaced > 0;
CREATE TABLE pass (
    id INTEGER PRIMARY KEY,
    pass TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    started INTEGER NOT NULL,
    ended INTEGER,
    outcome TEXT,
    totals TEXT
);
";

/// What version 2 brought: the PINs that were freed, and the login of a hold. In version 1 nobody could be on hold.
const SINCE_2: &str = "
DROP TABLE IF EXISTS hold;
CREATE TABLE hold (user INTEGER PRIMARY KEY, login TEXT NOT NULL, since INTEGER NOT NULL, reason TEXT NOT NULL);
-- Keyed fingerprints, without a user, of PINs that go to nobody until then.
CREATE TABLE freed (print BLOB PRIMARY KEY, issuance INTEGER NOT NULL, until INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX freed_issuance ON freed (issuance);
CREATE INDEX freed_until ON freed (until);
";

/// What version 3 brought: a book for each database (`book.rs`). What an older journal holds is that of its only one.
const SINCE_3: &str = "
CREATE TABLE database (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    salt TEXT NOT NULL,
    identity TEXT NOT NULL,
    -- The figures of the last full pass that came through.
    baseline TEXT
);
INSERT INTO database (id, name, salt, identity, baseline)
    SELECT 1, d.value, d.value, i.value, (SELECT value FROM meta WHERE name = 'last_full_pass')
    FROM meta d JOIN meta i ON d.name = 'database' AND i.name = 'identity';
DELETE FROM meta WHERE name IN ('database', 'identity', 'last_full_pass');
ALTER TABLE batch ADD COLUMN database INTEGER NOT NULL DEFAULT 1;
ALTER TABLE issuance ADD COLUMN database INTEGER NOT NULL DEFAULT 1;
ALTER TABLE pass ADD COLUMN database INTEGER NOT NULL DEFAULT 1;
DROP INDEX issuance_one_open;
DROP INDEX issuance_user;
DROP INDEX issuance_queue;
DROP INDEX issuance_replaced;
CREATE UNIQUE INDEX issuance_one_open ON issuance (database, user) WHERE open = 1;
CREATE INDEX issuance_user ON issuance (database, user);
CREATE INDEX issuance_queue ON issuance (database, lane, next_attempt) WHERE open = 1;
ALTER TABLE hold RENAME TO hold_of_one;
CREATE TABLE hold (
    database INTEGER NOT NULL, user INTEGER NOT NULL, login TEXT NOT NULL, since INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (database, user)
);
INSERT INTO hold SELECT 1, user, login, since, reason FROM hold_of_one;
DROP TABLE hold_of_one;
-- The last reminder of each user (`reminder.rs`); its end is on the database's wall clock, its window in seconds.
CREATE TABLE reminder (
    database INTEGER NOT NULL,
    user INTEGER NOT NULL,
    -- From the numbers of issuances.
    id INTEGER NOT NULL UNIQUE,
    policy TEXT NOT NULL,
    ends INTEGER NOT NULL,
    window INTEGER NOT NULL,
    message_id TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    first_try INTEGER,
    -- NULL: nothing more is to be sent.
    next_attempt INTEGER,
    PRIMARY KEY (database, user)
);
CREATE INDEX reminder_queue ON reminder (database, next_attempt) WHERE next_attempt IS NOT NULL;
";

/// What version 4 brought: taking back (`back.rs`), requests of commands (`request.rs`), refused plans (`refused.rs`).
const SINCE_4: &str = "
ALTER TABLE issuance ADD COLUMN takes_back INTEGER;
-- Why: undeliverable, asked, or the pass that is undone.
ALTER TABLE issuance ADD COLUMN because TEXT;
-- 1: a user who had a PIN has none since.
ALTER TABLE issuance ADD COLUMN leaves_pinless INTEGER;
CREATE INDEX issuance_undeliverable ON issuance (database, id) WHERE state = 'undeliverable';
-- Sealed: whoever is to be told at another address than this is on hold no longer.
ALTER TABLE hold ADD COLUMN recipient BLOB;
-- The pass that was undone.
ALTER TABLE hold ADD COLUMN pass TEXT;
CREATE TABLE request (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    database INTEGER NOT NULL,
    asked TEXT NOT NULL,
    account TEXT NOT NULL,
    asked_at INTEGER NOT NULL,
    -- Nobody takes it up after that.
    until INTEGER NOT NULL,
    taken_at INTEGER,
    answered_at INTEGER,
    -- The exit code, and what is said.
    code INTEGER,
    answer TEXT,
    -- 1: it was not done.
    failed INTEGER
);
CREATE INDEX request_waits ON request (database, id) WHERE taken_at IS NULL;
CREATE TABLE refused (
    database INTEGER NOT NULL,
    plan TEXT NOT NULL,
    policy TEXT NOT NULL,
    -- The limit's key.
    cap TEXT NOT NULL,
    users INTEGER NOT NULL,
    refused_at INTEGER NOT NULL,
    approved_until INTEGER,
    steps BLOB NOT NULL,
    PRIMARY KEY (database, plan)
);
";

/// Takes the lock of the one writer; `None` while another process has it. It goes with the file handle, however the process ends.
pub(super) fn try_lock(journal: &Path) -> Result<Option<File>, JournalError> {
    let path = seal::suffixed(journal, ".lock");
    let opened = match seal::create_private(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => File::options().read(true).write(true).open(&path),
        other => other,
    };
    let file = opened.map_err(|source| JournalError::Lock { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(JournalError::Lock { path, source }),
    }
}

/// Whether a writer holds the lock now. Makes nothing.
pub(super) fn is_locked(journal: &Path) -> bool {
    let lock = File::open(seal::suffixed(journal, ".lock"));
    lock.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Opens the journal for its one writer, making key and file where the rules above say so.
pub(super) fn open_writer(place: &JournalPlace, lock: File) -> Result<Writer, JournalError> {
    let JournalPlace { path, key: key_path, .. } = place;
    let exists = path.try_exists().map_err(|source| JournalError::Inspect { path: path.clone(), source })?;
    let has_tables = exists && has_tables(&open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?, path)?;
    if exists && !has_tables {
        mark::check(&lock, None, path)?;
    }
    let key = match (seal::read_key(key_path)?, has_tables) {
        (Some(key), _) => key,
        (None, false) => seal::make_key(key_path)?,
        (None, true) => return Err(JournalError::KeyMissing { journal: path.clone(), key: key_path.clone() }),
    };
    if !exists {
        let created = seal::create_private(path).and_then(|f| f.sync_all()).and_then(|()| seal::sync_directory(path));
        created.map_err(|source| JournalError::Create { path: path.clone(), source })?;
    }
    let mut db = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    set_up_writing(&db).map_err(|source| JournalError::Open { path: path.clone(), source })?;
    if has_tables {
        sound(&db, path)?;
        mark::check(&lock, Some(&db), path)?;
    } else {
        make_private(path)?;
        create(&mut db, &key)?;
    }
    upgrade(&mut db)?;
    let view = view(db, place, &key)?;
    let tallies = Tallies::count(&view.db)?;
    mark::note(&lock, meta(&view.db, "last_issuance")?);
    Ok(Writer { view, tallies, turn: Lane::Poll, served: BookId(0), lock })
}

/// What a reader needs to have checked; `None` if there is no journal yet. Makes and changes nothing.
pub(super) fn view_for_reading(db: Connection, place: &JournalPlace) -> Result<Option<View>, JournalError> {
    if !has_tables(&db, &place.path)? {
        return Ok(None);
    }
    match seal::read_key(&place.key)? {
        Some(key) => view(db, place, &key).map(Some),
        None => Err(JournalError::KeyMissing { journal: place.path.clone(), key: place.key.clone() }),
    }
}

/// Opens with these flags, as a plain file name unless they say URI.
pub(super) fn open(path: &Path, flags: OpenFlags) -> Result<Connection, JournalError> {
    let fail = |source| JournalError::Open { path: path.to_owned(), source };
    let db = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(fail)?;
    db.busy_timeout(BUSY_TIMEOUT).map_err(fail)?;
    db.pragma_update(None, "trusted_schema", false).map_err(fail)?;
    // Without this, the bundled SQLite prepares a statement anew for each new value, which costs three times the statement.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(fail)?;
    Ok(db)
}

fn set_up_writing(db: &Connection) -> Result<(), rusqlite::Error> {
    let mode: String = db.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        // A file system without shared memory (a network share) refuses quietly.
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
            Some(format!("the file system does not allow write-ahead logging, the mode stays “{mode}”")),
        ));
    }
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
    db.pragma_update_and_check(None, "journal_size_limit", 8 << 20, |_| Ok(()))?;
    // Sorting must not spill secrets into temporary files.
    db.pragma_update(None, "temp_store", "memory")?;
    db.pragma_update(None, "cache_size", -4096)?;
    db.set_prepared_statement_cache_capacity(64);
    if let Some(pages) = fault::journal_pages() {
        db.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    }
    Ok(())
}

/// # Errors
/// It is not SQLite, or somebody else's.
fn has_tables(db: &Connection, path: &Path) -> Result<bool, JournalError> {
    let not_ours = || JournalError::NotAJournal { path: path.to_owned() };
    let look = || -> Result<(i64, i64), rusqlite::Error> {
        Ok((
            db.query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", [], |r| r.get(0))?,
            db.pragma_query_value(None, "application_id", |r| r.get(0))?,
        ))
    };
    match look() {
        Ok((0, _)) => Ok(false),
        Ok((_, APPLICATION_ID)) => Ok(true),
        Ok(_) => Err(not_ours()),
        Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => Err(not_ours()),
        Err(e) if is_damage(&e) => Err(JournalError::Damaged { path: path.to_owned(), found: e.to_string() }),
        Err(source) => Err(JournalError::Open { path: path.to_owned(), source }),
    }
}

/// Whether the file hangs together. Asked before it is used, because what is read of a damaged one may be wrong, or only some of
/// it; costs as much as one look at all of it, less than a second for a million issuances.
///
/// # Errors
/// It does not.
pub(super) fn sound(db: &Connection, path: &Path) -> Result<(), JournalError> {
    let damaged = |found: String| JournalError::Damaged { path: path.to_owned(), found };
    match db.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)) {
        Ok(found) if found == "ok" => Ok(()),
        // The first line says which part of the file; what follows says it again.
        Ok(found) => Err(damaged(found.lines().last().unwrap_or_default().to_owned())),
        Err(e) if is_damage(&e) => Err(damaged(e.to_string())),
        Err(source) => Err(JournalError::Open { path: path.to_owned(), source }),
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseCorrupt))
}

fn create(db: &mut Connection, key: &Key) -> Result<(), JournalError> {
    let check = Seals::new(key).check_value()?;
    let mut fill = || -> Result<(), rusqlite::Error> {
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(SCHEMA)?;
        tx.execute_batch(SINCE_2)?;
        tx.execute_batch(SINCE_3)?;
        tx.execute_batch(SINCE_4)?;
        let mut meta = tx.prepare("INSERT INTO meta (name, value) VALUES (?1, ?2)")?;
        meta.execute(params!["check", check])?;
        meta.execute(params!["last_issuance", 0])?;
        drop(meta);
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", VERSION)?;
        tx.commit()
    };
    fill().writing("its tables")
}

/// Brings a journal of an earlier version up to this one, in one transaction.
fn upgrade(db: &mut Connection) -> Result<(), JournalError> {
    let version: i64 = db.pragma_query_value(None, "user_version", |r| r.get(0)).reading("its version")?;
    if version >= VERSION {
        return Ok(());
    }
    let mut change = || -> Result<(), rusqlite::Error> {
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if version < 2 {
            tx.execute_batch(SINCE_2)?;
        }
        if version < 3 {
            tx.execute_batch(SINCE_3)?;
        }
        tx.execute_batch(SINCE_4)?;
        tx.pragma_update(None, "user_version", VERSION)?;
        tx.commit()
    };
    change().writing("its tables")
}

fn view(db: Connection, place: &JournalPlace, key: &Key) -> Result<View, JournalError> {
    let version: i64 = db.pragma_query_value(None, "user_version", |r| r.get(0)).reading("its version")?;
    if version > VERSION {
        return Err(JournalError::Newer { path: place.path.clone(), version });
    }
    if version < VERSION {
        return Err(JournalError::Older { path: place.path.clone() });
    }
    let seals = Seals::new(key);
    if !seals.fits(&meta::<Vec<u8>>(&db, "check")?) {
        return Err(JournalError::KeyWrong { journal: place.path.clone(), key: place.key.clone() });
    }
    Ok(View { db, seals })
}

pub(super) fn meta<T: rusqlite::types::FromSql>(db: &Connection, name: &'static str) -> Result<T, JournalError> {
    db.query_row("SELECT value FROM meta WHERE name = ?1", [name], |r| r.get(0))
        .optional()
        .reading("its settings")?
        .ok_or(JournalError::NotUnderstood { what: name })
}

/// An empty file that somebody else made may be readable by all.
fn make_private(path: &Path) -> Result<(), JournalError> {
    #[cfg(unix)]
    {
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path, private).map_err(|source| JournalError::Create { path: path.to_owned(), source })?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}
