//! Reminders that a PIN is about to lapse.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Registry};

use super::{Names, NamesOf, opts, register};
use crate::domain::time::span;
use crate::plan::codes;

codes!(
    /// Label `outcome` of `reminders_total`.
    ReminderOutcome {
        Accepted = "accepted", "the mail server took it";
        Deferred = "deferred", "the mail server asked to try again later";
        Rejected = "rejected", "the mail server refused it for good";
        Overtaken = "overtaken", "it was not sent, because the PIN was renewed, has lapsed or is gone meanwhile";
    }
);

/// Seconds: the next full comparison to a daemon that was off for a weekend.
const DELAY_BUCKETS: &[f64] = &[60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0, 604_800.0];

pub(super) struct Reminders {
    reminders: IntCounterVec,
    delay: HistogramVec,
}

impl Reminders {
    pub(super) fn new(registry: &Registry) -> Reminders {
        let counter = opts("reminders_total", "Attempts to remind somebody that a PIN is about to lapse, by outcome.");
        let help = "From the moment a reminder's window opened until the mail server accepted it.";
        let delay = HistogramOpts::new("credkeeper_reminder_delay_seconds", help).buckets(DELAY_BUCKETS.to_vec());
        Reminders {
            reminders: register(registry, IntCounterVec::new(counter, &["database", "outcome"])),
            delay: register(registry, HistogramVec::new(delay, &["database", "window"])),
        }
    }

    /// Brings every combination of labels into being.
    pub(super) fn touch(&self, names: &Names<'_>) {
        for NamesOf { database, windows, .. } in names.databases {
            ReminderOutcome::ALL.iter().for_each(|outcome| _ = self.reminders.with_label_values(&[database.as_str(), outcome.as_str()]));
            windows.iter().for_each(|window| _ = self.delay.with_label_values(&[database, &span(*window)]));
        }
    }

    pub(super) fn ended(&self, database: &str, outcome: ReminderOutcome) {
        self.reminders.with_label_values(&[database, outcome.as_str()]).inc();
    }

    pub(super) fn accepted(&self, database: &str, window: Duration, after: Duration) {
        self.delay.with_label_values(&[database, &span(window)]).observe(after.as_secs_f64());
    }
}
