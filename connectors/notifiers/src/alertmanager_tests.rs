//! What is sent, and when. The real Alertmanager is in pipeline/run's tests.

#![allow(clippy::unwrap_used)]

use tidewatch_model::Severity;

use super::*;
use crate::testing::{notice, server};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_000 + seconds)
}

fn hot(host: &str, state: AlertState) -> Alert {
    let mut alert = notice(state).alerts.remove(0);
    alert.labels.insert("host".to_string(), host.to_string());
    alert
}

/// `host state severity` of what is due, taken by the other side.
fn sent(feed: &mut Feed, alerts: &[Alert], now: Timestamp) -> Vec<String> {
    let due = feed.due(alerts, now);
    let show = |(labels, alert): &(Labels, Alert)| format!("{} {} {}", labels["host"], alert.state, labels["severity"]);
    let shown = due.iter().map(show).collect();
    feed.sent.extend(due.into_iter().map(|(labels, alert)| (labels, (alert, now))));
    shown
}

#[test]
fn what_fires_is_renewed_and_what_is_over_is_said_again() {
    let mut feed = Feed::new("http://there", vec![], "", None);
    let firing = [hot("n1", AlertState::Firing), hot("n2", AlertState::Pending)];
    assert_eq!(sent(&mut feed, &firing, at(0)), ["n1 firing critical"], "what is pending is nobody's");
    assert_eq!(sent(&mut feed, &firing, at(60)), [""; 0], "strictly more than a minute");
    assert_eq!(sent(&mut feed, &firing, at(61)), ["n1 firing critical"]);
    let over = [Alert { resolved_at: Some(at(62)), ..hot("n1", AlertState::Resolved) }];
    assert_eq!(sent(&mut feed, &over, at(62)), ["n1 resolved critical"]);
    assert_eq!(sent(&mut feed, &over, at(100)), [""; 0]);
    assert_eq!(sent(&mut feed, &over, at(123)), ["n1 resolved critical"]);
    assert_eq!(sent(&mut feed, &over, at(62 + 901)), [""; 0], "a quarter of an hour is enough");
    assert_eq!(sent(&mut feed, &[], at(1_000)), [""; 0]);
    // Another engine judges it now: it is not over.
    sent(&mut feed, &firing, at(1_300));
    assert_eq!(sent(&mut feed, &[], at(1_301)), [""; 0]);
}

#[test]
fn another_severity_ends_the_alert_that_had_the_old_one() {
    let mut feed = Feed::new("http://there", vec![], "", None);
    let mut alert = hot("n1", AlertState::Firing);
    sent(&mut feed, &[alert.clone()], at(0));
    alert.severity = Severity::Warning;
    let mut found = sent(&mut feed, &[alert.clone()], at(1));
    found.sort();
    assert_eq!(found, ["n1 firing warning", "n1 resolved critical"]);
    assert_eq!(sent(&mut feed, &[alert], at(2)), [""; 0]);
}

#[test]
fn what_is_not_taken_is_due_again() {
    let alerts = [hot("n1", AlertState::Firing)];
    let mut feed = Feed::new("http://127.0.0.1:1", vec![], "", None);
    assert!(feed.send(&alerts, at(0)).unwrap_err().starts_with("alertmanager: "));
    let (url, asked) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    feed.url = url;
    feed.headers.push(("Authorization".to_string(), "Bearer x".to_string()));
    assert_eq!(feed.send(&alerts, at(1)), Ok(1));
    let asked = asked.join().unwrap();
    assert!(asked.to_lowercase().contains("authorization: bearer x"), "{asked}");
    let body: Value = serde_json::from_str(asked.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body[0]["labels"]["severity"], "critical");
    assert_eq!(body[0]["startsAt"], "1970-01-01T00:02:00Z");
    assert_eq!(body[0]["endsAt"], json!(at(241)));
    assert_eq!(feed.send(&alerts, at(2)), Ok(0));
}
