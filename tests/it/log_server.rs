//! A log server: RFC 5424 over TCP, plain and encrypted, from the program at work.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::bounded::Bounded;
use crate::certificates::{Authority, Identity};

/// Takes one connection, and keeps what is said on it until it is closed in good order.
struct Receiver {
    port: u16,
    heard: JoinHandle<Result<Vec<u8>, String>>,
}

impl Receiver {
    fn start(read: impl FnOnce(TcpStream) -> Result<Vec<u8>, String> + Send + 'static) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        Receiver { port, heard: std::thread::spawn(move || read(listener.accept().unwrap().0)) }
    }

    fn plain() -> Receiver {
        Receiver::start(|mut stream| {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).map(|_| bytes).map_err(|error| error.to_string())
        })
    }

    /// With `clients`, only clients who show a certificate of that authority are heard.
    fn encrypted(identity: &Identity, clients: Option<&Path>) -> Receiver {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
                builder.with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap())
            }
        };
        let chain = vec![CertificateDer::from_pem_file(&identity.cert).unwrap()];
        let config = builder.with_single_cert(chain, PrivateKeyDer::from_pem_file(&identity.key).unwrap()).unwrap();
        Receiver::start(move |stream| {
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream);
            let mut bytes = Vec::new();
            // An end without the farewell of TLS is an error here.
            stream.read_to_end(&mut bytes).map(|_| bytes).map_err(|error| error.to_string())
        })
    }

    fn messages(self) -> Vec<String> {
        let bytes = self.heard.join().unwrap().unwrap();
        let mut rest = std::str::from_utf8(&bytes).unwrap();
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let (length, behind) = rest.split_once(' ').unwrap();
            let (message, next) = behind.split_at(length.parse().unwrap());
            messages.push(message.to_owned());
            rest = next;
        }
        messages
    }
}

/// One pass over a new sandbox, with this in `log`: its exit code and its standard error.
fn pass(log: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let sandbox = credkeeper::sandbox::create(&folder.path().join("sandbox"), 40).unwrap();
    let yaml = std::fs::read_to_string(&sandbox.config).unwrap();
    std::fs::write(&sandbox.config, yaml.replace("level: info", log)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_credkeeper"))
        .args(["--once", "--config"])
        .arg(&sandbox.config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output_in_time();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// All that the standard error tells is there, in order, with its level.
#[track_caller]
fn same_lines(messages: &[String], stderr: &str) {
    let header = regex::Regex::new(r"^<(\d+)>1 (\S+Z) \S+ credkeeper \d+ [a-z-]+ - (.*)$").unwrap();
    let mut found = String::new();
    for message in messages {
        let parts = header.captures(message).unwrap_or_else(|| panic!("{message}"));
        let level = match &parts[1] {
            "27" => "ERROR",
            "28" => " WARN",
            "30" => " INFO",
            other => panic!("{other}"),
        };
        found.push_str(&format!("{} {level} {}\n", &parts[2], &parts[3]));
    }
    assert!(!found.is_empty());
    assert_eq!(found, stderr);
}

#[test]
fn a_plain_server_gets_every_line() {
    let server = Receiver::plain();
    let (code, stderr) = pass(&format!("level: info\n  remote: {{address: '127.0.0.1:{}', protocol: syslog-tcp}}", server.port));
    assert!(matches!(code, Some(0 | 4)), "{stderr}");
    same_lines(&server.messages(), &stderr);
}

#[test]
fn an_encrypted_server_gets_every_line_and_may_ask_who_we_are() {
    let authority = Authority::new("Log CA");
    let ours = authority.sign("credkeeper");
    for clients in [None, Some(authority.pem())] {
        let server = Receiver::encrypted(&authority.sign("localhost"), clients.as_deref());
        let client = format!("{{cert: {}, key: {}}}", ours.cert.display(), ours.key.display());
        let client = if clients.is_some() { client } else { "null".to_owned() };
        let (code, stderr) = pass(&format!(
            "level: info\n  remote: {{address: 'localhost:{}', ca_file: {}, client_certificate: {client}}}",
            server.port,
            authority.pem().display()
        ));
        assert!(matches!(code, Some(0 | 4)), "{stderr}");
        same_lines(&server.messages(), &stderr);
    }
}

#[test]
fn json_goes_as_json() {
    let server = Receiver::plain();
    let (_, stderr) = pass(&format!("format: json\n  remote: {{address: '127.0.0.1:{}', protocol: syslog-tcp}}", server.port));
    let bodies: Vec<String> = server.messages().iter().map(|message| message.split_once(" - {").unwrap().1.to_owned()).collect();
    let lines: Vec<&str> = stderr.lines().map(|line| line.strip_prefix('{').unwrap()).collect();
    assert!(!lines.is_empty());
    assert_eq!(bodies, lines);
}

#[test]
fn a_server_that_is_not_who_it_should_be_is_told_of_and_told_nothing() {
    let (authority, stranger) = (Authority::new("Log CA"), Authority::new("Another CA"));
    for (identity, told) in [
        (stranger.sign("localhost"), "from an authority that is not trusted here"),
        (
            authority.sign("logs.example.com"),
            "is for logs.example.com, not for localhost; connect by a name that it holds, or set log.remote.address",
        ),
    ] {
        let server = Receiver::encrypted(&identity, None);
        let (code, stderr) = pass(&log_to(&server, &authority));
        assert!(matches!(code, Some(0 | 4)), "the pass is not kept from its work: {stderr}");
        warned_once(&stderr, told);
        assert!(server.heard.join().unwrap().is_err(), "nothing but an alert");
    }
}

/// With TLS 1.3 the server says so only after its part of the handshake has ended well.
#[test]
fn a_server_that_wants_a_certificate_of_ours_is_told_of() {
    let authority = Authority::new("Log CA");
    let server = Receiver::encrypted(&authority.sign("localhost"), Some(&authority.pem()));
    let (code, stderr) = pass(&log_to(&server, &authority));
    assert!(matches!(code, Some(0 | 4)), "{stderr}");
    warned_once(&stderr, "log.remote.client_certificate");
    assert!(server.heard.join().unwrap().is_err());
}

fn log_to(server: &Receiver, authority: &Authority) -> String {
    format!("level: info\n  remote: {{address: 'localhost:{}', ca_file: {}}}", server.port, authority.pem().display())
}

#[track_caller]
fn warned_once(stderr: &str, told: &str) {
    let warned: Vec<&str> = stderr.lines().filter(|line| line.contains("The log server localhost:")).collect();
    assert!(warned.len() == 1 && warned[0].contains(told), "{stderr}");
}
