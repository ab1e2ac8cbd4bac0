//! What a rule yields: the port between SQL and the alert lifecycle.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::value::{Key, Values};

/// One evaluation of one rule: once per slide for a windowed rule, once per distinct row time for a row rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The rule's name.
    pub rule: String,
    /// Start of the window; equal to `window_end` for a row rule.
    pub window_start: Timestamp,
    /// End of the window, or the row's ts: the event time of whatever follows from it.
    pub window_end: Timestamp,
    /// What came out.
    pub outcome: Outcome,
}

/// The result of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// One finding per group, sorted by key; a group appears once. What fires is listed, and of the others those that somebody
    /// watches: groups with an alert that is alive, and with `no_data = 'alert'` those that are silent. A group that is not
    /// listed is clear, or of no interest. A row rule lists only groups that had a row; an empty list of its says only
    /// that time has come this far.
    Groups(Vec<Finding>),
    /// The rule could not be evaluated; never a reason to resolve anything.
    Failed(String),
}

/// What is known about one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The group.
    pub key: Key,
    /// Its state.
    pub state: GroupState,
}

/// The state of a group in one evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupState {
    /// The condition holds; the row's other columns.
    Firing(Values),
    /// Rows came, and the condition does not hold.
    Clear,
    /// Rows came, the condition does not hold, and what `recover_when` asks for neither: what fires goes on firing.
    Held,
    /// The group is known, and after the label filters no row came.
    NoData,
    /// No row came, but our own input lags: nothing can be said.
    Unknown,
}
