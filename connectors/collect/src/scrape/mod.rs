//! The table `metrics` from other people's exporters: node_exporter, DCGM, vLLM, SGLang, Triton, Ray, and whatever else shows Prometheus'
//! text. Each target has a thread of its own; one that hangs holds up no other.

mod exposition;
mod targets;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, Float64Builder, MapBuilder, MapFieldNames, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use tidewatch_model::table::find;
use tidewatch_model::wire::json::sorted_map;
use tidewatch_model::{Span, Timestamp};

use crate::collector::{Collected, Collector};
use crate::desk::Desk;
use crate::fault::Faults;
use crate::reading::Unreadable;
use exposition::{Dialect, Sample, parse};
pub use targets::Target;
use targets::Watched;

/// Bytes of a target's text.
const TEXT_BYTES: u64 = 32 << 20;
/// Samples of a target.
const SAMPLES: usize = 100_000;
/// Targets of one agent; those beyond are not scraped, and said.
const TARGETS: usize = 500;
/// Samples that are taken in one pass; what other targets answered waits for the next.
const PASS_SAMPLES: usize = 200_000;
/// How often files of targets are looked at.
const LOOK: Span = Span::seconds(5);
/// The longest that a target may take, if its interval is longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is asked for: OpenMetrics where there is no other.
const ACCEPT: &str = "text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.5";

/// What to scrape, and how often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrapeOptions {
    /// Targets that were named.
    pub targets: Vec<Target>,
    /// Files of targets.
    pub files: Vec<PathBuf>,
    /// How often each is asked.
    pub interval: Span,
}

/// Scrapes targets.
pub struct ScrapeCollector {
    options: ScrapeOptions,
    files: Vec<Watched>,
    looked: Timestamp,
    targets: BTreeMap<Target, Asked>,
    faults: Faults,
}

/// A target, and whoever asks it.
struct Asked {
    desk: Option<Desk<String, Scrape>>,
    due: Timestamp,
}

/// What a target said, and how long that took.
struct Scrape {
    samples: Result<Vec<Sample>, String>,
    seconds: f64,
}

impl ScrapeCollector {
    /// Of these targets.
    pub fn new(options: ScrapeOptions) -> ScrapeCollector {
        let files = options.files.iter().cloned().map(Watched::new).collect();
        ScrapeCollector { options, files, looked: Timestamp::MIN, targets: BTreeMap::new(), faults: Faults::default() }
    }

    /// The targets as they are to be now.
    fn look(&mut self, now: Timestamp) {
        if now - self.looked.max(Timestamp(0)) < LOOK {
            return;
        }
        self.looked = now;
        let mut wanted = self.options.targets.clone();
        for file in &mut self.files {
            let (targets, problem) = file.look();
            wanted.extend_from_slice(targets);
            if let Some(problem) = problem {
                self.faults.note("", Unreadable::damaged(problem));
            }
        }
        wanted.sort();
        wanted.dedup();
        if wanted.len() > TARGETS {
            self.faults.note("", Unreadable::damaged(format!("{} targets: expected at most {TARGETS}", wanted.len())));
            wanted.truncate(TARGETS);
        }
        self.targets.retain(|target, _| wanted.contains(target));
        for target in wanted {
            let interval = self.options.interval;
            self.targets.entry(target).or_insert_with_key(|target| {
                // Spread over the interval, each at the same place after a restart.
                let mut hasher = DefaultHasher::new();
                target.hash(&mut hasher);
                let place = (hasher.finish() % interval.0.max(1) as u64) as i64;
                let due = now.floor(interval) + Span::micros(place);
                Asked { desk: None, due: if due < now { due + interval } else { due } }
            });
        }
    }

