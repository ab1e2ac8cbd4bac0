use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use tidewatch_model::table::find;

use super::*;

/// An exporter that answers every request with what it holds, until the test ends.
#[derive(Clone)]
struct Exporter {
    address: String,
    /// Status, type and text.
    answer: Arc<Mutex<(&'static str, &'static str, String)>>,
    /// The last request.
    asked: Arc<Mutex<String>>,
}

impl Exporter {
    fn new(status: &'static str, kind: &'static str, text: &str) -> Exporter {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let exporter = Exporter {
            address: listener.local_addr().unwrap().to_string(),
            answer: Arc::new(Mutex::new((status, kind, text.to_string()))),
            asked: Arc::default(),
        };
        let of = exporter.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut buffer = [0; 4_096];
                let size = stream.read(&mut buffer).unwrap_or(0);
                *of.asked.lock().unwrap() = String::from_utf8_lossy(&buffer[..size]).into_owned();
                let (status, kind, body) = of.answer.lock().unwrap().clone();
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())));
            }
        });
        exporter
    }

    fn good(text: &str) -> Exporter {
        Exporter::new("200 OK", "text/plain; version=0.0.4", text)
    }

    fn says(&self, status: &'static str, text: &str) {
        *self.answer.lock().unwrap() = (status, "text/plain", text.to_string());
    }

    /// As it is called in rows: the machine is `gpu-7`.
    fn instance(&self) -> String {
        self.address.replace("127.0.0.1", "gpu-7")
    }
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_seconds(1_800_000_000) + Span::millis(millis)
}

/// Name, labels and value.
type Row = (String, String, Option<f64>);

/// A scraper, and the time that it is.
struct Scraper {
    collector: ScrapeCollector,
    tick: i64,
    faults: Vec<String>,
    typed: Vec<(&'static str, RecordBatch)>,
}

impl Scraper {
    fn new(options: ScrapeOptions) -> Scraper {
        let tables = TypedTables::Auto.tables(false);
        let options = ScrapeOptions { interval: Span::seconds(1), ..options };
        let collector = ScrapeCollector::new(options, "gpu-7", tables);
        Scraper { collector, tick: 0, faults: vec![], typed: vec![] }
    }

    fn of(targets: &[String]) -> Scraper {
        let targets = targets.iter().map(|target| target.parse().unwrap()).collect();
        Scraper::new(ScrapeOptions { targets, ..ScrapeOptions::default() })
    }

    fn pass(&mut self) -> Vec<Row> {
        let collected = self.collector.collect(at(self.tick * 100));
        self.tick += 1;
        self.faults.extend(collected.faults.into_iter().map(|fault| fault.reason));
        self.typed.extend(collected.more);
        let Some(batch) = collected.batch else { return vec![] };
        assert_eq!(batch.schema(), find("metrics").unwrap().schema());
        let times = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        assert!(times.values().iter().all(|ts| *ts > 0));
        let (names, maps) = (batch.column(1).as_string::<i32>(), batch.column(2).as_map());
        let values = batch.column(3).as_primitive::<Float64Type>();
        let row = |row: usize| {
            let map = maps.value(row);
            let (keys, texts) = (map.column(0).as_string::<i32>(), map.column(1).as_string::<i32>());
            let labels: Vec<String> =
                (0..map.len()).map(|pair| format!("{}={}", keys.value(pair), texts.value(pair))).collect();
            (names.value(row).to_string(), labels.join(","), (!values.is_null(row)).then(|| values.value(row)))
        };
        (0..batch.num_rows()).map(row).collect()
    }

