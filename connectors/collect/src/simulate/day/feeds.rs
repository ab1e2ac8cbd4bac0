//! Streaming and batch jobs of a day, Airflow, and Tidewatch's own figures: the tables `data_job` and `metrics`.

use std::sync::Arc;

use arrow::array::{Float64Builder, MapBuilder, MapFieldNames, RecordBatch, StringBuilder, TimestampMicrosecondArray};
use tidewatch_model::{Span, Timestamp, table};

use super::happenings::{Happening, Kind, Marks};
use super::places::Dice;
use crate::rows::{Cell, Rows, RowsError};

/// Streaming jobs.
pub const STREAMS: [&str; 4] = ["clicks-to-features", "prompts-to-lake", "billing", "embeddings"];
const STAGES: [&str; 3] = ["source", "enrich", "sink"];
/// Records a second.
const RATE: f64 = 4_000.0;

/// A streaming job.
#[derive(Debug, Default)]
struct Stream {
    records: f64,
    lag: f64,
    behind: f64,
}

/// All of them, and what is counted beside.
#[derive(Debug)]
pub struct Feeds {
    streams: Vec<Stream>,
    dice: Dice,
    start: Timestamp,
    beats: f64,
    runs: [f64; 3],
    delays: [f64; 3],
    retried: f64,
    delivered: f64,
    checkpoints_failed: f64,
    /// Values that cleaning took out, by the column.
    cleaned: [f64; 3],
}

/// Columns of which values were taken out since the engine was started.
const CLEANED: [&str; 3] = ["gpu.temperature_celsius", MEMORY_TEMPERATURE, "gpu.fan_ratio"];
/// The column of which a broken sensor speaks.
pub const MEMORY_TEMPERATURE: &str = "gpu.memory_temperature_celsius";

impl Feeds {
    /// At the start of the day.
    pub fn new(seed: u64, start: Timestamp) -> Feeds {
        Feeds {
            streams: STREAMS.iter().map(|_| Stream::default()).collect(),
            dice: Dice::new(seed, 7),
            start,
            beats: 40_000.0,
            runs: [0.0; 3],
            delays: [0.0; 3],
            retried: 0.0,
            delivered: 0.0,
            checkpoints_failed: 0.0,
            cleaned: [2.0, 0.0, 12.0],
        }
    }

    /// The rows of `data_job`, every ten seconds: four streams, and a batch every two hours that waits for its turn first.
    pub fn jobs(&mut self, now: i64, marks: &Marks) -> Result<Rows, RowsError> {
        let mut rows = Rows::of("data_job")?;
        let at = self.start + Span::seconds(now);
        for (index, stream) in self.streams.iter_mut().enumerate() {
            let bits = marks.others[index];
            // Waves of traffic, and at night the third stream has none at all.
            let wave = 1.0 + 0.3 * (now as f64 / 5_400.0 + index as f64).sin();
            let quiet = index == 2 && (now / 3_600) % 24 < 4;
            let came = if quiet { 0.0 } else { 10.0 * RATE * wave };
            if bits & Kind::StreamRedeploy.bit() != 0 {
                *stream = Stream { records: 0.0, lag: stream.lag + came, behind: stream.behind + 10.0 };
                continue;
            }
            let stuck = bits & Kind::StreamStuck.bit() != 0;
            let able = if stuck { 0.0 } else { 10.0 * RATE * 1.8 };
            let done = able.min(stream.lag + came);
            stream.lag = stream.lag + came - done + if stuck || quiet { 0.0 } else { 300.0 * self.dice.unit() };
            stream.records += done;
            stream.behind = if stuck { stream.behind + 10.0 } else { stream.lag / RATE / 0.8 + 2.0 + self.dice.unit() };
            for (stage, name) in STAGES.iter().enumerate() {
                let cells: [(&str, Cell); 7] = [
                    ("job", STREAMS[index].into()),
                    ("stage", (*name).into()),
                    ("records_in_total", (stream.records as i64).into()),
                    ("records_out_total", (stream.records as i64).into()),
                    ("lag_records", (stage == 0).then_some(stream.lag as i64).into()),
                    ("watermark_lag_seconds", stream.behind.into()),
                    ("restarts_total", 0.into()),
                ];
                rows.push(at, cells)?;
            }
        }
        let since = now % 7_200;
        // It waits four minutes for executors, and its longest tasks take five.
        if since < 2_400 {
            let done = ((since - 240).max(0) / 10).min(180) + if since > 2_300 { 20 } else { 0 };
            let cells: [(&str, Cell); 5] = [
                ("job", format!("nightly-dedup-{}", now / 7_200).into()),
                ("stage", "1".into()),
                ("tasks_total", 200.into()),
                ("tasks_done", done.into()),
                ("tasks_failed", (done / 90).into()),
            ];
            rows.push(at, cells)?;
        }
        Ok(rows)
    }

    /// Counts what begins.
    pub fn note(&mut self, begun: &[Happening]) {
        for happening in begun {
            match happening.kind {
                Kind::NoticeRetry => {
                    self.retried += happening.amount.round().min(5.0);
                    self.checkpoints_failed += 1.0;
                }
                Kind::Impossible => self.cleaned[0] += 1.0,
                Kind::EngineRestart => (self.retried, self.delivered, self.cleaned) = (0.0, 0.0, [0.0; 3]),
                _ => {}
            }
        }
    }

