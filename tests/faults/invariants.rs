//! What must hold once all has come to rest, whatever went wrong before: database, mailbox and journal are each read without the program's own code.

use std::collections::{BTreeMap, BTreeSet};

use md5::{Digest, Md5};
use regex::Regex;

use crate::scenario::{KEY, Stage, USERS, ended, stopped};
use crate::site::{Mail, Process};

/// A credential as a mail tells it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Words {
    pin: Option<String>,
    code: Option<String>,
    password: Option<String>,
}

/// One issuance as the journal has it.
struct Entry {
    user: i64,
    state: String,
    message_id: Option<String>,
    has_secret: bool,
}

/// What a user holds, as the tables have it.
#[derive(Default)]
struct Held {
    /// The stored value, and whether it is valid.
    pins: Vec<(String, bool)>,
    code: String,
    password: String,
}

/// Waits until the daemon has told everybody, ends it, and looks at everything.
pub async fn check_when_told(stage: &Stage, daemon: Process) {
    stage.all_told(&daemon).await;
    let run = stopped(daemon).await;
    assert_eq!(run.code, 0, "{}", run.all());
    let settled = stage.settle().await;
    assert_eq!(settled.code, 0, "{}", settled.all());
    check(stage, &[]).await;
}

/// Looks at everything.
///
/// `unreachable`: users whom the mail server will never take mail for. All others are to have what they were told.
pub async fn check(stage: &Stage, unreachable: &[i64]) {
    let mails = stage.mails();
    let entries = journal(stage);
    let held = held(stage).await;
    let credentials: Vec<(&Mail, Words)> =
        mails.iter().filter(|mail| subject(mail) == "Your credentials").map(|mail| (mail, words(mail))).collect();

    at_rest(&entries, unreachable);
    one_issuance_one_mail(&mails, &entries);
    everybody_has_what_he_was_told(stage, &held, &credentials, &entries, unreachable).await;
    nothing_was_told_that_never_stood(stage, &credentials).await;
    reminders(stage, &mails);
    nothing_is_written_down(stage, &held, &credentials);
    nothing_is_left_to_do(stage, mails.len()).await;
}

/// I5, and the first half of I9: no issuance waits, and none that needs no secret any more has one.
fn at_rest(entries: &[Entry], unreachable: &[i64]) {
    for entry in entries {
        let expected: &[&str] = if unreachable.contains(&entry.user) {
            &["undeliverable", "abandoned"]
        } else {
            &["delivered", "unannounced", "abandoned", "superseded"]
        };
        assert!(expected.contains(&entry.state.as_str()), "user {}: the issuance is {}", entry.user, entry.state);
        let kept = entry.state == "undeliverable";
        assert_eq!(entry.has_secret, kept, "user {}: a secret in state {}", entry.user, entry.state);
    }
    // I4, and more: whatever was tried, nobody was given two.
    let mut lasting = BTreeMap::<i64, usize>::new();
    entries.iter().filter(|entry| entry.state != "abandoned").for_each(|entry| *lasting.entry(entry.user).or_default() += 1);
    let twice: Vec<_> = lasting.iter().filter(|(_, n)| **n > 1).collect();
    assert!(twice.is_empty(), "issued more than once: {twice:?}");
}

/// I3; and each mail belongs to an issuance that was delivered, and each of those has a mail (I2).
fn one_issuance_one_mail(mails: &[Mail], entries: &[Entry]) {
    let mut seen = BTreeMap::<&str, &Mail>::new();
    for mail in mails {
        let first = seen.entry(message_id(mail)).or_insert(mail);
        assert_eq!((&first.to, &first.text, subject(first)), (&mail.to, &mail.text, subject(mail)), "two mails with one Message-ID differ");
    }
    let states: BTreeMap<&str, &Entry> =
        entries.iter().filter_map(|entry| Some((entry.message_id.as_deref()?.trim_matches(['<', '>']), entry))).collect();
    for mail in mails.iter().filter(|mail| subject(mail) == "Your credentials") {
        let id = message_id(mail);
        let entry = states.get(id).unwrap_or_else(|| panic!("the journal knows nothing of the mail {id} to {}", mail.to));
        assert_ne!(entry.state, "abandoned", "{} was told what was never committed", mail.to);
    }
    for entry in entries.iter().filter(|entry| entry.state == "delivered") {
        let id = entry.message_id.as_deref().expect("a mail was delivered").trim_matches(['<', '>']);
        assert!(seen.contains_key(id), "the journal calls the mail to user {} delivered, and there is none", entry.user);
    }
}

