//! Who is reminded that a PIN is about to lapse (product rule R33).
//!
//! What counts is the end of the user's last PIN: as long as one lasts beyond the windows, nothing is about to lapse, whoever
//! issued it. Of several windows that have opened only the nearest is told, so that a daemon that was off for long sends one
//! reminder and not all. Each is told once: a PIN that is renewed has another end, and begins anew.

use std::time::Duration;

use super::{Planner, pins, rules};
use crate::domain::{UserId, WallClock};
use crate::inventory::{Facts, Lapse, Standing, StoredPin, User};
use crate::policy::Policy;

/// Somebody is to be reminded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reminder {
    pub user: UserId,
    /// The index of the owning policy.
    pub policy: usize,
    pub lapse: Lapse,
}

/// Whether any of them reminds.
pub fn remind(policies: &[Policy]) -> bool {
    policies.iter().any(|policy| !policy.notify.reminders.is_empty())
}

impl Planner<'_> {
    /// The reminder that `user` is to get now, whatever was sent before. `None` also where the PIN is about to change, where
    /// a mail about it is under way, and where nothing may be done for the user.
    pub fn reminder(&self, user: &User, facts: &Facts) -> Option<Reminder> {
        let end = last_end(&user.pins, self.now.wall)?;
        let barred = user.standing != Standing::Active || facts.held || facts.open || self.pilot_reaches(user) == Some(false);
        if barred {
            return None;
        }
        let owner = self.owner(user, facts).ok().flatten()?;
        let policy = &self.policies[owner.policy];
        let lapse = Lapse { end, window: window(&policy.notify.reminders, end, self.now.wall)? };
        let changes = policy.pin.as_ref().is_none_or(|rule| pins::need(rule, owner.kept, user, self.now).is_some());
        if changes || self.blocked(policy) {
            return None;
        }
        rules::recipient(policy, user).ok().flatten()?;
        Some(Reminder { user: user.id, policy: owner.policy, lapse })
    }
}

/// Whether this one has not been sent yet, nor a later one; `last` is what the user was sent last.
pub fn is_news(lapse: Lapse, last: Option<Lapse>) -> bool {
    last.is_none_or(|last| last.end != lapse.end || lapse.window < last.window)
}

/// When the last of the valid PINs ends; `None`: there is none, or one that never ends.
fn last_end(pins: &[StoredPin], now: WallClock) -> Option<WallClock> {
    let mut valid = pins.iter().filter(|pin| !pins::expired(pin, now)).map(|pin| pin.expires);
    let first = valid.next()??;
    valid.try_fold(first, |last, end| Some(last.max(end?)))
}

