//! A synthetic GPU fleet: jobs over hosts of GPUs, with incidents and near misses whose truth is known. The same options
//! give the same rows, bit for bit.

mod columns;
pub mod day;
mod incidents;
mod physics;

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidewatch_model::ports::Random;
use tidewatch_model::scripted::SeededRandom;
use tidewatch_model::table;
use tidewatch_model::{Span, Timestamp};

use crate::rows::{Cell, Rows, RowsError};
use columns::{GpuRow, Rounding};
use incidents::default_incidents;
pub use incidents::{Incident, Kind, Truth, incidents_from_json};
use physics::{Demand, Gpu};

/// How noisy values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noise {
    /// Byte counters in whole megabytes, ts on the tick.
    Low,
    /// Byte counters with all their digits, ts up to 50 ms off the tick.
    High,
}

/// What to simulate.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetOptions {
    /// GPUs in the fleet.
    pub gpus: usize,
    /// GPUs on each host.
    pub gpus_per_host: usize,
    /// Time between two rows of a GPU.
    pub interval: Span,
    /// How much time.
    pub duration: Span,
    /// When it begins.
    pub start: Timestamp,
    /// The seed.
    pub seed: u64,
    /// The noise.
    pub noise: Noise,
    /// Incidents instead of the default set.
    pub incidents: Option<Vec<Incident>>,
}

