//! The inspection of a sandbox database: short, since this program made it.

use rusqlite::{Connection, OpenFlags};

use crate::config::schema_map::{Member, RolesMap};
use crate::store::error::chain;
use crate::store::sql::quoted;
use crate::store::{CENTER_LINKS, Check, ROLE_LINKS, StoreError};

use super::Sqlite;

pub(super) fn inspect(sqlite: &Sqlite) -> Vec<Check> {
    let needs = sqlite.db.needs;
    if !sqlite.path.exists() {
        let found = format!("{} does not exist", sqlite.path.display());
        return vec![Check::failed("connection", found, "make one with `credkeeper sandbox DIR`, or correct the url")];
    }
    let connection = match sqlite.open(OpenFlags::SQLITE_OPEN_READ_ONLY) {
        Ok(connection) => connection,
        Err(error) => return vec![Check::failed("connection", chain(&error), "check the file and its permissions")],
    };
    let mut checks = vec![Check::ok("connection", format!("SQLite {} at {}", rusqlite::version(), sqlite.path.display()))];
    let (users, cards, centers) = (&sqlite.db.map.users, &sqlite.db.map.cards, &sqlite.db.map.cost_centers);
    let mut user_columns = vec![&users.id, &users.login, &users.email, &users.name, &users.surname];
    if needs.source {
        user_columns.extend(&users.source);
    }
    if needs.codes {
        user_columns.extend(users.puk.as_ref().map(|puk| &puk.column));
    }
    if needs.passwords {
        user_columns.extend(&users.password);
    }
    // This dialect always reads the membership.
    if let Member::Column { id, number } = &centers.member {
        user_columns.push(id);
        user_columns.extend(number);
    }
    checks.push(table(&connection, "users table", &users.table, &user_columns));
    checks.push(table(&connection, "cards table", &cards.table, &[&cards.user, &cards.value, &cards.expires.column]));
    if needs.cost_centers || needs.moves {
        checks.push(table(&connection, "cost centers table", &centers.table, &[&centers.id, &centers.number, &centers.name]));
        if let Member::Link(link) = &centers.member {
            checks.push(table(&connection, CENTER_LINKS, &link.table, &[&link.user, &link.to]));
        }
    }
    if let Some(RolesMap { table: of, id, name, link, .. }) = sqlite.roles_asked() {
        checks.push(table(&connection, "roles table", of, &[id, name]));
        checks.push(table(&connection, ROLE_LINKS, &link.table, &[&link.user, &link.to]));
    }
    let refused = |e| StoreError::query("take the write lock", e);
    // Where the file may not be written, SQLite opens it for reading in silence.
    let writable = sqlite.open(OpenFlags::SQLITE_OPEN_READ_WRITE).and_then(|c| {
        c.execute_batch("BEGIN IMMEDIATE; ROLLBACK").map_err(refused)?;
        c.is_readonly("main").map_err(refused)
    });
    let advice = "give the account that runs credkeeper the right to write the file and in its directory";
    let path = sqlite.path.display();
    checks.push(match writable {
        Ok(false) => Check::ok("writable", "the file can be written"),
        Ok(true) => Check::failed("writable", format!("{path} cannot be written by this account"), advice),
        Err(error) => Check::failed("writable", format!("{path}: {}", chain(&error)), advice),
    });
    checks
}

fn table(connection: &Connection, name: &'static str, table: &str, columns: &[&String]) -> Check {
    let missing: Vec<&str> = columns
        .iter()
        .filter(|c| connection.prepare(&format!("SELECT t.{} FROM {} t", quoted(c), quoted(table))).is_err())
        .map(|c| c.as_str())
        .collect();
    if missing.is_empty() {
        return Check::ok(name, format!("{table}, all {} columns", columns.len()));
    }
    Check::failed(name, format!("{table} lacks {}", missing.join(", ")), "correct `schema_map`, or make the sandbox again")
}
