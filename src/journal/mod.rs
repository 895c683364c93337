//! The journal: no credential lost, none wrong.
//!
//! The print system's database gets no tables of ours. What a crash must not forget lies in a local SQLite file: each
//! **issuance**, that is one user's changes in one transaction and the one mail about them, from just before COMMIT until the
//! mail server has taken the mail over ([`state`] has the table). Ended issuances stay as the ledger: it says which PIN is ours,
//! who keeps whom, and what can be undone.
//!
//! PINs, stored values and recipients stand in it only sealed, each bound to its row, and are wiped in the step that ends
//! their use. Fingerprints under a key say “ours” and reveal nothing. The key lies in a file of its own.
//!
//! One file serves all databases of the configuration, each with a book of its own in it ([`Owner`]).
//!
//! If the journal cannot be written, nothing may be changed in the database: every error of [`Journal::planned`] means that the
//! open transaction must be rolled back.
//!
//! # Must not
//! See the store or the mail; decide anything; be written by two processes (a file lock keeps the second one out).

use std::fs::File;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use crate::config::JournalConfig;
use crate::domain::{IssuanceId, PassId, Timestamp, UserId};
use crate::inventory::Baseline;

mod back;
mod blob;
mod book;
mod desk;
mod error;
mod file;
mod freed;
mod history;
mod hold;
mod issuance;
mod issue;
mod ledger;
mod mark;
mod outbox;
mod passes;
mod reader;
mod recent;
mod refused;
mod reminder;
mod request;
mod retry;
pub mod state;
#[cfg(test)]
mod tests;
mod upkeep;
mod visit;

pub use back::{Undo, UndoOf};
pub use book::{BookId, Left, Owner};
pub use error::{JournalError, folder};
pub use history::HistoryRow;
pub use hold::Hold;
pub use issuance::{
    Again, Announcement, BatchId, Because, ExistingPin, IssuedCode, IssuedPassword, IssuedPin, Lane, NewIssuance, PinWritten, TakesBack,
};
pub use issue::{Unresolved, Written};
pub use ledger::StateCounts;
pub use outbox::{Answer, Answered, PendingMail};
pub use passes::PassRecord;
pub use recent::Recent;
pub use refused::RefusedPlan;
pub use reminder::{NewReminder, PendingReminder};
pub use request::{Answer as RequestAnswer, Counter, LOOK, Request, Standing as RequestStanding};
pub use state::{Event, IllegalTransition, State};
pub use upkeep::Keep;

use blob::Seals;
use book::Book;
use desk::{Clerk, Desk};
use ledger::Tallies;

/// How long a command waits for another instance to let go of the journal, before it ends with exit code 75.
pub const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How long to wait before asking for the lock again.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// How many rows are looked through in one step of [`JournalFile::forget_old`], so that mail and passes need not wait for it.
const FORGET_ROWS: u32 = 2000;

/// Where a journal lies.
#[derive(Clone, Debug)]
struct JournalPlace {
    path: PathBuf,
    key: PathBuf,
}

/// The open file and the keys: enough to read.
struct View {
    db: Connection,
    seals: Seals,
}

/// The one writer's side: the counts are kept in memory, since counting a million rows takes a second.
struct Writer {
    view: View,
    tallies: Tallies,
    /// The lane whose turn it is.
    turn: Lane,
    /// Whose mail was handed out last: the next one's turn comes after it.
    served: BookId,
    /// Also says how far the journal is written (`mark.rs`).
    lock: File,
}

/// The reading half, of one database: all that a preview gets. Clones share one file.
#[derive(Clone)]
pub struct JournalReader {
    clerk: Clerk,
    book: Arc<Book>,
}

/// The whole file of the one writer: what concerns all databases together, above all the mail. Clones share it; the lock goes
/// with the last of them, or with [`close`](JournalFile::close).
#[derive(Clone)]
pub struct JournalFile {
    clerk: Clerk,
    path: PathBuf,
    owners: Arc<[Owner]>,
}

/// The journal of one database, in the hands of the one writer; and the file that it lies in.
#[derive(Clone)]
pub struct Journal {
    file: JournalFile,
    reader: JournalReader,
}

impl Deref for Journal {
    type Target = JournalFile;

    fn deref(&self) -> &JournalFile {
        &self.file
    }
}

