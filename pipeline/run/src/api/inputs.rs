//! What other systems send: Prometheus' remote write, OTLP's metrics and logs, StatsD. It is acknowledged when the log has it.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use tidewatch_collect::rows::RowsError;
use tidewatch_collect::{Typed, TypedSample, TypedTables};
use tidewatch_ingest::otlp::{self, Format};
use tidewatch_ingest::remote_write::{self, Version};
use tidewatch_ingest::{Decoded, Encoding, IngestError, Series, Times, unpack};
use tidewatch_model::Span;
use tidewatch_model::ports::{Clock, Log, Random};
use tidewatch_serve::{Answer, ApiRequest};

use super::rows::{Lane, NotWritten, RowsInbox, again};
use crate::input_rows::{line_rows, series_rows};

/// Values that are remembered, so that what is sent again is not written again: up to twice as many, nine bytes each.
const REMEMBERED: usize = 1 << 20;
/// Batches of typed rows that wait for the log.
const WAITING: usize = 64;
/// Series of StatsD that are written at once.
const AT_ONCE: usize = 10_000;
/// How far ahead of our clock a value may be: a sender's clock that is further ahead would make those of others late.
const AHEAD: Span = Span::seconds(10);

/// Everything that comes in over HTTP and StatsD.
pub struct Inputs {
    /// Rows as they are.
    pub(super) rows: RowsInbox,
    seen: Mutex<Seen>,
    /// What exporters mean whose samples came.
    typed: Mutex<Typed>,
    /// Their rows that the log did not take yet.
    waiting: Mutex<VecDeque<(&'static str, RecordBatch)>>,
    hasher: RandomState,
    duplicates: AtomicU64,
}

/// Which values were written, as a hash of series and time; the older half is forgotten at once.
#[derive(Default)]
struct Seen {
    new: HashSet<u64>,
    old: HashSet<u64>,
}

impl Seen {
    fn has(&self, hash: u64) -> bool {
        self.new.contains(&hash) || self.old.contains(&hash)
    }

    fn remember(&mut self, hash: u64) {
        if self.new.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(hash);
    }
}

impl Inputs {
    /// Into this log; samples of well-known exporters become rows of these tables too. Of GPUs they do where that is asked for by name: agents
    /// tell of them as well.
    pub fn new(log: Arc<dyn Log>, random: &dyn Random, clock: Arc<dyn Clock>, typed: &TypedTables) -> Inputs {
        Inputs {
            rows: RowsInbox::new(log, random, clock),
            seen: Mutex::default(),
            typed: Mutex::new(Typed::new(typed.tables(true))),
            waiting: Mutex::default(),
            hasher: RandomState::new(),
            duplicates: AtomicU64::new(0),
        }
    }

