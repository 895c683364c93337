//! Properties over random sites, on both dialects: a pass leaves nothing to do; the read filter never changes the plan;
//! no string in any field becomes a header, a recipient or an effect in SQL.

use std::collections::BTreeSet;

use credkeeper::plan::Step;
use md5::{Digest, Md5};
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};

use crate::site::Mail;
use crate::small_site::{Dialect, SmallSite};

/// One user, as random as a database allows.
#[derive(Clone, Debug)]
pub struct Anybody {
    pub login: String,
    pub email: String,
    pub name: String,
    pub flag: i32,
    pub place: usize,
    /// Hours until each PIN expires; `None`: never.
    pub pins: Vec<Option<i32>>,
    pub cards: Vec<String>,
}

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("'; DROP TABLE users; --".to_owned()),
        Just("a@b.example\r\nBcc: evil@evil.example".to_owned()),
        Just("a@b.example, evil@evil.example".to_owned()),
        Just("a@b.example\0".replace('\0', "")),
        Just("\"quoted\"@b.example".to_owned()),
        Just("{{ pin }}@b.example".to_owned()),
        Just("%s' OR '1'='1".to_owned()),
        "[a-z]{1,8}@(visitors|example)\\.example".prop_map(|s| s),
        "[^\0]{0,40}",
    ]
}

fn anybody() -> impl Strategy<Value = Anybody> {
    let flag = prop_oneof![6 => Just(1), 1 => Just(163_840), 1 => Just(16_385), 1 => any::<i32>().prop_map(|f| f & 0xffff)];
    let pins = prop::collection::vec(prop::option::of(-100..100i32), 0..3);
    let cards = prop::collection::vec(prop_oneof![Just("PINEAPPLE".to_owned()), "[0-9a-f]{32}", "[A-Z0-9]{4,12}", "[^\0]{1,35}"], 0..2);
    (hostile(), hostile(), hostile(), flag, 0..4usize, pins, cards).prop_map(|(login, email, name, flag, place, pins, cards)| Anybody {
        login,
        email,
        name,
        flag,
        place,
        pins,
        cards,
    })
}

/// Which policies the site has, as bits: visitors, renewing staff, everybody else, a mover, an excluder.
fn site() -> impl Strategy<Value = (Vec<Anybody>, u8)> {
    (prop::collection::vec(anybody(), 1..25), any::<u8>())
}

fn check(dialect: Dialect, cases: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut runner = TestRunner::new(Runs { cases, failure_persistence: None, max_shrink_iters: 200, ..Runs::default() });
    runner
        .run(&site(), |(people, policies)| {
            runtime.block_on(async {
                let site = SmallSite::make(dialect, "", &rest(policies)).await;
                fill(&site, &people).await;
                // Late enough for min_interval, early enough for every PIN that was just issued.
                let (filtered, whole) = (site.steps(600, true).await, site.steps(600, false).await);
                prop_assert_eq!(&filtered, &whole, "the read filter changed the plan");

                let before = rows(&site).await;
                let report = site.once().await;
                prop_assert_eq!(report.failed(), 0, "{:?}", report.problems);
                prop_assert!(site.steps(600, true).await.is_empty(), "a second plan is not empty");
                prop_assert_eq!(rows(&site).await, before, "rows of users came or went, or a login, mail or card changed");
                mails_are_as_meant(&site.mails(), &whole, &people)
            })
        })
        .unwrap();
}

#[test]
fn random_sites_on_sqlite() {
    check(Dialect::Sqlite, 60);
}

#[test]
fn random_sites_on_postgresql() {
    check(Dialect::Postgres, 25);
}

