//! Cleaning by example and by property.
#![allow(clippy::unwrap_used)]

use arrow::array::{StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::compute::concat_batches;
use proptest::prelude::*;
use tidewatch_model::limits::{CLEAN_ROWS, CLEAN_SERIES};
use tidewatch_model::table;

use super::*;

/// Time in seconds, host, temperature, power, replays.
type Row = (i64, &'static str, Option<f64>, Option<f64>, Option<i64>);

fn gpu() -> &'static Table {
    table::find("gpu").unwrap()
}

/// Rows of `gpu`; `gpu_index` numbers them.
fn batch(rows: &[Row]) -> RecordBatch {
    let schema = gpu().schema();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "ts" => {
                let times = rows.iter().map(|row| row.0 * 1_000_000);
                Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
            }
            "host" => Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1))),
            "temperature_celsius" => Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>()),
            "power_watts" => Arc::new(rows.iter().map(|row| row.3).collect::<Float64Array>()),
            "pcie_replays_total" => Arc::new(rows.iter().map(|row| row.4).collect::<Int64Array>()),
            "gpu_index" => Arc::new((0..rows.len() as i64).map(Some).collect::<Int64Array>()),
            _ => new_null_array(field.data_type(), rows.len()),
        }
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

fn rule(column: &str) -> ColumnRule {
    ColumnRule::new(gpu().column(column).unwrap(), None)
}

fn rules(columns: Vec<ColumnRule>, duplicates: bool) -> Rules {
    let mut rules = Rules { duplicates, ..Rules::of(gpu()) };
    columns.into_iter().for_each(|column| rules.set(column));
    rules
}

/// The values of a column, NULL as `None`.
fn column(rows: &RecordBatch, name: &str) -> Vec<Option<f64>> {
    numbers(rows.column_by_name(name).unwrap())
}

fn clean(cleaner: &mut Cleaner, rows: &[Row]) -> (RecordBatch, Vec<Refused>, Cleaned) {
    let mut cleaned = Cleaned::new();
    let (good, refused) = cleaner.clean(batch(rows), &mut cleaned).unwrap();
    cleaner.keep();
    (good, refused, cleaned)
}

#[test]
fn what_the_units_make_impossible_is_null_without_any_rule() {
    let mut cleaner = Cleaner::new(gpu(), Rules::of(gpu()));
    let rows = [
        (0, "a", Some(200.0), Some(f64::INFINITY), Some(-1)),
        (1, "a", Some(f64::NAN), Some(-5.0), Some(0)),
        (2, "a", Some(149.0), None, Some(7)),
    ];
    let (good, refused, cleaned) = clean(&mut cleaner, &rows);
    assert_eq!(column(&good, "temperature_celsius"), [None, None, Some(149.0)]);
    // What a watt can't be nobody knows but who bought the machine.
    assert_eq!(column(&good, "power_watts"), [None, Some(-5.0), None]);
    assert_eq!(column(&good, "pcie_replays_total"), [None, Some(0.0), Some(7.0)]);
    assert!(refused.is_empty());
    let counted: Vec<_> = cleaned.into_iter().collect();
    assert_eq!(
        counted,
        [
            (("pcie_replays_total", RANGE), 1),
            (("power_watts", INFINITE), 1),
            (("temperature_celsius", NAN), 1),
            (("temperature_celsius", RANGE), 1)
        ]
    );
}

#[test]
fn losses_are_data_and_what_the_engine_wrote_is_not_judged() {
    let steps = Rules::of(table::find("train_step").unwrap());
    assert!(steps.columns.iter().all(|rule| rule.column != "loss"));
    assert_eq!(Rules::of(table::find("alert_event").unwrap()), Rules::default());
}

#[test]
fn a_bucket_up_to_infinity_is_one() {
    let histogram = table::find("serve_histogram").unwrap();
    let schema = histogram.schema();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "ts" => Arc::new(TimestampMicrosecondArray::from(vec![1, 1]).with_timezone("UTC")),
            "le" => Arc::new(Float64Array::from(vec![f64::INFINITY, f64::NAN])),
            _ => new_null_array(field.data_type(), 2),
        }
    });
    let rows = RecordBatch::try_new(schema.clone(), columns.collect()).unwrap();
    let mut cleaned = Cleaned::new();
    let (good, _) = Cleaner::new(histogram, Rules::of(histogram)).clean(rows, &mut cleaned).unwrap();
    assert_eq!(column(&good, "le"), [Some(f64::INFINITY), None]);
    assert_eq!(cleaned.into_iter().collect::<Vec<_>>(), [(("le", NAN), 1)]);
}

