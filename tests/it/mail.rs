//! The courier against a real SMTP server, and into a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use credkeeper::config::{Encryption, MailConfig, Sender, SmtpConfig, TransportConfig};
use credkeeper::domain::{IssuanceId, Limit, Mailbox, Secret};
use credkeeper::mail::{Answer, Courier, Deadlines, Delivery, MailError, Outgoing, State, Timing, probe};

use crate::bounded::until;
use crate::site::at_most;
use crate::smtp::SmtpServer;

pub fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).expect(text)
}

pub fn config(transport: TransportConfig) -> MailConfig {
    MailConfig {
        transport,
        from: Some(Sender { name: Some("Tisk & Print".into()), address: mailbox("print@example.com") }),
        envelope_from: Some(mailbox("bounces@example.com")),
        redirect_to: None,
        give_up_after: Duration::from_secs(48 * 3600),
        take_back: true,
    }
}

fn smtp(port: u16, connections: usize) -> MailConfig {
    let timeout = Duration::from_secs(30);
    let (encryption, login) = (Encryption::None, None);
    config(TransportConfig::Smtp(Box::new(SmtpConfig {
        host: "localhost".into(),
        port,
        hello_name: None,
        connections,
        timeout,
        encryption,
        login,
    })))
}

/// Pauses too short to notice, and an answer to the final dot within a second.
pub fn quick() -> Timing {
    let long = Duration::from_secs(20);
    Timing {
        deadlines: Some(Deadlines { connect: long, greeting: long, command: long, accepted: Duration::from_secs(1) }),
        first_pause: Duration::from_millis(20),
        longest_pause: Duration::from_millis(100),
    }
}

pub fn mail(id: i64, to: &str) -> Outgoing {
    Outgoing {
        id: IssuanceId(id),
        recipient: mailbox(to),
        message_id: format!("{id}@credkeeper.example.com"),
        subject: format!("Your PIN {id}"),
        text: Secret::new(format!("PIN {id:06}\n.\n..\nend\n")),
        html: None,
        not_after: None,
    }
}

