//! What commands ask of the instance that holds the journal's lock. A command may insert a request beside that writer, which is
//! all that anybody but the writer ever writes; who may do so is a matter of the file's permissions.
//!
//! A request is taken once. It is not taken after its time: whoever asked has gone away by then. One that was taken and never
//! answered, because the instance ended, is answered at the next start.

use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::error::{Doing, JournalError};
use super::issue::immediate;
use super::{BookId, Journal, JournalFile, JournalPlace, Writer, file};
use crate::config::JournalConfig;
use crate::domain::Timestamp;

/// How often the writer looks for requests.
pub const LOOK: Duration = Duration::from_millis(500);

/// One that was taken.
#[derive(Clone, Debug)]
pub struct Request {
    pub id: i64,
    /// As the command wrote it.
    pub asked: String,
    /// The account that asked.
    pub account: String,
}

/// What became of a request: how to exit, and what to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub code: u8,
    pub text: String,
    /// It was not done, and the text says why.
    pub failed: bool,
}

/// How a request stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    Waits,
    Taken,
    Answered(Answer),
}

const WHAT: &str = "requests";
/// What is answered to whoever asked an instance that ended before it was done.
const INTERRUPTED: &str = "The instance that had taken the request ended before it was done: see `credkeeper status`, and ask again";

impl Writer {
    /// Tells commands whether this instance takes requests, and answers those that an earlier one left.
    fn serve_requests(&mut self, serves: bool, now: Timestamp) -> Result<(), JournalError> {
        let tx = immediate(&mut self.view.db, WHAT)?;
        tx.execute("INSERT INTO meta (name, value) VALUES ('serves', ?1) ON CONFLICT (name) DO UPDATE SET value = ?1", [serves])
            .and_then(|_| {
                tx.execute(
                    "UPDATE request SET answered_at = ?1, code = 1, answer = ?2, failed = 1 WHERE taken_at IS NOT NULL AND answered_at IS NULL",
                    params![now.0, INTERRUPTED],
                )
            })
            .writing(WHAT)?;
        tx.commit().writing(WHAT)
    }

    fn take_request(&mut self, book: BookId, now: Timestamp) -> Result<Option<Request>, JournalError> {
        let due = self.view.request_waits(book, now)?;
        let Some(id) = due else { return Ok(None) };
        let tx = immediate(&mut self.view.db, WHAT)?;
        let taken = tx
            .prepare_cached("UPDATE request SET taken_at = ?2 WHERE id = ?1 AND taken_at IS NULL RETURNING asked, account")
            .and_then(|mut s| s.query_row([id, now.0], |r| Ok(Request { id, asked: r.get(0)?, account: r.get(1)? })).optional())
            .writing(WHAT)?;
        tx.commit().writing(WHAT)?;
        Ok(taken)
    }

    fn answer_request(&mut self, id: i64, answer: &Answer, now: Timestamp) -> Result<(), JournalError> {
        self.view
            .db
            .prepare_cached("UPDATE request SET answered_at = ?2, code = ?3, answer = ?4, failed = ?5 WHERE id = ?1")
            .and_then(|mut s| s.execute(params![id, now.0, answer.code, answer.text, answer.failed]))
            .map(drop)
            .writing(WHAT)
    }
}

impl super::View {
    fn request_waits(&self, book: BookId, now: Timestamp) -> Result<Option<i64>, JournalError> {
        self.db
            .prepare_cached(
                "SELECT id FROM request INDEXED BY request_waits WHERE taken_at IS NULL AND database = ?1 AND until >= ?2 ORDER BY id LIMIT 1",
            )
            .and_then(|mut s| s.query_row([book.0, now.0], |r| r.get(0)).optional())
            .reading(WHAT)
    }
}

impl JournalFile {
    /// Tells commands whether this instance takes requests (a daemon does, a single pass does not).
    pub async fn serve_requests(&self, serves: bool, now: Timestamp) -> Result<(), JournalError> {
        self.write(move |w| w.serve_requests(serves, now)).await
    }

    pub async fn answer(&self, id: i64, answer: Answer, now: Timestamp) -> Result<(), JournalError> {
        self.write(move |w| w.answer_request(id, &answer, now)).await
    }
}

impl Journal {
    /// The next request about this database, which counts as taken from then on.
    pub async fn take_request(&self, now: Timestamp) -> Result<Option<Request>, JournalError> {
        self.write_in(move |w, book| w.take_request(book.id, now)).await
    }

    /// Whether there is one.
    pub async fn is_asked(&self, now: Timestamp) -> Result<bool, JournalError> {
        self.write_in(move |w, book| w.view.request_waits(book.id, now).map(|id| id.is_some())).await
    }
}

/// The hands of a command: it can ask, and hear the answer, beside the writer.
pub struct Counter(Connection);

impl Counter {
    /// `None`: there is no journal yet, or whoever holds it takes no requests.
    ///
    /// # Errors
    /// When the file cannot be opened for writing.
    pub fn open(config: &JournalConfig) -> Result<Option<Counter>, JournalError> {
        let place = JournalPlace::new(config);
        if !place.path.exists() {
            return Ok(None);
        }
        let db = file::open(&place.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let serves: Option<bool> =
            db.query_row("SELECT value FROM meta WHERE name = 'serves'", [], |r| r.get(0)).optional().reading(WHAT)?;
        Ok(serves.unwrap_or(false).then_some(Counter(db)))
    }

    /// About the database with this name; nobody takes it up after `until`.
    ///
    /// # Errors
    /// Also where the journal does not know that database.
    pub fn ask(&self, database: &str, asked: &str, account: &str, now: Timestamp, until: Timestamp) -> Result<i64, JournalError> {
        let put = self.0.query_row(
            "INSERT INTO request (database, asked, account, asked_at, until) SELECT id, ?2, ?3, ?4, ?5 FROM database WHERE name = ?1 RETURNING id",
            params![database, asked, account, now.0, until.0],
            |r| r.get(0),
        );
        put.optional().writing(WHAT)?.ok_or(JournalError::NotUnderstood { what: "the databases" })
    }

    pub fn standing(&self, id: i64) -> Result<Standing, JournalError> {
        let row: (Option<i64>, Option<u8>, Option<String>, Option<bool>) = self
            .0
            .prepare_cached("SELECT taken_at, code, answer, failed FROM request WHERE id = ?1")
            .and_then(|mut s| s.query_row([id], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))))
            .reading(WHAT)?;
        Ok(match row {
            (_, Some(code), Some(text), failed) => Standing::Answered(Answer { code, text, failed: failed.unwrap_or(false) }),
            (Some(_), ..) => Standing::Taken,
            (None, ..) => Standing::Waits,
        })
    }

    /// `false`: it was taken meanwhile.
    pub fn withdraw(&self, id: i64) -> Result<bool, JournalError> {
        let gone = self.0.execute("DELETE FROM request WHERE id = ?1 AND taken_at IS NULL", [id]);
        gone.map(|n| n > 0).writing(WHAT)
    }
}
