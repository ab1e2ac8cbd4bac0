//! What the contract of channels needs: a notice, and a real server that answers well, badly or not at all.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use tidewatch_model::{Alert, AlertState, Notice, NoticeStatus, Severity, Timestamp};

/// An alert of one host, in this state.
pub fn notice(state: AlertState) -> Notice {
    let labels =
        BTreeMap::from([("alertname".to_string(), "gpu_hot".to_string()), ("host".to_string(), "n1".to_string())]);
    let alert = Alert {
        rule_version: "v1".to_string(),
        key: vec!["host".to_string()],
        state,
        fired_at: Some(Timestamp::from_seconds(120)),
        resolved_at: (state == AlertState::Resolved).then_some(Timestamp::from_seconds(300)),
        last_match: Timestamp::from_seconds(240),
        annotations: BTreeMap::from([("summary".to_string(), "hot\u{1b}[2J".to_string())]),
        ..Alert::new(labels, Severity::Critical, Timestamp::from_seconds(60))
    };
    let status = if state == AlertState::Resolved { NoticeStatus::Resolved } else { NoticeStatus::Firing };
    Notice {
        notice_id: "abc".to_string(),
        receiver: "ops".to_string(),
        target: "ops".to_string(),
        group_key: "{}:{alertname=\"gpu_hot\", host=\"n1\"}".to_string(),
        group_labels: alert.labels.clone(),
        status,
        reason: "condition_met".to_string(),
        alerts: vec![alert],
        ts: Timestamp::from_seconds(120),
    }
}

/// A server on this machine. Answers one request with these bytes; returns what was asked.
pub fn server(answer: &'static str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://user:secret@{}/hook?token=secret", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let count = stream.read(&mut buffer).unwrap_or(0);
            request.extend_from_slice(&buffer[..count]);
            let text = String::from_utf8_lossy(&request).into_owned();
            let length = text
                .to_lowercase()
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
            let body = text.split_once("\r\n\r\n").map(|(_, body)| body.len());
            if count == 0 || length.zip(body).is_some_and(|(length, body)| body >= length) {
                break;
            }
        }
        match answer {
            // Hangs until the other side has had enough and closes.
            "hang" => drop(stream.read(&mut buffer)),
            answer => drop(stream.write_all(answer.as_bytes())),
        }
        String::from_utf8_lossy(&request).into_owned()
    });
    (url, thread)
}
