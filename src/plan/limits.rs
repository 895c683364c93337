//! The brake: a plan that would change too much is refused whole, per policy, and changes nothing (product rule R23).

use std::fmt;

use super::PolicyTotals;
use crate::domain::{Limit, PolicyName};
use crate::policy::Policy;

/// Replacements that are never judged: a site of ten users must be able to lose one PIN.
pub const UNJUDGED_REPLACEMENTS: u64 = 50;

/// Which limit stopped a policy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LimitKind {
    UsersPerPass,
    ReplacePercent,
}

impl LimitKind {
    pub const ALL: [LimitKind; 2] = [LimitKind::UsersPerPass, LimitKind::ReplacePercent];

    /// The key under `limits`.
    pub fn as_str(self) -> &'static str {
        match self {
            LimitKind::UsersPerPass => "users_per_pass",
            LimitKind::ReplacePercent => "replace_percent",
        }
    }
}

/// The figures of the database and the journal that a policy is judged by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// PINs in the database now.
    pub stored_pins: u64,
    /// PINs that this policy replaced in the last 24 hours, expected renewals left out.
    pub replaced_last_day: u64,
}

/// A policy that was stopped, with the figures that stopped it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub policy: PolicyName,
    pub limit: LimitKind,
    /// The id of the refused part of the plan.
    pub plan: String,
    /// What the plan asks for: users, or stored PINs with those of the last day.
    pub asked: u64,
    /// What the limit allows, as configured.
    pub allowed: String,
    /// PINs in the database, where the limit is a share of them.
    pub of: Option<u64>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { policy, asked, allowed, plan, .. } = self;
        match self.limit {
            LimitKind::UsersPerPass => write!(
                f,
                "policy {policy}: refused plan {plan}, which changes {asked} users where users_per_pass allows {allowed}; nothing was changed. \
                 If this is meant, run once with --max-users {asked}, or raise limits.users_per_pass"
            ),
            LimitKind::ReplacePercent => write!(
                f,
                "policy {policy}: refused plan {plan}, which replaces {asked} of {} stored PINs (those of the last 24 hours included) where \
                 replace_percent allows {allowed}; nothing was changed. If this is meant, run once with --max-replace, or raise \
                 limits.replace_percent",
                self.of.unwrap_or_default()
            ),
        }
    }
}

/// Judges one policy's part of a plan; the first limit that it exceeds, if any.
pub fn judge(policy: &Policy, totals: &PolicyTotals, figures: Figures, plan: impl FnOnce() -> String) -> Option<Refusal> {
    let limits = policy.limits;
    if limits.users_per_pass.exceeded_by(totals.judged) {
        return Some(Refusal {
            policy: policy.name.clone(),
            limit: LimitKind::UsersPerPass,
            plan: plan(),
            asked: totals.judged,
            allowed: limits.users_per_pass.to_string(),
            of: None,
        });
    }
    let replaced = totals.replaced.saturating_add(figures.replaced_last_day);
    if let Limit::At(share) = limits.replace_percent
        && totals.replaced > 0
        && replaced > UNJUDGED_REPLACEMENTS
        && replaced as f64 > share.ratio() * figures.stored_pins as f64
    {
        return Some(Refusal {
            policy: policy.name.clone(),
            limit: LimitKind::ReplacePercent,
            plan: plan(),
            asked: replaced,
            allowed: share.to_string(),
            of: Some(figures.stored_pins),
        });
    }
    None
}
