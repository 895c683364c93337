//! One schedule from its first event to rest.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::rc::Rc;
use std::time::Duration;

use credkeeper::fault::{self, Point};
use credkeeper::journal::Keep;
use credkeeper::plan::Skip;
use credkeeper::report::Report;
use credkeeper::{clock, journal};

use crate::check::{self, Broken, ensure};
use crate::database::Database;
use crate::ledger::Ledger;
use crate::mistakes::Mistake;
use crate::process::{Bench, Ended, Process};
use crate::schedule::{Event, Schedule, Trouble};
use crate::setups::SETUPS;
use crate::world::World;

/// Passes until nothing moves any more; more means that it never does.
const ROUNDS: u32 = 25;

/// What happened in a run.
#[derive(Default, Debug)]
pub struct Tally {
    pub schedules: u64,
    pub events: u64,
    pub passes: u64,
    pub commits: u64,
    pub mails: u64,
    pub reminders: u64,
    pub virtual_time: Duration,
    pub crashes: BTreeMap<Point, u64>,
    pub passed: BTreeMap<Point, u64>,
    pub answers: BTreeMap<&'static str, u64>,
    /// The states in which issuances ended.
    pub ends: BTreeMap<&'static str, u64>,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.schedules += other.schedules;
        self.events += other.events;
        self.passes += other.passes;
        self.commits += other.commits;
        self.mails += other.mails;
        self.reminders += other.reminders;
        self.virtual_time += other.virtual_time;
        other.crashes.into_iter().for_each(|(point, n)| *self.crashes.entry(point).or_default() += n);
        other.passed.into_iter().for_each(|(point, n)| *self.passed.entry(point).or_default() += n);
        other.answers.into_iter().for_each(|(reply, n)| *self.answers.entry(reply).or_default() += n);
        other.ends.into_iter().for_each(|(state, n)| *self.ends.entry(state).or_default() += n);
    }
}

/// A schedule that broke a promise, and how it came to it.
#[derive(Debug)]
pub struct Failure {
    pub broken: Broken,
    pub trace: String,
}

/// Plays a schedule, with a mistake or without.
pub fn play(schedule: &Schedule, bench: &Bench, mistake: Option<Mistake>) -> Result<Tally, Failure> {
    bench.clear();
    let world = Rc::new(World::new(Database::open(&bench.path("site.db")), Ledger::new(bench.path("journal.db"))));
    let (at_points, at_clock) = (world.clone(), world.clock.clone());
    fault::on_this_thread(Some(Box::new(move |point| at_points.passes(point))));
    clock::on_this_thread(Some(Box::new(move || at_clock.wall())));
    let rests_once = schedule.seed.is_multiple_of(4) && mistake != Some(Mistake::NoRecovery);
    let mut run =
        Run { bench, world: world.clone(), process: None, seen: 0, mistake, rests_once, tally: Tally { schedules: 1, ..Tally::default() } };
    let played = run.schedule(schedule);
    let Run { process, mut tally, .. } = run;
    drop(process);
    fault::on_this_thread(None);
    clock::on_this_thread(None);
    tally.count(&world);
    match played {
        Ok(()) => Ok(tally),
        Err(broken) => Err(Failure { broken, trace: world.trace() }),
    }
}

impl Tally {
    fn count(&mut self, world: &World) {
        let post = world.post.borrow();
        let mut ledger = world.ledger.borrow_mut();
        self.reminders = post.taken.iter().filter(|mail| mail.is_reminder).count() as u64;
        self.mails = post.taken.len() as u64 - self.reminders;
        self.commits = ledger.made.len() as u64;
        self.virtual_time = world.clock.now();
        self.crashes = world.crashes.borrow().clone();
        self.passed = world.passed.borrow().clone();
        self.answers = post.given.clone();
        ledger.rows().iter().for_each(|row| *self.ends.entry(row.state.as_str()).or_default() += 1);
    }
}

struct Run<'a> {
    bench: &'a Bench,
    world: Rc<World>,
    process: Option<Process<'a>>,
    /// Mails that were looked at.
    seen: usize,
    mistake: Option<Mistake>,
    /// Comes to rest by `--once`, else as a daemon.
    rests_once: bool,
    tally: Tally,
}

