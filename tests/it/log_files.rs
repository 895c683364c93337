//! Where the log goes: files that rotate, files that fail, and systemd's journal.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::bounded::{until, wait};
use crate::site::{Site, Step};

/// The lines of all files of the log, the oldest first, each of which must be a whole one.
fn lines(folder: &Path) -> Vec<Value> {
    let mut files: Vec<(u32, String)> = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if let Some(number) = name.strip_prefix("credkeeper.log") {
            let number = if number.is_empty() { 0 } else { number[1..].parse().unwrap() };
            files.push((number, std::fs::read_to_string(&path).unwrap()));
        }
    }
    files.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    let whole = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    files.iter().flat_map(|(_, text)| text.lines().map(whole)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemons_log_goes_to_files_of_bounded_size_and_not_a_line_is_lost() {
    let site = Site::with_people(1_600).await.with_config(|yaml| {
        yaml.replace(
            "level: info",
            "level: debug, store=trace\n  format: json\n  file: {path: credkeeper.log, max_size: 64KiB, backups: 500}",
        )
    });
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    site.add_visitor("late@visitors.example").await;
    site.mail_to("late@visitors.example", Duration::from_secs(30)).await;
    let metrics = site.http("/metrics").await;
    let ended = daemon.stop();
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "the file stands in the place of the standard error");
    assert!(metrics.contains("credkeeper_log_lines_dropped_total{sink=\"file\"} 0"));
    let issued =
        lines(site.folder()).iter().filter(|line| line["change.kind"].as_str().is_some_and(|kind| kind.contains("pin_issued"))).count();
    assert_eq!(issued, site.mails().len());
    let stopping = lines(site.folder()).iter().any(|line| line["message"].as_str().unwrap().starts_with("Stopping on SIGTERM"));
    assert!(stopping, "what is logged last is written too");
    assert!(site.folder().join("credkeeper.log.3").exists(), "it has rotated");
    for entry in std::fs::read_dir(site.folder()).unwrap().map(Result::unwrap) {
        let is_log = entry.file_name().to_string_lossy().starts_with("credkeeper.log");
        assert!(!is_log || entry.metadata().unwrap().len() <= 65_536, "{:?}", entry.file_name());
    }

    // A pass that a person or a scheduler runs is told to both; a command that looks touches no file.
    let before = lines(site.folder()).len();
    assert_eq!(site.run(&["plan"]).code, 0);
    assert_eq!(lines(site.folder()).len(), before);
    let pass = site.once(&[]);
    assert_eq!(pass.code, 0, "{}", pass.all());
    let written = &lines(site.folder())[before..];
    assert!(!written.is_empty() && pass.stderr.lines().count() == written.len(), "{written:?}\n{}", pass.all());
}

/// `/dev/full` is a disk without room.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_lines_and_nothing_else() {
    let site = Site::with_people(160).await.with_config(|yaml| {
        yaml.replace("level: info", "level: info\n  format: json\n  file: {path: credkeeper.log}").replace("poll: 5s", "poll: 1s")
    });
    let log = site.folder().join("credkeeper.log");
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    site.add_visitor("first@visitors.example").await;
    site.mail_to("first@visitors.example", Duration::from_secs(30)).await;
    let metrics = site.http("/metrics").await;
    let dropped = metrics.lines().find_map(|line| line.strip_prefix("credkeeper_log_lines_dropped_total{sink=\"file\"} ")).unwrap();
    let dropped: u64 = dropped.parse().unwrap();
    assert!(dropped > 70, "{dropped}");

    std::fs::remove_file(&log).unwrap(); // somebody makes room
    site.add_visitor("second@visitors.example").await;
    site.mail_to("second@visitors.example", Duration::from_secs(30)).await;
    let told = || lines(site.folder()).iter().filter_map(|line| line["lines"].as_u64()).collect::<Vec<_>>();
    until("what was lost is told", Duration::from_secs(30), async || log.exists() && !told().is_empty()).await;
    let ended = daemon.stop();
    assert_eq!(ended.code, 0, "{}", ended.all());
    assert!(told().len() == 1 && told()[0] >= dropped, "{:?} of {dropped}", told());
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("Cannot write the log file") && ended.stderr.contains("No space left"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_the_daemon_from_starting_is_told_on_the_standard_error() {
    let log_to = |path: &'static str| move |yaml: String| yaml.replace("level: info", &format!("level: info\n  file: {{path: {path}}}"));
    let site = Site::with_people(16).await.with_config(log_to("absent/credkeeper.log"));
    let ended = site.run(&[]);
    assert_eq!(ended.code, 1, "{}", ended.all());
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    let path = site.folder().join("absent/credkeeper.log");
    for part in [path.to_str().unwrap(), "log.file.path", "its folder must exist"] {
        assert!(ended.stderr.contains(part), "{part} in {}", ended.stderr);
    }
    // A journal that cannot be used: the log works, and still whoever started the daemon sees why it ended.
    let site = Site::with_people(16).await.with_config(log_to("credkeeper.log"));
    std::fs::create_dir(site.folder().join("journal.db")).unwrap();
    let ended = site.run(&[]);
    let log = std::fs::read_to_string(site.folder().join("credkeeper.log")).unwrap();
    assert_eq!(ended.code, 1, "{}", ended.all());
    assert!(ended.stderr.contains("the journal cannot be used") && log.contains("the journal cannot be used"), "{} {log}", ended.all());
}

/// systemd connects the standard error to a stream socket and names it; a shell may have sent it elsewhere since.
#[cfg(unix)]
#[test]
fn lines_for_the_journal_carry_their_level() {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    let folder = tempfile::tempdir().unwrap();
    let sandbox = credkeeper::sandbox::create(&folder.path().join("sandbox"), 20).unwrap();
    // A rehearsal is warned of at each start.
    let yaml = std::fs::read_to_string(&sandbox.config).unwrap();
    std::fs::write(&sandbox.config, yaml.replacen("\nmail:\n", "\nmail:\n  redirect_to: rehearsal@example.com\n", 1)).unwrap();
    let logged = |named_right: bool| {
        let (mut journal, ours) = UnixStream::pair().unwrap();
        let meta = std::fs::File::from(OwnedFd::from(ours.try_clone().unwrap())).metadata().unwrap();
        let name = format!("{}:{}", meta.dev(), meta.ino() + u64::from(!named_right));
        let mut child = Command::new(env!("CARGO_BIN_EXE_credkeeper"))
            .args(["--once", "--config"])
            .arg(&sandbox.config)
            .env("JOURNAL_STREAM", name)
            .stdout(Stdio::null())
            .stderr(OwnedFd::from(ours))
            .spawn()
            .unwrap();
        let mut text = String::new();
        journal.read_to_string(&mut text).unwrap();
        assert!(matches!(wait(&mut child).code(), Some(0 | 4)), "{text}");
        text
    };
    let journal = logged(true);
    let level = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    assert!(journal.lines().count() > 1, "{journal}");
    for line in journal.lines() {
        let wanted = match level(line).as_deref() {
            Some("ERROR") => "<3>2",
            Some("WARN") => "<4>2",
            Some("INFO") => "<6>2",
            _ => panic!("{line}"),
        };
        assert!(line.starts_with(wanted) && !line.contains('\u{1b}'), "{line}");
    }
    assert!(journal.contains("<4>") && journal.contains("<6>"), "{journal}");
    let elsewhere = logged(false);
    assert!(!elsewhere.is_empty() && elsewhere.lines().all(|line| line.starts_with("20")), "{elsewhere}");
}
