//! A mail server that says something else than yes, at each place of the conversation, and what the journal makes of it: whose fault it is,
//! whether it is tried again, and whom it holds up. Then the server is well, and everything that can end delivered does.

use std::sync::Arc;
use std::time::Duration;

use crate::cases::{Cases, Kind};
use crate::certificates::Authority;
use crate::invariants;
use crate::scenario::{Scenario, Stage, USERS, stopped};
use crate::scripted::Deed::{Close, Inject, Lose, Reset, Say, Silence, Slow, Strip};
use crate::scripted::{Deed, Fault, Phase, Scripted};

/// What the journal is to say after the run in which it happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// Nothing was wrong.
    Served,
    /// The mail waits for another try, and this one counts.
    Later,
    /// The site is at fault: the mail waits, and nothing counts against anybody.
    Site,
    /// The user cannot be reached, for the reason with this code.
    Never(u16),
}
use Verdict::{Later, Never, Served, Site};

const SOON: Deed = Slow(Duration::from_millis(300));
const GARBAGE: Deed = Say("what do you want");

/// What concerns everybody: before the server knows for whom the mail is.
const OF_ALL: &[(Phase, Deed, Verdict)] = &[
    (Phase::Greeting, Close, Site),
    (Phase::Greeting, Reset, Site),
    (Phase::Greeting, Silence, Site),
    (Phase::Greeting, SOON, Served),
    (Phase::Greeting, GARBAGE, Site),
    (Phase::Greeting, Say("421 4.3.2 too busy"), Site),
    (Phase::Greeting, Say("450 4.7.1 not you, not now"), Site),
    (Phase::Greeting, Say("554 5.7.1 not you"), Site),
    (Phase::Greeting, Say("550 5.1.1 not you"), Site),
    (Phase::Hello, Close, Site),
    (Phase::Hello, Reset, Site),
    (Phase::Hello, Silence, Site),
    (Phase::Hello, SOON, Served),
    (Phase::Hello, GARBAGE, Site),
    (Phase::Hello, Say("421 4.3.2 too busy"), Site),
    (Phase::Hello, Say("451 4.3.0 not now"), Site),
    (Phase::Hello, Say("550 5.7.1 not you"), Site),
    (Phase::Hello, Say("550 5.1.1 not you"), Site),
    (Phase::Mail, Close, Site),
    (Phase::Mail, Reset, Site),
    (Phase::Mail, Silence, Site),
    (Phase::Mail, SOON, Served),
    (Phase::Mail, GARBAGE, Site),
    (Phase::Mail, Say("421 4.3.2 shutting down"), Site),
    (Phase::Mail, Say("450 4.7.1 not now"), Later),
    (Phase::Mail, Say("451 4.3.0 not now"), Later),
    (Phase::Mail, Say("452 4.3.1 disk full"), Later),
    (Phase::Mail, Say("550 sender refused"), Site),
    (Phase::Mail, Say("550 5.1.1 nobody"), Site),
    (Phase::Mail, Say("553 5.1.7 bad sender"), Site),
    (Phase::Mail, Say("550 5.1.8 no such sender"), Site),
    (Phase::Mail, Say("552 5.2.2 quota"), Site),
    (Phase::Mail, Say("530 5.7.0 log in first"), Site),
    (Phase::Mail, Say("550 5.7.1 may not send"), Site),
];

