//! `tidewatch sql-worker`: answers questions on standard input, for a process that may end it at any time.

use std::io::{BufRead, BufWriter};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};
use tidewatch_lake::LakeScan;
use tidewatch_postgres::catalog;
use tidewatch_sql::{CATALOG, History};

use crate::config::Config;
use crate::dimension_files::{self, TableFile};
use crate::failure::Failure;
use crate::lake_access;
use crate::rule_watch;
use crate::sql_worker::{Frame, Question, answer};

/// Where the lake is, and how much a question may take.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Bytes of memory, all together.
    #[arg(long)]
    memory: u64,
    /// Questions are PostgreSQL's, and so is the catalog.
    #[arg(long)]
    postgres: bool,
    /// The lake's bucket.
    #[arg(long)]
    lake_url: Option<String>,
    /// A dimension table, NAME=FILE. Repeatable.
    #[arg(long, value_name = "NAME=FILE")]
    table: Vec<TableFile>,
    /// Rules whose streams are tables. Repeatable.
    #[arg(long)]
    rules: Vec<PathBuf>,
}

/// Of the memory, what questions may hold; the rest is the program's own. Beyond this a question gets an error, beyond the whole the
/// process ends.
const QUESTIONS_SHARE: f64 = 0.75;
/// What a process of this program has mapped before the first question: stacks and the allocator's own.
const OWN_BYTES: u64 = 256 << 20;

/// Threads that run plans, at most.
const MOST_THREADS: usize = 8;
/// How soon changed files of dimension tables and rules are seen.
const REOPEN: Duration = Duration::from_secs(5);

/// Runs the command. Nothing but the arguments says what it does.
pub fn run(args: &Args, data: Option<PathBuf>) -> Result<(), Failure> {
    yield_to_others();
    let stacks = threads() as u64 * 3 * tidewatch_sql::STACK_BYTES as u64;
    let limit = Some(args.memory.saturating_add(OWN_BYTES).saturating_add(stacks));
    setrlimit(Resource::Data, Rlimit { current: limit, maximum: limit })
        .and_then(|()| setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }))
        .map_err(|error| Failure::usage(format!("--memory {}: {error}", args.memory)))?;
    let mut config = Config {
        lake_url: args.lake_url.clone(),
        rules_paths: args.rules.clone(),
        tables_files: args.table.clone(),
        ..Config::default()
    };
    if let Some(data) = data {
        config.data_dir = data;
    }
    let (sender, questions) = sync_channel::<Question>(1);
    std::thread::Builder::new()
        .name("questions".to_string())
        .spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                let Ok(question) = serde_json::from_str(&line) else { break };
                if sender.send(question).is_err() {
                    break;
                }
            }
            // Whoever asked is gone: nobody waits for what is under way.
            std::process::exit(0);
        })
        .map_err(Failure::no)?;
    let mut out = BufWriter::new(std::io::stdout());
    let mut known: Option<(Instant, History)> = None;
    let mut scan: Option<Arc<LakeScan>> = None;
    for question in questions {
        // The lake may not have been there before, and dimension tables and rules may have changed.
        known = known.filter(|(opened, _)| opened.elapsed() < REOPEN);
        if known.is_none() {
            match open(&config, args, &mut scan) {
                Ok(history) => known = Some((Instant::now(), history)),
                Err(failure) => {
                    Frame::Failed("58030".to_string(), failure.message).write(&mut out).map_err(Failure::output)?
                }
            }
        }
        if let Some((_, history)) = &known {
            answer(history, &question, &mut out).map_err(Failure::output)?;
        }
    }
    Ok(())
}

/// Threads that run plans: a stack each, which counts, however many cores there are.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS)
}

/// When there is too little of processor or memory, this process goes first.
pub fn yield_to_others() {
    // Both are always allowed; where they are not known nothing is lost.
    rustix::process::nice(10).unwrap_or_default();
    drop(std::fs::write("/proc/self/oom_score_adj", "1000"));
}

/// With what was read of the lake before: its entries are many, and never change.
fn open(config: &Config, args: &Args, scan: &mut Option<Arc<LakeScan>>) -> Result<History, Failure> {
    let dimensions = dimension_files::load(&config.tables_files).map_err(Failure::usage)?;
    let loaded = rule_watch::load(config, &dimensions);
    let known = scan.take().map_or_else(|| lake_access::open_scan(config).map(Arc::new), Ok)?;
    *scan = Some(known.clone());
    let history = History::new(known, threads()).map_err(Failure::no)?;
    let mut history = history.with_dimensions(dimensions).bounded((args.memory as f64 * QUESTIONS_SHARE) as usize);
    if let Ok(loaded) = &loaded {
        history = history.with_views(loaded.views());
    }
    if !args.postgres {
        return Ok(history);
    }
    let overlay = catalog(CATALOG, history.tables()).map_err(Failure::no)?;
    Ok(history.as_postgresql(overlay))
}
