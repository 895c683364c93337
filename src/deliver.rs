//! From the journal to the mailbox: hands committed issuances to the courier, and its answers back to the journal.
//!
//! ```text
//! journal.due_mail ─► older than a minute? still in the database? ─► render ─► courier
//! journal.attempted ◄── in groups of 100, or 100 ms ◄── answers ◄──────────────┘
//! ```
//!
//! One delivery serves all databases, with one courier and one pace; mail of a database is sent for as long as this instance
//! leads on it. The daemon lets it run until it stops. `--once` ends it when each due mail has been tried once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info};

use crate::clock;
use crate::config::{Config, TransportConfig};
use crate::domain::{IssuanceId, PolicyName, Timestamp};
use crate::fault::{self, Point};
use crate::journal::{Answer as Told, BookId, JournalFile, PendingMail};
use crate::logging::Progress;
use crate::mail::{Courier, Delivery as Verdict, Outgoing, State, Timing};
use crate::metrics::Metrics;
use crate::report::{MailTotals, ReminderTotals};

mod answers;
mod outage;
mod ready;
mod reminding;
mod served;
mod standing;
mod trouble;

use outage::Outage;
use ready::{Ready, rendered, trusted};
use reminding::Late;
pub use served::Outlet;
use served::{AllServed, Found, Looked, Looks};
use trouble::Trouble;

/// Mails that are out of the journal at a time.
const WINDOW: usize = 256;
/// Answers are told to the journal in groups: a crash repeats at most one of them.
const GROUP: usize = 100;
const GROUP_WAIT: Duration = Duration::from_millis(100);
/// A credential that was committed, or looked up, longer ago than this is looked up again before its mail.
const TRUSTED_FOR: Duration = Duration::from_secs(60);
/// `--once` waits out pauses shorter than a minute, if waiting can help. When it asks, a moment of the pause is over already.
const SHORT_PAUSE: Duration = Duration::from_secs(59);
/// How long the mails in hand may take when all is to stop.
const STOP_WITHIN: Duration = Duration::from_secs(6);
/// After a failure of the journal or the database.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
/// Tries to tell the journal before `--once` gives up: it must end, also on a disk that nobody mends.
const TELL_AT_MOST: u32 = 5;
/// A mail that the site refused lets the others go first for so long: it may be the one at fault, and must not be the only
/// one that ever finds out whether the server is well again.
const STEP_ASIDE: Duration = Duration::from_secs(120);

/// For how long delivery runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Until stopped; mails are tried again when their time comes.
    Daemon,
    /// `--once`: each due mail is tried once, and pauses of less than a minute are waited out if that can help.
    Once,
    /// The same with this mail alone.
    One(IssuanceId),
}

/// What delivery works with.
#[derive(Clone)]
pub struct Desk {
    pub journal: JournalFile,
    pub config: Arc<Config>,
    pub metrics: Arc<Metrics>,
    /// Since when nothing could be delivered, as far as it is known from before.
    pub down_since: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Finish {
    No,
    WhenTried,
    Now,
}

/// Delivery at work.
pub struct Delivery {
    finish: watch::Sender<Finish>,
    done: watch::Receiver<u64>,
    outlet: Outlet,
    task: JoinHandle<Delivered>,
}

/// What was delivered, by database.
pub type Delivered = BTreeMap<BookId, Counted>;

#[derive(Clone, Copy, Default, Debug)]
pub struct Counted {
    pub totals: MailTotals,
    pub reminders: ReminderTotals,
    /// Not sent, because the credential was gone again.
    pub superseded: u64,
}

impl Delivery {
    /// Nothing is delivered before somebody says for which databases: [`Outlet::serve`].
    pub fn start(desk: Desk, mode: Mode) -> Delivery {
        let ring = Arc::new(Notify::new());
        let (finish, finishing) = watch::channel(Finish::No);
        let (progress, done) = watch::channel(0);
        let (outage, down) = Outage::new(desk.down_since);
        let served = AllServed::default();
        let task = tokio::spawn(Loop::new(desk, mode, ring.clone(), finishing, progress, outage, served.clone()).run());
        Delivery { outlet: Outlet { ring, down, served }, finish, done, task }
    }

    pub fn outlet(&self) -> Outlet {
        self.outlet.clone()
    }

    /// Waits until each due mail has been tried once.
    pub async fn finish(self, progress: &Progress) -> Delivered {
        let Delivery { outlet, finish, mut done, mut task } = self;
        finish.send_replace(Finish::WhenTried);
        outlet.ring.notify_one();
        progress.stage("Mailing", None);
        let mut shown = 0;
        let counted = loop {
            tokio::select! {
                ended = &mut task => break ended,
                Ok(()) = done.changed() => {
                    let tried = *done.borrow_and_update();
                    progress.advance(tried - shown);
                    shown = tried;
                }
            }
        };
        progress.done();
        ended(counted)
    }

