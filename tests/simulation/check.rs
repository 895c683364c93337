//! The promises of ARCHITECTURE.md, asked of what an onlooker has seen.
//!
//! What the vendor writes is his: a PIN of ours that he removes needs no mail any more, and one that he writes needs none at all. That
//! is no exemption for the user: each PIN of ours that stands at the end has to be told or accounted for, however often the vendor
//! wrote to its user, and what became of one that does not stand is compared with when it was gone.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use credkeeper::domain::cipher::{Algorithm, IvKind};
use credkeeper::domain::{Cipher, Code, Password, PasswordEncoding, Pin, PinFormat, StoredValue};
use credkeeper::journal::State;

use crate::database::{Database, Snapshot};
use crate::ledger::{self, Ledger, Made, Row};
use crate::post::{Mail, Post};

/// A mail may tell what has been gone for so long: within a minute of the last look nobody looks again, and the courier
/// may have a quarter of a minute's worth in hand.
const TRUSTED_FOR: Duration = Duration::from_secs(60 + 15);

/// A promise that does not hold.
#[derive(Clone, Debug)]
pub struct Broken {
    pub promise: &'static str,
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}

pub fn ensure(holds: bool, promise: &'static str, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { promise, what: what() }) }
}

/// What a COMMIT of ours has changed is what the journal had planned, of the users of the batch and of nobody else (I8); and nobody
/// has two of our PINs, nor another's.
pub fn commit(before: &Snapshot, db: &Database, batch: &[Row]) -> Result<(), Broken> {
    let after = db.now();
    ensure(before.people.keys().eq(after.people.keys()), "I8", || "a user came or went".to_owned())?;
    let kinds: BTreeMap<i64, i64> = batch.iter().map(|row| (row.user, row.kinds)).collect();
    for (id, was) in &before.people {
        let (is, kinds) = (&after.people[id], kinds.get(id).copied().unwrap_or(0));
        let changed = |same: bool, kind: i64, what: &str| {
            ensure(same || kinds & (kind | ledger::BACK) != 0, "I8", || {
                format!("{what} of user {id} is another, and the journal planned {kinds} only")
            })
        };
        ensure((&was.login, &was.email, was.flag) == (&is.login, &is.email, is.flag), "I8", || format!("who user {id} is has changed"))?;
        changed((was.center, was.number) == (is.center, is.number), ledger::MOVED, "the place")?;
        changed(was.code == is.code, ledger::CODE, "the code")?;
        changed(was.password == is.password, ledger::PASSWORD, "the password")?;
        let cards = |state: &Snapshot| -> Vec<String> {
            state.cards.get(id).into_iter().flatten().filter(|card| !card.is_pin()).map(|card| card.value.clone()).collect()
        };
        ensure(cards(before) == cards(after), "I8", || format!("a card of user {id} came or went"))?;
        let pins: (Vec<_>, Vec<_>) = (before.pins_of(*id).collect(), after.pins_of(*id).collect());
        changed(pins.0 == pins.1, ledger::PIN | ledger::ENDS | ledger::DELETED, "a PIN")?;
        let values = |pins: &[&crate::database::Card]| pins.iter().map(|pin| pin.value.clone()).collect::<Vec<_>>();
        let (old, new) = (values(&pins.0), values(&pins.1));
        if kinds & ledger::PIN != 0 {
            let fresh = matches!(new.as_slice(), [only] if db.is_ours(only) && !old.contains(only));
            ensure(fresh, "I8", || format!("user {id} was to have one new PIN, and has {}", new.len()))?;
        } else if kinds & ledger::BACK != 0 {
            let came = new
                .iter()
                .filter(|pin| !old.contains(pin))
                .all(|pin| db.ever(Duration::ZERO, Duration::MAX, |state| state.holds(*id, pin)));
            let went = old.iter().all(|pin| new.contains(pin) || db.is_ours(pin));
            ensure(came && went, "I8", || format!("the PINs of user {id} are others than before what was taken back"))?;
        } else if kinds & ledger::DELETED != 0 {
            let only_ours = new.iter().all(|pin| old.contains(pin)) && old.iter().all(|pin| new.contains(pin) || db.is_ours(pin));
            ensure(only_ours, "I8", || format!("another PIN of user {id} went than one of ours"))?;
        } else {
            ensure(old == new, "I8", || format!("user {id} has other PINs"))?;
        }
    }
    let mut holders: BTreeMap<&str, i64> = BTreeMap::new();
    for id in after.people.keys() {
        let ours: Vec<_> = after.pins_of(*id).filter(|pin| db.is_ours(&pin.value)).collect();
        ensure(ours.len() <= 1, "one PIN", || format!("user {id} has {} of our PINs", ours.len()))?;
        for pin in ours {
            let other = holders.insert(&pin.value, *id);
            ensure(other.is_none(), "one holder", || format!("users {id} and {other:?} have one PIN"))?;
        }
    }
    Ok(())
}

