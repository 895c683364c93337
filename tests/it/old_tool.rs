//! What the tool that came before promised, sentence by sentence, and what becomes of it here: on both databases, read without
//! the store. Where ours differs, it does so on purpose, and the row says why.
//!
//! One policy and one user a row. What stands in the tables, and what the mail tells, is looked at by SQL, OpenSSL and MD5.

use std::io::Write;
use std::process::{Command, Stdio};

use md5::{Digest, Md5};

use crate::small_site::{Dialect, SmallSite};

const KEY: &str = "000102030405060708090a0b0c0d0e0f";

struct Row {
    /// The promise of the old tool.
    old: &'static str,
    /// Why ours differs; empty: it does not.
    ours: &'static str,
    /// The policy, without name and notify.
    policy: &'static str,
    /// Of user 1, `u@example.com` with the address `u@mail.example`, in cost center 0.
    setup: &'static str,
    /// What becomes of him.
    becomes: &'static str,
}

const NOTHING: &str = "no PIN | no code | no password | in 0 | told nothing";
const VALID: &str = "INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag, pin_expiration_date) VALUES (1, 'PIN81dc9bdb52d04dc20036dbd8313ed055', 0, 0, FUTURE);";
const EXPIRED: &str = "INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag, pin_expiration_date) VALUES (1, 'PIN81dc9bdb52d04dc20036dbd8313ed055', 0, 0, PAST);";
const TWO: &str = "INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag, pin_expiration_date) VALUES (1, 'PIN81dc9bdb52d04dc20036dbd8313ed055', 0, 0, PAST), (1, 'PIN6512bd43d9caa6e02c990b0a82652dca', 0, 0, FUTURE);";

