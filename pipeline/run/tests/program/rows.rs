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
