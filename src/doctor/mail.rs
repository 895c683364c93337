//! Whether mail could go: connection, encryption, certificate, login, and a mail to try.

use std::path::Path;
use std::time::Duration;

use crate::clock;
use crate::config::{Config, Encryption, SmtpConfig, TransportConfig};
use crate::domain::{Mailbox, Timestamp, printable};
use crate::logging::chain;
use crate::mail::{self, Delivery, Greeted, MailError, Stage};
use crate::store::Check;

/// A certificate that ends sooner is worth a warning.
const SOON: Duration = Duration::from_secs(21 * 86_400);

pub(super) async fn server(config: &Config, now: Timestamp) -> Check {
    match &config.mail.transport {
        TransportConfig::None => Check::ok("mail", "no mail is sent (transport: none)".to_owned()),
        TransportConfig::Directory(path) => directory(path),
        TransportConfig::Smtp(smtp) => match mail::probe(&config.mail).await {
            Ok(greeted) => answered(smtp, greeted.as_ref(), now),
            Err(verdict) => Check::failed("mail", format!("{}:{}: {}", smtp.host, smtp.port, said(&verdict)), advice(&verdict, smtp)),
        },
    }
}

/// Sends a mail without any credential, and tells what became of it.
pub async fn test(config: &Config, to: &Mailbox) -> Check {
    let verdict = mail::send_test(&config.mail, to, clock::now()).await;
    let whom = match &config.mail.redirect_to {
        Some(instead) => format!("{to}, redirected to {instead}"),
        None => to.to_string(),
    };
    let found = format!("a mail to {whom}: {}", said(&verdict));
    match (&verdict, &config.mail.transport) {
        (Delivery::Accepted { .. }, _) => Check::ok("mail test", found),
        (_, TransportConfig::Smtp(smtp)) => Check::failed("mail test", found, advice(&verdict, smtp)),
        (_, _) => Check::failed("mail test", found, "see mail.transport in the configuration"),
    }
}

fn answered(smtp: &SmtpConfig, greeted: Option<&Greeted>, now: Timestamp) -> Check {
    let mut found = format!("{}:{} answers", smtp.host, smtp.port);
    let Some(greeted) = greeted else { return Check::ok("mail", found) };
    let mut expires = None;
    match &greeted.secured {
        None => found.push_str(" unencrypted"),
        Some(secured) => {
            expires = secured.certificate_expires;
            let verified = if smtp.is_unverified() { ", not verified" } else { "" };
            let until = expires.map_or_else(|| "of an unknown date".to_owned(), |at| format!("valid until {at}"));
            found.push_str(&format!(" over {} (certificate {until}{verified})", secured.version));
        }
    }
    found.push_str(&match greeted.login {
        Some(mechanism) => format!(", login by {} accepted", mechanism.as_str()),
        None if greeted.offered.is_empty() => ", offers no login".to_owned(),
        None => format!(", offers a login ({}), none is configured", printable(&greeted.offered.join(", "))),
    });
    found.push_str(if greeted.smtputf8 { ", takes addresses of every script" } else { "" });
    match expires {
        Some(at) if at < now => Check::warning("mail", found, "the certificate has ended: renew it at the mail server"),
        Some(at) if at < now.plus(SOON) => Check::warning("mail", found, "the certificate ends soon: renew it at the mail server"),
        _ => Check::ok("mail", found),
    }
}

fn directory(path: &Path) -> Check {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() && !found.permissions().readonly() => Check::ok("mail", format!("mails go to {}", path.display())),
        Ok(_) => Check::failed("mail", format!("{} is not a writable directory", path.display()), "correct mail.directory"),
        Err(_) => Check::ok("mail", format!("{} will be made with the first mail", path.display())),
    }
}

/// The verdict with its causes; what TLS says holds its remedy, which stands apart here.
fn said(verdict: &Delivery) -> String {
    match verdict {
        Delivery::ConnectError(MailError::Handshake(explanation)) => explanation.what.clone(),
        Delivery::ConnectError(error) => chain(error),
        verdict => verdict.to_string(),
    }
}

fn advice(verdict: &Delivery, smtp: &SmtpConfig) -> String {
    match verdict {
        Delivery::ConnectError(error) => connecting(error, smtp),
        Delivery::RecipientRejected(_) => "the mail server refuses this recipient: try another address".to_owned(),
        Delivery::AddressUnsupported => "such users cannot be told by this mail server: switch SMTPUTF8 on there".to_owned(),
        Delivery::SiteFault(refusal) if refusal.code == 530 => {
            "the mail server wants a login or encryption first: see mail.auth and mail.tls".to_owned()
        }
        Delivery::SiteFault(refusal) if refusal.stage == Stage::MailFrom => {
            "allow this sender (mail.envelope_from, else mail.from) at the mail server, or use another".to_owned()
        }
        Delivery::SiteFault(_) => "allow this machine to send at the mail server, or see mail.auth; its log tells more".to_owned(),
        Delivery::Deferred(_) | Delivery::Unknown => "try again in some minutes; the mail server's log tells more".to_owned(),
        Delivery::Accepted { .. } | Delivery::NotTried => String::new(),
    }
}

fn connecting(error: &MailError, smtp: &SmtpConfig) -> String {
    let port = smtp.port;
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
        MailError::Timeout(Stage::Greeting) if !matches!(smtp.encryption, Encryption::Implicit(_)) => {
            format!("if the mail server expects TLS from the first byte at port {port} (as at 465), set mail.tls: implicit")
        }
        _ => "check mail.host and mail.port, and that this machine may connect there".to_owned(),
    }
}
