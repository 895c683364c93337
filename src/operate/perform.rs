//! Doing what was asked: by the daemon between its passes, or by the command itself where there is none.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tracing::info;

use super::{OperateError, find, resend, undo};
use crate::cli::{ExitStatus, Request};
use crate::clock;
use crate::commands;
use crate::config::{Config, DatabaseConfig};
use crate::deliver::{self, Delivery, Desk};
use crate::domain::{IssuanceId, PassId, UserId, printable};
use crate::journal::{HistoryRow, Journal, JournalError, State, UndoOf};
use crate::logging::Progress;
use crate::metrics::Metrics;
use crate::reconcile::{self, Ask, Watch};
use crate::report::{MailTotals, PassKind, json, text};
use crate::store::{Leadership, Store};

/// How long a mail is waited for that the daemon has been asked to send.
const MAIL_WITHIN: Duration = Duration::from_secs(40);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Among how many of a user's newest issuances one is looked for.
const LOOKED_AT: usize = 20;

/// What a request is done with.
pub struct Work<'a> {
    pub config: &'a Arc<Config>,
    pub database: &'a DatabaseConfig,
    pub store: &'a Arc<Store>,
    /// `None`: the request needs none.
    pub lead: Option<&'a Leadership>,
    pub journal: &'a Journal,
    pub post: Post<'a>,
}

/// Who sends a mail.
#[derive(Clone, Copy)]
pub enum Post<'a> {
    /// The command.
    Own(&'a Progress),
    /// The daemon's delivery, which is rung for.
    Daemon(&'a Notify),
}

/// Does it, and says what came of it.
///
/// # Errors
/// Nothing, or not all, was done.
pub async fn perform(work: &Work<'_>, request: &Request) -> Result<(String, ExitStatus), OperateError> {
    match request {
        Request::Hold { login } => hold(work, login).await,
        Request::Release { login } => release(work, login).await,
        Request::ReleaseAll { pass } => {
            let released = work.journal.release_all(&PassId(pass.clone())).await?;
            let said = format!("{released} users are released, whom the undoing of pass {} had put on hold.\n", printable(pass));
            Ok((said, if released > 0 { ExitStatus::Done } else { ExitStatus::Partial }))
        }
        Request::Revoke { login } => undo::revoke(work, login).await,
        Request::Resend { login } => resend::send(work, login).await,
        Request::Approve { plan } => approve(work, plan).await,
        Request::Undo { pass } => undo::undo(work, UndoOf::Pass(PassId(pass.clone()))).await,
        Request::Retry { issuance } => retry(work, *issuance).await,
        Request::TakeBack { issuance } => undo::undo(work, UndoOf::One(IssuanceId(*issuance))).await,
        Request::Once { login, max_users, max_replace, json } => {
            once(work, login, (max_users.as_deref(), max_replace.as_deref()), *json).await
        }
    }
}

impl Work<'_> {
    /// # Errors
    /// Another instance leads on the database.
    pub(crate) fn lead(&self) -> Result<&Leadership, OperateError> {
        self.lead.ok_or_else(|| OperateError::NotLeading { database: printable(&self.database.name).into_owned() })
    }

    /// Tries the one mail, and says how it stands then.
    pub(crate) async fn deliver(&self, user: UserId, issuance: IssuanceId) -> Result<HistoryRow, JournalError> {
        match self.post {
            Post::Own(progress) => {
                let metrics: Arc<Metrics> = Arc::new(commands::metrics(self.config));
                let desk = Desk { journal: self.journal.file().clone(), config: self.config.clone(), metrics, down_since: None };
                let delivery = Delivery::start(desk, deliver::Mode::One(issuance));
                delivery.outlet().serve(&self.database.name, self.journal, self.store);
                delivery.finish(progress).await;
                self.row(user, issuance).await
            }
            Post::Daemon(ring) => {
                let (until, before) = (Instant::now() + MAIL_WITHIN, self.row(user, issuance).await?.attempts);
                ring.notify_one();
                loop {
                    let row = self.row(user, issuance).await?;
                    if row.state != State::Committed || row.attempts > before || Instant::now() >= until {
                        return Ok(row);
                    }
                    sleep(LOOK_AGAIN).await;
                }
            }
        }
    }

    async fn row(&self, user: UserId, issuance: IssuanceId) -> Result<HistoryRow, JournalError> {
        let rows = self.journal.reader().user_history(user, LOOKED_AT).await?;
        let row = rows.into_iter().find(|row| row.issuance == issuance);
        row.ok_or(JournalError::NotUnderstood { what: "an issuance" })
    }
}

