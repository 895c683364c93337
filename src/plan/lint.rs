//! What is odd about policies that are valid one by one: some never own anybody, some renew what never ends. And what is
//! wrong about a policy in a daemon: that it has no end (product rule R13).

use crate::domain::Credential;
use crate::domain::RoleRef;
use crate::domain::time::span;
use crate::policy::{OnLeave, PinRewrite, PinRule, Placement, Policy, Selector};

use super::rules::endless_kinds;

/// One sentence each, for `check-config` and for each start.
pub fn warnings(policies: &[Policy]) -> Vec<String> {
    let mut all = Vec::new();
    for (index, policy) in policies.iter().enumerate() {
        let name = &policy.name;
        let mut warn = |sentence: String| all.push(format!("policy {name}: {sentence}"));
        if let Some(owner) = policies[..index].iter().find(|earlier| covers(&earlier.selector, &policy.selector)) {
            warn(format!("never owns a user, because {} before it takes everybody whom it matches", owner.name));
        }
        if let Some(rule) = &policy.pin {
            of_pins(rule, policy.ends_own_match(), &mut warn);
        }
        if let Some(next) = moves_on(policies, index) {
            warn(format!(
                "moves its users to where {} may move them on to another cost center; whom both match is left alone and reported \
                 (policies_disagree)",
                next.name
            ));
        }
    }
    all
}

/// What a daemon must not do: `None` if the policies all have an end.
///
/// A pass that gives a new PIN to everybody whom it selects would do so every few minutes. It takes a marker that the policy
/// flips and reads (a move out of the cost center that it matches, the removal of the role), or an age (`rotate_every`).
pub fn endless(policies: &[Policy]) -> Vec<String> {
    let told = |policy: &Policy| {
        let kinds = endless_kinds(policy);
        let ends: Vec<String> = kinds
            .iter()
            .map(|kind| match kind {
                Credential::Pin | Credential::Password => format!("set {}.rotate_every", kind.as_str()),
                Credential::Code => format!("let {} have rewrite: never", kind.as_str()),
            })
            .collect();
        (!kinds.is_empty()).then(|| {
            format!(
                "policy {}: rewrite: always gives everybody a new credential in each pass, so that only --once may run it; in a daemon, let \
                 the policy move its users out of the cost center that it matches or remove the role that it matches, or {}",
                policy.name,
                ends.join(" and ")
            )
        })
    };
    policies.iter().filter_map(told).collect()
}

fn of_pins(rule: &PinRule, ends_own_match: bool, warn: &mut impl FnMut(String)) {
    match (rule.rewrite, rule.valid_for, rule.rotate_every) {
        (PinRewrite::Never, Some(_), None) => warn("with rewrite: never and a valid_for, PINs expire and are never renewed".to_owned()),
        (PinRewrite::Never, Some(valid), Some(every)) if every > valid => {
            warn(format!(
                "with rewrite: never, PINs that have expired after {} stay so until they are rotated after {}",
                span(valid),
                span(every)
            ));
        }
        (PinRewrite::Expired, None, None) => {
            warn("without a valid_for, PINs issued here never expire, so that rewrite: expired renews only those of others".to_owned());
        }
        (PinRewrite::Expired, Some(valid), Some(every)) if every >= valid => {
            warn(format!("PINs are never rotated, because they are renewed after {} already (valid_for)", span(valid)));
        }
        _ => {}
    }
    if rule.on_leave != OnLeave::Keep && ends_own_match {
        warn("pin.on_leave never acts, because a policy that ends its own match keeps its users".to_owned());
    }
}

/// Whether `earlier` accepts everybody whom `later` accepts, as far as the conditions themselves tell.
fn covers(earlier: &Selector, later: &Selector) -> bool {
    let same = |one: &Option<crate::domain::Pattern>, other: &Option<crate::domain::Pattern>| match (one, other) {
        (None, _) => true,
        (Some(one), Some(other)) => one.source() == other.source(),
        (Some(_), None) => false,
    };
    same(&earlier.username, &later.username)
        && same(&earlier.email, &later.email)
        && within(&earlier.cost_center, &later.cost_center)
        && earlier.not_cost_center.iter().all(|one| later.not_cost_center.contains(one))
        && within(&earlier.role, &later.role)
        && earlier.not_role.iter().all(|one| later.not_role.contains(one))
        && earlier.has_card.is_none_or(|wanted| later.has_card == Some(wanted))
        && within(&earlier.source, &later.source)
}

/// Whether who is one of `narrow` is one of `wide`; an empty list is everybody.
fn within<T: PartialEq>(wide: &[T], narrow: &[T]) -> bool {
    wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(|one| wide.contains(one)))
}

/// An earlier policy that accepts the cost center which this one moves to, and moves elsewhere. A later one does not come to
/// it: this policy keeps its users, or still matches them.
fn moves_on(policies: &[Policy], index: usize) -> Option<&Policy> {
    let placement = policies[index].placement.as_ref()?;
    let Policy { selector: own, remove_role, .. } = &policies[index];
    policies[..index].iter().find(|earlier| {
        let Selector { cost_center, not_cost_center, role, not_role, .. } = &earlier.selector;
        // Whom this policy leaves has not the role that it takes, and none that it excludes.
        let has_not = |role| remove_role.as_ref() == Some(role) || own.not_role.contains(role);
        let by_role = (role.is_empty() || !role.iter().all(has_not)) && !kept_out(own, remove_role.as_ref(), not_role);
        let accepts = |place| by_role && (cost_center.is_empty() || cost_center.contains(place)) && !not_cost_center.contains(place);
        let elsewhere = |place| earlier.placement.iter().flat_map(Placement::targets).any(|other| other != place);
        placement.targets().any(|place| accepts(place) && elsewhere(place)) && !covers(&earlier.selector, &policies[index].selector)
    })
}

/// Whether everybody whom a policy with this selector leaves, after it took `removed`, has one of `excluded`.
fn kept_out(own: &Selector, removed: Option<&RoleRef>, excluded: &[RoleRef]) -> bool {
    !own.role.is_empty() && own.role.iter().all(|role| excluded.contains(role) && removed != Some(role))
}
