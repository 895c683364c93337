//! Certificates that a test makes, as files.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

/// A folder with an authority's certificate, and with what it signs.
pub struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { folder, issuer }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn pem(&self) -> PathBuf {
        self.folder().join("ca.pem")
    }

    pub fn sign(&self, name: &str) -> Identity {
        self.signed(name, params(name))
    }

    pub fn sign_expired(&self, name: &str) -> Identity {
        let mut params = params(name);
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 2, 3));
        self.signed(name, params)
    }

    /// In the folder, but signed by itself.
    pub fn self_signed(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        self.written(name, &params(name).self_signed(&key).unwrap(), &key)
    }

    fn signed(&self, name: &str, params: CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let issuer: &Issuer<'_, KeyPair> = &self.issuer;
        self.written(name, &params.signed_by(&key, issuer).unwrap(), &key)
    }

    fn written(&self, name: &str, certificate: &rcgen::Certificate, key: &KeyPair) -> Identity {
        let file = |end: &str, text: String| {
            let path = self.folder().join(format!("{name}-{:08x}.{end}", rand::random::<u32>()));
            std::fs::write(&path, text).unwrap();
            path
        };
        Identity { cert: file("pem", certificate.pem()), key: file("key", key.serialize_pem()) }
    }
}

/// Ends in the year 2049: a time written in another way than what comes after.
fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_after = date_time_ymd(2049, 11, 30);
    params
}
