//! What an operator takes back: a pass, one issuance, or all that a user has; and what an operator lets through.

use crate::site::{Ended, Site};

const DUE: &str = "(0, 1, 6, 8, 10, 11, 12)";

fn pass_of(ended: &Ended) -> String {
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {}", ended.all()));
    report["pass"].as_str().expect("an id").to_owned()
}

/// All that the users have, in whole seconds.
async fn standing(site: &Site) -> Vec<(String, String)> {
    let cards = "SELECT user_id::text || ' ' || card, coalesce(date_trunc('second', pin_expiration_date)::text, '') FROM users_cards";
    let users = "SELECT id::text || ' in ' || ou_id || ' ' || ou_number, coalesce(pass, '') FROM users";
    let mut rows = site.rows(cards).await;
    rows.extend(site.rows(users).await);
    rows.sort();
    rows
}

/// A wrong policy has changed everybody, and half of the mails are still waiting.
#[tokio::test(flavor = "multi_thread")]
async fn a_pass_is_undone_to_the_row_and_nobody_is_issued_to_until_released() {
    let site = Site::with_people(160).await;
    let before = standing(&site).await;
    site.stop_mail_server();
    let passed = site.once(&["--format", "json"]);
    assert_eq!(passed.code, 4, "{}", passed.all());
    assert_ne!(standing(&site).await, before);
    let pass = pass_of(&passed);
    let (fingerprint, preview) = (site.fingerprint().await, site.run(&["undo", &pass, "--dry-run"]));
    assert!(preview.code == 0 && preview.stdout.contains("70 users would be taken back"), "{}", preview.all());
    assert_eq!(site.fingerprint().await, fingerprint, "a preview changes nothing");

    let undone = site.run(&["undo", &pass]);
    assert!(undone.code == 0 && undone.stdout.contains("70 of 70 are taken back, and on hold"), "{}", undone.all());
    assert_eq!(standing(&site).await, before, "every row as it was");
    site.start_mail_server();
    let silent = site.once(&["--format", "json"]);
    assert!(silent.code == 0 && silent.stdout.contains("\"unchanged\""), "{}", silent.all());
    assert!(site.mails().is_empty(), "nothing is told of what is not there any more");
    let again = site.run(&["undo", &pass]);
    assert!(again.code == 4 && again.stderr.contains("nothing to take back"), "{}", again.all());

    let released = site.run(&["release", "--pass", &pass]);
    assert!(released.code == 0 && released.stdout.contains("70 users are released"), "{}", released.all());
    assert_eq!(site.once(&[]).code, 0);
    assert_eq!(site.mails().len(), 70);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_changed_since_stays_and_is_named() {
    let site = Site::with_people(160).await;
    let passed = site.once(&["--format", "json"]);
    assert_eq!(passed.code, 0, "{}", passed.all());
    let taken = "md5('00000008')"; // what user 8 had before the pass
    site.sql(&format!(
        "UPDATE users_cards SET card = 'PIN' || md5('vendor') WHERE user_id = 6 AND card LIKE 'PIN%';
         UPDATE users SET ou_id = 13, ou_number = 300 WHERE id = 12;
         INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag) VALUES (3, 'PIN' || {taken}, 0, 0);
         DELETE FROM users_cards WHERE user_id = 28 AND card LIKE 'PIN%'; DELETE FROM users WHERE id = 28"
    ))
    .await;
    let undone = site.run(&["undo", &pass_of(&passed)]);
    assert_eq!(undone.code, 0, "{}", undone.all());
    for said in [
        "1: the user was moved since:\n  user 12 ",
        "1: another user has the old PIN by now, so that it does not come back:\n  user 8 ",
        "2: nothing of what was written stands any more:\n",
        "release --pass",
    ] {
        assert!(undone.stdout.contains(said), "{said}\n{}", undone.stdout);
    }
    assert_eq!(site.number("SELECT count(*) FROM users_cards WHERE card = 'PIN' || md5('vendor')").await, 1);
    assert_eq!(site.number("SELECT ou_id FROM users WHERE id = 12").await, 13);
    assert_eq!(site.number("SELECT count(*) FROM users_cards WHERE user_id = 8 AND card LIKE 'PIN%'").await, 0);
    assert_eq!(site.number(&format!("SELECT count(*) FROM users_cards WHERE card = 'PIN' || {taken}")).await, 1);
    let held = site.run(&["status"]).stdout;
    assert!(held.contains("on hold        68"), "who has nothing of ours is not on hold: {held}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_revoked_has_nothing_left_and_gets_nothing() {
    let site = Site::with_people(160).await;
    assert_eq!(site.once(&[]).code, 0);
    let cards = "SELECT count(*) FROM users_cards WHERE user_id = 6 AND card NOT LIKE 'PIN%'";
    let before = site.number(cards).await;
    assert!(before > 0);
    let revoked = site.run(&["revoke", "user6"]);
    assert!(revoked.code == 0 && revoked.stdout.contains("has no PIN any more. The user is on hold"), "{}", revoked.all());
    assert_eq!(site.number("SELECT count(*) FROM users_cards WHERE user_id = 6 AND card LIKE 'PIN%'").await, 0);
    assert_eq!(site.number(cards).await, before, "cards are never touched");
    let mails = site.mails().len();
    assert_eq!(site.once(&[]).code, 0);
    assert_eq!(site.mails().len(), mails);
    let explained = site.run(&["explain", "user6"]).stdout;
    assert!(explained.contains("revoked"), "{explained}");
    let again = site.run(&["revoke", "user6"]);
    assert!(again.code == 0 && again.stdout.contains("has no credential that could be taken away"), "{}", again.all());
    assert_eq!(site.run(&["release", "user6"]).code, 0);
    site.age_journal(3600);
    assert_eq!(site.once(&[]).code, 0);
    assert_eq!(site.mails().len(), mails + 1);

    site.stop_mail_server();
    site.add_visitor("waits@visitors.example").await;
    assert_eq!(site.once(&[]).code, 4);
    assert_eq!(site.run(&["revoke", "waits@visitors.example"]).code, 0);
    site.start_mail_server();
    assert_eq!(site.once(&[]).code, 0);
    assert_eq!(site.mails().len(), mails + 1, "a mail that waited is not sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_limit_refused_is_let_through_once_and_what_came_later_is_judged() {
    let site = Site::with_people(160).await.with_config(|yaml| yaml.replace("users_per_pass: unlimited", "users_per_pass: 20"));
    let served = format!(
        "SELECT count(*) FROM users_cards WHERE card LIKE 'PIN%' AND pin_expiration_date > localtimestamp + interval '300 days' AND user_id % 16 IN {DUE}"
    );
    let metrics = site.folder().join("credkeeper.prom");
    let counted = ["--metrics-file", metrics.to_str().unwrap()];
    let waiting =
        || std::fs::read_to_string(&metrics).unwrap().lines().find(|line| line.starts_with("credkeeper_plans_waiting")).map(str::to_owned);
    let refused = site.once(&counted);
    assert_eq!(refused.code, 3, "{}", refused.all());
    assert_eq!(waiting().as_deref(), Some(r#"credkeeper_plans_waiting_approval{database="main"} 1"#));
    assert_eq!(site.number(&served).await, 0);
    let named = regex::Regex::new("credkeeper approve ([0-9a-f]{12})").unwrap();
    let plan = named.captures(&refused.stdout).unwrap_or_else(|| panic!("{}", refused.all()))[1].to_owned();
    let status = site.run(&["status"]).stdout;
    assert!(status.contains(&plan) && status.contains("waits for `credkeeper approve`"), "{status}");
    let wrong = site.run(&["approve", "000000000000"]);
    assert!(wrong.code == 4 && wrong.stderr.contains("no refused plan"), "{}", wrong.all());

    let approved = site.run(&["approve", &plan]);
    assert!(approved.code == 0 && approved.stdout.contains("60 users") && approved.stdout.contains("once"), "{}", approved.all());
    // Ten more than those that were approved: no more than the limit allows.
    site.sql("INSERT INTO users (login, email) SELECT 'late' || g, 'late' || g || '@example.com' FROM generate_series(1, 10) g").await;
    let through = site.once(&counted);
    assert_eq!(through.code, 0, "{}", through.all());
    assert_eq!(waiting().as_deref(), Some(r#"credkeeper_plans_waiting_approval{database="main"} 0"#));
    assert_eq!(site.mails().len(), 80);
    site.sql("DELETE FROM users_cards WHERE card LIKE 'PIN%'").await;
    site.age_journal(3600);
    let again = site.once(&["--max-replace", "unlimited"]);
    assert_eq!(again.code, 3, "an approval is used up: {}", again.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_issuance_is_taken_back_or_tried_again_by_its_number() {
    let site = Site::empty().await.with_config(|yaml| yaml.replace("mail:\n", "mail:\n  on_undeliverable: keep\n"));
    site.add_visitor("reject550.5.1.1@visitors.example").await;
    assert_eq!(site.once(&[]).code, 4);
    let listed = site.run(&["journal", "list"]).stdout;
    let number = regex::Regex::new(r"#(\d+)").unwrap();
    let issuance = number.captures(&listed).unwrap_or_else(|| panic!("{listed}"))[1].to_owned();
    let retried = site.run(&["journal", "retry"]);
    assert!(retried.code == 0 && retried.stdout.contains("1 mails are tried again"), "{}", retried.all());
    assert_eq!(site.once(&[]).code, 4, "and is refused again");
    let nothing = site.run(&["journal", "retry", "999"]);
    assert!(nothing.code == 4 && nothing.stderr.contains("journal list"), "{}", nothing.all());

    let taken = site.run(&["journal", "take-back", &issuance]);
    assert!(taken.code == 0 && taken.stdout.contains("1 of 1 are taken back"), "{}", taken.all());
    assert_eq!(site.number("SELECT count(*) FROM users_cards WHERE card LIKE 'PIN%'").await, 0);
    assert_eq!(site.number("SELECT ou_id FROM users WHERE login LIKE 'reject%'").await, 11, "back where he was");
}
