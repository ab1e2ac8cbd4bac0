//! Why a frame was not accepted.

/// Why a frame could not be made or read. None of them is the process's fault: a bad frame is a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A header is missing, doubled or not of its form.
    #[error("header {name}: {problem}")]
    Header {
        /// The header.
        name: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// Headers, key or payload were changed on the way.
    #[error("checksum {found:08x} does not fit the content, which has {expected:08x}")]
    Checksum {
        /// Of the content.
        expected: u32,
        /// In the header.
        found: u32,
    },
    /// The payload is not the narrow form of Arrow IPC that is accepted.
    #[error("payload, byte {offset}: {problem}")]
    Guard {
        /// Where in the payload.
        offset: usize,
        /// What is wrong.
        problem: String,
    },
    /// Arrow could not decode what the guard let through.
    #[error("payload can't be decoded: {0}")]
    Decode(String),
    /// Headers and payload say different things.
    #[error("{what}: the header says {header}, the payload {payload}")]
    Disagreement {
        /// What they disagree about.
        what: &'static str,
        /// The header's word.
        header: String,
        /// The payload's.
        payload: String,
    },
    /// The frame is larger than a log takes.
    #[error("a frame of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}
