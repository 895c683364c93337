//! A thousand policies' worth of random configurations: each is either refused with a message, or runs to an empty second plan,
//! also after the print system and the time have had their turn.
//!
//! One number names a site, its policies and its people. A failure prints it; `CREDKEEPER_SEED=N cargo test --test it random_policies`
//! plays that one again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use credkeeper::plan::lint;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::site::is_long;
use crate::small_site::{Dialect, SmallSite};

const CENTERS: [(&str, i64, i64); 4] = [("Default", 0, 0), ("Needs PIN", 11, 100), ("Has PIN", 12, 200), ("Staff", 13, 300)];

const ROLES: [(&str, i64); 2] = [("Visitor", 31), ("Admin", 32)];

struct Dice(SmallRng);

impl Dice {
    fn upto(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.upto(100) < percent
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.upto(of.len())]
    }
}

/// What came of the sites of a run.
#[derive(Default, Debug)]
struct Tally {
    policies: usize,
    refused: usize,
    endless: usize,
    run: usize,
    changed: u64,
    failed: u64,
}

#[tokio::test]
async fn random_policies_on_sqlite() {
    run(Dialect::Sqlite, 0, if is_long() { 10_000 } else { 1_000 }).await;
}

#[cfg(unix)]
#[tokio::test]
async fn random_policies_on_postgresql() {
    run(Dialect::Postgres, 1_000_000, if is_long() { 1_000 } else { 100 }).await;
}

/// Sites until they have had so many policies.
async fn run(dialect: Dialect, first: u64, policies: usize) {
    let mut tally = Tally::default();
    if let Some(seed) = std::env::var("CREDKEEPER_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return play(dialect, seed, &mut tally).await;
    }
    for seed in first.. {
        play(dialect, seed, &mut tally).await;
        if tally.policies >= policies {
            break;
        }
    }
    eprintln!("{dialect:?}: {tally:?}");
    assert!(tally.refused > 0 && tally.run > tally.policies / 20 && tally.changed > 0 && tally.endless > 0, "{tally:?}");
}

async fn play(dialect: Dialect, seed: u64, tally: &mut Tally) {
    let mut dice = Dice(SmallRng::seed_from_u64(seed));
    let (keys, length) = form(&mut dice);
    let count = 1 + dice.upto(5);
    tally.policies += count;
    let mut rest =
        "limits: {mails_per_minute: unlimited, users_per_pass: unlimited, replace_percent: unlimited, min_interval: 0s, batch_size: 7, \
                    users_shrunk: unlimited, pinless_rise: unlimited, unexplained_pins: unlimited}\npolicies:\n"
            .to_owned();
    (0..count).for_each(|n| rest.push_str(&policy(&mut dice, n, length)));
    let site = SmallSite::make(dialect, keys, &rest).await;
    let told = || format!("site {seed} on {dialect:?}: play it again with CREDKEEPER_SEED={seed}\n{rest}");
    if let Some(refusal) = site.refusal() {
        assert!(refusal.lines().all(|line| line.contains("policies[")), "{}{refusal}", told());
        tally.refused += 1;
        return;
    }
    people(&site, &mut dice, seed).await;
    let endless: BTreeSet<usize> = (0..count).filter(|n| !lint::endless(&site.load().databases[0].policies[*n..=*n]).is_empty()).collect();
    tally.endless += usize::from(!endless.is_empty());
    tally.run += 1;
    // As it is found; then after the print system and the time have changed things behind our back.
    for turn in 0..2 {
        let before = cards(&site).await;
        let report = site.once().await;
        assert_eq!(report.error, None, "{}", told());
        tally.changed += report.applied();
        tally.failed += report.failed();
        let (filtered, whole) = (site.steps(600, true).await, site.steps(600, false).await);
        assert_eq!(filtered, whole, "the read filter changes the plan, turn {turn}, {}", told());
        let left: Vec<_> = whole.iter().filter(|step| !endless.contains(&step.policy())).collect();
        assert!(left.is_empty(), "the second plan is not empty, turn {turn}: {left:?}\n{}", told());
        assert_eq!(cards(&site).await, before, "a card came, went or changed, turn {turn}, {}", told());
        let holders = site.column("SELECT card FROM users_cards WHERE dual_pin IS NULL GROUP BY card HAVING count(*) > 1").await;
        assert!(holders.is_empty(), "a PIN was issued twice, turn {turn}, {}", told());
        disturb(&site, &mut dice).await;
    }
}

