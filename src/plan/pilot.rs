//! Whom a pilot names.

use crate::inventory::{Places, User};
use crate::policy::Pilot;

/// `places` holds the pilot's cost centers; one that the database lacks covers nobody.
pub fn covers(pilot: &Pilot, user: &User, places: &Places) -> bool {
    let in_one = || pilot.cost_center.iter().filter_map(|wanted| places.get(wanted)).any(|place| place.id == user.cost_center.id);
    pilot.logins.contains(&user.login) || in_one()
}
