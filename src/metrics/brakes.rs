//! What limits and tripwires do, and the figures that they look at.

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Registry};

use super::renew::Known;
use super::{Names, NamesOf, opts, register};
use crate::plan::limits::LimitKind;
use crate::plan::tripwires::Tripwire;
use crate::report::Report;

pub(super) struct Brakes {
    stops: IntCounterVec,
    stopped: IntGaugeVec,
    waiting: IntGaugeVec,
    clock_skew: IntGaugeVec,
    pin_space: GaugeVec,
}

impl Brakes {
    pub(super) fn new(registry: &Registry) -> Brakes {
        let gauges = |name, help, labels: &[&str]| register(registry, IntGaugeVec::new(opts(name, help), labels));
        Brakes {
            stops: register(
                registry,
                IntCounterVec::new(opts("limit_stops_total", "What limits refused and tripwires stopped."), &["database", "limit"]),
            ),
            stopped: gauges("limit_stopped", "1 while this limit or tripwire stops something, as last judged.", &["database", "limit"]),
            waiting: gauges(
                "plans_waiting_approval",
                "Policies of which a limit has refused a plan that nobody has approved.",
                &["database"],
            ),
            clock_skew: gauges("clock_skew_seconds", "How far the database's clock is ahead of ours.", &["database"]),
            pin_space: register(
                registry,
                GaugeVec::new(
                    opts(
                        "pin_space_used_ratio",
                        "Stored PINs among all of a length that some policy issues, as the last full comparison found them.",
                    ),
                    &["database", "length"],
                ),
            ),
        }
    }

    /// Brings every combination of labels into being.
    pub(super) fn touch(&self, names: &Names<'_>) {
        for NamesOf { database, lengths, .. } in names.databases {
            let db = database.as_str();
            for limit in codes() {
                self.stops.with_label_values(&[db, limit]);
                self.stopped.with_label_values(&[db, limit]);
            }
            self.waiting.with_label_values(&[db]);
            self.clock_skew.with_label_values(&[db]);
            for length in lengths {
                self.pin_space.with_label_values(&[db, &length.digits().to_string()]);
            }
        }
    }

    /// Lets go of the gauges whose names are not `known` any more.
    pub(super) fn retire(&self, known: &Known<'_>) {
        [&self.stopped, &self.waiting, &self.clock_skew].iter().for_each(|gauges| known.retire(gauges));
        known.retire(&self.pin_space);
    }

    pub(super) fn waiting(&self, database: &str, plans: u64) {
        self.waiting.with_label_values(&[database]).set(plans.cast_signed());
    }

    pub(super) fn pass(&self, report: &Report) {
        let db = report.database.as_str();
        if let Some(skew) = report.clock_skew {
            self.clock_skew.with_label_values(&[db]).set(skew);
        }
        if report.counts.is_some() {
            for density in &report.densities {
                self.pin_space.with_label_values(&[db, &density.length.digits().to_string()]).set(density.ratio());
            }
        }
        // A poll sees new users only, and an interrupted pass some: neither is free of what a full comparison found.
        let full = report.counts.is_some() && report.error.is_none();
        for limit in LimitKind::ALL {
            let stops = report.refusals.iter().filter(|r| r.limit == limit).count();
            self.stop(report, limit.as_str(), stops, full && !report.is_stopped());
        }
        for tripwire in Tripwire::ALL {
            let stops = report.stops.iter().filter(|s| s.tripwire() == *tripwire).count();
            self.stop(report, tripwire.as_str(), stops, report.judged(*tripwire));
        }
    }

    /// `judged`: without stops it is known to stop nothing.
    fn stop(&self, report: &Report, limit: &str, stops: usize, judged: bool) {
        let labels = [report.database.as_str(), limit];
        if stops > 0 || judged {
            self.stopped.with_label_values(&labels).set((stops > 0).into());
        }
        if !report.dry_run {
            self.stops.with_label_values(&labels).inc_by(stops as u64);
        }
    }
}

/// The values of the label `limit`.
fn codes() -> impl Iterator<Item = &'static str> {
    let limits = LimitKind::ALL.iter().map(|limit| limit.as_str());
    limits.chain(Tripwire::ALL.iter().map(|tripwire| tripwire.as_str()))
}
