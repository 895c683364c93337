//! The rules, in the order in which they are asked. Each either settles the matter or passes on.
//!
//! | # | question | if so |
//! |---|---|---|
//! | 1 | is the row somebody at all (R5)? | no: untouched |
//! | 2 | which policy owns the user: the first that matches, or an earlier keeper (R1, R6)? | one that asks for nothing: untouched; none: what the last one says of leaving (R12), else untouched |
//! | 3 | what do the PINs need (R10, R11; `pins.rs`), the code and the password (R14, R15; `renewal.rs`), is the user to be moved (R18), and does he have the role to be removed (R19)? | nothing: settled |
//! | 4 | would another policy change the user again after that (R13)? | failed |
//! | 5 | outside of the pilot (R36)? on hold (R25)? mail still open (I4)? a place or a role missing (R18)? too soon (R24)? nobody to tell (R4)? | skipped |
//! | 6 | | due |
//!
//! Needs are asked before obstacles, so that a user who needs nothing is never reported as skipped. A pattern that cannot be
//! decided in its steps (R2) makes the user fail under its policy: who comes after it in the list is not known then.

use std::collections::BTreeSet;
use std::fmt;

use super::{Also, Failure, PinAction, PinStep, Reason, Skip, Step, Untouched, Verdict, pilot, pins, renewal};
use crate::domain::mailbox::NotAMailbox;
use crate::domain::pattern::TooManySteps;
use crate::domain::{CostCenter, CostCenterRef, Credential, Mailbox, PolicyName, Role, RoleId, RoleRef, StoredValue, WallClock};
use crate::inventory::{Facts, Membership, Now, Places, Standing, StoredPassword, StoredPin, User};
use crate::policy::{Pilot, PinRewrite, PinRule, Placement, Policy, Recipient, Rewrite, Selector};

/// The policies, set against one database at one moment.
pub struct Planner<'a> {
    pub(super) policies: &'a [Policy],
    places: &'a Places,
    pub(super) now: Now,
    pilot: Option<&'a Pilot>,
    /// Every cost center and role that some policy names is there.
    whole: bool,
}

/// What a policy names and the database lacks: blocks that policy, not the others (R18).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Blocker {
    pub policy: PolicyName,
    pub missing: Missing,
}

/// What the database lacks. Said as `cost center “Has PIN”`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Missing {
    CostCenter(CostCenterRef),
    Role(RoleRef),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::CostCenter(named) => write!(f, "cost center {named}"),
            Missing::Role(named) => write!(f, "role {named}"),
        }
    }
}

/// The first condition of a selector that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mismatch {
    Username,
    Email,
    CostCenter,
    NotCostCenter,
    Role,
    NotRole,
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
            Mismatch::Role => "role",
            Mismatch::NotRole => "not_role",
            Mismatch::HasCard => "has_card",
            Mismatch::Source => "source",
        }
    }
}

/// The policy that a user belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    pub policy: usize,
    /// The policy does not match any more, but served the user last (R6): it renews, and neither moves, removes roles nor issues anew.
    pub kept: bool,
}

/// A pattern of this policy cannot be decided for the user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Undecided {
    pub policy: usize,
}

/// What a user lacks by the rules of the owning policy.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Need {
    pub(super) pin: Option<PinStep>,
    pub(super) code: Option<Reason>,
    pub(super) password: Option<PasswordStep>,
    pub(super) cost_center: Option<Reason>,
    pub(super) role: Option<Reason>,
}

/// What of a user decides who owns him, and what a step may change.
#[derive(Clone, Copy)]
struct At<'u> {
    place: Membership,
    roles: &'u [RoleId],
}

impl<'u> At<'u> {
    fn of(user: &'u User) -> At<'u> {
        At { place: user.cost_center, roles: &user.roles }
    }
}

/// Why a password is issued, and whether our ledger foresaw it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct PasswordStep {
    pub(super) reason: Reason,
    pub(super) foreseen: bool,
}

impl Need {
    fn is_nothing(&self) -> bool {
        *self == Need::default()
    }

