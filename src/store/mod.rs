//! The seam to the print system's database. Dialects hold SQL and binding, no rules; reads are streams, writes are sets.
//!
//! The two halves are two types: [`Reader`] cannot write (its connections are read-only too), and that is all that a
//! preview is given; a [`Store`] is a reader plus the writing half.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use crate::config::{DatabaseConfig, DatabaseTarget};
use crate::domain::{CostCenter, CostCenterRef, Role, RoleId, RoleRef, StoredValue, UserId, WallClock};
use crate::inventory::{Counts, Membership, Places, Pulse, Standing, StoredPin, User};

mod counts;
mod error;
mod lead;
mod links;
mod postgres;
mod sql;
mod sqlite;

pub use error::StoreError;
pub use lead::Leadership;

/// Which users a read returns. With `due` or `above` real users only ([`Standing::Active`]); a `login` is returned whatever
/// it stands for; the default filter returns every row.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Filter {
    /// Only rows that may be due, as far as SQL can tell; `None` returns every user. A saving, never a decision: the
    /// plan is the same without it.
    pub due: Option<DueFilter>,
    /// Only ids above this one: a poll.
    pub above: Option<UserId>,
    /// Only this login, compared exactly. Rows that are not real users are returned too.
    pub login: Option<String>,
}

/// What makes a user possibly due, over all policies; the dialects turn it into SQL. A user is returned if any holds.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct DueFilter {
    /// Some policy issues PINs: users without any PIN, who are in one of these cost centers (`None`: in any).
    pub without_pin: Option<InCostCenter>,
    /// Some policy renews: users with a PIN that expires at or before this. Any cost center, since a keeper's users may
    /// have left the one that their policy matches.
    pub expired_at: Option<WallClock>,
    /// Users in the first (by id), but not in the second by both id and number.
    pub to_move: Vec<(InCostCenter, CostCenter)>,
    /// Users with a PIN that never expires, in any cost center.
    pub unlimited_pin: bool,
    /// Everybody in one of these cost centers, whatever they have.
    pub everybody: Option<InCostCenter>,
    /// Some policy issues card assignment codes: users without one, in one of these cost centers.
    pub without_code: Option<InCostCenter>,
    /// The same of passwords.
    pub without_password: Option<InCostCenter>,
    /// Some policy takes a role away: users with one of these, in any cost center.
    pub with_role: BTreeSet<RoleId>,
    /// These users, whatever they have: what only the journal knows to be due. Sorted.
    pub users: Vec<UserId>,
}

impl DueFilter {
    /// The filter in plain words. The dialects narrow with what their SQL can do cheaply, then ask this of every row, so
    /// that a filtered read is the same set on every database.
    fn holds(&self, user: &User) -> bool {
        let center = user.cost_center;
        self.without_pin.as_ref().is_some_and(|within| user.pins.is_empty() && within.contains(user))
            || self.expired_at.is_some_and(|at| user.pins.iter().any(|pin| pin.expires.is_some_and(|expires| expires <= at)))
            || self.without_code.as_ref().is_some_and(|within| user.code.is_none() && within.contains(user))
            || self.without_password.as_ref().is_some_and(|within| user.password.is_none() && within.contains(user))
            || user.roles.iter().any(|role| self.with_role.contains(role))
            || (self.unlimited_pin && user.pins.iter().any(|pin| pin.expires.is_none()))
            || self.everybody.as_ref().is_some_and(|within| within.contains(user))
            || self.users.binary_search(&user.id).is_ok()
            || self.to_move.iter().any(|(from, to)| from.contains(user) && (center.id, center.number) != (to.id, to.number))
    }
}

impl InCostCenter {
    fn contains(&self, user: &User) -> bool {
        match self {
            InCostCenter::Any => true,
            InCostCenter::Of(ids) => ids.contains(&user.cost_center.id.0),
            InCostCenter::OrRole { centers, roles } => {
                centers.contains(&user.cost_center.id.0) || user.roles.iter().any(|role| roles.contains(role))
            }
        }
    }
}

impl Filter {
    /// Whether everybody without a PIN is looked for.
    fn finds_pinless(&self) -> bool {
        self.above.is_none() && self.login.is_none() && self.due.as_ref().is_some_and(|due| due.without_pin.is_some())
    }