/// The keys of the database, and how long PINs may be.
fn form(dice: &mut Dice) -> (&'static str, usize) {
    *dice.one(&[
        ("pin_format: md5", 7),
        ("pin_format: md5_without_prefix", 7),
        ("pin_format: prefix", 7),
        ("pin_format: plain, plain_max_length: 6", 6),
    ])
}

fn policy(dice: &mut Dice, n: usize, longest: usize) -> String {
    let mut out = format!("  - name: p{n}\n    match: {{");
    if dice.chance(40) {
        let _ = write!(out, "username: '{}', ", dice.one(&[".*@visitors\\.example", "[a-m].*", "user[0-9]", "(?i)[n-z].*"]));
    }
    if dice.chance(20) {
        let _ = write!(out, "email: '{}', ", dice.one(&[".*@example\\.com", ".+", "[^@]*"]));
    }
    for key in ["cost_center", "not_cost_center"] {
        if dice.chance(30) {
            let two = dice.chance(30);
            let names: Vec<&str> = (0..1 + usize::from(two)).map(|_| dice.one(&CENTERS).0).collect();
            let _ = write!(out, "{key}: [{}], ", names.join(", "));
        }
    }
    for key in ["role", "not_role"] {
        if dice.chance(20) {
            let names: Vec<&str> = (0..1 + dice.upto(2)).map(|_| dice.one(&ROLES).0).collect();
            let _ = write!(out, "{key}: [{}], ", names.join(", "));
        }
    }
    if dice.chance(10) {
        let _ = write!(out, "has_card: {}, ", dice.chance(50));
    }
    out.push_str("}\n");
    if dice.chance(75) {
        let length = 4 + dice.upto(longest - 3);
        let _ =
            write!(out, "    pin: {{length: {length}, rewrite: {}, allow_dense: true", dice.one(&["never", "expired", "extend", "always"]));
        for (key, percent, values) in [
            ("valid_for", 70, &["1d", "2d", "30d"][..]),
            ("rotate_every", 25, &["1d", "7d", "60d"]),
            ("spread", 25, &["1h", "1d", "5d"]),
            ("cap_unlimited", 25, &["true", "false"]),
            ("on_leave", 40, &["keep", "expire", "delete"]),
            ("quarantine", 20, &["0d", "1d"]),
        ] {
            if dice.chance(percent) {
                let _ = write!(out, ", {key}: {}", dice.one(values));
            }
        }
        out.push_str("}\n");
    }
    match dice.upto(10) {
        0..4 => _ = writeln!(out, "    cost_center: {{move_to: {}}}", dice.one(&CENTERS[1..]).0),
        4 | 5 => {
            let rules: Vec<String> = (0..1 + dice.upto(3))
                .map(|_| {
                    let pattern = dice.one(&["anna.*", "(?i)user.*", ".*@staff.*", ".*"]);
                    format!("{{pattern: '{pattern}', name: {}}}", dice.one(&CENTERS[1..]).0)
                })
                .collect();
            let _ = writeln!(out, "    cost_center: {{by_username: [{}]}}", rules.join(", "));
        }
        _ => {}
    }
    if dice.chance(25) {
        let _ = writeln!(out, "    remove_role: {}", dice.one(&ROLES).0);
    }
    let _ = writeln!(
        out,
        "    notify: {}",
        dice.one(&["{to: username, template: t}", "{to: email, template: t}", "{to: none, unannounced: true}"])
    );
    out
}

