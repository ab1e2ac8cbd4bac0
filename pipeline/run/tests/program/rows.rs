//! Rows that others hand in over HTTP.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::{PROGRAM, Up, count, wait_for};

/// A training job tells of itself with the Python package, also while `up` is killed and started again; and a token that may only write
/// rows writes rows and sees nothing.
#[test]
fn a_training_job_tells_of_itself() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../connectors/python/src");
    if !Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "CI has python3");
        println!("NOT RUN: python3 is needed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    std::fs::write(place.join("tokens"), "job writer secret\nann viewer look\n").unwrap();
    // A port of its own, the same after the restart.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let http = format!("127.0.0.1:{port}");
    let start = || {
        let mut command = Command::new(PROGRAM);
        command.args(["up", "--data", "data", "--no-collect", "--no-bundled-rules", "--plain", "--http", &http]);
        command.envs([("TIDEWATCH_HTTP__TOKENS_FILE", "tokens"), ("TIDEWATCH_LAKE__FLUSH_INTERVAL", "300ms")]);
        Up(command.current_dir(place).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()).ready()
    };
    let up = start();
    let script = "
import sys, tidewatch
tidewatch.init(job='run-7', rank=3)
with tidewatch.job():
    for step in range(2000):
        tidewatch.step(step, loss=float('nan') if step == 5 else 2.5, tokens=8192)
        if step == 1000:
            print('half', flush=True)
            sys.stdin.readline()
    with tidewatch.checkpoint():
        pass
if not tidewatch.flush(60):
    sys.exit(str(tidewatch.stats()))
print(tidewatch.stats()['dropped'], tidewatch.stats()['refused'])
";
    let mut job = Command::new("python3")
        .args(["-c", script])
        .env("PYTHONPATH", &package)
        .envs([("TIDEWATCH_URL", format!("http://{http}")), ("TIDEWATCH_TOKEN", "secret".to_string())])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let rows = |table: &str| count(place, &format!("SELECT count(*) FROM (SELECT DISTINCT * FROM {table})"));
    wait_for("the first half", || rows("train_step") == 1001);
    drop(up);
    drop(job.stdin.take());
    // What comes while nobody listens waits.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let up = start();
    let ended = job.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success() && said.ends_with("0 0\n"), "{said}");
    wait_for("every row", || (rows("train_step"), rows("job_event")) == (2000, 3));
    let odd = "SELECT count(*) FROM train_step WHERE isnan(loss) AND step = 5 AND job = 'run-7' AND rank = 3";
    assert_eq!(count(place, odd), 1, "a loss that is no number is data");
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let metrics = |token: &str| {
        let request = agent.get(format!("http://{http}/metrics")).header("Authorization", format!("Bearer {token}"));
        let mut response = request.call().unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    };
    assert_eq!(metrics("secret").0, 403);
    assert!(metrics("look").1.contains("tidewatch_http_rows_total{table=\"job_event\"}"));
    up.stop();
}

