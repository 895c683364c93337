//! A space of PINs that fills up: issued to the last one, each as likely as any other, and then a clear no for whoever is left,
//! while everybody else is served.

use std::collections::{BTreeMap, BTreeSet};

use credkeeper::domain::pin::is_trivial;

use crate::small_site::{Dialect, SmallSite};

const CROWDED: &str =
    "limits: {mails_per_minute: unlimited, users_per_pass: unlimited, unexplained_pins: unlimited, users_shrunk: unlimited, pinless_rise: unlimited}
policies:
  - {name: long, match: {username: 'long.*'}, pin: {length: 7, rewrite: never, allow_dense: true}, notify: {template: t}}
  - {name: movers, match: {username: 'mover.*'}, cost_center: {move_to: Has PIN}}
  - {name: short, pin: {length: LENGTH, rewrite: never, allow_dense: true}, notify: {to: none, unannounced: true}}
";

async fn site(dialect: Dialect, form: &str, length: usize) -> SmallSite {
    SmallSite::make(dialect, &format!("pin_format: {form}"), &CROWDED.replace("LENGTH", &length.to_string())).await
}

async fn add(site: &SmallSite, name: &str, users: usize) {
    let rows: Vec<String> = (0..users).map(|n| format!("('{name}{n}@example.org', 1)")).collect();
    site.sql(&format!("INSERT INTO users (login, flag) VALUES {}", rows.join(", "))).await;
}

fn not_trivial(length: usize) -> usize {
    (0..10usize.pow(length as u32)).filter(|n| !is_trivial(format!("{n:0length$}").as_bytes())).count()
}

#[tokio::test]
async fn four_digits_are_issued_to_the_last_on_sqlite() {
    to_the_last(Dialect::Sqlite).await;
}

#[cfg(unix)]
#[tokio::test]
async fn four_digits_are_issued_to_the_last_on_postgresql() {
    to_the_last(Dialect::Postgres).await;
}

async fn to_the_last(dialect: Dialect) {
    let site = site(dialect, "prefix", 4).await;
    let all = not_trivial(4);
    // In two passes: one that draws at random, and one that finds the space nearly full.
    for users in [all - 40, 40] {
        add(&site, "user", users).await;
        let report = site.once().await;
        assert_eq!((report.failed(), report.error.as_deref()), (0, None), "{:?}", report.problems.first());
    }
    let stored = site.column("SELECT card FROM users_cards").await;
    let pins: BTreeSet<&str> = stored.iter().map(|card| card.strip_prefix("PIN").unwrap()).collect();
    assert_eq!((stored.len(), pins.len()), (all, all), "each PIN once");
    assert!(pins.iter().all(|pin| pin.len() == 4 && !is_trivial(pin.as_bytes())));

    add(&site, "late", 3).await;
    add(&site, "long", 5).await;
    add(&site, "mover", 2).await;
    let report = site.once().await;
    assert_eq!(report.error, None);
    assert_eq!(report.policies.iter().map(|p| p.failed).collect::<Vec<_>>(), [0, 0, 3]);
    let said: BTreeSet<&str> = report.problems.iter().map(|p| p.sentence.as_str()).collect();
    assert_eq!(
        said,
        BTreeSet::from([format!(
            "none of the 10000 PINs of 4 digits is free: {all} are taken, 0 are in quarantine, and the others are too easy; \
             a longer pin.length gives more room"
        )
        .as_str()])
    );
    assert!(report.problems.iter().all(|p| p.code == "pin_space_full"));
    assert_eq!(site.column("SELECT count(*) || '' FROM users_cards").await, [(all + 5).to_string()], "everybody else is served");
    assert_eq!(site.column("SELECT count(*) || '' FROM users WHERE ou_id = 12").await, ["2"]);
    assert_eq!(site.mails().len(), 5);
    // One PIN comes free: one of the three gets it.
    site.sql("DELETE FROM users_cards WHERE card = (SELECT min(card) FROM users_cards WHERE length(card) = 7)").await;
    assert_eq!(site.once().await.failed(), 2);
    assert_eq!(site.column("SELECT count(*) || '' FROM users_cards").await, [(all + 5).to_string()]);
}

