//! Encryption, certificates, logins, HTML and addresses of every script, against a real mail server.

use std::path::Path;
use std::process::{Command, Stdio};

use credkeeper::config::{Encryption, MailConfig, MailLogin, Proof, SmtpConfig, TransportConfig};
use credkeeper::domain::template::{Text, Values};
use credkeeper::domain::{Limit, Pin, Secret, Template};
use credkeeper::mail::{Courier, Delivery, Mechanism, Outgoing, Timing, probe};
use credkeeper::tls::{ClientIdentity, TlsSettings, Verify};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::bounded::Bounded;
use crate::certificates::{Authority, Identity};
use crate::mail::{answers_and_pause, config, mail, mailbox, quick, send, send_one};
use crate::smtp::SmtpServer;

const USER: &str = "mailuser";
const PASSWORD: &str = "Tr0ub4dor-and-3-zlutych-koni";

#[derive(Clone, Copy, PartialEq, Debug)]
enum How {
    StartTls,
    Implicit,
}

const BOTH: [How; 2] = [How::StartTls, How::Implicit];

fn server(how: How, identity: &Identity, more: &[&str]) -> SmtpServer {
    let how = if how == How::StartTls { "starttls" } else { "implicit" };
    let [cert, key] = [&identity.cert, &identity.key].map(|path| path.to_str().unwrap());
    SmtpServer::start_with(&[&["--tls", how, "--cert", cert, "--key", key], more].concat())
}

fn trusting(ca: &Path) -> TlsSettings {
    TlsSettings { verify: Verify::Full, ca_file: Some(ca.to_owned()), ca_directory: None, client: None, server_name: None }
}

fn login(password: &str) -> Option<MailLogin> {
    Some(MailLogin { user: USER.to_owned(), proof: Proof::Password(Secret::new(password.to_owned())) })
}

fn smtp(port: u16, how: How, tls: TlsSettings, login: Option<MailLogin>) -> MailConfig {
    let encryption = match how {
        How::StartTls => Encryption::StartTls(tls),
        How::Implicit => Encryption::Implicit(tls),
    };
    plain(port, encryption, login)
}

fn plain(port: u16, encryption: Encryption, login: Option<MailLogin>) -> MailConfig {
    let timeout = std::time::Duration::from_secs(20);
    let (host, hello_name) = ("localhost".to_owned(), None);
    config(TransportConfig::Smtp(Box::new(SmtpConfig { host, port, hello_name, connections: 2, timeout, encryption, login })))
}

/// The verdict on one mail, and the outcome that the metrics count.
async fn verdict(config: &MailConfig) -> (String, &'static str) {
    let mut courier = Courier::start(config, Limit::Unlimited, quick());
    let delivery = send_one(&mut courier, 1, "visitor@example.org").await;
    (delivery.to_string(), delivery.outcome())
}

