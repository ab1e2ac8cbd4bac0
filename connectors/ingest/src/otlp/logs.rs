//! OTLP's logs as lines.

use std::collections::BTreeMap;

use tidewatch_model::Timestamp;

use super::binary::Reader;
use super::parts::{LogRecord, LogsRequest};
use super::{Format, from_json};
use crate::series::Gathering;
use crate::{IngestError, Times};

/// The longest message that is kept, in bytes.
const MESSAGE_BYTES: usize = 64 << 10;
/// The longest field, and all of them together.
const FIELD_BYTES: usize = 8 << 10;
const FIELDS_BYTES: usize = 256 << 10;

/// A line: what a row of `log` holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When.
    pub ts: Timestamp,
    /// `host.name`, else `k8s.node.name`; empty when neither is said.
    pub host: String,
    /// `service.name`, else the logger's name.
    pub source: String,
    /// In small letters: `trace`, `debug`, `info`, `warning`, `error`, `critical`, or as the sender says it.
    pub level: Option<String>,
    /// The body: a text, or JSON.
    pub message: String,
    /// Attributes, the trace and the span.
    pub fields: BTreeMap<String, String>,
}

/// The lines of a request, and what could not be taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines {
    /// The lines.
    pub lines: Vec<LogLine>,
    /// Records that are no lines.
    pub rejected: u64,
    /// Why, for the first of them.
    pub problems: Vec<String>,
}

/// Decodes a request with logs. `now` is the time of a record that says none.
///
/// # Errors
/// It is no such request, or larger than is read at once.
pub fn decode_logs(body: &[u8], format: Format, times: Times, now: Timestamp) -> Result<Lines, IngestError> {
    let request: LogsRequest = match format {
        Format::Protobuf => Reader::default().logs(body)?,
        Format::Json => from_json(body)?,
    };
    let mut gathering = Gathering::new(times);
    let mut lines = Vec::new();
    for of in request.resource_logs {
        let of_resource = |key: &str| {
            let found = of.resource.attributes.iter().find(|pair| pair.key == key);
            found.map(|pair| cut(pair.value.text(), FIELD_BYTES)).filter(|text| !text.is_empty())
        };
        let host = of_resource("host.name").or_else(|| of_resource("k8s.node.name")).unwrap_or_default();
        let service = of_resource("service.name");
        for scope in of.scope_logs {
            let source = service.clone().unwrap_or_else(|| cut(scope.scope.name.clone(), FIELD_BYTES));
            for record in scope.log_records {
                gathering.spend_rows(1)?;
                let line = line(&host, &source, record, now);
                let fields = line.fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
                gathering.spend_bytes(fields + line.host.len() + line.source.len())?;
                if gathering.has_good_time("a log record", line.ts) {
                    lines.push(line);
                }
            }
        }
    }
    Ok(Lines { lines, rejected: gathering.decoded.rejected, problems: gathering.decoded.problems })
}

fn line(host: &str, source: &str, record: LogRecord, now: Timestamp) -> LogLine {
    let nanos = if record.time_unix_nano > 0 { record.time_unix_nano } else { record.observed_time_unix_nano };
    let mut fields: BTreeMap<String, String> =
        record.attributes.iter().map(|pair| (pair.key.clone(), pair.value.text())).collect();
    keep_within(&mut fields);
    let named = [("trace_id", record.trace_id), ("span_id", record.span_id), ("event_name", record.event_name)];
    fields
        .extend(named.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| (key.to_string(), value)));
    LogLine {
        ts: if nanos > 0 { Timestamp((nanos / 1_000) as i64) } else { now },
        host: host.to_string(),
        source: source.to_string(),
        level: level(record.severity_number, &record.severity_text),
        message: cut(record.body.text(), MESSAGE_BYTES),
        fields,
    }
}

/// A line is a row, and must fit a record: of its fields the first are kept, each cut.
fn keep_within(fields: &mut BTreeMap<String, String>) {
    let mut left = FIELDS_BYTES;
    fields.retain(|name, value| {
        *value = cut(std::mem::take(value), FIELD_BYTES);
        let size = name.len() + value.len();
        let keeps = size <= left;
        left -= if keeps { size } else { 0 };
        keeps
    });
}

fn cut(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// By the number's range, which the specification orders; by the sender's word when there is none.
fn level(number: i64, text: &str) -> Option<String> {
    let known = match number {
        1..=4 => "trace",
        5..=8 => "debug",
        9..=12 => "info",
        13..=16 => "warning",
        17..=20 => "error",
        21..=24 => "critical",
        _ if text.is_empty() => return None,
        _ => return Some(text.to_lowercase()),
    };
    Some(known.to_string())
}
