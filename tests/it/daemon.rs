//! The daemon on real parts: a visitor at the door, failures that pass, and a clean stop.

use std::time::{Duration, Instant};

use crate::site::{Site, Step};

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_has_a_pin_in_the_mailbox_within_poll_and_two_seconds_on_200_000_settled_users() {
    let site = Site::with_settled(200_000).await.with_config(|yaml| yaml.replace("poll: 5s", "poll: 1s").replace("length: 6", "length: 8"));
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    for n in 0..3 {
        let login = format!("visitor{n}@visitors.example");
        let inserted = Instant::now();
        site.add_visitor(&login).await;
        site.mail_to(&login, Duration::from_secs(20)).await;
        let took = inserted.elapsed();
        println!("visitor {n}: PIN in the mailbox after {} ms", took.as_millis());
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    let metrics = site.http("/metrics").await;
    assert!(
        metrics.contains("credkeeper_changes_total{change=\"pin_issued\",database=\"main\",outcome=\"applied\",policy=\"visitors\"} 3"),
        "{metrics}"
    );
    assert!(site.http("/readyz").await.starts_with("ok") || site.http("/readyz").await.contains("ready"));
    let stopping = Instant::now();
    assert_eq!(daemon.stop().code, 0);
    assert!(stopping.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_that_is_away_for_a_while_loses_nothing() {
    let site = Site::with_people(160).await;
    site.stop_mail_server();
    let pass = site.once(&[]);
    assert_eq!(pass.code, 4, "{}", pass.all());
    assert_eq!(
        site.number("SELECT count(*) FROM users WHERE ou_id = 12 AND id % 16 = 12").await,
        10,
        "the database was changed all the same"
    );
    site.start_mail_server();
    let again = site.once(&[]);
    assert_eq!(again.code, 0, "{}", again.all());
    assert_eq!(site.mails().len(), 70);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_is_gone_before_its_mail_is_not_mailed() {
    let site = Site::with_people(160).await;
    site.stop_mail_server();
    assert_eq!(site.once(&[]).code, 4);
    site.age_journal(3_600);
    site.sql("DELETE FROM users_cards WHERE user_id = 12 AND card LIKE 'PIN%'").await;
    site.start_mail_server();
    let again = site.once(&[]);
    assert_eq!(again.code, 0, "{}", again.all());
    assert_eq!(site.mails().len(), 69, "{}", again.all());
}

/// What a clock would bring in an hour: the journal is an hour older. Whoever changed meanwhile is told what stands now.
#[tokio::test(flavor = "multi_thread")]
async fn an_hour_without_a_mail_server_ends_by_itself_and_each_is_told_once_what_stands() {
    let site = Site::empty().await.with_config(|yaml| yaml.replace("poll: 5s", "poll: 1s\n  resync: 10s"));
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    site.stop_mail_server();
    let logins = ["ann", "bob", "cid"].map(|name| format!("{name}@visitors.example"));
    for login in &logins {
        site.add_visitor(login).await;
    }
    let until = Instant::now() + Duration::from_secs(30);
    while site.number("SELECT count(*) FROM users_cards").await < 3 {
        assert!(Instant::now() < until, "they get their PINs all the same");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    daemon.says("No mail goes for", 1).await;
    site.age_journal(3_600);
    site.sql("DELETE FROM users_cards WHERE user_id = 2; UPDATE users SET ou_id = 11, ou_number = 100 WHERE id = 2").await;
    site.start_mail_server();
    let back = Instant::now();
    for login in &logins {
        site.mail_to(login, Duration::from_secs(60)).await;
    }
    println!("all mails went within {} s of the mail server's return", back.elapsed().as_secs());
    let pauses = daemon.log().matches("No mail goes for").count();
    assert!(pauses <= 3, "said {pauses} times:\n{}", daemon.log());
    let ended = daemon.stop();
    assert!(ended.code == 0 && ended.stderr.contains("No mail to user 2"), "{}", ended.all());
    assert_eq!(site.mails().len(), 3, "each once");
    for mail in site.mails() {
        let stands = format!(
            "SELECT count(*) FROM users u JOIN users_cards c ON c.user_id = u.id WHERE login = '{}' AND card = 'PIN' || md5('{}')",
            mail.to,
            mail.pin()
        );
        assert_eq!(site.number(&stands).await, 1, "{}", mail.to);
    }
}
