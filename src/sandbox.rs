//! `credkeeper sandbox DIR`: a database with the print system's tables and invented users of every kind that a site has, a
//! commented config.yaml, mail into a folder. The same number of users gives the same sandbox, so that a demonstration can be
//! repeated.

use std::path::{Path, PathBuf};
use std::{fmt, fs};

use rusqlite::{Connection, params};

use crate::domain::{Pin, PinFormat};

const TABLES: &str = include_str!("sandbox/tables.sql");
const ROOM_OF_SIX_DIGITS: u32 = 50_000;
const CONFIG: &str = include_str!("sandbox/config.yaml");

/// What [`create`] made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sandbox {
    pub dir: PathBuf,
    pub config: PathBuf,
    pub database: PathBuf,
    /// People, without the template user, roles and deleted rows.
    pub users: u32,
}

impl fmt::Display for Sandbox {
    /// What was made and what to type next.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dir, config) = (self.dir.display(), self.config.display());
        writeln!(f, "Made a sandbox for {} users in {dir}.", self.users)?;
        writeln!(f, "  credkeeper --config {config} plan      what a pass would do")?;
        writeln!(f, "  credkeeper --config {config} --once    do it; the mails appear in {}", self.dir.join("outbox").display())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("{} is not empty: give the name of a new or an empty directory", dir.display())]
    NotEmpty { dir: PathBuf },
    #[error("could not make the directory {}", dir.display())]
    Directory { dir: PathBuf, source: std::io::Error },
    #[error("could not write {}", path.display())]
    Config { path: PathBuf, source: std::io::Error },
    #[error("could not fill {}", path.display())]
    Database { path: PathBuf, source: rusqlite::Error },
}

/// Makes `dir` with a sandbox for `users` people in it.
///
/// # Errors
/// A directory that has something in it, and whatever keeps its files from being written.
pub fn create(dir: &Path, users: u32) -> Result<Sandbox, SandboxError> {
    let at = |source| SandboxError::Directory { dir: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(at)?;
    if fs::read_dir(dir).map_err(at)?.next().is_some() {
        return Err(SandboxError::NotEmpty { dir: dir.to_owned() });
    }
    let database = dir.join("sandbox.db");
    fill(&database, users).map_err(|source| SandboxError::Database { path: database.clone(), source })?;
    // Last: a folder with a config.yaml in it is complete.
    let config = dir.join("config.yaml");
    // Six digits are too few for a great many users: a PIN space that is a tenth full is refused.
    let text = if users > ROOM_OF_SIX_DIGITS { CONFIG.replace("length: 6", "length: 8") } else { CONFIG.to_owned() };
    fs::write(&config, text).map_err(|source| SandboxError::Config { path: config.clone(), source })?;
    Ok(Sandbox { dir: dir.to_owned(), config, database, users })
}

/// Id, number, name. A new user is in the first.
const CENTERS: [(i64, i64, &str); 7] = [
    (0, 0, "Default"),
    (1, 100, "Needs PIN"),
    (2, 200, "Has PIN"),
    (3, 300, "Administration"),
    (4, 400, "Engineering"),
    (5, 500, "Library"),
    (6, 600, "Workshop"),
];
const DEFAULT: usize = 0;
const NEEDS_PIN: usize = 1;
const HAS_PIN: usize = 2;

const USER: i64 = 1;
const ROLE: i64 = 32_768;
const BUILT_IN: i64 = 131_072;
const DELETED: i64 = 16_384;

/// Long gone, and far ahead: fixed, so that the sandbox is the same on every day.
const LAPSED: Option<&str> = Some("2024-05-31 12:00:00");
const VALID: Option<&str> = Some("2099-12-31 23:59:59");
const NEVER: Option<&str> = None;

struct Person {
    login: String,
    name: &'static str,
    surname: &'static str,
    email: Option<String>,
    flag: i64,
    center: usize,
    /// From the directory, else made in the print system.
    directory: bool,
    pins: Vec<Option<&'static str>>,
    card: Option<String>,
}

fn fill(path: &Path, users: u32) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    connection.execute_batch(TABLES)?;
    let transaction = connection.transaction()?;
    {
        let mut center = transaction.prepare("INSERT INTO ou (id, number, name) VALUES (?1, ?2, ?3)")?;
        for row in CENTERS {
            center.execute(row)?;
        }
        let mut user = transaction.prepare(
            "INSERT INTO users (login, name, surname, sign, email, flag, ou_id, ou_number, source, login_ascii, name_ascii, surname_ascii, safeq_oid)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?1, ?2, ?3, ?10)",
        )?;
        let mut card = transaction.prepare("INSERT INTO users_cards (user_id, card, pin_expiration_date) VALUES (?1, ?2, ?3)")?;
        for person in fixtures().into_iter().chain((0..users).map(person)) {
            let (center, number, _) = CENTERS[person.center];
            let (sign, source) = if person.directory { (Some("ad.example.com"), "LDAP") } else { (None, "INTERNAL_DATABASE") };
            let kind = (person.flag & ROLE != 0).then_some(10);
            user.execute(params![
                person.login,
                person.name,
                person.surname,
                sign,
                person.email,
                person.flag,
                center,
                number,
                source,
                kind
            ])?;
            let id = transaction.last_insert_rowid();
            for (i, expires) in person.pins.into_iter().enumerate() {
                card.execute(params![id, stored_pin(id, i), expires])?;
            }
            if let Some(value) = person.card {
                card.execute(params![id, value, None::<&str>])?;
            }
        }
        let mut member = transaction.prepare("INSERT INTO users_roles (user_id, role_id) SELECT id, ?1 FROM users WHERE flag = 1")?;
        member.execute([EVERYONE])?;
    }
    transaction.commit()
}

