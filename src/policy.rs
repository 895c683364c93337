//! What the administrator asks for, once the configuration has been checked.

use std::time::Duration;

use crate::domain::pattern::TooManySteps;
use crate::domain::{
    Alphabet, CodeLength, CostCenterRef, Credential, Limit, Mailbox, PasswordLength, Pattern, PinLength, PolicyName, RoleRef, Share,
    UserId, scatter,
};

mod brakes;
mod needs;

pub use brakes::{Pilot, Tripwires};
pub use needs::Needs;

/// One entry of `policies`. The first whose selector accepts a user owns that user (R1).
#[derive(Clone, Debug)]
pub struct Policy {
    pub name: PolicyName,
    pub selector: Selector,
    pub pin: Option<PinRule>,
    /// `card_assignment_code`.
    pub code: Option<CodeRule>,
    pub password: Option<PasswordRule>,
    pub placement: Option<Placement>,
    /// `remove_role` (R19): taken from users who have it.
    pub remove_role: Option<RoleRef>,
    pub notify: Notify,
    pub limits: PolicyLimits,
}

impl Policy {
    /// A policy that asks for nothing excludes its users from the later ones (R1).
    pub fn excludes(&self) -> bool {
        self.credentials().next().is_none() && self.placement.is_none() && self.remove_role.is_none()
    }

    /// The kinds of credential that it gives.
    pub fn credentials(&self) -> impl Iterator<Item = Credential> {
        let given = [self.pin.is_some(), self.code.is_some(), self.password.is_some()];
        Credential::ALL.into_iter().zip(given).filter(|(_, given)| *given).map(|(kind, _)| kind)
    }

    /// Whether applying the policy can make it stop matching, at least for some of its users: then it stays the keeper of those
    /// whom it served (R6).
    pub fn ends_own_match(&self) -> bool {
        let takes = self.remove_role.as_ref().is_some_and(|removed| self.selector.role.contains(removed));
        takes || self.placement.as_ref().is_some_and(|placement| placement.targets().any(|target| self.is_outside(target)))
    }

    /// Whether it does so for everybody. Where the match demands one of several roles, who has two of them still matches.
    pub fn always_ends_own_match(&self) -> bool {
        let demanded = &self.selector.role;
        let takes = self.remove_role.as_ref().is_some_and(|removed| !demanded.is_empty() && demanded.iter().all(|role| role == removed));
        let moves = |placement: &Placement| placement.places_everybody() && placement.targets().all(|target| self.is_outside(target));
        takes || self.placement.as_ref().is_some_and(moves)
    }

    /// Whether the match does not accept who is in this cost center.
    fn is_outside(&self, target: &CostCenterRef) -> bool {
        let Selector { cost_center, not_cost_center, .. } = &self.selector;
        not_cost_center.contains(target) || (!cost_center.is_empty() && !cost_center.contains(target))
    }
}

/// `match`: every condition given must hold; an absent or empty one holds for everybody.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    pub username: Option<Pattern>,
    pub email: Option<Pattern>,
    pub cost_center: Vec<CostCenterRef>,
    pub not_cost_center: Vec<CostCenterRef>,
    pub role: Vec<RoleRef>,
    pub not_role: Vec<RoleRef>,
    pub has_card: Option<bool>,
    pub source: Vec<String>,
}

/// `pin`.
#[derive(Clone, Debug)]
pub struct PinRule {
    pub length: PinLength,
    pub rewrite: PinRewrite,
    /// Absent: never expires.
    pub valid_for: Option<Duration>,
    /// An end set by this rule comes earlier by up to so much, by a share that is each user's own: what was issued in one
    /// go does not lapse in one go. Less than `valid_for` and `rotate_every`.
    pub spread: Duration,
    /// Renewed at this age, where our ledger tells it.
    pub rotate_every: Option<Duration>,
    /// A PIN without an end gets one; needs `valid_for`.
    pub cap_unlimited: bool,
    pub allow_trivial: bool,
    /// Issue although more than a tenth of the PINs of this length are taken (R8).
    pub allow_dense: bool,
    /// For how long a PIN that was freed goes to nobody.
    pub quarantine: Duration,
    pub on_leave: OnLeave,
    /// A valid PIN that is there already is told with whatever else the user gets (R16).
    pub send_existing: bool,
}

impl PinRule {
    /// `span`, less this user's share of the spread.
    pub fn spread_by(&self, span: Duration, user: UserId) -> Duration {
        span.saturating_sub(self.spread.mul_f64(scatter::share(user.0.cast_unsigned())))
    }
}

