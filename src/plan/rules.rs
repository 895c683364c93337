//! The rules, in the order in which they are asked. Each either settles the matter or passes on.
//!
//! | # | question | if so |
//! |---|---|---|
//! | 1 | is the row somebody at all (R5)? | no: untouched |
//! | 2 | which policy owns the user: the first that matches, or an earlier keeper (R1, R6)? | none, or one that asks for nothing: untouched |
//! | 3 | does the user need a PIN (R10), or to be moved (R18)? | neither: settled |
//! | 4 | outside of the pilot (R36)? on hold (R25)? mail still open (I4)? a place missing (R18)? too soon (R24)? nobody to tell (R4)? | skipped |
//! | 5 | | due |
//!
//! Needs are asked before obstacles, so that a user who needs nothing is never reported as skipped.

use std::collections::BTreeSet;

use super::{Reason, Skip, Step, Untouched, Verdict, pilot};
use crate::domain::mailbox::NotAMailbox;
use crate::domain::{CostCenter, CostCenterRef, Mailbox, PolicyName, WallClock};
use crate::inventory::{Facts, Membership, Now, Places, Standing, StoredPin, User};
use crate::policy::{Pilot, PinRewrite, Placement, Policy, Recipient, Selector};

/// The policies, set against one database at one moment.
pub struct Planner<'a> {
    policies: &'a [Policy],
    places: &'a Places,
    now: Now,
    pilot: Option<&'a Pilot>,
}

/// A cost center that a policy names and the database lacks: blocks that policy, not the others (R18).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Blocker {
    pub policy: PolicyName,
    pub cost_center: CostCenterRef,
}

/// The first condition of a selector that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mismatch {
    Username,
    Email,
    CostCenter,
    NotCostCenter,
    HasCard,
    Source,
}

impl Mismatch {
    /// The key under `match`.
    pub fn as_str(self) -> &'static str {
        match self {
            Mismatch::Username => "username",
            Mismatch::Email => "email",
            Mismatch::CostCenter => "cost_center",
            Mismatch::NotCostCenter => "not_cost_center",
            Mismatch::HasCard => "has_card",
            Mismatch::Source => "source",
        }
    }
}

/// The policy that a user belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    pub policy: usize,
    /// The policy does not match any more, but served the user last (R6): it renews, and neither moves nor issues anew.
    pub kept: bool,
}

/// What a user lacks by the rules of the owning policy.
struct Need {
    pin: Option<Reason>,
    cost_center: Option<Reason>,
}