    /// Passes until these rows are such.
    fn until(&mut self, done: impl Fn(&[Row]) -> bool) -> Vec<Row> {
        let mut rows = Vec::new();
        for _ in 0..2_000 {
            rows.extend(self.pass());
            if done(&rows) {
                return rows;
            }
            // The exporters are threads, and take their time.
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("{rows:?} {:?}", self.faults);
    }
}

fn values(rows: &[Row], name: &str) -> Vec<Option<f64>> {
    rows.iter().filter(|row| row.0 == name).map(|row| row.2).collect()
}

#[test]
fn samples_get_the_labels_of_their_target() {
    let exporter = Exporter::good(
        "http_requests_total{code=\"200\",job=\"own\",exported_job=\"x\",empty=\"\"} 7\nx 1.5\nnone NaN\n",
    );
    let mut scraper = Scraper::of(&[format!("web=http://{}", exporter.address)]);
    let rows = scraper.until(|rows| rows.len() >= 6);
    let of = |name: &str| rows.iter().find(|row| row.0 == name).map(|row| (row.1.as_str(), row.2)).unwrap();
    let own = format!("instance={},job=web", exporter.instance());
    assert_eq!(
        of("http_requests_total"),
        (format!("code=200,exported_exported_job=x,exported_job=own,{own}").as_str(), Some(7.0))
    );
    assert_eq!((of("x"), of("up")), ((own.as_str(), Some(1.5)), (own.as_str(), Some(1.0))));
    assert_eq!((of("none").1, of("scrape_samples_scraped").1), (None, Some(3.0)));
    assert!(of("scrape_duration_seconds").1.unwrap() > 0.0);
    assert_eq!(scraper.faults, Vec::<String>::new());
}

#[test]
fn a_target_that_is_ill_is_down_and_holds_up_no_other() {
    let good = Exporter::new("200 OK", "application/openmetrics-text; version=1.0.0", "a 1\n# EOF\n");
    let broken = Exporter::good("a 1\na one\n");
    let refusing = Exporter::new("500 Internal Server Error", "text/plain", "");
    // Takes the connection and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut targets: Vec<String> =
        [&good, &broken, &refusing].map(|exporter| format!("j=http://{}", exporter.address)).into();
    targets.push(format!("j=http://{}", silent.local_addr().unwrap()));
    let mut scraper = Scraper::of(&targets);
    let up = |rows: &[Row], exporter: &Exporter| {
        let labels = format!("instance={},job=j", exporter.instance());
        rows.iter().find(|row| row.0 == "up" && row.1 == labels).and_then(|row| row.2)
    };
    let rows = scraper.until(|rows| [&good, &broken, &refusing].iter().all(|exporter| up(rows, exporter).is_some()));
    assert_eq!([&good, &broken, &refusing].map(|exporter| up(&rows, exporter)), [Some(1.0), Some(0.0), Some(0.0)]);
    assert!(rows.iter().any(|row| row.0 == "a" && row.1.contains(&good.instance())));
    assert!(
        !rows.iter().any(|row| row.0 == "a" && row.1.contains(&broken.instance())),
        "nothing of a text that is broken"
    );
    let said = |word: &str| scraper.faults.iter().any(|fault| fault.contains(word));
    assert!(said(&format!("{}: line 2: expected a number", broken.instance())), "{:?}", scraper.faults);
    assert!(said(&format!("{}: answered 500", refusing.instance())), "{:?}", scraper.faults);
}

#[test]
fn a_series_that_is_no_longer_shown_ends_and_so_do_those_of_a_target_that_fails() {
    let exporter = Exporter::good("a 1\nb{x=\"1\"} 2\nold 1 1700000000000\n");
    let mut scraper = Scraper::of(&[format!("j=http://{}", exporter.address)]);
    scraper.until(|rows| values(rows, "b") == [Some(2.0)]);
    exporter.says("200 OK", "a 1\n");
    let rows = scraper.until(|rows| values(rows, "b").last() == Some(&None));
    let ended = rows.iter().find(|row| row.2.is_none()).unwrap();
    assert_eq!((ended.0.as_str(), &ended.1), ("b", &format!("instance={},job=j,x=1", exporter.instance())));
    assert!(!values(&rows, "old").contains(&None), "it says itself when it was true");
    let rows = scraper.until(|rows| values(rows, "up").len() >= 3);
    assert_eq!(values(&rows, "b"), [], "said once");
    exporter.says("503 Service Unavailable", "");
    let rows = scraper.until(|rows| values(rows, "up").contains(&Some(0.0)));
    assert_eq!(values(&rows, "a").last(), Some(&None));
    let rows = scraper.until(|rows| values(rows, "up").len() >= 2);
    assert_eq!(values(&rows, "a"), [], "said once");
    exporter.says("200 OK", "a 5\n");
    scraper.until(|rows| values(rows, "a") == [Some(5.0)]);
}

#[test]
fn targets_of_a_file_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("targets.yaml");
    let exporter = Exporter::good("a 1\n");
    std::fs::write(&path, format!("- targets: ['{}']\n  labels: {{job: f, rack: r1}}\n", exporter.address)).unwrap();
    let mut scraper = Scraper::new(ScrapeOptions { files: vec![path.clone()], ..ScrapeOptions::default() });
    let labels = format!("instance={},job=f,rack=r1", exporter.instance());
    scraper.until(|rows| rows.contains(&("a".to_string(), labels.clone(), Some(1.0))));
    std::fs::write(&path, "[]").unwrap();
    scraper.tick += 1_000;
    let mut rows = scraper.pass();
    rows.sort_by(|one, other| one.0.cmp(&other.0));
    let names = ["a", "scrape_duration_seconds", "scrape_samples_scraped", "up"];
    assert_eq!(rows, names.map(|name| (name.to_string(), labels.clone(), None)), "all of it has ended");
    assert!(scraper.collector.targets.is_empty() && scraper.pass().is_empty());
}

#[test]
fn a_token_goes_to_the_targets_of_its_job_and_is_read_anew() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let (secret, open) = (Exporter::good("a 1\n"), Exporter::good("b 1\n"));
    let target = |job: &str, exporter: &Exporter| format!("{job}=http://{}/m?x=1", exporter.address).parse().unwrap();
    let mut scraper = Scraper::new(ScrapeOptions {
        targets: vec![target("kubelet", &secret), target("node", &open)],
        tokens: vec![format!("kubelet={}", file.display()).parse().unwrap()],
        ..ScrapeOptions::default()
    });
    scraper.until(|rows| !values(rows, "a").is_empty() && !values(rows, "b").is_empty());
    let asked = secret.asked.lock().unwrap().to_lowercase();
    assert!(asked.starts_with("get /m?x=1 ") && asked.contains("authorization: bearer first\r\n"), "{asked}");
    assert!(asked.contains("x-prometheus-scrape-timeout-seconds: 1\r\n"), "{asked}");
    assert!(!open.asked.lock().unwrap().to_lowercase().contains("authorization"));
    std::fs::write(&file, "second").unwrap();
    scraper.until(|_| secret.asked.lock().unwrap().contains("Bearer second"));
    std::fs::remove_file(&file).unwrap();
    scraper.until(|rows| values(rows, "up").contains(&Some(0.0)));
    assert!(scraper.faults.iter().any(|fault| fault.contains("token: No such file")), "{:?}", scraper.faults);
    assert!("kubelet".parse::<TokenFile>().is_err() && "=x".parse::<TokenFile>().is_err());
}

