//! What is around the program: its database with the vendor, its mail server, its clock; and what an onlooker sees of each step, from
//! the fault points.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use credkeeper::fault::{Fate, Point};
use tokio::sync::Notify;

use crate::check::{self, Broken};
use crate::clock::Clock;
use crate::database::Database;
use crate::ledger::Ledger;
use crate::post::Post;
use crate::schedule::{Trouble, Vendor, Weather};

pub struct World {
    pub clock: Clock,
    pub db: RefCell<Database>,
    pub post: Rc<RefCell<Post>>,
    pub ledger: RefCell<Ledger>,
    /// Users on hold.
    pub held: RefCell<BTreeSet<i64>>,
    pub trouble: RefCell<Trouble>,
    /// Rung when the process came to where it is to die.
    pub died: Notify,
    pub dead: Cell<bool>,
    pub crashes: RefCell<BTreeMap<Point, u64>>,
    /// How often each point was come past.
    pub passed: RefCell<BTreeMap<Point, u64>>,
    broken: RefCell<Option<Broken>>,
    /// Tells what happens as it happens.
    aloud: bool,
    trace: RefCell<Vec<String>>,
}

impl World {
    pub fn new(db: Database, ledger: Ledger) -> World {
        World {
            clock: Clock::default(),
            db: RefCell::new(db),
            post: Rc::default(),
            ledger: RefCell::new(ledger),
            held: RefCell::default(),
            trouble: RefCell::default(),
            died: Notify::new(),
            dead: Cell::new(false),
            crashes: RefCell::default(),
            passed: RefCell::default(),
            broken: RefCell::default(),
            aloud: std::env::var_os("CREDKEEPER_SEED").is_some(),
            trace: RefCell::default(),
        }
    }

    pub fn say(&self, what: impl FnOnce() -> String) {
        let line = format!("{:>9.1} s  {}  {}", self.clock.now().as_secs_f64(), self.clock.wall(), what());
        if self.aloud {
            eprintln!("{line}");
        }
        self.trace.borrow_mut().push(line);
    }

    pub fn trace(&self) -> String {
        self.trace.borrow().join("\n")
    }

    /// The first thing that was found wrong is what is told.
    pub fn note(&self, found: Result<(), Broken>) {
        if let Err(broken) = found {
            self.say(|| format!("BROKEN {broken}"));
            self.broken.borrow_mut().get_or_insert(broken);
        }
    }

    pub fn verdict(&self) -> Result<(), Broken> {
        self.broken.borrow().clone().map_or(Ok(()), Err)
    }

    /// The process comes past a point.
    pub fn passes(&self, point: Point) -> Fate {
        if self.dead.get() {
            return Fate::Stand;
        }
        *self.passed.borrow_mut().entry(point).or_default() += 1;
        match point {
            Point::BatchPlanned => {
                let mut ledger = self.ledger.borrow_mut();
                ledger.planned();
                self.say(|| format!("planned: {}", ledger.pending_said()));
                self.note(check::journal(&ledger.rows()));
            }
            Point::BatchCommitted => self.look(),
            _ => {}
        }
        let meanwhile = self.trouble.borrow().meanwhile.filter(|(at, _)| *at == point);
        if let Some((_, what)) = meanwhile {
            self.trouble.borrow_mut().meanwhile = None;
            self.vendor(what);
        }
        let mut trouble = self.trouble.borrow_mut();
        match &mut trouble.crash {
            Some((at, times)) if *at == point && *times <= 1 => {
                trouble.crash = None;
                drop(trouble);
                self.say(|| format!("dies at {}", point.as_str()));
                *self.crashes.borrow_mut().entry(point).or_default() += 1;
                self.dead.set(true);
                self.died.notify_one();
                Fate::Stand
            }
            Some((at, times)) if *at == point => {
                *times -= 1;
                Fate::Go
            }
            _ => Fate::Go,
        }
    }

    /// Looks into the database: what is another than before must be what the program has just committed.
    pub fn look(&self) {
        let at = self.clock.now();
        let mut db = self.db.borrow_mut();
        let Some(before) = db.look(at) else { return };
        let mut ledger = self.ledger.borrow_mut();
        self.note(check::commit(&before, &db, &ledger.pending));
        ledger.landed(&before, db.now(), at);
        self.say(|| "committed".to_owned());
    }

    pub fn vendor(&self, what: Vendor) {
        let (at, wall) = (self.clock.now(), self.clock.wall().0);
        // With the lock in hand nothing of ours can come between the look and the write.
        if !self.db.borrow_mut().lock() {
            return self.say(|| format!("the vendor would have to wait: {what:?}"));
        }
        self.look();
        let mut db = self.db.borrow_mut();
        let said = db.vendor(what, wall, at);
        self.say(|| format!("vendor: {said}"));
    }

    /// Every cost center has its own name again.
    pub fn names_back(&self) {
        self.db.borrow_mut().names_back();
    }

    pub fn weather(&self, weather: Weather) {
        self.say(|| format!("mail server: {weather:?}"));
        let mut post = self.post.borrow_mut();
        match weather {
            Weather::Well => post.be_well(),
            Weather::Down => post.down = true,
            Weather::Next(times, reply) => (0..times).for_each(|_| post.next.push_back(reply)),
            Weather::Always(who, reply) => {
                let address = self.db.borrow().who(who).map(|person| person.email.clone());
                address.map(|address| post.always.insert(address, reply));
            }
        }
    }
}
