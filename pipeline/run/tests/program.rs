//! The program as people run it: processes that are killed, inputs that are wrong, and the same answer from backtest and
//! from `up`.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used)]

#[path = "program/import.rs"]
mod import;
mod process;
#[path = "program/questions.rs"]
mod questions;
#[path = "program/rows.rs"]
mod rows;

use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use process::{HOT, PROGRAM, Up, bad, count, good, wait_for};

use tidewatch_log::{LocalLog, LocalLogOptions};
use tidewatch_model::Span;
use tidewatch_model::ports::{Clock, Log, Random, Record};
use tidewatch_model::scripted::SeededRandom;
use tidewatch_model::time::SystemClock;
use tidewatch_serve::Asking;
use tidewatch_tests::kafka::Cluster;
use tidewatch_tests::peers::{S3, webhooks};

#[test]
fn kills_lose_nothing_and_a_firing_alert_keeps_its_start() {
    kills(None);
}

#[test]
fn kills_of_engine_and_broker_lose_nothing_on_kafka() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    kills(Some(cluster));
}

/// `TIDEWATCH_KILLS` asks for more than the few that fit an ordinary run. On Kafka the broker dies too, in turn with the
/// engine.
fn kills(mut cluster: Option<Cluster>) {
    let brokers = cluster.as_ref().map(Cluster::brokers);
    let log: Vec<&str> = brokers.as_deref().map_or(vec!["--data", "data"], |brokers| vec!["--kafka", brokers]);
    let folder = tempfile::tempdir().unwrap();
    let kills: u64 = std::env::var("TIDEWATCH_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let seed = std::env::var("TIDEWATCH_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("TIDEWATCH_SEED={seed} TIDEWATCH_KILLS={kills}");
    let random = SeededRandom::new(seed);
    std::fs::write(folder.path().join("hot.sql"), HOT).unwrap();
    let seconds = 20 + kills * 3;
    let incident =
        format!("[{{\"kind\": \"overheating\", \"at\": \"2s\", \"duration\": \"{}s\", \"gpu\": 3}}]", seconds * 2);
    std::fs::write(folder.path().join("incidents.json"), incident).unwrap();
    let mut rules = vec!["--rules", "hot.sql", "--no-bundled-rules"];
    rules.extend(brokers.as_deref().map_or(vec![], |brokers| vec!["--kafka", brokers]));
    let up = Up::start(folder.path(), &rules);
    let duration = format!("{seconds}s");
    let more = [
        "--real-time",
        "--gpus",
        "32",
        "--interval",
        "100ms",
        "--duration",
        &duration,
        "--incidents",
        "incidents.json",
    ];
    // Whoever feeds waits longer than any broker is away.
    let patient = if brokers.is_some() { &["-X", "message.timeout.ms=300000"][..] } else { &[] };
    let mut simulator = Command::new(PROGRAM)
        .arg("simulate")
        .args(&log)
        .args(more)
        .args(patient)
        .current_dir(folder.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let fired = "SELECT count(*) FROM alert_event WHERE rule = 'hot' AND to_state = 'firing'";
    wait_for("the alert", || {
        folder.path().join("data/internal/log/tidewatch.alert_event-00000").exists() && count(folder.path(), fired) == 1
    });
    let mut running = Some(up);
    // A broker that is away most of the time lets nobody write: of many kills every tenth is its.
    let turn = if kills > 20 { 10 } else { 2 };
    for round in 0..kills {
        std::thread::sleep(Duration::from_millis(random.next_u64() % 2_500));
        if let Some(cluster) = cluster.as_mut().filter(|_| round % turn == turn - 1) {
            cluster.kill(0);
            cluster.restart(0);
            continue;
        }
        drop(running.take());
        running = Some(Up::start(folder.path(), &rules));
    }
    let mut said = String::new();
    simulator.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(simulator.wait().unwrap().success(), "{said}");
    let sent: i64 = said.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap();
    wait_for("the last row", || count(folder.path(), "SELECT count(*) FROM gpu") == 32 * seconds as i64 * 10);
    running.unwrap().stop();
    let tables = ["gpu", "train_step", "job_event", "gpu_event"];
    let stored: i64 = tables.iter().map(|table| count(folder.path(), &format!("SELECT count(*) FROM {table}"))).sum();
    assert_eq!(stored, sent, "every acknowledged row once");
    assert_eq!(
        count(folder.path(), "SELECT count(*) FROM (SELECT DISTINCT ts, gpu_uuid FROM gpu)"),
        32 * seconds as i64 * 10,
        "no row twice"
    );
    assert_eq!(count(folder.path(), fired), 1, "it fired once");
    assert_eq!(
        count(folder.path(), "SELECT count(*) FROM alert_event WHERE to_state = 'resolved'"),
        0,
        "and never resolved"
    );
    good(folder.path(), &["lake", "verify", "--data", "data"]);
}

#[test]
fn backtest_finds_every_incident_and_up_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    // Begun an hour ago, so that nothing is too old for a log, and on the clock's grid of windows.
    let start = (SystemClock.now() - Span::hours(1)).floor(Span::minutes(1)).to_string();
    let fleet = ["--gpus", "64", "--duration", "1h", "--interval", "5s", "--seed", "3", "--start", &start];
    good(here, &[&["simulate", "--out", "fleet.parquet"], &fleet[..]].concat());
    let backtest = ["backtest", "--input", "gpu=fleet.parquet", "--input", "gpu_event=fleet.gpu_event.parquet"];
    let first = good(here, &backtest);
    assert_eq!(first, good(here, &backtest), "the same bytes twice");
    let transitions: Vec<serde_json::Value> = first.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let fired: Vec<&serde_json::Value> =
        transitions.iter().filter(|transition| transition["to_state"] == "firing").collect();
    let truth: Vec<serde_json::Value> =
        serde_json::from_str(&std::fs::read_to_string(here.join("fleet.truth.json")).unwrap()).unwrap();
    let incidents: Vec<&serde_json::Value> = truth.iter().filter(|truth| truth["near_miss"] == false).collect();
    assert_eq!((truth.len(), incidents.len()), (12, 6));
    let belongs = |alert: &serde_json::Value, incident: &serde_json::Value| {
        let mut labels = incident["labels"].as_object().unwrap().iter();
        labels.all(|(name, value)| alert["labels"][name] == *value)
            && alert["ts"].as_str() >= incident["start"].as_str()
    };
    for incident in &incidents {
        let found = fired.iter().filter(|alert| alert["rule"] == incident["expected_rule"] && belongs(alert, incident));
        assert_eq!(found.count(), 1, "{incident} in {fired:#?}");
    }
    for alert in &fired {
        assert!(incidents.iter().any(|incident| belongs(alert, incident)), "{alert} is of no incident");
    }
    // A GPU that overheats comes near its limit too.
    let expected_of = |alert: &serde_json::Value| incidents.iter().any(|one| alert["rule"] == one["expected_rule"]);
    let more: Vec<_> = fired.iter().filter(|alert| !expected_of(alert)).collect();
    assert!(more.iter().all(|alert| alert["rule"] == "gpu_temperature_margin") && more.len() == 1, "{more:#?}");
    std::fs::write(here.join("expected.jsonl"), &first).unwrap();
    good(here, &[&backtest[..], &["--expect", "expected.jsonl"]].concat());
    std::fs::write(here.join("expected.jsonl"), first.lines().skip(1).collect::<Vec<_>>().join("\n")).unwrap();
    assert_eq!(bad(here, &[&backtest[..], &["--expect", "expected.jsonl"]].concat()).0, 1);

    // The same fleet through the log.
    good(here, &[&["simulate", "--data", "data"], &fleet[..]].concat());
    let up = Up::start(here, &[]);
    wait_for("all rows", || {
        here.join("data/internal/log/tidewatch.gpu-00000").exists()
            && count(here, "SELECT count(*) FROM gpu") == count_rows(here)
    });
    up.stop();
    let sql = "SELECT ts, rule, fingerprint, to_state, reason, event_id FROM alert_event";
    let live = good(here, &["query", "--data", "data", "--format", "json", sql]);
    let line = |transition: &serde_json::Value| {
        let columns = ["ts", "rule", "fingerprint", "to_state", "reason", "event_id"];
        columns.map(|column| transition[column].as_str().unwrap().to_string()).join(" ")
    };
    let mut expected: Vec<String> = transitions.iter().map(line).collect();
    expected.sort();
    let last = transitions.iter().map(|transition| transition["ts"].as_str().unwrap()).max().unwrap();
    // `up` has a clock that goes on, and a backtest has none: beyond the last row of a table the clock ends what is on events.
    let mut found: Vec<String> = live
        .lines()
        .map(|text| line(&serde_json::from_str(text).unwrap()))
        .filter(|line| line.split(' ').next().unwrap() <= last)
        .collect();
    found.retain(|line| expected.contains(line) || !line.contains(" resolved ") || !line.contains(" gpu_lost "));
    found.sort();
    assert_eq!(found, expected);
}

/// The day of a fleet into files and into the log, with its truth and the tables that rules join.
#[test]
fn a_day_is_written_with_its_truth_and_the_tables_that_rules_join() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let day = ["simulate", "--fleet", "day", "--gpus", "64", "--interval", "10s"];
    good(here, &[&day[..], &["--duration", "8h", "--faults", "2", "--out", "day.parquet"]].concat());
    let truth = std::fs::read_to_string(here.join("day.truth.json")).unwrap();
    let truth: Vec<serde_json::Value> = serde_json::from_str(&truth).unwrap();
    assert_eq!(truth.len(), 2, "{truth:?}");
    let tables = ["--table", "expected=day.expected.csv", "--table", "maintenance=day.maintenance.csv"];
    let inputs = ["--input", "gpu=day.parquet", "--input", "gpu_event=day.gpu_event.parquet"];
    let backtest = [&["backtest"], &tables[..], &inputs].concat();
    let fired = good(here, &backtest);
    let must = truth.iter().flat_map(|fault| fault["must"].as_array().unwrap());
    for rule in must.filter(|rule| *rule != "gpu_count_low") {
        assert!(fired.contains(&format!("\"rule\":{rule}")), "{rule} is not in {fired}");
    }

    good(here, &[&day[..], &["--duration", "10m", "--data", "data"]].concat());
    let expected = std::fs::read_to_string(here.join("data/simulate.expected.csv")).unwrap();
    assert_eq!(
        (expected.lines().next(), expected.lines().count()),
        (Some("host,gpus,ib_ports,ib_rate_gigabits_per_second"), 9)
    );
    assert_eq!(std::fs::read_to_string(here.join("data/simulate.truth.json")).unwrap(), "[]");
    let (code, said) = bad(here, &["simulate", "--faults", "2", "--out", "fleet.parquet"]);
    assert_eq!((code, said.contains("--faults: expected --fleet day")), (2, true), "{said}");
}

