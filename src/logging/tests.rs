use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Value, json};
use tracing::{Level, debug, error, info, info_span, trace, warn};

use super::*;
use crate::domain::printable::is_unprintable;

fn everywhere(level: Level) -> Levels {
    Levels { default: level, rooms: BTreeMap::new() }
}

fn logged_at(levels: &Levels, style: Style, work: impl FnOnce()) -> Vec<String> {
    logged_with(levels, style, |_| work())
}

fn logged_with(levels: &Levels, style: Style, work: impl FnOnce(&Volume)) -> Vec<String> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&lines);
    let take = Box::new(move |line| into.lock().unwrap().push(line));
    let output = Output { render: Arc::new(move |line: &Line<'_>| line.render(style)), take };
    let (subscriber, volume) = subscriber(levels, vec![output]);
    tracing::subscriber::with_default(subscriber, || work(&volume));
    let lines = lines.lock().unwrap();
    lines.clone()
}

fn logged(level: Level, style: Style, work: impl FnOnce()) -> Vec<String> {
    logged_at(&everywhere(level), style, work)
}

/// The line without its time, which is checked on the way.
fn after_time(line: &str) -> &str {
    let (time, rest) = line.split_at(24);
    assert!(time.ends_with('Z') && chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{line}");
    rest
}

fn parsed(line: &str) -> Value {
    let mut value: Value = serde_json::from_str(line).expect(line);
    let time = value.as_object_mut().and_then(|o| o.remove("time")).expect("a time");
    assert!(chrono::DateTime::parse_from_rfc3339(time.as_str().unwrap()).is_ok(), "{line}");
    value
}

const HOSTILE: &str = "x\n2026-01-01T00:00:00.000Z  INFO credkeeper: all is well\u{1b}[2J\u{9b}1m\u{202e}\u{7f}\"=";

#[test]
fn a_line_reads_alone_and_carries_its_fields() {
    let lines = logged(Level::INFO, Style::Plain, || {
        let _pass = info_span!("pass", pass.id = "5f1c", database = "main").entered();
        info!(user.id = 7, reason = "pin_missing", note = "two words", share = 0.5, done = true, "Issued PIN for user 7");
    });
    assert_eq!(lines.len(), 1);
    let want = "  INFO credkeeper::logging::tests: Issued PIN for user 7 pass.id=5f1c database=main user.id=7 reason=pin_missing note=\"two words\" share=0.5 done=true\n";
    assert_eq!(after_time(&lines[0]), want);
}

#[test]
fn the_volume_is_turned_up_and_down_while_it_runs() {
    let said = |n: u32| debug!("heard {n}");
    let lines = logged_with(&everywhere(Level::INFO), Style::Plain, |volume| {
        said(1);
        volume.set(&Levels { default: Level::ERROR, rooms: [("logging".to_owned(), Level::DEBUG)].into() });
        said(2);
        volume.set(&everywhere(Level::WARN));
        said(3);
        info!("neither this");
        volume.set(&everywhere(Level::TRACE));
        said(4);
    });
    let heard: Vec<&str> = lines.iter().map(|line| line.trim_end().rsplit(": ").next().unwrap()).collect();
    assert_eq!(heard, ["heard 2", "heard 4"]);
}

#[test]
fn json_holds_the_same() {
    let lines = logged(Level::INFO, Style::Json, || {
        let pass = info_span!("pass", pass.id = "5f1c", outcome = tracing::field::Empty).entered();
        pass.record("outcome", "changed");
        warn!(user.id = -7_i64, time = "odd", pass.id = "own", "Say \"what\"");
    });
    let want = json!({
        "level": "warn", "target": "credkeeper::logging::tests", "message": "Say \"what\"",
        "pass.id": "own", "outcome": "changed", "user.id": -7, "field.time": "odd",
    });
    assert_eq!(parsed(&lines[0]), want);
}

#[test]
fn what_others_wrote_can_neither_forge_a_line_nor_command_a_terminal() {
    for style in [Style::Plain, Style::Json] {
        let lines = logged(Level::INFO, style, || {
            let _span = info_span!("pass", login = HOSTILE, shown = %HOSTILE).entered();
            info!(login = HOSTILE, display = %HOSTILE, debug = ?HOSTILE, error = &std::io::Error::other(HOSTILE) as &dyn Error, "{HOSTILE}");
        });
        assert_eq!(lines.len(), 1);
        let line = lines[0].strip_suffix('\n').expect("ended");
        assert!(!line.contains(is_unprintable), "{line:?}");
        if style == Style::Json {
            assert_eq!(parsed(line)["display"], HOSTILE);
            assert_eq!(parsed(line)["message"], HOSTILE);
        } else {
            assert!(
                line.contains(r#"display="x\n2026-01-01T00:00:00.000Z  INFO credkeeper: all is well\u{1b}[2J\u{9b}1m\u{202e}\u{7f}\"=""#),
                "{line}"
            );
        }
    }
}

#[test]
fn other_crates_never_speak_below_warn() {
    let lines = logged(Level::TRACE, Style::Plain, || {
        debug!(target: "lettre::transport", "AUTH PLAIN c2VjcmV0");
        info!(target: "tokio_postgres", "password=secret");
        warn!(target: "hyper", "audible");
        debug!("ours");
    });
    assert!(lines.len() == 2 && lines[0].contains("audible") && lines[1].contains("ours"), "{lines:?}");
    let lines = logged(Level::ERROR, Style::Plain, || {
        warn!(target: "hyper", "quiet");
        warn!("quiet");
        error!("audible");
    });
    assert_eq!(lines.len(), 1);
}

#[test]
fn each_room_has_its_own_level() {
    let rooms = [("mail", Level::DEBUG), ("store", Level::ERROR)];
    let levels = Levels { default: Level::INFO, rooms: rooms.map(|(room, level)| (room.to_owned(), level)).into() };
    let lines = logged_at(&levels, Style::Plain, || {
        debug!(target: "credkeeper::mail::courier", "heard");
        debug!(target: "credkeeper::mail", "heard");
        trace!(target: "credkeeper::mail", "silent");
        debug!(target: "credkeeper::mailbox", "silent");
        warn!(target: "credkeeper::store", "silent");
        error!(target: "credkeeper::store::sql", "heard");
        info!(target: "credkeeper::plan", "heard");
        debug!(target: "credkeeper::plan", "silent");
        info!(target: "credkeeper", "heard");
        debug!(target: "mail", "silent");
        warn!(target: "rustls::mail", "heard");
    });
    assert_eq!(lines.len(), 6, "{lines:?}");
    assert!(lines.iter().all(|line| line.contains("heard")), "{lines:?}");
    let quiet = Levels { default: Level::ERROR, rooms: [("mail".to_owned(), Level::TRACE)].into() };
    let lines = logged_at(&quiet, Style::Plain, || {
        info!(target: "lettre", "silent");
        warn!(target: "lettre", "silent");
        trace!(target: "credkeeper::mail", "heard");
    });
    assert!(lines.len() == 1 && lines[0].contains("heard"), "{lines:?}");
}

#[test]
fn colours_are_ours_alone() {
    let lines = logged(Level::INFO, Style::Coloured, || error!(login = "a\u{1b}[31m", "Text"));
    assert_eq!(lines[0].matches('\u{1b}').count(), lines[0].matches("\u{1b}[").count());
    assert!(lines[0].contains("\u{1b}[31mERROR\u{1b}[0m") && lines[0].contains(r#""a\u{1b}[31m""#), "{lines:?}");
}

#[test]
fn an_error_is_told_with_its_causes() {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the journal")]
    struct Open(#[source] std::io::Error);
    let error = Open(std::io::Error::other("no space left"));
    assert_eq!(chain(&error), "cannot open the journal: no space left");
    let lines = logged(Level::INFO, Style::Json, || error!(error = &error as &dyn Error, "Stopped"));
    assert_eq!(parsed(&lines[0])["error"], "cannot open the journal: no space left");
}
