//! The places where a test may end the program: between any two steps that a crash can part.
//!
//! Only the cargo feature `faults` builds this; without it, coming past a point does nothing and leaves nothing in the program.
//! `CREDKEEPER_FAULT_JOURNAL_PAGES=N` gives the journal's file room for so many pages and no more, and `CREDKEEPER_FAULT_HASTE=N` makes the pauses
//! and deadlines of delivery that no configuration changes N times shorter.
//! Two kinds of test use the points. One runs the program as a process: `CREDKEEPER_FAULT=POINT:N:FILE` makes it write FILE and stand still when it comes past POINT for the
//! Nth time, and the test ends it with SIGKILL there. The other runs a pass inside of the test, and decides at each point
//! with [`on_this_thread`].

#[cfg(not(feature = "faults"))]
use std::time::Duration;

/// A place between two steps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Point {
    /// The journal knows that a pass has begun.
    PassStarted,
    /// All is read, judged and planned; nothing is written.
    PassJudged,
    /// A batch has the write lock and its users.
    BatchBegun,
    /// The database has taken the changes, in an open transaction.
    BatchWritten,
    /// The journal has the batch on disk; COMMIT is not sent.
    BatchPlanned,
    /// COMMIT was answered; the journal does not know.
    BatchCommitted,
    /// The journal knows; delivery has not been rung for.
    BatchNoted,
    /// All batches are done; the journal does not know that the pass has ended.
    PassActed,
    /// It does.
    PassEnded,
    /// Recovery knows what stands in the database; the journal does not.
    RecoveryLooked,
    /// It does.
    RecoveryNoted,
    /// Mails were taken from the journal; none of them was given to the courier.
    MailTaken,
    /// The mail server has answered; the journal does not know.
    MailAnswered,
    /// It does.
    MailNoted,
    /// Reminders are in the journal, and none was sent.
    RemindersNoted,
}

impl Point {
    pub const ALL: [Point; 15] = [
        Point::PassStarted,
        Point::PassJudged,
        Point::BatchBegun,
        Point::BatchWritten,
        Point::BatchPlanned,
        Point::BatchCommitted,
        Point::BatchNoted,
        Point::PassActed,
        Point::PassEnded,
        Point::RecoveryLooked,
        Point::RecoveryNoted,
        Point::MailTaken,
        Point::MailAnswered,
        Point::MailNoted,
        Point::RemindersNoted,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Point::PassStarted => "pass_started",
            Point::PassJudged => "pass_judged",
            Point::BatchBegun => "batch_begun",
            Point::BatchWritten => "batch_written",
            Point::BatchPlanned => "batch_planned",
            Point::BatchCommitted => "batch_committed",
            Point::BatchNoted => "batch_noted",
            Point::PassActed => "pass_acted",
            Point::PassEnded => "pass_ended",
            Point::RecoveryLooked => "recovery_looked",
            Point::RecoveryNoted => "recovery_noted",
            Point::MailTaken => "mail_taken",
            Point::MailAnswered => "mail_answered",
            Point::MailNoted => "mail_noted",
            Point::RemindersNoted => "reminders_noted",
        }
    }
}

/// A mistake that a test has the program make, to see that it would be found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mistake {
    /// The journal is told of a COMMIT before it is sent.
    NotedBeforeCommit,
    /// Nobody looks whether a credential still stands before its late mail.
    NeverLooks,
}

/// Comes past a point.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub async fn at(_: Point) {}

/// Pages that the journal's file may have; `None`: as many as the disk holds.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn journal_pages() -> Option<u32> {
    None
}

/// How long a pause or a deadline is.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn hastened(span: Duration) -> Duration {
    span
}

/// Whether this mistake is to be made.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn makes(_: Mistake) -> bool {
    false
}

/// Whether a test decides on this thread what goes on, and has stopped its time.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn is_simulated() -> bool {
    false
}

#[cfg(feature = "faults")]
pub use armed::{Fate, at, hastened, is_simulated, journal_pages, make_on_this_thread, makes, on_this_thread};

#[cfg(feature = "faults")]
mod armed {
    use std::cell::{Cell, RefCell};
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::{Mistake, Point};

    /// What becomes of whoever comes past a point.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Fate {
        Go,
        /// Stands still for good, until it is dropped or killed.
        Stand,
    }

    type Decide = Box<dyn FnMut(Point) -> Fate>;

    thread_local! {
        static DECIDE: RefCell<Option<Decide>> = const { RefCell::new(None) };
        static MAKES: Cell<Option<Mistake>> = const { Cell::new(None) };
    }

    /// From now on the program makes this mistake on this thread.
    pub fn make_on_this_thread(mistake: Option<Mistake>) {
        MAKES.set(mistake);
    }

    /// Whether this mistake is to be made.
    pub fn makes(mistake: Mistake) -> bool {
        MAKES.get() == Some(mistake)
    }

    /// From now on `decide` is asked at each point that is come past on this thread; `None`: all go on.
    pub fn on_this_thread(decide: Option<Decide>) {
        DECIDE.with(|slot| *slot.borrow_mut() = decide);
    }

    /// Whether a test decides on this thread what goes on, and has stopped its time.
    pub fn is_simulated() -> bool {
        DECIDE.with(|slot| slot.try_borrow().is_ok_and(|decide| decide.is_some()))
    }

    /// Comes past a point.
    pub async fn at(point: Point) {
        let decided = DECIDE.with(|slot| slot.borrow_mut().as_mut().map(|decide| decide(point)));
        if decided.unwrap_or_else(|| asked(point)) == Fate::Stand {
            std::future::pending::<()>().await;
        }
    }

    struct Asked {
        point: String,
        times: u64,
        file: PathBuf,
    }

    /// As the environment says.
    fn asked(point: Point) -> Fate {
        static ASKED: OnceLock<Option<Asked>> = OnceLock::new();
        static PASSED: AtomicU64 = AtomicU64::new(0);
        let parse = || {
            let said = std::env::var("CREDKEEPER_FAULT").ok()?;
            let mut parts = said.splitn(3, ':');
            let asked = Asked { point: parts.next()?.to_owned(), times: parts.next()?.parse().ok()?, file: parts.next()?.into() };
            Some(asked)
        };
        let Some(asked) = ASKED.get_or_init(parse).as_ref().filter(|asked| asked.point == point.as_str()) else { return Fate::Go };
        if PASSED.fetch_add(1, Ordering::Relaxed) + 1 < asked.times {
            return Fate::Go;
        }
        if let Err(e) = std::fs::write(&asked.file, point.as_str()) {
            tracing::error!("Cannot write {}: {e}", asked.file.display());
        }
        Fate::Stand
    }

    /// Pages that the journal's file may have; `None`: as many as the disk holds.
    pub fn journal_pages() -> Option<u32> {
        number("CREDKEEPER_FAULT_JOURNAL_PAGES")
    }

    /// How long a pause or a deadline is.
    pub fn hastened(span: Duration) -> Duration {
        static HASTE: OnceLock<u32> = OnceLock::new();
        span / *HASTE.get_or_init(|| number("CREDKEEPER_FAULT_HASTE").unwrap_or(1).max(1))
    }

    fn number(name: &str) -> Option<u32> {
        std::env::var(name).ok()?.parse().ok()
    }
}
