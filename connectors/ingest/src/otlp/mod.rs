//! OTLP over HTTP: metrics and logs, as protobuf and as JSON. <https://opentelemetry.io/docs/specs/otlp/>
//!
//! Both encodings become the same few structs, and those become series and lines. Names of metrics follow OpenTelemetry's rules
//! for Prometheus: `http.server.duration` in `s` is `http_server_duration_seconds`, and a counter ends in `_total`.
//! <https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>

mod binary;
mod logs;
mod metrics;
mod names;
mod parts;

pub use logs::{Lines, LogLine, decode_logs};
pub use metrics::decode_metrics;

use crate::IngestError;

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
}

impl Format {
    /// By the text of `Content-Type`.
    pub fn of(content_type: &str) -> Option<Format> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/x-protobuf" => Some(Format::Protobuf),
            "application/json" => Some(Format::Json),
            _ => None,
        }
    }
}

/// Messages within one request: a struct of ours is larger than the two bytes that an empty one takes.
const MESSAGES: usize = 400_000;

/// The JSON of a request, after it was counted what it would become.
fn from_json<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, IngestError> {
    let count = |wanted: u8| body.iter().filter(|byte| **byte == wanted).count();
    if count(b'{') > MESSAGES || count(b',') > 4 * MESSAGES {
        return Err(IngestError::TooLarge(format!(
            "more than {MESSAGES} objects, or four times as many values, in one request"
        )));
    }
    serde_json::from_slice(body).map_err(|error| IngestError::Malformed(format!("not the JSON of OTLP: {error}")))
}

/// The answer to a request that was taken in part or whole: `partial_success` says what was not.
///
/// `what` is `rejectedDataPoints` or `rejectedLogRecords`.
pub fn response(format: Format, what: &str, rejected: u64, problems: &[String]) -> Vec<u8> {
    let message = problems.join("; ");
    if rejected == 0 {
        return if format == Format::Json { b"{}".to_vec() } else { vec![] };
    }
    match format {
        Format::Json => serde_json::json!({"partialSuccess": {what: rejected.to_string(), "errorMessage": message}})
            .to_string()
            .into_bytes(),
        Format::Protobuf => {
            let inner = [&[0x08][..], &varint(rejected), &[0x12], &varint(message.len() as u64), message.as_bytes()];
            let inner = inner.concat();
            [&[0x0a][..], &varint(inner.len() as u64), &inner].concat()
        }
    }
}

/// The body of an error: a `google.rpc.Status` with this message.
pub fn status(format: Format, message: &str) -> Vec<u8> {
    match format {
        Format::Json => serde_json::json!({"message": message}).to_string().into_bytes(),
        Format::Protobuf => [&[0x12][..], &varint(message.len() as u64), message.as_bytes()].concat(),
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
