//! The fleet is the same for the same seed, holds what its truth says, and stays within what is possible.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use arrow::array::{Array, AsArray, Float64Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, Int64Type};

use super::*;

fn options(gpus: usize, minutes: i64) -> FleetOptions {
    FleetOptions {
        gpus,
        gpus_per_host: 8,
        interval: Span::seconds(1),
        duration: Span::minutes(minutes),
        start: Timestamp::from_seconds(1_767_225_600),
        seed: 7,
        noise: Noise::Low,
        incidents: None,
    }
}

fn all(options: FleetOptions) -> (Fleet, BTreeMap<&'static str, RecordBatch>) {
    let mut fleet = Fleet::new(options).unwrap();
    let mut batches: BTreeMap<&'static str, Vec<RecordBatch>> = Default::default();
    while let Some(tick) = fleet.next_tick() {
        for (table, batch) in tick.batches {
            batches.entry(table).or_default().push(batch);
        }
    }
    let whole = batches
        .into_iter()
        .map(|(table, parts)| (table, concat_batches(&parts[0].schema(), &parts).unwrap()))
        .collect();
    (fleet, whole)
}

fn floats<'a>(rows: &'a RecordBatch, name: &str) -> &'a Float64Array {
    rows.column_by_name(name).unwrap().as_primitive::<Float64Type>()
}

#[test]
fn the_same_seed_gives_the_same_rows() {
    let small = || FleetOptions { noise: Noise::High, ..options(8, 12) };
    let (_, first) = all(small());
    assert_eq!(first, all(small()).1);
    assert_ne!(first, all(FleetOptions { seed: 8, ..small() }).1);
}

#[test]
fn every_kind_is_there_and_visible() {
    let (fleet, rows) = all(options(64, 60));
    let truth = fleet.truth();
    let kinds: Vec<Kind> = truth.iter().map(|truth| truth.kind).collect();
    assert_eq!(kinds, Kind::ALL);
    let gpu = &rows["gpu"];
    let lost = (5 * 60 + 75 * 8) as usize;
    assert_eq!(gpu.num_rows(), 64 * 3600 - lost, "one row per GPU and tick, but the lost GPU's and the silent host's");
    let temperatures = floats(gpu, "temperature_celsius");
    let hot = temperatures.values().iter().filter(|value| **value > 90.0).count();
    assert!(hot > 150, "{hot} samples over 90 degrees");
    assert_eq!(temperatures.values().iter().filter(|value| **value == 110.0).count(), 1);
    let events =
        rows["gpu_event"].column_by_name("kind").unwrap().as_string::<i32>().iter().flatten().collect::<Vec<_>>();
    assert_eq!(events, ["xid", "xid", "lost", "recovered"]);
    let throttled = gpu
        .column_by_name("throttle_power_ns_total")
        .unwrap()
        .as_primitive::<Int64Type>()
        .values()
        .iter()
        .max()
        .copied()
        .unwrap();
    assert_eq!(throttled, 270_000_000_000);
    assert!(rows["train_step"].num_rows() > 2_000 && rows["job_event"].num_rows() > 20);
}

#[test]
fn values_are_possible() {
    let (_, rows) = all(options(16, 40));
    let gpu = &rows["gpu"];
    for (column, least, most) in [
        ("utilization_ratio", 0.0, 1.0),
        ("tensor_active_ratio", 0.0, 1.0),
        ("temperature_celsius", 20.0, 120.0),
        ("power_watts", 50.0, 710.0),
        ("sm_clock_mhz", 1_000.0, 1_995.0),
    ] {
        let values = floats(gpu, column);
        assert!(values.values().iter().all(|value| (least..=most).contains(value)), "{column}");
    }
    let slow = floats(gpu, "power_limit_watts");
    assert_eq!(slow.len() - slow.null_count(), gpu.num_rows() / 30);
}

#[test]
fn incidents_of_one_gpu_do_not_overlap() {
    for (gpus, minutes) in [(8, 60), (16, 120), (64, 60), (200, 30)] {
        let fleet = Fleet::new(options(gpus, minutes)).unwrap();
        for (index, left) in fleet.incidents.iter().enumerate() {
            for right in &fleet.incidents[index + 1..] {
                let same = left.gpu == right.gpu
                    || ((left.kind.of_job() || right.kind.of_job())
                        && fleet.job_of(left.gpu) == fleet.job_of(right.gpu));
                let apart = left.at + left.duration < right.at || right.at + right.duration < left.at;
                assert!(!same || apart, "{gpus} GPUs: {left:?} {right:?}");
            }
        }
    }
}

#[test]
fn what_can_not_be_is_refused() {
    let wrong = |options: FleetOptions| Fleet::new(options).err().unwrap().to_string();
    assert_eq!(wrong(options(0, 1)), "the number of GPUs is 0: expected 1 to 1000000");
    let far = Incident { kind: Kind::Xid, at: Span::ZERO, duration: Span::ZERO, gpu: 8, code: Some(79) };
    assert_eq!(
        wrong(FleetOptions { incidents: Some(vec![far.clone()]), ..options(8, 1) }),
        "incidents: GPU 8 of Xid: expected 0 to 7"
    );
    let text = serde_json::to_string(std::slice::from_ref(&far)).unwrap();
    assert_eq!(incidents_from_json(&text).unwrap(), [far]);
    assert!(incidents_from_json("[{\"kind\": \"flood\"}]").unwrap_err().to_string().contains("line 1 column 17"));
}
