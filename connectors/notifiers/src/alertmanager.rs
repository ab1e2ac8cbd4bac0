//! Alertmanagers that get every alert, as from Prometheus: they decide whom to tell.
//!
//! What fires is sent when it begins, and again each minute with a later end, so that it is over there soon after nobody renews it; what
//! is over is sent at once, and again for 15 minutes, since an Alertmanager forgets at a restart. All of them get everything. It
//! keeps nothing: after a restart everything is sent again, which changes nothing there.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tidewatch_model::alert::Labels;
use tidewatch_model::limits::RESOLVED_KEPT;
use tidewatch_model::ports::Delivery;
use tidewatch_model::{Alert, AlertState, Span, Timestamp};

use crate::http::{Client, Request};
use crate::payload::annotations;

/// When what goes on is sent again; Prometheus' `--rules.alert.resend-delay`.
const RESEND_DELAY: Span = Span::minutes(1);
/// Alerts in one request; a larger body is refused by proxies.
const ALERTS_IN_REQUEST: usize = 256;
/// How long what fires goes on there without being renewed: Prometheus' four times the delay.
const GOES_ON: Span = Span::minutes(4);

/// One Alertmanager, and what it was sent.
pub struct Feed {
    url: String,
    headers: Vec<(String, String)>,
    external_url: String,
    client: Client,
    /// By labels on the wire: the alert as it was sent last, and when.
    sent: BTreeMap<Labels, (Alert, Timestamp)>,
}

impl Feed {
    /// To the Alertmanager at a URL, with these headers.
    pub fn new(url: &str, headers: Vec<(String, String)>, external_url: &str, timeout: Option<Span>) -> Feed {
        let client = timeout.map_or_else(Client::default, Client::with_timeout);
        let url = format!("{}/api/v2/alerts", url.trim_end_matches('/'));
        Feed { url, headers, external_url: external_url.to_string(), client, sent: BTreeMap::new() }
    }

    /// Sends what is due. What is not taken is due again the next time.
    ///
    /// # Errors
    /// Why the first of those that were not taken was not.
    pub fn send(&mut self, alerts: &[Alert], now: Timestamp) -> Result<usize, String> {
        let due = self.due(alerts, now);
        let mut failure = Ok(due.len());
        for part in due.chunks(ALERTS_IN_REQUEST) {
            let bodies: Vec<Value> = part.iter().map(|(labels, alert)| self.body(labels, alert, now)).collect();
            let mut request = Request::json(&self.url, &Value::Array(bodies));
            request.headers.extend(self.headers.iter().cloned());
            match self.client.send("alertmanager", &request) {
                Delivery::Delivered => {
                    self.sent.extend(part.iter().map(|(labels, alert)| (labels.clone(), (alert.clone(), now))));
                }
                // 400 says that some of them are wrong, and the others were taken: they are not sent in a storm.
                Delivery::GiveUp { error } => {
                    self.sent.extend(part.iter().map(|(labels, alert)| (labels.clone(), (alert.clone(), now))));
                    failure = failure.and(Err(error));
                }
                Delivery::Retry { error, .. } => return failure.and(Err(error)),
            }
        }
        failure
    }

    /// What begins, ends, or is to be renewed.
    fn due(&mut self, alerts: &[Alert], now: Timestamp) -> Vec<(Labels, Alert)> {
        // An Alertmanager forgets at a restart: what is over is said again for a while.
        let is_recent = |alert: &Alert| alert.resolved_at.is_none_or(|ts| now - ts <= RESOLVED_KEPT);
        let told = alerts.iter().filter(|alert| match alert.state {
            AlertState::Firing => true,
            AlertState::Resolved => is_recent(alert),
            AlertState::Pending | AlertState::Inactive => false,
        });
        let known: BTreeMap<Labels, &Alert> = told.map(|alert| (alert.wire_labels(), alert)).collect();
        let mut due = Vec::new();
        for (labels, alert) in &known {
            let is_due = match self.sent.get(labels) {
                None => true,
                Some((sent, at)) => {
                    sent.state != alert.state || sent.fired_at != alert.fired_at || now - *at > RESEND_DELAY
                }
            };
            if is_due {
                due.push((labels.clone(), Alert::clone(alert)));
            }
        }
        // Another severity is another alert there: the old one is over. What is not judged here any more may be judged elsewhere: of it
        // nothing is said.
        let identities: BTreeSet<&Labels> = known.values().map(|alert| &alert.labels).collect();
        self.sent.retain(|labels, (sent, _)| {
            let is_known = known.contains_key(labels);
            let other = !is_known && sent.state == AlertState::Firing && identities.contains(&sent.labels);
            if other {
                let over = Alert { state: AlertState::Resolved, resolved_at: Some(now), ..sent.clone() };
                due.push((labels.clone(), over));
            }
            is_known || other
        });
        due
    }

    fn body(&self, labels: &Labels, alert: &Alert, now: Timestamp) -> Value {
        let ends_at = match alert.state {
            AlertState::Resolved => alert.resolved_at.unwrap_or(now).min(now),
            _ => now + GOES_ON,
        };
        json!({
            "labels": labels,
            "annotations": annotations(alert),
            "startsAt": alert.fired_at.unwrap_or(alert.active_at),
            "endsAt": ends_at,
            "generatorURL": self.external_url,
        })
    }
}

#[cfg(test)]
#[path = "alertmanager_tests.rs"]
mod tests;
