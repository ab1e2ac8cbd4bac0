//! The routing tree: which receivers an alert goes to, and in which groups.

use std::collections::BTreeSet;

use tidewatch_model::Span;
use tidewatch_model::alert::Labels;

use super::matcher::Matcher;

/// By which labels alerts are put together.
#[derive(Debug, Clone, PartialEq)]
pub enum GroupBy {
    /// `...`: by all; every alert is a group of its own.
    All,
    /// By these.
    Labels(BTreeSet<String>),
}

/// A node of the tree, with everything that it inherits filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Its receiver.
    pub receiver: String,
    /// What an alert must match to come here; none at the root.
    pub matchers: Vec<Matcher>,
    /// How alerts are grouped.
    pub group_by: GroupBy,
    /// How long a new group waits for more alerts before it is told.
    pub group_wait: Span,
    /// How long a group that was told waits before changes are told; zero: as they come.
    pub group_interval: Span,
    /// When what goes on is told again.
    pub repeat_interval: Span,
    /// Whether its next siblings are tried too.
    pub continues: bool,
    /// Only what has fired for so long without an ack is told; zero: everything.
    pub escalate_after: Span,
    /// Names of intervals in which nobody is told.
    pub mute_time_intervals: Vec<String>,
    /// Names of intervals outside of which nobody is told; always, when there are none.
    pub active_time_intervals: Vec<String>,
    /// Its children.
    pub routes: Vec<Route>,
    /// The way here, as Alertmanager writes it: `{}/{severity="critical"}`.
    pub path: String,
}

impl Route {
    /// The nodes that take an alert: depth first, the first matching child unless it continues; where no child matches, the node
    /// itself. None, when the node does not match.
    pub fn matching(&self, labels: &Labels) -> Vec<&Route> {
        if !self.matchers.iter().all(|matcher| matcher.matches(labels)) {
            return vec![];
        }
        let mut found = Vec::new();
        for child in &self.routes {
            let matching = child.matching(labels);
            let is_match = !matching.is_empty();
            found.extend(matching);
            if is_match && !child.continues {
                break;
            }
        }
        if found.is_empty() {
            found.push(self);
        }
        found
    }

    /// The node and all below it.
    pub fn all(&self) -> Vec<&Route> {
        std::iter::once(self).chain(self.routes.iter().flat_map(Route::all)).collect()
    }

    /// The labels of an alert that its group here has.
    pub fn group_labels(&self, labels: &Labels) -> Labels {
        match &self.group_by {
            GroupBy::All => labels.clone(),
            GroupBy::Labels(names) => {
                labels.iter().filter(|(name, _)| names.contains(*name)).map(|(k, v)| (k.clone(), v.clone())).collect()
            }
        }
    }

    /// The name of a group here: the route's way, a colon, the labels grouped by.
    pub fn group_key(&self, group: &Labels) -> String {
        let pairs: Vec<String> = group.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        format!("{}:{{{}}}", self.path, pairs.join(", "))
    }
}