impl Run<'_> {
    fn schedule(&mut self, schedule: &Schedule) -> Result<(), Broken> {
        self.world.say(|| format!("{} ({} users)", SETUPS[schedule.setup].name, schedule.people.len()));
        schedule.people.iter().for_each(|person| self.world.vendor(*person));
        if let Some(mistake) = self.mistake {
            mistake.begin(&self.world);
        }
        for event in &schedule.events {
            self.tally.events += 1;
            self.happens(event)?;
            if let Some(mistake) = self.mistake {
                mistake.after(&self.world);
            }
            self.looked_at()?;
        }
        self.rest(SETUPS[schedule.setup].is_served)
    }

    fn happens(&mut self, event: &Event) -> Result<(), Broken> {
        self.world.say(|| format!("{event:?}"));
        match *event {
            Event::Once(trouble) => self.once(trouble).map(|_| ()),
            Event::Pass(reach, trouble) => self.pass(reach, trouble).map(|_| ()),
            Event::Wait(seconds, trouble) => {
                self.daemon()?;
                self.with(trouble, |process| process.wait(seconds)).map(|_| ())
            }
            Event::Kill => {
                self.end();
                Ok(())
            }
            Event::Stop => self.stop(),
            Event::Vendor(what) => {
                self.world.vendor(what);
                Ok(())
            }
            Event::Clock(seconds) => {
                self.world.clock.jump(seconds);
                Ok(())
            }
            Event::Mail(weather) => {
                self.world.weather(weather);
                Ok(())
            }
            Event::Hold(who) | Event::Release(who) => {
                let Some((id, login)) = self.world.db.borrow().who(who).map(|person| (person.id, person.login.clone())) else {
                    return Ok(());
                };
                let hold = matches!(event, Event::Hold(_));
                self.daemon()?;
                let user = credkeeper::domain::UserId(id);
                self.with(Trouble::default(), |process| {
                    process.journal(async |journal| match hold {
                        true => journal.hold(user, &login, "as asked", clock::now()).await.unwrap(),
                        false => journal.release(user).await.unwrap(),
                    })
                })?;
                if hold {
                    self.world.held.borrow_mut().insert(id)
                } else {
                    self.world.held.borrow_mut().remove(&id)
                };
                Ok(())
            }
            Event::Forget => {
                self.daemon()?;
                let day = Duration::from_secs(86_400);
                let day = Keep { issuances: day, before_images: day };
                let forgotten = self.with(Trouble::default(), |process| {
                    process.journal(async |journal| journal.forget_old(day, clock::now()).await.unwrap())
                })?;
                self.world.say(|| format!("forgot {forgotten:?}"));
                Ok(())
            }
        }
    }

    fn once(&mut self, trouble: Trouble) -> Result<Option<Report>, Broken> {
        self.stop()?;
        self.process = Some(Process::start(self.bench, &self.world));
        let report = self.with(trouble, |process| process.once())?;
        self.end();
        self.tally.passes += u64::from(report.is_some());
        self.told(report.as_ref());
        Ok(report)
    }

    fn pass(&mut self, reach: Option<i64>, trouble: Trouble) -> Result<Option<Report>, Broken> {
        self.daemon()?;
        let recovers = self.mistake != Some(Mistake::NoRecovery);
        let report = self.with(trouble, |process| process.pass(reach, recovers))?;
        self.tally.passes += u64::from(report.is_some());
        self.told(report.as_ref());
        Ok(report)
    }

    fn told(&self, report: Option<&Report>) {
        let Some(report) = report else { return };
        let skipped: Vec<_> = report.policies.iter().flat_map(|policy| &policy.skipped).collect();
        let stops: Vec<_> = report.stops.iter().map(|stop| stop.tripwire()).collect();
        self.world.say(|| format!("pass: {} due, {} applied, skipped {skipped:?}, stopped by {stops:?}", report.due(), report.applied()));
    }

    /// There is a daemon.
    fn daemon(&mut self) -> Result<(), Broken> {
        if !self.process.as_ref().is_some_and(Process::is_daemon) {
            self.process = Some(Process::start(self.bench, &self.world));
            self.with(Trouble::default(), |process| process.begin())?;
        }
        Ok(())
    }

    /// Does something with the process; `None`: it died of it.
    fn with<T>(&mut self, trouble: Trouble, work: impl FnOnce(&mut Process<'_>) -> Result<T, Ended>) -> Result<Option<T>, Broken> {
        *self.world.trouble.borrow_mut() = trouble;
        let done = work(self.process.as_mut().expect("a process"));
        *self.world.trouble.borrow_mut() = Trouble::default();
        match done {
            Ok(done) => Ok(Some(done)),
            Err(Ended::Died) => {
                self.end();
                Ok(None)
            }
            Err(Ended::Broken(broken)) => {
                self.world.say(|| format!("BROKEN {broken}"));
                Err(broken)
            }
        }
    }

    fn stop(&mut self) -> Result<(), Broken> {
        match self.process.take().map(Process::stop) {
            Some(Err(Ended::Broken(broken))) => Err(broken),
            _ => {
                self.ended();
                Ok(())
            }
        }
    }

    /// The process is killed.
    fn end(&mut self) {
        drop(self.process.take());
        self.ended();
    }

    /// Whatever was under way has landed, or never will.
    fn ended(&mut self) {
        self.world.look();
        self.world.ledger.borrow_mut().pending.clear();
    }

    /// What can be asked at any time.
    fn looked_at(&mut self) -> Result<(), Broken> {
        let world = &self.world;
        world.verdict()?;
        let post = world.post.borrow();
        let noted = (|| {
            post.taken[self.seen..].iter().try_for_each(|mail| check::mail(mail, &world.db.borrow()))?;
            if self.seen < post.taken.len() {
                check::repeated(&post.taken)?;
            }
            check::journal(&world.ledger.borrow_mut().rows())
        })();
        post.taken[self.seen..].iter().for_each(|mail| world.say(|| format!("mail {} to {} tells {:?}", mail.id, mail.to, mail.pin)));
        self.seen = post.taken.len();
        world.note(noted);
        world.verdict()
    }

    /// The faults end, and all comes to rest; then everything can be asked.
    fn rest(&mut self, is_served: crate::setups::Served) -> Result<(), Broken> {
        self.world.say(|| "the faults end".to_owned());
        self.world.post.borrow_mut().be_well();
        self.world.names_back();
        let mut quiet = false;
        for _ in 0..ROUNDS {
            let (mails, open) = (self.world.post.borrow().taken.len(), self.open());
            let (applied, patient) = self.full_pass()?;
            self.looked_at()?;
            quiet = applied == 0 && !patient && open == 0 && self.open() == 0 && self.world.post.borrow().taken.len() == mails;
            // In the meantime a PIN may have lapsed.
            quiet = quiet && self.one_more()? == 0;
            if quiet {
                break;
            }
            self.world.clock.jump(20 * 60);
        }
        ensure(quiet, "I9", || format!("it does not come to rest; {} issuances are open", self.open()))?;
        let before = self.world.db.borrow().now().clone();
        let mails = self.world.post.borrow().taken.len();
        let applied = self.one_more()?;
        self.looked_at()?;
        let world = &self.world;
        let (db, post) = (world.db.borrow(), world.post.borrow());
        ensure(applied == 0 && *db.now() == before && post.taken.len() == mails, "I9", || {
            format!("one more pass changed something: {applied}")
        })?;
        check::none_lost(&db, &mut world.ledger.borrow_mut(), &post)?;
        let wall = db.local(world.clock.wall().0);
        for person in before.people.values().filter(|person| person.is_active() && person.has_address()) {
            if world.held.borrow().contains(&person.id) || world.ledger.borrow_mut().holds(person.id) {
                continue;
            }
            let served = is_served(db.now(), person, &|value| db.is_ours(value), wall);
            ensure(served, "I7", || format!("user {} is not served: {person:?} {:?}", person.id, db.now().cards.get(&person.id)))?;
        }
        Ok(())
    }

    /// A pass that is over at the moment at which it began.
    fn one_more(&mut self) -> Result<u64, Broken> {
        let report = if self.rests_once { self.once(Trouble::default())? } else { self.pass(None, Trouble::default())? };
        Ok(report.map_or(0, |report| report.applied()))
    }

    /// How many changes were made, and whether somebody has to wait for the next credential.
    fn full_pass(&mut self) -> Result<(u64, bool), Broken> {
        let report = if self.rests_once {
            self.once(Trouble::default())?
        } else {
            self.daemon()?;
            let report = self.pass(None, Trouble::default())?;
            // Longer than a mail is put aside that was put off.
            self.with(Trouble::default(), |process| process.wait(130))?;
            report
        };
        let Some(report) = report else { return Ok((0, false)) };
        Ok((report.applied(), report.policies.iter().any(|policy| policy.skipped.contains_key(&Skip::TooSoon))))
    }

    fn open(&self) -> usize {
        self.world.ledger.borrow_mut().rows().iter().filter(|row| journal::State::is_open(row.state)).count()
    }
}
