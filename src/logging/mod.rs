//! The log: lines for a person or as JSON, on the standard error, in a file, or to a log server.
//!
//! Three promises, each kept here and nowhere else. What others wrote cannot forge a line or command a terminal: every
//! value passes `line`. Other people's crates speak at `warn` and above only, whatever the configured level: at `debug`
//! a mail or database client prints what it sends. An error is logged with its whole chain of causes, once.
//!
//! A service has a queue and a thread for each sink, so that none can hold up its work; a command that a person watches
//! writes to the standard error itself, so that its lines stand where they belong between its output. The file takes the
//! place of the standard error of the daemon; a `--once` writes to both, because it is watched, and changes things. A
//! command that only looks writes to no file: it may run under another account, whose file the daemon could not open.
//!
//! The levels come from the configuration alone. `RUST_LOG` is not obeyed: an inherited variable must not open the log of
//! a service.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{FilterFn, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;

use crate::config::{Levels, LogConfig, LogFile, LogServer};

mod file;
mod layer;
mod line;
mod progress;
mod queue;
mod remote;
mod stderr;
mod syslog;
#[cfg(test)]
mod tests;

use file::RotatingFile;
use layer::{LineLayer, Output};
use line::{Line, Style};
pub use progress::Progress;
use queue::{Queue, Sink};
use remote::Remote;
use syslog::Syslog;

/// How an event looks at one sink, its line break included.
type Render = Arc<dyn Fn(&Line<'_>) -> String + Send + Sync>;

/// Who is about to write the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Daemon,
    /// A pass that changes things, watched or started by a scheduler.
    Pass,
    /// A command that only looks.
    Command,
}

/// What can go wrong with the log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error("the log is already set up")]
    Init { source: tracing::subscriber::SetGlobalDefaultError },
    #[error(
        "cannot open the log file {} (log.file.path): its folder must exist, and this account must be allowed to write there",
        path.display()
    )]
    File { path: PathBuf, source: io::Error },
    #[error("cannot start a thread for the log")]
    Thread { source: io::Error },
}

impl LoggingError {
    pub fn kind(&self) -> &'static str {
        match self {
            LoggingError::Init { .. } => "logging",
            LoggingError::File { .. } => "log_file",
            LoggingError::Thread { .. } => "log_thread",
        }
    }

    pub fn is_transient(&self) -> bool {
        false
    }
}

/// The log of this process. Dropped at the end of the program, it writes what is still on its way.
pub struct Log {
    sinks: Vec<Sink>,
    volume: Volume,
}

impl Log {
    /// What turns it up and down.
    pub fn volume(&self) -> Volume {
        self.volume.clone()
    }
}

/// How much of the log is heard, while the program runs.
#[derive(Clone)]
pub struct Volume(reload::Handle<Audible, Registry>);

impl Volume {
    /// From now on.
    pub fn set(&self, levels: &Levels) {
        // It fails only where the log itself is gone.
        let _ = self.0.reload(audible(levels));
    }
}

type Audible = FilterFn<Box<dyn Fn(&Metadata<'_>) -> bool + Send + Sync>>;

impl Drop for Log {
    fn drop(&mut self) {
        Sink::end(std::mem::take(&mut self.sinks), PATIENCE);
    }
}

/// Lines that were lost since the process began: at the standard error, the file, the log server.
static DROPPED: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
const STDERR: usize = 0;
const FILE: usize = 1;
const REMOTE: usize = 2;

/// By sink, lines that could not be written, or not fast enough.
pub fn dropped() -> [(&'static str, u64); 3] {
    let lines = |sink: usize| DROPPED[sink].load(Ordering::Relaxed);
    [("stderr", lines(STDERR)), ("file", lines(FILE)), ("remote", lines(REMOTE))]
}

/// How long the end of the program waits for a disk, a reader or a log server: it has ten seconds in all.
const PATIENCE: Duration = Duration::from_secs(3);

/// Sends the log of this process where it belongs; past `progress` where a person watches. Panics are logged too.
///
/// # Errors
/// When the log file cannot be opened, or when it was called before.
pub fn init(log: &LogConfig, role: Role, progress: &Progress) -> Result<Log, LoggingError> {
    let mut outputs = Vec::new();
    let mut sinks = Vec::new();
    let file = log.file.as_ref().filter(|_| role != Role::Command);
    match (role, file) {
        (Role::Daemon, Some(_)) => {}
        (Role::Daemon, None) => {
            let write = |line: &str| io::stderr().lock().write_all(line.as_bytes());
            let (output, sink) = queued("stderr", Queue::new(&DROPPED[STDERR]), stderr::render(log.json), write, |_| ())?;
            outputs.push(output);
            sinks.push(sink);
        }
        (Role::Pass | Role::Command, _) => {
            let progress = progress.clone();
            let print = move |line: String| {
                if progress.print(&line).is_err() {
                    DROPPED[STDERR].fetch_add(1, Ordering::Relaxed);
                }
            };
            outputs.push(Output { render: stderr::render(log.json), take: Box::new(print) });
        }
    }
    if let Some(file) = file {
        let (output, sink) = into_file(file, log.json, role)?;
        outputs.push(output);
        sinks.push(sink);
    }
    if let Some(server) = log.remote.as_ref().filter(|_| role != Role::Command) {
        let (output, sink) = to_server(server, log.json)?;
        outputs.push(output);
        sinks.push(sink);
    }
    let (subscriber, volume) = subscriber(&log.levels, outputs);
    tracing::subscriber::set_global_default(subscriber).map_err(|source| LoggingError::Init { source })?;
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let what = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let what = what.unwrap_or("no message");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(error.kind = "panic", place, "A mistake in credkeeper itself: {what}");
    }));
    Ok(Log { sinks, volume })
}

