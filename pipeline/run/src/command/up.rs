//! `tidewatch up`: everything on one machine.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidewatch_kafka::KafkaMembership;
use tidewatch_lake::{JanitorOptions, LakeOptions, LakeScan};
use tidewatch_model::limits::SYNC_INTERVAL;
use tidewatch_model::ports::{Clock, LogError};
use tidewatch_model::time::SystemClock;
use tidewatch_model::{Alert, Rule, Span, Timestamp};
use tidewatch_serve::Server;
use tidewatch_sql::{Dimensions, Level, Renewed};

use super::feeding::{collect, listen_statsd, log_sources};
use super::signals::Signals;
use super::telling::{Told, access, external_url, tls, told};
use crate::api::inputs::Inputs;
use crate::api::{Api, ApiParts};
use crate::config::Config;
use crate::dimension_files::Watched;
use crate::failure::Failure;
use crate::feeds::Feeds;
use crate::fresh::{Fresh, Wish};
use crate::group::{Division, Stations};
use crate::heartbeat::Heartbeat;
use crate::lake_access::open_store;
use crate::log_choice::LogChoice;
use crate::postgres::SqlServer;
use crate::randomness::OsRandom;
use crate::rule_files::Bundled;
use crate::rule_watch::{self, News, RuleWatch};
use crate::said::{Acks, Silences};
use crate::screen::{RecentLines, Screen};
use crate::self_metrics::Shown;
use crate::sql_workers::{Dialect, SqlWorkers};
use crate::station::{ENGINE_TOPIC, Part, Parts, RuleSet, StationError, Stats, create_topics, shares};

/// Flags that override the configuration.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidewatch up\n  tidewatch up --kafka 127.0.0.1:9092\n  tidewatch up --data /var/lib/tidewatch --rules rules/ --webhook http://127.0.0.1:9000/hook\n  tidewatch up --no-collect --data demo        judge and store only what others write into the log\n\nStops cleanly at SIGINT and SIGTERM: commits, settles, exits 0. A second signal ends it at once. SIGUSR1 lets\nNVML go and SIGUSR2 opens it again, as for tidewatch-agent."
)]
pub struct Args {
    /// Rule files or folders, besides the bundled rules. Repeatable.
    #[arg(long)]
    rules: Vec<PathBuf>,
    /// Only the rules of --rules.
    #[arg(long)]
    no_bundled_rules: bool,
    /// The bundled rules for training, serving, data jobs and InfiniBand too, besides those for every machine.
    #[arg(long, conflicts_with = "no_bundled_rules")]
    all_rules: bool,
    /// Where HTTP listens.
    #[arg(long)]
    http: Option<SocketAddr>,
    /// Where alerts are posted, in Alertmanager's webhook format.
    #[arg(long)]
    webhook: Option<String>,
    /// Routes and receivers, in the format of Alertmanager's configuration.
    #[arg(long, value_name = "FILE")]
    alerting: Option<PathBuf>,
    /// An Alertmanager that gets every alert, as from Prometheus. Repeatable.
    #[arg(long, value_name = "URL")]
    alertmanager: Vec<String>,
    /// Kafka's brokers, host:port, comma separated, instead of the log in the data folder.
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// A setting of librdkafka, name=value. Repeatable.
    #[arg(short = 'X', value_name = "NAME=VALUE")]
    librdkafka: Vec<String>,
    /// Share the work with other engines that name the same group, on one cluster and one data folder.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Collect nothing on this machine.
    #[arg(long)]
    no_collect: bool,
    /// Plain lines instead of the live screen, also on a terminal.
    #[arg(long)]
    plain: bool,
}

/// How long the loop rests when there is nothing to do.
const REST: Duration = Duration::from_millis(20);
/// How often plain output says how things stand.
const REPORT_INTERVAL: Span = Span::seconds(30);
/// How often the screen is drawn and the shown figures are renewed.
const SHOW_INTERVAL: Span = Span::millis(500);
/// How often old segments are deleted.
const RETAIN_INTERVAL: Span = Span::minutes(1);
/// How often it is looked whether files of rules and of dimension tables changed.
const LOOK_INTERVAL: Span = Span::seconds(5);