impl<'a> Planner<'a> {
    /// `places` holds every cost center that the policies name.
    pub fn new(policies: &'a [Policy], places: &'a Places, now: Now) -> Planner<'a> {
        Planner { policies, places, now, pilot: None }
    }

    /// Confines changes to those whom `pilot` names (R36).
    pub fn with_pilot(self, pilot: Option<&'a Pilot>) -> Planner<'a> {
        Planner { pilot, ..self }
    }

    /// Whether the pilot covers `user`; `None`: there is no pilot.
    pub fn pilot_reaches(&self, user: &User) -> Option<bool> {
        self.pilot.map(|pilot| pilot::covers(pilot, user, self.places))
    }

    pub fn now(&self) -> Now {
        self.now
    }

    /// What the plan says of `user`. See the table above.
    pub fn verdict(&self, user: &User, facts: &Facts) -> Verdict {
        match user.standing {
            Standing::Active => {}
            Standing::NotAUser => return Verdict::Untouched(Untouched::NotAUser),
            Standing::Deleted => return Verdict::Untouched(Untouched::Deleted),
            Standing::Template => return Verdict::Untouched(Untouched::Template),
        }
        let Some(owner) = self.owner(user, facts) else { return Verdict::Untouched(Untouched::NoPolicy) };
        let policy = &self.policies[owner.policy];
        if policy.excludes() {
            return Verdict::Untouched(Untouched::Excluded);
        }
        let need = self.need(policy, owner, user);
        if need.pin.is_none() && need.cost_center.is_none() {
            return Verdict::Settled { policy: owner.policy };
        }
        if let Some(skip) = self.obstacle(policy, &need, user, facts) {
            return Verdict::Skipped { policy: owner.policy, skip };
        }
        let replaced: &[StoredPin] = if need.pin.is_some() { &user.pins } else { &[] };
        let count = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        Verdict::Due(Step {
            user: user.id,
            policy: owner.policy as u16, // the configuration allows fewer policies than that
            pin: need.pin,
            cost_center: need.cost_center,
            replaces: count(replaced.len()),
            unexpected: count(replaced.iter().filter(|p| !(p.ours && self.expired(p))).count()),
        })
    }

    /// The first policy that matches, unless an earlier one keeps the user.
    pub fn owner(&self, user: &User, facts: &Facts) -> Option<Owner> {
        let matched = self.policies.iter().position(|p| self.mismatch(&p.selector, user).is_none());
        let keeper = facts.keeper.as_ref().and_then(|k| self.policies.iter().position(|p| p.name == *k && p.ends_own_match()));
        match (matched, keeper) {
            (Some(m), Some(k)) if k < m => Some(Owner { policy: k, kept: true }),
            (Some(m), _) => Some(Owner { policy: m, kept: false }),
            (None, Some(k)) => Some(Owner { policy: k, kept: true }),
            (None, None) => None,
        }
    }

    /// The first condition that does not hold, in the order of the manual; `None`: the selector accepts the user.
    pub fn mismatch(&self, selector: &Selector, user: &User) -> Option<Mismatch> {
        let in_any =
            |wanted: &[CostCenterRef]| wanted.iter().filter_map(|w| self.places.get(w)).any(|place| place.id == user.cost_center.id);
        let any = |conditions: &[CostCenterRef], holds: bool| conditions.is_empty() || holds;
        let checks = [
            (Mismatch::Username, selector.username.as_ref().is_none_or(|p| p.matches(&user.login))),
            (Mismatch::Email, selector.email.as_ref().is_none_or(|p| p.matches(&user.email))),
            (Mismatch::CostCenter, any(&selector.cost_center, in_any(&selector.cost_center))),
            (Mismatch::NotCostCenter, any(&selector.not_cost_center, !in_any(&selector.not_cost_center))),
            (Mismatch::HasCard, selector.has_card.is_none_or(|wanted| wanted == (user.cards > 0))),
            (Mismatch::Source, selector.source.is_empty() || user.source.as_ref().is_some_and(|s| selector.source.contains(s))),
        ];
        checks.into_iter().find(|(_, holds)| !holds).map(|(which, _)| which)
    }

    fn need(&self, policy: &Policy, owner: Owner, user: &User) -> Need {
        let pin = policy.pin.as_ref().and_then(|rule| match rule.rewrite {
            // A keeper follows the PINs that are there. Where an administrator took them all, it gives no new one.
            _ if user.pins.is_empty() => (!owner.kept).then_some(Reason::PinMissing),
            PinRewrite::Never => None,
            PinRewrite::Expired => user.pins.iter().any(|p| self.expired(p)).then_some(Reason::PinExpired),
        });
        let cost_center = match &policy.placement {
            Some(Placement::MoveTo(target)) if !owner.kept => match self.places.get(target) {
                Some(place) if in_place(user.cost_center, place) => None,
                _ => Some(Reason::CostCenterDiffers),
            },
            _ => None,
        };
        Need { pin, cost_center }
    }

    fn obstacle(&self, policy: &Policy, need: &Need, user: &User, facts: &Facts) -> Option<Skip> {
        if self.pilot_reaches(user) == Some(false) {
            return Some(Skip::HeldBack);
        }
        if facts.held {
            return Some(Skip::Held);
        }
        if facts.open {
            return Some(Skip::DeliveryPending);
        }
        if self.blocked(policy) {
            return Some(Skip::Blocked);
        }
        need.pin?; // a move alone needs neither patience nor a recipient
        if facts.last_generated.is_some_and(|last| self.now.utc < last.plus(policy.limits.min_interval)) {
            return Some(Skip::TooSoon);
        }
        match recipient(policy, user) {
            Err(NotAMailbox::Empty) => Some(Skip::NoAddress),
            Err(_) => Some(Skip::BadAddress),
            Ok(_) => None,
        }
    }

    /// What every policy names and the database lacks.
    pub fn blockers(&self) -> Vec<Blocker> {
        let missing = |p: &'a Policy| {
            named(p)
                .into_iter()
                .filter(|r| self.places.get(r).is_none())
                .map(|r| Blocker { policy: p.name.clone(), cost_center: r.clone() })
        };
        self.policies.iter().flat_map(missing).collect()
    }

    fn blocked(&self, policy: &Policy) -> bool {
        named(policy).into_iter().any(|r| self.places.get(r).is_none())
    }

    fn expired(&self, pin: &StoredPin) -> bool {
        pin.expires.is_some_and(|at| at <= self.now.wall)
    }

    /// When a PIN that `policy` issues now expires; `None`: never.
    pub fn expiry(&self, policy: usize) -> Option<WallClock> {
        let rule = self.policies[policy].pin.as_ref()?;
        rule.valid_for.map(|span| self.now.wall.plus(span))
    }

    /// Where a step of `policy` moves its user.
    pub fn target(&self, policy: usize) -> Option<&'a CostCenter> {
        match &self.policies[policy].placement {
            Some(Placement::MoveTo(target)) => self.places.get(target),
            None => None,
        }
    }
}

/// Both halves must agree: a half-moved user is moved again (R18).
fn in_place(member: Membership, place: &CostCenter) -> bool {
    member.id == place.id && member.number == place.number
}

/// Who is told about `user`'s credentials; `Ok(None)`: nobody, on purpose.
///
/// # Errors
/// What is wrong with the text that stands where the policy looks for an address.
pub fn recipient(policy: &Policy, user: &User) -> Result<Option<Mailbox>, NotAMailbox> {
    match &policy.notify.to {
        Recipient::Nobody => Ok(None),
        Recipient::Fixed(mailbox) => Ok(Some(mailbox.clone())),
        Recipient::Username => Mailbox::parse(&user.login).map(Some),
        Recipient::Email => Mailbox::parse(&user.email).map(Some),
    }
}

/// Every cost center that a policy names.
pub fn named(policy: &Policy) -> BTreeSet<&CostCenterRef> {
    let target = policy.placement.as_ref().map(|Placement::MoveTo(target)| target);
    policy.selector.cost_center.iter().chain(&policy.selector.not_cost_center).chain(target).collect()
}
