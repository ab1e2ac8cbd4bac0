//! Rows from a real Kafka through an engine with ten rules into the lake, beside a bare consumer that decodes Arrow and does
//! nothing else, on the same topics, at three sizes of messages.
//!
//! `cargo build --release --workspace && target/release/kafka [DURATION [ROWS_A_MESSAGE ..]]`

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tidewatch_benches::{TOPICS, cost_of, measure, print_line, print_machine, program, write_sorted};
use tidewatch_tests::kafka::Cluster;

const RULES: [&str; 10] = [
    "gpu_overheating",
    "gpu_power_capped",
    "gpu_temperature_margin",
    "gpu_thermal_throttle",
    "gpu_ecc_uncorrectable",
    "gpu_recovery_action",
    "gpu_row_remap_failed",
    "gpu_row_remap_pending",
    "gpu_lost",
    "gpu_xid_critical",
];

/// Consumes everything under a prefix and decodes it; returns the rows, and the batches of samples when they are asked for.
fn bare(brokers: &str, prefix: &str, keep: bool) -> (u64, Vec<RecordBatch>) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "bare").set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().unwrap();
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(10)).unwrap();
    let mut list = TopicPartitionList::new();
    for topic in metadata
        .topics()
        .iter()
        .filter(|topic| topic.name().strip_prefix(prefix).is_some_and(|name| TOPICS.contains(&name)))
    {
        for partition in topic.partitions() {
            list.add_partition_offset(topic.name(), partition.id(), Offset::Beginning).unwrap();
        }
    }
    consumer.assign(&list).unwrap();
    let (mut left, mut rows, mut kept) = (list.count(), 0, vec![]);
    while left > 0 {
        match consumer.poll(Duration::from_secs(10)) {
            Some(Ok(message)) => {
                let mut buffer = Buffer::from(message.payload().unwrap());
                let batch = StreamDecoder::new().decode(&mut buffer).unwrap().unwrap();
                rows += batch.num_rows() as u64;
                if keep && message.topic().ends_with(TOPICS[0]) {
                    kept.push(batch);
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
            Some(Err(error)) => panic!("{error}"),
            None => panic!("the broker does not answer"),
        }
    }
    (rows, kept)
}

/// What a lake costs at least: all rows consumed and decoded, sorted once and written once.
fn bare_lake(brokers: &str, prefix: &str, path: &Path) -> u64 {
    let (rows, batches) = bare(brokers, prefix, true);
    write_sorted(batches, path);
    rows
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let duration = arguments.next().unwrap_or_else(|| "10m".to_string());
    let sizes: Vec<u32> = arguments.map(|size| size.parse().unwrap()).collect();
    print_machine();
    let cluster = Cluster::start(1, &[]).unwrap();
    let brokers = cluster.brokers();
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql/rules/gpu");
    for (rows_each, nodes) in [(8, 125), (100, 10), (1_000, 1)] {
        if !sizes.is_empty() && !sizes.contains(&rows_each) {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let prefix = format!("b{rows_each}-");
        let (gpus, nodes) = ((rows_each * nodes).to_string(), nodes.to_string());
        let made = Command::new(program())
            .args(["simulate", "--noise", "high", "--gpus", &gpus, "--nodes", &nodes, "--duration", &duration])
            .args(["--kafka", &brokers, "--prefix", &prefix])
            .current_dir(folder.path())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        println!("{rows_each} rows a message: {gpus} GPUs on {nodes} hosts for {duration} at 1 s");
        let (bare_seconds, rows) = measure(|| bare(&brokers, &prefix, false).0).unwrap();
        print_line("  bare consumer, decode Arrow", rows, bare_seconds, bare_seconds);
        let file = folder.path().join("bare.parquet");
        let (lake_seconds, _) = measure(|| bare_lake(&brokers, &prefix, &file)).unwrap();
        print_line("  the same, sorted, and one bare Parquet file", rows, lake_seconds, bare_seconds);
        let mut command = Command::new(program());
        command.args(["engine", "--kafka", &brokers, "--plain", "--http", "127.0.0.1:0", "--no-bundled-rules"]);
        for rule in RULES {
            command.arg("--rules").arg(rules.join(format!("{rule}.sql")));
        }
        command.env("TIDEWATCH_KAFKA__PREFIX", &prefix).current_dir(folder.path());
        let seconds = cost_of(command, rows);
        print_line("  engine with ten rules and lake", rows, seconds, bare_seconds);
        println!("  bare / engine: {:.2}; with the file {:.2}", bare_seconds / seconds, lake_seconds / seconds);
    }
}