fn count_rows(folder: &Path) -> i64 {
    let truth = std::fs::read_to_string(folder.join("data/simulate.truth.json")).unwrap();
    // The lost GPU misses five minutes, the silent host eight GPUs for 75 s, at a row every 5 s.
    assert!(truth.contains("gpu_lost") && truth.contains("collector_gap"));
    64 * 720 - 60 - 8 * 15
}

/// Overheating takes a minute's average and holds for a minute, which makes this the longest of the file.
#[test]
fn eight_gpus_of_which_four_fall_ill_page_for_the_right_things() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let pci = |gpu: usize| format!("0000:{gpu:02x}:00.0");
    let gpus: Vec<String> = (0..8).map(|gpu| format!("{{\"uuid\":\"GPU-{gpu}\",\"pci\":\"{}\"}}", pci(gpu))).collect();
    let steps = "{\"at_ms\":1000,\"gpu\":0,\"set\":{\"temperature\":95}},{\"at_ms\":8000,\"gpu\":1,\"xid\":79},
        {\"at_ms\":8000,\"gpu\":1,\"fail\":{\"*\":\"GPU_IS_LOST\"}},{\"at_ms\":9000,\"gpu\":2,\"hang_ms\":60000},
        {\"at_ms\":10000,\"gpu\":3,\"vanish\":true}";
    let scenario = format!("{{\"gpus\":[{}],\"steps\":[{steps}]}}", gpus.join(","));
    std::fs::write(here.join("scenario.json"), scenario).unwrap();
    for gpu in 0..8 {
        let device = here.join("sys/bus/pci/devices").join(pci(gpu));
        std::fs::create_dir_all(&device).unwrap();
        std::fs::write(device.join("vendor"), "0x10de").unwrap();
        std::fs::write(device.join("class"), "0x030200").unwrap();
    }
    let stub = Path::new(PROGRAM).parent().unwrap().join("deps/libtidewatch_nvml_stub.so");
    let child = Command::new(PROGRAM)
        .args(["up", "--data", "data", "--plain", "--http", "127.0.0.1:0"])
        .env("TIDEWATCH_COLLECT__NVML_LIBRARY", stub)
        .env("TIDEWATCH_COLLECT__SYSFS", "sys")
        .env("TIDEWATCH_COLLECT__HOST", "n1")
        .env("TIDEWATCH_LAKE__FLUSH_INTERVAL", "300ms")
        .env("NVML_STUB_SCENARIO", "scenario.json")
        .current_dir(here)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let up = Up(child);
    wait_for("rows", || {
        here.join("data/internal/log/tidewatch.gpu-00001").exists() && count(here, "SELECT count(*) FROM gpu") > 60
    });
    // As the scenario says: this one leaves the bus too.
    std::thread::sleep(Duration::from_millis(500));
    std::fs::remove_dir_all(here.join("sys/bus/pci/devices").join(pci(3))).unwrap();
    let fired = "SELECT count(DISTINCT rule) FROM alert_event WHERE to_state = 'firing' AND
        (rule = 'gpu_overheating' AND labels['gpu_uuid'] = 'GPU-0' OR rule = 'gpu_xid_critical' AND labels['gpu_uuid'] = 'GPU-1'
         OR rule = 'gpu_lost' AND labels['gpu_uuid'] = 'GPU-1' OR rule = 'gpu_stuck' AND labels['gpu_uuid'] = 'GPU-2'
         OR rule = 'gpu_missing' AND labels['gpu_uuid'] = 'GPU-3')";
    wait_for("all five alerts", || {
        here.join("data/internal/log/tidewatch.alert_event-00000").exists() && count(here, fired) == 5
    });
    up.stop();
    let wrong = "SELECT count(*) FROM alert_event WHERE to_state = 'firing' AND rule LIKE 'gpu%' AND NOT
        (labels['gpu_uuid'] = 'GPU-0' AND rule IN ('gpu_overheating', 'gpu_temperature_margin')
         OR labels['gpu_uuid'] = 'GPU-1' AND rule IN ('gpu_xid_critical', 'gpu_lost')
         OR labels['gpu_uuid'] = 'GPU-2' AND rule = 'gpu_stuck' OR labels['gpu_uuid'] = 'GPU-3' AND rule IN ('gpu_missing', 'gpu_lost'))";
    assert_eq!(count(here, wrong), 0, "and nobody is paged for anything else");
}

#[test]
fn wrong_inputs_are_named_and_the_rest_runs() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let write = |name: &str, text: &str| std::fs::write(here.join(name), text).unwrap();

    write(
        "bad.sql",
        "CREATE ALERT a AS SELECT host FROM gpu WHERE temprature_celsius > 1;\nCREATE ALERT b AS SELECT host, avg(power_watts) AS p FROM gpu GROUP BY host;\nCREATE ALERT c WITH (summary = '{{ hst }}') AS SELECT host FROM gpu;\nCREATE ALERT d AS SELECT host FROM gpu WHERE power_watts > 1;",
    );
    let (code, said) = bad(here, &["check", "bad.sql"]);
    assert_eq!(code, 1);
    for expected in [
        "bad.sql:1:46: error: unknown column 'temprature_celsius' in table 'gpu'; did you mean 'temperature_celsius'? [a]",
        "bad.sql:2:14: error: no window bound",
        "bad.sql:3:14: error: summary: template",
        "1 rules are good, 3 errors",
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }

    write("tidewatch.toml", "[http]\nadress = \"x\"\n[lake]\nwindow = \"1 parsec\"\n");
    let (code, said) = bad(here, &["config"]);
    assert_eq!(code, 2);
    assert!(
        said.contains("2 faults")
            && said.contains("tidewatch.toml:2:1: unknown setting 'http.adress'; did you mean 'http.address'?")
            && said.contains("tidewatch.toml:4:1: lake.window: '1 parsec' is not a duration"),
        "{said}"
    );
    write("tidewatch.toml", "[http\n");
    assert!(bad(here, &["config"]).1.contains("tidewatch.toml:1:6: "));
    std::fs::remove_file(here.join("tidewatch.toml")).unwrap();

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = bad(here, &["up", "--data", "other", "--no-collect", "--http", &address]);
    assert!(code == 2 && said.contains(&format!("can't listen on {address}")), "{said}");
    let (code, said) = bad(here, &["up", "--data", "other", "--no-collect", "--http", "0.0.0.0:0"]);
    assert!(code == 2 && said.contains("not a loopback address"), "{said}");

    write("file", "");
    let (code, said) = bad(here, &["up", "--data", "file", "--no-collect"]);
    assert!(code == 2 && said.contains("can't use the data folder file: "), "{said}");
    assert_eq!(bad(here, &["query", "SELECT 1", "--data", "nowhere"]).0, 2);

    // Bad rules beside good ones, and a log that was damaged: the rest runs.
    good(here, &["simulate", "--data", "data", "--gpus", "8", "--duration", "2m"]);
    let segment = here.join("data/log/tidewatch.gpu/00000/00000000000000000000.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes.truncate(bytes.len() - 5);
    std::fs::write(&segment, bytes).unwrap();
    let up = Up::start(here, &["--rules", "bad.sql"]);
    wait_for("rows", || {
        here.join("data/internal/log/tidewatch.gpu-00000").exists()
            && count(here, "SELECT count(*) FROM gpu") == 8 * 118
    });
    let (code, said) = bad(here, &["up", "--data", "data", "--no-collect", "--http", "127.0.0.1:0"]);
    assert!(code == 2 && said.contains("another process"), "{said}");
    let said = up.stop();
    assert!(said.contains("bad.sql:1:46: error: unknown column"), "{said}");
    assert_eq!(
        count(here, "SELECT count(*) FROM alert_event WHERE rule = 'd' AND to_state = 'firing'"),
        1,
        "the good rule ran: eight GPUs, one host"
    );
    good(here, &["lake", "verify", "--data", "data"]);

    for (sql, expected) in [
        ("SELEC 1", "SELEC"),
        ("SELECT * FROM gpus", "unknown table 'gpus'; did you mean 'gpu'?"),
        ("SELECT temprature FROM gpu", "temprature"),
        ("CREATE TABLE x (a INT)", "not supported"),
        ("COPY gpu TO 'x.parquet'", "not supported"),
        ("SELECT 1; SELECT 2", "expected one statement, found 2"),
    ] {
        let (code, said) = bad(here, &["query", sql, "--data", "data"]);
        assert!(code == 2 && said.contains(expected), "{sql}: {said}");
    }
    write("rows.csv", "ts,host,load1\n2026-01-01T00:00:00Z,n1,1.5\nyesterday,n1,2\n");
    let (code, said) = bad(here, &["backtest", "--input", "host=rows.csv"]);
    assert!(code == 2 && said.contains("rows.csv: column 'ts'"), "{said}");
}

#[test]
fn dead_letters_are_listed_shown_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    good(here, &["simulate", "--data", "data", "--gpus", "8", "--duration", "10s"]);
    let frame = {
        let log = LocalLog::open(&here.join("data/log"), LocalLogOptions::default()).unwrap();
        let mut frame = log.read("tidewatch.gpu", 0, 0, 1).unwrap().records.remove(0).1;
        let garbage = Record { value: Some(b"{}".to_vec()), timestamp: frame.timestamp, ..Record::default() };
        log.append("tidewatch.gpu", 0, &[garbage]).unwrap();
        frame.headers.push(("tidewatch-dlq-error".to_string(), b"it was too new".to_vec()));
        frame
    };
    let run_until_letters = |letters: usize| {
        let up = Up::start(here, &[]);
        wait_for("letters", || good(here, &["dlq", "list", "--data", "data"]).lines().count() == letters);
        up.stop();
    };
    run_until_letters(1);
    let listed: serde_json::Value = serde_json::from_str(&good(here, &["dlq", "list", "--data", "data"])).unwrap();
    let expected = serde_json::json!({"topic": "tidewatch.gpu", "letter": 0, "partition": 0, "offset": 10,
        "ts": frame.timestamp.to_string(), "bytes": 2, "error": "header tidewatch-version: is missing"});
    assert_eq!(listed, expected);
    let shown = good(here, &["dlq", "show", "tidewatch.gpu", "0", "--data", "data"]);
    assert!(shown.contains("\"payload_hex\":\"7b7d\""), "{shown}");
    assert_eq!(bad(here, &["dlq", "show", "tidewatch.gpu", "7", "--data", "data"]).0, 1);
    // What can't be read comes back; what can be read now is read, and once, however often it is put back.
    good(here, &["dlq", "replay", "--topic", "tidewatch.gpu", "--data", "data"]);
    run_until_letters(2);
    assert_eq!(count(here, "SELECT count(*) FROM gpu"), 80);
    LocalLog::open(&here.join("data/log"), LocalLogOptions::default())
        .unwrap()
        .append("tidewatch.gpu.dlq", 0, &[frame])
        .unwrap();
    for _ in 0..2 {
        good(here, &["dlq", "replay", "--topic", "tidewatch.gpu", "--offset", "2", "--data", "data"]);
        let up = Up::start(here, &[]);
        wait_for("the replayed rows", || count(here, "SELECT count(*) FROM gpu") == 88);
        up.stop();
    }
    assert_eq!(count(here, "SELECT count(*) FROM gpu"), 88);
}