impl JournalFile {
    /// Opens the journal for writing and makes it on the first start; `owners` are all databases of the configuration. Waits up
    /// to `wait` for another instance to let go.
    ///
    /// # Errors
    /// [`JournalError::Locked`] after that; whatever else keeps the file from being used is said, and nothing is replaced.
    pub async fn open(config: &JournalConfig, owners: Vec<Owner>, wait: Duration) -> Result<JournalFile, JournalError> {
        let place = JournalPlace::new(config);
        let path = place.path.clone();
        let deadline = tokio::time::Instant::now() + wait;
        let lock = loop {
            if let Some(lock) = file::try_lock(&place.path)? {
                break lock;
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(JournalError::Locked { path: place.path });
            }
            tokio::time::sleep(LOCK_PAUSE.min(wait)).await;
        };
        let clerk = Clerk::start(Desk::Closed)?;
        let owners: Arc<[Owner]> = owners.into();
        let all = owners.clone();
        clerk
            .call(move |desk| {
                let mut writer = file::open_writer(&place, lock)?;
                writer.enrol(&all)?;
                *desk = Desk::Writer(Box::new(writer));
                Ok(())
            })
            .await?;
        Ok(JournalFile { clerk, path, owners })
    }

    /// The same file, and its lock, for the databases of another configuration.
    pub async fn passed_on(&self, owners: Vec<Owner>) -> Result<JournalFile, JournalError> {
        let owners: Arc<[Owner]> = owners.into();
        let all = owners.clone();
        self.write(move |w| w.enrol(&all)).await?;
        Ok(JournalFile { owners, ..self.clone() })
    }

    /// The journal of the database with this name, one of those that the file was opened for.
    ///
    /// # Errors
    /// What the journal knows under that name is of another database.
    pub async fn of(&self, database: &str) -> Result<Journal, JournalError> {
        let (owners, name, path) = (self.owners.clone(), database.to_owned(), self.path.clone());
        let book = self.write(move |w| w.view.book(&owners, &name, &path)).await?;
        let book = Arc::new(book.ok_or(JournalError::NotUnderstood { what: "the databases" })?);
        Ok(Journal { file: self.clone(), reader: JournalReader { clerk: self.clerk.clone(), book } })
    }

    /// The same, also where what the journal knows under that name is of another database: then as what it knows it. For
    /// [`Journal::adopt`].
    pub async fn to_adopt(&self, database: &str) -> Result<(Journal, Option<String>), JournalError> {
        let (owners, name) = (self.owners.clone(), database.to_owned());
        let found = self.write(move |w| w.view.any_book(&owners, &name)).await?;
        let (book, recorded) = found.ok_or(JournalError::NotUnderstood { what: "the databases" })?;
        let given = self.owners.iter().find(|owner| owner.name == database).map(|owner| &owner.identity);
        let other = Some(recorded).filter(|recorded| Some(recorded) != given);
        let reader = JournalReader { clerk: self.clerk.clone(), book: Arc::new(book) };
        Ok((Journal { file: self.clone(), reader }, other))
    }

