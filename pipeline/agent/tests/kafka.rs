//! The agent towards a real Kafka: what it collected arrives, whoever dies meanwhile.

#![allow(clippy::print_stderr, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidewatch_kafka::{KafkaLog, KafkaOptions};
use tidewatch_model::ports::{Log, Record};
use tidewatch_model::wire::decode;
use tidewatch_tests::kafka::Cluster;

/// A running agent that is killed when the test ends, however it ends.
struct Agent(Child);

impl Agent {
    fn start(folder: &Path, brokers: &str) -> Agent {
        Agent::start_with(folder, brokers, &[])
    }

    fn start_with(folder: &Path, brokers: &str, more: &[&str]) -> Agent {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewatch-agent"));
        command.args(["--data", "spool", "--host", "n1", "--kafka", brokers, "-X", "message.timeout.ms=2000"]);
        command.args(more);
        Agent(command.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn stop(mut self) {
        assert!(Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap().success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Waits until something holds; processes have no virtual clock.
fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(90), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Every record of a topic.
fn records(log: &KafkaLog, topic: &str) -> Vec<Record> {
    let mut found = Vec::new();
    for partition in 0..log.partitions(topic).unwrap_or(0) {
        let mut from = 0;
        while let Ok(batch) = log.read(topic, partition, from, 1 << 20) {
            if batch.next == from {
                break;
            }
            from = batch.next;
            found.extend(batch.records.into_iter().map(|(_, record)| record));
        }
    }
    found
}

/// The numbers that arrived, by the starts of the agent in order of arrival.
fn numbers(log: &KafkaLog, topic: &str) -> Vec<(String, Vec<u64>)> {
    let mut starts: Vec<(String, Vec<u64>)> = Vec::new();
    for record in records(log, topic) {
        let (header, rows) = decode(&record).unwrap();
        assert_eq!((header.source.as_str(), header.rows), ("n1", rows.num_rows() as u64));
        match starts.iter_mut().find(|(start, _)| *start == header.incarnation) {
            Some((_, numbers)) if numbers.last().is_some_and(|last| *last >= header.seq) => {}
            Some((_, numbers)) => numbers.push(header.seq),
            None => starts.push((header.incarnation, vec![header.seq])),
        }
    }
    starts
}

#[test]
fn fault_produce_timeout() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let log = KafkaLog::connect(KafkaOptions { brokers: cluster.brokers(), ..KafkaOptions::default() }).unwrap();
    let agent = Agent::start(folder.path(), &cluster.brokers());
    wait_for("the first rows", || numbers(&log, "tidewatch.host").first().is_some_and(|(_, seen)| seen.len() > 1));
    // The broker is there and answers nothing, longer than a send may take: some of what it gets now it will have twice.
    cluster.pause(0);
    std::thread::sleep(Duration::from_secs(6));
    cluster.resume(0);
    let before = numbers(&log, "tidewatch.host").first().map_or(0, |(_, seen)| seen.len());
    wait_for("rows of the time between", || {
        numbers(&log, "tidewatch.host").first().is_some_and(|(_, seen)| seen.len() > before + 8)
    });
    agent.stop();
    let starts = numbers(&log, "tidewatch.host");
    let all: Vec<u64> = (0..starts[0].1.len() as u64).collect();
    assert_eq!((starts.len(), &starts[0].1), (1, &all), "every frame, in order, duplicates known by their numbers");
}

/// A file system of four MiB; `None`, said so, for whoever may not mount.
fn small_disk(at: &Path) -> Option<SmallDisk> {
    std::fs::create_dir_all(at).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(at).stderr(Stdio::null()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("NOT RUN: this test mounts a small file system, which this user may not");
        return None;
    }
    Some(SmallDisk(at.to_path_buf()))
}

struct SmallDisk(std::path::PathBuf);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn fault_spool_disk_full() {
    let Some(mut cluster) = Cluster::start(1, &[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let Some(_disk) = small_disk(&folder.path().join("spool")) else { return };
    // Somebody else has most of it.
    std::fs::write(folder.path().join("spool/other"), vec![0; 3_700 << 10]).unwrap();
    cluster.kill(0);
    let agent = Agent::start(folder.path(), &cluster.brokers());
    let left = || {
        let output =
            Command::new("df").args(["--output=avail", "-k"]).arg(folder.path().join("spool")).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().nth(1).unwrap().trim().parse::<u64>().unwrap()
    };
    wait_for("a full disk", || left() < 24);
    std::thread::sleep(Duration::from_secs(3));
    cluster.restart(0);
    std::fs::remove_file(folder.path().join("spool/other")).unwrap();
    let log = KafkaLog::connect(KafkaOptions { brokers: cluster.brokers(), ..KafkaOptions::default() }).unwrap();
    // What had to be dropped is said in rows, and what comes now arrives.
    let dropped = || {
        records(&log, "tidewatch.collector").iter().any(|record| {
            let (_, rows) = decode(record).unwrap();
            let column = rows.column_by_name("dropped_rows_total").unwrap();
            arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(column)
                .iter()
                .flatten()
                .any(|rows| rows > 0)
        })
    };
    wait_for("the drop in collector rows", dropped);
    agent.stop();
}

#[test]
fn fault_broker_down_while_the_agent_dies_too() {
    let Some(mut cluster) = Cluster::start(1, &[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let connect = |cluster: &Cluster| {
        KafkaLog::connect(KafkaOptions { brokers: cluster.brokers(), ..KafkaOptions::default() }).unwrap()
    };
    let spooled = || {
        let folder = folder.path().join("spool/tidewatch.host/00000");
        let segments = std::fs::read_dir(folder).into_iter().flatten().flatten();
        segments.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum::<u64>()
    };
    let agent = Agent::start(folder.path(), &cluster.brokers());
    let log = connect(&cluster);
    wait_for("the first rows", || numbers(&log, "tidewatch.host").first().is_some_and(|(_, seen)| seen.len() > 1));
    cluster.kill(0);
    let before = spooled();
    wait_for("rows in the spool", || spooled() > before + 4_000);
    drop(agent);
    let before = spooled();
    let agent = Agent::start(folder.path(), &cluster.brokers());
    wait_for("rows of the second start in the spool", || spooled() > before + 4_000);
    // As long as it takes, and longer where there is time: so many seconds.
    let outage = std::env::var("TIDEWATCH_OUTAGE").map_or(0, |seconds| seconds.parse().unwrap());
    std::thread::sleep(Duration::from_secs(outage));
    cluster.restart(0);
    let log = connect(&cluster);
    wait_for("rows of the second start", || {
        numbers(&log, "tidewatch.host").get(1).is_some_and(|(_, seen)| seen.len() > 4)
    });
    agent.stop();
    let log = connect(&cluster);
    let mut tables = BTreeMap::new();
    for table in ["host", "cpu", "disk", "net", "process", "collector"] {
        let topic = format!("tidewatch.{table}");
        let starts = numbers(&log, &topic);
        for (start, seen) in &starts {
            let all: Vec<u64> = (0..seen.len() as u64).collect();
            assert_eq!(*seen, all, "{table}, start {start}: every frame, in order");
        }
        tables.insert(table, starts.len());
    }
    assert_eq!((tables["host"], tables["process"]), (2, 2), "{tables:?}");
    let sent: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("spool/sent.json")).unwrap()).unwrap();
    let arrived: usize = numbers(&log, "tidewatch.host").iter().map(|(_, seen)| seen.len()).sum();
    assert_eq!(sent["sent"]["tidewatch.host"].as_u64(), Some(arrived as u64), "the spool was sent to its end");
}