/// Applies the flags to the configuration.
pub fn configure(args: &Args, config: &mut Config) -> Result<(), Failure> {
    config.rules_paths.extend(args.rules.iter().cloned());
    if args.no_bundled_rules {
        config.rules_bundled = Bundled::None;
    }
    if args.all_rules {
        config.rules_bundled = Bundled::All;
    }
    config.collect_enabled &= !args.no_collect;
    if let Some(address) = args.http {
        config.http_address = address;
    }
    if let Some(brokers) = &args.kafka {
        config.kafka_brokers = Some(brokers.clone());
    }
    for setting in &args.librdkafka {
        let wrong = || Failure::usage(format!("-X {setting}: expected name=value"));
        let (name, value) = setting.split_once('=').ok_or_else(wrong)?;
        config.kafka_settings.push((name.to_string(), value.to_string()));
    }
    if let Some(group) = &args.group {
        config.kafka_group = Some(group.clone());
    }
    if let Some(url) = &args.webhook {
        config.webhook_url = Some(url.clone());
    }
    if let Some(file) = &args.alerting {
        config.alerting_file = Some(file.clone());
    }
    for url in &args.alertmanager {
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Failure::usage(format!("--alertmanager {url}: expected http:// or https://")));
        }
        config.alerting_alertmanagers.push(url.clone());
    }
    let mut faults = Vec::new();
    crate::config::check_together(config, &mut faults);
    match faults.first() {
        Some(fault) => Err(Failure::usage(fault)),
        None => Ok(()),
    }
}

/// Runs `tidewatch engine`: as `up`, without collectors, on Kafka.
pub fn run_engine(args: &Args, mut config: Config) -> Result<(), Failure> {
    if config.kafka_brokers.is_none() {
        return Err(Failure::usage("expected --kafka HOST:PORT or kafka.brokers: 'up' runs everything on one machine"));
    }
    config.collect_enabled = false;
    run(args, &config)
}

