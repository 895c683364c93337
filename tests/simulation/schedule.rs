//! What happens, made from one number: the same number always makes the same schedule.

use credkeeper::fault::Point;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::setups::SETUPS;

/// The cost centers: id, number, name.
pub const CENTERS: [(i64, i64, &str); 4] = [(0, 0, "Default"), (11, 100, "Needs PIN"), (12, 200, "Has PIN"), (13, 300, "Staff")];

#[derive(Clone, Debug)]
pub struct Schedule {
    pub seed: u64,
    /// Index into the setups.
    pub setup: usize,
    pub people: Vec<Vendor>,
    pub events: Vec<Event>,
}

/// Whom something happens to: this modulo the users that there are then.
pub type Who = u32;

#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// `credkeeper --once`, from beginning to end.
    Once(Trouble),
    /// A pass of the daemon, with its delivery at work beside it; `None`: over everybody; else a poll of the last so many ids.
    Pass(Option<i64>, Trouble),
    /// The daemon goes on for so many seconds.
    Wait(u64, Trouble),
    /// The process is killed between two steps, or stopped as it should be.
    Kill,
    Stop,
    Vendor(Vendor),
    /// The clock of the machine jumps by so many seconds.
    Clock(i64),
    Mail(Weather),
    Hold(Who),
    Release(Who),
    /// Old entries of the journal are forgotten.
    Forget,
}

/// What goes wrong during a step.
#[derive(Clone, Copy, Default, Debug)]
pub struct Trouble {
    /// The process dies when it comes past this point for the nth time.
    pub crash: Option<(Point, u32)>,
    /// The vendor writes when the process comes past this point first.
    pub meanwhile: Option<(Point, Vendor)>,
}

/// What the print system and its administrators do.
#[derive(Clone, Copy, Debug)]
pub enum Vendor {
    NewUser {
        center: usize,
        address: Address,
        pins: u8,
    },
    /// The rows go, or the user is marked as deleted.
    DeleteUser(Who),
    MarkDeleted(Who),
    /// One more PIN, in place of all others, or beside them.
    ReplacePin(Who),
    SecondPin(Who),
    DeletePins(Who),
    /// The end of all PINs of a user: seconds from now; `None`: no end.
    EndPins(Who, Option<i64>),
    Move(Who, usize),
    SetAddress(Who, Address),
    ClearPassword(Who),
    AddCard(Who),
    /// A cost center gets another name, or its own one back.
    Rename(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Address {
    Good(u32),
    Wrong,
    None,
}

/// How the mail server is from now on.
#[derive(Clone, Copy, Debug)]
pub enum Weather {
    /// All is well, for everybody.
    Well,
    /// Whoever connects is turned away.
    Down,
    /// The next so many mails are answered so.
    Next(u32, Reply),
    /// This user's mails are answered so until the weather is well.
    Always(Who, Reply),
}

/// How one mail is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    Accept,
    /// 451 to the recipient, or to the message.
    Later,
    LaterAtEnd,
    /// 550 5.1.1 to the recipient.
    Never,
    /// 554 5.7.1 to the recipient; 550 to the sender.
    Site,
    Sender,
    /// 421 to the sender.
    Busy,
    /// The connection is gone in place of an answer to the recipient.
    Cut,
    /// The message is taken, and the connection is gone before the answer.
    LostAfter,
    /// The connection is gone before the message was taken.
    LostBefore,
}

struct Dice(SmallRng);

impl Dice {
    fn upto(&mut self, n: u32) -> u32 {
        self.0.random_range(0..n)
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.upto(100) < percent
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.0.random_range(0..of.len())]
    }
}

impl Schedule {
    pub fn of(seed: u64) -> Schedule {
        let mut dice = Dice(SmallRng::seed_from_u64(seed));
        let setup = dice.0.random_range(0..SETUPS.len());
        let people = (0..3 + dice.upto(8)).map(|_| new_user(&mut dice)).collect();
        let events = (0..8 + dice.upto(18)).map(|_| event(&mut dice)).collect();
        Schedule { seed, setup, people, events }
    }
}

