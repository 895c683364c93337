//! Logins by XOAUTH2, with tokens of a real endpoint, at a real mail server.

use std::path::Path;
use std::time::Duration;

use credkeeper::config::{Encryption, MailConfig, MailLogin, Proof, SmtpConfig, TokenEndpoint as Endpoint, TransportConfig};
use credkeeper::domain::{Limit, Secret};
use credkeeper::mail::{Courier, Delivery, Mechanism, Timing, probe, remedy, what};
use credkeeper::tls::{TlsSettings, Verify};
use serde_json::json;

use crate::certificates::{Authority, Identity};
use crate::mail::{config, mail, quick, send, send_one};
use crate::smtp::SmtpServer;
use crate::token_endpoint::{CLIENT, SCOPE, SECRET, TokenEndpoint};

const USER: &str = "print@example.com";

fn server(identity: &Identity, tokens: &TokenEndpoint) -> SmtpServer {
    let [cert, key] = [&identity.cert, &identity.key].map(|path| path.to_str().unwrap());
    SmtpServer::start_with(&["--tls", "starttls", "--cert", cert, "--key", key, "--tokens", &said(tokens)])
}

fn said(tokens: &TokenEndpoint) -> String {
    format!("{USER}:{}", tokens.tokens().display())
}

fn trusting(ca: &Path) -> TlsSettings {
    TlsSettings { verify: Verify::Full, ca_file: Some(ca.to_owned()), ca_directory: None, client: None, server_name: None }
}

fn smtp(port: u16, ca: &Path, endpoint: Endpoint) -> MailConfig {
    let login = Some(MailLogin { user: USER.to_owned(), proof: Proof::Token(Box::new(endpoint)) });
    config(TransportConfig::Smtp(Box::new(SmtpConfig {
        host: "localhost".to_owned(),
        port,
        hello_name: None,
        connections: 4,
        timeout: Duration::from_secs(20),
        encryption: Encryption::StartTls(trusting(ca)),
        login,
    })))
}

fn endpoint(port: u16, ca: &Path) -> Endpoint {
    Endpoint {
        host: "localhost".to_owned(),
        port,
        path: "/tenant/oauth2/v2.0/token".to_owned(),
        tls: Some(trusting(ca)),
        client_id: CLIENT.to_owned(),
        client_secret: Secret::new(SECRET.to_owned()),
        scope: Some(SCOPE.to_owned()),
    }
}

