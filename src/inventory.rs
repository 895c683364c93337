//! What is known when a plan is made: the user as the database tells it, and what the journal knows of that user.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::{
    CostCenter, CostCenterId, CostCenterRef, Credential, Mailbox, PinFormat, PinLength, PolicyName, Role, RoleId, RoleRef, StoredValue,
    Timestamp, UserId, WallClock,
};

mod past;

pub use past::{Back, Past, PastPins, PastValue, Returned};

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
    /// In growing order; none where no policy asks.
    pub roles: Vec<RoleId>,
    /// Where the row came from; `None` where the map names no such column or the row leaves it empty.
    pub source: Option<String>,
    /// The PINs, in the order of their stored values.
    pub pins: Vec<StoredPin>,
    /// How many values of the card column no PIN form explains.
    pub cards: u32,
    /// The card assignment code as stored; `None`: there is none, or no policy asks.
    pub code: Option<StoredValue>,
    /// `None`: there is none, or no policy asks.
    pub password: Option<StoredPassword>,
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

impl Membership {
    /// The number of who is in several cost centers at once, where a link table allows that: no cost center has it, so that
    /// nobody with it is in place. The id is the smallest of them.
    pub const SEVERAL: i64 = -i64::MAX;
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

/// The password of a user, as stored.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredPassword {
    pub value: StoredValue,
    /// When we issued this very one, as our ledger says; `None`: somebody else did. Filled in by the journal.
    pub issued: Option<Timestamp>,
}

impl StoredPassword {
    /// As a store reads it.
    pub fn found(value: StoredValue) -> StoredPassword {
        StoredPassword { value, issued: None }
    }
}

/// What the journal knows of a user.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Facts {
    /// An issuance is planned or committed, and its mail not yet accepted (I4).
    pub open: bool,
    /// On hold: nothing is issued until release (R25).
    pub held: bool,
    /// The hold ends by itself once the user is to be told at another address than this one, which could not be reached.
    pub held_for: Option<Mailbox>,
    /// The policy that last served the user (R6).
    pub keeper: Option<PolicyName>,
    /// When a credential was last generated for the user (R24).
    pub last_generated: Option<Timestamp>,
}

/// What the database shows of an issuance that the journal holds to be in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trace {
    /// The credential is there; or what the same transaction changed besides is as it left it, so that somebody has removed
    /// the credential since.
    Stands,
    /// The user is there, and nothing of what was issued.
    Gone,
    /// There is no such user any more.
    NoUser,
    /// Nobody can tell: the PIN has lapsed, so that it may have been cleared away; or no policy asks for its kind any more.
    Untold,
}

/// The end of a PIN that its owner is reminded of, so long before (R33).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lapse {
    pub end: WallClock,
    /// One of the policy's `notify.reminders`.
    pub window: Duration,
}

/// Now, on both clocks, as told at the start of a pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Ours.
    pub utc: Timestamp,
    /// The expiry column's, told by the database.
    pub wall: WallClock,
}

/// The cost centers and roles that the policies name, as found: `None` is named but not there, a blocker for the policies
/// that name it (R18).
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Places {
    pub cost_centers: BTreeMap<CostCenterRef, Option<CostCenter>>,
    pub roles: BTreeMap<RoleRef, Option<Role>>,
}

impl Places {
    pub fn get(&self, wanted: &CostCenterRef) -> Option<&CostCenter> {
        self.cost_centers.get(wanted).and_then(Option::as_ref)
    }

    pub fn role(&self, wanted: &RoleRef) -> Option<&Role> {
        self.roles.get(wanted).and_then(Option::as_ref)
    }
}

/// What the database says of itself at the start of each pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pulse {
    /// Now, on the wall clock of the expiry column (R11).
    pub wall: WallClock,
    /// Now, on the database's own UTC clock.
    pub utc: Timestamp,
    /// Why it takes no changes; `None`: it takes them.
    pub read_only: Option<ReadOnly>,
}

/// Why a database takes no changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadOnly {
    /// The server copies another one.
    Standby,
    /// New sessions are set to read only.
    Setting,
    /// This account may not write the file of the sandbox.
    File,
}

/// The figures that judging needs, one aggregate a full pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Real users: active, the template user left out.
    pub users: u64,
    /// Values of the card column that are PINs of the configured form.
    pub pins: u64,
    /// The same by their number of digits, 1 to 16; `None` where the form hides it.
    pub by_length: Option<[u64; PinLength::MAX as usize]>,
    /// Card assignment codes and passwords; 0 where no policy asks.
    pub codes: u64,
    pub passwords: u64,
    /// Values that would be PINs if `pin_format` were another one.
    pub foreign: Foreign,
    /// The greatest user id of all rows; 0 in an empty table.
    pub newest: i64,
}

/// The figures of the last successful full pass, which the next one is compared with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Baseline {
    pub users: u64,
    /// Real users without any PIN; `None` where no policy issues PINs, so that nobody looked.
    pub pinless: Option<u64>,
}

/// Values of the card column that have the shape of a PIN of another form than the configured one. Short digits alone are no
/// shape: they may be cards.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Foreign {
    pub md5: u64,
    pub md5_without_prefix: u64,
    /// `PIN` and 1 to 16 digits.
    pub prefix: u64,
}

impl Counts {
    /// Stored credentials of this kind.
    pub fn of(&self, kind: Credential) -> u64 {
        match kind {
            Credential::Pin => self.pins,
            Credential::Code => self.codes,
            Credential::Password => self.passwords,
        }
    }

    /// PINs that a new one of this length could meet; where the form hides lengths, all of them.
    pub fn of_length(&self, length: PinLength) -> u64 {
        self.by_length.map_or(self.pins, |by_length| by_length[length.digits() - 1])
    }
}

impl Foreign {
    pub fn total(&self) -> u64 {
        self.md5 + self.md5_without_prefix + self.prefix
    }

    /// The form that most of them have.
    pub fn most(&self) -> PinFormat {
        let Foreign { md5, md5_without_prefix, prefix } = *self;
        match md5.max(md5_without_prefix).max(prefix) {
            most if most == md5 => PinFormat::Md5,
            most if most == prefix => PinFormat::Prefix,
            _ => PinFormat::Md5WithoutPrefix,
        }
    }
}