/// The id of the role that everybody has: the second row of [`fixtures`].
const EVERYONE: i64 = 2;

/// The rows of `users` that are no people.
fn fixtures() -> Vec<Person> {
    let row = |login: &str, surname, flag| Person {
        login: login.to_owned(),
        name: "",
        surname,
        email: None,
        flag,
        center: DEFAULT,
        directory: false,
        pins: Vec::new(),
        card: None,
    };
    vec![
        // What new visitors are copied from: their cost center is why they need a PIN.
        Person { center: NEEDS_PIN, ..row("template", "Template of new users", USER) },
        row("everyone", "Everyone", ROLE | BUILT_IN),
        row("print-admins", "Print administrators", ROLE),
        Person { email: Some("old.colleague@example.com".to_owned()), ..row("old.colleague", "Colleague", USER | DELETED) },
    ]
}

/// A PIN of 8 digits that no other row has: the factor shares no divisor with 10^8.
fn stored_pin(id: i64, nth: usize) -> String {
    let digits = (id * 4 + i64::try_from(nth).unwrap_or(0)) * 61_195_309 % 100_000_000;
    PinFormat::Md5.encode(&Pin::new(format!("{digits:08}"))).expose().to_owned()
}

const NAMES: [&str; 12] = ["Anna", "Bořek", "Chiara", "Dušan", "Émile", "Frida", "Gita", "Hynek", "Ines", "Jörg", "Klára", "Łucja"];
const SURNAMES: [&str; 11] =
    ["Almond", "Brook", "Cardinal", "Dahl", "Elder", "Fenwick", "Garland", "Hazel", "O'Inish", "Juniper", "Kestrel"];

