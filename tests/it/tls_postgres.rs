//! Connections to PostgreSQL as they are in the wild: encrypted, with certificates good and bad; several hosts; a pooler.
#![cfg(unix)]

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use credkeeper::config::{Config, DatabaseConfig, DatabaseTarget};
use credkeeper::domain::Secret;
use credkeeper::policy::Needs;
use credkeeper::store::{Check, CheckVerdict, Committed, Filter, Outcome, Reader, Store, StoreError};
use credkeeper::tls::{TlsSettings, Verify};

use crate::bench::{Bench, NewUser, new_pin, read, user_id};
use crate::encrypted::encrypted;
use crate::pg;

const ALL: Needs =
    Needs { cost_centers: true, source: true, moves: true, roles: false, role_removals: false, codes: false, passwords: false };

async fn inspect(config: &DatabaseConfig) -> Vec<Check> {
    let config = DatabaseConfig { needs: ALL, ..config.clone() };
    Reader::connect(&config).await.expect("lazy").inspect().await
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
            assert!(error.is_none_or(|error| error.kind() == "tls" && !error.is_transient()));
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
        format!(
            "connection_string: host=127.0.0.1,localhost port=1,{port} dbname='vendor' user=credkeeper sslmode = verify-ca sslrootcert=ca.pem target_session_attrs=read-write"
        ),
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
        told.contains("127.0.0.1:1: Connection refused") && told.contains("no answer within 5 s") && told.contains("takes no changes"),
        "{told}"
    );
}

/// PgBouncer in front of the shared server, until it is dropped.
pub struct Bouncer {
    pub port: u16,
    _server: Child,
}

impl Bouncer {
    /// Of this mode, with more lines of its configuration.
    pub fn start(name: &str, mode: &str, more: &str) -> Bouncer {
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
        self.answers().await;
        let mut config = bench.config.clone();
        target(&mut config).0[0].1 = self.port;
        config
    }

    pub async fn answers(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(Instant::now() < deadline, "PgBouncer does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
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
