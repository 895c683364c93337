//! The text of the writing statements, one for each kind of change. Each answers with one row a user: id and verdict.

use super::*;
use crate::config::schema_map::Value;
use crate::domain::StoredValue;
use crate::inventory::StoredPin;
use crate::store::{PinChange, PinTarget};

/// Where a change or an image keeps a value of one kind.
pub(super) type ValueOf<T, V> = fn(&T) -> Option<&V>;

pub(super) const APPLIED: i64 = 0;
pub(super) const PIN_TAKEN: i64 = 1;
pub(super) const CHANGED: i64 = 2;
pub(super) const TORN: i64 = 3;

/// One column of a batch, in the order of the users.
pub(super) fn column<T>(
    batch: &[&UserChange],
    of: impl Fn(&UserChange) -> Option<T>,
    arg: fn(Vec<Option<T>>) -> Arg,
    binder: &mut Binder,
) -> String {
    binder.bind(arg(batch.iter().map(|change| of(change)).collect()))
}

impl Postgres {
    /// `found(at, id, value, raw)` and `own(at, id, value, ends, pin)`: the rows that the users of `batch` have.
    ///
    /// DISTINCT changes nothing in what is found: it tells the planner that the batch is the small side. Without it, and without
    /// an index, PostgreSQL 15 hashed a million cards for each batch, not the thousand users (measured: 3 times slower).
    fn own_rows(&self, layout: &Layout) -> String {
        let map = &self.db.map.cards;
        format!(
            "found {m} (SELECT c.ctid AS at, b.id, {value} AS value, c.{end} AS raw
                          FROM (SELECT DISTINCT b.id FROM batch b) b JOIN {cards} c ON c.{owner} = b.id),
             own {m} (SELECT o.at, o.id, o.value, {read} AS ends, {pin} AS pin FROM found o)",
            m = layout.materialized,
            cards = layout.cards,
            owner = quoted(&map.user),
            value = format_args!("c.{}::text", quoted(&map.value)),
            end = quoted(&map.expires.column),
            read = expiry::read(&map.expires, "o.raw"),
            pin = is_pin(self.db.pin_format, "o.value", true),
        )
    }

    /// `batch(id, value, ends)`, `held(id)`: whose new PIN stands somewhere in some form, and `own`.
    fn batch_of_pins(&self, layout: &Layout, batch: &[&UserChange], binder: &mut Binder) -> String {
        let new = |c: &UserChange| c.pin.as_ref().and_then(PinChange::new_pin).cloned();
        let ids = column(batch, |c| Some(c.user.0), Arg::Ints, binder);
        let values = column(batch, |c| new(c).map(|p| p.value.expose().to_owned()), Arg::Texts, binder);
        let ends = column(batch, |c| new(c)?.expires.map(sql::writable), Arg::Ints, binder);
        let news = batch.iter().filter_map(|c| Some((c.user.0, c.pin.as_ref()?.new_pin()?)));
        let (form_ids, forms) =
            news.flat_map(|(id, pin)| pin.forms.iter().map(move |form| (Some(id), Some(form.expose().to_owned())))).unzip();
        let (form_ids, forms) = (binder.bind(Arg::Ints(form_ids)), binder.bind(Arg::Texts(forms)));
        format!(
            "batch(id, value, ends) {m} (SELECT b.* FROM unnest({ids}, {values}, {ends}) b),
             forms(id, form) {m} (SELECT f.* FROM unnest({form_ids}, {forms}) f),
             standing {m} (SELECT DISTINCT f.form FROM (SELECT DISTINCT f.form FROM forms f) f JOIN {cards} c ON {value} = f.form),
             held {m} (SELECT DISTINCT f.id FROM forms f JOIN standing s ON s.form = f.form),
             {own}",
            m = layout.materialized,
            cards = layout.cards,
            value = format_args!("c.{}::text", quoted(&self.db.map.cards.value)),
            own = self.own_rows(layout),
        )
    }

    /// `named(id, value, ends, chosen)`: the PINs that the users must have, and `differing(id)`: who has others, counted with
    /// multiplicity. `chosen` is 1 for those that the change is about.
    fn named(&self, layout: &Layout, batch: &[&UserChange], binder: &mut Binder) -> String {
        let old: Vec<(i64, &StoredPin, bool)> = batch
            .iter()
            .filter_map(|c| Some((c.user.0, c.pin.as_ref()?)))
            .flat_map(|(id, pin)| pin.old.iter().map(move |old| (id, old, pin.is_about(old))))
            .collect();
        let ids = binder.bind(Arg::Ints(old.iter().map(|(id, ..)| Some(*id)).collect()));
        let values = binder.bind(Arg::Texts(old.iter().map(|(_, pin, _)| Some(pin.value.expose().to_owned())).collect()));
        let ends = binder.bind(Arg::Ints(old.iter().map(|(_, pin, _)| pin.expires.map(|at| at.0)).collect()));
        let chosen = binder.bind(Arg::Ints(old.iter().map(|(.., chosen)| Some((*chosen).into())).collect()));
        format!(
            "named(id, value, ends, chosen) {m} (SELECT n.* FROM unnest({ids}, {values}, {ends}, {chosen}) n),
             differing {m} (SELECT DISTINCT x.id FROM (
                 SELECT y.id FROM (SELECT o.id, o.value, o.ends, 1 AS n FROM own o WHERE o.pin
                                   UNION ALL SELECT n.id, n.value, n.ends, -1 FROM named n) y
                  GROUP BY y.id, y.value, y.ends HAVING sum(y.n) <> 0) x)",
            m = layout.materialized,
        )
    }

    /// Users without any PIN get one, if it stands nowhere. `ON CONFLICT` names no target: it is right with a unique index on
    /// the card and without, and what it keeps out was taken by somebody else in this moment.
    ///
    /// With `beside` the users may have PINs, those named and no others, which stay.
    pub(super) fn insert(&self, layout: &Layout, batch: &[&UserChange], beside: bool, binder: &mut Binder) -> String {
        let map = &self.db.map.cards;
        let pinned = match beside {
            true => format!("{}, pinned AS (SELECT d.id FROM differing d)", self.named(layout, batch, binder)),
            false => format!("pinned {} (SELECT DISTINCT o.id FROM own o WHERE o.pin)", layout.materialized),
        };
        let batch = self.batch_of_pins(layout, batch, binder);
        // Bound as text and cast to what the column is, so that one spelling serves numbers, booleans and dates.
        let defaults: Vec<(String, String)> = map
            .insert_defaults
            .iter()
            .map(|(name, value)| {
                let text = match value {
                    Value::Number(n) => n.to_string(),
                    Value::Text(t) => t.clone(),
                    Value::Null => return (quoted(name), "NULL".to_owned()),
                };
                let column_type = layout.card_types.get(name).map_or("text", String::as_str);
                (quoted(name), format!("CAST({} AS {column_type})", binder.text(&text)))
            })
            .collect();
        let names: String = defaults.iter().map(|(name, _)| format!(", {name}")).collect();
        let values: String = defaults.iter().map(|(_, value)| format!(", {value}")).collect();
        format!(
            "WITH {batch},
             there {m} (SELECT b.id FROM batch b JOIN {users} u ON u.{id} = b.id),
             {pinned},
             ready {m} (SELECT b.* FROM batch b JOIN there t ON t.id = b.id LEFT JOIN held h ON h.id = b.id
                          LEFT JOIN pinned p ON p.id = b.id WHERE h.id IS NULL AND p.id IS NULL),
             done AS (INSERT INTO {cards} ({owner}, {card}, {end}{names})
                      SELECT r.id, r.value, {write}{values} FROM ready r ON CONFLICT DO NOTHING RETURNING {owner}::bigint AS id)
             SELECT b.id, (CASE WHEN d.id IS NOT NULL THEN {APPLIED} WHEN p.id IS NOT NULL OR t.id IS NULL THEN {CHANGED}
                                ELSE {PIN_TAKEN} END)::bigint
               FROM batch b LEFT JOIN there t ON t.id = b.id LEFT JOIN pinned p ON p.id = b.id LEFT JOIN done d ON d.id = b.id",
            m = layout.materialized,
            users = layout.users,
            id = quoted(&self.db.map.users.id),
            cards = layout.cards,
            owner = quoted(&map.user),
            card = quoted(&map.value),
            end = quoted(&map.expires.column),
            write = expiry::write(&map.expires, "r.ends"),
        )
    }

    /// Users whose PIN rows are exactly those named, counted with multiplicity: one row becomes the new PIN, so that columns
    /// that are not mapped live on, and the others go. Rows are told apart by `ctid`: a row that somebody changes meanwhile
    /// gets another one, and is then missed rather than overwritten.
    pub(super) fn replace(&self, layout: &Layout, batch: &[&UserChange], binder: &mut Binder) -> String {
        let map = &self.db.map.cards;
        let batch_rows = self.batch_of_pins(layout, batch, binder);
        let named = self.named(layout, batch, binder);
        format!(
            "WITH {batch_rows}, {named},
             ready {m} (SELECT b.* FROM batch b LEFT JOIN held h ON h.id = b.id LEFT JOIN differing d ON d.id = b.id
                         WHERE h.id IS NULL AND d.id IS NULL),
             rows {m} (SELECT o.at, r.id, r.value, r.ends, row_number() OVER (PARTITION BY o.id ORDER BY o.at) AS place
                         FROM own o JOIN ready r ON r.id = o.id WHERE o.pin),
             changed AS (UPDATE {cards} c SET {card} = k.value, {end} = {write} FROM rows k
                          WHERE c.ctid = k.at AND c.{owner} = k.id AND k.place = 1 RETURNING k.id),
             deleted AS (DELETE FROM {cards} c USING rows k
                          WHERE c.ctid = k.at AND c.{owner} = k.id AND k.place > 1 RETURNING k.id),
             hits AS (SELECT h.id, count(*) AS n FROM (SELECT id FROM changed UNION ALL SELECT id FROM deleted) h GROUP BY h.id),
             wanted AS (SELECT k.id, count(*) AS n FROM rows k GROUP BY k.id)
             SELECT b.id, (CASE WHEN d.id IS NOT NULL THEN {CHANGED} WHEN h.id IS NOT NULL THEN {PIN_TAKEN}
                                WHEN w.n = s.n THEN {APPLIED} WHEN s.n IS NULL THEN {CHANGED} ELSE {TORN} END)::bigint
               FROM batch b LEFT JOIN held h ON h.id = b.id LEFT JOIN differing d ON d.id = b.id
                    LEFT JOIN wanted w ON w.id = b.id LEFT JOIN hits s ON s.id = b.id",
            m = layout.materialized,
            cards = layout.cards,
            owner = quoted(&map.user),
            card = quoted(&map.value),
            end = quoted(&map.expires.column),
            write = expiry::write(&map.expires, "k.ends"),
        )
    }

    /// Users whose PIN rows are exactly those named: the chosen rows get another end, or go. Nothing else of them changes.
    pub(super) fn adjust(&self, layout: &Layout, batch: &[&UserChange], delete: bool, binder: &mut Binder) -> String {
        let map = &self.db.map.cards;
        let ids = column(batch, |c| Some(c.user.0), Arg::Ints, binder);
        let end_of = |c: &UserChange| match c.pin.as_ref()?.to {
            PinTarget::End { at, .. } => at.map(sql::writable),
            PinTarget::New(_) | PinTarget::Beside(_) | PinTarget::Gone { .. } => None,
        };
        let ends = column(batch, end_of, Arg::Ints, binder);
        let named = self.named(layout, batch, binder);
        let (cards, owner) = (&layout.cards, quoted(&map.user));
        let done = match delete {
            true => format!("DELETE FROM {cards} c USING rows k WHERE c.ctid = k.at AND c.{owner} = k.id RETURNING k.id"),
            false => format!(
                "UPDATE {cards} c SET {end} = {write} FROM rows k WHERE c.ctid = k.at AND c.{owner} = k.id RETURNING k.id",
                end = quoted(&map.expires.column),
                write = expiry::write(&map.expires, "k.ends"),
            ),
        };
        format!(
            "WITH batch(id, ends) {m} (SELECT b.* FROM unnest({ids}, {ends}) b), {own}, {named},
             rows {m} (SELECT DISTINCT o.at, b.id, b.ends
                         FROM batch b LEFT JOIN differing d ON d.id = b.id JOIN own o ON o.id = b.id
                         JOIN named n ON n.id = o.id AND n.value = o.value
                        WHERE d.id IS NULL AND o.pin AND n.chosen = 1 AND n.ends IS NOT DISTINCT FROM o.ends),
             done AS ({done}),
             hits AS (SELECT h.id, count(*) AS n FROM done h GROUP BY h.id),
             wanted AS (SELECT k.id, count(*) AS n FROM rows k GROUP BY k.id)
             SELECT b.id, (CASE WHEN w.n = s.n THEN {APPLIED} WHEN s.n IS NULL THEN {CHANGED} ELSE {TORN} END)::bigint
               FROM batch b LEFT JOIN wanted w ON w.id = b.id LEFT JOIN hits s ON s.id = b.id",
            m = layout.materialized,
            own = self.own_rows(layout),
        )
    }

    /// The places of those images that stand there whole. What would be written is compared, read back as the column tells it:
    /// a date, or a clock that skips an hour, does not hold every second.
    pub(super) fn standing(&self, layout: &Layout, images: &[AfterImage], binder: &mut Binder) -> String {
        let map = &self.db.map;
        let placed = || images.iter().enumerate().map(|(i, image)| (i64::try_from(i).ok(), image));
        let mut ints = |values: Vec<Option<i64>>| binder.bind(Arg::Ints(values));
        let places = ints(placed().map(|(place, _)| place).collect());
        let ids = ints(placed().map(|(_, image)| Some(image.user.0)).collect());
        let centers = ints(placed().map(|(_, image)| image.cost_center.as_ref().map(|c| c.id.0)).collect());
        let numbers = ints(placed().map(|(_, image)| image.cost_center.as_ref().map(|c| c.number)).collect());
        let (mut pin_places, mut pin_ids, mut values, mut ends, mut wants) = (vec![], vec![], vec![], vec![], vec![]);
        // What is wanted of a PIN: 0 it stands with this end, 1 it is gone, 2 it stands.
        for (place, image) in placed() {
            let there = image.pins.iter().map(|(value, end)| (value, *end, 0));
            let gone = image.gone.iter().map(|value| (value, None, 1));
            let held = image.held.iter().map(|value| (value, None, 2));
            for (value, end, want) in there.chain(gone).chain(held) {
                pin_places.push(place);
                pin_ids.push(Some(image.user.0));
                values.push(Some(value.expose().to_owned()));
                ends.push(end.map(sql::writable));
                wants.push(Some(want));
            }
        }
        let [pin_places, pin_ids, pin_ends, wants] = [pin_places, pin_ids, ends, wants].map(ints);
        let values = binder.bind(Arg::Texts(values));
        let (mut columns, mut read, mut values_asked, mut tests) = (String::new(), String::new(), String::new(), String::new());
        let kinds: [(ValueOf<AfterImage, StoredValue>, _); 2] =
            [(|i| i.code.as_ref(), self.code_column(layout)), (|i| i.password.as_ref(), self.password_column(layout))];
        for (n, (of, place)) in kinds.into_iter().enumerate() {
            if images.iter().any(|image| of(image).is_some()) {
                let asked = binder.bind(Arg::Texts(images.iter().map(|image| of(image).map(|value| value.expose().to_owned())).collect()));
                columns += &format!(", value{n}");
                values_asked += &format!(", {asked}");
                // What is not even there does not stand.
                let held = place.map_or("NULL".to_owned(), |place| format!("u.{place}"));
                read += &format!(", {held}::text AS value{n}");
                tests += &format!(" AND (b.value{n} IS NULL OR coalesce(q.value{n}, '') = b.value{n})");
            }
        }
        let (mut role_column, mut role_asked, mut regained, mut without_role) =
            (String::new(), String::new(), String::new(), String::new());
        if let Some((link, table)) = self.role_links(layout).filter(|_| images.iter().any(|image| image.role_gone.is_some())) {
            let asked = images.iter().map(|image| image.role_gone.map(|role| role.0)).collect();
            role_asked = format!(", {}", binder.bind(Arg::Ints(asked)));
            role_column = ", role".to_owned();
            regained = format!(
                ", regained {} (SELECT DISTINCT b.place FROM batch b JOIN {table} l ON l.{} = b.id AND l.{} = b.role)",
                layout.materialized,
                quoted(&link.user),
                quoted(&link.to)
            );
            without_role = " AND NOT EXISTS (SELECT FROM regained g WHERE g.place = b.place)".to_owned();
        }
        let (center, number) = self.membership(layout);
        let placed = self.joined(layout, Some("batch"));
        let written = expiry::read(&map.cards.expires, &format!("({})", expiry::write(&map.cards.expires, "w.ends")));
        format!(
            "WITH batch(place, id, center, number{columns}{role_column}) {m}
                    (SELECT b.* FROM unnest({places}, {ids}, {centers}, {numbers}{values_asked}{role_asked}) b),
                  wanted(place, id, value, ends, want) {m}
                    (SELECT w.place, w.id, w.value, {written}, w.want
                       FROM unnest({pin_places}, {pin_ids}, {values}, {pin_ends}, {wants}) w(place, id, value, ends, want)),
                  own {m} (SELECT b.id, c.{card}::text AS value, {ends} AS ends
                             FROM (SELECT DISTINCT w.id FROM wanted w) b JOIN {cards} c ON c.{owner} = b.id),
                  differing {m} (SELECT w.place FROM wanted w LEFT JOIN own o
                                     ON o.id = w.id AND o.value = w.value AND (w.want > 0 OR o.ends IS NOT DISTINCT FROM w.ends)
                                  WHERE (o.id IS NULL) = (w.want <> 1)),
                  people {m} (SELECT b.place, {center} AS center, {number} AS number{read} FROM batch b JOIN {users} u ON u.{id} = b.id {placed}){regained}
             SELECT DISTINCT b.place FROM batch b JOIN people q ON q.place = b.place LEFT JOIN differing d ON d.place = b.place
              WHERE d.place IS NULL AND (b.center IS NULL OR (q.center = b.center AND q.number = b.number)){tests}{without_role}",
            m = layout.materialized,
            cards = layout.cards,
            users = layout.users,
            id = quoted(&map.users.id),
            owner = quoted(&map.cards.user),
            card = quoted(&map.cards.value),
            ends = expiry::read(&map.cards.expires, &format!("c.{}", quoted(&map.cards.expires.column))),
        )
    }
}
