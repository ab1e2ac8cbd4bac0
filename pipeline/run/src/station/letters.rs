//! Dead letters: what can't be read is kept, with the reason, where people can find it.

use tidewatch_model::ports::{Log, LogError, Record};

use super::row_topic;

/// Puts a record on its topic's dead-letter topic: the original bytes, and where they came from and why they are there.
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
    log.append(&letters, 0, &[letter]).map(drop)
}
