//! Where things are in the print system's database: profiles, and overrides merged over them key by key.

pub(super) use profile::Profile;
pub(super) use resolve::{name, resolve};

mod profile;
mod resolve;

/// The resolved map. Names match `^[A-Za-z_][A-Za-z0-9_$]{0,127}$` and are quoted by the dialects.
#[derive(Clone, PartialEq, Debug)]
pub struct SchemaMap {
    pub users: UsersMap,
    pub cards: CardsMap,
    pub cost_centers: CostCentersMap,
    /// Absent: there are no roles.
    pub roles: Option<RolesMap>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct UsersMap {
    pub table: String,
    pub id: String,
    /// Whether ids are handed out in growing order; `false`: no poll.
    pub id_grows: bool,
    pub login: String,
    pub email: String,
    pub name: String,
    pub surname: String,
    pub source: Option<String>,
    /// Absent: there are no passwords.
    pub password: Option<String>,
    /// The card assignment code, formerly PUK; absent: there are none.
    pub puk: Option<GuessedColumn>,
    pub is_user: Test,
    pub is_deleted: Option<Test>,
}

/// A column whose shipped name is a guess.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuessedColumn {
    pub column: String,
    /// A feature that writes it is refused while `false`.
    pub verified: bool,
}

/// A closed set of tests on a column, so that one map serves every dialect and no SQL text is ever configured.
#[derive(Clone, PartialEq, Debug)]
pub enum Test {
    BitsSet { column: String, mask: i64 },
    BitsClear { column: String, mask: i64 },
    Equals { column: String, value: Value },
    In { column: String, values: Vec<Value> },
    IsNull { column: String },
    All(Vec<Test>),
    Any(Vec<Test>),
    Not(Box<Test>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    Number(i64),
    Text(String),
    Null,
}

#[derive(Clone, PartialEq, Debug)]
pub struct CardsMap {
    pub table: String,
    pub user: String,
    pub value: String,
    pub expires: ExpiresMap,
    /// Columns that an insert sets beside the mapped ones, in the order configured.
    pub insert_defaults: Vec<(String, Value)>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct ExpiresMap {
    pub column: String,
    pub kind: ExpiresKind,
    pub zone: Zone,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExpiresKind {
    Timestamp,
    Timestamptz,
    Date,
    EpochSeconds,
    EpochMillis,
}

/// Whose wall clock the column shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Zone {
    Local,
    Utc,
}

#[derive(Clone, PartialEq, Debug)]
pub struct CostCentersMap {
    /// `users` itself where cost centers are rows of it.
    pub table: String,
    pub id: String,
    pub number: String,
    pub name: String,
    /// Which rows of the table are cost centers; absent: all.
    pub rows: Option<Test>,
    pub member: Member,
    /// A move writes through these names: refused while `false`.
    pub verified: bool,
}

/// Where it stands which cost center a user is in.
#[derive(Clone, PartialEq, Debug)]
pub enum Member {
    /// In columns of `users`.
    Column {
        id: String,
        /// Absent where users hold the id alone (SafeQ 5): the number is then that of the cost center's own row.
        number: Option<String>,
    },
    /// In a row of a table of its own. The number is that of the cost center's own row.
    Link(LinkMap),
}

/// A table of which each row ties a user to something: a cost center, a role.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkMap {
    pub table: String,
    pub user: String,
    /// The column with the id of what the user is tied to.
    pub to: String,
}

#[derive(Clone, PartialEq, Debug)]
pub struct RolesMap {
    /// `users` itself where roles are rows of it.
    pub table: String,
    pub id: String,
    pub name: String,
    /// Which rows of the table are roles; absent: all.
    pub rows: Option<Test>,
    pub link: LinkMap,
    /// A removal deletes through these names: refused while `false`.
    pub verified: bool,
}
