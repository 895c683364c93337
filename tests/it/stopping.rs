//! SIGTERM whatever the daemon is at: it ends in good order within ten seconds, and the next start finishes the work.

use std::time::{Duration, Instant};

use crate::bounded::until;
use crate::pg::free_port;
use crate::site::{Ended, Process, Site, Step};

const LONG: Duration = Duration::from_secs(60);

fn stopped(daemon: Process) -> Ended {
    let asked = Instant::now();
    let ended = daemon.stop();
    let took = asked.elapsed();
    assert!(ended.code == 0 && took < Duration::from_secs(10), "{took:?} {}", ended.all());
    println!("stopped after {} ms", took.as_millis());
    ended
}

async fn visitors(site: &Site, n: usize) {
    site.sql(&format!(
        "INSERT INTO users (login, ou_id, ou_number) SELECT 'visitor' || g || '@visitors.example', 11, 100 FROM generate_series(1, {n}) g"
    ))
    .await;
}

async fn all_served(site: &Site, n: usize) {
    let end = Instant::now() + LONG;
    while (1..=n).any(|g| !site.mails().iter().any(|mail| mail.to == format!("visitor{g}@visitors.example"))) {
        assert!(Instant::now() < end, "{} mails of {n}", site.mails().len());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(site.number("SELECT count(*) FROM users_cards").await, n as i64, "one PIN each");
}

async fn quick_site() -> Site {
    Site::empty().await.with_config(|yaml| yaml.replace("poll: 5s", "poll: 1s"))
}

#[tokio::test(flavor = "multi_thread")]
async fn while_reading() {
    let site = quick_site().await;
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    site.sql("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE").await;
    tokio::time::sleep(Duration::from_secs(2)).await; // a poll waits for the table now
    stopped(daemon);
    site.sql("ROLLBACK").await;
    visitors(&site, 3).await;
    let daemon = site.start(&[]);
    all_served(&site, 3).await;
    stopped(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_writing_a_batch() {
    let site = quick_site().await.with_config(|yaml| yaml.replace("batch_size: 1000", "batch_size: 2"));
    visitors(&site, 20).await;
    // Reads go on, and the first batch waits.
    site.sql("BEGIN; LOCK TABLE users_cards IN SHARE MODE").await;
    let daemon = site.start(&[]);
    daemon.says("Leading on database", 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    stopped(daemon);
    site.sql("ROLLBACK").await;
    let daemon = site.start(&[]);
    until("four have a PIN", LONG, async || site.number("SELECT count(*) FROM users_cards").await >= 4).await;
    let ended = stopped(daemon); // amid batches that do not wait
    assert!(!ended.stderr.contains("did not end in time"), "{}", ended.all());
    let daemon = site.start(&[]);
    all_served(&site, 20).await;
    stopped(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_hashing_passwords() {
    let site = quick_site().await.with_config(|yaml| {
        yaml.replace("schedule:", "    password_encoding: {bcrypt: {cost: 14}}\nschedule:")
            .replacen("      valid_for: 30d\n", "      valid_for: 30d\n    password: {length: 16}\n", 1)
            .replacen("with PIN {{ pin }}.'", "with PIN {{ pin }}.'\n      - 'PASSWORD {{ password }}'", 1)
    });
    visitors(&site, 16).await;
    let daemon = site.start(&[]);
    daemon.says("Leading on database", 1).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await; // 16 hashes of a second each
    stopped(daemon);
    assert_eq!(site.number("SELECT count(*) FROM users_cards").await, 0, "it was at the hashes");
    let site = site.with_config(|yaml| yaml.replace("cost: 14", "cost: 4"));
    let daemon = site.start(&[]);
    all_served(&site, 16).await;
    assert_eq!(site.number("SELECT count(*) FROM users WHERE pass LIKE '$2a$04$%'").await, 16);
    stopped(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_mail_server_does_not_answer() {
    let site = quick_site().await.with_config(|yaml| yaml.replace("connections: 4", "connections: 1"));
    site.add_visitor("stall@visitors.example").await;
    let daemon = site.start(&[]);
    site.mail_to("stall@visitors.example", LONG).await; // it has the mail, and does not answer
    visitors(&site, 3).await;
    until("four have a PIN", LONG, async || site.number("SELECT count(*) FROM users_cards").await >= 4).await;
    stopped(daemon);
    site.sql("DELETE FROM users_cards WHERE user_id = (SELECT id FROM users WHERE login LIKE 'stall%')").await;
    site.sql("DELETE FROM users WHERE login LIKE 'stall%'").await;
    site.age_journal(3_600); // so that the mail that waits is looked up, and is gone
    let daemon = site.start(&[]);
    all_served(&site, 3).await;
    stopped(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_standing_by() {
    let site = quick_site().await;
    let first = site.start(&[]);
    first.until(Step::Ready).await;
    let site = site.listening_elsewhere();
    let second = site.start(&[]);
    second.says("Standing by", 1).await;
    stopped(second);
    // With a journal of its own it waits for the lead.
    let site = site.with_config(|yaml| yaml.replace("journal.db", "second.db").replace("journal.key", "second.key"));
    let third = site.start(&[]);
    third.says("Standing by: another instance leads", 1).await;
    stopped(third);
    visitors(&site, 2).await;
    all_served(&site, 2).await;
    stopped(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_down() {
    let site = quick_site().await;
    let up = std::fs::read_to_string(site.config()).unwrap();
    let port = regex::Regex::new(r"@127\.0\.0\.1:\d+/").unwrap();
    let down = port.replace(&up, format!("@127.0.0.1:{}/", free_port())).into_owned();
    let site = site.with_config(|_| down);
    visitors(&site, 2).await;
    let daemon = site.start(&[]);
    daemon.says("The database is not available", 2).await;
    stopped(daemon);
    let site = site.with_config(|_| up);
    let daemon = site.start(&[]);
    all_served(&site, 2).await;
    stopped(daemon);
}
