//! The oracle: for any rule and any arrival of the rows within the allowed delay, what the engine says fires is what
//! plain DataFusion, with its own functions, selects from the rows with their windows expanded.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Schema;
use datafusion::datasource::MemTable;
use datafusion::execution::FunctionRegistry;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use tidewatch_model::{Evaluation, GroupState, Key, Outcome, Span, Timestamp, Value, Values, WindowSpec};

use super::{Everything, GpuRow, SECOND, advance_until, compile, gpu_batch, load, push};
use crate::ends::{NullsOfEnds, ends};
use crate::increase::growths;
use crate::percentile::approx_percentile;
use crate::preprocess::of_numbers;
use crate::rows_table::windowed_schema;
use crate::session::history_session;
use crate::smoothing::of_values;
use crate::values::result_rows;
use crate::{Engine, Feed};

/// Rules wait two seconds for stragglers.
const DELAY: i64 = 2 * SECOND;

/// A rule of the generated kind.
#[derive(Debug, Clone)]
struct Written {
    spec: WindowSpec,
    keys: &'static [&'static str],
    aggregate: &'static str,
    condition: &'static str,
    comparison: &'static str,
    threshold: f64,
}

impl Written {
    /// The SELECT over some FROM item; `window` puts the window's columns into the groups.
    fn select(&self, from: &str, window: bool) -> String {
        let mut groups: Vec<&str> = self.keys.to_vec();
        if window {
            groups.extend(["window_start", "window_end"]);
        }
        let keys: String = groups.iter().map(|key| format!("{key}, ")).collect();
        let group_by = if groups.is_empty() { String::new() } else { format!("GROUP BY {}", groups.join(", ")) };
        let (aggregate, threshold) = (self.aggregate, self.threshold);
        format!(
            "SELECT {keys}{aggregate} AS a, count(*) AS n FROM {from} {} {group_by} HAVING {aggregate} {} {threshold}",
            self.condition, self.comparison
        )
    }

    fn alert(&self, name: &str) -> String {
        let micros = |span: Span| format!("INTERVAL '{} us'", span.0);
        let from = format!("HOP(gpu, ts, {}, {})", micros(self.spec.slide), micros(self.spec.size));
        // Both spellings: with the window's columns in GROUP BY, and without.
        format!(
            "CREATE ALERT {name} WITH (delay = '2s') AS {};",
            self.select(&from, self.threshold > 30.0 && !self.keys.is_empty())
        )
    }

    /// The same rule with its window in its options.
    fn bounded(&self, name: &str) -> String {
        let (every, over) = (self.spec.slide, self.spec.size);
        let select = self.select("gpu", false);
        format!("CREATE ALERT {name} WITH (delay = '2s', every = '{every}', over = '{over}') AS {select};")
    }
}