/// Runs the command.
pub fn run(args: &Args, config: &Config) -> Result<(), Failure> {
    let clock = SystemClock;
    let signals = Signals::watch()?;
    let stop = signals.stop.clone();
    let tables = Watched::load(&config.tables_files).map_err(Failure::usage)?;
    let logs = log_sources(config)?;
    let dimensions = tables.dimensions().clone();
    let mut watch = RuleWatch::new(config);
    let loaded = rule_watch::load(config, &dimensions)?;
    // Bad rules are said and left out; the good ones run.
    for fault in loaded.faults.iter().filter(|fault| fault.level != Level::Note) {
        eprintln!("{fault}");
    }
    let set =
        RuleSet { complete: !loaded.has_errors(), rules: loaded.rules, suspended: rule_watch::suspended(config)? };
    let rules = set.rules.len();
    watch.runs(set.clone());
    let on_screen = std::io::stdout().is_terminal() && !args.plain;
    let recent = RecentLines::default();
    let lock = lock_folder(config)?;
    let log = LogChoice::open(config)?;
    let store = open_store(config, lock.alone).map_err(|error| unusable(config, error))?;
    let _lock = lock.keep(config)?;
    let Told { policy, receivers, alertmanagers, heartbeat } = told(config, &log.log(), on_screen, &recent)?;
    let opened = when_it_answers(&log, config, on_screen, &stop, || {
        Ok((Arc::new(Silences::open(log.log())?), Arc::new(Acks::open(log.log())?)))
    })?;
    let Some((silences, acks)) = opened else { return Ok(()) };
    let parts = Parts {
        log: log.log(),
        cluster: log.is_cluster(),
        part: Part::Whole,
        mappings: config.kafka_topics.iter().cloned().map(Arc::new).collect(),
        cleaning: Arc::new(config.clean_rules.clone()),
        from: config.kafka_from,
        store: store.clone(),
        random: Arc::new(OsRandom),
        rules: set.clone(),
        dimensions: dimensions.clone(),
        policy: policy.clone(),
        silences: silences.clone(),
        acks: acks.clone(),
        receivers,
        inline: false,
        lake: LakeOptions {
            window: config.lake_window,
            flush_interval: config.lake_flush_interval,
            ..LakeOptions::default()
        },
        janitor: JanitorOptions { retention: config.lake_retention, ..JanitorOptions::default() },
        works_aside: true,
        idle_timeout: config.engine_idle_timeout,
        memory_limit: config.engine_memory_limit,
        watches_itself: true,
    };
    let opened = when_it_answers(&log, config, on_screen, &stop, || match division(&parts, &log, config)? {
        Ok(division) => Stations::open(parts.clone(), division, SystemClock.now()).map(Ok),
        Err(failure) => Ok(Err(failure)),
    })?;
    let Some(mut stations) = opened.transpose()? else { return Ok(()) };
    let fresh: Arc<Fresh> = Arc::default();
    let inputs = Arc::new(Inputs::new(log.log(), &OsRandom, Arc::new(SystemClock), &config.scrape.typed));
    let api = ApiParts {
        inputs: inputs.clone(),
        policy,
        silences,
        acks,
        log: log.log(),
        scan: Arc::new(LakeScan::new(store.clone())),
        workers: SqlWorkers::new(config, Dialect::Own).map_err(Failure::no)?,
        fresh: fresh.clone(),
        clock: Arc::new(SystemClock),
        random: Arc::new(OsRandom),
    };
    let shown = Arc::new(Shown::new(Api::new(api)));
    let heartbeat = Heartbeat::start(heartbeat.0, heartbeat.1);
    let feeds = Feeds::start(alertmanagers, &external_url(config));
    let server = Server::start_with(config.http_address, access(config)?, tls(config)?, shown.clone());
    let server = server.map_err(Failure::usage)?;
    let mut lines = recent.clone();
    let counted = shown.clone();
    let tell = move |why: &str| {
        counted.sql_server_ended();
        if on_screen { drop(writeln!(lines, "tidewatch: {why}")) } else { say(false, &format!("tidewatch: {why}")) }
    };
    let statsd = config.statsd_listen.map(|listen| listen_statsd(listen, inputs.clone(), on_screen));
    let statsd = statsd.transpose()?;
    let sql_server = config.sql_listen.map(|listen| SqlServer::start(config, listen, tell));
    let sql_server = sql_server.transpose().map_err(Failure::usage)?;
    let collector =
        if config.collect_enabled { Some(collect(config, logs, log.log(), signals.clone())?) } else { None };
    say(
        on_screen,
        &format!(
            "tidewatch: {rules} rules on {}, data in {}, {}://{}/metrics",
            log.describe(),
            config.data_dir.display(),
            if config.http_tls_cert_file.is_some() { "https" } else { "http" },
            server.address()
        ),
    );
    if let Some(listen) = config.sql_listen {
        say(on_screen, &format!("tidewatch: the history at postgresql://{listen}/tidewatch"));
    }
    if let Some(statsd) = &statsd {
        say(on_screen, &format!("tidewatch: StatsD at udp://{}", statsd.address()));
    }
    let mut screen = Screen::new(on_screen, recent, config.data_dir.display().to_string(), server.address());
    let mut loop_state = LoopState {
        log: &log,
        shown: &shown,
        screen: &mut screen,
        times: Times::at(clock.now()),
        parts: vec![],
        tables,
        rules: watch,
        said_errors: BTreeMap::new(),
        said_targets: BTreeMap::new(),
        dimensions,
        shown_rules: rules_of(&set),
        feeds: &feeds,
        heartbeat: &heartbeat,
        hangup: signals.hangup.clone(),
        fresh,
        commits: None,
    };
    while !stop.load(Ordering::SeqCst) {
        let now = clock.now();
        let more = match stations.step(now) {
            Ok(more) => {
                match stations.stats().unsettled.first().cloned() {
                    None => stations.set_trouble(None),
                    Some(problem) => loop_state.trouble(&mut stations, format!("can't settle: {problem}")),
                }
                more
            }
            // A thread of the lake is gone: only a new start has another. Whoever watches the process starts it.
            Err(error @ StationError::Thread(_)) => return Err(Failure::no(error)),
            Err(error) => {
                // Nothing is lost: rows stay in the log until the step succeeds.
                loop_state.trouble(&mut stations, error.to_string());
                // A disk that is full is not asked fifty times a second.
                std::thread::sleep(Duration::from_millis(200));
                false
            }
        };
        loop_state.between_steps(&mut stations, now);
        if !more {
            std::thread::sleep(REST);
        }
    }
    screen.leave();
    say(on_screen, "tidewatch: stopping");
    if let Some(collector) = collector {
        drop(collector.join());
    }
    drop(statsd);
    shown.stop_sql();
    drop(server);
    drop(sql_server);
    stations.close(clock.now()).map_err(|error| Failure::no(format!("could not stop cleanly: {error}")))?;
    let stats = stations.stats();
    for problem in &stats.unsettled {
        say(on_screen, &format!("tidewatch: can't settle: {problem}"));
    }
    say(
        on_screen,
        &format!("tidewatch: stopped; {} rows committed, {} transitions", stats.lake_rows, stats.transitions),
    );
    Ok(())
}

