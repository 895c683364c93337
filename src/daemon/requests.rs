//! What commands ask of the daemon: done between passes, and a pass makes room for it after the batch in hand.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::sleep;
use tracing::{error, info};

use super::{Daemon, DaemonError};
use crate::cli::Request;
use crate::clock;
use crate::complaint::complaint;
use crate::deliver::Outlet;
use crate::domain::printable;
use crate::journal::{Journal, LOOK, RequestAnswer};
use crate::operate::{OperateError, Post, Work, perform};
use crate::store::{Leadership, Store};

/// Whether a request waits in this moment.
pub(super) async fn waits(journal: &Journal) -> bool {
    journal.is_asked(clock::now()).await.unwrap_or(false)
}

/// Comes back when a request waits.
pub(super) async fn asked(journal: &Journal) {
    while !waits(journal).await {
        sleep(LOOK).await;
    }
}

/// Sets `there` when a request waits, and never comes back.
pub(super) async fn note(journal: &Journal, there: &AtomicBool) -> Infallible {
    asked(journal).await;
    there.store(true, Ordering::Relaxed);
    std::future::pending().await
}

impl Daemon {
    /// Does all that is asked about this database. Whether a full comparison has something to do that it had not before.
    ///
    /// # Errors
    /// When the journal cannot be asked.
    pub(super) async fn serve(
        &self,
        journal: &Journal,
        store: &Arc<Store>,
        lead: &Leadership,
        outlet: &Outlet,
    ) -> Result<bool, DaemonError> {
        let mut due = false;
        while let Some(request) = journal.take_request(clock::now()).await? {
            let ring = outlet.ring();
            let (config, database) = (&self.config, &self.database);
            let work = Work { config, database, store, lead: Some(lead), journal, post: Post::Daemon(&ring) };
            let account = printable(&request.account).into_owned();
            let done = match serde_json::from_str::<Request>(&request.asked) {
                Ok(asked) => {
                    info!(account, "Asked by {account}: {}", printable(&request.asked));
                    due |= matches!(asked, Request::Approve { .. } | Request::Release { .. } | Request::ReleaseAll { .. });
                    perform(&work, &asked).await
                }
                Err(e) => Err(OperateError::NotUnderstood { why: format!("{e}; are the command and the daemon of one version?") }),
            };
            let answer = match done {
                Ok((text, status)) => RequestAnswer { code: status.code(), text, failed: false },
                Err(e) => {
                    let text = complaint(&e);
                    error!(account, "What {account} asked for was not done: {text}");
                    RequestAnswer { code: e.status().code(), text, failed: true }
                }
            };
            ring.notify_one();
            journal.answer(request.id, answer, clock::now()).await?;
        }
        Ok(due)
    }
}
