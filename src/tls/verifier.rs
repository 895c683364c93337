//! How a server's certificate is judged.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

use super::Verify;

pub(super) struct Verifier {
    pub(super) verify: Verify,
    pub(super) roots: RootCertStore,
    /// Certificates that somebody named: a server that shows one of them needs nobody to vouch for it.
    pub(super) given: Vec<CertificateDer<'static>>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

/// The certificate is signed with its own key, and nobody named it.
#[derive(Debug, thiserror::Error)]
#[error("the certificate is signed by itself")]
pub(super) struct SelfSigned;

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.verify == Verify::Nothing {
            return Ok(ServerCertVerified::assertion());
        }
        let parsed = ParsedCertificate::try_from(end_entity)?;
        match verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, self.algorithms.all) {
            Ok(()) => {}
            Err(error) if is_authority(&error) && self.given.iter().any(|given| given == end_entity) => {}
            Err(error) if (is_authority(&error) || is_unknown(&error)) && is_self_signed(end_entity) => {
                return Err(CertificateError::Other(OtherError(Arc::new(SelfSigned))).into());
            }
            Err(error) => return Err(error),
        }
        if self.verify == Verify::Full {
            verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.verify {
            // Anybody could sign with a certificate of his own, and certificates that are too old to be read would fail here.
            Verify::Nothing => Ok(HandshakeSignatureValid::assertion()),
            Verify::Full | Verify::Chain => verify_tls12_signature(message, cert, dss, &self.algorithms),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.verify {
            Verify::Nothing => Ok(HandshakeSignatureValid::assertion()),
            Verify::Full | Verify::Chain => verify_tls13_signature(message, cert, dss, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether it names itself as its issuer. Asked only to explain a refusal: the name of the subject stands in it twice.
fn is_self_signed(der: &CertificateDer<'_>) -> bool {
    let mut alone = RootCertStore::empty();
    if alone.add(der.clone().into_owned()).is_err() {
        return false;
    }
    let subject: &[u8] = alone.roots.first().map_or(&[], |anchor| anchor.subject.as_ref());
    !subject.is_empty() && der.windows(subject.len()).filter(|window| *window == subject).count() >= 2
}

fn is_unknown(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer))
}

/// Whether the only complaint is that the server shows a certificate of an authority as its own. That is looked at after the
/// dates, so they are right then. The library has no name for it but this text; a test holds it fast.
pub(super) fn is_authority(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::Other(other)) if other.0.to_string() == "CaUsedAsEndEntity")
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("verify", &self.verify).field("roots", &self.roots.len()).finish_non_exhaustive()
    }
}
