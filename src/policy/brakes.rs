//! What keeps a mistake small: tripwires that stop a whole pass, and a pilot that confines changes.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::domain::{CostCenterRef, Limit, Share};

/// `limits` of the top level that stop a pass before it writes anything (R23).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Tripwires {
    /// Fewer users than at the last successful full pass, or none.
    pub users_shrunk: Limit<Share>,
    /// Values with the shape of a PIN, but of another form than `pin_format`.
    pub unexplained_pins: Limit<Share>,
    /// More users without a PIN, in percentage points, than at the last successful full pass.
    pub pinless_rise: Limit<Share>,
    /// Between our clock and the database's.
    pub clock_skew: Limit<Duration>,
    /// For how long no mail may have been deliverable while new credentials are still made.
    pub delivery_down: Limit<Duration>,
}

impl Default for Tripwires {
    fn default() -> Tripwires {
        let percent = |percent| Share::percent(percent).map_or(Limit::Unlimited, Limit::At);
        Tripwires {
            users_shrunk: percent(20.0),
            unexplained_pins: percent(50.0),
            pinless_rise: percent(10.0),
            clock_skew: Limit::At(Duration::from_secs(60)),
            delivery_down: Limit::At(Duration::from_secs(30 * 60)),
        }
    }
}

/// `pilot`: the users whom changes are confined to (R36). All others are held back.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pilot {
    /// Compared exactly.
    pub logins: BTreeSet<String>,
    /// Their members.
    pub cost_center: Vec<CostCenterRef>,
}
