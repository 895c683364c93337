//! `mail`: how the connection to the mail server is protected, and the login on it.

use super::super::read::{Field, Section};
use super::super::secrets::{SHAPE, secret};
use super::super::url::is_loopback;
use super::super::{Encryption, MailLogin};
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
    let login = auth.as_ref().map_or(Some(None), |auth| login(auth).map(Some));
    if let (true, Some(Tls::Off), Some(host), Some(field)) = (used, tls, host, &tls_field)
        && !is_loopback(host)
    {
        let what = if auth.is_some() { "PINs and the password of mail.auth" } else { "PINs" };
        if allow_plaintext {
            section.reader.warn(format!("mail.allow_plaintext: {what} cross the network to {host} unencrypted"));
        } else {
            field.problem(format!("{what} would cross the network to {host} unencrypted; set allow_plaintext: true if it is trusted"));
        }
    }
    let settings = settings(section, host, used, tls);
    let encryption = tls.and_then(|tls| match tls {
        Tls::Off => Some(Encryption::None),
        Tls::Upgraded => settings.map(Encryption::StartTls),
        Tls::Implicit => settings.map(Encryption::Implicit),
    });
    Wire { tls, encryption, login }
}

fn settings(section: &mut Section<'_>, host: Option<&str>, used: bool, tls: Option<Tls>) -> Option<TlsSettings> {
    let ca_file = section.field("ca_file");
    let ca_directory = section.field("ca_directory");
    let client = section.field("client_certificate");
    let skip_field = section.field("insecure_skip_verify").filter(|field| !field.is_off());
    let skip = skip_field.as_ref().and_then(Field::boolean).unwrap_or(false);
    let given = [&ca_file, &ca_directory, &client, &skip_field];
    if let (true, Some(Tls::Off)) = (used, tls) {
        // Whoever wrote them believes that something is encrypted.
        given
            .iter()
            .filter_map(|field| field.as_ref())
            .for_each(|field| field.problem("has no effect with tls: none; remove one of the two"));
        return None;
    }
    if skip && used {
        let host = host.unwrap_or("the host");
        section.reader.warn(format!(
            "mail.insecure_skip_verify: whoever answers at {host} is taken for the mail server and is sent every PIN and the login; name its certificate in ca_file instead"
        ));
    }
    let path = |field: &Option<Field<'_>>| field.as_ref().map_or(Some(None), |field| field.path().map(Some));
    let identity = client.as_ref().map_or(Some(None), |client| identity(client).map(Some));
    let (file, directory) = (path(&ca_file), path(&ca_directory));
    let settings = TlsSettings {
        verify: if skip { Verify::Nothing } else { Verify::Full },
        ca_file: file?,
        ca_directory: directory?,
        client: identity?,
        server_name: None,
    };
    if used
        && let Err(error) = client_config(&settings)
        && let Some(field) = blamed(&error, ca_file, ca_directory, client)
    {
        field.problem(said(&error));
        return None;
    }
    Some(settings)
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

const AUTH: &str = "{method: password, user: NAME, password: {file: PATH}}";

fn login(field: &Field<'_>) -> Option<MailLogin> {
    let mut section = field.section(AUTH)?;
    let method = section.required("method", "password or none");
    let oauth2 = method.as_ref().is_some_and(|method| method.scalar() == Some("oauth2"));
    let method = method.and_then(|method| method.word(&[("password", true), ("none", false)], &["oauth2"]));
    if oauth2 {
        return None; // its keys are those of a later version
    }
    let user = section.required("user", "the name at the mail server").and_then(|user| user.line("the name at the mail server"));
    let password_field = section.required("password", SHAPE);
    let password = password_field.as_ref().and_then(secret);
    if let (Some(field), Some(password)) = (&password_field, &password)
        && password.expose().contains('\0')
    {
        field.problem("a password cannot hold the character with the code 0");
        return None;
    }
    if method == Some(false) {
        section.problem("user and password have no effect with method: none; remove them, or set method: password");
    }
    section.finish();
    method.filter(|is_password| *is_password)?;
    Some(MailLogin { user: user?, password: password? })
}
