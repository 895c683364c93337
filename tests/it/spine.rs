//! The whole way on real parts: twenty thousand users of every kind on PostgreSQL, a real mail server, and the program as
//! it is started by an administrator. The checks ask the database in SQL of their own.

use std::collections::{HashMap, HashSet};

use md5::{Digest, Md5};

use crate::site::{Site, Step};

const USERS: i64 = 20_000;

/// Kinds that get a PIN: staff without one (0 local, 1 directory, 6 card only, 11 a card that looks like a hash), staff with an
/// expired one (8, 10), visitors (12).
const GET_A_PIN: &str = "(0, 1, 6, 8, 10, 11, 12)";

#[tokio::test(flavor = "multi_thread")]
async fn every_promise_is_kept_for_twenty_thousand_users_of_every_kind() {
    let site = Site::with_people(USERS).await;
    let first = site.once(&[]);
    assert_eq!(first.code, 0, "{}", first.all());

    // Every promise: exactly the users of these kinds have one new PIN of the right form and end.
    let valid = "card ~ '^PIN[0-9a-f]{32}$' AND pin_expiration_date > localtimestamp";
    for (sentence, query, expected) in [
        ("each has exactly one PIN, and it is valid",
         format!("SELECT count(*) FROM (SELECT user_id FROM users_cards c WHERE card LIKE 'PIN%' AND user_id % 16 IN {GET_A_PIN} AND user_id <= {USERS}
                  GROUP BY user_id HAVING count(*) = 1 AND bool_and({valid})) x"), kinds(&[0, 1, 6, 8, 10, 11, 12])),
        ("visitors' PINs end in thirty days, staff's in a year",
         format!("SELECT count(*) FROM users_cards WHERE card LIKE 'PIN%' AND user_id % 16 IN {GET_A_PIN} AND pin_expiration_date - localtimestamp BETWEEN
                  CASE user_id % 16 WHEN 12 THEN interval '29 days 23 hours' ELSE interval '364 days 23 hours' END AND
                  CASE user_id % 16 WHEN 12 THEN interval '30 days' ELSE interval '365 days' END"), kinds(&[0, 1, 6, 8, 10, 11, 12])),
        ("no PIN is held twice", "SELECT count(*) FROM (SELECT card FROM users_cards GROUP BY card HAVING count(*) > 1) x".into(), 0),
        ("visitors are in Has PIN by id and by number",
         format!("SELECT count(*) FROM users WHERE id % 16 = 12 AND id <= {USERS} AND ou_id = 12 AND ou_number = 200"), kinds(&[12])),
        ("a replaced PIN is the same row, with its unmapped columns",
         "SELECT count(*) FROM users_cards c JOIN before.users_cards b USING (id) WHERE c.user_id % 16 = 8 AND c.card <> b.card AND c.card LIKE 'PIN%'
          AND c.dual_pin = b.dual_pin".into(), kinds(&[8])),
        // Nobody else: row by row, in every table.
        ("other rows of users are as they were",
         format!("SELECT count(*) FROM ((SELECT * FROM users EXCEPT SELECT * FROM before.users) UNION ALL (SELECT * FROM before.users EXCEPT SELECT * FROM users)) x
                  WHERE id % 16 <> 12 OR id > {USERS}"), 0),
        ("of a visitor only the cost center changed",
         "SELECT count(*) FROM (SELECT to_jsonb(u) - 'ou_id' - 'ou_number' FROM users u EXCEPT SELECT to_jsonb(b) - 'ou_id' - 'ou_number' FROM before.users b) x".into(), 0),
        ("other rows of users_cards are as they were",
         format!("SELECT count(*) FROM ((SELECT * FROM users_cards EXCEPT SELECT * FROM before.users_cards)
                  UNION ALL (SELECT * FROM before.users_cards EXCEPT SELECT * FROM users_cards)) x
                  WHERE user_id % 16 NOT IN {GET_A_PIN} OR user_id > {USERS} OR card NOT LIKE 'PIN%'"), 0),
        ("the other tables are as they were",
         "SELECT (SELECT count(*) FROM (SELECT * FROM ou EXCEPT SELECT * FROM before.ou) x) + (SELECT count(*) FROM (SELECT * FROM users_aliases EXCEPT
          SELECT * FROM before.users_aliases) x) + (SELECT count(*) FROM users_roles) + (SELECT abs(count(*) - 4) FROM ou)".into(), 0),
    ] {
        assert_eq!(site.number(&query).await, expected, "{sentence}");
    }

    // One mail each, and the PIN in it is the row in the database.
    let mails = site.mails();
    assert_eq!(mails.len() as i64, kinds(&[0, 1, 6, 8, 10, 11, 12]));
    let stored: HashMap<String, String> = site
        .rows(&format!(
            "SELECT CASE u.id % 16 WHEN 12 THEN login ELSE email END, card FROM users u JOIN users_cards c ON c.user_id = u.id
                        WHERE card LIKE 'PIN%' AND u.id % 16 IN {GET_A_PIN} AND u.id <= {USERS}"
        ))
        .await
        .into_iter()
        .collect();
    let mut told = HashSet::new();
    for mail in &mails {
        assert!(told.insert(mail.to.clone()), "two mails to {}", mail.to);
        let hash: String = Md5::digest(mail.pin().as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(stored.get(&mail.to), Some(&format!("PIN{hash}")), "the mail to {} tells another PIN", mail.to);
    }

    // A second run finds nothing, writes nothing, mails nothing.
    let state = site.fingerprint().await;
    let second = site.once(&["--format", "json"]);
    assert_eq!(second.code, 0, "{}", second.all());
    let report: serde_json::Value = serde_json::from_str(&second.stdout).expect("the report is JSON");
    assert_eq!(report["outcome"], "unchanged", "{report:#}");
    assert_eq!(site.fingerprint().await, state, "the second run wrote something");
    assert_eq!(site.mails().len(), mails.len(), "the second run mailed something");
}

/// How many of the ids 1 to `USERS` are of one of these kinds.
fn kinds(kinds: &[i64]) -> i64 {
    (1..=USERS).filter(|id| kinds.contains(&(id % 16))).count() as i64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_writes_nothing_anywhere() {
    let site = Site::with_people(1_600).await;
    let state = site.fingerprint().await;
    let report = site.folder().join("plan.json");
    let plan = site.run(&["plan", "--report", report.to_str().unwrap(), "--exit-code"]);
    assert_eq!(plan.code, 2, "{}", plan.all());
    assert!(plan.stdout.contains("visitors"), "{}", plan.all());
    assert_eq!(site.fingerprint().await, state);
    let left: Vec<String> = std::fs::read_dir(site.folder()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(left.iter().filter(|f| f.contains("journal")).count(), 0, "{left:?}");
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    let due = report["users"].as_array().unwrap().iter().filter(|u| u["state"] == "due").count();
    assert_eq!(due, 700, "seven of sixteen kinds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_refuses_one_policy_and_says_how_to_allow_it() {
    let site = Site::with_people(1_600).await.with_config(|yaml| yaml.replace("users_per_pass: unlimited", "users_per_pass: 150"));
    let refused = site.once(&[]);
    assert_eq!(refused.code, 3, "{}", refused.all());
    assert!(refused.stdout.contains("--max-users 600"), "{}", refused.all());
    let pins = "SELECT count(*) FROM users_cards c JOIN before.users_cards b USING (id) WHERE c.card <> b.card";
    assert_eq!(site.number(pins).await, 0, "the staff's plan was refused whole");
    assert_eq!(site.number("SELECT count(*) FROM users WHERE ou_id = 12 AND id % 16 = 12").await, 100, "the visitors' was not");
    assert_eq!(site.mails().len(), 100);
    let allowed = site.once(&["--max-users", "600"]);
    assert_eq!(allowed.code, 0, "{}", allowed.all());
    assert_eq!(site.mails().len(), 700);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_that_is_too_small_fails_only_those_who_find_no_pin() {
    // Visitors get PINs of two digits: some eighty that are not trivial for a hundred and fifty people.
    let site = Site::with_people(2_400).await.with_config(|yaml| yaml.replacen("length: 6", "length: 2\n      allow_dense: true", 1));
    let pass = site.once(&[]);
    assert_eq!(pass.code, 4, "{}", pass.all());
    assert!(pass.all().contains("a longer pin.length gives more room"), "{}", pass.all());
    let served = site.number("SELECT count(*) FROM users WHERE ou_id = 12 AND id % 16 = 12").await;
    assert!((30..=90).contains(&served), "{served}");
    assert_eq!(site.mails().len() as i64, 900 + served, "staff are served all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_can_be_served_and_waited_for() {
    let site = Site::with_people(160).await;
    let nobody = site.once(&["--user", "late@visitors.example"]);
    assert_eq!(nobody.code, 4, "{}", nobody.all());
    let waiting = site.start(&["--once", "--user", "late@visitors.example", "--wait", "30s"]);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    site.add_visitor("late@visitors.example").await;
    let served = waiting.wait();
    assert_eq!(served.code, 0, "{}", served.all());
    assert_eq!(site.mails().iter().map(|m| m.to.as_str()).collect::<Vec<_>>(), ["late@visitors.example"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_cost_center_blocks_its_policy_alone() {
    let site = Site::with_people(160).await;
    site.sql("DELETE FROM ou WHERE name = 'Has PIN'").await;
    let pass = site.once(&[]);
    assert_eq!(pass.code, 3, "{}", pass.all());
    assert!(pass.stdout.contains("Has PIN"), "{}", pass.all());
    assert_eq!(site.number("SELECT count(*) FROM users WHERE ou_id = 12 AND id % 16 = 12").await, 0);
    assert_eq!(site.mails().len(), 60, "staff are served all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance_is_told_to_wait() {
    let site = Site::with_people(160).await;
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    let told_to_wait = |site: &Site, which: &str| {
        let begun = std::time::Instant::now();
        let ended = site.once(&[]);
        let took = begun.elapsed().as_secs_f64();
        println!("{which}: told after {took:.1} s");
        assert_eq!(ended.code, 75, "{which}: {}", ended.all());
        assert!((4.5..12.0).contains(&took), "{which}: after {took:.1} s, and five are meant: {}", ended.all());
    };
    told_to_wait(&site, "the journal's lock");
    let other_journal = site.with_config(|yaml| yaml.replace("journal.db", "other.db").replace("journal.key", "other.key"));
    told_to_wait(&other_journal, "the database's own lock");
    assert_eq!(daemon.stop().code, 0);
}
