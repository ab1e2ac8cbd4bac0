//! A webhook: an HTTP POST in Alertmanager's format.

use tidewatch_model::ports::{Delivery, Notify};
use tidewatch_model::{Notice, Span};

use crate::http::{Client, Request};
use crate::payload::webhook_body;

/// Posts notices to one URL.
pub struct WebhookNotifier {
    target: String,
    url: String,
    headers: Vec<(String, String)>,
    max_alerts: usize,
    external_url: String,
    client: Client,
}

impl WebhookNotifier {
    /// To `url`, under the target's name; each attempt takes at most the limit's time.
    pub fn new(target: &str, url: &str, external_url: &str) -> Self {
        WebhookNotifier {
            target: target.to_string(),
            url: url.to_string(),
            headers: vec![],
            max_alerts: 0,
            external_url: external_url.to_string(),
            client: Client::default(),
        }
    }

    /// The same with another limit of time per attempt.
    pub fn with_timeout(target: &str, url: &str, external_url: &str, timeout: Span) -> Self {
        WebhookNotifier { client: Client::with_timeout(timeout), ..Self::new(target, url, external_url) }
    }

    /// The same with these headers, and at most so many alerts in a body; zero: all.
    pub fn with_options(self, headers: Vec<(String, String)>, max_alerts: usize) -> Self {
        WebhookNotifier { headers, max_alerts, ..self }
    }
}

impl Notify for WebhookNotifier {
    fn target(&self) -> &str {
        &self.target
    }

    fn notify(&self, notice: &Notice) -> Delivery {
        let body = webhook_body(notice, &self.external_url, self.max_alerts);
        let mut request = Request::json(&self.url, &body);
        request.headers.push(("Idempotency-Key".to_string(), notice.notice_id.clone()));
        request.headers.extend(self.headers.iter().cloned());
        self.client.send(&format!("webhook {}", self.target), &request)
    }

    fn preview(&self, notice: &Notice) -> String {
        Request::json(&self.url, &webhook_body(notice, &self.external_url, self.max_alerts)).preview()
    }
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
