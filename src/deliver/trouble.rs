//! What holds delivery up.

use std::sync::Arc;

use crate::journal::JournalError;
use crate::store::StoreError;

/// Why delivery cannot go on for now. Whatever it was, the mails stay in the journal.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("the journal failed")]
    Journal(#[from] JournalError),
    #[error("the database {database} could not be asked which credentials still stand")]
    Database { database: Arc<str>, source: StoreError },
    #[error("the database {database} could not be asked who is still to be reminded")]
    Users { database: Arc<str>, source: StoreError },
}

impl Trouble {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Trouble::Journal(e) => e.kind(),
            Trouble::Database { source, .. } | Trouble::Users { source, .. } => source.kind(),
        }
    }
}
