//! The connection to a mail server that is well breaks: before the server has the mail, or when its answer is on the way. The server is
//! aiosmtpd, as in the other tests.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cases::{Cases, Kind};
use crate::invariants;
use crate::proxy::{Deed, Moment, Proxy, Trap};
use crate::scenario::{Scenario, Stage};

const PLACES: [(&str, &[u8]); 3] = [("EHLO", b"EHLO "), ("MAIL FROM", b"MAIL FROM:"), ("the final dot", b"\r\n.\r\n")];
const MOMENTS: [Moment; 2] = [Moment::Before, Moment::Answer];
const STALL: Deed = Deed::Stall(Duration::from_millis(400));

async fn behind(scenario: Scenario, trap: Trap) -> (Stage, Proxy) {
    let stage = Stage::with_aiosmtpd(scenario).await;
    let proxy = Proxy::start(stage.site.mail_port(), trap).await;
    let (before, after) = (format!("port: {}\n", stage.site.mail_port()), format!("port: {}\n", proxy.port));
    (stage.configured(|yaml| yaml.replace(&before, &after)), proxy)
}

/// How many mails came more than once.
fn repeated(stage: &Stage) -> usize {
    let mut times = BTreeMap::<String, usize>::new();
    stage.mails().iter().for_each(|mail| *times.entry(format!("{} {}", mail.to, mail.text)).or_default() += 1);
    times.values().filter(|times| **times > 1).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_run() {
    let mut cases = Cases::new("relay: a run");
    for scenario in Scenario::ALL {
        for (what, text) in PLACES.into_iter().filter(|(what, _)| scenario == Scenario::Pin || *what == "the final dot") {
            for moment in MOMENTS {
                for deed in [Deed::Cut, STALL, Deed::Swallow] {
                    let kind = if deed == Deed::Swallow { Kind::Waiting } else { Kind::Busy };
                    cases.add(format!("{scenario:?}, {what}, {moment:?}, {deed:?}"), kind, async move {
                        let (stage, proxy) = behind(scenario, Trap { text, after: b"", moment, deed, for_all: false }).await;
                        let first = stage.once().await;
                        assert_eq!(proxy.sprung(), 1, "{}", first.all());
                        // Before the final dot nothing is uncertain: the mail goes over another connection in the same run.
                        let uncertain = what == "the final dot" && !matches!(deed, Deed::Stall(_));
                        assert_eq!(first.code, if uncertain { 4 } else { 0 }, "{}", first.all());
                        let second = stage.settle().await;
                        assert_eq!(second.code, 0, "{}", second.all());
                        let twice = usize::from(uncertain && moment == Moment::Answer);
                        assert_eq!(repeated(&stage), twice, "mails that came twice");
                        invariants::check(&stage, &[]).await;
                    });
                }
            }
        }
    }
    cases.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_daemon() {
    let mut cases = Cases::new("relay: a daemon");
    for (what, text) in [PLACES[0], PLACES[2]] {
        for moment in MOMENTS {
            for (deed, for_all) in [(Deed::Cut, false), (Deed::Cut, true), (Deed::Swallow, false), (Deed::Swallow, true)] {
                cases.add(format!("{what}, {moment:?}, {deed:?}, for all: {for_all}"), Kind::Waiting, async move {
                    let (stage, proxy) = behind(Scenario::Pin, Trap { text, after: b"", moment, deed, for_all }).await;
                    let daemon = stage.start(&[], &[]);
                    stage.until("it comes to the place", &daemon, || proxy.sprung() == 1).await;
                    if for_all {
                        tokio::time::sleep(Duration::from_secs(2)).await;
                        proxy.heal();
                    }
                    invariants::check_when_told(&stage, daemon).await;
                    let lost = what == "the final dot" && moment == Moment::Answer;
                    // With two connections a second mail may have been on its way when all were cut.
                    assert!(repeated(&stage) <= usize::from(lost) * 2, "{} mails came twice", repeated(&stage));
                });
            }
        }
    }
    cases.end().await;
}
