//! A webhook: an HTTP POST in Alertmanager's format.

use std::time::Duration;

use tidewatch_model::limits::NOTIFY_TIMEOUT;
use tidewatch_model::ports::{Delivery, Notify};
use tidewatch_model::{Notice, Span};
use ureq::Agent;

use crate::payload::webhook_body;

/// Posts notices to one URL. No redirects are followed: the operator named this address and no other.
pub struct WebhookNotifier {
    target: String,
    url: String,
    external_url: String,
    agent: Agent,
}

impl WebhookNotifier {
    /// To `url`, under the target's name; each attempt takes at most the limit's time.
    pub fn new(target: &str, url: &str, external_url: &str) -> Self {
        Self::with_timeout(target, url, external_url, NOTIFY_TIMEOUT)
    }

    /// The same with another limit of time per attempt.
    pub fn with_timeout(target: &str, url: &str, external_url: &str, timeout: Span) -> Self {
        let agent = Agent::config_builder()
            .timeout_global(Some(Duration::from_micros(timeout.0.max(0) as u64)))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("tidewatch/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        WebhookNotifier {
            target: target.to_string(),
            url: url.to_string(),
            external_url: external_url.to_string(),
            agent,
        }
    }
}

impl Notify for WebhookNotifier {
    fn target(&self) -> &str {
        &self.target
    }

    fn notify(&self, notice: &Notice) -> Delivery {
        let body = webhook_body(notice, &self.external_url).to_string();
        let request = self
            .agent
            .post(&self.url)
            .header("Content-Type", "application/json")
            .header("Idempotency-Key", &notice.notice_id);
        let response = match request.send(body) {
            Ok(response) => response,
            // The error's own text may repeat the URL, and the URL may be a secret.
            Err(error) => {
                let perhaps = !matches!(error, ureq::Error::HostNotFound | ureq::Error::ConnectionFailed);
                let error = format!("webhook {}: {}", self.target, kind_of(&error));
                return Delivery::Retry { after: None, error, perhaps };
            }
        };
        let status = response.status().as_u16();
        let error = format!("webhook {}: HTTP {status}", self.target);
        match status {
            200..=299 => Delivery::Delivered,
            408 | 429 | 500..=599 => {
                let after =
                    response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse::<i64>().ok());
                let after = after.map(|seconds| Span::seconds(seconds.clamp(0, 3_600)));
                Delivery::Retry { after, error, perhaps: status >= 500 }
            }
            _ => Delivery::GiveUp { error },
        }
    }
}

fn kind_of(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "no answer in time".to_string(),
        ureq::Error::HostNotFound => "the host's name is not known".to_string(),
        ureq::Error::Io(error) => error.kind().to_string(),
        ureq::Error::ConnectionFailed => "no connection".to_string(),
        ureq::Error::Protocol(_) => "the answer is not HTTP".to_string(),
        _ => "the request failed".to_string(),
    }
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