#[test]
fn a_spike_is_taken_out_and_a_level_that_stays_is_believed() {
    let power = ColumnRule { jump: Some(100.0), ..rule("power_watts") };
    let mut cleaner = Cleaner::new(gpu(), rules(vec![power.clone()], false));
    let rows = |powers: &[f64]| -> Vec<Row> {
        powers.iter().zip(0..).map(|(power, ts)| (ts, "a", None, Some(*power), None)).collect()
    };
    let (good, _, cleaned) = clean(&mut cleaner, &rows(&[300.0, 9_000.0, 310.0, 700.0, 700.0, 700.0, 700.0]));
    assert_eq!(
        column(&good, "power_watts"),
        [Some(300.0), None, Some(310.0), None, None, None, Some(700.0)],
        "after 4 seconds 400 watts more are possible"
    );
    assert_eq!(cleaned[&("power_watts", JUMP)], 4);

    let clamped = ColumnRule { action: Action::Clamp, ..power.clone() };
    let mut cleaner = Cleaner::new(gpu(), rules(vec![clamped], false));
    let (good, _, _) = clean(&mut cleaner, &rows(&[300.0, 700.0, 0.0]));
    assert_eq!(column(&good, "power_watts"), [Some(300.0), Some(400.0), Some(300.0)]);

    let dropped = ColumnRule { action: Action::Drop, ..power };
    let mut cleaner = Cleaner::new(gpu(), rules(vec![dropped], false));
    let (good, refused, cleaned) = clean(&mut cleaner, &rows(&[300.0, 9_000.0, 310.0]));
    assert_eq!(column(&good, "power_watts"), [Some(300.0), Some(310.0)]);
    assert_eq!((refused[0].column, refused[0].reason), ("power_watts", JUMP));
    assert_eq!(column(&refused[0].rows, "power_watts"), [Some(9_000.0)]);
    assert!(cleaned.is_empty());
}

#[test]
fn counters_that_are_whole_stay_whole() {
    let mut replays = rule("pcie_replays_total");
    replays.range = Some(Range { least: 0.5, most: 10.5 });
    replays.action = Action::Clamp;
    let mut cleaner = Cleaner::new(gpu(), rules(vec![replays.clone()], false));
    let rows = [(0, "a", None, None, Some(-3)), (1, "a", None, None, Some(99))];
    assert_eq!(column(&clean(&mut cleaner, &rows).0, "pcie_replays_total"), [Some(1.0), Some(10.0)]);
    let kibi = ColumnRule { unit: Some(Unit::Kibi), ..replays };
    let mut cleaner =
        Cleaner::new(gpu(), Rules { columns: vec![ColumnRule { range: None, ..kibi }], duplicates: false });
    let rows = [(0, "a", None, None, Some(3)), (1, "a", None, None, Some(i64::MAX))];
    let (good, _, cleaned) = clean(&mut cleaner, &rows);
    assert_eq!(
        good.column_by_name("pcie_replays_total").unwrap().as_primitive::<Int64Type>().values()[..],
        [3_072, i64::MAX]
    );
    assert_eq!(cleaned[&("pcie_replays_total", UNIT)], 2);
}

#[test]
fn units_come_before_ranges() {
    let celsius = ColumnRule { unit: Some(Unit::Fahrenheit), ..rule("temperature_celsius") };
    let mut cleaner = Cleaner::new(gpu(), rules(vec![celsius], false));
    // 185 degrees Fahrenheit are 85; as Celsius they would be impossible.
    let (good, _, cleaned) =
        clean(&mut cleaner, &[(0, "a", Some(185.0), None, None), (1, "a", Some(999.0), None, None)]);
    assert_eq!(column(&good, "temperature_celsius"), [Some(85.0), None]);
    assert_eq!(cleaned[&("temperature_celsius", UNIT)], 2);
    assert_eq!(cleaned[&("temperature_celsius", RANGE)], 1);
    for (name, unit) in Unit::ALL {
        let fits: Vec<&str> =
            gpu().columns.iter().filter(|column| unit.fits(column)).map(|column| column.name).collect();
        assert!(!fits.is_empty() && !fits.contains(&"host"), "{name}");
        assert_eq!(fits.contains(&"utilization_ratio"), !["fahrenheit", "kelvin"].contains(&name), "{name}");
    }
}