fn written() -> impl Strategy<Value = Written> {
    let specs = prop::sample::select(vec![(10, 10), (10, 30), (7, 20), (1, 5), (5, 60), (3, 4)]);
    let keys = prop::sample::select(vec![&["host"][..], &["host", "gpu_uuid"], &["gpu_uuid"], &[]]);
    let aggregates = prop::sample::select(vec![
        "avg(temperature_celsius)",
        "sum(temperature_celsius)",
        "min(temperature_celsius)",
        "max(power_watts)",
        "max(temperature_celsius) - min(power_watts)",
        "count(*)",
        "count(power_watts)",
        "stddev(temperature_celsius)",
        "stddev_pop(power_watts)",
        "var_samp(temperature_celsius)",
        "var_pop(power_watts)",
        "avg(power_watts) - min(power_watts)",
        "count(*) FILTER (WHERE temperature_celsius > 50)",
        "median(temperature_celsius)",
        "sum(gpu_index + 3)",
        "min(gpu_index)",
        "sum(temperature_celsius) FILTER (WHERE power_watts > 20)",
        "max(power_watts) FILTER (WHERE temperature_celsius < 20 OR power_watts > 90)",
        "count(DISTINCT host)",
        "avg(DISTINCT temperature_celsius)",
        "increase(power_watts, ts)",
        "increase(gpu_index, ts)",
        "rate(temperature_celsius, ts)",
        "CASE WHEN bool_or(temperature_celsius > 60) THEN 80 ELSE 0 END",
        "CASE WHEN bool_and(power_watts > 10) THEN 80 ELSE 0 END",
        "CASE WHEN max(host) > 'n2' THEN 80 ELSE 0 END",
        "extract(epoch FROM max(ts) - min(ts))",
        // Of numbers that are all the same it is 0 / 0, and rounding decides: these are exact.
        "corr(CASE WHEN temperature_celsius > 50 THEN 1 ELSE 0 END, CASE WHEN power_watts > 50 THEN 1 ELSE 0 END) * 100",
        "approx_percentile(temperature_celsius, 0.9)",
        "approx_percentile(power_watts, 0.1) - approx_percentile(power_watts, 0.5)",
        "first(temperature_celsius, ts)",
        "last(power_watts, ts) - first(power_watts, ts)",
        "CASE WHEN last(host, ts) = 'n2' THEN 80 ELSE 0 END",
        "last(power_watts, ts) RESPECT NULLS",
        "first(temperature_celsius, ts) RESPECT NULLS + last(power_watts, ts)",
        "coalesce(last(gpu_index, ts) FILTER (WHERE power_watts > 20) RESPECT NULLS, 70)",
        "approx_distinct(gpu_uuid)",
        "mad(temperature_celsius)",
        "mad(power_watts) FILTER (WHERE temperature_celsius > 10)",
        "ewma(temperature_celsius, 0.3, ts)",
        "ewma(power_watts, INTERVAL '7 seconds', ts)",
        "clamp(avg(temperature_celsius), 10, 60)",
        "100 * minmax(avg(temperature_celsius), min(temperature_celsius), max(temperature_celsius))",
        "10 * zscore(max(temperature_celsius), avg(temperature_celsius), stddev(temperature_celsius))",
    ]);
    let conditions = prop::sample::select(vec![
        "",
        "WHERE host = 'n1'",
        "WHERE temperature_celsius > 40",
        "WHERE host <> 'n2' AND power_watts IS NOT NULL",
        "WHERE host = 'n1' OR power_watts > 50",
        "WHERE gpu_uuid = 'g0'",
        "WHERE gpu_index = 0 AND host IN ('n1', 'n3') AND temperature_celsius < 120",
    ]);
    // Thresholds with an odd fraction: no generated value ties with one.
    let comparisons = prop::sample::select(vec![">", ">", ">", "<", "> -1000 AND 7 <", "< 0 OR 10 + 1 <"]);
    (specs, keys, aggregates, conditions, comparisons, -20i32..90).prop_map(
        |((slide, size), keys, aggregate, condition, comparison, threshold)| Written {
            spec: WindowSpec { slide: Span::seconds(slide), size: Span::seconds(size) },
            keys,
            aggregate,
            condition,
            comparison,
            threshold: f64::from(threshold) + 0.123_456_7,
        },
    )
}

/// Rows with their delay on the way, in microseconds; with `odd`, some values are no numbers.
pub(super) fn rows(odd: bool) -> impl Strategy<Value = Vec<(GpuRow, i64)>> {
    let plain = || prop_oneof![-50.0..150.0f64, Just(1e-12), Just(1e12), Just(0.1), Just(0.0)];
    let special = || prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
    let value = move || {
        let weight = if odd { 1 } else { 0 };
        prop::option::weighted(0.9, prop_oneof![12 => plain().boxed(), weight => special().boxed()])
    };
    let row = (
        // Some rows share their time.
        prop_oneof![3 => 0..90 * SECOND, 1 => (0..90i64).prop_map(|second| second * SECOND)],
        prop::sample::select(vec!["n1", "n2", "n3"]),
        prop::sample::select(vec!["g0", "g1"]),
        value(),
        value(),
        0..DELAY,
    )
        .prop_map(|(ts, host, gpu, temperature, power, late)| (GpuRow { ts, host, gpu, temperature, power }, late));
    prop::collection::vec(row, 1..60)
}

pub(super) type Fired = BTreeMap<(Timestamp, Key), Values>;

/// Engine and rows on their way: rows arrive in order of ts + delay in batches of `batch` rows.
pub(super) struct Journey {
    pub(super) batches: Vec<RecordBatch>,
    /// By batch: the newest ts so far.
    newest: Vec<Timestamp>,
}

impl Journey {
    pub(super) fn new(mut rows: Vec<(GpuRow, i64)>, batch: usize) -> Journey {
        rows.sort_by_key(|(row, late)| row.ts + late);
        let mut journey = Journey { batches: vec![], newest: vec![] };
        let mut newest = i64::MIN;
        for part in rows.chunks(batch) {
            let part: Vec<GpuRow> = part.iter().map(|(row, _)| row.clone()).collect();
            newest = newest.max(part.iter().map(|row| row.ts).max().unwrap());
            journey.batches.push(gpu_batch(&part));
            journey.newest.push(Timestamp(newest));
        }
        journey
    }

