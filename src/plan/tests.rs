//! The planner as one table: each row is a sentence, a user and what the plan says of him.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::domain::{
    Alphabet, CodeLength, CostCenter, CostCenterId, CostCenterRef, Limit, Mailbox, PasswordLength, Pattern, PinFormat, PolicyName, Role,
    RoleId, RoleRef, Share, StoredValue, Timestamp, WallClock,
};
use crate::inventory::{Facts, Membership, Now, Places, Standing, StoredPassword, StoredPin, User};
use crate::policy::samples::{self, rule};
use crate::policy::{
    CodeRule, Notify, OnLeave, PasswordRule, Pilot, PinRewrite, PinRule, Placement, PolicyLimits, Recipient, Rewrite, Rule, Selector,
};

const NOW: Now = Now { utc: Timestamp(1_000_000), wall: WallClock(1_003_600) };
const NEEDS: Membership = Membership { id: CostCenterId(1), number: 100 };
const HAS: Membership = Membership { id: CostCenterId(2), number: 101 };
const VISITOR: RoleId = RoleId(31);
const ADMIN: RoleId = RoleId(32);
const OTHER: Membership = Membership { id: CostCenterId(9), number: 900 };

fn policy(name: &str) -> Policy {
    Policy {
        pin: Some(rule(6)),
        notify: Notify { to: Recipient::Username, template: Some("t".into()), reminders: Vec::new() },
        limits: PolicyLimits {
            users_per_pass: Limit::At(1000),
            replace_percent: Limit::At(Share::percent(5.0).unwrap()),
            min_interval: Duration::from_secs(120),
        },
        ..samples::policy(name)
    }
}

impl Policy {
    fn rewriting(mut self, rewrite: PinRewrite) -> Policy {
        self.pin.as_mut().unwrap().rewrite = rewrite;
        self
    }
    fn from(mut self, name: &str) -> Policy {
        self.selector.cost_center = vec![CostCenterRef::Name(name.into())];
        self
    }
    fn to(mut self, name: &str) -> Policy {
        self.placement = Some(Placement::MoveTo(CostCenterRef::Name(name.into())));
        self
    }
    /// By user name: patterns and where to; an empty pattern is everybody.
    fn by_name(mut self, rules: &[(&str, &str)]) -> Policy {
        let rule = |(pattern, name): &(&str, &str)| Rule {
            pattern: (!pattern.is_empty()).then(|| Pattern::parse(pattern).unwrap()),
            target: CostCenterRef::Name((*name).into()),
        };
        self.placement = Some(Placement::ByUsername(rules.iter().map(rule).collect()));
        self
    }
    fn with_role(mut self, name: &str) -> Policy {
        self.selector.role.push(RoleRef::Name(name.into()));
        self
    }
    fn without_role(mut self, name: &str) -> Policy {
        self.selector.not_role.push(RoleRef::Name(name.into()));
        self
    }
    fn removing(mut self, name: &str) -> Policy {
        self.remove_role = Some(RoleRef::Name(name.into()));
        self
    }
    fn telling(mut self, to: Recipient) -> Policy {
        self.notify.to = to;
        self
    }
    /// With `valid_for` of 30 days.
    fn pins(mut self, change: impl FnOnce(&mut PinRule)) -> Policy {
        let rule = self.pin.as_mut().unwrap();
        rule.valid_for = Some(Duration::from_secs(30 * 86_400));
        change(rule);
        self
    }
    fn coded(mut self, rewrite: Rewrite) -> Policy {
        self.code = Some(CodeRule { length: CodeLength::new(6).unwrap(), rewrite });
        self
    }
    /// With an age in seconds at which it is renewed.
    fn with_password(mut self, rewrite: Rewrite, rotate_every: Option<u64>) -> Policy {
        let length = PasswordLength::new(12).unwrap();
        let rotate_every = rotate_every.map(Duration::from_secs);
        self.password = Some(PasswordRule { length, alphabet: Alphabet::unambiguous(), rewrite, rotate_every });
        self
    }
    fn without_pin(mut self) -> Policy {
        self.pin = None;
        self
    }
    fn for_logins(mut self, pattern: &str) -> Policy {
        self.selector.username = Some(Pattern::parse(pattern).unwrap());
        self
    }
}

fn user() -> User {
    User {
        id: crate::domain::UserId(7),
        login: "visitor@example.org".into(),
        email: String::new(),
        name: "Ann".into(),
        surname: "Lee".into(),
        standing: Standing::Active,
        cost_center: NEEDS,
        roles: vec![],
        source: None,
        pins: vec![],
        cards: 0,
        code: None,
        password: None,
    }
}

impl User {
    /// A PIN that ends so many seconds from now; one of ours was issued an hour ago, with this end.
    fn pin(self, expires: Option<i64>, ours: bool) -> User {
        self.pin_of(expires, ours.then_some(3600))
    }
    /// The same, issued by us so many seconds ago.
    fn pin_of(mut self, expires: Option<i64>, age: Option<i64>) -> User {
        let value = PinFormat::Md5.encode(&crate::domain::Pin::new(format!("{}", self.pins.len())));
        let expires = expires.map(|s| WallClock(NOW.wall.0 + s));
        let issued = age.map(|age| Timestamp(NOW.utc.0 - age));
        self.pins.push(StoredPin { value, expires, issued, foreseen: age.is_some() });
        self
    }
    fn login(mut self, login: &str) -> User {
        self.login = login.into();
        self
    }
    fn email(mut self, email: &str) -> User {
        self.email = email.into();
        self
    }
    fn at(mut self, place: Membership) -> User {
        self.cost_center = place;
        self
    }
    fn has(mut self, role: RoleId) -> User {
        self.roles.push(role);
        self
    }
    fn is(mut self, standing: Standing) -> User {
        self.standing = standing;
        self
    }
    fn code(mut self) -> User {
        self.code = Some(StoredValue::new("code".into()));
        self
    }
    /// A password; one of ours was issued so many seconds ago.
    fn password(mut self, age: Option<i64>) -> User {
        let issued = age.map(|age| Timestamp(NOW.utc.0 - age));
        self.password = Some(StoredPassword { value: StoredValue::new("hash".into()), issued });
        self
    }
    fn card(mut self) -> User {
        self.cards += 1;
        self
    }
}

fn places() -> Places {
    let place =
        |m: Membership, name: &str| (CostCenterRef::Name(name.into()), Some(CostCenter { id: m.id, number: m.number, name: name.into() }));
    let cost_centers = BTreeMap::from([place(NEEDS, "Needs PIN"), place(HAS, "Has PIN"), (CostCenterRef::Name("Gone".into()), None)]);
    let role = |id: RoleId, name: &str| (RoleRef::Name(name.into()), Some(Role { id, name: name.into() }));
    let roles = BTreeMap::from([role(VISITOR, "Visitor"), role(ADMIN, "Admin"), (RoleRef::Name("Lost".into()), None)]);
    Places { cost_centers, roles }
}

