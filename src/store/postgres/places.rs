//! Cost centers and roles: which there are, and who is in which.

use super::*;
use crate::config::schema_map::Test;
use crate::store::links;

impl Postgres {
    pub(in crate::store) async fn cost_centers(&self, wanted: &BTreeSet<CostCenterRef>) -> Result<Vec<CostCenter>, StoreError> {
        let client = self.reading().await?;
        let layout = self.layout(&client).await?;
        let map = &self.db.map.cost_centers;
        let (mut numbers, mut names) = (Vec::new(), Vec::new());
        for place in wanted {
            match place {
                CostCenterRef::Number(n) => numbers.push(Some(*n)),
                CostCenterRef::Name(n) => names.push(Some(n.clone())),
            }
        }
        let mut binder = Binder::postgres();
        // Arrays of what the configuration names, not a batch: a handful of values against a small table.
        let (numbers, names) = (binder.bind(Arg::Ints(numbers)), binder.bind(Arg::Texts(names)));
        let (id, number, name) = (quoted(&map.id), quoted(&map.number), quoted(&map.name));
        let sql = format!(
            "SELECT o.{id}::bigint, o.{number}::bigint, o.{name}::text FROM {table} o
              WHERE {rows} AND o.{id} IS NOT NULL AND o.{number} IS NOT NULL AND o.{name} IS NOT NULL
                AND (o.{number} = ANY({numbers}) OR o.{name}::text = ANY({names})) ORDER BY 1",
            table = layout.cost_centers,
            rows = rows(map.rows.as_ref(), &mut binder),
        );
        let rows = self.rows(&client, "look up cost centers", &sql, &binder.args).await?;
        Ok(rows.iter().map(|r| CostCenter { id: CostCenterId(r.get(0)), number: r.get(1), name: r.get(2) }).collect())
    }

    pub(in crate::store) async fn roles(&self, wanted: &BTreeSet<RoleRef>) -> Result<Vec<Role>, StoreError> {
        let client = self.reading().await?;
        let layout = self.layout(&client).await?;
        let (Some(map), Some(tables)) = (&self.db.map.roles, &layout.roles) else { return Ok(Vec::new()) };
        let (mut ids, mut names) = (Vec::new(), Vec::new());
        for role in wanted {
            match role {
                RoleRef::Id(id) => ids.push(Some(id.0)),
                RoleRef::Name(n) => names.push(Some(n.clone())),
            }
        }
        let mut binder = Binder::postgres();
        let (ids, names) = (binder.bind(Arg::Ints(ids)), binder.bind(Arg::Texts(names)));
        let (id, name) = (quoted(&map.id), quoted(&map.name));
        let sql = format!(
            "SELECT o.{id}::bigint, o.{name}::text FROM {table} o
              WHERE {rows} AND o.{id} IS NOT NULL AND o.{name} IS NOT NULL AND (o.{id} = ANY({ids}) OR o.{name}::text = ANY({names})) ORDER BY 1",
            table = tables.roles,
            rows = rows(map.rows.as_ref(), &mut binder),
        );
        let rows = self.rows(&client, "look up roles", &sql, &binder.args).await?;
        Ok(rows.iter().map(|r| Role { id: RoleId(r.get(0)), name: r.get(1) }).collect())
    }

    pub(in crate::store) async fn cost_center_names(&self) -> Result<Vec<String>, StoreError> {
        let client = self.reading().await?;
        let layout = self.layout(&client).await?;
        let map = &self.db.map.cost_centers;
        self.names(&client, "look up cost centers", &layout.cost_centers, map.rows.as_ref(), &map.name).await
    }

    pub(in crate::store) async fn role_names(&self) -> Result<Vec<String>, StoreError> {
        let client = self.reading().await?;
        let layout = self.layout(&client).await?;
        let (Some(map), Some(tables)) = (&self.db.map.roles, &layout.roles) else { return Ok(Vec::new()) };
        self.names(&client, "look up roles", &tables.roles, map.rows.as_ref(), &map.name).await
    }

