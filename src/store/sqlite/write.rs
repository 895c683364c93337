//! The writing half: `BEGIN IMMEDIATE` is the write lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params, params_from_iter};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::config::schema_map::Value;
use crate::domain::{StoredValue, UserId};
use crate::inventory::{StoredPin, User};
use crate::store::error::{Cause, Kind, StoreError};
use crate::store::sql::{self, Binder, LOCK_TIMEOUT, quoted};
use crate::store::{AfterImage, Committed, NewPin, Outcome, PinChange, PinTarget, RoleChange, UserChange, ValueChange};

use super::{Sqlite, blocking, decode, read_end, values, write_end};

mod places;

/// One writing connection of this process at a time; SQLite itself keeps the other processes out.
pub(in crate::store) struct Writer {
    sqlite: Arc<Sqlite>,
    turn: Arc<Mutex<()>>,
}

pub(in crate::store) struct Transaction {
    sqlite: Arc<Sqlite>,
    /// Absent while a task works with it, and for good when that task was cut off. Closing it rolls back.
    connection: Option<Connection>,
    /// A write failed or was torn: no commit.
    broken: bool,
    _turn: OwnedMutexGuard<()>,
}

impl Writer {
    pub(in crate::store) fn new(sqlite: Arc<Sqlite>) -> Writer {
        Writer { sqlite, turn: Arc::new(Mutex::new(())) }
    }

    pub(in crate::store) async fn begin(&self, users: &[UserId]) -> Result<(Transaction, Vec<User>), StoreError> {
        let (mut transaction, users) = (self.open().await?, users.to_vec());
        let found = transaction.with(move |sqlite, connection| read_again(sqlite, connection, &users)).await?;
        Ok((transaction, found))
    }

    pub(in crate::store) async fn landed(&self, images: &[AfterImage]) -> Result<Vec<bool>, StoreError> {
        let (mut transaction, images) = (self.open().await?, images.to_vec());
        transaction.with(move |sqlite, connection| look_up(sqlite, connection, &images)).await
    }

    async fn open(&self) -> Result<Transaction, StoreError> {
        let wait = LOCK_TIMEOUT + Duration::from_secs(5);
        let late = StoreError::WriteLock { after: wait };
        let turn = tokio::time::timeout(wait, self.turn.clone().lock_owned()).await.map_err(|_| late)?;
        let sqlite = self.sqlite.clone();
        let connection = blocking(move || {
            let connection = sqlite.open(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            connection.execute_batch("BEGIN IMMEDIATE").map_err(|e| match Cause::from(e) {
                cause if cause.kind == Kind::LockTimeout => StoreError::WriteLock { after: LOCK_TIMEOUT },
                cause => StoreError::query("begin", cause),
            })?;
            Ok(connection)
        })
        .await?;
        Ok(Transaction { sqlite: self.sqlite.clone(), connection: Some(connection), broken: false, _turn: turn })
    }
}

impl Transaction {
    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Sqlite, &Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let connection = self.connection.take().ok_or(StoreError::Incomplete)?;
        let sqlite = self.sqlite.clone();
        let (connection, result) = blocking(move || {
            let result = work(&sqlite, &connection);
            Ok((connection, result))
        })
        .await?;
        self.connection = Some(connection);
        result
    }

    pub(in crate::store) async fn write(&mut self, changes: &[UserChange]) -> Result<Vec<Outcome>, StoreError> {
        if self.broken {
            return Err(StoreError::Incomplete);
        }
        self.broken = true;
        let changes = changes.to_vec();
        let outcomes = self.with(move |sqlite, connection| write_all(sqlite, connection, &changes)).await?;
        self.broken = outcomes.contains(&Outcome::Torn);
        Ok(outcomes)
    }

    pub(in crate::store) async fn commit(mut self) -> Committed {
        if self.broken {
            return Committed::Refused(StoreError::Incomplete);
        }
        let answer = self.with(|_, connection| connection.execute_batch("COMMIT").map_err(|e| StoreError::query("commit", e))).await;
        match answer {
            Ok(()) => Committed::Yes,
            Err(error @ (StoreError::Task | StoreError::Incomplete)) => Committed::Unknown(error),
            Err(error) => Committed::Refused(error),
        }
    }
}

