//! Stops all mail while the site, not a recipient, is at fault, so that a dead relay costs the queue one attempt a
//! pause and not one attempt a mail (product rules R27 and R32). Pure: time is an argument.
//!
//! ```text
//!           ill                       pause over, first mail
//!   Open ─────────► Shut(pause) ───────────────────────────────► Probing
//!    ▲                  ▲                                          │ │
//!    │                  └───── ill or unsure: twice the pause ─────┘ │
//!    └───────────────────────────────── well ────────────────────────┘
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::delivery::Health;

/// Whether mails may go.
#[derive(Debug)]
pub(crate) struct Gate {
    phase: Phase,
    /// Goes up with every change of phase. A mail that started before the last change cannot change it again: N
    /// connections that fail together are one failure.
    epoch: u64,
    first_pause: Duration,
    longest_pause: Duration,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Phase {
    Open,
    Shut {
        until: Instant,
        pause: Duration,
    },
    /// One mail is on its way to find out.
    Probing {
        pause: Duration,
    },
}

/// What a mail that wants to go is told.
#[derive(Debug)]
pub(crate) enum Entry {
    Go(Ticket),
    /// Another mail is finding out: wait for a change of phase.
    Wait,
    Shut,
}

/// Permission to send one mail; to be handed back with what was learned.
#[derive(Debug)]
pub(crate) struct Ticket(u64);

impl Gate {
    /// So many first pauses after a refused login: a wrong password does not become right by being tried often.
    const LOCKED_OUT: u32 = 20;

    pub(crate) fn new(first_pause: Duration, longest_pause: Duration) -> Gate {
        Gate { phase: Phase::Open, epoch: 0, first_pause, longest_pause }
    }

    /// One that lets a single mail find out first whether the site is well, as after a pause: of a login that is refused,
    /// many connections would make many failures at once, and servers lock accounts for that.
    pub(crate) fn cautious(self, now: Instant) -> Gate {
        Gate { phase: Phase::Shut { until: now, pause: self.first_pause / 2 }, ..self }
    }

    pub(crate) fn enter(&mut self, now: Instant) -> Entry {
        match self.phase {
            Phase::Open => Entry::Go(Ticket(self.epoch)),
            Phase::Probing { .. } => Entry::Wait,
            Phase::Shut { until, .. } if now < until => Entry::Shut,
            Phase::Shut { pause, .. } => {
                self.go_to(Phase::Probing { pause });
                Entry::Go(Ticket(self.epoch))
            }
        }
    }

