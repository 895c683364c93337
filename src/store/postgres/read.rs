//! Users with their cards, by one statement, streamed.
//!
//! The shape of every statement here is chosen for the planner, which may know nothing of these tables (measured: nested
//! loops of minutes): what is picked is picked into a MATERIALIZED list of ids first, the tests on users stand outside the
//! joins, and a boolean is wrapped so that it is expected to hold for half of the rows. A user with several cards is several
//! rows in a row: sorting them took a third of the time of collecting them into arrays, and spills less.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{Stream, StreamExt, stream};
use tokio_postgres::{Client, Row, RowStream};

use crate::domain::UserId;
use crate::inventory::User;
use crate::store::error::{Cause, StoreError};
use crate::store::sql::{self, Arg, Binder, CHUNK, is_pin, quoted};
use crate::store::{DueFilter, Filter, InCostCenter, Pinless};

use super::connect::Connector;
use super::{GRACE, Layout, Object, Postgres, expiry, within};

impl Postgres {
    pub(in crate::store) fn read(
        &self,
        filter: &Filter,
        pinless: Pinless,
    ) -> impl Stream<Item = Result<Vec<User>, StoreError>> + Send + '_ {
        stream::try_unfold(Reading::Asked(Box::new(filter.clone()), pinless), move |state| self.next_chunk(state))
    }

    async fn next_chunk(&self, state: Reading) -> Result<Option<(Vec<User>, Reading)>, StoreError> {
        let mut running = match state {
            Reading::Asked(filter, pinless) => self.start(*filter, pinless).await?,
            Reading::Running(running) => running,
            Reading::Ended => return Ok(None),
        };
        let limit = self.db.statement_timeout + GRACE;
        let late = |_| StoreError::Deadline { step: STEP, after: limit };
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK {
            let row = tokio::time::timeout(limit, running.rows.next()).await.map_err(late)?;
            let row = row.transpose().map_err(|e| StoreError::query(STEP, e))?;
            let ended = row.is_none();
            let complete = match row {
                Some(row) => running.people.take(&row).map_err(|e| StoreError::query(STEP, e))?,
                None => running.people.last(),
            };
            chunk.extend(complete.map(|row| row.into_user(&self.db)).filter(|user| running.filter.accepts(user)));
            if ended {
                let duration_ms = u64::try_from(running.start.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::debug!(query = STEP, duration_ms, "Asked the database");
                running.session.done = true;
                return Ok((!chunk.is_empty()).then_some((chunk, Reading::Ended)));
            }
        }
        Ok(Some((chunk, Reading::Running(running))))
    }

    async fn start(&self, filter: Filter, pinless: Pinless) -> Result<Box<Running>, StoreError> {
        let client = self.reading().await?;
        let layout = self.layout(&client).await?;
        let mut binder = Binder::postgres();
        let statement = self.statement(layout, &filter, &mut binder);
        let args = binder.args.iter().map(Arg::typed);
        let rows = within("start reading users", self.db.statement_timeout + GRACE, client.query_typed_raw(&statement, args)).await?;
        let session = Session::new(self, client);
        Ok(Box::new(Running { filter, rows: Box::pin(rows), people: People { current: None, pinless }, session, start: Instant::now() }))
    }

    fn statement(&self, layout: &Layout, filter: &Filter, binder: &mut Binder) -> String {
        let users = &self.db.map.users;
        let (id, login) = (quoted(&users.id), quoted(&users.login));
        if let Some(wanted) = &filter.login {
            let picked = format!("SELECT u.{id}::bigint FROM {} u WHERE u.{login}::text = {}", layout.users, binder.text(wanted));
            self.users_of(layout, &picked, "true", binder)
        } else if let Some(above) = filter.above {
            // A poll sees few rows: the rest of the filter is left to the caller's side.
            let picked = format!("SELECT u.{id}::bigint FROM {} u WHERE u.{id} > {}", layout.users, binder.int(above.0));
            self.users_of(layout, &picked, "true", binder)
        } else if let Some(due) = &filter.due {
            self.due(layout, due, binder)
        } else {
            let (columns, (value, end)) = (self.columns(layout, binder), self.card());
            let (of_roles, roles) = self.roles_joined(layout, None);
            format!(
                "SELECT {columns}, {value}, {end}, {roles} FROM {users} u {placed} {of_roles} LEFT JOIN {cards} c ON c.{owner} = u.{id} ORDER BY u.{id}",
                users = layout.users,
                cards = layout.cards,
                owner = quoted(&self.db.map.cards.user),
                placed = self.joined(layout, None),
            )
        }
    }

    /// Ids that may be due. Nothing here groups cards or looks at all of a user's rows: that is done only for the ids found.
    fn due(&self, layout: &Layout, due: &DueFilter, binder: &mut Binder) -> String {
        let map = &self.db.map;
        let (id, owner) = (quoted(&map.users.id), quoted(&map.cards.user));
        let (center, number) = self.membership(layout);
        let value = format!("c.{}::text", quoted(&map.cards.value));
        let pin = is_pin(self.db.pin_format, &value, true);
        let (users, cards, materialized) = (&layout.users, &layout.cards, layout.materialized);
        let real = self.real(binder);
        let placed = self.joined(layout, None);
        let row = format!("u.{id}");
        let of_user = (row.as_str(), center.as_str());
        let (mut bare, mut count) = (String::new(), "");
        let mut arms = Vec::new();
        if let Some(within) = &due.without_pin {
            bare = format!(
                "bare(id, center, is_real) {materialized} (SELECT u.{id}::bigint, {center}, {real} FROM {users} u {placed}
                   LEFT JOIN {cards} c ON c.{owner} = u.{id} AND {pin} WHERE c.{owner} IS NULL), "
            );
            count = PINLESS;
            arms.push(format!("SELECT b.id FROM bare b WHERE {}", self.inside(layout, ("b.id", "b.center"), within, binder)));
        }
        if let Some(at) = due.expired_at {
            let end = format!("c.{}", quoted(&map.cards.expires.column));
            let at = binder.int(sql::writable(at));
            let expired = expiry::expired(&map.cards.expires, &end, &at);
            arms.push(format!("SELECT c.{owner}::bigint FROM {cards} c WHERE {expired} AND {pin}"));
        }
        if due.unlimited_pin {
            let end = expiry::read(&map.cards.expires, &format!("c.{}", quoted(&map.cards.expires.column)));
            arms.push(format!("SELECT c.{owner}::bigint FROM {cards} c WHERE {end} IS NULL AND {pin}"));
        }
        if let Some(within) = &due.everybody {
            let inside = self.inside(layout, of_user, within, binder);
            arms.push(format!("SELECT u.{id}::bigint FROM {users} u {placed} WHERE {inside}"));
        }
        if let Some((link, table)) = self.role_links(layout).filter(|_| !due.with_role.is_empty()) {
            let roles = binder.bind(Arg::Ints(due.with_role.iter().map(|role| Some(role.0)).collect()));
            arms.push(format!("SELECT l.{}::bigint FROM {table} l WHERE l.{} = ANY({roles})", quoted(&link.user), quoted(&link.to)));
        }
        if !due.users.is_empty() {
            let ids = binder.bind(Arg::Ints(due.users.iter().map(|user| Some(user.0)).collect()));
            arms.push(format!("SELECT unnest({ids})"));
        }
        for (within, column) in [(&due.without_code, self.code_column(layout)), (&due.without_password, self.password_column(layout))] {
            if let (Some(within), Some(column)) = (within, column) {
                let inside = self.inside(layout, of_user, within, binder);
                arms.push(format!(
                    "SELECT u.{id}::bigint FROM {users} u {placed} WHERE {inside} AND coalesce(u.{column}::text = '', true)"
                ));
            }
        }
        for (from, to) in &due.to_move {
            let from = self.inside(layout, of_user, from, binder);
            let (to_id, to_number) = (binder.int(to.id.0), binder.int(to.number));
            arms.push(format!(
                "SELECT u.{id}::bigint FROM {users} u {placed} WHERE {from} AND NOT ({center} = {to_id} AND {number} = {to_number})"
            ));
        }
        if arms.is_empty() {
            arms.push("SELECT NULL::bigint WHERE false".to_owned());
        }
        let picked = format!("SELECT DISTINCT d.id FROM ({}) d(id)", arms.join(" UNION ALL "));
        let statement = self.users_of(layout, &picked, &real, binder);
        // It begins with its WITH: the list of users without a PIN goes in front.
        format!("WITH {bare}{}{count}", statement.trim_start_matches("WITH "))
    }

    /// Users whose ids `picked` selects, each once, if `test` on `u` holds.
    fn users_of(&self, layout: &Layout, picked: &str, test: &str, binder: &mut Binder) -> String {
        let (columns, (value, end)) = (self.columns(layout, binder), self.card());
        let (of_roles, roles) = self.roles_joined(layout, Some("picked"));
        format!(
            "WITH picked(id) {materialized} ({picked}),
                  owned(id, value, ends) {materialized} (SELECT p.id, {value}, {end} FROM picked p JOIN {cards} c ON c.{owner} = p.id)
             (SELECT {columns}, a.value, a.ends, {roles}
                FROM picked p JOIN {users} u ON u.{id} = p.id {placed} {of_roles} LEFT JOIN owned a ON a.id = p.id WHERE {test} ORDER BY p.id)",
            materialized = layout.materialized,
            placed = self.joined(layout, Some("picked")),
            cards = layout.cards,
            users = layout.users,
            owner = quoted(&self.db.map.cards.user),
            id = quoted(&self.db.map.users.id),
        )
    }

    /// A constant set of cost centers and roles from the configuration, never a batch.
    fn inside(&self, layout: &Layout, (id, center): (&str, &str), within: &InCostCenter, binder: &mut Binder) -> String {
        let mut in_one = |ids: &BTreeSet<i64>| {
            let ids = binder.bind(Arg::Ints(ids.iter().map(|id| Some(*id)).collect()));
            format!("coalesce({center} = ANY({ids}), false)")
        };
        match within {
            InCostCenter::Any => "true".to_owned(),
            InCostCenter::Of(ids) => in_one(ids),
            InCostCenter::OrRole { centers, roles } => {
                let in_one = in_one(centers);
                let Some((link, table)) = self.role_links(layout) else { return in_one };
                let (user, role) = (quoted(&link.user), quoted(&link.to));
                let roles = binder.bind(Arg::Ints(roles.iter().map(|role| Some(role.0)).collect()));
                format!("({in_one} OR {id} IN (SELECT l.{user} FROM {table} l WHERE l.{role} = ANY({roles}) AND l.{user} IS NOT NULL))")
            }
        }
    }

    /// Value and expiry of row `c`.
    fn card(&self) -> (String, String) {
        let map = &self.db.map.cards;
        let end = expiry::read(&map.expires, &format!("c.{}", quoted(&map.expires.column)));
        (format!("c.{}::text", quoted(&map.value)), end)
    }

    fn columns(&self, layout: &Layout, binder: &mut Binder) -> String {
        let users = &self.db.map.users;
        let text = |name: &str| format!("coalesce(u.{}::text, '')", quoted(name));
        let is_user = binder.test("u", &users.is_user);
        let is_deleted = users.is_deleted.as_ref().map_or("false".to_owned(), |t| binder.test("u", t));
        let (center, number) = self.membership(layout);
        let optional = |column: Option<String>| column.map_or("NULL::text".to_owned(), |column| format!("nullif(u.{column}::text, '')"));
        let source = optional(users.source.as_ref().filter(|_| layout.source).map(|source| quoted(source)));
        let code = optional(self.code_column(layout).filter(|_| self.db.needs.codes));
        let password = optional(self.password_column(layout).filter(|_| self.db.needs.passwords));
        format!(
            "u.{id}::bigint, {login}, {email}, {name}, {surname}, {is_user}, {is_deleted}, {center}, {number}, {source}, {code}, {password}",
            id = quoted(&users.id),
            login = text(&users.login),
            email = text(&users.email),
            name = text(&users.name),
            surname = text(&users.surname),
        )
    }

    /// The same users again, inside a writing transaction.
    pub(super) async fn read_again(&self, client: &Client, layout: &Layout, ids: &[UserId]) -> Result<Vec<User>, StoreError> {
        let mut binder = Binder::postgres();
        let batch = binder.bind(Arg::Ints(ids.iter().map(|id| Some(id.0)).collect()));
        let picked = format!("SELECT DISTINCT b.id FROM unnest({batch}) b(id)");
        let statement = self.users_of(layout, &picked, "true", &mut binder);
        let rows = self.rows(client, "read the batch", &statement, &binder.args).await?;
        let (mut people, mut users) = (People::default(), Vec::with_capacity(ids.len()));
        for row in &rows {
            let complete = people.take(row).map_err(|e| StoreError::query("read the batch", e))?;
            users.extend(complete.map(|row| row.into_user(&self.db)));
        }
        users.extend(people.last().map(|row| row.into_user(&self.db)));
        Ok(users)
    }
}