    /// Values that were sent again, and not written again.
    pub fn duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::Relaxed)
    }

    /// Counts what was no value.
    pub fn reject(&self, count: u64) {
        self.rows.reject(count);
    }

    /// Takes series, as StatsD counts them.
    ///
    /// # Errors
    /// The log's.
    pub fn take(&self, series: Vec<Series>) -> Result<(), String> {
        let mut lane = self.rows.lane(0);
        let mut rest = series;
        while !rest.is_empty() {
            let more = rest.split_off(rest.len().min(AT_ONCE));
            self.write(&mut lane, rest).map_err(|problem| match problem {
                NotWritten::TooLarge(problem) | NotWritten::Log(problem) => problem,
            })?;
            rest = more;
        }
        Ok(())
    }

    /// A request of Prometheus' remote write.
    pub(super) fn remote_write(&self, request: &ApiRequest) -> Answer {
        let Some(version) = Version::of(&request.kind) else {
            return Answer::refused(
                415,
                "expected the message prometheus.WriteRequest or io.prometheus.write.v2.Request",
            );
        };
        if Encoding::of(&request.encoding) != Some(Encoding::Snappy) {
            return Answer::refused(415, "expected Content-Encoding: snappy");
        }
        // Prometheus takes 429 for a reason to throw away, unless it is told otherwise; not so 503.
        let Ok(_place) = self.rows.place() else { return again(503, "too many posts at once") };
        // Decoded, a request is larger than it was: as many are decoded at once as are written.
        let mut lane = self.rows.lane(self.lane_of(&request.body));
        let decoded =
            unpack(&request.body, Encoding::Snappy).and_then(|body| remote_write::decode(&body, version, self.times()));
        let decoded = match decoded {
            Ok(decoded) => decoded,
            Err(error) => return Answer::refused(self.status_of(&error), &error.to_string()),
        };
        let Decoded { series, samples, histograms, rejected, problems } = decoded;
        self.rows.reject(rejected);
        if let Err(problem) = self.write(&mut lane, series) {
            return problem.answer();
        }
        let mut answer = match rejected {
            0 => Answer::of(204, "text/plain", vec![]),
            // What is good is taken, and what is not is the sender's to mend: sent again it would not be better.
            _ => Answer::refused(400, &format!("{rejected} values were not taken: {}", problems.join("; "))),
        };
        if version == Version::Two {
            let written = [("samples", samples), ("histograms", histograms), ("exemplars", 0)];
            answer.headers.extend(written.map(|(what, count)| {
                let name = match what {
                    "samples" => "x-prometheus-remote-write-samples-written",
                    "histograms" => "x-prometheus-remote-write-histograms-written",
                    _ => "x-prometheus-remote-write-exemplars-written",
                };
                (name, count.to_string())
            }));
        }
        answer
    }

    /// A request with OTLP's metrics.
    pub(super) fn otlp_metrics(&self, request: &ApiRequest) -> Answer {
        self.otlp(request, "rejectedDataPoints", |body, format, lane| {
            let decoded = otlp::decode_metrics(body, format, self.times()).map_err(Problem::Ingest)?;
            self.write(lane, decoded.series).map_err(Problem::Write)?;
            Ok((decoded.rejected, decoded.problems))
        })
    }

    /// A request with OTLP's logs.
    pub(super) fn otlp_logs(&self, request: &ApiRequest) -> Answer {
        self.otlp(request, "rejectedLogRecords", |body, format, lane| {
            let now = self.rows.clock.now();
            let lines = otlp::decode_logs(body, format, self.times(), now).map_err(Problem::Ingest)?;
            let rows =
                line_rows(&lines.lines).map_err(|error| Problem::Write(NotWritten::TooLarge(error.to_string())))?;
            self.rows.append(lane, "log", &rows).map_err(Problem::Write)?;
            Ok((lines.rejected, lines.problems))
        })
    }

    fn otlp(
        &self,
        request: &ApiRequest,
        what: &str,
        take: impl Fn(&[u8], Format, &mut Lane<'_>) -> Result<(u64, Vec<String>), Problem>,
    ) -> Answer {
        let Some(format) = Format::of(&request.kind) else {
            return Answer::refused(415, "expected Content-Type: application/x-protobuf, application/json");
        };
        let kind = if format == Format::Json { "application/json" } else { "application/x-protobuf" };
        let failed = |status, message: &str| Answer::of(status, kind, otlp::status(format, message));
        let encoding = Encoding::of(&request.encoding).filter(|encoding| *encoding != Encoding::Snappy);
        let Some(encoding) = encoding else { return failed(415, "expected Content-Encoding: gzip, or none") };
        let _place = match self.rows.place() {
            Ok(place) => place,
            Err(answer) => return answer,
        };
        let mut lane = self.rows.lane(self.lane_of(&request.body));
        let unpacked = unpack(&request.body, encoding).map_err(Problem::Ingest);
        let taken = unpacked.and_then(|body| take(&body, format, &mut lane));
        match taken {
            Ok((rejected, problems)) => {
                self.rows.reject(rejected);
                Answer::of(200, kind, otlp::response(format, what, rejected, &problems))
            }
            Err(Problem::Ingest(error)) => failed(self.status_of(&error), &error.to_string()),
            Err(Problem::Write(problem)) => {
                let answer = problem.answer();
                let (NotWritten::TooLarge(said) | NotWritten::Log(said)) = problem;
                Answer { kind, body: otlp::status(format, &said), ..answer }
            }
        }
    }

    /// Between which times values are taken.
    fn times(&self) -> Times {
        Times { newest: self.rows.clock.now().saturating_add(AHEAD), ..self.rows.times() }
    }

    fn status_of(&self, error: &IngestError) -> u16 {
        self.rows.reject(1);
        match error {
            IngestError::Malformed(_) => 400,
            IngestError::TooLarge(_) => 413,
        }
    }

    /// What is sent again goes the way that it went before, after it.
    fn lane_of(&self, body: &[u8]) -> usize {
        self.hasher.hash_one(body) as usize
    }

    /// Writes what was not written yet.
    fn write(&self, lane: &mut Lane<'_>, mut series: Vec<Series>) -> Result<(), NotWritten> {
        let mut hashes = HashSet::new();
        {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            for series in &mut series {
                let own = self.hasher.hash_one((&series.name, &series.labels));
                let before = series.points.len();
                series.points.retain(|point| {
                    let hash = self.hasher.hash_one((own, point.ts.0));
                    !seen.has(hash) && hashes.insert(hash)
                });
                self.duplicates.fetch_add((before - series.points.len()) as u64, Ordering::Relaxed);
            }
        }
        let rows = series_rows(&series).map_err(|error| NotWritten::TooLarge(error.to_string()))?;
        self.rows.append(lane, "metrics", &rows)?;
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            hashes.into_iter().for_each(|hash| seen.remember(hash));
        }
        // A scrape comes in several requests: its rows are written when one that comes later finds it whole.
        let whole = self.typed_rows(&series).map_err(|error| NotWritten::TooLarge(error.to_string()))?;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.extend(whole);
        // The sender has our word for its values. What is made of them waits here for a log that does not take it now.
        while let Some((table, rows)) = waiting.front() {
            match self.rows.append(lane, table, rows) {
                Err(NotWritten::Log(_)) if waiting.len() <= WAITING => break,
                Err(_) => self.rows.reject(rows.num_rows() as u64),
                Ok(()) => {}
            }
            waiting.pop_front();
        }
        Ok(())
    }

    fn typed_rows(&self, series: &[Series]) -> Result<Vec<(&'static str, RecordBatch)>, RowsError> {
        let mut typed = self.typed.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.rows.clock.now();
        for series in series.iter().filter(|series| typed.knows(&series.name)).collect::<Vec<_>>() {
            let labels: Vec<(&str, &str)> =
                series.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let samples = series.points.iter().filter_map(|point| {
                Some(TypedSample { ts: point.ts, name: &series.name, labels: labels.clone(), value: point.value? })
            });
            typed.add(now, &samples.collect::<Vec<_>>());
        }
        typed.whole(now)
    }
}