    /// Ends the mails in hand; the rest stays in the journal.
    pub async fn stop(self) {
        self.finish.send_replace(Finish::Now);
        self.outlet.ring.notify_one();
        ended(self.task.await);
    }
}

fn ended(counted: Result<Delivered, tokio::task::JoinError>) -> Delivered {
    counted.unwrap_or_else(|e| {
        error!("Delivery ended by itself; what was not delivered stays in the journal: {e}");
        Delivered::default()
    })
}

/// One mail that the courier has.
struct InHand {
    book: BookId,
    database: Arc<str>,
    policy: PolicyName,
    due_since: Timestamp,
    attempts: u32,
    /// `None`: it tells a credential.
    reminds: Option<Late>,
}

struct Loop {
    desk: Desk,
    mode: Mode,
    ring: Arc<Notify>,
    finishing: watch::Receiver<Finish>,
    progress: watch::Sender<u64>,
    outage: Outage,
    /// Rendered, and waiting for room in the courier's queue.
    to_give: Ready,
    /// Reminders, which go when nothing else does.
    to_remind: VecDeque<Outgoing>,
    /// Those and the ones that the courier has.
    in_hand: HashMap<IssuanceId, InHand>,
    /// Not to be tried again before then; `None`: not in this run.
    aside: HashMap<IssuanceId, Option<Instant>>,
    served: AllServed,
    /// Whose credential is looked up before its mail.
    looks: Looks,
    answers: Vec<(IssuanceId, Told)>,
    /// The same about reminders.
    reminded: Vec<(IssuanceId, Told)>,
    flush_at: Option<Instant>,
    /// How often in a row the journal did not take them.
    untold: u32,
    /// After a failure nothing is taken from the journal until then.
    rest_until: Option<Instant>,
    /// The last failure passes only if somebody mends something: `--once` need not wait for that.
    hopeless: bool,
    counted: Delivered,
}

impl Loop {
    fn new(
        desk: Desk,
        mode: Mode,
        ring: Arc<Notify>,
        finishing: watch::Receiver<Finish>,
        progress: watch::Sender<u64>,
        outage: Outage,
        served: AllServed,
    ) -> Loop {
        Loop {
            desk,
            mode,
            ring,
            finishing,
            progress,
            outage,
            to_give: Ready::default(),
            to_remind: VecDeque::new(),
            in_hand: HashMap::new(),
            aside: HashMap::new(),
            served,
            looks: Looks::default(),
            answers: Vec::new(),
            reminded: Vec::new(),
            flush_at: None,
            untold: 0,
            rest_until: None,
            hopeless: false,
            counted: Delivered::default(),
        }
    }

