//! Moves and removals of roles, each one statement for a whole batch.

use super::*;
use crate::config::schema_map::{LinkMap, Member};
use crate::store::Move;
use crate::store::postgres::write::statements::{APPLIED, CHANGED, TORN, column};

impl Postgres {
    /// Both halves of the membership are compared and both are written (R18).
    pub(super) fn move_users(&self, layout: &Layout, batch: &[&UserChange], binder: &mut Binder) -> String {
        let part = |of: fn(&Move) -> i64, binder: &mut Binder| column(batch, |c| c.cost_center.as_ref().map(of), Arg::Ints, binder);
        let ids = column(batch, |c| Some(c.user.0), Arg::Ints, binder);
        let (from_id, from_number) = (part(|m| m.from.id.0, binder), part(|m| m.from.number, binder));
        let (to_id, to_number) = (part(|m| m.to.id.0, binder), part(|m| m.to.number, binder));
        let (center, number) = self.membership(layout);
        let batch = format!(
            "batch(id, from_id, from_number, to_id, to_number) {}
                    (SELECT b.* FROM unnest({ids}, {from_id}, {from_number}, {to_id}, {to_number}) b)",
            layout.materialized
        );
        match (&self.db.map.cost_centers.member, &layout.center_links) {
            (Member::Column { id: member_id, number: member_number }, _) => format!(
                "WITH {batch},
                  moved AS (UPDATE {users} u SET {member_id} = b.to_id{set_number} FROM batch b
                             WHERE u.{id} = b.id AND {center} = b.from_id AND {number} = b.from_number RETURNING b.id)
                 SELECT m.id, {APPLIED}::bigint FROM moved m",
                users = layout.users,
                id = quoted(&self.db.map.users.id),
                member_id = quoted(member_id),
                set_number = member_number.as_ref().map_or(String::new(), |column| format!(", {} = b.to_number", quoted(column))),
            ),
            (Member::Link(link), table) => self.link_users(layout, link, table.as_deref().unwrap_or_default(), &batch),
        }
    }

    /// Each user gets one row, whatever rows there were: one of them is updated, or one inserted where there is none, and the
    /// others go. One that says the new cost center already is the one that stays, so that no unique index is hurt on the way.
    fn link_users(&self, layout: &Layout, link: &LinkMap, table: &str, batch: &str) -> String {
        let (center, number) = self.membership(layout);
        format!(
            "WITH {batch},
             ready {m} (SELECT b.id, b.to_id FROM batch b JOIN {users} u ON u.{id} = b.id {placed}
                         WHERE {center} = b.from_id AND {number} = b.from_number),
             rows {m} (SELECT l.ctid AS at, r.id, r.to_id,
                              row_number() OVER (PARTITION BY r.id ORDER BY (l.{to} = r.to_id) DESC NULLS LAST, l.ctid) AS place
                         FROM ready r JOIN {table} l ON l.{user} = r.id),
             changed AS (UPDATE {table} l SET {to} = k.to_id FROM rows k
                          WHERE l.ctid = k.at AND l.{user} = k.id AND k.place = 1 RETURNING k.id),
             deleted AS (DELETE FROM {table} l USING rows k WHERE l.ctid = k.at AND l.{user} = k.id AND k.place > 1 RETURNING k.id),
             inserted AS (INSERT INTO {table} ({user}, {to}) SELECT r.id, r.to_id FROM ready r LEFT JOIN rows k ON k.id = r.id
                           WHERE k.id IS NULL ON CONFLICT DO NOTHING RETURNING {user}::bigint AS id),
             hits AS (SELECT h.id, count(*) AS n FROM (SELECT id FROM changed UNION ALL SELECT id FROM deleted UNION ALL SELECT id FROM inserted) h
                       GROUP BY h.id),
             wanted AS (SELECT r.id, greatest(count(k.id), 1) AS n FROM ready r LEFT JOIN rows k ON k.id = r.id GROUP BY r.id)
             SELECT w.id, (CASE WHEN s.n IS NULL THEN {CHANGED} WHEN w.n = s.n THEN {APPLIED} ELSE {TORN} END)::bigint
               FROM wanted w LEFT JOIN hits s ON s.id = w.id",
            m = layout.materialized,
            users = layout.users,
            id = quoted(&self.db.map.users.id),
            placed = self.joined(layout, Some("batch")),
            user = quoted(&link.user),
            to = quoted(&link.to),
        )
    }

    /// Who has the role no longer, or has it already where it is given, is not in the answer. `None`: the map has no roles.
    pub(super) fn change_roles(&self, layout: &Layout, batch: &[&UserChange], give: bool, binder: &mut Binder) -> Option<String> {
        let (link, table) = self.role_links(layout)?;
        let ids = column(batch, |c| Some(c.user.0), Arg::Ints, binder);
        let roles = column(batch, |c| c.role.as_ref().map(|change| change.role().id.0), Arg::Ints, binder);
        let (user, role) = (quoted(&link.user), quoted(&link.to));
        let changed = match give {
            false => format!("DELETE FROM {table} l USING batch b WHERE l.{user} = b.id AND l.{role} = b.role RETURNING b.id"),
            true => format!(
                "INSERT INTO {table} ({user}, {role}) SELECT b.id, b.role FROM batch b JOIN {users} u ON u.{id} = b.id
                   LEFT JOIN {table} l ON l.{user} = b.id AND l.{role} = b.role WHERE l.{user} IS NULL
                 ON CONFLICT DO NOTHING RETURNING {user}::bigint AS id",
                users = layout.users,
                id = quoted(&self.db.map.users.id),
            ),
        };
        Some(format!(
            "WITH batch(id, role) {m} (SELECT b.* FROM unnest({ids}, {roles}) b), changed AS ({changed})
             SELECT DISTINCT c.id, {APPLIED}::bigint FROM changed c",
            m = layout.materialized,
        ))
    }
}
