//! An alert: one identity over time, and the changes of its state.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::rule::Severity;
use crate::time::{Span, Timestamp};
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
    /// Its condition comes and goes: until it has come to rest, the alert goes on firing.
    Flapping,
    /// It has come to rest, and its condition holds.
    Settled,
    /// It is more urgent than it was.
    SeverityRaised,
    /// It is less urgent than it was.
    SeverityLowered,
    /// The rule has more alerts than its `limit`: some were left out.
    LimitReached,
    /// Somebody said that they know of it.
    Acknowledged,
    /// They took that back.
    Unacknowledged,
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
    /// What the engine calls its group, where that can't be read off the labels; else empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub group: BTreeMap<String, String>,
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
    /// Evaluations one after the other in which the condition held, up to what `for_evaluations` asks for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub matches: u32,
    /// Whether the condition held at each of the last evaluations, where flapping is looked for.
    #[serde(default, skip_serializing_if = "Swings::is_unknown")]
    pub swings: Swings,
    /// Whether it was said that it flaps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flaps: bool,
    /// The values of the last match.
    pub values: Values,
    /// The annotations, rendered.
    pub annotations: BTreeMap<String, String>,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Whether the condition held at each of the last 21 evaluations of a window rule, and whether that is called flapping.
///
/// The share of changes is that of Nagios: twenty possible changes, weighted from 0.8 for the oldest to 1.2 for the newest
/// ("Detection and Handling of State Flapping", Nagios Core 4). It begins at 50 %, and ends below 25 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Swings {
    /// The newest in the lowest bit.
    states: u32,
    /// When the last was added.
    at: Timestamp,
    /// Whether it flaps.
    pub flaps: bool,
}

impl Swings {
    /// Evaluations that count.
    const SEEN: u32 = 21;

    /// Whether nothing was added ever.
    pub fn is_unknown(&self) -> bool {
        *self == Swings::default()
    }

    /// Adds an evaluation at a time; between it and the one before, at steps of the slide, the condition did not hold: of what is
    /// well nobody tells.
    pub fn add(&mut self, holds: bool, at: Timestamp, slide: Span) {
        let silent = if self.is_unknown() || slide.0 <= 0 { 0 } else { ((at - self.at).0 / slide.0 - 1).clamp(0, 21) };
        self.states = ((self.states << silent) << 1 | u32::from(holds)) & ((1 << Self::SEEN) - 1);
        self.at = at;
        let share = self.share();
        self.flaps = if self.flaps { share >= 0.25 } else { share >= 0.5 };
    }

    /// The weighted share of changes, 0 to 1.
    pub fn share(&self) -> f64 {
        let changes = Self::SEEN - 1;
        let changed = self.states ^ (self.states >> 1);
        let weight = |back: u32| 1.2 - 0.4 * f64::from(back) / f64::from(changes - 1);
        (0..changes).filter(|back| changed >> back & 1 == 1).map(weight).sum::<f64>() / f64::from(changes)
    }
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
    /// An alert of which only its identity is known, how urgent it is, and since when its condition has held: nobody was told anything. Its
    /// rule is the label `alertname`.
    ///
    /// ```
    /// use tidewatch_model::alert::Labels;
    /// use tidewatch_model::{Alert, AlertState, Severity, Timestamp};
    /// let labels = Labels::from([("alertname".to_string(), "gpu_hot".to_string())]);
    /// let alert = Alert::new(labels, Severity::Critical, Timestamp::from_seconds(60));
    /// assert_eq!((alert.rule.as_str(), alert.state, alert.fired_at), ("gpu_hot", AlertState::Inactive, None));
    /// ```
    pub fn new(labels: Labels, severity: Severity, active_at: Timestamp) -> Alert {
        Alert {
            rule: labels.get("alertname").cloned().unwrap_or_default(),
            rule_version: String::new(),
            key: vec![],
            group: BTreeMap::new(),
            labels,
            state: AlertState::Inactive,
            severity,
            active_at,
            fired_at: None,
            resolved_at: None,
            keep_since: None,
            last_match: active_at,
            stale_since: None,
            matches: 0,
            swings: Swings::default(),
            flaps: false,
            values: Values::new(),
            annotations: BTreeMap::new(),
        }
    }

    /// Its labels as receivers know them: severity is an attribute of its state here and a label there.
    pub fn wire_labels(&self) -> Labels {
        let mut labels = self.labels.clone();
        labels.insert("severity".to_string(), self.severity.to_string());
        labels
    }

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
            Reason::Flapping => "flapping",
            Reason::Settled => "settled",
            Reason::SeverityRaised => "severity_raised",
            Reason::SeverityLowered => "severity_lowered",
            Reason::LimitReached => "limit_reached",
            Reason::Acknowledged => "acknowledged",
            Reason::Unacknowledged => "unacknowledged",
        })
    }
}
