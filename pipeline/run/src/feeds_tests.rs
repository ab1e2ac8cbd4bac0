//! A real Alertmanager receives our alerts, and knows when they are over.

#![allow(clippy::unwrap_used)]

use std::time::Instant;

use serde_json::Value;
use tidewatch_model::{AlertState, NoticeStatus, Severity};
use tidewatch_notifiers::sample;
use tidewatch_serve::{Asking, ask};

use super::*;

#[test]
fn a_real_alertmanager_gets_every_alert_and_its_end() {
    let configuration = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n";
    let Some(peer) = tidewatch_tests::peers::Alertmanager::start(configuration) else { return };
    use AlertState::{Firing, Pending, Resolved};
    let feeds = Feeds::start(vec![Alertmanager::at(&peer.url), Alertmanager::at("http://127.0.0.1:1")], "http://here");
    let listed = || -> Vec<String> {
        let (_, text) = ask("GET", &format!("{}/api/v2/alerts", peer.url), Asking::default(), None).unwrap();
        let alerts: Value = serde_json::from_str(&text).unwrap();
        let name = |alert: &Value| {
            let word = |name: &str| alert["labels"][name].as_str().unwrap().to_string();
            format!("{} {} {}", word("alertname"), word("host"), word("severity"))
        };
        let mut names: Vec<String> = alerts.as_array().unwrap().iter().map(name).collect();
        names.sort();
        names
    };
    let wait_for = |expected: &[&str]| {
        let begun = Instant::now();
        while listed() != expected {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}: expected {expected:?}", listed());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let now = SystemClock.now();
    let of = |host: &str, severity: Severity, state: AlertState| {
        let mut alert = sample(NoticeStatus::Firing).alerts.remove(0);
        alert.labels.insert("host".to_string(), host.to_string());
        (alert.severity, alert.state, alert.fired_at) = (severity, state, Some(now));
        alert.resolved_at = (state == Resolved).then_some(SystemClock.now());
        alert
    };
    // More than one request takes.
    let mut many: Vec<Alert> = (0..300).map(|host| of(&format!("n{host}"), Severity::Info, Firing)).collect();
    many.push(of("pending", Severity::Info, Pending));
    feeds.set(many.clone());
    let begun = Instant::now();
    while listed().len() != 300 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{} of 300", listed().len());
        std::thread::sleep(Duration::from_millis(50));
    }
    let over: Vec<Alert> = (1..300).map(|host| of(&format!("n{host}"), Severity::Info, Resolved)).collect();
    feeds.set(over.iter().cloned().chain([of("n0", Severity::Info, Firing)]).collect());
    wait_for(&["sample n0 info"]);
    // A rise: the alert with the old severity is over there.
    feeds.set(vec![of("n0", Severity::Critical, Firing)]);
    wait_for(&["sample n0 critical"]);
    feeds.set(vec![of("n0", Severity::Critical, Resolved)]);
    wait_for(&[]);
    let (sent, failures) = feeds.counts();
    assert!(sent >= 601 && failures > 0, "{sent} {failures}");
    let said = feeds.take_problems();
    assert!(said.len() == 1 && said[0].contains("http://127.0.0.1:1/..."), "the other is not there: {said:?}");
}