    fn accepts(&self, user: &User) -> bool {
        let real_only = self.login.is_none() && (self.due.is_some() || self.above.is_some());
        (!real_only || user.standing == Standing::Active) && self.due.as_ref().is_none_or(|due| due.holds(user))
    }
}

/// A figure that a read of everybody finds on its way.
pub type Pinless = Arc<OnceLock<u64>>;

/// `Any`, or the ids of cost centers; where policies go by roles, who has one of these is meant too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InCostCenter {
    Any,
    Of(BTreeSet<i64>),
    OrRole { centers: BTreeSet<i64>, roles: BTreeSet<RoleId> },
}

/// All that one transaction changes for one user. Named old values are what the write compares before it sets (R21).
#[derive(Clone, PartialEq, Debug)]
pub struct UserChange {
    pub user: UserId,
    pub pin: Option<PinChange>,
    pub code: Option<ValueChange>,
    pub password: Option<ValueChange>,
    pub cost_center: Option<Move>,
    pub role: Option<RoleRemoval>,
}

impl UserChange {
    /// Of a user of whom nothing is changed yet.
    pub fn of(user: UserId) -> UserChange {
        UserChange { user, pin: None, code: None, password: None, cost_center: None, role: None }
    }
}

/// A value in a column of `users` that takes the place of another, or of none. An empty text is none too.
#[derive(Clone, PartialEq, Debug)]
pub struct ValueChange {
    pub old: Option<StoredValue>,
    pub new: StoredValue,
}

/// What becomes of a user's PINs. The user must have the PINs named in `old` and no others, or nothing is written.
#[derive(Clone, PartialEq, Debug)]
pub struct PinChange {
    pub old: Vec<StoredPin>,
    pub to: PinTarget,
}

#[derive(Clone, PartialEq, Debug)]
pub enum PinTarget {
    /// All of `old` go and this one comes: one of the rows is updated in place and the others are deleted, so that columns
    /// that are not mapped live on; where there is none, one is inserted.
    New(NewPin),
    /// These of `old` get another end, and nothing else of them changes.
    End { pins: Vec<StoredPin>, at: WallClock },
    /// These of `old` are removed.
    Gone { pins: Vec<StoredPin> },
}

#[derive(Clone, PartialEq, Debug)]
pub struct NewPin {
    pub value: StoredValue,
    /// The PIN in every stored form, `value` among them: if any stands anywhere, the verdict is `PinTaken`.
    pub forms: [StoredValue; 4],
    pub expires: Option<WallClock>,
}

impl PinChange {
    /// The PIN that is new, if one is.
    fn new_pin(&self) -> Option<&NewPin> {
        match &self.to {
            PinTarget::New(new) => Some(new),
            PinTarget::End { .. } | PinTarget::Gone { .. } => None,
        }
    }

    /// Whether the change does something to this one of `old`.
    fn is_about(&self, old: &StoredPin) -> bool {
        match &self.to {
            PinTarget::New(_) => true,
            PinTarget::End { pins, .. } | PinTarget::Gone { pins } => {
                pins.iter().any(|pin| pin.value == old.value && pin.expires == old.expires)
            }
        }
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct Move {
    pub from: Membership,
    pub to: CostCenter,
}

/// A role that the user has, or nothing is written, and then has not.
#[derive(Clone, PartialEq, Debug)]
pub struct RoleRemoval {
    pub role: Role,
}

/// What `write` says of each user, in the order given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    Applied,
    /// The rows are not as named; nothing of this user was written.
    ChangedMeanwhile,
    /// The PIN stands somewhere already; nothing of this user was written. Draw again.
    PinTaken,
    /// The same of the card assignment code.
    CodeTaken,
    /// Something of this user was written before he fell out: the transaction must be rolled back and staged again
    /// without him.
    Torn,
}

/// What an issuance left in the database, for [`landed`](Store::landed): all of what is given must stand.
#[derive(Clone, PartialEq, Debug)]
pub struct AfterImage {
    pub user: UserId,
    /// PINs with their ends.
    pub pins: Vec<(StoredValue, Option<WallClock>)>,
    /// PINs that the user must have, whatever their ends are by now.
    pub held: Vec<StoredValue>,
    /// PINs that the user must not have any more.
    pub gone: Vec<StoredValue>,
    pub code: Option<StoredValue>,
    pub password: Option<StoredValue>,
    pub cost_center: Option<CostCenter>,
    /// A role that the user must not have any more.
    pub role_gone: Option<RoleId>,
}

impl AfterImage {
    /// Of a user of whom nothing more than the row is looked for.
    pub fn of(user: UserId) -> AfterImage {
        AfterImage {
            user,
            pins: Vec::new(),
            held: Vec::new(),
            gone: Vec::new(),
            code: None,
            password: None,
            cost_center: None,
            role_gone: None,
        }
    }
}

/// The cost centers and roles to look up.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    pub cost_centers: BTreeSet<CostCenterRef>,
    pub roles: BTreeSet<RoleRef>,
}

