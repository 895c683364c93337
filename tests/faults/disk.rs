//! The journal's disk has no room, or takes a write no more: at any step. Nothing may be changed that the journal could not note before,
//! and whatever it could not note afterwards is repeated at most, never lost.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::Connection;

use crate::cases::{Cases, Kind};
use crate::invariants;
use crate::scenario::{Scenario, Stage, USERS, ended, had};
use crate::site::{Ended, is_long};

/// A site whose journal is there, and knows next to nothing.
async fn prepared(scenario: Scenario, small_batches: bool) -> Stage {
    let stage = Stage::new(scenario).await;
    let stage = if small_batches { stage.small_batches() } else { stage };
    // He has a PIN, and at most a code and a password to get: the run makes the journal.
    let run = ended(stage.start(&[], &["--once", "--user", "user2"])).await;
    assert!(matches!(run.code, 0 | 4), "{}", run.all());
    stage
}

fn journal(stage: &Stage) -> Connection {
    let journal = Connection::open(stage.journal_path()).unwrap();
    journal.busy_timeout(Duration::from_secs(5)).unwrap();
    journal
}

fn pages(stage: &Stage) -> u32 {
    let journal = journal(stage);
    journal.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    journal.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap()
}

/// Users who were given a PIN, by the database's own notes.
async fn given(stage: &Stage) -> i64 {
    let stood = (1..=USERS).filter(|user| had(*user) != crate::scenario::Had::Nothing).count() as i64;
    stage.site.number("SELECT count(*) FROM stood.pins").await - stood
}

/// Whose credentials stand in the database and are in no row of the journal: nobody could ever be told those.
async fn unknown(stage: &Stage) -> Vec<i64> {
    let changed = stage
        .site
        .rows("SELECT DISTINCT user_id::text, '' FROM (SELECT user_id FROM stood.pins EXCEPT ALL SELECT user_id FROM stood.at_first) x")
        .await;
    let journal = journal(stage);
    let known = |user: &i64| {
        let open = "SELECT count(*) FROM issuance i JOIN batch b ON b.id = i.batch WHERE i.user = ?1 AND coalesce(i.state, b.state) <> 'abandoned'";
        journal.query_row(open, [user], |row| row.get::<_, i64>(0)).unwrap() > 0
    };
    changed.into_iter().map(|(user, _)| user.parse().unwrap()).filter(|user| !known(user)).collect()
}

/// An exit code and a sentence with a remedy.
fn told(run: &Ended) {
    assert!(matches!(run.code, 1 | 4), "{}", run.all());
    assert!(run.all().contains("journal"), "{}", run.all());
    assert!(!run.stderr.contains("panicked"), "{}", run.all());
}

fn times(stage: &Stage) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    stage.mails().into_iter().for_each(|mail| *times.entry(format!("{} {}", mail.to, mail.text)).or_default() += 1);
    times
}

/// So many pages more than it has, and not one more: each number stops the run at another step.
#[tokio::test(flavor = "multi_thread")]
async fn full_at_any_step_of_a_run() {
    let mut cases = Cases::new("disk: full");
    let rooms: Vec<u32> = if is_long() { (0..40).collect() } else { vec![0, 1, 2, 3, 4, 6, 8, 10] };
    for scenario in Scenario::ALL {
        for room in rooms.iter().copied() {
            cases.add(format!("{scenario:?}, room for {room} pages"), Kind::Busy, async move {
                let stage = prepared(scenario, room > 0).await;
                stage.site.sql("CREATE TABLE stood.at_first AS TABLE stood.pins").await;
                let before = given(&stage).await;
                let most = (pages(&stage) + room).to_string();
                let run = ended(stage.start(&[("CREDKEEPER_FAULT_JOURNAL_PAGES", &most)], &["--once"])).await;
                let full = run.all().contains("database or disk is full");
                assert!(full || run.code == 0, "{}", run.all());
                assert!(room > 1 || full, "with so little room it must fail: {}", run.all());
                // The end of a pass that is not noted is a warning: everything else was done.
                if full && run.code != 0 {
                    told(&run);
                    let sentence = "make room on the journal's disk; until then nothing is changed in the database";
                    assert!(run.code != 1 || run.all().contains(sentence), "what to do: {}", run.all());
                }
                if room == 0 {
                    assert_eq!(run.code, 1, "{}", run.all());
                    assert_eq!(given(&stage).await, before, "nothing is changed: {}", run.all());
                }
                assert_eq!(unknown(&stage).await, Vec::<i64>::new(), "{}", run.all());
                let settled = stage.settle().await;
                assert_eq!(settled.code, 0, "with room again: {}", settled.all());
                assert!(times(&stage).values().all(|times| *times <= 2), "repeated at most once");
                invariants::check(&stage, &[]).await;
            });
        }
    }
    cases.end().await;
}

