//! Goes through the history, and compares it with the journals and the mails. Knows the policies of the test site by itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::history::{Card, Change, Person, Transaction};
use crate::journals::Batch;
use crate::smtp::Received;
use crate::stored;

/// How long a PIN may be gone when its mail arrives: for a minute nobody looks again, and the courier holds a quarter of a minute's worth.
const LATE: f64 = 80.0;
/// A transaction's number is taken just before it can be seen: so much older a state may have been what another one saw.
const UNSEEN: f64 = 0.5;

/// A user between two transactions.
#[derive(Clone)]
struct Moment {
    from: f64,
    person: Option<Person>,
    pins: Vec<Held>,
}

#[derive(Clone, PartialEq)]
struct Held {
    value: String,
    until: Option<f64>,
    ours: bool,
}

/// What credkeeper did to one user in one transaction.
#[derive(Default, PartialEq, Debug)]
struct Deed {
    pin: bool,
    moved: bool,
    /// Anything else, in words.
    other: Vec<String>,
}

pub struct Court {
    people: HashMap<i64, Person>,
    /// By user and row; whether we wrote the value.
    cards: HashMap<i64, BTreeMap<i64, (Card, bool)>>,
    /// Users who hold a PIN.
    holders: HashMap<String, BTreeSet<i64>>,
    lives: HashMap<i64, Vec<Moment>>,
    /// By address, whom a mail is for.
    addresses: HashMap<String, i64>,
    /// What is wrong, a sentence each.
    pub wrong: Vec<String>,
    pub told: Told,
}

/// Figures of a run.
#[derive(Default, Debug)]
pub struct Told {
    pub users: usize,
    pub transactions_of_the_vendor: usize,
    pub transactions_of_credkeeper: BTreeMap<String, usize>,
    pub pins_issued: usize,
    pub moves: usize,
    /// So often a change left a user with a PIN of the vendor beside ours.
    pub both: usize,
    pub mails: usize,
    /// Of those, told again.
    pub repeated: usize,
    /// Of those, the PIN was gone already when they arrived.
    pub outdated: usize,
    pub users_with_our_pin: usize,
    /// Of those, the last mail tells another one.
    pub crossed: usize,
    /// Transactions that only an abandoned batch tells of: a crash, and somebody removed what it left before it was looked up.
    pub forgotten: usize,
    pub batches_that_never_landed: usize,
    /// Of their issuances, found to stand all the same: moves that somebody else had made meanwhile.
    pub moved_by_others: usize,
}

impl Court {
    /// Replays all of it.
    pub fn hear(history: &[Transaction]) -> Court {
        let mut court = Court {
            people: HashMap::new(),
            cards: HashMap::new(),
            holders: HashMap::new(),
            lives: HashMap::new(),
            addresses: HashMap::new(),
            wrong: Vec::new(),
            told: Told::default(),
        };
        history.iter().for_each(|transaction| court.replay(transaction));
        court.told.users = court.lives.len();
        court
    }

    fn replay(&mut self, transaction: &Transaction) {
        let mut touched: BTreeSet<i64> = BTreeSet::new();
        for change in &transaction.changes {
            match change {
                Change::Person(before, after) => {
                    touched.extend(before.iter().chain(after).map(|person| person.id));
                    match (before, after) {
                        (_, Some(person)) => {
                            for address in [&person.login, &person.email] {
                                self.addresses.insert(address.clone(), person.id);
                            }
                            self.people.insert(person.id, person.clone());
                        }
                        (Some(person), None) => drop(self.people.remove(&person.id)),
                        (None, None) => {}
                    }
                }
                Change::Card(before, after) => {
                    touched.extend(before.iter().chain(after).map(|card| card.user));
                    let was = before.as_ref().and_then(|card| self.cards.get_mut(&card.user)?.remove(&card.row));
                    if let Some(card) = after {
                        let same = before.as_ref().is_some_and(|before| before.value == card.value);
                        let ours = if same { was.is_some_and(|(_, ours)| ours) } else { transaction.ours.is_some() };
                        self.cards.entry(card.user).or_default().insert(card.row, (card.clone(), ours));
                        self.holders.entry(card.value.clone()).or_default().insert(card.user);
                    }
                    if let Some(card) = before
                        && !self.cards.get(&card.user).is_some_and(|cards| cards.values().any(|(other, _)| other.value == card.value))
                    {
                        self.holders.entry(card.value.clone()).or_default().remove(&card.user);
                    }
                }
            }
        }
        match &transaction.ours {
            Some(who) => {
                *self.told.transactions_of_credkeeper.entry(who.clone()).or_default() += 1;
                for (user, deed) in deeds(transaction) {
                    self.told.pins_issued += usize::from(deed.pin);
                    self.told.moves += usize::from(deed.moved);
                    self.explain(transaction, user, &deed);
                }
            }
            None => self.told.transactions_of_the_vendor += 1,
        }
        for change in &transaction.changes {
            if let Change::Card(_, Some(card)) = change
                && let Some(users) = self.holders.get(&card.value).filter(|users| users.len() > 1)
            {
                self.wrong.push(format!("at {}: one PIN of the users {users:?}", transaction.committed));
            }
        }
        for user in touched {
            let pins: Vec<Held> = self.cards.get(&user).into_iter().flat_map(BTreeMap::values).map(held_by).collect();
            let ours = pins.iter().filter(|pin| pin.ours).count();
            if ours > 1 {
                self.wrong.push(format!("at {}: user {user} has {ours} PINs of ours", transaction.committed));
            }
            self.told.both += usize::from(ours > 0 && pins.len() > ours);
            let moment = Moment { from: transaction.committed, person: self.people.get(&user).cloned(), pins };
            self.lives.entry(user).or_default().push(moment);
        }
    }