/// I2 and I9: who was to get something has it, once, and the last mail tells it.
async fn everybody_has_what_he_was_told(
    stage: &Stage,
    held: &BTreeMap<i64, Held>,
    credentials: &[(&Mail, Words)],
    entries: &[Entry],
    unreachable: &[i64],
) {
    let codes = stage.codes().await;
    let mut passwords = Vec::new();
    let mut pins = BTreeSet::new();
    for user in 1..=USERS {
        let has = &held[&user];
        assert_eq!(
            has.pins.len(),
            1,
            "user {user}: PINs, and whether they are valid: {:?}",
            has.pins.iter().map(|(_, valid)| valid).collect::<Vec<_>>()
        );
        let (pin, valid) = &has.pins[0];
        assert!(*valid, "user {user}: the PIN has expired");
        assert!(pins.insert(pin.clone()), "user {user}: somebody else has the same PIN");
        let issued = entries.iter().filter(|entry| entry.user == user && entry.state != "abandoned").count();
        assert_eq!(issued, usize::from(stage.scenario.changes(user)), "user {user}: issuances");

        let to = stage.address(user);
        let last = credentials.iter().rfind(|(mail, _)| mail.to == to).map(|(_, words)| words);
        let Some(told) = stage.scenario.told(user).filter(|_| !unreachable.contains(&user)) else {
            assert_eq!(last, None, "user {user} was told something");
            continue;
        };
        let last = last.unwrap_or_else(|| panic!("user {user} has a credential and was never told"));
        assert_eq!((last.pin.is_some(), last.code.is_some(), last.password.is_some()), (told.pin, told.code, told.password), "user {user}");
        if let Some(digits) = &last.pin {
            assert_eq!(*pin, stored(stage, digits), "user {user} was told another PIN");
        }
        if let Some(code) = &last.code {
            assert_eq!(codes.get(&user), Some(code), "user {user} was told another code");
        }
        passwords.extend(last.password.clone().map(|password| (user, password)));
    }
    if !passwords.is_empty() {
        // Another implementation of bcrypt, over the password as it was told.
        let list: Vec<String> = passwords.iter().map(|(user, password)| format!("({user}, '{}')", password.replace('\'', "''"))).collect();
        let right = format!(
            "SELECT count(*) FROM users u JOIN (VALUES {}) t(id, told) ON t.id = u.id WHERE public.crypt(t.told, u.pass) = u.pass",
            list.join(",")
        );
        assert_eq!(stage.site.number(&right).await, passwords.len() as i64, "somebody was told another password");
    }
}

/// I1: the database itself noted what was committed.
async fn nothing_was_told_that_never_stood(stage: &Stage, credentials: &[(&Mail, Words)]) {
    let users: BTreeMap<String, i64> = (1..=USERS).map(|user| (stage.address(user), user)).collect();
    let pins: BTreeSet<(i64, String)> = pairs(stage, "SELECT user_id::text, card FROM stood.pins").await;
    let codes: BTreeSet<(i64, String)> =
        pairs(stage, &format!("SELECT user_id::text, {} FROM stood.others WHERE puk <> ''", opened())).await;
    for (mail, Words { pin, code, .. }) in credentials {
        let user = users[&mail.to];
        if let Some(pin) = pin {
            assert!(pins.contains(&(user, stored(stage, pin))), "user {user} was told a PIN that never stood in the database");
        }
        if let Some(code) = code {
            assert!(codes.contains(&(user, code.clone())), "user {user} was told a code that never stood in the database");
        }
    }
}

/// Whoever is to be reminded was, and nobody else.
fn reminders(stage: &Stage, mails: &[Mail]) {
    let reminded: BTreeSet<&str> = mails.iter().filter(|mail| subject(mail) == "Soon").map(|mail| mail.to.as_str()).collect();
    let wanted: Vec<String> = (1..=USERS).filter(|user| stage.scenario.reminds(*user)).map(|user| stage.address(user)).collect();
    assert_eq!(reminded, wanted.iter().map(String::as_str).collect(), "who was reminded");
}

