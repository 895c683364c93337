//! Connections to PostgreSQL as they are in the wild: encrypted, with certificates good and bad; several hosts; a pooler.
#![cfg(unix)]

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use credkeeper::config::{Config, DatabaseConfig, DatabaseTarget};
use credkeeper::domain::Secret;
use credkeeper::store::{Check, CheckVerdict, Committed, Filter, Needs, Outcome, Reader, Store, StoreError};
use credkeeper::tls::{ClientIdentity, TlsSettings, Verify};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use tokio::sync::{Mutex, MutexGuard};

use crate::bench::{Bench, NewUser, new_pin, read, user_id};
use crate::golden::golden;
use crate::pg::{self, Cluster, Setup};

const ALL: Needs = Needs { cost_centers: true, source: true, moves: true };

/// A server that takes encrypted sessions only, and the files of its clients.
struct Encrypted {
    cluster: Cluster,
    files: tempfile::TempDir,
    /// One certificate is shown at a time.
    shown: Mutex<()>,
}

fn encrypted() -> &'static Encrypted {
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
    let cluster = pg::start(Setup { name: "pgtls", hba, files: in_data });
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
    async fn show(&self, name: &str) -> MutexGuard<'_, ()> {
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

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// To the copy of the vendor's database that is the template itself: nothing is written there but by one test.
    fn config(&self, user: &str, tls: Option<TlsSettings>) -> DatabaseConfig {
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

    fn verifying(&self, verify: Verify) -> TlsSettings {
        TlsSettings { verify, ca_file: Some(self.file("ca.pem")), ca_directory: None, client: None, server_name: None }
    }

    fn identity(&self, cert: &str, key: &str) -> Option<ClientIdentity> {
        Some(ClientIdentity { cert: self.file(cert), key: self.file(key) })
    }
}

async fn inspect(config: &DatabaseConfig) -> Vec<Check> {
    Reader::connect(config).await.expect("lazy").inspect(&ALL).await
}

async fn refusal(config: &DatabaseConfig) -> Option<StoreError> {
    Reader::connect(config).await.expect("lazy").clock().await.err()
}

fn target(config: &mut DatabaseConfig) -> (&mut Vec<(String, u16)>, &mut Option<Secret>, &mut String) {
    match &mut config.target {
        DatabaseTarget::Postgres { hosts, password, database, .. } => (hosts, password, database),
        DatabaseTarget::Sqlite { .. } => panic!("a server is meant"),
    }
}

/// Each refusal as doctor prints it.
#[tokio::test]
async fn each_refused_certificate_is_told_with_its_remedy() {
    let server = encrypted();
    let plain = pg::cluster();
    let full = || server.verifying(Verify::Full);
    let with = |client| TlsSettings { client, ..full() };
    let mut told = String::new();
    for (case, certificate, config) in [
        ("a certificate for other hosts", "elsewhere", server.config("credkeeper", Some(full()))),
        ("a certificate without a subjectAltName", "nameless", server.config("credkeeper", Some(full()))),
        ("an expired certificate", "expired", server.config("credkeeper", Some(server.verifying(Verify::Chain)))),
        ("a certificate of another authority", "foreign", server.config("credkeeper", Some(full()))),
        ("a certificate signed by itself", "self", server.config("credkeeper", Some(full()))),
        ("a role that must show a certificate, and shows none", "good", server.config("reader", Some(full()))),
        ("the same with a certificate that the server does not trust", "good", {
            server.config("reader", Some(with(server.identity("stranger.pem", "stranger.key"))))
        }),
        ("a role that is known by its certificate, with that of another", "good", {
            server.config("certified", Some(with(server.identity("somebody.pem", "somebody.key"))))
        }),
        ("a key that belongs to another certificate", "good", {
            server.config("certified", Some(with(server.identity("certified.pem", "somebody.key"))))
        }),
        ("an authority whose file is gone", "good", {
            server.config("credkeeper", Some(TlsSettings { ca_file: Some(server.file("gone.pem")), ..full() }))
        }),
        ("a server that wants TLS, asked without", "good", server.config("credkeeper", None)),
        ("a server without TLS, asked with it", "good", {
            let mut config = server.config("credkeeper", Some(full()));
            target(&mut config).0[0].1 = plain.port;
            config
        }),
    ] {
        let guard = server.show(certificate).await;
        let error = refusal(&config).await.unwrap_or_else(|| panic!("{case}: not refused"));
        assert!(!error.is_transient(), "{case}: {error:?}");
        let checks = inspect(&config).await;
        drop(guard);
        let [check] = &checks[..] else { panic!("{case}: {checks:#?}") };
        assert_eq!((check.name, check.verdict), ("connection", CheckVerdict::Failed));
        writeln!(told, "{case} ({})\n  {}\n  {}\n", error.kind(), check.found, check.advice).unwrap();
    }
    let told = told
        .replace(&server.files.path().display().to_string(), "DIR")
        .replace(&server.cluster.port.to_string(), "PORT")
        .replace(&plain.port.to_string(), "PORT");
    golden("tls/postgres.txt", &told);
}

