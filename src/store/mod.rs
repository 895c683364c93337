//! The seam to the print system's database. Dialects hold SQL and binding, no rules; reads are streams, writes are sets.
//!
//! The two halves are two types: [`Reader`] cannot write (its connections are read-only too), and that is all that a
//! preview is given; a [`Store`] is a reader plus the writing half.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::time::{Instant, sleep};

use crate::config::{DatabaseConfig, DatabaseTarget};
use crate::domain::{CostCenterRef, RoleRef, StoredValue, UserId, WallClock};
use crate::inventory::{Counts, Places, Pulse, User};

mod change;
mod check;
mod counts;
mod error;
mod filter;
mod lead;
mod links;
mod postgres;
mod sql;
mod sqlite;

pub use change::{AfterImage, Move, NewPin, Outcome, PinChange, PinTarget, RoleChange, UserChange, ValueChange};
pub use check::{Check, CheckVerdict};
pub use error::StoreError;
pub use filter::{DueFilter, Filter, InCostCenter, Pinless};
pub use lead::{Leader, Leadership};

use check::{CENTER_LINKS, PRIVILEGES, ROLE_LINKS, WRITABLE};

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

    /// Who leads on this database; `None`: nobody does, or it is a sandbox, where nobody can tell.
    ///
    /// # Errors
    /// Where the database cannot be asked.
    pub async fn leader(&self) -> Result<Option<Leader>, StoreError> {
        match &self.0 {
            Dialect::Postgres(db) => db.leader().await,
            Dialect::Sqlite(_) => Ok(None),
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

    /// The same, waiting for `within` while another instance leads.
    ///
    /// # Errors
    /// As [`lead`](Store::lead).
    pub async fn lead_within(&self, within: Duration) -> Result<Option<Leadership>, StoreError> {
        let until = Instant::now() + within;
        loop {
            let lead = self.lead().await?;
            if lead.is_some() || Instant::now() >= until {
                return Ok(lead);
            }
            sleep(within / 10).await;
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