fn read_again(sqlite: &Sqlite, connection: &Connection, ids: &[UserId]) -> Result<Vec<User>, StoreError> {
    let mut binder = Binder::sqlite();
    let ids = serde_json::to_string(&ids.iter().map(|id| id.0).collect::<Vec<_>>()).unwrap_or_default();
    let select = sqlite.select(&mut binder);
    let batch = binder.text(&ids);
    let statement = format!("{select} WHERE u.{} IN (SELECT value FROM json_each({batch}))", quoted(&sqlite.db.map.users.id));
    let read = || -> rusqlite::Result<Vec<User>> {
        let mut statement = connection.prepare(&statement)?;
        let rows = statement.query_map(params_from_iter(values(&binder)), |row| decode(row).map(|r| r.into_user(&sqlite.db)))?;
        rows.collect()
    };
    read().map_err(|e| StoreError::query("read the batch", e))
}

fn write_all(sqlite: &Sqlite, connection: &Connection, changes: &[UserChange]) -> Result<Vec<Outcome>, StoreError> {
    let settled = sql::settle_within_batch(changes);
    let write = || -> rusqlite::Result<Vec<Outcome>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        for (change, settled) in changes.iter().zip(settled) {
            outcomes.push(match settled {
                Some(outcome) => outcome,
                None => write_one(sqlite, connection, change)?,
            });
        }
        Ok(outcomes)
    };
    write().map_err(|e| StoreError::query("write the batch", e))
}

fn write_one(sqlite: &Sqlite, connection: &Connection, change: &UserChange) -> rusqlite::Result<Outcome> {
    if let Some(code) = change.code.as_ref().and_then(|code| code.new.as_ref())
        && has_code(sqlite, connection, code)?
    {
        return Ok(Outcome::CodeTaken);
    }
    if let Some(pin) = &change.pin {
        let outcome = write_pin(sqlite, connection, change.user, pin)?;
        if outcome != Outcome::Applied {
            return Ok(outcome);
        }
    }
    let mut begun = change.pin.is_some();
    let missed = |begun| if begun { Outcome::Torn } else { Outcome::ChangedMeanwhile };
    for (value, column) in [(&change.code, sqlite.code_column()), (&change.password, sqlite.password_column())] {
        let Some(value) = value else { continue };
        if !write_value(sqlite, connection, change.user, column.as_deref(), value)? {
            return Ok(missed(begun));
        }
        begun = true;
    }
    if let Some(to) = &change.cost_center {
        if !places::move_user(sqlite, connection, change.user, to)? {
            return Ok(missed(begun));
        }
        begun = true;
    }
    let changed = match &change.role {
        Some(RoleChange::Remove(role)) => places::remove_role(sqlite, connection, change.user, role.id)?,
        Some(RoleChange::Give(role)) => places::give_role(sqlite, connection, change.user, role.id)?,
        None => true,
    };
    if !changed {
        return Ok(missed(begun));
    }
    Ok(Outcome::Applied)
}

/// Whether somebody has this stored code.
pub(super) fn has_code(sqlite: &Sqlite, connection: &Connection, code: &StoredValue) -> rusqlite::Result<bool> {
    let Some(column) = sqlite.code_column() else { return Ok(false) };
    let sql = format!("SELECT 1 FROM {} WHERE {column} = ?1", quoted(&sqlite.db.map.users.table));
    connection.prepare_cached(&sql)?.exists([code.expose()])
}

/// Whether the user's row was as named, and there is such a column.
fn write_value(
    sqlite: &Sqlite,
    connection: &Connection,
    user: UserId,
    column: Option<&str>,
    change: &ValueChange,
) -> rusqlite::Result<bool> {
    let Some(column) = column else { return Ok(false) };
    let users = &sqlite.db.map.users;
    let update =
        format!("UPDATE {} SET {column} = ?1 WHERE {} = ?2 AND coalesce({column}, '') = ?3", quoted(&users.table), quoted(&users.id));
    let old = change.old.as_ref().map_or("", StoredValue::expose);
    Ok(connection.prepare_cached(&update)?.execute(params![change.new.as_ref().map(StoredValue::expose), user.0, old])? == 1)
}

