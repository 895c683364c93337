//! `mail`: how mail leaves, and in whose name.

use std::time::Duration;

use super::read::{Field, Section};
use super::{MailConfig, Sender, SmtpConfig, TransportConfig};
use crate::domain::Mailbox;

mod login;
pub(super) mod wire;

use wire::{Tls, Wire};

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Smtp,
    Directory,
    None,
}

/// `mail`, and what the rest of the configuration needs to know of it even where it is wrong.
pub(super) struct Mail {
    pub(super) config: Option<MailConfig>,
    pub(super) transport_is_none: bool,
}

/// Without a section everything has its default, and what has none is missing.
pub(super) fn mail(mut section: Section<'_>) -> Mail {
    let kinds = [("smtp", Kind::Smtp), ("directory", Kind::Directory), ("none", Kind::None)];
    let kind = section.or("transport", Kind::Smtp, |kind| kind.choice(&kinds));
    let directory = section.or("directory", section.reader.path("outbox"), Field::path);
    let smtp = smtp(&mut section, kind == Kind::Smtp);
    let from = match kind {
        Kind::None => section.field("from"),
        _ => section.required("from", "the sender, such as Print Service <print@example.com>"),
    };
    let from = from.map(|from| sender(&from));
    let envelope_from = section.field("envelope_from").map(|field| mailbox(&field));
    let redirect_to = section.field("redirect_to").map(|field| mailbox(&field));
    if let (Some(Some(to)), true) = (&redirect_to, kind != Kind::None) {
        let to = if section.reader.is_secret(to.address()) { "a sealed address".to_owned() } else { to.to_string() };
        section.reader.warn(format!("mail.redirect_to: a rehearsal: every mail goes to {to}, and no user gets one"));
    }
    let give_up_after = Duration::from_secs(60)..=Duration::from_secs(365 * 86_400);
    let give_up_after = section.or("give_up_after", Duration::from_secs(48 * 3_600), |after| after.duration(give_up_after));
    let take_back = section.or("on_undeliverable", true, |what| what.choice(&[("take_back", true), ("keep", false)]));
    section.finish();

    let config = || {
        Some(MailConfig {
            transport: match kind {
                Kind::Smtp => TransportConfig::Smtp(Box::new(smtp?)),
                Kind::Directory => TransportConfig::Directory(directory),
                Kind::None => TransportConfig::None,
            },
            from: from.map_or(Some(None), |from| from.map(Some))?,
            envelope_from: envelope_from.map_or(Some(None), |from| from.map(Some))?,
            redirect_to: redirect_to.map_or(Some(None), |to| to.map(Some))?,
            take_back,
            give_up_after,
        })
    };
    Mail { config: config(), transport_is_none: kind == Kind::None }
}

/// The keys of the wire, checked whatever the transport, so that a switch later brings no surprise; `used` demands them.
fn smtp(section: &mut Section<'_>, used: bool) -> Option<SmtpConfig> {
    let host = if used { section.required("host", "the mail server's name or address") } else { section.field("host") };
    let host = host.and_then(|host| host_name(&host));
    let Wire { tls, encryption, login } = wire::wire(section, host.as_deref(), used);
    let standard_port = match tls {
        Some(Tls::Off) => 25,
        Some(Tls::Implicit) => 465,
        Some(Tls::Upgraded) | None => 587,
    };
    let port = section.or("port", standard_port, |port| port.whole(1..=65_535));
    let hello_name = section.field("hello_name").map(|name| host_name(&name));
    let connections = section.or("connections", 2, |connections| connections.whole(1..=50));
    let timeout = Duration::from_secs(1)..=Duration::from_secs(600);
    let timeout = section.or("timeout", Duration::from_secs(30), |field| field.duration(timeout));
    Some(SmtpConfig {
        host: host?,
        port: u16::try_from(port).ok()?,
        hello_name: hello_name.map_or(Some(None), |name| name.map(Some))?,
        connections: usize::try_from(connections).ok()?,
        timeout,
        encryption: encryption?,
        login: login?,
    })
}

/// A name or an address: whatever may not end the SMTP command it stands in.
fn host_name(field: &Field<'_>) -> Option<String> {
    let fits = |text: &&str| {
        (1..=253).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']'))
    };
    field.scalar().filter(fits).map(str::to_owned).or_else(|| field.misfit("a host name or an IP address"))
}

/// `Name <address>`, or the address alone.
fn sender(field: &Field<'_>) -> Option<Sender> {
    let text = field.line("a sender such as Print Service <print@example.com>")?;
    let text = text.trim();
    let (name, address) = match text.strip_suffix('>').and_then(|text| text.rsplit_once('<')) {
        Some((name, address)) => (name.trim(), address.trim()),
        None => ("", text),
    };
    let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name);
    let address = in_ascii(field, address)?;
    if name.contains(['<', '>', '"', '\\']) {
        return field.misfit("a sender such as Print Service <print@example.com>, without < > \" \\ in the name");
    }
    Some(Sender { name: (!name.is_empty()).then(|| name.to_owned()), address })
}

pub(super) fn mailbox(field: &Field<'_>) -> Option<Mailbox> {
    in_ascii(field, field.text("a mail address")?)
}

/// An address that every mail is about to carry: one that needs SMTPUTF8 would leave all of them to servers that have it.
fn in_ascii(field: &Field<'_>, text: &str) -> Option<Mailbox> {
    let mailbox = checked(field, text)?;
    if mailbox.needs_smtputf8() {
        field.problem("the mail address has letters outside of ASCII before the @, which not every mail server takes; use another");
        return None;
    }
    Some(mailbox)
}

/// `text` as an address; what is wrong with it is noted at `field`.
pub(super) fn checked(field: &Field<'_>, text: &str) -> Option<Mailbox> {
    Mailbox::parse(text).map_err(|why| field.problem(format!("the mail address {why}"))).ok()
}
