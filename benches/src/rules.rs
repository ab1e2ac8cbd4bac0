//! What rules cost: the engine alone, fed with batches from memory, in CPU seconds of this process.
//!
//! `cargo build --release --workspace && target/release/rules [MEASURE ..]`, where a measure is a word of its first column.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::SchemaRef;
use tidewatch_benches::{measure_thread, print_machine};
use tidewatch_flow::admit::Admit;
use tidewatch_flow::clean::{ColumnRule, Rules};
use tidewatch_flow::lifecycle::AlertBook;
use tidewatch_model::wire::{self, Origin};
use tidewatch_model::{Evaluation, Rule, Timestamp, table};
use tidewatch_sql::{Compiler, Engine, Feed, Listener, Loaded, Watched};

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SECOND: i64 = 1_000_000;
/// 2026-11-01, on the grid of every window here.
const START: i64 = 1_793_491_200 * SECOND;
/// Float64 columns of the table, filled with numbers.
const COLUMNS: [&str; 10] = [
    "utilization_ratio",
    "memory_controller_ratio",
    "sm_active_ratio",
    "tensor_active_ratio",
    "temperature_celsius",
    "memory_temperature_celsius",
    "power_watts",
    "fan_ratio",
    "utilization_max_ratio",
    "power_limit_watts",
];
/// Ten functions over a column.
const FUNCTIONS: [&str; 10] =
    ["avg", "sum", "min", "max", "count", "stddev", "var_pop", "stddev_pop", "var_samp", "increase"];

/// A fleet: every GPU has one row a second.
struct Fleet {
    schema: SchemaRef,
    gpus: usize,
    /// Columns of a few ticks; `ts` is put in when a tick is made.
    ticks: Vec<Vec<ArrayRef>>,
}

