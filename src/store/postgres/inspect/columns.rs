//! Whether the mapped tables and columns are there, and of a type that serves.

use crate::config::schema_map::{ExpiresKind, Member, Test};
use crate::domain::alike;
use crate::store::{CENTER_LINKS, ROLE_LINKS};

use super::*;

/// How many names are listed where none is alike.
const LISTED: usize = 40;

/// The kinds of types that a mapped column may have.
#[derive(Clone, Copy, PartialEq)]
enum Class {
    Whole,
    Text,
    Any,
    Moment(ExpiresKind),
}

impl Class {
    fn accepts(self, of_type: &str) -> bool {
        let base = of_type.split('(').next().unwrap_or(of_type).trim();
        let whole = matches!(base, "smallint" | "integer" | "bigint" | "numeric");
        match self {
            Class::Any => true,
            Class::Whole => whole,
            Class::Text => matches!(base, "character varying" | "text" | "character" | "citext" | "name"),
            Class::Moment(ExpiresKind::Timestamp) => of_type.ends_with("without time zone") && of_type.starts_with("timestamp"),
            Class::Moment(ExpiresKind::Timestamptz) => of_type.ends_with("with time zone"),
            Class::Moment(ExpiresKind::Date) => base == "date",
            Class::Moment(ExpiresKind::EpochSeconds | ExpiresKind::EpochMillis) => whole,
        }
    }

    fn wanted(self) -> &'static str {
        match self {
            Class::Whole => "a whole number",
            Class::Text => "text",
            Class::Any => "anything",
            Class::Moment(ExpiresKind::Timestamp) => "timestamp without time zone",
            Class::Moment(ExpiresKind::Timestamptz) => "timestamp with time zone",
            Class::Moment(ExpiresKind::Date) => "date",
            Class::Moment(ExpiresKind::EpochSeconds) => "a whole number of seconds",
            Class::Moment(ExpiresKind::EpochMillis) => "a whole number of milliseconds",
        }
    }
}

/// `type` of an expiry, for a column that is of this type.
fn kind_of(of_type: &str) -> Option<&'static str> {
    let kinds = [
        (ExpiresKind::Timestamp, "timestamp"),
        (ExpiresKind::Timestamptz, "timestamptz"),
        (ExpiresKind::Date, "date"),
        (ExpiresKind::EpochSeconds, "epoch_s or epoch_ms"),
    ];
    kinds.into_iter().find(|(kind, _)| Class::Moment(*kind).accepts(of_type)).map(|(_, word)| word)
}

/// A column as the catalog tells it.
pub(super) struct Column {
    pub(super) name: String,
    pub(super) of_type: String,
    pub(super) required: bool,
    pub(super) has_default: bool,
    /// For text types with a bound.
    pub(super) length: Option<i64>,
}

/// A column that the map names.
pub(super) struct Mapped {
    pub(super) name: String,
    class: Class,
    /// Where it is named, below `schema_map`.
    key: &'static str,
}

/// A mapped table.
pub(super) struct Table {
    pub(super) check: &'static str,
    /// As the map names it.
    pub(super) name: String,
    /// Where it is named, below `schema_map`.
    key: &'static str,
    /// Qualified and quoted.
    pub(super) qualified: String,
    pub(super) wanted: Vec<Mapped>,
}

impl Postgres {
    pub(super) fn qualified(&self, table: &str) -> String {
        match &self.db.schema {
            Some(schema) => format!("{}.{}", quoted(schema), quoted(table)),
            None => quoted(table),
        }
    }