    /// Asks those that are due, and takes what others answered.
    fn scraped(&mut self, now: Timestamp) -> Vec<(Target, Timestamp, Scrape)> {
        let interval = self.options.interval;
        let (mut scraped, mut samples) = (Vec::new(), 0);
        for (target, asked) in &mut self.targets {
            if let Some(desk) = asked.desk.as_mut().filter(|_| samples < PASS_SAMPLES) {
                if let Some((at, scrape)) = desk.answer(Duration::ZERO) {
                    samples += scrape.samples.as_ref().map_or(0, Vec::len);
                    scraped.push((target.clone(), at, scrape));
                }
                if desk.is_gone() {
                    asked.desk = None;
                }
            }
            if asked.due > now {
                continue;
            }
            // Times that were missed are not made up for.
            let missed = (now - asked.due).0 / interval.0.max(1) + 1;
            asked.due = asked.due + Span::micros(interval.0 * missed);
            if asked.desk.is_none() {
                let patience = interval.to_std().min(PATIENCE);
                asked.desk = Desk::open("scrape", move |questions: Receiver<String>, answers| {
                    let agent = agent(patience);
                    for url in questions {
                        if answers.send(scrape(&agent, &url)).is_err() {
                            return;
                        }
                    }
                })
                .ok();
            }
            if let Some(desk) = &mut asked.desk {
                desk.ask(target.url.clone(), now);
            }
        }
        scraped
    }

    fn rows(&mut self, now: Timestamp) -> Result<Option<RecordBatch>, arrow::error::ArrowError> {
        self.look(now);
        let mut rows = Rows::default();
        for (target, at, Scrape { samples, seconds }) in self.scraped(now) {
            let (up, count) = match samples {
                Ok(samples) => {
                    for sample in &samples {
                        rows.push(
                            sample.at.map_or(at, Timestamp),
                            &sample.name,
                            &labels_of(&target, sample),
                            sample.value,
                        );
                    }
                    (1.0, samples.len() as f64)
                }
                Err(problem) => {
                    self.faults.note("", Unreadable::damaged(format!("{}: {problem}", target.labels["instance"])));
                    (0.0, 0.0)
                }
            };
            // As Prometheus tells of each scrape.
            let own = own_labels(&target);
            for (name, value) in [("up", up), ("scrape_duration_seconds", seconds), ("scrape_samples_scraped", count)] {
                rows.push(at, name, &own, value);
            }
        }
        rows.finish()
    }
}

/// A sample's labels and its target's. A label that is the target's already is `exported_NAME`, as Prometheus has it.
fn labels_of<'a>(target: &'a Target, sample: &'a Sample) -> BTreeMap<Cow<'a, str>, &'a str> {
    let mut labels = own_labels(target);
    for (name, value) in sample.labels.iter().filter(|(_, value)| !value.is_empty()) {
        let mut name = Cow::Borrowed(name.as_str());
        while labels.contains_key(&name) {
            name = Cow::Owned(format!("exported_{name}"));
        }
        labels.insert(name, value);
    }
    labels
}

fn own_labels(target: &Target) -> BTreeMap<Cow<'_, str>, &str> {
    target.labels.iter().map(|(name, value)| (Cow::Borrowed(name.as_str()), value.as_str())).collect()
}

fn agent(patience: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(patience)).http_status_as_error(false);
    config.user_agent(concat!("tidewatch/", env!("CARGO_PKG_VERSION"))).build().into()
}

fn scrape(agent: &ureq::Agent, url: &str) -> Scrape {
    let begun = Instant::now();
    let samples = ask(agent, url);
    Scrape { samples, seconds: begun.elapsed().as_secs_f64() }
}

fn ask(agent: &ureq::Agent, url: &str) -> Result<Vec<Sample>, String> {
    let answer = agent.get(url).header("Accept", ACCEPT).call().map_err(|error| error.to_string())?;
    if answer.status().as_u16() != 200 {
        return Err(format!("answered {}", answer.status()));
    }
    let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_string();
    let mut bytes = Vec::new();
    let mut body = answer.into_body().into_reader().take(TEXT_BYTES + 1);
    body.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > TEXT_BYTES {
        return Err(format!("more than {} MiB of text", TEXT_BYTES >> 20));
    }
    let text = String::from_utf8(bytes).map_err(|_| "not UTF-8".to_string())?;
    let dialect =
        if kind.starts_with("application/openmetrics-text") { Dialect::OpenMetrics } else { Dialect::Prometheus };
    parse(&text, dialect, SAMPLES).map_err(|malformed| malformed.to_string())
}

