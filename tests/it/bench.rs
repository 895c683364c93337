//! A database to test the store on, of either dialect: filled and looked at by SQL of its own, never through the store.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use credkeeper::config::schema_map::{
    CardsMap, CostCentersMap, ExpiresKind, ExpiresMap, GuessedColumn, LinkMap, Member, RolesMap, Test, UsersMap, Value, Zone,
};
use credkeeper::config::{DatabaseConfig, DatabaseTarget, SchemaMap};
use credkeeper::domain::{CostCenter, CostCenterId, PasswordEncoding, Pin, PinFormat, StoredValue, UserId, WallClock};
use credkeeper::inventory::{Membership, StoredPin, User};
use credkeeper::policy::Needs;
use credkeeper::store::{Filter, Move, NewPin, PinChange, PinTarget, Reader, Store, UserChange};
use futures_util::TryStreamExt;

#[cfg(unix)]
use crate::pg::TestDb;

/// 2030-01-01 00:00:00 on the column's wall clock: a midnight, so that a date column can hold it.
pub const LATER: i64 = 1_893_456_000;
/// 2020-01-01 00:00:00.
pub const LONG_AGO: i64 = 1_577_836_800;

pub struct Bench {
    pub config: DatabaseConfig,
    server: Server,
}

enum Server {
    #[cfg(unix)]
    Postgres(TestDb),
    Sqlite {
        path: PathBuf,
        _dir: tempfile::TempDir,
    },
}

/// A user as a test wants one.
#[derive(Clone, Debug)]
pub struct NewUser {
    pub id: i64,
    pub login: String,
    pub email: Option<String>,
    pub name: String,
    pub surname: String,
    pub flag: i64,
    pub center: (i64, i64),
    pub source: Option<String>,
}

impl NewUser {
    pub fn new(id: i64, login: &str) -> NewUser {
        NewUser {
            id,
            login: login.into(),
            email: Some(format!("{id}@example.com")),
            name: "Jana".into(),
            surname: "Nováková".into(),
            flag: 1,
            center: (0, 0),
            source: Some("INTERNAL_DATABASE".into()),
        }
    }
}

/// The shipped map for SafeQ 6.
pub fn safeq6() -> SchemaMap {
    let text = |name: &str| name.to_owned();
    SchemaMap {
        users: UsersMap {
            table: text("users"),
            id: text("id"),
            id_grows: true,
            login: text("login"),
            email: text("email"),
            name: text("name"),
            surname: text("surname"),
            source: Some(text("source")),
            password: Some(text("pass")),
            puk: Some(GuessedColumn { column: text("puk"), verified: true }),
            is_user: Test::All(vec![
                Test::BitsSet { column: text("flag"), mask: 1 },
                Test::BitsClear { column: text("flag"), mask: 49_152 },
            ]),
            is_deleted: None,
        },
        cards: CardsMap {
            table: text("users_cards"),
            user: text("user_id"),
            value: text("card"),
            expires: ExpiresMap { column: text("pin_expiration_date"), kind: ExpiresKind::Timestamp, zone: Zone::Local },
            insert_defaults: vec![(text("replicated_card"), Value::Number(0)), (text("replicated_card_flag"), Value::Number(0))],
        },
        cost_centers: CostCentersMap {
            table: text("ou"),
            id: text("id"),
            number: text("number"),
            name: text("name"),
            rows: None,
            member: Member::Column { id: text("ou_id"), number: Some(text("ou_number")) },
            verified: true,
        },
        roles: Some(RolesMap {
            table: text("users"),
            id: text("id"),
            name: text("login"),
            rows: Some(Test::BitsSet { column: text("flag"), mask: 32_768 }),
            link: LinkMap { table: text("users_roles"), user: text("user_id"), to: text("role_id") },
            verified: true,
        }),
    }
}

pub fn config(target: DatabaseTarget, schema: Option<&str>) -> DatabaseConfig {
    DatabaseConfig {
        policies: Vec::new(),
        name: "main".into(),
        target,
        schema: schema.map(str::to_owned),
        map: safeq6(),
        pool_size: 4,
        connect_timeout: Duration::from_secs(5),
        statement_timeout: Duration::from_secs(20),
        pin_format: PinFormat::Md5,
        cac_cipher: None,
        password_encoding: PasswordEncoding::default(),
        needs: Needs::default(),
        template_user: Some("template".into()),
    }
}

