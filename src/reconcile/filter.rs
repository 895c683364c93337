//! What SQL can leave out: a saving that must never change the plan, so in doubt a user is let through.

use std::collections::BTreeSet;

use crate::domain::{CostCenterRef, WallClock};
use crate::inventory::Places;
use crate::policy::{PinRewrite, Placement, Policy};
use crate::store::{DueFilter, InCostCenter};

/// Who may be due under any of `policies`. A policy whose places are missing is left out: it can change nobody, and it is
/// reported as blocked.
pub(super) fn due(policies: &[Policy], places: &Places, now: WallClock) -> DueFilter {
    let mut filter = DueFilter::default();
    for policy in policies {
        let within = within(&policy.selector.cost_center, places);
        if let Some(rule) = &policy.pin {
            filter.without_pin = Some(match filter.without_pin.take() {
                None => within.clone(),
                Some(known) => union(known, &within),
            });
            if rule.rewrite == PinRewrite::Expired {
                filter.expired_at = Some(now);
            }
        }
        if let Some(Placement::MoveTo(target)) = &policy.placement
            && let Some(target) = places.get(target)
        {
            filter.to_move.push((within, target.clone()));
        }
    }
    filter
}

fn within(wanted: &[CostCenterRef], places: &Places) -> InCostCenter {
    match wanted {
        [] => InCostCenter::Any,
        some => InCostCenter::Of(some.iter().filter_map(|w| places.get(w)).map(|place| place.id.0).collect()),
    }
}

fn union(one: InCostCenter, other: &InCostCenter) -> InCostCenter {
    match (one, other) {
        (InCostCenter::Of(a), InCostCenter::Of(b)) => InCostCenter::Of(a.union(b).copied().collect::<BTreeSet<i64>>()),
        _ => InCostCenter::Any,
    }
}