    async fn run(mut self) -> Delivered {
        let mut courier = Courier::start(&self.desk.config.mail, self.desk.config.limits.mails_per_minute, Timing::default());
        loop {
            let finish = *self.finishing.borrow_and_update();
            if finish == Finish::Now {
                break;
            }
            let next = self.refill(courier.state(), finish).await;
            let idle = next.is_none() && self.in_hand.is_empty() && self.noted().next().is_none() && self.looks.is_empty();
            // Without a database to serve nobody knows what waits.
            if idle && self.aside.is_empty() && !self.served.all().is_empty() {
                self.outage.nothing_waits();
            }
            if finish == Finish::WhenTried && (idle || self.untold >= TELL_AT_MOST) {
                break;
            }
            let wake = [next, self.flush_at].into_iter().flatten().min();
            tokio::select! {
                Some(answer) = courier.answers.recv() => {
                    if let Some(at) = courier.certificate_expires() {
                        self.desk.metrics.mail_certificate(at);
                    }
                    if !matches!(answer.delivery, Verdict::NotTried) {
                        self.outage.tried(courier.state(), clock::now());
                    }
                    self.answered(answer);
                }
                Ok(room) = courier.outgoing.reserve(), if !self.to_give.is_empty() || !self.to_remind.is_empty() => {
                    let (mail, stale) = self.to_give.next(Instant::now().into_std());
                    // In the journal they are still due: they are looked up, and come again.
                    stale.iter().for_each(|id| drop(self.in_hand.remove(id)));
                    if let Some(mail) = mail.or_else(|| self.to_remind.pop_front()) {
                        room.send(mail);
                    }
                }
                looked = self.looks.next() => self.looked_up(looked),
                () = self.ring.notified() => {}
                _ = self.finishing.changed() => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
            if self.noted().count() >= GROUP || self.flush_at.is_some_and(|at| at <= Instant::now()) || self.in_hand.is_empty() {
                self.flush().await;
            }
        }
        self.close(courier).await
    }

    /// Takes what is due from the journal. When to come again without being rung; `None` while there is nothing to wait for.
    async fn refill(&mut self, courier: State, finish: Finish) -> Option<Instant> {
        if matches!(self.desk.config.mail.transport, TransportConfig::None) {
            return None;
        }
        let now = Instant::now();
        if let Some(rest) = self.rest_until.filter(|rest| *rest > now) {
            return Some(rest);
        }
        if let State::PausedUntil(until) = courier {
            let until = Instant::from_std(until);
            let worth_it =
                self.mode == Mode::Daemon || (until.saturating_duration_since(now) < fault::hastened(SHORT_PAUSE) && !self.hopeless);
            return worth_it.then_some(until);
        }
        let room = WINDOW.saturating_sub(self.in_hand.len() + self.noted().count() + self.looks.mails());
        if room == 0 {
            return Some(now + GROUP_WAIT);
        }
        match self.hand_over(room, finish).await {
            Ok(next) => next,
            Err(trouble) => {
                self.rests(&trouble);
                self.rest_until = Some(now + AFTER_FAILURE);
                (finish == Finish::No).then_some(now + AFTER_FAILURE) // --once leaves the rest to the next run
            }
        }
    }

    async fn hand_over(&mut self, room: usize, finish: Finish) -> Result<Option<Instant>, Trouble> {
        let (now, instant) = (clock::now(), Instant::now());
        self.aside.retain(|_, until| until.is_none_or(|until| until > instant));
        let not: Vec<IssuanceId> = self.in_hand.keys().chain(self.aside.keys()).copied().chain(self.noted()).collect();
        let rested = self.looks.rested(instant);
        let served = self.served.all();
        let books: Vec<BookId> = served.keys().copied().filter(|book| self.looks.is_free(*book)).collect();
        let due = match self.mode {
            Mode::One(id) if not.contains(&id) => Vec::new(),
            Mode::One(id) => self.desk.journal.mail_of(id).await?.filter(|mail| books.contains(&mail.book)).into_iter().collect(),
            Mode::Daemon | Mode::Once => self.desk.journal.due_mail(&books, now, room, &not).await?,
        };
        if !due.is_empty() {
            fault::at(Point::MailTaken).await;
        }
        let only_reminders = due.is_empty() && !matches!(self.mode, Mode::One(_));
        let (old, fresh): (Vec<_>, Vec<_>) = due.into_iter().partition(|m| trusted(m.committed_at, now).is_none());
        let mut by_book: BTreeMap<BookId, Vec<PendingMail>> = BTreeMap::new();
        old.into_iter().for_each(|mail| by_book.entry(mail.book).or_default().push(mail));
        for (book, mails) in by_book {
            if let Some(served) = served.get(&book) {
                self.looks.start(served, mails);
            }
        }
        for mail in fresh {
            if let Some(served) = served.get(&mail.book) {
                let left = trusted(mail.committed_at, now).unwrap_or_default();
                self.prepare(mail, served.database.clone(), instant + left);
            }
        }
        if only_reminders {
            self.take_reminders(&books).await?;
        }
        if finish == Finish::WhenTried {
            return Ok(None); // later retries are for the next run
        }
        let books: Vec<BookId> = books.into_iter().filter(|book| self.looks.is_free(*book)).collect();
        let mail = self.desk.journal.next_mail_at(&books, &not).await?;
        let reminder = self.desk.journal.next_reminder_at(&books, &not).await?;
        let next = [mail, reminder].into_iter().flatten().min();
        let next = next.map(|at| instant + Duration::from_secs((at.0 - now.0).clamp(1, 60).unsigned_abs()));
        // What stepped aside has its turn too, though nobody rings for it.
        Ok(self.aside.values().copied().chain([next, rested]).flatten().min())
    }

    /// Leaves out what no longer stands: telling it would be telling a PIN that does not open anything. A mail of which
    /// nothing stands any more is not sent.
    fn looked_up(&mut self, Looked { database, book, found }: Looked) {
        let (mails, stands) = match found {
            Found::Mails { mails, stands } => (mails, stands),
            Found::Reminders(ready) => return self.read_reminders(&database, book, ready),
        };
        let mut stands = match stands {
            Ok(stands) => stands.into_iter(),
            Err(e) => {
                self.desk.metrics.database_error(&database, e.kind());
                self.rests(&Trouble::Database { database, source: e });
                let again = (self.mode == Mode::Daemon).then(|| Instant::now() + AFTER_FAILURE);
                return self.looks.rest(book, again); // --once leaves them to the next run
            }
        };
        for mut mail in mails {
            if standing::keep(&mut mail, &mut stands) {
                self.prepare(mail, database.clone(), Instant::now() + TRUSTED_FOR);
            } else {
                info!(user.id = %mail.user, %database, outcome = "superseded", "No mail to user {}: what it would tell has been changed since", mail.user);
                self.counted.entry(book).or_default().superseded += 1;
                self.note(mail.id, Told::Gone);
            }
        }
    }

    fn prepare(&mut self, mail: PendingMail, database: Arc<str>, trusted_until: Instant) {
        let Some(template) = self.desk.config.templates.get(&mail.announcement.template) else {
            error!(user.id = %mail.user, "The mail to user {} waits: the template {} is not in the configuration", mail.user, mail.announcement.template);
            self.set_aside(mail.id);
            self.note(mail.id, Told::Deferred { code: None });
            return;
        };
        let outgoing = rendered(template, &mail, trusted_until.into_std());
        let (book, policy, due_since, attempts) = (mail.book, mail.policy, mail.due_since, mail.attempts);
        self.in_hand.insert(mail.id, InHand { book, database, policy, due_since, attempts, reminds: None });
        self.put_reminders_back();
        self.to_give.push(outgoing);
    }
}