fn write_pin(sqlite: &Sqlite, connection: &Connection, user: UserId, change: &PinChange) -> rusqlite::Result<Outcome> {
    let rows = pin_rows(sqlite, connection, user)?;
    if !is_there(sqlite, connection, user)? || !are_as_named(&rows, &change.old) {
        return Ok(Outcome::ChangedMeanwhile);
    }
    let map = &sqlite.db.map.cards;
    let (table, end) = (quoted(&map.table), quoted(&map.expires.column));
    let of = |pins: &[StoredPin]| -> Vec<i64> {
        let named = |row: &&PinRow| pins.iter().any(|pin| pin.value.expose() == row.value && pin.expires.map(|at| at.0) == row.end);
        rows.iter().filter(named).map(|row| row.rowid).collect()
    };
    match &change.to {
        PinTarget::New(new) => return write_new(sqlite, connection, user, new, &rows),
        PinTarget::Beside(new) => return write_new(sqlite, connection, user, new, &[]),
        PinTarget::End { pins, at } => {
            let update = format!("UPDATE {table} SET {end} = {} WHERE rowid = ?1", write_end(&map.expires, "?2"));
            for row in of(pins) {
                connection.prepare_cached(&update)?.execute(params![row, at.map(sql::writable)])?;
            }
        }
        PinTarget::Gone { pins } => {
            for row in of(pins) {
                connection.prepare_cached(&format!("DELETE FROM {table} WHERE rowid = ?1"))?.execute([row])?;
            }
        }
    }
    Ok(Outcome::Applied)
}

fn write_new(sqlite: &Sqlite, connection: &Connection, user: UserId, new: &NewPin, rows: &[PinRow]) -> rusqlite::Result<Outcome> {
    let map = &sqlite.db.map.cards;
    let (table, owner, card) = (quoted(&map.table), quoted(&map.user), quoted(&map.value));
    let end = quoted(&map.expires.column);
    let mut held = connection.prepare_cached(&format!("SELECT 1 FROM {table} WHERE {card} = ?1"))?;
    for form in new.forms.iter().chain([&new.value]) {
        if held.exists([form.expose()])? {
            return Ok(Outcome::PinTaken);
        }
    }
    let expires = new.expires.map(sql::writable);
    let written = write_end(&map.expires, "?2");
    let Some((first, others)) = rows.split_first() else {
        let (names, marks): (String, String) =
            map.insert_defaults.iter().enumerate().map(|(i, (name, _))| (format!(", {}", quoted(name)), format!(", ?{}", i + 4))).unzip();
        let insert =
            format!("INSERT INTO {table} ({owner}, {card}, {end}{names}) VALUES (?3, ?1, {written}{marks}) ON CONFLICT DO NOTHING");
        let fixed = [Sql::Text(new.value.expose().to_owned()), expires.into(), Sql::Integer(user.0)];
        let defaults = map.insert_defaults.iter().map(|(_, value)| match value {
            Value::Number(n) => Sql::Integer(*n),
            Value::Text(t) => Sql::Text(t.clone()),
            Value::Null => Sql::Null,
        });
        let inserted = connection.prepare_cached(&insert)?.execute(params_from_iter(fixed.into_iter().chain(defaults)))?;
        return Ok(if inserted == 1 { Outcome::Applied } else { Outcome::PinTaken });
    };
    for row in others {
        connection.prepare_cached(&format!("DELETE FROM {table} WHERE rowid = ?1"))?.execute([row.rowid])?;
    }
    let update = format!("UPDATE {table} SET {card} = ?1, {end} = {written} WHERE rowid = ?3");
    connection.prepare_cached(&update)?.execute(params![new.value.expose(), expires, first.rowid])?;
    Ok(Outcome::Applied)
}

fn is_there(sqlite: &Sqlite, connection: &Connection, user: UserId) -> rusqlite::Result<bool> {
    let users = &sqlite.db.map.users;
    let there = format!("SELECT 1 FROM {} WHERE {} = ?1", quoted(&users.table), quoted(&users.id));
    connection.prepare_cached(&there)?.exists([user.0])
}

