//! What must stay true, in the words of ARCHITECTURE.md, and what must be reachable, lest it be true for want of cases.

use credkeeper::journal::state::State;
use stateright::Property;

use crate::protocol::Protocol;
use crate::world::{Broken, Stage, USERS, World};

pub const I1: &str = "I1 no mail for what is not committed";
pub const I2: &str = "I2 a committed PIN is mailed, or visibly something else";
pub const I3: &str = "I3 all mails of one issuance tell the same PIN";
pub const I4: &str = "I4 one open issuance a user";
pub const I9: &str = "I9 at rest database, last mail and journal agree";
pub const ENDS: &str = "I9 each further PIN of a user has a reason";
pub const ONE: &str = "no user has two PINs of ours";
pub const UNIQUE: &str = "no PIN is held by two users";
pub const TABLE: &str = "the journal's table allows each step";

/// These are found, not kept.
pub const REACHED: [&str; 8] = [
    "a COMMIT lands after its daemon has died",
    "recovery waits for a transaction that still runs",
    "a planned batch was rolled back unseen",
    "a mail whose PIN is gone is not sent",
    "a mail cannot be delivered",
    "a mail was sent and is not marked",
    "both users are served and told",
    "a user has a PIN of ours and one of the vendor's",
];

pub fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always(I1, |_, world: &World| world.broken != Some(Broken::MailOfNothing)),
        Property::always(I2, |protocol: &Protocol, world: &World| {
            let told = world.issuances().all(|i| i.state != State::Delivered || i.told == i.pin());
            told && (world.nothing_is_lost() || !protocol.is_quiet(world))
        }),
        Property::always(I3, |_, world: &World| world.broken != Some(Broken::AnotherPin)),
        Property::always(I4, |_, world: &World| {
            (0..USERS).all(|user| world.issuances().filter(|i| i.user == user && i.state.is_open()).count() <= 1)
        }),
        Property::always(I9, |protocol: &Protocol, world: &World| world.all_agree() || !protocol.is_quiet(world)),
        Property::always(ENDS, |_, world: &World| world.unexplained.iter().all(|n| *n <= 1)),
        Property::always(ONE, |_, world: &World| world.stored.iter().all(|pins| pins.ours().count() <= 1)),
        Property::always(UNIQUE, |_, world: &World| world.stored[0].and(world.stored[1]).is_empty()),
        Property::always(TABLE, |_, world: &World| world.broken != Some(Broken::NotInTheTable)),
        Property::sometimes(REACHED[0], |_, world: &World| lost(world) && in_doubt(world, true)),
        Property::sometimes(REACHED[1], |_, world: &World| {
            let idle = |host: &crate::world::Host| host.is_planned() && host.process.as_ref().is_some_and(|p| p.stage == Stage::Idle);
            world.transaction.as_ref().is_some_and(|t| t.committing && !t.connected) && world.hosts.iter().any(idle)
        }),
        Property::sometimes(REACHED[2], |_, world: &World| lost(world) && in_doubt(world, false)),
        Property::sometimes(REACHED[3], |_, world: &World| world.issuances().any(|i| i.state == State::Superseded)),
        Property::sometimes(REACHED[4], |_, world: &World| world.issuances().any(|i| i.state == State::Undeliverable)),
        Property::sometimes(REACHED[5], |_, world: &World| {
            world.hosts.iter().any(|h| h.process.is_none() && h.journal.iter().any(|i| i.state == State::Committed && i.told.is_some()))
        }),
        Property::sometimes(REACHED[6], |protocol: &Protocol, world: &World| {
            let served = |user: usize| world.last_mail[user].is_some_and(|pin| world.stored[user].has(pin));
            (0..USERS).all(served) && protocol.is_quiet(world)
        }),
        Property::sometimes(REACHED[7], |_, world: &World| {
            (0..USERS).any(|user| world.stored[user].ours().count() == 1 && world.stored[user].has(6 + user as u8))
        }),
    ]
}

/// No transaction runs, and no daemon does.
fn lost(world: &World) -> bool {
    world.transaction.is_none() && world.hosts.iter().all(|host| host.process.is_none())
}

/// A planned issuance that stands in the database, or does not.
fn in_doubt(world: &World, stands: bool) -> bool {
    world.issuances().any(|i| i.state == State::Planned && i.pin().is_some_and(|pin| world.stored[i.user].has(pin) == stands))
}
