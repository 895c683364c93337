//! What the model knows: one database, one or two hosts with a journal each, and the users' mailboxes.
//!
//! A PIN is a small number. Numbers below [`OLD`] are ours, in the order in which they are first drawn.

use std::collections::BTreeMap;

use credkeeper::journal::state::State;

pub const USERS: usize = 2;
/// The second user begins with this one, which has run out; the first has none.
pub const OLD: u8 = 5;
/// What the print system, or an administrator in it, gives to a user.
const VENDORS: [u8; USERS] = [6, 7];

/// A set of PINs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Pins(u8);

impl Pins {
    pub fn one(pin: u8) -> Pins {
        Pins(1 << pin)
    }

    pub fn of_vendor(user: usize) -> Pins {
        Pins::one(VENDORS[user])
    }

    pub fn has(self, pin: u8) -> bool {
        self.0 & 1 << pin != 0
    }

    pub fn with(self, other: Pins) -> Pins {
        Pins(self.0 | other.0)
    }

    pub fn without(self, other: Pins) -> Pins {
        Pins(self.0 & !other.0)
    }

    pub fn and(self, other: Pins) -> Pins {
        Pins(self.0 & other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn ours(self) -> impl Iterator<Item = u8> {
        (0..OLD).filter(move |pin| self.has(*pin))
    }

    pub fn first(self) -> Option<u8> {
        (!self.is_empty()).then_some(self.0.trailing_zeros() as u8)
    }

    pub fn valid(self) -> Pins {
        self.without(Pins::one(OLD))
    }
}

/// One user's change, as planned under the lock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    Issue {
        pin: u8,
        before: Pins,
    },
    /// Undoes the issuance at this place in the journal.
    TakeBack {
        of: usize,
        pin: u8,
        before: Pins,
    },
}

impl Step {
    /// What the user has once it has landed, if nobody interferes.
    pub fn applied_to(self, has: Pins) -> Pins {
        match self {
            Step::Issue { pin, before } => has.without(before).with(Pins::one(pin)),
            Step::TakeBack { pin, before, .. } => has.without(Pins::one(pin)).with(before),
        }
    }

    /// Rows that it changes or deletes: nobody else can, until the transaction has ended.
    pub fn locks(self) -> bool {
        match self {
            Step::Issue { before, .. } => !before.is_empty(),
            Step::TakeBack { .. } => true,
        }
    }
}

/// The one transaction that holds the write lock. It lives in the database server, and may outlive who began it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Transaction {
    pub host: usize,
    /// Whether somebody still waits for its answer.
    pub connected: bool,
    /// COMMIT was sent.
    pub committing: bool,
    pub written: [Option<Step>; USERS],
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Issuance {
    pub user: usize,
    pub step: Step,
    pub state: State,
    /// Committed less than a minute ago, or found by recovery less than a minute ago.
    pub fresh: bool,
    /// What its mails said, in the world, not in the journal.
    pub told: Option<u8>,
}

impl Issuance {
    pub fn pin(&self) -> Option<u8> {
        match self.step {
            Step::Issue { pin, .. } => Some(pin),
            Step::TakeBack { .. } => None,
        }
    }
}

/// Where the pass is. Each step may be the last one before a crash.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Stage {
    Idle,
    /// Recovery has looked, and not told the journal yet.
    Looked(Vec<bool>),
    /// The lock is held, the users are planned, nothing is written.
    Begun([Option<Step>; USERS]),
    Written([Option<Step>; USERS]),
    Planned([Option<Step>; USERS]),
    /// COMMIT was sent; what the server said to it, once it has.
    Sent {
        written: [Option<Step>; USERS],
        answer: Option<bool>,
    },
}

/// A mail that delivery has taken from the journal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Hand {
    /// To be sent. Not `sure`: neither committed nor looked up within the last minute.
    Ready {
        sure: bool,
    },
    Told(Answer),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    Accepted,
    Rejected,
    Deferred,
    Gone,
}