fn due(pin: Option<Reason>, cost_center: Option<Reason>, touched: u8, unexpected: u8) -> Verdict {
    let need = Need { cost_center, ..Need::default() };
    Verdict::Due(Step { also: Also::of(&need, false), ..step(7, pin, touched, unexpected) })
}

fn loses_also() -> Also {
    Also::of(&Need { role: Some(Reason::RoleHeld), ..Need::default() }, false)
}

/// Due for a removal of a role too.
fn loses(pin: Option<Reason>, cost_center: Option<Reason>) -> Verdict {
    let need = Need { cost_center, role: Some(Reason::RoleHeld), ..Need::default() };
    Verdict::Due(Step { also: Also::of(&need, false), ..step(7, pin, 0, 0) })
}

fn of_second(verdict: Verdict) -> Verdict {
    let Verdict::Due(step) = verdict else { panic!("{verdict:?}") };
    Verdict::Due(Step { policy: 1, ..step })
}

fn acts(action: PinAction, reason: Reason, touched: u8, unexpected: u8) -> Verdict {
    let pin = Some(PinStep { action, reason });
    Verdict::Due(Step { pin, ..step(7, None, touched, unexpected) })
}

fn issue() -> Verdict {
    due(Some(Reason::PinMissing), None, 0, 0)
}

fn skipped(skip: Skip) -> Verdict {
    Verdict::Skipped { policy: 0, skip }
}

const SETTLED: Verdict = Verdict::Settled { policy: 0 };