impl Bench {
    #[cfg(unix)]
    pub async fn postgres() -> Bench {
        let db = TestDb::new().await;
        let target = DatabaseTarget::Postgres {
            hosts: vec![("127.0.0.1".into(), db.port)],
            database: db.name.clone(),
            user: "credkeeper".into(),
            password: None,
            tls: None,
        };
        Bench { config: config(target, Some("tenant_1")), server: Server::Postgres(db) }
    }

    pub async fn sqlite() -> Bench {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("test.db");
        let connection = rusqlite::Connection::open(&path).expect("a database file");
        connection.execute_batch(include_str!("../../src/sandbox/tables.sql")).expect("tables");
        let centers = "INSERT INTO ou (id, number, name) VALUES (0, 0, 'Default'), (11, 100, 'Needs PIN'), (12, 200, 'Has PIN')";
        connection.execute_batch(centers).expect("cost centers");
        Bench { config: config(DatabaseTarget::Sqlite { path: path.clone() }, None), server: Server::Sqlite { path, _dir: dir } }
    }

    #[cfg(unix)]
    pub fn is_postgres(&self) -> bool {
        matches!(self.server, Server::Postgres(_))
    }

    pub async fn store(&self) -> Store {
        Store::connect(&self.config).await.expect("a store")
    }

    pub async fn sql(&self, statements: &str) {
        match &self.server {
            #[cfg(unix)]
            Server::Postgres(db) => db.sql(statements).await,
            Server::Sqlite { path, .. } => {
                let connection = rusqlite::Connection::open(path).expect("the database");
                connection.execute_batch(statements).unwrap_or_else(|e| panic!("{e}\nin: {statements}"));
            }
        }
    }