    /// Feeds the batches from `from` on, and lets every window close; what fires, by rule.
    pub(super) fn feed(&self, engine: &mut Engine, from: usize) -> BTreeMap<String, Fired> {
        let mut fired = self.feed_some(engine, from, self.batches.len());
        let end = *self.newest.last().unwrap() + Span::seconds(200);
        take(&mut fired, advance_until(engine, end, false, Timestamp::MAX));
        fired
    }

    /// The same, but an engine over these rules is lost after `killed` batches, and what it had read is read again by another, which
    /// knows how far each rule had judged; `held` says what of a batch it reads again, from where it asks to.
    pub(super) fn feed_with_restart(
        &self,
        text: &str,
        killed: usize,
        held: impl Fn(Option<Timestamp>, &RecordBatch) -> RecordBatch,
    ) -> BTreeMap<String, Fired> {
        let mut first = Engine::new(load(text).rules).unwrap();
        let mut fired = self.feed_some(&mut first, 0, killed);
        let positions: Vec<(String, Timestamp)> = first.positions().map(|(rule, ts)| (rule.to_string(), ts)).collect();
        let mut second = Engine::new(load(text).rules).unwrap();
        for (rule, ts) in &positions {
            second.restore(rule, *ts, []);
        }
        let from = second.replay_from("gpu");
        for batch in &self.batches[..killed] {
            assert!(push(&mut second, &held(from, batch), Feed::Replay).is_empty());
        }
        for (rule, more) in self.feed(&mut second, killed) {
            fired.entry(rule).or_default().extend(more);
        }
        fired
    }

    /// Feeds some batches; by rule: the end of the last window that was evaluated.
    fn ends(&self, engine: &mut Engine, from: usize, to: usize) -> BTreeMap<String, Timestamp> {
        let mut ends = BTreeMap::new();
        for (batch, newest) in self.batches.iter().zip(&self.newest).take(to).skip(from) {
            let mut evaluations = push(engine, batch, Feed::Live);
            evaluations.extend(advance_until(engine, *newest, false, Timestamp::MAX));
            ends.extend(evaluations.into_iter().map(|evaluation| (evaluation.rule, evaluation.window_end)));
        }
        ends
    }

    pub(super) fn feed_some(&self, engine: &mut Engine, from: usize, to: usize) -> BTreeMap<String, Fired> {
        let mut fired = BTreeMap::new();
        for (batch, newest) in self.batches.iter().zip(&self.newest).take(to).skip(from) {
            take(&mut fired, push(engine, batch, Feed::Live));
            take(&mut fired, advance_until(engine, *newest, false, Timestamp::MAX));
        }
        fired
    }
}

pub(super) fn take(fired: &mut BTreeMap<String, Fired>, evaluations: Vec<Evaluation>) {
    for evaluation in evaluations {
        let Outcome::Groups(findings) = evaluation.outcome else { panic!("{:?}", evaluation.outcome) };
        for finding in findings {
            if let GroupState::Firing(values) = finding.state {
                let of_rule = fired.entry(evaluation.rule.clone()).or_default();
                of_rule.insert((evaluation.window_end, finding.key), values);
            }
        }
    }
}

/// What the engine says about one rule.
fn from_engine(rule: &Written, rows: Vec<(GpuRow, i64)>, batch: usize) -> Fired {
    of_text(&rule.alert("x"), rows, batch)
}

fn of_text(text: &str, rows: Vec<(GpuRow, i64)>, batch: usize) -> Fired {
    let mut engine = Engine::new(vec![compile(text)]).unwrap();
    Journey::new(rows, batch).feed(&mut engine, 0).remove("x").unwrap_or_default()
}