/// Gives the mails, a paused one again after the pause, and returns all answers in the order of the mails.
pub async fn send(courier: &mut Courier, mails: Vec<Outgoing>) -> Vec<Answer> {
    let wanted: Vec<_> = mails.iter().map(|mail| mail.id).collect();
    let by_id: BTreeMap<_, _> = mails.iter().map(|mail| (mail.id, mail.clone())).collect();
    let (mut waiting, mut done) = (mails.into_iter().rev().collect::<Vec<_>>(), BTreeMap::new());
    let end = tokio::time::Instant::now() + at_most();
    while done.len() < wanted.len() {
        let paused = match courier.state() {
            State::PausedUntil(until) => Some(until),
            State::Open | State::Probing => None,
        };
        let resumed = async {
            match paused {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            permit = courier.outgoing.reserve(), if !waiting.is_empty() && paused.is_none() => {
                permit.expect("the courier runs").send(waiting.pop().expect("one waits"));
            }
            Some(answer) = courier.answers.recv() => match answer.delivery {
                Delivery::NotTried => waiting.push(by_id[&answer.id].clone()),
                _ => assert!(done.insert(answer.id, answer).is_none(), "two answers for one mail"),
            },
            () = resumed => {}
            () = tokio::time::sleep_until(end) => panic!("{} of {} answers within {:?}", done.len(), wanted.len(), at_most()),
        }
    }
    wanted.into_iter().map(|id| done.remove(&id).expect("each mail has its answer")).collect()
}

pub async fn send_one(courier: &mut Courier, id: i64, to: &str) -> Delivery {
    send(courier, vec![mail(id, to)]).await.remove(0).delivery
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_mails_over_three_connections_arrive_once_each() {
    let server = SmtpServer::start_with(&["--parse"]);
    let mut courier = Courier::start(&smtp(server.port, 3), Limit::Unlimited, Timing::default());
    let mails: Vec<_> = (1..=200).map(|id| mail(id, &format!("visitor{id}@example.org"))).collect();
    let answers = send(&mut courier, mails).await;
    assert!(
        answers.iter().all(|a| matches!(&a.delivery, Delivery::Accepted { code: 250, text } if text.starts_with("2.0.0 queued for … as ")))
    );
    assert!(courier.shutdown(Duration::from_secs(5)).await.is_empty());

    let received = server.mails();
    assert_eq!(received.len(), 200);
    let mut seen = BTreeSet::new();
    for got in &received {
        let id: i64 = got.to[0].strip_prefix("visitor").and_then(|rest| rest.strip_suffix("@example.org")).unwrap().parse().unwrap();
        assert!(seen.insert(id));
        assert_eq!((got.from.as_str(), got.to.len()), ("bounces@example.com", 1));
        assert_eq!(got.subject, format!("Your PIN {id}"));
        assert_eq!(got.text.replace("\r\n", "\n"), format!("PIN {id:06}\n.\n..\nend\n"));
        let names: Vec<_> = got.headers.iter().map(|(name, _)| name.as_str()).collect();
        let wanted = "Date From To Subject Message-ID Auto-Submitted MIME-Version Content-Type Content-Transfer-Encoding";
        assert_eq!(names.join(" "), wanted);
        assert_eq!(got.headers[1].1, "Tisk & Print <print@example.com>");
        assert_eq!(got.headers[4].1, format!("<{id}@credkeeper.example.com>"));
    }
    let connections: BTreeSet<_> = received.iter().map(|got| got.connection).collect();
    assert!((2..=4).contains(&connections.len()), "several connections worked, and were used again: {connections:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_texts_are_understood_as_text_by_another_parser() {
    let server = SmtpServer::start_with(&["--parse"]);
    let mut courier = Courier::start(&smtp(server.port, 1), Limit::Unlimited, Timing::default());
    let mut hostile = mail(1, "o'neil+tag@example.org");
    hostile.subject = "Žádost\r\nBcc: evil@example.net\n\n".repeat(9);
    hostile.text = Secret::new("Příliš žluťoučký kůň\r\n.\r\nQUIT\r\n暗証番号\n.\nFrom x\n".into());
    let answers = send(&mut courier, vec![hostile]).await;
    assert!(matches!(answers[0].delivery, Delivery::Accepted { .. }));
    let got = server.mails().remove(0);
    assert_eq!(got.to, ["o'neil+tag@example.org"]);
    assert_eq!(got.headers.len(), 9);
    assert_eq!(got.subject, ["Žádost Bcc: evil@example.net"; 9].join(" "));
    assert_eq!(got.text.replace("\r\n", "\n"), "Příliš žluťoučký kůň\n.\nQUIT\n暗証番号\n.\nFrom x\n");
    assert!(got.data.is_ascii());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_of_the_server_gets_its_verdict() {
    for options in [&["--no-pipelining"][..], &[]] {
        let server = SmtpServer::start_with(options);
        let mut courier = Courier::start(&smtp(server.port, 1), Limit::Unlimited, quick());
        for (id, (to, wanted)) in [
            ("ok@example.org", "accepted (250 2.0.0 queued for … as"),
            ("reject550.5.1.1@example.org", "recipient rejected (550 5.1.1 at RCPT TO)"),
            ("reject550@example.org", "recipient rejected (550 at RCPT TO)"),
            ("defer451.4.7.1@example.org", "deferred (451 4.7.1 at RCPT TO)"),
            ("defer450@example.org", "deferred (450 at RCPT TO)"),
            ("reject554.5.7.1@example.org", "refused for the site (554 5.7.1 at RCPT TO)"),
            ("reject552.5.2.2@example.org", "refused for the site (552 5.2.2 at RCPT TO)"),
            ("late550.5.1.1@example.org", "recipient rejected (550 5.1.1 at the message)"),
            ("late554.5.6.0@example.org", "refused for the site (554 5.6.0 at the message)"),
            ("late452.4.3.1@example.org", "deferred (452 4.3.1 at the message)"),
            ("drop@example.org", "no answer after the message was handed over"),
            ("lost@example.org", "no answer after the message was handed over"),
            ("bye@example.org", "accepted (250 2.0.0 queued for … as"),
            ("ok@example.org", "accepted (250 2.0.0 queued for … as"),
        ]
        .into_iter()
        .enumerate()
        {
            let delivery = send_one(&mut courier, id as i64, to).await;
            assert!(delivery.to_string().starts_with(wanted), "{to}: {delivery}");
        }
        let got: Vec<_> = server.mails().into_iter().map(|got| got.to[0].split('@').next().unwrap().to_owned()).collect();
        assert_eq!(got, ["ok", "lost", "bye", "ok"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_sender_is_the_sites_fault_and_stops_the_mail() {
    let server = SmtpServer::start();
    let mut config = smtp(server.port, 3);
    config.envelope_from = Some(mailbox("reject550.5.7.1@example.com"));
    let courier = Courier::start(&config, Limit::Unlimited, Timing::default());
    for id in 0..9 {
        courier.outgoing.send(mail(id, "ok@example.org")).await.expect("room in the queue");
    }
    let answers = answers_and_pause(courier, 9, 15).await;
    let refused = answers.iter().filter(|a| matches!(a.delivery, Delivery::SiteFault(_))).count();
    let untried = answers.iter().filter(|a| matches!(a.delivery, Delivery::NotTried)).count();
    assert!((1..=3).contains(&refused) && refused + untried == 9, "{answers:?}");
}

/// Takes so many answers, then asserts that mail pauses for so many seconds.
pub async fn answers_and_pause(mut courier: Courier, count: usize, pause_s: u64) -> Vec<Answer> {
    let mut answers = Vec::new();
    while answers.len() < count {
        let answer = tokio::time::timeout(at_most(), courier.answers.recv()).await.expect("an answer in time");
        answers.push(answer.expect("an answer for each mail"));
    }
    let State::PausedUntil(until) = courier.state() else { panic!("{:?}", courier.state()) };
    let left = until.saturating_duration_since(Instant::now()).as_secs_f64();
    assert!(left <= pause_s as f64 && left > pause_s as f64 - 10.0, "{left} s");
    assert!(courier.shutdown(Duration::from_secs(5)).await.is_empty());
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_answer_is_unknown_and_the_next_mails_get_their_own() {
    for options in [&["--no-pipelining"][..], &[]] {
        let server = SmtpServer::start_with(options);
        let mut courier = Courier::start(&smtp(server.port, 1), Limit::Unlimited, quick());
        let to = ["ok@a.example", "stall@a.example", "reject550.5.1.1@a.example", "ok@b.example", "stall@b.example", "ok@c.example"];
        let mails = to.iter().enumerate().map(|(id, to)| mail(id as i64, to)).collect();
        let answers = send(&mut courier, mails).await;
        let outcomes: Vec<_> = answers.iter().map(|answer| answer.delivery.outcome()).collect();
        assert_eq!(outcomes, ["accepted", "unknown", "rejected", "accepted", "unknown", "accepted"]);
        let got: Vec<_> = server.mails().into_iter().map(|got| got.to[0].clone()).collect();
        assert_eq!(got, ["ok@a.example", "stall@a.example", "ok@b.example", "stall@b.example", "ok@c.example"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_and_comes_back_costs_no_mail() {
    let server = SmtpServer::start();
    let port = server.port;
    let mut courier = Courier::start(&smtp(port, 2), Limit::Unlimited, quick());
    assert!(matches!(send_one(&mut courier, 1, "ok@example.org").await, Delivery::Accepted { .. }));
    assert!(probe(&smtp(port, 1)).await.is_ok());
    let stopped = server.stop();
    assert!(matches!(probe(&smtp(port, 1)).await, Err(Delivery::ConnectError(MailError::Connect(_)))));
    let gone = send_one(&mut courier, 2, "ok@example.org").await;
    assert!(matches!(gone, Delivery::ConnectError(MailError::Connect(_))), "{gone:?}");
    assert!(matches!(courier.state(), State::PausedUntil(_) | State::Probing));
    let server = stopped.start(&[]);
    assert!(matches!(send_one(&mut courier, 3, "ok@example.org").await, Delivery::Accepted { .. }));
    assert_eq!(courier.state(), State::Open);
    // And again with a connection open on both sides.
    let server = server.restart(&[]);
    assert!(matches!(send_one(&mut courier, 4, "ok@example.org").await, Delivery::Accepted { .. }));
    assert_eq!(server.mails().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_is_not_slowed_down_by_delayed_acknowledgements() {
    let server = SmtpServer::start_with(&["--no-pipelining"]);
    let mut courier = Courier::start(&smtp(server.port, 1), Limit::Unlimited, Timing::default());
    send_one(&mut courier, 0, "ok@example.org").await;
    let begun = Instant::now();
    let count = 600;
    let answers = send(&mut courier, (1..=count).map(|id| mail(id, "ok@example.org")).collect()).await;
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    println!("{rate:.0} mails/s over one connection");
    assert!(answers.iter().all(|answer| answer.delivery.outcome() == "accepted"));
    assert_eq!(server.mails().last().map(|got| got.connection), Some(7), "a fresh connection after every 100 mails");
    // The trap (40 ms a mail) gives 22 a second.
    assert!(rate >= 150.0, "only {rate:.0} mails/s over one connection");
}

/// What it tells may be gone by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_grows_stale_while_it_waits_for_the_pace_is_handed_back_and_costs_no_turn() {
    let server = SmtpServer::start();
    let mut courier = Courier::start(&smtp(server.port, 1), Limit::At(6), Timing::default());
    let begun = Instant::now();
    send(&mut courier, (0..6).map(|id| mail(id, "ok@example.org")).collect()).await;
    let stale = Outgoing { not_after: Some(begun + Duration::from_secs(3)), ..mail(6, "ok@example.org") };
    courier.outgoing.send(stale.clone()).await.expect("room in the queue");
    let answer = courier.answers.recv().await.expect("an answer");
    assert!(answer.id == stale.id && matches!(answer.delivery, Delivery::NotTried), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(8), "before its turn, ten seconds after the first one");
    courier.outgoing.send(stale).await.expect("room in the queue");
    let again = courier.answers.recv().await.expect("an answer");
    assert!(matches!(again.delivery, Delivery::NotTried), "{again:?}");
    assert!(matches!(send_one(&mut courier, 7, "ok@example.org").await, Delivery::Accepted { .. }));
    assert!((9..16).contains(&begun.elapsed().as_secs()), "the next turn was not used up: {:?}", begun.elapsed());
    assert_eq!(server.mails().len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pace_holds_back_what_is_beyond_a_minutes_worth() {
    let server = SmtpServer::start();
    let mut courier = Courier::start(&smtp(server.port, 2), Limit::At(4), Timing::default());
    let outgoing = courier.outgoing.clone();
    // Four go, two are in hand, one is in the queue.
    let feeder = tokio::spawn(async move {
        for id in 0..7 {
            outgoing.send(mail(id, "ok@example.org")).await.expect("room in the queue");
        }
    });
    for _ in 0..4 {
        assert_eq!(courier.answers.recv().await.expect("an answer").delivery.outcome(), "accepted");
    }
    feeder.await.expect("the feeder");
    let begun = Instant::now();
    let rest = courier.shutdown(Duration::from_secs(5)).await;
    assert!(rest.len() == 3 && rest.iter().all(|answer| matches!(answer.delivery, Delivery::NotTried)), "{rest:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "nobody waits for the pace while stopping");
    assert_eq!(server.mails().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_finishes_the_mail_in_hand_and_hands_back_the_rest() {
    let server = SmtpServer::start();
    let courier = Courier::start(&smtp(server.port, 1), Limit::Unlimited, Timing::default());
    for (id, to) in ["slow@example.org", "ok@example.org", "ok@example.org"].iter().enumerate() {
        courier.outgoing.send(mail(id as i64, to)).await.expect("room in the queue");
    }
    until("it has one", at_most(), async || !server.mails().is_empty()).await;
    let outcomes: Vec<_> = courier.shutdown(Duration::from_secs(10)).await.iter().map(|a| (a.id.0, a.delivery.outcome())).collect();
    assert_eq!(outcomes, [(0, "accepted"), (1, "not_tried"), (2, "not_tried")]);
    assert_eq!(server.mails().len(), 1);

    let courier = Courier::start(&smtp(server.port, 1), Limit::Unlimited, Timing::default());
    courier.outgoing.send(mail(9, "stall@example.org")).await.expect("room in the queue");
    until("it has the other", at_most(), async || server.mails().len() == 2).await;
    let begun = Instant::now();
    let answers = courier.shutdown(Duration::from_millis(200)).await;
    assert!(matches!(answers[..], [Answer { id: IssuanceId(9), delivery: Delivery::Unknown, .. }]), "{answers:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_gets_one_file_a_message() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let outbox = place.path().join("outbox");
    let mut courier = Courier::start(&config(TransportConfig::Directory(outbox.clone())), Limit::Unlimited, Timing::default());
    let mut mails: Vec<_> = (1..=20).map(|id| mail(id, "visitor@example.org")).collect();
    mails[19] = Outgoing { id: IssuanceId(20), ..mail(7, "visitor@example.org") };
    let answers = send(&mut courier, mails).await;
    assert!(answers.iter().all(|answer| answer.delivery.outcome() == "accepted"));
    let mut names: Vec<_> =
        std::fs::read_dir(&outbox).expect("the outbox").map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    assert_eq!(names.len(), 19, "the same Message-ID twice is one file: {names:?}");
    let text = std::fs::read_to_string(outbox.join("7@credkeeper.example.com.eml")).expect("mail 7");
    assert!(text.contains("To: visitor@example.org\r\n") && text.ends_with("\r\n\r\nPIN 000007\r\n.\r\n..\r\nend\r\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_written_pauses_the_mail() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("file");
    std::fs::write(&file, "").expect("a file");
    let courier = Courier::start(&config(TransportConfig::Directory(file.join("outbox"))), Limit::Unlimited, Timing::default());
    courier.outgoing.send(mail(1, "visitor@example.org")).await.expect("room in the queue");
    let answers = answers_and_pause(courier, 1, 15).await;
    assert!(matches!(answers[0].delivery, Delivery::ConnectError(MailError::Write { .. })));
}
