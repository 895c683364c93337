//! The databases whose mail is delivered: one after the other comes and goes, as this instance gains and loses the lead.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::task::{self, JoinSet};
use tokio::time::Instant;

use crate::domain::Timestamp;
use crate::journal::{BookId, Journal, PendingMail};
use crate::store::{AfterImage, Store, StoreError};

use super::standing;

/// A database that can be asked whether a credential still stands.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) database: Arc<str>,
    pub(super) journal: Journal,
    pub(super) store: Arc<Store>,
}

/// Shared by delivery and whoever leads.
#[derive(Clone, Default)]
pub(super) struct AllServed(Arc<Mutex<BTreeMap<BookId, Served>>>);

impl AllServed {
    pub(super) fn add(&self, served: Served) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(served.journal.book(), served);
    }

    pub(super) fn remove(&self, book: BookId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&book);
    }

    pub(super) fn all(&self) -> BTreeMap<BookId, Served> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What somebody who leads on a database needs of the delivery.
#[derive(Clone)]
pub struct Outlet {
    pub(super) ring: Arc<Notify>,
    pub(super) down: watch::Receiver<Option<Timestamp>>,
    pub(super) served: AllServed,
}

impl Outlet {
    /// Mail of this database is delivered from now on. The caller leads on it.
    pub fn serve(&self, database: &str, journal: &Journal, store: &Arc<Store>) {
        self.served.add(Served { database: database.into(), journal: journal.clone(), store: store.clone() });
        self.ring.notify_one();
    }

    /// No further mail of this database is taken from the journal.
    pub fn leave(&self, book: BookId) {
        self.served.remove(book);
    }

    /// Ring it when there may be new mail.
    pub fn ring(&self) -> Arc<Notify> {
        self.ring.clone()
    }

    /// Since when nothing can be delivered, with mail waiting; `None`: it goes, as far as anybody knows.
    pub fn down_since(&self) -> Option<Timestamp> {
        *self.down.borrow()
    }
}

/// What a look into the database found.
pub(super) struct Looked {
    pub(super) database: Arc<str>,
    pub(super) book: BookId,
    pub(super) mails: Vec<PendingMail>,
    /// By the mails' [images](standing::images).
    pub(super) stands: Result<Vec<bool>, StoreError>,
}

/// Looks into databases, one at a time into each: one that does not answer must not hold up the mail of the others.
#[derive(Default)]
pub(super) struct Looks {
    at_work: JoinSet<Looked>,
    books: HashMap<task::Id, BookId>,
    /// How many mails wait for the answer.
    mails: HashMap<BookId, usize>,
    /// After a failure, not before then; `None`: not in this run.
    resting: HashMap<BookId, Option<Instant>>,
}

impl Looks {
    pub(super) fn is_empty(&self) -> bool {
        self.mails.is_empty()
    }

    pub(super) fn mails(&self) -> usize {
        self.mails.values().sum()
    }

    /// Whether mail of this database may be taken from the journal now.
    pub(super) fn is_free(&self, book: BookId) -> bool {
        !self.mails.contains_key(&book) && !self.resting.contains_key(&book)
    }

    pub(super) fn start(&mut self, served: &Served, mails: Vec<PendingMail>) {
        let (book, database, store) = (served.journal.book(), served.database.clone(), served.store.clone());
        let images: Vec<AfterImage> = mails.iter().flat_map(standing::images).collect();
        self.mails.insert(book, mails.len());
        let task = self.at_work.spawn(async move {
            let stands = store.reader().present(&images).await;
            Looked { database, book, mails, stands }
        });
        self.books.insert(task.id(), book);
    }

    /// The next answer; never while there is nothing to wait for.
    pub(super) async fn next(&mut self) -> Looked {
        loop {
            match self.at_work.join_next_with_id().await {
                Some(Ok((task, looked))) => {
                    self.done(task);
                    return looked;
                }
                // It told nothing; its mails are still due in the journal.
                Some(Err(ended_by_itself)) => self.done(ended_by_itself.id()),
                None => std::future::pending().await,
            }
        }
    }

    fn done(&mut self, task: task::Id) {
        if let Some(book) = self.books.remove(&task) {
            self.mails.remove(&book);
        }
    }

    pub(super) fn rest(&mut self, book: BookId, until: Option<Instant>) {
        self.resting.insert(book, until);
    }

    /// When the first that rests may be asked again; those whose rest is over are forgotten.
    pub(super) fn rested(&mut self, now: Instant) -> Option<Instant> {
        self.resting.retain(|_, until| until.is_none_or(|until| until > now));
        self.resting.values().copied().flatten().min()
    }
}
