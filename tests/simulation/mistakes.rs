//! Mistakes on purpose: a simulation that found none of them would prove nothing. Each has to be found within so many schedules, as the
//! breach of the promise that it breaks.

use credkeeper::fault;

use crate::process::Bench;
use crate::run::play;
use crate::schedule::Schedule;
use crate::setups::SETUPS;
use crate::world::World;

/// How many schedules a mistake may survive.
const WITHIN: u64 = 600;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mistake {
    /// One that the program itself makes.
    Of(fault::Mistake),
    /// Nobody looks what a crash left behind.
    NoRecovery,
    /// What is committed and waits for its mail is called abandoned.
    Abandons,
    /// Each mail is sent twice, with another PIN first.
    Forges,
    /// Each mail is sent twice, to somebody else first.
    Redirects,
    /// A secret outlives its use.
    KeepsSecrets,
    /// What was delivered is open again.
    Reopens,
    /// A row of somebody goes who is not in the plan.
    TakesAway,
    /// Somebody is never served.
    Starves,
}

impl Mistake {
    /// Before the first event.
    pub fn begin(self, world: &World) {
        match self {
            Mistake::Of(mistake) => fault::make_on_this_thread(Some(mistake)),
            Mistake::Forges => world.post.borrow_mut().forges = true,
            Mistake::Redirects => world.post.borrow_mut().redirects = true,
            _ => {}
        }
    }

    /// After each event.
    pub fn after(self, world: &World) {
        let journal = |sql: &str| world.ledger.borrow_mut().tamper(sql);
        match self {
            Mistake::Abandons => journal(
                "UPDATE issuance SET state = 'abandoned', open = NULL, secret = NULL \
                 WHERE open = 1 AND state IS NULL AND batch IN (SELECT id FROM batch WHERE state = 'committed')",
            ),
            Mistake::KeepsSecrets => journal("UPDATE issuance SET secret = x'00' WHERE state = 'delivered'"),
            Mistake::Reopens => journal("UPDATE issuance SET state = 'committed' WHERE state = 'delivered'"),
            Mistake::TakesAway => {
                world.db.borrow().tamper("DELETE FROM users_cards WHERE id = (SELECT min(id) FROM users_cards)");
                world.look();
            }
            Mistake::Starves => {
                journal("INSERT OR IGNORE INTO hold (database, user, login, since, reason) SELECT 1, user, 'x', 0, 'x' FROM issuance")
            }
            Mistake::Of(_) | Mistake::NoRecovery | Mistake::Forges | Mistake::Redirects => {}
        }
    }
}

/// Plays schedules with the mistake until a promise breaks.
fn is_found(mistake: Mistake, promises: &[&str]) {
    let benches: Vec<Bench> = SETUPS.iter().map(Bench::new).collect();
    for seed in 0..WITHIN {
        let schedule = Schedule::of(seed);
        let played = play(&schedule, &benches[schedule.setup], Some(mistake));
        fault::make_on_this_thread(None);
        if let Err(failure) = played {
            let broken = &failure.broken;
            eprintln!("{mistake:?} is found by schedule {seed}: {broken}");
            assert!(promises.contains(&broken.promise), "{mistake:?} breaks {broken}, not {promises:?}\n{}", failure.trace);
            return;
        }
    }
    panic!("{mistake:?} was not found by {WITHIN} schedules");
}

#[test]
fn telling_the_journal_before_the_commit_is_found() {
    is_found(Mistake::Of(fault::Mistake::NotedBeforeCommit), &["I1"]);
}

#[test]
fn mailing_late_without_a_look_is_found() {
    is_found(Mistake::Of(fault::Mistake::NeverLooks), &["I1"]);
}

#[test]
fn a_start_without_recovery_is_found() {
    is_found(Mistake::NoRecovery, &["I2", "I9"]);
}

#[test]
fn calling_abandoned_what_is_committed_is_found() {
    is_found(Mistake::Abandons, &["I2"]);
}

#[test]
fn another_pin_than_the_one_that_stands_is_found() {
    is_found(Mistake::Forges, &["I1"]);
}

#[test]
fn another_recipient_is_found() {
    is_found(Mistake::Redirects, &["I3"]);
}

#[test]
fn a_secret_that_outlives_its_use_is_found() {
    is_found(Mistake::KeepsSecrets, &["I5"]);
}

#[test]
fn an_ended_issuance_that_is_open_again_is_found() {
    is_found(Mistake::Reopens, &["I4"]);
}

#[test]
fn a_row_that_goes_without_a_plan_is_found() {
    is_found(Mistake::TakesAway, &["I8"]);
}

#[test]
fn somebody_who_is_never_served_is_found() {
    is_found(Mistake::Starves, &["I7"]);
}
