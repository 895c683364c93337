//! A daemon that stands by takes over from the one that leads, whichever way that ended, before half a minute is over (R26).
#![cfg(unix)]

use std::time::{Duration, Instant};

use crate::site::{Process, Site, Step};

const TAKEOVER: Duration = Duration::from_secs(30);

/// A visitor who comes just after `end` has ended the leader; what it took until he had his mail.
async fn taken_over(site: &Site, leader: Process, standby: Process, end: impl FnOnce(Process)) -> Duration {
    standby.says("Standing by", 1).await;
    site.add_visitor("before@visitors.example").await;
    site.mail_to("before@visitors.example", TAKEOVER).await;
    let ended = Instant::now();
    end(leader);
    site.add_visitor("after@visitors.example").await;
    site.mail_to("after@visitors.example", TAKEOVER).await;
    let took = ended.elapsed();
    assert!(took < TAKEOVER, "{took:?}: {}", standby.log());
    let ended = standby.stop();
    assert_eq!(ended.code, 0, "{}", ended.all());
    assert_eq!(ended.stderr.matches("Leading on database").count(), 1, "{}", ended.all());
    assert_eq!(site.number("SELECT count(*) FROM users_cards").await, 2, "one PIN each");
    assert_eq!(site.mails().len(), 2, "one mail each");
    took
}

fn killed(leader: Process) {
    assert!(leader.kill(), "it had ended by itself");
}

fn stopped(leader: Process) {
    let ended = leader.stop();
    assert_eq!(ended.code, 0, "{}", ended.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_leader_that_was_killed_or_stopped_on_the_same_host() {
    for (how, end) in [("SIGKILL", killed as fn(Process)), ("SIGTERM", stopped)] {
        let site = Site::empty().await;
        let leader = site.start(&[]);
        leader.until(Step::Ready).await;
        let site = site.listening_elsewhere();
        let standby = site.start(&[]);
        let took = taken_over(&site, leader, standby, end).await;
        println!("after {how}, with the same journal: the next visitor has his mail after {:.1} s", took.as_secs_f64());
    }
}

/// The lead alone, which the database lets go when the session is cut.
#[tokio::test(flavor = "multi_thread")]
async fn from_a_leader_with_another_journal() {
    for (how, end) in [("SIGKILL", killed as fn(Process)), ("SIGTERM", stopped)] {
        let site = Site::empty().await;
        let leader = site.start(&[]);
        leader.until(Step::Ready).await;
        let site =
            site.listening_elsewhere().with_config(|yaml| yaml.replace("journal.db", "other.db").replace("journal.key", "other.key"));
        let standby = site.start(&[]);
        let took = taken_over(&site, leader, standby, end).await;
        println!("after {how}, with another journal: the next visitor has his mail after {:.1} s", took.as_secs_f64());
    }
}
