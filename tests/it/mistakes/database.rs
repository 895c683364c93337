//! PostgreSQL: reaching it, being let in, and what is found there.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;

use super::{OUTBOX, Scene, yaml};
use crate::bounded;
use crate::pg::{self, Setup, TestDb};
use crate::smtp::SmtpServer;
use crate::tls_postgres::Bouncer;

/// The section of the database: the address, and further keys.
fn at(login: &str, host: &str, database: &str, more: &str) -> String {
    let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
    format!("    url: postgres://{login}@{host}/{database}\n    schema_map: {{cost_centers: {{verified: true}}}}\n{more}")
}

/// One without anything to be said about it.
async fn right() -> TestDb {
    let database = TestDb::new().await;
    database.sql("CREATE INDEX ON tenant_1.users_cards (user_id)").await;
    database
}

/// The program against a database that was right before `spoil`.
async fn spoiled(title: &str, spoil: &str) -> Scene {
    let database = right().await;
    database.sql(spoil).await;
    connecting(title, "credkeeper", &database, "")
}

fn connecting(title: &str, login: &str, database: &TestDb, more: &str) -> Scene {
    let section = at(login, &format!("127.0.0.1:{}", database.port), &database.name, more);
    Scene::new(title).config(yaml(&section, OUTBOX))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_let_us_in_is_told_with_its_remedy() {
    let database = TestDb::new().await;
    for (title, login, more, golden) in [
        ("A wrong password", "locked", "password: {env: CREDKEEPER_WRONG_PASSWORD}", "wrong-password"),
        ("No password where one is asked for", "locked", "", "no-password"),
        ("A role that does not exist, with a password", "ghost", "password: {env: CREDKEEPER_WRONG_PASSWORD}", "unknown-role"),
        ("A role that does not exist, without one", "phantom", "", "unknown-role-trusted"),
        ("A role that may not log in", "retired", "", "role-without-login"),
        ("No line of pg_hba.conf is for this role", "stranger", "", "refused-by-pg-hba"),
        ("A line of pg_hba.conf rejects this role", "banned", "", "rejected-by-pg-hba"),
        ("No connection is free for this role", "limited", "", "too-many-connections"),
    ] {
        connecting(title, login, &database, more).doctor_and_once((1, 1)).is(golden);
    }
    let there = format!("127.0.0.1:{}", database.port);
    let nowhere = Scene::new("A database that does not exist").config(yaml(&at("credkeeper", &there, "SQDB5", ""), OUTBOX));
    nowhere.doctor_and_once((1, 1)).is("unknown-database");
    database.sql(&format!("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", database.name)).await;
    connecting("A role that may not connect to the database", "credkeeper", &database, "")
        .doctor_and_once((1, 1))
        .is("no-connect-privilege");
}

/// At the same time, because some are waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_reached_is_told_with_its_remedy() {
    // Its queue is full, so that whatever knocks gets no answer: as behind a firewall that swallows packets.
    let full = TcpSocket::new_v4().unwrap();
    full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = full.listen(0).unwrap();
    let full = full.local_addr().map(|address| (full, address)).unwrap();
    let mut queued = Vec::new();
    while let Ok(Ok(connection)) = tokio::time::timeout(Duration::from_millis(500), tokio::net::TcpStream::connect(full.1)).await {
        queued.push(connection);
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().map(|address| (silent, address)).unwrap();
    let other = SmtpServer::start();
    std::thread::scope(|scope| {
        for (title, host, golden) in [
            ("Nothing listens at the port", "127.0.0.1:1".to_owned(), "connection-refused"),
            ("The host's name is not known", "no-such-host.invalid".to_owned(), "unknown-host"),
            ("Packets to the server are swallowed", full.1.to_string(), "host-unreachable"),
            ("Something accepts the connection and says nothing", silent.1.to_string(), "silent-server"),
            ("Something else listens there", format!("127.0.0.1:{}", other.port), "not-postgresql"),
            ("None of several hosts will do", format!("127.0.0.1:1,{}", silent.1), "several-hosts"),
        ] {
            let scene = Scene::new(title).config(yaml(&at("credkeeper", &host, "SQDB6", "connect_timeout: 200ms"), OUTBOX));
            scope.spawn(|| scene.doctor_and_once((1, 1)).is(golden));
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_hands_sessions_around_is_told_with_its_remedy() {
    let (database, bouncer) = (right().await, Bouncer::start("bouncer-mistake", "transaction", ""));
    bouncer.answers().await;
    let section = at("credkeeper", &format!("127.0.0.1:{}", bouncer.port), &database.name, "");
    Scene::new("PgBouncer is in transaction mode").config(yaml(&section, OUTBOX)).doctor_and_once((1, 1)).is("pooler");
}

/// The service waits for a server that is down, and says so.
#[test]
fn the_daemon_waits_for_a_server_that_is_down() {
    let scene = Scene::new("The service meets a server that is down").config(yaml(&at("credkeeper", "127.0.0.1:1", "SQDB6", ""), OUTBOX));
    let mut daemon = scene.command(&[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(daemon.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(Command::new("kill").arg("-TERM").arg(daemon.id().to_string()).status().unwrap().success());
    let code = bounded::wait(&mut daemon).code().unwrap();
    scene.says(&[], line.trim_end(), code).is("daemon-waits");
}

/// What credkeeper's sessions do on this database.
async fn sessions(database: &TestDb) -> Vec<(String, bool)> {
    let query = "SELECT pid::text, (wait_event_type = 'Lock')::text FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'credkeeper'";
    let rows = database.rows(query).await;
    rows.into_iter().map(|row| (row[0].clone().unwrap(), row[1].as_deref() == Some("true"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_is_stuck_ends_and_is_told() {
    let database = right().await;
    let holder = pg::connect(database.port, &database.name).await.unwrap();
    holder.batch_execute("BEGIN; LOCK TABLE tenant_1.users_cards IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let begun = Instant::now();
    connecting("Somebody has locked a table", "credkeeper", &database, "statement_timeout: 1s")
        .doctor_and_once((1, 1))
        .is("stuck-statement");
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(sessions(&database).await, [], "nothing of ours goes on at the server");

    // Now the server itself hangs in the middle: no answer comes, not even the end of the statement.
    let mut scene = connecting("The server hangs in the middle of a statement", "credkeeper", &database, "statement_timeout: 3s");
    let running = scene.start(&["--once"]);
    let stuck = loop {
        if let Some((process, _)) = sessions(&database).await.into_iter().find(|(_, locked)| *locked) {
            break process;
        }
        assert!(begun.elapsed() < Duration::from_secs(90), "it never waits for the lock");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let signal = |signal: &str| assert!(Command::new("kill").args([signal, &stuck]).status().unwrap().success());
    signal("-STOP");
    let code = scene.end(running);
    signal("-CONT");
    assert_eq!(code, 1);
    scene.is("server-hangs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_as_mapped_is_told_with_its_remedy() {
    let database = right().await;
    database.sql("CREATE SCHEMA tenant_2; CREATE TABLE tenant_2.users (id int)").await;
    connecting("The schema is another one", "credkeeper", &database, "schema: tenant_7").doctor_and_once((1, 1)).is("wrong-schema");
    connecting("The schema of the connection is another one", "credkeeper", &database, "schema: ''")
        .doctor_and_once((1, 1))
        .is("wrong-default-schema");
    spoiled("No schema has such a table: another database", "DROP SCHEMA tenant_1 CASCADE")
        .await
        .doctor_and_once((1, 1))
        .is("wrong-database");
    for (title, spoil, golden) in [
        ("A column has another name", "ALTER TABLE tenant_1.users RENAME email TO e_mail", "missing-column"),
        (
            "Columns have other names",
            "ALTER TABLE tenant_1.users_cards RENAME card TO card_no; ALTER TABLE tenant_1.users_cards RENAME pin_expiration_date TO valid_until",
            "missing-columns",
        ),
        ("A column of another type", "ALTER TABLE tenant_1.users_cards ALTER pin_expiration_date TYPE date", "mistyped-column"),
        ("A table has another name", "ALTER TABLE tenant_1.ou RENAME TO org_units", "missing-table"),
        (
            "Privileges are missing",
            "REVOKE DELETE ON tenant_1.users_cards FROM credkeeper; REVOKE UPDATE (ou_number) ON tenant_1.users FROM credkeeper; REVOKE USAGE ON SEQUENCE tenant_1.users_cards_id_seq FROM credkeeper",
            "missing-privileges",
        ),
        ("The role may not use the schema", "REVOKE USAGE ON SCHEMA tenant_1 FROM credkeeper", "no-schema-privilege"),
    ] {
        spoiled(title, spoil).await.doctor_and_once((1, 1)).is(golden);
    }
    let twice = "INSERT INTO tenant_1.ou (id, number, name) VALUES (13, 300, 'Has PIN')";
    spoiled("Two cost centers have one name", twice).await.doctor_and_once((1, 3)).is("cost-center-twice");
    let spoil = "UPDATE tenant_1.ou SET name = 'needs  Pin' WHERE id = 11; UPDATE tenant_1.ou SET name = 'HasPIN' WHERE id = 12";
    spoiled("Cost centers are spelled in another way", spoil).await.doctor_and_once((1, 3)).is("missing-cost-center");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_changes_is_told_with_its_remedy() {
    let database = right().await;
    database.sql(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name)).await;
    connecting("The database is read-only by a setting", "credkeeper", &database, "").doctor_and_once((1, 3)).is("read-only-database");
    let database = right().await;
    database.sql("ALTER ROLE reader SET default_transaction_read_only = on").await;
    connecting("The role is read-only by a setting", "reader", &database, "").doctor_and_once((1, 1)).is("read-only-role");
    database.sql("ALTER ROLE reader RESET default_transaction_read_only").await;

    let start = |setup: Setup| std::thread::spawn(move || pg::start(setup)).join().unwrap();
    let primary = start(Setup { name: "primary", hba: pg::HBA, files: Vec::new(), copy_of: None });
    let vendor = pg::connect(primary.port, "vendor").await.unwrap();
    vendor.batch_execute("CREATE INDEX ON tenant_1.users_cards (user_id)").await.unwrap();
    let replica = start(Setup { name: "replica", hba: "", files: Vec::new(), copy_of: Some(primary.port) });
    let there = format!("127.0.0.1:{}", replica.port);
    let to = |title: &str| Scene::new(title).config(yaml(&at("credkeeper", &there, "vendor", ""), OUTBOX));
    to("The server is a standby").doctor_and_once((1, 3)).is("standby");
    let last = pg::connect(replica.port, "vendor").await.unwrap();
    replica.retire();
    to("The server is shutting down").doctor_and_once((1, 1)).is("shutting-down");
    drop(last);
}
