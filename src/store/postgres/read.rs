//! Users with their cards, by one statement, streamed.
//!
//! The shape of every statement here is chosen for the planner, which may know nothing of these tables (measured: nested
//! loops of minutes): what is picked is picked into a MATERIALIZED list of ids first, the tests on users stand outside the
//! joins, and a boolean is wrapped so that it is expected to hold for half of the rows.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{Stream, StreamExt, stream};
use tokio_postgres::{Client, Row, RowStream};

use crate::domain::UserId;
use crate::inventory::User;
use crate::store::error::{Cause, Kind, StoreError};
use crate::store::sql::{self, Arg, Binder, CHUNK, is_pin, quoted};
use crate::store::{DueFilter, Filter, InCostCenter};

use super::connect::Connector;
use super::{GRACE, Layout, Object, Postgres, expiry, within};

impl Postgres {
    pub(in crate::store) fn read(&self, filter: &Filter) -> impl Stream<Item = Result<Vec<User>, StoreError>> + Send + '_ {
        stream::try_unfold(Reading::Asked(filter.clone()), move |state| self.next_chunk(state))
    }

    async fn next_chunk(&self, state: Reading) -> Result<Option<(Vec<User>, Reading)>, StoreError> {
        let mut running = match state {
            Reading::Asked(filter) => self.start(filter).await?,
            Reading::Running(running) => running,
            Reading::Ended => return Ok(None),
        };
        let limit = self.db.statement_timeout + GRACE;
        let late = |_| StoreError::Deadline { step: STEP, after: limit };
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK {
            let Some(row) = tokio::time::timeout(limit, running.rows.next()).await.map_err(late)? else {
                let duration_ms = u64::try_from(running.start.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::debug!(query = STEP, duration_ms, "Asked the database");
                running.session.done = true;
                return Ok((!chunk.is_empty()).then_some((chunk, Reading::Ended)));
            };
            let row = row.map_err(|e| StoreError::query(STEP, e))?;
            let user = decode(&row).map_err(|e| StoreError::query(STEP, e))?.into_user(&self.db);
            if running.filter.accepts(&user) {
                chunk.push(user);
            }
        }
        Ok(Some((chunk, Reading::Running(running))))
    }

    async fn start(&self, filter: Filter) -> Result<Box<Running>, StoreError> {
        let client = self.reading().await?;
        let layout = self.layout(&client).await?;
        let mut binder = Binder::postgres();
        let statement = self.statement(layout, &filter, &mut binder);
        let args = binder.args.iter().map(Arg::typed);
        let rows = within("start reading users", self.db.statement_timeout + GRACE, client.query_typed_raw(&statement, args)).await?;
        let session = Session { client: Some(client), connector: self.connector.clone(), done: false };
        Ok(Box::new(Running { filter, rows: Box::pin(rows), session, start: Instant::now() }))
    }

    fn statement(&self, layout: &Layout, filter: &Filter, binder: &mut Binder) -> String {
        let users = &self.db.map.users;
        let (id, login) = (quoted(&users.id), quoted(&users.login));
        if let Some(wanted) = &filter.login {
            let picked = format!("SELECT u.{id}::bigint FROM {} u WHERE u.{login}::text = {}", layout.users, binder.text(wanted));
            self.users_of(layout, &picked, binder)
        } else if let Some(above) = filter.above {
            // A poll sees few rows: the rest of the filter is left to the caller's side.
            let picked = format!("SELECT u.{id}::bigint FROM {} u WHERE u.{id} > {}", layout.users, binder.int(above.0));
            self.users_of(layout, &picked, binder)
        } else if let Some(due) = &filter.due {
            self.due(layout, due, binder)
        } else {
            let (columns, values) = (self.columns(layout, binder), self.card_arrays());
            format!(
                "SELECT {columns}, a.card_values, a.card_ends FROM {users} u
                   LEFT JOIN (SELECT c.{owner}, {values} FROM {cards} c GROUP BY c.{owner}) a ON a.{owner} = u.{id}",
                users = layout.users,
                cards = layout.cards,
                owner = quoted(&self.db.map.cards.user),
            )
        }
    }

    /// Ids that may be due. Nothing here groups cards or looks at all of a user's rows: that is done only for the ids found.
    fn due(&self, layout: &Layout, due: &DueFilter, binder: &mut Binder) -> String {
        let map = &self.db.map;
        let (id, owner) = (quoted(&map.users.id), quoted(&map.cards.user));
        let (center, number) = self.membership(layout);
        let value = format!("c.{}::text", quoted(&map.cards.value));
        let pin = is_pin(self.db.pin_format, &value);
        let (users, cards, materialized) = (&layout.users, &layout.cards, layout.materialized);
        let mut bare = String::new();
        let mut arms = Vec::new();
        if let Some(within) = &due.without_pin {
            bare = format!(
                "bare(id, center) {materialized} (SELECT u.{id}::bigint, {center} FROM {users} u
                   LEFT JOIN {cards} c ON c.{owner} = u.{id} AND {pin} WHERE c.{owner} IS NULL), "
            );
            arms.push(format!("SELECT b.id FROM bare b WHERE {}", inside("b.center", within, binder)));
        }
        if let Some(at) = due.expired_at {
            let end = format!("c.{}", quoted(&map.cards.expires.column));
            let at = binder.int(sql::writable(at));
            let expired = expiry::expired(&map.cards.expires, &end, &at);
            arms.push(format!("SELECT c.{owner}::bigint FROM {cards} c WHERE {expired} AND {pin}"));
        }
        for (from, to) in &due.to_move {
            let from = inside(&center, from, binder);
            let (to_id, to_number) = (binder.int(to.id.0), binder.int(to.number));
            arms.push(format!("SELECT u.{id}::bigint FROM {users} u WHERE {from} AND NOT ({center} = {to_id} AND {number} = {to_number})"));
        }
        if arms.is_empty() {
            arms.push("SELECT NULL::bigint WHERE false".to_owned());
        }
        let picked = format!("SELECT DISTINCT d.id FROM ({}) d(id)", arms.join(" UNION ALL "));
        let statement = self.users_of(layout, &picked, binder);
        let real = self.real(binder);
        // `users_of` begins with its WITH: the list of users without a PIN goes in front.
        let statement = statement.replacen("WITH ", &format!("WITH {bare}"), 1);
        format!("{statement} WHERE {real}")
    }

    /// Users whose ids `picked` selects, each once. A statement of its own without a WHERE: the caller may add one on `u`.
    fn users_of(&self, layout: &Layout, picked: &str, binder: &mut Binder) -> String {
        let (columns, values) = (self.columns(layout, binder), self.card_arrays());
        format!(
            "WITH picked(id) {materialized} ({picked}),
                  owned {materialized} (SELECT p.id, {values} FROM picked p JOIN {cards} c ON c.{owner} = p.id GROUP BY p.id)
             SELECT {columns}, a.card_values, a.card_ends
               FROM picked p JOIN {users} u ON u.{id} = p.id LEFT JOIN owned a ON a.id = p.id",
            materialized = layout.materialized,
            cards = layout.cards,
            users = layout.users,
            owner = quoted(&self.db.map.cards.user),
            id = quoted(&self.db.map.users.id),
        )
    }

    fn card_arrays(&self) -> String {
        let map = &self.db.map.cards;
        let end = expiry::read(&map.expires, &format!("c.{}", quoted(&map.expires.column)));
        format!("array_agg(c.{}::text) AS card_values, array_agg({end}) AS card_ends", quoted(&map.value))
    }

    fn columns(&self, layout: &Layout, binder: &mut Binder) -> String {
        let users = &self.db.map.users;
        let text = |name: &str| format!("coalesce(u.{}::text, '')", quoted(name));
        let is_user = binder.test("u", &users.is_user);
        let is_deleted = users.is_deleted.as_ref().map_or("false".to_owned(), |t| binder.test("u", t));
        let (center, number) = self.membership(layout);
        let source = users.source.as_ref().filter(|_| layout.source).map_or("NULL::text".to_owned(), |s| format!("u.{}::text", quoted(s)));
        format!(
            "u.{id}::bigint, {login}, {email}, {name}, {surname}, {is_user}, {is_deleted}, {center}, {number}, {source}",
            id = quoted(&users.id),
            login = text(&users.login),
            email = text(&users.email),
            name = text(&users.name),
            surname = text(&users.surname),
        )
    }

    /// The two columns that name the cost center of row `u`; a NULL is the virtual cost center 0.
    pub(super) fn membership(&self, layout: &Layout) -> (String, String) {
        if !layout.member {
            return ("0::bigint".to_owned(), "0::bigint".to_owned());
        }
        let map = &self.db.map.cost_centers;
        let half = |name: &str| format!("coalesce(u.{}::bigint, 0)", quoted(name));
        let number = match &map.member_number {
            Some(column) => half(column),
            None => format!(
                "coalesce((SELECT o.{number}::bigint FROM {places} o WHERE o.{key} = u.{member}), 0)",
                number = quoted(&map.number),
                places = layout.cost_centers,
                key = quoted(&map.id),
                member = quoted(&map.member_id)
            ),
        };
        (half(&map.member_id), number)
    }

    /// The same users again, inside a writing transaction.
    pub(super) async fn read_again(&self, client: &Client, layout: &Layout, ids: &[UserId]) -> Result<Vec<User>, StoreError> {
        let mut binder = Binder::postgres();
        let batch = binder.bind(Arg::Ints(ids.iter().map(|id| Some(id.0)).collect()));
        let picked = format!("SELECT DISTINCT b.id FROM unnest({batch}) b(id)");
        let statement = self.users_of(layout, &picked, &mut binder);
        let rows = self.rows(client, "read the batch", &statement, &binder.args).await?;
        rows.iter().map(|row| decode(row).map(|r| r.into_user(&self.db)).map_err(|e| StoreError::query("read the batch", e))).collect()
    }
}

