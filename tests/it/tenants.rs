//! Two tenants in one PostgreSQL and one process, one of them broken: the other is served, and everything that tells how
//! things stand says which one is which.

use std::time::Duration;

use crate::bounded::until;
use crate::site::{Site, Step};

/// The vendor's tables of the second tenant.
const TABLES: &str = include_str!("data/tables.postgres.sql");
const LONG: Duration = Duration::from_secs(30);

/// `one` with the policies of the site, `two` with a policy of its own.
async fn tenants() -> Site {
    let site = Site::empty().await.with_config(|yaml| {
        let (head, rest) = yaml.split_once("schedule:").unwrap();
        let one = head.replace("name: main", "name: one");
        let entry = head.split_once("databases:\n").unwrap().1;
        let two = entry.replace("name: main", "name: two\n    schema: tenant_2");
        let own = "    policies:
      - name: guests
        match: {username: '[^@]+@[^@]+'}
        pin: {length: 8, rewrite: never, valid_for: 7d}
        notify: {to: username, template: visitor}
";
        format!("{one}{two}{own}schedule:{rest}").replace("poll: 5s", "poll: 1s")
    });
    site.sql(&TABLES.replace("tenant_1", "tenant_2")).await;
    site
}

async fn add_to_two(site: &Site, login: &str) {
    site.sql(&format!("INSERT INTO tenant_2.users (login, ou_id, ou_number) VALUES ('{login}', 11, 100)")).await;
}

