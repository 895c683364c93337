//! What both dialects share: quoting, binding, the closed set of tests, what a PIN looks like in SQL, and how a row becomes a
//! [`User`]. Every value is bound; identifiers come from the schema map and are quoted.

use std::collections::BTreeSet;

use crate::config::DatabaseConfig;
use crate::config::schema_map::{Test, Value};
use crate::domain::{CostCenter, CostCenterId, CostCenterRef, PinFormat, Role, RoleId, RoleRef, StoredValue, UserId, WallClock};
use crate::inventory::{Membership, Places, Standing, StoredPassword, StoredPin, User};

use super::{Outcome, UserChange, Wanted};

/// Users in one chunk of a read.
pub(super) const CHUNK: usize = 1000;

/// After-images looked up in one statement, so that `landed` never holds the write lock for long.
pub(super) const LOOK_UP: usize = 20_000;
/// How many names are looked at for advice.
pub(super) const NAMES: usize = 10_000;

/// How long the write lock is waited for.
pub(super) const LOCK_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// A bound value. No `Debug`: it may be a stored PIN.
pub(super) enum Arg {
    Int(Option<i64>),
    Text(String),
    Ints(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
}

/// SQL text in the making and what is bound in it.
#[derive(Default)]
pub(super) struct Binder {
    pub(super) args: Vec<Arg>,
    /// PostgreSQL wants types named (`$1::bigint`), SQLite numbers alone (`?1`).
    pub(super) typed: bool,
}

impl Binder {
    pub(super) fn postgres() -> Binder {
        Binder { args: Vec::new(), typed: true }
    }

    pub(super) fn sqlite() -> Binder {
        Binder::default()
    }

    /// The placeholder for `arg`.
    pub(super) fn bind(&mut self, arg: Arg) -> String {
        let sql_type = match &arg {
            Arg::Int(_) => "bigint",
            Arg::Text(_) => "text",
            Arg::Ints(_) => "bigint[]",
            Arg::Texts(_) => "text[]",
        };
        self.args.push(arg);
        let n = self.args.len();
        if self.typed { format!("${n}::{sql_type}") } else { format!("?{n}") }
    }

    pub(super) fn int(&mut self, value: i64) -> String {
        self.bind(Arg::Int(Some(value)))
    }

    pub(super) fn text(&mut self, value: &str) -> String {
        self.bind(Arg::Text(value.to_owned()))
    }

    /// `test` as a boolean expression that is never NULL: a test on a NULL column does not hold, and `not` of it does.
    ///
    /// `coalesce` is there for the planner too: PostgreSQL takes `(flag & 1) = 1` to select one row in 200 and then plans
    /// nested loops over the whole table; of `coalesce(…)` it expects one row in two.
    pub(super) fn test(&mut self, table: &str, test: &Test) -> String {
        let column = |name: &str| format!("{table}.{}", quoted(name));
        match test {
            Test::BitsSet { column: c, mask } => {
                let (a, b) = (self.int(*mask), self.int(*mask));
                format!("coalesce(({} & {a}) = {b}, false)", column(c))
            }
            Test::BitsClear { column: c, mask } => {
                let mask = self.int(*mask);
                format!("coalesce(({} & {mask}) = 0, false)", column(c))
            }
            Test::Equals { column: c, value } => self.equals(&column(c), value),
            Test::In { column: c, values } => {
                let any: Vec<String> = values.iter().map(|value| self.equals(&column(c), value)).collect();
                joined(&any, " OR ", "false")
            }
            Test::IsNull { column: c } => format!("({} IS NULL)", column(c)),
            Test::All(tests) => {
                let all: Vec<String> = tests.iter().map(|t| self.test(table, t)).collect();
                joined(&all, " AND ", "true")
            }
            Test::Any(tests) => {
                let any: Vec<String> = tests.iter().map(|t| self.test(table, t)).collect();
                joined(&any, " OR ", "false")
            }
            Test::Not(inner) => format!("(NOT {})", self.test(table, inner)),
        }
    }

