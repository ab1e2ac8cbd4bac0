//! Kafka behind the log port.
//!
//! One client reads every partition that is asked for, each through a queue of its own; one idempotent producer writes.
//! The positions are the caller's: nothing is ever committed to a consumer group, and an offset that the broker does not
//! have is an error, never a silent jump.

mod client;
mod log;
mod membership;
mod message;
mod options;
mod partition;

pub use log::KafkaLog;
pub use membership::KafkaMembership;
pub use options::{KafkaError, KafkaOptions, PROGRESS_GROUP};
