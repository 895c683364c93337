//! What the policies need of the print system's database.

use super::{Pilot, Policy};

/// Only these parts of the schema map must resolve, are read, and are asked privileges for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Needs {
    pub cost_centers: bool,
    pub source: bool,
    pub moves: bool,
    /// The roles of users are read.
    pub roles: bool,
    /// Roles are taken away.
    pub role_removals: bool,
    /// Card assignment codes are read and written.
    pub codes: bool,
    /// The same of passwords.
    pub passwords: bool,
}

impl Needs {
    pub fn of(policies: &[Policy], pilot: Option<&Pilot>) -> Needs {
        let any = |of: fn(&Policy) -> bool| policies.iter().any(of);
        let placed = any(|p| p.placement.is_some() || !p.selector.cost_center.is_empty() || !p.selector.not_cost_center.is_empty());
        Needs {
            cost_centers: placed || pilot.is_some_and(|pilot| !pilot.cost_center.is_empty()),
            source: any(|p| !p.selector.source.is_empty()),
            moves: any(|p| p.placement.is_some()),
            roles: any(|p| p.remove_role.is_some() || !p.selector.role.is_empty() || !p.selector.not_role.is_empty()),
            role_removals: any(|p| p.remove_role.is_some()),
            codes: any(|p| p.code.is_some()),
            passwords: any(|p| p.password.is_some()),
        }
    }
}
