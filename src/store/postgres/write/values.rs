//! Card assignment codes and passwords: values in columns of `users`, written by one statement for a whole batch.

use super::*;
use crate::domain::StoredValue;
use crate::store::ValueChange;
use crate::store::postgres::write::statements::{APPLIED, ValueOf, column};

impl Postgres {
    /// Of each user whose new code somebody has, the id. Nothing is written yet of anybody.
    pub(super) fn codes_standing(&self, layout: &Layout, batch: &[&UserChange], binder: &mut Binder) -> Option<String> {
        let code = self.code_column(layout)?;
        let ids = column(batch, |c| Some(c.user.0), Arg::Ints, binder);
        let codes = column(batch, |c| c.code.as_ref()?.new.as_ref().map(|code| code.expose().to_owned()), Arg::Texts, binder);
        Some(format!(
            "WITH batch(id, code) {m} (SELECT b.* FROM unnest({ids}, {codes}) b),
                  standing {m} (SELECT DISTINCT b.code FROM (SELECT DISTINCT b.code FROM batch b) b JOIN {users} u ON u.{code}::text = b.code)
             SELECT b.id FROM batch b JOIN standing s ON s.code = b.code",
            m = layout.materialized,
            users = layout.users,
        ))
    }

    /// Old values are compared, new ones written; NULL and the empty text are both none, and a user without an old text has no such change. `None`: a column is not there.
    pub(super) fn write_values(&self, layout: &Layout, batch: &[&UserChange], binder: &mut Binder) -> Option<String> {
        let kinds: [(ValueOf<UserChange, ValueChange>, _); 2] =
            [(|c| c.code.as_ref(), self.code_column(layout)), (|c| c.password.as_ref(), self.password_column(layout))];
        let ids = column(batch, |c| Some(c.user.0), Arg::Ints, binder);
        let (mut names, mut arrays, mut sets, mut tests) = (String::new(), String::new(), Vec::new(), String::new());
        for (n, (of, place)) in kinds.into_iter().enumerate() {
            if !batch.iter().any(|change| of(change).is_some()) {
                continue;
            }
            let place = place?;
            let text = |value: Option<&StoredValue>| value.map(|value| value.expose().to_owned());
            let old = column(batch, |c| of(c).map(|v| text(v.old.as_ref()).unwrap_or_default()), Arg::Texts, binder);
            let new = column(batch, |c| of(c).and_then(|v| text(v.new.as_ref())), Arg::Texts, binder);
            names += &format!(", old{n}, new{n}");
            arrays += &format!(", {old}, {new}");
            sets.push(format!("{place} = CASE WHEN b.old{n} IS NULL THEN u.{place}::text ELSE b.new{n} END"));
            tests += &format!(" AND (b.old{n} IS NULL OR coalesce(u.{place}::text, '') = b.old{n})");
        }
        Some(format!(
            "WITH batch(id{names}) {m} (SELECT b.* FROM unnest({ids}{arrays}) b),
                  changed AS (UPDATE {users} u SET {sets} FROM batch b WHERE u.{id} = b.id{tests} RETURNING b.id)
             SELECT c.id, {APPLIED}::bigint FROM changed c",
            m = layout.materialized,
            users = layout.users,
            id = quoted(&self.db.map.users.id),
            sets = sets.join(", "),
        ))
    }
}
