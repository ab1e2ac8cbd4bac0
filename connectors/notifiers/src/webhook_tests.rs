//! The contract of a channel, against a real server on this machine that answers well, badly or not at all.

#![allow(clippy::unwrap_used)]

use std::net::TcpListener;

use serde_json::{Value, json};
use tidewatch_model::{AlertState, Timestamp};

use super::*;
use crate::testing::{notice, server};
use crate::{ScriptedNotifier, TerminalNotifier};

fn attempt(answer: &'static str) -> (Delivery, String) {
    let (url, thread) = server(answer);
    let timeout = if answer == "hang" { Span::millis(200) } else { Span::seconds(10) };
    let delivery =
        WebhookNotifier::with_timeout("ops", &url, "http://here", timeout).notify(&notice(AlertState::Firing));
    (delivery, thread.join().unwrap())
}

#[test]
fn answers_decide_what_happens() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "delivered"),
        ("HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n", "delivered"),
        (
            "HTTP/1.1 429 Too Many\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n",
            "retry after 7s: webhook ops: HTTP 429",
        ),
        ("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", "retry: webhook ops: HTTP 500"),
        ("HTTP/1.1 503 Oh\r\nretry-after: soon\r\ncontent-length: 0\r\n\r\n", "retry: webhook ops: HTTP 503"),
        ("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", "give up: webhook ops: HTTP 404"),
        (
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
            "give up: webhook ops: HTTP 302",
        ),
        ("this is no HTTP\r\n\r\n", "retry: webhook ops: "),
        ("", "retry: webhook ops: "),
        ("hang", "retry: webhook ops: no answer in time"),
    ] {
        let (delivery, _) = attempt(answer);
        let found = match &delivery {
            Delivery::Delivered => "delivered".to_string(),
            Delivery::Retry { after: Some(after), error, .. } => format!("retry after {after}: {error}"),
            Delivery::Retry { after: None, error, .. } => format!("retry: {error}"),
            Delivery::GiveUp { error } => format!("give up: {error}"),
        };
        assert!(found.starts_with(expected), "{answer:?}: {found}");
        assert!(!found.contains("secret"), "{found}");
    }
}

#[test]
fn nobody_listens() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let delivery = WebhookNotifier::new("ops", &format!("http://{port}/x"), "").notify(&notice(AlertState::Firing));
    assert!(matches!(delivery, Delivery::Retry { .. }), "{delivery:?}");
}

#[test]
fn the_body_is_alertmanagers() {
    let (_, request) = attempt("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.to_lowercase().contains("idempotency-key: abc"), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    let labels = json!({"alertname": "gpu_hot", "host": "n1", "severity": "critical"});
    let annotations = json!({"summary": "hot\u{1b}[2J"});
    assert_eq!(
        body,
        json!({
            "version": "4",
            "groupKey": "{}:{alertname=\"gpu_hot\", host=\"n1\"}",
            "truncatedAlerts": 0,
            "status": "firing",
            "receiver": "ops",
            "groupLabels": {"alertname": "gpu_hot", "host": "n1"},
            "commonLabels": labels,
            "commonAnnotations": annotations,
            "externalURL": "http://here",
            "alerts": [{
                "status": "firing",
                "labels": labels,
                "annotations": annotations,
                "startsAt": "1970-01-01T00:02:00Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://here",
                "fingerprint": notice(AlertState::Firing).alerts[0].fingerprint(),
            }],
        })
    );
    let resolved = webhook_body(&notice(AlertState::Resolved), "", 0);
    assert_eq!(resolved["alerts"][0]["endsAt"], "1970-01-01T00:05:00Z");
    assert_eq!(resolved["status"], "resolved");
}

#[test]
fn a_terminal_line_can_not_be_taken_over() {
    let text = crate::payload::line(&notice(AlertState::Firing).alerts[0], "FIRING", Timestamp::from_seconds(120));
    assert_eq!(text, "00:02:00 FIRING   critical gpu_hot host=n1 · hot\\u{1b}[2J");
    assert_eq!(
        TerminalNotifier::new(Box::new(std::io::sink()), true).notify(&notice(AlertState::Firing)),
        Delivery::Delivered
    );
}

#[test]
fn a_script_is_followed() {
    let give_up = Delivery::GiveUp { error: "no".to_string() };
    let scripted = ScriptedNotifier::new("ops", [give_up.clone()]);
    assert_eq!(scripted.notify(&notice(AlertState::Firing)), give_up);
    assert_eq!(scripted.notify(&notice(AlertState::Firing)), Delivery::Delivered);
    assert_eq!(scripted.seen().len(), 2);
}
