//! The connection to the database breaks at a statement: before the server has it, or when its answer is on the way.

use std::time::{Duration, Instant};

use crate::cases::{Cases, Kind};
use crate::invariants;
use crate::proxy::{Deed, Moment, Proxy, Trap};
use crate::scenario::{Scenario, Stage, USERS};
use crate::site::is_long;

const BEGIN: &[u8] = b"BEGIN ISOLATION LEVEL READ COMMITTED";
/// What the program says to the database, in the order of a pass.
const STATEMENTS: [(&str, &[u8]); 6] = [
    ("the login", b"database\0"),
    ("the first statement", b"set_config(s.name"),
    ("BEGIN", BEGIN),
    ("the write lock", b"pg_advisory_xact_lock"),
    ("the first change", b"INSERT INTO"),
    ("COMMIT", b"COMMIT\0"),
];
const MOMENTS: [Moment; 2] = [Moment::Before, Moment::Answer];
/// Shorter than any deadline of the site.
const STALL: Deed = Deed::Stall(Duration::from_millis(600));

/// A COMMIT of a change, not one of the look whether a pooler stands between.
fn before(what: &str) -> &'static [u8] {
    if what == "COMMIT" { BEGIN } else { b"" }
}

async fn behind(scenario: Scenario, trap: Trap) -> (Stage, Proxy) {
    let stage = Stage::new(scenario).await;
    let proxy = Proxy::start(stage.site.database_port(), trap).await;
    let (before, after) = (format!(":{}/", stage.site.database_port()), format!(":{}/", proxy.port));
    (stage.configured(|yaml| yaml.replace(&before, &after)), proxy)
}

/// Users to whom something of the scenario has been done.
async fn changed(stage: &Stage) -> i64 {
    let noted = stage.site.number("SELECT count(*) FROM stood.pins").await;
    // A row for each PIN that stood there in the beginning, and one for each that was written since.
    let stood = (1..=USERS).filter(|user| crate::scenario::had(*user) != crate::scenario::Had::Nothing).count() as i64;
    noted - stood
}

#[tokio::test(flavor = "multi_thread")]
async fn at_any_statement_of_a_run() {
    let mut cases = Cases::new("database: a run");
    for (what, text) in STATEMENTS {
        for moment in MOMENTS {
            for deed in [Deed::Cut, STALL, Deed::Swallow] {
                let kind = if deed == Deed::Swallow { Kind::Waiting } else { Kind::Busy };
                cases.add(format!("{what}, {moment:?}, {deed:?}"), kind, async move {
                    let (stage, proxy) = behind(Scenario::Pin, Trap { text, after: before(what), moment, deed, for_all: false }).await;
                    let first = stage.once().await;
                    assert_eq!(proxy.sprung(), 1, "{}", first.all());
                    assert!(!first.stderr.contains("panicked"), "{}", first.all());
                    match (what, deed) {
                        (_, Deed::Stall(_)) => assert_eq!(first.code, 0, "waiting was enough: {}", first.all()),
                        ("COMMIT", _) => {
                            assert_eq!(first.code, 1, "{}", first.all());
                            let landed = changed(&stage).await > 0;
                            assert_eq!(landed, moment == Moment::Answer, "what the database has: {}", first.all());
                            assert!(stage.mails().is_empty(), "nobody knows yet whether it stands");
                        }
                        // A session that is only asked what it is may be replaced at once.
                        _ => {
                            assert!(matches!(first.code, 0 | 1), "{}", first.all());
                            assert!(first.code == 0 || changed(&stage).await == 0, "nothing is changed: {}", first.all());
                        }
                    }
                    let second = stage.once().await;
                    assert_eq!(second.code, 0, "{}\nafter {}", second.all(), first.all());
                    invariants::check(&stage, &[]).await;
                });
            }
        }
    }
    cases.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_commit_of_any_scenario() {
    let mut cases = Cases::new("database: COMMIT");
    for scenario in [Scenario::Everything, Scenario::Extension] {
        for moment in MOMENTS {
            for deed in [Deed::Cut, Deed::Swallow] {
                let kind = if deed == Deed::Swallow { Kind::Waiting } else { Kind::Busy };
                cases.add(format!("{scenario:?}, {moment:?}, {deed:?}"), kind, async move {
                    let (stage, proxy) = behind(scenario, Trap { text: b"COMMIT\0", after: BEGIN, moment, deed, for_all: false }).await;
                    let first = stage.once().await;
                    assert_eq!((first.code, proxy.sprung()), (1, 1), "{}", first.all());
                    let second = stage.once().await;
                    assert_eq!(second.code, 0, "{}", second.all());
                    invariants::check(&stage, &[]).await;
                });
            }
        }
    }
    cases.end().await;
}

/// The server never hears that we have gone, and keeps the transaction with its lock until its own limit for idle ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_outlives_its_client_is_waited_for() {
    let mut cases = Cases::new("database: a forsaken transaction");
    let scenarios = if is_long() { &Scenario::ALL[..] } else { &[Scenario::Pin] };
    for scenario in scenarios.iter().copied() {
        cases.add(format!("{scenario:?}, COMMIT never arrives"), Kind::Waiting, async move {
            let trap = Trap { text: b"COMMIT\0", after: BEGIN, moment: Moment::Before, deed: Deed::Forsake, for_all: false };
            let (stage, _proxy) = behind(scenario, trap).await;
            let first = stage.once().await;
            assert_eq!(first.code, 1, "{}", first.all());
            let second = stage.once().await;
            assert_eq!(second.code, 1, "the lock is still held: {}", second.all());
            assert!(second.stderr.contains("write lock"), "{}", second.all());
            let until = Instant::now() + Duration::from_secs(60);
            loop {
                let again = stage.once().await;
                match again.code {
                    0 => break,
                    code => assert!(code == 1 && Instant::now() < until, "the server lets go after half a minute: {}", again.all()),
                }
            }
            invariants::check(&stage, &[]).await;
        });
    }
    cases.end().await;
}

/// The same daemon, without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_goes_on_by_itself() {
    let mut cases = Cases::new("database: a daemon");
    for (what, text) in STATEMENTS.into_iter().filter(|(what, _)| matches!(*what, "the first statement" | "BEGIN" | "COMMIT")) {
        for moment in MOMENTS {
            for (deed, for_all) in [(Deed::Cut, false), (Deed::Cut, true), (Deed::Swallow, false), (Deed::Swallow, true)] {
                cases.add(format!("{what}, {moment:?}, {deed:?}, for all: {for_all}"), Kind::Waiting, async move {
                    let (stage, proxy) = behind(Scenario::Pin, Trap { text, after: before(what), moment, deed, for_all }).await;
                    let daemon = stage.start(&[], &[]);
                    stage.until("it comes to the statement", &daemon, || proxy.sprung() == 1).await;
                    if for_all {
                        tokio::time::sleep(Duration::from_secs(3)).await;
                        proxy.heal();
                    }
                    invariants::check_when_told(&stage, daemon).await;
                });
            }
        }
    }
    cases.end().await;
}