fn event(dice: &mut Dice) -> Event {
    match dice.upto(100) {
        0..14 => Event::Once(trouble(dice)),
        14..34 => Event::Pass(if dice.chance(30) { Some(i64::from(dice.upto(4))) } else { None }, trouble(dice)),
        34..44 => Event::Wait(dice.one(&[1, 5, 20, 70, 200]), trouble(dice)),
        44..47 => Event::Kill,
        47..50 => Event::Stop,
        50..72 => Event::Vendor(vendor(dice)),
        72..80 => Event::Clock(jump(dice)),
        80..92 => Event::Mail(weather(dice)),
        92..95 => Event::Hold(dice.upto(1000)),
        95..98 => Event::Release(dice.upto(1000)),
        _ => Event::Forget,
    }
}

fn trouble(dice: &mut Dice) -> Trouble {
    let crash = dice.chance(35).then(|| (dice.one(&Point::ALL), 1 + if dice.chance(40) { dice.upto(4) } else { 0 }));
    let meanwhile = dice.chance(25).then(|| {
        let between = [
            Point::PassStarted,
            Point::PassJudged,
            Point::BatchNoted,
            Point::PassActed,
            Point::RecoveryLooked,
            Point::MailTaken,
            Point::MailAnswered,
        ];
        (dice.one(&between), vendor(dice))
    });
    Trouble { crash, meanwhile }
}

fn new_user(dice: &mut Dice) -> Vendor {
    let center = if dice.chance(70) { dice.one(&[1, 3]) } else { dice.0.random_range(0..CENTERS.len()) };
    let pins = if dice.chance(70) { 0 } else { 1 + dice.upto(2) as u8 };
    Vendor::NewUser { center, address: address(dice), pins }
}

fn vendor(dice: &mut Dice) -> Vendor {
    let who = dice.upto(1000);
    match dice.upto(16) {
        0..3 => new_user(dice),
        3 => Vendor::DeleteUser(who),
        4 => Vendor::MarkDeleted(who),
        5 | 6 => Vendor::ReplacePin(who),
        7 => Vendor::SecondPin(who),
        8 => Vendor::DeletePins(who),
        9 => Vendor::EndPins(who, dice.one(&[None, Some(-3600), Some(0), Some(90 * 86_400)])),
        10 | 11 => Vendor::Move(who, dice.0.random_range(0..CENTERS.len())),
        12 | 13 => Vendor::SetAddress(who, address(dice)),
        14 => dice.one(&[Vendor::ClearPassword(who), Vendor::AddCard(who)]),
        _ => Vendor::Rename(dice.0.random_range(1..CENTERS.len())),
    }
}

fn address(dice: &mut Dice) -> Address {
    match dice.upto(10) {
        0 => Address::Wrong,
        1 => Address::None,
        _ => Address::Good(dice.upto(3)),
    }
}

fn jump(dice: &mut Dice) -> i64 {
    match dice.upto(10) {
        0..4 => dice.one(&[61, 300, 1_200]),
        4..6 => dice.one(&[3_600, 5 * 3_600]),
        6..8 => dice.one(&[86_400, 3 * 86_400]),
        8 => dice.one(&[8 * 86_400, 31 * 86_400]),
        _ => dice.one(&[-1, -30, -300, -3_600]),
    }
}

fn weather(dice: &mut Dice) -> Weather {
    let reply = |dice: &mut Dice| {
        dice.one(&[
            Reply::Later,
            Reply::LaterAtEnd,
            Reply::Never,
            Reply::Site,
            Reply::Sender,
            Reply::Busy,
            Reply::Cut,
            Reply::LostAfter,
            Reply::LostAfter,
            Reply::LostBefore,
        ])
    };
    match dice.upto(10) {
        0 | 1 => Weather::Well,
        2 => Weather::Down,
        3..8 => Weather::Next(1 + dice.upto(3), reply(dice)),
        _ => {
            let who = dice.upto(1000);
            Weather::Always(who, dice.one(&[Reply::Later, Reply::Never, Reply::Site, Reply::LostAfter]))
        }
    }
}
