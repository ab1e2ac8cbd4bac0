//! NVLinks and the fabric.

use super::*;

/// What a GPU of Blackwell says of its links and one of Hopper does not.
const NVLINK_5: [u32; 10] = [202, 204, 208, 211, 212, 213, 214, 219, 220, 221];

fn blackwell() -> Scenario {
    let mut scenario = scenario(1, vec![]);
    let values = &mut scenario.gpus[0].values;
    values.insert("nvlinks".to_string(), 3.0);
    values.insert("nvlinks_active".to_string(), 3.0);
    values.extend(NVLINK_5.map(|field| (format!("field.{field}"), 10.0)));
    values.insert("field.220".to_string(), f64::from(0x30F));
    values.insert("field.220.1".to_string(), f64::from(0x20C));
    values.insert("field.211.2".to_string(), 5.0);
    for older in ["field.38", "field.45", "field.52", "field.59"] {
        scenario.gpus[0].fail.insert(older.to_string(), "NOT_SUPPORTED".to_string());
    }
    scenario
}

fn cells<const N: usize>(row: &GpuRow, columns: [&str; N]) -> [Cell; N] {
    columns.map(|column| cell(row, column))
}

#[test]
fn counters_of_links_are_summed_and_the_worst_ratio_is_told() {
    let mut machine = Machine::start(&blackwell());
    let rows = machine.tick(0);
    let found = cells(
        &rows[0],
        [
            "nvlink_tx_bytes_total",
            "nvlink_rx_bytes_total",
            "nvlink_integrity_errors_total",
            "nvlink_recoveries_total",
            "nvlink_recoveries_failed_total",
            "nvlink_symbol_errors_total",
            "nvlink_crc_errors_total",
        ],
    );
    assert_eq!(found, [30.into(), 30.into(), 25.into(), 30.into(), 30.into(), 30.into(), Cell::Null]);
    match cell(&rows[0], "nvlink_bit_error_ratio") {
        Cell::Float(ratio) => assert!((ratio / 2e-12 - 1.0).abs() < 1e-9, "{ratio}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(cell(&machine.tick(1)[0], "nvlink_tx_bytes_total"), Cell::Null, "a slow column");
}

/// A sum that went back would count as a reset, and what remains as new errors.
#[test]
fn a_link_that_does_not_tell_counts_as_it_last_told() {
    let mut scenario = blackwell();
    let fail: BTreeMap<String, String> =
        NVLINK_5.iter().map(|field| (format!("field.{field}.1"), "NOT_SUPPORTED".to_string())).collect();
    scenario.steps = vec![
        Step { fail, set: [("field.208".to_string(), 12.0)].into(), ..step(20, 0) },
        Step { fail: [("field.208.1".to_string(), String::new())].into(), ..step(50, 0) },
    ];
    let mut machine = Machine::start(&scenario);
    let mut at = |second: i64| cell(&machine.tick(second)[0], "nvlink_receive_errors_total");
    assert_eq!([at(0), at(30), at(60)], [30.into(), 34.into(), 36.into()]);
}

#[test]
fn a_gpu_before_nvlink_5_has_bytes_of_all_links_and_is_asked_for_the_rest_once() {
    let mut machine = Machine::start(&scenario(1, vec![]));
    machine.tick(0);
    let rows = machine.tick(30);
    let found = cells(&rows[0], ["nvlink_tx_bytes_total", "nvlink_rx_bytes_total", "nvlink_symbol_errors_total"]);
    let bytes = 30_000_000 * 1_024;
    assert_eq!(found, [bytes.into(), bytes.into(), Cell::Null]);
    assert_eq!(
        cells(&rows[0], ["fabric_state", "fabric_health", "fabric_degraded"]),
        [3.into(), 426.into(), false.into()]
    );
    // Fast fields, slow ones, links, bytes of all links in two calls; without those of links the second time; and the bytes over
    // PCIe, while GPM has no second sample.
    let first = machine.control.calls(0, "nvmlDeviceGetFieldValues").unwrap();
    machine.tick(60);
    let second = machine.control.calls(0, "nvmlDeviceGetFieldValues").unwrap() - first;
    assert!((4..=5).contains(&second), "{first}, {second}");
}

#[test]
fn a_fabric_that_is_degraded_says_so() {
    let mut scenario = scenario(2, vec![]);
    scenario.gpus[0].values.insert("fabric_health".to_string(), f64::from(0x1A9));
    scenario.gpus[1].values.insert("fabric_health".to_string(), 0.0);
    let mut machine = Machine::start(&scenario);
    let rows = machine.tick(0);
    assert_eq!(cells(&rows[0], ["fabric_health", "fabric_degraded"]), [425.into(), true.into()]);
    assert_eq!(cells(&rows[1], ["fabric_health", "fabric_degraded"]), [0.into(), Cell::Null], "it says nothing");
}
