//! The brakes on real parts: each situation is made for real, and the program as an administrator starts it must notice.

use std::time::{Duration, Instant};

use crate::site::{Ended, Process, Site, Step};

/// What a report as JSON says of what stopped it: the codes, and the sentences.
fn stops(ended: &Ended, list: &str, code: &str) -> Vec<(String, String)> {
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {}", ended.all()));
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    report[list].as_array().unwrap().iter().map(|stop| (text(&stop[code]), text(&stop["message"]))).collect()
}

/// A pass and its preview must be stopped by this tripwire alone, and change nothing.
pub async fn stopped_by(site: &Site, tripwire: &str, says: &str) {
    let before = site.fingerprint().await;
    let mails = site.mails().len();
    for arguments in [&["--once", "--format", "json"][..], &["plan", "--format", "json"], &["plan", "--exit-code", "--format", "json"]] {
        let ended = site.run(arguments);
        assert_eq!(ended.code, 3, "{arguments:?}: {}", ended.all());
        let stops = stops(&ended, "stops", "limit");
        assert_eq!(stops.iter().map(|(limit, _)| limit.as_str()).collect::<Vec<_>>(), [tripwire], "{arguments:?}");
        assert!(stops[0].1.contains(says), "{arguments:?}: {}", stops[0].1);
    }
    assert_eq!(site.fingerprint().await, before, "{tripwire}: something was written");
    assert_eq!(site.mails().len(), mails, "{tripwire}: something was mailed");

    let metrics = site.folder().join("stopped.prom");
    assert_eq!(site.once(&["--metrics-file", metrics.to_str().unwrap()]).code, 3);
    let metrics = std::fs::read_to_string(metrics).unwrap();
    for line in [
        format!(r#"limit_stopped{{database="main",limit="{tripwire}"}} 1"#),
        format!(r#"limit_stops_total{{database="main",limit="{tripwire}"}} 1"#),
        r#"passes_total{database="main",kind="once",outcome="refused"} 1"#.to_owned(),
    ] {
        assert!(metrics.contains(&format!("credkeeper_{line}\n")), "{line} is not in\n{metrics}");
    }
    let status = site.run(&["status"]);
    assert!(status.stdout.lines().any(|line| line.contains("stopped: ") && line.contains(says)), "{}", status.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_or_shrunken_table_stops_everything_until_somebody_says_that_it_is_meant() {
    let site = Site::with_people(320).await;
    assert_eq!(site.once(&[]).code, 0);
    site.sql("DELETE FROM users_cards WHERE user_id % 3 = 0; DELETE FROM users_roles; DELETE FROM users_aliases; DELETE FROM users WHERE id % 3 = 0").await;
    // Somebody left who needs a PIN, so that there would be something to do.
    site.add_visitor("waits@visitors.example").await;
    stopped_by(&site, "users_shrunk", "users where the last successful full pass found").await;
    site.sql("TRUNCATE users CASCADE").await;
    stopped_by(&site, "users_shrunk", "the database has 0 users where").await;
    // It does not come loose by itself.
    stopped_by(&site, "users_shrunk", "the database has 0 users where").await;

    let site = site.with_config(|yaml| yaml.replace("limits:\n", "limits:\n  users_shrunk: unlimited\n"));
    let meant = site.once(&[]);
    assert_eq!(meant.code, 0, "{}", meant.all());
    let site = site.with_config(|yaml| yaml.replace("  users_shrunk: unlimited\n", ""));
    let again = site.once(&[]);
    assert_eq!(again.code, 0, "that pass is what the next ones are compared with: {}", again.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_served_and_a_loss_of_pins_is_not_mended() {
    let site = Site::with_people(320).await;
    assert_eq!(site.once(&[]).code, 0);
    // More users than there were, none of them with a PIN.
    site.sql("INSERT INTO users (login, email) SELECT 'import' || g, 'import' || g || '@example.com' FROM generate_series(1, 400) g").await;
    let import = site.once(&[]);
    assert_eq!(import.code, 0, "{}", import.all());
    let served = "SELECT count(*) FROM users u JOIN users_cards c ON c.user_id = u.id WHERE login LIKE 'import%'";
    assert_eq!(site.number(served).await, 400);

    site.sql("DELETE FROM users_cards WHERE card LIKE 'PIN%' AND user_id % 3 = 0").await;
    stopped_by(&site, "pinless_rise", "users have no PIN where the last successful full pass found").await;
    // A visitor named on the command line is no full pass, and is served.
    site.add_visitor("one@visitors.example").await;
    let one = site.once(&["--user", "one@visitors.example"]);
    assert_eq!(one.code, 0, "{}", one.all());
}

/// A poll looks at the newest users only, and has no figures to judge by: after a start it must not do what the full comparison
/// refused.
#[tokio::test(flavor = "multi_thread")]
async fn polls_do_not_walk_around_a_tripwire() {
    let site = Site::with_people(320).await.with_config(|yaml| yaml.replace("poll: 5s", "poll: 1s\n  resync: 10s"));
    assert_eq!(site.once(&[]).code, 0);
    site.sql("DELETE FROM users_cards WHERE card LIKE 'PIN%'").await;
    site.add_visitor("waits@visitors.example").await;
    let before = site.fingerprint().await;
    let daemon = site.start(&[]);
    // The second full comparison is refused too; between them a poll would have come nine times.
    metric(&site, &daemon, r#"limit_stops_total{database="main",limit="pinless_rise"} 2"#).await;
    let metrics = site.http("/metrics").await;
    let polls = metrics.lines().filter(|l| l.starts_with("credkeeper_passes_total") && l.contains(r#"kind="poll""#));
    assert!(polls.clone().count() > 3 && polls.clone().all(|l| l.ends_with(" 0")), "{:?}", polls.collect::<Vec<_>>());
    assert_eq!(site.fingerprint().await, before, "something was written");
    let ended = daemon.stop();
    assert_eq!(ended.code, 0, "{}", ended.all());
    assert_eq!(ended.stderr.matches("users have no PIN where").count(), 1, "said once: {}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_of_another_form_stop_a_pass_that_names_the_form() {
    let site = Site::with_people(160).await;
    site.sql("UPDATE users_cards SET card = 'PIN' || lpad(id::text, 6, '0') WHERE card ~ '^PIN[0-9a-f]{32}$'").await;
    let others = site.number("SELECT count(*) FROM users_cards WHERE card ~ '^PIN[0-9]{6}$'").await;
    assert!(others >= 60, "{others}");
    stopped_by(&site, "unexplained_pins", "set pin_format: prefix?").await;

    // A few prove nothing: they may be cards.
    site.sql("DELETE FROM users_cards WHERE card ~ '^PIN[0-9]{6}$' AND id NOT IN (SELECT id FROM users_cards WHERE card ~ '^PIN[0-9]{6}$' LIMIT 20)").await;
    let few = site.once(&[]);
    assert_eq!(few.code, 0, "{}", few.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_database_is_refused_and_served_once_it_is_not() {
    let site = Site::with_people(160).await.with_config(|yaml| yaml.replace("poll: 5s", "poll: 1s"));
    let name = site.rows("SELECT current_database()::text, ''").await.remove(0).0;
    let read_only = |word: &str| format!("ALTER DATABASE {name} {word}");
    site.sql(&read_only("SET default_transaction_read_only = on")).await;
    stopped_by(&site, "read_only", "the database takes no changes").await;

    // The daemon waits, and goes on by itself.
    let daemon = site.start(&[]);
    metric(&site, &daemon, r#"limit_stopped{database="main",limit="read_only"} 1"#).await;
    assert_eq!(site.mails().len(), 0);
    site.sql(&read_only("RESET default_transaction_read_only")).await;
    metric(&site, &daemon, r#"limit_stopped{database="main",limit="read_only"} 0"#).await;
    site.mail_to("visitor12@visitors.example", Duration::from_secs(60)).await;
    let ended = daemon.stop();
    assert_eq!(ended.code, 0, "{}", ended.all());
    assert_eq!(ended.stderr.matches("the database takes no changes").count(), 1, "said once, and not with each try: {}", ended.stderr);
}

/// A server that says of itself that it is a standby, by the same trick as the clock below.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_refused_with_what_to_name_instead() {
    let site = Site::with_people(160).await;
    let name = site.rows("SELECT current_database()::text, ''").await.remove(0).0;
    site.sql(&format!(
        "CREATE SCHEMA standby; GRANT USAGE ON SCHEMA standby TO credkeeper;
         CREATE FUNCTION standby.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT true';
         ALTER ROLE credkeeper IN DATABASE {name} SET search_path = standby, pg_catalog"
    ))
    .await;
    stopped_by(&site, "read_only", "the database server is a standby and takes no changes").await;
    let doctor = site.run(&["doctor"]);
    assert_eq!(doctor.code, 1, "{}", doctor.all());
    assert!(doctor.stdout.lines().any(|line| line.starts_with("FAILED") && line.contains("writable")), "{}", doctor.stdout);
}

/// The server's clock cannot be moved from here; but what it answers can: a function before its own in the role's search path.
#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_are_measured_and_stop_a_pass() {
    let site = Site::with_people(160).await;
    let metrics = site.folder().join("skew.prom");
    let skew = || {
        site.once(&["--metrics-file", metrics.to_str().unwrap()]);
        let text = std::fs::read_to_string(&metrics).unwrap();
        let line = text.lines().find(|line| line.starts_with("credkeeper_clock_skew_seconds")).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()
    };
    assert_eq!(skew(), 0);
    let name = site.rows("SELECT current_database()::text, ''").await.remove(0).0;
    site.sql(&format!(
        "CREATE SCHEMA late; GRANT USAGE ON SCHEMA late TO credkeeper;
         CREATE FUNCTION late.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT pg_catalog.clock_timestamp() - interval '75 seconds' $$;
         ALTER ROLE credkeeper IN DATABASE {name} SET search_path = late, pg_catalog"
    ))
    .await;
    assert!((-76..=-74).contains(&skew()));
    stopped_by(&site, "clock_skew", "s behind this machine's").await;
    let site = site.with_config(|yaml| yaml.replace("limits:\n", "limits:\n  clock_skew: 2m\n"));
    let allowed = site.once(&[]);
    assert_eq!(allowed.code, 0, "{}", allowed.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_no_mail_goes_nothing_is_made_that_would_have_to_be_mailed() {
    let site = Site::with_people(160).await.with_config(|yaml| {
        let mover = "policies:\n  - name: movers\n    match: {username: 'mover.*'}\n    cost_center: {move_to: Has PIN}\n";
        yaml.replace("poll: 5s", "poll: 1s").replace("limits:\n", "limits:\n  delivery_down: 1s\n").replace("policies:\n", mover)
    });
    assert_eq!(site.once(&[]).code, 0);
    site.stop_mail_server();
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    let without = "SELECT count(*) FROM users u WHERE login LIKE 'late%' AND NOT EXISTS (SELECT FROM users_cards c WHERE c.user_id = u.id)";
    let until = Instant::now() + Duration::from_secs(60);
    let mut visitors = Vec::new();
    // The first of them get a PIN, which cannot be mailed; then no more are made.
    while !site.http("/metrics").await.contains(r#"credkeeper_limit_stopped{database="main",limit="delivery_down"} 1"#) {
        assert!(Instant::now() < until, "visitors still get PINs that nobody is told of");
        let login = format!("late{}@visitors.example", visitors.len());
        site.add_visitor(&login).await;
        visitors.push(login);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(site.number(without).await > 0);
    site.add_visitor("mover@visitors.example").await;
    let moved = "SELECT count(*) FROM users WHERE login = 'mover@visitors.example' AND ou_id = 12";
    while site.number(moved).await == 0 {
        assert!(Instant::now() < until, "whoever is only moved needs no mail");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(site.number(without).await > 0, "they still wait");

    site.start_mail_server();
    for login in &visitors {
        site.mail_to(login, Duration::from_secs(90)).await;
    }
    metric(&site, &daemon, r#"limit_stopped{database="main",limit="delivery_down"} 0"#).await;
    let ended = daemon.stop();
    assert_eq!(ended.code, 0, "{}", ended.all());
    assert!(ended.stderr.contains("no mail could be delivered since"), "{}", ended.stderr);
}

/// As a role that may not write at all, which is the strongest proof that nothing needs to be.
#[tokio::test(flavor = "multi_thread")]
async fn an_observer_writes_nothing_and_mails_nothing_and_says_what_would_be_done() {
    let site = Site::with_people(320)
        .await
        .with_config(|yaml| format!("mode: observe\n{yaml}").replace("postgres://credkeeper@", "postgres://reader@"));
    let before = site.fingerprint().await;
    let daemon = site.start(&[]);
    metric(&site, &daemon, r#"users{database="main",policy="visitors",state="due"} 20"#).await;
    let metrics = site.http("/metrics").await;
    let success = metrics.lines().find(|l| l.starts_with(r#"credkeeper_last_success_timestamp_seconds{database="main",kind="resync"}"#));
    assert!(success.is_some_and(|line| !line.ends_with(" 0")), "{success:?}");
    assert!(metrics.contains(r#"credkeeper_changes_total{change="pin_issued",database="main",outcome="applied",policy="visitors"} 0"#));
    let ended = daemon.stop();
    assert_eq!(ended.code, 0, "{}", ended.all());
    assert!(ended.stderr.contains("nothing is changed and no mail is sent"), "{}", ended.stderr);
    assert!(ended.stderr.contains("Policy visitors: a pass would make 20 PINs issued"), "{}", ended.stderr);

    let file = site.folder().join("observed.prom");
    let once = site.once(&["--format", "json", "--metrics-file", file.to_str().unwrap()]);
    assert_eq!(once.code, 0, "{}", once.all());
    let metrics = std::fs::read_to_string(file).unwrap();
    assert!(metrics.contains(r#"credkeeper_users{database="main",policy="visitors",state="due"} 20"#), "{metrics}");
    let report: serde_json::Value = serde_json::from_str(&once.stdout).unwrap();
    assert_eq!((&report["observe"], &report["dry_run"]), (&true.into(), &true.into()));
    assert!(site.once(&[]).stdout.contains("mode: observe: nothing was changed and no mail sent"));
    assert!(site.run(&["status"]).stdout.starts_with("MODE: OBSERVE"));
    assert!(site.run(&["doctor"]).stdout.contains("mode: observe"));

    assert_eq!(site.fingerprint().await, before, "something was written");
    assert_eq!(site.mails().len(), 0);
    assert!(!site.folder().join("journal.db").exists(), "not even a journal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pilot_is_served_and_all_others_are_held_back() {
    let site =
        Site::with_people(320).await.with_config(|yaml| format!("pilot: {{logins: [user16, user32], cost_center: [Needs PIN]}}\n{yaml}"));
    let pilot = "(login IN ('user16', 'user32') OR ou_id = 11)";
    let others = |what: &str| format!("SELECT count(*) FROM users u JOIN users_cards c ON c.user_id = u.id WHERE {what}");
    let before = site.rows(&format!("SELECT u.id::text, coalesce(string_agg(c.card, ',' ORDER BY c.id), '') FROM users u LEFT JOIN users_cards c ON c.user_id = u.id WHERE NOT {pilot} GROUP BY u.id ORDER BY u.id")).await;
    let named: Vec<String> =
        site.rows(&format!("SELECT id::text, '' FROM users WHERE {pilot}")).await.into_iter().map(|row| row.0).collect();
    let outside = site.run(&["explain", "user48"]);
    assert!(outside.stdout.contains("pilot        no") && outside.stdout.contains("held_back"), "{}", outside.all());
    assert!(site.run(&["explain", "user16"]).stdout.contains("pilot        yes"));
    assert!(site.run(&["status"]).stdout.starts_with("PILOT: "));

    let pass = site.once(&["--format", "json"]);
    assert_eq!(pass.code, 0, "held back is not failed: {}", pass.all());
    let report: serde_json::Value = serde_json::from_str(&pass.stdout).unwrap();
    let staff = &report["policies"][1];
    assert_eq!(staff["changes"]["pin_issued"]["applied"], 2, "{staff}");
    assert!(staff["skipped"]["held_back"].as_u64().unwrap() > 50, "{staff}");
    assert_eq!(report["policies"][0]["changes"]["pin_issued"]["applied"], 20);
    let ids = named.join(",");
    let after = site.rows(&format!("SELECT u.id::text, coalesce(string_agg(c.card, ',' ORDER BY c.id), '') FROM users u LEFT JOIN users_cards c ON c.user_id = u.id WHERE u.id NOT IN ({ids}) GROUP BY u.id ORDER BY u.id")).await;
    assert_eq!(after, before, "somebody outside of the pilot was touched");
    assert!(site.number(&others("login IN ('user16', 'user32')")).await >= 2);
    assert_eq!(site.mails().len(), 22);

    let site = site.with_config(|yaml| yaml.replace("cost_center: [Needs PIN]}", "cost_center: [Nowhere]}"));
    let missing = site.once(&[]);
    assert_eq!(missing.code, 3, "{}", missing.all());
    assert!(missing.stdout.contains("the pilot: there is no cost center “Nowhere”"), "{}", missing.all());
    let doctor = site.run(&["doctor"]);
    assert!(doctor.stdout.contains("the pilot names cost center “Nowhere”"), "{}", doctor.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowded_pin_space_refuses_new_pins_and_nothing_else() {
    let site = Site::with_people(320).await.with_config(|yaml| yaml.replacen("length: 6", "length: 3", 1));
    // A visitor who has a PIN needs only the move.
    site.add_visitor("has@visitors.example").await;
    site.sql("INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag) SELECT id, 'PIN' || md5('x'), 0, 0 FROM users WHERE login = 'has@visitors.example'").await;
    let metrics = site.folder().join("dense.prom");
    let pass = site.once(&["--format", "json", "--metrics-file", metrics.to_str().unwrap()]);
    assert_eq!(pass.code, 3, "{}", pass.all());
    let refusals = stops(&pass, "refusals", "limit");
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert_eq!(refusals[0].0, "pin_density");
    assert!(refusals[0].1.contains("of the 1000 PINs of its length"), "{}", refusals[0].1);
    let visitors = "SELECT count(*) FROM users u JOIN users_cards c ON c.user_id = u.id WHERE card LIKE 'PIN%' AND ou_id = 12 AND u.id % 16 = 12 AND login LIKE 'visitor%'";
    assert_eq!(site.number("SELECT count(*) FROM users WHERE ou_id = 12 AND login = 'has@visitors.example'").await, 1, "a move goes on");
    assert_eq!(site.number(visitors).await, 0);
    assert!(site.mails().iter().all(|mail| !mail.to.ends_with("@visitors.example")));
    assert!(!site.mails().is_empty(), "the other policies went on");
    let text = std::fs::read_to_string(metrics).unwrap();
    let ratio = text.lines().find_map(|l| l.strip_prefix(r#"credkeeper_pin_space_used_ratio{database="main",length="3"} "#)).unwrap();
    assert!(ratio.parse::<f64>().unwrap() > 0.1, "{ratio}");
    let plan = site.run(&["plan", "--exit-code"]);
    assert_eq!(plan.code, 3, "{}", plan.all());
    assert!(plan.stdout.contains("PIN space") && plan.stdout.contains("a longer pin.length"), "{}", plan.stdout);
    let doctor = site.run(&["doctor"]);
    assert!(
        doctor.stdout.lines().any(|l| l.starts_with("FAILED") && l.contains("PIN space") && l.contains("3 digits")),
        "{}",
        doctor.stdout
    );

    let site = site.with_config(|yaml| yaml.replacen("length: 3", "length: 3\n      allow_dense: true", 1));
    let allowed = site.once(&[]);
    assert_eq!(allowed.code, 0, "{}", allowed.all());
    assert_eq!(site.number(visitors).await, 20);
}

/// Waits until the daemon's page has this line.
async fn metric(site: &Site, daemon: &Process, line: &str) {
    daemon.until(Step::Ready).await;
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let metrics = site.http("/metrics").await;
        if metrics.lines().any(|l| l.strip_prefix("credkeeper_") == Some(line)) {
            return;
        }
        assert!(Instant::now() < until, "{line} is not in\n{metrics}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