/// Counted with multiplicity.
fn are_as_named(rows: &[PinRow], named: &[StoredPin]) -> bool {
    let mut standing: BTreeMap<(&str, Option<i64>), i64> = BTreeMap::new();
    for row in rows {
        *standing.entry((&row.value, row.end)).or_default() += 1;
    }
    for StoredPin { value, expires, .. } in named {
        *standing.entry((value.expose(), expires.map(|at| at.0))).or_default() -= 1;
    }
    standing.values().all(|n| *n == 0)
}

struct PinRow {
    rowid: i64,
    value: String,
    end: Option<i64>,
}

fn pin_rows(sqlite: &Sqlite, connection: &Connection, user: UserId) -> rusqlite::Result<Vec<PinRow>> {
    let map = &sqlite.db.map.cards;
    let select = format!(
        "SELECT rowid, {}, {} FROM {} WHERE {} = ?1 AND {0} IS NOT NULL ORDER BY rowid",
        quoted(&map.value),
        read_end(&map.expires, &quoted(&map.expires.column)),
        quoted(&map.table),
        quoted(&map.user),
    );
    let mut statement = connection.prepare_cached(&select)?;
    let rows = statement.query_map([user.0], |row| Ok(PinRow { rowid: row.get(0)?, value: row.get(1)?, end: row.get(2)? }))?;
    let mut rows: Vec<PinRow> = rows.collect::<rusqlite::Result<_>>()?;
    rows.retain(|row| sqlite.db.pin_format.is_pin(&row.value));
    Ok(rows)
}

/// Which of these stand there, whole.
pub(super) fn look_up(sqlite: &Sqlite, connection: &Connection, images: &[AfterImage]) -> Result<Vec<bool>, StoreError> {
    let users = &sqlite.db.map.users;
    let (center, number) = sqlite.membership();
    let expires = &sqlite.db.map.cards.expires;
    let joined = places::joined_of_one(sqlite, "?1");
    let membership = format!("SELECT {center}, {number} FROM {} u {joined} WHERE u.{} = ?1", quoted(&users.table), quoted(&users.id));
    // What would be written, read back: a date does not hold every second.
    let as_held = format!("SELECT {}", read_end(expires, &format!("({})", write_end(expires, "?1"))));
    let stands = |image: &AfterImage| -> rusqlite::Result<bool> {
        let center: Option<(i64, i64)> =
            connection.prepare_cached(&membership)?.query_row([image.user.0], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some(center) = center else { return Ok(false) };
        if image.cost_center.as_ref().is_some_and(|wanted| (wanted.id.0, wanted.number) != center) {
            return Ok(false);
        }
        for (value, column) in [(&image.code, sqlite.code_column()), (&image.password, sqlite.password_column())] {
            let Some(value) = value else { continue };
            let Some(column) = column else { return Ok(false) };
            let held = format!("SELECT 1 FROM {} WHERE {} = ?1 AND coalesce({column}, '') = ?2", quoted(&users.table), quoted(&users.id));
            if !connection.prepare_cached(&held)?.exists(params![image.user.0, value.expose()])? {
                return Ok(false);
            }
        }
        if let Some(role) = image.role_gone
            && places::has_role(sqlite, connection, image.user, role)?
        {
            return Ok(false);
        }
        if image.pins.is_empty() && image.held.is_empty() && image.gone.is_empty() {
            return Ok(true);
        }
        let rows = pin_rows(sqlite, connection, image.user)?;
        for (value, end) in &image.pins {
            let end: Option<i64> = connection.prepare_cached(&as_held)?.query_row([end.map(sql::writable)], |row| row.get(0))?;
            if !rows.iter().any(|row| row.value == value.expose() && row.end == end) {
                return Ok(false);
            }
        }
        let has = |value: &StoredValue| rows.iter().any(|row| row.value == value.expose());
        Ok(image.held.iter().all(has) && !image.gone.iter().any(has))
    };
    let found: rusqlite::Result<Vec<bool>> = images.iter().map(stands).collect();
    found.map_err(|e| StoreError::query("look up issuances", e))
}