    /// There was a moment between its begin and its end at which a policy asked for that.
    fn explain(&mut self, transaction: &Transaction, user: i64, deed: &Deed) {
        let life = self.lives.get(&user).map(Vec::as_slice).unwrap_or_default();
        let first = life.iter().rposition(|moment| moment.from <= transaction.began - UNSEEN).unwrap_or(0);
        let seen = &life[first.min(life.len())..];
        let asked = seen.iter().any(|moment| {
            let Some(person) = &moment.person else { return false };
            let visitor = person.login.ends_with("@visitors.example") && person.place.0 == 11;
            let staff = person.email.ends_with("@example.com");
            let expired = moment.pins.iter().any(|pin| pin.until.is_some_and(|until| until <= transaction.committed + 1.0));
            let pin = moment.pins.is_empty() && (visitor || staff) || expired && staff;
            (!deed.pin || pin) && (!deed.moved || visitor) && (deed.pin || deed.moved)
        });
        if !asked || !deed.other.is_empty() {
            self.wrong.push(format!("at {}: nothing asked for {deed:?} of user {user}", transaction.committed));
        }
    }

    /// Each transaction of credkeeper is one batch of one journal, with the same users and the same changes; and whatever else the
    /// journals have never reached the database, and says so.
    ///
    /// `journals` names with each the role that its daemon logs in as.
    pub fn compare_journals(&mut self, history: &[Transaction], journals: &[(&str, Vec<Batch>)]) {
        for (role, batches) in journals {
            self.compare_journal(history, role, batches);
        }
    }

    fn compare_journal(&mut self, history: &[Transaction], role: &str, batches: &[Batch]) {
        let mut batches: Vec<Option<&Batch>> = batches.iter().map(Some).collect();
        for transaction in history.iter().filter(|transaction| transaction.ours.as_deref() == Some(role)) {
            let deeds = deeds(transaction);
            let told = |batch: &Batch| {
                let window = transaction.began.floor() as i64 - 1..=transaction.committed.ceil() as i64 + 1;
                // A pass has one moment, which its batches are noted with.
                let early = batch.planned_at <= *window.end() && batch.planned_at >= *window.start() - 60;
                early
                    && batch.issuances.len() == deeds.len()
                    && batch.issuances.iter().all(|i| deeds.get(&i.user).is_some_and(|deed| deed.pin == i.pin && deed.moved == i.moved))
            };
            let found = batches.iter_mut().filter(|batch| batch.is_some_and(told)).min_by_key(|batch| {
                // The one that came through before one that did not.
                batch.map(|batch| (batch.issuances.iter().all(|i| i.state == "abandoned"), batch.id))
            });
            match found.and_then(Option::take) {
                Some(batch) if batch.issuances.iter().any(|i| i.state == "abandoned") => self.told.forgotten += 1,
                Some(_) => {}
                None => self.wrong.push(format!("at {}: no journal tells of {deeds:?}", transaction.committed)),
            }
        }
        for batch in batches.into_iter().flatten() {
            self.told.batches_that_never_landed += 1;
            // Who was only to be moved, and was moved by somebody else before it was looked up, looks as if we had done it.
            let (harmless, landed): (Vec<_>, Vec<_>) = batch.issuances.iter().filter(|i| i.state != "abandoned").partition(|i| !i.pin);
            self.told.moved_by_others += harmless.len();
            if !landed.is_empty() {
                let users: Vec<(i64, &str)> = landed.iter().map(|i| (i.user, i.state.as_str())).collect();
                self.wrong.push(format!("the journal's batch {} of pass {} never reached the database: {users:?}", batch.id, batch.pass));
            }
        }
    }

