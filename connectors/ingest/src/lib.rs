//! What other systems' senders say: Prometheus' remote write, OTLP and StatsD, decoded into series of samples and lines of logs.
//!
//! Nothing here trusts a sender: sizes are looked at before anything is allocated, what is good of a request is taken, and what is
//! not is counted with its reason.

mod body;
mod histogram;
pub mod otlp;
mod protobuf;
pub mod remote_write;
mod series;
pub mod statsd;

pub use body::{Encoding, unpack};
pub use series::{Decoded, Point, Series, Times};

/// The largest body after it is unpacked.
pub const BODY_BYTES: usize = 32 << 20;
/// Samples, or lines, of one request.
pub const SAMPLES: usize = 100_000;
/// Bytes of the names and labels of one request, after references are followed, counted for each value.
pub const LABEL_BYTES: usize = 64 << 20;
/// Bytes of the name and the labels of one series.
pub const SERIES_BYTES: usize = 64 << 10;
/// Numbers, labels, spans or buckets that belong to one thing.
pub const NUMBERS: usize = 20_000;
/// Texts that a request refers to.
pub const SYMBOLS: usize = 500_000;

/// Why nothing of a request can be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// It is not what it should be.
    #[error("{0}")]
    Malformed(String),
    /// It is more than is read at once.
    #[error("{0}")]
    TooLarge(String),
}