/// One open issuance a user (I4); secrets only where they are needed (I5).
pub fn journal(rows: &[Row]) -> Result<(), Broken> {
    let mut open: BTreeMap<i64, i64> = BTreeMap::new();
    for row in rows {
        let Row { id, user, state, .. } = row;
        if state.is_open() {
            let other = open.insert(*user, *id);
            ensure(other.is_none(), "I4", || format!("user {user} has two open issuances, #{id} and #{other:?}"))?;
        }
        ensure(row.open == state.is_open(), "I4", || format!("#{id} is {state} and open is {}", row.open))?;
        ensure(!row.has_secret || state.keeps_secret(), "I5", || format!("#{id} is {state} and has its secret still"))?;
    }
    Ok(())
}

/// Each mail told what stood in the database (I1). A clock that was set back makes a look seem younger than it is, by as much.
pub fn mail(mail: &Mail, db: &Database) -> Result<(), Broken> {
    let told = mail.pin.is_some() || mail.code.is_some() || mail.password.is_some();
    ensure(told != mail.is_reminder, "I1", || format!("a reminder that tells a credential, or a mail that tells none: {mail:?}"))?;
    let since = mail.at.saturating_sub(TRUSTED_FOR + mail.set_back);
    let stood = |what: &str, holds: &dyn Fn(&Snapshot, i64) -> bool| {
        let of = |state: &Snapshot| state.people.values().any(|person| person.login == mail.user && holds(state, person.id));
        ensure(db.ever(since, mail.at, of), "I1", || format!("{what} that {} was told did not stand in the database", mail.user))
    };
    if let Some(pin) = &mail.pin {
        let stored = stored(pin);
        stood("the PIN", &|state, id| state.holds(id, &stored))?;
    }
    if let Some(code) = &mail.code {
        stood("the code", &|state, id| is_code(&state.people[&id].code, code))?;
    }
    if let Some(password) = &mail.password {
        let stored = PasswordEncoding::Md5.encode(&Password::new(password.clone()), [0; 16]).unwrap();
        stood("the password", &|state, id| state.people[&id].password == stored.expose())?;
    }
    Ok(())
}

/// All mails with one Message-ID say the same to the same (I3); a later one may leave out what was gone by then.
pub fn repeated(mails: &[Mail]) -> Result<(), Broken> {
    let mut first: BTreeMap<&str, &Mail> = BTreeMap::new();
    for mail in mails.iter().filter(|mail| !mail.is_reminder) {
        let known = first.entry(&mail.id).or_insert(mail);
        let kept = |was: &Option<String>, is: &Option<String>| is.is_none() || is == was;
        let same =
            known.to == mail.to && kept(&known.pin, &mail.pin) && kept(&known.code, &mail.code) && kept(&known.password, &mail.password);
        let whole = (known.pin.is_some(), known.code.is_some(), known.password.is_some())
            == (mail.pin.is_some(), mail.code.is_some(), mail.password.is_some());
        ensure(same && (!whole || known.text == mail.text), "I3", || {
            format!("{} says this and that to {} and {}", mail.id, known.to, mail.to)
        })?;
    }
    Ok(())
}

