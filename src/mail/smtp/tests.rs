//! Against a scripted peer on a real socket: what a well-behaved server never does must not cost a mail.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::domain::Secret;
use crate::tls::{TlsSettings, Verify};

use super::*;

/// What the peer says: the greeting, then one item for each command and one for each message. `CLOSE` closes, `STALL`
/// says nothing more on this connection.
type Script = &'static [&'static str];
const CLOSE: &str = "close";
const STALL: &str = "stall";

struct Peer {
    port: u16,
    /// All lines received, with `#` where a connection begins.
    heard: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    /// One script for each connection, in order; there are no more.
    async fn start(scripts: Vec<Script>) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ears = heard.clone();
        tokio::spawn(async move {
            for script in scripts {
                let (stream, _) = listener.accept().await.unwrap();
                ears.lock().unwrap().push("#".to_owned());
                tokio::spawn(play(stream, script, ears.clone()));
            }
        });
        Peer { port, heard }
    }

    fn heard(&self) -> String {
        self.heard.lock().unwrap().join("\n")
    }

    fn session(&self) -> Session {
        let second = Duration::from_secs(1);
        let config = SmtpConfig {
            host: "127.0.0.1".into(),
            port: self.port,
            hello_name: Some("client.example".into()),
            connections: 1,
            timeout: second,
            encryption: Encryption::None,
            login: None,
        };
        let deadlines = Deadlines { connect: second, greeting: second, command: second, accepted: Duration::from_millis(300) };
        Session::new(config, Credentials::None, deadlines)
    }
}

async fn play(stream: TcpStream, script: Script, ears: Arc<Mutex<Vec<String>>>) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    for item in script {
        let in_message = item.starts_with("354");
        match *item {
            CLOSE => return,
            STALL => break,
            text => {
                if stream.get_mut().write_all(format!("{}\r\n", text.replace('|', "\r\n")).as_bytes()).await.is_err() {
                    return;
                }
            }
        }
        loop {
            line.clear();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            ears.lock().unwrap().push(line.trim_end_matches("\r\n").to_owned());
            if !in_message || line == ".\r\n" {
                break;
            }
        }
    }
    // Keep the connection open until the other side closes it.
    while stream.read_line(&mut line).await.unwrap_or(0) > 0 {}
}

async fn send(session: &mut Session, to: &str) -> Delivery {
    let mailbox = |text| Mailbox::parse(text).unwrap();
    session.send(&mailbox("print@example.com"), &mailbox(to), b"Subject: x\r\n\r\n.\r\ntext\r\n").await
}

const HELLO: &str = "250-peer|250-PIPELINING|250 SIZE 1000";

#[test]
fn dots_are_doubled_and_the_end_is_marked() {
    let wire = |text: &str| String::from_utf8(stuffed(text.as_bytes()).to_vec()).unwrap();
    assert_eq!(wire("a\r\n.\r\n..b\r\nc.\r\n"), "a\r\n..\r\n...b\r\nc.\r\n.\r\n");
    assert_eq!(wire("a"), "a\r\n.\r\n");
    assert_eq!(wire(""), ".\r\n");
}

#[tokio::test]
async fn commands_go_together_where_the_server_allows_it() {
    let peer =
        Peer::start(vec![&["220 hi", HELLO, "250 ok", "250 ok", "354 go", "250 queued", "250 ok", "250 ok", "354 go", "250 again", STALL]])
            .await;
    let mut session = peer.session();
    assert_eq!(send(&mut session, "a@b.example").await.to_string(), "accepted (250 queued)");
    assert_eq!(send(&mut session, "c@d.example").await.to_string(), "accepted (250 again)");
    assert_eq!(
        peer.heard(),
        "#\nEHLO client.example\nMAIL FROM:<print@example.com>\nRCPT TO:<a@b.example>\nDATA\nSubject: x\n\n..\ntext\n.\n\
         MAIL FROM:<print@example.com>\nRCPT TO:<c@d.example>\nDATA\nSubject: x\n\n..\ntext\n."
    );
}

