//! The mail server: reaching it, trusting it, being let in.

use std::net::TcpListener;
use std::thread;

use super::{Scene, files::SANDBOX, yaml};
use crate::bounded::Bounded;
use crate::certificates::{Authority, Identity};
use crate::smtp::SmtpServer;
use crate::token_endpoint::{CLIENT, SCOPE, SECRET, TokenEndpoint};

/// One visitor is due, and mail goes by `mail`, a section without its first line.
fn mailing(title: &str, mail: &str) -> Scene {
    let scene = super::files::sandbox(title, |_| yaml(SANDBOX, mail));
    let database = rusqlite::Connection::open(scene.folder().join("sandbox.db")).unwrap();
    let others = "DELETE FROM users_cards WHERE user_id NOT IN (SELECT min(id) FROM users WHERE ou_id = 1 AND flag = 1 AND login LIKE '%@%');
                  DELETE FROM users_roles; DELETE FROM users WHERE id NOT IN (SELECT min(id) FROM users WHERE ou_id = 1 AND flag = 1 AND login LIKE '%@%')";
    database.execute_batch(others).unwrap();
    scene
}

fn smtp(host: &str, port: u16, more: &str) -> String {
    let more: String = more.lines().map(|line| format!("  {line}\n")).collect();
    format!("  host: {host}\n  port: {port}\n  from: Print Service <print@example.com>\n{}", more.trim_end())
}

/// A server with this certificate.
fn server(how: &str, identity: &Identity, more: &[&str]) -> SmtpServer {
    let [cert, key] = [&identity.cert, &identity.key].map(|path| path.to_str().unwrap());
    SmtpServer::start_with(&[&["--tls", how, "--cert", cert, "--key", key], more].concat())
}

/// What is told of `server`, whose authority is this.
fn meets(title: &str, server: &SmtpServer, authority: &Authority, more: &str) -> Scene {
    met(title, server, authority, more).doctor_and_once((1, 4))
}

fn met(title: &str, server: &SmtpServer, authority: &Authority, more: &str) -> Scene {
    let ca = authority.pem();
    let mail = smtp("localhost", server.port, &format!("ca_file: {}\n{more}", ca.display()));
    mailing(title, &mail).hiding(authority.folder().display(), "/ca").hiding(format!("localhost:{}", server.port), "localhost:PORT")
}

#[test]
fn a_refused_login_is_told_with_its_remedy() {
    let authority = Authority::new("Our CA");
    let identity = authority.sign("localhost");
    let login = "auth: {method: password, user: mailuser, password: {env: CREDKEEPER_WRONG_PASSWORD}}";
    let picky = server("starttls", &identity, &["--auth", "mailuser:right"]);
    meets("The mail server refuses the login", &picky, &authority, login).is("mail-login-refused");
    let mut scene = met("The mail server wants a login, and none is configured", &picky, &authority, "");
    assert_eq!((scene.run(&["doctor", "--mail-test", "admin@example.com"]), scene.run(&["--once"])), (1, 4));
    scene.is("mail-login-wanted");
    let other = server("starttls", &identity, &["--auth", "mailuser:right", "--only", "CRAM-MD5 XOAUTH2"]);
    meets("The mail server offers other logins", &other, &authority, login).is("mail-login-not-offered");
    assert!(![picky.heard(), other.heard()].iter().any(|heard| heard.contains("PIN ")), "no mail was said");
}

#[test]
fn a_refused_token_is_told_with_its_remedy() {
    let authority = Authority::new("Our CA");
    let identity = authority.sign("localhost");
    let tokens = TokenEndpoint::start(&identity);
    let picky = server("starttls", &identity, &["--tokens", "print@example.com:/dev/null"]);
    let login = |secret: &str| {
        format!(
            "auth: {{method: oauth2, user: print@example.com, token_url: 'https://localhost:{}/tenant/oauth2/v2.0/token', \
             client_id: {CLIENT}, client_secret: '{secret}', scope: {SCOPE}}}",
            tokens.port
        )
    };
    let scene = |title: &str, secret: &str| {
        met(title, &picky, &authority, &login(secret)).hiding(format!("localhost:{}", tokens.port), "localhost:TOKENS")
    };
    scene("The token endpoint refuses the secret", "wrong").doctor_and_once((1, 4)).is("mail-token-denied");
    assert_eq!(picky.heard(), "");
    scene("The mail server refuses the token", SECRET).doctor_and_once((1, 4)).is("mail-token-refused");
    assert!(!picky.heard().contains("PIN "), "no mail was said");
}