/// libpq's modes: what each of them forgives.
#[tokio::test]
async fn each_mode_forgives_what_it_says() {
    let server = encrypted();
    for (certificate, accepted) in [
        ("good", [true, true, true]),
        ("elsewhere", [false, true, true]),
        ("expired", [false, false, true]),
        ("foreign", [false, false, true]),
        ("self", [false, false, true]),
    ] {
        let _guard = server.show(certificate).await;
        for (verify, accepted) in [Verify::Full, Verify::Chain, Verify::Nothing].into_iter().zip(accepted) {
            let error = refusal(&server.config("credkeeper", Some(server.verifying(verify)))).await;
            assert_eq!(error.is_none(), accepted, "{certificate} {verify:?}: {error:?}");
        }
    }
    let _guard = server.show("elsewhere").await;
    let named = TlsSettings { server_name: Some("db.example.com".into()), ..server.verifying(Verify::Full) };
    assert!(refusal(&server.config("credkeeper", Some(named))).await.is_none(), "the name of the configuration counts");
    drop(_guard);
    // What the manual of PostgreSQL advises: copy the server's own certificate.
    let _guard = server.show("self").await;
    let copied = TlsSettings { ca_file: Some(server.file("self.crt")), ..server.verifying(Verify::Full) };
    assert!(refusal(&server.config("credkeeper", Some(copied))).await.is_none());
}

#[tokio::test]
async fn the_inspection_tells_how_a_session_is_encrypted() {
    let server = encrypted();
    let _guard = server.show("good").await;
    let told = |checks: Vec<Check>| {
        let check = checks.into_iter().find(|check| check.name == "encryption").expect("a check");
        (check.verdict, check.found)
    };
    for (user, tls, verdict, end) in [
        ("credkeeper", server.verifying(Verify::Full), CheckVerdict::Ok, "the server's certificate and its name verified"),
        ("credkeeper", server.verifying(Verify::Chain), CheckVerdict::Ok, "the server's certificate verified, not its name"),
        ("credkeeper", server.verifying(Verify::Nothing), CheckVerdict::Warning, "the server's certificate not verified"),
        (
            "certified",
            TlsSettings { client: server.identity("certified.pem", "certified.key"), ..server.verifying(Verify::Full) },
            CheckVerdict::Ok,
            "the server's certificate and its name verified, with a certificate of ours",
        ),
    ] {
        let found = told(inspect(&server.config(user, Some(tls))).await);
        assert!(found.0 == verdict && found.1.starts_with("TLSv1.3 (") && found.1.ends_with(end), "{found:?}");
    }
    let local = told(inspect(&Bench::postgres().await.config).await);
    assert_eq!(local, (CheckVerdict::Ok, "none; the server is this machine".to_owned()));
}

/// The whole store over TLS: pool, writer, leadership, and giving up a statement half-way.
#[tokio::test]
async fn all_sessions_are_encrypted_and_work() {
    use futures_util::StreamExt;
    let server = encrypted();
    let _guard = server.show("good").await;
    let admin = pg::connect(server.cluster.port, "vendor").await.unwrap();
    admin.batch_execute("ALTER ROLE locked PASSWORD 'S3cret'; ALTER ROLE locked SET search_path = tenant_1").await.unwrap();
    admin
        .batch_execute("INSERT INTO tenant_1.users (id, login, flag) SELECT 1000000 + n, 'tls' || n, 1 FROM generate_series(1, 3000) n")
        .await
        .unwrap();
    let mut config = server.config("locked", Some(server.verifying(Verify::Full)));
    *target(&mut config).1 = Some(Secret::new("S3cret".into()));
    let store = Store::connect(&config).await.unwrap();
    let leadership = store.lead().await.unwrap().expect("nobody else leads here");
    let (mut transaction, users) = store.begin(&[user_id(1_000_001)]).await.unwrap();
    assert_eq!(transaction.write(&[new_pin(&users[0], "740218", None)]).await.unwrap(), [Outcome::Applied]);
    let sessions =
        admin.query("SELECT s.ssl FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.usename = 'locked'", &[]).await.unwrap();
    assert!(sessions.len() >= 2 && sessions.iter().all(|row| row.get::<_, bool>(0)));
    assert!(matches!(transaction.commit().await, Committed::Yes));
    let mut reading = store.reader().read(&Filter::default());
    assert_eq!(reading.next().await.unwrap().unwrap().len(), 1000);
    drop(reading);
    assert!(read(store.reader(), &Filter::default()).await.len() >= 3000);
    leadership.verify().await.unwrap();

    *target(&mut config).1 = Some(Secret::new("wrong".into()));
    assert_eq!(refusal(&config).await.unwrap().kind(), "auth");
    admin
        .batch_execute("DELETE FROM tenant_1.users_cards WHERE user_id > 1000000; DELETE FROM tenant_1.users WHERE id > 1000000")
        .await
        .unwrap();
}

