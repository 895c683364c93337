//! `resend` (product rule R26): a user gets again what he has, and nothing in the database changes.

use std::sync::Arc;

use credkeeper::cli::{ExitStatus, Request};
use credkeeper::config::Config;
use credkeeper::logging::Progress;
use credkeeper::operate;

use crate::site::{Mail, Site, Step};
use crate::small_site::{Dialect, SmallSite};

fn again() -> Request {
    Request::Resend { login: "ann@example.org".into() }
}

fn message_id(mail: &Mail) -> &str {
    mail.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("message-id")).map_or("", |(_, id)| id.as_str())
}

#[tokio::test]
async fn what_was_delivered_is_recovered_and_mailed_again() {
    let site = Site::empty().await;
    site.add_visitor("ann@visitors.example").await;
    assert_eq!(site.once(&[]).code, 0);
    let before = site.fingerprint().await;

    let ended = site.run(&["resend", "ann@visitors.example"]);
    assert_eq!(ended.code, 0, "{}", ended.all());
    assert!(ended.stdout.contains("sent to a…@visitors.example: the PIN, valid until 20"), "{}", ended.all());
    let mails = site.mails();
    assert_eq!(mails.len(), 2);
    assert_eq!((mails[0].pin(), mails[0].to.as_str()), (mails[1].pin(), "ann@visitors.example"));
    assert_ne!(message_id(&mails[0]), message_id(&mails[1]), "a mail of its own");
    assert!(!ended.all().contains(&mails[0].pin()));
    assert_eq!(site.fingerprint().await, before, "nothing is changed");
    let explained = site.run(&["explain", "ann@visitors.example"]).stdout;
    assert!(explained.contains("delivered: sent again; tried once"), "{explained}");
    assert!(explained.contains("keeper       visitors"), "{explained}");

    assert_eq!(site.run(&["hold", "ann@visitors.example"]).code, 0);
    let held = site.run(&["resend", "ann@visitors.example", "--database", "main"]);
    assert!(held.code == 0 && held.stdout.contains("is on hold, and stays so"), "{}", held.all());
    let passed = site.once(&[]);
    assert_eq!((passed.code, site.mails().len()), (0, 3), "no pass takes it for a change: {}", passed.all());
}