const STEP: &str = "read users";

/// One row more, of nobody: where a user's cost center would be, the number of real users without any PIN. It costs nothing, since
/// the statement has found them anyway, and a join of its own would take as long as all the rest.
const PINLESS: &str = " UNION ALL SELECT NULL::bigint, '', '', '', '', false, false, count(*) FILTER (WHERE b.is_real), 0::bigint,
                               NULL::text, NULL::text, NULL::text, NULL::text, NULL::bigint, NULL::bigint[] FROM bare b";

enum Reading {
    Asked(Box<Filter>, Pinless),
    Running(Box<Running>),
    Ended,
}

struct Running {
    filter: Filter,
    rows: Pin<Box<RowStream>>,
    people: People,
    session: Session,
    start: Instant,
}

/// A reading session that goes back to the pool only when its statement has ended.
pub(super) struct Session {
    client: Option<Object>,
    connector: Arc<Connector>,
    pub(super) done: bool,
}

impl Session {
    pub(super) fn new(postgres: &Postgres, client: Object) -> Session {
        Session { client: Some(client), connector: postgres.connector.clone(), done: false }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(client) = self.client.take()
            && !self.done
        {
            self.connector.cancel(&client);
            drop(Object::take(client));
        }
    }
}

/// Puts the rows of a user together.
#[derive(Default)]
struct People {
    current: Option<sql::Row>,
    pinless: Pinless,
}

