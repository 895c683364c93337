//! What a crash or a lost answer left behind: batches that the journal calls planned. The database tells, under the write
//! lock, which of their issuances it holds: those are committed and mailed, the others never happened.

use tracing::{info, warn};

use crate::domain::Timestamp;
use crate::journal::{Journal, Written};
use crate::reconcile::PassError;
use crate::report::Recovered;
use crate::store::{AfterImage, Store};

/// What must stand in the database if the issuance was committed.
pub fn after_image(written: &Written) -> AfterImage {
    let Written { user, pins, gone, code, password, cost_center, role_gone, issuance: _ } = written.clone();
    AfterImage { user, pins, gone, code, password, cost_center, role_gone }
}

/// Resolves every planned batch. At start and before each pass, when the caller leads and nobody else writes.
///
/// # Errors
/// When the write lock is not granted in time or the database is gone: the batches stay planned, and no pass may run.
pub async fn recover(store: &Store, journal: &Journal, now: Timestamp) -> Result<Recovered, PassError> {
    let mut recovered = Recovered::default();
    for batch in journal.unresolved().await? {
        let images: Vec<AfterImage> = batch.written.iter().map(after_image).collect();
        let landed = store.landed(&images).await?;
        journal.resolve(batch.batch, &landed, now).await?;
        let found = landed.iter().filter(|l| **l).count() as u64;
        let lost = landed.len() as u64 - found;
        recovered.resent += found;
        recovered.abandoned += lost;
        warn!(found, lost, "Resolved a batch whose end was not known: {found} changes stand in the database, {lost} were never made");
    }
    if recovered != Recovered::default() {
        info!("Recovery is complete");
    }
    Ok(recovered)
}
