//! Which users a read returns.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use crate::domain::{CostCenter, RoleId, UserId, WallClock};
use crate::inventory::{Standing, User};

/// Which users a read returns. With `due` or `above` real users only ([`Standing::Active`]); a `login` is returned whatever
/// it stands for; the default filter returns every row.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Filter {
    /// Only rows that may be due, as far as SQL can tell; `None` returns every user. A saving, never a decision: the
    /// plan is the same without it.
    pub due: Option<DueFilter>,
    /// Only ids above this one: a poll.
    pub above: Option<UserId>,
    /// Only this login, compared exactly. Rows that are not real users are returned too.
    pub login: Option<String>,
}

/// What makes a user possibly due, over all policies; the dialects turn it into SQL. A user is returned if any holds.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct DueFilter {
    /// Some policy issues PINs: users without any PIN, who are in one of these cost centers (`None`: in any).
    pub without_pin: Option<InCostCenter>,
    /// Some policy renews: users with a PIN that expires at or before this. Any cost center, since a keeper's users may
    /// have left the one that their policy matches.
    pub expired_at: Option<WallClock>,
    /// Some policy reminds: users with a PIN that ends after the first and at or before the second. Any cost center.
    pub lapsing: Option<(WallClock, WallClock)>,
    /// Users in the first (by id), but not in the second by both id and number.
    pub to_move: Vec<(InCostCenter, CostCenter)>,
    /// Users with a PIN that never expires, in any cost center.
    pub unlimited_pin: bool,
    /// Everybody in one of these cost centers, whatever they have.
    pub everybody: Option<InCostCenter>,
    /// Some policy issues card assignment codes: users without one, in one of these cost centers.
    pub without_code: Option<InCostCenter>,
    /// The same of passwords.
    pub without_password: Option<InCostCenter>,
    /// Some policy takes a role away: users with one of these, in any cost center.
    pub with_role: BTreeSet<RoleId>,
    /// These users, whatever they have: what only the journal knows to be due. Sorted.
    pub users: Vec<UserId>,
}

impl DueFilter {
    /// The filter in plain words. The dialects narrow with what their SQL can do cheaply, then ask this of every row, so
    /// that a filtered read is the same set on every database.
    fn holds(&self, user: &User) -> bool {
        let center = user.cost_center;
        self.without_pin.as_ref().is_some_and(|within| user.pins.is_empty() && within.contains(user))
            || self.expired_at.is_some_and(|at| user.pins.iter().any(|pin| pin.expires.is_some_and(|expires| expires <= at)))
            || self.lapsing.is_some_and(|(after, until)| {
                user.pins.iter().any(|pin| pin.expires.is_some_and(|expires| after < expires && expires <= until))
            })
            || self.without_code.as_ref().is_some_and(|within| user.code.is_none() && within.contains(user))
            || self.without_password.as_ref().is_some_and(|within| user.password.is_none() && within.contains(user))
            || user.roles.iter().any(|role| self.with_role.contains(role))
            || (self.unlimited_pin && user.pins.iter().any(|pin| pin.expires.is_none()))
            || self.everybody.as_ref().is_some_and(|within| within.contains(user))
            || self.users.binary_search(&user.id).is_ok()
            || self.to_move.iter().any(|(from, to)| from.contains(user) && (center.id, center.number) != (to.id, to.number))
    }
}

impl InCostCenter {
    fn contains(&self, user: &User) -> bool {
        match self {
            InCostCenter::Any => true,
            InCostCenter::Of(ids) => ids.contains(&user.cost_center.id.0),
            InCostCenter::OrRole { centers, roles } => {
                centers.contains(&user.cost_center.id.0) || user.roles.iter().any(|role| roles.contains(role))
            }
        }
    }
}

impl Filter {
    /// Whether everybody without a PIN is looked for.
    pub(super) fn finds_pinless(&self) -> bool {
        self.above.is_none() && self.login.is_none() && self.due.as_ref().is_some_and(|due| due.without_pin.is_some())
    }

    pub(super) fn accepts(&self, user: &User) -> bool {
        let real_only = self.login.is_none() && (self.due.is_some() || self.above.is_some());
        (!real_only || user.standing == Standing::Active) && self.due.as_ref().is_none_or(|due| due.holds(user))
    }
}

/// A figure that a read of everybody finds on its way.
pub type Pinless = Arc<OnceLock<u64>>;

/// `Any`, or the ids of cost centers; where policies go by roles, who has one of these is meant too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InCostCenter {
    Any,
    Of(BTreeSet<i64>),
    OrRole { centers: BTreeSet<i64>, roles: BTreeSet<RoleId> },
}