    /// Databases that the journal knows, and that are not in the configuration any more.
    pub async fn left(&self) -> Result<Vec<Left>, JournalError> {
        let owners = self.owners.clone();
        self.write(move |w| w.view.left(&owners)).await
    }

    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        self.clerk.call(move |desk| job(desk.writer()?)).await
    }

    /// COMMIT has been answered with yes.
    pub async fn committed(&self, batch: BatchId, now: Timestamp) -> Result<(), JournalError> {
        self.write(move |w| w.committed(batch, now)).await
    }

    /// COMMIT was refused, or never sent: nothing of the batch is in the database.
    pub async fn abandoned(&self, batch: BatchId, now: Timestamp) -> Result<(), JournalError> {
        self.write(move |w| w.abandoned(batch, now)).await
    }

    /// What the look into the database found, in the order of [`Unresolved::written`].
    pub async fn resolve(&self, batch: BatchId, landed: &[bool], now: Timestamp) -> Result<(), JournalError> {
        let landed = landed.to_vec();
        self.write(move |w| w.resolve(batch, &landed, now)).await
    }

    /// Mails of these databases whose turn has come: the lanes one after the other, in each the databases one after the other, of each in the order in which they became due (a mail put off
    /// queues up again behind what waited meanwhile, so that failing ones never keep others from being sent).
    /// `in_flight` is left out. What can no longer be unsealed is logged, becomes undeliverable, and is left out.
    pub async fn due_mail(
        &self,
        books: &[BookId],
        now: Timestamp,
        limit: usize,
        in_flight: &[IssuanceId],
    ) -> Result<Vec<PendingMail>, JournalError> {
        let (books, in_flight) = (books.to_vec(), in_flight.to_vec());
        self.write(move |w| w.due_mail(&books, now, limit, &in_flight)).await
    }

    /// When the next mail of these databases becomes due, which may be past; `in_flight` is left out. `None`: none waits.
    pub async fn next_mail_at(&self, books: &[BookId], in_flight: &[IssuanceId]) -> Result<Option<Timestamp>, JournalError> {
        let (books, in_flight) = (books.to_vec(), in_flight.to_vec());
        self.write(move |w| w.view.next_mail_at(&books, &in_flight)).await
    }

    /// The mail of this issuance, if it waits or could not be delivered; whether its turn has come does not matter.
    ///
    /// # Errors
    /// Also where it can no longer be unsealed.
    pub async fn mail_of(&self, issuance: IssuanceId) -> Result<Option<PendingMail>, JournalError> {
        self.write(move |w| w.view.mail_of(issuance)).await
    }

    /// Lets this issuance, which waits or could not be delivered, be mailed now, as if it had never been tried. `false`: it is
    /// in another state.
    pub async fn retry(&self, issuance: IssuanceId, now: Timestamp) -> Result<bool, JournalError> {
        self.retry_all(vec![issuance], now).await.map(|retried| retried > 0)
    }

    /// The same of several, in one transaction; how many of them.
    pub async fn retry_all(&self, issuances: Vec<IssuanceId>, now: Timestamp) -> Result<u64, JournalError> {
        self.write(move |w| w.retry(&issuances, now)).await
    }

    /// What became of mails, in one transaction; each answered issuance with the state it is in now. One that could not take
    /// its answer (ended meanwhile) does not hold up the others.
    pub async fn attempted(
        &self,
        answers: Vec<(IssuanceId, Answer)>,
        now: Timestamp,
        give_up_after: Duration,
    ) -> Result<Vec<Answered>, JournalError> {
        self.write(move |w| w.attempted(&answers, now, give_up_after)).await
    }

    /// Reminders of these databases whose turn has come, of each up to `limit`; `in_flight` is left out.
    pub async fn due_reminders(
        &self,
        books: &[BookId],
        now: Timestamp,
        limit: usize,
        in_flight: &[IssuanceId],
    ) -> Result<Vec<PendingReminder>, JournalError> {
        let (books, in_flight) = (books.to_vec(), in_flight.to_vec());
        self.write(move |w| w.view.due_reminders(&books, now, limit, &in_flight)).await
    }

    /// When the next reminder of these databases becomes due, which may be past. `None`: none waits.
    pub async fn next_reminder_at(&self, books: &[BookId], in_flight: &[IssuanceId]) -> Result<Option<Timestamp>, JournalError> {
        let (books, in_flight) = (books.to_vec(), in_flight.to_vec());
        self.write(move |w| w.view.next_reminder_at(&books, &in_flight)).await
    }

    /// What became of reminders, in one transaction. One that another took the place of meanwhile is passed over.
    pub async fn reminded_of(
        &self,
        answers: Vec<(IssuanceId, Answer)>,
        now: Timestamp,
        give_up_after: Duration,
    ) -> Result<(), JournalError> {
        self.write(move |w| w.reminded_of(&answers, now, give_up_after)).await
    }

    /// `totals` is the caller's; the journal only keeps it.
    pub async fn pass_ended(&self, pass: &PassId, outcome: &str, totals: serde_json::Value, now: Timestamp) -> Result<(), JournalError> {
        let (pass, outcome) = (pass.clone(), outcome.to_owned());
        self.write(move |w| w.pass_ended(&pass, &outcome, &totals, now)).await
    }

    /// Moves the write-ahead log into the file and empties it: until then it holds what has been wiped since, though sealed.
    /// For idle moments. `false`: a reader was in the way.
    pub async fn checkpoint(&self) -> Result<bool, JournalError> {
        self.write(|w| w.checkpoint()).await
    }

    /// Deletes issuances that ended too long ago, except those that the ledger needs: the newest in force of each user,
    /// as long as its PIN can be valid. Before-images go before, reminders with their PINs. Returns how many
    /// issuances were deleted.
    pub async fn forget_old(&self, keep: Keep, now: Timestamp) -> Result<u64, JournalError> {
        self.write(move |w| w.forget_reminders(now)).await?;
        let (mut deleted, mut after) = (0, Some(IssuanceId(0)));
        while let Some(from) = after {
            let step = self.write(move |w| w.forget_step(from, FORGET_ROWS, keep, now)).await?;
            deleted += step.deleted;
            after = step.next;
        }
        Ok(deleted)
    }

    /// Ends the work of all clones: what was handed over is done, the file is closed, the lock let go.
    pub async fn close(&self) -> Result<(), JournalError> {
        self.clerk
            .call(|desk| {
                *desk = Desk::Closed;
                Ok(())
            })
            .await
    }
}

