//! `tidewatch simulate`: a synthetic GPU fleet with faults whose truth is known.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use clap::ValueEnum;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tidewatch_collect::simulate::day::{Day, DayOptions};
use tidewatch_collect::simulate::{Fleet, FleetOptions, Noise, SimulateError, Tick, incidents_from_json};
use tidewatch_kafka::{KafkaLog, KafkaOptions};
use tidewatch_log::{LocalLog, LocalLogOptions};
use tidewatch_model::ports::{Clock, Log, Record, partition_for};
use tidewatch_model::table::TOPIC_PREFIX;
use tidewatch_model::time::SystemClock;
use tidewatch_model::wire::{Origin, encode_split};
use tidewatch_model::{Span, Timestamp};

use crate::failure::Failure;
use crate::progress::Progress;
use crate::station::create_topics;

/// What to simulate.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidewatch simulate --gpus 64 --duration 1h --out fleet.parquet\n  tidewatch simulate --gpus 64 --duration 1h --data tidewatch-data        into the log that 'up' reads\n  tidewatch simulate --gpus 8 --duration 10m --data tidewatch-data --real-time\n  tidewatch simulate --fleet day --gpus 256 --interval 5s --duration 24h --faults 20 --out day.parquet\n\nBeside the rows stand <name>.truth.json (what must be found, and what must not) and, with --out, one file per further\ntable: <name>.gpu_event.parquet, <name>.train_step.parquet, <name>.job_event.parquet. A day has rows of every table that the\nbundled rules read, and <name>.expected.csv and <name>.maintenance.csv, for 'backtest --table' and tables.files. With --data\n<name> is 'simulate' in its folder; with --kafka only rows are written."
)]
pub struct Args {
    /// What to simulate: incidents on GPUs that train, or the day of a whole fleet with all of its usual nuisances.
    #[arg(long, value_enum, default_value = "incidents")]
    fleet: FleetChoice,
    /// Faults that come on top of a day; from 8 hours on.
    #[arg(long, default_value = "0")]
    faults: usize,
    /// GPUs in the fleet, eight to a machine.
    #[arg(long, default_value = "64")]
    gpus: usize,
    /// Time between two rows of a GPU.
    #[arg(long, default_value = "1s")]
    interval: Span,
    /// How much time to simulate.
    #[arg(long, default_value = "1h")]
    duration: Span,
    /// The same seed gives the same rows.
    #[arg(long, default_value = "1")]
    seed: u64,
    /// When it begins (RFC 3339): by default 2026-01-01T00:00:00Z with --out, `duration` ago with --data.
    #[arg(long)]
    start: Option<Timestamp>,
    /// How noisy values are: byte rates with eleven random digits and jittered ts, or rounded and on the tick.
    #[arg(long, value_enum, default_value = "low")]
    noise: NoiseChoice,
    /// Incidents from a JSON file instead of the default set.
    #[arg(long)]
    incidents: Option<PathBuf>,
    /// Write a Parquet file instead of into the log of --data.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write into Kafka (host:port of brokers) instead; each host of the fleet is a source of its own.
    #[arg(long, conflicts_with = "out", value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// What topics' names begin with on the cluster.
    #[arg(long, default_value = "", requires = "kafka")]
    prefix: String,
    /// A setting of librdkafka, name=value. Repeatable.
    #[arg(short = 'X', value_name = "NAME=VALUE", requires = "kafka")]
    librdkafka: Vec<String>,
    /// Hosts that the GPUs are spread over; by default eight GPUs to a host.
    #[arg(long)]
    nodes: Option<usize>,
    /// Go at the speed of the clock, beginning now, instead of as fast as possible; with --data or --kafka.
    #[arg(long, conflicts_with = "out")]
    real_time: bool,
}

/// What to simulate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FleetChoice {
    /// GPUs that train, each kind of incident and of near miss once.
    Incidents,
    /// Training, serving, notebooks, streams, and what happens on a usual day.
    Day,
}