async fn hold(work: &Work<'_>, login: &str) -> Result<(String, ExitStatus), OperateError> {
    let user = find(work.store.reader(), login).await?;
    let new = work.journal.hold(user.id, login, "held by an operator", clock::now()).await?;
    let how = if new { "is on hold now" } else { "was on hold already" };
    let (id, name) = (user.id, printable(login));
    let said = format!("User {id} “{name}” {how}: no pass changes anything of the user until `credkeeper release` ends it.\n");
    info!(user.id = %id, "{}", said.trim_end());
    Ok((said, ExitStatus::Done))
}

async fn release(work: &Work<'_>, login: &str) -> Result<(String, ExitStatus), OperateError> {
    let user = find(work.store.reader(), login).await?;
    let (id, name) = (user.id, printable(login));
    let said = if work.journal.release(id).await? {
        format!("User {id} “{name}” is released: the next pass looks at the user again.\n")
    } else {
        format!("User {id} “{name}” was not on hold.\n")
    };
    info!(user.id = %id, "{}", said.trim_end());
    Ok((said, ExitStatus::Done))
}

async fn approve(work: &Work<'_>, plan: &str) -> Result<(String, ExitStatus), OperateError> {
    let Some(approved) = work.journal.approve(plan, clock::now()).await? else {
        return Err(OperateError::NoSuchPlan { plan: printable(plan).into_owned() });
    };
    let until = approved.approved_until.map_or(String::new(), |until| format!(" until {until}"));
    let policy = printable(&approved.policy.0).into_owned();
    let said = format!(
        "Plan {plan} of policy {policy}, which changes {} users and {} had refused, is let through{until}, once. What else is due is judged as usual.\n",
        approved.users, approved.limit
    );
    info!(policy, users = approved.users, "{}", said.trim_end());
    Ok((said, ExitStatus::Done))
}

async fn retry(work: &Work<'_>, issuance: Option<i64>) -> Result<(String, ExitStatus), OperateError> {
    let now = clock::now();
    let issuances: Vec<IssuanceId> = match issuance {
        Some(one) => vec![IssuanceId(one)],
        None => {
            let unfinished = work.journal.reader().unfinished(usize::MAX >> 1).await?;
            let waits = unfinished.iter().filter(|row| matches!(row.state, State::Committed | State::Undeliverable));
            waits.map(|row| row.issuance).collect()
        }
    };
    let retried = work.journal.retry_all(issuances, now).await?;
    if let Post::Daemon(ring) = work.post {
        ring.notify_one();
    }
    match (issuance, retried) {
        (Some(one), 0) => Err(OperateError::NotWaiting { issuance: one }),
        (_, n) => {
            let when = if matches!(work.post, Post::Daemon(_)) { "now" } else { "in the next pass" };
            Ok((format!("{n} mails are tried again {when}, as if they had never been tried.\n"), ExitStatus::Done))
        }
    }
}

/// One pass over one user, and the mail that comes of it.
async fn once(
    work: &Work<'_>,
    login: &str,
    (max_users, max_replace): (Option<&str>, Option<&str>),
    as_json: bool,
) -> Result<(String, ExitStatus), OperateError> {
    let limit = |text: Option<&str>| text.map(crate::cli::max_users).transpose();
    let share = |text: Option<&str>| text.map(crate::cli::max_replace).transpose();
    let (max_users, max_replace) = match (limit(max_users), share(max_replace)) {
        (Ok(users), Ok(replace)) => (users, replace),
        (Err(why), _) | (_, Err(why)) => return Err(OperateError::NotUnderstood { why }),
    };
    let ask = Ask { login: Some(login.to_owned()), max_users, max_replace, ..Ask::full(PassKind::Once, clock::now()) };
    let ring = Notify::new();
    let watch = Watch { progress: &|_, _| {}, line: &|_| {}, committed: &ring, stop: &|| false };
    let passed = reconcile::pass(work.store, work.lead()?, work.journal, work.config, work.database, &ask, &watch).await;
    let mut report = passed.report;
    if passed.error.is_none() {
        let user = find(work.store.reader(), login).await?;
        let newest = work.journal.reader().user_history(user.id, 1).await?;
        let told = newest.into_iter().find(|row| row.pass == report.pass && row.message_id.is_some());
        if let Some(row) = told {
            report.mail = match work.deliver(user.id, row.issuance).await?.state {
                State::Delivered => MailTotals { accepted: 1, ..MailTotals::default() },
                State::Undeliverable | State::TakenBack => MailTotals { rejected: 1, ..MailTotals::default() },
                State::Committed => MailTotals { deferred: 1, waiting: 1, ..MailTotals::default() },
                _ => MailTotals::default(),
            };
        }
    }
    let status = ExitStatus::of(&report, false);
    let said = if as_json {
        json::text(&json::render(&report))
    } else {
        text::several(&[(work.database.name.as_str(), Ok::<_, String>(&report))])
    };
    Ok((said, status))
}