#[tokio::test]
async fn a_rejected_recipient_does_not_cost_the_connection() {
    // Without and with pipelining; RSET is the fourth or sixth command.
    let plain: Script = &["220 hi", "250 peer", "250 ok", "550 5.1.1 no", "250 reset", "250 ok", "250 ok", "354 go", "250 queued", STALL];
    let pipelined: Script = &[
        "220 hi",
        HELLO,
        "250 ok",
        "550 5.1.1 no",
        "503 5.5.1 no recipients",
        "250 reset",
        "250 ok",
        "250 ok",
        "354 go",
        "250 queued",
        STALL,
    ];
    for script in [plain, pipelined] {
        let peer = Peer::start(vec![script]).await;
        let mut session = peer.session();
        assert_eq!(send(&mut session, "a@b.example").await.to_string(), "recipient rejected (550 5.1.1 at RCPT TO)");
        assert_eq!(send(&mut session, "c@d.example").await.to_string(), "accepted (250 queued)");
        assert_eq!(peer.heard().matches('#').count(), 1);
    }
}

#[tokio::test]
async fn a_server_that_waits_for_a_message_after_rejecting_gets_none() {
    let first: Script = &["220 hi", HELLO, "250 ok", "550 5.1.1 no", "354 go", "250 queued something"];
    let second: Script = &["220 hi", HELLO, "250 ok", "250 ok", "354 go", "250 queued", STALL];
    let peer = Peer::start(vec![first, second]).await;
    let mut session = peer.session();
    assert!(matches!(send(&mut session, "a@b.example").await, Delivery::RecipientRejected(_)));
    assert_eq!(send(&mut session, "c@d.example").await.to_string(), "accepted (250 queued)");
    assert_eq!(peer.heard().matches("..").count(), 1, "only the second message was handed over");
}

#[tokio::test]
async fn no_answer_to_the_final_dot_is_unknown_and_the_next_mail_gets_its_own_answer() {
    for silence in [STALL, CLOSE] {
        let first: &'static [&'static str] = vec!["220 hi", HELLO, "250 ok", "250 ok", "354 go", silence].leak();
        let second: Script = &["220 hi", HELLO, "250 ok", "550 5.1.1 no", "503 no", "250 reset", STALL];
        let peer = Peer::start(vec![first, second]).await;
        let mut session = peer.session();
        assert!(matches!(send(&mut session, "a@b.example").await, Delivery::Unknown));
        assert!(matches!(send(&mut session, "c@d.example").await, Delivery::RecipientRejected(_)));
    }
}