/// Policies in the order in which they stand; bit n of the choice takes the n-th.
const POLICIES: [&str; 5] = [
    "  - name: excluded\n    match: {username: '[x-z].*'}\n",
    "  - name: visitors
    match: {username: '[^@]+@.*', cost_center: [Needs PIN]}
    pin: {length: 6, rewrite: never, valid_for: 30d}
    cost_center: {move_to: Has PIN}
    notify: {to: username, template: t}\n",
    "  - name: movers\n    match: {username: '[a-f].*', not_cost_center: [Has PIN]}\n    cost_center: {move_to: Has PIN}\n",
    "  - name: staff
    match: {email: '.*@example[.]example', has_card: null}
    pin: {length: 6, rewrite: expired, valid_for: 365d}
    notify: {to: email, template: t}\n",
    "  - name: everybody
    pin: {length: 7, rewrite: expired, valid_for: 10d}
    notify: {to: username, template: t}\n",
];

fn rest(choice: u8) -> String {
    let chosen: String = POLICIES.iter().enumerate().filter(|(n, _)| choice & (1 << n) != 0).map(|(_, policy)| *policy).collect();
    let policies = if chosen.is_empty() { POLICIES[4].to_owned() } else { chosen };
    format!("limits: {{mails_per_minute: unlimited, batch_size: 7}}\npolicies:\n{policies}")
}

async fn fill(site: &SmallSite, people: &[Anybody]) {
    let mut sql = String::new();
    let quote = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let places = [(0, 0), (11, 100), (12, 200), (12, 7)]; // the last is half in place
    for (index, person) in people.iter().enumerate() {
        let id = index + 1;
        let (place, number) = places[person.place];
        sql.push_str(&format!(
            "INSERT INTO users (id, login, email, name, flag, ou_id, ou_number) VALUES ({id}, {}, {}, {}, {}, {place}, {number});",
            quote(&person.login),
            quote(&person.email),
            quote(&person.name),
            person.flag
        ));
        let mut card = |value: &str, expires: String| {
            sql.push_str(&format!(
                "INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag, pin_expiration_date) VALUES ({id}, {}, 0, 0, {expires});",
                quote(value)
            ));
        };
        for (n, hours) in person.pins.iter().enumerate() {
            // Eight digits: none of those that the policies draw.
            let hash: String = Md5::digest(format!("{id:06}{n:02}")).iter().map(|b| format!("{b:02x}")).collect();
            card(&format!("PIN{hash}"), hours.map_or("NULL".to_owned(), |h| site.hours(h)));
        }
        person.cards.iter().for_each(|value| card(value, "NULL".to_owned()));
    }
    site.sql(&sql).await;
}

/// What no policy may ever change: who the users are, and their cards.
async fn rows(site: &SmallSite) -> Vec<String> {
    let users = "SELECT id || '/' || login || '/' || email || '/' || name || '/' || flag FROM users ORDER BY id";
    let cards = "SELECT user_id || '/' || card FROM users_cards ORDER BY 1";
    let is_pin = |row: &String| {
        row.split_once("/PIN").is_some_and(|(_, hash)| hash.len() == 32 && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    };
    let mut rows = site.column(users).await;
    rows.extend(site.column(cards).await.into_iter().filter(|row| !is_pin(row)));
    rows.sort();
    rows
}

/// As many mails as PINs were planned for; each has exactly the headers that we write, and one recipient, whose address is
/// some user's own field.
fn mails_are_as_meant(mails: &[Mail], planned: &[Step], people: &[Anybody]) -> Result<(), TestCaseError> {
    let addresses: BTreeSet<&str> = people.iter().flat_map(|p| [p.login.as_str(), p.email.as_str()]).collect();
    prop_assert_eq!(mails.len(), planned.iter().filter(|s| s.issues_pin()).count(), "mails and planned PINs differ");
    for mail in mails {
        let mut names: Vec<String> = mail.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.sort();
        let expected =
            ["auto-submitted", "content-transfer-encoding", "content-type", "date", "from", "message-id", "mime-version", "subject", "to"];
        prop_assert_eq!(names, expected);
        prop_assert!(addresses.contains(mail.to.as_str()), "{} is nobody's", mail.to);
    }
    Ok(())
}