fn rules_of(set: &RuleSet) -> Arc<Vec<Rule>> {
    Arc::new(set.rules.iter().map(|compiled| compiled.rule.clone()).collect())
}

/// Opens something on the log. A cluster that does not answer is waited for, since machines come up in any order; a folder that
/// can't be used is not. `None` when a stop was asked for meanwhile.
fn when_it_answers<T>(
    log: &LogChoice,
    config: &Config,
    on_screen: bool,
    stop: &AtomicBool,
    open: impl Fn() -> Result<T, StationError>,
) -> Result<Option<T>, Failure> {
    let mut said = String::new();
    while !stop.load(Ordering::SeqCst) {
        match open() {
            Ok(opened) => return Ok(Some(opened)),
            Err(StationError::Log(error)) if log.is_cluster() => {
                if said != error.to_string() {
                    said = error.to_string();
                    say(on_screen, &format!("tidewatch: waiting for {}: {said}", log.describe()));
                }
                std::thread::sleep(Duration::from_secs(1));
            }
            Err(error) => return Err(unusable(config, error)),
        }
    }
    Ok(None)
}

/// Alone, or a place in the group that the configuration names.
fn division(parts: &Parts, log: &LogChoice, config: &Config) -> Result<Result<Division, Failure>, LogError> {
    let (Some(group), LogChoice::Kafka(kafka)) = (&config.kafka_group, log) else { return Ok(Ok(Division::Alone)) };
    create_topics(parts.log.as_ref(), true)?;
    let shares = shares(parts.log.as_ref(), config.kafka_shares)?;
    let joined = KafkaMembership::join(kafka.options(), group, ENGINE_TOPIC).map_err(Failure::usage);
    Ok(joined.map(|membership| Division::Group { membership: Box::new(membership), shares }))
}

pub(super) fn say(on_screen: bool, line: &str) {
    if on_screen {
        println!("{line}");
    } else {
        eprintln!("{} {line}", SystemClock.now().floor(Span::seconds(1)));
    }
}

fn unusable(config: &Config, error: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("can't use the data folder {}: {error}", config.data_dir.display()))
}

/// The lock of the data folder, which ends with the process.
struct Lock {
    file: File,
    /// Nobody else has the folder now.
    alone: bool,
}