    /// No mail tells what was not there; and whoever has a PIN of ours was told it. Where one journal was at work, that is what
    /// the last mail says.
    pub fn compare_mails(&mut self, mails: &[Received], one_journal: bool) {
        let mut last: HashMap<i64, String> = HashMap::new();
        let mut ever: BTreeSet<(i64, String)> = BTreeSet::new();
        self.told.mails = mails.len();
        for mail in mails {
            let parsed = crate::site::parse(&mail.data);
            let Some(user) = self.addresses.get(&parsed.to).copied() else {
                self.wrong.push(format!("a mail to {}, who never was", parsed.to));
                continue;
            };
            let value = stored(&parsed.pin());
            match self.stood(user, &value, mail.at) {
                Stood::Then => {}
                Stood::LatelyGone => self.told.outdated += 1,
                Stood::Not => self.wrong.push(format!("at {}: user {user} was told a PIN that was not there", mail.at)),
            }
            self.told.repeated += usize::from(!ever.insert((user, value.clone())));
            last.insert(user, value);
        }
        for (user, life) in &self.lives {
            let Some(pin) = life.last().and_then(|moment| moment.pins.iter().find(|pin| pin.ours)) else { continue };
            self.told.users_with_our_pin += 1;
            if !ever.contains(&(*user, pin.value.clone())) {
                self.wrong.push(format!("user {user} has a PIN of ours, and no mail told it"));
            } else if last.get(user) != Some(&pin.value) {
                self.told.crossed += 1;
                if one_journal {
                    self.wrong.push(format!("the last mail to user {user} tells another PIN"));
                }
            }
        }
    }

    /// Whether the user had this PIN at `at`, as a PIN of ours.
    fn stood(&self, user: i64, value: &str, at: f64) -> Stood {
        let life = self.lives.get(&user).map(Vec::as_slice).unwrap_or_default();
        let has = |moment: &Moment| moment.pins.iter().any(|pin| pin.ours && pin.value == value);
        let mut found = Stood::Not;
        for (n, moment) in life.iter().enumerate().filter(|(_, moment)| has(moment)) {
            // A moment's number is taken just before it can be seen.
            let ended = life.get(n + 1).map_or(f64::INFINITY, |next| next.from);
            match (moment.from <= at, ended) {
                (true, ended) if ended >= at => return Stood::Then,
                (true, ended) if ended >= at - LATE => found = Stood::LatelyGone,
                _ => {}
            }
        }
        found
    }
}

enum Stood {
    Then,
    LatelyGone,
    Not,
}

fn held_by((card, ours): &(Card, bool)) -> Held {
    Held { value: card.value.clone(), until: card.until, ours: *ours }
}

/// By user.
fn deeds(transaction: &Transaction) -> BTreeMap<i64, Deed> {
    let mut deeds: BTreeMap<i64, Deed> = BTreeMap::new();
    for change in &transaction.changes {
        match change {
            Change::Person(Some(before), Some(after)) if before.place.0 == 11 && after.place == (12, 200) => {
                deeds.entry(after.id).or_default().moved = true;
            }
            Change::Card(before, Some(after)) if before.as_ref().is_none_or(|before| before.value != after.value) => {
                deeds.entry(after.user).or_default().pin = true;
            }
            // What a new PIN takes the place of, where there were several.
            Change::Card(Some(before), None) => drop(deeds.entry(before.user).or_default()),
            Change::Person(before, after) => {
                let id = before.iter().chain(after).map(|person| person.id).next().unwrap_or_default();
                deeds.entry(id).or_default().other.push(format!("{before:?} became {after:?}"));
            }
            Change::Card(before, after) => {
                let user = before.iter().chain(after).map(|card| card.user).next().unwrap_or_default();
                deeds.entry(user).or_default().other.push("the end of a PIN".to_owned());
            }
        }
    }
    deeds
}