/// The reading half: its sessions are read-only. Made without a connection, so that [`inspect`](Reader::inspect) can report
/// a refused one.
pub struct Reader(Dialect);

enum Dialect {
    Postgres(Arc<postgres::Postgres>),
    Sqlite(Arc<sqlite::Sqlite>),
}

/// The whole store. Its one writing connection is opened at the first [`begin`](Store::begin).
pub struct Store {
    reader: Reader,
    writer: Writer,
}

enum Writer {
    Postgres(postgres::Writer),
    Sqlite(sqlite::Writer),
}

/// An open writing transaction that holds the write lock. Dropping it rolls back.
pub struct Transaction(Open);

enum Open {
    Postgres(postgres::Transaction),
    Sqlite(sqlite::Transaction),
}

/// How COMMIT was answered.
#[derive(Debug)]
pub enum Committed {
    Yes,
    /// The database said no: nothing was written.
    Refused(StoreError),
    /// No answer: only [`Store::landed`] can tell.
    Unknown(StoreError),
}

/// One line of `doctor` and of the start-up inspection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    pub name: &'static str,
    pub verdict: CheckVerdict,
    /// What was found, one line.
    pub found: String,
    /// What to do about it; empty when ok.
    pub advice: String,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum CheckVerdict {
    Ok,
    Warning,
    Failed,
}

/// The check that the database takes changes.
const WRITABLE: &str = "writable";
/// The check that the role may do what the policies need.
const PRIVILEGES: &str = "privileges";
/// The checks of the tables that tie users to cost centers and to roles.
const CENTER_LINKS: &str = "cost center links";
const ROLE_LINKS: &str = "role links";

impl Check {
    /// Whether no pass can begin. That the database takes no changes is left to each pass (tripwire `read_only`): it may be over
    /// soon, after a failover.
    pub fn forbids_pass(&self) -> bool {
        self.verdict == CheckVerdict::Failed && self.name != WRITABLE
    }

    /// Whether no preview can begin: that needs no right to write. Where a right to read is missing, the reading says so.
    pub fn forbids_preview(&self) -> bool {
        self.forbids_pass() && self.name != PRIVILEGES
    }

    pub(crate) fn ok(name: &'static str, found: impl Into<String>) -> Check {
        Check { name, verdict: CheckVerdict::Ok, found: found.into(), advice: String::new() }
    }

