//! `mail`: how mail leaves, and in whose name.

use std::time::Duration;

use super::read::{Field, Section};
use super::url::is_loopback;
use super::{MailConfig, Sender, SmtpConfig, TransportConfig};
use crate::domain::Mailbox;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Smtp,
    Directory,
    None,
}

#[derive(Clone, Copy, PartialEq)]
enum Tls {
    Off,
    Upgraded,
    Implicit,
}

/// `mail`, and what the rest of the configuration needs to know of it even where it is wrong.
pub(super) struct Mail {
    pub(super) config: Option<MailConfig>,
    pub(super) transport_is_none: bool,
    /// `on_undeliverable: take_back`, which this version does not do yet.
    pub(super) take_back: bool,
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
    section.later("redirect_to", "rehearsals with redirect_to");
    let give_up_after = Duration::from_secs(60)..=Duration::from_secs(365 * 86_400);
    let give_up_after = section.or("give_up_after", Duration::from_secs(48 * 3_600), |after| after.duration(give_up_after));
    let take_back = section.or("on_undeliverable", true, |what| what.choice(&[("take_back", true), ("keep", false)]));
    section.finish();

    let config = || {
        Some(MailConfig {
            transport: match kind {
                Kind::Smtp => TransportConfig::Smtp(smtp?),
                Kind::Directory => TransportConfig::Directory(directory),
                Kind::None => TransportConfig::None,
            },
            from: from.map_or(Some(None), |from| from.map(Some))?,
            envelope_from: envelope_from.map_or(Some(None), |from| from.map(Some))?,
            give_up_after,
        })
    };
    Mail { config: config(), transport_is_none: kind == Kind::None, take_back: take_back && kind != Kind::None }
}

/// The keys of the wire, checked whatever the transport, so that a switch later brings no surprise; `used` demands them.
fn smtp(section: &mut Section<'_>, used: bool) -> Option<SmtpConfig> {
    let host = if used { section.required("host", "the mail server's name or address") } else { section.field("host") };
    let host = host.and_then(|host| host_name(&host));
    let tls_field = section.field("tls");
    let modes = [("none", Tls::Off), ("starttls", Tls::Upgraded), ("implicit", Tls::Implicit)];
    let tls = tls_field.as_ref().map_or(Some(Tls::Upgraded), |tls| tls.choice(&modes));
    if used && tls.is_some_and(|tls| tls != Tls::Off) {
        let message = "TLS to the mail server is not yet supported; set tls: none";
        match &tls_field {
            Some(field) => field.problem(message),
            None => section.reader.problem(section.at(), &section.key_of("tls"), message),
        }
    }
    let standard_port = match tls {
        Some(Tls::Off) => 25,
        Some(Tls::Implicit) => 465,
        _ => 587,
    };
    let port = section.or("port", standard_port, |port| port.whole(1..=65_535));
    let allow_plaintext = section.or("allow_plaintext", false, Field::boolean);
    if let (true, Some(Tls::Off), Some(host), Some(field)) = (used, tls, &host, &tls_field)
        && !is_loopback(host)
    {
        if allow_plaintext {
            section.reader.warn(format!("mail.allow_plaintext: PINs cross the network to {host} unencrypted"));
        } else {
            field.problem(format!("PINs would cross the network to {host} unencrypted; set allow_plaintext: true if it is trusted"));
        }
    }
    for (name, what) in [
        ("auth", "logins to the mail server"),
        ("ca_file", "certificates for the mail server"),
        ("ca_directory", "certificates for the mail server"),
        ("client_certificate", "certificates for the mail server"),
        ("insecure_skip_verify", "unverified certificates"),
    ] {
        section.later(name, what);
    }
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
    let address = checked(field, address)?;
    if name.contains(['<', '>', '"', '\\']) {
        return field.misfit("a sender such as Print Service <print@example.com>, without < > \" \\ in the name");
    }
    Some(Sender { name: (!name.is_empty()).then(|| name.to_owned()), address })
}

fn mailbox(field: &Field<'_>) -> Option<Mailbox> {
    checked(field, field.text("a mail address")?)
}

/// `text` as an address; what is wrong with it is noted at `field`.
pub(super) fn checked(field: &Field<'_>, text: &str) -> Option<Mailbox> {
    Mailbox::parse(text).map_err(|why| field.problem(format!("the mail address {why}"))).ok()
}