/// How noisy.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum NoiseChoice {
    /// Rounded values, ts on the tick.
    Low,
    /// Eleven random digits, jittered ts.
    High,
}

/// Runs the command.
pub fn run(args: &Args, data: Option<&Path>) -> Result<(), Failure> {
    let places = [args.out.is_some(), data.is_some(), args.kafka.is_some()];
    if places.iter().filter(|given| **given).count() != 1 {
        return Err(Failure::usage("expected one of --data DIR, --kafka HOST:PORT and --out FILE.parquet"));
    }
    let live = data.is_some() || args.kafka.is_some();
    let now = SystemClock.now();
    let start = args.start.unwrap_or(match (live, args.real_time) {
        (true, true) => now.floor(Span::seconds(1)),
        (true, false) => (now - args.duration).floor(Span::seconds(1)),
        (false, _) => Timestamp::from_seconds(1_767_225_600),
    });
    let mut fleet = match args.fleet {
        FleetChoice::Incidents => Simulated::Fleet(fleet(args, start)?),
        FleetChoice::Day => Simulated::Day(Box::new(day(args, start)?)),
    };
    let rows = match (data, &args.kafka, &args.out) {
        (Some(folder), _, _) => {
            let log = LocalLog::open(&folder.join("log"), LocalLogOptions::default()).map_err(Failure::usage)?;
            fleet.write_truth(&folder.join("simulate"))?;
            to_log(args, &mut fleet, &log, false, start)?
        }
        (None, Some(brokers), _) => {
            let setting = |setting: &String| {
                let (name, value) = setting.split_once('=')?;
                Some((name.to_string(), value.to_string()))
            };
            let settings = args.librdkafka.iter().map(setting).collect::<Option<Vec<_>>>();
            let settings = settings.ok_or_else(|| Failure::usage("-X: expected name=value"))?;
            let (brokers, prefix) = (brokers.clone(), args.prefix.clone());
            let options = KafkaOptions { brokers, prefix, settings, ..KafkaOptions::default() };
            let log = KafkaLog::connect(options).map_err(Failure::usage)?;
            to_log(args, &mut fleet, &log, true, start)?
        }
        (None, None, Some(file)) => {
            let rows = to_parquet(args, &mut fleet, file, start)?;
            fleet.write_truth(&file.with_extension(""))?;
            rows
        }
        (None, None, None) => 0,
    };
    eprintln!("{rows} rows from {start} to {}", start + args.duration);
    Ok(())
}

/// GPUs that train, with incidents.
fn fleet(args: &Args, start: Timestamp) -> Result<Fleet, Failure> {
    if args.faults > 0 {
        return Err(Failure::usage("--faults: expected --fleet day beside it"));
    }
    let gpus_per_host = match args.nodes {
        None => 8,
        Some(nodes) if nodes > 0 && args.gpus.is_multiple_of(nodes) => args.gpus / nodes,
        Some(nodes) => {
            return Err(Failure::usage(format!("{} GPUs can't be spread evenly over {nodes} nodes", args.gpus)));
        }
    };
    let incidents = match &args.incidents {
        None => None,
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
            Some(incidents_from_json(&text).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?)
        }
    };
    let noise = match args.noise {
        NoiseChoice::Low => Noise::Low,
        NoiseChoice::High => Noise::High,
    };
    let options = FleetOptions {
        gpus: args.gpus,
        gpus_per_host,
        interval: args.interval,
        duration: args.duration,
        start,
        seed: args.seed,
        noise,
        incidents,
    };
    Fleet::new(options).map_err(Failure::usage)
}

/// The day of a whole fleet.
fn day(args: &Args, start: Timestamp) -> Result<Day, Failure> {
    if args.incidents.is_some() || args.nodes.is_some() {
        return Err(Failure::usage("--incidents and --nodes are not for --fleet day"));
    }
    let Args { gpus, interval, duration, seed, faults, .. } = *args;
    Day::new(DayOptions { gpus, interval, duration, start, seed, faults }).map_err(Failure::usage)
}