/// The real Prometheus shows its own metrics, and they become rows; when it is gone it is down, and its series are not.
#[test]
fn an_exporter_is_scraped() {
    if !Command::new("prometheus").arg("--version").output().is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "CI has Debian's prometheus");
        println!("NOT RUN: prometheus is needed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    std::fs::write(place.join("prometheus.yml"), "global: {}\n").unwrap();
    let exporter = Command::new("prometheus")
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=tsdb"])
        .arg(format!("--web.listen-address={address}"))
        .current_dir(place)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Whatever is a process ends with its test.
    let exporter = Up(exporter);
    std::fs::write(
        place.join("targets.json"),
        format!(r#"[{{"targets": ["{address}"], "labels": {{"job": "prom"}}}}]"#),
    )
    .unwrap();
    let mut command = Command::new(PROGRAM);
    // Collectors of this machine are not what is looked at.
    command.args(["up", "--data", "data", "--no-bundled-rules", "--plain", "--http", "127.0.0.1:0"]);
    command.envs([
        ("TIDEWATCH_SCRAPE__FILES", "targets.json"),
        ("TIDEWATCH_SCRAPE__INTERVAL", "1s"),
        ("TIDEWATCH_LAKE__FLUSH_INTERVAL", "300ms"),
    ]);
    let up = Up(command.current_dir(place).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()).ready();
    let scraped = |condition: &str| {
        count(place, &format!("SELECT count(*) FROM metrics WHERE labels['job'] = 'prom' AND {condition}"))
    };
    wait_for("what it is", || scraped("name = 'prometheus_build_info' AND labels['version'] <> '' AND value = 1") > 1);
    assert!(scraped("name = 'prometheus_http_request_duration_seconds_bucket' AND labels['le'] = '+Inf'") > 0);
    assert!(scraped("name = 'up' AND value = 1") > 1);
    drop(exporter);
    wait_for("that it is down", || scraped("name = 'up' AND value = 0") > 0);
    wait_for("that its series have ended", || scraped("name = 'prometheus_build_info' AND value IS NULL") > 0);
    let ill = "SELECT count(*) FROM collector WHERE collector = 'metrics' AND NOT ok";
    wait_for("that the collector says so", || count(place, ill) > 0);
    up.stop();
}

/// The real Prometheus writes what it scrapes of the real node_exporter, and the real OpenTelemetry SDK what it measures and logs, while
/// `up` is killed and started again: nothing is lost, and nothing is there twice.
#[test]
fn other_senders_write_while_up_is_killed() {
    let Some(python) = tidewatch_tests::peers::python("opentelemetry.exporter.otlp.proto.http") else { return };
    let is_there =
        |tool: &str| Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    for tool in ["prometheus", "prometheus-node-exporter"] {
        if !is_there(tool) {
            assert!(std::env::var_os("CI").is_none(), "CI has Debian's {tool}");
            println!("NOT RUN: {tool} is needed");
            return;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let http = format!("127.0.0.1:{}", tidewatch_tests::peers::free_port());
    let start = || {
        let mut command = Command::new(PROGRAM);
        command.args(["up", "--data", "data", "--no-collect", "--no-bundled-rules", "--plain", "--http", &http]);
        command.env("TIDEWATCH_LAKE__FLUSH_INTERVAL", "300ms");
        Up(command.current_dir(place).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()).ready()
    };
    let up = start();
    let address = || format!("127.0.0.1:{}", tidewatch_tests::peers::free_port());
    let (node, prometheus) = (address(), address());
    let node_exporter = Command::new("prometheus-node-exporter")
        .args([&format!("--web.listen-address={node}"), "--collector.disable-defaults", "--collector.loadavg"])
        .stderr(Stdio::null())
        .spawn();
    let node_exporter = Up(node_exporter.unwrap());
    let configuration = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: node, static_configs: [{{targets: ['{node}']}}]}}]\nremote_write: [{{url: 'http://{http}/api/v1/write', queue_config: {{batch_send_deadline: 500ms}}}}]\n"
    );
    std::fs::write(place.join("prometheus.yml"), configuration).unwrap();
    let server = Command::new("prometheus")
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=tsdb"])
        .arg(format!("--web.listen-address={prometheus}"))
        .current_dir(place)
        .stderr(Stdio::null())
        .spawn();
    let server = Up(server.unwrap());
    let script = "
import logging, sys
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
resource = Resource.create({'service.name': 'chat', 'service.instance.id': 'c-1', 'host.name': 'n1'})
reader = PeriodicExportingMetricReader(OTLPMetricExporter(), export_interval_millis=500)
provider = MeterProvider(resource=resource, metric_readers=[reader])
meter = provider.get_meter('t')
requests = meter.create_counter('requests', unit='{request}')
latency = meter.create_histogram('latency', unit='s')
logs = LoggerProvider(resource=resource)
logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(), schedule_delay_millis=200))
log = logging.getLogger('trainer')
log.setLevel(logging.INFO)
log.addHandler(LoggingHandler(logger_provider=logs))
for half in range(2):
    for at in range(500):
        requests.add(1, {'code': '200'})
        latency.record(0.25)
        log.error('line %d', half * 500 + at, extra={'rank': at})
    print('half', flush=True)
    sys.stdin.readline()
