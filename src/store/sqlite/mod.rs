//! SQLite: the database of the sandbox. The work is done in this process, on threads that may block.
//!
//! Sets are walked row by row with prepared statements inside the one transaction: with no round trips, and the whole table in
//! memory at once, that is what a join would do too.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{Stream, stream};
use rusqlite::config::DbConfig;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OpenFlags, params_from_iter};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::clock;
use crate::config::DatabaseConfig;
use crate::config::schema_map::{ExpiresKind, ExpiresMap, RolesMap, Zone};
use crate::domain::{StoredValue, UserId, WallClock};
use crate::inventory::{Counts, Pulse, ReadOnly, Standing, User};

use super::counts::{NUMBERS, Question, counts};
use super::error::StoreError;
use super::sql::{self, Arg, Binder, CHUNK, quoted};
use super::{AfterImage, Check, Filter, Pinless};

mod inspect;
mod places;
mod write;

pub(super) use write::{Transaction, Writer};

#[derive(Clone)]
pub(super) struct Sqlite {
    db: Arc<DatabaseConfig>,
    path: PathBuf,
}

impl Sqlite {
    pub(super) fn new(db: &DatabaseConfig, path: &Path) -> Sqlite {
        Sqlite { db: Arc::new(db.clone()), path: path.to_owned() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self, flags: OpenFlags) -> Result<Connection, StoreError> {
        let failed = |e: rusqlite::Error| StoreError::Connect { server: self.path.display().to_string(), source: e.into() };
        let connection = Connection::open_with_flags(&self.path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failed)?;
        connection.busy_timeout(sql::LOCK_TIMEOUT).map_err(failed)?;
        // As strict as the other databases: no dangling users, and a mistyped column is an error, not a text.
        connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false).map_err(failed)?;
        Ok(connection)
    }

