//! The log port's contract, and Kafka's own failures, on a real cluster.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tidewatch_kafka::{KafkaLog, KafkaOptions};
use tidewatch_model::Timestamp;
use tidewatch_model::ports::{Log, LogError, Record, TopicOptions};
use tidewatch_tests::kafka::Cluster;

/// One broker for all tests of this file; each test has topics of its own by a prefix.
fn one_broker() -> Option<String> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| Cluster::start(1, &[]));
    cluster.as_ref().map(Cluster::brokers)
}

fn connect(brokers: &str) -> KafkaLog {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let prefix = format!("t{}-", NUMBER.fetch_add(1, Ordering::SeqCst));
    KafkaLog::connect(KafkaOptions { brokers: brokers.to_string(), prefix, ..KafkaOptions::default() }).unwrap()
}

/// Another client on the same topics.
fn connect_same(brokers: &str, log: &KafkaLog) -> KafkaLog {
    let options = KafkaOptions { brokers: brokers.to_string(), ..log.options().clone() };
    KafkaLog::connect(options).unwrap()
}

fn record(number: i64) -> Record {
    Record {
        key: b"n1".to_vec(),
        headers: vec![],
        value: Some(number.to_le_bytes().to_vec()),
        timestamp: Timestamp::from_seconds(1_767_225_600 + number),
    }
}

fn topic(partitions: u32) -> TopicOptions {
    TopicOptions { partitions, compacted: false, retention: None, retention_bytes: None }
}

#[test]
fn kafka_keeps_the_contract() {
    let Some(brokers) = one_broker() else { return };
    tidewatch_log::contract::run(&mut || Box::new(connect(&brokers)));
}

#[test]
fn an_offset_that_retention_took_is_said_and_not_jumped_over() {
    let Some(brokers) = one_broker() else { return };
    let log = connect(&brokers);
    log.create_topic("t", &topic(1)).unwrap();
    log.append("t", 0, &(0..10).map(record).collect::<Vec<_>>()).unwrap();
    assert_eq!(log.read("t", 0, 0, 1).unwrap().next, 1);
    log.delete_before("t", 0, 6).unwrap();
    let again = connect_same(&brokers, &log);
    match again.read("t", 0, 1, 1_000) {
        Err(LogError::OutOfRange { available, offset: 1, .. }) => assert_eq!(available, 6..10),
        other => panic!("{other:?}"),
    }
    assert_eq!(again.read("t", 0, 6, 1_000).unwrap().records.len(), 4);
}

#[test]
fn a_topic_that_was_made_anew_is_not_taken_for_the_old_one() {
    let Some(brokers) = one_broker() else { return };
    let log = connect(&brokers);
    log.create_topic("t", &topic(1)).unwrap();
    log.append("t", 0, &(0..10).map(record).collect::<Vec<_>>()).unwrap();
    log.delete_topic("t").unwrap();
    let again = connect_same(&brokers, &log);
    again.create_topic("t", &topic(1)).unwrap();
    again.append("t", 0, &[record(1)]).unwrap();
    assert!(matches!(again.read("t", 0, 10, 1_000), Err(LogError::OutOfRange { .. })));
}

#[test]
fn settings_are_checked_by_name() {
    let refuse = |name: &str, value: &str| {
        let settings = vec![(name.to_string(), value.to_string())];
        KafkaLog::connect(KafkaOptions { settings, ..KafkaOptions::default() }).err().unwrap().to_string()
    };
    assert!(refuse("socket.timeout.ms", "soon").starts_with("Kafka setting socket.timeout.ms: "));
    // What was meant for a secret may stand under any name.
    let typo = refuse("sasl.passwrod", "hunter2");
    assert!(typo.contains("sasl.passwrod") && !typo.contains("hunter2"), "{typo}");
    assert!(!refuse("ssl.key.pem", "hunter2").contains("hunter2"));
}

#[test]
fn a_cluster_that_is_not_there_is_an_error_and_not_a_wait_for_ever() {
    let settings = vec![("message.timeout.ms".to_string(), "1000".to_string())];
    let options = KafkaOptions { brokers: "127.0.0.1:1".to_string(), settings, ..KafkaOptions::default() };
    let log = KafkaLog::connect(options).unwrap();
    assert!(matches!(log.range("t", 0), Err(LogError::Io { .. })));
    assert!(matches!(log.append("t", 0, &[record(1)]), Err(LogError::Io { .. })));
}

#[test]
fn nothing_acknowledged_is_lost_when_brokers_die() {
    let Some(mut cluster) = Cluster::start(3, &[]) else { return };
    let log = connect(&cluster.brokers());
    log.create_topic("t", &topic(1)).unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        for number in 0..50 {
            let number = round * 50 + number;
            if number % 50 == 20 {
                cluster.kill(round as usize);
            }
            // Tried again until it is taken, as every sender of ours does.
            while log.append("t", 0, &[record(number)]).is_err() {}
            acknowledged.push(number);
        }
        cluster.restart(round as usize);
    }
    let reader = connect_same(&cluster.brokers(), &log);
    let mut found = Vec::new();
    let mut from = 0;
    while !found.contains(acknowledged.last().unwrap()) {
        let batch = reader.read("t", 0, from, 1 << 20).unwrap();
        from = batch.next;
        let numbers = batch.records.iter().map(|(_, record)| record.value.as_ref().unwrap()[..8].try_into().unwrap());
        found.extend(numbers.map(i64::from_le_bytes));
    }
    found.dedup();
    assert_eq!(found, acknowledged, "each, in order; a send that was repeated may stand twice, side by side");
}