    fn equals(&mut self, column: &str, value: &Value) -> String {
        match value {
            Value::Null => format!("({column} IS NULL)"),
            Value::Number(n) => format!("coalesce({column} = {}, false)", self.int(*n)),
            // Through text, so that a boolean or an enumerated column can be tested too.
            Value::Text(t) => format!("coalesce(CAST({column} AS text) = {}, false)", self.text(t)),
        }
    }
}

fn joined(parts: &[String], by: &str, none: &str) -> String {
    if parts.is_empty() { none.to_owned() } else { format!("({})", parts.join(by)) }
}

/// An identifier of the map. Both dialects quote alike.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Exactly [`PinFormat::is_pin`], in SQL, never NULL. Trimming off all digits leaves the prefix and nothing else only where
/// everything behind it is a digit: free of collations, and cheap. `value` must be text.
///
/// PostgreSQL trims bytes, not text: for a million values 0.9 s against 1.7 s, and 3.3 s for a regular expression. The bytes are
/// those that the database holds, so that nothing is converted and nothing can fail.
pub(super) fn is_pin(format: PinFormat, value: &str, typed: bool) -> String {
    const HEX: &str = "0123456789abcdef";
    const DIGITS: &str = "0123456789";
    let only = |prefix: &str, digits: &str| match typed {
        // It trims both ends, and digits in front of the prefix are none of its own.
        true => {
            format!("{value} LIKE '{prefix}%' AND btrim(convert_to({value}, getdatabaseencoding()), '{digits}'::bytea) = '{prefix}'::bytea")
        }
        false => format!("rtrim({value}, '{digits}') = '{prefix}'"),
    };
    let test = match format {
        PinFormat::Md5 => format!("length({value}) = 35 AND {}", only("PIN", HEX)),
        PinFormat::Md5WithoutPrefix => format!("length({value}) = 32 AND {}", only("", HEX)),
        PinFormat::Prefix => format!("length({value}) > 3 AND {}", only("PIN", DIGITS)),
        PinFormat::Plain { max_length } => format!("length({value}) BETWEEN 1 AND {max_length} AND {}", only("", DIGITS)),
    };
    format!("coalesce({test}, false)")
}

/// A row of `users` as a statement returned it.
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) login: String,
    pub(super) email: String,
    pub(super) name: String,
    pub(super) surname: String,
    pub(super) is_user: bool,
    pub(super) is_deleted: bool,
    pub(super) center: (i64, i64),
    /// Not asked for where no policy needs them.
    pub(super) roles: Vec<i64>,
    pub(super) source: Option<String>,
    /// Not asked for where no policy needs it.
    pub(super) code: Option<String>,
    pub(super) password: Option<String>,
    /// Every value of the card column with its expiry.
    pub(super) cards: Vec<(String, Option<i64>)>,
}

impl Row {
    pub(super) fn into_user(self, db: &DatabaseConfig) -> User {
        let standing = if self.is_deleted {
            Standing::Deleted
        } else if !self.is_user {
            Standing::NotAUser
        } else if db.template_user.as_ref() == Some(&self.login) {
            Standing::Template
        } else {
            Standing::Active
        };
        let (pins, cards): (Vec<_>, Vec<_>) = self.cards.into_iter().partition(|(value, _)| db.pin_format.is_pin(value));
        let mut pins: Vec<StoredPin> =
            pins.into_iter().map(|(value, expires)| StoredPin::found(StoredValue::new(value), expires.map(WallClock))).collect();
        pins.sort_by(|a, b| (&a.value, a.expires).cmp(&(&b.value, b.expires)));
        let roles: BTreeSet<RoleId> = self.roles.into_iter().map(RoleId).collect();
        User {
            id: UserId(self.id),
            login: self.login,
            email: self.email,
            name: self.name,
            surname: self.surname,
            standing,
            cost_center: Membership { id: CostCenterId(self.center.0), number: self.center.1 },
            roles: roles.into_iter().collect(),
            source: self.source.filter(|s| !s.is_empty()),
            pins,
            cards: u32::try_from(cards.len()).unwrap_or(u32::MAX),
            code: self.code.filter(|code| !code.is_empty()).map(StoredValue::new),
            password: self.password.filter(|password| !password.is_empty()).map(StoredValue::new).map(StoredPassword::found),
        }
    }
}

/// Which of those found answers which of those wanted.
pub(super) fn pick_places(wanted: &Wanted, centers: &[CostCenter], roles: &[Role]) -> Places {
    let center = |w: &CostCenterRef| {
        let is = |center: &&CostCenter| match w {
            CostCenterRef::Number(n) => center.number == *n,
            CostCenterRef::Name(n) => center.name == *n,
        };
        only(centers.iter().filter(is)).unwrap_or_else(|| {
            tracing::warn!(cost_center = %w, "Several cost centers are called {w}: give the number of the one that is meant");
            None
        })
    };
    let role = |w: &RoleRef| {
        let is = |role: &&Role| match w {
            RoleRef::Id(id) => role.id == *id,
            RoleRef::Name(n) => role.name == *n,
        };
        only(roles.iter().filter(is)).unwrap_or_else(|| {
            tracing::warn!(role = %w, "Several roles are called {w}: give the number of the one that is meant, its id");
            None
        })
    };
    Places {
        cost_centers: wanted.cost_centers.iter().map(|w| (w.clone(), center(w))).collect(),
        roles: wanted.roles.iter().map(|w| (w.clone(), role(w))).collect(),
    }
}

/// The one hit, if there is one; `None`: there are several.
fn only<'h, T: Clone + 'h>(mut hits: impl Iterator<Item = &'h T>) -> Option<Option<T>> {
    let first = hits.next().cloned();
    hits.next().is_none().then_some(first)
}