#[test]
fn what_is_known_fills_its_table_too() {
    let text = "vllm:num_requests_running{model_name=\"m\",engine=\"0\"} 3\nvllm:num_requests_waiting{model_name=\"m\",engine=\"0\"} 4\n";
    let exporter = Exporter::good(text);
    let mut scraper = Scraper::of(&[format!("chat=http://{}", exporter.address)]);
    scraper.until(|rows| !values(rows, "vllm:num_requests_running").is_empty());
    let (table, batch) = scraper.typed.first().unwrap();
    assert_eq!((*table, batch.num_rows(), batch.schema()), ("serve", 1, find("serve").unwrap().schema()));
    let text = |name: &str| batch.column_by_name(name).unwrap().as_string::<i32>().value(0);
    assert_eq!((text("service"), text("replica"), text("host")), ("chat/m", exporter.instance().as_str(), "gpu-7"));
    assert_eq!(batch.column_by_name("requests_waiting").unwrap().as_primitive::<Int64Type>().value(0), 4);
}

/// A program that ends with its test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The real node_exporter and the real Prometheus are read whole; when they are gone they are down, and all their series have ended.
#[test]
fn real_exporters_are_scraped_to_their_end() {
    for (program, flags, series) in [
        ("prometheus-node-exporter", vec![], "node_uname_info"),
        ("prometheus", vec!["--config.file=prometheus.yml", "--storage.tsdb.path=tsdb"], "prometheus_build_info"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("prometheus.yml"), "global: {}\n").unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut command = std::process::Command::new(program);
        command.args(flags).arg(format!("--web.listen-address={address}")).current_dir(folder.path());
        let Ok(exporter) = command.stderr(std::process::Stdio::null()).spawn() else {
            assert!(std::env::var_os("CI").is_none(), "CI has Debian's {program}");
            println!("NOT RUN: {program} is needed");
            continue;
        };
        let exporter = Running(exporter);
        let mut scraper = Scraper::of(&[format!("real={address}")]);
        let rows = scraper.until(|rows| values(rows, series) == [Some(1.0)]);
        assert_eq!(values(&rows, "up").last(), Some(&Some(1.0)));
        let count = values(&rows, "scrape_samples_scraped").last().copied().flatten().unwrap();
        assert!(count > 100.0, "{program}: {count} samples");
        drop(exporter);
        let rows = scraper.until(|rows| values(rows, "up").contains(&Some(0.0)));
        let ended = rows.iter().filter(|row| row.2.is_none()).count() as f64;
        assert!(values(&rows, series).contains(&None) && ended >= count, "{program}: {ended} of {count}");
    }
}