fn into_file(config: &LogFile, json: bool, role: Role) -> Result<(Output, Sink), LoggingError> {
    let path = config.path.clone();
    let mut file = RotatingFile::open(config).map_err(|source| LoggingError::File { path: path.clone(), source })?;
    let style = if json { Style::Json } else { Style::Plain };
    let (rotating, writing) = (path.display().to_string(), path.display().to_string());
    let write = move |line: &str| {
        let written = file.write(line);
        if let Some(error) = file.trouble() {
            tracing::warn!("Cannot rotate the log file {rotating}, which grows until that works: {error}");
        }
        written
    };
    let trouble = move |error: &io::Error| {
        let text = format!("Cannot write the log file {writing}; lines are lost until that works: {error}");
        if role == Role::Daemon {
            // A service manager keeps it there.
            let _ = writeln!(io::stderr(), "credkeeper: {text}");
        }
        tracing::error!(error.kind = "log_file", "{text}");
    };
    queued("file", Queue::new(&DROPPED[FILE]), Arc::new(move |line: &Line<'_>| line.render(style)), write, trouble)
}

/// A server that is away keeps nothing from starting.
fn to_server(server: &LogServer, json: bool) -> Result<(Output, Sink), LoggingError> {
    let queue = Queue::new(&DROPPED[REMOTE]);
    let mut remote = Remote::new(server.clone(), Arc::clone(&queue));
    let syslog = Syslog::new(json);
    queued("remote", queue, Arc::new(move |line: &Line<'_>| syslog.frame(line)), move |frame: &str| remote.write(frame), |_| ())
}

fn queued(
    name: &str,
    queue: Arc<Queue>,
    render: Render,
    write: impl FnMut(&str) -> io::Result<()> + Send + 'static,
    trouble: impl Fn(&io::Error) + Send + 'static,
) -> Result<(Output, Sink), LoggingError> {
    let sink = Sink::start(name, Arc::clone(&queue), PATIENCE, Arc::clone(&render), write, trouble);
    let take = Box::new(move |line| queue.push(line));
    Ok((Output { render, take }, sink.map_err(|source| LoggingError::Thread { source })?))
}

/// An error and its causes in one line: `cannot open the journal: no space left on device`. Each error says its own part
/// only, so nothing is said twice.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn subscriber(levels: &Levels, outputs: Vec<Output>) -> (impl Subscriber + Send + Sync + use<>, Volume) {
    let (filter, handle) = reload::Layer::new(audible(levels));
    (Registry::default().with(LineLayer::new(outputs).with_filter(filter)), Volume(handle))
}

fn audible(levels: &Levels) -> Audible {
    let most = levels.rooms.values().copied().fold(levels.default, std::cmp::max);
    let levels = levels.clone();
    let heard: Box<dyn Fn(&Metadata<'_>) -> bool + Send + Sync> =
        Box::new(move |event| *event.level() <= level_of(&levels, event.target()));
    filter_fn(heard).with_max_level_hint(LevelFilter::from_level(most))
}

/// What is heard of `target`, a path of modules: `credkeeper::mail::courier` speaks for the room `mail`.
fn level_of(levels: &Levels, target: &str) -> tracing::Level {
    let mut path = target.split("::");
    match (path.next(), path.next()) {
        (Some("credkeeper"), room) => room.and_then(|room| levels.rooms.get(room)).copied().unwrap_or(levels.default),
        _ => levels.default.min(tracing::Level::WARN),
    }
}
