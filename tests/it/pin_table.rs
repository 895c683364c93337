//! The four PIN forms × four rewrite modes × what a user may have, on both databases: one table, each row what becomes of him.
//!
//! What is checked is what stands in the tables and what the mails say, read without the store.

use credkeeper::domain::{Pin, PinFormat};

use crate::small_site::{Dialect, SmallSite};

/// The users, each with what he has.
const USERS: [&str; 6] =
    ["no PIN", "a valid PIN", "an expired PIN", "a PIN that never expires", "two PINs, one expired", "a card that looks like a PIN"];

/// What becomes of the PINs of a user.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Becomes {
    /// Nothing changes.
    Same,
    /// One new PIN that is told, in place of all that were there.
    New,
    /// Those that have expired are valid for 30 days, with the same digits; nobody is told.
    Longer,
}

use Becomes::{Longer, New, Same};

#[rustfmt::skip]
const TABLE: [(&str, [Becomes; 6]); 4] = [
    //           no PIN  valid  expired  endless  two     card
    ("never",   [New,    Same,  Same,    Same,    Same,   New]),
    ("expired", [New,    Same,  New,     Same,    New,    New]),
    ("extend",  [New,    Same,  Longer,  Same,    Longer, New]),
    ("always",  [New,    New,   New,     New,     New,    New]),
];