/// The changes that may be sent at all: a second change for the same user would fight the first, and of two users with the
/// same new PIN or code only one can have it, which no look at the database shows before either stands there.
pub(super) fn settle_within_batch(changes: &[UserChange]) -> Vec<Option<Outcome>> {
    let mut users = BTreeSet::new();
    let (mut forms, mut codes) = (BTreeSet::new(), BTreeSet::new());
    changes
        .iter()
        .map(|change| {
            if !users.insert(change.user) {
                return Some(Outcome::ChangedMeanwhile);
            }
            if let Some(code) = change.code.as_ref().and_then(|code| code.new.as_ref())
                && !codes.insert(code)
            {
                return Some(Outcome::CodeTaken);
            }
            let pin = change.pin.as_ref()?.new_pin()?;
            if pin.forms.iter().chain([&pin.value]).any(|form| forms.contains(form)) {
                return Some(Outcome::PinTaken);
            }
            forms.extend(pin.forms.iter().chain([&pin.value]));
            None
        })
        .collect()
}

/// The last second that every expiry type can hold, 9999-12-31 23:59:59: what lies beyond is written as this.
pub(super) fn writable(at: WallClock) -> i64 {
    at.0.clamp(-62_135_596_800, 253_402_300_799)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_cannot_end_their_quotes() {
        assert_eq!(quoted("a\"; drop table users; --"), "\"a\"\"; drop table users; --\"");
    }

    /// Of SQLite here; the contract suite asks both.
    #[test]
    fn the_sql_test_for_a_pin_is_the_one_in_rust() {
        let hex = "81dc9bdb52d04dc20036dbd8313ed055";
        let db = rusqlite::Connection::open_in_memory().unwrap();
        for format in [PinFormat::Md5, PinFormat::Md5WithoutPrefix, PinFormat::Prefix, PinFormat::Plain { max_length: 6 }] {
            for value in [
                format!("PIN{hex}"),
                hex.to_owned(),
                format!("PIN{}", hex.to_uppercase()),
                format!("pin{hex}"),
                format!("PIN{hex}\n"),
                format!("PIN{hex}0"),
                format!(" PIN{hex}"),
                "PIN".into(),
                "PIN1".into(),
                "PIN12345678901234567890".into(),
                String::new(),
                "1".into(),
                "123456".into(),
                "1234567".into(),
                "12 34".into(),
                "١٢٣٤".into(),
                "12345\n".into(),
                "PINPIN12".into(),
                format!("{}PIN", &hex[3..]),
                format!("PIN{}g", &hex[1..]),
                format!("PINé{}", &hex[1..]),
            ] {
                let sql = format!("SELECT {}", is_pin(format, "?1", false));
                let answer: bool = db.query_row(&sql, [&value], |row| row.get(0)).unwrap();
                assert_eq!(answer, format.is_pin(&value), "{format:?} {value:?}");
            }
            let null: bool = db.query_row(&format!("SELECT {}", is_pin(format, "NULL", false)), [], |row| row.get(0)).unwrap();
            assert!(!null);
        }
    }

    #[test]
    fn a_test_on_null_does_not_hold_and_its_opposite_does() {
        let db = rusqlite::Connection::open_in_memory().unwrap();
        let holds = |test: &Test| {
            let mut binder = Binder::sqlite();
            let sql = format!("SELECT {} FROM (SELECT NULL AS a, 5 AS b, 'x' AS c) t", binder.test("t", test));
            let args = binder.args.into_iter().map(|arg| match arg {
                Arg::Int(n) => rusqlite::types::Value::from(n),
                Arg::Text(t) => t.into(),
                _ => unreachable!(),
            });
            db.query_row(&sql, rusqlite::params_from_iter(args), |row| row.get::<_, bool>(0)).unwrap()
        };
        let col = |c: &str| c.to_owned();
        let on_null = Test::BitsSet { column: col("a"), mask: 1 };
        assert!(!holds(&on_null));
        assert!(holds(&Test::Not(Box::new(on_null))));
        assert!(!holds(&Test::BitsClear { column: col("a"), mask: 1 }));
        assert!(holds(&Test::All(vec![
            Test::BitsSet { column: col("b"), mask: 5 },
            Test::BitsClear { column: col("b"), mask: 2 },
            Test::IsNull { column: col("a") },
            Test::Equals { column: col("a"), value: Value::Null },
            Test::In { column: col("c"), values: vec![Value::Text("y".into()), Value::Text("x".into())] },
        ])));
        assert!(!holds(&Test::Any(vec![])));
        assert!(holds(&Test::All(vec![])));
        assert!(holds(&Test::Equals { column: col("b"), value: Value::Number(5) }));
        assert!(!holds(&Test::In { column: col("b"), values: vec![] }));
    }
}
