//! A topic of the log: what is told, for other programs. One record per notice, the webhook's body.

use std::sync::Arc;

use tidewatch_model::limits::RECORD_BYTES;
use tidewatch_model::ports::{Delivery, Log, LogError, Notify, Record, TopicOptions};
use tidewatch_model::{Notice, Span};

use crate::payload::webhook_body;

/// How long a topic that is made here keeps notices.
const KEPT: Span = Span::days(7);
/// What is left of a record for its key and headers.
const SPARE_BYTES: usize = 64 << 10;

/// Appends notices to a topic.
pub struct TopicNotifier {
    target: String,
    topic: String,
    log: Arc<dyn Log>,
    external_url: String,
}

impl TopicNotifier {
    /// To a topic of this log; it is made when it is not there.
    pub fn new(target: &str, topic: &str, log: Arc<dyn Log>, external_url: &str) -> Self {
        let (target, topic) = (target.to_string(), topic.to_string());
        TopicNotifier { target, topic, log, external_url: external_url.to_string() }
    }

    /// The body, with as many alerts as a record takes.
    fn body(&self, notice: &Notice) -> Vec<u8> {
        let mut kept = 0;
        loop {
            let body = webhook_body(notice, &self.external_url, kept).to_string().into_bytes();
            let shown = if kept == 0 { notice.alerts.len() } else { kept };
            if body.len() + SPARE_BYTES <= RECORD_BYTES || shown <= 1 {
                return body;
            }
            kept = shown / 2;
        }
    }

    fn append(&self, notice: &Notice) -> Result<(), LogError> {
        let options = TopicOptions { partitions: 1, compacted: false, retention: Some(KEPT), retention_bytes: None };
        self.log.create_topic(&self.topic, &options)?;
        let record = Record {
            key: notice.group_key.clone().into_bytes(),
            headers: vec![("Idempotency-Key".to_string(), notice.notice_id.clone().into_bytes())],
            value: Some(self.body(notice)),
            timestamp: notice.ts,
        };
        self.log.append(&self.topic, 0, &[record]).map(drop)
    }
}

impl Notify for TopicNotifier {
    fn target(&self) -> &str {
        &self.target
    }

    fn notify(&self, notice: &Notice) -> Delivery {
        match self.append(notice) {
            Ok(()) => Delivery::Delivered,
            Err(error @ LogError::TooLarge { .. }) => Delivery::GiveUp { error: format!("{}: {error}", self.target) },
            Err(error) => Delivery::Retry { after: None, error: format!("{}: {error}", self.target), perhaps: true },
        }
    }

    fn preview(&self, notice: &Notice) -> String {
        let body = webhook_body(notice, &self.external_url, 0);
        format!("topic {}, key {}\n{body:#}", self.topic, notice.group_key)
    }
}