    pub(crate) fn warning(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Check {
        Check { name, verdict: CheckVerdict::Warning, found: found.into(), advice: advice.into() }
    }

    pub(crate) fn failed(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Check {
        Check { name, verdict: CheckVerdict::Failed, found: found.into(), advice: advice.into() }
    }
}

impl Reader {
    /// # Errors
    /// Only a target that can never be connected to; a server that is down shows at the first call.
    pub async fn connect(db: &DatabaseConfig) -> Result<Reader, StoreError> {
        Ok(Reader(match &db.target {
            DatabaseTarget::Postgres { .. } => Dialect::Postgres(Arc::new(postgres::Postgres::new(db)?)),
            DatabaseTarget::Sqlite { path } => Dialect::Sqlite(Arc::new(sqlite::Sqlite::new(db, path))),
        }))
    }

    /// What `doctor` prints and what a start refuses on. After a failed check those that depend on it are left out.
    pub async fn inspect(&self) -> Vec<Check> {
        match &self.0 {
            Dialect::Postgres(db) => db.inspect().await,
            Dialect::Sqlite(db) => db.inspect().await,
        }
    }

    /// Now, on the wall clock of the expiry column, as the database tells it (R11).
    ///
    /// # Errors
    /// Where the database cannot be asked.
    pub async fn clock(&self) -> Result<WallClock, StoreError> {
        self.pulse().await.map(|pulse| pulse.wall)
    }

    /// What each pass asks first, by one cheap question: the time on both clocks, and whether changes are taken.
    ///
    /// # Errors
    /// Where the database cannot be asked.
    pub async fn pulse(&self) -> Result<Pulse, StoreError> {
        match &self.0 {
            Dialect::Postgres(db) => db.pulse().await,
            Dialect::Sqlite(db) => db.pulse().await,
        }
    }

    /// The figures that judging needs, by one aggregate.
    ///
    /// # Errors
    /// Where the database cannot be asked.
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        match &self.0 {
            Dialect::Postgres(db) => db.counts().await,
            Dialect::Sqlite(db) => db.counts().await,
        }
    }

    /// The greatest user id of all rows; 0 in an empty table.
    ///
    /// # Errors
    /// Where the database cannot be asked.
    pub async fn newest(&self) -> Result<UserId, StoreError> {
        match &self.0 {
            Dialect::Postgres(db) => db.newest().await,
            Dialect::Sqlite(db) => db.newest().await,
        }
    }

    /// Each of `wanted` as found. A name that two cost centers or two roles share counts as absent: guessing could move people
    /// into the wrong one.
    ///
    /// # Errors
    /// Where the database cannot be asked. Asking for none asks nothing, so a missing table is no error then.
    pub async fn places(&self, wanted: &Wanted) -> Result<Places, StoreError> {
        let (mut centers, mut roles) = (Vec::new(), Vec::new());
        if !wanted.cost_centers.is_empty() {
            centers = match &self.0 {
                Dialect::Postgres(db) => db.cost_centers(&wanted.cost_centers).await?,
                Dialect::Sqlite(db) => db.cost_centers(&wanted.cost_centers).await?,
            };
        }
        if !wanted.roles.is_empty() {
            roles = match &self.0 {
                Dialect::Postgres(db) => db.roles(&wanted.roles).await?,
                Dialect::Sqlite(db) => db.roles(&wanted.roles).await?,
            };
        }
        Ok(sql::pick_places(wanted, &centers, &roles))
    }

    /// The names of all cost centers, each as often as it is there: for advice about one that is not found.
    ///
    /// # Errors
    /// Where the database cannot be asked.
    pub async fn cost_center_names(&self) -> Result<Vec<String>, StoreError> {
        match &self.0 {
            Dialect::Postgres(db) => db.cost_center_names().await,
            Dialect::Sqlite(db) => db.cost_center_names().await,
        }
    }

    /// The same of roles.
    ///
    /// # Errors
    /// Where the database cannot be asked.
    pub async fn role_names(&self) -> Result<Vec<String>, StoreError> {
        match &self.0 {
            Dialect::Postgres(db) => db.role_names().await,
            Dialect::Sqlite(db) => db.role_names().await,
        }
    }

    /// Users in chunks of at most 1,000, in no particular order; one statement, streamed with back-pressure. After an error
    /// the stream ends. Dropping it stops the statement.
    pub fn read(&self, filter: &Filter) -> BoxStream<'_, Result<Vec<User>, StoreError>> {
        self.read_counting(filter, &Pinless::default())
    }