#[test]
fn the_table() {
    use PinAction::{Delete, Expire, Extend};
    use PinRewrite::{Always, Expired, Extend as Longer, Never};
    use Reason::{CostCenterDiffers, PinAged, PinExpired, PinMissing, PinRewritten, PinUnlimited, PolicyLeft};
    let none = Facts::default;
    let visitors = || policy("visitors").from("Needs PIN").to("Has PIN");
    let kept = || Facts { keeper: Some(PolicyName("visitors".into())), ..Facts::default() };
    let move_only = || policy("p").without_pin().to("Has PIN");
    let extends = || policy("p").pins(|r| r.rewrite = Longer);
    let caps = |rewrite| policy("p").pins(|r| (r.rewrite, r.cap_unlimited) = (rewrite, true));
    let rotates = |rewrite| policy("p").rewriting(rewrite).pins(|r| r.rotate_every = Some(Duration::from_secs(7200)));
    let leaves = |on_leave| policy("left").for_logins("x").pins(|r| r.on_leave = on_leave);
    let left = || Facts { keeper: Some(PolicyName("left".into())), ..Facts::default() };
    let takes = || policy("takes").with_role("Visitor").removing("Visitor");
    let kept_by = |name: &str| Facts { keeper: Some(PolicyName(name.into())), ..Facts::default() };
    let places_are_taken_in_turns =
        || vec![policy("back").from("Has PIN").to("Needs PIN"), policy("forth").from("Needs PIN").to("Has PIN")];
    // Python would search for years.
    const ENDLESS: &str = r"(a+)+\1b";
    let long = "a".repeat(60);
    #[rustfmt::skip]
    let table: Vec<(&str, Vec<Policy>, User, Facts, Verdict)> = vec![
        ("a user without a PIN gets one", vec![policy("p")], user(), none(), issue()),
        ("a card is not a PIN", vec![policy("p")], user().card(), none(), issue()),
        ("a valid PIN settles", vec![policy("p").rewriting(Expired)], user().pin(Some(1), false), none(), SETTLED),
        ("a PIN that never expires settles", vec![policy("p").rewriting(Expired)], user().pin(None, false), none(), SETTLED),
        ("with Never an expired PIN settles", vec![policy("p").rewriting(Never)], user().pin(Some(-9), false), none(), SETTLED),
        ("with Expired an expired PIN is replaced", vec![policy("p").rewriting(Expired)], user().pin(Some(-9), false), none(), due(Some(PinExpired), None, 1, 1)),
        ("a PIN expires in the very second", vec![policy("p").rewriting(Expired)], user().pin(Some(0), false), none(), due(Some(PinExpired), None, 1, 1)),
        ("one of two PINs expired: both go", vec![policy("p").rewriting(Expired)], user().pin(Some(-9), false).pin(None, false), none(), due(Some(PinExpired), None, 2, 2)),
        ("the end that our ledger foresaw is expected", vec![policy("p").rewriting(Expired)], user().pin(Some(-9), true), none(), due(Some(PinExpired), None, 1, 0)),
        ("a valid PIN of ours that goes with an expired one is not expected", vec![policy("p").rewriting(Expired)], user().pin(Some(-9), true).pin(Some(9), true), none(), due(Some(PinExpired), None, 2, 1)),
        ("a visitor gets a PIN and is moved", vec![visitors()], user(), none(), due(Some(PinMissing), Some(CostCenterDiffers), 0, 0)),
        ("a visitor who has a PIN is only moved", vec![visitors()], user().pin(None, false), none(), due(None, Some(CostCenterDiffers), 0, 0)),
        ("who is elsewhere is no visitor", vec![visitors()], user().at(HAS), none(), Verdict::Untouched(Untouched::NoPolicy)),
        ("half in place is moved again", vec![move_only()], user().at(Membership { id: HAS.id, number: 7 }), none(), due(None, Some(CostCenterDiffers), 0, 0)),
        ("in place is settled", vec![move_only()], user().at(HAS), none(), SETTLED),
        ("a keeper renews after its own move", vec![visitors().rewriting(Expired)], user().at(HAS).pin(Some(-9), true), kept(), due(Some(PinExpired), None, 1, 0)),
        ("a keeper neither issues anew nor moves", vec![visitors().rewriting(Expired)], user().at(Membership { id: CostCenterId(9), number: 9 }), kept(), SETTLED),
        ("a later policy does not take a kept user", vec![visitors(), policy("all")], user().at(HAS), kept(), SETTLED),
        ("an earlier policy takes a kept user", vec![policy("all"), visitors()], user().at(HAS), kept(), issue()),
        ("a policy whose match its own action does not end keeps nobody", vec![policy("visitors").for_logins("x").rewriting(Expired)], user().pin(Some(-9), true), kept(), Verdict::Untouched(Untouched::NoPolicy)),
        ("the keeper's policy is gone", vec![policy("other").for_logins("x")], user().at(HAS), kept(), Verdict::Untouched(Untouched::NoPolicy)),
        ("the first policy that matches owns", vec![policy("p").for_logins("visitor@.*"), policy("q")], user(), none(), issue()),
        ("a pattern matches the whole login", vec![policy("p").for_logins("visitor")], user(), none(), Verdict::Untouched(Untouched::NoPolicy)),
        ("a policy that asks for nothing excludes", vec![policy("p").without_pin(), policy("q")], user(), none(), Verdict::Untouched(Untouched::Excluded)),
        ("a role is nobody", vec![policy("p")], user().is(Standing::NotAUser), none(), Verdict::Untouched(Untouched::NotAUser)),
        ("a deleted user is left alone", vec![policy("p")], user().is(Standing::Deleted), none(), Verdict::Untouched(Untouched::Deleted)),
        ("the template is left alone", vec![policy("p")], user().is(Standing::Template), none(), Verdict::Untouched(Untouched::Template)),
        ("a user on hold waits for release", vec![policy("p")], user(), Facts { held: true, ..none() }, skipped(Skip::Held)),
        ("an open issuance is delivered first", vec![policy("p")], user(), Facts { open: true, ..none() }, skipped(Skip::DeliveryPending)),
        ("a settled user on hold is settled", vec![policy("p")], user().pin(None, false), Facts { held: true, ..none() }, SETTLED),
        ("two generations keep their distance", vec![policy("p")], user(), Facts { last_generated: Some(Timestamp(NOW.utc.0 - 119)), ..none() }, skipped(Skip::TooSoon)),
        ("after min_interval the next one may come", vec![policy("p")], user(), Facts { last_generated: Some(Timestamp(NOW.utc.0 - 120)), ..none() }, issue()),
        ("a missing cost center blocks its policy", vec![policy("p").to("Gone")], user(), none(), skipped(Skip::Blocked)),
        ("without an address nothing is made", vec![policy("p").telling(Recipient::Email)], user(), none(), skipped(Skip::NoAddress)),
        ("with a bad address nothing is made", vec![policy("p").telling(Recipient::Email)], user().email("a@b.cz, c@d.cz"), none(), skipped(Skip::BadAddress)),
        ("a login that is no address cannot be told", vec![policy("p")], user().login("jdoe"), none(), skipped(Skip::BadAddress)),
        ("a fixed address serves everybody", vec![policy("p").telling(Recipient::Fixed(Mailbox::parse("a@b.cz").unwrap()))], user().login("jdoe"), none(), issue()),
        ("nobody needs to be told on purpose", vec![policy("p").telling(Recipient::Nobody)], user().login("jdoe"), none(), issue()),
        ("with Extend a user without a PIN gets one", vec![extends()], user(), none(), issue()),
        ("with Extend an expired PIN keeps its digits", vec![extends()], user().pin(Some(-9), false), none(), acts(Extend, PinExpired, 1, 1)),
        ("with Extend only the expired one of two", vec![extends()], user().pin(Some(-9), false).pin(Some(9), false), none(), acts(Extend, PinExpired, 1, 1)),
        ("with Extend both expired ones", vec![extends()], user().pin(Some(-9), false).pin(Some(0), true), none(), acts(Extend, PinExpired, 2, 1)),
        ("with Extend a valid PIN settles", vec![extends()], user().pin(Some(1), false).pin(None, false), none(), SETTLED),
        ("an extension needs no address", vec![extends().telling(Recipient::Email)], user().pin(Some(-9), false), none(), acts(Extend, PinExpired, 1, 1)),
        ("an extension does not wait for min_interval", vec![extends()], user().pin(Some(-9), false), Facts { last_generated: Some(NOW.utc), ..none() }, acts(Extend, PinExpired, 1, 1)),
        ("an extension waits for an open mail", vec![extends()], user().pin(Some(-9), false), Facts { open: true, ..none() }, skipped(Skip::DeliveryPending)),
        ("a user on hold is not extended", vec![extends()], user().pin(Some(-9), false), Facts { held: true, ..none() }, skipped(Skip::Held)),
        ("with Always a valid PIN is replaced", vec![policy("p").rewriting(Always)], user().pin(None, false), none(), due(Some(PinRewritten), None, 1, 1)),
        ("with Always two PINs are replaced", vec![policy("p").rewriting(Always)], user().pin(None, true).pin(Some(9), false), none(), due(Some(PinRewritten), None, 2, 2)),
        ("with Always a user without a PIN gets one", vec![policy("p").rewriting(Always)], user(), none(), issue()),
        ("with Always an expired PIN of ours is an expected renewal", vec![policy("p").rewriting(Always)], user().pin(Some(-9), true), none(), due(Some(PinExpired), None, 1, 0)),
        ("with Always and a marker the user is moved too", vec![visitors().rewriting(Always)], user().pin(None, false), none(), due(Some(PinRewritten), Some(CostCenterDiffers), 1, 1)),
        ("a keeper with Always leaves a valid PIN", vec![visitors().rewriting(Always)], user().at(HAS).pin(None, true), kept(), SETTLED),
        ("a keeper with Always renews", vec![visitors().rewriting(Always)], user().at(HAS).pin(Some(-9), true), kept(), due(Some(PinExpired), None, 1, 0)),
        ("with an age, Always leaves a young PIN of ours", vec![rotates(Always)], user().pin_of(Some(9), Some(7199)), none(), SETTLED),
        ("with an age, Always replaces a PIN of others", vec![rotates(Always)], user().pin(Some(9), false), none(), due(Some(PinRewritten), None, 1, 1)),
        ("an old PIN of ours is rotated, as foreseen", vec![rotates(Never)], user().pin_of(None, Some(7200)), none(), due(Some(PinAged), None, 1, 0)),
        ("one that has been old for long is not foreseen", vec![rotates(Never)], user().pin_of(None, Some(7200 + 4 * 86_400)), none(), due(Some(PinAged), None, 1, 1)),
        ("a young one is not", vec![rotates(Never)], user().pin_of(None, Some(7199)), none(), SETTLED),
        ("of a PIN of others no age is known", vec![rotates(Never)], user().pin(None, false), none(), SETTLED),
        ("a PIN of others goes with an old one of ours", vec![rotates(Expired)], user().pin_of(None, Some(9000)).pin(None, false), none(), due(Some(PinAged), None, 2, 1)),
        ("age goes before an extension", vec![rotates(Longer)], user().pin_of(Some(-9), Some(7200)), none(), due(Some(PinAged), None, 1, 0)),
        ("a rotation keeps its distance too", vec![rotates(Never)], user().pin_of(None, Some(7200)), Facts { last_generated: Some(NOW.utc), ..none() }, skipped(Skip::TooSoon)),
        ("a PIN without an end is capped", vec![caps(Never)], user().pin(None, false), none(), acts(Extend, PinUnlimited, 1, 1)),
        ("a cap leaves a PIN with an end", vec![caps(Never)], user().pin(Some(-9), false), none(), SETTLED),
        ("a new PIN goes before a cap", vec![caps(Expired)], user().pin(None, false).pin(Some(-9), false), none(), due(Some(PinExpired), None, 2, 2)),
        ("an extension caps as well", vec![caps(Longer)], user().pin(None, false).pin(Some(-9), true), none(), acts(Extend, PinExpired, 2, 1)),
        ("without a cap it does not", vec![extends()], user().pin(None, false).pin(Some(-9), true), none(), acts(Extend, PinExpired, 1, 0)),
        ("a keeper caps", vec![visitors().pins(|r| r.cap_unlimited = true)], user().at(HAS).pin(None, true), kept(), acts(Extend, PinUnlimited, 1, 1)),
        ("who left keeps the PIN", vec![leaves(OnLeave::Keep)], user().pin(None, true), left(), Verdict::Untouched(Untouched::NoPolicy)),
        ("who left loses a PIN of ours by its end", vec![leaves(OnLeave::Expire)], user().pin(Some(9), true), left(), acts(Expire, PolicyLeft, 1, 1)),
        ("one that has ended needs no other end", vec![leaves(OnLeave::Expire)], user().pin(Some(0), true), left(), Verdict::Untouched(Untouched::NoPolicy)),
        ("who left loses the PIN of ours and no other", vec![leaves(OnLeave::Delete)], user().pin(Some(-9), true).pin(None, false), left(), acts(Delete, PolicyLeft, 1, 1)),
        ("a PIN of others stays", vec![leaves(OnLeave::Delete)], user().pin(None, false), left(), Verdict::Untouched(Untouched::NoPolicy)),
        ("who never belonged loses nothing", vec![leaves(OnLeave::Delete)], user().pin(None, true), none(), Verdict::Untouched(Untouched::NoPolicy)),
        ("who went to another policy has not left", vec![leaves(OnLeave::Delete), policy("q")], user().pin(None, true), left(), Verdict::Settled { policy: 1 }),
        ("who is excluded has not left", vec![leaves(OnLeave::Delete), policy("q").without_pin()], user().pin(None, true), left(), Verdict::Untouched(Untouched::Excluded)),
        ("a user on hold loses nothing", vec![leaves(OnLeave::Delete)], user().pin(None, true), Facts { held: true, ..left() }, skipped(Skip::Held)),
        ("a cost center that was renamed is no leaving", vec![leaves(OnLeave::Delete).from("Gone")], user().pin(None, true), left(), skipped(Skip::Blocked)),
        ("nor is one that another policy names", vec![leaves(OnLeave::Delete), policy("q").from("Gone")], user().pin(None, true), left(), skipped(Skip::Blocked)),
        ("of two policies that take turns the earlier one keeps its users", places_are_taken_in_turns(), user().at(HAS).pin(None, false), none(), due(None, Some(CostCenterDiffers), 0, 0)),
        ("and the later one is refused", places_are_taken_in_turns(), user().pin(None, false), none(), Verdict::Failed { policy: 1, failure: Failure::PoliciesDisagree }),
        ("a move that an earlier policy would go on with is refused", vec![policy("on").from("Has PIN").to("Needs PIN"), policy("p").to("Has PIN")], user().at(OTHER).pin(None, false), none(), Verdict::Failed { policy: 1, failure: Failure::PoliciesDisagree }),
        ("a move to where an earlier policy is content is none", vec![policy("there").from("Has PIN"), policy("p").to("Has PIN")], user(), none(), of_second(due(Some(PinMissing), Some(CostCenterDiffers), 0, 0))),
        ("an earlier policy that would cap what this one issues is refused", vec![caps(Never).from("Has PIN"), policy("p").to("Has PIN")], user(), none(), Verdict::Failed { policy: 1, failure: Failure::PoliciesDisagree }),
        ("by user name the first pattern that matches decides", vec![policy("p").without_pin().by_name(&[("x", "Gone2"), ("visitor@.*", "Has PIN"), ("", "Needs PIN")])], user(), none(), skipped(Skip::Blocked)),
        ("where all its cost centers are there", vec![policy("p").without_pin().by_name(&[("x", "Needs PIN"), ("visitor@.*", "Has PIN"), ("", "Needs PIN")])], user(), none(), due(None, Some(CostCenterDiffers), 0, 0)),
        ("whom no pattern matches is not moved", vec![policy("p").without_pin().by_name(&[("x", "Has PIN")])], user(), none(), SETTLED),
        ("who is where the name says is settled", vec![policy("p").without_pin().by_name(&[("visitor@.*", "Needs PIN"), ("", "Has PIN")])], user(), none(), SETTLED),
        ("a name that cannot be decided fails", vec![policy("p").without_pin().by_name(&[(ENDLESS, "Has PIN")])], user().login(&long), none(), Verdict::Failed { policy: 0, failure: Failure::PatternSteps }),
        ("a move by name that an earlier policy would go on with is refused", vec![policy("on").from("Has PIN").to("Needs PIN"), policy("p").by_name(&[("visitor@.*", "Has PIN")])], user().at(OTHER).pin(None, false), none(), Verdict::Failed { policy: 1, failure: Failure::PoliciesDisagree }),
        ("by name too, a policy that moves its users out of its match keeps them", vec![visitors().by_name(&[("", "Has PIN")]).rewriting(Expired)], user().at(HAS).pin(Some(-9), true), kept(), due(Some(PinExpired), None, 1, 0)),
        ("a pattern that cannot be decided makes the user fail under its policy", vec![policy("q").for_logins("x"), policy("p").for_logins(ENDLESS), policy("r")], user().login(&long), none(), Verdict::Failed { policy: 1, failure: Failure::PatternSteps }),
        ("unless an earlier policy owns the user", vec![policy("q").telling(Recipient::Nobody), policy("p").for_logins(ENDLESS)], user().login(&long), none(), issue()),
        ("or another condition of the policy fails", vec![policy("p").for_logins(ENDLESS).from("Has PIN"), policy("r").telling(Recipient::Nobody)], user().login(&long), none(), Verdict::Due(Step { policy: 1, ..step(7, Some(PinMissing), 0, 0) })),
        ("who has the role gets a PIN and loses the role", vec![takes()], user().has(VISITOR), none(), loses(Some(PinMissing), None)),
        ("with everything at once", vec![takes().to("Has PIN")], user().has(VISITOR), none(), loses(Some(PinMissing), Some(CostCenterDiffers))),
        ("who has a PIN only loses the role, with no address", vec![takes().telling(Recipient::Email)], user().has(VISITOR).pin(None, false), none(), loses(None, None)),
        ("who has not the role is nobody's", vec![takes()], user().has(ADMIN), none(), Verdict::Untouched(Untouched::NoPolicy)),
        ("a role is removed from who has it", vec![policy("p").without_pin().removing("Visitor")], user().has(VISITOR), none(), loses(None, None)),
        ("who has it not is settled", vec![policy("p").without_pin().removing("Visitor")], user().has(ADMIN), none(), SETTLED),
        ("a policy that only removes a role excludes nobody", vec![policy("p").without_pin().removing("Visitor"), policy("q")], user(), none(), SETTLED),
        ("a policy that took its role keeps its users", vec![takes().rewriting(Expired)], user().pin(Some(-9), true), kept_by("takes"), due(Some(PinExpired), None, 1, 0)),
        ("and removes nothing from those it keeps", vec![takes().from("Has PIN")], user().has(VISITOR).pin(None, true), kept_by("takes"), SETTLED),
        ("one of several roles that it demands may end its match too", vec![takes().with_role("Admin").rewriting(Expired)], user().pin(Some(-9), true), kept_by("takes"), due(Some(PinExpired), None, 1, 0)),
        ("who has another one of them still matches", vec![takes().with_role("Admin").rewriting(Expired)], user().has(ADMIN), kept_by("takes"), issue()),
        ("so does a move of some of its users", vec![policy("visitors").from("Needs PIN").by_name(&[("x", "Needs PIN"), ("", "Has PIN")]).rewriting(Expired)], user().at(HAS).pin(Some(-9), true), kept(), due(Some(PinExpired), None, 1, 0)),
        ("with Always and a role that goes", vec![takes().rewriting(Always)], user().has(VISITOR).pin(None, false), none(), Verdict::Due(Step { also: loses_also(), ..step(7, Some(PinRewritten), 1, 1) })),
        ("a missing role blocks its policy", vec![policy("p").removing("Lost")], user(), none(), skipped(Skip::Blocked)),
        ("one that is excluded too", vec![policy("p").without_role("Lost")], user(), none(), skipped(Skip::Blocked)),
        ("a role that was renamed is no leaving", vec![leaves(OnLeave::Delete).with_role("Lost")], user().pin(None, true), left(), skipped(Skip::Blocked)),
        ("a removal that an earlier policy would go on after is refused", vec![policy("on").without_role("Visitor").pins(|r| r.cap_unlimited = true), takes()], user().has(VISITOR).pin(None, false), none(), Verdict::Failed { policy: 1, failure: Failure::PoliciesDisagree }),
        ("after a removal an earlier policy may be content", vec![policy("on").without_role("Visitor"), takes()], user().has(VISITOR), none(), of_second(loses(Some(PinMissing), None))),
        ("of two that pass a user on in turn, the second waits for its role", vec![policy("back").from("Needs PIN").without_role("Visitor").to("Has PIN"), takes()], user().has(VISITOR), none(), Verdict::Failed { policy: 1, failure: Failure::PoliciesDisagree }),
        ("a move alone needs no address", vec![move_only().telling(Recipient::Email)], user(), none(), due(None, Some(CostCenterDiffers), 0, 0)),
    ];
    let places = places();
    for (sentence, policies, user, facts, expected) in table {
        let planner = Planner::new(&policies, &places, NOW);
        assert_eq!(planner.verdict(&user, &facts), expected, "{sentence}");
    }
}

