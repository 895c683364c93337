//! `admin`: who is told what is wrong.

use std::time::Duration;

use super::AdminConfig;
use super::mail::mailbox;
use super::read::Field;

/// `transport_is_none`: nobody could be told.
pub(super) fn admin(field: &Field<'_>, transport_is_none: bool) -> Option<AdminConfig> {
    let mut section = field.section("{email: [print-admins@example.com]}")?;
    let email = section.required("email", "a list of mail addresses, such as [print-admins@example.com]");
    let email = email.and_then(|email| {
        let items = email.list("mail addresses, such as [print-admins@example.com]")?;
        if items.is_empty() || items.len() > 20 {
            return email.misfit("one to twenty mail addresses");
        }
        items.iter().map(mailbox).collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>()
    });
    let interval = Duration::from_secs(60)..=Duration::from_secs(30 * 86_400);
    let interval = section.or("interval", Duration::from_secs(3_600), |field| field.duration(interval));
    let subject = section.or("subject", "Credkeeper needs attention".to_owned(), |field| field.line("a line of text"));
    section.finish();
    if transport_is_none {
        field.problem("nobody would be told: mail.transport is none; remove admin, or name a transport");
    }
    Some(AdminConfig { email: email?, interval, subject })
}
