use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConnection, ServerConfig, ServerConnection};

use super::*;

const KEYS: Keys = Keys { ca_file: "`tls.ca_file`", client: "`tls.client_cert`", other_name: "set `tls.server_name`" };

struct Authority(CertifiedIssuer<'static, KeyPair>);

struct Made {
    pem: String,
    der: CertificateDer<'static>,
    key: KeyPair,
}

impl Authority {
    fn named(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn sign(&self, params: CertificateParams) -> Made {
        let key = KeyPair::generate().unwrap();
        let issuer: &Issuer<'_, KeyPair> = &self.0;
        let made = params.signed_by(&key, issuer).unwrap();
        Made { pem: made.pem(), der: made.der().clone(), key }
    }
}

fn for_names(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, "server");
    params
}

fn self_signed(params: CertificateParams) -> Made {
    let key = KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    Made { pem: made.pem(), der: made.der().clone(), key }
}

fn settings(verify: Verify, ca_file: Option<PathBuf>) -> TlsSettings {
    TlsSettings { verify, ca_file, ca_directory: None, client: None, server_name: None }
}

/// What the client says of a server that shows `server`, asked for as db.example.com.
fn handshake(client: Arc<ClientConfig>, server: &Made, clients: Option<&Authority>) -> Result<(), String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.0.der().clone()).unwrap();
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap())
        }
    };
    let key = PrivateKeyDer::try_from(server.key.serialize_der()).unwrap();
    let mut theirs = ServerConnection::new(Arc::new(builder.with_single_cert(vec![server.der.clone()], key).unwrap())).unwrap();
    let mut ours = ClientConnection::new(client, ServerName::try_from("db.example.com").unwrap()).unwrap();
    let told = |error: rustls::Error| {
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, error);
        let Explanation { what, remedy } = explain(&wrapped, &KEYS).unwrap();
        format!("{what}: {remedy}")
    };
    for _ in 0..8 {
        let mut wire = Vec::new();
        while ours.wants_write() {
            ours.write_tls(&mut wire).unwrap();
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            theirs.read_tls(&mut wire).unwrap();
            // What it has against us, it tells us by an alert.
            let _ = theirs.process_new_packets();
        }
        let mut wire = Vec::new();
        while theirs.wants_write() {
            theirs.write_tls(&mut wire).unwrap();
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            ours.read_tls(&mut wire).unwrap();
            ours.process_new_packets().map_err(told)?;
        }
    }
    assert!(!ours.is_handshaking());
    Ok(())
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    fn with(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

#[test]
fn each_refusal_is_explained_with_its_remedy() {
    let files = Files::new();
    let ours = Authority::named("ours");
    let ca = files.with("ca.pem", ours.0.pem());
    let tell = |verify, server: &Made| handshake(client_config(&settings(verify, Some(ca.clone()))).unwrap(), server, None);

    let good = ours.sign(for_names(&["db.example.com"]));
    let other = ours.sign(for_names(&["db1.example.com", "10.0.0.1"]));
    let nameless = ours.sign(for_names(&[]));
    let mut params = for_names(&["db.example.com"]);
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 3, 4);
    let expired = ours.sign(params);
    let mut params = for_names(&["db.example.com"]);
    params.not_before = rcgen::date_time_ymd(3001, 1, 1);
    params.not_after = rcgen::date_time_ymd(3002, 1, 1);
    let early = ours.sign(params);
    let foreign = Authority::named("theirs").sign(for_names(&["db.example.com"]));
    let own = self_signed(for_names(&["db.example.com"]));

    for (server, of_name, refusal) in [
        (&good, false, ""),
        (
            &other,
            true,
            "the server's certificate is for db1.example.com, 10.0.0.1, not for db.example.com: connect by a name that it holds, or set `tls.server_name`",
        ),
        (
            &nameless,
            true,
            "the server's certificate names no host, and db.example.com was expected: a subjectAltName is missing: make a new one with subjectAltName=DNS:db.example.com (the common name counts no more), or set `tls.server_name`",
        ),
        (
            &expired,
            false,
            "a certificate of the server expired on 2002-03-04: renew it at the server, or set the clock of this machine right",
        ),
        (&early, false, "a certificate of the server is valid from 3001-01-01 only: set the clock of this machine right, or wait"),
        (
            &foreign,
            false,
            "the server's certificate comes from an authority that is not trusted here: name the certificate of that authority in `tls.ca_file`, or let the server send the certificates in between too",
        ),
        (
            &own,
            false,
            "the server's certificate is signed by itself, so nobody vouches for it: copy that certificate from the server and name the copy in `tls.ca_file`",
        ),
    ] {
        assert_eq!(tell(Verify::Full, server).err().unwrap_or_default(), refusal);
        assert_eq!(tell(Verify::Chain, server).err().unwrap_or_default(), if of_name { "" } else { refusal });
        assert_eq!(tell(Verify::Nothing, server), Ok(()));
    }
}