/// A generator without state beyond a number (SplitMix64).
fn random(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

impl Fleet {
    fn new(gpus: usize) -> Fleet {
        let schema = table::find("gpu").unwrap().schema();
        let mut seed = 7;
        let hosts: ArrayRef =
            Arc::new(StringArray::from_iter_values((0..gpus).map(|gpu| format!("node-{:04}", gpu / 8))));
        let uuids: ArrayRef =
            Arc::new(StringArray::from_iter_values((0..gpus).map(|gpu| format!("GPU-{gpu:08x}-0000-4000-8000"))));
        let indices: ArrayRef = Arc::new(Int64Array::from_iter_values((0..gpus).map(|gpu| gpu as i64 % 8)));
        let ticks = (0..8).map(|_| {
            let columns = schema.fields().iter().map(|field| match field.name().as_str() {
                "host" => hosts.clone(),
                "gpu_uuid" => uuids.clone(),
                "gpu_index" => indices.clone(),
                name if COLUMNS.contains(&name) => {
                    Arc::new(Float64Array::from_iter_values((0..gpus).map(|_| 20.0 + 60.0 * random(&mut seed))))
                }
                _ => new_null_array(field.data_type(), gpus),
            });
            columns.collect()
        });
        let ticks = ticks.collect();
        Fleet { schema, gpus, ticks }
    }

    /// Rows of the second `tick`.
    fn tick(&self, tick: i64) -> RecordBatch {
        let mut columns = self.ticks[tick as usize % self.ticks.len()].clone();
        let ts = START + tick * SECOND;
        columns[0] = Arc::new(TimestampMicrosecondArray::from_value(ts, self.gpus).with_timezone("UTC"));
        RecordBatch::try_new(self.schema.clone(), columns).unwrap()
    }
}

fn compile(text: &str) -> Engine {
    let mut loaded = Loaded::default();
    Compiler::new().unwrap().load("bench.sql", text, &mut loaded);
    assert!(!loaded.has_errors(), "{:?}", loaded.faults.first());
    Engine::new(loaded.rules).unwrap()
}

/// A rule over `window`, such as `'1s', '60s'`.
fn rule(name: &str, window: &str, aggregate: &str, condition: &str) -> String {
    format!(
        "CREATE ALERT {name} AS SELECT host, gpu_uuid, {aggregate} AS a FROM HOP(gpu, ts, {window})
         GROUP BY window_start, window_end, host, gpu_uuid HAVING {aggregate} {condition};"
    )
}

/// So many rules that differ in their threshold only; none fires.
fn thresholds(count: usize, window: &str) -> String {
    let one = |index: usize| {
        rule(&format!("r{index}"), window, "avg(temperature_celsius)", &format!("> {}", 100.0 + index as f64 / 1e4))
    };
    (0..count).map(one).collect()
}

/// Counts evaluations, and watches no group.
#[derive(Default)]
struct Count {
    evaluations: u64,
}

impl Listener for Count {
    fn watched(&self, _: &str) -> Watched {
        Watched::Keys(vec![])
    }

    fn take(&mut self, _: Evaluation) -> Timestamp {
        self.evaluations += 1;
        Timestamp::MIN
    }
}

/// Feeds the seconds `from..to`; returns CPU seconds and evaluations.
fn feed(engine: &mut Engine, fleet: &Fleet, from: i64, to: i64) -> (f64, u64) {
    let mut count = Count::default();
    let (seconds, ()) = measure_thread(|| {
        for tick in from..to {
            let batch = fleet.tick(tick);
            engine.push("gpu", &batch, Feed::Live, &mut count).unwrap();
            engine.advance("gpu", Timestamp(START + tick * SECOND), false, &mut count);
        }
    })
    .unwrap();
    (seconds, count.evaluations)
}

/// CPU microseconds per group, rule and slide once windows are full.
fn per_evaluation(name: &str, text: &str, rules: usize, target: f64) {
    let fleet = Fleet::new(10_000);
    let mut engine = compile(text);
    feed(&mut engine, &fleet, 0, 70);
    let seconds = 60;
    let (cost, evaluations) = feed(&mut engine, &fleet, 70, 70 + seconds);
    assert_eq!(evaluations, rules as u64 * seconds as u64);
    let micros = cost * 1e6 / (evaluations as f64 * fleet.gpus as f64);
    println!("{name:<64} {cost:>7.2} CPU s {micros:>9.5} us per series, rule and slide (to reach: {target})");
}

fn distinct_aggregates() -> String {
    let mut text = String::new();
    for column in COLUMNS {
        for function in FUNCTIONS {
            text += &rule(&format!("{function}_{column}"), "'1s', '60s'", &format!("{function}({column})"), "< -1000");
        }
    }
    text
}

/// Rows per CPU second.
fn throughput(text: &str, gpus: usize, warm: i64, seconds: i64) -> f64 {
    let fleet = Fleet::new(gpus);
    let mut engine = compile(text);
    feed(&mut engine, &fleet, 0, warm);
    let (cost, _) = feed(&mut engine, &fleet, warm, warm + seconds);
    gpus as f64 * seconds as f64 / cost
}

/// Ten rules as they are bundled: several columns, one minute every ten seconds.
fn ten_rules() -> String {
    let window = "'10s', '60s'";
    let aggregates = ["avg", "max", "min", "stddev", "count"];
    let one = |(index, column): (usize, &&str)| {
        rule(&format!("r{index}"), window, &format!("{}({column})", aggregates[index % 5]), "< -1000")
    };
    COLUMNS.iter().enumerate().map(one).collect()
}

/// Decodes frames and feeds them.
fn ingest() {
    let fleet = Fleet::new(1_000);
    let origin = |seq| Origin { source: "bench".to_string(), incarnation: "1".to_string(), seq };
    let frames: Vec<_> =
        (0..200).map(|tick| wire::encode("gpu", &origin(tick as u64), &fleet.tick(tick)).unwrap()).collect();
    let mut engine = compile(&ten_rules());
    let mut count = Count::default();
    let mut decoder = wire::Decoder::default();
    let decode_only = measure_thread(|| {
        frames.iter().map(|frame| wire::Decoder::default().decode(frame).unwrap().1.num_rows()).sum::<usize>()
    })
    .unwrap();
    let (cost, ()) = measure_thread(|| {
        for (tick, frame) in frames.iter().enumerate() {
            let (_, batch) = decoder.decode(frame).unwrap();
            engine.push("gpu", &batch, Feed::Live, &mut count).unwrap();
            engine.advance("gpu", Timestamp(START + tick as i64 * SECOND), false, &mut count);
        }
    })
    .unwrap();
    let rows = 200.0 * 1_000.0;
    println!(
        "{:<64} {cost:>7.2} CPU s {:>9.3} us a row (to reach: 1); decode alone {:.3}",
        "ingest: decode, 10 rules, 1,000 rows a frame",
        cost * 1e6 / rows,
        decode_only.0 * 1e6 / rows
    );
}

/// What a row pays at the door: the schema and the registry's bounds, then duplicates and jumps too (`clean.rules`).
fn admit() {
    let table = table::find("gpu").unwrap();
    let bounds = Rules::of(table);
    let mut all = bounds.clone();
    all.duplicates = true;
    for (column, jump) in
        [("temperature_celsius", 30.0), ("power_watts", 2_000.0), ("memory_temperature_celsius", 30.0)]
    {
        let column = ColumnRule::new(table.column(column).unwrap(), None);
        all.set(ColumnRule { jump: Some(jump), ..column });
    }
    for rows in [8, 1_000] {
        let fleet = Fleet::new(1_000);
        let batches: Vec<RecordBatch> = (0..200)
            .flat_map(|tick| {
                let whole = fleet.tick(tick);
                (0..1_000 / rows).map(move |part| whole.slice(part * rows, rows))
            })
            .collect();
        for (name, rules) in [
            ("schema and time alone", Rules::default()),
            ("the registry's ranges", bounds.clone()),
            ("and duplicates, three jumps", all.clone()),
        ] {
            let mut door = Admit::with(table, rules);
            let now = Timestamp(START + 200 * SECOND);
            let (cost, taken) = measure_thread(|| {
                let one = |batch: &RecordBatch| {
                    let rows = door.admit(batch, Some(now)).unwrap().rows.num_rows();
                    door.keep();
                    rows
                };
                batches.iter().map(one).sum::<usize>()
            })
            .unwrap();
            println!(
                "{:<64} {cost:>7.2} CPU s {:>9.3} us a row",
                format!("admit: {rows} rows a frame, {name}"),
                cost * 1e6 / taken as f64
            );
        }
    }
}

/// 1,250 alerts of one rule that fire at once, texts included.
fn burst() {
    let fleet = Fleet::new(1_250);
    let text = "CREATE ALERT hot WITH (severity = 'critical', summary = 'GPU {{ gpu_uuid }} on {{ host }} averages {{ a }} C',
        description = '{{ host }} is hot') AS SELECT host, gpu_uuid, avg(temperature_celsius) AS a
        FROM HOP(gpu, ts, '10s', '60s') GROUP BY window_start, window_end, host, gpu_uuid HAVING avg(temperature_celsius) > 0;";
    let mut loaded = Loaded::default();
    Compiler::new().unwrap().load("bench.sql", text, &mut loaded);
    let rule = loaded.rules[0].rule.clone();
    let mut engine = Engine::new(loaded.rules).unwrap();
    let mut count = Count::default();
    for tick in 0..10 {
        engine.push("gpu", &fleet.tick(tick), Feed::Live, &mut count).unwrap();
    }
    let mut judge = Judge { rule, book: AlertBook::default(), transitions: 0 };
    let begun = Instant::now();
    engine.advance("gpu", Timestamp(START + 13 * SECOND), false, &mut judge);
    let wall = begun.elapsed().as_secs_f64() * 1e3;
    assert_eq!(judge.transitions, 1_250);
    println!("{:<64} {wall:>7.2} ms (to reach: 10; wall)", "burst: 1,250 alerts fire in one slide, texts included");
}

