//! The print system's database as the vendor sees it: what he writes, and the history of all that ever stood there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use credkeeper::domain::{Pin, PinFormat};
use rusqlite::{Connection, OpenFlags, params};

use crate::schedule::{Address, CENTERS, Vendor, Who};

/// All that stands in the tables at a moment.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Snapshot {
    pub people: BTreeMap<i64, Person>,
    /// PINs and cards, by user.
    pub cards: BTreeMap<i64, Vec<Card>>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Person {
    pub id: i64,
    pub login: String,
    pub email: String,
    pub flag: i64,
    pub center: i64,
    pub number: i64,
    pub code: String,
    pub password: String,
}

#[derive(Clone, PartialEq, PartialOrd, Debug)]
pub struct Card {
    pub value: String,
    /// Seconds on the wall clock; `None`: it never ends.
    pub end: Option<i64>,
}

impl Card {
    pub fn is_pin(&self) -> bool {
        PinFormat::Md5.is_pin(&self.value)
    }

    pub fn is_valid(&self, now: i64) -> bool {
        self.end.is_none_or(|end| end > now)
    }
}

impl Person {
    pub fn is_active(&self) -> bool {
        self.flag == 1
    }

    pub fn has_address(&self) -> bool {
        self.email.ends_with("@example.com") && !self.email.starts_with('@')
    }
}

impl Snapshot {
    pub fn pins(&self, person: &Person) -> impl Iterator<Item = &Card> {
        self.pins_of(person.id)
    }

    pub fn pins_of(&self, user: i64) -> impl Iterator<Item = &Card> {
        self.cards.get(&user).into_iter().flatten().filter(|card| card.is_pin())
    }

    /// Whether there is a PIN, and all are so.
    pub fn has_pins(&self, person: &Person, all: impl Fn(&Card) -> bool) -> bool {
        self.pins(person).next().is_some() && self.pins(person).all(all)
    }

    pub fn holds(&self, user: i64, stored: &str) -> bool {
        self.pins_of(user).any(|pin| pin.value == stored)
    }
}

pub struct Database {
    connection: Connection,
    /// From when on each stood there, on the clock that never jumps. The last one stands.
    pub history: Vec<(Duration, Snapshot)>,
    /// Every value that the vendor wrote: the others are ours.
    theirs: BTreeSet<String>,
    renamed: BTreeSet<usize>,
    count: u32,
}

/// Makes the file that each schedule begins with.
pub fn template(path: &Path) {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(include_str!("../../src/sandbox/tables.sql")).unwrap();
    for row in CENTERS {
        connection.execute("INSERT INTO ou (id, number, name) VALUES (?1, ?2, ?3)", row).unwrap();
    }
}

impl Database {
    pub fn open(path: &Path) -> Database {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
        connection.busy_timeout(Duration::ZERO).unwrap();
        connection.pragma_update(None, "synchronous", "off").unwrap();
        let mut database = Database { connection, history: Vec::new(), theirs: BTreeSet::new(), renamed: BTreeSet::new(), count: 0 };
        database.look(Duration::ZERO);
        database
    }

    pub fn now(&self) -> &Snapshot {
        &self.history.last().expect("it begins with one").1
    }

    pub fn is_ours(&self, stored: &str) -> bool {
        !self.theirs.contains(stored)
    }

    /// Reads all, and keeps it if it is another than before. What was before, if so.
    pub fn look(&mut self, at: Duration) -> Option<Snapshot> {
        let read = self.read();
        if self.history.last().is_some_and(|(_, last)| *last == read) {
            return None;
        }
        self.history.push((at, read));
        let before = self.history.len().checked_sub(2);
        before.map(|before| self.history[before].1.clone())
    }

