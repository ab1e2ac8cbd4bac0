//! The rules of telling: trees of routes, receivers with their targets, inhibition, intervals.

use std::collections::BTreeMap;

use tidewatch_model::{Span, Timestamp};

use super::interval::TimeInterval;
use super::matcher::{Comparison, Matcher};
use super::mute::InhibitRule;
use super::route::{GroupBy, Route};

/// One way to one receiver: a channel with its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name, which no other has.
    pub name: String,
    /// Whether it hears of what is over.
    pub send_resolved: bool,
}

/// The rules of telling: routes, receivers, inhibition, intervals.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The trees: an alert goes through each.
    pub trees: Vec<Route>,
    /// The targets of each receiver.
    pub receivers: BTreeMap<String, Vec<Target>>,
    /// Inhibition.
    pub inhibit_rules: Vec<InhibitRule>,
    /// Intervals by name.
    pub intervals: BTreeMap<String, Vec<TimeInterval>>,
}

impl Policy {
    /// Without a file: every alert is told at once, and alone, to all targets.
    pub fn built_in(targets: Vec<Target>) -> Policy {
        let route = Route {
            receiver: BUILT_IN.to_string(),
            matchers: vec![],
            group_by: GroupBy::All,
            group_wait: Span::ZERO,
            group_interval: Span::ZERO,
            repeat_interval: Span::seconds(4 * 3_600),
            continues: false,
            escalate_after: Span::ZERO,
            mute_time_intervals: vec![],
            active_time_intervals: vec![],
            routes: vec![],
            path: BUILT_IN.to_string(),
        };
        Policy {
            trees: vec![route],
            receivers: BTreeMap::from([(BUILT_IN.to_string(), targets)]),
            inhibit_rules: silent_host().into_iter().collect(),
            intervals: BTreeMap::new(),
        }
    }

    /// This one and another, side by side.
    #[must_use]
    pub fn beside(mut self, other: Policy) -> Policy {
        self.trees.extend(other.trees);
        self.receivers.extend(other.receivers);
        self.inhibit_rules.extend(other.inhibit_rules);
        self.intervals.extend(other.intervals);
        self
    }

    /// All nodes of all trees.
    pub(super) fn routes(&self) -> Vec<&Route> {
        self.trees.iter().flat_map(Route::all).collect()
    }

    /// Whether a route tells nobody now, for its intervals.
    pub(super) fn is_mute(&self, route: &Route, now: Timestamp) -> bool {
        let within = |name: &String| {
            self.intervals.get(name).is_some_and(|intervals| intervals.iter().any(|interval| interval.contains(now)))
        };
        let inactive = !route.active_time_intervals.is_empty() && !route.active_time_intervals.iter().any(within);
        inactive || route.mute_time_intervals.iter().any(within)
    }
}

/// Of a machine that is silent nobody needs to hear that its GPUs, ports and file systems are as well: `host_silent` tells of it.
fn silent_host() -> Option<InhibitRule> {
    let alerts = |comparison, names: &str| Some(vec![Matcher::new("alertname", comparison, names).ok()?]);
    Some(InhibitRule {
        sources: alerts(Comparison::Equal, "host_silent")?,
        targets: alerts(Comparison::Regex, "(gpu|ib|net|disk|host|collector|cgroup)_.*")?,
        equal: vec!["host".to_string()],
    })
}

/// The receiver of the built-in route, and its way.
pub const BUILT_IN: &str = "(built-in)";

#[cfg(test)]
mod tests {
    use tidewatch_model::alert::Labels;

    use super::super::mute::Inhibitor;
    use super::*;

    #[test]
    fn of_a_silent_machine_one_alert_is_told() {
        let policy = Policy::built_in(vec![]);
        let labels = |name: &str, host: &str| {
            Labels::from(
                [("alertname", name), ("host", host)].map(|(name, value)| (name.to_string(), value.to_string())),
            )
        };
        let silent = labels("host_silent", "n1");
        let inhibitor = Inhibitor::new(&policy.inhibit_rules, [("1", &silent)].into_iter());
        let is_mute = |labels: &Labels| inhibitor.source_of(labels).into_iter().next().is_some();
        assert!(is_mute(&labels("gpu_missing", "n1")) && is_mute(&labels("disk_full", "n1")));
        for told in
            [&silent, &labels("gpu_missing", "n2"), &labels("train_stall", "n1"), &labels("tidewatch_input_lag", "n1")]
        {
            assert!(!is_mute(told), "{told:?}");
        }
    }
}
