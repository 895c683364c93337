//! `limits`: what bounds a pass, and what a policy may say otherwise.

use std::time::Duration;

use super::GlobalLimits;
use super::read::{Field, Section};
use super::units::{self, DURATION_SHAPE, SHARE_SHAPE};
use crate::domain::{Limit, Share};
use crate::policy::{PolicyLimits, Tripwires};

/// `limits` of the top level.
pub(super) struct Limits {
    pub(super) global: GlobalLimits,
    /// For the policies that say nothing else.
    pub(super) policy: PolicyLimits,
}

/// Without a section, everything has its default.
pub(super) fn limits(mut section: Section<'_>) -> Limits {
    let policy = per_policy(&mut section, defaults());
    let global = GlobalLimits {
        mails_per_minute: section.or("mails_per_minute", Limit::At(30), count),
        batch_size: section.or("batch_size", 1_000, |size| size.whole(1..=20_000).and_then(|size| usize::try_from(size).ok())),
        tripwires: tripwires(&mut section),
    };
    section.finish();
    Limits { global, policy }
}

fn tripwires(section: &mut Section<'_>) -> Tripwires {
    let Tripwires { users_shrunk, unexplained_pins, pinless_rise, clock_skew, delivery_down } = Tripwires::default();
    let share = |field: &Field<'_>| field.limit(SHARE_SHAPE, units::share);
    let span = |field: &Field<'_>| field.limit(DURATION_SHAPE, units::duration);
    Tripwires {
        users_shrunk: section.or("users_shrunk", users_shrunk, share),
        unexplained_pins: section.or("unexplained_pins", unexplained_pins, share),
        pinless_rise: section.or("pinless_rise", pinless_rise, share),
        clock_skew: section.or("clock_skew", clock_skew, span),
        delivery_down: section.or("delivery_down", delivery_down, span),
    }
}

/// `limits` of a policy; what it does not name is as `above`.
pub(super) fn of_policy(field: &Field<'_>, above: PolicyLimits) -> PolicyLimits {
    let Some(mut section) = field.section("a mapping of users_per_pass, replace_percent and min_interval") else { return above };
    let limits = per_policy(&mut section, above);
    section.finish();
    limits
}

fn defaults() -> PolicyLimits {
    PolicyLimits {
        users_per_pass: Limit::At(1_000),
        replace_percent: Share::percent(5.0).map_or(Limit::Unlimited, Limit::At),
        min_interval: Duration::from_secs(120),
    }
}

fn per_policy(section: &mut Section<'_>, above: PolicyLimits) -> PolicyLimits {
    PolicyLimits {
        users_per_pass: section.or("users_per_pass", above.users_per_pass, count),
        replace_percent: section.or("replace_percent", above.replace_percent, |field| field.limit(SHARE_SHAPE, units::share)),
        min_interval: section.or("min_interval", above.min_interval, Field::any_duration),
    }
}

fn count(field: &Field<'_>) -> Option<Limit<u64>> {
    let positive = |text: &str| text.parse().ok().filter(|number| *number > 0 && text.bytes().all(|b| b.is_ascii_digit()));
    field.limit("a whole number, 1 or more", positive)
}
