//! What is known when a plan is made: the user as the database tells it, and what the journal knows of that user.

use std::collections::BTreeMap;

use crate::domain::{CostCenter, CostCenterId, CostCenterRef, PolicyName, StoredValue, Timestamp, UserId, WallClock};

/// A row of `users` with its credentials, as read.
#[derive(Clone, PartialEq, Debug)]
pub struct User {
    pub id: UserId,
    pub login: String,
    pub email: String,
    pub name: String,
    pub surname: String,
    pub standing: Standing,
    pub cost_center: Membership,
    /// Where the row came from; `None` where the map names no such column or the row leaves it empty.
    pub source: Option<String>,
    /// The PINs, in the order of their stored values.
    pub pins: Vec<StoredPin>,
    /// How many values of the card column no PIN form explains.
    pub cards: u32,
}

/// Whether a row of `users` is somebody (R5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Standing {
    Active,
    /// The map's `is_user` does not hold: a role, a cost center, and the like.
    NotAUser,
    /// The map's `is_deleted` holds.
    Deleted,
    /// The login of `template_user`.
    Template,
}

/// The cost center as `users` holds it. Both halves are compared: a half-moved user is not in place (R18).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Membership {
    pub id: CostCenterId,
    pub number: i64,
}

/// One PIN row of a user.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredPin {
    pub value: StoredValue,
    /// Absent: never expires.
    pub expires: Option<WallClock>,
    /// When we issued this very value, as our ledger says; `None`: somebody else did. Filled in by the journal.
    pub issued: Option<Timestamp>,
    /// Our ledger says that we wrote exactly this value with exactly this expiry: its end was foreseen. Filled in by the
    /// journal; the store says `false`.
    pub foreseen: bool,
}

impl StoredPin {
    /// As a store reads it: nothing is known of where it came from.
    pub fn found(value: StoredValue, expires: Option<WallClock>) -> StoredPin {
        StoredPin { value, expires, issued: None, foreseen: false }
    }
}

/// What the journal knows of a user.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Facts {
    /// An issuance is planned or committed, and its mail not yet accepted (I4).
    pub open: bool,
    /// On hold: nothing is issued until release (R25).
    pub held: bool,
    /// The policy that last served the user (R6).
    pub keeper: Option<PolicyName>,
    /// When a credential was last generated for the user (R24).
    pub last_generated: Option<Timestamp>,
}

/// Now, on both clocks, as told at the start of a pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Ours.
    pub utc: Timestamp,
    /// The expiry column's, told by the database.
    pub wall: WallClock,
}

/// The cost centers that the policies name, as found: `None` is named but not there, a blocker for the policies that
/// name it (R18).
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Places(pub BTreeMap<CostCenterRef, Option<CostCenter>>);

impl Places {
    pub fn get(&self, wanted: &CostCenterRef) -> Option<&CostCenter> {
        self.0.get(wanted).and_then(Option::as_ref)
    }
}

/// The figures that judging needs, one aggregate a full pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Real users: active, the template user left out.
    pub users: u64,
    /// Values of the card column that are PINs.
    pub pins: u64,
    /// The greatest user id of all rows; 0 in an empty table.
    pub newest: i64,
}