/// What plain DataFusion says over the expanded rows: with its own functions where it has them, and with all of ours where a
/// value is no number (its own depend on the order then).
fn from_datafusion(rule: &Written, rows: &[(GpuRow, i64)], odd: bool) -> Fired {
    let batch = expanded(rule.spec, &rows.iter().map(|(row, _)| row.clone()).collect::<Vec<_>>());
    let context = if odd { history_session(1, None).unwrap() } else { SessionContext::new() };
    let own = growths().into_iter().chain(ends()).chain([approx_percentile()]);
    own.chain(of_values()).for_each(|aggregate| context.register_udaf(aggregate));
    context.state_ref().write().register_expr_planner(Arc::new(NullsOfEnds)).unwrap();
    of_numbers().into_iter().for_each(|function| context.register_udf(function));
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
    context.register_table("expanded", Arc::new(table)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let sql = rule.select("expanded", true);
    let batches = runtime.block_on(async { context.sql(&sql).await.unwrap().collect().await.unwrap() });
    let mut keys: Vec<String> = rule.keys.iter().map(ToString::to_string).collect();
    keys.push("window_start".to_string());
    let rows = result_rows(&batches, &keys, Some("window_end")).unwrap();
    rows.into_iter()
        .map(|mut row| {
            row.key.remove("window_start");
            ((row.ts.unwrap(), row.key), row.values)
        })
        .collect()
}

/// Each row once per window that holds it.
fn expanded(spec: WindowSpec, rows: &[GpuRow]) -> RecordBatch {
    let batch = gpu_batch(rows);
    let windows: Vec<(u32, Timestamp)> = rows
        .iter()
        .enumerate()
        .flat_map(|(index, row)| spec.starts_of(Timestamp(row.ts)).map(move |start| (index as u32, start)))
        .collect();
    let copies =
        take_record_batch(&batch, &UInt32Array::from_iter_values(windows.iter().map(|(index, _)| *index))).unwrap();
    let starts =
        TimestampMicrosecondArray::from_iter_values(windows.iter().map(|(_, start)| start.0)).with_timezone("UTC");
    let ends = TimestampMicrosecondArray::from_iter_values(windows.iter().map(|(_, start)| spec.end_of(*start).0))
        .with_timezone("UTC");
    let schema: Arc<Schema> = windowed_schema(&batch.schema());
    let columns = copies.columns().iter().cloned().chain([Arc::new(starts) as _, Arc::new(ends) as _]).collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

/// Equal to 1e-9 of the larger of the two and of the data's own scale (plain float sums cancel, squares more so).
pub(super) fn close(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) if left.is_finite() && right.is_finite() => {
            (left - right).abs() <= 1e-9 * left.abs().max(right.abs()).max(1e5)
        }
        (Some(left), Some(right)) => left.to_bits() == right.to_bits() || (left.is_nan() && right.is_nan()),
        _ => left == right,
    }
}

/// So many, unless PROPTEST_CASES says otherwise: .ci/soak runs more.
pub(super) fn cases(usually: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usually)
}

