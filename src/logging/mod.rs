//! The log: lines on the standard error, for a person or as JSON, and the progress bar that they must not tear.
//!
//! Three promises, each kept here and nowhere else. What others wrote cannot forge a line or command a terminal: every
//! value passes `line`. Other people's crates speak at `warn` and above only, whatever the configured level: at `debug`
//! a mail or database client prints what it sends. An error is logged with its whole chain of causes, once.
//!
//! The level comes from the configuration alone. `RUST_LOG` is not obeyed: an inherited variable must not open the log of
//! a service.

use std::error::Error;
use std::io::{IsTerminal, stderr};

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

use crate::config::LogConfig;

mod layer;
mod line;
mod progress;
#[cfg(test)]
mod tests;

use layer::LineLayer;
use line::Style;
pub use progress::Progress;

/// What can go wrong with the log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error("the log is already set up")]
    Init { source: tracing::subscriber::SetGlobalDefaultError },
}

impl LoggingError {
    pub fn kind(&self) -> &'static str {
        match self {
            LoggingError::Init { .. } => "logging",
        }
    }

    pub fn is_transient(&self) -> bool {
        false
    }
}

/// Sends the log of this process to the standard error, past `progress`. Panics are logged too.
///
/// # Errors
/// When it was called before.
pub fn init(log: &LogConfig, progress: &Progress) -> Result<(), LoggingError> {
    let progress = progress.clone();
    let write = move |line: &str| progress.print(line);
    tracing::subscriber::set_global_default(subscriber(log, colours(), write)).map_err(|source| LoggingError::Init { source })?;
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let what = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let what = what.unwrap_or("no message");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(error.kind = "panic", place, "A mistake in credkeeper itself: {what}");
    }));
    Ok(())
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

fn subscriber(log: &LogConfig, colours: bool, write: impl Fn(&str) + Send + Sync + 'static) -> impl Subscriber + Send + Sync {
    let level = LevelFilter::from_level(log.level);
    let filter = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("credkeeper", level);
    let style = match (log.json, colours) {
        (true, _) => Style::Json,
        (false, true) => Style::Coloured,
        (false, false) => Style::Plain,
    };
    Registry::default().with(LineLayer::new(style, write).with_filter(filter))
}

/// On a terminal that takes them, unless `NO_COLOR` is set (<https://no-color.org>).
fn colours() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    // The old Windows console shows escape sequences as rubbish; the newer terminals announce themselves.
    let takes_them = !cfg!(windows) || set("WT_SESSION") || set("TERM");
    stderr().is_terminal() && !set("NO_COLOR") && !dumb && takes_them
}