/// Each form, its keys in the configuration, and cards that look like a PIN of it and are none.
fn forms() -> [(PinFormat, &'static str, [String; 3]); 4] {
    let hex = "81dc9bdb52d04dc20036dbd8313ed055".to_owned();
    let card = |text: &str| text.to_owned();
    [
        (PinFormat::Md5, "pin_format: md5", [hex.clone(), format!("PIN{}", hex.to_uppercase()), card("PINEAPPLE")]),
        (PinFormat::Md5WithoutPrefix, "pin_format: md5_without_prefix", [hex.to_uppercase(), format!("PIN{hex}"), format!("{hex}0")]),
        (PinFormat::Prefix, "pin_format: prefix", [card("PIN12A4"), card("PIN"), card("pin1234")]),
        (PinFormat::Plain { max_length: 6 }, "pin_format: plain, plain_max_length: 6", [card("1234567"), card("PIN1234"), card("12 34")]),
    ]
}

#[tokio::test]
async fn every_form_and_rewrite_on_sqlite() {
    every_row(Dialect::Sqlite).await;
}

#[cfg(unix)]
#[tokio::test]
async fn every_form_and_rewrite_on_postgresql() {
    every_row(Dialect::Postgres).await;
}

async fn every_row(dialect: Dialect) {
    let mut rows = 0;
    for (form, keys, cards) in forms() {
        for (rewrite, becomes) in TABLE {
            let rest = format!(
                "limits: {{mails_per_minute: unlimited}}\n\
                 policies: [{{name: p, pin: {{length: 5, rewrite: {rewrite}, valid_for: 30d, quarantine: 0d}}, notify: {{template: t}}}}]\n"
            );
            let site = SmallSite::make(dialect, keys, &rest).await;
            fill(&site, form, &cards).await;
            let before = standing(&site).await;
            let report = site.once().await;
            assert_eq!((report.failed(), report.error.as_deref()), (0, None));
            let after = standing(&site).await;
            for (user, becomes) in becomes.iter().enumerate() {
                let row = format!("{dialect:?}, {keys}, {rewrite}: {}", USERS[user]);
                check(*becomes, &row, &site, form, &before[user], &after[user], user);
                rows += 1;
            }
            let told = becomes.iter().filter(|b| **b == New).count();
            assert_eq!(site.mails().len(), told, "{dialect:?}, {keys}, {rewrite}: mails");
            // Late enough for min_interval: only `always` has no end.
            let again = site.steps(600, true).await;
            assert_eq!(again.len(), if rewrite == "always" { 6 } else { 0 }, "{dialect:?}, {keys}, {rewrite}: a second plan");
        }
    }
    assert_eq!(rows, 96);
}

fn check(becomes: Becomes, row: &str, site: &SmallSite, form: PinFormat, before: &[Row], after: &[Row], user: usize) {
    let cards = |rows: &[Row]| rows.iter().filter(|r| r.is_card).cloned().collect::<Vec<_>>();
    let pins = |rows: &[Row]| rows.iter().filter(|r| !r.is_card).cloned().collect::<Vec<_>>();
    assert_eq!(cards(before), cards(after), "{row}: cards stay");
    let (before, after) = (pins(before), pins(after));
    match becomes {
        Same => assert_eq!(before, after, "{row}"),
        Longer => {
            assert_eq!(
                before.iter().map(|r| &r.value).collect::<Vec<_>>(),
                after.iter().map(|r| &r.value).collect::<Vec<_>>(),
                "{row}: the digits"
            );
            for (before, after) in before.iter().zip(&after) {
                let wanted = if before.days.is_some_and(|days| days < 0) { Some(30) } else { before.days };
                assert_eq!(after.days, wanted, "{row}");
            }
        }
        New => {
            assert_eq!(after.iter().map(|r| r.days).collect::<Vec<_>>(), [Some(30)], "{row}: one PIN, for 30 days");
            assert!(before.iter().all(|r| r.value != after[0].value), "{row}: another PIN");
            let mail = site.mails().into_iter().find(|mail| mail.to == format!("user{user}@example.org"));
            let told = mail.unwrap_or_else(|| panic!("{row}: no mail")).pin();
            assert_eq!(told.len(), 5, "{row}");
            assert_eq!(form.encode(&Pin::new(told)).expose(), after[0].value, "{row}: the PIN that was told");
        }
    }
}

#[derive(Clone, PartialEq, Debug)]
struct Row {
    value: String,
    /// Whole days from now to the end; `None`: never.
    days: Option<i64>,
    is_card: bool,
}

async fn fill(site: &SmallSite, form: PinFormat, cards: &[String]) {
    let pin = |digits: &str| form.encode(&Pin::new(digits.to_owned())).expose().to_owned();
    let (past, future, never) = (site.hours(-30), site.hours(24 * 90 + 12), "NULL".to_owned());
    let mut rows = vec![
        (1, pin("111"), future.clone()),
        (2, pin("2222"), past.clone()),
        (3, pin("333333"), never.clone()),
        (4, pin("4444"), past.clone()),
        (4, pin("4445"), future),
    ];
    rows.extend(cards.iter().map(|card| (5, card.clone(), past.clone())));
    let mut sql: String =
        (0..6).map(|n| format!("INSERT INTO users (id, login, flag) VALUES ({}, 'user{n}@example.org', 1);", n + 1)).collect();
    for (user, value, end) in rows {
        sql.push_str(&format!(
            "INSERT INTO users_cards (user_id, card, dual_pin, replicated_card, replicated_card_flag, pin_expiration_date) VALUES ({}, '{value}', 'mine', 0, 0, {end});",
            user + 1
        ));
    }
    site.sql(&sql).await;
}

/// What each user has, in the order of the values.
async fn standing(site: &SmallSite) -> Vec<Vec<Row>> {
    let seconds = match site.dialect {
        Dialect::Sqlite => "CAST(unixepoch(pin_expiration_date) - unixepoch('now', 'localtime') AS text)",
        Dialect::Postgres => "extract(epoch FROM pin_expiration_date - localtimestamp)::bigint::text",
    };
    let mut all = Vec::new();
    for user in 1..=6 {
        let query = format!(
            "SELECT card || '|' || coalesce({seconds}, 'never') || '|' || (CASE WHEN user_id = 6 AND dual_pin IS NOT NULL THEN 'card' ELSE '' END)
               FROM users_cards WHERE user_id = {user} ORDER BY card"
        );
        let row = |text: String| {
            let parts: Vec<&str> = text.split('|').collect();
            // A minute more, because the pass took its time.
            let days = parts[1].parse::<i64>().ok().map(|seconds| (seconds + 60).div_euclid(86_400));
            Row { value: parts[0].to_owned(), days, is_card: parts[2] == "card" }
        };
        all.push(site.column(&query).await.into_iter().map(row).collect());
    }
    all
}