/// What is told of one mail: what happened, what to do, how it is counted, and whether a later try may go.
async fn verdict(config: &MailConfig) -> (String, String, &'static str, bool) {
    let mut courier = Courier::start(config, Limit::Unlimited, quick());
    let delivery = send_one(&mut courier, 1, "visitor@example.org").await;
    let transient = matches!(&delivery, Delivery::ConnectError(error) if error.is_transient());
    let found = (what(&delivery), remedy(&delivery, &config.transport), delivery.outcome(), transient);
    for text in [&found.0, &found.1, &format!("{delivery:?}")] {
        assert!(!text.contains(SECRET) && !text.contains("eyJ0eXAi") && !text.contains("s3cr"), "{text}");
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn all_connections_log_in_with_one_token() {
    let authority = Authority::new("Test CA");
    let identity = authority.sign("localhost");
    let tokens = TokenEndpoint::start(&identity);
    let server = server(&identity, &tokens);
    let config = smtp(server.port, &authority.pem(), endpoint(tokens.port, &authority.pem()));
    let greeted = probe(&config).await.unwrap().unwrap();
    assert_eq!((greeted.login, greeted.offered), (Some(Mechanism::XOAuth2), vec!["XOAUTH2".to_owned()]));
    assert_eq!(tokens.asked(), 1);

    let mut courier = Courier::start(&config, Limit::Unlimited, Timing::default());
    let answers = send(&mut courier, (1..=40).map(|id| mail(id, "slow@example.org")).collect()).await;
    assert!(answers.iter().all(|answer| answer.delivery.outcome() == "accepted"), "{answers:?}");
    let connections: std::collections::BTreeSet<_> = server.mails().iter().map(|mail| mail.connection).collect();
    assert_eq!((server.mails().len(), connections.len()), (40, 4));
    assert_eq!(tokens.asked(), 2, "one token for four connections");
}

/// The server closes the connection after each mail: each needs a login.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_used_until_it_ends_and_no_longer() {
    let authority = Authority::new("Test CA");
    let identity = authority.sign("localhost");
    let tokens = TokenEndpoint::start(&identity);
    let server = server(&identity, &tokens);
    let config = smtp(server.port, &authority.pem(), endpoint(tokens.port, &authority.pem()));
    for (expires_in, asked) in [(3600, 1), (0, 4)] {
        let before = tokens.asked();
        tokens.expires_in(expires_in);
        let mut courier = Courier::start(&config, Limit::Unlimited, quick());
        for id in 1..=3 {
            assert_eq!(send_one(&mut courier, id, "bye@example.org").await.outcome(), "accepted");
        }
        assert!((asked - 1..=asked).contains(&(tokens.asked() - before)), "{expires_in}: {}", tokens.asked() - before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_server_takes_no_more_is_fetched_anew() {
    let authority = Authority::new("Test CA");
    let identity = authority.sign("localhost");
    let tokens = TokenEndpoint::start(&identity);
    let server = server(&identity, &tokens);
    let config = smtp(server.port, &authority.pem(), endpoint(tokens.port, &authority.pem()));
    let mut courier = Courier::start(&config, Limit::Unlimited, quick());
    assert_eq!(send_one(&mut courier, 1, "bye@example.org").await.outcome(), "accepted");
    tokens.revoke();
    assert_eq!(send_one(&mut courier, 2, "bye@example.org").await.outcome(), "accepted");
    assert_eq!(tokens.asked(), 2);

    // A new one is refused too: that is told, once.
    let nobody = tempfile::NamedTempFile::new().unwrap();
    let [cert, key] = [&identity.cert, &identity.key].map(|path| path.to_str().unwrap());
    let other = format!("{USER}:{}", nobody.path().display());
    let server = SmtpServer::start_with(&["--tls", "starttls", "--cert", cert, "--key", key, "--tokens", &other]);
    let before = tokens.asked();
    let found = verdict(&smtp(server.port, &authority.pem(), endpoint(tokens.port, &authority.pem()))).await;
    assert_eq!((found.0.as_str(), found.2, found.3), ("the mail server refused the login (535 5.7.8 at AUTH)", "auth_error", false));
    assert!(found.1.starts_with("the token is good, but opens nothing there: correct mail.auth.user; at Exchange Online"), "{}", found.1);
    assert_eq!((tokens.asked() - before, server.heard().matches("AUTH XOAUTH2").count()), (1, 1));
    assert!(server.mails().is_empty() && !server.heard().contains("MAIL"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_the_mail_server_hears_nothing() {
    let (authority, stranger) = (Authority::new("Test CA"), Authority::new("Another CA"));
    let identity = authority.sign("localhost");
    let tokens = TokenEndpoint::start(&identity);
    let (foreign, expired) =
        (TokenEndpoint::start(&stranger.sign("localhost")), TokenEndpoint::start(&authority.sign_expired("localhost")));
    let (busy, odd) = (TokenEndpoint::start(&identity), TokenEndpoint::start(&identity));
    busy.answer(503, json!({}));
    odd.answer(200, json!({"access_token": "a\u{1}b", "token_type": "Bearer"}));
    let (server, no_tls) = (server(&identity, &tokens), SmtpServer::start());
    let good = || endpoint(tokens.port, &authority.pem());
    let at = |port: u16| endpoint(port, &authority.pem());
    let secret = Endpoint { client_secret: Secret::new("s3cr-wrong".to_owned()), ..good() };
    #[rustfmt::skip]
    let cases = [
        (secret, "the token endpoint gives no token (invalid_client, AADSTS7000215)", "correct mail.auth.client_id and client_secret", "auth_error", false),
        (Endpoint { scope: None, ..good() }, "the token endpoint gives no token (invalid_scope, AADSTS7000215)", "correct mail.auth.scope; Exchange Online wants", "auth_error", false),
        (Endpoint { path: "/".to_owned(), ..good() }, "the token endpoint answers nothing to be understood (HTTP 404)", "correct mail.auth.token_url", "connect_error", false),
        (at(foreign.port), "the token endpoint cannot be trusted: the server's certificate comes from an authority that is not trusted here", "", "tls_error", false),
        (at(expired.port), "the token endpoint cannot be trusted: a certificate of the server expired on 2021-02-03", "", "tls_error", false),
        (at(1), "the token endpoint cannot be reached: Connection refused (os error 111)", "see whether this machine may connect to localhost:1 (no proxy is used)", "connect_error", true),
        (at(no_tls.port), "the token endpoint cannot be trusted: what answered does not speak TLS", "", "tls_error", false),
        (at(busy.port), "the token endpoint cannot answer now (HTTP 503)", "try again in some minutes", "connect_error", true),
        (at(odd.port), "what answers at the token endpoint gives no token: its token has characters that no token has", "correct mail.auth.token_url", "connect_error", false),
    ];
    for (endpoint, said, todo, outcome, transient) in cases {
        let found = verdict(&smtp(server.port, &authority.pem(), endpoint)).await;
        assert_eq!((found.0.as_str(), found.2, found.3), (said, outcome, transient));
        assert!(found.1.starts_with(todo), "{}", found.1);
    }
    assert_eq!(server.heard(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_server_offers_no_login_for_a_token() {
    let authority = Authority::new("Test CA");
    let identity = authority.sign("localhost");
    let tokens = TokenEndpoint::start(&identity);
    let [cert, key] = [&identity.cert, &identity.key].map(|path| path.to_str().unwrap());
    let server = SmtpServer::start_with(&["--tls", "starttls", "--cert", cert, "--key", key, "--auth", "u:p"]);
    let found = verdict(&smtp(server.port, &authority.pem(), endpoint(tokens.port, &authority.pem()))).await;
    assert_eq!((found.0.as_str(), found.2), ("the mail server offers no login by XOAUTH2 (it offers LOGIN, PLAIN)", "auth_error"));
    assert!(found.1.starts_with("switch XOAUTH2 on at the mail server"), "{}", found.1);
    assert!(!server.heard().contains("AUTH"));
}

/// Many connections want a token at once, and there is none to be had: the endpoint is not asked by each of them.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_in_trouble_is_not_stormed() {
    let authority = Authority::new("Test CA");
    let identity = authority.sign("localhost");
    let tokens = TokenEndpoint::start(&identity);
    let server = server(&identity, &tokens);
    let config = smtp(server.port, &authority.pem(), endpoint(tokens.port, &authority.pem()));
    let mut courier = Courier::start(&config, Limit::Unlimited, quick());
    tokens.expires_in(0);
    let answers = send(&mut courier, (1..=8).map(|id| mail(id, "slow@example.org")).collect()).await;
    assert!(answers.iter().all(|answer| answer.delivery.outcome() == "accepted"), "{answers:?}");
    let [cert, key] = [&identity.cert, &identity.key].map(|path| path.to_str().unwrap());
    let _server = server.restart(&["--tls", "starttls", "--cert", cert, "--key", key, "--tokens", &said(&tokens)]);
    let before = tokens.asked();
    tokens.answer(503, json!({}));
    tokens.think(Duration::from_millis(500));
    let answers = send(&mut courier, (9..=12).map(|id| mail(id, "slow@example.org")).collect()).await;
    assert!(answers.iter().all(|answer| answer.delivery.outcome() == "connect_error"), "{answers:?}");
    assert_eq!(tokens.asked() - before, 1);
}
