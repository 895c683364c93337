//! Whether the database is the one that the journal left: asked at each start and takeover, before anything is looked up, mailed
//! or changed. One that was restored from an older backup is left alone until a person has decided.

use super::schedule::jittered;
use super::{Daemon, DaemonError, STOPPED_AGAIN, fatal};
use crate::clock;
use crate::journal::Journal;
use crate::reconcile::{Ask, restored};
use crate::report::PassKind;
use crate::store::{Leadership, Store};

impl Daemon {
    /// Returns once it is, or when a stop was asked for. Looks again and again meanwhile: a newer state may be put in its place.
    pub(super) async fn trusted(&self, journal: &Journal, store: &Store, lead: &Leadership) -> Result<(), DaemonError> {
        while !self.stopping() {
            let ask = Ask::full(PassKind::Resync, clock::now());
            let found =
                restored::look_back(store.reader(), journal.reader(), &self.config, &self.database, ask.utc).await.map_err(fatal)?;
            let Some(stop) = found.stop() else { return Ok(()) };
            self.metrics.pass_started(&self.database.name, ask.kind, ask.utc);
            let passed = restored::refused(journal, &self.config, &self.database, &ask, stop).await.map_err(fatal)?;
            self.metrics.pass(&passed.report, clock::now());
            self.digest.pass(&passed.report);
            self.told(&passed.report);
            self.pause(jittered(STOPPED_AGAIN, 0.2, rand::random())).await;
            lead.verify().await?;
        }
        Ok(())
    }
}