/// A running daemon: all that a crash loses.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Process {
    pub stage: Stage,
    /// By place in the journal.
    pub hands: BTreeMap<usize, Hand>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Host {
    pub process: Option<Process>,
    pub journal: Vec<Issuance>,
    pub held: [bool; USERS],
}

impl Host {
    pub fn has_open(&self, user: usize) -> bool {
        self.journal.iter().any(|i| i.user == user && i.state.is_open())
    }

    pub fn is_planned(&self) -> bool {
        self.journal.iter().any(|i| i.state == State::Planned)
    }
}

/// What may still go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Faults {
    pub crashes: u8,
    /// Answers to COMMIT that do not arrive, and leaderships that are lost.
    pub lost_answers: u8,
    pub refused_commits: u8,
    /// What the vendor, or an administrator in the print system, does to users.
    pub interferences: u8,
    pub releases: u8,
    pub retries: u8,
}

/// A promise that was broken by the very step that led here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Broken {
    /// A mail told what was never committed, or what was gone and had not been looked at.
    MailOfNothing,
    /// Two mails of one issuance differed.
    AnotherPin,
    /// The journal's table does not know the step.
    NotInTheTable,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    pub stored: [Pins; USERS],
    /// The print system has changed something beside the PIN since we wrote it.
    pub moved: [bool; USERS],
    pub transaction: Option<Transaction>,
    pub hosts: Vec<Host>,
    pub leader: Option<usize>,
    pub last_mail: [Option<u8>; USERS],
    pub faults: Faults,
    /// From here on only what the properties look at.
    pub drawn: Pins,
    pub once_committed: [Pins; USERS],
    /// Issuances that nothing explains: each takes one, a release, an interference and an abandonment give one back.
    pub unexplained: [i8; USERS],
    pub interfered: [bool; USERS],
    pub broken: Option<Broken>,
}

impl World {
    pub fn new(hosts: usize, faults: Faults) -> World {
        World {
            stored: [Pins::default(), Pins::one(OLD)],
            moved: [false; USERS],
            transaction: None,
            hosts: vec![Host::default(); hosts],
            leader: None,
            last_mail: [None; USERS],
            faults,
            drawn: Pins::default(),
            once_committed: [Pins::default(); USERS],
            unexplained: [0; USERS],
            interfered: [false; USERS],
            broken: None,
        }
    }

    pub fn issuances(&self) -> impl Iterator<Item = &Issuance> {
        self.hosts.iter().flat_map(|host| &host.journal)
    }

    /// The journal tells of each of our PINs in the database what became of it: I2, once all is quiet.
    pub fn nothing_is_lost(&self) -> bool {
        (0..USERS).all(|user| {
            self.stored[user].ours().all(|pin| {
                let of_it = |i: &&Issuance| i.user == user && i.pin() == Some(pin);
                self.issuances().filter(of_it).any(|i| match i.state {
                    State::Delivered => i.told == Some(pin),
                    State::Undeliverable | State::Unannounced => true,
                    _ => false,
                })
            })
        })
    }

    /// The database, the last mail and the journal agree: I9, once all is quiet.
    pub fn all_agree(&self) -> bool {
        (0..USERS).all(|user| {
            let of_user = || self.issuances().filter(move |i| i.user == user);
            let has = self.stored[user];
            let served = !has.valid().is_empty() || self.hosts.iter().any(|host| host.held[user]);
            let told = has
                .ours()
                .all(|pin| self.last_mail[user] == Some(pin) || of_user().any(|i| i.pin() == Some(pin) && i.state == State::Undeliverable));
            let mail_is_true = self.last_mail[user].is_none_or(|pin| {
                has.has(pin) || self.interfered[user] || of_user().any(|i| i.pin() == Some(pin) && i.state == State::TakenBack)
            });
            let ended = of_user().all(|i| !i.state.is_open());
            served && told && mail_is_true && ended
        })
    }
}
