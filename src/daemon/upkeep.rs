//! What keeps the journal small, and shows how it stands.

use tracing::warn;

use super::Daemon;
use crate::clock;
use crate::config::JournalConfig;
use crate::journal::{Journal, JournalError, Keep, State};
use crate::logging::chain;
use crate::report::PassKind;

impl Daemon {
    /// Shows how the journal stands; after a full comparison also lets go of what it need not keep.
    pub(super) async fn keep_journal(&self, journal: &Journal, kind: PassKind) {
        let upkeep = async {
            if kind == PassKind::Resync {
                let JournalConfig { keep, undo_for, .. } = self.config.journal;
                let keep = Keep { issuances: keep, before_images: undo_for };
                journal.forget_old(keep, clock::now()).await?;
                journal.checkpoint().await?;
            }
            let counts = journal.reader().counts().await?.map(|(state, n)| (state.as_str(), n));
            let plans = journal.reader().refused_policies(clock::now()).await?;
            self.metrics.journal(&self.database.name, &counts, journal.reader().oldest_open().await?, plans);
            let undeliverable = counts.iter().find(|(state, _)| *state == State::Undeliverable.as_str());
            self.digest.undeliverable(&self.database.name, undeliverable.map_or(0, |(_, n)| *n));
            Ok::<(), JournalError>(())
        };
        let upkeep = upkeep.await;
        self.digest.journal(&self.database.name, upkeep.as_ref().err().map(|e| chain(e)).as_deref());
        if let Err(e) = upkeep {
            self.metrics.journal_write_error();
            warn!(error.kind = e.kind(), "The upkeep of the journal failed: {}", chain(&e));
        }
    }
}
