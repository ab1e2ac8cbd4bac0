//! The program on a real Kafka cluster, and what befalls it there. Each fault of the failure matrix that touches broker or
//! engine has a test here that names it; those of the agent are in pipeline/agent/tests/kafka.rs.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

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
        let fixed = ["simulate", "--kafka", &self.brokers, "--prefix", &self.prefix];
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

#[test]
fn other_peoples_topics_are_mapped_and_begin_where_they_are_told() {
    let Some(brokers) = one_broker() else { return };
    let place = Place::new(brokers);
    let (temps, loads) = (format!("{}temps", place.prefix), format!("{}loads", place.prefix));
    let plain = KafkaLog::connect(KafkaOptions { brokers: place.brokers.clone(), ..KafkaOptions::default() }).unwrap();
    plain.create_topic(&temps, &row_topic()).unwrap();
    plain.create_topic(&loads, &row_topic()).unwrap();
    let now = SystemClock.now().0 / 1_000;
    let line = |at: i64, temp: &str| format!("{{\"time\":{at},\"host\":\"n1\",\"gpu\":\"g\",\"temp\":{temp}}}");
    let old = Record { timestamp: SystemClock.now() - Span::hours(2), ..message(&line(now - 7_200_000, "50")) };
    plain
        .append(&temps, 0, &[old, message(&format!("{}\nnonsense\n{}", line(now, "91"), line(now + 1, "92")))])
        .unwrap();
    plain.append(&loads, 0, &[message("{\"host\":\"n1\",\"load1\":1}")]).unwrap();
    let since = (SystemClock.now() - Span::hours(1)).floor(Span::seconds(1));
    place.configure(&format!(
        "topics = [\"{temps} table=gpu ts=ms from={since} map=time:ts map=gpu:gpu_uuid map=temp:temperature_celsius\",\n          \
         \"{loads} table=host ts=record from=latest\"]"
    ));
    let rule =
        "CREATE ALERT warm AS SELECT host, gpu_uuid, temperature_celsius FROM gpu WHERE temperature_celsius > 90;";
    std::fs::write(place.here().join("warm.sql"), rule).unwrap();
    let up = place.engine(&["--rules", "warm.sql", "--no-bundled-rules"]);
    place.wait_for_rows("gpu", 2);
    plain.append(&loads, 0, &[message("{\"host\":\"n1\",\"load1\":2}")]).unwrap();
    place.wait_for_rows("host", 1);
    wait_for("the alert", || count(place.here(), "SELECT count(*) FROM alert_event WHERE rule = 'warm'") == 1);
    up.stop();
    assert_eq!(
        count(place.here(), "SELECT CAST(sum(load1) AS BIGINT) FROM host"),
        2,
        "what came before was not asked for"
    );
    let letters = good(place.here(), &["dlq", "list"]);
    assert!(letters.contains("1 lines are no rows; line 2: not JSON") && letters.lines().count() == 1, "{letters}");
    place.verify();

    place.configure("topics = [\"x table=gpus\", \"y\"]");
    let (code, said) = bad(place.here(), &["config"]);
    assert!(code == 2 && said.contains("kafka.topics: unknown table 'gpus'; did you mean 'gpu'?"), "{said}");
}

#[test]
fn outsiders_read_our_topics() {
    let Some(brokers) = one_broker() else { return };
    if !tidewatch_tests::has_tool("kcat") {
        return;
    }
    let place = Place::new(brokers);
    place.configure("");
    place.simulate(&["--gpus", "16", "--duration", "3s"]);
    let topic = format!("{}tidewatch.gpu", place.prefix);
    let arguments = ["-C", "-e", "-q", "-b", &place.brokers, "-t", &topic, "-f", "%k %h %S\n"];
    let output = Command::new("kcat").args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let frames: Vec<&str> = text.lines().collect();
    assert_eq!(frames.len(), 2 * 3, "two hosts, three ticks: {text}{}", String::from_utf8_lossy(&output.stderr));
    for frame in frames {
        let key = frame.split(' ').next().unwrap();
        assert!(
            frame.contains(&format!("tidewatch-source={key},")) && frame.contains("tidewatch-table=gpu"),
            "{frame}"
        );
    }
}

