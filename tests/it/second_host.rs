//! Two instances on one database with a journal each, which is what two hosts are: not supported, and to be noticed.

use crate::site::{Site, Step};

#[tokio::test(flavor = "multi_thread")]
async fn doctor_warns_of_a_leader_that_has_another_journal() {
    let site = Site::with_people(32).await;
    let idle = site.run(&["doctor"]);
    assert!(idle.stdout.contains("no instance is at work on the database"), "{}", idle.all());
    let leading = site.start(&[]);
    leading.until(Step::Ready).await;
    let own = site.run(&["doctor"]);
    assert!(own.stdout.contains("the instance that has this journal leads"), "{}", own.all());

    // As the other host would have it: another folder, so another journal.
    let site = site
        .listening_elsewhere()
        .with_config(|yaml| yaml.replace("path: journal.db", "path: other.db").replace("journal.key", "other.key"));
    let other = site.run(&["doctor"]);
    let warned =
        |line: &&str| line.starts_with("warning") && line.contains("an instance at 127.0.0.1 leads that has another journal than this one");
    assert_eq!(other.stdout.lines().filter(warned).count(), 1, "{}", other.all());
    assert!(other.code == 0 && other.stdout.contains("A standby belongs on the same host"), "{}", other.all());

    // And where that instance is up, and stands by.
    let standby = site.start(&[]);
    standby.says("Standing by: another instance leads", 1).await;
    assert_eq!(leading.stop().code, 0);
    standby.says("Pass ended", 1).await;
    let taken_over = site.run(&["doctor"]);
    assert!(taken_over.stdout.contains("the instance that has this journal leads"), "{}", taken_over.all());
    assert_eq!(standby.stop().code, 0);
}
