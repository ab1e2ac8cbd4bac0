//! Who is woken for nothing, who is not woken at all, and what all bundled rules cost: a simulated day of a fleet through
//! the very judge of `up`, in one thread, fed from memory.
//!
//! `cargo build --release --workspace && target/release/pages healthy|faults|cost [GPUS [INTERVAL [DURATION [OUT]]]]`, at the root of
//! the repository, whose sql/rules and sql/pack are read: a healthy day, one with 200 faults, or what each rule costs. OUT gets
//! each change of an alert as a line. PAGES_RULES=WORD leaves only files of rules whose text has the word, such as gpu_event.

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

#[path = "../../pipeline/run/src/judge.rs"]
#[allow(dead_code)]
mod judge;
#[path = "../../pipeline/run/src/stream_rows.rs"]
#[allow(dead_code)]
mod stream_rows;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::sync_channel;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::max;
use arrow::datatypes::TimestampMicrosecondType;
use judge::Judge;
use tidewatch_benches::{measure_thread, print_machine};
use tidewatch_collect::simulate::Tick;
use tidewatch_collect::simulate::day::{Day, DayOptions, FaultTruth};
use tidewatch_model::alert::Labels;
use tidewatch_model::{AlertState, Severity, Span, Timestamp, Transition};
use tidewatch_sql::{Compiler, Dimensions, Feed, Loaded};

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// 2026-11-01T00:00:00Z.
const START: Timestamp = Timestamp::from_seconds(1_793_491_200);
/// `engine.idle_timeout`: a table without rows does not hold windows back for longer.
const IDLE: Span = Span::seconds(30);
/// How often tables without rows are looked at.
const LOOK: Span = Span::seconds(10);
/// For how long after its end a fault may still be told.
const GRACE: Span = Span::minutes(75);

/// Files of rules: path and text.
type Files = Vec<(String, String)>;

