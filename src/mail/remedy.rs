//! What to do about a mail that did not go. Everybody who tells of one says it: the log, and `doctor`.

use std::error::Error;
use std::io;

use crate::config::{Encryption, SmtpConfig, TransportConfig};

use super::delivery::{Delivery, MailError, Stage};

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

fn connecting(error: &MailError, smtp: &SmtpConfig) -> String {
    let SmtpConfig { host, port, .. } = smtp;
    match error {
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
