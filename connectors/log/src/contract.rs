//! What every log must do, whoever implements it: run against the local log and the scripted one, and against Kafka.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tidewatch_model::Timestamp;
use tidewatch_model::limits::RECORD_BYTES;
use tidewatch_model::ports::{Log, LogError, Record, TopicOptions};

fn options(partitions: u32) -> TopicOptions {
    TopicOptions { partitions, compacted: false, retention: None, retention_bytes: None }
}

fn record(number: usize, bytes: usize) -> Record {
    Record {
        key: format!("key-{}", number % 3).into_bytes(),
        headers: vec![("number".to_string(), number.to_string().into_bytes()), ("empty".to_string(), vec![])],
        value: Some(vec![number as u8; bytes]),
        timestamp: Timestamp::from_seconds(number as i64 + 1),
    }
}

/// Reads everything from an offset on, in reads of a size.
fn read_all(log: &dyn Log, topic: &str, mut from: u64, bytes: usize) -> Vec<(u64, Record)> {
    let mut records = Vec::new();
    loop {
        let batch = log.read(topic, 0, from, bytes).unwrap();
        assert!(batch.corrupt.is_empty());
        if batch.records.is_empty() && batch.next == from {
            assert_eq!(batch.end, from, "nothing is left");
            return records;
        }
        assert!(batch.next > from, "a read moves on");
        from = batch.next;
        records.extend(batch.records);
    }
}

/// Runs the whole contract; `make` gives an empty log each time.
///
/// # Panics
/// When the log breaks the contract.
pub fn run(make: &mut dyn FnMut() -> Box<dyn Log>) {
    order_and_content(make().as_ref());
    topics(make().as_ref());
    offsets(make().as_ref());
    sizes(make().as_ref());
}

fn order_and_content(log: &dyn Log) {
    log.create_topic("tidewatch.host", &options(1)).unwrap();
    assert_eq!(read_all(log, "tidewatch.host", 0, 100), []);
    let records: Vec<Record> = (0..50).map(|number| record(number, number * 7)).collect();
    let mut offsets = Vec::new();
    for part in records.chunks(7) {
        offsets.push(log.append("tidewatch.host", 0, part).unwrap());
    }
    assert!(offsets.windows(2).all(|pair| pair[0] < pair[1]));
    log.sync().unwrap();
    for bytes in [1, 300, 1 << 20] {
        let read = read_all(log, "tidewatch.host", offsets[0], bytes);
        assert!(read.windows(2).all(|pair| pair[0].0 < pair[1].0), "offsets ascend");
        assert_eq!(read.iter().map(|(_, record)| record).collect::<Vec<_>>(), records.iter().collect::<Vec<_>>());
    }
    let tombstone = Record { value: None, ..record(1, 0) };
    let at = log.append("tidewatch.host", 0, std::slice::from_ref(&tombstone)).unwrap();
    assert_eq!(read_all(log, "tidewatch.host", at, 100), [(at, tombstone)]);
    assert_eq!(log.append("tidewatch.host", 0, &[]).unwrap(), at + 1, "nothing appended is nothing");
}

fn topics(log: &dyn Log) {
    assert!(log.topics().unwrap().is_empty());
    log.create_topic("b", &options(2)).unwrap();
    log.create_topic("a", &options(1)).unwrap();
    log.create_topic("b", &options(5)).unwrap();
    assert_eq!(log.topics().unwrap(), ["a", "b"]);
    assert_eq!(log.partitions("b").unwrap(), 2, "a topic that exists is left as it is");
    log.append("b", 1, &[record(1, 1)]).unwrap();
    assert_eq!(log.range("b", 0).unwrap().end - log.range("b", 0).unwrap().start, 0);
    for (topic, partition) in [("nothing", 0), ("b", 2)] {
        assert!(
            matches!(log.read(topic, partition, 0, 1), Err(LogError::NoSuchPartition { .. })),
            "{topic}/{partition}"
        );
        assert!(matches!(log.append(topic, partition, &[record(1, 1)]), Err(LogError::NoSuchPartition { .. })));
    }
}

fn offsets(log: &dyn Log) {
    log.create_topic("t", &options(1)).unwrap();
    let records: Vec<Record> = (0..20).map(|number| record(number, 10)).collect();
    let first = log.append("t", 0, &records).unwrap();
    let range = log.range("t", 0).unwrap();
    assert!(range.start <= first && range.end > first);
    assert!(log.read("t", 0, range.end, 100).unwrap().records.is_empty(), "the end is a place to wait at");
    assert!(matches!(log.read("t", 0, range.end + 1, 100), Err(LogError::OutOfRange { .. })));
    let from = log.offset_for_time("t", 0, Timestamp::from_seconds(13)).unwrap();
    let later: Vec<Record> = read_all(log, "t", from, 100).into_iter().map(|(_, record)| record).collect();
    assert!(records[12..].iter().all(|record| later.contains(record)), "early, never late");
    assert_eq!(log.offset_for_time("t", 0, Timestamp::from_seconds(99)).unwrap(), range.end);
}

fn sizes(log: &dyn Log) {
    log.create_topic("t", &options(1)).unwrap();
    let refused = log.append("t", 0, &[record(1, RECORD_BYTES + 1)]);
    assert!(matches!(refused, Err(LogError::TooLarge { .. })), "{refused:?}");
    let large = record(1, RECORD_BYTES - 4096);
    let at = log.append("t", 0, std::slice::from_ref(&large)).unwrap();
    assert_eq!(log.read("t", 0, at, 1).unwrap().records, [(at, large)]);
}

#[cfg(test)]
mod tests {
    use crate::{LocalLog, LocalLogOptions, ScriptedLog};

    #[test]
    fn the_scripted_log_keeps_the_contract() {
        super::run(&mut || Box::new(ScriptedLog::default()));
    }

    #[test]
    fn the_local_log_keeps_the_contract() {
        for segment_bytes in [200, 8 << 20] {
            let folder = tempfile::tempdir().unwrap();
            let mut count = 0;
            super::run(&mut || {
                count += 1;
                let options = LocalLogOptions { segment_bytes, ..LocalLogOptions::default() };
                Box::new(LocalLog::open(&folder.path().join(count.to_string()), options).unwrap())
            });
        }
    }
}