const GUEST: &str = "INSERT INTO users (id, login, flag) VALUES (50, 'Guest', 163840);";
const IS_GUEST: &str =
    "INSERT INTO users (id, login, flag) VALUES (50, 'Guest', 163840); INSERT INTO users_roles (user_id, role_id) VALUES (1, 50);";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // --- one user ---
    Row { old: "the cost center to move to must exist", ours: "the policy is blocked and told; others go on",
          policy: "pin: {length: 6, rewrite: never}, cost_center: {move_to: Nowhere}", setup: "", becomes: NOTHING },
    Row { old: "whoever is in the cost center already is left alone", ours: "the user is where he should be, and still gets what he lacks",
          policy: "pin: {length: 6, rewrite: never}, cost_center: {move_to: Has PIN}", setup: "UPDATE users SET ou_id = 12, ou_number = 200 WHERE id = 1;",
          becomes: "new PIN of 6 digits, for ever | no code | no password | in 200 | told PIN" },
    Row { old: "the user name must match", ours: "",
          policy: "match: {username: '.*@example[.]com'}, pin: {length: 6, rewrite: never}", setup: "",
          becomes: "new PIN of 6 digits, for ever | no code | no password | in 0 | told PIN" },
    Row { old: "a pattern matches from the beginning of the name", ours: "the whole name must match, or x@example.com.evil.test would be accepted too",
          policy: "match: {username: 'u@exam'}, pin: {length: 6, rewrite: never}", setup: "", becomes: NOTHING },
    Row { old: "the mail address must match", ours: "",
          policy: "match: {email: '.*@elsewhere[.]example'}, pin: {length: 6, rewrite: never}", setup: "", becomes: NOTHING },
    Row { old: "a PIN has the length that is asked for", ours: "",
          policy: "pin: {length: 4, rewrite: never}", setup: "", becomes: "new PIN of 4 digits, for ever | no code | no password | in 0 | told PIN" },
    Row { old: "never: whoever has a PIN keeps it", ours: "",
          policy: "pin: {length: 6, rewrite: never}", setup: VALID, becomes: "PIN as it was | no code | no password | in 0 | told nothing" },
    Row { old: "never: an expired PIN is a PIN", ours: "",
          policy: "pin: {length: 6, rewrite: never}", setup: EXPIRED, becomes: "PIN as it was | no code | no password | in 0 | told nothing" },
    Row { old: "always: all PINs go and a new one comes", ours: "",
          policy: "pin: {length: 6, rewrite: always}", setup: TWO, becomes: "new PIN of 6 digits, for ever | no code | no password | in 0 | told PIN" },
    Row { old: "expired: if one has expired, all go and a new one comes", ours: "",
          policy: "pin: {length: 6, rewrite: expired}", setup: TWO, becomes: "new PIN of 6 digits, for ever | no code | no password | in 0 | told PIN" },
    Row { old: "expired: valid ones stay", ours: "",
          policy: "pin: {length: 6, rewrite: expired}", setup: VALID, becomes: "PIN as it was | no code | no password | in 0 | told nothing" },
    Row { old: "extend: an expired PIN gets a new end and keeps its digits", ours: "",
          policy: "pin: {length: 6, rewrite: extend, valid_for: 30d}", setup: EXPIRED, becomes: "PIN as it was, for 30 days | no code | no password | in 0 | told nothing" },
    Row { old: "never, always, expired: a new PIN gets its end", ours: "",
          policy: "pin: {length: 6, rewrite: expired, valid_for: 30d}", setup: EXPIRED, becomes: "new PIN of 6 digits, for 30 days | no code | no password | in 0 | told PIN" },
    Row { old: "a card assignment code of so many digits, encrypted and in Base64", ours: "the cipher is configured: the old one knew that of one product",
          policy: "card_assignment_code: {length: 5}", setup: "", becomes: "no PIN | new code of 5 digits | no password | in 0 | told code" },
    Row { old: "a code replaces the one that is there", ours: "only with rewrite: always; never is the default, as for everything else",
          policy: "card_assignment_code: {length: 5}", setup: "UPDATE users SET puk = 'kept' WHERE id = 1;", becomes: "no PIN | code as it was | no password | in 0 | told nothing" },
    Row { old: "the same, asked for", ours: "",
          policy: "card_assignment_code: {length: 5, rewrite: always}", setup: "UPDATE users SET puk = 'kept' WHERE id = 1;", becomes: "no PIN | new code of 5 digits | no password | in 0 | told code" },
    Row { old: "a password of so many characters, stored as its MD5", ours: "MD5 if it is asked for; bcrypt is the default",
          policy: "password: {length: 10}", setup: "", becomes: "no PIN | no code | new password of 10 characters | in 0 | told password" },
    Row { old: "password never: whoever has one keeps it", ours: "",
          policy: "password: {length: 10, rewrite: never}", setup: "UPDATE users SET pass = 'kept' WHERE id = 1;", becomes: "no PIN | no code | password as it was | in 0 | told nothing" },
    Row { old: "password always: a new one comes", ours: "",
          policy: "password: {length: 10, rewrite: always}", setup: "UPDATE users SET pass = 'kept' WHERE id = 1;", becomes: "no PIN | no code | new password of 10 characters | in 0 | told password" },
    Row { old: "every cost center that a pattern names must exist", ours: "the policy is blocked and told; others go on",
          policy: "pin: {length: 6, rewrite: never}, cost_center: {by_username: [{pattern: 'x', name: Nowhere}, {pattern: '.*', name: Staff}]}", setup: "", becomes: NOTHING },
    Row { old: "the user is moved", ours: "",
          policy: "cost_center: {move_to: Has PIN}", setup: "", becomes: "no PIN | no code | no password | in 200 | told nothing" },
    Row { old: "the first pattern that matches decides", ours: "",
          policy: "cost_center: {by_username: [{pattern: 'x.*', name: Needs PIN}, {pattern: 'u@.*', name: Staff}, {pattern: '.*', name: Has PIN}]}", setup: "",
          becomes: "no PIN | no code | no password | in 300 | told nothing" },
    Row { old: "whom no pattern matches stays", ours: "",
          policy: "pin: {length: 6, rewrite: never}, cost_center: {by_username: [{pattern: 'x.*', name: Staff}]}", setup: "",
          becomes: "new PIN of 6 digits, for ever | no code | no password | in 0 | told PIN" },
    Row { old: "the role to be removed must exist", ours: "the policy is blocked and told; others go on",
          policy: "pin: {length: 6, rewrite: never}, remove_role: Nobody", setup: "", becomes: NOTHING },
    Row { old: "whoever has not got the role is left alone", ours: "there is nothing to remove, and the user still gets what he lacks",
          policy: "pin: {length: 6, rewrite: never}, remove_role: Guest", setup: GUEST, becomes: "new PIN of 6 digits, for ever | no code | no password | in 0 | told PIN" },
    Row { old: "the role is removed", ours: "",
          policy: "pin: {length: 6, rewrite: never}, remove_role: Guest", setup: IS_GUEST, becomes: "new PIN of 6 digits, for ever | no code | no password | in 0 | told PIN" },
    Row { old: "a PIN that is there already is not sent", ours: "",
          policy: "pin: {length: 6, rewrite: never}, password: {length: 10}", setup: VALID, becomes: "PIN as it was | no code | new password of 10 characters | in 0 | told password" },
    Row { old: "pin_send_existing: a valid one is decoded and sent", ours: "with whatever else the user gets, and not with every run",
          policy: "pin: {length: 6, rewrite: never, send_existing: true}, password: {length: 10}", setup: VALID,
          becomes: "PIN as it was | no code | new password of 10 characters | in 0 | told PIN, password" },
    Row { old: "pin_send_existing: an expired one is not", ours: "",
          policy: "pin: {length: 6, rewrite: never, send_existing: true}, password: {length: 10}", setup: EXPIRED,
          becomes: "PIN as it was | no code | new password of 10 characters | in 0 | told password" },
    Row { old: "all credentials come in one mail", ours: "",
          policy: "pin: {length: 6, rewrite: never}, card_assignment_code: {length: 5}, password: {length: 10}, cost_center: {move_to: Has PIN}", setup: "",
          becomes: "new PIN of 6 digits, for ever | new code of 5 digits | new password of 10 characters | in 200 | told PIN, code, password" },
    // --- a batch ---
    Row { old: "a batch must generate PINs", ours: "a policy may give a password alone, and needs no batch of its own",
          policy: "password: {length: 10}", setup: VALID, becomes: "PIN as it was | no code | new password of 10 characters | in 0 | told password" },
    Row { old: "a batch finds users without any PIN", ours: "",
          policy: "pin: {length: 6, rewrite: never}", setup: EXPIRED, becomes: "PIN as it was | no code | no password | in 0 | told nothing" },
    Row { old: "a batch skips whoever has no address to tell", ours: "before anything is generated, and told with the code no_address",
          policy: "pin: {length: 6, rewrite: never}", setup: "UPDATE users SET login = 'u', email = '' WHERE id = 1;", becomes: NOTHING },
    Row { old: "deleted users, roles and the template are no users", ours: "",
          policy: "pin: {length: 6, rewrite: never}", setup: "UPDATE users SET flag = 16385 WHERE id = 1;", becomes: NOTHING },
];

