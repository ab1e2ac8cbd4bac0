//! What a target was told of a group, and whether it is to be told again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use tidewatch_model::{Severity, Span, Timestamp};

/// Why somebody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Why {
    /// The group was not told of before, or all that was told of is over.
    First,
    /// Alerts came.
    NewAlerts,
    /// One is more urgent than it was.
    MoreSevere,
    /// Rows of one stopped coming.
    DataMissing,
    /// The condition of one comes and goes.
    Flapping,
    /// Some are over.
    SomeResolved,
    /// All are over.
    AllResolved,
    /// It goes on.
    Repeat,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::First => "first",
            Why::NewAlerts => "new alerts",
            Why::MoreSevere => "more severe",
            Why::DataMissing => "data missing",
            Why::Flapping => "flapping",
            Why::SomeResolved => "some resolved",
            Why::AllResolved => "all resolved",
            Why::Repeat => "repeat",
        })
    }
}

/// How an alert looked when it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seen {
    /// How urgent.
    pub severity: Severity,
    /// Whether its rows were missing.
    pub stale: bool,
    /// Whether its condition came and went.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flaps: bool,
    /// When it began to fire, in groups that wait for nothing: there each time is told.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub episode: Timestamp,
}

fn is_zero(ts: &Timestamp) -> bool {
    ts.0 == 0
}

/// What a target was told last about a group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Told {
    /// When.
    pub at: Timestamp,
    /// What fired, by fingerprint.
    pub firing: BTreeMap<String, Seen>,
    /// What was over.
    pub resolved: BTreeSet<String>,
    /// What it may believe to fire, and was not told this time: its end is still to be told.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub hidden: BTreeSet<String>,
}

impl Told {
    /// What was told of other alerts of the group, besides.
    pub fn join(&mut self, other: Told) {
        self.at = self.at.max(other.at);
        self.firing.extend(other.firing);
        self.resolved.extend(other.resolved);
        self.hidden.extend(other.hidden);
    }

    /// Whether it was told that an alert fires, and not that it is over.
    pub fn knows(&self, fingerprint: &str) -> bool {
        self.firing.contains_key(fingerprint) || self.hidden.contains(fingerprint)
    }
}

/// Whether a target is to be told, and why: Alertmanager's conditions, and three of ours.
///
/// `firing` and `resolved` are the alerts of the group that are not muted.
pub fn decide(
    firing: &BTreeMap<String, Seen>,
    resolved: &BTreeSet<String>,
    told: Option<&Told>,
    send_resolved: bool,
    repeat_interval: Span,
    now: Timestamp,
) -> Option<Why> {
    let Some(told) = told else { return (!firing.is_empty()).then_some(Why::First) };
    let is_new = |(fingerprint, seen): (&String, &Seen)| {
        told.firing.get(fingerprint).is_none_or(|before| before.episode < seen.episode)
    };
    if firing.iter().any(is_new) {
        return Some(if told.firing.is_empty() { Why::First } else { Why::NewAlerts });
    }
    if firing.is_empty() {
        let ended = resolved.iter().any(|fingerprint| told.knows(fingerprint));
        return ended.then_some(Why::AllResolved);
    }
    let changed = |is: fn(&Seen, &Seen) -> bool| firing.iter().any(|(key, seen)| is(seen, &told.firing[key]));
    if changed(|seen, before| seen.severity > before.severity) {
        return Some(Why::MoreSevere);
    }
    if changed(|seen, before| seen.stale && !before.stale) {
        return Some(Why::DataMissing);
    }
    if changed(|seen, before| seen.flaps && !before.flaps) {
        return Some(Why::Flapping);
    }
    if send_resolved && !resolved.is_subset(&told.resolved) {
        return Some(Why::SomeResolved);
    }
    (told.at.saturating_add(repeat_interval) < now).then_some(Why::Repeat)
}
