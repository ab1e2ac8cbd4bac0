//! What brings rows into `up` itself: the collectors of this machine, and StatsD.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tidewatch_collect::{LogOptions, Pump, Roots, Sources};
use tidewatch_ingest::statsd::StatsdServer;
use tidewatch_model::Span;
use tidewatch_model::ports::{Clock, Log, Random};
use tidewatch_model::time::SystemClock;

use super::signals::Signals;
use super::up::say;
use crate::api::inputs::Inputs;
use crate::config::Config;
use crate::failure::Failure;
use crate::randomness::OsRandom;

/// How often what StatsD counted becomes rows.
const STATSD_INTERVAL: Span = Span::seconds(10);

/// Takes StatsD's lines, every ten seconds as rows.
pub(super) fn listen_statsd(listen: SocketAddr, inputs: Arc<Inputs>, on_screen: bool) -> Result<StatsdServer, Failure> {
    let counting = inputs.clone();
    let complain = move |problem: &str, count, is_first| {
        counting.reject(count);
        if is_first {
            say(on_screen, &format!("tidewatch: StatsD: {problem}"));
        }
    };
    let mut failing = false;
    let sink = move |series| match inputs.take(series) {
        Ok(()) => failing = false,
        Err(problem) => {
            // Said once; counters have it all when the log takes rows again.
            if !std::mem::replace(&mut failing, true) {
                say(on_screen, &format!("tidewatch: StatsD: {problem}"));
            }
        }
    };
    StatsdServer::start(listen, STATSD_INTERVAL, Arc::new(SystemClock), sink, complain)
        .map_err(|error| Failure::usage(format!("can't listen for StatsD on {listen}: {error}")))
}

/// The log files and journals to read: every fault of their file at once.
pub(super) fn log_sources(config: &Config) -> Result<LogOptions, Failure> {
    let Some(file) = config.logs_file.as_ref().filter(|_| config.collect_enabled) else {
        return Ok(LogOptions::default());
    };
    LogOptions::from_file(file).map_err(|faults| {
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Failure::usage(format!("logs.file has {} faults:\n{}", lines.len(), lines.join("\n")))
    })
}

/// This machine's collectors, on a thread of their own: one that hangs does not hold up alerts.
pub(super) fn collect(
    config: &Config,
    logs: LogOptions,
    log: Arc<dyn Log>,
    signals: Signals,
) -> Result<JoinHandle<()>, Failure> {
    let sources = Sources {
        roots: Roots {
            proc: config.collect_procfs.clone(),
            sys: config.collect_sysfs.clone(),
            pods: config.collect_pods.clone(),
        },
        host: config.collect_host.clone(),
        kmsg: config.collect_kmsg.clone(),
        nvml_library: config.collect_nvml_library.clone(),
        scrape: config.scrape.clone(),
        logs,
        state: Some(config.data_dir.clone()),
    };
    let incarnation = format!("{:016x}", OsRandom.next_u64());
    let (collectors, control) = sources.collectors();
    let mut pump = Pump::new(collectors, sources.host(), incarnation, log);
    let work = move || {
        while !signals.stop.load(Ordering::SeqCst) {
            if signals.release.swap(false, Ordering::SeqCst) {
                control.release();
            }
            if signals.reopen.swap(false, Ordering::SeqCst) {
                control.reopen();
            }
            let next = pump.tick(SystemClock.now());
            let wait = (next - SystemClock.now()).to_std();
            // Short sleeps, so that a stop is not waited for.
            std::thread::sleep(wait.min(Duration::from_millis(100)));
        }
    };
    std::thread::Builder::new().name("collect".to_string()).spawn(work).map_err(Failure::no)
}
