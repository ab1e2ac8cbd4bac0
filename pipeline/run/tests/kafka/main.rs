//! The program on a real Kafka cluster, and what befalls it there. Each fault of the failure matrix that touches broker or
//! engine has a test in faults.rs or group.rs that names it; those of the agent are in pipeline/agent/tests/kafka.rs.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod faults;
mod group;
mod lake;
#[path = "../process/mod.rs"]
mod process;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use process::{HOT, PROGRAM, Up, bad, count, good, wait_for};
use tempfile::TempDir;
use tidewatch_kafka::{KafkaLog, KafkaOptions};
use tidewatch_log::{LocalLog, LocalLogOptions};
use tidewatch_model::Span;
use tidewatch_model::ports::{Clock, Log, Record, TopicOptions, partition_of, read_to_end};
use tidewatch_model::time::SystemClock;
use tidewatch_tests::kafka::Cluster;

/// One broker for all tests of this file that leave it alive; each has topics of its own by a prefix.
fn one_broker() -> Option<String> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(1, QUICK_GROUPS)).as_ref().map(Cluster::brokers)
}

/// A member that is gone is noticed after six seconds instead of 45.
const QUICK_GROUPS: &[&str] = &[
    "group.consumer.session.timeout.ms=6000",
    "group.consumer.min.session.timeout.ms=6000",
    "group.consumer.heartbeat.interval.ms=1000",
    "group.consumer.min.heartbeat.interval.ms=1000",
];

/// A folder, and a prefix for topics on a cluster.
struct Place {
    folder: TempDir,
    brokers: String,
    prefix: String,
}

impl Place {
    fn new(brokers: String) -> Place {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("t{}-", NUMBER.fetch_add(1, Ordering::SeqCst));
        Place { folder: tempfile::tempdir().unwrap(), brokers, prefix }
    }

    fn here(&self) -> &Path {
        self.folder.path()
    }

    fn log(&self) -> KafkaLog {
        let (brokers, prefix) = (self.brokers.clone(), self.prefix.clone());
        KafkaLog::connect(KafkaOptions { brokers, prefix, ..KafkaOptions::default() }).unwrap()
    }

    /// A configuration file with further lines, whose `[kafka]` section is open at its end.
    fn configure(&self, more: &str) {
        let text = format!(
            "[lake]\nflush_interval = \"300ms\"\n[kafka]\nbrokers = \"{}\"\nprefix = \"{}\"\n{more}\n",
            self.brokers, self.prefix
        );
        std::fs::write(self.here().join("tidewatch.toml"), text).unwrap();
    }

    fn engine(&self, more: &[&str]) -> Up {
        Up::start(self.here(), more)
    }

    /// Writes a simulated fleet into the cluster; returns how many rows.
    fn simulate(&self, more: &[&str]) -> i64 {
        // Many tests share two cores and the broker: whoever feeds waits.
        let patient = ["-X", "message.timeout.ms=120000"];
        let fixed = [&["simulate", "--kafka", &self.brokers, "--prefix", &self.prefix][..], &patient].concat();
        rows_said(&process::tidewatch(self.here(), &[&fixed[..], more].concat()))
    }

    /// The same into Parquet files.
    fn generate(&self, fleet: &[&str]) -> i64 {
        rows_said(&process::tidewatch(self.here(), &[&["simulate", "--out", "fleet.parquet"], fleet].concat()))
    }

    fn stored(&self, tables: &[&str]) -> i64 {
        tables.iter().map(|table| count(self.here(), &format!("SELECT count(*) FROM {table}"))).sum()
    }

    fn has_lake(&self) -> bool {
        self.here().join("data/internal/log").read_dir().is_ok_and(|mut entries| entries.next().is_some())
    }

    fn wait_for_rows(&self, table: &str, rows: i64) {
        wait_for(&format!("{rows} rows of {table}"), || {
            self.has_lake() && count(self.here(), &format!("SELECT count(*) FROM {table}")) == rows
        });
    }

    fn verify(&self) {
        good(self.here(), &["lake", "verify", "--data", "data"]);
    }
}

/// How many rows a simulation says that it wrote.
fn rows_said(output: &Output) -> i64 {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap()
}

/// Tables that `simulate` fills.
const SIMULATED: [&str; 4] = ["gpu", "train_step", "job_event", "gpu_event"];

fn row_topic() -> TopicOptions {
    TopicOptions { partitions: 1, compacted: false, retention: None, retention_bytes: None }
}

fn message(text: &str) -> Record {
    Record { value: Some(text.as_bytes().to_vec()), timestamp: SystemClock.now(), ..Record::default() }
}

/// A simulator that runs beside the test.
fn simulator(place: &Place, more: &[&str]) -> Child {
    let fixed = ["simulate", "--kafka", &place.brokers, "--prefix", &place.prefix, "--real-time"];
    let mut command = Command::new(PROGRAM);
    command.args(fixed).args(more).current_dir(place.here()).stderr(Stdio::piped()).spawn().unwrap()
}

fn sent_by(child: Child) -> i64 {
    rows_said(&child.wait_with_output().unwrap())
}

/// The agent's program, which cargo puts beside ours; killed when the test ends.
struct Agent(Child);

impl Agent {
    fn start(place: &Place, host: &str, more: &[&str]) -> Agent {
        let program = Path::new(PROGRAM).with_file_name("tidewatch-agent");
        assert!(program.exists(), "cargo test --workspace builds it");
        let fixed = ["--host", host, "--data", host, "--kafka", &place.brokers, "--prefix", &place.prefix];
        let mut command = Command::new(program);
        command.args(fixed).args(["-X", "message.timeout.ms=2000"]).args(more);
        command.env("NVML_STUB_SCENARIO", "scenario.json").current_dir(place.here());
        Agent(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