enum Problem {
    Ingest(IngestError),
    Write(NotWritten),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tidewatch_ingest::Point;
    use tidewatch_log::ScriptedLog;
    use tidewatch_model::Timestamp;
    use tidewatch_model::scripted::{ManualClock, SeededRandom};

    use super::*;

    /// A scrape of vLLM that a sender cuts in two is one row of `serve`, once it is whole.
    #[test]
    fn samples_of_exporters_are_rows_of_their_tables() {
        let log: Arc<ScriptedLog> = Arc::default();
        crate::station::create_topics(log.as_ref(), false).unwrap();
        let start = Timestamp::from_seconds(1_800_000_000);
        let clock = Arc::new(ManualClock::at(start));
        let inputs = Inputs::new(log.clone(), &SeededRandom::new(1), clock.clone(), &TypedTables::Auto);
        let series = |name: &str, ts: Timestamp, value: f64| {
            let labels = [("instance", "n1:8000"), ("job", "chat"), ("model_name", "m")];
            let labels = labels.map(|(name, value)| (name.to_string(), value.to_string())).into();
            Series { name: name.to_string(), labels, points: vec![Point { ts, value: Some(value) }] }
        };
        inputs
            .write(&mut inputs.rows.lane(0), vec![series("vllm:num_requests_running", start, 3.0)])
            .unwrap_or_else(|_| panic!());
        inputs
            .write(&mut inputs.rows.lane(1), vec![series("vllm:num_requests_waiting", start, 2.0)])
            .unwrap_or_else(|_| panic!());
        let read = || log.read("tidewatch.serve", 0, 0, 1 << 20).unwrap().records;
        assert_eq!(read(), []);
        clock.advance(Span::seconds(20));
        inputs
            .write(&mut inputs.rows.lane(2), vec![series("up", start + Span::seconds(20), 1.0)])
            .unwrap_or_else(|_| panic!());
        let (_, rows) = tidewatch_model::wire::decode(&read()[0].1).unwrap();
        let cell = |name: &str| {
            let column = rows.column_by_name(name).unwrap();
            arrow::util::display::array_value_to_string(column, 0).unwrap()
        };
        let cells = ["service", "replica", "requests_running", "requests_waiting"].map(cell);
        assert_eq!((rows.num_rows(), cells.join(" ")), (1, "chat/m n1:8000 3 2".to_string()));
    }
}
