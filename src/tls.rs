//! Certificates, in one place: what an encrypted connection of ours trusts, and what it says when that fails.
//!
//! One stack for all connections: rustls with aws-lc-rs, named in each configuration, so that nothing depends on what was
//! installed for the process. A certificate authority comes from a file, a directory, or the system; given ones replace the
//! system's. A file may also hold the server's own certificate: then exactly that certificate is trusted, as OpenSSL does,
//! because `openssl req -x509` makes such ones and the manual of PostgreSQL shows it.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

mod explain;
mod verifier;

pub use explain::{Explanation, Keys, explain};

use verifier::Verifier;

/// A file of certificates larger than this is another file, given by mistake.
const LARGEST_BYTES: u64 = 16 << 20;

/// What one encrypted connection asks of the other side, and shows of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsSettings {
    pub verify: Verify,
    /// PEM, any number of certificates.
    pub ca_file: Option<PathBuf>,
    /// Every readable PEM file in it counts.
    pub ca_directory: Option<PathBuf>,
    pub client: Option<ClientIdentity>,
    /// The name that the certificate must hold, where it is not the host that is connected to. [`client_config`] does not
    /// look at it: who connects gives it to rustls in place of the host.
    pub server_name: Option<String>,
}

/// How much of the server's certificate is verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verify {
    /// The chain, the dates, and the name of the host.
    Full,
    /// The chain and the dates, not the name.
    Chain,
    /// Nothing: encrypted, to whoever answered.
    Nothing,
}

/// The certificate that a server may ask of us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientIdentity {
    /// PEM: our certificate first, then those between it and the authority.
    pub cert: PathBuf,
    /// PEM, without a passphrase.
    pub key: PathBuf,
}

/// Reads the files named in `settings`, and makes what rustls connects with. Cheap enough for each connection (some
/// milliseconds), so that a renewed certificate is taken up by connecting again.
///
/// # Errors
/// [`TlsError`], naming the file and what is wrong with it.
pub fn client_config(settings: &TlsSettings) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let (roots, given) = match settings.verify {
        Verify::Nothing => (RootCertStore::empty(), Vec::new()),
        Verify::Full | Verify::Chain => trusted(settings)?,
    };
    let verifier = Verifier { verify: settings.verify, roots, given, algorithms: provider.signature_verification_algorithms };
    let builder = ClientConfig::builder_with_provider(Arc::<CryptoProvider>::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match &settings.client {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates(&identity.cert, What::ClientCertificate)?;
            let key = private_key(&identity.key)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => TlsError::KeyDoesNotFit { cert: identity.cert.clone(), key: identity.key.clone() },
                // Its sentence says what the key or certificate lacks, and quotes nothing of it.
                source => TlsError::Identity { cert: identity.cert.clone(), source },
            })?
        }
    };
    Ok(Arc::new(config))
}

/// The authorities, and those certificates that were given by name.
fn trusted(settings: &TlsSettings) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TlsError> {
    let mut given = Vec::new();
    if let Some(path) = &settings.ca_file {
        given.extend(certificates(path, What::Authority)?);
    }
    if let Some(path) = &settings.ca_directory {
        given.extend(directory(path)?);
    }
    let mut roots = RootCertStore::empty();
    if settings.ca_file.is_none() && settings.ca_directory.is_none() {
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
        return if roots.is_empty() { Err(TlsError::NoSystemAuthorities) } else { Ok((roots, given)) };
    }
    let (added, _) = roots.add_parsable_certificates(given.iter().cloned());
    if added == 0 {
        let path = settings.ca_file.as_ref().or(settings.ca_directory.as_ref()).cloned().unwrap_or_default();
        return Err(TlsError::Content { what: What::Authority, path, wrong: Wrong::Unusable });
    }
    Ok((roots, given))
}

/// All certificates of all files that have any; links to one file count once.
fn directory(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::Read { what: What::Directory, path: path.to_owned(), source };
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if let Ok(some) = certificates(&file, What::Authority) {
            found.extend(some.into_iter().map(|certificate| certificate.as_ref().to_vec()));
        }
    }
    if found.is_empty() {
        return Err(TlsError::Content { what: What::Directory, path: path.to_owned(), wrong: Wrong::NoCertificate });
    }
    Ok(found.into_iter().map(CertificateDer::from).collect())
}

