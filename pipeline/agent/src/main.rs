//! `tidewatch-agent`: collects a machine's metrics into a durable log on its own disk. It links no SQL engine and no web
//! framework, and it never listens.

// A program's work is to print; its library crates may not.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tidewatch_collect::{
    Collector, GpuControl, LogOptions, Pump, Roots, ScrapeOptions, Sources, Target, TokenFile, TypedTables,
};
use tidewatch_kafka::{KafkaLog, KafkaOptions};
use tidewatch_log::{LocalLog, LocalLogOptions, Spool, SpoolOptions};
use tidewatch_model::limits::{LOCAL_PARTITIONS, LOG_RETENTION, LOG_RETENTION_BYTES, SYNC_INTERVAL};
use tidewatch_model::ports::{Clock, Log, LogError, TopicOptions};
use tidewatch_model::table::{self, TABLES};
use tidewatch_model::time::SystemClock;
use tidewatch_model::{Span, Timestamp};
use tokio::signal::unix::{SignalKind, signal};

/// Collects this machine's metrics into a log on its disk.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  tidewatch-agent --kafka broker-1:9092,broker-2:9092\n  tidewatch-agent --kafka broker-1:9092 -X security.protocol=SSL\n  tidewatch-agent --data /var/lib/tidewatch/log        no cluster: 'tidewatch up --no-collect --data /var/lib/tidewatch' reads it\n  tidewatch-agent --once                    the rows of one pass, and exit\n  tidewatch-agent --once --format json | jq .\n\nStops at SIGINT and SIGTERM with everything synced. SIGUSR1 lets NVML go, so that the driver can be unloaded or upgraded;\nSIGUSR2, or ten minutes, opens it again. Exit codes: 0 done, 1 it failed, 2 it can't be asked like this."
)]
struct Cli {
    /// The folder of the log.
    #[arg(long, default_value = "tidewatch-agent-data", env = "TIDEWATCH_AGENT_DATA")]
    data: PathBuf,
    /// Kafka's brokers, host:port, comma separated: frames are sent there, and the folder is the spool.
    #[arg(long, value_name = "HOST:PORT", env = "TIDEWATCH_AGENT_KAFKA")]
    kafka: Option<String>,
    /// A setting of librdkafka, name=value. Repeatable.
    #[arg(short = 'X', value_name = "NAME=VALUE")]
    librdkafka: Vec<String>,
    /// What topics' names begin with on the cluster.
    #[arg(long, default_value = "")]
    prefix: String,
    /// What the spool keeps while the cluster can't be reached, in MiB; then the oldest frames go, and are counted.
    #[arg(long, default_value = "256")]
    spool_mib: u64,
    /// Name of this machine in its rows; by default the kernel's.
    #[arg(long)]
    host: Option<String>,
    /// Root of /proc.
    #[arg(long = "path.procfs", default_value = "/proc")]
    procfs: PathBuf,
    /// Root of /sys.
    #[arg(long = "path.sysfs", default_value = "/sys")]
    sysfs: PathBuf,
    /// The kubelet's folder of logs, which has the names of pods.
    #[arg(long = "path.pods", default_value = "/var/log/pods")]
    pods: PathBuf,
    /// An exporter whose Prometheus text becomes rows of `metrics`, JOB=URL; without a path it is /metrics, without a scheme http. Repeatable.
    #[arg(long, value_name = "JOB=URL")]
    scrape: Vec<Target>,
    /// A file of such targets, in the JSON or YAML of Prometheus' file_sd_configs; read again when it changes. Repeatable.
    #[arg(long, value_name = "FILE")]
    scrape_file: Vec<PathBuf>,
    /// How often they are asked.
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    scrape_interval: Span,
    /// The file of a bearer token for the targets of a job, JOB=FILE; read at every scrape. Repeatable.
    #[arg(long, value_name = "JOB=FILE")]
    scrape_token: Vec<TokenFile>,
    /// Tables that well-known exporters fill besides `metrics`: auto, all, none, or some of serve,serve_histogram,data_job,gpu,gpu_event.
    /// Auto is all, but those of GPUs only on a machine that has none of its own.
    #[arg(long, value_name = "TABLES", default_value = "auto")]
    scrape_typed: TypedTables,
    /// The kernel's messages; by default /dev/kmsg, and none with another /proc. It takes root or CAP_SYSLOG to read them.
    #[arg(long, value_name = "PATH", env = "TIDEWATCH_AGENT_KMSG")]
    kmsg: Option<PathBuf>,
    /// NVIDIA's library; by default libnvidia-ml.so.1, looked for where the system has its libraries.
    #[arg(long, value_name = "PATH", env = "TIDEWATCH_AGENT_NVML_LIBRARY")]
    nvml_library: Option<PathBuf>,
    /// A file that names log files and journals, whose lines become rows of `log` and of other tables (docs/logs.md).
    #[arg(long, value_name = "FILE", env = "TIDEWATCH_AGENT_LOGS")]
    logs: Option<PathBuf>,
    /// Collect twice, a second apart, print what came, and exit.
    #[arg(long)]
    once: bool,
    /// How --once prints.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns.
    Table,
    /// One JSON object per row.
    Json,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let scrape = ScrapeOptions {
        targets: cli.scrape.clone(),
        files: cli.scrape_file.clone(),
        interval: cli.scrape_interval.max(Span::seconds(1)),
        tokens: cli.scrape_token.clone(),
        typed: cli.scrape_typed.clone(),
        at_once: cli.once,
    };
    let logs = match cli.logs.as_deref().map(LogOptions::from_file).transpose() {
        Ok(logs) => logs.unwrap_or_default(),
        Err(faults) => {
            faults.iter().for_each(|fault| eprintln!("error: {fault}"));
            return ExitCode::from(2);
        }
    };
    let sources = Sources {
        roots: Roots { proc: cli.procfs.clone(), sys: cli.sysfs.clone(), pods: cli.pods.clone() },
        host: cli.host.clone(),
        kmsg: cli.kmsg.clone(),
        nvml_library: cli.nvml_library.clone(),
        scrape,
        logs,
        state: (!cli.once).then(|| cli.data.clone()),
    };
    let (collectors, control) = sources.collectors();
    let kafka = match connect(&cli) {
        Ok(kafka) => kafka,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(2);
        }
    };
    let done =
        if cli.once { once(collectors, cli.format) } else { run(&cli, kafka, collectors, &control, sources.host()) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Where frames go: into a log that another process reads, or into a spool that is shipped to a cluster.
enum Sink {
    Log(Arc<LocalLog>),
    Spool(Arc<Spool>),
}

impl Sink {
    fn open(cli: &Cli) -> Result<Sink, String> {
        let text = |error: LogError| error.to_string();
        if cli.kafka.is_some() {
            let options = SpoolOptions { bytes: cli.spool_mib << 20, ..SpoolOptions::default() };
            return Ok(Sink::Spool(Arc::new(Spool::open(&cli.data, options).map_err(text)?)));
        }
        Ok(Sink::Log(Arc::new(LocalLog::open(&cli.data, LocalLogOptions::default()).map_err(text)?)))
    }

    fn log(&self) -> Arc<dyn Log> {
        match self {
            Sink::Log(log) => log.clone(),
            Sink::Spool(spool) => spool.clone(),
        }
    }

    /// Keeps the bound, and tells the pump what that cost.
    fn tend(&self, pump: &mut Pump, now: Timestamp) -> Result<(), LogError> {
        match self {
            Sink::Log(log) => log.sync().and_then(|()| log.retain(now)).map(drop),
            Sink::Spool(spool) => {
                spool.enforce(now)?;
                let tables = spool.take_dropped().into_iter();
                let dropped = tables.filter_map(|(topic, rows)| Some((table::of_topic(&topic)?.name, rows)));
                pump.spool(spool.bytes()?, dropped);
                spool.sync()
            }
        }
    }
}

fn run(
    cli: &Cli,
    kafka: Option<KafkaLog>,
    collectors: Vec<Box<dyn Collector>>,
    gpus: &GpuControl,
    host: String,
) -> Result<(), String> {
    let sink = Sink::open(cli)?;
    let options = TopicOptions {
        partitions: if matches!(sink, Sink::Log(_)) { LOCAL_PARTITIONS } else { 1 },
        compacted: false,
        retention: Some(LOG_RETENTION),
        retention_bytes: Some(LOG_RETENTION_BYTES),
    };
    for table in TABLES {
        sink.log().create_topic(&table.topic(), &options).map_err(|error| error.to_string())?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let shipper = match (&sink, kafka) {
        (Sink::Spool(spool), Some(kafka)) => Some(ship(kafka, spool.clone(), stop.clone())?),
        _ => None,
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    // A start is told from another by its instant: two of one host in one microsecond there are not.
    let incarnation = format!("{:016x}", SystemClock.now().0);
    let mut pump = Pump::new(collectors, host, incarnation, sink.log());
    let ended = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut release = signal(SignalKind::user_defined1())?;
        let mut reopen = signal(SignalKind::user_defined2())?;
        let mut tended = Timestamp::MIN;
        loop {
            let now = SystemClock.now();
            let next = pump.tick(now);
            if now - tended.max(Timestamp(0)) >= SYNC_INTERVAL {
                tended = now;
                // A disk that says no is said on standard error; the pump counts what the log does not take.
                sink.tend(&mut pump, now).unwrap_or_else(|error| eprintln!("error: {error}"));
            }
            let wait = (next - SystemClock.now()).to_std().max(Duration::from_millis(1));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                _ = release.recv() => gpus.release(),
                _ = reopen.recv() => gpus.reopen(),
            }
        }
        Ok::<(), std::io::Error>(())
    });
    ended.map_err(|error| error.to_string())?;
    stop.store(true, Ordering::SeqCst);
    if let Some(shipper) = shipper {
        drop(shipper.join());
    }
    sink.log().sync().map_err(|error| error.to_string())
}