/// `openssl req -x509` marks what it makes as an authority, and people copy it to both sides.
#[test]
fn a_servers_own_certificate_is_trusted_where_it_was_given() {
    let files = Files::new();
    for authority in [false, true] {
        let make = |name: &str| {
            let mut params = for_names(&[name]);
            params.distinguished_name.push(DnType::CommonName, name);
            if authority {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }
            self_signed(params)
        };
        let (server, elsewhere) = (make("db.example.com"), make("db1.example.com"));
        let trusting = |made: &Made| client_config(&settings(Verify::Full, Some(files.with("own.pem", &made.pem)))).unwrap();
        assert_eq!(handshake(trusting(&server), &server, None), Ok(()));
        assert!(handshake(trusting(&elsewhere), &elsewhere, None).unwrap_err().contains("is for db1.example.com, not for"));
        assert!(handshake(trusting(&elsewhere), &server, None).unwrap_err().contains("signed by itself"), "{authority}");
    }
}

#[test]
fn a_directory_is_all_of_its_readable_files() {
    let files = Files::new();
    let (one, two) = (Authority::named("one"), Authority::named("two"));
    files.with("one.pem", one.0.pem());
    files.with("two.crt", two.0.pem());
    files.with("README", "no certificate");
    fs::create_dir(files.0.path().join("sub")).unwrap();
    let of = |directory: PathBuf| TlsSettings { ca_directory: Some(directory), ..settings(Verify::Full, None) };
    let client = client_config(&of(files.0.path().to_owned())).unwrap();
    for authority in [one, two] {
        assert_eq!(handshake(client.clone(), &authority.sign(for_names(&["db.example.com"])), None), Ok(()));
    }
    let empty = files.0.path().join("sub");
    assert_eq!(
        client_config(&of(empty.clone())).unwrap_err().to_string(),
        format!("the CA directory {} holds no certificate: no line -----BEGIN CERTIFICATE----- is in it", empty.display())
    );
}

#[test]
fn a_client_certificate_is_shown_and_its_refusal_explained() {
    let files = Files::new();
    let (ours, theirs) = (Authority::named("ours"), Authority::named("theirs"));
    let ca = files.with("ca.pem", ours.0.pem());
    let server = ours.sign(for_names(&["db.example.com"]));
    let with = |client: Option<Made>| {
        let identity = client.map(|made| ClientIdentity {
            cert: files.with("client.pem", made.pem),
            key: files.with("client.key", made.key.serialize_pem()),
        });
        let settings = TlsSettings { client: identity, ..settings(Verify::Full, Some(ca.clone())) };
        handshake(client_config(&settings).unwrap(), &server, Some(&ours))
    };
    assert_eq!(with(Some(ours.sign(for_names(&["us"])))), Ok(()));
    assert_eq!(
        with(Some(theirs.sign(for_names(&["us"])))).unwrap_err(),
        "the server does not trust the authority of our certificate: name another in `tls.client_cert`, or add its authority to the server's CA file"
    );
    assert_eq!(with(None).unwrap_err(), "the server asks for a certificate of ours: name it and its key in `tls.client_cert`");
}

#[test]
fn an_error_names_the_file_and_what_is_wrong_with_it() {
    let files = Files::new();
    let made = self_signed(for_names(&["us"]));
    let (cert, key) = (files.with("cert.pem", &made.pem), files.with("key.pem", made.key.serialize_pem()));
    let fault = |settings: TlsSettings| {
        let error = client_config(&settings).unwrap_err();
        assert!(TlsError::KINDS.contains(&error.kind()) && !error.is_transient());
        error.to_string().replace(&files.0.path().display().to_string(), "DIR").replace('\\', "/")
    };
    let ca = |path: PathBuf| fault(settings(Verify::Full, Some(path)));
    let identity = |cert: &Path, key: &Path| {
        let client = ClientIdentity { cert: cert.to_owned(), key: key.to_owned() };
        fault(TlsSettings { client: Some(client), ..settings(Verify::Nothing, None) })
    };
    let damaged = made.pem.replace("-----END", "----");
    let faults = [
        ca(files.0.path().join("absent.pem")),
        ca(files.0.path().to_owned()),
        ca(files.with("der.cer", &made.der)),
        ca(files.with("empty.pem", "")),
        ca(files.with("damaged.pem", damaged)),
        ca(key.clone()),
        ca(files.with("other.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
        identity(&cert, &cert),
        identity(&cert, &files.with("locked.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")),
        identity(&cert, &files.with("wrong.pem", KeyPair::generate().unwrap().serialize_pem())),
        identity(&cert, &files.with("odd.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")),
        identity(&files.0.path().join("absent.pem"), &key),
    ];
    assert_eq!(
        faults,
        [
            "the CA file DIR/absent.pem cannot be read",
            "the CA file DIR cannot be read",
            "the CA file DIR/der.cer is not PEM, the text form that starts with -----BEGIN: convert it, for instance with openssl x509 -inform der",
            "the CA file DIR/empty.pem is empty",
            "the CA file DIR/damaged.pem is damaged: a PEM section in it cannot be read; copy it again",
            "the CA file DIR/key.pem holds no certificate: no line -----BEGIN CERTIFICATE----- is in it",
            "the CA file DIR/other.pem holds no certificate that can be understood",
            "the client key DIR/cert.pem holds no private key: no line -----BEGIN PRIVATE KEY----- is in it",
            "the client key DIR/locked.pem is protected by a passphrase, which nobody could type: write it without one (openssl pkey)",
            "the private key DIR/wrong.pem does not belong to the client certificate DIR/cert.pem",
            "the client certificate DIR/cert.pem and its key cannot be used",
            "the client certificate DIR/absent.pem cannot be read",
        ]
    );
}
