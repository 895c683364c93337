//! Reminders that a PIN is about to lapse (product rule R33): each once, to whom they are due, and never with a credential.

use std::time::Duration;

use credkeeper::cli::Once;

use crate::site::{Mail, Site, Step};
use crate::small_site::{Dialect, SmallSite};

async fn site(dialect: Dialect, windows: &str) -> SmallSite {
    SmallSite::make(dialect, "pin_format: prefix", &rest(windows)).await
}

fn rest(windows: &str) -> String {
    format!(
        "limits: {{mails_per_minute: unlimited, replace_percent: unlimited}}\n\
         policies: [{{name: p, pin: {{length: 6, rewrite: expired, valid_for: 30d}}, notify: {{template: t, reminders: {windows}}}}}]\n"
    )
}

async fn add(site: &SmallSite, id: i64, ends: &[Option<i32>]) {
    let mut sql = format!("INSERT INTO users (id, login, flag, name) VALUES ({id}, 'u{id}@example.org', 1, 'N{id}');");
    for (n, end) in ends.iter().enumerate() {
        let end = end.map_or("NULL".to_owned(), |hours| site.hours(hours));
        sql.push_str(&format!(
            "INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag, pin_expiration_date) VALUES ({id}, 'PIN9{id}{n}7531', 0, 0, {end});"
        ));
    }
    site.sql(&sql).await;
}

fn subject(mail: &Mail) -> &str {
    mail.headers.iter().find(|(name, _)| name == "Subject").map_or("", |(_, subject)| subject.as_str())
}

/// Who was reminded, as often as that was.
fn reminded(mails: &[Mail]) -> Vec<&str> {
    let mut to: Vec<&str> = mails.iter().filter(|mail| subject(mail) == "Soon").map(|mail| mail.to.as_str()).collect();
    to.sort_unstable();
    to
}

#[tokio::test]
async fn each_is_reminded_once_on_sqlite() {
    each_is_reminded_once(Dialect::Sqlite).await;
}

#[cfg(unix)]
#[tokio::test]
async fn each_is_reminded_once_on_postgresql() {
    each_is_reminded_once(Dialect::Postgres).await;
}

async fn each_is_reminded_once(dialect: Dialect) {
    let site = site(dialect, "[7d, 1d]").await;
    let day = 24;
    for (id, ends) in [
        (1, &[Some(20)][..]),
        (2, &[Some(3 * day)]),
        (3, &[Some(20 * day)]),
        (4, &[Some(-1)]),
        (5, &[Some(20), Some(20 * day)]),
        (6, &[None]),
        (7, &[Some(20), None]),
        (8, &[Some(20), Some(22)]),
    ] {
        add(&site, id, ends).await;
    }
    for filtered in [true, false] {
        let (plan, report) = site.plan(0, filtered).await;
        assert_eq!((plan.steps.len(), report.reminders.due), (1, 3), "filtered: {filtered}");
    }
    let preview = site.once_as(&Once { dry_run: true, ..Once::default() }).await;
    assert_eq!((preview.reminders.due, preview.reminders.accepted, site.mails().len()), (3, 0, 0));

    let report = site.once().await;
    assert_eq!((report.reminders.due, report.reminders.accepted, report.reminders.waiting, report.mail.accepted), (3, 3, 0, 1));
    let mails = site.mails();
    assert_eq!(reminded(&mails), ["u1@example.org", "u2@example.org", "u8@example.org"]);
    let first = mails.iter().find(|mail| mail.to == "u1@example.org").unwrap();
    assert!(first.text.starts_with("N1 until 20"), "{}", first.text);
    assert!(mails.iter().filter(|mail| subject(mail) == "Soon").all(|mail| !mail.text.contains("7531")), "no credential in it");

    // Nothing is left: not in a second pass, which begins as after a restart.
    let again = site.once().await;
    assert_eq!((again.reminders.due, again.reminders.accepted, site.mails().len()), (0, 0, mails.len()));

    // Renewed by somebody: nothing to remind of. One who has got another short end is reminded of that one.
    site.sql(&format!("UPDATE users_cards SET pin_expiration_date = {} WHERE user_id = 2", site.hours(20 * day))).await;
    site.sql(&format!("UPDATE users_cards SET pin_expiration_date = {} WHERE user_id = 3", site.hours(10))).await;
    site.sql("UPDATE users_cards SET pin_expiration_date = NULL WHERE user_id = 1").await;
    let report = site.once().await;
    assert_eq!((report.reminders.due, report.reminders.accepted), (1, 1));
    assert_eq!(reminded(&site.mails()), ["u1@example.org", "u2@example.org", "u3@example.org", "u8@example.org"]);
}

#[tokio::test]
async fn of_the_windows_that_are_open_only_the_nearest_is_told_and_each_once() {
    let site = site(Dialect::Sqlite, "[7d]").await;
    add(&site, 1, &[Some(20)]).await;
    add(&site, 2, &[Some(50)]).await;
    let config = site.folder().join("config.yaml");
    let with = |windows: &str, before: &str| {
        let yaml = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, yaml.replace(&format!("reminders: {before}"), &format!("reminders: {windows}"))).unwrap();
    };
    assert_eq!(site.once().await.reminders.accepted, 2);
    // As when a day has come nearer: for one of them the later window has opened.
    with("[7d, 1d]", "[7d]");
    assert_eq!(site.once().await.reminders.accepted, 1);
    assert_eq!(reminded(&site.mails()), ["u1@example.org", "u1@example.org", "u2@example.org"]);
    // An earlier one that was missed is not made up for.
    with("[14d, 7d, 3d, 1d]", "[7d, 1d]");
    assert_eq!(site.once().await.reminders.accepted, 1, "three days for the second");
    assert_eq!(site.once().await.reminders.accepted, 0);
}

