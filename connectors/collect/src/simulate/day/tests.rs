//! A day is the same for the same options, covers what rules read, and its faults are as told.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;

use super::*;

fn options(gpus: usize, interval: i64, hours: i64, faults: usize) -> DayOptions {
    DayOptions {
        gpus,
        interval: Span::seconds(interval),
        duration: Span::hours(hours),
        start: Timestamp::from_seconds(1_793_491_200),
        seed: 1,
        faults,
    }
}

fn counted(options: DayOptions) -> BTreeMap<&'static str, usize> {
    let mut day = Day::new(options).unwrap();
    let mut rows = BTreeMap::new();
    while let Some(tick) = day.next_tick() {
        for (table, batch) in tick.unwrap().batches {
            *rows.entry(table).or_default() += batch.num_rows();
        }
    }
    rows
}

#[test]
fn a_day_has_rows_of_every_table_that_the_bundled_rules_read() {
    let rows = counted(options(128, 10, 8, 0));
    let tables = [
        "cgroup",
        "collector",
        "data_job",
        "disk",
        "gpu",
        "gpu_event",
        "gpu_process",
        "host",
        "ib",
        "job_event",
        "kernel_event",
        "memory_controller",
        "metrics",
        "net",
        "pcie",
        "process",
        "serve",
        "serve_histogram",
        "train_step",
    ];
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), tables);
    // Some are missing: gaps, restarts and reboots.
    let all = 128 * 8 * 360;
    assert!(rows["gpu"] < all && rows["gpu"] > all * 99 / 100, "{rows:?}");
}

#[test]
fn the_same_options_give_the_same_rows() {
    let [mut one, mut two] = [(); 2].map(|()| Day::new(options(64, 10, 8, 8)).unwrap());
    while let Some(tick) = one.next_tick() {
        assert_eq!(tick.unwrap().batches, two.next_tick().unwrap().unwrap().batches);
    }
    assert!(two.next_tick().is_none());
}

#[test]
fn a_group_has_no_more_than_its_limit_and_fills_it_with_caches() {
    let mut day = Day::new(options(64, 10, 2, 0)).unwrap();
    let mut at_limit = 0;
    while let Some(tick) = day.next_tick() {
        for (_, batch) in tick.unwrap().batches.iter().filter(|(table, _)| *table == "cgroup") {
            let column = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>();
            let [all, used, limit] = ["memory_bytes", "memory_used_bytes", "memory_limit_bytes"].map(column);
            let [periods, throttled] = ["cpu_periods_total", "throttled_periods_total"].map(column);
            for row in 0..batch.num_rows() {
                assert!(used.value(row) <= all.value(row) && throttled.value(row) <= periods.value(row));
                assert!(limit.is_null(row) || all.value(row) <= limit.value(row));
                at_limit += usize::from(limit.is_valid(row) && all.value(row) + 1 >= limit.value(row));
            }
        }
    }
    assert!(at_limit > 1_000, "{at_limit}");
}

#[test]
fn faults_are_as_many_as_asked_for_and_each_names_what_must_find_it() {
    let day = Day::new(options(1_000, 10, 24, 200)).unwrap();
    let truth = day.truth();
    assert_eq!(truth.len(), 200);
    let kinds: std::collections::BTreeSet<&str> = truth.iter().map(|fault| fault.kind.as_str()).collect();
    assert_eq!(kinds.len(), 27);
    assert!(truth.iter().all(|fault| !fault.must.is_empty() && !fault.labels.is_empty() && fault.start < fault.end));
    let healthy = Day::new(options(1_000, 10, 24, 0)).unwrap();
    assert!(healthy.truth().is_empty());
}

#[test]
fn options_out_of_range_are_named() {
    let wrong = |options: DayOptions| Day::new(options).unwrap_err().to_string();
    assert_eq!(wrong(options(60, 10, 8, 0)), "the number of GPUs is 60: expected 64 to 100000, eight to a machine");
    assert_eq!(wrong(options(64, 3, 8, 0)), "the interval is 3s: expected 1s, 2s, 5s or 10s");
    assert_eq!(wrong(options(64, 1, 7, 3)), "the duration is 7h: expected at least 8h with faults");
}
