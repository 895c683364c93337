//! A skipped or failing user never occupies a place that another needs (I7): whoever fails, in whatever way and for however long, all
//! others are served within a number of rounds that grows with the number of those who fail, and with nothing else.

use std::rc::Rc;
use std::sync::Arc;

use credkeeper::{clock, fault};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::database::Database;
use crate::ledger::Ledger;
use crate::process::{Bench, Ended, Process};
use crate::schedule::{Address, Reply, Vendor};
use crate::setups::Setup;
use crate::world::World;

/// What keeps a user from being served, for ever; or nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Served,
    WrongAddress,
    NoAddress,
    /// The mail server says this to the recipient.
    Mail(Reply),
    /// The database takes no PIN of this user.
    Refused,
    /// The policy names a cost center that is not there.
    Blocked,
    OnHold,
    /// The template is not in the configuration any more.
    TemplateGone,
}

const FATES: [Fate; 12] = [
    Fate::WrongAddress,
    Fate::NoAddress,
    Fate::Mail(Reply::Later),
    Fate::Mail(Reply::LaterAtEnd),
    Fate::Mail(Reply::Never),
    Fate::Mail(Reply::Site),
    Fate::Mail(Reply::LostBefore),
    Fate::Mail(Reply::Cut),
    Fate::Refused,
    Fate::Blocked,
    Fate::OnHold,
    Fate::TemplateGone,
];

const SETUP: Setup = Setup {
    name: "places",
    keys: "",
    limits: "batch_size: 3, min_interval: 0s",
    mail: "connections: 2",
    policies: "
  - name: staff
    match: {cost_center: [Staff]}
    pin: {length: 6, rewrite: never}
    notify: {to: email, template: t}
  - name: others
    match: {cost_center: [Has PIN]}
    pin: {length: 6, rewrite: never}
    notify: {to: email, template: gone}
  - name: nowhere
    match: {cost_center: [Needs PIN]}
    pin: {length: 6, rewrite: never}
    cost_center: {move_to: No such place}
    notify: {to: email, template: t}
",
    is_served: |_, _, _, _| true,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Daemon,
    Once,
}

/// In how many rounds all were served who can be.
fn rounds(fates: &[Fate], by: By) -> Result<usize, String> {
    let mut bench = Bench::new(&SETUP);
    bench.clear();
    let world = Rc::new(World::new(Database::open(&bench.path("site.db")), Ledger::new(bench.path("journal.db"))));
    let (at_points, at_clock) = (world.clone(), world.clock.clone());
    fault::on_this_thread(Some(Box::new(move |point| at_points.passes(point))));
    clock::on_this_thread(Some(Box::new(move || at_clock.wall())));
    let served = play(fates, by, &mut bench, &world);
    fault::on_this_thread(None);
    clock::on_this_thread(None);
    served.map_err(|told| format!("{told}\n{}", world.trace()))
}

fn play(fates: &[Fate], by: By, bench: &mut Bench, world: &Rc<World>) -> Result<usize, String> {
    let fails = fates.iter().filter(|fate| **fate != Fate::Served).count();
    for fate in fates {
        let center = match fate {
            Fate::TemplateGone => 2,
            Fate::Blocked => 1,
            _ => 3,
        };
        let address = match fate {
            Fate::WrongAddress => Address::Wrong,
            Fate::NoAddress => Address::None,
            _ => Address::Good(0),
        };
        world.vendor(Vendor::NewUser { center, address, pins: 0 });
    }
    let of = |wanted: fn(&Fate) -> bool| fates.iter().enumerate().filter(move |(_, fate)| wanted(fate)).map(|(n, _)| n + 1);
    let refused: Vec<String> = of(|fate| *fate == Fate::Refused).map(|id| id.to_string()).collect();
    world.db.borrow().tamper(&format!(
        "CREATE TRIGGER refuse BEFORE INSERT ON users_cards WHEN NEW.user_id IN ({}) BEGIN SELECT RAISE(ABORT, 'never'); END",
        refused.join(",")
    ));
    // All is committed while no mail goes, so that those who fail are in the queue with the others.
    world.post.borrow_mut().down = true;
    let mut process = begun(bench, world)?;
    process.pass(None, true).map_err(told)?;
    for id in of(|fate| *fate == Fate::OnHold) {
        let user = credkeeper::domain::UserId(id as i64);
        process.journal(async |journal| journal.hold(user, "x", "x", clock::now()).await.unwrap()).map_err(told)?;
    }
    drop(process);
    world.post.borrow_mut().be_well();
    for (n, fate) in fates.iter().enumerate() {
        if let Fate::Mail(reply) = fate {
            world.post.borrow_mut().always.insert(format!("user{}.0@example.com", n + 1), *reply);
        }
    }
    let mut config = (*bench.config).clone();
    config.templates.remove("gone");
    bench.config = Arc::new(config);

    let mut daemon = (by == By::Daemon).then(|| begun(bench, world)).transpose()?;
    // One comes later.
    world.vendor(Vendor::NewUser { center: 3, address: Address::Good(0), pins: 0 });
    let wanted: Vec<String> =
        of(|fate| matches!(fate, Fate::Served | Fate::OnHold)).chain([fates.len() + 1]).map(|id| format!("user{id}")).collect();
    let most = fails + 4;
    for round in 1..=most {
        match &mut daemon {
            Some(process) => {
                process.pass(None, true).map_err(told)?;
                process.wait(15 * 60).map_err(told)?;
            }
            None => {
                Process::start(bench, world).once().map_err(told)?;
                world.clock.jump(60);
            }
        }
        let post = world.post.borrow();
        if wanted.iter().all(|user| post.taken.iter().any(|mail| mail.user == *user)) {
            return Ok(round);
        }
    }
    let post = world.post.borrow();
    let missing: Vec<_> = wanted.iter().filter(|user| post.taken.iter().all(|mail| mail.user != **user)).collect();
    Err(format!("after {most} rounds of {by:?} no mail to {missing:?}"))
}

fn begun<'b>(bench: &'b Bench, world: &Rc<World>) -> Result<Process<'b>, String> {
    let mut process = Process::start(bench, world);
    process.begin().map_err(told)?;
    Ok(process)
}

fn told(ended: Ended) -> String {
    match ended {
        Ended::Died => "it died".to_owned(),
        Ended::Broken(broken) => broken.to_string(),
    }
}

/// Whoever is at the front of the queue is whom the newest user is: of these, all who fail.
fn at_the_front(fate: Fate) -> Vec<Fate> {
    [&[Fate::Served; 3][..], &[fate; 7]].concat()
}

#[test]
fn many_who_fail_alike_keep_nobody_from_being_served() {
    for by in [By::Daemon, By::Once] {
        for fate in FATES {
            let served = rounds(&at_the_front(fate), by);
            assert!(served.is_ok(), "{fate:?}: {}", served.unwrap_err());
        }
    }
}

#[test]
fn whoever_fails_all_others_are_served_within_so_many_rounds() {
    for seed in 0..if std::env::var_os("CREDKEEPER_LONG").is_some() { 400 } else { 40 } {
        let mut dice = SmallRng::seed_from_u64(seed);
        let percent = dice.random_range(0..100);
        let fates: Vec<Fate> = (0..dice.random_range(1..16))
            .map(|_| if dice.random_range(0..100) < percent { FATES[dice.random_range(0..FATES.len())] } else { Fate::Served })
            .collect();
        let by = if dice.random_range(0..2) == 0 { By::Daemon } else { By::Once };
        let served = rounds(&fates, by);
        assert!(served.is_ok(), "seed {seed}, {fates:?}: {}", served.unwrap_err());
    }
}
