//! What watching one machine costs: the agent with all host collectors, without and with Kafka, beside node_exporter scraped
//! once a second. CPU milliseconds per second and pass, and resident memory.
//!
//! `cargo build --release --workspace && target/release/agent [SECONDS]`

#![allow(clippy::print_stdout, clippy::unwrap_used)]

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

/// Lets a process run for some seconds after a start that does not count; `each` is done once a second.
fn observe(name: &str, child: Child, seconds: u32, each: impl Fn()) {
    let running = Running(child);
    let pid = running.0.id();
    for _ in 0..5 {
        std::thread::sleep(Duration::from_secs(1));
        each();
    }
    let before = cpu_seconds(pid).unwrap();
    for _ in 0..seconds {
        std::thread::sleep(Duration::from_secs(1));
        each();
    }
    let milliseconds = (cpu_seconds(pid).unwrap() - before) * 1e3 / f64::from(seconds);
    println!("{name:<44} {milliseconds:>8.2} CPU ms/s {:>8.1} MiB resident", resident_mib(pid));
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(60);
    print_machine();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let exporter = Command::new("prometheus-node-exporter")
        .arg(format!("--web.listen-address={address}"))
        .stderr(Stdio::null())
        .spawn();
    let url = format!("http://{address}/metrics");
    let scrape = || drop(ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap());
    match exporter {
        Ok(child) => observe("node_exporter (Debian), scraped every second", child, seconds, scrape),
        Err(error) => println!("node_exporter: {error}"),
    }
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
