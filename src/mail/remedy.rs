//! What to do about a mail that did not go. Everybody who tells of one says it: the log, and `doctor`.

use std::error::Error;
use std::io;

use crate::config::{Encryption, MailLogin, Proof, SmtpConfig, TokenEndpoint, TransportConfig};

use super::delivery::{Delivery, MailError, Stage};
use super::token::{Denial, TokenError};

/// The verdict with its causes; what TLS says holds its remedy, which stands apart here.
pub fn what(verdict: &Delivery) -> String {
    let Delivery::ConnectError(error) = verdict else { return verdict.to_string() };
    if let MailError::Handshake(explanation) = error {
        return explanation.what.clone();
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// A clause that begins with a verb; empty where there is nothing to be done.
pub fn remedy(verdict: &Delivery, transport: &TransportConfig) -> String {
    match (verdict, transport) {
        (Delivery::ConnectError(error), TransportConfig::Smtp(smtp)) => connecting(error, smtp),
        (Delivery::ConnectError(MailError::Write { source, .. }), _) => writing(source).to_owned(),
        (Delivery::ConnectError(_), _) => "see mail.transport in the configuration".to_owned(),
        (Delivery::RecipientRejected(_), _) => "the mail server refuses this recipient: try another address".to_owned(),
        (Delivery::AddressUnsupported, _) => "such users cannot be told by this mail server: switch SMTPUTF8 on there".to_owned(),
        (Delivery::SiteFault(refusal), _) if refusal.code == 530 => {
            "the mail server wants a login or encryption first: see mail.auth and mail.tls".to_owned()
        }
        (Delivery::SiteFault(refusal), _) if refusal.stage == Stage::MailFrom => {
            "allow this sender (mail.envelope_from, else mail.from) at the mail server, or use another".to_owned()
        }
        (Delivery::SiteFault(_), _) => "allow this machine to send at the mail server, or see mail.auth; its log tells more".to_owned(),
        (Delivery::Deferred(_) | Delivery::Unknown, _) => "try again in some minutes; the mail server's log tells more".to_owned(),
        (Delivery::Accepted { .. } | Delivery::NotTried, _) => String::new(),
    }
}

/// What to do about a folder for mails that cannot be written.
pub fn writing(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on that disk",
        _ => "give the account that runs credkeeper the right to write there, or name another folder in mail.directory",
    }
}

/// No token, no login.
fn without_token(error: &TokenError, endpoint: &TokenEndpoint) -> String {
    let TokenEndpoint { host, port, .. } = endpoint;
    match error {
        TokenError::Resolve(_) => format!("correct mail.auth.token_url ({host}), or the name service of this machine"),
        TokenError::Connect(_) | TokenError::Timeout | TokenError::Lost(_) => {
            format!("see whether this machine may connect to {host}:{port} (no proxy is used), and whether mail.auth.token_url is right")
        }
        TokenError::TlsFiles(_) => "correct mail.ca_file or mail.ca_directory".to_owned(),
        TokenError::Handshake(explanation) => explanation.remedy.clone(),
        TokenError::Denied { denial: Denial::InvalidClient | Denial::InvalidGrant, .. } => {
            "correct mail.auth.client_id and client_secret: the secret itself, not its identifier, and not one that has ended".to_owned()
        }
        TokenError::Denied { denial: Denial::UnauthorizedClient, .. } => {
            "correct mail.auth.client_id and the tenant in mail.auth.token_url, or allow this client there".to_owned()
        }
        TokenError::Denied { denial: Denial::InvalidScope, .. } => {
            "correct mail.auth.scope; Exchange Online wants https://outlook.office365.com/.default".to_owned()
        }
        TokenError::Denied { .. } => {
            "compare mail.auth (token_url, client_id, scope) with what the token endpoint's manual asks for; its log tells more".to_owned()
        }
        TokenError::Busy(_) => format!("try again in some minutes; if it stays, look into the log of {host}"),
        TokenError::Status(_) | TokenError::Malformed(_) => {
            format!("correct mail.auth.token_url: what answers at {host}:{port} is no token endpoint at that path")
        }
    }
}

fn connecting(error: &MailError, smtp: &SmtpConfig) -> String {
    let SmtpConfig { host, port, .. } = smtp;
    let endpoint = match &smtp.login {
        Some(MailLogin { proof: Proof::Token(endpoint), .. }) => Some(endpoint.as_ref()),
        _ => None,
    };
    match error {
        MailError::Token(error) => match endpoint {
            Some(endpoint) => without_token(error, endpoint),
            None => "see mail.auth in the configuration".to_owned(),
        },
        MailError::Login(refusal) if endpoint.is_some() && refusal.code >= 500 => {
            "the token is good, but opens nothing there: correct mail.auth.user; at Exchange Online, switch on authenticated SMTP for \
             the tenant (or that mailbox), grant the application SMTP.SendAsApp, register its service principal \
             (New-ServicePrincipal), and give that access to the mailbox (Add-MailboxPermission)"
                .to_owned()
        }
        MailError::NoLogin { .. } if endpoint.is_some() => match smtp.encryption {
            Encryption::None => "many servers offer a login on encrypted connections only: set mail.tls".to_owned(),
            _ => "switch XOAUTH2 on at the mail server, use another port (587), or set mail.auth.method: password".to_owned(),
        },
        MailError::Handshake(explanation) => explanation.remedy.clone(),
        MailError::TlsFiles(_) => "correct mail.ca_file, mail.ca_directory or mail.client_certificate".to_owned(),
        MailError::TlsNotOffered | MailError::NoTls(_) => {
            "switch STARTTLS on at the mail server, or set mail.tls: implicit and the port that is encrypted from the first byte (465)"
                .to_owned()
        }
        MailError::Injected => "find out what stands between this machine and the mail server".to_owned(),
        MailError::Login(refusal) if refusal.code < 500 => "try again in some minutes; the mail server's log tells more".to_owned(),
        MailError::Login(_) => {
            "correct mail.auth; some providers want a password of its own for programs, or logins by SMTP switched on".to_owned()
        }
        MailError::NoLogin { .. } => match smtp.encryption {
            Encryption::None => "many servers offer a login on encrypted connections only: set mail.tls, or remove mail.auth".to_owned(),
            _ => "switch PLAIN or LOGIN on at the mail server, use another port (587), or remove mail.auth".to_owned(),
        },
        MailError::Resolve(_) => format!("correct mail.host ({host}), or the name service of this machine"),
        MailError::Connect(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                format!("nothing listens on {host}:{port}: start the mail server, or correct mail.host and mail.port (587, 465 or 25)")
            }
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                format!("{host}:{port} does not answer: see whether the machine is up, and open the port in the firewalls in between")
            }
            _ => format!("check mail.host and mail.port, and that this machine may connect to {host}:{port}"),
        },
        MailError::Timeout(Stage::Greeting) if !matches!(smtp.encryption, Encryption::Implicit(_)) => {
            format!("if the mail server expects TLS from the first byte at port {port} (as at 465), set mail.tls: implicit")
        }
        MailError::Refused(_) => "allow this machine to connect at the mail server, or try again later; its log tells more".to_owned(),
        MailError::Protocol(_) => format!("look what listens on {host}:{port}: it is no mail server, or mail.tls does not fit the port"),
        _ => format!("look into the mail server's log, and whether mail.host and mail.port are right ({host}:{port})"),
    }
}
