//! A progress bar at the foot of a terminal. Log lines go through [`Progress::print`], which takes the bar away while it
//! writes, so that neither tears the other.

use std::io::{IsTerminal, Write, stderr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::domain::printable;

/// Cheap to clone; all clones are one bar. Shows nothing where the standard error is no terminal.
#[derive(Clone)]
pub struct Progress {
    all: MultiProgress,
    bar: Arc<Mutex<Option<ProgressBar>>>,
}

impl Progress {
    /// `enabled: false` for the daemon, whose terminal (if any) belongs to the log.
    pub fn new(enabled: bool) -> Progress {
        let target = if enabled && stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Progress { all: MultiProgress::with_draw_target(target), bar: Arc::default() }
    }

    /// Begins a stage, and ends the one before. `total: None` where it is not known how far it goes.
    pub fn stage(&self, name: &str, total: Option<u64>) {
        self.done();
        let bar = match total {
            Some(total) => {
                ProgressBar::new(total).with_style(style("{msg} [{bar:30}] {human_pos}/{human_len} {eta}").progress_chars("=> "))
            }
            None => ProgressBar::no_length().with_style(style("{msg} {spinner} {human_pos}")),
        };
        // Added before it is told anything: a bar draws itself as soon as it changes.
        let bar = self.all.add(bar);
        bar.set_message(printable(name).into_owned());
        if !self.all.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        *self.bar() = Some(bar);
    }

    pub fn advance(&self, by: u64) {
        if let Some(bar) = &*self.bar() {
            bar.inc(by);
        }
    }

    /// Ends the stage in hand and takes its bar away.
    pub fn done(&self) {
        if let Some(bar) = self.bar().take() {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }

    /// Writes to the standard error. A reader that went away is no reason to stop working, but lines are lost then.
    pub fn print(&self, text: &str) -> std::io::Result<()> {
        self.all.suspend(|| stderr().lock().write_all(text.as_bytes()))
    }

    fn bar(&self) -> std::sync::MutexGuard<'_, Option<ProgressBar>> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The templates stand in this file; one that were wrong would cost the looks of the bar and nothing else.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_it_shows_nothing_and_still_counts() {
        let progress = Progress::new(false);
        progress.advance(1);
        progress.stage("Reading", None);
        progress.stage("Writing", Some(10));
        progress.advance(4);
        assert_eq!(progress.bar().as_ref().map(ProgressBar::position), Some(4));
        assert!(progress.all.is_hidden());
        progress.done();
        progress.done();
        assert!(progress.bar().is_none());
    }

    #[test]
    fn the_templates_are_right() {
        for template in ["{msg} [{bar:30}] {human_pos}/{human_len} {eta}", "{msg} {spinner} {human_pos}"] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
