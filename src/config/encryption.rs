//! `databases.tls`: how a connection to the database is encrypted, and what is verified.

use std::path::{Path, PathBuf};

use crate::tls::{self, ClientIdentity, TlsError, TlsSettings, Verify};

use super::read::Field;
use super::sentence;
use super::url::is_loopback;

/// What libpq calls sslmode, without those that fall back to no encryption.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    Disable,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Mode {
    pub(super) const NAMES: [(&str, Mode); 4] =
        [("disable", Mode::Disable), ("require", Mode::Require), ("verify-ca", Mode::VerifyCa), ("verify-full", Mode::VerifyFull)];
}

/// What is wanted, before it is judged: from the `tls` section, or from a connection string.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) mode: Option<Mode>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) client_cert: Option<PathBuf>,
    pub(super) client_key: Option<PathBuf>,
    pub(super) server_name: Option<String>,
}

/// The `tls` section; `None` where it cannot be used.
pub(super) fn section(field: &Field<'_>) -> Option<Wanted> {
    let mut section = field.section("{mode: verify-full}")?;
    let before = section.reader.count();
    let mode = section.field("mode").and_then(|mode| match mode.scalar() {
        Some("strict") => {
            mode.problem("strict is for SQL Server (TDS 8); expected disable, require, verify-ca or verify-full");
            None
        }
        _ => mode.choice(&Mode::NAMES),
    });
    let mut path = |name| section.field(name).and_then(|path| path.path());
    let (ca_file, client_cert, client_key) = (path("ca_file"), path("client_cert"), path("client_key"));
    let server_name = section.field("server_name").and_then(|name| {
        let text = name.line("a host name")?;
        if text.contains(char::is_whitespace) { name.misfit("a host name") } else { Some(text) }
    });
    let reader = section.reader;
    section.finish();
    (reader.count() == before).then_some(Wanted { mode, ca_file, client_cert, client_key, server_name })
}

/// How the server at these hosts is spoken to; `Err` with what is wrong, each with the key that it is about.
///
/// Without a mode: verify-full; but nothing for servers on this machine, unless other keys show that TLS is meant.
pub(super) fn settings(wanted: Wanted, hosts: &[(String, u16)]) -> Result<Option<TlsSettings>, Vec<(&'static str, String)>> {
    let Wanted { mode, ca_file, client_cert, client_key, server_name } = wanted;
    let given = [
        ("ca_file", ca_file.is_some()),
        ("client_cert", client_cert.is_some()),
        ("client_key", client_key.is_some()),
        ("server_name", server_name.is_some()),
    ];
    let given: Vec<&'static str> = given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
    let local = hosts.iter().all(|(host, _)| is_loopback(host));
    let default = if local && given.is_empty() { Mode::Disable } else { Mode::VerifyFull };
    let verify = match mode.unwrap_or(default) {
        Mode::Disable if given.is_empty() => return Ok(None),
        Mode::Disable => {
            return Err(given
                .into_iter()
                .map(|name| (name, "nothing is encrypted with mode: disable; remove the key".to_owned()))
                .collect());
        }
        // As libpq: who names an authority wants it asked.
        Mode::Require if ca_file.is_none() => Verify::Nothing,
        Mode::Require | Mode::VerifyCa => Verify::Chain,
        Mode::VerifyFull => Verify::Full,
    };
    let client = match (client_cert, client_key) {
        (Some(cert), Some(key)) => Some(ClientIdentity { cert, key }),
        (None, None) => None,
        (Some(_), None) => {
            return Err(vec![(
                "client_cert",
                "the private key that belongs to it is missing: name it in client_key (sslkey in an address)".to_owned(),
            )]);
        }
        (None, Some(_)) => {
            return Err(vec![(
                "client_key",
                "the certificate that belongs to it is missing: name it in client_cert (sslcert in an address)".to_owned(),
            )]);
        }
    };
    let settings = TlsSettings { verify, ca_file, ca_directory: None, client, server_name };
    let wrong = unusable(&settings);
    if wrong.is_empty() { Ok(Some(settings)) } else { Err(wrong) }
}

