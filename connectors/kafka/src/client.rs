//! What both clients share: what happened to each record that was sent, and errors in the log port's words.

use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use tidewatch_model::ports::LogError;

/// What became of a record: its index in the append, and its offset or why it was not taken.
pub type Delivered = (usize, Result<i64, KafkaError>);

/// What librdkafka said last of its own accord: that a password was refused, or that a broker is down. A call that fails only
/// says that its time is over.
#[derive(Debug, Clone, Default)]
pub struct Heard(Arc<Mutex<Option<(Instant, String)>>>);

/// How long what was heard explains failures.
const EXPLAINS: Duration = Duration::from_secs(30);

impl Heard {
    /// What was heard a short while ago.
    pub fn recent(&self) -> Option<String> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.as_ref().filter(|(at, _)| at.elapsed() < EXPLAINS).map(|(_, reason)| reason.clone())
    }

    fn keep(&self, error: &KafkaError, reason: &str) {
        // That all brokers are down is the consequence of what was said before it.
        let is_consequence = code(error) == Some(RDKafkaErrorCode::AllBrokersDown);
        if !is_consequence || self.recent().is_none() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), reason.to_string()));
        }
    }
}

impl ClientContext for Heard {
    fn error(&self, error: KafkaError, reason: &str) {
        self.keep(&error, reason);
    }
}

impl ConsumerContext for Heard {}

/// Hands delivery reports to the append that waits for them.
#[derive(Debug, Clone)]
pub struct Reports(pub Heard);

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        self.0.keep(&error, reason);
    }
}

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

/// An error as one of the network, at a place, with what was heard of its cause.
pub fn network(place: &str, error: impl ToString, heard: &Heard) -> LogError {
    let error = error.to_string();
    let text = match heard.recent().filter(|reason| *reason != error) {
        Some(reason) => format!("{error} ({reason})"),
        None => error,
    };
    LogError::Io { path: place.to_string(), source: io::Error::other(text) }
}

/// The cluster did not answer in time.
pub fn timed_out(place: &str, what: &str) -> LogError {
    LogError::Io { path: place.to_string(), source: io::Error::new(io::ErrorKind::TimedOut, what.to_string()) }
}
