//! Cost centers and roles, written one user at a time.

use rusqlite::{Connection, OptionalExtension, params};

use crate::config::schema_map::{LinkMap, Member};
use crate::domain::{RoleId, UserId};
use crate::store::Move;
use crate::store::sql::quoted;
use crate::store::sqlite::Sqlite;

/// [`Sqlite::joined`] for the one user whose id is bound there.
pub(super) fn joined_of_one(sqlite: &Sqlite, id: &str) -> String {
    match &sqlite.db.map.cost_centers.member {
        Member::Link(link) => sqlite.joined(&format!("l.{} = {id}", quoted(&link.user))),
        Member::Column { .. } => String::new(),
    }
}

/// Whether the user was where the move begins.
pub(super) fn move_user(sqlite: &Sqlite, connection: &Connection, user: UserId, to: &Move) -> rusqlite::Result<bool> {
    let users = &sqlite.db.map.users;
    let (center, number) = sqlite.membership();
    match &sqlite.db.map.cost_centers.member {
        Member::Column { id, number: number_column } => {
            let set_number = number_column.as_ref().map_or(String::new(), |column| format!(", {} = ?2", quoted(column)));
            let update = format!(
                "UPDATE {} AS u SET {} = ?1{set_number} WHERE u.{} = ?3 AND {center} = ?4 AND {number} = ?5 AND ?2 = ?2",
                quoted(&users.table),
                quoted(id),
                quoted(&users.id)
            );
            let values = [to.to.id.0, to.to.number, user.0, to.from.id.0, to.from.number];
            Ok(connection.prepare_cached(&update)?.execute(values)? == 1)
        }
        Member::Link(link) => {
            let joined = joined_of_one(sqlite, "?1");
            let stands = format!("SELECT {center}, {number} FROM {} u {joined} WHERE u.{} = ?1", quoted(&users.table), quoted(&users.id));
            let stands = connection.prepare_cached(&stands)?.query_row([user.0], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            if stands != Some((to.from.id.0, to.from.number)) {
                return Ok(false);
            }
            link_to(connection, link, user, to.to.id.0)?;
            Ok(true)
        }
    }
}

/// The user's one row, whatever rows there were. One that says `to` already is the one that stays.
fn link_to(connection: &Connection, link: &LinkMap, user: UserId, to: i64) -> rusqlite::Result<()> {
    let (table, owner, column) = (quoted(&link.table), quoted(&link.user), quoted(&link.to));
    let kept = format!("SELECT rowid FROM {table} WHERE {owner} = ?1 ORDER BY {column} IS NOT ?2, rowid LIMIT 1");
    let kept: Option<i64> = connection.prepare_cached(&kept)?.query_row([user.0, to], |row| row.get(0)).optional()?;
    let Some(kept) = kept else {
        let insert = format!("INSERT INTO {table} ({owner}, {column}) VALUES (?1, ?2)");
        return connection.prepare_cached(&insert)?.execute([user.0, to]).map(drop);
    };
    connection.prepare_cached(&format!("DELETE FROM {table} WHERE {owner} = ?1 AND rowid <> ?2"))?.execute([user.0, kept])?;
    connection.prepare_cached(&format!("UPDATE {table} SET {column} = ?1 WHERE rowid = ?2"))?.execute([to, kept]).map(drop)
}

/// Whether the user had the role.
pub(super) fn remove_role(sqlite: &Sqlite, connection: &Connection, user: UserId, role: RoleId) -> rusqlite::Result<bool> {
    let Some(roles) = &sqlite.db.map.roles else { return Ok(false) };
    let LinkMap { table, user: owner, to } = &roles.link;
    let delete = format!("DELETE FROM {} WHERE {} = ?1 AND {} = ?2", quoted(table), quoted(owner), quoted(to));
    Ok(connection.prepare_cached(&delete)?.execute([user.0, role.0])? > 0)
}

/// Whether the user is there and did not have the role.
pub(super) fn give_role(sqlite: &Sqlite, connection: &Connection, user: UserId, role: RoleId) -> rusqlite::Result<bool> {
    let Some(roles) = &sqlite.db.map.roles else { return Ok(false) };
    if has_role(sqlite, connection, user, role)? || !super::is_there(sqlite, connection, user)? {
        return Ok(false);
    }
    let LinkMap { table, user: owner, to } = &roles.link;
    let insert = format!("INSERT INTO {} ({}, {}) VALUES (?1, ?2)", quoted(table), quoted(owner), quoted(to));
    Ok(connection.prepare_cached(&insert)?.execute(params![user.0, role.0])? == 1)
}

pub(super) fn has_role(sqlite: &Sqlite, connection: &Connection, user: UserId, role: RoleId) -> rusqlite::Result<bool> {
    let Some(roles) = &sqlite.db.map.roles else { return Ok(false) };
    let LinkMap { table, user: owner, to } = &roles.link;
    let held = format!("SELECT 1 FROM {} WHERE {} = ?1 AND {} = ?2", quoted(table), quoted(owner), quoted(to));
    connection.prepare_cached(&held)?.exists(params![user.0, role.0])
}
