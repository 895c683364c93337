//! Another configuration while the daemon runs (SIGHUP), on real parts.

use std::time::Duration;

use crate::bounded::until;
use crate::pg::free_port;
use crate::site::{Process, Site, Step, get};

/// The vendor's tables of the second tenant.
const TABLES: &str = include_str!("data/tables.postgres.sql");
const LONG: Duration = Duration::from_secs(30);
const IN_FORCE: &str = "The new configuration is in force";
const REFUSED: &str = "the one before stays in force";

async fn quick_site() -> Site {
    Site::empty().await.with_config(|yaml| yaml.replace("poll: 5s", "poll: 1s"))
}

/// Asks for a reload, and waits for the `times`-th that is taken.
async fn reloaded(daemon: &Process, times: usize) {
    daemon.signal("-HUP");
    daemon.says(IN_FORCE, times).await;
    daemon.until(Step::Ready).await;
}

async fn refused(daemon: &Process, times: usize) {
    daemon.signal("-HUP");
    daemon.says(REFUSED, times).await;
}

/// The value of a series, by the whole of its name and labels.
async fn metric(site: &Site, series: &str) -> Option<f64> {
    let metrics = site.http("/metrics").await;
    let prefix = format!("credkeeper_{series} ");
    metrics.lines().find_map(|line| line.strip_prefix(&prefix)).map(|value| value.parse().unwrap())
}

