//! The brake: a plan that would change too much is refused whole, per policy, and changes nothing (product rule R23).

use std::fmt;

use super::PolicyTotals;
use super::density::{Crowding, Density, TOO_DENSE};
use crate::domain::{Credential, Each, Limit, PolicyName};
use crate::policy::Policy;

/// Replacements that are never judged: a site of ten users must be able to lose one PIN.
pub const UNJUDGED_REPLACEMENTS: u64 = 50;

/// Which limit stopped a policy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LimitKind {
    UsersPerPass,
    ReplacePercent,
    /// Too many of the PINs of the policy's length are taken (R8): only what needs a new PIN is refused.
    PinDensity,
}

impl LimitKind {
    pub const ALL: [LimitKind; 3] = [LimitKind::UsersPerPass, LimitKind::ReplacePercent, LimitKind::PinDensity];

    /// The key under `limits`; a density has none.
    pub fn as_str(self) -> &'static str {
        match self {
            LimitKind::UsersPerPass => "users_per_pass",
            LimitKind::ReplacePercent => "replace_percent",
            LimitKind::PinDensity => "pin_density",
        }
    }
}

/// The figures of the database and the journal that a policy is judged by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Credentials in the database now.
    pub stored: Each<u64>,
    /// Those that this policy replaced in the last 24 hours, expected renewals left out.
    pub replaced_last_day: Each<u64>,
}

/// A policy that was stopped, with the figures that stopped it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub policy: PolicyName,
    pub limit: LimitKind,
    /// The kind of credential that it is about; `None`: it counts users.
    pub kind: Option<Credential>,
    /// The id of the refused part of the plan.
    pub plan: String,
    /// What the plan asks for: users, stored credentials with those of the last day, or how many PINs there would be.
    pub asked: u64,
    /// What the limit allows, as configured.
    pub allowed: String,
    /// It is kept in the journal, where it can be approved.
    pub kept: bool,
    /// Of what the limit is a share: the credentials of that kind in the database, or all that there are of a length.
    pub of: Option<u64>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { policy, asked, allowed, plan, .. } = self;
        let approve = if self.kept { format!("let just this plan through with `credkeeper approve {plan}`, ") } else { String::new() };
        match self.limit {
            LimitKind::UsersPerPass => write!(
                f,
                "policy {policy}: refused plan {plan}, which changes {asked} users where users_per_pass allows {allowed}; nothing was changed. \
                 If this is meant, {approve}run once with --max-users {asked}, or raise limits.users_per_pass"
            ),
            LimitKind::ReplacePercent => write!(
                f,
                "policy {policy}: refused plan {plan}, which replaces {asked} of {} stored {} (those of the last 24 hours included) where \
                 replace_percent allows {allowed}; nothing was changed. If this is meant, {approve}run once with --max-replace, or raise \
                 limits.replace_percent",
                self.of.unwrap_or_default(),
                self.kind.map(Credential::plural).unwrap_or_default()
            ),
            LimitKind::PinDensity => write!(
                f,
                "policy {policy}: refused plan {plan}, because {asked} of the {} PINs of its length would be taken, more than {allowed}: guesses at \
                 a printer would meet somebody's PIN too often; no PIN was issued. Take a longer pin.length, or set pin.allow_dense: true",
                self.of.unwrap_or_default()
            ),
        }
    }
}

/// Judges how full the space of one policy's PINs would be.
pub fn judge_density(density: &Density, plan: impl FnOnce() -> String) -> Option<Refusal> {
    (density.crowding() == Crowding::TooDense).then(|| Refusal {
        policy: density.policy.clone(),
        limit: LimitKind::PinDensity,
        kind: Some(Credential::Pin),
        plan: plan(),
        asked: density.filled(),
        allowed: format!("{}%", TOO_DENSE * 100.0),
        kept: false,
        of: Some(density.length.space()),
    })
}

/// Judges one policy's part of a plan; the first limit that it exceeds, if any.
pub fn judge(policy: &Policy, totals: &PolicyTotals, figures: Figures, plan: impl FnOnce() -> String) -> Option<Refusal> {
    let limits = policy.limits;
    if limits.users_per_pass.exceeded_by(totals.judged) {
        return Some(Refusal {
            policy: policy.name.clone(),
            limit: LimitKind::UsersPerPass,
            kind: None,
            plan: plan(),
            asked: totals.judged,
            allowed: limits.users_per_pass.to_string(),
            kept: false,
            of: None,
        });
    }
    let Limit::At(share) = limits.replace_percent else { return None };
    let too_many = |kind: &Credential| {
        let replaced = totals.replaced[*kind].saturating_add(figures.replaced_last_day[*kind]);
        totals.replaced[*kind] > 0 && replaced > UNJUDGED_REPLACEMENTS && replaced as f64 > share.ratio() * figures.stored[*kind] as f64
    };
    let kind = Credential::ALL.into_iter().find(too_many)?;
    Some(Refusal {
        policy: policy.name.clone(),
        limit: LimitKind::ReplacePercent,
        kind: Some(kind),
        plan: plan(),
        asked: totals.replaced[kind].saturating_add(figures.replaced_last_day[kind]),
        allowed: share.to_string(),
        kept: false,
        of: Some(figures.stored[kind]),
    })
}
