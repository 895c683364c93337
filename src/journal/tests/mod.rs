//! The room as its users see it, on real files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::domain::{
    Code, CostCenter, CostCenterId, Credential, Each, Mailbox, Password, Pin, PinFormat, PolicyName, Role, RoleId, StoredValue, WallClock,
};
use crate::inventory::{Facts, Membership, Standing, StoredPassword, StoredPin, User};

mod again;
mod back;
mod baseline;
mod books;
mod ends;
mod flow;
mod forget;
mod mail;
mod recent;
mod reminder;
mod secrets;
mod several;
mod start;

pub(super) const NOW: Timestamp = Timestamp(1_800_000_000);
pub(super) const TWO_DAYS: Duration = Duration::from_secs(48 * 3600);

/// What ended longer ago may go, and before-images after a week.
pub(super) fn keep(issuances: Duration) -> Keep {
    Keep { issuances, before_images: Duration::from_secs(7 * 86_400) }
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp(NOW.0 + seconds)
}

/// A directory with a journal in it.
pub(super) struct Bed {
    pub(super) dir: TempDir,
    pub(super) config: JournalConfig,
}

impl Bed {
    pub(super) fn new() -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let config = JournalConfig {
            path: dir.path().join("journal.db"),
            key: dir.path().join("journal.key"),
            keep: Duration::from_secs(400 * 86_400),
            undo_for: Duration::from_secs(7 * 86_400),
        };
        Bed { dir, config }
    }

    pub(super) async fn try_open(&self) -> Result<Journal, JournalError> {
        open_as(&self.config, owner("main", "cluster 1"), Duration::ZERO).await
    }

    pub(super) async fn open(&self) -> Journal {
        self.try_open().await.unwrap()
    }

    pub(super) async fn read(&self) -> Option<JournalReader> {
        JournalReader::open(&self.config, vec![owner("main", "cluster 1")], "main").await.unwrap()
    }

    /// What `kill -9` at this moment would leave: a copy of the files, without the lock.
    pub(super) fn crashed(&self) -> Bed {
        let left = Bed::new();
        for name in self.files() {
            std::fs::copy(self.dir.path().join(&name), left.dir.path().join(&name)).unwrap();
        }
        left
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut names: Vec<PathBuf> = std::fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name().into()).collect();
        names.sort();
        names
    }

    /// All bytes of the journal: the file and its side files, but not the key.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let ours = |name: &&PathBuf| name.to_string_lossy().starts_with("journal.db");
        self.files().iter().filter(ours).flat_map(|name| std::fs::read(self.dir.path().join(name)).unwrap()).collect()
    }

    /// A connection of somebody with an SQLite tool and no key.
    pub(super) fn raw(&self) -> Connection {
        Connection::open(&self.config.path).unwrap()
    }
}

pub(super) fn owner(name: &str, identity: &str) -> Owner {
    Owner { name: name.to_owned(), identity: identity.to_owned() }
}

/// The journal of a configuration with one database.
pub(super) async fn open_as(config: &JournalConfig, only: Owner, wait: Duration) -> Result<Journal, JournalError> {
    let name = only.name.clone();
    JournalFile::open(config, vec![only], wait).await?.of(&name).await
}

pub(super) fn key_of(bed: &Bed) -> &Path {
    &bed.config.key
}

pub(super) fn pass() -> PassId {
    PassId("0a1b2c".to_owned())
}

pub(super) fn policy(name: &str) -> PolicyName {
    PolicyName(name.to_owned())
}

pub(super) fn stored(pin: &str) -> StoredValue {
    PinFormat::Md5.encode(&Pin::new(pin.to_owned()))
}

