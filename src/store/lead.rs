//! Leadership: who works. It only saves work, and is not what makes writes safe; the write lock is.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::Arc;

use tokio_postgres::Client;

use super::StoreError;
use super::postgres::Postgres;

/// Held until it is dropped. On PostgreSQL a session lock on a session of its own; beside a sandbox a file lock.
pub struct Leadership(Held);

/// The session that leads, as the server tells of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leader {
    /// Of the server, for this session.
    pub process: i32,
    /// Where the session comes from; `None`: the server's own machine, or this account may not see it.
    pub host: Option<String>,
    /// Where our own sessions come from, as the server sees it.
    pub our_host: Option<String>,
}

enum Held {
    Session {
        postgres: Arc<Postgres>,
        client: Client,
        key: i64,
    },
    /// The operating system lets go when the file is closed, also when the process dies.
    File(#[expect(dead_code, reason = "held, not read")] File),
}

impl Leadership {
    /// Whether the session that holds the lock still lives.
    ///
    /// # Errors
    /// [`StoreError::LeadershipLost`], or why nobody could be asked; then another instance may lead already.
    pub async fn verify(&self) -> Result<(), StoreError> {
        match &self.0 {
            Held::Session { postgres, client, key } => match postgres.leads(client, *key).await? {
                true => Ok(()),
                false => Err(StoreError::LeadershipLost),
            },
            Held::File(_) => Ok(()),
        }
    }
}

pub(super) async fn postgres(postgres: &Arc<Postgres>) -> Result<Option<Leadership>, StoreError> {
    let held = postgres.lead().await?;
    Ok(held.map(|(client, key)| Leadership(Held::Session { postgres: postgres.clone(), client, key })))
}

pub(super) fn sqlite(database: &Path) -> Result<Option<Leadership>, StoreError> {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    let failed = |source| StoreError::LockFile { path: path.clone().into(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Leadership(Held::File(file)))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}