    pub async fn rows(&self, query: &str) -> Vec<Vec<Option<String>>> {
        match &self.server {
            #[cfg(unix)]
            Server::Postgres(db) => db.rows(query).await,
            Server::Sqlite { path, .. } => {
                let connection = rusqlite::Connection::open(path).expect("the database");
                let mut statement = connection.prepare(query).unwrap_or_else(|e| panic!("{e}\nin: {query}"));
                let width = statement.column_count();
                let row = |row: &rusqlite::Row<'_>| {
                    (0..width)
                        .map(|i| {
                            row.get::<_, rusqlite::types::Value>(i).map(|value| match value {
                                rusqlite::types::Value::Null => None,
                                rusqlite::types::Value::Integer(n) => Some(n.to_string()),
                                rusqlite::types::Value::Real(n) => Some(n.to_string()),
                                rusqlite::types::Value::Text(t) => Some(t),
                                rusqlite::types::Value::Blob(_) => panic!("a blob"),
                            })
                        })
                        .collect()
                };
                statement.query_map([], row).expect("rows").collect::<Result<_, _>>().expect("rows")
            }
        }
    }

    /// `schema.table`, quoted.
    pub fn table(&self, name: &str) -> String {
        match &self.config.schema {
            Some(schema) => format!("\"{schema}\".\"{name}\""),
            None => format!("\"{name}\""),
        }
    }

    /// Back to no users and no cards.
    pub async fn reset(&self) {
        let (cards, users) = (self.table(&self.config.map.cards.table), self.table(&self.config.map.users.table));
        if let Some(roles) = self.config.map.roles.as_ref().filter(|_| self.config.needs.roles) {
            self.sql(&format!("DELETE FROM {}", self.table(&roles.link.table))).await;
        }
        if let Member::Link(link) = &self.config.map.cost_centers.member {
            self.sql(&format!("DELETE FROM {}", self.table(&link.table))).await;
        }
        self.sql(&format!("DELETE FROM {cards}; DELETE FROM {users}")).await;
    }

    pub async fn add_users(&self, users: &[NewUser]) {
        let map = &self.config.map.users;
        let [center, number] = self.member_columns();
        let rows: Vec<String> = users
            .iter()
            .map(|u| {
                let (email, source) = (literal(u.email.as_deref()), literal(u.source.as_deref()));
                let (login, name, surname) = (literal(Some(&u.login)), literal(Some(&u.name)), literal(Some(&u.surname)));
                format!("({}, {login}, {email}, {name}, {surname}, {}, {}, {}, {source})", u.id, u.flag, u.center.0, u.center.1)
            })
            .collect();
        let source = map.source.as_deref().unwrap_or("source");
        let flag = flag_of(&map.is_user);
        let columns = [map.id.as_str(), &map.login, &map.email, &map.name, &map.surname, flag, center, number, source];
        let columns = columns.map(|c| format!("\"{c}\"")).join(", ");
        self.sql(&format!("INSERT INTO {} ({columns}) VALUES {}", self.table(&map.table), rows.join(", "))).await;
    }

    /// A map without the columns is tried on the vendor's tables all the same: they are there and must stay as they are.
    pub fn member_columns(&self) -> [&str; 2] {
        match &self.config.map.cost_centers.member {
            Member::Column { id, number } => [id, number.as_deref().unwrap_or("ou_number")],
            Member::Link(_) => ["ou_id", "ou_number"],
        }
    }

    pub async fn add_user(&self, user: NewUser) {
        self.add_users(&[user]).await;
    }

    /// Adds a row to the cards; `extra` goes into a column that the map does not know.
    pub async fn add_card(&self, user: i64, value: &str, expires: Option<i64>, extra: &str) {
        let map = &self.config.map.cards;
        let end = expires.map_or("NULL".to_owned(), |at| self.end(at));
        self.sql(&format!(
            "INSERT INTO {} (\"{}\", \"{}\", \"{}\", dual_pin, replicated_card, replicated_card_flag) VALUES ({user}, {}, {end}, {}, 7, 8)",
            self.table(&map.table),
            map.user,
            map.value,
            map.expires.column,
            literal(Some(value)),
            literal(Some(extra)),
        ))
        .await;
    }

    /// What the expiry column of this database holds for a reading of its clock.
    fn end(&self, at: i64) -> String {
        let expires = &self.config.map.cards.expires;
        #[cfg(unix)]
        if self.is_postgres() {
            // Written as people would, not as the store does.
            let naive = format!("(timestamp 'epoch' + interval '{at} seconds')");
            let zone = if expires.zone == Zone::Utc { "UTC" } else { "Europe/Prague" };
            return match expires.kind {
                ExpiresKind::Timestamp => naive,
                ExpiresKind::Timestamptz => format!("({naive} AT TIME ZONE '{zone}')"),
                ExpiresKind::Date => format!("{naive}::date"),
                ExpiresKind::EpochSeconds => format!("extract(epoch FROM {naive} AT TIME ZONE '{zone}')::bigint"),
                ExpiresKind::EpochMillis => format!("extract(epoch FROM {naive} AT TIME ZONE '{zone}')::bigint * 1000 + 999"),
            };
        }
        assert_eq!(expires.kind, ExpiresKind::Timestamp);
        format!("datetime({at}, 'unixepoch')")
    }

    /// The user's rows of the card column as text, sorted: value, expiry as the database prints it, `dual_pin`, both flags.
    pub async fn cards(&self, user: i64) -> Vec<Vec<Option<String>>> {
        let map = &self.config.map.cards;
        self.rows(&format!(
            "SELECT \"{0}\", CAST(\"{1}\" AS text), dual_pin, replicated_card, replicated_card_flag FROM {2} WHERE \"{3}\" = {user} ORDER BY 1, 2",
            map.value,
            map.expires.column,
            self.table(&map.table),
            map.user
        ))
        .await
    }

    pub async fn card_values(&self, user: i64) -> Vec<String> {
        self.cards(user).await.into_iter().map(|row| row[0].clone().unwrap_or_default()).collect()
    }

    pub async fn center(&self, user: i64) -> (i64, i64) {
        let users = &self.config.map.users;
        let [center, number] = self.member_columns();
        let query = format!("SELECT \"{}\", \"{}\" FROM {} WHERE \"{}\" = {user}", center, number, self.table(&users.table), users.id);
        let rows = self.rows(&query).await;
        let number = |i: usize| rows[0][i].as_deref().unwrap_or("0").parse().expect("a number");
        (number(0), number(1))
    }
}

