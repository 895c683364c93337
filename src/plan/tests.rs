//! The planner as one table: each row is a sentence, a user and what the plan says of him.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::domain::{
    CostCenter, CostCenterId, CostCenterRef, Limit, Mailbox, Pattern, PinFormat, PinLength, PolicyName, Share, Timestamp, WallClock,
};
use crate::inventory::{Facts, Membership, Now, Places, Standing, StoredPin, User};
use crate::policy::{Notify, Pilot, PinRewrite, PinRule, Placement, PolicyLimits, Recipient, Selector};

const NOW: Now = Now { utc: Timestamp(1_000_000), wall: WallClock(1_003_600) };
const NEEDS: Membership = Membership { id: CostCenterId(1), number: 100 };
const HAS: Membership = Membership { id: CostCenterId(2), number: 101 };

fn policy(name: &str) -> Policy {
    Policy {
        name: PolicyName(name.into()),
        selector: Selector::default(),
        pin: Some(PinRule {
            length: PinLength::new(6).unwrap(),
            rewrite: PinRewrite::Never,
            valid_for: None,
            allow_trivial: false,
            allow_dense: false,
        }),
        placement: None,
        notify: Notify { to: Recipient::Username, template: Some("t".into()) },
        limits: PolicyLimits {
            users_per_pass: Limit::At(1000),
            replace_percent: Limit::At(Share::percent(5.0).unwrap()),
            min_interval: Duration::from_secs(120),
        },
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
    fn telling(mut self, to: Recipient) -> Policy {
        self.notify.to = to;
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
        source: None,
        pins: vec![],
        cards: 0,
    }
}

impl User {
    fn pin(mut self, expires: Option<i64>, ours: bool) -> User {
        let value = PinFormat::Md5.encode(&crate::domain::Pin::new(format!("{}", self.pins.len())));
        self.pins.push(StoredPin { value, expires: expires.map(|s| WallClock(NOW.wall.0 + s)), ours });
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
    fn is(mut self, standing: Standing) -> User {
        self.standing = standing;
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
    Places(BTreeMap::from([place(NEEDS, "Needs PIN"), place(HAS, "Has PIN"), (CostCenterRef::Name("Gone".into()), None)]))
}

fn due(pin: Option<Reason>, cost_center: Option<Reason>, replaces: u16, unexpected: u16) -> Verdict {
    Verdict::Due(Step { user: crate::domain::UserId(7), policy: 0, pin, cost_center, replaces, unexpected })
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
    use PinRewrite::{Expired, Never};
    use Reason::{CostCenterDiffers, PinExpired, PinMissing};
    let none = Facts::default;
    let visitors = || policy("visitors").from("Needs PIN").to("Has PIN");
    let kept = || Facts { keeper: Some(PolicyName("visitors".into())), ..Facts::default() };
    let move_only = || policy("p").without_pin().to("Has PIN");
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
        ("a move alone needs no address", vec![move_only().telling(Recipient::Email)], user(), none(), due(None, Some(CostCenterDiffers), 0, 0)),
    ];
    let places = places();
    for (sentence, policies, user, facts, expected) in table {
        let planner = Planner::new(&policies, &places, NOW);
        assert_eq!(planner.verdict(&user, &facts), expected, "{sentence}");
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
    let table: [(Selector, Option<Mismatch>); 6] = [
        (Selector::default(), None),
        (selector(|s| s.has_card = Some(true)), Some(Mismatch::HasCard)),
        (selector(|s| s.source = vec!["LDAP".into()]), Some(Mismatch::Source)),
        (selector(|s| s.cost_center = vec![CostCenterRef::Name("Gone".into())]), Some(Mismatch::CostCenter)),
        (Selector { not_cost_center: vec![needs()], ..Selector::default() }, Some(Mismatch::NotCostCenter)),
        (Selector { cost_center: vec![CostCenterRef::Name("Has PIN".into()), needs()], ..Selector::default() }, None),
    ];
    for (selector, expected) in table {
        assert_eq!(planner.mismatch(&selector, &user()), expected);
    }
}

#[test]
fn blockers_are_named_once_for_each_policy() {
    let policies = [policy("a").from("Gone").to("Gone"), policy("b").to("Has PIN"), policy("c").to("Gone")];
    let places = places();
    let named: Vec<String> =
        Planner::new(&policies, &places, NOW).blockers().iter().map(|b| format!("{} {}", b.policy, b.cost_center)).collect();
    assert_eq!(named, ["a “Gone”", "c “Gone”"]);
}

fn step(user: i64, pin: Option<Reason>, replaces: u16, unexpected: u16) -> Step {
    Step { user: crate::domain::UserId(user), policy: 0, pin, cost_center: None, replaces, unexpected }
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
        PolicyTotals { due: judged, judged, replaced, ..PolicyTotals::default() }
    }

    fn stopped(totals: &PolicyTotals, figures: Figures) -> Option<LimitKind> {
        judge(&policy("p"), totals, figures, || "0123456789ab".into()).map(|r| r.limit)
    }

    #[test]
    fn limits_stop_what_exceeds_them_and_nothing_else() {
        let stored = |stored_pins, replaced_last_day| Figures { stored_pins, replaced_last_day };
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
    fn a_refusal_says_how_to_allow_it() {
        let refusal = judge(&policy("staff"), &totals(1001, 0), Figures::default(), || "0123456789ab".into()).unwrap();
        assert_eq!(
            refusal.to_string(),
            "policy staff: refused plan 0123456789ab, which changes 1001 users where users_per_pass allows 1000; nothing was changed. \
             If this is meant, run once with --max-users 1001, or raise limits.users_per_pass"
        );
    }
}