/// No credential, and no stored form of one, in anything that the program wrote; the journal holds them sealed or not at all.
fn nothing_is_written_down(stage: &Stage, held: &BTreeMap<i64, Held>, credentials: &[(&Mail, Words)]) {
    let mut needles = BTreeSet::new();
    for (_, Words { pin, code, password }) in credentials {
        needles.extend([pin, code, password].into_iter().flatten().cloned());
    }
    for Held { pins, code, password } in held.values() {
        needles
            .extend(pins.iter().map(|(stored, _)| stored.clone()).chain([code.clone(), password.clone()]).filter(|value| value.len() >= 8));
    }
    let mut files = 0;
    for entry in std::fs::read_dir(stage.site.folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !(name.starts_with("out-") || name.starts_with("journal.db")) {
            continue;
        }
        files += 1;
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        for needle in &needles {
            let alone = |at: usize| {
                let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
                !digit(text[..at].chars().next_back()) && !digit(text[at + needle.len()..].chars().next())
            };
            let found = text.match_indices(needle.as_str()).any(|(at, _)| alone(at));
            assert!(!found, "{name} holds a credential or its stored form");
        }
    }
    assert!(files > 2, "what the program wrote is to be looked at");
}

/// I9: another run has nothing to do, changes nothing and mails nobody.
async fn nothing_is_left_to_do(stage: &Stage, mails: usize) {
    let before = stage.site.fingerprint().await;
    let again = ended(stage.start(&[], &["--once", "--format", "json"])).await;
    let report: serde_json::Value = serde_json::from_str(&again.stdout).unwrap_or_else(|_| panic!("no report: {}", again.all()));
    assert_eq!(report["outcome"], "unchanged", "{report:#}");
    assert_eq!(stage.site.fingerprint().await, before, "a second run writes");
    assert_eq!(stage.mails().len(), mails, "a second run mails");
}

// --- what is read ---

fn journal(stage: &Stage) -> Vec<Entry> {
    let db = rusqlite::Connection::open_with_flags(stage.journal_path(), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the journal");
    let mut rows = db
        .prepare(
            "SELECT i.user, coalesce(i.state, b.state), i.message_id, i.secret IS NOT NULL FROM issuance i JOIN batch b ON b.id = i.batch ORDER BY i.id",
        )
        .unwrap();
    let entry =
        |row: &rusqlite::Row<'_>| Ok(Entry { user: row.get(0)?, state: row.get(1)?, message_id: row.get(2)?, has_secret: row.get(3)? });
    rows.query_map([], entry).unwrap().map(Result::unwrap).collect()
}

async fn held(stage: &Stage) -> BTreeMap<i64, Held> {
    let mut held: BTreeMap<i64, Held> = BTreeMap::new();
    for (user, rest) in stage.site.rows("SELECT id::text, coalesce(puk, '') || '|' || coalesce(pass, '') FROM users").await {
        let (code, password) = rest.split_once('|').unwrap();
        held.insert(user.parse().unwrap(), Held { pins: Vec::new(), code: code.to_owned(), password: password.to_owned() });
    }
    for (user, rest) in stage
        .site
        .rows("SELECT user_id::text, card || '|' || (pin_expiration_date > localtimestamp)::text FROM users_cards ORDER BY card")
        .await
    {
        let (card, valid) = rest.split_once('|').unwrap();
        held.get_mut(&user.parse().unwrap()).unwrap().pins.push((card.to_owned(), valid == "true"));
    }
    held
}

/// The stored code, decrypted by the database.
fn opened() -> String {
    format!("convert_from(public.decrypt(decode(puk, 'base64'), '\\x{KEY}', 'aes-ecb/pad:pkcs'), 'utf8')")
}

async fn pairs<T: FromIterator<(i64, String)>>(stage: &Stage, query: &str) -> T {
    stage.site.rows(query).await.into_iter().map(|(user, value)| (user.parse().unwrap(), value)).collect()
}

impl Stage {
    async fn codes(&self) -> BTreeMap<i64, String> {
        pairs(self, &format!("SELECT id::text, {} FROM users WHERE puk <> ''", opened())).await
    }
}

/// How the print system stores these digits.
fn stored(stage: &Stage, digits: &str) -> String {
    let hashed = || Md5::digest(digits.as_bytes()).iter().map(|b| format!("{b:02x}")).collect::<String>();
    format!("PIN{}", if stage.scenario.in_plain() { digits.to_owned() } else { hashed() })
}

fn words(mail: &Mail) -> Words {
    let found = |pattern: &str| Regex::new(pattern).unwrap().captures(&mail.text).map(|found| found[1].to_owned());
    Words { pin: found(r"PIN (\d+)"), code: found(r"CODE (\d+)"), password: found(r"PASSWORD (\S+)") }
}

fn message_id(mail: &Mail) -> &str {
    header(mail, "Message-ID").trim_matches(['<', '>'])
}

fn header<'a>(mail: &'a Mail, name: &str) -> &'a str {
    mail.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
}

fn subject(mail: &Mail) -> &str {
    header(mail, "Subject")
}