/// A new PIN that expires at 5000, told by mail.
pub(super) fn announced(user: i64, pin: &str) -> NewIssuance {
    NewIssuance {
        user: UserId(user),
        login: format!("user{user}"),
        policy: policy("visitors"),
        pin: Some(PinWritten::Issued(IssuedPin {
            pin: Pin::new(pin.to_owned()),
            stored: stored(pin),
            expires: Some(WallClock(5000)),
            replaced: Vec::new(),
        })),
        code: None,
        password: None,
        existing: None,
        again: Again::default(),
        moved: None,
        role_removed: None,
        announcement: Some(Announcement {
            recipient: Mailbox::parse(&format!("someone{user}@example.org")).unwrap(),
            template: "default".to_owned(),
            message_id: format!("m-{user}@example.org"),
            username: format!("user{user}"),
            name: "Jana".to_owned(),
            surname: "Nová".to_owned(),
            email: String::new(),
            cost_center: None,
            cost_center_number: None,
        }),
        due_since: NOW,
        lane: Lane::Backlog,
        takes_back: None,
        replaced_unexpected: Each::default(),
        quarantine: Duration::from_secs(90 * 86_400),
    }
}

/// The same in place of an old one, and a move.
pub(super) fn renewed(user: i64, pin: &str, old: &str) -> NewIssuance {
    let mut new = announced(user, pin);
    if let Some(PinWritten::Issued(pin)) = new.pin.as_mut() {
        pin.replaced = vec![StoredPin::found(StoredValue::new(old.to_owned()), Some(WallClock(1000)))];
    }
    let to = CostCenter { id: CostCenterId(6), number: 60, name: "Has \"PIN\"".to_owned() };
    new.moved = Some((Membership { id: CostCenterId(5), number: 50 }, to));
    new.replaced_unexpected[Credential::Pin] = 1;
    new
}

/// The same as `announced`, with nobody to tell.
pub(super) fn silent(user: i64, pin: &str) -> NewIssuance {
    NewIssuance { announcement: None, ..announced(user, pin) }
}

pub(super) fn polled(new: NewIssuance) -> NewIssuance {
    NewIssuance { lane: Lane::Poll, ..new }
}

/// The user as the database has it after the issuance of `pin`.
pub(super) fn person(id: i64, pin: Option<&str>) -> User {
    User {
        id: UserId(id),
        login: format!("user{id}"),
        email: String::new(),
        name: String::new(),
        surname: String::new(),
        standing: Standing::Active,
        cost_center: Membership { id: CostCenterId(5), number: 50 },
        roles: vec![],
        source: None,
        pins: pin.map(|pin| StoredPin::found(stored(pin), Some(WallClock(5000)))).into_iter().collect(),
        cards: 0,
        code: None,
        password: None,
    }
}

pub(super) async fn facts_of(journal: &JournalReader, user: User) -> (User, Facts) {
    journal.facts(vec![user]).await.unwrap().remove(0)
}

/// Planned and committed at `NOW`.
pub(super) async fn committed(journal: &Journal, issuances: Vec<NewIssuance>) -> BatchId {
    let batch = journal.planned(&pass(), issuances, NOW).await.unwrap();
    journal.committed(batch, NOW).await.unwrap();
    batch
}

pub(super) async fn answer(journal: &Journal, id: i64, answer: Answer, now: Timestamp) -> State {
    let answered = journal.attempted(vec![(IssuanceId(id), answer)], now, TWO_DAYS).await.unwrap();
    answered[0].state.unwrap().unwrap()
}

pub(super) async fn due(journal: &Journal, now: Timestamp) -> Vec<i64> {
    journal.due_mail(&[journal.book()], now, 1000, &[]).await.unwrap().iter().map(|m| m.id.0).collect()
}

/// The states that are not empty; and what is kept in memory must be what a count of the file says.
pub(super) async fn counts(bed: &Bed, journal: &Journal) -> Vec<(&'static str, u64)> {
    let kept = journal.reader().counts().await.unwrap();
    let counted = bed.read().await.unwrap().counts().await.unwrap();
    assert_eq!(kept, counted, "the counts in memory have drifted");
    kept.into_iter().filter(|(_, n)| *n > 0).map(|(s, n)| (s.as_str(), n)).collect()
}
