//! What an operator asks for: `hold`, `release`, `revoke`, `resend`, `approve`, `undo`, `journal retry`, `journal take-back`, and
//! `--once --user`. Where an instance holds the journal and takes requests, it is asked to do it, and its answer is told; else
//! the command does it by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::time::sleep;
use tracing::error;

use crate::cli::{ExitStatus, Format, Once, Request};
use crate::clock;
use crate::commands::print;
use crate::complaint::complaint;
use crate::config::{Config, DatabaseConfig, Mode};
use crate::domain::{IssuanceId, PassId, UserId, printable};
use crate::inventory::{Standing, User};
use crate::journal::{self, JournalError, JournalFile, JournalReader, LOCK_WAIT, Owner, UndoOf};
use crate::logging::Progress;
use crate::reconcile::PassError;
use crate::recover::recover;
use crate::store::{Filter, Reader, Store, StoreError};

mod hand_over;
mod perform;
mod resend;
mod undo;

pub use perform::{Post, Work, perform};
pub use resend::ResendError;

/// How often `--wait` looks for the user.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Why a command of an operator did nothing, or not all.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    #[error("the user {0} is not in the database")]
    NoSuchUser(String),
    #[error("{login} is no user: the row stands for a role, a cost center or the like, or is marked as deleted")]
    NotAUser { login: String },
    #[error("several users have the login {login}, with the ids {ids}: make the logins differ in the print system")]
    Ambiguous { login: String, ids: String },
    #[error("several databases have {what}: {databases}; say which with --database NAME")]
    Which { what: String, databases: String },
    #[error("the database {database} cannot be asked whether it has the user too; say which one is meant with --database NAME")]
    Unanswered { database: String, source: Box<StoreError> },
    #[error("no refused plan {plan} waits in the journal; `credkeeper status` shows those that do")]
    NoSuchPlan { plan: String },
    #[error("issuance {issuance} neither waits nor is undeliverable; `credkeeper journal list` shows those that are")]
    NotWaiting { issuance: i64 },
    #[error("there is nothing to take back of {what}: the journal does not know it, or all of it has ended{}", unreadable(*lost))]
    NothingToTakeBack { what: String, lost: u64 },
    #[error("not understood: {why}")]
    NotUnderstood { why: String },
    #[error("there is no journal at {path} yet: nothing was ever issued from here")]
    NoJournal { path: String },
    #[error("another instance is at work and holds the journal, and takes no requests: wait until it has ended, or end it")]
    Locked,
    #[error(
        "the instance that holds the journal did not take the request up in {seconds} s: `credkeeper status` and its log tell what keeps it"
    )]
    NotTaken { seconds: u64 },
    #[error("the request was taken up, and is not done after {seconds} s: it goes on; see `credkeeper status` and the log")]
    NotDone { seconds: u64 },
    #[error("another instance leads on database {database}, with a journal of its own: ask there")]
    NotLeading { database: String },
    #[error("mode: observe stands in the configuration: nothing is changed")]
    Observing,
    /// By the instance that was asked.
    #[error("{said}")]
    Answered { said: String, status: ExitStatus },
    #[error(transparent)]
    Resend(#[from] ResendError),
    /// With what was done until then.
    #[error("not all was done, ask again: {}", said.trim_end())]
    Unfinished { said: String, source: Box<PassError> },
    #[error("the database failed")]
    Store(#[from] StoreError),
    #[error("the journal failed")]
    Journal(#[from] JournalError),
    #[error("what an earlier run left behind could not be resolved, or the change failed")]
    Pass(#[from] PassError),
}

/// What stood before is not kept for ever.
fn unreadable(lost: u64) -> String {
    match lost {
        0 => String::new(),
        n => format!("; {n} cannot be taken back any more, because what stood before is kept for journal.undo_for"),
    }
}

impl OperateError {
    pub fn status(&self) -> ExitStatus {
        match self {
            OperateError::NoSuchUser(_)
            | OperateError::NotAUser { .. }
            | OperateError::Ambiguous { .. }
            | OperateError::Which { .. }
            | OperateError::NoSuchPlan { .. }
            | OperateError::NotWaiting { .. }
            | OperateError::NothingToTakeBack { .. }
            | OperateError::NoJournal { .. } => ExitStatus::Partial,
            OperateError::Locked | OperateError::NotTaken { .. } | OperateError::NotLeading { .. } => ExitStatus::Locked,
            OperateError::NotUnderstood { .. } => ExitStatus::Usage,
            OperateError::Answered { status, .. } => *status,
            OperateError::Resend(e) => e.status(),
            OperateError::NotDone { .. }
            | OperateError::Observing
            | OperateError::Unfinished { .. }
            | OperateError::Unanswered { .. }
            | OperateError::Store(_)
            | OperateError::Journal(_)
            | OperateError::Pass(_) => ExitStatus::Failed,
        }
    }
}

/// Does what is asked, or has it done.
pub async fn ask(config: Arc<Config>, request: Request, progress: &Progress) -> ExitStatus {
    match asked(&config, &request, progress).await {
        Ok((said, status)) => ExitStatus::worst([print(&said), status]),
        Err(e) => {
            error!("{}", complaint(&e));
            e.status()
        }
    }
}

async fn asked(config: &Arc<Config>, request: &Request, progress: &Progress) -> Result<(String, ExitStatus), OperateError> {
    let database = addressed(config, request).await?;
    if let Some(answer) = hand_over::hand_over(config, database, request, progress).await? {
        return Ok(answer);
    }
    alone(config, database, request, progress).await
}

/// `--once --user` beside a daemon. `None`: nobody is there who could be asked, or files are to be written, which only the command
/// itself can.
pub async fn once(config: &Arc<Config>, asked: &Once, progress: &Progress) -> Option<ExitStatus> {
    let login = asked.user.clone().filter(|_| !asked.dry_run && asked.report.is_none() && asked.metrics_file.is_none())?;
    if config.mode == Mode::Observe || !journal::is_held(&config.journal) {
        return None;
    }
    let (max_users, max_replace) = (asked.max_users.map(|n| n.to_string()), asked.max_replace.map(|share| share.to_string()));
    let until = Instant::now() + asked.wait.unwrap_or_default();
    let request = Request::Once { login: login.clone(), max_users, max_replace, json: asked.format == Format::Json };
    let told = async {
        let database = loop {
            match find_in_all(config, &login).await {
                Err(OperateError::NoSuchUser(_)) if Instant::now() < until => sleep(LOOK_AGAIN).await,
                found => break found?.0,
            }
        };
        hand_over::hand_over(config, database, &request, progress).await
    };
    match told.await {
        Ok(answer) => answer.map(|(said, status)| ExitStatus::worst([print(&said), status])),
        Err(e) => {
            error!("{}", complaint(&e));
            Some(e.status())
        }
    }
}

/// What `undo PASS` or `journal take-back` would be about.
pub async fn preview(config: &Config, request: &Request) -> ExitStatus {
    let told = async {
        let database = addressed(config, request).await?;
        let of = subject(request).ok_or_else(|| OperateError::NotUnderstood { why: "there is no preview of it".to_owned() })?;
        undo::preview(config, database, &reader(config, database).await?, of).await
    };
    match told.await {
        Ok(said) => print(&said),
        Err(e) => {
            error!("{}", complaint(&e));
            e.status()
        }
    }
}

async fn alone(
    config: &Arc<Config>,
    database: &DatabaseConfig,
    request: &Request,
    progress: &Progress,
) -> Result<(String, ExitStatus), OperateError> {
    let file = match JournalFile::open(&config.journal, Owner::all(&config.databases), LOCK_WAIT).await {
        Err(JournalError::Locked { .. }) => return Err(OperateError::Locked),
        other => other?,
    };
    file.serve_requests(false, clock::now()).await?;
    let journal = file.of(&database.name).await?;
    let store = Arc::new(Store::connect(database).await?);
    let mut lead = None;
    if request.needs_lead() {
        lead = store.lead_within(LOCK_WAIT).await?;
        if lead.is_some() {
            recover(&store, &journal, clock::now()).await?;
        }
    }
    let work = Work { config, database, store: &store, lead: lead.as_ref(), journal: &journal, post: Post::Own(progress) };
    let done = perform(&work, request).await;
    file.close().await?;
    done
}

fn subject(request: &Request) -> Option<UndoOf> {
    match request {
        Request::Undo { pass } => Some(UndoOf::Pass(PassId(pass.clone()))),
        Request::TakeBack { issuance } => Some(UndoOf::One(IssuanceId(*issuance))),
        _ => None,
    }
}

async fn reader(config: &Config, database: &DatabaseConfig) -> Result<JournalReader, OperateError> {
    let reader = JournalReader::open(&config.journal, Owner::all(&config.databases), &database.name).await?;
    reader.ok_or_else(|| OperateError::NoJournal { path: config.journal.path.display().to_string() })
}

/// The one database that the request is about.
async fn addressed<'c>(config: &'c Config, request: &Request) -> Result<&'c DatabaseConfig, OperateError> {
    if let Some(login) = request.login() {
        return find_in_all(config, login).await.map(|(database, _)| database);
    }
    let selected: Vec<&DatabaseConfig> = config.selected().collect();
    if let [only] = selected[..] {
        return Ok(only);
    }
    let mut having = Vec::new();
    for database in &selected {
        let reader = match reader(config, database).await {
            Err(OperateError::NoJournal { .. }) => continue,
            reader => reader?,
        };
        let has = match request {
            Request::Approve { plan } => reader.refused().await?.iter().any(|refused| refused.plan == *plan),
            Request::Undo { .. } | Request::TakeBack { .. } => match subject(request) {
                Some(of) => {
                    let (undos, lost) = reader.undoable(of).await?;
                    !undos.is_empty() || lost > 0
                }
                None => false,
            },
            Request::Retry { issuance: Some(id) } => reader.has(IssuanceId(*id)).await?,
            Request::ReleaseAll { .. } | Request::Retry { issuance: None } => true,
            _ => false,
        };
        if has {
            having.push(*database);
        }
    }
    match having[..] {
        [only] => Ok(only),
        [] => Err(match request {
            Request::Approve { plan } => OperateError::NoSuchPlan { plan: printable(plan).into_owned() },
            Request::Retry { issuance: Some(issuance) } => OperateError::NotWaiting { issuance: *issuance },
            _ => OperateError::NothingToTakeBack { what: "that".to_owned(), lost: 0 },
        }),
        _ => {
            let names: Vec<_> = having.iter().map(|database| printable(&database.name)).collect();
            Err(OperateError::Which { what: "that".to_owned(), databases: names.join(", ") })
        }
    }
}

/// The one database that has the user, and the user.
async fn find_in_all<'c>(config: &'c Config, login: &str) -> Result<(&'c DatabaseConfig, User), OperateError> {
    let (mut found, mut not_a_user) = (Vec::new(), None);
    for database in config.selected() {
        match find(&Reader::connect(database).await?, login).await {
            Ok(user) => found.push((database, user)),
            Err(OperateError::NoSuchUser(_)) if config.has_several() => {}
            // Another database may have a user of that name.
            Err(e @ OperateError::NotAUser { .. }) if config.has_several() => not_a_user = Some(e),
            Err(OperateError::Store(source)) if config.has_several() => {
                return Err(OperateError::Unanswered { database: printable(&database.name).into_owned(), source: Box::new(source) });
            }
            Err(e) => return Err(e),
        }
    }
    if found.len() > 1 {
        let names: Vec<_> = found.iter().map(|(database, _)| printable(&database.name)).collect();
        return Err(OperateError::Which { what: format!("the user {}", printable(login)), databases: names.join(", ") });
    }
    found.pop().ok_or_else(|| not_a_user.unwrap_or_else(|| OperateError::NoSuchUser(printable(login).into_owned())))
}

/// The one real user with this login.
pub(crate) async fn find(reader: &Reader, login: &str) -> Result<User, OperateError> {
    let mut found = Vec::new();
    let mut users = reader.read(&Filter { login: Some(login.to_owned()), ..Filter::default() });
    while let Some(chunk) = users.next().await {
        found.extend(chunk?);
    }
    let login = printable(login).into_owned();
    if found.is_empty() {
        return Err(OperateError::NoSuchUser(login));
    }
    found.retain(|user| user.standing == Standing::Active);
    let ids: Vec<UserId> = found.iter().map(|user| user.id).collect();
    match (found.pop(), ids.len()) {
        (Some(only), 1) => Ok(only),
        (None, _) => Err(OperateError::NotAUser { login }),
        (Some(_), _) => {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            Err(OperateError::Ambiguous { login, ids: ids.join(", ") })
        }
    }
}