fn files(folder: &Path, found: &mut Files) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "sql") {
            found.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// All rules that ship.
fn pack() -> Files {
    let mut found = Vec::new();
    for folder in ["sql/rules", "sql/pack"] {
        files(Path::new(folder), &mut found);
    }
    if let Ok(word) = std::env::var("PAGES_RULES") {
        found.retain(|(_, text)| text.contains(&word));
    }
    found
}

/// A judge, and the tables that its rules read.
struct Bench {
    judge: Judge,
    tables: BTreeSet<String>,
    /// How far each table has come by its rows or the clock.
    reached: BTreeMap<String, Timestamp>,
    looked: Timestamp,
}

impl Bench {
    fn new(files: &[(String, String)], day: &Day) -> Bench {
        let mut dimensions = Dimensions::default();
        for (table, rows) in day.dimensions().unwrap() {
            dimensions.set(table, rows).unwrap();
        }
        let mut loaded = Loaded::default();
        let texts = files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        Compiler::with(&dimensions).unwrap().load_files(texts, &mut loaded);
        assert!(!loaded.has_errors(), "{:?}", loaded.faults.first());
        let mut judge = Judge::new(loaded.rules).unwrap();
        judge.set_dimensions(&dimensions);
        let tables = judge.rules().flat_map(|rule| rule.tables().map(str::to_string).collect::<Vec<_>>()).collect();
        Bench { judge, tables, reached: BTreeMap::new(), looked: START }
    }

    /// A tick as `up` takes it: rows of each table, then its watermark; tables without rows go by the clock.
    fn feed(&mut self, ts: Timestamp, batches: &[(&'static str, RecordBatch)]) -> Vec<Transition> {
        let mut transitions = Vec::new();
        for (table, batch) in batches {
            if !self.tables.contains(*table) {
                continue;
            }
            transitions.extend(self.judge.push(table, batch, Feed::Live).unwrap());
            let newest = max(batch.column(0).as_primitive::<TimestampMicrosecondType>()).unwrap();
            self.advance(table, Timestamp(newest), &mut transitions);
        }
        if ts - self.looked >= LOOK {
            self.looked = ts;
            let by_clock = ts.saturating_sub(IDLE);
            for table in self.tables.clone() {
                self.advance(&table, by_clock, &mut transitions);
                transitions.extend(self.judge.advance_joined(&table, by_clock));
                transitions.extend(self.judge.feed_streams().unwrap());
            }
        }
        transitions
    }

    fn advance(&mut self, table: &str, to: Timestamp, transitions: &mut Vec<Transition>) {
        let reached = self.reached.entry(table.to_string()).or_insert(Timestamp::MIN);
        if to > *reached {
            *reached = to;
            transitions.extend(self.judge.advance(table, to, false));
            transitions.extend(self.judge.feed_streams().unwrap());
        }
    }
}

/// An alert that fired.
struct Fired {
    rule: String,
    labels: Labels,
    severity: Severity,
    at: Timestamp,
    until: Option<Timestamp>,
    text: String,
}

/// Runs the day through all rules, and says each hour what it cost; the alerts that fired.
fn run(mut day: Day, options: &DayOptions, out: Option<&str>) -> Vec<Fired> {
    let mut bench = Bench::new(&pack(), &day);
    let (send, ticks) = sync_channel::<Tick>(64);
    let maker = std::thread::spawn(move || {
        while let Some(tick) = day.next_tick() {
            if send.send(tick.unwrap()).is_err() {
                return;
            }
        }
    });
    let mut fired: Vec<Fired> = Vec::new();
    let mut out = out.map(|path| std::fs::File::create(path).unwrap());
    let (mut cost, mut rows) = (0.0, 0);
    let hour = Span::hours(1);
    let mut until = START + hour;
    while until - START <= options.duration + hour {
        let (seconds, (transitions, of_hour, over)) = measure_thread(|| {
            let (mut transitions, mut rows) = (Vec::new(), 0);
            while let Ok(tick) = ticks.recv() {
                rows += tick.batches.iter().map(|(_, batch)| batch.num_rows()).sum::<usize>();
                transitions.extend(bench.feed(tick.ts, &tick.batches));
                if tick.ts + options.interval >= until {
                    return (transitions, rows, false);
                }
            }
            (transitions, rows, true)
        })
        .unwrap();
        (cost, rows) = (cost + seconds, rows + of_hour);
        if of_hour > 0 {
            let held: u64 = bench.judge.engine().bytes().values().sum();
            let share = seconds / 36.0;
            println!(
                "hour {:>2}: {of_hour:>9} rows, {seconds:>7.2} CPU s ({share:.2} % of a core), {} MiB held",
                (until - START).0 / hour.0,
                held >> 20
            );
        }
        for transition in transitions {
            if let Some(out) = &mut out {
                let alert = &transition.alert;
                let line = format!(
                    "{} {} {:?} -> {:?} {:?} {:?} {:?} {}",
                    transition.ts,
                    alert.rule,
                    transition.from_state,
                    transition.to_state,
                    transition.reason,
                    alert.severity,
                    alert.labels,
                    alert.annotations.get("summary").map_or("", String::as_str)
                );
                writeln!(out, "{line}").unwrap();
            }
            note(&mut fired, &transition);
        }
        if over {
            break;
        }
        until = until + hour;
    }
    maker.join().unwrap();
    let simulated = options.duration.as_seconds();
    println!(
        "{rows} rows in {cost:.1} CPU s: {:.2} ms for a simulated second, {:.2} % of a core",
        cost / simulated * 1e3,
        cost / simulated * 100.0
    );
    for (rule, error) in bench.judge.take_failures() {
        println!("{rule} FAILED: {error}");
    }
    fired
}

fn note(fired: &mut Vec<Fired>, transition: &Transition) {
    let alert = &transition.alert;
    let alive = fired.iter_mut().rev().find(|other| other.rule == alert.rule && other.labels == alert.labels);
    match (transition.to_state, alive) {
        (AlertState::Firing, Some(alive)) if alive.until.is_none() => {
            alive.severity = alive.severity.max(alert.severity)
        }
        (AlertState::Firing, _) => fired.push(Fired {
            rule: alert.rule.clone(),
            labels: alert.labels.clone(),
            severity: alert.severity,
            at: transition.ts,
            until: None,
            text: alert.annotations.get("summary").cloned().unwrap_or_default(),
        }),
        (_, Some(alive)) if alive.until.is_none() => alive.until = Some(transition.ts),
        _ => {}
    }
}

/// Prints how often each rule fired, and an example of each.
fn print_alerts(fired: &[&Fired]) {
    let mut by_rule: BTreeMap<(Severity, &str), Vec<&Fired>> = BTreeMap::new();
    for alert in fired {
        by_rule.entry((alert.severity, &alert.rule)).or_default().push(alert);
    }
    for ((severity, rule), alerts) in by_rule.iter().rev() {
        println!("{severity:?} {rule}: {} times; {}: {}", alerts.len(), alerts[0].at, alerts[0].text);
    }
}

/// Whether an alert is about a fault: it names one of what the fault names, in its time.
fn is_about(alert: &Fired, fault: &FaultTruth) -> bool {
    let named = |name: &str, value: &str| fault.labels.get(name).is_some_and(|other| other == value);
    // A fault shows from the tick on in which it begins.
    alert.at >= fault.start.floor(LOOK)
        && alert.at <= fault.end + GRACE
        && alert.labels.iter().any(|(name, value)| named(name, value))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// By kind of fault and rule what was found, and by rule what was told for nothing.
fn print_faults(truth: &[FaultTruth], fired: &[Fired]) {
    let mut found: BTreeMap<(&str, &str), (usize, Vec<f64>)> = BTreeMap::new();
    for fault in truth {
        for rule in &fault.must {
            let first =
                fired.iter().filter(|alert| alert.rule == *rule && is_about(alert, fault)).map(|alert| alert.at).min();
            let (injected, delays) = found.entry((&fault.kind, rule)).or_default();
            *injected += 1;
            match first {
                Some(at) => delays.push((at - fault.start).as_seconds().max(0.0)),
                None => println!(
                    "missed: {rule} for {} from {} to {}, {:?}",
                    fault.kind, fault.start, fault.end, fault.labels
                ),
            }
        }
    }
    println!("| fault | rule | injected | found | delay median | max |");
    for ((kind, rule), (injected, mut delays)) in found {
        let longest = delays.iter().copied().fold(0.0, f64::max);
        println!("| {kind} | {rule} | {injected} | {} | {:.0} s | {longest:.0} s |", delays.len(), median(&mut delays));
    }
    let named = |alert: &Fired, fault: &FaultTruth| {
        fault.must.iter().chain(&fault.may).any(|rule| *rule == alert.rule) && is_about(alert, fault)
    };
    let (right, wrong): (Vec<&Fired>, Vec<&Fired>) =
        fired.iter().partition(|alert| truth.iter().any(|fault| named(alert, fault)));
    println!("{} alerts are about faults; {} are not:", right.len(), wrong.len());
    let mut rules: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    right.iter().for_each(|alert| rules.entry(&alert.rule).or_default().0 += 1);
    wrong.iter().for_each(|alert| rules.entry(&alert.rule).or_default().1 += 1);
    println!("| rule | about faults | not | precision |");
    for (rule, (right, wrong)) in rules {
        println!("| {rule} | {right} | {wrong} | {:.2} |", right as f64 / (right + wrong) as f64);
    }
    print_alerts(&wrong);
}

/// What each file of rules costs when it is alone, over an hour of which the last ten minutes count.
fn cost(options: &DayOptions) {
    let mut day = Day::new(options.clone()).unwrap();
    let of_day = Day::new(options.clone()).unwrap();
    let mut ticks = Vec::new();
    while let Some(tick) = day.next_tick() {
        ticks.push(tick.unwrap());
    }
    let counted = ticks.len() * 5 / 6;
    let one = |files: &[(String, String)]| -> f64 {
        let mut bench = Bench::new(files, &of_day);
        let (warm, rest) = ticks.split_at(counted);
        warm.iter().for_each(|tick| drop(bench.feed(tick.ts, &tick.batches)));
        let (seconds, ()) =
            measure_thread(|| rest.iter().for_each(|tick| drop(bench.feed(tick.ts, &tick.batches)))).unwrap();
        seconds / (options.interval.as_seconds() * rest.len() as f64)
    };
    let all = pack();
    println!("all: {:.3} ms a second", 1e3 * one(&all));
    let mut costs: Vec<(f64, &str)> =
        all.iter().map(|file| (1e3 * one(std::slice::from_ref(file)), file.0.as_str())).collect();
    costs.sort_by(|one, other| other.0.total_cmp(&one.0));
    for (milliseconds, path) in costs {
        println!("{milliseconds:>8.3} ms a second  {path}");
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |at: usize, usual: &str| arguments.get(at).cloned().unwrap_or_else(|| usual.to_string());
    let what = argument(0, "healthy");
    let usual_duration = if what == "cost" { "20m" } else { "24h" };
    let options = DayOptions {
        gpus: argument(1, "1000").parse().unwrap(),
        interval: argument(2, "1s").parse().unwrap(),
        duration: argument(3, usual_duration).parse().unwrap(),
        start: START,
        seed: 1,
        faults: if what == "faults" { 200 } else { 0 },
    };
    print_machine();
    let out = arguments.get(4).map(String::as_str);
    match what.as_str() {
        "cost" => cost(&options),
        _ => {
            let day = Day::new(options.clone()).unwrap();
            let truth = day.truth();
            let fired = run(day, &options, out);
            if what == "faults" {
                print_faults(&truth, &fired);
            } else {
                print_alerts(&fired.iter().collect::<Vec<_>>());
            }
        }
    }
}