/// Rows of `metrics` in the making.
struct Rows {
    times: TimestampMicrosecondBuilder,
    names: StringBuilder,
    labels: MapBuilder<StringBuilder, StringBuilder>,
    values: Float64Builder,
    count: usize,
}

impl Default for Rows {
    fn default() -> Self {
        let names = MapFieldNames { entry: "entries".into(), key: "keys".into(), value: "values".into() };
        Rows {
            times: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            names: StringBuilder::new(),
            labels: MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new()),
            values: Float64Builder::new(),
            count: 0,
        }
    }
}

impl Rows {
    fn push(&mut self, ts: Timestamp, name: &str, labels: &BTreeMap<Cow<'_, str>, &str>, value: f64) {
        self.times.append_value(ts.0);
        self.names.append_value(name);
        for (name, value) in labels {
            self.labels.keys().append_value(name);
            self.labels.values().append_value(value);
        }
        // Keys and values were appended in pairs, so this can't fail.
        drop(self.labels.append(true));
        self.values.append_value(value);
        self.count += 1;
    }

    fn finish(mut self) -> Result<Option<RecordBatch>, arrow::error::ArrowError> {
        let Some(table) = find("metrics").filter(|_| self.count > 0) else { return Ok(None) };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.times.finish()),
            Arc::new(self.names.finish()),
            sorted_map(self.labels.finish()),
            Arc::new(self.values.finish()),
        ];
        RecordBatch::try_new(table.schema(), columns).map(Some)
    }
}

