//! The standard error as a sink: a terminal with colours, a pipe, or systemd's journal, whose lines carry their level.

use std::ffi::OsStr;
use std::io::{IsTerminal, stderr};

use tracing::Level;

use super::line::{Line, Style};

/// How lines look there.
pub(super) fn render(json: bool) -> super::Render {
    let style = match (json, colours()) {
        (true, _) => Style::Json,
        (false, true) => Style::Coloured,
        (false, false) => Style::Plain,
    };
    match is_journal(std::env::var_os("JOURNAL_STREAM").as_deref()) {
        true => std::sync::Arc::new(move |line: &Line<'_>| format!("<{}>{}", severity(line.level), line.render(style))),
        false => std::sync::Arc::new(move |line: &Line<'_>| line.render(style)),
    }
}

/// The levels of syslog, which the journal has too.
pub(super) fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// On a terminal that takes them, unless `NO_COLOR` is set (<https://no-color.org>).
fn colours() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    // The old Windows console shows escape sequences as rubbish; the newer terminals announce themselves.
    let takes_them = !cfg!(windows) || set("WT_SESSION") || set("TERM");
    stderr().is_terminal() && !set("NO_COLOR") && !dumb && takes_them
}

/// Whether the standard error is the stream that systemd named: `DEVICE:INODE`. A process below one of systemd's inherits
/// the variable, but its standard error may go elsewhere.
#[cfg(unix)]
fn is_journal(stream: Option<&OsStr>) -> bool {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    let here = || stderr().as_fd().try_clone_to_owned().and_then(|owned| File::from(owned).metadata()).ok();
    let Some((device, inode)) = stream.and_then(OsStr::to_str).and_then(|stream| stream.split_once(':')) else { return false };
    here().is_some_and(|here| device.parse() == Ok(here.dev()) && inode.parse() == Ok(here.ino()))
}

#[cfg(not(unix))]
fn is_journal(_stream: Option<&OsStr>) -> bool {
    false
}
