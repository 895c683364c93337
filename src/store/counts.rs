//! The figures that judging needs, by one statement that both dialects understand.
//!
//! One look at the cards and one at the users; no join. Who has no PIN is counted by the read, which has to find them anyway: a
//! join of its own took as long as all the rest of a pass with nothing to do.

use crate::domain::{PinFormat, PinLength};
use crate::inventory::{Counts, Foreign};

use super::sql::is_pin;

/// The parts of the statement, quoted and bound by the dialect.
pub(super) struct Question<'a> {
    pub(super) users: &'a str,
    pub(super) cards: &'a str,
    /// The key of the users.
    pub(super) id: &'a str,
    /// The card column of row `c`, as text.
    pub(super) value: &'a str,
    /// Whether row `u` is a real user.
    pub(super) real: &'a str,
    pub(super) format: PinFormat,
    /// Whether row `u` has a code, or a password; `None`: no policy asks.
    pub(super) codes: &'a Option<String>,
    pub(super) passwords: &'a Option<String>,
    /// PostgreSQL.
    pub(super) typed: bool,
}

/// How many numbers stand in front of the lengths in the answer.
pub(super) const NUMBERS: usize = 8;

impl Question<'_> {
    pub(super) fn statement(&self) -> String {
        let Question { users, cards, id, real, .. } = self;
        let pin = self.own();
        let held =
            |test: &Option<String>| test.as_ref().map_or("CAST(0 AS bigint)".to_owned(), |test| format!("count(*) FILTER (WHERE {test})"));
        let (codes, passwords) = (held(self.codes), held(self.passwords));
        let [md5, bare, prefix] = [PinFormat::Md5, PinFormat::Md5WithoutPrefix, PinFormat::Prefix].map(|form| self.foreign(form));
        format!(
            "SELECT p.users, p.newest, p.codes, p.passwords, s.pins, s.md5, s.bare, s.prefix, {lengths}
               FROM (SELECT count(*) FILTER (WHERE {real}) AS users, CAST(coalesce(max(u.{id}), 0) AS bigint) AS newest,
                            {codes} AS codes, {passwords} AS passwords FROM {users} u) p,
                    (SELECT count(*) FILTER (WHERE {pin}) AS pins, count(*) FILTER (WHERE {md5}) AS md5, count(*) FILTER (WHERE {bare}) AS bare,
                            count(*) FILTER (WHERE {prefix}) AS prefix FROM {cards} c) s",
            lengths = self.lengths(),
        )
    }

    fn own(&self) -> String {
        is_pin(self.format, self.value, self.typed)
    }

    /// Whether the value is a PIN of this form, and none of the configured one. The cheap test comes first: hardly a value
    /// passes it.
    fn foreign(&self, form: PinFormat) -> String {
        if form == self.format {
            return "false".to_owned();
        }
        let value = self.value;
        // SQLite's texts are bytes anyway.
        let length = if self.typed { "octet_length" } else { "length" };
        let short = match form {
            PinFormat::Md5 => format!("{length}({value}) = 35"),
            PinFormat::Md5WithoutPrefix => format!("{length}({value}) = 32"),
            // `PIN` and 32 digits is far more likely a hash.
            PinFormat::Prefix | PinFormat::Plain { .. } => format!("{length}({value}) <= {}", 3 + PinLength::MAX),
        };
        format!("{short} AND {} AND NOT {}", is_pin(form, value, self.typed), self.own())
    }

    /// `digits count, digits count`, or NULL.
    fn lengths(&self) -> String {
        let before = match self.format {
            PinFormat::Md5 | PinFormat::Md5WithoutPrefix if self.typed => return "NULL::text".to_owned(),
            PinFormat::Md5 | PinFormat::Md5WithoutPrefix => return "NULL".to_owned(),
            PinFormat::Prefix => 3,
            PinFormat::Plain { .. } => 0,
        };
        let (joined, cards, value, own) = (if self.typed { "string_agg" } else { "group_concat" }, self.cards, self.value, self.own());
        format!(
            "(SELECT coalesce({joined}(l.digits || ' ' || l.pins, ','), '')
                FROM (SELECT length({value}) - {before} AS digits, count(*) AS pins FROM {cards} c WHERE {own} GROUP BY 1) l)"
        )
    }
}

/// What the statement answered.
pub(super) fn counts(numbers: [i64; NUMBERS], lengths: Option<String>) -> Counts {
    let [users, newest, codes, passwords, pins, md5, bare, prefix] = numbers;
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    let foreign = Foreign { md5: count(md5), md5_without_prefix: count(bare), prefix: count(prefix) };
    let by_length = lengths.map(|text| by_length(&text));
    Counts { users: count(users), pins: count(pins), by_length, codes: count(codes), passwords: count(passwords), foreign, newest }
}

/// PINs longer than any that is drawn are left out.
fn by_length(text: &str) -> [u64; PinLength::MAX as usize] {
    let mut by_length = [0; PinLength::MAX as usize];
    for pair in text.split(',') {
        if let Some((digits, pins)) = pair.split_once(' ')
            && let (Ok(digits), Ok(pins)) = (digits.parse::<usize>(), pins.parse())
            && let Some(place) = digits.checked_sub(1).and_then(|place| by_length.get_mut(place))
        {
            *place = pins;
        }
    }
    by_length
}
