//! Another configuration, while a monitor goes on watching: what counts goes on counting, what is new begins at 0, and what
//! tells how something stands that is not there any more is not told any more.

use std::collections::HashMap;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};

use super::{Metrics, Names};

/// The names that label values may have from now on.
pub(super) struct Known<'a>(&'a Names<'a>);

impl Known<'_> {
    fn has(&self, labels: &HashMap<&str, &str>) -> bool {
        let Some(name) = labels.get("database") else { return true };
        let Some(database) = self.0.databases.iter().find(|database| database.database == *name) else { return false };
        let policy = labels.get("policy").is_none_or(|policy| policy.is_empty() || database.policies.iter().any(|p| p.0 == *policy));
        let length = labels.get("length").is_none_or(|length| database.lengths.iter().any(|l| l.digits().to_string() == *length));
        policy && length
    }

    /// Lets go of the gauges of databases, policies and lengths that are not known.
    pub(super) fn retire<T: MetricVecBuilder>(&self, gauges: &MetricVec<T>) {
        for family in gauges.collect() {
            for metric in family.get_metric() {
                let labels: HashMap<&str, &str> = metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
                if !self.has(&labels) {
                    let _ = gauges.remove(&labels); // fails only if it is gone
                }
            }
        }
    }
}

impl Metrics {
    /// The names of another configuration. To be called while no pass runs.
    pub fn renew(&self, names: Names<'_>) {
        let known = Known(&names);
        self.running().clear();
        let gauges = [&self.leader, &self.last_attempt, &self.last_success, &self.users, &self.users_skipped];
        gauges.into_iter().chain([&self.journal_entries, &self.journal_oldest]).for_each(|gauges| known.retire(gauges));
        known.retire(&self.pass_unfinished);
        self.brakes.retire(&known);
        self.touch(names);
    }
}