/// What concerns one user's mail: all others are to be delivered in the same run.
const OF_ONE: &[(Phase, Deed, Verdict)] = &[
    (Phase::Rcpt, Close, Site),
    (Phase::Rcpt, Reset, Site),
    (Phase::Rcpt, Silence, Site),
    (Phase::Rcpt, SOON, Served),
    (Phase::Rcpt, GARBAGE, Site),
    (Phase::Rcpt, Say("421 4.3.2 shutting down"), Later),
    (Phase::Rcpt, Say("450 4.1.1 greylisted"), Later),
    (Phase::Rcpt, Say("450 4.2.1 mailbox busy"), Later),
    (Phase::Rcpt, Say("451 4.7.1 greylisted"), Later),
    (Phase::Rcpt, Say("452 4.2.2 mailbox full"), Later),
    (Phase::Rcpt, Say("550 nobody"), Never(550)),
    (Phase::Rcpt, Say("550 5.1.1 nobody"), Never(550)),
    (Phase::Rcpt, Say("553 5.1.3 bad address"), Never(553)),
    (Phase::Rcpt, Say("550 5.1.10 no mail there"), Never(550)),
    (Phase::Rcpt, Say("550 5.4.1 not found in the directory"), Never(550)),
    (Phase::Rcpt, Say("551 5.1.6 moved"), Never(551)),
    (Phase::Rcpt, Say("553 5.1.7 bad sender"), Site),
    (Phase::Rcpt, Say("550 5.1.8 no such sender"), Site),
    (Phase::Rcpt, Say("550 5.2.1 disabled"), Site),
    (Phase::Rcpt, Say("552 5.2.2 mailbox full"), Site),
    (Phase::Rcpt, Say("550 5.7.1 relaying denied"), Site),
    (Phase::Rcpt, Say("554 5.7.1 relaying denied"), Site),
    (Phase::Rcpt, Say("503 order of commands"), Site),
    (Phase::Rcpt, Say("530 log in first"), Site),
    (Phase::Data, Close, Site),
    (Phase::Data, Reset, Site),
    (Phase::Data, Silence, Site),
    (Phase::Data, SOON, Served),
    (Phase::Data, GARBAGE, Site),
    (Phase::Data, Say("421 4.3.2 shutting down"), Later),
    (Phase::Data, Say("451 4.3.0 not now"), Later),
    (Phase::Data, Say("550 5.1.1 nobody"), Never(550)),
    (Phase::Data, Say("554 no"), Site),
    (Phase::Data, Say("552 5.2.3 too long"), Site),
    (Phase::Data, Say("554 5.7.1 refused by policy"), Site),
    (Phase::Dot, Close, Later),
    (Phase::Dot, Reset, Later),
    (Phase::Dot, Lose, Later),
    (Phase::Dot, Silence, Later),
    (Phase::Dot, SOON, Served),
    (Phase::Dot, GARBAGE, Later),
    (Phase::Dot, Say("421 4.3.2 shutting down"), Later),
    (Phase::Dot, Say("451 4.3.0 not now"), Later),
    (Phase::Dot, Say("452 4.2.2 mailbox full"), Later),
    (Phase::Dot, Say("550 5.1.1 nobody after all"), Never(550)),
    (Phase::Dot, Say("550 no"), Site),
    (Phase::Dot, Say("552 5.2.2 mailbox full"), Site),
    (Phase::Dot, Say("552 5.3.4 too large"), Site),
    (Phase::Dot, Say("554 5.6.0 not like that"), Site),
    (Phase::Dot, Say("554 5.7.1 spam"), Site),
];

const OF_TLS: &[(Deed, Verdict)] = &[
    (Close, Site),
    (Reset, Site),
    (Silence, Site),
    (SOON, Served),
    (GARBAGE, Site),
    (Strip, Site),
    (Inject, Site),
    (Say("421 4.3.2 shutting down"), Site),
    (Say("454 4.7.0 no TLS now"), Site),
    (Say("501 5.5.4 no parameters"), Site),
    (Say("502 5.5.1 not known"), Site),
    (Say("550 5.1.1 nobody"), Site),
];

/// Of whom `OF_ONE` tells.
const USER: i64 = 3;