/// Rows that all have another number in `gpu_index` are no copies: these have none.
fn copies(rows: &[Row]) -> RecordBatch {
    let batch = batch(rows);
    let place = batch.schema().index_of("gpu_index").unwrap();
    let mut columns = batch.columns().to_vec();
    columns[place] = new_null_array(&DataType::Int64, rows.len());
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

#[test]
fn copies_are_refused_where_they_are_known() {
    let mut cleaner = Cleaner::new(gpu(), rules(vec![], true));
    let row = |ts: i64| (ts, "a", Some(40.0), None, None);
    let (good, refused) = cleaner
        .clean(
            copies(&[row(0), row(0), (0, "b", Some(40.0), None, None), (0, "a", Some(41.0), None, None), row(0)]),
            &mut Cleaned::new(),
        )
        .unwrap();
    cleaner.keep();
    assert_eq!((good.num_rows(), refused[0].rows.num_rows(), refused[0].reason), (3, 2, DUPLICATE));
    // Beyond so many rows a copy is a row.
    let later: Vec<Row> = (1..=CLEAN_ROWS as i64).map(row).chain([row(0), row(CLEAN_ROWS as i64)]).collect();
    let (good, refused) = cleaner.clean(copies(&later), &mut Cleaned::new()).unwrap();
    assert_eq!((good.num_rows(), refused[0].rows.num_rows()), (CLEAN_ROWS + 1, 1));
}

#[test]
fn what_is_not_kept_was_never_seen() {
    let mut cleaner = Cleaner::new(gpu(), rules(vec![], true));
    let rows = copies(&[(0, "a", Some(40.0), None, None)]);
    for _ in 0..2 {
        // The lake did not take it: it is tried again, and is no copy of itself.
        assert_eq!(cleaner.clean(rows.clone(), &mut Cleaned::new()).unwrap().0.num_rows(), 1);
    }
    cleaner.keep();
    assert_eq!(cleaner.clean(rows, &mut Cleaned::new()).unwrap().0.num_rows(), 0);
}

#[test]
fn memory_is_bounded() {
    let mut memory = Memory::default();
    for series in 0..3 * CLEAN_SERIES as u128 {
        assert!(memory.series(series, 0).see(series));
        // The first is seen again and again.
        memory.series(0, 0).see(series + 1);
        memory.keep();
    }
    assert!(memory.len() <= 2 * CLEAN_SERIES, "{}", memory.len());
    assert!(!memory.series(0, 0).see(3 * CLEAN_SERIES as u128), "it is known");
    assert!(memory.series(1, 0).see(1), "it is forgotten");
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let number = || {
        let special = prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1e300]);
        prop::option::weighted(0.9, prop_oneof![6 => -100.0..300.0f64, 1 => special])
    };
    let count = prop::option::weighted(0.9, prop_oneof![-50..200i64, Just(i64::MIN), Just(i64::MAX)]);
    let row = (0..30i64, prop::sample::select(vec!["a", "b"]), number(), number(), count);
    prop::collection::vec(row, 1..40)
}

fn column_rule(column: &'static str, with_units: bool) -> impl Strategy<Value = ColumnRule> {
    let bounds = prop_oneof![
        (-50.0..50.0f64, 0.0..200.0f64).prop_map(|(least, width)| Range { least, most: least + width }),
        Just(Range { least: f64::NEG_INFINITY, most: 100.25 }),
        Just(Range { least: 0.5, most: f64::INFINITY }),
    ];
    let action = prop::sample::select(vec![Action::Null, Action::Clamp, Action::Drop]);
    let unit = prop::option::of(Just(Unit::Kilo)).prop_map(move |unit| unit.filter(|_| with_units));
    (prop::option::of(bounds), prop::option::of(0.5..80.0f64), action, unit)
        .prop_map(move |(range, jump, action, unit)| ColumnRule { range, jump, action, unit, ..rule(column) })
}

fn some_rules(with_units: bool) -> impl Strategy<Value = Vec<ColumnRule>> {
    (
        column_rule("temperature_celsius", with_units),
        column_rule("power_watts", with_units),
        column_rule("pcie_replays_total", with_units),
    )
        .prop_map(|(temperature, power, replays)| vec![temperature, power, replays])
}

const JUDGED: [&str; 3] = ["temperature_celsius", "power_watts", "pcie_replays_total"];

