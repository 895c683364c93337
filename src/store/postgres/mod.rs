//! PostgreSQL. Reading sessions come from a pool and are read-only; there is one writing session (`write.rs`), and the
//! leadership has one of its own.
//!
//! Statements are sent with their types, parsed and planned anew each time, in one round trip: a plan that was made for ten
//! users is never reused for a thousand, and a connection pooler in between sees no prepared statements.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use deadpool::Runtime;
use deadpool::managed::{self, PoolError, TimeoutType};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::config::schema_map::{LinkMap, Member, RolesMap, Zone};
use crate::config::{DatabaseConfig, DatabaseTarget};
use crate::domain::{CostCenter, CostCenterId, CostCenterRef, Role, RoleId, RoleRef, Timestamp, UserId, WallClock};
use crate::inventory::{Counts, Pulse, ReadOnly};

use super::AfterImage;
use super::counts::{NUMBERS, Question, counts};
use super::error::{Cause, Kind, StoreError};
use super::sql::{Arg, Binder, NAMES, quoted};

mod connect;
mod expiry;
mod inspect;
mod leader;
mod places;
mod read;
mod session;
mod stored;
mod write;

pub(super) use write::{Transaction, Writer};

use connect::{Connector, Reading};
use session::{GRACE, within};

/// A reading session out of the pool.
type Object = managed::Object<Reading>;

pub(super) struct Postgres {
    db: DatabaseConfig,
    connector: Arc<Connector>,
    pool: managed::Pool<Reading>,
    /// Filled once it is known that no pooler hands our sessions around.
    alone: OnceCell<()>,
    layout: OnceCell<Layout>,
}

/// How the map meets this database; asked for once, at the first use.
struct Layout {
    /// Qualified and quoted.
    users: String,
    cards: String,
    cost_centers: String,
    /// The table that ties users to cost centers, where the map has one.
    center_links: Option<String>,
    roles: Option<RoleTables>,
    /// The schema that really holds the users table.
    schema: String,
    /// Whether the columns or the table are there that name a user's cost center. Without them everybody is in cost center 0, number 0:
    /// policies that need more are refused by the inspection.
    member: bool,
    source: bool,
    puk: bool,
    password: bool,
    /// The types of the columns of `cards`, as the server writes them.
    card_types: HashMap<String, String>,
    /// `AS MATERIALIZED`, or `AS` before version 12, which always does.
    materialized: &'static str,
}

/// Qualified and quoted.
struct RoleTables {
    roles: String,
    links: String,
}

impl Layout {
    /// The key of the write lock: one per product and resolved schema.
    fn write_lock(&self) -> i64 {
        lock_key("credkeeper", &self.schema)
    }

    fn leader_lock(&self) -> i64 {
        lock_key("credkeeper leader ", &self.schema)
    }
}

/// The first 8 bytes of SHA-256(`product` ‖ `schema`).
fn lock_key(product: &str, schema: &str) -> i64 {
    let digest = Sha256::new().chain_update(product).chain_update(schema).finalize();
    let mut key = [0; 8];
    key.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(key)
}

