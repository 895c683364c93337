//! Random schedules against the whole program, and after each the promises of ARCHITECTURE.md are asked.
//!
//! One number makes a schedule (`schedule.rs`): passes, polls, delivery, crashes between any two steps, answers of the mail server, what the
//! vendor writes meanwhile, clocks that jump, holds. Afterwards the faults end, and all has to come to rest.
//!
//! **Real** is all of the program: `once::run`, `reconcile::pass`, `recover::recover`, `Delivery` with its courier and SMTP on a socket, the
//! journal in its file, SQLite as the print system's database. A kill drops the runtime of the process and whatever it had open; the next
//! one begins with the files.
//!
//! **Not real**: the vendor and the mail server, both of a few lines; time, which stands still while anybody works and goes on to the next
//! moment when all wait (so that a night takes a millisecond); the loop of the daemon, whose steps (recover, pass) are called one by one;
//! the disk, which never loses what it was given, since a process dies here and no machine. PostgreSQL is `crash`'s and `contract`'s.
//!
//! A number fixes what happens, and in which order. It does not fix which digits are drawn, nor, where a pass and delivery work at the same
//! time, which of them is first: a failure that hangs on that may need to be played a few times.
//!
//! `CREDKEEPER_SEED=N` plays one schedule and tells it; `CREDKEEPER_SCHEDULES=N` plays so many, from `CREDKEEPER_FROM` on.

mod check;
mod clock;
mod database;
mod ledger;
mod mistakes;
mod places;
mod post;
mod process;
mod run;
mod schedule;
mod setups;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use credkeeper::fault::Point;

use process::Bench;
use run::{Tally, play};
use schedule::Schedule;
use setups::SETUPS;

/// Schedules of a run: about a minute on two cores.
const SCHEDULES: u64 = 300;
const LONG: u64 = 10_000;
/// After so many failures a run ends.
const ENOUGH: usize = 5;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[test]
fn random_schedules_keep_every_promise() {
    if let Some(seed) = number("CREDKEEPER_SEED") {
        return tell(seed);
    }
    let long = std::env::var_os("CREDKEEPER_LONG").is_some_and(|long| long == "1");
    let from = number("CREDKEEPER_FROM").unwrap_or(0);
    let to = from + number("CREDKEEPER_SCHEDULES").unwrap_or(if long { LONG } else { SCHEDULES });
    let begun = Instant::now();
    let (next, total, failures) = (AtomicU64::new(from), Mutex::new(Tally::default()), Mutex::new(Vec::new()));
    let work = || {
        let benches: Vec<Bench> = SETUPS.iter().map(Bench::new).collect();
        let mut tally = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= to || failures.lock().unwrap().len() >= ENOUGH {
                break;
            }
            let schedule = Schedule::of(seed);
            match catch_unwind(AssertUnwindSafe(|| play(&schedule, &benches[schedule.setup], None))) {
                Ok(Ok(played)) => tally += played,
                Ok(Err(failure)) => failures.lock().unwrap().push(again(seed, &failure.broken.to_string())),
                Err(_) => failures.lock().unwrap().push(again(seed, "a panic, told above")),
            }
        }
        *total.lock().unwrap() += tally;
    };
    std::thread::scope(|scope| {
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        (0..workers).for_each(|_| drop(scope.spawn(work)));
    });
    let (total, failures) = (total.into_inner().unwrap(), failures.into_inner().unwrap());
    eprintln!("{total:#?}\nin {:.0} s", begun.elapsed().as_secs_f64());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // What never happens is not tested.
    if total.schedules >= SCHEDULES {
        let never: Vec<Point> = Point::ALL.into_iter().filter(|point| !total.passed.contains_key(point)).collect();
        assert!(never.is_empty(), "no process ever came past {never:?}");
    }
}

/// How to play a schedule again that went wrong.
fn again(seed: u64, what: &str) -> String {
    format!("{what}\n  CREDKEEPER_SEED={seed} cargo test --features faults --test simulation random_schedules -- --nocapture")
}

/// Plays one schedule aloud.
fn tell(seed: u64) {
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(std::io::stderr).without_time().init();
    let schedule = Schedule::of(seed);
    match play(&schedule, &Bench::new(&SETUPS[schedule.setup]), None) {
        Ok(tally) => eprintln!("{tally:#?}"),
        Err(failure) => panic!("{}", again(seed, &failure.broken.to_string())),
    }
}