/// The data folder is one `up`'s: two would judge the same rows and page twice. Only engines of a group share one, and the
/// commit chains keep them apart.
fn lock_folder(config: &Config) -> Result<Lock, Failure> {
    let folder = config.data_dir.join("internal");
    std::fs::create_dir_all(&folder).map_err(|error| unusable(config, error))?;
    let file = File::create(folder.join("up.lock")).map_err(|error| unusable(config, error))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock { file, alone: true }),
        Err(TryLockError::WouldBlock) if config.kafka_group.is_some() => Ok(Lock { file, alone: false }),
        Err(TryLockError::WouldBlock) => Err(unusable(config, "another process runs `tidewatch up` on it")),
        Err(TryLockError::Error(error)) => Err(unusable(config, error)),
    }
}

impl Lock {
    /// Keeps it as long as the process runs; an engine of a group lets its fellows in. Two that start in one moment may see
    /// each other's lock on the whole for an instant, which is waited for.
    fn keep(self, config: &Config) -> Result<File, Failure> {
        if config.kafka_group.is_none() {
            return Ok(self.file);
        }
        self.file.unlock().map_err(|error| unusable(config, error))?;
        let begun = Instant::now();
        loop {
            match self.file.try_lock_shared() {
                Ok(()) => return Ok(self.file),
                Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(unusable(config, "another process runs `tidewatch up` on it without --group"));
                }
                Err(TryLockError::Error(error)) => return Err(unusable(config, error)),
            }
        }
    }
}

/// How long an engine of a group waits for a fellow that looks whether it is alone.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// When each of the loop's side jobs was last done.
struct Times {
    shown: Timestamp,
    looked: Timestamp,
    reported: Timestamp,
    synced: Timestamp,
    retained: Timestamp,
}

impl Times {
    fn at(now: Timestamp) -> Self {
        Times { shown: now, looked: now, reported: now, synced: now, retained: now }
    }
}

struct LoopState<'a> {
    log: &'a LogChoice,
    shown: &'a Shown,
    screen: &'a mut Screen,
    times: Times,
    /// What it does of a group's work.
    parts: Vec<String>,
    tables: Watched,
    dimensions: Dimensions,
    rules: RuleWatch,
    /// The rules, for the API.
    shown_rules: Arc<Vec<Rule>>,
    feeds: &'a Feeds,
    heartbeat: &'a Heartbeat,
    /// The last error of each rule that was said.
    said_errors: BTreeMap<String, String>,
    /// Targets that can't be told, as was said.
    said_targets: BTreeMap<String, String>,
    /// Whether somebody asked to look now.
    hangup: Arc<AtomicBool>,
    /// What questions wish to be committed, and the wish that is being carried out.
    fresh: Arc<Fresh>,
    commits: Option<Wish>,
}