const STEP: &str = "read users";

enum Reading {
    Asked(Filter),
    Running(Box<Running>),
    Ended,
}

struct Running {
    filter: Filter,
    rows: Pin<Box<RowStream>>,
    session: Session,
    start: Instant,
}

/// A reading session that goes back to the pool only when its statement has ended.
struct Session {
    client: Option<Object>,
    connector: Arc<Connector>,
    done: bool,
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

/// A constant set of cost centers from the configuration, never a batch.
fn inside(center: &str, within: &InCostCenter, binder: &mut Binder) -> String {
    match within {
        InCostCenter::Any => "true".to_owned(),
        InCostCenter::Of(ids) => {
            let ids = binder.bind(Arg::Ints(ids.iter().map(|id| Some(*id)).collect()));
            format!("coalesce({center} = ANY({ids}), false)")
        }
    }
}

fn decode(row: &Row) -> Result<sql::Row, Cause> {
    let values: Option<Vec<Option<String>>> = row.try_get(10)?;
    let ends: Option<Vec<Option<i64>>> = row.try_get(11)?;
    let (values, ends) = (values.unwrap_or_default(), ends.unwrap_or_default());
    if values.len() != ends.len() {
        return Err(Cause::new(Kind::Query, "the answer had cards without an expiry"));
    }
    let cards = values.into_iter().zip(ends).filter_map(|(value, end)| value.map(|value| (value, end))).collect();
    Ok(sql::Row {
        id: row.try_get(0)?,
        login: row.try_get(1)?,
        email: row.try_get(2)?,
        name: row.try_get(3)?,
        surname: row.try_get(4)?,
        is_user: row.try_get(5)?,
        is_deleted: row.try_get(6)?,
        center: (row.try_get(7)?, row.try_get(8)?),
        source: row.try_get(9)?,
        cards,
    })
}
