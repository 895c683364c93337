//! Since when nothing can be delivered.
//!
//! Told by what the courier learned from a mail: an outage begins with the first mail that shuts its gate (nobody answers, or
//! the server refuses everybody), and ends when the gate opens again. Without mail that waits there is none: nobody would
//! find out that the server is well again.

use tokio::sync::watch;

use crate::domain::Timestamp;
use crate::mail::State;

pub(super) struct Outage(watch::Sender<Option<Timestamp>>);

impl Outage {
    /// `since`: what was known before.
    pub(super) fn new(since: Option<Timestamp>) -> (Outage, watch::Receiver<Option<Timestamp>>) {
        let (since, told) = watch::channel(since);
        (Outage(since), told)
    }

    /// A mail was tried; `courier` is how it stands since.
    pub(super) fn tried(&self, courier: State, now: Timestamp) {
        let known = *self.0.borrow();
        self.set(match courier {
            State::Open => None,
            State::Probing | State::PausedUntil(_) => Some(known.unwrap_or(now)),
        });
    }

    pub(super) fn nothing_waits(&self) {
        self.set(None);
    }

    fn set(&self, since: Option<Timestamp>) {
        self.0.send_if_modified(|known| std::mem::replace(known, since) != since);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn an_outage_lasts_from_the_first_failure_to_the_first_success() {
        let (outage, told) = Outage::new(None);
        let paused = State::PausedUntil(Instant::now());
        #[rustfmt::skip]
        let steps: [(&str, State, i64, Option<i64>); 7] = [
            ("a mail goes", State::Open, 1, None),
            ("nobody answers", paused, 2, Some(2)),
            ("nor later", paused, 3, Some(2)),
            ("the one that looks has no answer", State::Probing, 4, Some(2)),
            ("mail goes again", State::Open, 5, None),
            ("and not", paused, 6, Some(6)),
            ("still not", paused, 7, Some(6)),
        ];
        for (sentence, courier, now, since) in steps {
            outage.tried(courier, Timestamp(now));
            assert_eq!(told.borrow().map(|at| at.0), since, "{sentence}");
        }
        outage.nothing_waits();
        assert_eq!(*told.borrow(), None, "nobody would find out");
    }
}