impl LoopState<'_> {
    /// Whether files of rules and tables changed.
    fn look_at_files(&mut self, stations: &mut Stations, asked: bool, now: Timestamp) {
        let (changed, problems) = self.tables.look();
        problems.iter().for_each(|problem| self.screen.say(&format!("error: {problem}")));
        // Rules name numbers of a dimension table.
        let asked = asked || changed.is_some();
        if let Some(dimensions) = changed {
            self.screen.say("dimension tables were read again");
            stations.set_dimensions(dimensions.clone());
            self.dimensions = dimensions;
        }
        let News { set, said } = match self.rules.look(&self.dimensions, asked) {
            Ok(None) => return,
            Ok(Some(news)) => news,
            Err(failure) => return self.screen.say(&format!("error: rules stay as they are: {failure}")),
        };
        said.iter().for_each(|line| self.screen.say(line));
        let suspended = set.suspended.clone();
        match stations.change_rules(set.clone(), now) {
            Ok(Renewed { begun, dropped }) => {
                let list = |names: &[String]| if names.is_empty() { "none".to_string() } else { names.join(", ") };
                self.shown_rules = rules_of(&set);
                self.rules.runs(set);
                let (paused, ended): (Vec<String>, Vec<String>) =
                    dropped.into_iter().partition(|name| suspended.contains(name));
                self.screen.say(&format!(
                    "rules were read again; begun: {}; suspended: {}; ended: {}",
                    list(&begun),
                    list(&paused),
                    list(&ended)
                ));
            }
            Err(error) => {
                self.rules.again();
                self.screen.say(&format!("error: rules stay as they are: {error}"));
            }
        }
    }

    /// Says why rules fail, each reason once.
    fn say_errors(&mut self, stats: &Stats) {
        for (rule, error) in &stats.rule_errors {
            let rests = error.starts_with("it rests");
            if !rests && self.said_errors.get(rule) != Some(error) {
                self.screen.say(&format!("error: rule {rule}: {error}"));
                self.said_errors.insert(rule.clone(), error.clone());
            }
        }
    }

    /// Says which targets can't be told, each time that it begins.
    fn say_targets(&mut self, stats: &Stats) {
        for (target, error) in &stats.target_errors {
            if !self.said_targets.contains_key(target) {
                self.screen.say(&format!("error: a notice was not taken: {error}; it is tried again, or decided anew"));
            }
        }
        for target in self.said_targets.keys().filter(|target| !stats.target_errors.contains_key(*target)) {
            self.screen.say(&format!("{target} takes notices again"));
        }
        self.said_targets.clone_from(&stats.target_errors);
    }

    fn between_steps(&mut self, stations: &mut Stations, now: Timestamp) {
        match &self.commits {
            // Where a step fails nothing is committed: nobody waits for that.
            Some(wish) if stations.is_committed() || stations.stats().trouble.is_some() => {
                self.fresh.carried_out(wish, stations.is_committed() && stations.stats().trouble.is_none());
                self.commits = None;
            }
            Some(_) => {}
            None => {
                self.commits = self.fresh.wish();
                if self.commits.is_some() {
                    stations.commit_soon();
                }
            }
        }
        let asked = self.hangup.swap(false, Ordering::SeqCst);
        if asked || now - self.times.looked >= LOOK_INTERVAL {
            self.times.looked = now;
            self.look_at_files(stations, asked, now);
        }
        if now - self.times.synced >= SYNC_INTERVAL {
            self.times.synced = now;
            if let Err(error) = self.log.log().sync() {
                self.trouble(stations, error.to_string());
            }
        }
        if now - self.times.retained >= RETAIN_INTERVAL {
            self.times.retained = now;
            if let Err(error) = self.log.retain(now) {
                self.trouble(stations, error.to_string());
            }
        }
        if now - self.times.shown >= SHOW_INTERVAL {
            self.times.shown = now;
            let parts = stations.parts();
            if parts != self.parts {
                self.screen.say(&format!("this engine does: {}", parts.join(", ")));
                self.parts = parts;
            }
            let alerts: Vec<Alert> = stations.live_alerts();
            self.shown.set(stations.stats(), &alerts, self.log.corrupt_frames());
            self.shown.set_alerts(&alerts, stations.alert_groups(), &self.shown_rules, stations.rule_health());
            self.shown.set_feeds(self.feeds.counts(), self.heartbeat.counts());
            if stations.is_well(now) {
                self.heartbeat.alive(now);
            }
            if !self.feeds.is_empty() {
                self.feeds.set(stations.known_alerts());
                stations.set_feed_failures(self.feeds.counts().1);
                self.feeds.take_problems().iter().for_each(|said| self.screen.say(said));
            }
            let stats = stations.stats().clone();
            self.say_errors(&stats);
            self.say_targets(&stats);
            self.screen.draw(&stats, &alerts, now);
        }
        if now - self.times.reported >= REPORT_INTERVAL {
            self.times.reported = now;
            self.screen.report(stations.stats(), &stations.live_alerts(), now);
        }
    }

    /// Says what is wrong, once as long as it stays the same.
    fn trouble(&mut self, stations: &mut Stations, message: String) {
        if stations.stats().trouble.as_ref() != Some(&message) {
            self.screen.say(&format!("error: {message}"));
        }
        stations.set_trouble(Some(message));
        self.shown.set(stations.stats(), &stations.live_alerts(), self.log.corrupt_frames());
    }
}
