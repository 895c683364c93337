//! The life of an issuance, as a pure table; the file only carries out what [`next`] allows.
//!
//! ```text
//!              Refused ─► abandoned
//!             /                                    ┌─ Deferred ─┐
//! planned ───┼─ Committed ──────────► committed ◄──┘            │
//!             \                         │ │  ▲ └───────────────┘
//!              \                        │ │  └── Retried ──────────────┐
//!               \                       │ └── Rejected, GaveUp, Withheld ─► undeliverable
//!                \           Accepted ◄─┘                             │ TakenBack
//!                 \           └► delivered ────── TakenBack ──────────┤
//!                  └─ CommittedSilently ─► unannounced ── TakenBack ──┴─► taken_back
//!
//! committed, undeliverable, delivered, unannounced ── Gone ─► superseded
//! ```
//!
//! Gone is seen before a late mail, and when a database is adopted that was restored from an older backup.

use std::fmt;

/// Where an issuance stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum State {
    /// Written inside the open transaction, before COMMIT: nobody knows yet whether it happened.
    Planned,
    /// In the database; the mail is still to be accepted.
    Committed,
    /// The mail server has taken the mail over.
    Delivered,
    /// In the database, but the mail cannot be delivered. Waits for take-back or a retry, and keeps its secret for them.
    Undeliverable,
    /// In the database, and nobody is to be told.
    Unannounced,
    /// Never reached the database.
    Abandoned,
    /// The database no longer holds it, so there is nothing to tell.
    Superseded,
    /// Undone by ourselves.
    TakenBack,
}

/// What can happen to an issuance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// COMMIT was answered, or the rows were found later; a mail is due.
    Committed,
    /// The same, with nobody to tell.
    CommittedSilently,
    /// COMMIT was refused, or the rows were not found.
    Refused,
    /// The mail server said yes.
    Accepted,
    /// The mail server said no, for good.
    Rejected,
    /// The mail server said later.
    Deferred,
    /// It said later for too long.
    GaveUp,
    /// The row is no longer as we wrote it.
    Gone,
    /// It is to be taken back, and the mail has not been accepted yet: it is not sent any more.
    Withheld,
    /// An administrator wants the mail tried again.
    Retried,
    /// Our own change was undone.
    TakenBack,
}

/// An event that cannot happen in that state: a bug of ours, or two writers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[error("an issuance that is {state} cannot become what follows on “{event:?}”")]
pub struct IllegalTransition {
    pub state: State,
    pub event: Event,
}

/// The state after `event`.
pub fn next(state: State, event: Event) -> Result<State, IllegalTransition> {
    use State::*;
    match (state, event) {
        (Planned, Event::Committed) => Ok(Committed),
        (Planned, Event::CommittedSilently) => Ok(Unannounced),
        (Planned, Event::Refused) => Ok(Abandoned),
        (Committed, Event::Accepted) => Ok(Delivered),
        (Committed, Event::Rejected | Event::GaveUp | Event::Withheld) => Ok(Undeliverable),
        // Withheld while it was on its way.
        (Undeliverable, Event::Accepted) => Ok(Delivered),
        (Committed, Event::Deferred) => Ok(Committed),
        (Committed | Delivered | Undeliverable | Unannounced, Event::Gone) => Ok(Superseded),
        (Undeliverable, Event::Retried) => Ok(Committed),
        (Delivered | Undeliverable | Unannounced, Event::TakenBack) => Ok(TakenBack),
        _ => Err(IllegalTransition { state, event }),
    }
}

impl State {
    pub const ALL: [State; 8] = [
        State::Planned,
        State::Committed,
        State::Delivered,
        State::Undeliverable,
        State::Unannounced,
        State::Abandoned,
        State::Superseded,
        State::TakenBack,
    ];

    /// As in the file, in metrics and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Planned => "planned",
            State::Committed => "committed",
            State::Delivered => "delivered",
            State::Undeliverable => "undeliverable",
            State::Unannounced => "unannounced",
            State::Abandoned => "abandoned",
            State::Superseded => "superseded",
            State::TakenBack => "taken_back",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<State> {
        State::ALL.into_iter().find(|s| s.as_str() == text)
    }

    /// The user must not be served again before this has ended (I4).
    pub fn is_open(self) -> bool {
        matches!(self, State::Planned | State::Committed)
    }

    /// What was issued stands in the database, as far as we know: it makes the keeper, and it is what “ours” means.
    pub fn is_in_force(self) -> bool {
        matches!(self, State::Committed | State::Delivered | State::Undeliverable | State::Unannounced)
    }

    /// A credential was made and may have been seen; counts towards `min_interval` (R24).
    pub fn was_made(self) -> bool {
        !matches!(self, State::Abandoned | State::Superseded)
    }

    /// The plaintext is still needed. In every other state it is wiped, in the step that leads there (I5).
    pub fn keeps_secret(self) -> bool {
        matches!(self, State::Planned | State::Committed | State::Undeliverable)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 11] = [
        Event::Committed,
        Event::CommittedSilently,
        Event::Refused,
        Event::Accepted,
        Event::Rejected,
        Event::Deferred,
        Event::GaveUp,
        Event::Gone,
        Event::Withheld,
        Event::Retried,
        Event::TakenBack,
    ];

    #[test]
    fn every_state_meets_every_event() {
        // Columns as in EVENTS; a dash is illegal, else the first letters of the state that follows.
        let table = "
            planned        com una aba  -   -   -   -   -   -   -   -
            committed       -   -   -  del und com und sup und  -   -
            delivered       -   -   -   -   -   -   -  sup  -   -  tak
            undeliverable   -   -   -  del  -   -   -  sup  -  com tak
            unannounced     -   -   -   -   -   -   -  sup  -   -  tak
            abandoned       -   -   -   -   -   -   -   -   -   -   -
            superseded      -   -   -   -   -   -   -   -   -   -   -
            taken_back      -   -   -   -   -   -   -   -   -   -   -";
        let mut seen = 0;
        for row in table.trim().lines() {
            let mut cells = row.split_whitespace();
            let state = State::parse(cells.next().unwrap()).unwrap();
            for (event, cell) in EVENTS.into_iter().zip(cells) {
                match next(state, event) {
                    Ok(after) => {
                        assert!(cell != "-" && after.as_str().starts_with(cell), "{state} on {event:?} became {after}, not {cell}")
                    }
                    Err(error) => {
                        assert_eq!((cell, error), ("-", IllegalTransition { state, event }), "{state} on {event:?}");
                    }
                }
                seen += 1;
            }
        }
        assert_eq!(seen, 88);
    }

    #[test]
    fn only_what_waits_or_may_be_retried_keeps_its_secret() {
        let kept: Vec<_> = State::ALL.into_iter().filter(|s| s.keeps_secret()).map(State::as_str).collect();
        assert_eq!(kept, ["planned", "committed", "undeliverable"]);
        assert!(State::ALL.into_iter().all(|s| !s.is_open() || s.keeps_secret()));
    }

    #[test]
    fn names_are_read_back() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        assert_eq!(State::parse("gone"), None);
    }
}