/// What is simulated.
enum Simulated {
    Fleet(Fleet),
    Day(Box<Day>),
}

impl Simulated {
    fn next_tick(&mut self) -> Option<Result<Tick, SimulateError>> {
        match self {
            Simulated::Fleet(fleet) => fleet.next_tick().map(Ok),
            Simulated::Day(day) => day.next_tick(),
        }
    }

    /// What is true of incidents and faults, beside the rows; of a day also the tables that rules join.
    fn write_truth(&self, name: &Path) -> Result<(), Failure> {
        let beside = |ending: &str| PathBuf::from(format!("{}.{ending}", name.display()));
        let wrong = |path: &Path, error: String| Failure::usage(format!("{}: {error}", path.display()));
        let truth = match self {
            Simulated::Fleet(fleet) => serde_json::to_string_pretty(&fleet.truth()),
            Simulated::Day(day) => serde_json::to_string_pretty(&day.truth()),
        };
        let path = beside("truth.json");
        std::fs::write(&path, truth.map_err(Failure::no)?).map_err(|error| wrong(&path, error.to_string()))?;
        let Simulated::Day(day) = self else { return Ok(()) };
        for (table, rows) in day.dimensions().map_err(Failure::no)? {
            let path = beside(&format!("{table}.csv"));
            let file = File::create(&path).map_err(|error| wrong(&path, error.to_string()))?;
            arrow::csv::Writer::new(file).write(&rows).map_err(|error| wrong(&path, error.to_string()))?;
            eprintln!("the table '{table}' is in {}", path.display());
        }
        Ok(())
    }
}