/// A court that convicts nobody would prove nothing.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::journals::Issuance;

    fn person(id: i64) -> Change {
        Change::Person(None, Some(Person { id, login: format!("v{id}@visitors.example"), email: String::new(), place: (11, 100) }))
    }

    fn card(row: i64, user: i64, pin: &str) -> Change {
        Change::Card(None, Some(Card { row, user, value: stored(pin), until: None }))
    }

    fn at(committed: f64, ours: bool, changes: Vec<Change>) -> Transaction {
        Transaction { ours: ours.then(|| "credkeeper".to_owned()), began: committed, committed, changes }
    }

    fn mail(user: i64, pin: &str, at: f64) -> Received {
        let data = format!("To: v{user}@visitors.example\r\n\r\nyour PIN {pin}.\r\n");
        Received {
            at,
            data,
            connection: 1,
            from: String::new(),
            to: Vec::new(),
            headers: Vec::new(),
            subject: String::new(),
            text: String::new(),
            html: None,
            types: Vec::new(),
        }
    }

    fn batch(id: i64, user: i64, planned_at: i64, state: &str) -> Batch {
        let issuances = vec![Issuance { user, pin: true, moved: false, state: state.to_owned() }];
        Batch { id, pass: "p".to_owned(), planned_at, issuances }
    }

    #[test]
    fn what_is_right_is_found_right() {
        let history = [at(10.0, false, vec![person(1)]), at(20.0, true, vec![card(1, 1, "111111")])];
        let mut court = Court::hear(&history);
        court.compare_journals(&history, &[("credkeeper", vec![batch(1, 1, 19, "delivered"), batch(2, 7, 19, "abandoned")])]);
        court.compare_mails(&[mail(1, "111111", 21.0)], true);
        assert_eq!(court.wrong, Vec::<String>::new());
        assert_eq!((court.told.pins_issued, court.told.users_with_our_pin, court.told.batches_that_never_landed), (1, 1, 1));
    }

    #[test]
    fn each_crime_is_found() {
        let two =
            [at(10.0, false, vec![person(1)]), at(20.0, true, vec![card(1, 1, "111111")]), at(20.1, true, vec![card(2, 1, "222222")])];
        assert!(Court::hear(&two).wrong.iter().any(|wrong| wrong.contains("has 2 PINs of ours")));
        let shared = [at(10.0, false, vec![person(1), person(2)]), at(20.0, true, vec![card(1, 1, "111111"), card(2, 2, "111111")])];
        assert!(Court::hear(&shared).wrong.iter().any(|wrong| wrong.contains("one PIN of the users")));
        let unasked = [at(10.0, false, vec![person(1), card(1, 1, "12345678")]), at(20.0, true, vec![card(2, 1, "111111")])];
        assert!(Court::hear(&unasked).wrong.iter().any(|wrong| wrong.contains("nothing asked for")));

        let right = [at(10.0, false, vec![person(1)]), at(20.0, true, vec![card(1, 1, "111111")])];
        for (batches, sentence) in [
            (vec![], "no journal tells of"),
            (vec![batch(1, 2, 19, "delivered")], "no journal tells of"),
            (vec![batch(1, 1, 19, "delivered"), batch(2, 1, 19, "delivered")], "never reached the database"),
        ] {
            let mut court = Court::hear(&right);
            court.compare_journals(&right, &[("credkeeper", batches)]);
            assert!(court.wrong.iter().any(|wrong| wrong.contains(sentence)), "{sentence}: {:?}", court.wrong);
        }
        for (mails, sentence) in [
            (vec![], "no mail told it"),
            (vec![mail(1, "111111", 19.0)], "was told a PIN that was not there"),
            (vec![mail(1, "111111", 21.0), mail(1, "222222", 22.0)], "was told a PIN that was not there"),
            (vec![mail(9, "111111", 21.0)], "who never was"),
        ] {
            let mut court = Court::hear(&right);
            court.compare_mails(&mails, true);
            assert!(court.wrong.iter().any(|wrong| wrong.contains(sentence)), "{sentence}: {:?}", court.wrong);
        }
        let gone = at(30.0, false, vec![Change::Card(Some(Card { row: 1, user: 1, value: stored("111111"), until: None }), None)]);
        let [first, second] = right;
        let mut court = Court::hear(&[first, second, gone, at(40.0, true, vec![card(2, 1, "222222")])]);
        court.compare_mails(&[mail(1, "222222", 41.0), mail(1, "111111", 42.0)], true);
        assert!(court.wrong.iter().any(|wrong| wrong.contains("the last mail to user 1 tells another PIN")), "{:?}", court.wrong);
    }
}