/// What the journal says of a user's mail: state, tries that count, reply.
fn said(stage: &Stage, user: i64) -> (String, u32, Option<u16>) {
    let journal = rusqlite::Connection::open_with_flags(stage.journal_path(), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    journal
        .query_row(
            "SELECT coalesce(i.state, b.state), i.attempts, i.reply FROM issuance i JOIN batch b ON b.id = i.batch WHERE i.user = ?1",
            [user],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap()
}

fn mailed() -> impl Iterator<Item = i64> {
    (1..=USERS).filter(|user| Scenario::Pin.told(*user).is_some())
}

fn kind(deed: Deed, verdict: Verdict) -> Kind {
    if deed == Silence || verdict == Site { Kind::Waiting } else { Kind::Busy }
}

fn one_connection(stage: Stage) -> Stage {
    stage.configured(|yaml| yaml.replace("connections: 2", "connections: 1"))
}

async fn heal(stage: &Stage, unreachable: &[i64]) {
    stage.scripted.as_ref().unwrap().set(None);
    let settled = stage.settle().await;
    assert_eq!(settled.code, 0, "once the server is well: {}", settled.all());
    invariants::check(stage, unreachable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_concerns_everybody_counts_against_nobody() {
    let mut cases = Cases::new("phases: everybody");
    for (at, deed, verdict) in OF_ALL.iter().copied() {
        cases.add(format!("{at:?}: {deed:?}, expected {verdict:?}"), kind(deed, verdict), async move {
            let stage = one_connection(Stage::new(Scenario::Pin).await);
            let server = stage.scripted.as_ref().unwrap();
            server.set(Some(Fault { at, deed, to: None }));
            let first = stage.once().await;
            assert!(server.met() > 0, "{}", first.all());
            let after: Vec<_> = mailed().map(|user| said(&stage, user)).collect();
            let all = |state: &str| after.iter().all(|(is, ..)| is == state);
            let tries: u32 = after.iter().map(|(_, tries, _)| tries).sum();
            if verdict == Served {
                assert!(first.code == 0 && all("delivered"), "{}", first.all());
            } else {
                assert_eq!(first.code, 4, "{}", first.all());
                assert!(all("committed"), "{after:?}\n{}", first.all());
                assert_eq!(tries > 0, verdict == Later, "tries that count: {after:?}\n{}", first.all());
                assert!(stage.mails().is_empty());
                let pauses = first.stderr.matches("No mail goes for").count();
                assert!(pauses > 0, "mail pauses, and the log says so: {}", first.all());
                assert!(server.met() <= 8, "a server that refuses everybody is asked once a pause, and was {} times", server.met());
            }
            heal(&stage, &[]).await;
        });
    }
    cases.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_concerns_one_user_holds_up_no_other() {
    let mut cases = Cases::new("phases: one user");
    for (at, deed, verdict) in OF_ONE.iter().copied() {
        cases.add(format!("{at:?}: {deed:?}, expected {verdict:?}"), kind(deed, verdict), async move {
            let stage = one_connection(Stage::new(Scenario::Pin).await);
            let server = stage.scripted.as_ref().unwrap();
            server.set(Some(Fault { at, deed, to: Some(stage.address(USER)) }));
            let first = stage.once().await;
            assert!(server.met() > 0, "{}", first.all());
            let (state, tries, reply) = said(&stage, USER);
            let (wanted, counts) = match verdict {
                Served => ("delivered", true),
                Later => ("committed", true),
                Site => ("committed", false),
                Never(_) => ("undeliverable", true),
            };
            assert_eq!((state.as_str(), tries > 0), (wanted, counts), "{}", first.all());
            if let Never(code) = verdict {
                assert_eq!(reply, Some(code));
            }
            assert_eq!(first.code, if verdict == Served { 0 } else { 4 }, "{}", first.all());
            let waiting: Vec<i64> = mailed().filter(|user| *user != USER && said(&stage, *user).0 != "delivered").collect();
            assert!(waiting.is_empty(), "others wait for one user's mail (I7): {waiting:?}\n{}", first.all());
            heal(&stage, if matches!(verdict, Never(_)) { &[USER] } else { &[] }).await;
        });
    }
    cases.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_where_encryption_was_asked_for_and_is_not_given() {
    let authority = Arc::new(Authority::new("Authority of the suite"));
    let mut cases = Cases::new("phases: STARTTLS");
    for (deed, verdict) in OF_TLS.iter().copied() {
        let authority = authority.clone();
        cases.add(format!("StartTls: {deed:?}, expected {verdict:?}"), kind(deed, verdict), async move {
            let scripted = Scripted::start(Some(&authority.sign("127.0.0.1"))).await;
            let stage = one_connection(Stage::with(Scenario::Pin, scripted).await)
                .configured(|yaml| yaml.replace("tls: none", &format!("tls: starttls\n  ca_file: {}", authority.pem().display())));
            let server = stage.scripted.as_ref().unwrap();
            server.set(Some(Fault { at: Phase::StartTls, deed, to: None }));
            let first = stage.once().await;
            assert!(server.met() > 0, "{}", first.all());
            assert_eq!(first.code, if verdict == Served { 0 } else { 4 }, "{}", first.all());
            let after: Vec<_> = mailed().map(|user| said(&stage, user)).collect();
            let wanted = if verdict == Served { ("delivered", 1) } else { ("committed", 0) };
            assert!(after.iter().all(|(state, tries, _)| (state.as_str(), *tries) == wanted), "{after:?}\n{}", first.all());
            heal(&stage, &[]).await;
            let clear = stage.scripted.as_ref().unwrap().in_the_clear();
            assert!(clear.iter().all(|line| line.starts_with("EHLO ") || line == "STARTTLS"), "said in the clear: {clear:?}");
        });
    }
    cases.end().await;
}

/// The same daemon, without a restart, once the server is well.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_goes_on_by_itself() {
    let mut cases = Cases::new("phases: a daemon");
    for at in [Phase::Greeting, Phase::Hello, Phase::Mail, Phase::Rcpt, Phase::Data, Phase::Dot] {
        for deed in [Reset, Silence, Say("451 4.3.0 not now"), Say("554 5.7.1 not you")] {
            cases.add(format!("{at:?}: {deed:?}, under a daemon"), Kind::Waiting, async move {
                let stage = Stage::new(Scenario::Pin).await;
                let server = stage.scripted.as_ref().unwrap();
                let of_one = matches!(at, Phase::Rcpt | Phase::Data | Phase::Dot);
                server.set(Some(Fault { at, deed, to: of_one.then(|| stage.address(USER)) }));
                let daemon = stage.start(&[], &[]);
                stage.until("it comes to the place", &daemon, || server.met() > 0).await;
                tokio::time::sleep(Duration::from_millis(500)).await;
                server.set(None);
                stage.all_told(&daemon).await;
                let ended = stopped(daemon).await;
                assert_eq!(ended.code, 0, "{}", ended.all());
                heal(&stage, &[]).await;
            });
        }
    }
    cases.end().await;
}
