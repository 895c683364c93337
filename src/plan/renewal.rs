//! What the rules ask of a user's card assignment code and password: both live in one place of the user's row, so that there is
//! one or there is none.
//!
//! | the user has | `never` | `always` |
//! |---|---|---|
//! | none | issue | issue |
//! | one of ours, older than `rotate_every` (passwords) | issue | issue |
//! | one | – | issue; with `rotate_every` only if it is not ours |
//!
//! The first line that holds decides. A keeper (R6) issues none where there is none, and replaces one for its age alone.

use super::pins::FORESEEN_FOR;
use super::{PasswordStep, Reason};
use crate::domain::Timestamp;
use crate::inventory::{StoredPassword, User};
use crate::policy::{CodeRule, PasswordRule, Rewrite};

/// Why the policy issues a card assignment code; `None`: what is there satisfies it.
pub(super) fn code(rule: &CodeRule, kept: bool, user: &User) -> Option<Reason> {
    match (&user.code, rule.rewrite) {
        _ if kept => None,
        (None, _) => Some(Reason::CodeMissing),
        (Some(_), Rewrite::Always) => Some(Reason::CodeRewritten),
        (Some(_), Rewrite::Never) => None,
    }
}

/// The same of a password.
pub(super) fn password(rule: &PasswordRule, kept: bool, user: &User, now: Timestamp) -> Option<PasswordStep> {
    let issue = |reason| Some(PasswordStep { reason, foreseen: false });
    let Some(stored) = &user.password else {
        return if kept { None } else { issue(Reason::PasswordMissing) };
    };
    if aged(rule, stored, now) {
        // A password that has been old for longer is old because somebody changed `rotate_every`: that is what limits are for.
        return Some(PasswordStep { reason: Reason::PasswordAged, foreseen: !aged(rule, stored, now.minus(FORESEEN_FOR)) });
    }
    let ours = stored.issued.is_some();
    let rewritten = rule.rewrite == Rewrite::Always && !kept && (rule.rotate_every.is_none() || !ours);
    if rewritten { issue(Reason::PasswordRewritten) } else { None }
}

/// Only of a password that we issued is the age known.
fn aged(rule: &PasswordRule, stored: &StoredPassword, now: Timestamp) -> bool {
    rule.rotate_every.zip(stored.issued).is_some_and(|(every, issued)| now >= issued.plus(every))
}
