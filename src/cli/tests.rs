use super::*;

fn parse(line: &str) -> Result<Cli, Stop> {
    parse_from(std::iter::once("credkeeper").chain(line.split_whitespace()))
}

fn mode(line: &str) -> Mode {
    parse(line).unwrap_or_else(|e| panic!("{line}: {}", e.0)).mode
}

fn complaint(line: &str) -> String {
    let stop = parse(line).expect_err(line);
    assert_eq!(stop.status(), ExitStatus::Usage, "{line}");
    stop.0.to_string()
}

#[test]
fn the_definition_is_consistent() {
    RawCli::command().debug_assert();
}

#[test]
fn without_arguments_it_is_the_daemon() {
    assert_eq!(parse("").unwrap(), Cli { config: "config.yaml".into(), database: None, mode: Mode::Daemon });
}

#[test]
fn the_configuration_file_may_be_named_before_or_after_a_command() {
    for line in ["--config x.yaml doctor", "doctor --config x.yaml"] {
        assert_eq!(parse(line).unwrap(), Cli { config: "x.yaml".into(), database: None, mode: Mode::Doctor { mail_test: None } }, "{line}");
    }
}

#[test]
fn doctor_may_send_a_mail_to_try() {
    let to = Mailbox::parse("admin@example.com").unwrap();
    assert_eq!(mode("doctor --mail-test admin@example.com"), Mode::Doctor { mail_test: Some(to) });
    assert!(complaint("doctor --mail-test admin").contains("the mail address has no @"));
}

#[test]
fn doctor_may_prove_the_cipher_of_codes_and_takes_no_code_as_an_argument() {
    assert_eq!(mode("doctor --cac-pair"), Mode::CacPair);
    assert!(complaint("doctor --cac-pair 004711").contains("unexpected argument"));
    assert!(complaint("doctor --cac-pair=004711").contains("unexpected value"));
    assert!(complaint("doctor --cac-pair --mail-test a@example.com").contains("cannot be used with"));
}

/// What is sealed would stand in the history of the shell, and every account could see it.
#[test]
fn a_secret_is_no_argument() {
    assert_eq!(mode("seal"), Mode::Seal);
    assert!(complaint("seal S3cret").contains("unexpected argument"));
}

#[test]
fn a_user_is_held_and_released_by_login() {
    let bob = || "bob".to_owned();
    assert_eq!(mode("hold bob"), Mode::Operate(Request::Hold { login: bob() }));
    assert_eq!(mode("resend bob --database main"), Mode::Operate(Request::Resend { login: bob() }));
    assert_eq!(mode("release bob"), Mode::Operate(Request::Release { login: bob() }));
    assert_eq!(mode("release --pass p1"), Mode::Operate(Request::ReleaseAll { pass: "p1".into() }));
    assert_eq!(mode("revoke bob"), Mode::Operate(Request::Revoke { login: bob() }));
    assert_eq!(mode("undo p1"), Mode::Operate(Request::Undo { pass: "p1".into() }));
    assert_eq!(mode("undo p1 --dry-run"), Mode::Preview(Request::Undo { pass: "p1".into() }));
    assert_eq!(mode("approve 0123456789ab"), Mode::Operate(Request::Approve { plan: "0123456789ab".into() }));
    assert_eq!(mode("journal retry"), Mode::Operate(Request::Retry { issuance: None }));
    assert_eq!(mode("journal take-back 7"), Mode::Operate(Request::TakeBack { issuance: 7 }));
    assert!(complaint("release").contains("<LOGIN>"));
    assert!(complaint("release bob --pass p1").contains("cannot be used with"));
    assert!(complaint("hold").contains("<LOGIN>"));
}

#[test]
fn plan_is_a_dry_pass() {
    assert_eq!(mode("plan --exit-code --user bob"), mode("--once --dry-run --exit-code --user bob"));
    assert_eq!(mode("plan"), Mode::Once(Once { dry_run: true, ..Once::default() }));
}

#[test]
fn options_of_a_pass_are_read() {
    let want = Once {
        user: Some("bob".into()),
        wait: Some(Duration::from_secs(30)),
        max_users: Some(Limit::At(5000)),
        max_replace: Share::percent(12.5).map(Limit::At),
        report: Some("out.json".into()),
        format: Format::Json,
        metrics_file: Some("ck.prom".into()),
        ..Once::default()
    };
    let line = "--once --user bob --wait 30s --max-users 5000 --max-replace 12.5% --report out.json --format json --metrics-file ck.prom";
    assert_eq!(mode(line), Mode::Once(want));
    let lifted = Once { max_users: Some(Limit::Unlimited), max_replace: Some(Limit::Unlimited), ..Once::default() };
    assert_eq!(mode("--once --max-users unlimited --max-replace unlimited"), Mode::Once(lifted));
}

#[test]
fn an_option_of_a_pass_without_a_pass_is_wrong_usage() {
    for option in [
        "--dry-run",
        "--user bob",
        "--wait 3s",
        "--max-users 3",
        "--max-replace 3%",
        "--report a.json",
        "--format text",
        "--metrics-file a.prom",
        "--exit-code",
    ] {
        assert!(complaint(option).contains("needs --once"), "{option}");
        assert!(complaint(&format!("{option} doctor")).contains("before a command"), "{option}");
    }
    assert!(complaint("--once plan").contains("before a command"));
}

