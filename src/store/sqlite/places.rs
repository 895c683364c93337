//! Cost centers and roles: which there are, and who is in which.

use std::collections::BTreeSet;

use rusqlite::{Connection, params_from_iter};

use crate::config::schema_map::{Member, RolesMap, Test};
use crate::domain::{CostCenter, CostCenterId, CostCenterRef, Role, RoleId, RoleRef};
use crate::store::error::StoreError;
use crate::store::links;
use crate::store::sql::{self, Arg, Binder, quoted};

use super::{Sqlite, values};

impl Sqlite {
    pub(in crate::store) async fn cost_centers(&self, wanted: &BTreeSet<CostCenterRef>) -> Result<Vec<CostCenter>, StoreError> {
        let (mut numbers, mut names) = (Vec::new(), Vec::new());
        for place in wanted {
            match place {
                CostCenterRef::Number(n) => numbers.push(*n),
                CostCenterRef::Name(n) => names.push(n.clone()),
            }
        }
        self.reading(move |this, connection| {
            let map = &this.db.map.cost_centers;
            let columns = [&map.id, &map.number, &map.name];
            let center = |row: &rusqlite::Row<'_>| Ok(CostCenter { id: CostCenterId(row.get(0)?), number: row.get(1)?, name: row.get(2)? });
            let found = Rows { table: &map.table, rows: map.rows.as_ref(), columns: &columns }.of(
                connection,
                &map.number,
                &map.name,
                &numbers,
                &names,
                center,
            );
            found.map_err(|e| StoreError::query("look up cost centers", e))
        })
        .await
    }

    pub(in crate::store) async fn roles(&self, wanted: &BTreeSet<RoleRef>) -> Result<Vec<Role>, StoreError> {
        let (mut ids, mut names) = (Vec::new(), Vec::new());
        for role in wanted {
            match role {
                RoleRef::Id(id) => ids.push(id.0),
                RoleRef::Name(n) => names.push(n.clone()),
            }
        }
        self.reading(move |this, connection| {
            let Some(map) = &this.db.map.roles else { return Ok(Vec::new()) };
            let role = |row: &rusqlite::Row<'_>| Ok(Role { id: RoleId(row.get(0)?), name: row.get(1)? });
            let rows = Rows { table: &map.table, rows: map.rows.as_ref(), columns: &[&map.id, &map.name] };
            rows.of(connection, &map.id, &map.name, &ids, &names, role).map_err(|e| StoreError::query("look up roles", e))
        })
        .await
    }

    pub(in crate::store) async fn cost_center_names(&self) -> Result<Vec<String>, StoreError> {
        self.reading(|this, connection| {
            let map = &this.db.map.cost_centers;
            let names = Rows { table: &map.table, rows: map.rows.as_ref(), columns: &[&map.name] }.names(connection);
            names.map_err(|e| StoreError::query("look up cost centers", e))
        })
        .await
    }

    pub(in crate::store) async fn role_names(&self) -> Result<Vec<String>, StoreError> {
        self.reading(|this, connection| {
            let Some(map) = &this.db.map.roles else { return Ok(Vec::new()) };
            let names = Rows { table: &map.table, rows: map.rows.as_ref(), columns: &[&map.name] }.names(connection);
            names.map_err(|e| StoreError::query("look up roles", e))
        })
        .await
    }

    /// The id and the number of the cost center of row `u` of the users; a NULL is the virtual cost center 0. With
    /// [`joined`](Sqlite::joined) behind `u`.
    pub(super) fn membership(&self) -> (String, String) {
        let map = &self.db.map.cost_centers;
        let half = |column: &str| format!("coalesce(u.{}, 0)", quoted(column));
        match &map.member {
            Member::Link(_) => ("coalesce(m.center, 0)".to_owned(), "coalesce(m.number, 0)".to_owned()),
            Member::Column { id, number: Some(number) } => (half(id), half(number)),
            Member::Column { id, number: None } => {
                let number = format!(
                    "coalesce((SELECT o.{} FROM {} o WHERE o.{} = u.{}), 0)",
                    quoted(&map.number),
                    quoted(&map.table),
                    quoted(&map.id),
                    quoted(id)
                );
                (half(id), number)
            }
        }
    }

    /// The cost centers of users as `m`, where they stand in a table of their own; `condition` is on its rows `l`.
    pub(super) fn joined(&self, condition: &str) -> String {
        let map = &self.db.map.cost_centers;
        let Member::Link(link) = &map.member else { return String::new() };
        let from = format!("(SELECT * FROM {} l WHERE {condition}) l", quoted(&link.table));
        let members = links::members(map, link, &quoted(&map.table), &from);
        format!("LEFT JOIN ({members}) m ON m.owner = u.{}", quoted(&self.db.map.users.id))
    }

    /// Where roles are, if some policy asks.
    pub(super) fn roles_asked(&self) -> Option<&RolesMap> {
        self.db.map.roles.as_ref().filter(|_| self.db.needs.roles)
    }
}

/// A small table, or those rows of `users` that are something else.
struct Rows<'a> {
    table: &'a str,
    rows: Option<&'a Test>,
    columns: &'a [&'a String],
}

impl Rows<'_> {
    fn select(&self, binder: &mut Binder) -> String {
        let columns: Vec<String> = self.columns.iter().map(|column| format!("o.{}", quoted(column))).collect();
        let test = self.rows.map_or("true".to_owned(), |test| binder.test("o", test));
        format!("SELECT {} FROM {} o WHERE {test}", columns.join(", "), quoted(self.table))
    }

    /// Those that have one of the numbers or one of the names.
    fn of<T: Ord>(
        &self,
        connection: &Connection,
        number: &str,
        name: &str,
        numbers: &[i64],
        names: &[String],
        read: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        let mut found = BTreeSet::new();
        let mut look = |column: &str, value: Arg| -> rusqlite::Result<()> {
            let mut binder = Binder::sqlite();
            let select = self.select(&mut binder);
            let sql = format!("{select} AND o.{} = {}", quoted(column), binder.bind(value));
            let mut statement = connection.prepare(&sql)?;
            let rows = statement.query_map(params_from_iter(values(&binder)), &read)?;
            for row in rows {
                found.insert(row?);
            }
            Ok(())
        };
        numbers.iter().try_for_each(|n| look(number, Arg::Int(Some(*n))))?;
        names.iter().try_for_each(|n| look(name, Arg::Text(n.clone())))?;
        Ok(found.into_iter().collect())
    }

    /// The first column, in order.
    fn names(&self, connection: &Connection) -> rusqlite::Result<Vec<String>> {
        let mut binder = Binder::sqlite();
        let sql = format!("{} AND o.{} IS NOT NULL ORDER BY 1 LIMIT {}", self.select(&mut binder), quoted(self.columns[0]), sql::NAMES);
        connection.prepare(&sql)?.query_map(params_from_iter(values(&binder)), |row| row.get(0))?.collect()
    }
}
