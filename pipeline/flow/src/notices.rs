//! Who is told of a transition: the built-in route, which groups by all labels and waits for nothing.

use sha2::{Digest, Sha256};
use tidewatch_model::alert::{Labels, hex};
use tidewatch_model::{AlertState, Notice, NoticeStatus, Reason, Transition};

/// The notices that a transition asks for, one per receiver; none for changes that nobody needs to hear of.
///
/// Told are: an alert that begins to fire, one that resolves after it fired, and one whose data went missing.
pub fn decide(transition: &Transition, receivers: &[String]) -> Vec<Notice> {
    let status = match (transition.from_state, transition.to_state, transition.reason) {
        (AlertState::Firing, AlertState::Resolved, _) => NoticeStatus::Resolved,
        (AlertState::Firing, AlertState::Firing, Reason::Stale) => NoticeStatus::Firing,
        (AlertState::Firing, AlertState::Firing, _) => return vec![],
        (_, AlertState::Firing, _) => NoticeStatus::Firing,
        _ => return vec![],
    };
    let notice = |receiver: &String| Notice {
        notice_id: notice_id(&transition.event_id, receiver),
        receiver: receiver.clone(),
        group_key: group_key(&transition.alert.labels),
        status,
        reason: transition.reason.to_string(),
        alerts: vec![transition.alert.clone()],
        ts: transition.ts,
    };
    receivers.iter().map(notice).collect()
}

/// The idempotency key: the same transition to the same receiver has the same one, also after a crash.
fn notice_id(event_id: &str, receiver: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(event_id.as_bytes());
    hasher.update([0xFF]);
    hasher.update(receiver.as_bytes());
    hex(&hasher.finalize()[..16])
}

/// Alertmanager's form: the route's matchers (none here), a colon, the labels grouped by.
fn group_key(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{}}:{{{}}}", pairs.join(", "))
}