    /// The rows of `metrics`, every ten seconds.
    pub fn metrics(&mut self, now: i64, marks: &Marks) -> Result<RecordBatch, RowsError> {
        let mut samples: Vec<(&str, Vec<(&str, &str)>, f64)> = Vec::new();
        self.beats += 2.0;
        let rolled = marks.others[0] & Kind::AirflowRollout.bit() != 0;
        if rolled {
            self.beats = 0.0;
        } else {
            samples.push(("airflow_scheduler_heartbeat", vec![("instance", "airflow-0:9102")], self.beats));
        }
        for (dag, every) in [(0, 600), (1, 3_600), (2, 7_200)] {
            if now % every == 0 {
                self.runs[dag] += 1.0;
                self.delays[dag] += 5.0 + 40.0 * self.dice.unit();
            }
            let labels = vec![("dag_id", ["hourly", "features", "reports"][dag])];
            samples.push(("airflow_dagrun_schedule_delay_sum", labels.clone(), self.delays[dag]));
            samples.push(("airflow_dagrun_schedule_delay_count", labels, self.runs[dag]));
        }
        self.delivered += f64::from(u8::from(now % 600 == 0));
        let job = vec![("job_id", "a1"), ("job_name", STREAMS[0])];
        samples.push(("flink_jobmanager_job_numberOfFailedCheckpoints", job, self.checkpoints_failed));
        // A value a second of each broken sensor.
        let broken = marks.gpus.iter().filter(|bits| **bits & Kind::BadSensor.bit() != 0).count();
        self.cleaned[1] += 10.0 * broken as f64;
        if marks.others[0] & Kind::EngineRestart.bit() != 0 {
            return self.batch(now, &samples);
        }
        for (column, values) in CLEANED.into_iter().zip(self.cleaned) {
            samples.push(("tidewatch_cleaned_values_total", vec![("column", column), ("part", "0")], values));
        }
        let notices = |outcome| vec![("outcome", outcome), ("part", "0")];
        samples.push(("tidewatch_notices_total", notices("retried"), self.retried));
        samples.push(("tidewatch_notices_total", notices("delivered"), self.delivered));
        samples.push(("tidewatch_notices_total", notices("gave_up"), 0.0));
        let part = || vec![("part", "0")];
        samples.push(("tidewatch_lake_failures_total", part(), 0.0));
        samples.push(("tidewatch_alertmanager_failures_total", part(), 0.0));
        samples.push(("tidewatch_rule_failures_total", vec![("part", "0"), ("rule", "gpu_lost")], 0.0));
        for table in ["gpu", "host", "train_step", "serve_histogram"] {
            let of = || vec![("part", "0"), ("table", table)];
            // Now and then a pause of the disk lets some thousands wait for a moment.
            let lag = if self.dice.chance(0.002) { 25_000.0 } else { 200.0 * self.dice.unit() };
            samples.push(("tidewatch_lag_records", of(), lag));
            samples.push(("tidewatch_late_rows_ratio", of(), 0.0));
            samples.push(("tidewatch_watermark_lag_seconds", of(), 1.0 + self.dice.unit()));
            samples.push(("tidewatch_engine_overflow_rows_total", of(), 0.0));
        }
        self.batch(now, &samples)
    }

    fn batch(&self, now: i64, samples: &[(&str, Vec<(&str, &str)>, f64)]) -> Result<RecordBatch, RowsError> {
        let schema = table::find("metrics").ok_or_else(|| RowsError::NoSuchTable("metrics".into()))?.schema();
        let fields = MapFieldNames { entry: "entries".into(), key: "keys".into(), value: "values".into() };
        let mut labels = MapBuilder::new(Some(fields), StringBuilder::new(), StringBuilder::new());
        let (mut names, mut values) = (StringBuilder::new(), Float64Builder::new());
        let wrong = |source| RowsError::Arrow { table: "metrics", source };
        for (name, pairs, value) in samples {
            names.append_value(name);
            for (key, value) in pairs {
                labels.keys().append_value(key);
                labels.values().append_value(value);
            }
            labels.append(true).map_err(wrong)?;
            values.append_value(*value);
        }
        let ts = (self.start + Span::seconds(now)).0;
        let times = TimestampMicrosecondArray::from_value(ts, samples.len()).with_timezone("UTC");
        let labels = labels.finish();
        let labels = match schema.field(2).data_type() {
            arrow::datatypes::DataType::Map(field, sorted) => {
                let (_, offsets, entries, nulls, _) = labels.into_parts();
                arrow::array::MapArray::try_new(field.clone(), offsets, entries, nulls, *sorted).map_err(wrong)?
            }
            _ => labels,
        };
        let columns = vec![
            Arc::new(times) as _,
            Arc::new(names.finish()) as _,
            Arc::new(labels) as _,
            Arc::new(values.finish()) as _,
        ];
        RecordBatch::try_new(schema, columns).map_err(wrong)
    }
}
