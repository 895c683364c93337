//! `journal adopt NAME`: a database that was restored from an older backup, or is another one, is to stay. The journal takes it as
//! it is: what it lacks is in force no more, and the next pass issues anew, within the limits. Writes to the journal alone.

use std::fmt::Write;

use tracing::{error, info};

use crate::cli::ExitStatus;
use crate::clock;
use crate::commands::print;
use crate::complaint::complaint;
use crate::config::{Config, DatabaseConfig};
use crate::domain::{IssuanceId, printable};
use crate::inventory::Trace;
use crate::journal::{Journal, JournalError, JournalFile, LOCK_WAIT, Owner, Recent, State};
use crate::reconcile::PassError;
use crate::reconcile::restored::{look_back, traces};
use crate::store::{Reader, Store, StoreError};

/// How many issuances are looked up at once.
const AT_ONCE: usize = 1_000;

/// Why nothing was adopted.
#[derive(Debug, thiserror::Error)]
enum AdoptError {
    #[error("another instance is at work: {0}; stop it for this command")]
    Locked(String),
    #[error("the database failed")]
    Store(#[from] StoreError),
    #[error("the journal failed")]
    Journal(#[from] JournalError),
    #[error("what the journal knows could not be looked up in the database")]
    Look(#[from] PassError),
}

/// What the journal knows and the database has not.
#[derive(Default)]
struct Lost {
    gone: Vec<IssuanceId>,
    /// Whose mail tells what is gone, a line each.
    told: Vec<String>,
    untold: usize,
}

/// Adopts the only database that is selected, or with `dry_run` tells what that would mean.
pub async fn adopt(config: &Config, dry_run: bool) -> ExitStatus {
    let mut status = ExitStatus::Done;
    for database in config.selected() {
        status = ExitStatus::worst([
            status,
            match adopted(config, database, dry_run).await {
                Ok(said) => print(&said),
                Err(e) => {
                    error!("{}", complaint(&e));
                    if matches!(e, AdoptError::Locked(_)) { ExitStatus::Locked } else { ExitStatus::Failed }
                }
            },
        ]);
    }
    status
}

async fn adopted(config: &Config, database: &DatabaseConfig, dry_run: bool) -> Result<String, AdoptError> {
    let (name, path) = (printable(&database.name), config.journal.path.display());
    if !config.journal.path.exists() {
        return Ok(format!("There is no journal at {path} yet, and so nothing to adopt.\n"));
    }
    let file = match JournalFile::open(&config.journal, Owner::all(&config.databases), LOCK_WAIT).await {
        Err(JournalError::Locked { .. }) => return Err(AdoptError::Locked(format!("the journal {path} is in its hands"))),
        other => other?,
    };
    let (journal, other) = file.to_adopt(&database.name).await?;
    let store = Store::connect(database).await?;
    let Some(_lead) = store.lead_within(LOCK_WAIT).await? else {
        return Err(AdoptError::Locked("it leads on this database, with a journal of its own".to_owned()));
    };
    let mut lost = Lost::default();
    let mut anything = other.is_some();
    // What remains in force may tell of an even older backup.
    while let Some(oldest) = oldest(store.reader(), &journal, config, database, other.is_some() && lost.gone.is_empty()).await? {
        let known = lost.gone.len();
        find(store.reader(), &journal, database, oldest, &mut lost).await?;
        anything = true;
        if dry_run || lost.gone.len() == known {
            break;
        }
        journal.adopt(database.identity(), lost.gone[known..].to_vec(), clock::now()).await?;
    }
    if anything && !dry_run {
        journal.adopt(database.identity(), Vec::new(), clock::now()).await?;
        info!(gone = lost.gone.len(), told = lost.told.len(), "Adopted the database {name} as it is");
    }
    journal.close().await?;
    if !anything {
        return Ok(format!("Nothing to adopt: the database {name} is the one that the journal knows, and no older one.\n"));
    }
    Ok(said(database, other.as_deref(), &lost, dry_run))
}

/// From which issuance on the database knows nothing; `None`: it is as the journal left it. `another`: its identity is another
/// one, so that all may be gone.
async fn oldest(
    reader: &Reader,
    journal: &Journal,
    config: &Config,
    database: &DatabaseConfig,
    another: bool,
) -> Result<Option<IssuanceId>, AdoptError> {
    let found = look_back(reader, journal.reader(), config, database, clock::now()).await?;
    let nothing_stands = found.count(Trace::Stands) == 0;
    Ok(if another && nothing_stands { Some(IssuanceId(0)) } else { found.oldest_gone().map(|recent| recent.issuance) })
}

/// Adds what the database has not, from `oldest` on.
async fn find(
    reader: &Reader,
    journal: &Journal,
    database: &DatabaseConfig,
    oldest: IssuanceId,
    lost: &mut Lost,
) -> Result<(), AdoptError> {
    let mut below = None;
    loop {
        let recent = journal.reader().in_force(oldest, below, AT_ONCE).await?;
        let Some(last) = recent.last() else { return Ok(()) };
        below = Some(last.issuance);
        for (recent, trace) in traces(reader, journal.reader(), database, recent).await? {
            if !matches!(trace, Trace::Gone | Trace::NoUser) {
                continue;
            }
            lost.gone.push(recent.issuance);
            match recent.state {
                State::Delivered => lost.told.push(line(&recent, trace)),
                _ => lost.untold += 1,
            }
        }
    }
}

fn line(recent: &Recent, trace: Trace) -> String {
    let what = if recent.is_new_credential() { "" } else { "a new end of the PIN, " };
    let mailed = recent.ended_at.unwrap_or(recent.planned_at);
    let user = if trace == Trace::NoUser { "; there is no such user any more" } else { "" };
    format!("  user {} “{}”: {what}mailed {mailed}{user}\n", recent.user, printable(&recent.login))
}

fn said(database: &DatabaseConfig, other: Option<&str>, lost: &Lost, dry_run: bool) -> String {
    let name = printable(&database.name);
    let mut text = match dry_run {
        true => format!("The database {name} would be adopted as it is:\n"),
        false => format!("The database {name} is adopted as it is.\n"),
    };
    if let Some(other) = other {
        let _ = writeln!(text, "The journal knew it as “{}”, and from then on as “{}”.", printable(other), printable(&database.identity()));
    }
    match lost.told.len() {
        0 => text.push_str("Nobody was mailed anything that is gone.\n"),
        n => {
            let _ = writeln!(text, "What these {n} mails told is gone; the next pass looks at those users again, within the limits:");
        }
    }
    lost.told.iter().for_each(|line| text.push_str(line));
    if lost.untold > 0 {
        let _ = writeln!(text, "Besides, {} changes are gone of which nobody had been told; their mails are not sent.", lost.untold);
    }
    text.push_str("The figures of the last full comparison are forgotten: users_shrunk and pinless_rise begin anew.\n");
    text
}