#[tokio::test]
async fn a_cancelled_send_does_not_shift_the_answers() {
    let first: Script = &["220 hi", HELLO, "250 ok", "250 ok", "354 go", STALL];
    let second: Script = &["220 hi", HELLO, "250 ok", "451 4.7.1 later", "503 no", "250 reset", STALL];
    let peer = Peer::start(vec![first, second]).await;
    let mut session = peer.session();
    assert!(timeout(Duration::from_millis(100), send(&mut session, "a@b.example")).await.is_err());
    assert_eq!(send(&mut session, "c@d.example").await.to_string(), "deferred (451 4.7.1 at RCPT TO)");
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closed_is_replaced_silently() {
    let closes: Script = &["220 hi", HELLO, "250 ok", "250 ok", "354 go", "250 queued", CLOSE];
    let says_so: Script = &["220 hi", HELLO, "250 ok", "250 ok", "354 go", "250 queued", "421 4.4.2 idle too long", CLOSE];
    let speaks_up: Script = &["220 hi", HELLO, "250 ok", "250 ok", "354 go", "250 queued|421 4.4.2 shutting down", CLOSE];
    for first in [closes, says_so, speaks_up] {
        let peer = Peer::start(vec![first, &["220 hi", HELLO, "250 ok", "250 ok", "354 go", "250 fresh", STALL]]).await;
        let mut session = peer.session();
        assert_eq!(send(&mut session, "a@b.example").await.to_string(), "accepted (250 queued)");
        assert_eq!(send(&mut session, "c@d.example").await.to_string(), "accepted (250 fresh)");
    }
}

#[tokio::test]
async fn a_server_that_goes_at_once_is_tried_once() {
    let peer = Peer::start(vec![&["220 hi", HELLO, CLOSE]]).await;
    let delivery = send(&mut peer.session(), "a@b.example").await;
    assert!(matches!(delivery, Delivery::ConnectError(MailError::Lost(Stage::MailFrom, _))), "{delivery:?}");
    let peer = Peer::start(vec![&["220 hi", HELLO, "421 4.3.2 full", CLOSE]]).await;
    let delivery = send(&mut peer.session(), "a@b.example").await;
    assert_eq!(delivery.code(), Some(421), "{delivery:?}");
}

#[tokio::test]
async fn before_the_message_nothing_was_sent() {
    let cases: [(Script, &str); 8] = [
        (&["554 no service"], "refused for the site (554 at greeting)"),
        (&["421 4.3.2 busy"], "the mail server turned the connection away (421 4.3.2 at greeting)"),
        (&["HTTP/1.1 400 Bad Request"], "the mail server answered what is not SMTP at greeting"),
        (&["220 hi", "550 who are you"], "refused for the site (550 at EHLO)"),
        (&["220 hi", "250 peer", "550 5.7.1 not from you"], "refused for the site (550 5.7.1 at MAIL FROM)"),
        (&["220 hi", "250 peer", "250 ok", CLOSE], "the mail server closed the connection at RCPT TO"),
        (&["220 hi", "250 peer", "250 ok", "250 ok", "250 what?"], "the mail server answered what is not SMTP at DATA"),
        (&["220 hi", "250 peer", "250 ok", STALL], "the mail server did not answer in time at RCPT TO"),
    ];
    for (script, wanted) in cases {
        let peer = Peer::start(vec![script]).await;
        assert_eq!(send(&mut peer.session(), "a@b.example").await.to_string(), wanted);
    }
}

fn tls() -> TlsSettings {
    TlsSettings { verify: Verify::Nothing, ca_file: None, ca_directory: None, client: None, server_name: None }
}

fn logging_in(peer: &Peer) -> Session {
    let mut session = peer.session();
    session.credentials = Credentials::Password { user: "tim".to_owned(), password: Secret::new("tanstaaftanstaaf".to_owned()) };
    session
}

/// Even one that offers a login, and accepts everything.
#[tokio::test]
async fn a_server_that_does_not_encrypt_hears_nothing_of_a_mail_or_a_login() {
    const OFFERS: &str = "250-peer|250-STARTTLS|250-PIPELINING|250 AUTH PLAIN LOGIN";
    const STRIPPED: &str = "250-peer|250-XXXXXXXX|250-PIPELINING|250 AUTH PLAIN LOGIN";
    let cases: [(Script, &str, &str); 6] = [
        (&["220 hi", STRIPPED, "235 ok", "250 ok", "250 ok", "354 go", "250 ok"], "tls_not_offered", "offers no encryption"),
        (&["220 hi", "250 peer", "235 ok", "250 ok"], "tls_not_offered", "offers no encryption"),
        (&["220 hi", OFFERS, "502 5.5.1 no", "235 ok", "250 ok"], "tls_not_offered", "refused to encrypt (502 5.5.1 at STARTTLS)"),
        (&["220 hi", OFFERS, "454 4.7.0 later", "235 ok"], "tls_not_offered", "refused to encrypt (454 4.7.0 at STARTTLS)"),
        (&["220 hi", OFFERS, "250 ok", "235 ok"], "protocol", "what is not SMTP at STARTTLS"),
        (&["220 hi", OFFERS, "220 go|250-peer|250 AUTH PLAIN", "235 ok"], "tls_injected", "somebody may stand between"),
    ];
    for (script, kind, said) in cases {
        let peer = Peer::start(vec![script, &[]]).await;
        let mut session = logging_in(&peer);
        session.config.encryption = Encryption::StartTls(tls());
        let Delivery::ConnectError(error) = send(&mut session, "a@b.example").await else { panic!("{script:?}") };
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(said), "{error}");
        let delivery = Delivery::ConnectError(error);
        assert_eq!(delivery.outcome(), "tls_error");
        let heard = peer.heard();
        let all = heard.lines().all(|line| matches!(line, "#" | "EHLO client.example" | "STARTTLS"));
        assert!(all, "{heard}");
        assert_eq!(heard.matches('#').count(), 1, "it is not tried again in some other way");
    }
}