/// From the text of a configuration to a verified session.
#[tokio::test]
async fn a_connection_string_leads_there() {
    let server = encrypted();
    let _guard = server.show("good").await;
    let folder = tempfile::tempdir().unwrap();
    let port = server.cluster.port;
    for file in ["ca.pem", "certified.pem", "certified.key"] {
        std::fs::copy(server.file(file), folder.path().join(file)).unwrap();
    }
    let config = |database: &str| {
        let path = folder.path().join("config.yaml");
        let rest = "policies: [{name: a}]\nmail: {transport: none}\njournal: {path: journal.db, key: {file: journal.key}}\n";
        std::fs::write(&path, format!("databases:\n  - name: main\n    {database}\n{rest}")).unwrap();
        Config::load(&path).unwrap_or_else(|problems| panic!("{problems}")).databases.remove(0)
    };
    for database in [
        format!(
            "connection_string: host=localhost hostaddr=127.0.0.1 port={port} dbname=vendor user=credkeeper sslmode=verify-full sslrootcert=ca.pem"
        ),
        format!(
            "connection_string: host=127.0.0.1 port={port} dbname=vendor user=certified sslrootcert=ca.pem sslcert=certified.pem sslkey=certified.key"
        ),
        format!("url: postgres://credkeeper@127.0.0.1:1,127.0.0.1:{port}/vendor?sslmode=require"),
        format!("url: postgres://credkeeper@127.0.0.1:{port}/vendor\n    tls: {{mode: verify-ca, ca_file: ca.pem}}"),
    ] {
        let checks = inspect(&config(&database)).await;
        let encryption = checks.iter().find(|check| check.name == "encryption");
        assert!(encryption.is_some_and(|check| check.found.starts_with("TLSv1.3")), "{database}: {checks:#?}");
    }
}

/// A host that is down, one that accepts and says nothing, one that takes no changes: they are passed over, by the leadership
/// and the writer, too; and where no host is left, each is told of.
#[tokio::test]
async fn the_read_write_host_is_found() {
    let mut bench = Bench::postgres().await;
    bench.add_user(NewUser::new(1, "a")).await;
    // The read-only one is the other server, with a database of the same name.
    let other = encrypted();
    let _guard = other.show("good").await;
    let admin = pg::connect(other.cluster.port, "postgres").await.unwrap();
    let name = target(&mut bench.config).2.clone();
    admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    admin.batch_execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await.unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    bench.config.connect_timeout = Duration::from_millis(200);

    let good = target(&mut bench.config).0[0].clone();
    let at = |port| ("127.0.0.1".to_owned(), port);
    let silent = at(silent.local_addr().unwrap().port());
    // Unencrypted, the other server lets only postgres in: so that it answers at all, this role it is.
    if let DatabaseTarget::Postgres { user, .. } = &mut bench.config.target {
        *user = "postgres".into();
    }
    *target(&mut bench.config).0 = vec![at(1), silent, at(other.cluster.port), good];
    let store = Store::connect(&bench.config).await.unwrap();
    let begun = Instant::now();
    let leadership = store.lead().await.unwrap().expect("the leadership");
    let first = begun.elapsed();
    let (mut transaction, users) = store.begin(&[user_id(1)]).await.unwrap();
    assert_eq!(transaction.write(&[new_pin(&users[0], "740218", None)]).await.unwrap(), [Outcome::Applied]);
    assert!(matches!(transaction.commit().await, Committed::Yes));
    leadership.verify().await.unwrap();
    assert!(begun.elapsed() < first * 2, "the host of last time is asked first: {first:?}, then {:?}", begun.elapsed());

    target(&mut bench.config).0.remove(3);
    let error = refusal(&bench.config).await.unwrap();
    assert_eq!((error.kind(), error.is_transient()), ("read_only", true));
    let told = inspect(&bench.config).await[0].found.clone();
    assert!(
        told.contains("127.0.0.1:1: error connecting") && told.contains("no answer within 5 s") && told.contains("takes no changes"),
        "{told}"
    );
}

