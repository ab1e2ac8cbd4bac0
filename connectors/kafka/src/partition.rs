//! Reading one partition: a queue of its own, and where it stands.

use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use tidewatch_model::ports::Record;

use crate::client::{Heard, code};
use crate::message::to_record;

/// The client that reads.
pub type Reader = BaseConsumer<Heard>;

/// A partition that is being read.
pub struct Reading {
    queue: PartitionQueue<Heard>,
    /// The offset that comes next.
    pub next: u64,
    /// Whether the broker said that nothing comes after the last record read.
    at_end: bool,
    /// The end of the partition when it was asked last.
    pub end: u64,
    /// When that was.
    pub end_at: Instant,
}

/// What the queue gave.
pub enum Polled {
    /// A record.
    Record(u64, Record),
    /// There is nothing after the last record, for now.
    End,
    /// Nothing came within the time.
    Nothing,
    /// The broker does not have the offset.
    OutOfRange,
    /// Something else.
    Failed(KafkaError),
}

impl Reading {
    /// Reads from an offset on; the partition's end is known from just now.
    pub fn new(queue: PartitionQueue<Heard>, next: u64, end: u64) -> Self {
        Reading { queue, next, at_end: next == end, end, end_at: Instant::now() }
    }

    /// Whether the last that was heard is that nothing more is there.
    pub fn at_end(&self) -> bool {
        self.at_end
    }

    /// The next record, waiting for it at most so long.
    pub fn poll(&mut self, wait: Duration) -> Polled {
        let deadline = Instant::now() + wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let polled = match self.queue.poll(left) {
                None => return Polled::Nothing,
                Some(Ok(message)) if (message.offset() as u64) < self.next => continue,
                Some(Ok(message)) => Polled::Record(message.offset() as u64, to_record(&message)),
                Some(Err(KafkaError::PartitionEOF(_))) => Polled::End,
                Some(Err(error)) => match code(&error) {
                    Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => Polled::OutOfRange,
                    _ => Polled::Failed(error),
                },
            };
            match &polled {
                Polled::Record(offset, _) => {
                    self.next = offset + 1;
                    self.end = self.end.max(self.next);
                    self.at_end = false;
                }
                Polled::End => self.at_end = true,
                _ => {}
            }
            return polled;
        }
    }
}
