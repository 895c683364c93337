//! Identities: of users, cost centers and roles in the print system, of passes and issuances in ours.

use std::fmt;

/// The key of a row of `users`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UserId(pub i64);

/// The key of a cost center, as `users` refers to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CostCenterId(pub i64);

/// The key of a role, as the links between users and roles refer to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RoleId(pub i64);

/// The journal's number of one issuance: one user's changes in one transaction, and the one mail about them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IssuanceId(pub i64);

/// The name of a policy, as configured: unique, never empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PolicyName(pub String);

/// One pass over a database. Random hex digits, so that log lines of two daemons never mix.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PassId(pub String);

/// How a configuration names a cost center: by number where the text is one, else by name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CostCenterRef {
    Number(i64),
    Name(String),
}

/// A cost center that exists. A move writes both `id` and `number` (product rule R18).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CostCenter {
    pub id: CostCenterId,
    pub number: i64,
    pub name: String,
}

/// How a configuration names a role: by its id where the text is a number, else by name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RoleRef {
    Id(RoleId),
    Name(String),
}

/// A role that exists.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Role {
    pub id: RoleId,
    pub name: String,
}

macro_rules! display {
    ($($t:ty),*) => { $(impl fmt::Display for $t {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
    })* };
}
display!(UserId, CostCenterId, RoleId, IssuanceId, PolicyName, PassId);

impl fmt::Display for CostCenterRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CostCenterRef::Number(n) => write!(f, "{n}"),
            CostCenterRef::Name(n) => write!(f, "“{n}”"),
        }
    }
}

impl fmt::Display for RoleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RoleRef::Id(id) => id.fmt(f),
            RoleRef::Name(n) => write!(f, "“{n}”"),
        }
    }
}