/// Neither a mail nor a login, nor a part of one.
fn assert_told_nothing(heard: &str) {
    for word in ["MAIL", "RCPT", "DATA", "AUTH", "PIN", "visitor"] {
        assert!(!heard.to_ascii_uppercase().contains(&word.to_ascii_uppercase()), "the server heard {word}: {heard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_go_encrypted_over_connections_that_are_used_again() {
    let authority = Authority::new("Test CA");
    for how in BOTH {
        let server = server(how, &authority.sign("localhost"), &["--auth", &format!("{USER}:{PASSWORD}")]);
        let config = smtp(server.port, how, trusting(&authority.pem()), login(PASSWORD));
        let greeted = probe(&config).await.unwrap().unwrap();
        let secured = greeted.secured.unwrap();
        assert_eq!(secured.version, "TLS 1.3");
        assert_eq!(secured.certificate_expires.map(|at| at.to_string()).as_deref(), Some("2049-11-30 00:00:00Z"));
        assert_eq!((greeted.login, greeted.smtputf8), (Some(Mechanism::Plain), false));
        assert_eq!(greeted.offered, ["LOGIN", "PLAIN"]);

        let mut courier = Courier::start(&config, Limit::Unlimited, Timing::default());
        let answers = send(&mut courier, (1..=150).map(|id| mail(id, "visitor@example.org")).collect()).await;
        assert!(answers.iter().all(|answer| answer.delivery.outcome() == "accepted"), "{answers:?}");
        assert_eq!(courier.certificate_expires(), secured.certificate_expires);
        let connections: std::collections::BTreeSet<_> = server.mails().iter().map(|mail| mail.connection).collect();
        assert!(connections.len() <= 4, "{connections:?}");
        assert_eq!(server.mails().len(), 150);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_certificate_cannot_be_trusted_is_told_nothing() {
    let (authority, stranger) = (Authority::new("Test CA"), Authority::new("Another CA"));
    let cases = [
        (authority.sign("mail.example.com"), "the server's certificate is for mail.example.com, not for localhost; "),
        (authority.sign_expired("localhost"), "a certificate of the server expired on 2021-02-03; "),
        (authority.self_signed("localhost"), "the server's certificate is signed by itself, so nobody vouches for it; "),
        (stranger.sign("localhost"), "the server's certificate comes from an authority that is not trusted here; "),
    ];
    for how in BOTH {
        for (identity, said) in &cases {
            let server = server(how, identity, &["--auth", &format!("{USER}:{PASSWORD}"), "--auth-in-the-clear"]);
            let config = smtp(server.port, how, trusting(&authority.pem()), login(PASSWORD));
            let (text, outcome) = verdict(&config).await;
            assert!(text.starts_with(said) && outcome == "tls_error", "{how:?}: {text} ({outcome})");
            assert!(matches!(probe(&config).await, Err(Delivery::ConnectError(error)) if error.kind() == "tls_handshake"));
            assert_told_nothing(&server.heard());

            let unverified = TlsSettings { verify: Verify::Nothing, ..trusting(&authority.pem()) };
            let (text, _) = verdict(&smtp(server.port, how, unverified, login(PASSWORD))).await;
            assert!(text.starts_with("accepted"), "{how:?}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_certificate_and_a_directory_can_be_trusted_by_name() {
    let authority = Authority::new("Test CA");
    let identity = authority.self_signed("localhost");
    let server = server(How::StartTls, &identity, &[]);
    for tls in [
        trusting(&identity.cert),
        TlsSettings { ca_file: None, ca_directory: Some(authority.folder().to_owned()), ..trusting(&identity.cert) },
    ] {
        assert_eq!(verdict(&smtp(server.port, How::StartTls, tls, None)).await.1, "accepted");
    }
}

/// As `openssl rehash` and the packages of a system leave it: links named by a hash, and the files elsewhere.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_hashed_links_is_read_as_openssl_would() {
    let (authority, other) = (Authority::new("Test CA"), Authority::new("Another CA"));
    let directory = tempfile::tempdir().unwrap();
    for (link, to) in [("3e1f0c2a.0", other.pem()), ("9d66eef0.0", authority.pem()), ("9d66eef0.1", authority.pem())] {
        std::os::unix::fs::symlink(to, directory.path().join(link)).unwrap();
    }
    std::os::unix::fs::symlink("gone.pem", directory.path().join("5443e9e3.0")).unwrap();
    std::fs::write(directory.path().join("README"), "Certificates of this site.").unwrap();
    let trusting = TlsSettings { ca_file: None, ca_directory: Some(directory.path().to_owned()), ..trusting(&authority.pem()) };
    for how in BOTH {
        let trusted = server(how, &authority.sign("localhost"), &[]);
        assert_eq!(verdict(&smtp(trusted.port, how, trusting.clone(), None)).await.1, "accepted");
    }
    let stranger = server(How::StartTls, &Authority::new("A third").sign("localhost"), &[]);
    assert_eq!(verdict(&smtp(stranger.port, How::StartTls, trusting, None)).await.1, "tls_error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_demand_a_certificate_of_ours() {
    let (authority, stranger) = (Authority::new("Test CA"), Authority::new("Another CA"));
    let ours = |identity: Identity| Some(ClientIdentity { cert: identity.cert, key: identity.key });
    for how in BOTH {
        let ca = authority.pem();
        let server = server(how, &authority.sign("localhost"), &["--client-ca", ca.to_str().unwrap()]);
        for (client, said) in [
            (None, "asks for a certificate of ours; name it and its key in mail.client_certificate"),
            (ours(stranger.sign("credkeeper")), "does not trust the authority of our certificate; "),
        ] {
            let (text, outcome) = verdict(&smtp(server.port, how, TlsSettings { client, ..trusting(&ca) }, None)).await;
            // This server does not always get to saying why before it closes.
            let unsaid = text.starts_with("the server closed the connection right after the TLS handshake; it may ask for a certificate");
            assert!((text.contains(said) || unsaid) && outcome == "tls_error", "{how:?}: {text} ({outcome})");
            assert_told_nothing(&server.heard());
        }
        let tls = TlsSettings { client: ours(authority.sign("credkeeper")), ..trusting(&ca) };
        assert_eq!(verdict(&smtp(server.port, how, tls, None)).await.1, "accepted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_used_as_the_server_offers_it_and_a_wrong_one_is_told() {
    let authority = Authority::new("Test CA");
    let right = format!("{USER}:{PASSWORD}");
    let identity = authority.sign("localhost");
    let tls = || trusting(&authority.pem());
    for how in BOTH {
        for (only, said) in [("PLAIN", "AUTH PLAIN "), ("LOGIN", "AUTH LOGIN\r\n"), ("LOGIN PLAIN", "AUTH PLAIN ")] {
            let server = server(how, &identity, &["--auth", &right, "--only", only]);
            assert_eq!(verdict(&smtp(server.port, how, tls(), login(PASSWORD))).await.1, "accepted");
            assert!(server.heard().contains(said), "{}", server.heard());

            let (text, outcome) = verdict(&smtp(server.port, how, tls(), login("wrong"))).await;
            assert_eq!((text.as_str(), outcome), ("the mail server refused the login (535 5.7.8 at AUTH)", "auth_error"));
            let (text, outcome) = verdict(&smtp(server.port, how, tls(), None)).await;
            assert_eq!((text.as_str(), outcome), ("refused for the site (530 5.7.0 at MAIL FROM)", "rejected"));
            assert_eq!(server.mails().len(), 1);
        }
        let server = server(how, &identity, &["--auth", &right, "--only", "CRAM-MD5 XOAUTH2"]);
        let (text, outcome) = verdict(&smtp(server.port, how, tls(), login(PASSWORD))).await;
        let said = "the mail server offers no login by PLAIN or LOGIN (it offers CRAM-MD5, XOAUTH2)";
        assert_eq!((text.as_str(), outcome), (said, "auth_error"));
    }
    // Many connections and mails make one failure: accounts get locked for more.
    let server = server(How::StartTls, &identity, &["--auth", &right]);
    let courier = Courier::start(&smtp(server.port, How::StartTls, tls(), login("wrong")), Limit::Unlimited, Timing::default());
    for id in 0..8 {
        courier.outgoing.send(mail(id, "visitor@example.org")).await.unwrap();
    }
    answers_and_pause(courier, 8, 300).await;
    assert_eq!(server.heard().matches("AUTH ").count(), 1, "{}", server.heard());
    // On this machine it may be unencrypted.
    let server = SmtpServer::start_with(&["--auth", &right]);
    assert_eq!(verdict(&plain(server.port, Encryption::None, login(PASSWORD))).await.1, "accepted");
}

/// What becomes of a line.
type Change = fn(String) -> String;

/// Stands between the client and the real server, and changes each line of the server's while nothing is encrypted.
async fn relay(to: u16, change: Change) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let mut from_server = BufReader::new(from_server);
                let mut line = String::new();
                loop {
                    line.clear();
                    if !matches!(from_server.read_line(&mut line).await, Ok(1..)) {
                        return;
                    }
                    let encrypted = line.starts_with("220 Ready");
                    let changed = change(line.clone());
                    if to_client.write_all(changed.as_bytes()).await.is_err() {
                        return;
                    }
                    if encrypted {
                        break;
                    }
                }
                let mut rest = Vec::new();
                rest.extend_from_slice(from_server.buffer());
                let _ = to_client.write_all(&rest).await;
                let mut from_server = from_server.into_inner();
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
                    if to_client.write_all(&buffer[..n]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_takes_the_encryption_away_gets_no_mail_and_no_login() {
    let authority = Authority::new("Test CA");
    let auth = format!("{USER}:{PASSWORD}");
    let to = |port| smtp(port, How::StartTls, trusting(&authority.pem()), login(PASSWORD));
    let changes: [(Change, &str); 5] = [
        (|line| line.replace("STARTTLS", "XXXXXXXX"), "the mail server offers no encryption (no STARTTLS), so it was told nothing"),
        (|line| if line.contains("STARTTLS") { String::new() } else { line }, "the mail server offers no encryption (no STARTTLS)"),
        (|line| line.replace("220 Ready", "502 5.5.1 Ready"), "the mail server refused to encrypt (502 5.5.1 at STARTTLS)"),
        (|line| line.replace("220 Ready", "454 4.7.0 Ready"), "the mail server refused to encrypt (454 4.7.0 at STARTTLS)"),
        (
            |line| if line.starts_with("220 Ready") { format!("{line}250-localhost\r\n250 AUTH PLAIN\r\n") } else { line },
            "something was said unencrypted after the answer to STARTTLS",
        ),
    ];
    for (change, said) in changes {
        // It would take everything, unencrypted too.
        let server = server(How::StartTls, &authority.sign("localhost"), &["--auth", &auth, "--auth-in-the-clear"]);
        let port = relay(server.port, change).await;
        let (text, outcome) = verdict(&to(port)).await;
        assert!(text.starts_with(said) && outcome == "tls_error", "{text} ({outcome})");
        assert!(server.heard().contains("EHLO "));
        assert_told_nothing(&server.heard());
        assert!(server.mails().is_empty());
    }
    let server = server(How::StartTls, &authority.sign("localhost"), &["--auth", &auth, "--auth-in-the-clear"]);
    let port = relay(server.port, |line| line).await;
    assert_eq!(verdict(&to(port)).await.1, "accepted", "the relay itself is no obstacle");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_any_encryption_gets_no_mail() {
    let server = SmtpServer::start();
    let (text, outcome) = verdict(&smtp(server.port, How::StartTls, trusting(&Authority::new("CA").pem()), None)).await;
    assert!(text.starts_with("the mail server offers no encryption") && outcome == "tls_error", "{text}");
    let (text, outcome) = verdict(&smtp(server.port, How::Implicit, trusting(&Authority::new("CA").pem()), None)).await;
    assert!(text.starts_with("what answered does not speak TLS") && outcome == "tls_error", "{text}");
    assert_told_nothing(&server.heard());
}

fn rendered(id: i64, to: &str, values: &Values<'_>) -> Outgoing {
    let parse = |text: &str| Text::parse(text).unwrap();
    let template = Template {
        translations: Vec::new(),
        reminder: None,
        subject: parse("Documents of {{ name }}"),
        parts: vec![parse("Hello {{ name }},"), parse("PIN {{ pin }}"), parse("Password {{ password }}")],
        html_parts: Some(vec![
            parse("<p title=\"{{ name }}\">Hello {{ name }},</p>"),
            parse("<p>PIN <b>{{ pin }}</b></p>"),
            parse("{{ password }}"),
        ]),
    };
    let rendered = template.render(values);
    Outgoing { subject: rendered.subject, text: Secret::new(rendered.text), html: rendered.html.map(Secret::new), ..mail(id, to) }
}

fn values<'a>(pin: &'a Pin, name: &'a str) -> Values<'a> {
    Values {
        pin: Some(pin),
        code: None,
        password: None,
        username: "eva",
        name,
        surname: "Nová",
        cost_center: "Has PIN",
        expires: None,
        policy: "visitors",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn html_and_text_are_understood_as_alternatives_by_another_parser() {
    let server = SmtpServer::start_with(&["--parse", "--smtputf8"]);
    let pin = Pin::new("012345".to_owned());
    let boundaries = "\r\n--=_\r\nContent-Type: text/html\r\n\r\n";
    let hostile = format!("</p><script>alert(1)</script>\r\nBcc: evil@example.net{boundaries}\"'&\u{2028}žluť\0");
    let mut courier = Courier::start(&plain(server.port, Encryption::None, None), Limit::Unlimited, Timing::default());
    let mails = vec![
        rendered(1, "visitor@example.org", &values(&pin, "Eva")),
        rendered(2, "žofie.nováková@žluť.example", &values(&pin, &hostile)),
        rendered(3, "visitor@example.org", &values(&pin, &"kůň ".repeat(600))),
    ];
    let answers = send(&mut courier, mails).await;
    assert!(answers.iter().all(|answer| answer.delivery.outcome() == "accepted"), "{answers:?}");
    let mut received = server.mails();
    received.sort_by_key(|mail| mail.headers[4].1.clone());
    for got in &received {
        assert_eq!(got.types, ["multipart/alternative", "text/plain", "text/html"]);
        assert_eq!((got.to.len(), got.headers.len()), (1, 8), "{:?}", got.headers);
    }
    let lines = |text: &str| text.replace("\r\n", "\n");
    assert_eq!(lines(&received[0].text), "Hello Eva,\n\nPIN 012345");
    assert_eq!(received[0].html.as_deref().map(lines).as_deref(), Some("<p title=\"Eva\">Hello Eva,</p>\n<p>PIN <b>012345</b></p>"));
    let safe = "</p><script>alert(1)</script> Bcc: evil@example.net --=_ Content-Type: text/html  \"'& žluť ";
    assert_eq!(lines(&received[1].text), format!("Hello {safe},\n\nPIN 012345"));
    let escaped =
        "&lt;/p&gt;&lt;script&gt;alert(1)&lt;/script&gt; Bcc: evil@example.net --=_ Content-Type: text/html  &quot;&#39;&amp; žluť ";
    let html = received[1].html.as_deref().map(lines);
    assert_eq!(html, Some(format!("<p title=\"{escaped}\">Hello {escaped},</p>\n<p>PIN <b>012345</b></p>")));
    assert_eq!(received[1].to, ["žofie.nováková@xn--lu-yta1h.example"]);
    assert!(received[2].html.as_ref().is_some_and(|html| html.matches("kůň ").count() == 1200));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_another_script_is_refused_for_its_user_where_it_is_not_taken() {
    let server = SmtpServer::start();
    let mut courier = Courier::start(&plain(server.port, Encryption::None, None), Limit::Unlimited, Timing::default());
    let to = ["žofie@example.org", "eva@žluť.example", "用户@example.org", "eva@example.org"];
    let answers = send(&mut courier, to.iter().enumerate().map(|(id, to)| mail(id as i64, to)).collect()).await;
    let outcomes: Vec<_> = answers.iter().map(|answer| (answer.delivery.outcome(), answer.delivery.code())).collect();
    let (refused, accepted) = (("rejected", Some(553)), ("accepted", Some(250)));
    assert_eq!(outcomes, [refused, accepted, refused, accepted]);
    assert_eq!(answers[0].delivery.to_string(), "the mail server takes no addresses with letters outside of ASCII (it has no SMTPUTF8)");
    assert!(!server.heard().contains("SMTPUTF8"), "only where it is needed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_reaches_nobody_else() {
    let server = SmtpServer::start_with(&["--parse"]);
    let mut config = plain(server.port, Encryption::None, None);
    config.redirect_to = Some(mailbox("rehearsal@example.com"));
    let mut courier = Courier::start(&config, Limit::Unlimited, quick());
    // One of them could not be reached at all.
    let answers =
        send(&mut courier, vec![mail(1, "eva@example.org"), mail(2, "žofie@example.org"), mail(3, "reject550@example.org")]).await;
    assert!(answers.iter().all(|answer| answer.delivery.outcome() == "accepted"), "{answers:?}");
    let mut meant: Vec<String> = Vec::new();
    for got in server.mails() {
        assert_eq!(got.to, ["rehearsal@example.com"]);
        assert!(got.headers.contains(&("To".to_owned(), "rehearsal@example.com".to_owned())));
        meant.extend(got.headers.into_iter().filter(|(name, _)| name == "X-Credkeeper-Original-To").map(|(_, value)| value));
    }
    meant.sort();
    assert_eq!(meant, ["e…@example.org", "r…@example.org", "ž…@example.org"]);
    assert!(!server.heard().contains("eva@example.org"));

    config.redirect_to = Some(mailbox("reject550.5.1.1@example.com"));
    let mut courier = Courier::start(&config, Limit::Unlimited, quick());
    let delivery = send_one(&mut courier, 4, "eva@example.org").await;
    assert!(matches!(delivery, Delivery::SiteFault(_)), "no user is to blame for it: {delivery}");
}

// --- the program ---

/// A sandbox whose mail goes to `port`, and what the program said in it.
struct Program {
    folder: tempfile::TempDir,
    said: Vec<(String, String)>,
}

impl Program {
    fn new(port: u16, ca: &Path) -> Program {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("site");
        let mut program = Program { folder, said: Vec::new() };
        program.run(&["sandbox", place.to_str().unwrap(), "--users", "120"], 0);
        std::fs::write(place.join("mail-password"), PASSWORD).unwrap();
        let config = std::fs::read_to_string(place.join("config.yaml")).unwrap();
        let mail = format!(
            "mail:\n  host: localhost\n  port: {port}\n  ca_file: {}\n  auth: {{method: password, user: {USER}, password: {{file: mail-password}}}}\n  from: ",
            ca.display()
        );
        let (before, after) = config.split_once("mail:\n").unwrap();
        let (_, after) = after.split_once("  from: ").unwrap();
        let config = format!("{before}{mail}{after}").replace("level: info", "level: trace").replace("length: 6", "length: 12");
        let limits = "limits: {users_per_pass: unlimited, replace_percent: unlimited, mails_per_minute: unlimited}\n";
        std::fs::write(place.join("config.yaml"), format!("{}\n{limits}", without_limits(&config))).unwrap();
        program
    }

    fn run(&mut self, arguments: &[&str], code: i32) -> String {
        let config = self.folder.path().join("site/config.yaml");
        let output = Command::new(env!("CARGO_BIN_EXE_credkeeper"))
            .arg("--config")
            .arg(config)
            .args(arguments)
            .stdin(Stdio::null())
            .output_in_time();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        self.said.push((arguments.join(" "), text.clone()));
        text
    }

    fn password(&self, password: &str) {
        std::fs::write(self.folder.path().join("site/mail-password"), password).unwrap();
    }
}

/// The top-level section `limits`, if there is one, left out.
fn without_limits(config: &str) -> String {
    let mut inside = false;
    let keep = |line: &&str| {
        if !line.starts_with([' ', '#']) && !line.is_empty() {
            inside = line.starts_with("limits:");
        }
        !inside
    };
    config.lines().filter(keep).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_mails_encrypted_and_no_log_holds_the_password() {
    let authority = Authority::new("Test CA");
    let server = server(How::StartTls, &authority.sign("localhost"), &["--auth", &format!("{USER}:{PASSWORD}")]);
    let mut program = Program::new(server.port, &authority.pem());

    let doctor = program.run(&["doctor", "--mail-test", "admin@example.com"], 0);
    let line =
        format!("localhost:{} answers over TLS 1.3 (certificate valid until 2049-11-30 00:00:00Z), login by PLAIN accepted", server.port);
    assert!(doctor.contains(&line), "{doctor}");
    assert!(doctor.contains("a mail to a…@example.com: accepted (250 "), "{doctor}");
    let test = server.mails().remove(0);
    assert_eq!(test.to, ["admin@example.com"]);
    assert!(test.data.contains("It holds none, and there is nothing to do."), "{}", test.data);

    program.password("wrong-and-secret-too");
    let doctor = program.run(&["doctor", "--mail-test", "admin@example.com"], 1);
    assert!(doctor.contains("the mail server refused the login (535 5.7.8 at AUTH)") && doctor.contains("→ correct mail.auth"), "{doctor}");
    let metrics = program.folder.path().join("a.prom");
    program.run(&["--once", "--metrics-file", metrics.to_str().unwrap()], 4);
    let counted = std::fs::read_to_string(&metrics).unwrap();
    assert!(!counted.contains("credkeeper_mails_total{outcome=\"auth_error\"} 0\n"), "{counted}");
    assert!(counted.contains("credkeeper_mails_total{outcome=\"accepted\"} 0\n"), "{counted}");

    program.password(PASSWORD);
    program.run(&["--once", "--metrics-file", metrics.to_str().unwrap()], 0);
    let counted = std::fs::read_to_string(&metrics).unwrap();
    for sample in [
        "credkeeper_mail_certificate_expiry_timestamp_seconds 2521843200\n",
        "credkeeper_config_insecure{what=\"mail_unverified\"} 0\n",
        "credkeeper_mails_total{outcome=\"tls_error\"} 0\n",
    ] {
        assert!(counted.contains(sample), "{counted}");
    }
    assert!(server.mails().len() > 20, "{}", server.mails().len());
    program.run(&["status"], 0);
    program.run(&["check-config"], 0);
    program.said.push(("metrics".to_owned(), counted));

    let base64 = |text: &str| crate::leaks::base64(text.as_bytes()).trim_end_matches('=').to_owned();
    for password in [PASSWORD, "wrong-and-secret-too"] {
        let hex = password.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        let needles = [password.to_owned(), base64(password), base64(&format!("\0{USER}\0{password}")), hex];
        assert!(server.heard().contains(&needles[2]), "the search itself must be able to find");
        for (what, text) in &program.said {
            assert!(needles.iter().all(|needle| !text.contains(needle.as_str())), "{what} holds the password");
        }
    }
    let logged = &program.said.iter().find(|(what, _)| what.starts_with("--once")).unwrap().1;
    assert!(logged.contains("TRACE") || logged.contains("DEBUG"), "it was not the most talkative level");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_what_to_do_about_a_certificate() {
    let authority = Authority::new("Test CA");
    let server = server(How::StartTls, &authority.sign("mail.example.com"), &[]);
    let mut program = Program::new(server.port, &authority.pem());
    let doctor = program.run(&["doctor"], 1);
    for line in [
        "the server's certificate is for mail.example.com, not for localhost\n",
        "→ connect by a name that it holds, or set mail.host to a name that the certificate holds\n",
    ] {
        assert!(doctor.contains(line), "{doctor}");
    }
}