/// Everybody's PIN is replaced by one that nobody had for 90 days: with 4 digits that goes well once, and then not at all.
#[tokio::test]
async fn what_was_freed_goes_to_nobody_for_its_quarantine() {
    let rest = "limits: {mails_per_minute: unlimited, users_per_pass: unlimited, replace_percent: unlimited, min_interval: 0s}
policies: [{name: p, pin: {length: 2, rewrite: always, allow_dense: true, quarantine: 90d}, notify: {to: none, unannounced: true}}]\n";
    let site = SmallSite::make(Dialect::Sqlite, "pin_format: prefix", rest).await;
    add(&site, "user", 20).await;
    let mut seen = BTreeSet::new();
    let usable = not_trivial(2);
    for pass in 1..=usable / 20 {
        let report = site.once().await;
        assert_eq!((report.failed(), report.error.as_deref()), (0, None), "pass {pass}");
        let pins = site.column("SELECT card FROM users_cards").await;
        assert_eq!(pins.len(), 20);
        assert!(pins.into_iter().all(|pin| seen.insert(pin)), "pass {pass}: a PIN was given again");
    }
    let report = site.once().await;
    let left = usable % 20;
    assert_eq!(report.failed(), 20 - left as u64);
    let problem = &report.problems[0];
    assert!(
        problem.code == "pin_space_full" && problem.sentence.contains("are taken") && problem.sentence.contains("are in quarantine"),
        "{}",
        problem.sentence
    );
}

/// 700 of the 1,000 PINs of three digits are taken, in every stored form; twelve users get one of the others, over and over.
#[tokio::test]
async fn what_is_drawn_from_a_crowded_space_is_uniform_over_what_is_free() {
    let site = site(Dialect::Sqlite, "md5", 3).await;
    let mut values = Vec::new();
    let mut free = BTreeSet::new();
    for number in 0..1000 {
        let pin = format!("{:03}", number * 377 % 1000);
        if number < 700 {
            values.push(format!(
                "(1, '{}')",
                credkeeper::domain::PinFormat::every_form(&credkeeper::domain::Pin::new(pin))[number % 4].expose()
            ));
        } else if !is_trivial(pin.as_bytes()) {
            free.insert(pin);
        }
    }
    site.sql(&format!(
        "INSERT INTO users (id, login, flag) VALUES (1, 'holder', 32768); INSERT INTO users_cards (user_id, card) VALUES {}",
        values.join(", ")
    ))
    .await;
    let digests: BTreeMap<String, String> =
        free.iter().map(|pin| (format!("PIN{:032x}", credkeeper::domain::pin::digest(pin)), pin.clone())).collect();
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    const ROUNDS: usize = 150;
    for round in 0..ROUNDS {
        add(&site, &format!("round{round}-"), 12).await;
        assert_eq!(site.once().await.failed(), 0);
        let cards = site.column("SELECT card FROM users_cards WHERE user_id <> 1").await;
        assert_eq!(cards.len(), 12);
        for card in cards {
            *counts.entry(digests.get(&card).unwrap_or_else(|| panic!("a PIN that was taken")).clone()).or_default() += 1.0;
        }
        site.sql("DELETE FROM users_cards WHERE user_id <> 1; DELETE FROM users WHERE id <> 1").await;
    }
    let expected = (ROUNDS * 12) as f64 / free.len() as f64;
    let chi: f64 = free.iter().map(|pin| (counts.get(pin).copied().unwrap_or_default() - expected).powi(2) / expected).sum();
    // The mean of chi-square is its degrees of freedom, its deviation the root of twice that; six of them come once in a billion.
    let freedom = (free.len() - 1) as f64;
    assert!(chi < freedom + 6.0 * (2.0 * freedom).sqrt(), "chi-square {chi} with {freedom} degrees of freedom");
}