impl Journal {
    pub fn reader(&self) -> &JournalReader {
        &self.reader
    }

    pub fn file(&self) -> &JournalFile {
        &self.file
    }

    /// Which part of the file this is.
    pub fn book(&self) -> BookId {
        self.reader.book.id
    }

    /// A job that needs to know the database.
    async fn write_in<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer, &Book) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let book = self.reader.book.clone();
        self.file.write(move |w| job(w, &book)).await
    }

    /// Writes down a batch, durably, *before* its transaction is committed.
    ///
    /// # Errors
    /// Nothing was written, and nothing may be committed.
    pub async fn planned(&self, pass: &PassId, issuances: Vec<NewIssuance>, now: Timestamp) -> Result<BatchId, JournalError> {
        let pass = pass.clone();
        self.write_in(move |w, book| w.planned(book, &pass, &issuances, now)).await
    }

    /// Batches of which nobody knows whether they were committed: a crash or a lost answer left them.
    ///
    /// # Errors
    /// Also where one of their rows cannot be unsealed: then nobody can tell, and nothing may go on by guessing.
    pub async fn unresolved(&self) -> Result<Vec<Unresolved>, JournalError> {
        self.write_in(|w, book| w.view.unresolved(book.id)).await
    }

    /// Puts a user on hold: no pass changes anything of the user until [`release`](Journal::release). `false`: is on hold
    /// already.
    pub async fn hold(&self, user: UserId, login: &str, reason: &str, now: Timestamp) -> Result<bool, JournalError> {
        let (login, reason) = (login.to_owned(), reason.to_owned());
        self.write_in(move |w, book| w.hold(book.id, user, &login, &reason, now)).await
    }

    /// `false`: was not on hold.
    pub async fn release(&self, user: UserId) -> Result<bool, JournalError> {
        self.write_in(move |w, book| w.release(book.id, user)).await
    }

    /// Writes down who is to be reminded, durably: from then on each is sent, and not said again. What was said to the user
    /// before is forgotten.
    pub async fn remind(&self, reminders: Vec<NewReminder>, now: Timestamp) -> Result<(), JournalError> {
        self.write_in(move |w, book| w.remind(book.id, &reminders, now)).await
    }

    pub async fn pass_started(&self, pass: &PassId, kind: &str, now: Timestamp) -> Result<(), JournalError> {
        let (pass, kind) = (pass.clone(), kind.to_owned());
        self.write_in(move |w, book| w.pass_started(book.id, &pass, &kind, now)).await
    }

    /// A full pass has come to its end, and no tripwire stopped it: the next one is compared with these figures.
    pub async fn keep_baseline(&self, baseline: Baseline) -> Result<(), JournalError> {
        self.write_in(move |w, book| w.keep_baseline(book.id, baseline)).await
    }
}

/// Whether a journal without tables is a new one.
///
/// # Errors
/// [`JournalError::Behind`]: it has been emptied.
pub fn is_new(config: &JournalConfig) -> Result<(), JournalError> {
    if config.path.exists() { mark::check_for_reading(None, &config.path) } else { Ok(()) }
}

/// Whether an instance on this host holds the journal for writing.
pub fn is_held(config: &JournalConfig) -> bool {
    file::is_locked(&config.path)
}

impl JournalPlace {
    fn new(config: &JournalConfig) -> JournalPlace {
        JournalPlace { path: config.path.clone(), key: config.key.clone() }
    }
}
