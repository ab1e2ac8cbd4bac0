//! Records as Kafka's messages, and back.

use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext};
use tidewatch_model::Timestamp;
use tidewatch_model::ports::Record;

use crate::client::Reports;

/// What comes back with the report about a message.
type Opaque = <Reports as ProducerContext>::DeliveryOpaque;

/// A record as a message. A record without a key has none in Kafka; one without a value is a tombstone.
pub fn to_message<'a>(
    name: &'a str,
    partition: u32,
    record: &'a Record,
    opaque: Opaque,
) -> BaseRecord<'a, [u8], [u8], Opaque> {
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
    for (name, value) in &record.headers {
        headers = headers.insert(Header { key: name, value: Some(value) });
    }
    let mut message = BaseRecord::with_opaque_to(name, opaque)
        .partition(partition as i32)
        // Zero means now to librdkafka.
        .timestamp((record.timestamp.0 / 1_000).max(1))
        .headers(headers);
    if !record.key.is_empty() {
        message = message.key(record.key.as_slice());
    }
    match &record.value {
        Some(value) => message.payload(value.as_slice()),
        None => message,
    }
}

/// A message as a record.
pub fn to_record(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Record {
        key: message.key().unwrap_or_default().to_vec(),
        headers: headers.map(|header| (header.key.to_string(), header.value.unwrap_or_default().to_vec())).collect(),
        value: message.payload().map(<[u8]>::to_vec),
        timestamp: Timestamp(message.timestamp().to_millis().unwrap_or(0).saturating_mul(1_000)),
    }
}
