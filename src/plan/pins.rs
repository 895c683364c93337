//! What a rule asks of the PINs of one user.
//!
//! | the user's PINs | `never` | `expired` | `extend` | `always` |
//! |---|---|---|---|---|
//! | none | issue | issue | issue | issue |
//! | one has expired | – | issue | extend those | issue |
//! | one of ours is older than `rotate_every` | issue | issue | issue | issue |
//! | all valid | – | – | – | issue; with `rotate_every` only if one is not ours |
//! | one without an end, `cap_unlimited` | extend | extend | extend | – |
//!
//! The first line that holds decides. A keeper (R6) follows the PINs that are there: it issues none where there is none, and
//! renews with `always` as with `expired`.

use std::time::Duration;

use super::{PinAction, PinStep, Reason};
use crate::domain::{Timestamp, WallClock};
use crate::inventory::{Now, StoredPin, User};
use crate::policy::{OnLeave, PinRewrite, PinRule};

/// So long after its moment a rotation still counts as foreseen: a weekend without a daemon.
pub(super) const FORESEEN_FOR: Duration = Duration::from_secs(3 * 86_400);

/// What an owning policy asks for; `None`: the PINs are as it wants them.
pub(super) fn need(rule: &PinRule, kept: bool, user: &User, now: Now) -> Option<PinStep> {
    let issue = |reason| Some(PinStep { action: PinAction::Issue, reason });
    let extend = |reason| Some(PinStep { action: PinAction::Extend, reason });
    let any = |holds: &dyn Fn(&StoredPin) -> bool| user.pins.iter().any(holds);
    if user.pins.is_empty() {
        return if kept { None } else { issue(Reason::PinMissing) };
    }
    if any(&|pin| aged(rule, user, pin, now.utc)) {
        return issue(Reason::PinAged);
    }
    match rule.rewrite {
        PinRewrite::Expired | PinRewrite::Always if any(&|pin| expired(pin, now.wall)) => return issue(Reason::PinExpired),
        PinRewrite::Extend if any(&|pin| expired(pin, now.wall)) => return extend(Reason::PinExpired),
        PinRewrite::Always if !kept && (rule.rotate_every.is_none() || any(&|pin| pin.issued.is_none())) => {
            return issue(Reason::PinRewritten);
        }
        _ => {}
    }
    if rule.cap_unlimited && any(&|pin| pin.expires.is_none()) { extend(Reason::PinUnlimited) } else { None }
}

/// What becomes of the PINs that we issued to a user whom no policy owns any more (R12).
pub(super) fn leave(rule: &PinRule, user: &User, now: Now) -> Option<PinStep> {
    let action = match rule.on_leave {
        OnLeave::Keep => return None,
        OnLeave::Expire => PinAction::Expire,
        OnLeave::Delete => PinAction::Delete,
    };
    let step = PinStep { action, reason: Reason::PolicyLeft };
    touched(rule, action, user, now).next().map(|_| step)
}

/// The PINs that an action replaces, removes, or gives another end.
pub(super) fn touched<'u>(rule: &PinRule, action: PinAction, user: &'u User, now: Now) -> impl Iterator<Item = &'u StoredPin> {
    let extends = rule.rewrite == PinRewrite::Extend;
    let caps = rule.cap_unlimited;
    user.pins.iter().filter(move |pin| match action {
        PinAction::Issue => true,
        PinAction::Extend => (extends && expired(pin, now.wall)) || (caps && pin.expires.is_none()),
        PinAction::Expire => pin.issued.is_some() && !expired(pin, now.wall),
        PinAction::Delete => pin.issued.is_some(),
    })
}

/// Whether our own ledger told that this PIN would be renewed about now (R23).
pub(super) fn foreseen(rule: &PinRule, reason: Reason, user: &User, pin: &StoredPin, now: Now) -> bool {
    match reason {
        Reason::PinExpired | Reason::PinAged => (pin.foreseen && expired(pin, now.wall)) || just_aged(rule, user, pin, now.utc),
        _ => false,
    }
}

pub(super) fn expired(pin: &StoredPin, now: WallClock) -> bool {
    pin.expires.is_some_and(|at| at <= now)
}

/// Whether the age was reached lately. The ledger holds no moment of rotation: a PIN that has been old for longer is old because
/// somebody has changed `rotate_every`, and that is what limits are for.
fn just_aged(rule: &PinRule, user: &User, pin: &StoredPin, now: Timestamp) -> bool {
    aged(rule, user, pin, now) && !aged(rule, user, pin, now.minus(FORESEEN_FOR))
}

/// Only of a PIN that we issued is the age known.
fn aged(rule: &PinRule, user: &User, pin: &StoredPin, now: Timestamp) -> bool {
    match (rule.rotate_every, pin.issued) {
        (Some(every), Some(issued)) => now >= issued.plus(rule.spread_by(every, user.id)),
        _ => false,
    }
}
