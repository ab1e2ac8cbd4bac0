//! An alert: one identity over time, and the changes of its state.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::rule::Severity;
use crate::time::Timestamp;
use crate::value::Values;

/// A label set: name to value, sorted by name.
pub type Labels = BTreeMap<String, String>;

/// The states of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// Nothing holds; nobody was told anything.
    Inactive,
    /// The condition holds, `for` has not passed yet.
    Pending,
    /// People are told.
    Firing,
    /// It fired, and it is over.
    Resolved,
}

/// Why a state changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The condition holds.
    ConditionMet,
    /// It has held for as long as `for` asks.
    HeldLongEnough,
    /// It does not hold any more, and `keep_firing_for` has passed.
    ConditionCleared,
    /// No row came for the group, and the rule's policy says what that means.
    NoData,
    /// The alert stays as it was, because no row comes: it is stale now.
    Stale,
    /// Rows came again for a stale alert.
    DataReturned,
    /// The rule's key columns changed, so the old identity ended.
    RuleChanged,
    /// The rule was removed.
    RuleRemoved,
    /// No row came for seven days.
    Gone,
}

/// One alert, as it is kept between evaluations and across restarts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// The rule's name.
    pub rule: String,
    /// Version of the rule that last touched it.
    pub rule_version: String,
    /// Names of the rule's key columns when it made this alert: a rule with others makes other alerts.
    #[serde(default)]
    pub key: Vec<String>,
    /// alertname, key and the rule's static labels: the identity.
    pub labels: Labels,
    /// Where it stands.
    pub state: AlertState,
    /// How urgent it is.
    pub severity: Severity,
    /// Event time at which the condition began to hold.
    pub active_at: Timestamp,
    /// Event time at which it fired.
    pub fired_at: Option<Timestamp>,
    /// Event time at which it resolved.
    pub resolved_at: Option<Timestamp>,
    /// Event time of the first evaluation in which the condition did not hold any more, while `keep_firing_for` runs.
    pub keep_since: Option<Timestamp>,
    /// Event time of the last evaluation in which the condition held.
    pub last_match: Timestamp,
    /// Event time since which no row comes.
    pub stale_since: Option<Timestamp>,
    /// The values of the last match.
    pub values: Values,
    /// The annotations, rendered.
    pub annotations: BTreeMap<String, String>,
}

/// A change of an alert's state (or of its staleness): one row of `alert_event`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// 32 hex digits; a function of rule, version, identity, new state, reason and event time, so a replay yields the
    /// same one.
    pub event_id: String,
    /// Event time: end of the window, or the row's ts.
    pub ts: Timestamp,
    /// State before.
    pub from_state: AlertState,
    /// State after.
    pub to_state: AlertState,
    /// Why.
    pub reason: Reason,
    /// Start of the window that decided.
    pub window_start: Timestamp,
    /// End of the window that decided.
    pub window_end: Timestamp,
    /// The alert after the change.
    pub alert: Alert,
}

impl Alert {
    /// Alertmanager's fingerprint of the labels, 16 hex digits.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.labels)
    }
}

/// Alertmanager's fingerprint: FNV-1a 64 over the labels sorted by name, each `name 0xFF value 0xFF`, as 16 hex digits.
///
/// ```
/// use tidewatch_model::alert::{fingerprint, Labels};
/// let labels: Labels = [("alertname", "GpuHot"), ("gpu", "3"), ("node", "n1"), ("severity", "page")]
///     .map(|(name, value)| (name.to_string(), value.to_string())).into();
/// assert_eq!(fingerprint(&labels), "214c409b0e9b6c8f");
/// ```
pub fn fingerprint(labels: &Labels) -> String {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut hash = OFFSET_BASIS;
    let mut feed = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    };
    for (name, value) in labels {
        feed(name.as_bytes());
        feed(&[0xFF]);
        feed(value.as_bytes());
        feed(&[0xFF]);
    }
    format!("{hash:016x}")
}

/// The deterministic id of a transition: the first 16 bytes of SHA-256 over its parts, as 32 hex digits. The reason is
/// among them because going stale changes the reason and not the state.
pub fn event_id(
    rule: &str,
    version: &str,
    fingerprint: &str,
    to_state: AlertState,
    reason: Reason,
    ts: Timestamp,
) -> String {
    let mut hasher = Sha256::new();
    for part in [rule, version, fingerprint, &to_state.to_string(), &reason.to_string(), &ts.0.to_string()] {
        hasher.update(part.as_bytes());
        hasher.update([0xFF]);
    }
    hex(&hasher.finalize()[..16])
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| DIGITS[usize::from(digit)] as char).collect()
}

impl AlertState {
    /// Whether an alert in this state is alive: pending or firing.
    pub fn is_alive(self) -> bool {
        matches!(self, AlertState::Pending | AlertState::Firing)
    }
}

impl fmt::Display for AlertState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AlertState::Inactive => "inactive",
            AlertState::Pending => "pending",
            AlertState::Firing => "firing",
            AlertState::Resolved => "resolved",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::ConditionMet => "condition_met",
            Reason::HeldLongEnough => "held_long_enough",
            Reason::ConditionCleared => "condition_cleared",
            Reason::NoData => "no_data",
            Reason::Stale => "stale",
            Reason::DataReturned => "data_returned",
            Reason::RuleChanged => "rule_changed",
            Reason::RuleRemoved => "rule_removed",
            Reason::Gone => "gone",
        })
    }
}