#[tokio::test]
async fn the_promises_of_the_old_tool_on_sqlite() {
    every_row(Dialect::Sqlite).await;
}

#[cfg(unix)]
#[tokio::test]
async fn the_promises_of_the_old_tool_on_postgresql() {
    every_row(Dialect::Postgres).await;
}

async fn every_row(dialect: Dialect) {
    for row in ROWS {
        let site = site(dialect, row.policy).await;
        site.sql("INSERT INTO users (id, login, email, flag) VALUES (1, 'u@example.com', 'u@mail.example', 1)").await;
        let setup = row.setup.replace("FUTURE", &site.hours(24 * 90)).replace("PAST", &site.hours(-24));
        site.sql(&setup).await;
        let before = held(&site).await;
        let report = site.once().await;
        assert_eq!(report.error, None, "{}", row.old);
        let found = told(&site, &before, &held(&site).await);
        assert_eq!(found, row.becomes, "{dialect:?}: {} {}", row.old, if row.ours.is_empty() { "" } else { row.ours });
        let roles = site.column("SELECT CAST(count(*) AS text) FROM users_roles").await;
        assert_eq!(roles, ["0"], "{dialect:?}: {}: nobody has a role any more", row.old);
        let again = site.steps(600, true).await;
        assert_eq!(again.is_empty(), !row.policy.contains("always"), "{dialect:?}: {}: a second plan", row.old);
    }
}