/// PgBouncer in front of the shared server, until it is dropped.
struct Bouncer {
    port: u16,
    _server: Child,
}

impl Bouncer {
    fn start(name: &str, mode: &str, more: &str) -> Bouncer {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer", "/opt/homebrew/bin/pgbouncer"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .expect("this test needs PgBouncer: `./test` installs it; by hand: apt-get install pgbouncer");
        let (dir, owner) = pg::directory(name);
        let port = pg::free_port();
        let ini = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = users.txt\npool_mode = {mode}\nlogfile = log\n{more}",
            pg::cluster().port
        );
        pg::private(&dir.join("pgbouncer.ini"), &ini, owner);
        pg::private(&dir.join("users.txt"), "\"credkeeper\" \"\"\n", owner);
        let server = pg::serve(&dir, owner, &format!("{program} -q pgbouncer.ini"), "INT");
        Bouncer { port, _server: server }
    }

    /// `bench` through this pooler, once it answers.
    async fn in_front_of(&self, bench: &Bench) -> DatabaseConfig {
        let mut config = bench.config.clone();
        target(&mut config).0[0].1 = self.port;
        let deadline = Instant::now() + Duration::from_secs(20);
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(Instant::now() < deadline, "PgBouncer does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        config
    }
}

/// In transaction mode two instances could both lead, and a read-only setting of ours would reach into sessions of others.
#[tokio::test]
async fn a_pooler_that_hands_sessions_around_is_refused() {
    let bench = Bench::postgres().await;
    for mode in ["transaction", "statement"] {
        let bouncer = Bouncer::start(&format!("bouncer-{mode}"), mode, "");
        let config = bouncer.in_front_of(&bench).await;
        let checks = inspect(&config).await;
        assert_eq!((checks.len(), checks[0].verdict), (1, CheckVerdict::Failed), "{mode}: {checks:#?}");
        assert_eq!(checks[0].found, "a connection pooler shares one session of the server among many");
        assert!(checks[0].advice.contains("pool_mode=session"), "{}", checks[0].advice);
        let store = Store::connect(&config).await.unwrap();
        for error in [store.reader().clock().await.unwrap_err(), store.lead().await.err().unwrap(), store.begin(&[]).await.err().unwrap()] {
            assert_eq!((error.kind(), error.is_transient()), ("pooler", false));
        }
        // What it found out has left no trace in the sessions that others get.
        let params = format!("host=127.0.0.1 port={} user=credkeeper dbname={}", bouncer.port, target(&mut config.clone()).2);
        let (other, connection) = tokio_postgres::connect(&params, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let set = "SELECT name FROM pg_settings WHERE source = 'session' AND name LIKE '%\\_timeout' OR name = 'transaction_read_only' AND setting = 'on'";
        let left: Vec<_> = other.simple_query(set).await.unwrap();
        assert!(!left.iter().any(|message| matches!(message, tokio_postgres::SimpleQueryMessage::Row(_))), "{mode}: {left:?}");
    }
}

#[tokio::test]
async fn a_pooler_that_keeps_sessions_together_serves() {
    let bench = Bench::postgres().await;
    bench.add_user(NewUser::new(1, "a")).await;
    // The remedy that the refusal names.
    let bouncer = Bouncer::start("bouncer-user", "transaction", "[users]\ncredkeeper = pool_mode=session\n");
    assert_eq!(inspect(&bouncer.in_front_of(&bench).await).await.iter().find(|check| check.verdict == CheckVerdict::Failed), None);
    let bouncer = Bouncer::start("bouncer-session", "session", "");
    let config = bouncer.in_front_of(&bench).await;
    let failed: Vec<Check> = inspect(&config).await.into_iter().filter(|check| check.verdict == CheckVerdict::Failed).collect();
    assert_eq!(failed, []);
    let (one, two) = (Store::connect(&config).await.unwrap(), Store::connect(&config).await.unwrap());
    let leadership = one.lead().await.unwrap().expect("the leadership");
    assert!(two.lead().await.unwrap().is_none(), "one leads at a time");
    let (mut transaction, users) = one.begin(&[user_id(1)]).await.unwrap();
    assert_eq!(transaction.write(&[new_pin(&users[0], "740218", None)]).await.unwrap(), [Outcome::Applied]);
    assert!(matches!(transaction.commit().await, Committed::Yes));
    for _ in 0..3 {
        assert_eq!(read(two.reader(), &Filter::default()).await[0].pins.len(), 1);
    }
    leadership.verify().await.unwrap();
    drop((leadership, one));
    let deadline = Instant::now() + Duration::from_secs(20);
    while two.lead().await.unwrap().is_none() {
        assert!(Instant::now() < deadline, "the leadership is free when its holder is gone");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