#[test]
fn an_end_comes_earlier_by_each_users_own_share() {
    let spread = Duration::from_secs(10 * 86_400);
    let policies = [policy("p").pins(|r| r.spread = spread)];
    let places = places();
    let planner = Planner::new(&policies, &places, NOW);
    let end = |id: i64| planner.expiry(0, &User { id: crate::domain::UserId(id), ..user() }).unwrap().0 - NOW.wall.0;
    let ends: std::collections::BTreeSet<i64> = (0..1000).map(end).collect();
    assert!(ends.len() > 990, "only {} different ends", ends.len());
    assert!(ends.iter().all(|end| (20 * 86_400..=30 * 86_400).contains(end)));
    assert_eq!(end(7), end(7), "and always by the same");
}

#[test]
fn codes_and_passwords_are_given_by_their_rules() {
    let places = places();
    let plain = || policy("p").without_pin();
    let told = |verdict: Verdict| match verdict {
        Verdict::Due(step) => {
            let codes: Vec<&str> = step.reasons().map(Reason::as_str).collect();
            let replaced: Vec<u64> = Credential::ALL.into_iter().map(|kind| step.replaces(kind)).collect();
            format!("{} {replaced:?}{}", codes.join(","), if step.is_expected() { " expected" } else { "" })
        }
        Verdict::Settled { .. } => "settled".to_owned(),
        other => format!("{other:?}"),
    };
    let kept = || Facts { keeper: Some(PolicyName("p".into())), ..Facts::default() };
    let none = Facts::default;
    const DAYS: i64 = 86_400;
    let (never, always) = (Rewrite::Never, Rewrite::Always);
    let both = || policy("p").coded(never).with_password(never, None);
    #[rustfmt::skip]
    let table = [
        ("a user without a code gets one", plain().coded(never), user(), none(), "code_missing [0, 0, 0]"),
        ("one that is there satisfies never", plain().coded(never), user().code(), none(), "settled"),
        ("always replaces it", plain().coded(always), user().code(), none(), "code_rewritten [0, 1, 0]"),
        ("a user without a password gets one", plain().with_password(never, None), user(), none(), "password_missing [0, 0, 0]"),
        ("any password satisfies never", plain().with_password(never, None), user().password(None), none(), "settled"),
        ("always replaces it too", plain().with_password(always, None), user().password(Some(9)), none(), "password_rewritten [0, 0, 1]"),
        ("always with an age leaves a young one of ours", plain().with_password(always, Some(100)), user().password(Some(9)), none(), "settled"),
        ("and replaces that of somebody else", plain().with_password(always, Some(100)), user().password(None), none(), "password_rewritten [0, 0, 1]"),
        ("one of ours that is old is renewed, as foreseen", plain().with_password(never, Some(100)), user().password(Some(100)), none(), "password_aged [0, 0, 0] expected"),
        ("one that has been old for days counts towards the limits", plain().with_password(never, Some(100)), user().password(Some(100 + 4 * DAYS)), none(), "password_aged [0, 0, 1]"),
        ("the age of somebody else's is not known", plain().with_password(never, Some(100)), user().password(None), none(), "settled"),
        ("everything comes in one step", both(), user(), none(), "pin_missing,code_missing,password_missing [0, 0, 0]"),
        ("what is there is left alone", both(), user().pin(None, false).password(None), none(), "code_missing [0, 0, 0]"),
        ("a foreseen renewal with a code is not expected", both().rewriting(PinRewrite::Expired), user().pin(Some(-9), true).password(None), none(), "pin_expired,code_missing [0, 0, 0]"),
        ("with a move, too", both().to("Has PIN"), user().pin(None, false).password(None).code(), none(), "cost_center_differs [0, 0, 0]"),
        ("a keeper gives none where there is none", both().from("Needs PIN").to("Has PIN"), user().at(HAS), kept(), "settled"),
        ("and renews an old password", plain().with_password(never, Some(100)).from("Needs PIN").to("Has PIN"), user().at(HAS).password(Some(100)), kept(), "password_aged [0, 0, 0] expected"),
    ];
    for (sentence, policy, user, facts, expected) in table {
        let policies = [policy];
        assert_eq!(told(Planner::new(&policies, &places, NOW).verdict(&user, &facts)), expected, "{sentence}");
    }
}

