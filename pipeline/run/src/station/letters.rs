//! Dead letters: what can't be read is kept, with the reason, where people can find it.

use tidewatch_model::limits::RECORD_BYTES;
use tidewatch_model::ports::{Log, LogError, Record};

use super::row_topic;

/// The header of a letter that was cut: how many bytes the message had.
pub const CUT: &str = "tidewatch-dlq-cut";

/// What the log itself adds to a record, and more.
const ROOM: usize = 1_024;

/// Puts a record on its topic's dead-letter topic: the original bytes, and where they came from and why they are there. Of one
/// that no log of ours takes, the letter has the beginning, and says how long the whole is.
pub fn dead_letter(
    log: &dyn Log,
    topic: &str,
    partition: u32,
    offset: u64,
    record: &Record,
    reason: &str,
) -> Result<(), LogError> {
    let letters = format!("{topic}.dlq");
    log.create_topic(&letters, &row_topic(1))?;
    let mut letter = record.clone();
    let facts = [
        ("topic", topic.to_string()),
        ("partition", partition.to_string()),
        ("offset", offset.to_string()),
        ("error", reason.to_string()),
    ];
    letter.headers.extend(facts.map(|(name, value)| (format!("tidewatch-dlq-{name}"), value.into_bytes())));
    let around: usize = letter.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let room = RECORD_BYTES.saturating_sub(around + letter.key.len() + ROOM);
    if let Some(value) = letter.value.as_mut().filter(|value| value.len() > room) {
        letter.headers.push((CUT.to_string(), value.len().to_string().into_bytes()));
        value.truncate(room);
    }
    log.append(&letters, 0, &[letter]).map(drop)
}