    /// Does `work` with a read-only connection, off the runtime's threads.
    async fn reading<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Sqlite, &Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let this = self.clone();
        blocking(move || work(&this, &this.open(OpenFlags::SQLITE_OPEN_READ_ONLY)?)).await
    }

    pub(super) async fn inspect(&self) -> Vec<Check> {
        let this = self.clone();
        blocking(move || Ok(inspect::inspect(&this))).await.unwrap_or_else(|e| vec![Check::failed("connection", e.to_string(), "")])
    }

    /// A file takes changes as long as it can be opened for them; SQLite opens one that it may not write to read only.
    /// Its clock is ours: SQLite has none but this machine's.
    pub(super) async fn pulse(&self) -> Result<Pulse, StoreError> {
        let (this, utc) = (self.clone(), clock::now());
        blocking(move || {
            let failed = |e| StoreError::query("ask for the time", e);
            let connection = this.open(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            let read_only = connection.is_readonly("main").map_err(failed)?.then_some(ReadOnly::File);
            let sql = match this.db.map.cards.expires.zone {
                Zone::Local => "SELECT unixepoch(?1, 'unixepoch', 'localtime')",
                Zone::Utc => "SELECT ?1",
            };
            let pulse = |row: &rusqlite::Row<'_>| Ok(Pulse { wall: WallClock(row.get(0)?), utc, read_only });
            connection.query_row(sql, [utc.0], pulse).map_err(failed)
        })
        .await
    }

    pub(super) async fn counts(&self) -> Result<Counts, StoreError> {
        self.reading(|this, connection| {
            let map = &this.db.map;
            let mut binder = Binder::sqlite();
            let mut real = binder.test("u", &map.users.is_user);
            if let Some(deleted) = &map.users.is_deleted {
                real = format!("{real} AND NOT {}", binder.test("u", deleted));
            }
            if let Some(template) = &this.db.template_user {
                real = format!("{real} AND u.{} IS NOT {}", quoted(&map.users.login), binder.text(template));
            }
            let needs = this.db.needs;
            let held = |column: Option<String>| column.map(|column| format!("u.{column} <> ''"));
            let question = Question {
                codes: &held(this.code_column().filter(|_| needs.codes)),
                passwords: &held(this.password_column().filter(|_| needs.passwords)),
                users: &quoted(&map.users.table),
                cards: &quoted(&map.cards.table),
                id: &quoted(&map.users.id),
                value: &format!("c.{}", quoted(&map.cards.value)),
                real: &real,
                format: this.db.pin_format,
                typed: false,
            };
            let figures = connection.query_row(&question.statement(), params_from_iter(values(&binder)), |row| {
                let mut numbers = [0; NUMBERS];
                for (i, number) in numbers.iter_mut().enumerate() {
                    *number = row.get(i)?;
                }
                Ok(counts(numbers, row.get(NUMBERS)?))
            });
            figures.map_err(|e| StoreError::query("count", e))
        })
        .await
    }

    pub(super) async fn newest(&self) -> Result<UserId, StoreError> {
        self.reading(|this, connection| {
            let users = &this.db.map.users;
            let sql = format!("SELECT coalesce(max({}), 0) FROM {}", quoted(&users.id), quoted(&users.table));
            let newest = connection.query_row(&sql, [], |row| row.get(0));
            newest.map(UserId).map_err(|e| StoreError::query("newest", e))
        })
        .await
    }

    pub(super) async fn present(&self, images: &[AfterImage]) -> Result<Vec<bool>, StoreError> {
        let images = images.to_vec();
        self.reading(move |this, connection| write::look_up(this, connection, &images)).await
    }

    pub(super) fn read(&self, filter: &Filter, pinless: Pinless) -> impl Stream<Item = Result<Vec<User>, StoreError>> + Send + use<> {
        let (this, filter) = (self.clone(), filter.clone());
        streamed(move |sender| this.open(OpenFlags::SQLITE_OPEN_READ_ONLY).and_then(|c| this.stream(&c, &filter, &pinless, sender)))
    }

    /// Every value of the card column.
    pub(super) fn pins(&self) -> impl Stream<Item = Result<Vec<StoredValue>, StoreError>> + Send + use<> {
        let map = &self.db.map.cards;
        self.whole("read PINs", &map.table, Some(quoted(&map.value)))
    }

    /// Every stored card assignment code.
    pub(super) fn codes(&self) -> impl Stream<Item = Result<Vec<StoredValue>, StoreError>> + Send + use<> {
        self.whole("read card assignment codes", &self.db.map.users.table, self.code_column())
    }

    /// Which of these codes somebody has.
    pub(super) async fn codes_taken(&self, codes: &[StoredValue]) -> Result<Vec<bool>, StoreError> {
        let codes = codes.to_vec();
        self.reading(move |this, connection| {
            let taken = codes.iter().map(|code| write::has_code(this, connection, code)).collect::<rusqlite::Result<_>>();
            taken.map_err(|e| StoreError::query("look for card assignment codes", e))
        })
        .await
    }

    /// The quoted column of the codes, if the map names one.
    fn code_column(&self) -> Option<String> {
        self.db.map.users.puk.as_ref().map(|puk| quoted(&puk.column))
    }

    /// The same of the passwords.
    fn password_column(&self) -> Option<String> {
        self.db.map.users.password.as_ref().map(|column| quoted(column))
    }

    /// The values of a column that are not empty; none where there is no column.
    fn whole(
        &self,
        step: &'static str,
        table: &str,
        column: Option<String>,
    ) -> impl Stream<Item = Result<Vec<StoredValue>, StoreError>> + Send + use<> {
        let (this, table) = (self.clone(), quoted(table));
        streamed(move |sender| {
            let Some(column) = column else { return Ok(()) };
            let failed = |e: rusqlite::Error| StoreError::query(step, e);
            let connection = this.open(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            let sql = format!("SELECT {column} FROM {table} WHERE {column} <> ''");
            let mut statement = connection.prepare(&sql).map_err(failed)?;
            let mut rows = statement.query([]).map_err(failed)?;
            let mut chunk = Chunk::new(sender);
            while let Some(row) = rows.next().map_err(failed)? {
                if !chunk.push(StoredValue::new(row.get(0).map_err(failed)?)) {
                    break;
                }
            }
            chunk.end();
            Ok(())
        })
    }

    fn stream(&self, connection: &Connection, filter: &Filter, pinless: &Pinless, to: &ChunkSender<User>) -> Result<(), StoreError> {
        let failed = |e: rusqlite::Error| StoreError::query("read users", e);
        let users = &self.db.map.users;
        let mut binder = Binder::sqlite();
        let mut statement = self.select(&mut binder);
        // What is due is left to `Filter::accepts`: a sandbox is small, and in this process a row costs a microsecond.
        if let Some(login) = &filter.login {
            statement += &format!(" WHERE u.{} = {}", quoted(&users.login), binder.text(login));
        } else if let Some(above) = filter.above {
            statement += &format!(" WHERE u.{} > {}", quoted(&users.id), binder.int(above.0));
        }
        let mut statement = connection.prepare(&statement).map_err(failed)?;
        let mut rows = statement.query(params_from_iter(values(&binder))).map_err(failed)?;
        let (mut chunk, mut bare) = (Chunk::new(to), 0);
        while let Some(row) = rows.next().map_err(failed)? {
            let user = decode(row).map_err(failed)?.into_user(&self.db);
            bare += u64::from(user.standing == Standing::Active && user.pins.is_empty());
            if filter.accepts(&user) && !chunk.push(user) {
                return Ok(());
            }
        }
        if filter.finds_pinless() {
            let _ = pinless.set(bare);
        }
        chunk.end();
        Ok(())
    }

    /// Rows of `u` with their cards as JSON; a WHERE may follow.
    fn select(&self, binder: &mut Binder) -> String {
        let (users, cards) = (&self.db.map.users, &self.db.map.cards);
        let text = |name: &str| format!("coalesce(CAST(u.{} AS text), '')", quoted(name));
        let is_user = binder.test("u", &users.is_user);
        let is_deleted = users.is_deleted.as_ref().map_or("false".to_owned(), |t| binder.test("u", t));
        let owner = quoted(&cards.user);
        let (center, number) = self.membership();
        let id = quoted(&users.id);
        let (mut roles, mut links) = ("NULL", String::new());
        if let Some(RolesMap { link, .. }) = self.roles_asked() {
            let (table, user, to) = (quoted(&link.table), quoted(&link.user), quoted(&link.to));
            roles = "r.roles";
            links = format!(
                "LEFT JOIN (SELECT l.{user} AS owner, json_group_array(l.{to}) AS roles FROM {table} l WHERE l.{to} IS NOT NULL GROUP BY l.{user}) r
                   ON r.owner = u.{id}"
            );
        }
        let optional = |column: Option<String>| column.map_or("NULL".to_owned(), |column| format!("u.{column}"));
        format!(
            "SELECT u.{id}, {login}, {email}, {name}, {surname}, {is_user}, {is_deleted}, {center}, {number}, {source}, {code}, {password}, a.cards, {roles}
               FROM {table} u {joined} {links} LEFT JOIN (SELECT c.{owner} AS owner, json_group_array(json_array(c.{value}, {end})) AS cards
                                           FROM {card_table} c WHERE c.{value} IS NOT NULL GROUP BY c.{owner}) a ON a.owner = u.{id}",
            joined = self.joined("true"),
            login = text(&users.login),
            email = text(&users.email),
            name = text(&users.name),
            surname = text(&users.surname),
            code = optional(self.code_column().filter(|_| self.db.needs.codes)),
            password = optional(self.password_column().filter(|_| self.db.needs.passwords)),
            source = users.source.as_ref().map_or("NULL".to_owned(), |s| format!("u.{}", quoted(s))),
            table = quoted(&users.table),
            value = quoted(&cards.value),
            end = read_end(&cards.expires, &format!("c.{}", quoted(&cards.expires.column))),
            card_table = quoted(&cards.table),
        )
    }
}

/// The expiry column as seconds of its own wall clock. What holds text is taken as it stands; see the PostgreSQL dialect for
/// what the zone means to a number.
fn read_end(map: &ExpiresMap, column: &str) -> String {
    let seconds = match map.kind {
        ExpiresKind::Timestamp | ExpiresKind::Timestamptz | ExpiresKind::Date => return format!("unixepoch({column})"),
        ExpiresKind::EpochSeconds => column.to_owned(),
        // Rounded down before 1970 too; SQLite's own division rounds towards zero.
        ExpiresKind::EpochMillis => format!("(({column} - (({column} % 1000) + 1000) % 1000) / 1000)"),
    };
    match map.zone {
        Zone::Utc => format!("CAST({seconds} AS integer)"),
        Zone::Local => format!("unixepoch({seconds}, 'unixepoch', 'localtime')"),
    }
}

/// The column's value for `seconds`; a date is rounded up.
fn write_end(map: &ExpiresMap, seconds: &str) -> String {
    let moment = match map.zone {
        Zone::Utc => seconds.to_owned(),
        Zone::Local => format!("unixepoch({seconds}, 'unixepoch', 'utc')"),
    };
    match map.kind {
        ExpiresKind::Timestamp | ExpiresKind::Timestamptz => format!("datetime({seconds}, 'unixepoch')"),
        ExpiresKind::Date => format!("date({seconds} + 86399, 'unixepoch')"),
        ExpiresKind::EpochSeconds => moment,
        ExpiresKind::EpochMillis => format!("({moment}) * 1000"),
    }
}

fn decode(row: &rusqlite::Row<'_>) -> rusqlite::Result<sql::Row> {
    Ok(sql::Row {
        id: row.get(0)?,
        login: row.get(1)?,
        email: row.get(2)?,
        name: row.get(3)?,
        surname: row.get(4)?,
        is_user: row.get(5)?,
        is_deleted: row.get(6)?,
        center: (row.get(7)?, row.get(8)?),
        roles: list(row, 13)?,
        source: row.get(9)?,
        code: row.get(10)?,
        password: row.get(11)?,
        cards: list(row, 12)?,
    })
}

/// A column that holds a list as JSON; NULL is none.
fn list<T: DeserializeOwned>(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Vec<T>> {
    let json: Option<String> = row.get(column)?;
    let items = json.map(|json| serde_json::from_str(&json)).transpose();
    let wrong = |_| rusqlite::Error::InvalidColumnType(column, "a list".to_owned(), rusqlite::types::Type::Text);
    items.map_err(wrong).map(Option::unwrap_or_default)
}

fn values(binder: &Binder) -> impl Iterator<Item = Sql> + '_ {
    binder.args.iter().map(|arg| match arg {
        Arg::Int(Some(n)) => Sql::Integer(*n),
        Arg::Text(t) => Sql::Text(t.clone()),
        // SQLite has no arrays, and nothing here makes one.
        Arg::Int(None) | Arg::Ints(_) | Arg::Texts(_) => Sql::Null,
    })
}

type ChunkSender<T> = mpsc::Sender<Result<Vec<T>, StoreError>>;

/// What `work` sends from a thread that may block. Chunks cross a channel of two: a slow reader holds the statement back.
fn streamed<T: Send + 'static, W>(work: W) -> impl Stream<Item = Result<Vec<T>, StoreError>> + Send + use<T, W>
where
    W: FnOnce(&ChunkSender<T>) -> Result<(), StoreError> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(2);
    let start: Box<dyn FnOnce() + Send> = Box::new(move || {
        if let Err(error) = work(&sender) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    stream::unfold((receiver, Some(start)), |(mut receiver, start)| async move {
        if let Some(start) = start {
            tokio::task::spawn_blocking(start);
        }
        receiver.recv().await.map(|chunk| (chunk, (receiver, None)))
    })
}

/// Gathers what is sent on.
struct Chunk<'a, T> {
    to: &'a ChunkSender<T>,
    items: Vec<T>,
}

impl<'a, T> Chunk<'a, T> {
    fn new(to: &'a ChunkSender<T>) -> Chunk<'a, T> {
        Chunk { to, items: Vec::new() }
    }

    /// `false`: nobody reads any more.
    fn push(&mut self, item: T) -> bool {
        self.items.push(item);
        self.items.len() < CHUNK || self.to.blocking_send(Ok(std::mem::take(&mut self.items))).is_ok()
    }

    fn end(self) {
        if !self.items.is_empty() {
            let _ = self.to.blocking_send(Ok(self.items));
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(StoreError::Task))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `floor` would do, but this SQLite has no such function.
    #[test]
    fn milliseconds_are_read_as_whole_seconds_rounded_down() {
        let map = ExpiresMap { column: "end".to_owned(), kind: ExpiresKind::EpochMillis, zone: Zone::Utc };
        let db = Connection::open_in_memory().unwrap();
        let read =
            |value: &str| -> Option<i64> { db.query_row(&format!("SELECT {}", read_end(&map, value)), [], |row| row.get(0)).unwrap() };
        for (value, seconds) in
            [("1999", Some(1)), ("0", Some(0)), ("-1", Some(-1)), ("-1000", Some(-1)), ("-1001", Some(-2)), ("NULL", None)]
        {
            assert_eq!(read(value), seconds, "{value}");
        }
    }
}