/// The lifecycle behind the engine.
struct Judge {
    rule: Rule,
    book: AlertBook,
    transitions: usize,
}

impl Listener for Judge {
    fn watched(&self, _: &str) -> Watched {
        Watched::Keys(vec![])
    }

    fn take(&mut self, evaluation: Evaluation) -> Timestamp {
        self.transitions += self.book.advance(&self.rule, &evaluation).len();
        Timestamp::MIN
    }
}

/// From a row's arrival to its finding.
fn row_rule() {
    let fleet = Fleet::new(8);
    let mut engine = compile(
        "CREATE ALERT hot AS SELECT host, gpu_uuid, temperature_celsius FROM gpu WHERE temperature_celsius > 20;",
    );
    let mut count = Count::default();
    let mut micros: Vec<f64> = (0..20_000)
        .map(|tick| {
            let batch = fleet.tick(tick);
            let begun = Instant::now();
            engine.push("gpu", &batch, Feed::Live, &mut count).unwrap();
            begun.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    assert!(count.evaluations > 0);
    micros.sort_by(f64::total_cmp);
    println!(
        "{:<64} p50 {:.0} us, p99 {:.0} us (to reach: 1,000; wall)",
        "row: from a row to its finding, 8 rows a batch",
        micros[micros.len() / 2],
        micros[micros.len() * 99 / 100]
    );
}

fn state_bytes() {
    for aggregate in [
        "avg(temperature_celsius)",
        "count(temperature_celsius)",
        "max(temperature_celsius)",
        "stddev(temperature_celsius)",
    ] {
        let fleet = Fleet::new(1_000);
        let mut engine = compile(&rule("r", "'10s', '1h'", aggregate, "< -1000"));
        let mut count = Count::default();
        // One row in ten seconds: states do not depend on how many rows they are of.
        for tick in (0..3_700).step_by(10) {
            engine.push("gpu", &fleet.tick(tick), Feed::Live, &mut count).unwrap();
            engine.advance("gpu", Timestamp(START + tick * SECOND), false, &mut count);
        }
        let bytes = engine.counts("gpu").shared_bytes as f64 / fleet.gpus as f64;
        println!("{:<64} {bytes:>9.0} bytes per series (to reach: 4,500)", format!("state: {aggregate}, 1 h by 10 s"));
    }
}

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| asked.is_empty() || asked.iter().any(|asked| asked == name);
    print_machine();
    if wanted("thresholds") {
        per_evaluation(
            "thresholds: 10,000 GPUs, 100 rules that differ in threshold",
            &thresholds(100, "'1s', '60s'"),
            100,
            0.005,
        );
    }
    if wanted("aggregates") {
        per_evaluation(
            "aggregates: 10,000 GPUs, 100 rules, 10 columns x 10 functions",
            &distinct_aggregates(),
            100,
            0.05,
        );
    }
    if wanted("ingest") {
        ingest();
    }
    if wanted("admit") {
        admit();
    }
    if wanted("count") {
        let mut one = None;
        for count in [1, 10, 100, 1_000, 10_000] {
            let rate = throughput(&thresholds(count, "'10s', '60s'"), 1_000, 60, 3_600);
            let share = rate / *one.get_or_insert(rate);
            println!(
                "{:<64} {rate:>12.0} rows per CPU s, {:.2} of one rule's",
                format!("count: {count} rules, 1,000 GPUs, 60 s by 10 s"),
                share
            );
        }
    }
    if wanted("hop") {
        let rate = throughput(&thresholds(1, "'1s', '60s'"), 10_000, 65, 600);
        println!("{:<64} {rate:>12.0} rows per CPU s (to reach: 2,000,000)", "hop: 10,000 keys, avg, 60 s by 1 s");
    }
    if wanted("size") {
        let mut six = None;
        for size in [6, 60, 360] {
            let rate = throughput(&thresholds(1, &format!("'1s', '{size}s'")), 10_000, size + 5, 600);
            let times = *six.get_or_insert(rate) / rate;
            println!(
                "{:<64} {rate:>12.0} rows per CPU s, {times:.2} times the CPU of 6 s",
                format!("size: 10,000 keys, avg, {size} s by 1 s")
            );
        }
        for size in [6, 60, 360] {
            let text = rule("r", &format!("'1s', '{size}s'"), "max(temperature_celsius)", "> 1000");
            let rate = throughput(&text, 10_000, size + 5, 720);
            println!("{:<64} {rate:>12.0} rows per CPU s", format!("size: 10,000 keys, max, {size} s by 1 s"));
        }
    }
    if wanted("over") {
        for (name, over) in [
            (
                "avg, RANGE of 1 min by GPU",
                "avg(power_watts) OVER (PARTITION BY host, gpu_uuid ORDER BY ts RANGE BETWEEN INTERVAL '1 minute' PRECEDING AND CURRENT ROW)",
            ),
            (
                "max, RANGE of 1 min by GPU",
                "max(power_watts) OVER (PARTITION BY host, gpu_uuid ORDER BY ts RANGE BETWEEN INTERVAL '1 minute' PRECEDING AND CURRENT ROW)",
            ),
            ("lag by GPU", "lag(power_watts) OVER (PARTITION BY host, gpu_uuid ORDER BY ts)"),
        ] {
            let text = format!("CREATE ALERT o AS SELECT host, gpu_uuid, {over} AS a FROM gpu QUALIFY a > 1e6;");
            let rate = throughput(&text, 1_000, 70, 120);
            println!("{:<64} {rate:>12.0} rows per CPU s", format!("over: {name}, 1,000 GPUs"));
        }
    }
    if wanted("stock") {
        for (function, why) in [("median", "shared"), ("corr", "shared")] {
            let call =
                if function == "corr" { "corr(power_watts, temperature_celsius)" } else { "median(power_watts)" };
            let shared = throughput(&rule("s", "'10s', '60s'", call, "> 1e6"), 1_000, 70, 120);
            let plan = format!(
                "CREATE ALERT p WITH (every = '10s', over = '60s') AS SELECT host, gpu_uuid, {call} AS a FROM gpu GROUP BY host, gpu_uuid HAVING {call} > 1e6;"
            );
            let general = throughput(&plan, 1_000, 70, 120);
            println!(
                "{:<64} {shared:>12.0} rows per CPU s, its plan at each slide {general:.0}",
                format!("stock: {function}, {why}, 1,000 GPUs, 60 s by 10 s")
            );
        }
    }
    if wanted("state") {
        state_bytes();
    }
    if wanted("burst") {
        burst();
    }
    if wanted("row") {
        row_rule();
    }
}