#[tokio::test]
async fn what_waits_goes_under_its_own_message_id_and_alone() {
    let site = Site::empty().await;
    site.stop_mail_server();
    site.add_visitor("ann@visitors.example").await;
    site.add_visitor("bob@visitors.example").await;
    assert_eq!(site.once(&[]).code, 4);
    site.start_mail_server();
    site.age_journal(600);
    let up = site.run(&["resend", "bob@visitors.example"]);
    assert!(up.code == 0 && up.stdout.contains("sent to b…@visitors.example: the PIN"), "{}", up.all());
    assert_eq!(site.mails().iter().map(|mail| mail.to.as_str()).collect::<Vec<_>>(), ["bob@visitors.example"], "nobody else's");
    let first = message_id(&site.mails()[0]).trim_matches(['<', '>']).to_owned();
    let journal = rusqlite::Connection::open(site.folder().join("journal.db")).unwrap();
    let (known, rows): (String, i64) = journal
        .query_row("SELECT max(message_id), count(*) FROM issuance WHERE login = 'bob@visitors.example'", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!((known, rows), (first, 1), "the issuance that was there");
    drop(journal);
    // Somebody has changed the PIN that the waiting mail would tell: what stands there now is told instead.
    site.sql(
        "UPDATE users_cards SET card = 'PIN' || md5('864209') WHERE user_id = (SELECT id FROM users WHERE login = 'ann@visitors.example')",
    )
    .await;
    let other = site.run(&["resend", "ann@visitors.example"]);
    assert_eq!(other.code, 0, "{}", other.all());
    assert_eq!(site.mails().last().unwrap().pin(), "864209");
    assert_eq!(site.run(&["journal", "list"]).stdout, "Every issuance is finished.\n");

    // The mail server says later: it waits again.
    site.add_visitor("defer451@visitors.example").await;
    assert_eq!(site.once(&[]).code, 4);
    let deferred = site.run(&["resend", "defer451@visitors.example"]);
    assert!(deferred.code == 4 && deferred.stdout.contains("waits in the journal for the next try (it said 451)"), "{}", deferred.all());
}

#[tokio::test]
async fn what_was_refused_is_tried_again_and_goes_to_a_new_address() {
    let site = Site::empty().await.with_config(|yaml| yaml.replace("mail:\n", "mail:\n  on_undeliverable: keep\n"));
    site.sql("INSERT INTO users (login, email) VALUES ('eva', 'reject550.5.1.1@example.com')").await;
    assert_eq!(site.once(&[]).code, 4);
    let refused = site.run(&["resend", "eva"]);
    assert!(refused.code == 4 && refused.stdout.contains("refused r…@example.com for good (it said 550)"), "{}", refused.all());
    let stored = site.rows("SELECT card, '' FROM users_cards").await;
    site.sql("UPDATE users SET email = 'eva@example.com'").await;
    let ended = site.run(&["resend", "eva"]);
    assert!(ended.code == 0 && ended.stdout.contains("sent to e…@example.com: the PIN"), "{}", ended.all());
    let mail = &site.mails()[0];
    assert_eq!(mail.to, "eva@example.com");
    assert_eq!(site.rows(&format!("SELECT 'PIN' || md5('{}'), ''", mail.pin())).await, stored, "the PIN that was issued");
    assert_eq!(site.run(&["journal", "list"]).stdout, "Every issuance is finished.\n", "the old one is done with");
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_with_the_reason() {
    let site = Site::empty().await;
    site.sql(
        "INSERT INTO users (id, login, email) VALUES (1, 'stranger', 'x@elsewhere.example'), (2, 'nomail1', ''), (3, 'long', 'long@example.com'),
           (4, 'old', 'old@example.com'), (5, 'none', 'none@example.com')",
    )
    .await;
    site.sql(
        "INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag, pin_expiration_date) VALUES
           (3, 'PIN' || md5('123456789012'), 0, 0, NULL), (4, 'PIN' || md5('864209'), 0, 0, localtimestamp - interval '1 day')",
    )
    .await;
    for (login, told) in [
        ("nobody", "the user nobody is not in the database"),
        ("stranger", "no policy owns stranger"),
        ("nomail1", "nomail1 has no address to send to: what stands where policy unreachable looks for one"),
        ("long", "nothing of long can be sent again: the PIN cannot be recovered"),
        ("old", "nothing of old can be sent again: the PIN has expired"),
        ("none", "nothing of none can be sent again: there is no PIN"),
    ] {
        let ended = site.run(&["resend", login]);
        assert!(ended.code == 4 && ended.stderr.contains(told), "{login}: {}", ended.all());
    }
    assert!(site.mails().is_empty());
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    let beside = site.run(&["resend", "long"]);
    assert!(beside.code == 4 && beside.stderr.contains("the PIN cannot be recovered"), "the daemon says the same: {}", beside.all());
    assert_eq!(daemon.stop().code, 0);
    let site = site.with_config(|yaml| format!("mode: observe\n{yaml}"));
    let observing = site.run(&["resend", "long"]);
    assert!(observing.code == 4 && observing.stderr.contains("mode: observe"), "{}", observing.all());
}

const KEY: &str = "000102030405060708090a0b0c0d0e0f";

#[tokio::test]
async fn a_code_is_decrypted_and_a_password_left_out_on_sqlite() {
    a_code_is_decrypted_and_a_password_left_out(Dialect::Sqlite).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_code_is_decrypted_and_a_password_left_out_on_postgresql() {
    a_code_is_decrypted_and_a_password_left_out(Dialect::Postgres).await;
}

async fn a_code_is_decrypted_and_a_password_left_out(dialect: Dialect) {
    let keys = format!("cac_cipher: {{algorithm: aes-128-ecb, key: '{KEY}'}}, password_encoding: md5");
    let rest = "limits: {mails_per_minute: unlimited}\n\
                policies: [{name: p, pin: {length: 6, rewrite: never}, card_assignment_code: {length: 6}, password: {length: 12}, notify: {template: t}}]\n";
    let site = SmallSite::make(dialect, &keys, rest).await;
    site.sql("INSERT INTO users (id, login, flag, name) VALUES (1, 'ann@example.org', 1, 'Ann')").await;
    assert_eq!(site.once().await.mail.accepted, 1);
    let first = site.mails().remove(0);
    let lines = |mail: &Mail| mail.text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(&first).len(), 3);

    let config: Arc<Config> = site.load();
    assert_eq!(operate::ask(config, again(), &Progress::new(false)).await, ExitStatus::Done);
    let mails = site.mails();
    assert_eq!(mails.len(), 2);
    let again = mails.iter().find(|mail| message_id(mail) != message_id(&first)).unwrap();
    assert_eq!(lines(again), lines(&first)[..2], "PIN and code are the same, and the password is unknown");
    let after = site.once().await;
    assert_eq!((after.applied(), after.mail.accepted, site.mails().len()), (0, 0, 2));
}
