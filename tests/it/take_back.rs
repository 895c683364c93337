//! What could not be delivered is taken back: what was there before stands again, and nobody is issued to until somebody, or
//! another address, says so.

use std::time::Duration;

use crate::site::{Ended, Site, Step};

/// Staff get a PIN at each pass in which theirs has expired; who is a visitor is moved on.
async fn site(mail: &str) -> Site {
    let site = Site::empty().await.with_config(|yaml| yaml.replace("mail:\n", &format!("mail:\n  on_undeliverable: {mail}\n")));
    site.sql(
        "INSERT INTO ou (id, number, name) VALUES (13, 300, 'Staff');
         INSERT INTO users (id, login, email, ou_id, ou_number) VALUES
           (901, 'reject550.5.1.1@visitors.example', '', 11, 100), (902, 'visitor@visitors.example', '', 11, 100),
           (903, 'old', 'reject550@example.com', 13, 300), (904, 'fresh', 'fresh@example.com', 13, 300);
         INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag, pin_expiration_date) VALUES
           (903, 'PIN81dc9bdb52d04dc20036dbd8313ed055', 0, 0, '2020-01-02 03:04:05'), (903, '04A1B2C3', 0, 0, NULL)",
    )
    .await;
    site
}

async fn pins(site: &Site, user: i64) -> Vec<(String, String)> {
    site.rows(&format!("SELECT card, pin_expiration_date::text FROM users_cards WHERE user_id = {user} AND card LIKE 'PIN%' ORDER BY 1"))
        .await
}

async fn center(site: &Site, user: i64) -> i64 {
    site.number(&format!("SELECT ou_id FROM users WHERE id = {user}")).await
}

fn json(ended: &Ended) -> serde_json::Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {}", ended.all()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_before_stands_again_and_another_address_ends_the_hold() {
    let site = site("take_back").await;
    let first = site.once(&["--format", "json"]);
    let report = json(&first);
    assert_eq!(first.code, 4, "{}", first.all());
    let taken: i64 = report["policies"].as_array().unwrap().iter().filter_map(|p| p["changes"]["taken_back"]["applied"].as_i64()).sum();
    assert_eq!(taken, 2, "{report:#}");
    assert!(pins(&site, 901).await.is_empty() && center(&site, 901).await == 11, "no PIN, and back where the visitor was");
    assert_eq!(
        pins(&site, 903).await,
        [("PIN81dc9bdb52d04dc20036dbd8313ed055".to_owned(), "2020-01-02 03:04:05".to_owned())],
        "the expired PIN is there again, with its end"
    );
    assert_eq!(site.number("SELECT count(*) FROM users_cards WHERE card = '04A1B2C3'").await, 1);
    assert!(center(&site, 902).await == 12 && pins(&site, 902).await.len() == 1 && pins(&site, 904).await.len() == 1);

    let silent = site.once(&["--format", "json"]);
    assert_eq!(silent.code, 0, "{}", silent.all());
    assert_eq!(json(&silent)["outcome"], "unchanged", "on hold: {}", silent.stdout);
    let explained = site.run(&["explain", "old"]).stdout;
    assert!(explained.contains("taken back") && explained.contains("On hold"), "{explained}");

    site.sql("UPDATE users SET email = 'better@example.com' WHERE id = 903").await;
    site.age_journal(3600);
    let again = site.once(&[]);
    assert_eq!(again.code, 0, "{}", again.all());
    let mail = site.mail_to("better@example.com", Duration::from_secs(5)).await;
    assert_eq!(pins(&site, 903).await[0].0, format!("PIN{:032x}", credkeeper::domain::pin::digest(&mail.pin())));
    assert_eq!(site.run(&["status"]).stdout.matches("since").count(), 1, "one hold is left: {}", site.run(&["status"]).stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_takes_back_in_its_next_pass_and_what_others_wrote_stays() {
    let site = site("take_back").await.with_config(|yaml| yaml.replace("poll: 5s", "poll: 1s"));
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    daemon.says("taken back, because its mail could not be delivered", 2).await;
    assert!(pins(&site, 901).await.is_empty());
    let ended = daemon.stop();
    assert_eq!(ended.code, 0, "{}", ended.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_switched_off_nothing_is_taken_back() {
    let site = site("keep").await;
    assert_eq!(site.once(&[]).code, 4);
    assert!(pins(&site, 901).await.len() == 1 && center(&site, 901).await == 12);
    assert!(site.run(&["status"]).stdout.contains("undeliverable  2"), "{}", site.run(&["status"]).stdout);
}