#[test]
fn what_is_packed_into_a_step_comes_out_again() {
    use Reason::{CodeMissing, CodeRewritten, CostCenterDiffers, PasswordAged, PasswordMissing, PasswordRewritten};
    let passwords = [None, Some(PasswordMissing), Some(PasswordRewritten), Some(PasswordAged)];
    for code in [None, Some(CodeMissing), Some(CodeRewritten)] {
        for (reason, foreseen) in passwords.iter().flat_map(|reason| [(*reason, false), (*reason, true)]) {
            for (cost_center, tells) in [(None, false), (None, true), (Some(CostCenterDiffers), false), (Some(CostCenterDiffers), true)] {
                let password = reason.map(|reason| PasswordStep { reason, foreseen });
                let need = Need { code, password, cost_center, ..Need::default() };
                let step = Step { also: Also::of(&need, tells), ..step(7, None, 0, 0) };
                assert_eq!((step.code(), step.password(), step.cost_center(), step.tells_existing()), (code, reason, cost_center, tells));
                let replaced = reason == Some(PasswordRewritten) || (reason == Some(PasswordAged) && !foreseen);
                assert_eq!(step.replaces(Credential::Password), u64::from(replaced), "{reason:?}, foreseen: {foreseen}");
            }
        }
    }
}

