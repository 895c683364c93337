//! An issuance as it is handed over: who, what, and who is told.

use std::fmt;
use std::time::Duration;

use crate::domain::{
    Code, CostCenter, Each, IssuanceId, Mailbox, PassId, Password, Pin, PolicyName, Role, StoredValue, Timestamp, UserId, WallClock,
};
use crate::inventory::{Back, Membership, StoredPin};

/// One user's changes in one transaction, and the one mail about them, as handed over before COMMIT.
#[derive(Clone, Debug)]
pub struct NewIssuance {
    pub user: UserId,
    pub login: String,
    pub policy: PolicyName,
    pub pin: Option<PinWritten>,
    pub code: Option<IssuedCode>,
    pub password: Option<IssuedPassword>,
    /// A valid PIN that was there already and is told with the rest (R16).
    pub existing: Option<ExistingPin>,
    /// A code and a password that were there already and are sent again.
    pub again: Again,
    pub moved: Option<(Membership, CostCenter)>,
    pub role_removed: Option<Role>,
    /// Nothing is issued: an earlier issuance is taken back.
    pub takes_back: Option<Box<TakesBack>>,
    /// `None`: nobody is told (no credential, or `notify.to: none`).
    pub announcement: Option<Announcement>,
    /// When the user was first seen due in this pass.
    pub due_since: Timestamp,
    pub lane: Lane,
    /// How many stored credentials go, without the renewals at the moment that our own ledger wrote for them: those count
    /// towards no limit (R23).
    pub replaced_unexpected: Each<u64>,
    /// For how long the PINs that go are given to nobody.
    pub quarantine: Duration,
}

impl NewIssuance {
    pub fn issued(&self) -> Option<&IssuedPin> {
        match &self.pin {
            Some(PinWritten::Issued(issued)) => Some(issued),
            _ => None,
        }
    }

    /// The PINs as they stood before, of those that the change is about.
    pub(super) fn before(&self) -> &[StoredPin] {
        match &self.pin {
            Some(PinWritten::Issued(issued)) => &issued.replaced,
            Some(PinWritten::Extended { pins, .. } | PinWritten::Expired { pins, .. } | PinWritten::Deleted { pins }) => pins,
            None => self.takes_back.as_deref().map_or(&[], |back| &back.changes.gone),
        }
    }

    /// The PINs that nobody has once the change is made.
    pub(super) fn freed(&self) -> &[StoredPin] {
        match &self.pin {
            Some(PinWritten::Issued(_) | PinWritten::Deleted { .. }) => self.before(),
            None if self.takes_back.is_some() => self.before(),
            Some(PinWritten::Extended { .. } | PinWritten::Expired { .. }) | None => &[],
        }
    }
}

/// Which issuance is taken back, why, and how.
#[derive(Clone, Debug)]
pub struct TakesBack {
    /// `None`: all that the user has, whoever wrote it.
    pub of: Option<IssuanceId>,
    pub because: Because,
    /// What of it is moved back stands in [`NewIssuance::moved`].
    pub changes: Back,
    /// The user has no PIN any more: no loss that a tripwire should see.
    pub leaves_pinless: bool,
}

/// Why something is taken back: the reason of the hold that follows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Because {
    /// Its mail could not be delivered; the hold ends when the recipient changes.
    Undeliverable,
    /// `undo` of this pass.
    Undone(PassId),
    /// `journal take-back`.
    Asked,
    /// `revoke`.
    Revoked,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Because::Undeliverable => f.write_str("taken back, because its mail could not be delivered"),
            Because::Undone(pass) => write!(f, "taken back with pass {pass}"),
            Because::Asked => f.write_str("taken back, as an operator asked"),
            Because::Revoked => f.write_str("revoked by an operator"),
        }
    }
}

/// What was done to the PINs of a user.
#[derive(Clone, Debug)]
pub enum PinWritten {
    Issued(IssuedPin),
    /// These, as they stood before, kept their digits and got another end.
    Extended {
        pins: Vec<StoredPin>,
        to: WallClock,
    },
    /// The same, with the end now.
    Expired {
        pins: Vec<StoredPin>,
        to: WallClock,
    },
    Deleted {
        pins: Vec<StoredPin>,
    },
}

#[derive(Clone, Debug)]
pub struct IssuedPin {
    pub pin: Pin,
    pub stored: StoredValue,
    pub expires: Option<WallClock>,
    /// What stood there before.
    pub replaced: Vec<StoredPin>,
}

/// A card assignment code that took the place of another, or of none.
#[derive(Clone, Debug)]
pub struct IssuedCode {
    pub code: Code,
    pub stored: StoredValue,
    pub replaced: Option<StoredValue>,
}

/// The same of a password.
#[derive(Clone, Debug)]
pub struct IssuedPassword {
    pub password: Password,
    pub stored: StoredValue,
    pub replaced: Option<StoredValue>,
}

/// A PIN that we did not write in this issuance, recovered from its stored value.
#[derive(Clone, Debug)]
pub struct ExistingPin {
    pub pin: Pin,
    pub stored: StoredValue,
    pub expires: Option<WallClock>,
}

/// What is sent again beside a PIN, plain and stored.
#[derive(Clone, Default, Debug)]
pub struct Again {
    pub code: Option<(Code, StoredValue)>,
    pub password: Option<(Password, StoredValue)>,
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
    /// Its e-mail column: for the choice of the language.
    pub email: String,
    /// Where the user is once this is done; absent where no policy and no template asks for it.
    pub cost_center: Option<String>,
    pub cost_center_number: Option<i64>,
}

/// Two queues that take turns, so that a visitor at the door does not wait behind a first run over everybody.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Lane {
    Poll,
    Backlog,
}

/// A batch in the journal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BatchId(pub i64);
