//! `mail`: how the connection to the mail server is protected, and the login on it.

use super::super::read::{Field, Section};
use super::super::url::is_loopback;
use super::super::{Encryption, MailLogin, Proof};
use super::login::{asks_for_tokens, login};
use crate::tls::{ClientIdentity, TlsError, TlsSettings, Verify, What, client_config};

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Tls {
    Off,
    Upgraded,
    Implicit,
}

/// `None` stands for what is there but wrong.
pub(super) struct Wire {
    pub(super) tls: Option<Tls>,
    pub(super) encryption: Option<Encryption>,
    pub(super) login: Option<Option<MailLogin>>,
}

/// Checked whatever the transport; but files are looked into, and warnings given, only if the mail server is `used`.
pub(super) fn wire(section: &mut Section<'_>, host: Option<&str>, used: bool) -> Wire {
    let tls_field = section.field("tls");
    let modes = [("none", Tls::Off), ("starttls", Tls::Upgraded), ("implicit", Tls::Implicit)];
    let tls = tls_field.as_ref().map_or(Some(Tls::Upgraded), |tls| tls.choice(&modes));
    let allow_plaintext = section.or("allow_plaintext", false, Field::boolean);
    let auth = section.field("auth").filter(|field| !field.is_off());
    let mut login = auth.as_ref().map_or(Some(None), |auth| login(auth).map(Some));
    if let (true, Some(Tls::Off), Some(host), Some(field)) = (used, tls, host, &tls_field)
        && !is_loopback(host)
    {
        let what = match &login {
            Some(Some(MailLogin { proof: Proof::Token(_), .. })) => "PINs and the tokens for mail.auth",
            _ if auth.is_some() => "PINs and the password of mail.auth",
            _ => "PINs",
        };
        if allow_plaintext {
            section.reader.warn(format!("mail.allow_plaintext: {what} cross the network to {host} unencrypted"));
        } else {
            field.problem(format!("{what} would cross the network to {host} unencrypted; set allow_plaintext: true if it is trusted"));
        }
    }
    let for_tokens = auth.as_ref().is_some_and(asks_for_tokens);
    let (settings, authorities) = settings(section, host, used, tls, for_tokens);
    if let (Some(Some(login)), Some(authorities)) = (&mut login, authorities)
        && let Proof::Token(endpoint) = &mut login.proof
        && let Some(endpoint) = &mut endpoint.tls
    {
        *endpoint = authorities;
    }
    let encryption = tls.and_then(|tls| match tls {
        Tls::Off => Some(Encryption::None),
        Tls::Upgraded => settings.map(Encryption::StartTls),
        Tls::Implicit => settings.map(Encryption::Implicit),
    });
    Wire { tls, encryption, login }
}

/// The mail server's, and those of the token endpoint: it trusts the same authorities, and nothing else is meant for it.
fn settings(
    section: &mut Section<'_>,
    host: Option<&str>,
    used: bool,
    tls: Option<Tls>,
    for_tokens: bool,
) -> (Option<TlsSettings>, Option<TlsSettings>) {
    let ca_file = section.field("ca_file");
    let ca_directory = section.field("ca_directory");
    let client = section.field("client_certificate");
    let skip_field = section.field("insecure_skip_verify").filter(|field| !field.is_off());
    let skip = skip_field.as_ref().and_then(Field::boolean).unwrap_or(false);
    let path = |field: &Option<Field<'_>>| field.as_ref().map_or(Some(None), |field| field.path().map(Some));
    let (file, directory) = (path(&ca_file), path(&ca_directory));
    let identity = client.as_ref().map_or(Some(None), |client| identity(client).map(Some));
    if let (true, Some(Tls::Off)) = (used, tls) {
        // Whoever wrote them believes that something is encrypted.
        let authorities = [&ca_file, &ca_directory].into_iter().filter(|_| !for_tokens);
        let given = authorities.chain([&client, &skip_field]).filter_map(|field| field.as_ref());
        given.for_each(|field| field.problem("has no effect with tls: none; remove one of the two"));
    }
    if skip && used && tls != Some(Tls::Off) {
        let host = host.unwrap_or("the host");
        section.reader.warn(format!(
            "mail.insecure_skip_verify: whoever answers at {host} is taken for the mail server and is sent every PIN and the login; name its certificate in ca_file instead"
        ));
    }
    let (Some(file), Some(directory), Some(identity)) = (file, directory, identity) else { return (None, None) };
    let authorities = TlsSettings { verify: Verify::Full, ca_file: file, ca_directory: directory, client: None, server_name: None };
    let verify = if skip { Verify::Nothing } else { Verify::Full };
    let settings = TlsSettings { verify, client: identity, ..authorities.clone() };
    // With insecure_skip_verify the authorities matter to tokens only.
    let wrong = [(tls != Some(Tls::Off)).then_some(&settings), for_tokens.then_some(&authorities)];
    let wrong = wrong.into_iter().flatten().filter(|_| used).find_map(|settings| client_config(settings).err());
    if let Some(error) = wrong
        && let Some(field) = blamed(&error, ca_file, ca_directory, client)
    {
        field.problem(said(&error));
        return (None, None);
    }
    ((tls != Some(Tls::Off)).then_some(settings), Some(authorities))
}

/// Which of the keys names the file that `error` is about; none for what is wrong with this machine, which `doctor` tells.
pub(in crate::config) fn blamed<'a>(
    error: &TlsError,
    ca_file: Option<Field<'a>>,
    ca_directory: Option<Field<'a>>,
    client: Option<Field<'a>>,
) -> Option<Field<'a>> {
    match error {
        TlsError::Read { what, .. } | TlsError::Content { what, .. } => match what {
            What::Authority => ca_file.or(ca_directory),
            What::Directory => ca_directory,
            What::ClientCertificate | What::ClientKey => client,
        },
        TlsError::KeyDoesNotFit { .. } | TlsError::Identity { .. } => client,
        TlsError::NoSystemAuthorities | TlsError::Setup(_) => None,
    }
}

pub(in crate::config) fn said(error: &TlsError) -> String {
    match error {
        TlsError::Read { what, path, source } => {
            let why = match source.kind() {
                std::io::ErrorKind::NotFound => "does not exist".to_owned(),
                std::io::ErrorKind::PermissionDenied => "may not be read by this account".to_owned(),
                _ => format!("cannot be read: {source}"),
            };
            format!("the {what} {} {why}", path.display())
        }
        TlsError::Identity { source, .. } => format!("{error}: {source}"),
        _ => error.to_string(),
    }
}

pub(in crate::config) fn identity(field: &Field<'_>) -> Option<ClientIdentity> {
    let mut section = field.section("{cert: PATH, key: PATH}")?;
    let cert = section.required("cert", "the path of our certificate, PEM").and_then(|cert| cert.path());
    let key = section.required("key", "the path of its private key, PEM without a passphrase").and_then(|key| key.path());
    section.finish();
    Some(ClientIdentity { cert: cert?, key: key? })
}
