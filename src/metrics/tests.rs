use super::*;
use std::time::Duration;

use crate::plan::density::Density;
use crate::plan::tripwires::Stop;
use crate::report::samples::{changed, golden, preview, quiet, stopped, troubled};

const NOW: Timestamp = Timestamp(1_785_312_005);

fn metrics() -> Metrics {
    Metrics::new(Names {
        databases: &[NamesOf {
            database: "main".to_owned(),
            policies: vec![PolicyName("visitors".to_owned()), PolicyName("employees".to_owned())],
            lengths: vec![PinLength::new(4).unwrap(), PinLength::new(6).unwrap()],
            windows: vec![Duration::from_secs(86_400), Duration::from_secs(7 * 86_400)],
        }],
        error_classes: &["connect", "read"],
        journal_states: &["planned", "committed"],
    })
}

#[track_caller]
fn shows(metrics: &Metrics, lines: &[&str]) {
    let text = metrics.render(NOW);
    for line in lines {
        assert!(text.lines().any(|l| l.strip_prefix("credkeeper_") == Some(line)), "{line} is not in\n{text}");
    }
}

#[test]
fn everything_is_there_at_zero_from_the_start() {
    let text = metrics().render(NOW);
    let build = format!(r#"revision="{REVISION}",version="{}""#, env!("CARGO_PKG_VERSION"));
    golden("metrics/empty.prom", &text.replace(&build, r#"revision="R",version="V""#));
    for line in text.lines().filter(|l| !l.starts_with('#') && !l.contains("build_info")) {
        assert!(line.ends_with(" 0"), "{line}");
    }
}

#[test]
fn names_obey_the_rules_of_prometheus() {
    for family in metrics().registry.gather() {
        let name = family.name();
        let counts = family.get_field_type() == prometheus::proto::MetricType::COUNTER;
        assert_eq!(name.ends_with("_total"), counts, "{name}");
        assert!(name.starts_with("credkeeper_") && !family.help().is_empty(), "{name}");
    }
}

#[test]
fn the_manual_lists_what_is_exported_and_nothing_else() {
    let manual = include_str!("../../docs/manual.md");
    let table = manual.split("\n## Metrics").nth(1).unwrap().split("\nWhat is worth an alarm").next().unwrap();
    let mut listed: Vec<&str> = table.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()).collect();
    listed.sort_unstable();
    let exported: Vec<String> = metrics().registry.gather().iter().map(|f| f.name().replacen("credkeeper_", "", 1)).collect();
    assert_eq!(listed, exported);
    for alarm in manual.split("credkeeper_").skip(1) {
        let name = alarm.split(|c: char| c != '_' && !c.is_ascii_alphanumeric()).next().unwrap();
        assert!(name.is_empty() || listed.contains(&name), "{name}");
    }
}

#[test]
fn a_pass_in_hand_is_seen_to_take_long() {
    let m = metrics();
    m.pass_started("main", PassKind::Resync, Timestamp(NOW.0 - 90));
    shows(&m, &[r#"pass_unfinished_seconds{database="main"} 90"#]);
    m.pass(&quiet(), NOW);
    shows(
        &m,
        &[
            r#"pass_unfinished_seconds{database="main"} 0"#,
            r#"last_attempt_timestamp_seconds{database="main",kind="resync"} 1785311915"#,
            r#"last_success_timestamp_seconds{database="main",kind="resync"} 1785312005"#,
            r#"passes_total{database="main",kind="resync",outcome="unchanged"} 1"#,
            r#"pass_duration_seconds_sum{database="main",kind="resync",stage="read"} 1.24"#,
        ],
    );
}

#[test]
fn a_pass_moves_users_and_changes() {
    let m = metrics();
    m.pass(&changed(), NOW);
    shows(
        &m,
        &[
            r#"users{database="main",policy="",state="settled"} 9985"#,
            r#"users{database="main",policy="visitors",state="due"} 12"#,
            r#"users{database="main",policy="visitors",state="skipped"} 2"#,
            r#"users{database="main",policy="visitors",state="held"} 1"#,
            r#"users_skipped{database="main",policy="visitors",reason="delivery_pending"} 2"#,
            r#"changes_total{change="pin_issued",database="main",outcome="applied",policy="visitors"} 12"#,
            r#"changes_total{change="cost_center_moved",database="main",outcome="applied",policy="visitors"} 11"#,
        ],
    );
    // The next full pass finds them settled.
    m.pass(&quiet(), NOW);
    shows(&m, &[r#"users{database="main",policy="visitors",state="due"} 0"#, r#"users{database="main",policy="",state="settled"} 10000"#]);
}

#[test]
fn a_refusal_stays_visible_until_a_full_pass_is_free_of_it() {
    let m = metrics();
    let mut poll = quiet();
    (poll.kind, poll.counts) = (PassKind::Poll, None);
    m.pass(&troubled(), NOW);
    let stopped = r#"limit_stopped{database="main",limit="users_per_pass"} 1"#;
    shows(&m, &[stopped, r#"limit_stops_total{database="main",limit="users_per_pass"} 1"#, r#"pin_collisions_total{database="main"} 3"#]);
    m.pass(&poll, NOW);
    shows(&m, &[stopped]);
    m.pass(&quiet(), NOW);
    shows(&m, &[r#"limit_stopped{database="main",limit="users_per_pass"} 0"#, r#"recovered_total{database="main",outcome="resent"} 3"#]);
}

#[test]
fn a_tripwire_is_seen_until_it_has_been_judged_anew() {
    let m = metrics();
    let line = |limit: &str, n: u8| format!(r#"limit_stopped{{database="main",limit="{limit}"}} {n}"#);
    let mut poll = quiet();
    (poll.kind, poll.counts, poll.clock_skew) = (PassKind::Poll, None, Some(0));
    m.pass(&stopped(), NOW);
    shows(&m, &[&line("users_shrunk", 1), &line("clock_skew", 1), &line("read_only", 0), r#"clock_skew_seconds{database="main"} -75"#]);
    shows(&m, &[r#"limit_stops_total{database="main",limit="users_shrunk"} 1"#, r#"users{database="main",policy="",state="settled"} 0"#]);
    shows(&m, &[r#"passes_total{database="main",kind="once",outcome="refused"} 1"#]);
    // A poll asks for the time, not for the figures.
    m.pass(&poll, NOW);
    shows(&m, &[&line("users_shrunk", 1), &line("clock_skew", 0), r#"clock_skew_seconds{database="main"} 0"#]);
    m.pass(&quiet(), NOW);
    shows(&m, &[&line("users_shrunk", 0)]);

    let since = Timestamp(NOW.0 - 3_600);
    let (lasted, allowed) = (Duration::from_secs(3_600), Duration::from_secs(1_800));
    let mut waiting = poll.clone();
    waiting.stops.push(Stop::DeliveryDown { since, lasted, users: 1, allowed });
    m.pass(&waiting, NOW);
    m.pass(&poll, NOW);
    shows(&m, &[&line("delivery_down", 1)]);
    poll.delivery_judged = true;
    m.pass(&poll, NOW);
    shows(&m, &[&line("delivery_down", 0)]);
}

#[test]
fn the_pin_space_is_told_by_length() {
    let m = metrics();
    let mut full = quiet();
    let density = |length, stored| {
        let policy = full.policies[0].policy.clone();
        Density { policy, length: PinLength::new(length).unwrap(), stored, added: 9, allowed: false }
    };
    full.densities = vec![density(4, 250), density(6, 20_000)];
    m.pass(&full, NOW);
    shows(&m, &[r#"pin_space_used_ratio{database="main",length="4"} 0.025"#, r#"pin_space_used_ratio{database="main",length="6"} 0.02"#]);
}

#[test]
fn where_there_are_only_previews_they_count_as_alive() {
    let m = metrics();
    let mut observed = preview();
    (observed.kind, observed.observe) = (PassKind::Resync, true);
    m.pass(&observed, NOW);
    let success = r#"last_success_timestamp_seconds{database="main",kind="resync"} 1785312005"#;
    shows(&m, &[success, r#"passes_total{database="main",kind="resync",outcome="changed"} 0"#]);
}

#[test]
fn a_failed_pass_is_an_attempt_and_no_success() {
    let m = metrics();
    let mut failed = quiet();
    failed.error = Some("the database went away".to_owned());
    m.pass_started("main", PassKind::Resync, NOW);
    m.pass(&failed, NOW);
    shows(
        &m,
        &[
            r#"passes_total{database="main",kind="resync",outcome="failed"} 1"#,
            r#"last_success_timestamp_seconds{database="main",kind="resync"} 0"#,
            r#"last_attempt_timestamp_seconds{database="main",kind="resync"} 1785312005"#,
            r#"users{database="main",policy="",state="settled"} 0"#,
        ],
    );
}

#[test]
fn a_preview_counts_users_and_no_changes() {
    let m = metrics();
    m.pass(&preview(), NOW);
    shows(
        &m,
        &[
            r#"users{database="main",policy="visitors",state="due"} 12"#,
            r#"passes_total{database="main",kind="once",outcome="changed"} 0"#,
            r#"changes_total{change="pin_issued",database="main",outcome="applied",policy="visitors"} 0"#,
        ],
    );
}

#[test]
fn mails_the_journal_and_errors_are_counted() {
    let m = metrics();
    m.mail(MailOutcome::Accepted, 0.2);
    m.mail(MailOutcome::Deferred, 0.3);
    m.delivered("main", &PolicyName("visitors".to_owned()), 4.0);
    m.journal("main", &[("planned", 1), ("committed", 7)], Some(Timestamp(1_785_000_000)), 2);
    m.journal_write_error();
    m.database_error("main", "connect");
    m.leader("main", true);
    m.insecure(Insecure::MailPlaintext, true);
    shows(
        &m,
        &[
            r#"mails_total{outcome="accepted"} 1"#,
            r#"mails_total{outcome="deferred"} 1"#,
            "mail_duration_seconds_count 2",
            r#"delivery_seconds_bucket{database="main",policy="visitors",le="5"} 1"#,
            r#"journal_entries{database="main",state="committed"} 7"#,
            r#"journal_oldest_timestamp_seconds{database="main"} 1785000000"#,
            r#"plans_waiting_approval{database="main"} 2"#,
            "journal_write_errors_total 1",
            r#"database_errors_total{class="connect",database="main"} 1"#,
            r#"leader{database="main"} 1"#,
            r#"config_insecure{what="mail_plaintext"} 1"#,
        ],
    );
}

#[test]
fn under_other_names_what_counts_goes_on_and_what_is_gone_is_not_told() {
    let m = metrics();
    m.pass_started("main", PassKind::Resync, NOW);
    m.pass(&changed(), NOW);
    m.leader("main", true);
    m.config_read(NOW);
    let counted = |m: &Metrics| -> Vec<String> {
        let total = |line: &&str| line.contains("_total{") && line.contains("main");
        m.render(NOW).lines().filter(total).map(str::to_owned).collect()
    };
    let before = counted(&m);
    let named = |database: &str, policy: &str| NamesOf {
        database: database.to_owned(),
        policies: vec![PolicyName(policy.to_owned())],
        lengths: vec![PinLength::new(8).unwrap()],
        windows: vec![],
    };
    let renew = |databases: &[NamesOf]| {
        m.renew(Names { databases, error_classes: &["connect", "read"], journal_states: &["planned", "committed"] })
    };
    renew(&[named("main", "visitors"), named("branch", "guests")]);
    let after = counted(&m);
    assert!(before.iter().all(|line| after.contains(line)), "{before:#?}\n{after:#?}");
    shows(
        &m,
        &[
            r#"leader{database="main"} 1"#,
            r#"leader{database="branch"} 0"#,
            r#"changes_total{change="pin_issued",database="branch",outcome="applied",policy="guests"} 0"#,
            r#"pin_space_used_ratio{database="main",length="8"} 0"#,
            "config_reload_success 1",
            "config_reload_timestamp_seconds 1785312005",
        ],
    );
    let text = m.render(NOW);
    assert!(
        !text.contains(r#"policy="employees",state"#) && !text.contains(r#"pin_space_used_ratio{database="main",length="4"}"#),
        "{text}"
    );
    assert!(text.contains(r#"users{database="main",policy="",state="settled"}"#), "{text}");
    renew(&[named("branch", "guests")]);
    m.config_refused();
    let text = m.render(NOW);
    let gauges = [
        "leader",
        "users",
        "last_attempt_timestamp_seconds",
        "pass_unfinished_seconds",
        "journal_entries",
        "limit_stopped",
        "plans_waiting_approval",
        "clock_skew_seconds",
    ];
    for gauge in gauges {
        assert!(!text.contains(&format!("credkeeper_{gauge}{{database=\"main\"")), "{gauge} in\n{text}");
        assert!(text.contains(&format!("credkeeper_{gauge}{{database=\"branch\"")), "{gauge} not in\n{text}");
    }
    assert!(before.iter().all(|line| counted(&m).contains(line)));
    shows(&m, &["config_reload_success 0"]);
}

#[test]
fn the_log_is_asked_for_what_it_lost() {
    let m = metrics();
    m.watch_log(|| [("stderr", 0), ("file", 7), ("remote", 0)]);
    for _ in 0..2 {
        shows(&m, &[r#"log_lines_dropped_total{sink="file"} 7"#, r#"log_lines_dropped_total{sink="stderr"} 0"#]);
    }
    assert_eq!(crate::logging::dropped().map(|(sink, _)| sink), LOG_SINKS);
}

#[test]
fn a_hostile_database_name_cannot_break_out_of_its_label() {
    let hostile = NamesOf { database: "a\"b\\c\nd".to_owned(), policies: vec![], lengths: vec![], windows: vec![] };
    let m = Metrics::new(Names { databases: &[hostile], error_classes: &[], journal_states: &[] });
    shows(&m, &[r#"leader{database="a\"b\\c\nd"} 0"#]);
}

#[test]
fn a_metrics_file_is_replaced_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("credkeeper.prom");
    std::fs::write(&path, "old").unwrap();
    metrics().write_file(&path, NOW).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), metrics().render(NOW));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    let error = metrics().write_file(&dir.path().join("no/such/folder.prom"), NOW).unwrap_err();
    assert_eq!(error.kind(), "metrics_file");
}
