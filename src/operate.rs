//! What an operator does to one user: `hold` and `release`. Both write to the journal alone, and so need it for themselves.

use futures_util::StreamExt;
use tracing::{error, info};

use crate::cli::ExitStatus;
use crate::clock;
use crate::commands::{complaint, print};
use crate::config::{Config, DatabaseConfig};
use crate::domain::{UserId, printable};
use crate::inventory::{Standing, User};
use crate::journal::{JournalError, JournalFile, LOCK_WAIT, Owner};
use crate::store::{Filter, Reader, StoreError};

/// Why a command of an operator did nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperateError {
    #[error("the user {0} is not in the database")]
    NoSuchUser(String),
    #[error("{login} is no user: the row stands for a role, a cost center or the like, or is marked as deleted")]
    NotAUser { login: String },
    #[error("several users have the login {login}, with the ids {ids}: make the logins differ in the print system")]
    Ambiguous { login: String, ids: String },
    #[error("several databases have the user {login}: {databases}; say which with --database NAME")]
    Which { login: String, databases: String },
    #[error("the database {database} cannot be asked whether it has the user too; say which one is meant with --database NAME")]
    Unanswered { database: String, source: StoreError },
    #[error("another instance is at work and holds the journal: stop it for this command")]
    Locked,
    #[error("the database failed")]
    Store(#[from] StoreError),
    #[error("the journal failed")]
    Journal(#[from] JournalError),
}

impl OperateError {
    pub(crate) fn status(&self) -> ExitStatus {
        match self {
            OperateError::NoSuchUser(_) | OperateError::NotAUser { .. } | OperateError::Ambiguous { .. } | OperateError::Which { .. } => {
                ExitStatus::Partial
            }
            OperateError::Locked => ExitStatus::Locked,
            OperateError::Unanswered { .. } | OperateError::Store(_) | OperateError::Journal(_) => ExitStatus::Failed,
        }
    }
}

/// Puts a user on hold (R25).
pub async fn hold(config: &Config, login: &str) -> ExitStatus {
    ended(change(config, login, true).await)
}

/// Ends a hold.
pub async fn release(config: &Config, login: &str) -> ExitStatus {
    ended(change(config, login, false).await)
}

fn ended(result: Result<String, OperateError>) -> ExitStatus {
    match result {
        Ok(said) => print(&said),
        Err(e) => {
            error!("{}", complaint(&e));
            e.status()
        }
    }
}

async fn change(config: &Config, login: &str, hold: bool) -> Result<String, OperateError> {
    let (database, user) = find_in_all(config, login).await?;
    let file = match JournalFile::open(&config.journal, Owner::all(&config.databases), LOCK_WAIT).await {
        Err(JournalError::Locked { .. }) => return Err(OperateError::Locked),
        other => other?,
    };
    let journal = file.of(&database.name).await?;
    let (id, name) = (user.id, printable(login));
    let said = if hold {
        let new = journal.hold(id, login, "held by an operator", clock::now()).await?;
        let how = if new { "is on hold now" } else { "was on hold already" };
        format!("User {id} “{name}” {how}: no pass changes anything of the user until `credkeeper release` ends it.\n")
    } else if journal.release(id).await? {
        format!("User {id} “{name}” is released: the next pass looks at the user again.\n")
    } else {
        format!("User {id} “{name}” was not on hold.\n")
    };
    info!(user.id = %id, "{}", said.trim_end());
    journal.close().await?;
    Ok(said)
}

/// The one database that has the user, and the user.
pub(crate) async fn find_in_all<'c>(config: &'c Config, login: &str) -> Result<(&'c DatabaseConfig, User), OperateError> {
    let mut found = Vec::new();
    for database in config.selected() {
        match find(&Reader::connect(database).await?, login).await {
            Ok(user) => found.push((database, user)),
            Err(OperateError::NoSuchUser(_)) if config.has_several() => {}
            Err(OperateError::Store(source)) if config.has_several() => {
                return Err(OperateError::Unanswered { database: printable(&database.name).into_owned(), source });
            }
            Err(e) => return Err(e),
        }
    }
    if found.len() > 1 {
        let names: Vec<_> = found.iter().map(|(database, _)| printable(&database.name)).collect();
        return Err(OperateError::Which { login: printable(login).into_owned(), databases: names.join(", ") });
    }
    found.pop().ok_or_else(|| OperateError::NoSuchUser(printable(login).into_owned()))
}

/// The one real user with this login.
async fn find(reader: &Reader, login: &str) -> Result<User, OperateError> {
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
