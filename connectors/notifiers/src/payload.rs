//! The body of a webhook: Alertmanager's, version 4, which hundreds of receivers understand.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidewatch_model::{Alert, AlertState, Notice, Timestamp};

/// What Alertmanager writes as the end of an alert that has not ended: Go's zero time.
const NOT_ENDED: &str = "0001-01-01T00:00:00Z";

/// The labels that all alerts of a notice have with the same value.
pub fn common_labels(notice: &Notice) -> BTreeMap<String, String> {
    common(&notice.alerts.iter().map(Alert::wire_labels).collect::<Vec<_>>())
}

/// The body for a notice. `external_url` is where people reach this Tidewatch; it may be empty. At most so many alerts are in it; zero:
/// all.
pub fn webhook_body(notice: &Notice, external_url: &str, max_alerts: usize) -> Value {
    let kept = if max_alerts == 0 { notice.alerts.len() } else { notice.alerts.len().min(max_alerts) };
    let all_annotations: Vec<BTreeMap<String, String>> =
        notice.alerts.iter().map(|alert| alert.annotations.clone()).collect();
    let alerts: Vec<Value> = notice.alerts[..kept].iter().map(|alert| alert_body(alert, external_url)).collect();
    json!({
        "version": "4",
        "groupKey": notice.group_key,
        "truncatedAlerts": notice.alerts.len() - kept,
        "status": notice.status,
        "receiver": notice.receiver,
        "groupLabels": notice.group_labels,
        "commonLabels": common_labels(notice),
        "commonAnnotations": common(&all_annotations),
        "externalURL": external_url,
        "alerts": alerts,
    })
}

/// The annotations of an alert, and what is odd about it.
pub fn annotations(alert: &Alert) -> BTreeMap<String, String> {
    let mut annotations = alert.annotations.clone();
    if let Some(since) = alert.stale_since {
        annotations.insert("stale_since".to_string(), since.to_string());
    }
    if alert.flaps {
        annotations.insert("flapping".to_string(), "true".to_string());
    }
    annotations
}

fn alert_body(alert: &Alert, external_url: &str) -> Value {
    let resolved = alert.state == AlertState::Resolved;
    let ends_at = alert.resolved_at.filter(|_| resolved).map_or_else(|| NOT_ENDED.to_string(), |ts| ts.to_string());
    json!({
        "status": if resolved { "resolved" } else { "firing" },
        "labels": alert.wire_labels(),
        "annotations": annotations(alert),
        "startsAt": alert.fired_at.unwrap_or(alert.active_at),
        "endsAt": ends_at,
        "generatorURL": external_url,
        "fingerprint": alert.fingerprint(),
    })
}

/// What all of them have with the same value.
fn common(maps: &[BTreeMap<String, String>]) -> BTreeMap<String, String> {
    let Some((first, rest)) = maps.split_first() else { return BTreeMap::new() };
    let shared = first.iter().filter(|(name, value)| rest.iter().all(|other| other.get(*name) == Some(value)));
    shared.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Alerts as one line for people: state, severity, name, labels, summary. Control characters are escaped.
pub fn line(alert: &Alert, status: &str, ts: Timestamp) -> String {
    let labels: Vec<String> = alert
        .labels
        .iter()
        .filter(|(name, _)| *name != "alertname")
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let summary = alert.annotations.get("summary").map(|text| format!(" · {text}")).unwrap_or_default();
    let text = format!(
        "{} {status:<8} {:<8} {} {}{summary}",
        ts.utc().format("%H:%M:%S"),
        alert.severity.to_string(),
        alert.rule,
        labels.join(" ")
    );
    text.chars()
        .flat_map(|letter| if letter.is_control() { letter.escape_default().collect::<Vec<_>>() } else { vec![letter] })
        .collect()
}