    pub(crate) fn leave(&mut self, now: Instant, ticket: Ticket, health: Health) {
        if ticket.0 != self.epoch {
            return;
        }
        match (self.phase, health) {
            (Phase::Open, Health::LockedOut) => self.shut(now, self.locked_out()),
            (Phase::Probing { pause }, Health::LockedOut) => self.shut(now, pause.saturating_mul(2).max(self.locked_out())),
            (Phase::Open, Health::Ill) => self.shut(now, self.first_pause),
            (Phase::Probing { .. }, Health::Well) => self.go_to(Phase::Open),
            (Phase::Probing { pause }, Health::Ill | Health::Unsure) => self.shut(now, pause.saturating_mul(2)),
            (Phase::Open | Phase::Shut { .. }, _) => {}
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    fn locked_out(&self) -> Duration {
        self.first_pause.saturating_mul(Self::LOCKED_OUT)
    }

    fn shut(&mut self, now: Instant, pause: Duration) {
        let pause = pause.min(self.longest_pause);
        self.go_to(Phase::Shut { until: now + pause, pause });
    }

    fn go_to(&mut self, phase: Phase) {
        self.phase = phase;
        self.epoch += 1;
    }
}

/// Watches for a server that rejects everybody: more than 10 % permanent rejections among at least 50 recipients tried
/// in 10 minutes mean that the site is at fault (product rule R32).
#[derive(Debug, Default)]
pub(crate) struct Rejections {
    start: Option<Instant>,
    /// One entry a second in which a recipient was tried: second since `start`, tried, rejected.
    seconds: VecDeque<(u64, u32, u32)>,
}

impl Rejections {
    const WINDOW_SECONDS: u64 = 600;
    const AT_LEAST: u32 = 50;

    /// Notes one recipient tried and says whether the site is to blame rather than this recipient.
    pub(crate) fn note(&mut self, now: Instant, rejected: bool) -> bool {
        let second = now.saturating_duration_since(*self.start.get_or_insert(now)).as_secs();
        while self.seconds.front().is_some_and(|(at, ..)| at + Self::WINDOW_SECONDS <= second) {
            self.seconds.pop_front();
        }
        match self.seconds.back_mut() {
            Some((at, tried, refused)) if *at >= second => {
                *tried += 1;
                *refused += u32::from(rejected);
            }
            _ => self.seconds.push_back((second, 1, rejected.into())),
        }
        let (tried, refused) = self.seconds.iter().fold((0, 0), |(t, r), (_, tried, refused)| (t + tried, r + refused));
        rejected && tried >= Self::AT_LEAST && refused * 10 > tried
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn gate() -> Gate {
        Gate::new(15 * SECOND, 900 * SECOND)
    }

    fn ticket(gate: &mut Gate, now: Instant) -> Ticket {
        match gate.enter(now) {
            Entry::Go(ticket) => ticket,
            other => panic!("{other:?} in {:?}", gate.phase()),
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_each_costs_one_mail() {
        let (mut gate, mut now, mut pauses) = (gate(), Instant::now(), Vec::new());
        for _ in 0..9 {
            let probe = ticket(&mut gate, now);
            if !pauses.is_empty() {
                assert!(matches!(gate.enter(now), Entry::Wait), "only one mail finds out");
            }
            gate.leave(now, probe, Health::Ill);
            assert!(matches!(gate.enter(now), Entry::Shut));
            let Phase::Shut { until, .. } = gate.phase() else { panic!("{:?}", gate.phase()) };
            pauses.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(pauses, [15, 30, 60, 120, 240, 480, 900, 900, 900]);
    }

    #[test]
    fn a_refused_login_is_tried_by_one_mail_and_seldom() {
        let (mut gate, mut now, mut pauses) = (gate().cautious(Instant::now()), Instant::now(), Vec::new());
        for _ in 0..4 {
            let probe = ticket(&mut gate, now);
            assert!(matches!(gate.enter(now), Entry::Wait), "only one mail finds out, at the start too");
            gate.leave(now, probe, Health::LockedOut);
            let Phase::Shut { until, .. } = gate.phase() else { panic!("{:?}", gate.phase()) };
            pauses.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(pauses, [300, 600, 900, 900]);
        let mut gate = self::gate().cautious(now);
        let probe = ticket(&mut gate, now);
        gate.leave(now, probe, Health::Ill);
        assert_eq!(gate.phase(), Phase::Shut { until: now + 15 * SECOND, pause: 15 * SECOND });
        let probe = ticket(&mut gate, now + 15 * SECOND);
        gate.leave(now + 15 * SECOND, probe, Health::Well);
        assert_eq!(gate.phase(), Phase::Open);
    }

    #[test]
    fn one_success_opens_the_gate_and_forgets_the_pauses() {
        let (mut gate, now) = (gate(), Instant::now());
        let first = ticket(&mut gate, now);
        gate.leave(now, first, Health::Ill);
        let probe = ticket(&mut gate, now + 15 * SECOND);
        gate.leave(now + 15 * SECOND, probe, Health::Well);
        assert_eq!(gate.phase(), Phase::Open);
        let next = ticket(&mut gate, now + 16 * SECOND);
        gate.leave(now + 16 * SECOND, next, Health::Ill);
        assert_eq!(gate.phase(), Phase::Shut { until: now + 31 * SECOND, pause: 15 * SECOND });
    }

    #[test]
    fn mails_that_fail_together_are_one_failure() {
        let (mut gate, now) = (gate(), Instant::now());
        let (a, b, c) = (ticket(&mut gate, now), ticket(&mut gate, now), ticket(&mut gate, now));
        gate.leave(now, a, Health::Ill);
        let after_one = gate.phase();
        gate.leave(now + SECOND, b, Health::Ill);
        gate.leave(now + SECOND, c, Health::Well);
        assert_eq!(gate.phase(), after_one);
    }

    #[test]
    fn a_probe_that_learned_nothing_shuts_the_gate_again() {
        let (mut gate, now) = (gate(), Instant::now());
        let first = ticket(&mut gate, now);
        gate.leave(now, first, Health::Ill);
        let probe = ticket(&mut gate, now + 15 * SECOND);
        gate.leave(now + 15 * SECOND, probe, Health::Unsure);
        assert_eq!(gate.phase(), Phase::Shut { until: now + 45 * SECOND, pause: 30 * SECOND });
    }

    #[test]
    fn an_unsure_mail_leaves_an_open_gate_open() {
        let (mut gate, now) = (gate(), Instant::now());
        let first = ticket(&mut gate, now);
        gate.leave(now, first, Health::Unsure);
        assert_eq!(gate.phase(), Phase::Open);
    }

    #[test]
    fn a_tenth_rejected_among_fifty_is_the_users_and_more_is_the_sites() {
        let now = Instant::now();
        let mut seen = Rejections::default();
        for n in 0..45 {
            assert!(!seen.note(now + n * SECOND, false));
        }
        for _ in 0..5 {
            assert!(!seen.note(now + 45 * SECOND, true), "5 of 50 is a tenth, not more");
        }
        assert!(seen.note(now + 46 * SECOND, true), "6 of 51");
        assert!(!seen.note(now + 46 * SECOND, false), "an accepted mail is never blamed on anybody");
    }

    #[test]
    fn forty_nine_rejections_alone_say_nothing_and_old_ones_are_forgotten() {
        let now = Instant::now();
        let mut seen = Rejections::default();
        for _ in 0..49 {
            assert!(!seen.note(now, true));
        }
        assert!(!seen.note(now + 600 * SECOND, true), "ten minutes later it is one of one");
        assert!(seen.seconds.len() <= 2);
    }
}
