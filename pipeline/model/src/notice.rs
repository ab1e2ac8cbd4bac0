//! A notice: what people are told.

use serde::{Deserialize, Serialize};

use crate::alert::{Alert, AlertState, Labels};
use crate::rule::Severity;
use crate::time::Timestamp;

/// Whether a notice tells of a fault or of its end; Alertmanager's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoticeStatus {
    /// At least one alert fires.
    Firing,
    /// All of them are over.
    Resolved,
}

/// One message to one receiver, about a group of alerts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Idempotency key: the same for every attempt, also after a crash. 32 hex digits.
    pub notice_id: String,
    /// The receiver's name.
    pub receiver: String,
    /// Which of the receiver's ways: the name of one channel with one address.
    pub target: String,
    /// Alertmanager's group key: the route's way, a colon, the labels grouped by.
    pub group_key: String,
    /// The labels that all of its alerts were grouped by.
    pub group_labels: Labels,
    /// Firing or resolved.
    pub status: NoticeStatus,
    /// Why it is sent, in words: first, new alerts, some resolved, repeat, ...
    pub reason: String,
    /// The alerts told about.
    pub alerts: Vec<Alert>,
    /// Event time of the change.
    pub ts: Timestamp,
}

impl Notice {
    /// The most urgent of its alerts that fire, or of all when none does.
    pub fn severity(&self) -> Severity {
        let firing = self.alerts.iter().filter(|alert| alert.state == AlertState::Firing);
        let worst = firing.map(|alert| alert.severity).max();
        worst.or_else(|| self.alerts.iter().map(|alert| alert.severity).max()).unwrap_or(Severity::Info)
    }
}