    pub(super) fn tables(&self) -> Vec<Table> {
        let (map, needs) = (&self.db.map, self.db.needs);
        let mapped = |name: &String, class, key| Mapped { name: name.clone(), class, key };
        let users = &map.users;
        let mut of_users = vec![
            mapped(&users.id, Class::Whole, "users.id"),
            mapped(&users.login, Class::Text, "users.login"),
            mapped(&users.email, Class::Text, "users.email"),
            mapped(&users.name, Class::Text, "users.name"),
            mapped(&users.surname, Class::Text, "users.surname"),
        ];
        let mut tested = |test: &Test, key| named_in(test, &mut |name, class| of_users.push(mapped(name, class, key)));
        tested(&users.is_user, "users.is_user");
        if let Some(deleted) = &users.is_deleted {
            tested(deleted, "users.is_deleted");
        }
        if needs.source {
            of_users.extend(users.source.iter().map(|source| mapped(source, Class::Any, "users.source")));
        }
        if needs.codes {
            of_users.extend(users.puk.iter().map(|puk| mapped(&puk.column, Class::Text, "users.puk")));
        }
        if needs.passwords {
            of_users.extend(users.password.iter().map(|column| mapped(column, Class::Text, "users.password")));
        }
        let centers = &map.cost_centers;
        if (needs.cost_centers || needs.moves)
            && let Member::Column { id, number } = &centers.member
        {
            of_users.push(mapped(id, Class::Whole, "cost_centers.member.id_column"));
            of_users.extend(number.iter().map(|column| mapped(column, Class::Whole, "cost_centers.member.number_column")));
        }
        let expires = &map.cards.expires;
        let of_cards = vec![
            mapped(&map.cards.user, Class::Whole, "cards.user"),
            mapped(&map.cards.value, Class::Text, "cards.value"),
            mapped(&expires.column, Class::Moment(expires.kind), "cards.expires.column"),
        ];
        let table = |check, name: &String, key, wanted| Table { check, name: name.clone(), key, qualified: self.qualified(name), wanted };
        let mut tables = vec![
            table("users table", &users.table, "users.table", of_users),
            table("cards table", &map.cards.table, "cards.table", of_cards),
        ];
        // A table that is `users` itself is looked at as a part of it.
        let mut add = |check, name: &String, key, rows: &Option<Test>, rows_key, mut wanted: Vec<Mapped>| {
            if let Some(rows) = rows {
                named_in(rows, &mut |name, class| wanted.push(mapped(name, class, rows_key)));
                let known = &mut tables[0].wanted;
                wanted.retain(|one| !known.iter().any(|other| other.name == one.name && other.class == one.class));
                known.extend(wanted);
            } else {
                tables.push(table(check, name, key, wanted));
            }
        };
        if needs.cost_centers || needs.moves {
            let of_centers = vec![
                mapped(&centers.id, Class::Whole, "cost_centers.id"),
                mapped(&centers.number, Class::Whole, "cost_centers.number"),
                mapped(&centers.name, Class::Text, "cost_centers.name"),
            ];
            add("cost centers table", &centers.table, "cost_centers.table", &centers.rows, "cost_centers.where", of_centers);
            if let Member::Link(link) = &centers.member {
                let of_links = vec![
                    mapped(&link.user, Class::Whole, "cost_centers.link.user"),
                    mapped(&link.to, Class::Whole, "cost_centers.link.cost_center"),
                ];
                add(CENTER_LINKS, &link.table, "cost_centers.link.table", &None, "", of_links);
            }
        }
        if let Some(roles) = map.roles.as_ref().filter(|_| needs.roles) {
            let of_roles = vec![mapped(&roles.id, Class::Whole, "roles.id"), mapped(&roles.name, Class::Text, "roles.name")];
            add("roles table", &roles.table, "roles.table", &roles.rows, "roles.where", of_roles);
            let link = &roles.link;
            let of_links = vec![mapped(&link.user, Class::Whole, "roles.link.user"), mapped(&link.to, Class::Whole, "roles.link.role")];
            add(ROLE_LINKS, &link.table, "roles.link.table", &None, "", of_links);
        }
        tables
    }