#[test]
fn a_step_is_covered_only_by_one_that_asks_for_as_much() {
    let places = places();
    let step = |policy: Policy, user: User| match Planner::new(&[policy], &places, NOW).verdict(&user, &Facts::default()) {
        Verdict::Due(step) => step,
        other => panic!("{other:?}"),
    };
    let both = || policy("p").coded(Rewrite::Never).with_password(Rewrite::Always, None);
    let (all, less) = (step(both(), user()), step(both(), user().code().pin(None, false).password(None)));
    assert!(all.covers(&all) && !less.covers(&all));
    assert!(!all.covers(&less), "a password that somebody has set meanwhile is not what was judged");
    let code_only = step(policy("p").coded(Rewrite::Never), user().pin(None, false));
    assert!(step(policy("p").coded(Rewrite::Never), user()).covers(&code_only));
}

#[test]
fn a_pin_that_is_there_is_told_with_whatever_else_changes() {
    let places = places();
    let tells = || policy("p").pins(|rule| rule.send_existing = true);
    let told = |policy: Policy, user: User| match Planner::new(&[policy], &places, NOW).verdict(&user, &Facts::default()) {
        Verdict::Due(step) => Some(step.tells_existing()),
        Verdict::Settled { .. } => None,
        other => panic!("{other:?}"),
    };
    #[rustfmt::skip]
    let table = [
        ("nothing else: no mail", tells(), user().pin(None, false), None),
        ("a password: with it", tells().with_password(Rewrite::Never, None), user().pin(None, false), Some(true)),
        ("a move: with it", tells().to("Has PIN"), user().pin(Some(9), false), Some(true)),
        ("one that has expired is not told", tells().to("Has PIN"), user().pin(Some(-9), false), Some(false)),
        ("one that is extended is told", tells().rewriting(PinRewrite::Extend), user().pin(Some(-9), false), Some(true)),
        ("a new one takes its place", tells().rewriting(PinRewrite::Expired), user().pin(Some(-9), false), Some(false)),
        ("without the option it is not told", policy("p").to("Has PIN"), user().pin(None, false), Some(false)),
    ];
    for (sentence, policy, user, expected) in table {
        assert_eq!(told(policy, user), expected, "{sentence}");
    }
    let without_address =
        Planner::new(&[tells().to("Has PIN")], &places, NOW).verdict(&user().login("nobody").pin(None, false), &Facts::default());
    assert_eq!(without_address, skipped(Skip::BadAddress), "whoever is to be told must have an address");
}

#[test]
fn an_expected_renewal_counts_towards_no_limit_and_a_removal_does() {
    let totals = |policies: Vec<Policy>, user: User, facts: Facts| {
        let places = places();
        let mut plan = Plan::new(&policies);
        plan.add(Planner::new(&policies, &places, NOW).verdict(&user, &facts));
        (plan.totals[0].due, plan.totals[0].judged, plan.totals[0].replaced[Credential::Pin])
    };
    let extends = || policy("p").pins(|r| r.rewrite = PinRewrite::Extend);
    let leaves = || policy("p").for_logins("x").pins(|r| r.on_leave = OnLeave::Expire);
    let left = || Facts { keeper: Some(PolicyName("p".into())), ..Facts::default() };
    for (sentence, found, expected) in [
        ("an extension that was foreseen", totals(vec![extends()], user().pin(Some(-9), true), Facts::default()), (1, 0, 0)),
        ("another extension replaces nothing", totals(vec![extends()], user().pin(Some(-9), false), Facts::default()), (1, 1, 0)),
        ("an end for who left takes a PIN away", totals(vec![leaves()], user().pin(None, true), left()), (1, 1, 1)),
        (
            "a new PIN for everybody",
            totals(vec![policy("p").rewriting(PinRewrite::Always)], user().pin(None, true), Facts::default()),
            (1, 1, 1),
        ),
    ] {
        assert_eq!(found, expected, "{sentence}");
    }
}

mod linting {
    use super::super::lint::{endless, warnings};
    use super::*;

    fn excluded(mut policy: Policy, places: &[&str]) -> Policy {
        policy.selector.not_cost_center = places.iter().map(|name| CostCenterRef::Name((*name).into())).collect();
        policy
    }