const REMINDERS: &str = "      template: staff\n      reminders: [7d, 1d]\n  - name: unreachable";

/// With staff who are reminded.
async fn staff() -> Site {
    let site = Site::empty().await.with_config(|yaml| {
        let yaml = yaml.replace("      template: staff\n  - name: unreachable", REMINDERS);
        yaml.replace("\n  staff:\n", "\n  staff:\n    reminder: {subject: Soon, parts: ['Your PIN lapses {{ expires }}.']}\n")
    });
    for (name, hours) in [("ann", 20), ("bob", 21), ("cid", 22), ("dan", 23)] {
        site.sql(&format!("INSERT INTO users (login, email) VALUES ('{name}', '{name}@example.com')")).await;
        site.sql(&format!(
            "INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag, pin_expiration_date)
               SELECT id, 'PIN' || md5('135797' || id), 0, 0, localtimestamp + interval '{hours} hours' FROM users WHERE login = '{name}'"
        ))
        .await;
    }
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_for_the_mail_server_goes_after_the_credentials_and_only_where_it_is_still_due() {
    let site = staff().await;
    let shown = site.run(&["plan"]);
    assert!(shown.code == 0 && shown.stdout.contains("4 users would be reminded"), "{}", shown.all());
    site.stop_mail_server();
    for n in 1..=3 {
        site.add_visitor(&format!("visitor{n}@visitors.example")).await;
    }
    let down = site.once(&[]);
    assert_eq!(down.code, 4, "{}", down.all());
    assert!(down.stdout.contains("4 found due, 4 waiting in the journal for the next pass"), "{}", down.all());

    // Meanwhile one has a new PIN, one is on hold, one is gone.
    site.sql("UPDATE users_cards SET pin_expiration_date = localtimestamp + interval '90 days' WHERE user_id = (SELECT id FROM users WHERE login = 'ann')")
        .await;
    assert_eq!(site.run(&["hold", "bob"]).code, 0);
    site.sql("DELETE FROM users_cards WHERE user_id = (SELECT id FROM users WHERE login = 'cid'); DELETE FROM users WHERE login = 'cid'")
        .await;
    site.start_mail_server();
    let up = site.once(&["--metrics-file", site.folder().join("up.prom").to_str().unwrap()]);
    assert_eq!(up.code, 0, "{}", up.all());
    let mails = site.mails();
    let to: Vec<&str> = mails.iter().map(|mail| mail.to.as_str()).collect();
    assert_eq!(to.len(), 4, "{to:?}");
    assert_eq!(to[3], "dan@example.com", "after the credentials: {to:?}");
    assert!(mails[3].text.starts_with("Your PIN lapses 20"), "{}", mails[3].text);
    let metrics = std::fs::read_to_string(site.folder().join("up.prom")).unwrap();
    for line in [
        r#"credkeeper_reminders_total{database="main",outcome="accepted"} 1"#,
        r#"credkeeper_reminders_total{database="main",outcome="overtaken"} 3"#,
        r#"credkeeper_reminder_delay_seconds_count{database="main",window="1d"} 1"#,
        r#"credkeeper_reminder_delay_seconds_count{database="main",window="7d"} 0"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }

    // A daemon that starts now has nothing to say; one released is reminded by its next full comparison.
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    assert_eq!(daemon.stop().code, 0);
    assert_eq!(site.mails().len(), 4);
    assert_eq!(site.run(&["release", "bob"]).code, 0);
    let daemon = site.start(&[]);
    site.mail_to("bob@example.com", Duration::from_secs(30)).await;
    assert_eq!(daemon.stop().code, 0);
    assert_eq!(site.mails().len(), 5);
    assert!(site.mails().iter().all(|mail| subject(mail) != "Soon" || !mail.text.contains("135797")));
    let explained = site.run(&["explain", "bob"]).stdout;
    assert!(explained.contains("1d before"), "{explained}");
}

#[tokio::test]
async fn who_only_observes_or_is_outside_of_the_pilot_reminds_nobody() {
    let site = staff().await.with_config(|yaml| format!("pilot: {{logins: [ann]}}\n{yaml}"));
    let piloted = site.once(&[]);
    assert_eq!(piloted.code, 0, "{}", piloted.all());
    assert_eq!(site.mails().iter().map(|mail| mail.to.as_str()).collect::<Vec<_>>(), ["ann@example.com"]);
    let site = staff().await.with_config(|yaml| format!("mode: observe\n{yaml}"));
    let observed = site.once(&[]);
    assert!(observed.code == 0 && observed.stdout.contains("4 users would be reminded"), "{}", observed.all());
    assert!(site.mails().is_empty() && !site.folder().join("journal.db").exists());
}
