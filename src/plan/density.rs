//! How full the space of a policy's PINs is (product rule R8). The fuller, the sooner somebody who tries PINs at a printer meets
//! one that is valid, whoever's it is.

use super::codes;
use crate::domain::{PinLength, PolicyName};
use crate::inventory::Counts;
use crate::policy::Policy;

/// Warned above.
pub const DENSE: f64 = 0.01;
/// Refused above, unless `pin.allow_dense`.
pub const TOO_DENSE: f64 = 0.10;

/// Stored PINs among all that there are of a policy's length.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Density {
    pub policy: PolicyName,
    pub length: PinLength,
    /// PINs of this length in the database; where the stored form hides lengths, all of them.
    pub stored: u64,
    /// What the plan would add to them.
    pub added: u64,
    /// `pin.allow_dense`.
    pub allowed: bool,
}

codes!(
    /// What is said of a density.
    Crowding {
        Fine = "fine", "there is room";
        Dense = "dense", "a guess at a printer meets a valid PIN too often";
        TooDense = "too_dense", "no new PIN is issued";
    }
);

impl Density {
    /// 0 to 1 of what is stored now.
    pub fn ratio(&self) -> f64 {
        self.stored as f64 / self.length.space() as f64
    }

    /// With what the plan would add.
    pub fn filled(&self) -> u64 {
        self.stored + self.added
    }

    pub fn crowding(&self) -> Crowding {
        let ratio = self.filled() as f64 / self.length.space() as f64;
        match ratio {
            _ if ratio > TOO_DENSE && !self.allowed => Crowding::TooDense,
            _ if ratio > DENSE => Crowding::Dense,
            _ => Crowding::Fine,
        }
    }
}

impl std::fmt::Display for Density {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (digits, space, filled) = (self.length.digits(), self.length.space(), self.filled());
        let percent = filled as f64 * 100.0 / space as f64;
        let added = if self.added == 0 { String::new() } else { format!(" ({} of them new)", self.added) };
        write!(f, "policy {}: {filled} PINs{added} of the {space} that {digits} digits give ({percent:.1}%)", self.policy)
    }
}

/// One for each policy that issues PINs, in their order. `added` holds, for each policy, how many PINs its part of the plan
/// adds (not those that take the place of another). Policies whose PINs cannot be told apart share a space.
pub fn densities(policies: &[Policy], counts: &Counts, added: &[u64]) -> Vec<Density> {
    let length_of = |policy: &Policy| policy.pin.as_ref().map(|rule| rule.length);
    let shared = |length: PinLength| {
        let meets = |policy: &Policy| counts.by_length.is_none() || length_of(policy) == Some(length);
        policies.iter().zip(added).filter(|(policy, _)| meets(policy)).map(|(_, n)| n).sum()
    };
    policies
        .iter()
        .filter_map(|policy| {
            let rule = policy.pin.as_ref()?;
            let (length, allowed) = (rule.length, rule.allow_dense);
            let (stored, added) = (counts.of_length(length), shared(length));
            Some(Density { policy: policy.name.clone(), length, stored, added, allowed })
        })
        .collect()
}

#[cfg(test)]
mod tests;