#[test]
fn fault_duplicate_sends() {
    let Some(brokers) = one_broker() else { return };
    let place = Place::new(brokers);
    place.configure("");
    let sent = place.simulate(&["--gpus", "8", "--duration", "20s"]);
    let log = place.log();
    // An agent that lost the answer sends the same frames again.
    for partition in 0..log.partitions("tidewatch.gpu").unwrap() {
        let read = log.read("tidewatch.gpu", partition, 0, 1 << 22).unwrap();
        let again: Vec<Record> = read.records.into_iter().map(|(_, record)| record).collect();
        if !again.is_empty() {
            log.append("tidewatch.gpu", partition, &again).unwrap();
        }
    }
    let up = place.engine(&[]);
    wait_for("all rows", || place.has_lake() && place.stored(&SIMULATED) >= sent);
    up.stop();
    assert_eq!(place.stored(&SIMULATED), sent, "each row once");
    place.verify();
}

#[test]
fn fault_group_offsets_deleted() {
    let Some(brokers) = one_broker() else { return };
    let place = Place::new(brokers);
    place.configure("");
    let first = place.simulate(&["--gpus", "8", "--duration", "10s"]);
    let up = place.engine(&[]);
    wait_for("the first rows", || place.has_lake() && place.stored(&SIMULATED) == first);
    let log = place.log();
    wait_for("offsets for lag tools", || log.told_progress("tidewatch.gpu").unwrap().iter().any(|next| *next > 0));
    log.forget_progress().unwrap();
    let start = (SystemClock.now() - Span::hours(1)).to_string();
    let second = place.simulate(&["--gpus", "8", "--duration", "10s", "--start", &start, "--seed", "2"]);
    wait_for("the second rows", || place.stored(&SIMULATED) == first + second);
    drop(up);
    log.forget_progress().unwrap();
    // Nothing is asked of the group: the next start goes on where the lake says.
    place.engine(&[]).ready().stop();
    assert_eq!(place.stored(&SIMULATED), first + second);
    place.verify();
}

#[test]
fn fault_retention_ran_past_us() {
    let Some(brokers) = one_broker() else { return };
    let place = Place::new(brokers);
    place.configure("");
    place.simulate(&["--gpus", "8", "--duration", "10s"]);
    let up = place.engine(&[]);
    place.wait_for_rows("gpu", 80);
    up.stop();
    let start = (SystemClock.now() - Span::hours(1)).to_string();
    place.simulate(&["--gpus", "8", "--duration", "10s", "--start", &start, "--seed", "2"]);
    let log = place.log();
    let partition = (0..12).find(|partition| log.range("tidewatch.gpu", *partition).unwrap().end > 0).unwrap();
    // Ten frames were read; the next four are gone.
    log.delete_before("tidewatch.gpu", partition, 14).unwrap();
    let up = place.engine(&[]);
    place.wait_for_rows("gpu", 80 + 48);
    up.stop();
    place.verify();
}

#[test]
fn fault_topic_recreated() {
    let Some(brokers) = one_broker() else { return };
    let place = Place::new(brokers);
    place.configure("");
    place.simulate(&["--gpus", "8", "--duration", "10s"]);
    let up = place.engine(&[]);
    place.wait_for_rows("gpu", 80);
    up.stop();
    let log = place.log();
    log.delete_topic("tidewatch.gpu").unwrap();
    // Made anew, it grows beyond the position that the lake has of the old one.
    let start = (SystemClock.now() - Span::hours(1)).to_string();
    wait_for("the topic", || {
        let again = ["simulate", "--kafka", &place.brokers, "--prefix", &place.prefix];
        let fleet = ["--gpus", "8", "--duration", "20s", "--start", &start, "--seed", "2"];
        process::tidewatch(place.here(), &[&again[..], &fleet].concat()).status.success()
    });
    let mut up = place.engine(&[]);
    let mut said = String::new();
    wait_for("the refusal", || {
        said.push_str(&up.said_so_far());
        said.contains("the topic was made anew")
    });
    drop(up);
    assert_eq!(
        count(place.here(), "SELECT count(*) FROM gpu"),
        80,
        "nothing of the new topic is taken for the old one's"
    );
    place.verify();
}