    #[test]
    fn what_can_never_happen_is_told() {
        let all = |change: fn(&mut PinRule)| policy("p").pins(change);
        let table: Vec<(&str, Vec<Policy>, Option<&str>)> = vec![
            ("a plain policy", vec![policy("p")], None),
            (
                "after one for everybody",
                vec![policy("all"), policy("p").for_logins("x")],
                Some("policy p: never owns a user, because all before it"),
            ),
            (
                "after one for the same people",
                vec![policy("a").for_logins("x"), policy("p").for_logins("x").from("A")],
                Some("policy p: never owns"),
            ),
            ("after one for other people", vec![policy("a").for_logins("x"), policy("p").for_logins("y")], None),
            ("after one for fewer people", vec![policy("a").from("A"), policy("p")], None),
            (
                "after one that excludes what this one does too",
                vec![excluded(policy("a"), &["A"]), excluded(policy("p"), &["A", "B"])],
                Some("never owns"),
            ),
            ("after one that excludes more", vec![excluded(policy("a"), &["A", "B"]), excluded(policy("p"), &["A"])], None),
            ("never with an end", vec![all(|_| {})], Some("expire and are never renewed")),
            ("never with an end and an age", vec![all(|r| r.rotate_every = Some(Duration::from_secs(9)))], None),
            (
                "never with an end before the age",
                vec![all(|r| r.rotate_every = Some(Duration::from_secs(31 * 86_400)))],
                Some("stay so until they are rotated"),
            ),
            ("expired without an end", vec![policy("p").rewriting(PinRewrite::Expired)], Some("renews only those of others")),
            (
                "an age beyond the end",
                vec![all(|r| (r.rewrite, r.rotate_every) = (PinRewrite::Expired, r.valid_for))],
                Some("never rotated"),
            ),
            (
                "a leave that nobody takes",
                vec![all(|r| (r.rewrite, r.on_leave) = (PinRewrite::Expired, OnLeave::Delete)).from("A").to("B")],
                Some("never acts"),
            ),
            (
                "two that take turns",
                vec![policy("a").for_logins("x").from("B").to("A"), policy("p").from("A").to("B")],
                Some("where a may move them on"),
            ),
            ("after one for the same role", vec![policy("a").with_role("R"), policy("p").with_role("R").from("A")], Some("never owns")),
            ("after one for another role", vec![policy("a").with_role("R"), policy("p").with_role("S")], None),
            ("after one that excludes a role", vec![policy("a").without_role("R"), policy("p")], None),
            (
                "two that take turns, were it not for the role",
                vec![
                    policy("a").for_logins("x").with_role("R").from("B").to("A"),
                    policy("p").with_role("R").removing("R").from("A").to("B"),
                ],
                None,
            ),
            (
                "nor for a role that the earlier one excludes",
                vec![policy("a").for_logins("x").without_role("R").from("B").to("A"), policy("p").with_role("R").from("A").to("B")],
                None,
            ),
            ("one that moves to where another is content", vec![policy("a").for_logins("x").to("B"), policy("p").from("A").to("B")], None),
        ];
        for (sentence, policies, expected) in table {
            let told = warnings(&policies).join("\n");
            match expected {
                None => assert_eq!(told, "", "{sentence}"),
                Some(part) => assert!(told.contains(part) && told.lines().count() == 1, "{sentence}: {told}"),
            }
        }
    }

    #[test]
    fn a_daemon_runs_no_policy_without_an_end() {
        let always = || policy("p").rewriting(PinRewrite::Always);
        assert_eq!(
            endless(&[policy("p"), always().from("A").to("B"), always().pins(|r| r.rotate_every = Some(Duration::from_secs(9)))]),
            [""; 0]
        );
        let told = endless(&[always()]);
        assert!(told[0].starts_with("policy p: rewrite: always gives everybody a new credential in each pass"), "{told:?}");
        assert_eq!(endless(&[always().to("B")]).len(), 1, "a move that the match does not read ends nothing");
        assert_eq!(endless(&[always().from("A").by_name(&[("x", "B")])]).len(), 1, "whom no pattern matches stays");
        assert_eq!(endless(&[always().from("A").by_name(&[("x", "B"), ("", "C")])]), [""; 0]);
        assert_eq!(endless(&[always().with_role("R").removing("R")]), [""; 0]);
        assert_eq!(endless(&[always().removing("R")]).len(), 1, "a removal that the match does not read ends nothing");
        assert_eq!(endless(&[always().with_role("R").with_role("S").removing("R")]).len(), 1, "who has the other role still matches");
    }
}

#[test]
fn a_pilot_holds_back_whom_it_does_not_name() {
    let named = |logins: &[&str], cost_center: &[&str]| Pilot {
        logins: logins.iter().map(|login| (*login).to_owned()).collect(),
        cost_center: cost_center.iter().map(|name| CostCenterRef::Name((*name).into())).collect(),
    };
    let held = Facts { held: true, ..Facts::default() };
    let (places, policies) = (places(), [policy("p").rewriting(PinRewrite::Expired)]);
    #[rustfmt::skip]
    let table = [
        ("a login of the pilot is served", named(&["visitor@example.org"], &[]), user(), Facts::default(), issue()),
        ("a login is compared exactly", named(&["Visitor@example.org"], &[]), user(), Facts::default(), skipped(Skip::HeldBack)),
        ("a member of the pilot's cost center is served", named(&[], &["Needs PIN"]), user(), Facts::default(), issue()),
        ("a member of another one is held back", named(&["x"], &["Has PIN"]), user(), Facts::default(), skipped(Skip::HeldBack)),
        ("a cost center that is not there covers nobody", named(&[], &["Gone"]), user(), Facts::default(), skipped(Skip::HeldBack)),
        ("whoever needs nothing is settled, not held back", named(&["x"], &[]), user().pin(None, false), Facts::default(), SETTLED),
        ("the pilot is asked before everything else", named(&["x"], &[]), user(), held.clone(), skipped(Skip::HeldBack)),
        ("a hold counts for those of the pilot too", named(&["visitor@example.org"], &[]), user(), held, skipped(Skip::Held)),
    ];
    for (sentence, pilot, user, facts, expected) in table {
        let planner = Planner::new(&policies, &places, NOW).with_pilot(Some(&pilot));
        assert_eq!(planner.verdict(&user, &facts), expected, "{sentence}");
    }
}