/// At rest: every credential of ours that stands was told, or the journal says why not (I2).
pub fn none_lost(db: &Database, ledger: &mut Ledger, post: &Post) -> Result<(), Broken> {
    let rows: BTreeMap<i64, Row> = ledger.rows().into_iter().map(|row| (row.id, row)).collect();
    for row in rows.values() {
        ensure(!row.state.is_open(), "I2", || format!("#{} of user {} is {} at rest", row.id, row.user, row.state))?;
    }
    for (id, made) in &ledger.made {
        accounted(*id, made, rows.get(id), db, post)?;
    }
    for (id, person) in &db.now().people {
        for pin in db.now().pins_of(*id).filter(|pin| db.is_ours(&pin.value)) {
            // A value may have been drawn twice: the last one counts.
            let newest = ledger.made.iter().rev().find(|(_, made)| made.user == *id && made.pin.as_ref() == Some(&pin.value));
            let Some((issuance, _)) = newest else {
                return Err(Broken { promise: "I2", what: format!("nobody knows where a PIN of user {id} comes from") });
            };
            let last = post.taken.iter().rev().find(|mail| mail.user == person.login && mail.pin.is_some());
            let is_last = last.and_then(|mail| mail.pin.as_deref()).map(stored).as_ref() == Some(&pin.value);
            let silent = rows.get(issuance).is_none_or(|row| matches!(row.state, State::Undeliverable | State::Unannounced));
            // What stood before stands again: the mail was taken without an answer, and refused when it came once more.
            let taken_back = last
                .is_some_and(|mail| rows.values().any(|row| row.message_id.as_ref() == Some(&mail.id) && row.state == State::TakenBack));
            ensure(is_last || silent || taken_back, "I2", || {
                format!("the PIN of user {id}, of #{issuance}, is not the one of the last mail")
            })?;
        }
    }
    Ok(())
}

/// Whether a user has this stored credential.
type Stands = fn(&Snapshot, i64, &str) -> bool;

/// What became of one issuance that was committed.
fn accounted(id: i64, made: &Made, row: Option<&Row>, db: &Database, post: &Post) -> Result<(), Broken> {
    let Made { at, user, .. } = made;
    let credentials: [(&str, &Option<String>, Stands); 3] = [
        ("PIN", &made.pin, |state, user, pin| state.holds(user, pin)),
        ("code", &made.code, |state, user, code| state.people.get(&user).is_some_and(|person| person.code == code)),
        ("password", &made.password, |state, user, password| state.people.get(&user).is_some_and(|person| person.password == password)),
    ];
    let mails: Vec<&Mail> = post.taken.iter().filter(|mail| Some(&mail.id) == made.message_id.as_ref()).collect();
    let login = db.history.iter().find_map(|(_, state)| state.people.get(user)).map(|person| person.login.clone()).unwrap_or_default();
    let refused = post.refused.iter().any(|(address, n)| *n > 0 && address.split('.').next() == Some(&login));
    let state = row.map_or("forgotten", |row| row.state.as_str());
    for (what, value, stands) in credentials {
        let Some(value) = value else { continue };
        let was_gone = db.ever(*at, Duration::MAX, |state| !stands(state, *user, value));
        let told = mails.iter().any(|mail| match what {
            "PIN" => mail.pin.as_deref().map(stored).as_ref() == Some(value),
            "code" => mail.code.as_deref().is_some_and(|code| is_code(value, code)),
            _ => mail.password.is_some(),
        });
        let fine = match row.map(|row| row.state) {
            Some(State::Delivered) => !mails.is_empty() && (told || was_gone),
            Some(State::Undeliverable) => refused,
            Some(State::Unannounced) => made.message_id.is_none(),
            Some(State::Superseded | State::Abandoned) => was_gone,
            Some(State::TakenBack) => refused && was_gone,
            Some(State::Planned | State::Committed) => false,
            None => told || was_gone || made.message_id.is_none() || refused,
        };
        ensure(fine, "I2", || {
            format!(
                "the {what} of #{id} of user {user} stood in the database; now it is {state}, told: {told}, gone since: {was_gone}, refused: {refused}"
            )
        })?;
    }
    Ok(())
}

/// The stored form of a PIN.
pub fn stored(pin: &str) -> String {
    PinFormat::Md5.encode(&Pin::new(pin.to_owned())).expose().to_owned()
}

fn is_code(stored: &str, code: &str) -> bool {
    let cipher = Cipher::new(Algorithm::Aes128Cbc, &[7; 16], Some(IvKind::Prefix)).unwrap();
    cipher.decrypt(&StoredValue::new(stored.to_owned())) == Some(Code::new(code.to_owned()))
}