/// How long the shipper rests when everything is sent, and after a cluster said no.
const REST: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_secs(1);

/// The cluster that frames go to, if any. It need not be there yet; the settings must be right.
fn connect(cli: &Cli) -> Result<Option<KafkaLog>, String> {
    let settings = cli.librdkafka.iter().map(|setting| {
        let (name, value) = setting.split_once('=').ok_or(format!("-X {setting}: expected name=value"))?;
        Ok((name.to_string(), value.to_string()))
    });
    let settings = settings.collect::<Result<Vec<_>, String>>()?;
    let Some(brokers) = cli.kafka.clone() else { return Ok(None) };
    let options = KafkaOptions { brokers, prefix: cli.prefix.clone(), settings, ..KafkaOptions::default() };
    KafkaLog::connect(options).map(Some).map_err(|error| error.to_string())
}

/// Sends the spool to a cluster, on a thread of its own: collecting goes on while nobody answers.
fn ship(kafka: KafkaLog, spool: Arc<Spool>, stop: Arc<AtomicBool>) -> Result<JoinHandle<()>, String> {
    let work = move || {
        let mut ready = false;
        let mut said = String::new();
        while !stop.load(Ordering::SeqCst) {
            let sent = match ready {
                true => spool.ship(&kafka),
                false => create_topics(&kafka).map(|()| 0),
            };
            let rest = match sent {
                Ok(count) => {
                    if !said.is_empty() {
                        eprintln!("the cluster answers again");
                        said.clear();
                    }
                    ready = true;
                    if count > 0 { Duration::ZERO } else { REST }
                }
                Err(error) => {
                    // Said once as long as it stays the same; what is not acknowledged stays in the spool.
                    if said != error.to_string() {
                        said = error.to_string();
                        eprintln!("not sent, kept in the spool: {said}");
                    }
                    RETRY
                }
            };
            std::thread::sleep(rest);
        }
        // What is there now and can be sent at once is.
        while matches!(spool.ship(&kafka), Ok(1..)) {}
    };
    std::thread::Builder::new().name("ship".to_string()).spawn(work).map_err(|error| error.to_string())
}

