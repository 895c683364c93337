//! Whether mail could go: connection, encryption, certificate, login, and a mail to try.

use std::path::Path;
use std::time::Duration;

use crate::clock;
use crate::config::{Config, SmtpConfig, TransportConfig};
use crate::domain::{Mailbox, Timestamp, printable};
use crate::mail::{self, Delivery, Greeted, remedy, what};
use crate::store::Check;

use super::folders;

/// A certificate that ends sooner is worth a warning.
const SOON: Duration = Duration::from_secs(21 * 86_400);

pub(super) async fn server(config: &Config, now: Timestamp) -> Check {
    match &config.mail.transport {
        TransportConfig::None => Check::ok("mail", "no mail is sent (transport: none)".to_owned()),
        TransportConfig::Directory(path) => directory(path),
        TransportConfig::Smtp(smtp) => match mail::probe(&config.mail).await {
            Ok(greeted) => answered(smtp, greeted.as_ref(), now),
            Err(verdict) => {
                let found = format!("{}:{}: {}", smtp.host, smtp.port, what(&verdict));
                Check::failed("mail", found, remedy(&verdict, &config.mail.transport))
            }
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
    let found = format!("a mail to {whom}: {}", what(&verdict));
    match &verdict {
        Delivery::Accepted { .. } => Check::ok("mail test", found),
        _ => Check::failed("mail test", found, remedy(&verdict, &config.mail.transport)),
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
    match folders::may_be_made(path) {
        Ok(()) if path.exists() => Check::ok("mail", format!("mails go to {}", path.display())),
        Ok(()) => Check::ok("mail", format!("{} will be made with the first mail", path.display())),
        Err(error) => Check::failed(
            "mail",
            format!("the mails' directory {} cannot be written by this account: {error}", path.display()),
            mail::writing(&error),
        ),
    }
}