/// The same bits.
fn is_same(left: Option<f64>, right: Option<f64>) -> bool {
    left.map(f64::to_bits) == right.map(f64::to_bits)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_row_is_lost_and_no_change_is_uncounted(rows in rows(), columns in some_rules(true), duplicates in any::<bool>()) {
        let came = batch(&rows);
        let only_null = columns.iter().all(|rule| rule.action == Action::Null && rule.unit.is_none());
        let mut cleaner = Cleaner::new(gpu(), rules(columns, duplicates));
        let (good, refused, cleaned) = clean(&mut cleaner, &rows);
        let of_refused: usize = refused.iter().map(|part| part.rows.num_rows()).sum();
        prop_assert_eq!(good.num_rows() + of_refused, rows.len());
        for part in &refused {
            prop_assert!([RANGE, JUMP, DUPLICATE].contains(&part.reason));
            for (index, number) in column(&part.rows, "gpu_index").into_iter().enumerate() {
                let whole = came.slice(number.unwrap() as usize, 1);
                for name in JUDGED {
                    prop_assert!(is_same(column(&part.rows, name)[index], column(&whole, name)[0]), "as it came");
                }
            }
        }
        let numbers = column(&good, "gpu_index");
        for name in JUDGED {
            let (before, after) = (column(&came, name), column(&good, name));
            let changed = numbers.iter().zip(&after).filter(|(number, after)| !is_same(before[number.unwrap() as usize], **after)).count();
            let counted: u64 = cleaned.iter().filter(|((column, _), _)| *column == name).map(|(_, count)| count).sum();
            prop_assert!(changed as u64 <= counted, "{name}: {changed} changed, {counted} counted");
            prop_assert!(!only_null || changed as u64 == counted, "{name}: {changed} changed, {counted} counted");
        }
    }

    #[test]
    fn what_was_cleaned_is_clean(rows in rows(), columns in some_rules(false)) {
        let rules = rules(columns, false);
        let (good, _, _) = clean(&mut Cleaner::new(gpu(), rules.clone()), &rows);
        let mut cleaned = Cleaned::new();
        let (again, refused) = Cleaner::new(gpu(), rules).clean(good.clone(), &mut cleaned).unwrap();
        prop_assert_eq!(&again, &good);
        prop_assert!(refused.is_empty() && cleaned.is_empty(), "{refused:?} {cleaned:?}");
    }

    #[test]
    fn how_rows_are_cut_changes_nothing(
        rows in rows(), columns in some_rules(true), duplicates in any::<bool>(), size in 1usize..10, retried in any::<bool>(),
    ) {
        let rules = rules(columns, duplicates);
        let whole = copies(&rows);
        let mut at_once = Cleaned::new();
        let (expected, refused) = Cleaner::new(gpu(), rules.clone()).clean(whole.clone(), &mut at_once).unwrap();
        let mut cleaner = Cleaner::new(gpu(), rules);
        let (mut parts, mut lost, mut in_parts) = (vec![], 0, Cleaned::new());
        for first in (0..rows.len()).step_by(size) {
            let part = whole.slice(first, size.min(rows.len() - first));
            if retried {
                cleaner.clean(part.clone(), &mut Cleaned::new()).unwrap();
            }
            let (good, refused) = cleaner.clean(part, &mut in_parts).unwrap();
            cleaner.keep();
            parts.push(good);
            lost += refused.iter().map(|part| part.rows.num_rows()).sum::<usize>();
        }
        prop_assert_eq!(concat_batches(&whole.schema(), &parts).unwrap(), expected);
        prop_assert_eq!(lost, refused.iter().map(|part| part.rows.num_rows()).sum::<usize>());
        prop_assert_eq!(in_parts, at_once);
    }

    #[test]
    fn copies_are_found_at_once(rows in rows()) {
        // What becomes NULL may make two rows the same; they were two, and stay so.
        let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
        let rows: Vec<Row> = rows.into_iter().map(|row| (row.0, row.1, finite(row.2), finite(row.3), row.4)).collect();
        let rules = Rules { columns: vec![], duplicates: true };
        let (good, _) = Cleaner::new(gpu(), rules.clone()).clean(copies(&rows), &mut Cleaned::new()).unwrap();
        let (again, refused) = Cleaner::new(gpu(), rules).clean(good.clone(), &mut Cleaned::new()).unwrap();
        prop_assert_eq!(again, good);
        prop_assert!(refused.is_empty());
    }
}
