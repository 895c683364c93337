//! Reading what the journal holds of one database, beside its writer or without it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::book::Book;
use super::desk::{Clerk, Desk};
use super::ledger::{self, Tallies};
use super::{HistoryRow, Hold, JournalError, JournalPlace, JournalReader, Owner, PassRecord, StateCounts, View, file, mark, visit};
use crate::config::JournalConfig;
use crate::domain::{Credential, Each, IssuanceId, PolicyName, StoredValue, Timestamp, UserId};
use crate::inventory::{Baseline, Facts, Lapse, User};

impl JournalReader {
    /// Opens the journal of one of `owners`, the databases of the configuration, to read: takes no lock, makes no file. `None` if
    /// there is no journal, or nothing of that database in it.
    ///
    /// # Errors
    /// A journal without its key, with a wrong one, or of another database is refused here too.
    pub async fn open(config: &JournalConfig, owners: Vec<Owner>, database: &str) -> Result<Option<JournalReader>, JournalError> {
        let place = JournalPlace::new(config);
        let (path, name) = (place.path.clone(), database.to_owned());
        let clerk = Clerk::start(Desk::Closed)?;
        let book = clerk
            .call(move |desk| {
                let Some(mut visitor) = visit::Visitor::enter(place)? else { return Ok(None) };
                let book = visitor.look(|view| view.book(&owners, &name, &path))?;
                *desk = Desk::Visitor(Box::new(visitor));
                Ok(book)
            })
            .await?;
        Ok(book.map(|book| JournalReader { clerk, book: Arc::new(book) }))
    }

    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl Fn(&View, &Book) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let book = self.book.clone();
        self.clerk.call(move |desk| desk.look(|view| look(view, &book))).await
    }

    /// What is known of these users, in the order given; fills in which of their PINs and passwords are ours.
    pub async fn facts(&self, users: Vec<User>) -> Result<Vec<(User, Facts)>, JournalError> {
        let book = self.book.clone();
        self.clerk
            .call(move |desk| {
                let known = desk.look(|view| view.facts(&book, &users))?;
                Ok(ledger::joined(users, known))
            })
            .await
    }

    /// Which of these PINs were freed so lately that nobody may have them yet (R7).
    pub async fn quarantined(&self, pins: Vec<StoredValue>, now: Timestamp) -> Result<Vec<bool>, JournalError> {
        self.look(move |view, book| view.quarantined(book, &pins, now)).await
    }

    /// Users whose newest credential of ours of this kind was issued at or before `until`, in order: whom age may make due.
    /// `above`: only of users above this id.
    pub async fn issued_until(&self, kind: Credential, until: Timestamp, above: Option<UserId>) -> Result<Vec<UserId>, JournalError> {
        self.look(move |view, book| view.issued_until(book.id, kind, until, above)).await
    }

    /// The hold of this user, if there is one.
    pub async fn hold_of(&self, user: UserId) -> Result<Option<Hold>, JournalError> {
        self.look(move |view, book| view.hold_of(book.id, user)).await
    }

    /// Users on hold, the newest first.
    pub async fn holds(&self, limit: usize) -> Result<Vec<Hold>, JournalError> {
        self.look(move |view, book| view.holds(book.id, limit)).await
    }

    /// How many stored credentials this policy has replaced or removed since then, expected renewals left out (R23).
    pub async fn replaced_since(&self, policy: &PolicyName, since: Timestamp) -> Result<Each<u64>, JournalError> {
        let policy = policy.clone();
        self.look(move |view, book| view.replaced_since(book.id, &policy, since)).await
    }

    /// Whether the file hangs together and holds all that was written to it; looks at all of it.
    ///
    /// # Errors
    /// [`JournalError::Damaged`], [`JournalError::Behind`], or it cannot be read.
    pub async fn sound(&self, path: &Path) -> Result<(), JournalError> {
        let path = path.to_owned();
        self.look(move |view, _| file::sound(&view.db, &path).and_then(|()| mark::check_for_reading(Some(&view.db), &path))).await
    }

    /// How many issuances are in each state.
    pub async fn counts(&self) -> Result<StateCounts, JournalError> {
        let id = self.book.id;
        self.clerk
            .call(move |desk| match desk {
                Desk::Writer(writer) => Ok(writer.tallies.counts(id)),
                other => other.look(|view| Ok(Tallies::count(&view.db)?.counts(id))),
            })
            .await
    }

    /// When the oldest issuance that is still open was planned.
    pub async fn oldest_open(&self) -> Result<Option<Timestamp>, JournalError> {
        self.look(|view, book| view.oldest_open(book.id)).await
    }

    /// The user's issuances, newest first. No secrets.
    pub async fn user_history(&self, user: UserId, limit: usize) -> Result<Vec<HistoryRow>, JournalError> {
        self.look(move |view, book| view.user_history(book.id, user, limit)).await
    }

    /// Issuances whose mail is not accepted yet, or never will be; oldest first, no secrets.
    pub async fn unfinished(&self, limit: usize) -> Result<Vec<HistoryRow>, JournalError> {
        self.look(move |view, book| view.unfinished(book.id, limit)).await
    }

    /// Whether it is one of this database.
    pub async fn has(&self, issuance: IssuanceId) -> Result<bool, JournalError> {
        self.look(move |view, book| view.is_of(book.id, issuance)).await
    }

    /// How many mails that wait are to be written by each template. What can no longer be unsealed is left out.
    pub async fn templates(&self) -> Result<BTreeMap<String, u64>, JournalError> {
        self.look(|view, book| view.templates(book.id)).await
    }

    /// The newest passes of these kinds, newest first.
    pub async fn passes(&self, kinds: &[&str], limit: usize) -> Result<Vec<PassRecord>, JournalError> {
        let kinds: Vec<String> = kinds.iter().map(|&k| k.to_owned()).collect();
        self.look(move |view, book| view.passes(book.id, &kinds, limit)).await
    }

    /// The figures of the last successful full pass; `None` before the first.
    pub async fn baseline(&self) -> Result<Option<Baseline>, JournalError> {
        self.look(|view, book| view.baseline(book.id)).await
    }

    /// What these users were reminded of last, or are about to be.
    pub async fn reminded(&self, users: Vec<UserId>) -> Result<BTreeMap<UserId, Lapse>, JournalError> {
        self.look(move |view, book| view.reminded(book.id, &users)).await
    }

    /// How many reminders are still to be sent.
    pub async fn reminders_waiting(&self) -> Result<u64, JournalError> {
        self.look(|view, book| view.reminders_waiting(book.id)).await
    }

    /// The newest pass of any kind.
    pub async fn last_pass(&self) -> Result<Option<PassRecord>, JournalError> {
        self.look(|view, book| Ok(view.passes(book.id, &[], 1)?.pop())).await
    }
}