#[test]
fn help_has_examples() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["up", "check", "test", "backtest", "query", "tables", "simulate"] {
        assert!(good(folder.path(), &[command, "--help"]).contains("Examples:"), "{command}");
    }
    assert_eq!(bad(folder.path(), &["nonsense"]).0, 2);
    assert!(good(folder.path(), &["tables", "gpu", "--format", "csv"]).contains("power_watts,Float64,,watts,"));
}

/// Everything around an alert, as an operator uses it: routes from a file, a heartbeat, TLS and roles, acks, silences, the timeline.
#[test]
fn an_alert_is_told_acknowledged_silenced_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../connectors/serve/testdata");
    let (address, posted) = webhooks();
    let url = format!("http://{address}/hook");
    let routes = format!(
        "route: {{receiver: ops, group_by: [alertname], group_wait: 0s}}\nheartbeat: {{receiver: switch, interval: 1s}}\nreceivers:\n  - name: ops\n    webhook_configs: [{{url: '{url}'}}]\n  - name: switch\n    webhook_configs: [{{url: '{url}'}}]\n"
    );
    let tokens = "ann viewer aaaaaaaa\nbob editor bbbbbbbb\n";
    let files = [
        ("alerting.yml", routes.as_str()),
        ("hot.sql", HOT),
        ("tokens", tokens),
        ("ann", "aaaaaaaa"),
        ("bob", "bbbbbbbb"),
    ];
    files.iter().for_each(|(name, text)| std::fs::write(here.join(name), text).unwrap());
    let incidents = "[{\"kind\": \"overheating\", \"at\": \"1s\", \"duration\": \"60s\", \"gpu\": 3}]";
    std::fs::write(here.join("incidents.json"), incidents).unwrap();
    let shown = good(here, &["render", "alerting.yml", "--target", "ops", "--label", "host=n7"]);
    assert!(shown.contains("=== ops") && shown.contains("\"host\": \"n7\"") && !shown.contains("/hook"), "{shown}");
    std::fs::write(
        here.join("tidewatch.toml"),
        format!(
            "[http]\ntokens_file = \"tokens\"\ntls_cert_file = {:?}\ntls_key_file = {:?}\n",
            testdata.join("localhost.pem"),
            testdata.join("localhost.key")
        ),
    )
    .unwrap();
    let rules = ["--rules", "hot.sql", "--no-bundled-rules", "--alerting", "alerting.yml"];
    let (up, server) = Up::start(here, &rules).ready_at();
    assert!(server.starts_with("https://127.0.0.1:"), "{server}");
    let fleet =
        ["--real-time", "--gpus", "8", "--interval", "100ms", "--duration", "12s", "--incidents", "incidents.json"];
    let mut sender = Command::new(PROGRAM)
        .args(["simulate", "--data", "data"])
        .args(fleet)
        .current_dir(here)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ask = |who: &str, arguments: &[&str]| {
        let output = Command::new(PROGRAM)
            .args(arguments)
            .args(["--url", &server, "--token-file", who, "--ca-file"])
            .arg(testdata.join("ca.pem"))
            .current_dir(here)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        (output.status.code().unwrap(), text)
    };
    let mut told = std::collections::BTreeSet::new();
    while told.len() < 2 {
        let (_, _, body) = posted.recv_timeout(Duration::from_secs(60)).expect("an alert and a heartbeat come");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        told.insert(body["alerts"][0]["labels"]["alertname"].as_str().unwrap().to_string());
    }
    assert_eq!(told.into_iter().collect::<Vec<_>>(), ["Watchdog", "hot"]);
    // What the API shows is renewed twice a second.
    let mut listed = String::new();
    wait_for("the list", || {
        listed = ask("ann", &["alerts", "--format", "json"]).1;
        !listed.is_empty()
    });
    let alert: serde_json::Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
    let fingerprint = alert["fingerprint"].as_str().unwrap();
    assert_eq!((&alert["alertname"], &alert["acked_by"]), (&"hot".into(), &serde_json::Value::Null), "{alert}");
    let (code, text) = ask("ann", &["alerts", "ack", "alertname=hot", "--comment", "on it"]);
    assert!(code == 1 && text.contains("403"), "{text}");
    let (code, text) = ask("bob", &["alerts", "ack", "alertname=hot", "--comment", "on it", "--for", "2h"]);
    assert!(code == 0 && text.contains(&format!("{fingerprint} acknowledged by bob")), "{text}");
    assert!(ask("ann", &["alerts", "list", "--format", "csv"]).1.contains(",bob,"));
    let (code, id) = ask("bob", &["silence", "add", "alertname=hot", "--comment", "known"]);
    assert_eq!(code, 0, "{id}");
    wait_for("the timeline", || {
        let (_, text) = ask("ann", &["alerts", "show", fingerprint, "--format", "table"]);
        ["> firing", "ops delivered", "acknowledged acked_by=bob comment=on it", "acknowledged by bob: on it"]
            .iter()
            .all(|part| text.contains(part))
    });
    assert_eq!(ask("bob", &["alerts", "unack", fingerprint]).0, 0);
    assert_eq!(ask("ann", &["alerts", "show", "0123456789abcdef"]).0, 1);
    let state = ask("bob", &["silence", "expire", id.trim()]);
    assert_eq!(state.0, 0, "{}", state.1);
    sender.wait().unwrap();
    up.stop();
    assert_eq!(count(here, "SELECT count(*) FROM silence_event"), 2);
    assert_eq!(count(here, "SELECT count(*) FROM alert_event WHERE reason IN ('acknowledged', 'unacknowledged')"), 2);
    assert!(
        count(here, &format!("SELECT count(*) FROM notice_event WHERE strpos(fingerprints, '{fingerprint}') > 0")) > 0
    );
}