/// The same bits, NaN included.
pub(super) fn same(left: &Fired, right: &Fired) -> bool {
    let bits = |value: &Value| match value {
        Value::Float(number) if !number.is_nan() => Value::Text(format!("{:x}", number.to_bits())),
        Value::Float(_) => Value::Text("NaN".to_string()),
        other => other.clone(),
    };
    let plain = |fired: &Fired| -> Vec<_> {
        let rows = fired.iter();
        rows.map(|(key, values)| (key.clone(), values.iter().map(|(_, value)| bits(value)).collect::<Vec<_>>()))
            .collect()
    };
    plain(left) == plain(right)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(500), ..ProptestConfig::default() })]

    #[test]
    fn the_engine_equals_plain_datafusion(
        rule in written(),
        (rows, odd) in any::<bool>().prop_flat_map(|odd| (rows(odd), Just(odd))),
        batch in 1usize..20,
    ) {
        let expected = from_datafusion(&rule, &rows, odd);
        let found = from_engine(&rule, rows.clone(), batch);
        let keys = |fired: &Fired| fired.keys().cloned().collect::<Vec<_>>();
        prop_assert_eq!(keys(&found), keys(&expected), "{}", rule.alert("x"));
        for (key, values) in &expected {
            for (name, expected) in values {
                let (_, found) = found[key].iter().find(|(column, _)| column == name).unwrap();
                prop_assert!(close(expected, found), "{key:?} {name}: {found:?}, expected {expected:?} in {}", rule.alert("x"));
            }
        }
        // The same by running its plan; without groups, SQL has a row even over nothing.
        if !rule.keys.is_empty() && batch % 4 == 0 {
            let bounded = of_text(&rule.bounded("x"), rows.clone(), batch);
            prop_assert_eq!(keys(&bounded), keys(&expected), "{}", rule.bounded("x"));
        }
        // Other batches, the same bits.
        prop_assert!(same(&from_engine(&rule, rows, batch % 7 + 1), &found));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(100), ..ProptestConfig::default() })]

    #[test]
    fn sharing_changes_no_answer(rules in prop::collection::vec(written(), 2..8), rows in rows(true), batch in 1usize..20) {
        let names: Vec<String> = (0..rules.len()).map(|index| format!("r{index}")).collect();
        let text: String = rules.iter().zip(&names).map(|(rule, name)| rule.alert(name)).collect();
        let mut together = Engine::new(load(&text).rules).unwrap();
        let mut found = Journey::new(rows.clone(), batch).feed(&mut together, 0);
        for (rule, name) in rules.iter().zip(&names) {
            let alone = from_engine(rule, rows.clone(), batch);
            let among_others = found.remove(name).unwrap_or_default();
            prop_assert!(same(&among_others, &alone), "{}: {among_others:?}, alone {alone:?}", rule.alert(name));
        }
    }

    #[test]
    fn a_restart_changes_no_answer(
        rules in prop::collection::vec(written(), 1..4),
        rows in rows(true),
        batch in 1usize..20,
        killed in 0usize..60,
    ) {
        let names: Vec<String> = (0..rules.len()).map(|index| format!("r{index}")).collect();
        let text: String = rules.iter().zip(&names).map(|(rule, name)| rule.alert(name)).collect();
        let journey = Journey::new(rows, batch);
        let killed = killed % (journey.batches.len() + 1);
        let whole = journey.feed(&mut Engine::new(load(&text).rules).unwrap(), 0);
        let found = journey.feed_with_restart(&text, killed, |_, batch| batch.clone());
        for name in &names {
            let (found, expected) = (found.get(name).cloned(), whole.get(name).cloned());
            prop_assert!(same(&found.unwrap_or_default(), &expected.unwrap_or_default()), "{name} after {killed}");
        }
    }

    #[test]
    fn a_change_of_rules_is_as_if_they_had_always_been_there(
        before in prop::collection::vec(written(), 1..4),
        after in prop::collection::vec(written(), 1..4),
        kept in 0usize..4,
        rows in rows(true),
        batch in 1usize..20,
        changed in 0usize..60,
        lasts in 0usize..5,
    ) {
        // Some rules stay, some are edited (the same name, another text), some come and some go.
        let named = |rules: &[Written], from: usize| -> Vec<String> {
            rules.iter().enumerate().map(|(index, rule)| rule.alert(&format!("r{}", index + from))).collect()
        };
        let first = named(&before, 0);
        let mut then: Vec<String> = first.iter().take(kept).cloned().collect();
        then.extend(named(&after, kept.min(before.len().saturating_sub(1)).max(then.len())));
        let (load_first, load_then) = (load(&first.concat()).rules, || load(&then.concat()).rules);
        let journey = Journey::new(rows, batch);
        let changed = changed % (journey.batches.len() + 1);
        let end = (changed + lasts).min(journey.batches.len());
        let mut engine = Engine::new(load_first).unwrap();
        let mut said = journey.ends(&mut engine, 0, changed);
        engine.begin_change(load_then(), &BTreeMap::new()).unwrap();
        // What runs goes on while the new rules read what they need.
        said.extend(journey.ends(&mut engine, changed, end));
        let mut nobody = Everything { evaluations: vec![], until: Timestamp::MIN };
        for batch in &journey.batches[..end] {
            engine.prefill("gpu", batch, &mut nobody).unwrap();
        }
        prop_assert!(nobody.evaluations.is_empty());
        let names: Vec<String> = load_then().into_iter().map(|rule| rule.rule.name).collect();
        engine.commit_change(&|name| names.iter().any(|known| known == name), &BTreeMap::new(), &mut |_| vec![]);
        prop_assert!(!engine.is_changing());
        let stood: BTreeMap<String, Timestamp> = engine.positions().map(|(rule, ts)| (rule.to_string(), ts)).collect();
        let found = journey.feed(&mut engine, end);
        let mut always = Engine::new(load_then()).unwrap();
        let mut expected = journey.feed(&mut always, 0);
        for name in &names {
            // One that stayed goes on after what it said last: rows that came late may have made its first window an earlier one.
            let stayed = first.iter().any(|rule| rule.starts_with(&format!("CREATE ALERT {name} ")) && then.contains(rule));
            let placed = if stayed { said.get(name) } else { stood.get(name) };
            let since = placed.copied().unwrap_or(Timestamp::MIN);
            let mut expected = expected.remove(name).unwrap_or_default();
            expected.retain(|(end, _), _| *end > since);
            let found = found.get(name).cloned().unwrap_or_default();
            prop_assert!(same(&found, &expected), "{name} since {since} after {changed}..{end} of {}: {first:?} then {then:?}: {found:?}, expected {expected:?}", journey.batches.len());
        }
        prop_assert!(found.keys().all(|rule| names.contains(rule)), "what was dropped is silent");
    }
}