/// The column that the shipped `is_user` looks at.
fn flag_of(test: &Test) -> &str {
    match test {
        Test::BitsSet { column, .. } => column,
        Test::All(tests) => flag_of(&tests[0]),
        _ => "flag",
    }
}

/// A text for both dialects: no escapes, quotes doubled.
pub fn literal(text: Option<&str>) -> String {
    text.map_or("NULL".to_owned(), |t| format!("'{}'", t.replace('\'', "''")))
}

/// All that a read returns, by id.
pub async fn read(reader: &Reader, filter: &Filter) -> Vec<User> {
    let chunks: Vec<Vec<User>> = reader.read(filter).try_collect().await.expect("the read succeeds");
    for chunk in &chunks {
        assert!((1..=1000).contains(&chunk.len()), "a chunk of {}", chunk.len());
    }
    let mut users: Vec<User> = chunks.into_iter().flatten().collect();
    users.sort_by_key(|u| u.id);
    users
}

/// The user with this id, as the store reads it.
pub async fn user(reader: &Reader, id: i64) -> User {
    let all = read(reader, &Filter::default()).await;
    all.into_iter().find(|u| u.id.0 == id).expect("the user is there")
}

pub fn stored(digits: &str) -> StoredValue {
    PinFormat::Md5.encode(&Pin::new(digits.into()))
}

pub fn pin(digits: &str) -> String {
    stored(digits).expose().to_owned()
}

/// A change of the PIN from what the user has to `digits`.
pub fn new_pin(user: &User, digits: &str, expires: Option<i64>) -> UserChange {
    let new = NewPin { value: stored(digits), forms: PinFormat::every_form(&Pin::new(digits.into())), expires: expires.map(WallClock) };
    let change = PinChange { old: user.pins.clone(), to: PinTarget::New(new) };
    UserChange { pin: Some(change), ..UserChange::of(user.id) }
}

/// The same, with another text as the stored value: anything that a column can hold.
pub fn with_value(mut change: UserChange, value: &str) -> UserChange {
    if let Some(PinTarget::New(new)) = change.pin.as_mut().map(|pin| &mut pin.to) {
        new.value = StoredValue::new(value.to_owned());
    }
    change
}

/// Another end for those of the user's PINs that `chosen` picks.
pub fn end_pins(user: &User, at: i64, chosen: impl Fn(&StoredPin) -> bool) -> UserChange {
    let pins = user.pins.iter().filter(|pin| chosen(pin)).cloned().collect();
    let change = PinChange { old: user.pins.clone(), to: PinTarget::End { pins, at: Some(WallClock(at)) } };
    UserChange { pin: Some(change), ..UserChange::of(user.id) }
}

/// No more of those of the user's PINs that `chosen` picks.
pub fn remove_pins(user: &User, chosen: impl Fn(&StoredPin) -> bool) -> UserChange {
    let pins = user.pins.iter().filter(|pin| chosen(pin)).cloned().collect();
    let change = PinChange { old: user.pins.clone(), to: PinTarget::Gone { pins } };
    UserChange { pin: Some(change), ..UserChange::of(user.id) }
}

pub fn has_pin() -> CostCenter {
    CostCenter { id: CostCenterId(12), number: 200, name: "Has PIN".into() }
}

pub fn moved(mut change: UserChange, from: Membership, to: CostCenter) -> UserChange {
    change.cost_center = Some(Move { from, to });
    change
}

pub fn only_move(user: &User, to: CostCenter) -> UserChange {
    UserChange { cost_center: Some(Move { from: user.cost_center, to }), ..UserChange::of(user.id) }
}

pub fn named(value: &str, expires: Option<i64>) -> StoredPin {
    StoredPin::found(StoredValue::new(value.into()), expires.map(WallClock))
}

pub fn ids(users: &[User]) -> BTreeSet<i64> {
    users.iter().map(|u| u.id.0).collect()
}

pub fn user_id(id: i64) -> UserId {
    UserId(id)
}
