//! Whether the role may do what the policies need, told as the grants that are missing.

use super::*;
use crate::config::schema_map::Member;
use crate::store::{CENTER_LINKS, ROLE_LINKS};

/// Table, column (none: the whole table), privilege.
type Right<'a> = (&'a Table, Option<&'a String>, &'a str);

impl Postgres {
    pub(super) async fn privileges(&self, client: &Client, tables: &[Table], card_columns: &[Column]) -> Result<Check, StoreError> {
        let (map, needs) = (&self.db.map, self.db.needs);
        let (users, cards) = (&tables[0], &tables[1]);
        // (table, column; none for the whole table, privilege)
        let mut wanted: Vec<Right<'_>> = Vec::new();
        for table in tables {
            wanted.extend(table.wanted.iter().map(|column| (table, Some(&column.name), "SELECT")));
        }
        let expires = &map.cards.expires.column;
        for column in [&map.cards.user, &map.cards.value, expires].into_iter().chain(map.cards.insert_defaults.iter().map(|(n, _)| n)) {
            wanted.push((cards, Some(column), "INSERT"));
        }
        wanted.extend([&map.cards.value, expires].map(|column| (cards, Some(column), "UPDATE")));
        wanted.push((cards, None, "DELETE"));
        if needs.moves {
            match &map.cost_centers.member {
                Member::Column { id, number } => {
                    wanted.extend([Some(id), number.as_ref()].into_iter().flatten().map(|column| (users, Some(column), "UPDATE")));
                }
                Member::Link(link) => {
                    for table in tables.iter().filter(|table| table.check == CENTER_LINKS) {
                        let columns =
                            [(Some(&link.user), "INSERT"), (Some(&link.to), "INSERT"), (Some(&link.to), "UPDATE"), (None, "DELETE")];
                        wanted.extend(columns.map(|(column, right)| (table, column, right)));
                    }
                }
            }
        }
        if needs.role_removals {
            wanted.extend(tables.iter().filter(|table| table.check == ROLE_LINKS).map(|table| (table, None, "DELETE")));
        }
        if needs.codes {
            wanted.extend(map.users.puk.iter().map(|puk| (users, Some(&puk.column), "UPDATE")));
        }
        if needs.passwords {
            wanted.extend(map.users.password.iter().map(|column| (users, Some(column), "UPDATE")));
        }
        let mut binder = Binder::postgres();
        let texts = |of: &dyn Fn(&Right<'_>) -> Option<String>| Arg::Texts(wanted.iter().map(of).collect());
        let names = binder.bind(texts(&|(table, ..)| Some(table.qualified.clone())));
        let columns = binder.bind(texts(&|(_, column, _)| column.cloned()));
        let rights = binder.bind(texts(&|(.., right)| Some((*right).to_owned())));
        // A column grant serves as well as one on the whole table.
        let sql = format!(
            "SELECT w.right_, w.name, current_user::text FROM unnest({names}, {columns}, {rights}) w(name, col, right_)
              WHERE NOT CASE WHEN w.col IS NULL THEN has_table_privilege(w.name, w.right_) ELSE has_column_privilege(w.name, w.col, w.right_) END
              GROUP BY 1, 2, 3 ORDER BY 2, 1"
        );
        let rows = self.rows(client, "look for privileges", &sql, &binder.args).await?;
        let mut grants: Vec<String> =
            rows.iter().map(|r| format!("GRANT {} ON {} TO {};", r.get::<_, &str>(0), r.get::<_, &str>(1), quoted(r.get(2)))).collect();
        grants.extend(self.sequence_rights(client, cards, card_columns).await?);
        if grants.is_empty() {
            return Ok(Check::ok(PRIVILEGES, "all that the policies need"));
        }
        Ok(Check::failed(
            PRIVILEGES,
            format!("role {} lacks {} privileges; who owns the tables can give them", self.role(), grants.len()),
            grants.join(" "),
        ))
    }

    /// An insert that takes a number from a sequence needs USAGE on it.
    async fn sequence_rights(&self, client: &Client, cards: &Table, columns: &[Column]) -> Result<Vec<String>, StoreError> {
        let numbered: Vec<Option<String>> = columns.iter().filter(|c| c.has_default).map(|c| Some(c.name.clone())).collect();
        let mut binder = Binder::postgres();
        let (table, numbered) = (binder.text(&cards.qualified), binder.bind(Arg::Texts(numbered)));
        let sql = format!(
            "SELECT s.name, current_user::text FROM (SELECT pg_get_serial_sequence({table}, c.name) AS name FROM unnest({numbered}) c(name)
               JOIN pg_attribute a ON a.attrelid = to_regclass({table}) AND a.attname = c.name AND coalesce(to_json(a) ->> 'attidentity', '') = '') s
              WHERE s.name IS NOT NULL AND NOT has_sequence_privilege(s.name, 'USAGE')"
        );
        let rows = self.rows(client, "look for sequences", &sql, &binder.args).await?;
        Ok(rows.iter().map(|r| format!("GRANT USAGE ON SEQUENCE {} TO {};", r.get::<_, &str>(0), quoted(r.get(1)))).collect())
    }
}