    /// The same. When the stream has ended, `pinless` holds how many real users have no PIN at all, if the filter makes the
    /// database look for them in the whole table ([`DueFilter::without_pin`]).
    pub fn read_counting(&self, filter: &Filter, pinless: &Pinless) -> BoxStream<'_, Result<Vec<User>, StoreError>> {
        match &self.0 {
            Dialect::Postgres(db) => db.read(filter, pinless.clone()).boxed(),
            Dialect::Sqlite(db) => db.read(filter, pinless.clone()).boxed(),
        }
    }

    /// Every value of the card column, cards too, in chunks: what a look for free PINs needs.
    pub fn pins(&self) -> BoxStream<'_, Result<Vec<StoredValue>, StoreError>> {
        match &self.0 {
            Dialect::Postgres(db) => db.pins().boxed(),
            Dialect::Sqlite(db) => db.pins().boxed(),
        }
    }

    /// Which of these stored card assignment codes somebody has, by a plain look.
    ///
    /// # Errors
    /// Where the database cannot be asked.
    pub async fn codes_taken(&self, codes: &[StoredValue]) -> Result<Vec<bool>, StoreError> {
        match &self.0 {
            Dialect::Postgres(db) => db.codes_taken(codes).await,
            Dialect::Sqlite(db) => db.codes_taken(codes).await,
        }
    }

    /// Every stored card assignment code, in chunks: what a cipher needs that never makes the same of the same.
    pub fn codes(&self) -> BoxStream<'_, Result<Vec<StoredValue>, StoreError>> {
        match &self.0 {
            Dialect::Postgres(db) => db.codes().boxed(),
            Dialect::Sqlite(db) => db.codes().boxed(),
        }
    }

    /// Which of these stand in the database, by a plain look without the write lock.
    ///
    /// # Errors
    /// Where the database cannot be asked.
    pub async fn present(&self, images: &[AfterImage]) -> Result<Vec<bool>, StoreError> {
        match &self.0 {
            Dialect::Postgres(db) => db.present(images).await,
            Dialect::Sqlite(db) => db.present(images).await,
        }
    }
}

impl Store {
    /// # Errors
    /// As [`Reader::connect`].
    pub async fn connect(db: &DatabaseConfig) -> Result<Store, StoreError> {
        let reader = Reader::connect(db).await?;
        let writer = match &reader.0 {
            Dialect::Postgres(db) => Writer::Postgres(postgres::Writer::new(db.clone())),
            Dialect::Sqlite(db) => Writer::Sqlite(sqlite::Writer::new(db.clone())),
        };
        Ok(Store { reader, writer })
    }

    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Becomes the one active instance for this schema; `None`: another instance is.
    ///
    /// # Errors
    /// Where the database, or the lock file beside a sandbox, cannot be asked.
    pub async fn lead(&self) -> Result<Option<Leadership>, StoreError> {
        match &self.reader.0 {
            Dialect::Postgres(db) => lead::postgres(db).await,
            Dialect::Sqlite(db) => lead::sqlite(db.path()),
        }
    }

    /// Starts the writing transaction, takes the write lock, reads these users again; whoever is gone is absent from the
    /// answer.
    ///
    /// # Errors
    /// Where the lock is not granted within 10 s (kind `lock_timeout`), or the database cannot be asked.
    pub async fn begin(&self, users: &[UserId]) -> Result<(Transaction, Vec<User>), StoreError> {
        match &self.writer {
            Writer::Postgres(writer) => writer.begin(users).await.map(|(t, users)| (Transaction(Open::Postgres(t)), users)),
            Writer::Sqlite(writer) => writer.begin(users).await.map(|(t, users)| (Transaction(Open::Sqlite(t)), users)),
        }
    }

    /// Which of these stand in the database, looked up under the write lock: the truth after a crash or a lost answer,
    /// because a transaction of ours that is still running holds the lock until it is visible or undone.
    ///
    /// # Errors
    /// As [`begin`](Store::begin).
    pub async fn landed(&self, images: &[AfterImage]) -> Result<Vec<bool>, StoreError> {
        match &self.writer {
            Writer::Postgres(writer) => writer.landed(images).await,
            Writer::Sqlite(writer) => writer.landed(images).await,
        }
    }
}

impl Transaction {
    /// One statement for each kind of change, for all users at once. May be called again in the same transaction, for those
    /// whose PIN was taken.
    ///
    /// # Errors
    /// Where the batch as a whole failed; the transaction can then only be dropped.
    pub async fn write(&mut self, changes: &[UserChange]) -> Result<Vec<Outcome>, StoreError> {
        match &mut self.0 {
            Open::Postgres(transaction) => transaction.write(changes).await,
            Open::Sqlite(transaction) => transaction.write(changes).await,
        }
    }

    /// Refused without asking after an error of [`write`](Transaction::write) or an [`Outcome::Torn`].
    pub async fn commit(self) -> Committed {
        match self.0 {
            Open::Postgres(transaction) => transaction.commit().await,
            Open::Sqlite(transaction) => transaction.commit().await,
        }
    }
}