/// Why a fleet can't be simulated.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// An option is out of range.
    #[error("{what} is {value}: expected {expected}")]
    Option {
        /// The option.
        what: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// The incidents can't be read.
    #[error("incidents: {0}")]
    Incidents(String),
    /// Rows could not be made: a mistake here.
    #[error(transparent)]
    Rows(#[from] RowsError),
}

/// All rows of one tick.
#[derive(Debug, Clone)]
pub struct Tick {
    /// When.
    pub ts: Timestamp,
    /// Rows by table.
    pub batches: Vec<(&'static str, RecordBatch)>,
}

/// Hosts of a job.
const HOSTS_PER_JOB: usize = 2;
/// Between two reads of the slow columns.
const SLOW_INTERVAL: Span = Span::seconds(30);
/// Between two checkpoints of a job.
const CHECKPOINT_INTERVAL: Span = Span::minutes(10);
/// How long a checkpoint takes.
const CHECKPOINT: Span = Span::seconds(30);
/// The largest jitter with [`Noise::High`], microseconds.
const JITTER: i64 = 50_000;

/// A fleet on its way through time.
pub struct Fleet {
    options: FleetOptions,
    incidents: Vec<Incident>,
    schema: SchemaRef,
    random: SeededRandom,
    gpus: Vec<Gpu>,
    names: Vec<(String, String)>,
    jobs: Vec<Job>,
    elapsed: Span,
}

/// A training job.
struct Job {
    name: String,
    step: i64,
    step_seconds: f64,
    next_step: Span,
    checkpoint_offset: Span,
    was_in_checkpoint: bool,
}

impl Fleet {
    /// A fleet at its start.
    ///
    /// # Errors
    /// Options out of range, or incidents that happen to GPUs that are not there.
    pub fn new(options: FleetOptions) -> Result<Fleet, SimulateError> {
        check(&options)?;
        let random = SeededRandom::new(options.seed);
        let per_job = options.gpus_per_host * HOSTS_PER_JOB;
        let incidents = options
            .incidents
            .clone()
            .unwrap_or_else(|| default_incidents(options.gpus, per_job, options.duration, &random));
        if let Some(incident) = incidents.iter().find(|incident| incident.gpu >= options.gpus) {
            return Err(SimulateError::Incidents(format!(
                "GPU {} of {:?}: expected 0 to {}",
                incident.gpu,
                incident.kind,
                options.gpus - 1
            )));
        }
        let names = (0..options.gpus)
            .map(|gpu| (format!("node-{:04}", gpu / options.gpus_per_host), format!("GPU-{:08x}", gpu + 1)));
        let jobs = (0..options.gpus.div_ceil(per_job)).map(|job| Job {
            name: format!("job-{job}"),
            step: 0,
            step_seconds: 2.0 + random.unit() * 2.0,
            next_step: Span::ZERO,
            checkpoint_offset: Span::seconds((random.next_u64() % 300) as i64 + 60),
            was_in_checkpoint: false,
        });
        Ok(Fleet {
            schema: table::find("gpu")
                .map(|table| table.schema())
                .ok_or_else(|| RowsError::NoSuchTable("gpu".to_string()))?,
            gpus: vec![Gpu::warm(); options.gpus],
            names: names.collect(),
            jobs: jobs.collect(),
            incidents,
            random,
            options,
            elapsed: Span::ZERO,
        })
    }

    /// What must be found in the rows, and what must not.
    pub fn truth(&self) -> Vec<Truth> {
        let truths = self.incidents.iter().map(|incident| {
            let (host, uuid) = &self.names[incident.gpu];
            let label = |name: &str, value: &str| (name.to_string(), value.to_string());
            let labels: BTreeMap<String, String> = match incident.kind {
                kind if kind.of_job() => [label("job", &self.jobs[self.job_of(incident.gpu)].name)].into(),
                Kind::CollectorGap => [label("host", host)].into(),
                _ => [label("host", host), label("gpu_uuid", uuid)].into(),
            };
            let start = self.options.start + incident.at;
            Truth {
                kind: incident.kind,
                near_miss: incident.kind.rule().is_none(),
                expected_rule: incident.kind.rule().map(str::to_string),
                start,
                end: start + incident.duration,
                labels,
            }
        });
        truths.collect()
    }

    /// The next tick; `None` after the last. Rows that can't be made, which would be a mistake here, are left out.
    pub fn next_tick(&mut self) -> Option<Tick> {
        if self.elapsed >= self.options.duration {
            return None;
        }
        let ts = self.options.start + self.elapsed;
        let mut batches = Vec::new();
        batches.extend(self.gpu_rows(ts).map(|batch| ("gpu", batch)));
        for (table, rows) in [
            ("gpu_event", self.gpu_events(ts)),
            ("train_step", self.train_steps(ts)),
            ("job_event", self.job_events(ts)),
        ] {
            let batch = rows.and_then(Rows::finish).ok().flatten();
            batches.extend(batch.map(|batch| (table, batch)));
        }
        self.elapsed = self.elapsed + self.options.interval;
        Some(Tick { ts, batches })
    }

    fn job_of(&self, gpu: usize) -> usize {
        gpu / (self.options.gpus_per_host * HOSTS_PER_JOB)
    }

    /// Incidents of a kind that last now.
    fn lasting(&self, kind: Kind) -> impl Iterator<Item = &Incident> {
        let (elapsed, interval) = (self.elapsed, self.options.interval);
        self.incidents.iter().filter(move |incident| incident.kind == kind && incident.covers(elapsed, interval))
    }

    /// Whether a job writes a checkpoint now.
    fn in_checkpoint(&self, job: usize) -> bool {
        let since = self.elapsed.0 - self.jobs[job].checkpoint_offset.0;
        let regular = since >= 0 && since % CHECKPOINT_INTERVAL.0 < CHECKPOINT.0;
        regular || self.lasting(Kind::CheckpointDip).any(|incident| self.job_of(incident.gpu) == job)
    }

    fn is_stalled(&self, job: usize) -> bool {
        self.lasting(Kind::TrainingStall).any(|incident| self.job_of(incident.gpu) == job)
    }

    fn gpu_rows(&mut self, ts: Timestamp) -> Option<RecordBatch> {
        let checkpoints: Vec<bool> = (0..self.jobs.len()).map(|job| self.in_checkpoint(job)).collect();
        let stalls: Vec<bool> = (0..self.jobs.len()).map(|job| self.is_stalled(job)).collect();
        let mut demands: Vec<Demand> = (0..self.gpus.len())
            .map(|gpu| Demand {
                busy: !checkpoints[self.job_of(gpu)],
                stalled: stalls[self.job_of(gpu)],
                ..Demand::default()
            })
            .collect();
        let (interval, elapsed) = (self.options.interval, self.elapsed);
        let mut silent = vec![false; self.gpus.len()];
        for incident in self.incidents.iter().filter(|incident| incident.covers(elapsed, interval)) {
            let demand = &mut demands[incident.gpu];
            match incident.kind {
                Kind::Overheating => demand.overheating = true,
                Kind::PowerCap => demand.capped = true,
                Kind::EccBurst => demand.ecc_burst = true,
                Kind::SingleEcc => demand.single_ecc = true,
                Kind::OneSampleGlitch => demand.shown_degrees = Some(110.0),
                Kind::ShortOverheat => demand.shown_degrees = Some(88.0),
                Kind::GpuLost => silent[incident.gpu] = true,
                Kind::CollectorGap => {
                    let first = incident.gpu / self.options.gpus_per_host * self.options.gpus_per_host;
                    let end = (first + self.options.gpus_per_host).min(silent.len());
                    silent[first..end].fill(true);
                }
                Kind::Xid | Kind::AppXid | Kind::TrainingStall | Kind::CheckpointDip => {}
            }
        }
        let seconds = self.options.interval.as_seconds();
        for (gpu, demand) in self.gpus.iter_mut().zip(&demands) {
            gpu.step(demand, seconds, elapsed.as_seconds(), &self.random);
        }
        self.batch(ts, &silent)
    }

    fn batch(&self, ts: Timestamp, silent: &[bool]) -> Option<RecordBatch> {
        let jitter = |host: usize| match self.options.noise {
            Noise::Low => 0,
            Noise::High => SeededRandom::new(ts.0 as u64 ^ (host as u64) << 40).next_u64() as i64 % (JITTER + 1),
        };
        let mut rows = Vec::with_capacity(self.gpus.len());
        for (gpu, state) in self.gpus.iter().enumerate().filter(|(gpu, _)| !silent[*gpu]) {
            let (host, index) = (gpu / self.options.gpus_per_host, gpu % self.options.gpus_per_host);
            let (host_name, uuid) = &self.names[gpu];
            let job = &self.jobs[self.job_of(gpu)].name;
            rows.push(GpuRow { ts: ts.0 + jitter(host), host: host_name, uuid, index: index as i64, job, gpu: state });
        }
        if rows.is_empty() {
            return None;
        }
        let slow = self.elapsed.0 % SLOW_INTERVAL.0 < self.options.interval.0;
        columns::batch(&self.schema, &rows, Rounding { exact_bytes: self.options.noise == Noise::High, slow }).ok()
    }

    fn gpu_events(&self, ts: Timestamp) -> Result<Rows, RowsError> {
        let mut rows = Rows::of("gpu_event")?;
        let interval = self.options.interval;
        let begins = |at: Span| self.elapsed >= at && self.elapsed < at + interval;
        for incident in &self.incidents {
            let ends = incident.kind == Kind::GpuLost && begins(incident.at + incident.duration);
            let (kind, message) = match incident.kind {
                Kind::Xid | Kind::AppXid if begins(incident.at) => ("xid", "simulated XID"),
                Kind::GpuLost if begins(incident.at) => ("lost", "GPU is lost"),
                Kind::GpuLost if ends => ("recovered", "GPU answers again"),
                _ => continue,
            };
            let (host, uuid) = &self.names[incident.gpu];
            rows.push(
                ts,
                [
                    ("host", host.as_str().into()),
                    ("gpu_uuid", uuid.as_str().into()),
                    ("kind", kind.into()),
                    ("code", incident.code.into()),
                    ("source", "nvml".into()),
                    ("message", message.into()),
                ],
            )?;
        }
        Ok(rows)
    }

    fn train_steps(&mut self, ts: Timestamp) -> Result<Rows, RowsError> {
        let mut rows = Rows::of("train_step")?;
        for job in 0..self.jobs.len() {
            let resting = self.in_checkpoint(job) || self.is_stalled(job);
            let host = self.names[job * self.options.gpus_per_host * HOSTS_PER_JOB].0.clone();
            let noise = self.random.unit();
            let state = &mut self.jobs[job];
            if resting || self.elapsed < state.next_step {
                continue;
            }
            state.step += 1;
            state.next_step = self.elapsed + Span((state.step_seconds * 1e6) as i64);
            let loss = 2.0 + 8.0 / (1.0 + state.step as f64 / 200.0) + 0.05 * noise;
            let cells: [(&str, Cell); 9] = [
                ("job", state.name.as_str().into()),
                ("rank", 0.into()),
                ("host", host.into()),
                ("step", state.step.into()),
                ("loss", loss.into()),
                ("gradient_norm", (0.8 + 0.4 * noise).into()),
                ("learning_rate", 3e-4.into()),
                ("step_seconds", state.step_seconds.into()),
                ("tokens", 4_194_304.into()),
            ];
            rows.push(ts, cells)?;
        }
        Ok(rows)
    }

    fn job_events(&mut self, ts: Timestamp) -> Result<Rows, RowsError> {
        let mut rows = Rows::of("job_event")?;
        let last = self.elapsed + self.options.interval >= self.options.duration;
        for job in 0..self.jobs.len() {
            let in_checkpoint = self.in_checkpoint(job);
            let begins_checkpoint = in_checkpoint && !self.jobs[job].was_in_checkpoint;
            self.jobs[job].was_in_checkpoint = in_checkpoint;
            let host = self.names[job * self.options.gpus_per_host * HOSTS_PER_JOB].0.clone();
            for (happens, kind) in
                [(self.elapsed == Span::ZERO, "start"), (begins_checkpoint, "checkpoint"), (last, "end")]
            {
                if happens {
                    rows.push(
                        ts,
                        [
                            ("job", self.jobs[job].name.as_str().into()),
                            ("rank", 0.into()),
                            ("host", host.as_str().into()),
                            ("kind", kind.into()),
                        ],
                    )?;
                }
            }
        }
        Ok(rows)
    }
}

fn check(options: &FleetOptions) -> Result<(), SimulateError> {
    let wrong = |what, value: String, expected: &str| {
        Err(SimulateError::Option { what, value, expected: expected.to_string() })
    };
    if options.gpus == 0 || options.gpus > 1_000_000 {
        return wrong("the number of GPUs", options.gpus.to_string(), "1 to 1000000");
    }
    if options.gpus_per_host == 0 {
        return wrong("the number of GPUs on a host", "0".to_string(), "at least 1");
    }
    if options.interval < Span::millis(100) || options.interval > Span::minutes(1) {
        return wrong("the interval", options.interval.to_string(), "100ms to 1m");
    }
    if options.duration < options.interval {
        return wrong("the duration", options.duration.to_string(), "at least one interval");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
