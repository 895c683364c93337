//! What a failed handshake means, and what to do about it.

use std::error::Error as StdError;
use std::io;

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

use crate::domain::printable;

use super::verifier::{SelfSigned, is_authority};

/// Two sentences without a full stop: what was refused, and the remedy. Neither names the server: the caller knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    pub what: String,
    pub remedy: String,
}

/// How the keys are called that a remedy names, since each kind of connection has its own.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// Where an authority is named, such as `tls.ca_file`.
    pub ca_file: &'static str,
    /// Where our own certificate is named.
    pub client: &'static str,
    /// What to do if the name is wrong: a clause that begins with a verb.
    pub other_name: &'static str,
}

/// Explains the TLS error that `error` is, or that stands among its causes; `None` where there is none.
pub fn explain(error: &(dyn StdError + 'static), keys: &Keys) -> Option<Explanation> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<Error>() {
            return Some(of_tls(tls, keys));
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            // The source of an io::Error is the source of what it holds, and not what it holds.
            if let Some(inner) = io.get_ref() {
                match explain(inner, keys) {
                    None => {}
                    found => return found,
                }
            }
            if io.kind() == io::ErrorKind::UnexpectedEof && io.to_string().contains("handshake") {
                return Some(Explanation {
                    what: "the server closed the connection in the middle of the TLS handshake".to_owned(),
                    remedy: format!("it may ask for a certificate of ours, or for another one ({}); its log tells", keys.client),
                });
            }
        }
        next = error.source();
    }
    None
}

fn of_tls(error: &Error, keys: &Keys) -> Explanation {
    let explanation = |what: &str, remedy: String| Explanation { what: what.to_owned(), remedy };
    match error {
        Error::InvalidCertificate(_) if is_authority(error) => explanation(
            "the server shows the certificate of an authority as its own",
            format!("give the server a certificate of its own, or name exactly this one in {}", keys.ca_file),
        ),
        Error::InvalidCertificate(refused) => of_certificate(refused, keys),
        Error::AlertReceived(alert) => of_alert(*alert, keys),
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => explanation(
            "what answered does not speak TLS",
            "check the port, and whether the server expects TLS from the first byte or after a command".to_owned(),
        ),
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => explanation("the server speaks neither TLS 1.2 nor TLS 1.3", "switch one of them on at the server".to_owned()),
        Error::PeerIncompatible(_) => explanation(
            &format!("the server and credkeeper have no way of encrypting in common ({error})"),
            "allow TLS 1.3, or TLS 1.2 with ECDHE and AES-GCM or ChaCha20, at the server".to_owned(),
        ),
        Error::NoCertificatesPresented => explanation("the server shows no certificate", "give the server one".to_owned()),
        _ => explanation(&format!("the TLS handshake failed ({error})"), "look into the log of the server for its side".to_owned()),
    }
}