/// `pin.rewrite` (R10). All of them issue a PIN where there is none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PinRewrite {
    /// Any PIN at all satisfies, an expired one too.
    Never,
    /// One expired PIN: all the user's PINs go and one new is issued.
    Expired,
    /// Each expired PIN keeps its digits and gets a new end; needs `valid_for`.
    Extend,
    /// A new PIN at each selection; with `rotate_every`, whenever a PIN is not a young one of ours.
    Always,
}

/// `card_assignment_code` (R14).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodeRule {
    pub length: CodeLength,
    pub rewrite: Rewrite,
}

/// `password` (R15).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PasswordRule {
    pub length: PasswordLength,
    pub alphabet: Alphabet,
    pub rewrite: Rewrite,
    /// Renewed at this age, where our ledger tells it.
    pub rotate_every: Option<Duration>,
}

/// `rewrite` of a code or a password. Both issue where there is none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rewrite {
    Never,
    /// A new one at each selection; of a password with `rotate_every`, whenever it is not a young one of ours.
    Always,
}

/// `pin.on_leave` (R12): what becomes of a PIN that we issued, once no policy owns or keeps its user any more.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OnLeave {
    Keep,
    /// Its end is set to now.
    Expire,
    Delete,
}

/// `cost_center` (R18).
#[derive(Clone, Debug)]
pub enum Placement {
    MoveTo(CostCenterRef),
    /// The first pattern that matches the login decides; none: the user is not moved. Never empty.
    ByUsername(Vec<Rule>),
}

/// One line of `cost_center.by_username`.
#[derive(Clone, Debug)]
pub struct Rule {
    /// `None`: everybody.
    pub pattern: Option<Pattern>,
    pub target: CostCenterRef,
}

impl Placement {
    /// Every cost center that it names.
    pub fn targets(&self) -> impl Iterator<Item = &CostCenterRef> {
        match self {
            Placement::MoveTo(target) => std::slice::from_ref(target).iter().collect::<Vec<_>>(),
            Placement::ByUsername(rules) => rules.iter().map(|rule| &rule.target).collect(),
        }
        .into_iter()
    }

    /// Where a user with this login belongs; `None`: nowhere else.
    ///
    /// # Errors
    /// A pattern before the one that would decide cannot be decided itself.
    pub fn of(&self, login: &str) -> Result<Option<&CostCenterRef>, TooManySteps> {
        match self {
            Placement::MoveTo(target) => Ok(Some(target)),
            Placement::ByUsername(rules) => {
                for rule in rules {
                    if rule.pattern.as_ref().map_or(Ok(true), |pattern| pattern.matches(login))? {
                        return Ok(Some(&rule.target));
                    }
                }
                Ok(None)
            }
        }
    }

    /// Whether it says of everybody where he belongs.
    pub fn places_everybody(&self) -> bool {
        match self {
            Placement::MoveTo(_) => true,
            Placement::ByUsername(rules) => rules.iter().any(|rule| rule.pattern.is_none()),
        }
    }
}

/// `notify`.
#[derive(Clone, Debug)]
pub struct Notify {
    pub to: Recipient,
    /// A key of `templates`; present unless `to` is `None` or the transport is.
    pub template: Option<String>,
}

/// `notify.to` (R31).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Recipient {
    Username,
    Email,
    Fixed(Mailbox),
    Nobody,
}

/// `limits` of a policy, those of the top level filled in (R23, R24).
#[derive(Clone, Copy, Debug)]
pub struct PolicyLimits {
    pub users_per_pass: Limit<u64>,
    pub replace_percent: Limit<Share>,
    pub min_interval: Duration,
}

/// For tests of several rooms.
#[cfg(test)]
pub(crate) mod samples {
    use super::*;

    /// Asks for nothing, tells nobody, and is limited by nothing.
    pub(crate) fn policy(name: &str) -> Policy {
        Policy {
            name: PolicyName(name.to_owned()),
            selector: Selector::default(),
            pin: None,
            code: None,
            password: None,
            placement: None,
            remove_role: None,
            notify: Notify { to: Recipient::Nobody, template: None },
            limits: PolicyLimits { users_per_pass: Limit::Unlimited, replace_percent: Limit::Unlimited, min_interval: Duration::ZERO },
        }
    }

    /// Issues PINs of this length where there are none, for good.
    pub(crate) fn rule(length: u8) -> PinRule {
        PinRule {
            length: PinLength::new(length).expect("a length"),
            rewrite: PinRewrite::Never,
            valid_for: None,
            spread: Duration::ZERO,
            rotate_every: None,
            cap_unlimited: false,
            allow_trivial: false,
            allow_dense: false,
            quarantine: Duration::ZERO,
            on_leave: OnLeave::Keep,
            send_existing: false,
        }
    }
}