async fn site(dialect: Dialect, policy: &str) -> SmallSite {
    let keys = format!("cac_cipher: {{algorithm: aes-128-ecb, key: '{KEY}'}}, password_encoding: md5");
    let rest = format!("limits: {{mails_per_minute: unlimited}}\npolicies: [{{name: p, {policy}, notify: {{to: email, template: t}}}}]\n");
    SmallSite::make(dialect, &keys, &rest).await
}

/// What user 1 has: PINs with their days, code, password, cost center.
struct Held {
    pins: Vec<(String, Option<i64>)>,
    code: String,
    password: String,
    center: String,
}

async fn held(site: &SmallSite) -> Held {
    let seconds = match site.dialect {
        Dialect::Sqlite => "CAST(unixepoch(pin_expiration_date) - unixepoch('now', 'localtime') AS text)",
        Dialect::Postgres => "extract(epoch FROM pin_expiration_date - localtimestamp)::bigint::text",
    };
    let query = format!("SELECT card || '|' || coalesce({seconds}, '') FROM users_cards WHERE user_id = 1 ORDER BY card");
    let pin = |text: String| {
        let (value, seconds) = text.split_once('|').unwrap();
        (value.to_owned(), seconds.parse::<i64>().ok().map(|seconds| (seconds + 3600).div_euclid(86_400)))
    };
    let one = async |column: &str| site.column(&format!("SELECT coalesce({column}, '') FROM users WHERE id = 1")).await.remove(0);
    Held {
        pins: site.column(&query).await.into_iter().map(pin).collect(),
        code: one("puk").await,
        password: one("pass").await,
        center: one("CAST(ou_number AS text)").await,
    }
}

/// The row in words. What the mail tells must be what stands.
fn told(site: &SmallSite, before: &Held, after: &Held) -> String {
    let mails = site.mails();
    assert!(mails.len() <= 1, "{} mails", mails.len());
    let text = mails.first().map(|mail| mail.text.clone()).unwrap_or_default();
    let said = |pattern: &str| regex::Regex::new(pattern).unwrap().captures(&text).map(|found| found[1].to_owned());
    let (pin, code, password) = (said(r"PIN (\d+)"), said(r"CODE (\d+)"), said(r"PASSWORD (\S+)"));
    let md5 = |text: &str| Md5::digest(text).iter().map(|b| format!("{b:02x}")).collect::<String>();

    let end = |days: Option<i64>| days.map_or("for ever".to_owned(), |days| format!("for {days} days"));
    let values = |held: &Held| held.pins.iter().map(|(value, _)| value.clone()).collect::<Vec<_>>();
    let pins = match (&before.pins[..], &after.pins[..]) {
        (_, []) => "no PIN".to_owned(),
        (old, now) if old == now => "PIN as it was".to_owned(),
        (_, [(_, days)]) if values(before) == values(after) => format!("PIN as it was, {}", end(*days)),
        (_, [(value, days)]) => {
            let pin = pin.clone().expect("a new PIN is told");
            assert_eq!(format!("PIN{}", md5(&pin)), *value, "the PIN that is told is the one that stands");
            format!("new PIN of {} digits, {}", pin.len(), end(*days))
        }
        (_, several) => format!("{} PINs", several.len()),
    };
    if let (true, Some(pin)) = (pins == "PIN as it was", &pin) {
        assert!(values(after).contains(&format!("PIN{}", md5(pin))), "an existing PIN is told as it is");
    }
    let codes = match after.code.as_str() {
        "" => "no code".to_owned(),
        same if same == before.code => "code as it was".to_owned(),
        new => {
            let plain = decrypted(new);
            assert_eq!(Some(&plain), code.as_ref(), "the code that is told is the one that stands");
            format!("new code of {} digits", plain.len())
        }
    };
    let passwords = match after.password.as_str() {
        "" => "no password".to_owned(),
        same if same == before.password => "password as it was".to_owned(),
        new => {
            let plain = password.clone().expect("a new password is told");
            assert_eq!(md5(&plain), new, "the password that is told is the one that stands");
            format!("new password of {} characters", plain.len())
        }
    };
    let parts: Vec<&str> =
        [(pin, "PIN"), (code, "code"), (password, "password")].into_iter().filter_map(|(said, name)| said.map(|_| name)).collect();
    let told = if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") };
    format!("{pins} | {codes} | {passwords} | in {} | told {told}", after.center)
}

