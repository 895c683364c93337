//! More of the brakes, each sprung for real: the wrong schema, the wrong `pin_format`, and a copy of the
//! server that only follows it. See `brakes.rs` for the others.
#![cfg(unix)]

use crate::brakes::stopped_by;
use crate::pg::{self, Setup, TestDb};
use crate::site::{Ended, Site};

/// Whatever it was asked, nothing was written or mailed.
async fn unchanged(site: &Site, arguments: &[&str]) -> Ended {
    let (before, mails) = (site.fingerprint().await, site.mails().len());
    let ended = site.run(arguments);
    assert_eq!(site.fingerprint().await, before, "something was written: {}", ended.all());
    assert_eq!(site.mails().len(), mails, "something was mailed: {}", ended.all());
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pin_format_of_another_site_is_refused_until_it_is_right() {
    let site = Site::with_people(320).await.with_config(|yaml| yaml.replace("    schema_map:", "    pin_format: prefix\n    schema_map:"));
    stopped_by(&site, "unexplained_pins", "set pin_format: md5?").await;
    let site = site.with_config(|yaml| yaml.replace("    pin_format: prefix\n", ""));
    let right = site.once(&[]);
    assert_eq!(right.code, 0, "{}", right.all());
    assert_eq!(site.mails().len(), 140, "seven of sixteen kinds");
}

/// Where the tables are not, the inspection refuses (exit code 1); where they are those of another tenant, the journal knows better.
#[tokio::test(flavor = "multi_thread")]
async fn another_schema_is_refused_with_the_one_that_is_meant() {
    let site = Site::with_people(160).await;
    site.sql("CREATE SCHEMA tenant_7; GRANT USAGE ON SCHEMA tenant_7 TO credkeeper").await;
    let site = site.with_config(|yaml| yaml.replace("    schema_map:", "    schema: tenant_7\n    schema_map:"));
    let metrics = site.folder().join("schema.prom");
    let ended = unchanged(&site, &["--once", "--metrics-file", metrics.to_str().unwrap()]).await;
    assert_eq!(ended.code, 1, "{}", ended.all());
    assert!(ended.stderr.contains("tenant_1") && ended.stderr.contains("nothing was changed"), "it names the schema: {}", ended.all());
    let metrics = std::fs::read_to_string(metrics).unwrap();
    assert!(metrics.contains("credkeeper_database_errors_total{class=\"inspection\",database=\"main\"} 1\n"), "{metrics}");

    let site = site.with_config(|yaml| yaml.replace("    schema: tenant_7\n", ""));
    assert_eq!(site.once(&[]).code, 0);
    site.sql(&include_str!("data/tables.postgres.sql").replace("tenant_1", "tenant_2")).await;
    site.sql("INSERT INTO tenant_2.users (login, ou_id, ou_number) VALUES ('other@visitors.example', 11, 100)").await;
    let site = site.with_config(|yaml| yaml.replace("    schema_map:", "    schema: tenant_2\n    schema_map:"));
    let ended = unchanged(&site, &["--once"]).await;
    assert_eq!(ended.code, 1, "{}", ended.all());
    assert!(ended.stderr.contains("tenant_2") && ended.stderr.contains("tenant_1"), "both are named: {}", ended.all());
    assert_eq!(site.number("SELECT count(*) FROM tenant_2.users_cards").await, 0);
    let site = site.with_config(|yaml| yaml.replace("    schema: tenant_2\n", ""));
    assert_eq!(site.once(&[]).code, 0);
}

/// A real one: a copy that follows its primary and takes no changes itself. With both named, the primary is found.
#[tokio::test(flavor = "multi_thread")]
async fn a_hot_standby_is_refused_and_beside_its_primary_passed_over() {
    let start = |setup: Setup| std::thread::spawn(move || pg::start(setup)).join().unwrap();
    let primary = start(Setup { name: "followed", hba: pg::HBA, files: Vec::new(), copy_of: None });
    let site = Site::on(TestDb::on(&primary).await);
    site.sql(
        "INSERT INTO users (login, email, ou_id, ou_number) SELECT 'user' || g, 'user' || g || '@example.com', 0, 0 FROM generate_series(1, 60) g",
    )
    .await;
    let standby = start(Setup { name: "follower", hba: "", files: Vec::new(), copy_of: Some(primary.port) });
    let (there, here) = (format!("@127.0.0.1:{}/", primary.port), format!("@127.0.0.1:{}/", standby.port));
    let site = site.with_config(|yaml| yaml.replace(&there, &here));
    stopped_by(&site, "read_only", "the database server is a standby and takes no changes").await;
    let both = format!("@127.0.0.1:{},127.0.0.1:{}/", standby.port, primary.port);
    let site = site.with_config(|yaml| yaml.replace(&here, &both));
    let ended = site.once(&[]);
    assert_eq!(ended.code, 0, "{}", ended.all());
    assert_eq!((site.number("SELECT count(*) FROM users_cards").await, site.mails().len()), (60, 60));
}