fn certificates(path: &Path, what: What) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path, what)?;
    let content = |wrong| TlsError::Content { what, path: path.to_owned(), wrong };
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(content(wrong(&bytes, Wrong::NoCertificate))),
        Err(_) => Err(content(Wrong::Broken)),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = zeroize::Zeroizing::new(read(path, What::ClientKey)?);
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        let text = String::from_utf8_lossy(&bytes);
        let wrong = match error {
            _ if text.contains("ENCRYPTED") => Wrong::Passphrase,
            pem::Error::NoItemsFound => wrong(&bytes, Wrong::NoKey),
            _ => Wrong::Broken,
        };
        TlsError::Content { what: What::ClientKey, path: path.to_owned(), wrong }
    })
}

/// What a file is that has nothing of what was looked for.
fn wrong(bytes: &[u8], otherwise: Wrong) -> Wrong {
    let text = String::from_utf8_lossy(bytes);
    match text.contains("-----BEGIN ") {
        true => otherwise,
        false if bytes.is_empty() => Wrong::Empty,
        false => Wrong::NotPem,
    }
}

fn read(path: &Path, what: What) -> Result<Vec<u8>, TlsError> {
    let unreadable = |source| TlsError::Read { what, path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(unreadable)?;
    if meta.is_dir() {
        return Err(unreadable(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory")));
    }
    if meta.len() > LARGEST_BYTES {
        return Err(TlsError::Content { what, path: path.to_owned(), wrong: Wrong::NotPem });
    }
    fs::read(path).map_err(unreadable)
}

/// Why no encrypted connection can be prepared. Never holds anything of a key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the {what} {} cannot be read", path.display())]
    Read { what: What, path: PathBuf, source: io::Error },
    #[error("the {what} {} {wrong}", path.display())]
    Content { what: What, path: PathBuf, wrong: Wrong },
    #[error("the private key {} does not belong to the client certificate {}", key.display(), cert.display())]
    KeyDoesNotFit { cert: PathBuf, key: PathBuf },
    #[error("the client certificate {} and its key cannot be used", cert.display())]
    Identity { cert: PathBuf, source: rustls::Error },
    #[error("this system has no certificate authorities: install its package ca-certificates, or name a file of your own")]
    NoSystemAuthorities,
    #[error("the TLS library cannot be set up")]
    Setup(#[source] rustls::Error),
}

impl TlsError {
    /// Every value of [`kind`](TlsError::kind).
    pub const KINDS: [&'static str; 3] = ["tls_file", "tls_identity", "tls_setup"];

    /// Closed set.
    pub fn kind(&self) -> &'static str {
        match self {
            TlsError::Read { .. } | TlsError::Content { .. } => "tls_file",
            TlsError::KeyDoesNotFit { .. } | TlsError::Identity { .. } => "tls_identity",
            TlsError::NoSystemAuthorities | TlsError::Setup(_) => "tls_setup",
        }
    }

    /// Never: somebody must change a file.
    pub fn is_transient(&self) -> bool {
        false
    }
}

/// The role of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    Authority,
    Directory,
    ClientCertificate,
    ClientKey,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::Authority => "CA file",
            What::Directory => "CA directory",
            What::ClientCertificate => "client certificate",
            What::ClientKey => "client key",
        })
    }
}

/// What is wrong with the content of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrong {
    Empty,
    NotPem,
    /// It begins as PEM and cannot be read to its end.
    Broken,
    NoCertificate,
    NoKey,
    Passphrase,
    /// PEM, but what is inside is no certificate that could be an authority.
    Unusable,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wrong::Empty => "is empty",
            Wrong::NotPem => {
                "is not PEM, the text form that starts with -----BEGIN: convert it, for instance with openssl x509 -inform der"
            }
            Wrong::Broken => "is damaged: a PEM section in it cannot be read; copy it again",
            Wrong::NoCertificate => "holds no certificate: no line -----BEGIN CERTIFICATE----- is in it",
            Wrong::NoKey => "holds no private key: no line -----BEGIN PRIVATE KEY----- is in it",
            Wrong::Passphrase => "is protected by a passphrase, which nobody could type: write it without one (openssl pkey)",
            Wrong::Unusable => "holds no certificate that can be understood",
        })
    }
}

#[cfg(test)]
mod tests;