impl Collector for ScrapeCollector {
    fn table(&self) -> &'static str {
        "metrics"
    }

    fn interval(&self) -> Span {
        Span::seconds(1)
    }

    fn collect(&mut self, now: Timestamp) -> Collected {
        let batch = self.rows(now).map_err(|error| Unreadable::damaged(error.to_string()));
        let batch = self.faults.keep("", batch).flatten();
        Collected { batch, faults: self.faults.take(), ..Collected::default() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Float64Type, TimestampMicrosecondType};

    use super::*;

    /// Answers every request with the same bytes, until the test ends.
    fn exporter(status: &'static str, kind: &'static str, body: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut buffer = [0; 4_096];
                drop(stream.read(&mut buffer));
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())));
            }
        });
        address.to_string()
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_seconds(1_800_000_000) + Span::millis(millis)
    }

    type Row = (String, String, f64);

    /// Ticks until so many rows came: name, labels and value of each.
    fn scraped(collector: &mut ScrapeCollector, wanted: usize) -> (Vec<Row>, Vec<String>) {
        let (mut rows, mut faults) = (Vec::new(), Vec::new());
        for tick in 0..2_000 {
            let collected = collector.collect(at(tick * 100));
            faults.extend(collected.faults.into_iter().map(|fault| fault.reason));
            if let Some(batch) = collected.batch {
                assert_eq!(batch.schema(), find("metrics").unwrap().schema());
                let (names, maps) = (batch.column(1).as_string::<i32>(), batch.column(2).as_map());
                let values = batch.column(3).as_primitive::<Float64Type>();
                for row in 0..batch.num_rows() {
                    let map = maps.value(row);
                    let (keys, texts) = (map.column(0).as_string::<i32>(), map.column(1).as_string::<i32>());
                    let labels: Vec<String> =
                        (0..map.len()).map(|pair| format!("{}={}", keys.value(pair), texts.value(pair))).collect();
                    rows.push((names.value(row).to_string(), labels.join(","), values.value(row)));
                }
                let times = batch.column(0).as_primitive::<TimestampMicrosecondType>();
                assert!(times.values().iter().all(|ts| *ts > 0));
            }
            if rows.len() >= wanted {
                return (rows, faults);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("{rows:?} {faults:?}");
    }

    fn collector(targets: &[String]) -> ScrapeCollector {
        let targets = targets.iter().map(|target| target.parse().unwrap()).collect();
        ScrapeCollector::new(ScrapeOptions { targets, files: vec![], interval: Span::seconds(1) })
    }

    #[test]
    fn samples_get_the_labels_of_their_target() {
        let text = "http_requests_total{code=\"200\",job=\"own\",exported_job=\"x\",empty=\"\"} 7\nx 1.5\n".to_string();
        let address = exporter("200 OK", "text/plain; version=0.0.4", text);
        let (rows, faults) = scraped(&mut collector(&[format!("web=http://{address}")]), 5);
        let of = |name: &str| rows.iter().find(|row| row.0 == name).map(|row| (row.1.as_str(), row.2)).unwrap();
        let own = format!("instance={address},job=web");
        assert_eq!(
            of("http_requests_total"),
            (format!("code=200,exported_exported_job=x,exported_job=own,{own}").as_str(), 7.0)
        );
        assert_eq!(
            (of("x"), of("up"), of("scrape_samples_scraped").1),
            ((own.as_str(), 1.5), (own.as_str(), 1.0), 2.0)
        );
        assert_eq!(faults, Vec::<String>::new());
    }

    #[test]
    fn a_target_that_is_ill_is_down_and_holds_up_no_other() {
        let good = exporter("200 OK", "application/openmetrics-text; version=1.0.0", "a 1\n# EOF\n".to_string());
        let broken = exporter("200 OK", "text/plain", "a 1\na one\n".to_string());
        let refusing = exporter("500 Internal Server Error", "text/plain", String::new());
        // Takes the connection and never answers.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let silent_address = silent.local_addr().unwrap().to_string();
        let targets: Vec<String> =
            [&good, &broken, &refusing, &silent_address].map(|address| format!("j=http://{address}")).into();
        let (rows, faults) = scraped(&mut collector(&targets), 2 + 4 * 3);
        let up = |address: &str| {
            let labels = format!("instance={address},job=j");
            rows.iter().find(|row| row.0 == "up" && row.1 == labels).map(|row| row.2)
        };
        assert_eq!([&good, &broken, &refusing].map(|address| up(address)), [Some(1.0), Some(0.0), Some(0.0)]);
        assert!(rows.iter().any(|row| row.0 == "a" && row.1.contains(&good)));
        assert!(!rows.iter().any(|row| row.0 == "a" && row.1.contains(&broken)), "nothing of a text that is broken");
        let said = |word: &str| faults.iter().any(|fault| fault.contains(word));
        assert!(
            said(&format!("{broken}: line 2: expected a number")) && said(&format!("{refusing}: answered 500")),
            "{faults:?}"
        );
    }

    #[test]
    fn targets_of_a_file_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("targets.json");
        let address = exporter("200 OK", "text/plain", "a 1\n".to_string());
        std::fs::write(&path, format!(r#"[{{"targets": ["{address}"], "labels": {{"job": "f", "rack": "r1"}}}}]"#))
            .unwrap();
        let mut collector = ScrapeCollector::new(ScrapeOptions {
            targets: vec![],
            files: vec![path.clone()],
            interval: Span::seconds(1),
        });
        let (rows, _) = scraped(&mut collector, 4);
        assert!(
            rows.iter().any(|row| row.0 == "a" && row.1 == format!("instance={address},job=f,rack=r1")),
            "{rows:?}"
        );
        std::fs::write(&path, "[]").unwrap();
        collector.collect(at(1_000_000));
        assert!(collector.targets.is_empty());
    }
}