#[test]
fn a_refused_certificate_is_told_with_its_remedy() {
    let (authority, stranger) = (Authority::new("Our CA"), Authority::new("Another CA"));
    for (title, identity, golden) in [
        ("The mail server's certificate is for another host", authority.sign("mail.example.com"), "mail-certificate-for-others"),
        ("The mail server's certificate has expired", authority.sign_expired("localhost"), "mail-certificate-expired"),
        ("The mail server's certificate is of another authority", stranger.sign("localhost"), "mail-certificate-of-another-authority"),
        ("The mail server's certificate is signed by itself", authority.self_signed("localhost"), "mail-certificate-self-signed"),
    ] {
        meets(title, &server("starttls", &identity, &[]), &authority, "").is(golden);
    }
    let demanding = server("implicit", &authority.sign("localhost"), &["--tls12", "--client-ca", authority.pem().to_str().unwrap()]);
    meets("The mail server asks for a certificate of ours", &demanding, &authority, "tls: implicit").is("mail-client-certificate-wanted");
    meets("The mail server offers no encryption", &SmtpServer::start(), &authority, "").is("mail-not-encrypted");
    meets("The mail server encrypts by STARTTLS, not from the first byte", &SmtpServer::start(), &authority, "tls: implicit")
        .is("mail-implicit-wrong");
}

#[test]
fn unencrypted_mail_over_a_network_has_to_be_allowed() {
    let server = SmtpServer::start();
    // This machine by a name that is not known for it.
    let scene = |more: &str| mailing("PINs would cross the network unencrypted", &smtp("127.1", server.port, more));
    let mut refused = scene("tls: none");
    assert_eq!((refused.run(&["check-config"]), refused.command(&["--once"]).output_in_time().status.code()), (64, Some(64)));
    assert_eq!(server.heard(), "");
    refused.is("plaintext-mail");
    let allowed = scene("tls: none\nallow_plaintext: true").command(&["--once"]).output_in_time();
    let warned = String::from_utf8_lossy(&allowed.stderr).into_owned();
    assert!(allowed.status.success() && warned.contains("PINs cross the network to 127.1 unencrypted"), "{warned}");
    assert_eq!(server.mails().len(), 1);
}

/// At the same time, because each waits: for a server that may come back, or for one that never speaks.
#[test]
fn a_mail_server_that_is_not_reached_is_told_with_its_remedy() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let plain = |title: &str, host: &str, port: u16| mailing(title, &smtp(host, port, "tls: none\nallow_plaintext: true"));
    thread::scope(|scope| {
        scope.spawn(|| plain("Nothing listens at the mail server's port", "127.0.0.1", 1).doctor_and_once((1, 4)).is("mail-refused"));
        scope.spawn(|| {
            let mut scene = plain("The mail server's name is not known", "no-such-host.invalid", 25);
            assert_eq!(scene.run(&["doctor"]), 1);
            scene.is("mail-host-unknown");
        });
        scope.spawn(|| {
            let mut scene = plain("Something listens at the mail server's port and says nothing", "127.0.0.1", silent_port);
            scene.hide(format!("port {silent_port}"), "port PORT");
            assert_eq!(scene.run(&["doctor"]), 1);
            scene.is("mail-silent");
        });
        scope.spawn(|| {
            let server = SmtpServer::start();
            let mail = smtp("127.0.0.1", server.port, "tls: none\nenvelope_from: reject550.5.7.1@example.com");
            let mut scene = mailing("The mail server refuses the sender", &mail);
            assert_eq!((scene.run(&["doctor", "--mail-test", "admin@example.com"]), scene.run(&["--once"])), (1, 4));
            scene.is("mail-sender-refused");
        });
    });
}