/// The kernel takes no byte beyond a limit of the file's length: the write-ahead log can grow no further, in the middle of anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_at_any_step_of_a_run() {
    let mut cases = Cases::new("disk: a write fails");
    let scenarios = if is_long() { &Scenario::ALL[..] } else { &[Scenario::Pin, Scenario::Everything] };
    for scenario in scenarios.iter().copied() {
        // The journal of an empty site has about 150 blocks of 512 bytes.
        let rooms: Vec<u64> = if is_long() { (150..600).step_by(9).collect() } else { (160..460).step_by(25).collect() };
        for blocks in rooms {
            cases.add(format!("{scenario:?}, {blocks} blocks a file"), Kind::Busy, async move {
                let stage = prepared(scenario, true).await;
                stage.site.sql("CREATE TABLE stood.at_first AS TABLE stood.pins").await;
                pages(&stage);
                let run = ended(stage.start_with_room(blocks, &["--once"])).await;
                if run.code != 0 {
                    told(&run);
                }
                assert_eq!(unknown(&stage).await, Vec::<i64>::new(), "{}", run.all());
                let settled = stage.settle().await;
                assert_eq!(settled.code, 0, "with room again: {}", settled.all());
                assert!(times(&stage).values().all(|times| *times <= 2), "repeated at most once");
                invariants::check(&stage, &[]).await;
                println!("{scenario:?}, {blocks} blocks: exit code {}", run.code);
            });
        }
    }
    cases.end().await;
}

/// Somebody makes room while the daemon runs: it goes on without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_goes_on_once_there_is_room() {
    let mut cases = Cases::new("disk: a daemon");
    for scenario in Scenario::ALL {
        cases.add(format!("{scenario:?}, a daemon"), Kind::Waiting, async move {
            let stage = prepared(scenario, false).await;
            // What fills the disk, and is taken away later.
            journal(&stage).execute_batch("CREATE TABLE filler (x); INSERT INTO filler VALUES (zeroblob(400000))").unwrap();
            let before = given(&stage).await;
            let most = pages(&stage).to_string();
            let daemon = stage.start(&[("CREDKEEPER_FAULT_JOURNAL_PAGES", &most)], &[]);
            stage.until("it says that the disk is full", &daemon, || daemon.log().contains("disk is full")).await;
            assert_eq!(given(&stage).await, before, "nothing is changed:\n{}", daemon.log());
            journal(&stage).execute_batch("DROP TABLE filler").unwrap();
            invariants::check_when_told(&stage, daemon).await;
        });
    }
    cases.end().await;
}

/// Something else keeps the journal locked when the mail server has answered: the answers are told later, and no mail goes twice.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_mail_server_took_is_noted_once_the_journal_can_be_written() {
    let mut cases = Cases::new("disk: locked");
    cases.add("Pin, locked at the answers".to_owned(), Kind::Waiting, async move {
        let stage = prepared(Scenario::Pin, false).await;
        let server = stage.scripted.as_ref().unwrap();
        // The last answer is slow to come, so that there is time to lock.
        let slow = crate::scripted::Deed::Slow(Duration::from_millis(800));
        server.set(Some(crate::scripted::Fault { at: crate::scripted::Phase::Dot, deed: slow, to: None }));
        let daemon = stage.start(&[], &[]);
        stage.until("a mail is with the server", &daemon, || server.met() > 0).await;
        let lock = journal(&stage);
        lock.execute_batch("BEGIN IMMEDIATE").unwrap();
        server.set(None);
        stage.until("the journal cannot be written", &daemon, || daemon.log().contains("Delivery rests for a moment")).await;
        lock.execute_batch("ROLLBACK").unwrap();
        invariants::check_when_told(&stage, daemon).await;
        assert!(times(&stage).values().all(|times| *times == 1), "no mail came twice: {:?}", times(&stage).values());
    });
    cases.end().await;
}