const BREAK_TWO: &str = "ALTER TABLE tenant_2.users_cards RENAME COLUMN card TO badge";
const MEND_TWO: &str = "ALTER TABLE tenant_2.users_cards RENAME COLUMN badge TO card";

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_tenant_does_not_hold_up_the_other_and_is_served_once_it_is_mended() {
    let site = tenants().await;
    site.sql(BREAK_TWO).await;
    site.add_visitor("ann@visitors.example").await;
    add_to_two(&site, "bob@visitors.example").await;
    let daemon = site.start(&[]);
    assert_eq!(site.mail_to("ann@visitors.example", LONG).await.pin().len(), 6);
    // Polls go on too.
    site.add_visitor("cid@visitors.example").await;
    site.mail_to("cid@visitors.example", LONG).await;

    let ready = site.http("/readyz").await;
    assert!(ready.contains("one: ready") && ready.contains("two: not ready, failing since"), "{ready}");
    assert!(ready.contains("card"), "it says what is wrong: {ready}");
    assert_eq!(site.http("/").await.lines().filter(|line| line.starts_with("one:") || line.starts_with("two:")).count(), 2);
    let metrics = site.http("/metrics").await;
    for line in [
        r#"leader{database="one"} 1"#,
        r#"leader{database="two"} 0"#,
        r#"passes_total{database="two",kind="resync",outcome="changed"} 0"#,
        r#"changes_total{change="pin_issued",database="two",outcome="applied",policy="guests"} 0"#,
        r#"limit_stopped{database="two",limit="users_shrunk"} 0"#,
    ] {
        assert!(metrics.contains(&format!("credkeeper_{line}\n")), "{line} is not in\n{metrics}");
    }
    assert!(
        !metrics.contains(r#"database="two",class="inspection"} 0"#) && metrics.contains(r#"class="inspection",database="one"} 0"#),
        "{metrics}"
    );
    assert!(!metrics.contains(r#"database="two",outcome="applied",policy="visitors""#), "{metrics}");

    site.sql(MEND_TWO).await;
    assert_eq!(site.mail_to("bob@visitors.example", LONG).await.pin().len(), 8, "by its own policy");
    daemon.until(Step::Ready).await;
    let metrics = site.http("/metrics").await;
    assert!(metrics.contains("credkeeper_leader{database=\"two\"} 1\n"), "{metrics}");

    // And what breaks while the daemon is at work.
    site.sql(BREAK_TWO).await;
    until("the daemon notices", LONG, async || site.http("/readyz").await.contains("two: not ready, failing")).await;
    site.add_visitor("dan@visitors.example").await;
    site.mail_to("dan@visitors.example", LONG).await;
    add_to_two(&site, "eve@visitors.example").await;
    site.sql(MEND_TWO).await;
    site.mail_to("eve@visitors.example", LONG).await;

    let ended = daemon.stop();
    assert_eq!(ended.code, 0, "{}", ended.all());
    let of_two = |line: &&str| line.contains("ERROR") && line.contains("Database two cannot be served, the others are not held up");
    assert_eq!(ended.stderr.lines().filter(of_two).count(), 2, "each outage is told once: {}", ended.all());
    assert!(ended.stderr.contains("Database two is served again"), "{}", ended.all());
    assert!(ended.stderr.lines().any(|line| line.contains("Pass ended") && line.contains("database=one")), "{}", ended.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn once_serves_whom_it_can_and_tells_of_both() {
    let site = tenants().await;
    site.sql(BREAK_TWO).await;
    site.add_visitor("ann@visitors.example").await;
    add_to_two(&site, "bob@visitors.example").await;
    let report = site.folder().join("report.json");
    let prom = site.folder().join("credkeeper.prom");
    let ended = site.once(&["--report", report.to_str().unwrap(), "--metrics-file", prom.to_str().unwrap()]);
    assert_eq!(ended.code, 1, "{}", ended.all());
    assert!(ended.stdout.contains("over one: ") && ended.stdout.contains("No pass over two: what the inspection found"), "{}", ended.all());
    assert_eq!(site.mails().iter().map(|mail| mail.to.as_str()).collect::<Vec<_>>(), ["ann@visitors.example"]);
    let told: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    assert_eq!((told["reports"][0]["database"].as_str(), told["reports"][0]["outcome"].as_str()), (Some("one"), Some("changed")));
    assert_eq!((told["reports"][1]["database"].as_str(), told["reports"][1]["outcome"].as_str()), (Some("two"), Some("failed")));
    assert_eq!(told["users"][0]["database"].as_str(), Some("one"));
    let metrics = std::fs::read_to_string(&prom).unwrap();
    assert!(metrics.contains("credkeeper_database_errors_total{class=\"inspection\",database=\"two\"} 1\n"), "{metrics}");

    let only = site.once(&["--database", "one"]);
    assert_eq!(only.code, 0, "{}", only.all());
    assert!(!only.stdout.contains("two"), "{}", only.all());
    let json = site.run(&["plan", "--format", "json"]);
    let json_told: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((json.code, json_told[0]["database"].as_str(), json_told[1]["database"].as_str()), (1, Some("one"), Some("two")));
    let doctor = site.run(&["doctor"]);
    assert!(doctor.code == 1 && doctor.stdout.contains("two: ") && doctor.stdout.contains("one: "), "{}", doctor.all());

    site.sql(MEND_TWO).await;
    let ended = site.once(&[]);
    assert_eq!(ended.code, 0, "{}", ended.all());
    assert_eq!(site.mail_to("bob@visitors.example", LONG).await.pin().len(), 8);
    assert_eq!(site.run(&["plan", "--exit-code"]).code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_ids_and_logins_in_two_tenants_are_two_people() {
    let site = tenants().await;
    // User 1 of each, of the same name.
    site.add_visitor("ann@visitors.example").await;
    add_to_two(&site, "ann@visitors.example").await;
    let held = site.run(&["hold", "ann@visitors.example"]);
    assert!(held.code == 4 && held.stderr.contains("say which with --database NAME"), "{}", held.all());
    let held = site.run(&["hold", "ann@visitors.example", "--database", "two"]);
    assert_eq!(held.code, 0, "{}", held.all());
    let first = site.once(&[]);
    assert_eq!(first.code, 0, "{}", first.all());
    assert_eq!(site.mails().iter().map(|mail| mail.pin().len()).collect::<Vec<_>>(), [6], "she of `two` is on hold");

    let explained = site.run(&["explain", "ann@visitors.example"]).stdout;
    let (one, two) = explained.split_once("Database two\n").unwrap();
    assert!(one.starts_with("Database one\n") && one.contains("PIN issued") && !one.contains("On hold"), "{explained}");
    assert!(two.contains("On hold since") && two.contains("The journal knows nothing of this user."), "{explained}");
    assert_eq!(site.run(&["release", "ann@visitors.example", "--database", "two"]).code, 0);

    let one_user = site.once(&["--user", "ann@visitors.example", "--database", "two"]);
    assert_eq!(one_user.code, 0, "{}", one_user.all());
    let lengths: Vec<usize> = site.mails().iter().map(|mail| mail.pin().len()).collect();
    assert_eq!(lengths, [6, 8], "each by the policies of its own tenant");
    assert_eq!(site.number("SELECT count(*) FROM tenant_2.users_cards").await, 1);
    assert_eq!(site.number("SELECT count(*) FROM users_cards").await, 1);
    let status = site.run(&["status"]).stdout;
    assert!(
        status.contains("Database one\n") && status.contains("\nDatabase two\n") && status.matches("delivered      1").count() == 2,
        "{status}"
    );

    // A role of that name in one tenant does not hide the user in the other.
    site.sql("INSERT INTO users (login, flag) VALUES ('bob@visitors.example', 32769)").await;
    let no_user = site.run(&["hold", "bob@visitors.example"]);
    assert!(no_user.code == 4 && no_user.stderr.contains("is no user"), "{}", no_user.all());
    add_to_two(&site, "bob@visitors.example").await;
    let held = site.run(&["hold", "bob@visitors.example"]);
    assert_eq!(held.code, 0, "{}", held.all());

    let nobody = site.once(&["--user", "nobody"]);
    assert_eq!(nobody.code, 4, "{}", nobody.all());
    let unknown = site.run(&["status", "--database", "three"]);
    assert!(
        unknown.code == 64 && unknown.stderr.contains("there is no database three in the configuration; there are one, two"),
        "{}",
        unknown.all()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_of_a_database_that_left_waits_and_goes_out_when_it_is_back() {
    let site = tenants().await;
    add_to_two(&site, "bob@visitors.example").await;
    site.stop_mail_server();
    assert_eq!(site.once(&[]).code, 4);
    site.start_mail_server();
    site.age_journal(3600);
    let with_both = std::fs::read_to_string(site.folder().join("config.yaml")).unwrap();
    let (head, rest) = with_both.split_once("  - name: two").unwrap();
    let alone = format!("{head}schedule:{}", rest.split_once("schedule:").unwrap().1);
    let site = site.with_config(|_| alone);
    let told = site.once(&[]);
    assert!(told.code == 0 && told.stderr.contains("1 issuances of the database two that are not finished"), "{}", told.all());
    assert!(site.mails().is_empty());
    let site = site.with_config(|_| with_both);
    let back = site.once(&[]);
    assert_eq!(back.code, 0, "{}", back.all());
    assert_eq!(site.mails().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_for_which_nothing_works_ends_with_the_reason() {
    let site = tenants().await;
    site.sql(BREAK_TWO).await;
    site.sql("ALTER TABLE users_cards RENAME COLUMN card TO badge").await;
    let ended = site.run(&[]);
    assert!(ended.code == 1 && ended.stderr.contains("what the inspection found must be mended first"), "{}", ended.all());
    let observed = site.with_config(|yaml| format!("mode: observe\n{yaml}")).run(&[]);
    assert_eq!(observed.code, 1, "{}", observed.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn observing_goes_on_beside_a_broken_tenant() {
    let site = tenants().await.with_config(|yaml| format!("mode: observe\n{yaml}"));
    site.sql(BREAK_TWO).await;
    site.add_visitor("ann@visitors.example").await;
    let daemon = site.start(&[]);
    until("one is observed", LONG, async || {
        let ready = site.page("/readyz").await.unwrap_or_default(); // the daemon may not listen yet
        ready.contains("one: ready") && ready.contains("two: not ready, failing")
    })
    .await;
    site.sql(MEND_TWO).await;
    daemon.until(Step::Ready).await;
    assert_eq!(daemon.stop().code, 0);
    assert_eq!(site.number("SELECT count(*) FROM users_cards").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_holds_up_nobody_and_loses_nothing() {
    let site = tenants().await;
    add_to_two(&site, "bob@visitors.example").await;
    site.stop_mail_server();
    assert_eq!(site.once(&[]).code, 4, "bob has a PIN, and the mail waits");
    site.start_mail_server();
    let with_both = std::fs::read_to_string(site.folder().join("config.yaml")).unwrap();
    let (head, two) = with_both.split_once("  - name: two").unwrap();
    let port = regex::Regex::new(r"127\.0\.0\.1:\d+/").unwrap();
    let nobody = format!("127.0.0.1:{}/", crate::pg::free_port());
    let down = format!("{head}  - name: two{}", port.replace(two, nobody.as_str()));
    let site = site.with_config(|_| down);

    site.add_visitor("ann@visitors.example").await;
    let ended = site.once(&[]);
    assert!(ended.code == 1 && ended.stdout.contains("No pass over two: "), "{}", ended.all());
    site.mail_to("ann@visitors.example", LONG).await;
    let daemon = site.start(&[]);
    until("one is served, and two is told", LONG, async || {
        let ready = site.page("/readyz").await.unwrap_or_default();
        ready.contains("one: ready") && ready.contains("two: not ready, failing")
    })
    .await;
    site.add_visitor("cid@visitors.example").await;
    site.mail_to("cid@visitors.example", LONG).await;
    assert_eq!(daemon.stop().code, 0);
    assert_eq!(site.mails().len(), 2, "the mail of a database that cannot be asked waits");

    let site = site.with_config(|_| with_both);
    assert_eq!(site.once(&[]).code, 0);
    site.mail_to("bob@visitors.example", LONG).await;
}
