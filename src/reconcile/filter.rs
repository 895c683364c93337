//! What SQL can leave out: a saving that must never change the plan, so in doubt a user is let through.

use std::collections::BTreeSet;

use crate::domain::{Credential, RoleId, Timestamp, WallClock};
use crate::inventory::Places;
use crate::policy::{OnLeave, PinRewrite, Placement, Policy, Rewrite, Selector};
use crate::store::{DueFilter, InCostCenter};

/// Who may be due under any of `policies`. A policy whose places are missing is left out: it can change nobody, and it is
/// reported as blocked.
pub(super) fn due(policies: &[Policy], places: &Places, now: WallClock) -> DueFilter {
    let mut filter = DueFilter::default();
    for policy in policies {
        let within = within(&policy.selector, places);
        if let Some(rule) = &policy.pin {
            join(&mut filter.without_pin, &within);
            if rule.rewrite != PinRewrite::Never {
                filter.expired_at = Some(now);
            }
            if rule.rewrite == PinRewrite::Always {
                join(&mut filter.everybody, &within);
            }
            filter.unlimited_pin |= rule.cap_unlimited;
            // Who has left is somewhere else, and no longer matches anything.
            if rule.on_leave != OnLeave::Keep && !policy.ends_own_match() {
                filter.everybody = Some(InCostCenter::Any);
            }
        }
        if let Some(rule) = &policy.code {
            join(&mut filter.without_code, &within);
            if rule.rewrite == Rewrite::Always {
                join(&mut filter.everybody, &within);
            }
        }
        if let Some(rule) = &policy.password {
            join(&mut filter.without_password, &within);
            if rule.rewrite == Rewrite::Always {
                join(&mut filter.everybody, &within);
            }
        }
        match &policy.placement {
            Some(Placement::MoveTo(target)) => {
                filter.to_move.extend(places.get(target).map(|target| (within, target.clone())));
            }
            // Whose place is which, SQL cannot tell.
            Some(Placement::ByUsername(_)) => join(&mut filter.everybody, &within),
            None => {}
        }
        filter.with_role.extend(policy.remove_role.as_ref().and_then(|role| places.role(role)).map(|role| role.id));
    }
    filter
}

/// Credentials of a kind that were issued at or before then may be due for their age; the kinds of which some policy asks it.
pub(super) fn aged(policies: &[Policy], now: Timestamp) -> impl Iterator<Item = (Credential, Timestamp)> {
    let pins = policies.iter().filter_map(|p| p.pin.as_ref()).filter_map(|rule| Some(rule.rotate_every?.saturating_sub(rule.spread)));
    let passwords = policies.iter().filter_map(|p| p.password.as_ref()).filter_map(|rule| rule.rotate_every);
    let ages = [(Credential::Pin, pins.min()), (Credential::Password, passwords.min())];
    ages.into_iter().filter_map(move |(kind, age)| Some((kind, now.minus(age?))))
}

/// A policy that demands a role is looked for by it alone, since it may be the narrower condition, and either is enough.
fn within(selector: &Selector, places: &Places) -> InCostCenter {
    let Selector { cost_center, role, .. } = selector;
    match (cost_center.as_slice(), role.as_slice()) {
        ([], []) => InCostCenter::Any,
        (some, []) => InCostCenter::Of(some.iter().filter_map(|w| places.get(w)).map(|place| place.id.0).collect()),
        (_, some) => {
            let roles = some.iter().filter_map(|w| places.role(w)).map(|role| role.id).collect();
            InCostCenter::OrRole { centers: BTreeSet::new(), roles }
        }
    }
}

fn join(known: &mut Option<InCostCenter>, within: &InCostCenter) {
    *known = Some(match known.take() {
        None => within.clone(),
        Some(known) => match (parts(known), parts(within.clone())) {
            (Some((centers, roles)), Some((more, others))) => {
                let (centers, roles): (BTreeSet<i64>, BTreeSet<RoleId>) = (&centers | &more, &roles | &others);
                if roles.is_empty() { InCostCenter::Of(centers) } else { InCostCenter::OrRole { centers, roles } }
            }
            _ => InCostCenter::Any,
        },
    });
}

/// `None`: anybody.
fn parts(within: InCostCenter) -> Option<(BTreeSet<i64>, BTreeSet<RoleId>)> {
    match within {
        InCostCenter::Any => None,
        InCostCenter::Of(centers) => Some((centers, BTreeSet::new())),
        InCostCenter::OrRole { centers, roles } => Some((centers, roles)),
    }
}