/// Reads the files once, so that a wrong one is told by its key. The system's authorities are left for the first connection:
/// a configuration may be checked on another machine.
fn unusable(settings: &TlsSettings) -> Vec<(&'static str, String)> {
    let nothing = || TlsSettings { verify: Verify::Nothing, ca_file: None, ca_directory: None, client: None, server_name: None };
    let mut wrong = Vec::new();
    if let Some(ca_file) = &settings.ca_file
        && let Err(error) = tls::client_config(&TlsSettings { verify: Verify::Chain, ca_file: Some(ca_file.clone()), ..nothing() })
    {
        wrong.push(("ca_file", sentence(&error)));
    }
    if let Some(client) = &settings.client
        && let Err(error) = tls::client_config(&TlsSettings { client: Some(client.clone()), ..nothing() })
    {
        let key = if is_about(&error, &client.key) { "client_key" } else { "client_cert" };
        wrong.push((key, sentence(&error)));
    }
    wrong
}

fn is_about(error: &TlsError, file: &Path) -> bool {
    match error {
        TlsError::Read { path, .. } | TlsError::Content { path, .. } => path == file,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Vec<(String, u16)> {
        vec![(name.to_owned(), 5432)]
    }

    fn verify(mode: Option<Mode>, hosts: &[(String, u16)], ca_file: Option<PathBuf>) -> Option<Verify> {
        settings(Wanted { mode, ca_file, ..Wanted::default() }, hosts).unwrap().map(|settings| settings.verify)
    }

    /// As libpq, but verified by default, and never falling back.
    #[test]
    fn what_is_verified_follows_from_mode_authority_and_host() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, rcgen::generate_simple_self_signed(["db".to_owned()]).unwrap().cert.pem()).unwrap();
        let (away, here, both) = (host("db"), host("127.0.0.1"), [host("localhost"), host("db")].concat());
        for (mode, hosts, authority, expected) in [
            (None, &away, false, Some(Verify::Full)),
            (None, &here, false, None),
            (None, &both, false, Some(Verify::Full)),
            (None, &here, true, Some(Verify::Full)),
            (Some(Mode::Disable), &away, false, None),
            (Some(Mode::Require), &away, false, Some(Verify::Nothing)),
            (Some(Mode::Require), &away, true, Some(Verify::Chain)),
            (Some(Mode::VerifyCa), &here, false, Some(Verify::Chain)),
            (Some(Mode::VerifyFull), &here, true, Some(Verify::Full)),
        ] {
            assert_eq!(verify(mode, hosts, authority.then(|| ca.clone())), expected, "{mode:?} {hosts:?} {authority}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_used_is_told_by_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            Some(path)
        };
        let made = rcgen::generate_simple_self_signed(["us".to_owned()]).unwrap();
        let (cert, key) = (file("cert.pem", &made.cert.pem()), file("key.pem", &made.signing_key.serialize_pem()));
        let other = file("other.pem", &rcgen::KeyPair::generate().unwrap().serialize_pem());
        let absent = Some(dir.path().join("absent.pem"));
        for (ca_file, client_cert, client_key, keys) in [
            (&cert, &cert, &key, vec![]),
            (&absent, &None, &None, vec!["ca_file"]),
            (&key, &absent, &key, vec!["ca_file", "client_cert"]),
            (&None, &cert, &absent, vec!["client_key"]),
            (&None, &cert, &other, vec!["client_cert"]),
            (&None, &cert, &None, vec!["client_cert"]),
        ] {
            let wanted =
                Wanted { ca_file: ca_file.clone(), client_cert: client_cert.clone(), client_key: client_key.clone(), ..Wanted::default() };
            let told = settings(wanted, &host("db")).err().unwrap_or_default();
            assert_eq!(told.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys, "{told:?}");
        }
    }
}