fn issued(policy: &str) -> String {
    format!("changes_total{{change=\"pin_issued\",database=\"main\",outcome=\"applied\",policy=\"{policy}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn another_policy_serves_from_now_on_and_no_visitor_is_lost() {
    let site = quick_site().await;
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    let began = metric(&site, "config_reload_timestamp_seconds").await.unwrap();
    assert!(began > 1e9);
    site.add_visitor("first@visitors.example").await;
    assert_eq!(site.mail_to("first@visitors.example", LONG).await.pin().len(), 6);

    let site = site.with_config(|yaml| {
        yaml.replace("  - name: visitors\n", "  - name: guests\n")
            .replacen("length: 6", "length: 8", 1)
            .replace("level: info", "level: debug")
    });
    // They come all the time, before, while and after it happens.
    daemon.signal("-HUP");
    for n in 0..40 {
        site.add_visitor(&format!("v{n}@visitors.example")).await;
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    daemon.says(IN_FORCE, 1).await;
    site.add_visitor("last@visitors.example").await;
    assert_eq!(site.mail_to("last@visitors.example", LONG).await.pin().len(), 8, "by the new policy");
    for n in 0..40 {
        site.mail_to(&format!("v{n}@visitors.example"), LONG).await;
    }
    assert_eq!(site.mails().len(), 42, "nobody was told twice");
    assert_eq!(site.number("SELECT count(*) FROM users_cards").await, 42);

    daemon.until(Step::Ready).await;
    let (old, new) = (metric(&site, &issued("visitors")).await.unwrap(), metric(&site, &issued("guests")).await.unwrap());
    assert!(old >= 1.0 && new >= 1.0 && old + new == 42.0, "what was counted stays counted: {old} and {new}");
    assert_eq!(metric(&site, r#"users{database="main",policy="visitors",state="due"}"#).await, None, "it is no policy any more");
    assert!(metric(&site, r#"users{database="main",policy="guests",state="due"}"#).await.is_some());
    assert_eq!(metric(&site, r#"users{database="main",policy="guests",state="failed"}"#).await, Some(0.0));
    let resyncs = metric(&site, r#"passes_total{database="main",kind="resync",outcome="unchanged"}"#).await.unwrap()
        + metric(&site, r#"passes_total{database="main",kind="resync",outcome="changed"}"#).await.unwrap();
    assert!(resyncs >= 2.0, "a reload begins with a full comparison: {resyncs}");
    assert_eq!(metric(&site, "config_reload_success").await, Some(1.0));
    assert!(metric(&site, "config_reload_timestamp_seconds").await.unwrap() >= began);
    assert_eq!(metric(&site, r#"leader{database="main"}"#).await, Some(1.0));
    daemon.says("DEBUG credkeeper::daemon", 1).await;
    let log = daemon.log();
    assert!(!log.split(IN_FORCE).next().unwrap().contains("DEBUG"), "debug is heard only after the reload: {log}");
    assert!(!log.contains("Standing by"), "the lock and the lead were ours all the time: {log}");
    let ended = daemon.stop();
    assert_eq!(ended.code, 0, "{}", ended.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_told_and_changes_nothing() {
    let site = quick_site().await;
    let good = std::fs::read_to_string(site.config()).unwrap();
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    let passes = async || metric(&site, r#"passes_total{database="main",kind="resync",outcome="unchanged"}"#).await;
    assert_eq!(passes().await, Some(1.0));
    let began = metric(&site, "config_reload_timestamp_seconds").await;
    let key = |yaml: &str| yaml.replace("key: {file: journal.key}", "key: {file: other.key}");
    let loops = "    pin:\n      length: 6\n      rewrite: always\n      valid_for: 365d\n";
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = regex::Regex::new(r"listen: '[^']+'").unwrap();
    let elsewhere = format!("listen: '{}'", taken.local_addr().unwrap());
    #[rustfmt::skip]
    let mistakes: Vec<(&str, String, Vec<&str>)> = vec![
        ("two mistakes", good.replace("length: 6", "length: six").replace("batch_size: 1000", "batch_size: 0"), vec!["pin.length", "limits.batch_size"]),
        ("no YAML", "databases: [".to_owned(), vec!["config.yaml"]),
        ("another journal", key(&good.replace("path: journal.db", "path: other.db")), vec!["journal.path cannot change while credkeeper runs: restart for that", "journal.key cannot change"]),
        ("another log", good.replace("level: info", "level: info\n  format: json\n  file: {path: some.log}"), vec!["log.format cannot change", "log.file cannot change"]),
        ("another database of that name", good.replace("    schema_map:", "    schema: tenant_2\n    schema_map:"), vec!["journal"]),
        ("a port that somebody has", listen.replace(&good, elsewhere.as_str()).into_owned(), vec!["http.listen"]),
        ("a policy without an end", good.replace("    pin:\n      length: 6\n      rewrite: expired\n      valid_for: 365d\n", loops), vec!["policy"]),
    ];
    for (n, (what, yaml, told)) in mistakes.iter().enumerate() {
        assert_ne!(*yaml, good, "{what}");
        std::fs::write(site.config(), yaml).unwrap();
        let before = daemon.log().len();
        refused(&daemon, n + 1).await;
        let said = daemon.log().split_off(before);
        for told in told {
            assert!(said.lines().any(|line| line.contains("ERROR") && line.contains(told)), "{what}: {told} is not in\n{said}");
        }
        assert_eq!(metric(&site, "config_reload_success").await, Some(0.0), "{what}");
    }
    site.add_visitor("ann@visitors.example").await;
    site.mail_to("ann@visitors.example", LONG).await;
    assert_eq!(passes().await, Some(1.0), "nothing began anew");
    assert_eq!(metric(&site, "config_reload_timestamp_seconds").await, began, "of the one in force");
    std::fs::write(site.config(), &good).unwrap();
    reloaded(&daemon, 1).await;
    assert_eq!(metric(&site, "config_reload_success").await, Some(1.0));
    site.add_visitor("bob@visitors.example").await;
    site.mail_to("bob@visitors.example", LONG).await;
    assert_eq!(daemon.stop().code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_come_and_go_and_the_page_moves() {
    let site = quick_site().await;
    site.sql(&TABLES.replace("tenant_1", "tenant_2")).await;
    let alone = std::fs::read_to_string(site.config()).unwrap();
    let entry = alone.split_once("databases:\n").unwrap().1.split_once("schedule:").unwrap().0;
    let two = entry.replace("name: main", "name: two\n    schema: tenant_2");
    let both = alone.replace("schedule:", &format!("{two}schedule:"));
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    site.sql("INSERT INTO tenant_2.users (login, ou_id, ou_number) VALUES ('bob@visitors.example', 11, 100)").await;
    std::fs::write(site.config(), &both).unwrap();
    reloaded(&daemon, 1).await;
    site.mail_to("bob@visitors.example", LONG).await;
    assert!(site.http("/readyz").await.contains("two: ready"));
    assert_eq!(metric(&site, r#"leader{database="two"}"#).await, Some(1.0));
    assert_eq!(metric(&site, r#"journal_entries{database="main",state="delivered"}"#).await, Some(0.0));

    // To another port, and without the second database again.
    let port = free_port();
    let listen = regex::Regex::new(r"listen: '[^']+'").unwrap();
    std::fs::write(site.config(), listen.replace(&alone, format!("listen: '127.0.0.1:{port}'")).as_bytes()).unwrap();
    daemon.signal("-HUP");
    daemon.says(IN_FORCE, 2).await;
    assert!(site.page("/readyz").await.is_none(), "nobody listens there any more");
    let (_, ready) = get(port, "/readyz").await.unwrap();
    assert!(ready.contains("main: ") && !ready.contains("two"), "{ready}");
    let (_, metrics) = get(port, "/metrics").await.unwrap();
    assert!(!metrics.contains(r#"leader{database="two"}"#), "{metrics}");
    assert!(metrics.contains(&format!("credkeeper_{} 1\n", issued("visitors").replace("main", "two"))), "it stays counted: {metrics}");
    daemon.says("The journal knows the database two, which is not in the configuration", 1).await;

    // A database that is not as it should be does not end what a start would not begin; the next reload mends it.
    site.sql("ALTER TABLE users_cards RENAME COLUMN card TO badge").await;
    daemon.signal("-HUP");
    daemon.says("Nothing is served: ", 1).await;
    site.sql("ALTER TABLE users_cards RENAME COLUMN badge TO card").await;
    std::fs::write(site.config(), &alone).unwrap();
    daemon.signal("-HUP");
    daemon.until(Step::Ready).await;
    site.add_visitor("cid@visitors.example").await;
    site.mail_to("cid@visitors.example", LONG).await;
    assert_eq!(daemon.stop().code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_waiting_mail_is_written_by_cannot_vanish() {
    let site = quick_site().await;
    let before = std::fs::read_to_string(site.config()).unwrap();
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    site.stop_mail_server();
    site.add_visitor("ann@visitors.example").await;
    until("the visitor has a PIN", LONG, async || site.number("SELECT count(*) FROM users_cards").await > 0).await;
    let renamed = before.replace("template: visitor", "template: guest").replace("  visitor:\n", "  guest:\n");
    std::fs::write(site.config(), &renamed).unwrap();
    refused(&daemon, 1).await;
    let said = "templates.visitor is missing, and 1 mails to users of database main that wait are to be written by it: keep a template of that name";
    assert!(daemon.log().contains(said), "{}", daemon.log());

    // With the old one beside it, and another text in it: what waits gets that text.
    let text = "Release your documents at any printer with PIN {{ pin }}.";
    let both = renamed.replace("  guest:\n", &format!("  visitor:\n    subject: Late\n    parts:\n      - '{text}'\n  guest:\n"));
    std::fs::write(site.config(), &both).unwrap();
    site.start_mail_server();
    reloaded(&daemon, 1).await;
    let mail = site.mail_to("ann@visitors.example", LONG).await;
    assert!(mail.headers.iter().any(|(name, value)| name == "Subject" && value == "Late"), "{}", mail.raw);
    std::fs::write(site.config(), &renamed).unwrap();
    // The answer of the mail server is told to the journal within a moment.
    tokio::time::sleep(Duration::from_millis(500)).await;
    reloaded(&daemon, 2).await;
    assert_eq!(daemon.stop().code, 0);
    assert_eq!(site.mails().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_signals_is_one_more_reload_and_a_stop_amid_it_stops() {
    let site = quick_site().await;
    let daemon = site.start(&[]);
    // From the very first moment at which it can be asked.
    daemon.says("Serving /metrics", 1).await;
    (0..30).for_each(|_| daemon.signal("-HUP"));
    daemon.says(IN_FORCE, 1).await;
    daemon.until(Step::Ready).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let reloads = daemon.log().matches(IN_FORCE).count();
    assert!(reloads < 15, "{reloads} reloads of 30 requests:\n{}", daemon.log());
    site.add_visitor("ann@visitors.example").await;
    site.mail_to("ann@visitors.example", LONG).await;
    daemon.signal("-HUP");
    let stopping = std::time::Instant::now();
    let ended = daemon.stop();
    assert!(ended.code == 0 && stopping.elapsed() < Duration::from_secs(10), "{:?} {}", stopping.elapsed(), ended.all());
    assert!(ended.stderr.contains("Stopped"), "{}", ended.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_with_the_configuration_that_it_read_last() {
    let site = quick_site().await;
    let first = site.start(&[]);
    first.until(Step::Ready).await;
    let site = site.listening_elsewhere();
    let second = site.start(&[]);
    second.says("Standing by", 1).await;
    let site = site.with_config(|yaml| yaml.replacen("length: 6", "length: 8", 1));
    second.signal("-HUP");
    second.says(IN_FORCE, 1).await;
    site.add_visitor("ann@visitors.example").await;
    assert_eq!(site.mail_to("ann@visitors.example", LONG).await.pin().len(), 6, "the first one serves");
    assert_eq!(first.stop().code, 0);
    second.says("Leading on database", 1).await;
    site.add_visitor("bob@visitors.example").await;
    assert_eq!(site.mail_to("bob@visitors.example", LONG).await.pin().len(), 8);
    assert_eq!(second.stop().code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn observing_and_enforcing_take_turns() {
    let site = quick_site().await.with_config(|yaml| format!("mode: observe\n{yaml}"));
    site.add_visitor("ann@visitors.example").await;
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    let site = site.with_config(|yaml| yaml.replace("mode: observe\n", ""));
    reloaded(&daemon, 1).await;
    site.mail_to("ann@visitors.example", LONG).await;
    let site = site.with_config(|yaml| format!("mode: observe\n{yaml}"));
    reloaded(&daemon, 2).await;
    site.add_visitor("bob@visitors.example").await;
    // Who only observes holds no lock: a pass beside it can work.
    let site = site.with_config(|yaml| yaml.replace("mode: observe\n", ""));
    let pass = site.once(&[]);
    assert_eq!(pass.code, 0, "{}", pass.all());
    site.mail_to("bob@visitors.example", LONG).await;
    assert_eq!(daemon.stop().code, 0);
}
