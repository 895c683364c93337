//! What a crash or a lost answer left behind: batches that the journal calls planned. The database tells, under the write
//! lock, which of their issuances it holds: those are committed and mailed, the others never happened.

use tracing::{info, warn};

use crate::domain::Timestamp;
use crate::fault::{self, Point};
use crate::journal::{Journal, Written};
use crate::reconcile::PassError;
use crate::report::Recovered;
use crate::store::{AfterImage, Store};

/// What the issuance would have left in the database: any of these shows that it was committed.
///
/// New credentials each speak for themselves. Between the COMMIT and this look hours may lie, and somebody who moved the user or
/// changed the PIN's end meanwhile has not made the PIN unknown: it opens doors, and its user is still to be told. What made
/// no credential is looked for whole; if it is no longer so, there is nothing to tell and the next pass looks again.
fn traces(written: &Written) -> Vec<AfterImage> {
    let Written { issuance: _, user, pins, takes_back, pins_are_new, gone, code, password, cost_center, role_gone } = written.clone();
    let nothing = || AfterImage::of(user);
    let mut traces = Vec::new();
    if takes_back && !(pins.is_empty() && gone.is_empty()) {
        traces.push(AfterImage { pins: pins.clone(), gone: gone.clone(), ..nothing() });
    }
    if pins_are_new {
        traces.push(AfterImage { held: pins.iter().map(|(value, _)| value.clone()).collect(), ..nothing() });
    }
    if code.is_some() {
        traces.push(AfterImage { code, ..nothing() });
    }
    if password.is_some() {
        traces.push(AfterImage { password, ..nothing() });
    }
    // A take-back of which nothing can be looked up is made again: it finds what there is to do.
    if traces.is_empty() && !(takes_back && cost_center.is_none()) {
        traces.push(AfterImage { pins, gone, cost_center, role_gone, ..nothing() });
    }
    traces
}

/// Resolves every planned batch. At start and before each pass, when the caller leads and nobody else writes.
///
/// # Errors
/// When the write lock is not granted in time or the database is gone: the batches stay planned, and no pass may run.
pub async fn recover(store: &Store, journal: &Journal, now: Timestamp) -> Result<Recovered, PassError> {
    let mut recovered = Recovered::default();
    for batch in journal.unresolved().await? {
        let traces: Vec<Vec<AfterImage>> = batch.written.iter().map(traces).collect();
        let mut stands = store.landed(&traces.concat()).await?.into_iter();
        let landed: Vec<bool> = traces.iter().map(|of| stands.by_ref().take(of.len()).filter(|stands| *stands).count() > 0).collect();
        fault::at(Point::RecoveryLooked).await;
        journal.resolve(batch.batch, &landed, now).await?;
        fault::at(Point::RecoveryNoted).await;
        let found = landed.iter().filter(|l| **l).count() as u64;
        let lost = landed.len() as u64 - found;
        recovered.resent += found;
        recovered.abandoned += lost;
        warn!(found, lost, "Resolved a batch whose end was not known: {found} changes stand in the database, {lost} were never made");
    }
    if recovered != Recovered::default() {
        info!("Recovery is complete");
    }
    recovered.lost_after_delivery = journal.take_lost().await?;
    Ok(recovered)
}
