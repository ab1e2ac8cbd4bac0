//! From a row's arrival at the log to a webhook: one alert after the other, by a rule of rows and by a rule over a window of one second,
//! each with `for` 0 and the built-in route; Prometheus with Alertmanager, tuned to a second everywhere, beside it; and 10,000 GPUs
//! that go down at once.
//!
//! `cargo build --release --workspace && target/release/alerts [ALERTS]`; with 0 only what goes down at once.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use tidewatch_benches::{Running, print_machine, program};
use tidewatch_log::{LocalLog, LocalLogOptions};
use tidewatch_model::ports::{Clock, Log, TopicOptions};
use tidewatch_model::time::SystemClock;
use tidewatch_model::wire::{Origin, encode_split};
use tidewatch_tests::peers::{Alertmanager, Peer, free_port, webhooks};

const ROW_RULE: &str =
    "CREATE ALERT hot AS SELECT host, temperature_celsius AS t FROM gpu WHERE temperature_celsius > 85;";
const WINDOW_RULE: &str = "CREATE ALERT hot WITH (delay = '200ms') AS SELECT host, max(temperature_celsius) AS t
    FROM TUMBLE(gpu, ts, INTERVAL '1 second') GROUP BY host HAVING max(temperature_celsius) > 85;";

/// The hosts that fire in a webhook's body, ours or Alertmanager's: each alert says its status first.
fn hosts_in(body: &str) -> Vec<String> {
    let alerts = body.split("\"status\":\"firing\",\"labels\":").skip(1);
    let hosts = alerts.filter_map(|text| text.split("\"host\":\"").nth(1)?.split('"').next());
    hosts.map(str::to_string).collect()
}

fn rows(ts: i64, hosts: &[(String, f64)]) -> RecordBatch {
    let names: StringArray = hosts.iter().map(|(host, _)| Some(host.as_str())).collect();
    let columns: [(&str, ArrayRef); 4] = [
        ("ts", Arc::new(TimestampMicrosecondArray::from(vec![ts; hosts.len()]).with_timezone("UTC"))),
        ("host", Arc::new(names.clone())),
        ("gpu_uuid", Arc::new(names)),
        ("temperature_celsius", Arc::new(hosts.iter().map(|(_, t)| Some(*t)).collect::<Float64Array>())),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// What writes rows of `gpu` into the folder's log.
struct Sender {
    log: LocalLog,
    origin: Mutex<Origin>,
}

impl Sender {
    fn new(folder: &Path) -> Sender {
        let log = LocalLog::open(&folder.join("data/log"), LocalLogOptions::default()).unwrap();
        let options = TopicOptions { partitions: 1, compacted: false, retention: None, retention_bytes: None };
        log.create_topic("tidewatch.gpu", &options).unwrap();
        Sender { log, origin: Mutex::new(Origin { source: "bench".into(), incarnation: "1".into(), seq: 0 }) }
    }

    fn send(&self, hosts: &[(String, f64)]) -> Instant {
        let batch = rows(SystemClock.now().0, hosts);
        let records = encode_split("gpu", &mut self.origin.lock().unwrap(), &batch).unwrap();
        self.log.append("tidewatch.gpu", 0, &records).unwrap();
        Instant::now()
    }
}

/// `up` over the folder, once it runs.
fn up(folder: &Path, rules: &str, more: &[&str]) -> Running {
    std::fs::write(folder.join("rules.sql"), rules).unwrap();
    let fixed = ["up", "--data", "data", "--no-collect", "--plain", "--http", "127.0.0.1:0", "--no-bundled-rules"];
    let mut command = Command::new(program());
    command.args(fixed).args(["--rules", "rules.sql"]).args(more).current_dir(folder);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("/metrics")));
    std::thread::spawn(move || said.for_each(drop));
    Running(child)
}