/// The `i`th of the people. Of a hundred, some fourteen are due for something; how many PINs have lapsed stays under the share
/// that the shipped limits let a pass replace.
fn person(i: u32) -> Person {
    let nth = usize::try_from(i).unwrap_or(0);
    let (name, surname) = (NAMES[nth % NAMES.len()], SURNAMES[nth % SURNAMES.len()]);
    let login = format!("{}{i}", ascii(surname).to_lowercase());
    let email = format!("{}.{}{i}@example.com", ascii(name).to_lowercase(), ascii(surname).to_lowercase());
    let settled = Person {
        email: Some(email),
        login,
        name,
        surname,
        flag: USER,
        center: [DEFAULT, 3, 4, 5, 6][nth % 5],
        directory: i.is_multiple_of(2),
        pins: vec![if i.is_multiple_of(3) { NEVER } else { VALID }],
        card: i.is_multiple_of(4).then(|| format!("04{:08X}", u64::from(i) * 2_654_435_761 % 0x1_0000_0000)),
    };
    let bare = |person: Person| Person { pins: Vec::new(), card: None, ..person };
    match i % 200 {
        113 => Person { pins: vec![LAPSED, VALID], ..settled },
        5 | 105 => Person { pins: vec![LAPSED], ..settled },
        _ => match i % 50 {
            // A visitor whom the print system has just made: nothing but an address for a login.
            0 => Person {
                login: format!("visitor{i}@example.net"),
                name: "",
                surname: "",
                email: None,
                center: NEEDS_PIN,
                directory: false,
                ..bare(settled)
            },
            1 => Person { directory: false, ..bare(settled) },
            2 => Person { directory: true, ..bare(settled) },
            3 => Person { card: Some(format!("04{i:08X}")), ..bare(settled) },
            4 => Person { pins: vec![NEVER], card: None, ..settled },
            6 => Person { pins: vec![VALID, NEVER], ..settled },
            // A card whose number looks like an MD5: under `md5` it is a card all the same.
            7 => Person { card: Some(format!("{:032x}", u128::from(i) + 0x8_1dc9_bdb5_2d04_dc20_036d)), ..bare(settled) },
            8 => Person { email: (i % 100 == 8).then(String::new), ..bare(settled) },
            9 => Person {
                email: Some(if i % 100 == 9 { "no-domain@" } else { "one@example.com,two@example.com" }.to_owned()),
                ..bare(settled)
            },
            10 => Person {
                login: format!("visitor{i}@example.net"),
                name: "",
                surname: "",
                email: None,
                center: HAS_PIN,
                directory: false,
                pins: vec![VALID],
                card: None,
                ..settled
            },
            11 => Person { email: Some(format!("guest{i}@example.org")), ..bare(settled) },
            12 => Person { login: format!("svc-scan{i}"), name: "", surname: "Scanner", ..bare(settled) },
            // A visitor by e-mail who has a card already.
            13 => Person {
                login: format!("regular{i}@example.org"),
                email: None,
                center: NEEDS_PIN,
                card: Some(format!("04{i:08X}")),
                ..bare(settled)
            },
            _ => settled,
        },
    }
}

/// For logins and addresses: what is not a letter of ASCII is left out or replaced.
fn ascii(name: &str) -> String {
    name.chars()
        .filter_map(|c| match c {
            'a'..='z' | 'A'..='Z' => Some(c),
            'á' => Some('a'),
            'É' => Some('E'),
            'ö' => Some('o'),
            'ř' => Some('r'),
            'š' => Some('s'),
            'Ł' => Some('L'),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(database: &Path) -> Vec<String> {
        let connection = Connection::open(database).unwrap();
        let mut rows = Vec::new();
        for query in [
            "SELECT id || login || coalesce(email, '-') || flag || ou_id || ou_number || source FROM users",
            "SELECT user_id || card || coalesce(pin_expiration_date, '-') FROM users_cards",
        ] {
            let mut statement = connection.prepare(query).unwrap();
            rows.extend(statement.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap));
        }
        rows
    }

    #[test]
    fn the_same_number_of_users_gives_the_same_sandbox() {
        let dir = tempfile::tempdir().unwrap();
        let one = create(&dir.path().join("one"), 300).unwrap();
        let two = create(&dir.path().join("two/deep"), 300).unwrap();
        let rows = dump(&one.database);
        assert_eq!(rows, dump(&two.database));
        let mut once = rows.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), rows.len(), "no PIN, login or card twice");
        assert_eq!(rows.iter().filter(|r| r.contains("@example.net")).count(), 12);
    }

    #[test]
    fn a_directory_with_something_in_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
        let refused = create(dir.path(), 3).unwrap_err();
        assert!(matches!(refused, SandboxError::NotEmpty { .. }), "{refused}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// The share of PINs that a first pass replaces stays under the 5 % that the shipped limits allow.
    #[test]
    fn a_first_pass_stays_within_the_limits_whatever_the_size() {
        for users in [20, 60, 114, 150, 300, 1000] {
            let people: Vec<Person> = (0..users).map(person).collect();
            let stored: usize = people.iter().map(|p| p.pins.len()).sum();
            let replaced: usize = people.iter().filter(|p| p.pins.contains(&LAPSED)).map(|p| p.pins.len()).sum();
            assert!(stored <= 50 || replaced * 20 <= stored, "{replaced} of {stored} with {users} users");
        }
    }
}
