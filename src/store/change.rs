//! What is written of a user, what the database says to that, and what it leaves there.

use crate::domain::{CostCenter, Role, RoleId, StoredValue, UserId, WallClock};
use crate::inventory::{Membership, StoredPin};

/// All that one transaction changes for one user. Named old values are what the write compares before it sets (R21).
#[derive(Clone, PartialEq, Debug)]
pub struct UserChange {
    pub user: UserId,
    pub pin: Option<PinChange>,
    pub code: Option<ValueChange>,
    pub password: Option<ValueChange>,
    pub cost_center: Option<Move>,
    pub role: Option<RoleChange>,
}

impl UserChange {
    /// Of a user of whom nothing is changed yet.
    pub fn of(user: UserId) -> UserChange {
        UserChange { user, pin: None, code: None, password: None, cost_center: None, role: None }
    }
}

/// A value in a column of `users` that takes the place of another, or of none, or goes. An empty text is none too.
#[derive(Clone, PartialEq, Debug)]
pub struct ValueChange {
    pub old: Option<StoredValue>,
    pub new: Option<StoredValue>,
}

/// What becomes of a user's PINs. The user must have the PINs named in `old` and no others, or nothing is written.
#[derive(Clone, PartialEq, Debug)]
pub struct PinChange {
    pub old: Vec<StoredPin>,
    pub to: PinTarget,
}

#[derive(Clone, PartialEq, Debug)]
pub enum PinTarget {
    /// All of `old` go and this one comes: one of the rows is updated in place and the others are deleted, so that columns
    /// that are not mapped live on; where there is none, one is inserted.
    New(NewPin),
    /// This one comes, and `old` stay as they are.
    Beside(NewPin),
    /// These of `old` get another end, or none, and nothing else of them changes.
    End { pins: Vec<StoredPin>, at: Option<WallClock> },
    /// These of `old` are removed.
    Gone { pins: Vec<StoredPin> },
}

#[derive(Clone, PartialEq, Debug)]
pub struct NewPin {
    pub value: StoredValue,
    /// The PIN in every stored form, `value` among them: if any stands anywhere, the verdict is `PinTaken`.
    pub forms: [StoredValue; 4],
    pub expires: Option<WallClock>,
}

impl PinChange {
    /// The PIN that is new, if one is.
    pub(super) fn new_pin(&self) -> Option<&NewPin> {
        match &self.to {
            PinTarget::New(new) | PinTarget::Beside(new) => Some(new),
            PinTarget::End { .. } | PinTarget::Gone { .. } => None,
        }
    }

    /// Whether the change does something to this one of `old`.
    pub(super) fn is_about(&self, old: &StoredPin) -> bool {
        match &self.to {
            PinTarget::New(_) => true,
            PinTarget::Beside(_) => false,
            PinTarget::End { pins, .. } | PinTarget::Gone { pins } => {
                pins.iter().any(|pin| pin.value == old.value && pin.expires == old.expires)
            }
        }
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct Move {
    pub from: Membership,
    pub to: CostCenter,
}

/// A role that is taken from the user who has it, or given to one who has it not; else nothing is written.
#[derive(Clone, PartialEq, Debug)]
pub enum RoleChange {
    Remove(Role),
    Give(Role),
}

impl RoleChange {
    pub fn role(&self) -> &Role {
        match self {
            RoleChange::Remove(role) | RoleChange::Give(role) => role,
        }
    }
}

/// What `write` says of each user, in the order given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    Applied,
    /// The rows are not as named; nothing of this user was written.
    ChangedMeanwhile,
    /// The PIN stands somewhere already; nothing of this user was written. Draw again.
    PinTaken,
    /// The same of the card assignment code.
    CodeTaken,
    /// Something of this user was written before he fell out: the transaction must be rolled back and staged again
    /// without him.
    Torn,
}

/// What an issuance left in the database, for [`landed`](super::Store::landed): all of what is given must stand.
#[derive(Clone, PartialEq, Debug)]
pub struct AfterImage {
    pub user: UserId,
    /// PINs with their ends.
    pub pins: Vec<(StoredValue, Option<WallClock>)>,
    /// PINs that the user must have, whatever their ends are by now.
    pub held: Vec<StoredValue>,
    /// PINs that the user must not have any more.
    pub gone: Vec<StoredValue>,
    /// An empty text: there is none, and so with the password.
    pub code: Option<StoredValue>,
    pub password: Option<StoredValue>,
    pub cost_center: Option<CostCenter>,
    /// A role that the user must not have any more.
    pub role_gone: Option<RoleId>,
}

impl AfterImage {
    /// Of a user of whom nothing more than the row is looked for.
    pub fn of(user: UserId) -> AfterImage {
        AfterImage {
            user,
            pins: Vec::new(),
            held: Vec::new(),
            gone: Vec::new(),
            code: None,
            password: None,
            cost_center: None,
            role_gone: None,
        }
    }
}
