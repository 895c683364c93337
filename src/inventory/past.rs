//! What an issuance of ours once changed of a user, and what takes it back.

use super::{Membership, StoredPin};
use crate::domain::{CostCenter, Role, StoredValue, WallClock};

/// The changes of one issuance, and which of the values that it wrote the user still has.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Past {
    pub pins: PastPins,
    pub code: Option<PastValue>,
    pub password: Option<PastValue>,
    /// From where, and to where.
    pub moved: Option<(Membership, CostCenter)>,
    /// A role that was taken away.
    pub role: Option<Role>,
    /// For each of the user's PINs, in their order: it is one that the issuance wrote.
    pub ours: Vec<bool>,
}

/// What became of PINs.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum PastPins {
    #[default]
    Untouched,
    /// One came, and these went.
    Issued { replaced: Vec<StoredPin> },
    /// These, as they stood before, got another end.
    Ended { pins: Vec<StoredPin>, to: Option<WallClock> },
    /// These went.
    Deleted { pins: Vec<StoredPin> },
}

/// A code or a password that was issued.
#[derive(Clone, PartialEq, Debug)]
pub struct PastValue {
    /// What it took the place of; `None`: of none.
    pub replaced: Option<StoredValue>,
    /// The user still has the one that was issued.
    pub stands: bool,
}

/// What is to be done to take an issuance back.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Back {
    /// Ours, which go.
    pub gone: Vec<StoredPin>,
    /// What stood there before, which comes back.
    pub came: Vec<StoredPin>,
    /// PINs as they stand, and the ends that they had before.
    pub ended: Vec<(StoredPin, Option<WallClock>)>,
    pub code: Option<Returned>,
    pub password: Option<Returned>,
    /// From where the user is to where he was.
    pub moved: Option<(Membership, CostCenter)>,
    /// To be given again.
    pub role: Option<Role>,
}

/// A value of ours that goes, and what comes in its place.
#[derive(Clone, PartialEq, Debug)]
pub struct Returned {
    pub was: StoredValue,
    pub is: Option<StoredValue>,
}

impl Back {
    /// Whether nothing is to be changed: nothing of ours stands any more.
    pub fn is_nothing(&self) -> bool {
        let Back { gone, came, ended, code, password, moved, role } = self;
        gone.is_empty() && came.is_empty() && ended.is_empty() && code.is_none() && password.is_none() && moved.is_none() && role.is_none()
    }
}