#[tokio::test]
async fn what_is_no_tls_is_told_and_hears_nothing() {
    for (script, encryption) in [
        (&["220 hi", "250-peer|250 STARTTLS", "220 go", CLOSE][..], Encryption::StartTls(tls())),
        (&["220 hi"], Encryption::Implicit(tls())),
    ] {
        let peer = Peer::start(vec![script]).await;
        let mut session = logging_in(&peer);
        session.config.encryption = encryption;
        let delivery = send(&mut session, "a@b.example").await;
        assert_eq!(delivery.outcome(), "tls_error");
        let text = delivery.to_string();
        assert!(text.contains("does not speak TLS") || text.contains("in the middle of the TLS handshake"), "{text}");
    }
}

#[tokio::test]
async fn a_login_is_said_in_the_way_that_the_server_offers() {
    const REST: [&str; 4] = ["250 ok", "250 ok", "354 go", "250 queued"];
    let script =
        |hello: &'static str, answers: &[&'static str]| -> Script { [&["220 hi", hello], answers, &REST, &[STALL]].concat().leak() };
    let plain = "AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm";
    let login = "AUTH LOGIN\ndGlt\ndGFuc3RhYWZ0YW5zdGFhZg==";
    for (hello, answers, heard) in [
        ("250-peer|250 AUTH LOGIN PLAIN XOAUTH2", &["235 2.7.0 in"][..], plain),
        ("250-peer|250 auth plain", &["235 in"], plain),
        ("250-peer|250 AUTH=LOGIN", &["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "235 in"], login),
    ] {
        let peer = Peer::start(vec![script(hello, answers)]).await;
        let mut session = logging_in(&peer);
        assert_eq!(send(&mut session, "a@b.example").await.to_string(), "accepted (250 queued)");
        assert!(peer.heard().starts_with(&format!("#\nEHLO client.example\n{heard}\nMAIL FROM:")), "{}", peer.heard());
    }
}

#[tokio::test]
async fn a_long_login_goes_in_two_steps() {
    let peer =
        Peer::start(vec![&["220 hi", "250-peer|250 AUTH PLAIN", "334 ", "235 in", "250 ok", "250 ok", "354 go", "250 queued", STALL]])
            .await;
    let mut session = logging_in(&peer);
    session.credentials = Credentials::Password { user: "tim".to_owned(), password: Secret::new("p".repeat(500)) };
    assert_eq!(send(&mut session, "a@b.example").await.to_string(), "accepted (250 queued)");
    assert!(peer.heard().contains("\nAUTH PLAIN\nAHRpbQBwcHBw"));
}

#[tokio::test]
async fn a_refused_login_is_no_mail() {
    let cases: [(Script, &str, &str); 5] = [
        (
            &["220 hi", "250-peer|250 AUTH PLAIN", "535 5.7.8 no", "250 ok"],
            "login",
            "the mail server refused the login (535 5.7.8 at AUTH)",
        ),
        (
            &["220 hi", "250-peer|250 AUTH LOGIN", "334 VXNlcm5hbWU6", "535 no", "250 ok"],
            "login",
            "the mail server refused the login (535 at AUTH)",
        ),
        (
            &["220 hi", "250-peer|250 AUTH PLAIN", "454 4.7.0 later", "250 ok"],
            "login",
            "the mail server refused the login (454 4.7.0 at AUTH)",
        ),
        (
            &["220 hi", "250-peer|250 AUTH XOAUTH2 NTLM", "235 in", "250 ok"],
            "login_not_offered",
            "the mail server offers no login by PLAIN or LOGIN (it offers NTLM, XOAUTH2)",
        ),
        (
            &["220 hi", "250 peer", "235 in", "250 ok"],
            "login_not_offered",
            "the mail server offers no login by PLAIN or LOGIN (it offers none)",
        ),
    ];
    for (script, kind, said) in cases {
        let peer = Peer::start(vec![script]).await;
        let Delivery::ConnectError(error) = send(&mut logging_in(&peer), "a@b.example").await else { panic!("{script:?}") };
        assert_eq!((error.kind(), error.to_string().as_str(), error.is_transient()), (kind, said, said.contains("454")));
        assert_eq!(Delivery::ConnectError(error).outcome(), "auth_error");
        assert!(!peer.heard().contains("MAIL"), "{}", peer.heard());
    }
}

#[tokio::test]
async fn a_server_that_waits_for_the_rest_of_a_login_for_ever_is_left() {
    let peer = Peer::start(vec![&["220 hi", "250-peer|250 AUTH LOGIN", "334 VXNlcm5hbWU6", STALL]]).await;
    let delivery = send(&mut logging_in(&peer), "a@b.example").await;
    assert!(matches!(delivery, Delivery::ConnectError(MailError::Timeout(Stage::Login))), "{delivery:?}");
}

#[tokio::test]
async fn an_address_of_another_script_goes_only_where_it_is_taken() {
    const UTF8: &str = "250-peer|250-8BITMIME|250 SMTPUTF8";
    let peer = Peer::start(vec![
        &["220 hi", HELLO, "250 ok", "250 ok", "354 go", "250 queued", STALL],
        &["220 hi", UTF8, "250 ok", "250 ok", "354 go", "250 queued", "250 ok", "250 ok", "354 go", "250 again", STALL],
        &["220 hi", UTF8, "555 5.5.4 what is SMTPUTF8", STALL],
    ])
    .await;
    let mut session = peer.session();
    assert!(matches!(send(&mut session, "žofie@b.example").await, Delivery::AddressUnsupported));
    assert_eq!(send(&mut session, "a@b.example").await.to_string(), "accepted (250 queued)");
    let mut session = peer.session();
    assert_eq!(send(&mut session, "žofie@bücher.example").await.to_string(), "accepted (250 queued)");
    assert_eq!(send(&mut session, "eva@bücher.example").await.to_string(), "accepted (250 again)");
    // Its complaint is about the one address that wants it.
    assert!(matches!(send(&mut peer.session(), "žofie@b.example").await, Delivery::RecipientRejected(_)));
    let heard = peer.heard();
    let commands: Vec<&str> = heard.lines().filter(|line| line.starts_with("MAIL") || line.starts_with("RCPT")).collect();
    assert_eq!(
        commands,
        [
            "MAIL FROM:<print@example.com>",
            "RCPT TO:<a@b.example>",
            "MAIL FROM:<print@example.com> BODY=8BITMIME SMTPUTF8",
            "RCPT TO:<žofie@xn--bcher-kva.example>",
            "MAIL FROM:<print@example.com>",
            "RCPT TO:<eva@xn--bcher-kva.example>",
            "MAIL FROM:<print@example.com> BODY=8BITMIME SMTPUTF8",
        ]
    );
}

#[tokio::test]
async fn nobody_listening_is_a_connect_error() {
    let peer = Peer::start(vec![]).await;
    let mut session = peer.session();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    session.config.port = free.local_addr().unwrap().port();
    drop(free);
    assert!(matches!(send(&mut session, "a@b.example").await, Delivery::ConnectError(MailError::Connect(_))));
    session.config.host = "no such host.invalid".into();
    assert!(matches!(send(&mut session, "a@b.example").await, Delivery::ConnectError(MailError::Resolve(_))));
}
