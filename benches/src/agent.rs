//! What watching one machine costs: the agent with all host collectors, without and with Kafka, beside node_exporter scraped
//! once a second, whole and with no more than what the agent's tables have. CPU milliseconds per second and pass, and
//! resident memory; of the agents, which thread takes what.
//!
//! `cargo build --release --workspace && target/release/agent [SECONDS]`

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tidewatch_benches::{Running, cpu_seconds, print_machine, program};
use tidewatch_tests::kafka::Cluster;

fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap() / 1024.0
}

/// CPU seconds of each of a process' threads, by name: those of one name together.
fn threads(pid: u32) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let nanoseconds = read("schedstat").split(' ').next().and_then(|text| text.parse::<f64>().ok());
        *found.entry(read("comm").trim().to_string()).or_default() += nanoseconds.unwrap_or_default() / 1e9;
    }
    found
}

/// Lets a process run for some seconds after a start that does not count; `each` is done once a second.
fn observe(name: &str, child: Child, seconds: u32, each: impl Fn()) {
    let running = Running(child);
    let pid = running.0.id();
    for _ in 0..5 {
        std::thread::sleep(Duration::from_secs(1));
        each();
    }
    let (before, threads_before) = (cpu_seconds(pid).unwrap(), threads(pid));
    for _ in 0..seconds {
        std::thread::sleep(Duration::from_secs(1));
        each();
    }
    let a_second = |spent: f64| spent * 1e3 / f64::from(seconds);
    let spent = a_second(cpu_seconds(pid).unwrap() - before);
    println!("{name:<58} {spent:>8.2} CPU ms/s {:>8.1} MiB resident", resident_mib(pid));
    if name.starts_with("tidewatch") {
        for (thread, seconds) in threads(pid) {
            let spent = a_second(seconds - threads_before.get(&thread).copied().unwrap_or_default());
            println!("    thread {thread:<20} {spent:>8.2} CPU ms/s");
        }
    }
}

/// Collectors of node_exporter that read what the agent's tables have.
const TRIMMED: [&str; 13] = [
    "--collector.disable-defaults",
    "--collector.cpu",
    "--collector.diskstats",
    "--collector.edac",
    "--collector.filesystem",
    "--collector.infiniband",
    "--collector.loadavg",
    "--collector.meminfo",
    "--collector.netdev",
    "--collector.pressure",
    "--collector.stat",
    "--collector.timex",
    "--collector.vmstat",
];

fn exporter(name: &str, arguments: &[&str], seconds: u32) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let child = Command::new("prometheus-node-exporter")
        .arg(format!("--web.listen-address={address}"))
        .args(arguments)
        .stderr(Stdio::null())
        .spawn();
    let url = format!("http://{address}/metrics");
    let scrape = || drop(ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap());
    match child {
        Ok(child) => observe(name, child, seconds, scrape),
        Err(error) => println!("{name}: {error}"),
    }
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(60);
    print_machine();
    exporter("node_exporter, scraped every second", &[], seconds);
    exporter("node_exporter with what the agent's tables have", &TRIMMED, seconds);
    let agent = program().with_file_name("tidewatch-agent");
    let folder = tempfile::tempdir().unwrap();
    let start = |more: &[&str]| {
        let mut command = Command::new(&agent);
        command.args(more).current_dir(folder.path()).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
    };
    observe("tidewatch-agent, local log", start(&["--data", "log"]), seconds, || {});
    if let Some(cluster) = Cluster::start(1, &[]) {
        let child = start(&["--data", "spool", "--kafka", &cluster.brokers()]);
        observe("tidewatch-agent, spool and Kafka", child, seconds, || {});
    }
}