logs.force_flush(60000)
provider.force_flush(60000)
logs.shutdown(); provider.shutdown()
";
    let sdk = Command::new(&python)
        .args(["-c", script])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{http}"))
        .current_dir(place)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut sdk = Up(sdk.unwrap());
    wait_for("the node", || count(place, "SELECT count(*) FROM metrics WHERE name = 'node_load1'") > 2);
    wait_for("the first lines", || count(place, "SELECT count(*) FROM log") == 500);
    // kill -9, while everybody writes.
    drop(up);
    let mut stdin = sdk.0.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"\n").unwrap();
    std::thread::sleep(std::time::Duration::from_secs(3));
    let up = start();
    std::io::Write::write_all(&mut stdin, b"\n").unwrap();
    assert!(sdk.0.wait().unwrap().success());
    wait_for("every line", || count(place, "SELECT count(DISTINCT message) FROM log") == 1000);
    let lines = "SELECT count(*) FROM log WHERE host = 'n1' AND source = 'chat' AND level = 'error' AND fields['rank'] IS NOT NULL";
    assert!(count(place, lines) >= 1000);
    let newest = |name: &str, labels: &str| {
        format!(
            "SELECT CAST(max(value) AS BIGINT) FROM metrics WHERE name = '{name}' AND labels['job'] = 'chat'{labels}"
        )
    };
    wait_for("every request", || count(place, &newest("requests_total", " AND labels['code'] = '200'")) == 1000);
    assert_eq!(count(place, &newest("latency_seconds_bucket", " AND labels['le'] = '5'")), 1000);
    assert_eq!(count(place, &newest("latency_seconds_bucket", " AND labels['le'] = '0'")), 0);
    // Every scrape that Prometheus itself has, we have: it scraped on while we were away, and sent that later.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
    let url = format!("http://{prometheus}/api/v1/query?query=node_load1%5B5m%5D");
    let answer = agent.get(url).call().unwrap().body_mut().read_to_string().unwrap();
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let theirs: Vec<i64> = answer["data"]["result"][0]["values"]
        .as_array()
        .unwrap()
        .iter()
        .map(|value| (value[0].as_f64().unwrap() * 1e3).round() as i64)
        .collect();
    assert!(theirs.len() > 5, "{theirs:?}");
    let last = theirs[theirs.len() - 1];
    let ours = |what: &str| {
        format!(
            "SELECT count({what}) FROM metrics WHERE name = 'node_load1' AND ts BETWEEN to_timestamp_millis({}) AND to_timestamp_millis({last})",
            theirs[0]
        )
    };
    wait_for("every scrape", || count(place, &ours("DISTINCT ts")) == theirs.len() as i64);
    assert!(count(place, &ours("*")) >= theirs.len() as i64);
    drop(server);
    drop(node_exporter);
    up.stop();
}

/// An agent writes into the log of an `up` that has figures of its own in the same table.
#[test]
fn an_agent_beside_up_writes_every_table() {
    let agent = Path::new(PROGRAM).with_file_name("tidewatch-agent");
    assert!(agent.exists(), "{} is built by: cargo test --workspace", agent.display());
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let (up, url) = Up::start(place, &[]).ready_at();
    let named = |name: &str| count(place, &format!("SELECT count(*) FROM metrics WHERE {name}"));
    wait_for("figures of its own", || named("name = 'tidewatch_notices_total'") > 0);
    let mut command = Command::new(agent);
    command.args(["--data", "data/log", "--scrape-interval", "1s", "--scrape", &format!("own={url}/metrics")]);
    let agent = Up(command.current_dir(place).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    wait_for("what it scraped", || named("name = 'tidewatch_rows_total' AND labels['job'] = 'own'") > 0);
    let known = named("name = 'tidewatch_notices_total' AND labels['job'] IS NULL");
    wait_for("more figures", || named("name = 'tidewatch_notices_total' AND labels['job'] IS NULL") > known);
    wait_for("its health", || count(place, "SELECT count(*) FROM collector WHERE collector = 'metrics' AND ok") > 0);
    assert_eq!(count(place, "SELECT count(*) FROM collector WHERE dropped_rows_total > 0"), 0);
    drop(agent);
    up.stop();
}