/// The topics that an agent fills, with a cluster's partitions; those that exist stay as they are.
fn create_topics(kafka: &KafkaLog) -> Result<(), LogError> {
    for table in TABLES.iter().filter(|table| !table.is_own()) {
        let options = TopicOptions {
            partitions: table.cluster_partitions(),
            compacted: false,
            retention: Some(LOG_RETENTION),
            retention_bytes: Some(LOG_RETENTION_BYTES),
        };
        kafka.create_topic(&table.topic(), &options)?;
    }
    Ok(())
}

/// Ratios are differences, so everything is read twice.
fn once(mut collectors: Vec<Box<dyn Collector>>, format: Format) -> Result<(), String> {
    let first = SystemClock.now();
    for collector in &mut collectors {
        drop(collector.collect(first));
    }
    std::thread::sleep(Span::seconds(1).to_std());
    let now = SystemClock.now();
    for collector in &mut collectors {
        let collected = collector.collect(now);
        for fault in &collected.faults {
            eprintln!("{}: {}: {}", collector.table(), fault.column, fault.reason);
        }
        let own = collected.batch.map(|batch| (collector.table(), batch));
        for (table, batch) in own.into_iter().chain(collected.more) {
            let printed = match format {
                Format::Json => {
                    let mut writer = tidewatch_model::json::lines(std::io::stdout().lock(), false);
                    writer.write(&batch).and_then(|()| writer.finish())
                }
                Format::Table => {
                    arrow::util::pretty::pretty_format_batches(&[batch]).map(|text| println!("{table}\n{text}"))
                }
            };
            printed.map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}