    fn read(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let mut people = self
            .connection
            .prepare_cached(
                "SELECT id, login, coalesce(email, ''), flag, ou_id, ou_number, coalesce(puk, ''), coalesce(pass, '') FROM users",
            )
            .unwrap();
        let mut rows = people.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let person = Person {
                id: row.get(0).unwrap(),
                login: row.get(1).unwrap(),
                email: row.get(2).unwrap(),
                flag: row.get(3).unwrap(),
                center: row.get(4).unwrap(),
                number: row.get(5).unwrap(),
                code: row.get(6).unwrap(),
                password: row.get(7).unwrap(),
            };
            snapshot.people.insert(person.id, person);
        }
        let mut cards = self
            .connection
            .prepare_cached("SELECT user_id, card, unixepoch(pin_expiration_date) FROM users_cards ORDER BY 1, 2, 3")
            .unwrap();
        let mut rows = cards.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let card = Card { value: row.get(1).unwrap(), end: row.get(2).unwrap() };
            snapshot.cards.entry(row.get(0).unwrap()).or_default().push(card);
        }
        snapshot
    }

    /// Whether `holds` was so of any state that stood between these two moments.
    pub fn ever(&self, from: Duration, to: Duration, holds: impl Fn(&Snapshot) -> bool) -> bool {
        let until = |n: usize| self.history.get(n + 1).map_or(Duration::MAX, |(next, _)| *next);
        self.history.iter().enumerate().any(|(n, (at, state))| *at <= to && until(n) >= from && holds(state))
    }

    /// The user that is meant; `None`: there is nobody.
    pub fn who(&self, who: Who) -> Option<&Person> {
        let people = &self.now().people;
        people.values().nth(who as usize % people.len().max(1))
    }

    // --- what the vendor does ---

    /// Takes the write lock; `false`: a transaction of ours has it.
    pub fn lock(&mut self) -> bool {
        match self.connection.execute_batch("BEGIN IMMEDIATE") {
            Ok(()) => true,
            Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => false,
            Err(e) => panic!("{e}"),
        }
    }

    /// With the lock in hand, which is let go; what was done, in words.
    pub fn vendor(&mut self, what: Vendor, wall: i64, at: Duration) -> String {
        let said = self.write(what, wall).unwrap_or_else(|e| panic!("{what:?}: {e}"));
        self.connection.execute_batch("COMMIT").unwrap();
        self.look(at);
        said
    }

    fn write(&mut self, what: Vendor, wall: i64) -> rusqlite::Result<String> {
        self.count += 1;
        let (count, end) = (self.count, wall + 20 * 86_400);
        let id = |who: Who| self.who(who).map_or(0, |person| person.id);
        match what {
            Vendor::NewUser { center, address, pins } => {
                let ((ou, number, _), login) = (CENTERS[center], format!("user{count}"));
                self.connection.execute(
                    "INSERT INTO users (login, name, email, ou_id, ou_number) VALUES (?1, 'Name', ?2, ?3, ?4)",
                    params![login, written(address, &login), ou, number],
                )?;
                let id = self.connection.last_insert_rowid();
                (0..pins).try_for_each(|_| self.pin(id, if count.is_multiple_of(2) { Some(end) } else { None }))?;
                return Ok(format!("user {id} {login} comes into {ou}, {address:?}, with {pins} PINs"));
            }
            Vendor::DeleteUser(who) => {
                self.connection.execute("DELETE FROM users_cards WHERE user_id = ?1", [id(who)])?;
                self.connection.execute("DELETE FROM users WHERE id = ?1", [id(who)])?;
            }
            Vendor::MarkDeleted(who) => {
                self.connection.execute("UPDATE users SET flag = flag | 16384 WHERE id = ?1", [id(who)])?;
            }
            Vendor::ReplacePin(who) => {
                let id = id(who);
                self.delete_pins(id)?;
                self.pin(id, Some(end))?;
            }
            Vendor::SecondPin(who) => self.pin(id(who), None)?,
            Vendor::DeletePins(who) => self.delete_pins(id(who))?,
            Vendor::EndPins(who, end) => {
                let end = end.map(|seconds| wall + seconds);
                self.connection.execute(
                    "UPDATE users_cards SET pin_expiration_date = datetime(?2, 'unixepoch', 'localtime') WHERE user_id = ?1 AND card LIKE 'PIN%'",
                    params![id(who), end],
                )?;
            }
            Vendor::Move(who, center) => {
                let (ou, number, _) = CENTERS[center];
                self.connection.execute("UPDATE users SET ou_id = ?2, ou_number = ?3 WHERE id = ?1", params![id(who), ou, number])?;
            }
            Vendor::SetAddress(who, address) => {
                let login = self.who(who).map_or(String::new(), |person| person.login.clone());
                self.connection.execute("UPDATE users SET email = ?2 WHERE id = ?1", params![id(who), written(address, &login)])?;
            }
            Vendor::ClearPassword(who) => {
                self.connection.execute("UPDATE users SET pass = '' WHERE id = ?1", [id(who)])?;
            }
            Vendor::AddCard(who) => {
                let card = format!("04{count:08X}");
                self.connection
                    .execute("INSERT INTO users_cards (user_id, card) SELECT id, ?2 FROM users WHERE id = ?1", params![id(who), card])?;
            }
            Vendor::Rename(center) => {
                let name = if self.renamed.remove(&center) { CENTERS[center].2.to_owned() } else { format!("Renamed {center}") };
                if name.starts_with("Renamed") {
                    self.renamed.insert(center);
                }
                self.connection.execute("UPDATE ou SET name = ?2 WHERE id = ?1", params![CENTERS[center].0, name])?;
            }
        }
        Ok(format!("{what:?}"))
    }

    /// Every cost center has its own name again.
    pub fn names_back(&mut self) {
        for (id, _, name) in CENTERS {
            self.connection.execute("UPDATE ou SET name = ?2 WHERE id = ?1", params![id, name]).unwrap();
        }
        self.renamed.clear();
    }

    /// A moment on the wall clock of the expiry column.
    pub fn local(&self, utc: i64) -> i64 {
        self.connection.query_row("SELECT unixepoch(?1, 'unixepoch', 'localtime')", [utc], |row| row.get(0)).unwrap()
    }

    /// Eight digits: none that a policy draws.
    fn pin(&mut self, user: i64, end: Option<i64>) -> rusqlite::Result<()> {
        let value = PinFormat::Md5.encode(&Pin::new(format!("{:08}", self.theirs.len() + 1))).expose().to_owned();
        self.connection.execute(
            "INSERT INTO users_cards (user_id, card, pin_expiration_date) SELECT id, ?2, datetime(?3, 'unixepoch', 'localtime') FROM users WHERE id = ?1",
            params![user, value, end],
        )?;
        self.theirs.insert(value);
        Ok(())
    }

    fn delete_pins(&self, user: i64) -> rusqlite::Result<()> {
        self.connection.execute("DELETE FROM users_cards WHERE user_id = ?1 AND card LIKE 'PIN%'", [user]).map(|_| ())
    }

    /// Something that the events do not have.
    pub fn tamper(&self, sql: &str) {
        self.connection.execute_batch(sql).unwrap();
    }
}

fn written(address: Address, login: &str) -> String {
    match address {
        Address::Good(nth) => format!("{login}.{nth}@example.com"),
        Address::Wrong => "no-domain@".to_owned(),
        Address::None => String::new(),
    }
}
