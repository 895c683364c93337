//! How each batch ends, in the one order that makes a crash harmless: what was written stands in the journal as `planned`, with
//! an fsync, then COMMIT, then `committed`. A batch whose COMMIT was refused is abandoned; one whose COMMIT was not answered
//! stays planned, and recovery looks what became of it under the write lock.

use super::PassError;
use crate::domain::{PassId, Timestamp};
use crate::fault::{self, Mistake, Point};
use crate::journal::{Journal, NewIssuance};
use crate::store::{Committed, StoreError, Transaction};

/// `Err` within: the database refused it, and nothing was written.
pub(super) async fn commit(
    transaction: Transaction,
    journal: &Journal,
    pass: &PassId,
    issuances: Vec<NewIssuance>,
    utc: Timestamp,
) -> Result<Result<(), StoreError>, PassError> {
    fault::at(Point::BatchWritten).await;
    let batch = journal.planned(pass, issuances, utc).await?;
    let early = fault::makes(Mistake::NotedBeforeCommit);
    if early {
        journal.committed(batch, utc).await?;
    }
    fault::at(Point::BatchPlanned).await;
    match transaction.commit().await {
        Committed::Yes => {
            fault::at(Point::BatchCommitted).await;
            if !early {
                journal.committed(batch, utc).await?;
            }
            fault::at(Point::BatchNoted).await;
            Ok(Ok(()))
        }
        Committed::Refused(error) => {
            journal.abandoned(batch, utc).await?;
            Ok(Err(error))
        }
        Committed::Unknown(error) => Err(PassError::CommitUnknown(error)),
    }
}