    /// Whether a credential is made.
    fn issues(&self) -> bool {
        self.pin.is_some_and(|pin| pin.action == PinAction::Issue) || self.code.is_some() || self.password.is_some()
    }
}

impl<'a> Planner<'a> {
    /// `places` holds every cost center and role that the policies name.
    pub fn new(policies: &'a [Policy], places: &'a Places, now: Now) -> Planner<'a> {
        let whole = policies.iter().all(|policy| missing(policy, places).next().is_none());
        Planner { policies, places, now, pilot: None, whole }
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
        let owner = match self.owner(user, facts) {
            Ok(Some(owner)) => owner,
            Ok(None) => return self.left(user, facts),
            Err(Undecided { policy }) => return Verdict::Failed { policy, failure: Failure::PatternSteps },
        };
        let policy = &self.policies[owner.policy];
        if policy.excludes() {
            return Verdict::Untouched(Untouched::Excluded);
        }
        let Ok(need) = self.need(policy, owner, user) else {
            return Verdict::Failed { policy: owner.policy, failure: Failure::PatternSteps };
        };
        if need.is_nothing() {
            return Verdict::Settled { policy: owner.policy };
        }
        let confined = self.pilot_reaches(user) == Some(false);
        if !confined && self.is_undone(owner.policy, need, user) {
            return Verdict::Failed { policy: owner.policy, failure: Failure::PoliciesDisagree };
        }
        self.due_unless(owner.policy, need, user, facts)
    }

    /// Of a user whom no policy owns or keeps: what the policy that served him last says of leaving.
    fn left(&self, user: &User, facts: &Facts) -> Verdict {
        let pin = self.left_policy(facts).and_then(|p| Some((p, pins::leave(self.policies[p].pin.as_ref()?, user, self.now)?)));
        match pin {
            // A renamed cost center makes its policy match nobody: that must not look as if everybody had left it, or had
            // left an earlier one for it.
            Some((policy, _)) if !self.whole => Verdict::Skipped { policy, skip: Skip::Blocked },
            Some((policy, pin)) => self.due_unless(policy, Need { pin: Some(pin), ..Need::default() }, user, facts),
            None => Verdict::Untouched(Untouched::NoPolicy),
        }
    }

    /// The policy that served the user last.
    pub fn left_policy(&self, facts: &Facts) -> Option<usize> {
        self.policies.iter().position(|p| facts.keeper.as_ref() == Some(&p.name))
    }

    fn due_unless(&self, policy: usize, need: Need, user: &User, facts: &Facts) -> Verdict {
        let tells_existing = self.tells_existing(&self.policies[policy], &need, user);
        if let Some(skip) = self.obstacle(&self.policies[policy], &need, tells_existing, user, facts) {
            return Verdict::Skipped { policy, skip };
        }
        let (mut touched, mut unexpected) = (0, 0);
        if let (Some(PinStep { action, reason }), Some(rule)) = (need.pin, &self.policies[policy].pin) {
            for pin in pins::touched(rule, action, user, self.now) {
                touched += 1;
                unexpected += usize::from(!pins::foreseen(rule, reason, user, pin, self.now));
            }
        }
        let count = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
        Verdict::Due(Step {
            user: user.id,
            policy: policy as u16, // the configuration allows fewer policies than that
            pin: need.pin,
            also: Also::of(&need, tells_existing),
            touched: count(touched),
            unexpected: count(unexpected),
        })
    }

    /// The first policy that matches, unless an earlier one keeps the user.
    ///
    /// # Errors
    /// The first policy in the list that cannot be decided, if none before it keeps the user.
    pub fn owner(&self, user: &User, facts: &Facts) -> Result<Option<Owner>, Undecided> {
        let keeper = self.policies.iter().position(|p| facts.keeper.as_ref() == Some(&p.name) && p.ends_own_match());
        self.owner_at(user, At::of(user), keeper)
    }

    /// The same for a user who stands at `at`, and whom `keeper` would keep.
    fn owner_at(&self, user: &User, at: At<'_>, keeper: Option<usize>) -> Result<Option<Owner>, Undecided> {
        for (policy, p) in self.policies.iter().enumerate() {
            match self.mismatch_at(&p.selector, user, at) {
                Ok(None) => return Ok(Some(Owner { policy, kept: false })),
                Ok(Some(_)) => {}
                Err(_) => return Err(Undecided { policy }),
            }
            if keeper == Some(policy) {
                return Ok(Some(Owner { policy, kept: true }));
            }
        }
        Ok(None)
    }

    /// The first condition that does not hold, in the order of the manual; `None`: the selector accepts the user.
    ///
    /// # Errors
    /// The condition that cannot be decided, where no other one fails.
    pub fn mismatch(&self, selector: &Selector, user: &User) -> Result<Option<Mismatch>, Mismatch> {
        self.mismatch_at(selector, user, At::of(user))
    }

    fn mismatch_at(&self, selector: &Selector, user: &User, at: At<'_>) -> Result<Option<Mismatch>, Mismatch> {
        let in_any = |wanted: &[CostCenterRef]| wanted.iter().filter_map(|w| self.places.get(w)).any(|found| found.id == at.place.id);
        let has_any = |wanted: &[RoleRef]| wanted.iter().filter_map(|w| self.places.role(w)).any(|found| at.roles.contains(&found.id));
        let any = |unconditional: bool, holds: bool| unconditional || holds;
        let cheap = [
            (Mismatch::CostCenter, any(selector.cost_center.is_empty(), in_any(&selector.cost_center))),
            (Mismatch::NotCostCenter, any(selector.not_cost_center.is_empty(), !in_any(&selector.not_cost_center))),
            (Mismatch::Role, any(selector.role.is_empty(), has_any(&selector.role))),
            (Mismatch::NotRole, any(selector.not_role.is_empty(), !has_any(&selector.not_role))),
            (Mismatch::HasCard, selector.has_card.is_none_or(|wanted| wanted == (user.cards > 0))),
            (Mismatch::Source, selector.source.is_empty() || user.source.as_ref().is_some_and(|s| selector.source.contains(s))),
        ];
        if let Some((which, _)) = cheap.into_iter().find(|(_, holds)| !holds) {
            return Ok(Some(which));
        }
        let mut undecided = None;
        for (which, pattern, text) in
            [(Mismatch::Username, &selector.username, &user.login), (Mismatch::Email, &selector.email, &user.email)]
        {
            match pattern.as_ref().map_or(Ok(true), |pattern| pattern.matches(text)) {
                Ok(true) => {}
                Ok(false) => return Ok(Some(which)),
                Err(TooManySteps) => undecided = undecided.or(Some(which)),
            }
        }
        undecided.map_or(Ok(None), Err)
    }

    fn need(&self, policy: &Policy, owner: Owner, user: &User) -> Result<Need, TooManySteps> {
        let pin = policy.pin.as_ref().and_then(|rule| pins::need(rule, owner.kept, user, self.now));
        let code = policy.code.as_ref().and_then(|rule| renewal::code(rule, owner.kept, user));
        let password = policy.password.as_ref().and_then(|rule| renewal::password(rule, owner.kept, user, self.now.utc));
        let mut cost_center = None;
        if !owner.kept
            && let Some(placement) = &policy.placement
            && let Some(target) = placement.of(&user.login)?
            && !self.places.get(target).is_some_and(|place| in_place(user.cost_center, place))
        {
            cost_center = Some(Reason::CostCenterDiffers);
        }
        let removed = policy.remove_role.as_ref().filter(|_| !owner.kept).and_then(|role| self.places.role(role));
        let role = removed.filter(|role| user.roles.contains(&role.id)).map(|_| Reason::RoleHeld);
        Ok(Need { pin, code, password, cost_center, role })
    }

    /// Whether the user, once `need` is done, would be owned by another policy that is not content with it: the two would
    /// take turns, or a second pass would go on where this one ended (R13, I9). Only a move and a role less change the owner.
    fn is_undone(&self, policy: usize, need: Need, user: &User) -> bool {
        let target = need.cost_center.and_then(|_| self.target(policy, user));
        let removed = need.role.and_then(|_| self.removed_role(policy));
        if target.is_none() && removed.is_none() {
            return false;
        }
        let place = target.map_or(user.cost_center, |place| Membership { id: place.id, number: place.number });
        let roles: Vec<RoleId> = user.roles.iter().copied().filter(|role| removed.is_none_or(|removed| removed.id != *role)).collect();
        let keeper = self.policies[policy].ends_own_match().then_some(policy);
        let Ok(Some(next)) = self.owner_at(user, At { place, roles: &roles }, keeper) else { return false };
        if next.policy == policy || self.policies[next.policy].excludes() {
            return false;
        }
        let mut after = User { cost_center: place, roles, ..user.clone() };
        if let (Some(step), Some(rule)) = (need.pin, &self.policies[policy].pin) {
            after.pins = self.pins_after(step, rule, user);
        }
        // What they are does not matter: they have no value here.
        if need.code.is_some() {
            after.code = Some(StoredValue::new(String::new()));
        }
        if need.password.is_some() {
            after.password = Some(StoredPassword { value: StoredValue::new(String::new()), issued: Some(self.now.utc) });
        }
        // What cannot be decided then fails then, and changes nothing.
        let next = self.need(&self.policies[next.policy], next, &after);
        next.is_ok_and(|next| !next.is_nothing())
    }

    /// The user's PINs once `step` is done. What a new one is does not matter: it has no value here.
    fn pins_after(&self, step: PinStep, rule: &PinRule, user: &User) -> Vec<StoredPin> {
        let ours = |value: StoredValue, expires| StoredPin { value, expires, issued: Some(self.now.utc), foreseen: true };
        let end = self.end(rule, user);
        if step.action == PinAction::Issue {
            return vec![ours(StoredValue::new(String::new()), end)];
        }
        let touched: BTreeSet<&StoredValue> = pins::touched(rule, step.action, user, self.now).map(|pin| &pin.value).collect();
        let mut pins = user.pins.clone();
        for pin in pins.iter_mut().filter(|pin| touched.contains(&pin.value)) {
            pin.expires = end;
        }
        pins
    }

    /// Whether the user, who gets something else, has a valid PIN that is told with it (R16).
    fn tells_existing(&self, policy: &Policy, need: &Need, user: &User) -> bool {
        let extends = match need.pin.map(|pin| pin.action) {
            None => false,
            Some(PinAction::Extend) => true,
            Some(PinAction::Issue | PinAction::Expire | PinAction::Delete) => return false,
        };
        let valid = |pin: &StoredPin| extends || !pins::expired(pin, self.now.wall);
        policy.pin.as_ref().is_some_and(|rule| rule.send_existing) && user.pins.iter().any(valid)
    }

    fn obstacle(&self, policy: &Policy, need: &Need, tells_existing: bool, user: &User, facts: &Facts) -> Option<Skip> {
        if self.pilot_reaches(user) == Some(false) {
            return Some(Skip::HeldBack);
        }
        let reachable = |failed: &Mailbox| recipient(policy, user).is_ok_and(|now| now.is_some_and(|now| now != *failed));
        if facts.held && !facts.held_for.as_ref().is_some_and(reachable) {
            return Some(Skip::Held);
        }
        if facts.open {
            return Some(Skip::DeliveryPending);
        }
        if self.blocked(policy) {
            return Some(Skip::Blocked);
        }
        // Whatever makes no new credential needs no patience, and what is not told no recipient.
        if need.issues() && facts.last_generated.is_some_and(|last| self.now.utc < last.plus(policy.limits.min_interval)) {
            return Some(Skip::TooSoon);
        }
        if !need.issues() && !tells_existing {
            return None;
        }
        match recipient(policy, user) {
            Err(NotAMailbox::Empty) => Some(Skip::NoAddress),
            Err(_) => Some(Skip::BadAddress),
            Ok(_) => None,
        }
    }

    /// What every policy names and the database lacks.
    pub fn blockers(&self) -> Vec<Blocker> {
        let blockers = |p: &'a Policy| missing(p, self.places).map(|missing| Blocker { policy: p.name.clone(), missing });
        self.policies.iter().flat_map(blockers).collect()
    }

    pub(super) fn blocked(&self, policy: &Policy) -> bool {
        missing(policy, self.places).next().is_some()
    }

    /// The end that `policy` gives to a PIN of this user now; `None`: none.
    pub fn expiry(&self, policy: usize, user: &User) -> Option<WallClock> {
        self.end(self.policies[policy].pin.as_ref()?, user)
    }

    fn end(&self, rule: &PinRule, user: &User) -> Option<WallClock> {
        rule.valid_for.map(|span| self.now.wall.plus(rule.spread_by(span, user.id)))
    }

    /// The PINs that `step` replaces, removes, or gives another end, among those that the user has now.
    pub fn touched<'u>(&self, step: &Step, user: &'u User) -> Vec<&'u StoredPin> {
        match (step.pin, &self.policies[step.policy()].pin) {
            (Some(pin), Some(rule)) => pins::touched(rule, pin.action, user, self.now).collect(),
            _ => Vec::new(),
        }
    }

    /// Where a step of `policy` moves `user`.
    pub fn target(&self, policy: usize, user: &User) -> Option<&'a CostCenter> {
        let target = self.policies[policy].placement.as_ref()?.of(&user.login).ok().flatten()?;
        self.places.get(target)
    }

    /// Where `user` is, if that is a cost center that the configuration names.
    pub fn place_of(&self, user: &User) -> Option<&'a CostCenter> {
        self.places.cost_centers.values().flatten().find(|place| in_place(user.cost_center, place))
    }

    /// The number of where `user` is; `None` where no cost center is asked for, so that none is read.
    pub fn number_of(&self, user: &User) -> Option<i64> {
        (!self.places.cost_centers.is_empty()).then_some(user.cost_center.number)
    }

    /// The role that a step of `policy` takes away.
    pub fn removed_role(&self, policy: usize) -> Option<&'a Role> {
        self.places.role(self.policies[policy].remove_role.as_ref()?)
    }
}

