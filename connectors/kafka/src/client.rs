//! What both clients share: what happened to each record that was sent, and errors in the log port's words.

use std::io;
use std::sync::mpsc::Sender;

use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use tidewatch_model::ports::LogError;

/// What became of a record: its index in the append, and its offset or why it was not taken.
pub type Delivered = (usize, Result<i64, KafkaError>);

/// Hands delivery reports to the append that waits for them.
#[derive(Debug, Clone, Copy)]
pub struct Reports;

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<(usize, Sender<Delivered>)>;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: Self::DeliveryOpaque) {
        let (index, reports) = *opaque;
        let outcome = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        };
        // An append that gave up does not listen any more.
        drop(reports.send((index, outcome)));
    }
}

/// The code behind an error, where it has one.
pub fn code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    error.rdkafka_error_code()
}

/// Whether the cluster says that there is no such topic or partition.
pub fn is_unknown(error: &KafkaError) -> bool {
    matches!(
        code(error),
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}

/// An error as one of the network, at a place.
pub fn network(place: &str, error: impl ToString) -> LogError {
    LogError::Io { path: place.to_string(), source: io::Error::other(error.to_string()) }
}

/// The cluster did not answer in time.
pub fn timed_out(place: &str, what: &str) -> LogError {
    LogError::Io { path: place.to_string(), source: io::Error::new(io::ErrorKind::TimedOut, what.to_string()) }
}