/// By another program than ours.
fn decrypted(stored: &str) -> String {
    let mut openssl = Command::new("openssl")
        .args(["enc", "-d", "-aes-128-ecb", "-K", KEY, "-base64", "-A"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl is missing: install it with `apt-get install openssl`");
    openssl.stdin.take().unwrap().write_all(stored.as_bytes()).unwrap();
    String::from_utf8(openssl.wait_with_output().unwrap().stdout).unwrap()
}

/// The old tool stopped at the first error, and undid only the user in hand.
#[tokio::test]
async fn one_users_failure_is_that_users_alone_and_undoes_all_of_his() {
    for dialect in [
        Dialect::Sqlite,
        #[cfg(unix)]
        Dialect::Postgres,
    ] {
        let site = site(dialect, "pin: {length: 6, rewrite: never}, password: {length: 10}").await;
        site.sql("INSERT INTO users (id, login, email, flag) VALUES (1, 'u@example.com', 'u@mail.example', 1), (2, 'v@example.com', 'v@mail.example', 1)").await;
        // The database refuses the password of one user.
        match dialect {
            Dialect::Sqlite => {
                site.sql("CREATE TRIGGER refuse BEFORE UPDATE OF pass ON users WHEN new.id = 1 BEGIN SELECT raise(ABORT, 'refused'); END")
                    .await;
            }
            Dialect::Postgres => site.sql("ALTER TABLE users ADD CONSTRAINT refuse CHECK (id <> 1 OR pass = '')").await,
        }
        let report = site.once().await;
        assert_eq!((report.failed(), report.error.as_deref()), (1, None), "{dialect:?}");
        let pins = site.column("SELECT CAST(user_id AS text) FROM users_cards").await;
        assert_eq!(pins, ["2"], "{dialect:?}: the PIN of the one who failed is undone, the other is served");
        let mails: Vec<String> = site.mails().into_iter().map(|mail| mail.to).collect();
        assert_eq!(mails, ["v@mail.example"], "{dialect:?}");
    }
}

/// The old tool stopped at once, or waited for the row as often as it was told.
#[tokio::test]
async fn a_user_who_is_not_there_is_told() {
    use credkeeper::cli::{ExitStatus, Once};
    let site = site(Dialect::Sqlite, "pin: {length: 6, rewrite: never}").await;
    let asked = Once { user: Some("nobody@example.com".to_owned()), ..Once::default() };
    let config = site.load();
    let metrics = std::sync::Arc::new(credkeeper::commands::metrics(&config));
    let refused =
        credkeeper::once::run(config, &asked, metrics, &credkeeper::logging::Progress::new(false)).await.err().expect("a refusal");
    assert_eq!(refused.status(), ExitStatus::Partial, "{refused}");
}

/// The old tool found out when it had begun.
#[tokio::test]
async fn extending_without_an_end_is_refused_beforehand() {
    let site = site(Dialect::Sqlite, "pin: {length: 6, rewrite: extend}").await;
    let refusal = site.refusal().expect("a refusal");
    assert!(refusal.contains("rewrite: extend needs valid_for"), "{refusal}");
}