#[test]
fn what_cannot_be_meant_is_refused_with_advice() {
    for (line, advice) in [
        ("--once --wait 3s", "--wait needs --user"),
        ("--once --exit-code", "--exit-code needs --dry-run"),
        ("--once --user bob --wait 30", "such as 500ms"),
        ("--once --user bob --wait 99999999999999999999d", "such as 500ms"),
        ("--once --max-users many", "`unlimited`"),
        ("--once --max-replace 5", "percent sign"),
        ("--once --max-replace 101%", "percent sign"),
        ("--once --report a.html", "not yet supported"),
        ("--once --report a.csv", "not yet supported"),
        ("--once --report a", "must end in .json"),
        ("--once --metrics-file a.txt", "must end in .prom"),
        ("--onse", "--once"),
        ("grants", "unrecognized subcommand"),
        ("sandbox x --users 0", "1..=1000000"),
    ] {
        let said = complaint(line);
        assert!(said.contains(advice), "{line}: {said}");
    }
}

#[test]
fn help_and_version_are_no_failure() {
    for line in ["--help", "-h", "--version", "plan --help", "journal list --help"] {
        assert_eq!(parse(line).expect_err(line).status(), ExitStatus::Done, "{line}");
    }
    let help = parse("--help").unwrap_err().0.to_string();
    for exit in ["   0  ", "   1  ", "   2  ", "   3  ", "   4  ", "  64  ", "  75  "] {
        assert!(help.contains(&format!("\n{exit}")), "{exit}");
    }
}

#[test]
fn commands_of_later_versions_are_not_offered() {
    let help = parse("--help").unwrap_err().0.to_string();
    for absent in ["grants", "setup", "import-ini", "export", "forget"] {
        assert!(!help.contains(&format!("\n  {absent}")), "{absent}");
    }
}

#[test]
fn the_manual_tells_of_every_command_option_and_exit_code() {
    let manual = include_str!("../../docs/manual.md");
    let command = RawCli::command();
    for name in command.get_subcommands().map(clap::Command::get_name) {
        assert!(manual.contains(&format!("`credkeeper {name}")), "{name}");
    }
    for option in command.get_arguments().filter_map(clap::Arg::get_long) {
        assert!(manual.contains(&format!("`--{option}")) || manual.contains(&format!("credkeeper --{option}")), "{option}");
    }
    for line in super::args::EXIT_CODES.lines().skip(1) {
        let code = line.split_whitespace().next().unwrap_or_default();
        assert!(manual.contains(&format!("\n| {code} | ")), "{code}");
    }
}

#[test]
fn the_worst_database_decides() {
    use ExitStatus::{Done, Failed, Locked, Partial, Pending, Refused};
    assert_eq!(ExitStatus::worst([]), Done);
    let from_worst = [Failed, Refused, Locked, Partial, Pending, Done];
    for (i, worse) in from_worst.iter().enumerate() {
        for better in &from_worst[i..] {
            assert_eq!(ExitStatus::worst([*better, *worse]), *worse);
            assert_eq!(ExitStatus::worst([*worse, *better]), *worse);
        }
    }
}

#[test]
fn a_pass_is_told_by_its_exit_code() {
    use crate::domain::{CostCenterRef, Timestamp};
    use crate::plan::tripwires::Stop;
    use crate::report::samples::{changed, preview, quiet, stopped, troubled};
    assert_eq!(ExitStatus::of(&quiet(), false), ExitStatus::Done);
    assert_eq!(ExitStatus::of(&changed(), false), ExitStatus::Done);
    assert_eq!(ExitStatus::of(&preview(), false), ExitStatus::Done);
    assert_eq!(ExitStatus::of(&preview(), true), ExitStatus::Pending);
    assert_eq!(ExitStatus::of(&troubled(), false), ExitStatus::Refused);
    // A tripwire refuses a pass and its preview; with --exit-code too, since 3 is worse than 2.
    assert_eq!(ExitStatus::of(&stopped(), false), ExitStatus::Refused);
    let mut tripped = preview();
    tripped.stops = stopped().stops;
    for pending in [false, true] {
        assert_eq!(ExitStatus::of(&tripped, pending), ExitStatus::Refused);
    }
    let mut undelivered = changed();
    let (since, span) = (Timestamp(0), Duration::from_secs(3_600));
    undelivered.stops = vec![Stop::DeliveryDown { since, lasted: span, users: 3, allowed: span }];
    undelivered.mail.waiting = 5;
    assert_eq!(ExitStatus::of(&undelivered, false), ExitStatus::Refused, "3 is worse than 4");
    let mut pilot = preview();
    pilot.pilot_missing = vec![CostCenterRef::Number(9)];
    assert_eq!(ExitStatus::of(&pilot, true), ExitStatus::Refused);
    tripped.error = Some("the database went away".to_owned());
    assert_eq!(ExitStatus::of(&tripped, true), ExitStatus::Failed, "1 is worse than 3");
    // A quiet preview has nothing pending, and whoever is only skipped is not pending either.
    let mut nothing = quiet();
    nothing.dry_run = true;
    nothing.policies[0].skipped.insert(crate::plan::Skip::HeldBack, 7);
    assert_eq!(ExitStatus::of(&nothing, true), ExitStatus::Done);
    let mut waiting = changed();
    waiting.mail.waiting = 1;
    assert_eq!(ExitStatus::of(&waiting, false), ExitStatus::Partial);
    waiting.error = Some("the database went away".to_owned());
    assert_eq!(ExitStatus::of(&waiting, false), ExitStatus::Failed);
}

#[test]
fn every_shell_gets_a_completion_script() {
    for shell in Shell::value_variants() {
        let script = String::from_utf8(completions(*shell)).expect("text");
        assert!(script.contains("check-config"), "{shell}");
    }
}