fn of_certificate(error: &CertificateError, keys: &Keys) -> Explanation {
    let Keys { ca_file, other_name, .. } = keys;
    let (what, remedy) = match error {
        CertificateError::Expired => ("the server's certificate has expired".to_owned(), "renew it at the server".to_owned()),
        CertificateError::ExpiredContext { not_after, .. } => (
            format!("a certificate of the server expired on {}", day(*not_after)),
            "renew it at the server, or set the clock of this machine right".to_owned(),
        ),
        CertificateError::NotValidYet => {
            ("the server's certificate is not valid yet".to_owned(), "set the clock of this machine right".to_owned())
        }
        CertificateError::NotValidYetContext { not_before, .. } => (
            format!("a certificate of the server is valid from {} only", day(*not_before)),
            "set the clock of this machine right, or wait".to_owned(),
        ),
        CertificateError::Revoked => ("the server's certificate was revoked".to_owned(), "give the server a new one".to_owned()),
        CertificateError::UnknownIssuer => (
            "the server's certificate comes from an authority that is not trusted here".to_owned(),
            format!("name the certificate of that authority in {ca_file}, or let the server send the certificates in between too"),
        ),
        CertificateError::Other(other) if other.0.is::<SelfSigned>() => (
            "the server's certificate is signed by itself, so nobody vouches for it".to_owned(),
            format!("copy that certificate from the server and name the copy in {ca_file}"),
        ),
        CertificateError::Other(other) if other.0.to_string() == "UnsupportedCertVersion" => (
            "the server's certificate is of version 1, which is not accepted any more".to_owned(),
            "make a new one of version 3, with a subjectAltName (openssl req -x509 -addext subjectAltName=DNS:NAME)".to_owned(),
        ),
        CertificateError::NotValidForNameContext { expected, presented } if presented.is_empty() => (
            format!("the server's certificate names no host, and {} was expected: a subjectAltName is missing", name(expected)),
            format!("make a new one with subjectAltName={} (the common name counts no more), or {other_name}", alternative(expected)),
        ),
        CertificateError::NotValidForNameContext { expected, presented } => (
            format!("the server's certificate is for {}, not for {}", listed(presented), name(expected)),
            format!("connect by a name that it holds, or {other_name}"),
        ),
        CertificateError::NotValidForName => {
            ("the server's certificate is for another host".to_owned(), format!("connect by a name that it holds, or {other_name}"))
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => (
            "the server's certificate is not made for servers".to_owned(),
            "make a new one whose extendedKeyUsage holds serverAuth".to_owned(),
        ),
        CertificateError::BadSignature => (
            "a signature in the server's certificates is wrong".to_owned(),
            format!("look whether {ca_file} holds an authority of the same name but with another key; else somebody stands in between"),
        ),
        CertificateError::BadEncoding => ("the server's certificate cannot be read".to_owned(), "make a new one of version 3".to_owned()),
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => (
            "a certificate of the server is signed in a way that is not accepted any more (such as SHA-1, or RSA below 2048 bits)"
                .to_owned(),
            "make a new one with RSA of 2048 bits or ECDSA, and SHA-256".to_owned(),
        ),
        other => (format!("the server's certificate was refused ({other})"), format!("make a new one, or correct {ca_file}")),
    };
    Explanation { what, remedy }
}

fn of_alert(alert: AlertDescription, keys: &Keys) -> Explanation {
    let client = keys.client;
    let (what, remedy) = match alert {
        AlertDescription::CertificateRequired => ("the server asks for a certificate of ours", format!("name it and its key in {client}")),
        AlertDescription::UnknownCA => (
            "the server does not trust the authority of our certificate",
            format!("name another in {client}, or add its authority to the server's CA file"),
        ),
        AlertDescription::CertificateExpired => ("the server finds our certificate expired", format!("renew the one in {client}")),
        AlertDescription::CertificateRevoked => ("the server finds our certificate revoked", format!("name another in {client}")),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => ("the server refused our certificate", format!("correct {client}, and see the server's log")),
        AlertDescription::ProtocolVersion => {
            ("the server speaks neither TLS 1.2 nor TLS 1.3", "switch one of them on at the server".to_owned())
        }
        AlertDescription::UnrecognisedName => ("the server does not know the name that it was called by", keys.other_name.to_owned()),
        AlertDescription::HandshakeFailure => (
            "the server broke the TLS handshake off",
            format!("it may want a certificate ({client}), or other ways of encrypting; its log tells"),
        ),
        _ => {
            let what = format!("the server ended the TLS handshake with the alert {alert:?}");
            return Explanation { what, remedy: "look into the log of the server for the reason".to_owned() };
        }
    };
    Explanation { what: what.to_owned(), remedy }
}

/// The names of the certificate, printable and not without end.
fn listed(presented: &[String]) -> String {
    // Shown by the library as DnsName("db1") or IpAddress(10.0.0.1).
    let bare = |shown: &String| {
        let inner = shown.split_once('(').map_or(shown.as_str(), |(_, inner)| inner.trim_end_matches(')'));
        printable(inner.trim_matches('"')).into_owned()
    };
    let mut names: Vec<String> = presented.iter().take(5).map(bare).collect();
    if presented.len() > 5 {
        names.push(format!("{} others", presented.len() - 5));
    }
    names.join(", ")
}

fn name(name: &ServerName<'_>) -> String {
    name.to_str().into_owned()
}

fn alternative(expected: &ServerName<'_>) -> String {
    match expected {
        ServerName::IpAddress(_) => format!("IP:{}", name(expected)),
        _ => format!("DNS:{}", name(expected)),
    }
}

fn day(moment: UnixTime) -> String {
    let seconds = i64::try_from(moment.as_secs()).ok();
    seconds
        .and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0))
        .map_or_else(|| "an unknown day".to_owned(), |moment| moment.format("%Y-%m-%d").to_string())
}