#[test]
fn fault_poison_messages_by_the_thousand() {
    let Some(brokers) = one_broker() else { return };
    let place = Place::new(brokers);
    place.configure("");
    let sent = place.simulate(&["--gpus", "8", "--duration", "10s"]);
    let log = place.log();
    let partition = (0..12).find(|partition| log.range("tidewatch.gpu", *partition).unwrap().end > 0).unwrap();
    let frame = log.read("tidewatch.gpu", partition, 0, 1).unwrap().records.remove(0).1;
    let poison = |number: usize| {
        let mut bytes = frame.value.clone().unwrap();
        let at = number * 37 % bytes.len();
        bytes[at] ^= 1 << (number % 8);
        match number % 3 {
            0 => Record { value: Some(bytes), ..frame.clone() },
            1 => message(&format!("{{\"poison\":{number}}}")),
            _ => Record { value: None, ..frame.clone() },
        }
    };
    for chunk in (0..3_000).collect::<Vec<usize>>().chunks(500) {
        log.append("tidewatch.gpu", partition, &chunk.iter().map(|number| poison(*number)).collect::<Vec<_>>())
            .unwrap();
    }
    let start = (SystemClock.now() - Span::hours(1)).to_string();
    let behind = place.simulate(&["--gpus", "8", "--duration", "10s", "--start", &start, "--seed", "2"]);
    let up = place.engine(&[]);
    wait_for("the rows behind the poison", || place.has_lake() && place.stored(&SIMULATED) == sent + behind);
    up.stop();
    let letters = log.range("tidewatch.gpu.dlq", 0).unwrap();
    assert_eq!(letters.end - letters.start, 3_000, "every one is kept");
    place.verify();
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

/// What an agent collects in some seconds while its clock is wrong. It writes into a log of its own: a Kafka client can't live
/// under a library that bends time, its waits are bent too.
fn collected_at(place: &Place, host: &str, offset: &str, library: &Path) -> Vec<(String, Vec<Record>)> {
    let mut child = Command::new(Path::new(PROGRAM).with_file_name("tidewatch-agent"))
        .args(["--host", host, "--data", host])
        .env("LD_PRELOAD", library)
        .env("FAKETIME", offset)
        .current_dir(place.here())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(8));
    child.kill().unwrap();
    child.wait().unwrap();
    let log = LocalLog::open(&place.here().join(host), LocalLogOptions::default()).unwrap();
    let records = |topic: &str| log.read(topic, 0, 0, 1 << 22).unwrap().records.into_iter().map(|(_, record)| record);
    ["tidewatch.host", "tidewatch.cpu"].map(|topic| (topic.to_string(), records(topic).collect())).into()
}

#[test]
fn fault_skewed_clock() {
    let Some(brokers) = one_broker() else { return };
    if !tidewatch_tests::has_tool("faketime") {
        return;
    }
    let libraries = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path());
    let library = libraries.map(|folder| folder.join("faketime/libfaketime.so.1")).find(|path| path.exists()).unwrap();
    let place = Place::new(brokers);
    place.configure("");
    let rule =
        "CREATE ALERT up AS SELECT host, count(*) AS n FROM HOP(host, ts, INTERVAL '1 second', INTERVAL '3 seconds')