/// Writes frames as agents do: one a tick, table and source. On a cluster each host is a source, and finds its partition.
fn to_log(args: &Args, fleet: &mut Simulated, log: &dyn Log, cluster: bool, start: Timestamp) -> Result<u64, Failure> {
    create_topics(log, cluster).map_err(Failure::no)?;
    let incarnation = format!("seed-{}-{}", args.seed, start.0);
    let mut origins: BTreeMap<(&'static str, String), Origin> = BTreeMap::new();
    let mut progress = Progress::new("simulate", args.duration.0 as u64);
    let mut waiting: BTreeMap<(&'static str, u32), Vec<Record>> = BTreeMap::new();
    let (mut rows, mut ticks) = (0, 0);
    while let Some(tick) = fleet.next_tick() {
        let tick = tick.map_err(Failure::no)?;
        if args.real_time {
            let wait = tick.ts - SystemClock.now();
            std::thread::sleep(wait.to_std());
        }
        for (table, batch) in tick.batches {
            rows += batch.num_rows() as u64;
            let parts = if cluster { by_host(&batch) } else { vec![("simulate".to_string(), batch)] };
            for (source, part) in parts {
                let origin = origins.entry((table, source.clone())).or_insert_with(|| Origin {
                    source: source.clone(),
                    incarnation: incarnation.clone(),
                    seq: 0,
                });
                let records = encode_split(table, origin, &part).map_err(Failure::no)?;
                let partition = partition_for(log, &topic_of(table), &source).map_err(Failure::no)?;
                waiting.entry((table, partition)).or_default().extend(records);
            }
        }
        ticks += 1;
        if args.real_time || ticks % TICKS_PER_APPEND == 0 {
            append_waiting(log, &mut waiting)?;
        }
        progress.set((tick.ts - start).0.max(0) as u64);
    }
    append_waiting(log, &mut waiting)?;
    log.sync().map_err(Failure::no)?;
    Ok(rows)
}

/// Ticks per append when nobody waits for them: one waits for the broker's word once for all of them.
const TICKS_PER_APPEND: u64 = 20;

fn topic_of(table: &str) -> String {
    format!("{TOPIC_PREFIX}{table}")
}

fn append_waiting(log: &dyn Log, waiting: &mut BTreeMap<(&'static str, u32), Vec<Record>>) -> Result<(), Failure> {
    for ((table, partition), records) in std::mem::take(waiting) {
        log.append(&topic_of(table), partition, &records).map_err(Failure::no)?;
    }
    Ok(())
}

/// The rows of each host; a fleet's rows come host by host. Rows of no host are the fleet's own.
fn by_host(batch: &RecordBatch) -> Vec<(String, RecordBatch)> {
    let hosts = batch.column_by_name("host").and_then(|column| column.as_string_opt::<i32>());
    let name = |row: usize| match hosts {
        Some(hosts) if hosts.is_valid(row) => hosts.value(row).to_string(),
        _ => "simulate".to_string(),
    };
    let mut parts = Vec::new();
    let mut from = 0;
    for row in 1..=batch.num_rows() {
        if row == batch.num_rows() || name(row) != name(from) {
            parts.push((name(from), batch.slice(from, row - from)));
            from = row;
        }
    }
    parts
}

/// Ticks per row group: enough that Parquet's columns compress.
const TICKS_PER_WRITE: usize = 300;

fn to_parquet(args: &Args, fleet: &mut Simulated, file: &Path, start: Timestamp) -> Result<u64, Failure> {
    let mut writers: BTreeMap<&'static str, TableFile> = BTreeMap::new();
    let mut progress = Progress::new("simulate", args.duration.0 as u64);
    let mut rows = 0;
    while let Some(tick) = fleet.next_tick() {
        let tick = tick.map_err(Failure::no)?;
        for (name, batch) in tick.batches {
            rows += batch.num_rows() as u64;
            if !writers.contains_key(name) {
                writers.insert(name, TableFile::create(&beside(file, name))?);
            }
            if let Some(writer) = writers.get_mut(name) {
                writer.push(batch)?;
            }
        }
        progress.set((tick.ts - start).0.max(0) as u64);
    }
    for writer in writers.into_values() {
        writer.close()?;
    }
    Ok(rows)
}

/// The GPUs' rows get the name that was asked for, other tables one beside it.
fn beside(file: &Path, name: &str) -> PathBuf {
    if name == "gpu" { file.to_path_buf() } else { file.with_extension(format!("{name}.parquet")) }
}

struct TableFile {
    path: PathBuf,
    writer: Option<ArrowWriter<File>>,
    held: Vec<RecordBatch>,
}

impl TableFile {
    fn create(path: &Path) -> Result<TableFile, Failure> {
        File::create(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        Ok(TableFile { path: path.to_path_buf(), writer: None, held: vec![] })
    }

    fn push(&mut self, batch: RecordBatch) -> Result<(), Failure> {
        self.held.push(batch);
        if self.held.len() < TICKS_PER_WRITE { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<(), Failure> {
        let wrong = |error: String| Failure::no(format!("{}: {error}", self.path.display()));
        let Some(first) = self.held.first() else { return Ok(()) };
        let schema = first.schema();
        let whole = arrow::compute::concat_batches(&schema, &self.held).map_err(|error| wrong(error.to_string()))?;
        if self.writer.is_none() {
            let file = File::create(&self.path).map_err(|error| wrong(error.to_string()))?;
            let level = ZstdLevel::try_new(1).map_err(|error| wrong(error.to_string()))?;
            let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
            self.writer =
                Some(ArrowWriter::try_new(file, schema, Some(properties)).map_err(|error| wrong(error.to_string()))?);
        }
        if let Some(writer) = &mut self.writer {
            writer.write(&whole).map_err(|error| Failure::no(format!("{}: {error}", self.path.display())))?;
        }
        self.held.clear();
        Ok(())
    }

    fn close(mut self) -> Result<(), Failure> {
        self.write()?;
        match self.writer.take() {
            Some(writer) => {
                writer.close().map(drop).map_err(|error| Failure::no(format!("{}: {error}", self.path.display())))
            }
            None => Ok(()),
        }
    }
}
