//! Tripwires: signs that the database, the configuration or the site is not what it was. Each stops the pass before it writes
//! anything; [`Tripwire::DeliveryDown`] alone stops only new credentials (product rule R23).
//!
//! | tripwire | sprung when |
//! |---|---|
//! | `users_shrunk` | there are fewer users than at the last successful full pass, by more than this share of them; or none, where there were some |
//! | `pinless_rise` | the share of users without a PIN rose by more percentage points, compared with the last successful full pass. As many of them as there are *more* users than then are new, and not counted: an import is no loss of PINs |
//! | `unexplained_pins` | of all values that look like a PIN in any form, more than this share are not of the configured one; not judged below [`UNJUDGED_VALUES`] of them |
//! | `read_only` | the database takes no changes |
//! | `clock_skew` | our clock and the database's differ by more |
//! | `delivery_down` | no mail could be delivered for longer |
//! | `restored` | the newest PINs that the journal knows are not in the database (`restored.rs`); asked at a start and at a takeover |

use std::fmt;
use std::time::Duration;

use super::codes;
use crate::domain::time::span;
use crate::domain::{Limit, PinFormat, Share, Timestamp};
use crate::inventory::{Baseline, Counts, Pulse, ReadOnly};
use crate::policy::Tripwires;

/// Values with the shape of a PIN of which nothing is concluded: a new site has a handful, and each may be a card.
pub const UNJUDGED_VALUES: u64 = 50;

codes!(
    /// Which tripwire; the code is the key under `limits`, but for `read_only` and `restored`, which have none.
    Tripwire {
        UsersShrunk = "users_shrunk", "there are fewer users than there were";
        PinlessRise = "pinless_rise", "more users have no PIN than had";
        UnexplainedPins = "unexplained_pins", "PINs seem to be stored in another form";
        ReadOnly = "read_only", "the database takes no changes";
        ClockSkew = "clock_skew", "the database's clock and this machine's differ";
        DeliveryDown = "delivery_down", "no mail can be delivered";
        Restored = "restored", "the database seems to be an older one";
    }
);

/// Users, and those of them who have no PIN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pinless {
    pub users: u64,
    pub pinless: u64,
}

/// A sprung tripwire, with its figures.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Stop {
    UsersShrunk {
        before: u64,
        now: u64,
        allowed: Share,
    },
    PinlessRise {
        before: Pinless,
        now: Pinless,
        allowed: Share,
    },
    UnexplainedPins {
        foreign: u64,
        of: u64,
        configured: PinFormat,
        most: PinFormat,
        allowed: Share,
    },
    ReadOnly(ReadOnly),
    /// Positive: the database is ahead of us.
    ClockSkew {
        seconds: i64,
        allowed: Duration,
    },
    DeliveryDown {
        since: Timestamp,
        lasted: Duration,
        users: u64,
        allowed: Duration,
    },
    /// Of the newest `of` issuances so many are gone; the oldest of them was made then.
    Restored {
        gone: u64,
        of: u64,
        since: Timestamp,
    },
}

/// Judges what the database says of itself. `skew` is how many seconds its clock is ahead of ours.
pub fn of_pulse(limits: &Tripwires, pulse: &Pulse, skew: i64) -> Vec<Stop> {
    let read_only = pulse.read_only.map(Stop::ReadOnly);
    let clock_skew = match limits.clock_skew {
        Limit::At(allowed) if Duration::from_secs(skew.unsigned_abs()) > allowed => Some(Stop::ClockSkew { seconds: skew, allowed }),
        _ => None,
    };
    read_only.into_iter().chain(clock_skew).collect()
}

/// Judges the figures that are asked for before a full read. Without a `baseline` only what needs none.
pub fn of_figures(limits: &Tripwires, configured: PinFormat, baseline: Option<Baseline>, now: &Counts) -> Vec<Stop> {
    let shrunk = baseline.and_then(|before| users_shrunk(limits, before.users, now.users));
    shrunk.into_iter().chain(unexplained_pins(limits, configured, now)).collect()
}