    pub(super) async fn columns_of(&self, client: &Client, table: &Table) -> Result<Vec<Column>, StoreError> {
        let mut binder = Binder::postgres();
        // `attidentity` came with version 10: asked for through the row's JSON, which lacks it before.
        let sql = format!(
            "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                    a.atthasdef OR coalesce(to_json(a) ->> 'attidentity', '') <> '',
                    CASE WHEN a.atttypid IN ('varchar'::regtype, 'bpchar'::regtype) AND a.atttypmod > 4 THEN (a.atttypmod - 4)::bigint END
               FROM pg_attribute a WHERE a.attrelid = to_regclass({}) AND a.attnum > 0 AND NOT a.attisdropped",
            binder.text(&table.qualified)
        );
        let rows = self.rows(client, "look for columns", &sql, &binder.args).await?;
        let column =
            |row: &Row| Column { name: row.get(0), of_type: row.get(1), required: row.get(2), has_default: row.get(3), length: row.get(4) };
        Ok(rows.iter().map(column).collect())
    }

    /// Whether the table is as mapped.
    pub(super) async fn compare(&self, client: &Client, table: &Table, columns: &[Column]) -> Result<Check, StoreError> {
        if columns.is_empty() { self.absent(client, table).await } else { Ok(compare(table, columns)) }
    }

    async fn absent(&self, client: &Client, table: &Table) -> Result<Check, StoreError> {
        let mut binder = Binder::postgres();
        let users = binder.text(&self.qualified(&self.db.map.users.table));
        let sql = format!(
            "SELECT c.relname::text FROM pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
                AND c.relnamespace = (SELECT u.relnamespace FROM pg_class u WHERE u.oid = to_regclass({users})) ORDER BY 1"
        );
        let rows = self.rows(client, "look for tables", &sql, &binder.args).await?;
        let names: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        let hint = hint(&table.name, &names, "the schema");
        let advice = format!("set `schema_map.{}` to the table that holds them: {hint}", table.key);
        Ok(Check::failed(table.check, format!("there is no table {}", table.qualified), advice))
    }
}

/// The columns that a test looks at.
fn named_in(test: &Test, found: &mut impl FnMut(&String, Class)) {
    match test {
        Test::BitsSet { column, .. } | Test::BitsClear { column, .. } => found(column, Class::Whole),
        Test::Equals { column, .. } | Test::In { column, .. } | Test::IsNull { column } => found(column, Class::Any),
        Test::All(tests) | Test::Any(tests) => tests.iter().for_each(|test| named_in(test, found)),
        Test::Not(test) => named_in(test, found),
    }
}

fn compare(table: &Table, columns: &[Column]) -> Check {
    let (mut wrong, mut advice) = (Vec::new(), Vec::new());
    for Mapped { name, class, key } in &table.wanted {
        match columns.iter().find(|c| c.name == *name) {
            None => {
                let free: Vec<&str> = columns
                    .iter()
                    .filter(|c| class.accepts(&c.of_type) && !table.wanted.iter().any(|mapped| mapped.name == c.name))
                    .map(|c| c.name.as_str())
                    .collect();
                wrong.push(format!("{} has no column {name}", table.name));
                advice.push(format!("set `schema_map.{key}` to the column that holds it: {}", hint(name, &free, &table.name)));
            }
            Some(column) if !class.accepts(&column.of_type) => {
                wrong.push(format!("{}.{name} is {}, not {}", table.name, column.of_type, class.wanted()));
                advice.push(match (class, kind_of(&column.of_type)) {
                    (Class::Moment(_), Some(kind)) => format!("set `schema_map.cards.expires.type` to {kind}"),
                    _ => format!("set `schema_map.{key}` to a column that is {}", class.wanted()),
                });
            }
            Some(_) => {}
        }
    }
    if wrong.is_empty() {
        return Check::ok(table.check, format!("{}, {} columns", table.qualified, table.wanted.len()));
    }
    wrong.dedup();
    advice.dedup();
    Check::failed(table.check, wrong.join("; "), advice.join("; "))
}

/// Names alike, or else all that come into question.
fn hint(name: &str, among: &[&str], place: &str) -> String {
    let near = alike(name, among.iter().copied());
    let all = || among.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    match (near.is_empty(), among) {
        (false, _) => format!("perhaps {}", near.join(" or ")),
        (true, []) => format!("{place} has none that would fit"),
        (true, _) => format!("{place} has {}", all()),
    }
}