async fn people(site: &SmallSite, dice: &mut Dice, seed: u64) {
    let mut sql = String::new();
    for (name, id) in ROLES {
        let _ = write!(sql, "INSERT INTO users (id, login, flag) VALUES ({id}, '{name}', 163840);");
    }
    for id in 1..=20 {
        let login = format!("{}{id}@{}.example", dice.one(&["anna", "User", "zoe", "user"]), dice.one(&["visitors", "staff"]));
        let email = dice.one(&["", "x@example.com", "not an address"]);
        let (_, center, number) = dice.one(&CENTERS);
        let flag = if dice.chance(90) { 1 } else { 163_840 };
        let _ = write!(
            sql,
            "INSERT INTO users (id, login, email, flag, ou_id, ou_number) VALUES ({id}, '{login}', '{email}', {flag}, {center}, {number});"
        );
        ROLES.iter().filter(|_| dice.chance(40)).for_each(|(_, role)| give(&mut sql, id, *role));
        for pin in 0..dice.upto(3) {
            let value = stored(&site.load().databases[0].pin_format, seed, id, pin);
            let end = if dice.chance(40) { "NULL".to_owned() } else { site.hours(if dice.chance(50) { -50 } else { 500 }) };
            let _ = write!(
                sql,
                "INSERT INTO users_cards (user_id, card, dual_pin, replicated_card, replicated_card_flag, pin_expiration_date) VALUES ({id}, '{value}', 'theirs', 0, 0, {end});"
            );
        }
        if dice.chance(30) {
            let _ = write!(
                sql,
                "INSERT INTO users_cards (user_id, card, dual_pin, replicated_card, replicated_card_flag) VALUES ({id}, '04A1B2C3D{id}', 'card', 0, 0);"
            );
        }
    }
    site.sql(&sql).await;
}

/// A PIN of the vendor's, of three digits: none that a policy draws.
fn stored(form: &credkeeper::domain::PinFormat, seed: u64, id: usize, pin: usize) -> String {
    let digits = format!("{:03}", (seed as usize * 7 + id * 3 + pin) % 1000);
    form.encode(&credkeeper::domain::Pin::new(digits)).expose().to_owned()
}

/// What the print system, its administrator and the time do meanwhile.
async fn disturb(site: &SmallSite, dice: &mut Dice) {
    let mut sql = String::new();
    for id in 1..=20 {
        match dice.upto(9) {
            0 => {
                let (_, center, number) = dice.one(&CENTERS);
                let _ = write!(sql, "UPDATE users SET ou_id = {center}, ou_number = {number} WHERE id = {id};");
            }
            1 => {
                _ = write!(
                    sql,
                    "UPDATE users_cards SET pin_expiration_date = {} WHERE user_id = {id} AND dual_pin IS NULL;",
                    site.hours(-1)
                )
            }
            2 => _ = write!(sql, "DELETE FROM users_cards WHERE user_id = {id} AND (dual_pin IS NULL OR dual_pin = 'theirs');"),
            3 => _ = write!(sql, "UPDATE users SET login = 'nobody{id}', email = 'y@example.com' WHERE id = {id};"),
            4 => _ = write!(sql, "UPDATE users_cards SET pin_expiration_date = NULL WHERE user_id = {id};"),
            5 => {
                let (_, role) = *dice.one(&ROLES);
                let _ = write!(sql, "DELETE FROM users_roles WHERE user_id = {id} AND role_id = {role};");
                if dice.chance(50) {
                    give(&mut sql, id, role);
                }
            }
            _ => {}
        }
    }
    site.sql(&sql).await;
}

fn give(sql: &mut String, user: usize, role: i64) {
    let _ = write!(sql, "INSERT INTO users_roles (user_id, role_id) VALUES ({user}, {role});");
}

async fn cards(site: &SmallSite) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for card in site.column("SELECT user_id || '/' || card FROM users_cards WHERE dual_pin = 'card'").await {
        *all.entry(card).or_default() += 1;
    }
    all
}
