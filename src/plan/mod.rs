//! Decides who is due, and why. Pure: a verdict depends on the policies, the places, the moment and what is known of one
//! user, and on nothing else; so a preview, a pass and the second look under the write lock cannot disagree.
//!
//! A [`Step`] is 16 bytes, because a first pass over a million users holds one for each of them. It names no value: a
//! plan can be printed to anyone. What to compare and what to write is taken from the rows that stand under the lock.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::domain::{Credential, Each};
use crate::policy::Policy;

pub mod back;
pub mod density;
pub mod limits;
pub mod lint;
pub mod pilot;
mod pins;
pub mod reminders;
mod renewal;
pub mod restored;
pub mod rules;
mod step;
#[cfg(test)]
mod tests;
pub mod tripwires;

pub use rules::{Blocker, Mismatch, Missing, Planner};
pub use step::{PinStep, Step};

use rules::{Need, PasswordStep};
use step::Also;

/// What the plan says of one user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Something must be changed.
    Due(Step),
    /// Something would have to be changed, but must not be now. `policy` is the index of the owning policy.
    Skipped { policy: usize, skip: Skip },
    /// Nothing can be decided, or not for good, until an administrator mends `policy`.
    Failed { policy: usize, failure: Failure },
    /// Nothing to do: all is as the owning policy wants it.
    Settled { policy: usize },
    /// Nobody asks anything of this user.
    Untouched(Untouched),
}

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal, $sentence:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The code of `explain`, the reports and the metrics.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $code,)* }
            }

            /// The same, said to a person.
            pub fn sentence(self) -> &'static str {
                match self { $($name::$variant => $sentence,)* }
            }
        }
    };
}
pub(crate) use codes;

codes!(
    /// Why a step is taken.
    Reason {
        PinMissing = "pin_missing", "the user has no PIN";
        PinExpired = "pin_expired", "a PIN of the user has expired";
        PinAged = "pin_aged", "a PIN of the user is older than rotate_every";
        PinRewritten = "pin_rewritten", "the policy gives a new PIN at each selection";
        PinUnlimited = "pin_unlimited", "a PIN of the user never expires, and the policy caps that";
        CodeMissing = "code_missing", "the user has no card assignment code";
        CodeRewritten = "code_rewritten", "the policy gives a new card assignment code at each selection";
        PasswordMissing = "password_missing", "the user has no password";
        PasswordAged = "password_aged", "the password of the user is older than rotate_every";
        PasswordRewritten = "password_rewritten", "the policy gives a new password at each selection";
        PolicyLeft = "policy_left", "no policy owns the user any more";
        CostCenterDiffers = "cost_center_differs", "the user is not in the policy's cost center";
        RoleHeld = "role_held", "the user has the role that the policy takes away";
    }
);
codes!(
    /// What is done to stored PINs.
    PinAction {
        Issue = "issue", "a new PIN is issued, and those that are there go";
        Extend = "extend", "a PIN keeps its digits and gets a new end";
        Expire = "expire", "a PIN ends now";
        Delete = "delete", "a PIN is removed";
    }
);
codes!(
    /// Why a user who is due is left alone for now.
    Skip {
        Held = "held", "the user is on hold until released";
        HeldBack = "held_back", "the pilot in the configuration does not name the user";
        DeliveryPending = "delivery_pending", "the mail about the last change has not been accepted yet";
        Blocked = "blocked", "the policy names a cost center or a role that the database does not have";
        TooSoon = "too_soon", "the last credential was generated less than min_interval ago";
        NoAddress = "no_address", "the user has no mail address where the policy looks for one";
        BadAddress = "bad_address", "what stands where the policy looks for a mail address is not a deliverable one";
    }
);
codes!(
    /// What went wrong with one user, and needs an administrator.
    Failure {
        PatternSteps = "pattern_steps", "a pattern of the policy needs too many steps for this user's name or address; write it in a simpler way";
        PoliciesDisagree = "policies_disagree", "another policy would change the user again right after this one; let one of them match, or both want the same";
        SpaceFull = "pin_space_full", "no PIN of this length is free; a longer pin.length gives more room";
        NoFreeCode = "code_space_full", "no card assignment code of this length was found free; a longer card_assignment_code.length gives more room";
        CipherFailed = "cipher_failed", "the cipher of card assignment codes failed; see databases.cac_cipher, and prove it with `credkeeper doctor --cac-pair`";
        DatabaseRefused = "database_refused", "the database refused the change";
    }
);
codes!(
    /// Why nobody asks anything of a user.
    Untouched {
        NotAUser = "not_a_user", "the row is not a user (a role, a cost center or the like)";
        Deleted = "deleted", "the user is marked as deleted";
        Template = "template_user", "the user is the template for new users";
        NoPolicy = "no_policy", "no policy matches the user";
        Excluded = "excluded", "the first policy that matches asks for nothing";
    }
);

/// Totals of one policy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PolicyTotals {
    pub due: u64,
    /// Of those due, the ones that count towards `users_per_pass`.
    pub judged: u64,
    /// Stored credentials that would be replaced, expected renewals left out.
    pub replaced: Each<u64>,
    pub skipped: BTreeMap<Skip, u64>,
    pub failed: u64,
}

impl PolicyTotals {
    fn add(&mut self, step: &Step) {
        self.due += 1;
        self.judged += u64::from(!step.is_expected());
        Credential::ALL.into_iter().for_each(|kind| self.replaced[kind] += step.replaces(kind));
    }

    /// Of these steps alone.
    pub fn of<'s>(steps: impl Iterator<Item = &'s Step>) -> PolicyTotals {
        let mut totals = PolicyTotals::default();
        steps.for_each(|step| totals.add(step));
        totals
    }
}

/// A whole plan: the steps, and what was counted on the way.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// One for each policy, in their order.
    pub totals: Vec<PolicyTotals>,
    /// Rows looked at.
    pub seen: u64,
    pub blockers: Vec<Blocker>,
}

impl Plan {
    pub fn new(policies: &[Policy]) -> Plan {
        Plan { totals: vec![PolicyTotals::default(); policies.len()], ..Plan::default() }
    }

    pub fn add(&mut self, verdict: Verdict) {
        self.seen += 1;
        match verdict {
            Verdict::Due(step) => {
                self.totals[step.policy()].add(&step);
                self.steps.push(step);
            }
            Verdict::Skipped { policy, skip } => *self.totals[policy].skipped.entry(skip).or_default() += 1,
            Verdict::Failed { policy, .. } => self.totals[policy].failed += 1,
            Verdict::Settled { .. } | Verdict::Untouched(_) => {}
        }
    }

    /// Most urgent first; within one urgency the newest user first, since he is the one at the printer.
    pub fn order(&mut self) {
        self.steps.sort_unstable_by_key(|s| (s.urgency(), std::cmp::Reverse(s.user)));
    }

    /// The name of one policy's part of the plan: the first 12 hex digits of SHA-256 over its sorted steps.
    pub fn id(&self, policy: usize, name: &str) -> String {
        let mut steps: Vec<&Step> = self.steps.iter().filter(|s| s.policy() == policy).collect();
        steps.sort_unstable();
        let mut hash = Sha256::new();
        hash.update(name.as_bytes());
        for step in steps {
            let action = step.pin.map_or("-", |pin| pin.action.as_str());
            let reasons: Vec<&str> = step.reasons().map(Reason::as_str).collect();
            hash.update(format!("\n{} {action} {} {}", step.user, reasons.join(","), step.touched));
        }
        hash.finalize().iter().take(6).map(|b| format!("{b:02x}")).collect()
    }
}