/// While a bucket answers nothing but that it is too busy, an alert fires as ever; afterwards every row is there.
#[test]
fn a_lake_in_a_bucket_that_is_too_busy_holds_up_no_alert() {
    let Some(mut server) = S3::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hot.sql"), HOT).unwrap();
    let incident = r#"[{"kind": "overheating", "at": "8s", "duration": "60s", "gpu": 3}]"#;
    std::fs::write(folder.path().join("incidents.json"), incident).unwrap();
    let mut environment = server.variables();
    environment.push(("TIDEWATCH_LAKE__URL".to_string(), "s3://tidewatch/prod".to_string()));
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).args(["--data", "data"]).current_dir(folder.path()).envs(environment.iter().cloned());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let rules = ["--rules", "hot.sql", "--no-bundled-rules"];
    let (up, url) = Up::start_with(folder.path(), &rules, &environment).ready_at();
    let mut simulator = Command::new(PROGRAM)
        .args(["simulate", "--data", "data", "--real-time", "--gpus", "32", "--interval", "100ms", "--duration", "25s"])
        .args(["--incidents", "incidents.json"])
        .current_dir(folder.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let rows = || ask(&["query", "SELECT count(*) FROM gpu", "--format", "csv"]).lines().nth(1).unwrap().to_string();
    wait_for("rows in the bucket", || rows() != "0");
    server.fail("all503", 1_000_000);
    let get = |path: &str| tidewatch_serve::ask("GET", &format!("{url}{path}"), Asking::default(), None).unwrap().1;
    wait_for("the alert", || get("/api/v1/alerts").contains("\"firing\""));
    let metrics = get("/metrics");
    let figure = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(figure("tidewatch_lake_waiting_rows ") > 0.0, "nothing is written meanwhile");
    let outage = std::env::var("TIDEWATCH_OUTAGE").map_or(0, |seconds| seconds.parse().unwrap());
    std::thread::sleep(Duration::from_secs(outage));
    server.fail("none", 0);
    assert!(simulator.wait().unwrap().success());
    wait_for("every row", || rows() == "8000");
    up.stop();
    assert_eq!(rows(), "8000");
    let files = ask(&["lake", "ls", "--table", "gpu", "--format", "csv"]);
    assert!(files.contains("s3://tidewatch/prod/lake/gpu/dt="), "{files}");
    let verified = ask(&["lake", "verify", "--format", "json"]);
    assert!(verified.contains("\"problems\":0"), "{verified}");
    assert!(!folder.path().join("data/lake").exists());
}