fn print(name: &str, mut seconds: Vec<f64>) {
    seconds.sort_by(f64::total_cmp);
    let at = |share: f64| seconds[((seconds.len() - 1) as f64 * share).round() as usize];
    println!(
        "{name:<64} {:>4} alerts: min {:.3}  median {:.3}  p99 {:.3}  max {:.3} s",
        seconds.len(),
        at(0.0),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// One alert after the other, each of a host of its own, while 50 well hosts send a row ten times a second.
fn one_by_one(rule: &str, alerts: usize) -> Vec<f64> {
    let folder = tempfile::tempdir().unwrap();
    let (address, came) = webhooks();
    let url = format!("http://{address}/hook");
    let sender = Arc::new(Sender::new(folder.path()));
    let _up = up(folder.path(), rule, &["--webhook", &url]);
    let stop = Arc::new(AtomicBool::new(false));
    let well: Vec<(String, f64)> = (0..50).map(|host| (format!("well{host}"), 50.0)).collect();
    let others = {
        let (sender, stop) = (sender.clone(), stop.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                sender.send(&well);
                std::thread::sleep(Duration::from_millis(100));
            }
        })
    };
    std::thread::sleep(Duration::from_secs(3));
    let mut seconds = Vec::new();
    for alert in 0..alerts {
        // At any time within the second.
        std::thread::sleep(Duration::from_millis(100 + (alert as u64 * 379) % 1_000));
        let host = format!("n{alert}");
        let sent = sender.send(&[(host.clone(), 95.0)]);
        loop {
            let (at, _, body) = came.recv_timeout(Duration::from_secs(30)).unwrap();
            if hosts_in(&body).contains(&host) {
                seconds.push((at - sent).as_secs_f64());
                break;
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    others.join().unwrap();
    seconds
}

/// Prometheus scrapes and evaluates each second and Alertmanager waits for nothing: from the value's change to the webhook.
fn prometheus(alerts: usize) -> Option<Vec<f64>> {
    let folder = tempfile::tempdir().unwrap();
    let (address, came) = webhooks();
    let url = format!("http://{address}/hook");
    let hot = Arc::new(AtomicI64::new(-1));
    let exporter = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = exporter.local_addr().unwrap();
    let shown = hot.clone();
    std::thread::spawn(move || {
        for stream in exporter.incoming() {
            let mut stream = stream.unwrap();
            let mut buffer = [0; 4_096];
            drop(stream.read(&mut buffer));
            let host = shown.load(Ordering::Relaxed);
            let body = format!("temperature_celsius{{host=\"n{host}\"}} 95\n");
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            drop(stream.write_all(format!("{head}{body}").as_bytes()));
        }
    });
    let routes = format!(
        "route: {{receiver: r, group_by: ['...'], group_wait: 0s, group_interval: 1s}}\nreceivers: [{{name: r, webhook_configs: [{{url: '{url}'}}]}}]\n"
    );
    let alertmanager = Alertmanager::start(&routes)?;
    let host = alertmanager.url.trim_start_matches("http://");
    let configuration = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\nalerting: {{alertmanagers: [{{static_configs: [{{targets: ['{host}']}}]}}]}}\nscrape_configs: [{{job_name: j, honor_labels: true, static_configs: [{{targets: ['{target}']}}]}}]\n"
    );
    std::fs::write(folder.path().join("prometheus.yml"), configuration).unwrap();
    let rules = "groups: [{name: g, rules: [{alert: hot, expr: 'temperature_celsius > 85'}]}]\n";
    std::fs::write(folder.path().join("rules.yml"), rules).unwrap();
    let _prometheus = Peer::start(
        Command::new("prometheus")
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=error"])
            .arg(format!("--web.listen-address=127.0.0.1:{}", free_port()))
            .current_dir(folder.path()),
    );
    std::thread::sleep(Duration::from_secs(8));
    let mut seconds = Vec::new();
    for alert in 0..alerts {
        std::thread::sleep(Duration::from_millis(2_000 + (alert as u64 * 379) % 1_000));
        hot.store(alert as i64, Ordering::Relaxed);
        let changed = Instant::now();
        loop {
            let (at, _, body) = came.recv_timeout(Duration::from_secs(60)).unwrap();
            if hosts_in(&body).contains(&format!("n{alert}")) {
                seconds.push((at - changed).as_secs_f64());
                break;
            }
        }
    }
    Some(seconds)
}

/// Megabytes that a process has in memory now, and had at most.
fn memory(pid: u32) -> (f64, f64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1_024.0
    };
    (of("VmRSS"), of("VmHWM"))
}

/// 10,000 GPUs go down in one second, in a group, and one by one with the built-in route; another rule's alert comes meanwhile.
fn all_at_once(grouped: bool) {
    const GPUS: usize = 10_000;
    let folder = tempfile::tempdir().unwrap();
    let (address, came) = webhooks();
    let url = format!("http://{address}/hook");
    let sender = Sender::new(folder.path());
    let rules = format!(
        "{ROW_RULE} CREATE ALERT other WITH (severity = 'critical') AS SELECT host, temperature_celsius AS t FROM gpu WHERE temperature_celsius < 0;"
    );
    let routes = format!(
        "route: {{receiver: ops, group_by: [alertname], group_wait: 1s, group_interval: 10s}}\nreceivers: [{{name: ops, webhook_configs: [{{url: '{url}'}}]}}]\n"
    );
    std::fs::write(folder.path().join("alerting.yml"), routes).unwrap();
    let more: Vec<&str> = if grouped { vec!["--alerting", "alerting.yml"] } else { vec!["--webhook", &url] };
    let running = up(folder.path(), &rules, &more);
    let hosts: Vec<String> = (0..GPUS).map(|host| format!("n{host}")).collect();
    for part in hosts.chunks(1_000) {
        sender.send(&part.iter().map(|host| (host.clone(), 50.0)).collect::<Vec<_>>());
    }
    std::thread::sleep(Duration::from_secs(3));
    let (before, _) = memory(running.0.id());
    let begun = Instant::now();
    for part in hosts.chunks(1_000) {
        sender.send(&part.iter().map(|host| (host.clone(), 95.0)).collect::<Vec<_>>());
    }
    let other_sent = sender.send(&[("other".to_string(), -1.0)]);
    let (mut told, mut notices, mut other, mut last) = (BTreeSet::new(), 0, None, begun);
    while told.len() < GPUS || other.is_none() {
        let (at, _, body) = came.recv_timeout(Duration::from_secs(120)).unwrap();
        notices += 1;
        for host in hosts_in(&body) {
            if host == "other" {
                other.get_or_insert(at - other_sent);
            } else {
                told.insert(host);
                last = at;
            }
        }
    }
    let (_, most) = memory(running.0.id());
    println!(
        "{GPUS} GPUs down at once, {:<44} {notices:>6} notices in {:.2} s; another rule's alert after {:.2} s; memory {before:.0} MiB before, {most:.0} at most",
        if grouped { "grouped by alertname, group_wait 1s:" } else { "each for itself, the built-in route:" },
        (last - begun).as_secs_f64(),
        other.unwrap().as_secs_f64(),
    );
}

fn main() {
    let alerts = std::env::args().nth(1).map_or(100, |count| count.parse().unwrap());
    print_machine();
    if alerts > 0 {
        print("tidewatch, row rule, built-in route", one_by_one(ROW_RULE, alerts));
        print("tidewatch, TUMBLE 1 s, delay 200ms, for 0, built-in route", one_by_one(WINDOW_RULE, alerts));
        if let Some(seconds) = prometheus(alerts.min(40)) {
            print("prometheus, scrape 1s, evaluate 1s, alertmanager group_wait 0s", seconds);
        }
    }
    all_at_once(true);
    all_at_once(false);
}
