//! The seam to the print system's database. Dialects hold SQL and binding, no rules; reads are streams, writes are sets.
//!
//! The two halves are two types: [`Reader`] cannot write (its connections are read-only too), and that is all that a
//! preview is given; a [`Store`] is a reader plus the writing half.

use std::collections::BTreeSet;

use crate::domain::{CostCenter, CostCenterRef, StoredValue, UserId, WallClock};
use crate::inventory::{Membership, StoredPin, User};

/// Which users a read returns. Real users only where `all_rows` is false.
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
}

/// `Any`, or the ids of cost centers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InCostCenter {
    Any,
    Of(BTreeSet<i64>),
}

/// All that one transaction changes for one user. Named old values are what the write compares before it sets (R21).
#[derive(Clone, PartialEq, Debug)]
pub struct UserChange {
    pub user: UserId,
    pub pin: Option<PinChange>,
    pub cost_center: Option<Move>,
}

/// `old` empty: insert, and the user must have no PIN. Else one of the named rows is updated in place and the others are
/// deleted, and the user must have these PINs and no others.
#[derive(Clone, PartialEq, Debug)]
pub struct PinChange {
    pub old: Vec<StoredPin>,
    pub new: StoredValue,
    /// The new PIN in every stored form: if any stands anywhere, the verdict is `PinTaken`.
    pub forms: [StoredValue; 4],
    pub expires: Option<WallClock>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Move {
    pub from: Membership,
    pub to: CostCenter,
}

/// What `write` says of each user, in the order given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    Applied,
    /// The rows are not as named; nothing of this user was written.
    ChangedMeanwhile,
    /// The PIN stands somewhere already; nothing of this user was written. Draw again.
    PinTaken,
    /// Something of this user was written before he fell out: the transaction must be rolled back and staged again
    /// without him.
    Torn,
}

/// What an issuance left in the database, for [`landed`](Store::landed): all of what is given must stand.
#[derive(Clone, PartialEq, Debug)]
pub struct AfterImage {
    pub user: UserId,
    pub pin: Option<(StoredValue, Option<WallClock>)>,
    pub cost_center: Option<CostCenter>,
}

/// The cost centers to look up.
pub type Wanted = BTreeSet<CostCenterRef>;

// ---- to be written by the store's author: signatures agreed ----
use crate::config::DatabaseConfig;
use crate::inventory::{Counts, Places};
use futures_util::stream::BoxStream;

pub struct Reader {}
pub struct Store {
    reader: Reader,
}
pub struct Transaction {}
pub struct Leadership {}

#[derive(Debug, thiserror::Error)]
#[error("placeholder")]
pub struct StoreError;

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

/// What the policies need of the schema; only these parts of the map must resolve.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Needs {
    pub cost_centers: bool,
    pub source: bool,
    pub moves: bool,
}

impl Reader {
    pub async fn connect(_db: &DatabaseConfig) -> Result<Reader, StoreError> {
        todo!()
    }
    pub async fn inspect(&self, _needs: &Needs) -> Vec<Check> {
        todo!()
    }
    pub async fn clock(&self) -> Result<WallClock, StoreError> {
        todo!()
    }
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        todo!()
    }
    pub async fn places(&self, _wanted: &Wanted) -> Result<Places, StoreError> {
        todo!()
    }
    /// Users in chunks of at most 1,000, in no particular order; one statement, streamed with back-pressure.
    pub fn read(&self, _filter: &Filter) -> BoxStream<'_, Result<Vec<User>, StoreError>> {
        todo!()
    }
    /// Which of these stand in the database, by a plain look without the write lock.
    pub async fn present(&self, _images: &[AfterImage]) -> Result<Vec<bool>, StoreError> {
        todo!()
    }
}
impl Store {
    pub async fn connect(_db: &DatabaseConfig) -> Result<Store, StoreError> {
        todo!()
    }
    pub fn reader(&self) -> &Reader {
        &self.reader
    }
    /// Becomes the one active instance for this schema; `None`: another instance is.
    pub async fn lead(&self) -> Result<Option<Leadership>, StoreError> {
        todo!()
    }
    /// Starts the writing transaction, takes the write lock, reads these users again.
    pub async fn begin(&self, _users: &[UserId]) -> Result<(Transaction, Vec<User>), StoreError> {
        todo!()
    }
    /// Which of these stand in the database, looked up under the write lock: the truth after a crash or a lost answer.
    pub async fn landed(&self, _images: &[AfterImage]) -> Result<Vec<bool>, StoreError> {
        todo!()
    }
}
impl Leadership {
    /// Whether the session that holds the lock still lives.
    pub async fn verify(&self) -> Result<(), StoreError> {
        todo!()
    }
}
impl Transaction {
    pub async fn write(&mut self, _changes: &[UserChange]) -> Result<Vec<Outcome>, StoreError> {
        todo!()
    }
    pub async fn commit(self) -> Committed {
        todo!()
    }
}
impl StoreError {
    /// Closed set: metric label and log field.
    pub fn kind(&self) -> &'static str {
        todo!()
    }
    /// Whether the same call may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        todo!()
    }
}
