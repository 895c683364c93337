//! New PINs for a pass: drawn at random as long as that finds free ones, then from what is known to be free.
//!
//! A user for whom three draws in one transaction hit PINs that somebody has is put off to the end of the pass. There, and
//! with no transaction open, all values of the card column are read and every PIN of that length is looked up among them
//! (`mint::space`); of lengths that take long to look through, only after drawing at random has failed more often.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use tracing::info;

use super::PassError;
use crate::domain::{PinFormat, PinLength, Timestamp};
use crate::journal::JournalReader;
use crate::mint::Mint;
use crate::mint::space::{Space, Survey};
use crate::store::{Reader, StoreError};

/// After so many times whoever still has no PIN is told that there is none.
pub(super) const MOST_ATTEMPTS: u32 = 10;

/// How many free PINs the journal is asked about at a time.
const CHUNK: usize = 10_000;

/// What tells which PINs are free, and when.
pub(super) struct Site<'a> {
    pub reader: &'a Reader,
    pub journal: &'a JournalReader,
    pub utc: Timestamp,
}

/// How often drawing at random may fail for a user before every PIN of that length is looked at: a hash of each takes a
/// quarter of a second for six digits and half a minute for eight.
fn patience(length: PinLength) -> u32 {
    match length.digits() {
        0..=6 => 1,
        7 => 3,
        _ => 5,
    }
}

/// Before the next attempt at users who were put off: learns what is free where drawing at random has failed often enough.
/// What is known already has proved wrong for somebody, and is looked at again.
pub(super) async fn learn(at: &Site<'_>, lengths: &BTreeSet<PinLength>, attempt: u32, mint: &mut Mint) -> Result<(), PassError> {
    for length in lengths.iter().filter(|length| attempt >= patience(**length)) {
        survey(at, *length, mint).await?;
    }
    Ok(())
}

/// Before the first attempt: where more than half of a short space is in use, drawing at random is not even tried.
pub(super) async fn look_ahead(at: &Site<'_>, lengths: &BTreeSet<PinLength>, stored: u64, mint: &mut Mint) -> Result<(), PassError> {
    for length in lengths.iter().filter(|length| patience(**length) == 1 && stored > length.space() / 2) {
        survey(at, *length, mint).await?;
    }
    Ok(())
}

async fn survey(at: &Site<'_>, length: PinLength, mint: &mut Mint) -> Result<(), PassError> {
    let Some(mut survey) = Survey::new(length) else { return Ok(()) };
    let mut pins = at.reader.pins();
    while let Some(chunk) = pins.next().await {
        chunk?.iter().for_each(|value| survey.add(value));
    }
    drop(pins);
    let mut space = tokio::task::spawn_blocking(move || survey.finish()).await.map_err(|_| StoreError::Task)?;
    if patience(length) == 1 {
        close_quarantined(at, &mut space).await?;
    }
    let (taken, quarantined, free) = (space.taken(), space.closed(), space.free(true));
    info!(pin.length = length.digits(), taken, quarantined, free, "Looked which PINs of {} digits are free", length.digits());
    mint.know(length, space);
    Ok(())
}

/// Of a short space most may be in quarantine, and to hit that again and again would take long with a transaction open.
async fn close_quarantined(at: &Site<'_>, space: &mut Space) -> Result<(), PassError> {
    let mut from = 0;
    loop {
        let (open, next) = space.open(from, CHUNK);
        if open.is_empty() {
            return Ok(());
        }
        let values = open.iter().map(|pin| PinFormat::Prefix.encode(pin)).collect();
        for (pin, held) in open.iter().zip(at.journal.quarantined(values, at.utc).await?) {
            if held {
                space.close(pin);
            }
        }
        from = next;
    }
}