/// Of which kinds `policy` gives a new credential to whoever it selects, each time: nothing of it ends, so that only a single
/// pass that somebody asked for may do it (R13).
pub(super) fn endless_kinds(policy: &Policy) -> Vec<Credential> {
    let pins = policy.pin.as_ref().is_some_and(|rule| rule.rewrite == PinRewrite::Always && rule.rotate_every.is_none());
    let codes = policy.code.as_ref().is_some_and(|rule| rule.rewrite == Rewrite::Always);
    let passwords = policy.password.as_ref().is_some_and(|rule| rule.rewrite == Rewrite::Always && rule.rotate_every.is_none());
    let endless = [(pins, Credential::Pin), (codes, Credential::Code), (passwords, Credential::Password)];
    let found = endless.into_iter().filter(|(endless, _)| *endless && !policy.always_ends_own_match());
    found.map(|(_, kind)| kind).collect()
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
    let targets = policy.placement.iter().flat_map(Placement::targets);
    policy.selector.cost_center.iter().chain(&policy.selector.not_cost_center).chain(targets).collect()
}

/// Every role that a policy names.
pub fn named_roles(policy: &Policy) -> BTreeSet<&RoleRef> {
    policy.selector.role.iter().chain(&policy.selector.not_role).chain(&policy.remove_role).collect()
}

/// What `policy` names and the database lacks.
fn missing<'p>(policy: &'p Policy, places: &'p Places) -> impl Iterator<Item = Missing> + 'p {
    let centers = named(policy).into_iter().filter(|named| places.get(named).is_none()).cloned().map(Missing::CostCenter);
    centers.chain(named_roles(policy).into_iter().filter(|named| places.role(named).is_none()).cloned().map(Missing::Role))
}
