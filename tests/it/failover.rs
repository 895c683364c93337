//! The database's server fails while the daemon is at work, for real: it is ended as by a crash, started again, or a standby
//! takes its place. The daemon is not restarted; nobody is left without the PIN that stands, and nobody gets two.

use std::time::{Duration, Instant};

use regex::Regex;
use tokio_postgres::Client;

use crate::pg::{self, Cluster, Setup, Stop};
use crate::site::{Site, Step};

const LONG: Duration = Duration::from_secs(60);
const UNAVAILABLE: &str = "The database is not available";

/// A server of its own, since it will not survive. What it has said yes to it keeps.
async fn server(name: &'static str, copy_of: Option<u16>) -> Cluster {
    let hba = if copy_of.is_none() { pg::HBA } else { "" };
    let setup = Setup { name, hba, files: Vec::new(), copy_of };
    let cluster = tokio::task::spawn_blocking(move || std::thread::spawn(move || pg::start(setup)).join().unwrap()).await.unwrap();
    if copy_of.is_none() {
        let admin = pg::connect(cluster.port, "vendor").await.unwrap();
        admin
            .batch_execute("ALTER ROLE credkeeper SET synchronous_commit = on; ALTER ROLE postgres SET synchronous_commit = on")
            .await
            .unwrap();
    }
    cluster
}

async fn site_on(servers: &[&Cluster]) -> Site {
    let hosts: Vec<String> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
    let url = format!("url: postgres://credkeeper@{}/vendor", hosts.join(","));
    let site = Site::empty().await;
    site.with_config(|yaml| {
        Regex::new("url: postgres://.*")
            .unwrap()
            .replace(&yaml, url.as_str())
            .replace("poll: 5s", "poll: 1s")
            .replace("limits:\n", "limits:\n  pinless_rise: unlimited\n")
    })
}

async fn vendor(server: &Cluster) -> Client {
    pg::connect(server.port, "vendor").await.unwrap()
}

async fn add_visitor(client: &Client, login: &str) {
    let sql = format!("INSERT INTO tenant_1.users (login, ou_id, ou_number) VALUES ('{login}', 11, 100)");
    client.batch_execute(&sql).await.unwrap();
}

async fn number(client: &Client, sql: &str) -> i64 {
    let rows = client.query(&format!("SELECT ({sql})::bigint"), &[]).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    rows[0].get(0)
}