fn users_shrunk(limits: &Tripwires, before: u64, now: u64) -> Option<Stop> {
    let Limit::At(allowed) = limits.users_shrunk else { return None };
    let sprung = before.saturating_sub(now) as f64 > allowed.ratio() * before as f64 || (now == 0 && before > 0);
    sprung.then_some(Stop::UsersShrunk { before, now, allowed })
}

/// Judges what a full read found on its way: users without a PIN.
pub fn of_pinless(limits: &Tripwires, before: Pinless, now: Pinless) -> Option<Stop> {
    let Limit::At(allowed) = limits.pinless_rise else { return None };
    (rise(before, now) > allowed.ratio()).then_some(Stop::PinlessRise { before, now, allowed })
}

/// Compares as many users as there were then, or as there are left. Those who came since are taken to be among the ones without
/// a PIN.
fn rise(before: Pinless, now: Pinless) -> f64 {
    let new = now.users.saturating_sub(before.users);
    let share = |pinless: u64, users: u64| if users == 0 { 0.0 } else { pinless as f64 / users as f64 };
    share(now.pinless.saturating_sub(new), now.users - new) - share(before.pinless, before.users)
}

fn unexplained_pins(limits: &Tripwires, configured: PinFormat, now: &Counts) -> Option<Stop> {
    let Limit::At(allowed) = limits.unexplained_pins else { return None };
    let foreign = now.foreign.total();
    let of = foreign + now.pins;
    let sprung = of >= UNJUDGED_VALUES && foreign as f64 > allowed.ratio() * of as f64;
    sprung.then(|| Stop::UnexplainedPins { foreign, of, configured, most: now.foreign.most(), allowed })
}

/// Judges how long nothing could be delivered, where `users` would get a new credential.
pub fn of_delivery(limits: &Tripwires, down_since: Option<Timestamp>, now: Timestamp, users: u64) -> Option<Stop> {
    let (Limit::At(allowed), Some(since)) = (limits.delivery_down, down_since) else { return None };
    let lasted = now.since(since);
    (users > 0 && lasted > allowed).then_some(Stop::DeliveryDown { since, lasted, users, allowed })
}

impl Stop {
    pub fn tripwire(&self) -> Tripwire {
        match self {
            Stop::UsersShrunk { .. } => Tripwire::UsersShrunk,
            Stop::PinlessRise { .. } => Tripwire::PinlessRise,
            Stop::UnexplainedPins { .. } => Tripwire::UnexplainedPins,
            Stop::ReadOnly(_) => Tripwire::ReadOnly,
            Stop::ClockSkew { .. } => Tripwire::ClockSkew,
            Stop::DeliveryDown { .. } => Tripwire::DeliveryDown,
            Stop::Restored { .. } => Tripwire::Restored,
        }
    }

    /// Whether nothing at all may be written. Else only new credentials are not made.
    pub fn ends_the_pass(&self) -> bool {
        self.tripwire() != Tripwire::DeliveryDown
    }

    /// What was found, short: a share, or a span.
    pub fn found(&self) -> String {
        match self {
            Stop::UsersShrunk { before, now, .. } => percent(before.saturating_sub(*now), *before),
            Stop::PinlessRise { before, now, .. } => points(rise(*before, *now)),
            Stop::UnexplainedPins { foreign, of, .. } => percent(*foreign, *of),
            Stop::ReadOnly(ReadOnly::Standby) => "standby".to_owned(),
            Stop::ReadOnly(ReadOnly::Setting) => "default_transaction_read_only".to_owned(),
            Stop::ReadOnly(ReadOnly::File) => "file".to_owned(),
            Stop::ClockSkew { seconds, .. } => format!("{seconds}s"),
            Stop::DeliveryDown { lasted, .. } => span(*lasted),
            Stop::Restored { gone, of, .. } => percent(*gone, *of),
        }
    }