impl Postgres {
    pub(super) fn new(db: &DatabaseConfig) -> Result<Postgres, StoreError> {
        let connector = Arc::new(Connector::new(db));
        let limit = Some(connector.limit());
        let pool = managed::Pool::builder(Reading(connector.clone()))
            .max_size(db.pool_size.max(1))
            .wait_timeout(Some(db.statement_timeout + GRACE))
            .create_timeout(limit)
            .recycle_timeout(limit)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|e| StoreError::query("building the connection pool", Cause::new(Kind::Query, e.to_string())))?;
        Ok(Postgres { db: db.clone(), connector, pool, alone: OnceCell::new(), layout: OnceCell::new() })
    }

    async fn alone(&self) -> Result<(), StoreError> {
        self.alone.get_or_try_init(|| self.connector.look_for_pooler()).await.copied()
    }

    async fn reading(&self) -> Result<Object, StoreError> {
        self.alone().await?;
        let refused = |message| StoreError::Connect { server: self.connector.server(), source: Cause::new(Kind::Connect, message) };
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(TimeoutType::Wait) => {
                StoreError::Deadline { step: "waiting for a free connection", after: self.db.statement_timeout + GRACE }
            }
            PoolError::Timeout(_) => refused(format!("no answer within {} s", self.connector.limit().as_secs())),
            other => refused(other.to_string()),
        })
    }

    async fn layout(&self, client: &Client) -> Result<&Layout, StoreError> {
        self.layout.get_or_try_init(|| self.look_around(client)).await
    }

    async fn look_around(&self, client: &Client) -> Result<Layout, StoreError> {
        let map = &self.db.map;
        let qualified = |table: &str| match &self.db.schema {
            Some(schema) => format!("{}.{}", quoted(schema), quoted(table)),
            None => quoted(table),
        };
        let users = qualified(&map.users.table);
        let mut binder = Binder::postgres();
        let table = binder.text(&users);
        let cost_centers = qualified(&map.cost_centers.table);
        let places = binder.text(&cost_centers);
        let center_links = match &map.cost_centers.member {
            Member::Link(link) => Some(qualified(&link.table)),
            Member::Column { .. } => None,
        };
        let links = binder.text(center_links.as_ref().unwrap_or(&users));
        let sql = format!(
            "SELECT n.nspname::text, current_setting('server_version_num')::bigint,
                    (SELECT array_agg(a.attname::text) FROM pg_attribute a
                      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), to_regclass({places}) IS NOT NULL,
                    to_regclass({links}) IS NOT NULL
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass({table})"
        );
        let rows = self.rows(client, "look for the users table", &sql, &binder.args).await?;
        let Some(row) = rows.first() else {
            let missing = Cause::new(Kind::Schema, format!("there is no table {users}"));
            return Err(StoreError::query("look for the users table", missing));
        };
        let columns: Vec<String> = row.get::<_, Option<Vec<String>>>(2).unwrap_or_default();
        let has = |name: &String| columns.contains(name);
        let cards = qualified(&map.cards.table);
        let mut binder = Binder::postgres();
        let sql = format!(
            "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
              WHERE a.attrelid = to_regclass({}) AND a.attnum > 0 AND NOT a.attisdropped",
            binder.text(&cards)
        );
        let types = self.rows(client, "look for the cards table", &sql, &binder.args).await?;
        Ok(Layout {
            card_types: types.iter().map(|r| (r.get(0), r.get(1))).collect(),
            cards,
            cost_centers,
            center_links,
            roles: map.roles.as_ref().map(|map| RoleTables { roles: qualified(&map.table), links: qualified(&map.link.table) }),
            schema: row.get(0),
            member: match &map.cost_centers.member {
                Member::Column { id, number } => has(id) && number.as_ref().map_or(row.get(3), has),
                Member::Link(_) => row.get(3) && row.get(4),
            },
            source: map.users.source.as_ref().is_some_and(has),
            puk: map.users.puk.as_ref().is_some_and(|puk| has(&puk.column)),
            password: map.users.password.as_ref().is_some_and(has),
            materialized: if row.get::<_, i64>(1) >= 120_000 { "AS MATERIALIZED" } else { "AS" },
            users,
        })
    }

    /// Runs one statement and collects its rows, within the deadline.
    async fn rows(&self, client: &Client, step: &'static str, sql: &str, args: &[Arg]) -> Result<Vec<Row>, StoreError> {
        let args: Vec<_> = args.iter().map(Arg::typed).collect();
        within(step, self.db.statement_timeout + GRACE, client.query_typed(sql, &args)).await
    }

    /// Our reading sessions are read-only by a setting of their own: what they started with is asked for.
    pub(super) async fn pulse(&self) -> Result<Pulse, StoreError> {
        const STEP: &str = "ask for the time";
        let client = self.reading().await?;
        let sql =
            "SELECT floor(date_part('epoch', t.now::timestamp))::bigint, floor(date_part('epoch', t.now))::bigint, pg_is_in_recovery(),
                          (SELECT s.reset_val = 'on' FROM pg_settings s WHERE s.name = 'default_transaction_read_only')
                     FROM (SELECT clock_timestamp() AS now) t";
        let rows = self.rows(&client, STEP, sql, &[]).await?;
        let row = only(&rows, STEP)?;
        let utc = Timestamp(row.get(1));
        let wall = match self.db.map.cards.expires.zone {
            Zone::Local => WallClock(row.get(0)),
            Zone::Utc => WallClock(utc.0),
        };
        let read_only = match (row.get(2), row.get(3)) {
            (true, _) => Some(ReadOnly::Standby),
            (false, Some(true)) => Some(ReadOnly::Setting),
            (false, _) => None,
        };
        if read_only.is_some() {
            // A session is told of it when it begins, and not when it is over.
            drop(Object::take(client));
            self.pool.retain(|_, _| false);
        }
        Ok(Pulse { wall, utc, read_only })
    }

    pub(super) async fn counts(&self) -> Result<Counts, StoreError> {
        let client = self.reading().await?;
        let layout = self.layout(&client).await?;
        let map = &self.db.map;
        let mut binder = Binder::postgres();
        let held = |column: Option<String>| column.map(|column| format!("u.{column}::text <> ''"));
        let question = Question {
            codes: &held(self.code_column(layout).filter(|_| self.db.needs.codes)),
            passwords: &held(self.password_column(layout).filter(|_| self.db.needs.passwords)),
            users: &layout.users,
            cards: &layout.cards,
            id: &quoted(&map.users.id),
            value: &format!("c.{}::text", quoted(&map.cards.value)),
            real: &self.real(&mut binder),
            format: self.db.pin_format,
            typed: true,
        };
        let rows = self.rows(&client, "count", &question.statement(), &binder.args).await?;
        let row = only(&rows, "count")?;
        Ok(counts(std::array::from_fn(|i| row.get(i)), row.get(NUMBERS)))
    }

    /// One look into the index of the key.
    pub(super) async fn newest(&self) -> Result<UserId, StoreError> {
        let client = self.reading().await?;
        let layout = self.layout(&client).await?;
        let sql =
            format!("SELECT coalesce(max(u.{id}), 0)::bigint FROM {users} u", id = quoted(&self.db.map.users.id), users = layout.users);
        let rows = self.rows(&client, "newest", &sql, &[]).await?;
        Ok(UserId(only(&rows, "newest")?.get(0)))
    }

    pub(super) async fn present(&self, images: &[AfterImage]) -> Result<Vec<bool>, StoreError> {
        let client = self.reading().await?;
        let layout = self.layout(&client).await?;
        let mut all = Vec::with_capacity(images.len());
        for part in images.chunks(super::sql::LOOK_UP) {
            all.extend(self.look_up(&client, layout, part).await?);
        }
        Ok(all)
    }

    /// [`Standing::Active`](crate::inventory::Standing) of row `u`.
    fn real(&self, binder: &mut Binder) -> String {
        let users = &self.db.map.users;
        let mut real = binder.test("u", &users.is_user);
        if let Some(deleted) = &users.is_deleted {
            real = format!("{real} AND NOT {}", binder.test("u", deleted));
        }
        if let Some(template) = &self.db.template_user {
            let template = binder.text(template);
            real = format!("{real} AND coalesce(u.{}::text <> {template}, true)", quoted(&users.login));
        }
        format!("({real})")
    }

    /// A session outside the pool, able to write.
    pub(super) async fn connect_alone(&self) -> Result<Client, StoreError> {
        self.alone().await?;
        self.connector.writing().await
    }

    /// A session of its own that holds the leadership lock; `None` where another session holds it.
    pub(super) async fn lead(&self) -> Result<Option<(Client, i64)>, StoreError> {
        let client = self.connect_alone().await?;
        let key = self.layout(&client).await?.leader_lock();
        let mut binder = Binder::postgres();
        let sql = format!("SELECT pg_try_advisory_lock({})", binder.int(key));
        let rows = self.rows(&client, "take the leadership", &sql, &binder.args).await?;
        Ok(only(&rows, "take the leadership")?.get::<_, bool>(0).then_some((client, key)))
    }

    /// Whether the session still holds the lock, asked on that very session.
    pub(super) async fn leads(&self, client: &Client, key: i64) -> Result<bool, StoreError> {
        let mut binder = Binder::postgres();
        let sql = format!(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid() AND objsubid = 1
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND ((classid::bigint << 32) | objid::bigint) = {}",
            binder.int(key)
        );
        let rows = self.rows(client, "verify the leadership", &sql, &binder.args).await?;
        Ok(only(&rows, "verify the leadership")?.get::<_, i64>(0) > 0)
    }
}

impl Arg {
    fn typed(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Arg::Int(n) => (n, Type::INT8),
            Arg::Text(t) => (t, Type::TEXT),
            Arg::Ints(n) => (n, Type::INT8_ARRAY),
            Arg::Texts(t) => (t, Type::TEXT_ARRAY),
        }
    }
}

fn only<'r>(rows: &'r [Row], step: &'static str) -> Result<&'r Row, StoreError> {
    rows.first().ok_or_else(|| StoreError::query(step, Cause::new(Kind::Query, "the answer was empty")))
}

/// So that callers need not name the pool's lifetime.
pub(super) type Shared = Arc<Postgres>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_keys_never_change() {
        // From `printf credkeepertenant_1 | sha256sum`: another value would let an old and a new version write together.
        assert_eq!(lock_key("credkeeper", "tenant_1"), 3_709_224_302_958_588_367);
        assert_ne!(lock_key("credkeeper", "tenant_1"), lock_key("credkeeper leader ", "tenant_1"));
        assert_ne!(lock_key("credkeeper", "tenant_1"), lock_key("credkeeper", "tenant_2"));
    }
}