#[test]
fn selectors_tell_what_did_not_hold() {
    let places = places();
    let planner = Planner::new(&[], &places, NOW);
    let selector = |f: fn(&mut Selector)| {
        let mut s = Selector::default();
        f(&mut s);
        s
    };
    let needs = || CostCenterRef::Name("Needs PIN".into());
    let role = |name: &str| vec![RoleRef::Name(name.into())];
    let table: [(Selector, Option<Mismatch>); 10] = [
        (Selector::default(), None),
        (selector(|s| s.has_card = Some(true)), Some(Mismatch::HasCard)),
        (selector(|s| s.source = vec!["LDAP".into()]), Some(Mismatch::Source)),
        (selector(|s| s.cost_center = vec![CostCenterRef::Name("Gone".into())]), Some(Mismatch::CostCenter)),
        (Selector { not_cost_center: vec![needs()], ..Selector::default() }, Some(Mismatch::NotCostCenter)),
        (Selector { cost_center: vec![CostCenterRef::Name("Has PIN".into()), needs()], ..Selector::default() }, None),
        (Selector { role: [role("Admin"), role("Visitor")].concat(), ..Selector::default() }, None),
        (Selector { role: role("Admin"), ..Selector::default() }, Some(Mismatch::Role)),
        (Selector { role: role("Lost"), ..Selector::default() }, Some(Mismatch::Role)),
        (Selector { not_role: role("Visitor"), ..Selector::default() }, Some(Mismatch::NotRole)),
    ];
    for (selector, expected) in table {
        assert_eq!(planner.mismatch(&selector, &user().has(VISITOR)), Ok(expected));
    }
}

#[test]
fn blockers_are_named_once_for_each_policy() {
    let policies =
        [policy("a").from("Gone").to("Gone"), policy("b").to("Has PIN"), policy("c").to("Gone"), policy("d").without_role("Lost")];
    let places = places();
    let named: Vec<String> =
        Planner::new(&policies, &places, NOW).blockers().iter().map(|b| format!("{} {}", b.policy, b.missing)).collect();
    assert_eq!(named, ["a cost center “Gone”", "c cost center “Gone”", "d role “Lost”"]);
}

fn step(user: i64, pin: Option<Reason>, touched: u8, unexpected: u8) -> Step {
    let pin = pin.map(|reason| PinStep { action: PinAction::Issue, reason });
    Step { user: crate::domain::UserId(user), policy: 0, pin, also: Also::default(), touched, unexpected }
}

#[test]
fn who_waits_at_a_printer_is_served_first() {
    let mut plan = Plan::new(&[policy("p")]);
    for s in [
        step(1, None, 0, 0),
        step(2, Some(Reason::PinExpired), 1, 1),
        step(3, Some(Reason::PinMissing), 0, 0),
        step(4, Some(Reason::PinMissing), 0, 0),
    ] {
        plan.add(Verdict::Due(s));
    }
    plan.order();
    assert_eq!(plan.steps.iter().map(|s| s.user.0).collect::<Vec<_>>(), [4, 3, 2, 1]);
}

#[test]
fn a_judged_step_covers_no_more_than_itself() {
    let judged = step(1, Some(Reason::PinExpired), 2, 1);
    assert!(judged.covers(&step(1, Some(Reason::PinExpired), 1, 1)));
    assert!(judged.covers(&step(1, Some(Reason::PinMissing), 0, 0)));
    assert!(!judged.covers(&step(1, Some(Reason::PinExpired), 3, 1)));
    assert!(!judged.covers(&step(1, Some(Reason::PinExpired), 2, 2)));
    assert!(!judged.covers(&step(2, Some(Reason::PinExpired), 1, 1)));
    assert!(!step(1, None, 0, 0).covers(&judged));
}

#[test]
fn the_id_of_a_plan_is_that_of_its_steps_in_any_order() {
    let mut one = Plan::new(&[policy("p")]);
    let mut other = one.clone();
    let steps = [step(1, None, 0, 0), step(2, Some(Reason::PinExpired), 1, 1)];
    steps.iter().for_each(|s| one.add(Verdict::Due(*s)));
    steps.iter().rev().for_each(|s| other.add(Verdict::Due(*s)));
    assert_eq!(one.id(0, "p"), other.id(0, "p"));
    assert_eq!(one.id(0, "p").len(), 12);
    assert_ne!(one.id(0, "p"), one.id(0, "q"));
    other.add(Verdict::Due(step(3, None, 0, 0)));
    assert_ne!(one.id(0, "p"), other.id(0, "p"));
}

mod judging {
    use super::super::limits::{Figures, LimitKind, judge};
    use super::*;

    fn totals(judged: u64, replaced: u64) -> PolicyTotals {
        PolicyTotals { due: judged, judged, replaced: Each::of(Credential::Pin, replaced), ..PolicyTotals::default() }
    }

    fn stopped(totals: &PolicyTotals, figures: Figures) -> Option<LimitKind> {
        judge(&policy("p"), totals, figures, || "0123456789ab".into()).map(|r| r.limit)
    }

    #[test]
    fn limits_stop_what_exceeds_them_and_nothing_else() {
        let of_pins = |figure| Each::of(Credential::Pin, figure);
        let stored = |pins, last_day| Figures { stored: of_pins(pins), replaced_last_day: of_pins(last_day) };
        for (sentence, totals, figures, expected) in [
            ("exactly the limit passes", totals(1000, 0), stored(0, 0), None),
            ("one more does not", totals(1001, 0), stored(0, 0), Some(LimitKind::UsersPerPass)),
            ("fifty replacements are never judged", totals(50, 50), stored(50, 0), None),
            ("more than that and more than the share is refused", totals(51, 51), stored(1000, 0), Some(LimitKind::ReplacePercent)),
            ("more than that within the share passes", totals(51, 51), stored(1020, 0), None),
            ("those of the last day count too", totals(30, 30), stored(1000, 30), Some(LimitKind::ReplacePercent)),
            ("yesterday's alone stop nobody", totals(30, 0), stored(1000, 90), None),
        ] {
            assert_eq!(stopped(&totals, figures), expected, "{sentence}");
        }
    }

    #[test]
    fn each_kind_of_credential_is_judged_by_its_own_figures() {
        let totals = PolicyTotals { replaced: Each::of(Credential::Password, 60), judged: 60, ..PolicyTotals::default() };
        let mut figures = Figures { stored: Each::of(Credential::Pin, 100_000), ..Figures::default() };
        figures.stored[Credential::Password] = 100;
        let refusal = judge(&policy("p"), &totals, figures, || "0123456789ab".into()).unwrap();
        assert_eq!((refusal.limit, refusal.kind, refusal.of), (LimitKind::ReplacePercent, Some(Credential::Password), Some(100)));
        assert!(refusal.to_string().contains("replaces 60 of 100 stored passwords"), "{refusal}");
        figures.stored[Credential::Password] = 1200;
        assert_eq!(judge(&policy("p"), &totals, figures, || unreachable!()), None);
    }

    #[test]
    fn a_refusal_says_how_to_allow_it() {
        let refusal = judge(&policy("staff"), &totals(1001, 0), Figures::default(), || "0123456789ab".into()).unwrap();
        assert_eq!(
            refusal.to_string(),
            "policy staff: refused plan 0123456789ab, which changes 1001 users where users_per_pass allows 1000; nothing was changed. \
             If this is meant, run once with --max-users 1001, or raise limits.users_per_pass"
        );
    }
}