    /// The limit as configured; `None` where there is none to raise.
    pub fn allowed(&self) -> Option<String> {
        match self {
            Stop::UsersShrunk { allowed, .. } | Stop::PinlessRise { allowed, .. } | Stop::UnexplainedPins { allowed, .. } => {
                Some(allowed.to_string())
            }
            Stop::ReadOnly(_) | Stop::Restored { .. } => None,
            Stop::ClockSkew { allowed, .. } | Stop::DeliveryDown { allowed, .. } => Some(span(*allowed)),
        }
    }
}

impl fmt::Display for Stop {
    /// What was found, and what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (found, code) = (self.found(), self.tripwire().as_str());
        let allows = self.allowed().map_or(String::new(), |allowed| format!("; {code} allows {allowed}"));
        let lift = format!("set limits.{code}: unlimited for one pass");
        match self {
            Stop::UsersShrunk { before, now, .. } => write!(
                f,
                "the database has {now} users where the last successful full pass found {before} ({found} fewer{allows}); nothing was changed. \
                 Look whether rows are missing, or whether it is the right database. If these users are meant to be gone, {lift}"
            ),
            Stop::PinlessRise { before, now, .. } => write!(
                f,
                "{} of {} users have no PIN where the last successful full pass found {} of {} ({found} more, new users left out{allows}); \
                 nothing was changed. Look whether somebody removed PINs, or changed how they are stored (pin_format). If these users are \
                 meant to get new ones, {lift}",
                now.pinless, now.users, before.pinless, before.users
            ),
            Stop::UnexplainedPins { foreign, of, configured, most, .. } => write!(
                f,
                "{foreign} of {of} values that look like a PIN are not of the form {} ({found}{allows}); nothing was changed. Most of them have \
                 the form of another one: set pin_format: {}? The print system's property conversionPIN tells. If they are cards, set \
                 limits.{code}: unlimited",
                configured.as_str(),
                most.as_str()
            ),
            Stop::ReadOnly(ReadOnly::Standby) => f.write_str(
                "the database server is a standby and takes no changes (pg_is_in_recovery); nothing was changed. Name the primary in `url`, or \
                 all hosts of the cluster",
            ),
            Stop::ReadOnly(ReadOnly::File) => f.write_str(
                "this account may not write the file of the sandbox's database; nothing was changed. Give the account that runs credkeeper the \
                 right to write the file and in its directory",
            ),
            Stop::ReadOnly(ReadOnly::Setting) => f.write_str(
                "the database takes no changes (default_transaction_read_only = on); nothing was changed. ALTER DATABASE or ALTER ROLE … RESET \
                 default_transaction_read_only, or name the primary in `url`",
            ),
            Stop::ClockSkew { seconds, .. } => {
                let way = if *seconds > 0 { "ahead of" } else { "behind" };
                write!(
                    f,
                    "the database's clock is {} s {way} this machine's{allows}; nothing was changed. Set both clocks right (NTP): PINs would \
                     expire at the wrong time, and mails would be dated wrongly",
                    seconds.unsigned_abs()
                )
            }
            Stop::DeliveryDown { since, users, .. } => write!(
                f,
                "no mail could be delivered since {since} ({found}{allows}), so no new credential was made for {users} users. `credkeeper doctor` \
                 says what is wrong with the mail server; they are served as soon as it takes mail again"
            ),
            Stop::Restored { gone, of, since } => write!(
                f,
                "the database seems to have been restored from an older backup: of the newest {of} credentials that the journal knows, {gone} are \
                 not in it, back to {since}; nothing was changed and no mail is sent. If a newer state of the database can still be put in its \
                 place, do that. If it is to stay, `credkeeper journal adopt NAME` (its name in the configuration) tells whose PINs are gone, \
                 and the next pass issues new ones, within the limits"
            ),
        }
    }
}

/// One decimal.
fn percent(part: u64, whole: u64) -> String {
    points(if whole == 0 { 0.0 } else { part as f64 / whole as f64 })
}

fn points(ratio: f64) -> String {
    format!("{:.1}%", ratio * 100.0)
}

#[cfg(test)]
mod tests;