GROUP BY window_start, window_end, host HAVING count(*) >= 2;";
    std::fs::write(place.here().join("up.sql"), rule).unwrap();
    let up = place.engine(&["--rules", "up.sql", "--no-bundled-rules"]);
    let right = Agent::start(&place, "right", &[]);
    let log = place.log();
    wait_for("topics", || log.partitions("tidewatch.host").is_ok());
    for (host, offset) in [("ahead", "+2h"), ("behind", "-1h")] {
        for (topic, records) in collected_at(&place, host, offset, &library) {
            let partition = partition_of(host.as_bytes(), log.partitions(&topic).unwrap());
            log.append(&topic, partition, &records).unwrap();
        }
    }
    // A clock that is ahead closes nobody's windows: the right one's rule fires, and its rows are there.
    let fired = "SELECT count(*) FROM alert_event WHERE labels['host'] = 'right' AND to_state = 'firing'";
    wait_for("the alert of the host whose clock is right", || place.has_lake() && count(place.here(), fired) == 1);
    wait_for("rows of the host that is behind", || {
        count(place.here(), "SELECT count(*) FROM host WHERE host = 'behind'") > 3
    });
    wait_for("letters of the host that is ahead", || {
        good(place.here(), &["dlq", "list"]).contains("more than 24h behind or 5m ahead of the clock")
    });
    drop(right);
    up.stop();
    assert_eq!(count(place.here(), "SELECT count(*) FROM host WHERE host = 'ahead'"), 0);
    place.verify();
}

/// How much is asked of the test of kills: what fits an ordinary run, or so many seconds of a thousand GPUs with `TIDEWATCH_LONG`.
struct Scale {
    gpus: &'static str,
    interval: &'static str,
    rounds: u64,
    pause: Duration,
}

impl Scale {
    fn asked() -> Scale {
        match std::env::var_os("TIDEWATCH_LONG") {
            None => Scale { gpus: "64", interval: "500ms", rounds: 20, pause: Duration::from_millis(2_500) },
            Some(seconds) => {
                let seconds: u64 = seconds.to_str().and_then(|text| text.parse().ok()).unwrap();
                Scale { gpus: "1000", interval: "1s", rounds: seconds / 11, pause: Duration::from_secs(10) }
            }
        }
    }

    /// Of the simulation: it outlives the last kill.
    fn duration(&self) -> String {
        let round = self.pause + Duration::from_millis(1_000);
        format!("{}s", 15 + (round.as_secs_f64() * self.rounds as f64) as u64)
    }
}

