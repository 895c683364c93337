//! The database is put back from a backup, for real: what the journal knows and the database does not must be noticed before
//! anything is done, and nobody may be mailed until a person has decided.

use std::time::Duration;

use crate::crash::everybody_knows_the_pin;
use crate::site::{Site, Step};

fn reason(report: &str) -> serde_json::Value {
    let report: serde_json::Value = serde_json::from_str(report).unwrap_or_else(|e| panic!("{e}: {report}"));
    report["stops"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_is_left_alone_until_it_is_adopted_and_then_served_within_the_limits() {
    let site = Site::with_people(160).await.with_config(|yaml| yaml.replace("poll: 5s", "poll: 1s"));
    let backup = site.backup();
    assert_eq!(site.once(&[]).code, 0);
    assert_eq!(site.mails().len(), 70);
    assert!(site.run(&["doctor"]).stdout.contains("of the newest 70 that the journal knows, 70 stand in the database"));
    let nothing = site.run(&["journal", "adopt", "main"]);
    assert!(nothing.code == 0 && nothing.stdout.starts_with("Nothing to adopt"), "{}", nothing.all());

    site.restore(&backup);
    site.add_visitor("waits@visitors.example").await;
    let before = site.fingerprint().await;
    for arguments in [&["--once", "--format", "json"][..], &["plan", "--format", "json"]] {
        let stopped = site.run(arguments);
        assert_eq!(stopped.code, 3, "{arguments:?}: {}", stopped.all());
        let stops = reason(&stopped.stdout);
        let message = stops[0]["message"].as_str().unwrap();
        assert_eq!(stops[0]["limit"], "restored", "{arguments:?}");
        assert!(
            message.contains("of the newest 70 credentials that the journal knows, 70 are not in it") && message.contains("journal adopt")
        );
    }
    let one = site.once(&["--user", "waits@visitors.example"]);
    assert_eq!(one.code, 3, "not even for one: {}", one.all());
    let doctor = site.run(&["doctor"]);
    assert!(doctor.code == 1 && doctor.stdout.contains("`credkeeper journal adopt main --dry-run`"), "{}", doctor.all());
    assert!(site.run(&["status"]).stdout.contains("stopped: the database seems to have been restored"));

    // The daemon neither compares nor polls, and has one word to say of it.
    let daemon = site.start(&[]);
    daemon.says("the database seems to have been restored", 1).await;
    daemon.until(Step::Ready).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let metrics = site.http("/metrics").await;
    assert!(metrics.contains("credkeeper_limit_stopped{database=\"main\",limit=\"restored\"} 1\n"), "{metrics}");
    assert!(metrics.contains("credkeeper_passes_total{database=\"main\",kind=\"resync\",outcome=\"refused\"} 1\n"), "{metrics}");
    let beside = site.run(&["journal", "adopt", "main"]);
    assert_eq!(beside.code, 75, "{}", beside.all());
    let ended = daemon.stop();
    assert_eq!(ended.code, 0, "{}", ended.all());
    assert_eq!(ended.stderr.matches("seems to have been restored").count(), 1, "{}", ended.stderr);
    assert_eq!(site.fingerprint().await, before, "something was written");
    assert_eq!(site.mails().len(), 70, "something was mailed");

    let preview = site.run(&["journal", "adopt", "main", "--dry-run"]);
    assert!(preview.code == 0 && preview.stdout.starts_with("The database main would be adopted as it is:\n"), "{}", preview.all());
    assert_eq!(site.once(&[]).code, 3, "a preview adopts nothing");
    let adopted = site.run(&["journal", "adopt", "main"]);
    assert_eq!(adopted.code, 0, "{}", adopted.all());
    assert!(adopted.stdout.contains("What these 70 mails told is gone"), "{}", adopted.all());
    assert_eq!(adopted.stdout.matches(", no such user").count() + adopted.stdout.matches(": mailed 20").count(), 70, "{}", adopted.all());
    assert!(adopted.stdout.contains("  user 12 “visitor12@visitors.example”: mailed 20"), "{}", adopted.all());
    assert_eq!(preview.stdout.lines().skip(1).collect::<Vec<_>>(), adopted.stdout.lines().skip(1).collect::<Vec<_>>());
    assert!(site.run(&["explain", "visitor12@visitors.example"]).stdout.contains("superseded"));
    assert_eq!(site.run(&["doctor"]).code, 0);

    // From here on it is a pass like any other.
    let site = site.with_config(|yaml| yaml.replace("users_per_pass: unlimited", "users_per_pass: 5"));
    let refused = site.once(&["--format", "json"]);
    assert!(refused.code == 3 && refused.stdout.contains("users_per_pass"), "{}", refused.all());
    assert!(refused.stdout.contains("\"lost_after_delivery\": 70"), "{}", refused.all());
    let metrics = site.folder().join("after.prom");
    let served = site.once(&["--max-users", "unlimited", "--metrics-file", metrics.to_str().unwrap()]);
    assert_eq!(served.code, 0, "{}", served.all());
    let metrics = std::fs::read_to_string(metrics).unwrap();
    assert!(metrics.contains("credkeeper_recovered_total{database=\"main\",outcome=\"lost_after_delivery\"} 0\n"), "told once: {metrics}");
    site.mail_to("waits@visitors.example", Duration::from_secs(30)).await;
    assert_eq!(site.mails().len(), 70 + 71);
    everybody_knows_the_pin(&site, 160).await;
    assert_eq!(site.run(&["plan", "--exit-code"]).code, 0);
}

/// What was never mailed goes with the backup too, and the mail server comes back too late.
#[tokio::test(flavor = "multi_thread")]
async fn mail_that_waits_is_not_sent_of_a_restored_database_and_goes_where_the_newer_one_is_put_back() {
    let site = Site::with_people(160).await;
    let older = site.backup();
    site.stop_mail_server();
    assert_eq!(site.once(&[]).code, 4);
    let newer = site.backup();
    site.restore(&older);
    site.start_mail_server();
    assert_eq!(site.once(&[]).code, 3);
    let daemon = site.start(&[]);
    daemon.says("the database seems to have been restored", 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(daemon.stop().code, 0);
    assert_eq!(site.mails().len(), 0);
    // The right backup is found after all: nothing of the journal was thrown away meanwhile.
    site.restore(&newer);
    let right = site.once(&[]);
    assert_eq!(right.code, 0, "{}", right.all());
    assert_eq!(site.mails().len(), 70);
    everybody_knows_the_pin(&site, 160).await;
}

/// From the newest backwards, as a restore looks, but for what the same transactions changed besides.
#[tokio::test(flavor = "multi_thread")]
async fn pins_that_somebody_removed_are_no_restored_database() {
    let site = Site::with_people(160).await;
    assert_eq!(site.once(&[]).code, 0);
    site.sql("DELETE FROM users_cards WHERE card LIKE 'PIN%' AND user_id > 140").await;
    let few = site.once(&[]);
    assert_eq!(few.code, 0, "an everyday matter: {}", few.all());
    site.sql("DELETE FROM users_cards WHERE card LIKE 'PIN%'").await;
    let all = site.once(&["--format", "json"]);
    assert_eq!(all.code, 3, "{}", all.all());
    assert_eq!(reason(&all.stdout)[0]["limit"], "pinless_rise", "{}", all.all());
}

async fn name_of(site: &Site) -> String {
    site.rows("SELECT current_database()::text, ''").await.remove(0).0
}

#[tokio::test(flavor = "multi_thread")]
async fn another_database_is_adopted_by_name_and_the_same_one_under_another_name_loses_nothing() {
    let (site, other) = (Site::with_people(160).await, Site::with_people(160).await);
    assert_eq!(site.once(&[]).code, 0);
    // The same under another name, as after a move of the server.
    other.restore(&site.backup());
    let (first, second) = (format!("/{}\n", name_of(&site).await), format!("/{}\n", name_of(&other).await));
    let site = site.with_config(|yaml| yaml.replace(&first, &second));
    let refused = site.once(&[]);
    assert!(refused.code == 1 && refused.stderr.contains("`credkeeper journal adopt` with its name"), "{}", refused.all());
    let unknown = site.run(&["journal", "adopt", "nobody"]);
    assert!(unknown.code == 64 && unknown.stderr.contains("there is no database nobody in the configuration"), "{}", unknown.all());
    let adopted = site.run(&["journal", "adopt", "main"]);
    assert!(adopted.code == 0 && adopted.stdout.contains("Nobody was mailed anything that is gone."), "{}", adopted.all());
    let pass = site.once(&[]);
    assert_eq!((pass.code, site.mails().len()), (0, 70), "{}", pass.all());

    // And one that has nothing to do with it.
    let third = Site::with_people(160).await;
    let name = format!("/{}\n", name_of(&third).await);
    let site = site.with_config(|yaml| yaml.replace(&second, &name));
    assert_eq!(site.once(&[]).code, 1);
    let adopted = site.run(&["journal", "adopt", "main"]);
    assert!(adopted.code == 0 && adopted.stdout.contains("What these 70 mails told is gone"), "{}", adopted.all());
    assert_eq!((site.once(&[]).code, site.mails().len()), (0, 140));
}
