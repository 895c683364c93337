//! What an operator asks for beside a running daemon: the daemon does it, and the command tells what came of it.

use std::time::{Duration, Instant};

use crate::site::{Site, Step};

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_daemon_every_command_is_done_by_it() {
    let site = Site::with_people(160).await.with_config(|yaml| yaml.replace("users_per_pass: unlimited", "users_per_pass: 50"));
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    // The staff are too many for the limit: the daemon says so, and the plan is let through.
    daemon.says("credkeeper approve", 1).await;
    let named = regex::Regex::new("credkeeper approve ([0-9a-f]{12})").unwrap();
    let plan = named.captures(&daemon.log()).unwrap()[1].to_owned();
    let user = site.run(&["--once", "--user", "user0000"]);
    assert!(user.code == 4 && user.stderr.contains("is not in the database"), "{}", user.all());
    let once = site.run(&["--once", "--user", "user16", "--format", "json", "--max-users", "unlimited"]);
    let report: serde_json::Value = serde_json::from_str(&once.stdout).unwrap_or_else(|e| panic!("{e}: {}", once.all()));
    assert_eq!((once.code, report["mail"]["accepted"].as_i64()), (0, Some(1)), "{}", once.all());
    site.mail_to("user16@example.com", Duration::from_secs(1)).await;

    let approved = site.run(&["approve", &plan]);
    assert!(approved.code == 0 && approved.stdout.contains("is let through"), "{}", approved.all());
    site.mail_to("user32@example.com", Duration::from_secs(20)).await;

    let login = "late@visitors.example";
    let adding = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        site.add_visitor(login).await;
    };
    let waiting = site.start(&["--once", "--user", login, "--wait", "20s"]);
    adding.await;
    let waited = tokio::task::spawn_blocking(move || waiting.wait()).await.unwrap();
    assert_eq!(waited.code, 0, "{}", waited.all());
    let pin = site.mail_to(login, Duration::from_secs(5)).await.pin();

    let begun = Instant::now();
    let again = site.run(&["resend", login]);
    assert!(again.code == 0 && again.stdout.contains("sent to l…@visitors.example: the PIN"), "{}", again.all());
    assert!(site.mails().iter().filter(|mail| mail.to == login).all(|mail| mail.pin() == pin));
    let held = site.run(&["hold", login]);
    assert!(held.code == 0 && held.stdout.contains("is on hold now"), "{}", held.all());
    let released = site.run(&["release", login]);
    assert!(released.code == 0 && released.stdout.contains("is released"), "{}", released.all());
    let revoked = site.run(&["revoke", login]);
    assert!(revoked.code == 0 && revoked.stdout.contains("has no PIN any more"), "{}", revoked.all());
    assert_eq!(site.number(&format!("SELECT count(*) FROM users_cards JOIN users u ON u.id = user_id WHERE login = '{login}'")).await, 0);
    println!("four requests took {:?}", begun.elapsed());

    let pass = report["pass"].as_str().unwrap();
    let undone = site.run(&["undo", pass]);
    assert!(undone.code == 0 && undone.stdout.contains("1 of 1 are taken back"), "{}", undone.all());
    let nobody = site.run(&["hold", "nobody"]);
    assert!(nobody.code == 4 && nobody.stderr.contains("is not in the database"), "{}", nobody.all());
    let log = daemon.log();
    assert!(log.contains("Asked by ") && !log.contains(&pin), "{log}");
    let ended = daemon.stop();
    assert_eq!(ended.code, 0, "{}", ended.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_pass_beside_a_daemon_ends_with_75_and_a_daemon_that_stopped_answers_nothing() {
    let site = Site::empty().await;
    site.add_visitor("ann@visitors.example").await;
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    let once = site.once(&[]);
    assert!(once.code == 75 && once.stderr.contains("another instance is at work"), "{}", once.all());
    daemon.signal("-STOP");
    let asked = site.run(&["hold", "ann@visitors.example"]);
    assert!(asked.code == 75 && asked.stderr.contains("did not take the request up"), "{}", asked.all());
    daemon.signal("-CONT");
    assert_eq!(daemon.stop().code, 0);
    let alone = site.run(&["hold", "ann@visitors.example"]);
    assert!(alone.code == 0 && alone.stdout.contains("is on hold now"), "what was withdrawn is not done: {}", alone.all());
}