/// The nearest window that has opened.
fn window(windows: &[Duration], end: WallClock, now: WallClock) -> Option<Duration> {
    windows.iter().copied().filter(|window| end <= now.plus(*window)).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CostCenterId, PolicyName, StoredValue, Timestamp};
    use crate::inventory::{Membership, Now, Places};
    use crate::policy::samples::{policy, rule};
    use crate::policy::{PinRewrite, Recipient, Selector};

    const NOW: i64 = 1_000_000_000;
    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;

    fn days(days: u64) -> Duration {
        Duration::from_secs(days * 86_400)
    }

    /// Everybody, 7 days and 1 day before.
    fn reminding(rewrite: PinRewrite) -> Policy {
        let mut policy = policy("visitors");
        policy.pin = Some(crate::policy::PinRule { rewrite, valid_for: Some(days(30)), ..rule(6) });
        policy.notify.to = Recipient::Username;
        policy.notify.reminders = vec![days(7), days(1)];
        policy
    }

    /// A PIN for each end, in seconds from now; `None` never ends.
    fn user(ends: &[Option<i64>]) -> User {
        let pin = |(i, end): (usize, &Option<i64>)| StoredPin::found(StoredValue::new(i.to_string()), end.map(|end| WallClock(NOW + end)));
        User {
            id: UserId(7),
            login: "ann@example.org".into(),
            email: String::new(),
            name: String::new(),
            surname: String::new(),
            standing: Standing::Active,
            cost_center: Membership { id: CostCenterId(0), number: 0 },
            source: None,
            pins: ends.iter().enumerate().map(pin).collect(),
            cards: 0,
            code: None,
            password: None,
            roles: Vec::new(),
        }
    }

    fn reminded(policies: &[Policy], user: &User, facts: &Facts) -> Option<(i64, u64)> {
        let places = Places::default();
        let now = Now { utc: Timestamp(NOW - 5 * HOUR), wall: WallClock(NOW) };
        let reminder = Planner::new(policies, &places, now).reminder(user, facts)?;
        assert_eq!(reminder.user, user.id);
        Some((reminder.lapse.end.0 - NOW, reminder.lapse.window.as_secs() / 86_400))
    }

    /// The ends of a user's PINs, and what is told: the end in seconds from now, and how many days before.
    type Case<'a> = (&'a str, &'a [Option<i64>], Option<(i64, u64)>);

    #[test]
    fn the_pin_that_lasts_longest_decides_and_of_its_windows_the_nearest() {
        #[rustfmt::skip]
        let cases: [Case<'_>; 13] = [
            ("no PIN", &[], None),
            ("a PIN that never ends", &[None], None),
            ("a PIN that ends far ahead", &[Some(20 * DAY)], None),
            ("a second before the window", &[Some(7 * DAY + 1)], None),
            ("the window opens with its second", &[Some(7 * DAY)], Some((7 * DAY, 7))),
            ("within the first window", &[Some(2 * DAY)], Some((2 * DAY, 7))),
            ("in the last one, of two that have opened", &[Some(DAY)], Some((DAY, 1))),
            ("a second before the end", &[Some(1)], Some((1, 1))),
            ("the end itself: it has lapsed", &[Some(0)], None),
            ("long lapsed", &[Some(-DAY)], None),
            ("another one lasts", &[Some(DAY), Some(20 * DAY)], None),
            ("another one lasts for ever", &[Some(DAY), None], None),
            ("of two that end soon, the later", &[Some(3 * DAY), Some(HOUR)], Some((3 * DAY, 7))),
        ];
        for (sentence, ends, expected) in cases {
            let found = reminded(&[reminding(PinRewrite::Never)], &user(ends), &Facts::default());
            assert_eq!(found, expected, "{sentence}");
        }
    }

    #[test]
    fn nobody_is_reminded_who_may_not_be_served_or_is_served_anyway() {
        let lapsing = || user(&[Some(DAY)]);
        let with = |change: fn(&mut Policy)| {
            let mut policy = reminding(PinRewrite::Never);
            change(&mut policy);
            [policy]
        };
        let facts = Facts::default;
        assert!(reminded(&with(|_| {}), &lapsing(), &facts()).is_some(), "the case that the others differ from");
        for (sentence, policies, user, facts) in [
            ("on hold", with(|_| {}), lapsing(), Facts { held: true, ..facts() }),
            ("mail about a credential is under way", with(|_| {}), lapsing(), Facts { open: true, ..facts() }),
            ("deleted", with(|_| {}), User { standing: Standing::Deleted, ..lapsing() }, facts()),
            ("the template user", with(|_| {}), User { standing: Standing::Template, ..lapsing() }, facts()),
            ("no address", with(|_| {}), User { login: "ann".into(), ..lapsing() }, facts()),
            ("nobody is told on purpose", with(|p| p.notify.to = Recipient::Nobody), lapsing(), facts()),
            ("another policy's user", with(|p| p.selector = Selector { has_card: Some(true), ..Selector::default() }), lapsing(), facts()),
            ("a policy that does not remind", with(|p| p.notify.reminders.clear()), lapsing(), facts()),
            (
                "a PIN that is renewed in this pass, for another has expired",
                with(|p| p.pin.as_mut().unwrap().rewrite = PinRewrite::Expired),
                user_of(&[Some(-DAY), Some(DAY)]),
                facts(),
            ),
        ] {
            assert_eq!(reminded(&policies, &user, &facts), None, "{sentence}");
        }
        fn user_of(ends: &[Option<i64>]) -> User {
            user(ends)
        }
    }

    #[test]
    fn a_keeper_reminds_those_whom_it_served() {
        let mut policy = reminding(PinRewrite::Expired);
        policy.selector.cost_center = vec![crate::domain::CostCenterRef::Number(1)];
        policy.placement = Some(crate::policy::Placement::MoveTo(crate::domain::CostCenterRef::Number(2)));
        let place = |id: i64| crate::domain::CostCenter { id: CostCenterId(id), number: id, name: id.to_string() };
        let cost_centers = [1, 2].map(|id| (crate::domain::CostCenterRef::Number(id), Some(place(id)))).into();
        let places = Places { cost_centers, ..Places::default() };
        let moved = User { cost_center: Membership { id: CostCenterId(2), number: 2 }, ..user(&[Some(DAY)]) };
        let now = Now { utc: Timestamp(NOW), wall: WallClock(NOW) };
        let policies = [policy];
        let planner = Planner::new(&policies, &places, now);
        let kept = Facts { keeper: Some(PolicyName("visitors".into())), ..Facts::default() };
        assert!(planner.reminder(&moved, &kept).is_some());
        assert_eq!(planner.reminder(&moved, &Facts::default()), None, "somebody else's");
        let cost_centers = [1, 2].map(|id| (crate::domain::CostCenterRef::Number(id), None)).into();
        let missing = Places { cost_centers, ..Places::default() };
        assert_eq!(Planner::new(&policies, &missing, now).reminder(&moved, &kept), None, "its cost center is gone");
    }

    #[test]
    fn each_window_is_news_once_and_a_renewed_pin_begins_anew() {
        let lapse = |end: i64, window: u64| Lapse { end: WallClock(end), window: days(window) };
        for (sentence, last, news) in [
            ("nothing was sent", None, true),
            ("this one was", Some(lapse(500, 1)), false),
            ("an earlier one was", Some(lapse(500, 7)), true),
            ("a later one was: the configuration has lost its window", Some(lapse(500, 0)), false),
            ("one of the PIN before", Some(lapse(400, 1)), true),
            ("one of a PIN that lasted longer", Some(lapse(600, 1)), true),
        ] {
            assert_eq!(is_news(lapse(500, 1), last), news, "{sentence}");
        }
    }
}
