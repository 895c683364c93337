//! The journal: no credential lost, none wrong.

use std::path::Path;

use crate::config::JournalConfig;
use crate::domain::{CostCenter, IssuanceId, Mailbox, PassId, Pin, PolicyName, StoredValue, Timestamp, UserId, WallClock};
use crate::inventory::{Facts, Membership, StoredPin, User};

/// One user's changes in one transaction, and the one mail about them, as handed over before COMMIT.
#[derive(Clone, Debug)]
pub struct NewIssuance {
    pub user: UserId,
    pub login: String,
    pub policy: PolicyName,
    pub pin: Option<IssuedPin>,
    pub moved: Option<(Membership, CostCenter)>,
    /// `None`: nobody is told (no credential, or `notify.to: none`).
    pub announcement: Option<Announcement>,
    /// When the user was first seen due in this pass.
    pub due_since: Timestamp,
    pub lane: Lane,
}

#[derive(Clone, Debug)]
pub struct IssuedPin {
    pub pin: Pin,
    pub stored: StoredValue,
    pub expires: Option<WallClock>,
    /// What stood there before.
    pub replaced: Vec<StoredPin>,
}

/// All that the mail needs; the text is rendered at sending.
#[derive(Clone, PartialEq, Debug)]
pub struct Announcement {
    pub recipient: Mailbox,
    pub template: String,
    pub message_id: String,
    pub username: String,
    pub name: String,
    pub surname: String,
    pub cost_center: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Lane {
    Poll,
    Backlog,
}

pub struct Journal {}

/// A batch in the journal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BatchId(pub i64);
