//! The rules of telling: trees of routes, receivers with their targets, inhibition, intervals.

use std::collections::BTreeMap;

use tidewatch_model::{Span, Timestamp};

use super::interval::TimeInterval;
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
            inhibit_rules: vec![],
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

/// The receiver of the built-in route, and its way.
pub const BUILT_IN: &str = "(built-in)";