async fn until(client: &Client, sql: &str, wanted: i64) {
    let end = Instant::now() + LONG;
    while number(client, sql).await != wanted {
        assert!(Instant::now() < end, "{sql} is not {wanted}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// These visitors have one PIN each, and one mail that tells it.
async fn each_was_told_once(site: &Site, client: &Client, logins: &[&str]) {
    for login in logins {
        let told: Vec<String> = site.mails().iter().filter(|mail| mail.to == *login).map(|mail| mail.pin()).collect();
        assert_eq!(told.len(), 1, "{login}");
        let held = |and: &str| {
            format!("SELECT count(*) FROM tenant_1.users_cards c JOIN tenant_1.users u ON u.id = c.user_id WHERE u.login = '{login}' {and}")
        };
        assert_eq!(number(client, &held("")).await, 1, "{login}");
        assert_eq!(number(client, &held(&format!("AND card = 'PIN' || md5('{}')", told[0]))).await, 1, "{login} was told another PIN");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_and_the_daemon_goes_on_there_without_a_restart() {
    let primary = server("failing", None).await;
    let standby = server("promoted", Some(primary.port)).await;
    let site = site_on(&[&primary, &standby]).await;
    let (there, copy) = (vendor(&primary).await, vendor(&standby).await);
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    add_visitor(&there, "before@visitors.example").await;
    site.mail_to("before@visitors.example", LONG).await;
    until(&copy, "SELECT count(*) FROM tenant_1.users_cards", 1).await;

    primary.stop(Stop::Immediate).await;
    daemon.says(UNAVAILABLE, 1).await;
    // The standby answers, and takes no changes: the daemon waits, less and less often.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let tries = daemon.log().matches(UNAVAILABLE).count();
    assert!((2..=6).contains(&tries), "{tries} tries in ten seconds:\n{}", daemon.log());
    assert!(site.http("/readyz").await.contains("not ready"));
    copy.batch_execute("SELECT pg_promote()").await.unwrap();
    add_visitor(&copy, "after@visitors.example").await;
    site.mail_to("after@visitors.example", LONG).await;
    daemon.until(Step::Ready).await;
    let metrics = site.http("/metrics").await;
    assert!(metrics.contains("credkeeper_leader{database=\"main\"} 1\n"), "{metrics}");
    let ended = daemon.stop();
    assert!(ended.code == 0 && ended.stderr.matches("Leading on database").count() == 2, "{}", ended.all());
    each_was_told_once(&site, &copy, &["before@visitors.example", "after@visitors.example"]).await;
    assert_eq!(site.mails().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_open_is_looked_up_on_the_standby_that_took_over() {
    let primary = server("lost", None).await;
    let standby = server("heir", Some(primary.port)).await;
    let site = site_on(&[&primary, &standby]).await;
    let (there, copy) = (vendor(&primary).await, vendor(&standby).await);
    let logins = ["ann@visitors.example", "bob@visitors.example", "cid@visitors.example"];
    for login in logins {
        add_visitor(&there, login).await;
    }
    site.stop_mail_server();
    assert_eq!(site.once(&[]).code, 4);
    // As if the daemon had died before it heard what became of COMMIT; and of the last one the standby never heard.
    let journal = rusqlite::Connection::open(site.folder().join("journal.db")).unwrap();
    journal.execute("UPDATE batch SET state = 'planned', settled_at = NULL", []).unwrap();
    drop(journal);
    let forget = "DELETE FROM tenant_1.users_cards WHERE user_id = (SELECT id FROM tenant_1.users WHERE login LIKE 'cid%');
                  UPDATE tenant_1.users SET ou_id = 11, ou_number = 100 WHERE login LIKE 'cid%'";
    there.batch_execute(forget).await.unwrap();
    until(&copy, "SELECT count(*) FROM tenant_1.users WHERE ou_id = 11 AND login LIKE 'cid%'", 1).await;
    primary.stop(Stop::Immediate).await;
    copy.batch_execute("SELECT pg_promote()").await.unwrap();

    site.start_mail_server();
    let pass = site.once(&["--format", "json"]);
    assert_eq!(pass.code, 0, "{}", pass.all());
    let report: serde_json::Value = serde_json::from_str(&pass.stdout).unwrap();
    assert_eq!((&report["recovered"]["resent"], &report["recovered"]["abandoned"]), (&2.into(), &1.into()), "{report:#}");
    each_was_told_once(&site, &copy, &logins).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_crashes_before_during_and_after_a_batch_costs_nobody_a_pin() {
    let server = server("crashing", None).await;
    let site = site_on(&[&server]).await;
    let there = vendor(&server).await;
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'credkeeper' AND wait_event_type = 'Lock'";
    let hold = "BEGIN; LOCK TABLE tenant_1.users_cards IN SHARE MODE";

    // The session of an open batch is ended by an administrator.
    there.batch_execute(hold).await.unwrap();
    let admin = vendor(&server).await;
    add_visitor(&admin, "cut@visitors.example").await;
    until(&admin, waiting, 1).await;
    let end = waiting.replace("count(*)", "count(pg_terminate_backend(pid))");
    assert_eq!(number(&admin, &end).await, 1);
    there.batch_execute("ROLLBACK").await.unwrap();
    site.mail_to("cut@visitors.example", LONG).await;

    // The whole server goes while a batch is open.
    there.batch_execute(hold).await.unwrap();
    add_visitor(&admin, "open@visitors.example").await;
    until(&admin, waiting, 1).await;
    server.stop(Stop::Immediate).await;
    daemon.says(UNAVAILABLE, 1).await;
    server.start_again().await;
    site.mail_to("open@visitors.example", LONG).await;

    // It goes while it carries out a COMMIT, which takes its time: nobody ever hears what became of it.
    let there = vendor(&server).await;
    there
        .batch_execute(
            "CREATE FUNCTION tenant_1.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(4); RETURN NULL; END';
             CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON tenant_1.users_cards DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION tenant_1.slow();
             GRANT EXECUTE ON FUNCTION tenant_1.slow() TO credkeeper",
        )
        .await
        .unwrap();
    add_visitor(&there, "commit@visitors.example").await;
    until(&there, "SELECT count(*) FROM pg_stat_activity WHERE query = 'COMMIT' AND wait_event = 'PgSleep'", 1).await;
    server.stop(Stop::Immediate).await;
    server.start_again().await;
    site.mail_to("commit@visitors.example", LONG).await;
    let there = vendor(&server).await;
    there.batch_execute("DROP TRIGGER slow ON tenant_1.users_cards").await.unwrap();

    // It goes after the COMMIT, while the mail waits; and an hour later nothing is mailed unseen.
    site.stop_mail_server();
    add_visitor(&there, "late@visitors.example").await;
    until(&there, "SELECT count(*) FROM tenant_1.users_cards", 4).await;
    server.stop(Stop::Immediate).await;
    site.age_journal(3_600);
    site.start_mail_server();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!site.mails().iter().any(|mail| mail.to.starts_with("late")), "it was mailed though nobody could look it up");
    server.start_again().await;
    site.mail_to("late@visitors.example", LONG).await;

    let logins = ["cut", "open", "commit", "late"].map(|name| format!("{name}@visitors.example"));
    each_was_told_once(&site, &vendor(&server).await, &logins.each_ref().map(String::as_str)).await;
    let ended = daemon.stop();
    assert!(ended.code == 0 && !ended.stderr.contains("ERROR"), "{}", ended.all());
}