#[test]
fn agents_engines_and_broker_are_killed_in_turn() {
    let Some(mut cluster) = Cluster::start(1, QUICK_GROUPS) else { return };
    let place = Place::new(cluster.brokers());
    place.configure("");
    std::fs::write(place.here().join("hot.sql"), HOT).unwrap();
    let gpus: Vec<String> =
        (0..8).map(|gpu| format!(r#"{{"uuid": "GPU-{gpu}", "pci": "0000:{gpu:02x}:00.0"}}"#)).collect();
    let scenario = format!(r#"{{"gpus": [{}], "steps": [{{"at_ms": 1000, "gpu": 2, "xid": 79}}]}}"#, gpus.join(","));
    std::fs::write(place.here().join("scenario.json"), scenario).unwrap();
    let stub = Path::new(PROGRAM).parent().unwrap().join("deps/libtidewatch_nvml_stub.so").display().to_string();
    let start_agent = |index: usize| match index {
        0 => Agent::start(&place, "a0", &["--nvml-library", &stub]),
        index => Agent::start(&place, &format!("a{index}"), &[]),
    };
    let mut agents: Vec<Agent> = (0..3).map(start_agent).collect();
    let mut engines = vec![place.engine(&GROUP), place.engine(&GROUP)];
    let scale = Scale::asked();
    let begin = (SystemClock.now() + Span::seconds(3)).floor(Span::seconds(1)).to_string();
    let duration = scale.duration();
    let fleet = ["--gpus", scale.gpus, "--interval", scale.interval, "--duration", &duration, "--start", &begin];
    let child = simulator(&place, &fleet);
    for round in 0..scale.rounds {
        std::thread::sleep(scale.pause);
        match round % 3 {
            0 => {
                let which = round as usize / 3 % 3;
                drop(agents.remove(which));
                agents.insert(which, start_agent(which));
            }
            1 => {
                drop(engines.remove(0));
                engines.push(place.engine(&GROUP));
            }
            _ => {
                cluster.kill(0);
                cluster.restart(0);
            }
        }
    }
    let sent = sent_by(child);
    for agent in &mut agents {
        assert!(Command::new("kill").args(["-TERM", &agent.0.id().to_string()]).status().unwrap().success());
        assert!(agent.0.wait().unwrap().success());
    }
    // What is in the log, each frame once, is what must be in the lake.
    let in_log = rows_in(&place.log(), &["gpu", "host", "gpu_event", "collector", "train_step", "job_event"]);
    for (table, rows) in in_log {
        place.wait_for_rows(table, rows);
    }
    for engine in engines {
        engine.stop();
    }
    assert!(count(place.here(), "SELECT count(*) FROM gpu WHERE host = 'a0'") > 8 * 10, "eight GPUs of the stub");
    place.verify();
    // And what the generator makes of the same seed without any Kafka is what an outsider finds there.
    assert_eq!(place.generate(&fleet), sent);
    let mut found = 0;
    // A short time has no events.
    for table in SIMULATED.into_iter().filter(|table| place.here().join(generated_file(table)).exists()) {
        let Some((here, missing, unknown)) = compared_by_duckdb(&place, table) else { return };
        assert_eq!((missing, unknown), (0, 0), "{table}: rows of the generator that are not there, and the other way");
        found += here;
    }
    assert_eq!(found, sent);
    println!("{found} rows over {} kills: nothing lost, nothing twice", scale.rounds);
}

/// Rows of each table that a log holds, each frame counted once.
fn rows_in(log: &KafkaLog, tables: &[&'static str]) -> Vec<(&'static str, i64)> {
    let rows = |table: &str| {
        let (topic, mut rows, mut frames) = (format!("tidewatch.{table}"), 0, std::collections::BTreeSet::new());
        for partition in 0..log.partitions(&topic).unwrap() {
            let begin = log.range(&topic, partition).unwrap().start;
            let mut take = |_, record| {
                let header = tidewatch_model::wire::read_header(&record).unwrap();
                if frames.insert((header.source, header.incarnation, header.seq)) {
                    rows += header.rows as i64;
                }
            };
            read_to_end(log, &topic, partition, begin, &mut take).unwrap();
        }
        rows
    };
    tables.iter().map(|table| (*table, rows(table))).collect()
}

fn generated_file(table: &str) -> String {
    if table == "gpu" { "fleet.parquet".to_string() } else { format!("fleet.{table}.parquet") }
}

/// Multisets of the lake's rows, as `lake ls --fresh` lists its files, and of the generator's: rows in the lake, rows that only
/// the generator has, and rows that only the lake has. The agents' own rows are left out.
fn compared_by_duckdb(place: &Place, table: &str) -> Option<(i64, i64, i64)> {
    let listed = good(place.here(), &["lake", "ls", "--fresh", "--data", "data", "--table", table, "--format", "json"]);
    let files: Vec<String> = listed
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["path"].as_str().unwrap().to_string())
        .collect();
    let generator = generated_file(table);
    let columns = format!("SELECT string_agg(column_name, ', ') FROM (DESCRIBE SELECT * FROM '{generator}')");
    let columns = &tidewatch_tests::duckdb(place.here(), &columns)?[0];
    let sql = format!(
        "CREATE TABLE made AS SELECT {columns} FROM '{generator}';
         CREATE TABLE lake AS SELECT {columns} FROM read_parquet({files:?}, union_by_name = true)
         WHERE host IS NULL OR host NOT LIKE 'a_';
         SELECT (SELECT count(*) FROM lake),
                (SELECT count(*) FROM (FROM made EXCEPT ALL FROM lake)),
                (SELECT count(*) FROM (FROM lake EXCEPT ALL FROM made))"
    )
    .replace('"', "'");
    let numbers: Vec<i64> =
        tidewatch_tests::duckdb(place.here(), &sql)?.iter().map(|number| number.parse().unwrap()).collect();
    Some((numbers[0], numbers[1], numbers[2]))
}

const GROUP: [&str; 5] = ["--rules", "hot.sql", "--no-bundled-rules", "--group", "engines"];

#[test]
fn fault_membership_changes_every_few_seconds() {
    let Some(brokers) = one_broker() else { return };
    let place = Place::new(brokers);
    place.configure("");
    std::fs::write(place.here().join("hot.sql"), HOT).unwrap();
    let incident = "[{\"kind\": \"overheating\", \"at\": \"2s\", \"duration\": \"200s\", \"gpu\": 3}]";
    std::fs::write(place.here().join("incidents.json"), incident).unwrap();
    // Every ten seconds where there is time.
    let (rounds, pause) = if std::env::var_os("TIDEWATCH_LONG").is_some() { (30, 10) } else { (6, 5) };
    let duration = format!("{}s", 10 + rounds * (pause + 1));
    let child = simulator(
        &place,
        &["--gpus", "32", "--interval", "200ms", "--duration", &duration, "--incidents", "incidents.json"],
    );
    let mut engines = vec![place.engine(&GROUP)];
    for round in 0..rounds {
        std::thread::sleep(Duration::from_secs(pause));
        match round % 3 {
            0 => engines.push(place.engine(&GROUP)),
            // One leaves in good order, one is killed.
            1 => drop(engines.remove(0).stop()),
            _ => {
                engines.push(place.engine(&GROUP));
                drop(engines.remove(0));
            }
        }
    }
    let sent = sent_by(child);
    wait_for("the last row", || place.has_lake() && place.stored(&SIMULATED) == sent);
    let fired = "SELECT count(DISTINCT event_id) FROM alert_event WHERE to_state = 'firing'";
    wait_for("the alert in the lake", || count(place.here(), fired) == 1);
    for engine in engines {
        engine.stop();
    }
    assert_eq!(place.stored(&SIMULATED), sent, "every row once");
    assert_eq!(
        count(place.here(), "SELECT count(*) FROM alert_event WHERE to_state = 'resolved'"),
        0,
        "and never resolved"
    );
    place.verify();
    let (code, said) = bad(place.here(), &["up", "--data", "data", "--no-collect", "--http", "127.0.0.1:0"]);
    assert!(code == 2 && said.contains("start with --group"), "{said}");
}

#[test]
fn a_group_takes_over_what_one_engine_began() {
    let Some(brokers) = one_broker() else { return };
    let place = Place::new(brokers);
    place.configure("");
    std::fs::write(place.here().join("hot.sql"), HOT).unwrap();
    let incident = "[{\"kind\": \"overheating\", \"at\": \"1s\", \"duration\": \"200s\", \"gpu\": 3}]";
    std::fs::write(place.here().join("incidents.json"), incident).unwrap();
    let alone = place.engine(&GROUP[..3]);
    let child = simulator(&place, &["--gpus", "16", "--duration", "25s", "--incidents", "incidents.json"]);
    let fired = "SELECT count(*) FROM alert_event WHERE to_state = 'firing'";
    wait_for("the alert", || place.has_lake() && count(place.here(), fired) == 1);
    alone.stop();
    let (one, two) = (place.engine(&GROUP), place.engine(&GROUP));
    let sent = sent_by(child);
    wait_for("the last row", || place.stored(&SIMULATED) == sent);
    one.stop();
    two.stop();
    assert_eq!(count(place.here(), "SELECT count(*) FROM alert_event"), 1, "it went on firing, and was told once");
    place.verify();
}