    async fn names(
        &self,
        client: &Client,
        step: &'static str,
        table: &str,
        test: Option<&Test>,
        name: &str,
    ) -> Result<Vec<String>, StoreError> {
        let mut binder = Binder::postgres();
        let (name, rows) = (quoted(name), rows(test, &mut binder));
        let sql = format!("SELECT o.{name}::text FROM {table} o WHERE {rows} AND o.{name} IS NOT NULL ORDER BY 1 LIMIT {NAMES}");
        Ok(self.rows(client, step, &sql, &binder.args).await?.iter().map(|row| row.get(0)).collect())
    }

    /// Id and number of the cost center of row `u`, with [`joined`](Postgres::joined) behind it; a NULL is the virtual cost
    /// center 0.
    pub(super) fn membership(&self, layout: &Layout) -> (String, String) {
        if !layout.member {
            return ("0::bigint".to_owned(), "0::bigint".to_owned());
        }
        let map = &self.db.map.cost_centers;
        let half = |name: &str| format!("coalesce(u.{}::bigint, 0)", quoted(name));
        match &map.member {
            Member::Link(_) => ("coalesce(m.center::bigint, 0)".to_owned(), "coalesce(m.number::bigint, 0)".to_owned()),
            Member::Column { id, number: Some(number) } => (half(id), half(number)),
            Member::Column { id, number: None } => {
                let number = format!(
                    "coalesce((SELECT o.{number}::bigint FROM {places} o WHERE o.{key} = u.{member}), 0)",
                    number = quoted(&map.number),
                    places = layout.cost_centers,
                    key = quoted(&map.id),
                    member = quoted(id)
                );
                (half(id), number)
            }
        }
    }

    /// The cost centers of users as `m`, where they stand in a table of their own. With `batch`, of the users in that list of
    /// ids alone: a table without an index on its users is then read once, and the rest of it not even grouped.
    pub(super) fn joined(&self, layout: &Layout, batch: Option<&str>) -> String {
        let map = &self.db.map.cost_centers;
        let (Member::Link(link), Some(table), true) = (&map.member, &layout.center_links, layout.member) else { return String::new() };
        let from = of_batch(table, &link.user, batch);
        let members = links::members(map, link, &layout.cost_centers, &from);
        format!("LEFT JOIN ({members}) m ON m.owner = u.{}", quoted(&self.db.map.users.id))
    }

    /// The same of roles, as `r`, and the column to select.
    pub(super) fn roles_joined(&self, layout: &Layout, batch: Option<&str>) -> (String, &'static str) {
        let Some((link, table)) = self.role_links(layout).filter(|_| self.db.needs.roles) else {
            return (String::new(), "NULL::bigint[]");
        };
        let (user, role) = (quoted(&link.user), quoted(&link.to));
        let join = format!(
            "LEFT JOIN (SELECT l.{user} AS owner, array_agg(l.{role}::bigint) AS roles FROM {from} WHERE l.{role} IS NOT NULL GROUP BY l.{user}) r
               ON r.owner = u.{id}",
            from = of_batch(table, &link.user, batch),
            id = quoted(&self.db.map.users.id),
        );
        (join, "r.roles")
    }

    /// The columns and the table that tie users to roles.
    pub(super) fn role_links<'a>(&'a self, layout: &'a Layout) -> Option<(&'a LinkMap, &'a str)> {
        let RolesMap { link, .. } = self.db.map.roles.as_ref()?;
        Some((link, layout.roles.as_ref()?.links.as_str()))
    }
}

/// A table that ties users to something, as `l`; with `batch`, the rows of the users in that list alone.
fn of_batch(table: &str, user: &str, batch: Option<&str>) -> String {
    match batch {
        Some(batch) => format!("(SELECT DISTINCT b.id FROM {batch} b) b JOIN {table} l ON l.{} = b.id", quoted(user)),
        None => format!("{table} l"),
    }
}

/// Which rows `o` of the table are meant.
fn rows(test: Option<&Test>, binder: &mut Binder) -> String {
    test.map_or("true".to_owned(), |test| binder.test("o", test))
}
