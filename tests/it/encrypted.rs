//! A PostgreSQL that takes encrypted sessions only, with certificates good and bad to show.
#![cfg(unix)]

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use credkeeper::config::{DatabaseConfig, DatabaseTarget};
use credkeeper::tls::{ClientIdentity, TlsSettings, Verify};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use tokio::sync::{Mutex, MutexGuard};

use crate::pg::{self, Cluster, Setup};

/// A server that takes encrypted sessions only, and the files of its clients.
pub struct Encrypted {
    pub cluster: Cluster,
    pub files: tempfile::TempDir,
    /// One certificate is shown at a time.
    shown: Mutex<()>,
}

pub fn encrypted() -> &'static Encrypted {
    static SERVER: OnceLock<Encrypted> = OnceLock::new();
    SERVER.get_or_init(|| std::thread::spawn(make).join().expect("the encrypted server did not start"))
}

fn make() -> Encrypted {
    let files = tempfile::tempdir().unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let params = |name: &str, dns: &[&str], address: bool| {
        let mut params = CertificateParams::new(dns.iter().map(|dns| (*dns).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        if address {
            params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        }
        params
    };
    let mut expired = params("expired", &["localhost"], true);
    (expired.not_before, expired.not_after) = (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 3, 4));
    let key = || KeyPair::generate().unwrap();
    let mut server = Vec::new();
    for (name, params, issuer) in [
        ("good", params("good", &["localhost"], true), Some(&ours)),
        ("elsewhere", params("elsewhere", &["db.example.com", "db"], false), Some(&ours)),
        ("nameless", params("nameless", &[], false), Some(&ours)),
        ("expired", expired, Some(&ours)),
        ("foreign", params("foreign", &["localhost"], true), Some(&theirs)),
        ("self", params("self", &["localhost"], true), None),
    ] {
        let key = key();
        let made = match issuer {
            Some(issuer) => params.signed_by(&key, issuer).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        std::fs::write(files.path().join(format!("{name}.crt")), made.pem()).unwrap();
        server.push((name, made.pem(), key.serialize_pem()));
    }
    for (name, issuer) in [("certified", &ours), ("somebody", &ours), ("stranger", &theirs)] {
        let key = key();
        std::fs::write(files.path().join(format!("{name}.pem")), params(name, &[], false).signed_by(&key, issuer).unwrap().pem()).unwrap();
        std::fs::write(files.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    std::fs::write(files.path().join("ca.pem"), ours.pem()).unwrap();

    let mut in_data = vec![("ca.crt".to_owned(), ours.pem())];
    for (name, certificate, key) in server {
        in_data.push((format!("{name}.crt"), certificate));
        in_data.push((format!("{name}.key"), key));
    }
    let hba = "host all postgres 127.0.0.1/32 trust\n\
               hostssl all credkeeper 127.0.0.1/32 trust\n\
               hostssl all locked 127.0.0.1/32 scram-sha-256\n\
               hostssl all reader 127.0.0.1/32 trust clientcert=verify-ca\n\
               hostssl all certified 127.0.0.1/32 cert\n";
    let settings = ["ssl=on", "ssl_ca_file=ca.crt", "ssl_key_file=good.key", "ssl_cert_file=good.crt"];
    // What is to be changed later cannot stand on the command line.
    in_data.push(("postgresql.auto.conf".to_owned(), settings.map(|setting| setting.replacen('=', "='", 1) + "'\n").concat()));
    let cluster = pg::start(Setup { name: "pgtls", hba, files: in_data, copy_of: None });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let admin = pg::connect(cluster.port, "vendor").await.unwrap();
        let grants = "CREATE ROLE certified LOGIN;
                      GRANT credkeeper TO reader, locked, certified";
        admin.batch_execute(grants).await.unwrap();
    });
    Encrypted { cluster, files, shown: Mutex::new(()) }
}

impl Encrypted {
    /// Lets the server show this certificate to whoever connects from now on.
    pub async fn show(&self, name: &str) -> MutexGuard<'_, ()> {
        let guard = self.shown.lock().await;
        let admin = pg::connect(self.cluster.port, "postgres").await.unwrap();
        admin.batch_execute(&format!("ALTER SYSTEM SET ssl_cert_file = '{name}.crt'")).await.unwrap();
        admin.batch_execute(&format!("ALTER SYSTEM SET ssl_key_file = '{name}.key'")).await.unwrap();
        admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let fresh = pg::connect(self.cluster.port, "postgres").await.unwrap();
            let row = fresh.query_one("SELECT current_setting('ssl_key_file')", &[]).await.unwrap();
            if row.get::<_, &str>(0) == format!("{name}.key") {
                return guard;
            }
            assert!(Instant::now() < deadline, "the server does not reload");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// To the copy of the vendor's database that is the template itself: nothing is written there but by one test.
    pub fn config(&self, user: &str, tls: Option<TlsSettings>) -> DatabaseConfig {
        let mut config = crate::bench::config(
            DatabaseTarget::Postgres {
                hosts: vec![("127.0.0.1".into(), self.cluster.port)],
                database: "vendor".into(),
                user: user.into(),
                password: None,
                tls,
            },
            Some("tenant_1"),
        );
        config.pool_size = 2;
        config
    }

    pub fn verifying(&self, verify: Verify) -> TlsSettings {
        TlsSettings { verify, ca_file: Some(self.file("ca.pem")), ca_directory: None, client: None, server_name: None }
    }

    pub fn identity(&self, cert: &str, key: &str) -> Option<ClientIdentity> {
        Some(ClientIdentity { cert: self.file(cert), key: self.file(key) })
    }
}