impl People {
    /// The user before, once the next one begins.
    fn take(&mut self, row: &Row) -> Result<Option<sql::Row>, Cause> {
        let Some(id) = row.try_get::<_, Option<i64>>(0)? else {
            let _ = self.pinless.set(u64::try_from(row.try_get::<_, i64>(7)?).unwrap_or(0));
            return Ok(None);
        };
        let value: Option<String> = row.try_get(12)?;
        let card = value.map(|value| Ok::<_, Cause>((value, row.try_get(13)?))).transpose()?;
        if let Some(current) = self.current.as_mut().filter(|current| current.id == id) {
            current.cards.extend(card);
            return Ok(None);
        }
        let next = sql::Row {
            id,
            login: row.try_get(1)?,
            email: row.try_get(2)?,
            name: row.try_get(3)?,
            surname: row.try_get(4)?,
            is_user: row.try_get(5)?,
            is_deleted: row.try_get(6)?,
            center: (row.try_get(7)?, row.try_get(8)?),
            roles: row.try_get::<_, Option<Vec<i64>>>(14)?.unwrap_or_default(),
            source: row.try_get(9)?,
            code: row.try_get(10)?,
            password: row.try_get(11)?,
            cards: card.into_iter().collect(),
        };
        Ok(self.current.replace(next))
    }

    fn last(&mut self) -> Option<sql::Row> {
        self.current.take()
    }
}
