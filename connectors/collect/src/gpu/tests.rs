#![allow(clippy::unwrap_used)]

mod links;
mod processes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tempfile::TempDir;
use tidewatch_model::{Span, Timestamp};
use tidewatch_nvml_stub::{CALLS, Control, ERRORS, Gpu, Scenario, Step};

use super::fleet::{Fleet, GpuEvent, GpuRow, KernelXid, Requests};
use crate::reading::Roots;
use crate::rows::Cell;

/// A machine whose NVML is the stub, on a clock that the test moves.
struct Machine {
    folder: TempDir,
    control: Control,
    requests: Arc<Requests>,
    fleet: Fleet,
    events: Vec<GpuEvent>,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_seconds(1_800_000_000 + second)
}

fn uuid(gpu: usize) -> String {
    format!("GPU-{gpu}")
}

fn gpu(place: usize) -> Gpu {
    Gpu { uuid: uuid(place), pci: format!("0000:{place:02x}:00.0"), ..Gpu::default() }
}

fn scenario(gpus: usize, steps: Vec<Step>) -> Scenario {
    Scenario { driver: "590.48.01".to_string(), init: None, gpus: (0..gpus).map(gpu).collect(), steps }
}

fn step(second: u64, gpu: usize) -> Step {
    Step { at_ms: second * 1_000, gpu, ..Step::default() }
}

impl Machine {
    fn start(scenario: &Scenario) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots::recorded(folder.path());
        let control = Control::start(folder.path(), scenario).unwrap();
        let requests = Arc::new(Requests::default());
        let fleet = Fleet::new(roots, Some(control.path().into()), requests.clone());
        let fleet = fleet.with_patience(Duration::from_secs(1));
        let machine = Machine { folder, control, requests, fleet, events: vec![] };
        for gpu in &scenario.gpus {
            machine.plug(&gpu.pci);
        }
        machine
    }

    fn plug(&self, pci: &str) {
        let device = self.folder.path().join("sys/bus/pci/devices").join(pci);
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("vendor"), "0x10de\n").unwrap();
        fs::write(device.join("class"), "0x030200\n").unwrap();
    }

    fn unplug(&self, pci: &str) {
        fs::remove_dir_all(self.folder.path().join("sys/bus/pci/devices").join(pci)).unwrap();
    }

    /// One tick at a second of both clocks; the rows that it gave.
    fn tick(&mut self, second: i64) -> Vec<GpuRow> {
        self.control.clock(second as u64 * 1_000).unwrap();
        self.fleet.tick(at(second));
        self.events.extend(self.fleet.take_events());
        self.fleet.take_rows()
    }

    /// Ticks through a span of seconds; for each GPU the seconds whose tick gave a row of that second.
    fn run(&mut self, seconds: std::ops::Range<i64>) -> BTreeMap<String, BTreeSet<i64>> {
        let mut seen: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
        for second in seconds {
            for row in self.tick(second).into_iter().filter(|row| row.ts == at(second)) {
                seen.entry(row.gpu.uuid).or_default().insert(second);
            }
        }
        seen
    }

    /// The same second again until something holds: threads that were let go need real time to be gone.
    fn until(&mut self, second: i64, mut holds: impl FnMut(&mut Machine, &[GpuRow]) -> bool) {
        let begun = Instant::now();
        loop {
            let rows = self.tick(second);
            if holds(self, &rows) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain; {:?}", self.events);
            std::thread::yield_now();
        }
    }

    /// Events as `second kind gpu`.
    fn told(&self) -> Vec<String> {
        let line = |event: &GpuEvent| format!("{} {} {}", (event.ts - at(0)).0 / 1_000_000, event.kind, event.uuid);
        self.events.iter().map(line).collect()
    }
}

fn cell(row: &GpuRow, column: &str) -> Cell {
    row.cells.iter().find(|(name, _)| *name == column).map_or(Cell::Null, |(_, cell)| cell.clone())
}

#[test]
fn a_healthy_gpu_has_every_value() {
    let mut machine = Machine::start(&scenario(1, vec![]));
    machine.tick(0);
    let rows = machine.tick(30);
    assert_eq!((rows.len(), rows[0].gpu.pci.as_str(), rows[0].ts), (1, "0000:00:00.0", at(30)));
    // Samples alternate between 97 and 87 since the last pass.
    let expected: [(&str, Cell); 30] = [
        ("utilization_ratio", 0.92.into()),
        ("utilization_max_ratio", 0.97.into()),
        ("memory_controller_ratio", 0.61.into()),
        ("sm_active_ratio", Cell::Null),
        ("memory_used_bytes", 76_000_000_000.into()),
        ("memory_total_bytes", 85_520_809_984.into()),
        ("temperature_celsius", 54.0.into()),
        ("memory_temperature_celsius", 61.0.into()),
        ("temperature_slowdown_celsius", 90.0.into()),
        ("power_watts", 510.0.into()),
        ("power_limit_watts", 700.0.into()),
        ("energy_joules_total", (1e6 + 510.0 * 30.0).into()),
        ("sm_clock_mhz", 1_980.0.into()),
        ("memory_clock_mhz", 2_619.0.into()),
        ("fan_ratio", Cell::Null),
        ("performance_state", 0.into()),
        ("throttle_reasons", 0.into()),
        ("throttle_thermal_hw_ns_total", 0.into()),
        ("ecc_uncorrected_volatile_total", 0.into()),
        ("sram_threshold_exceeded", false.into()),
        ("remap_pending", false.into()),
        ("retired_pages_pending", false.into()),
        ("pcie_generation", 5.into()),
        ("pcie_width_max", 16.into()),
        // GPM tells it from the second real second on.
        ("pcie_rx_bytes_total", Cell::Null),
        ("nvlink_links", 18.into()),
        ("nvlink_links_active", 18.into()),
        ("nvlink_crc_errors_total", 0.into()),
        ("fabric_state", 3.into()),
        ("recovery_action", 0.into()),
    ];
    for (column, value) in expected {
        match (cell(&rows[0], column), value) {
            (Cell::Float(found), Cell::Float(wanted)) => assert!((found - wanted).abs() < 1e-9, "{column}: {found}"),
            (found, wanted) => assert_eq!(found, wanted, "{column}"),
        }
    }
    let slow = |rows: &[GpuRow]| cell(&rows[0], "power_limit_watts") != Cell::Null;
    assert!(!slow(&machine.tick(31)) && slow(&machine.tick(60)), "slow columns every 30 s");
    assert_eq!(machine.told(), Vec::<String>::new());
}

#[test]
fn gpm_compares_two_samples() {
    let mut machine = Machine::start(&scenario(1, vec![]));
    machine.until(0, |_, rows| rows.iter().any(|row| cell(row, "sm_active_ratio") == 0.88.into()));
    let row = &machine.tick(1)[..];
    assert!(row.iter().all(|row| cell(row, "utilization_ratio") != Cell::Null));
}

#[test]
fn bytes_over_pcie_go_on_where_the_counter_begins_anew() {
    let mut scenario = scenario(1, vec![]);
    scenario.gpus[0].fail.insert("nvmlGpmQueryDeviceSupport".to_string(), "NOT_SUPPORTED".to_string());
    let mut machine = Machine::start(&scenario);
    let total = |machine: &mut Machine, second| cell(&machine.tick(second)[0], "pcie_rx_bytes_total");
    // 2e9 bytes a second: the counter of 4 GiB begins anew at every third.
    let totals: Vec<Cell> = (0..31).map(|second| total(&mut machine, second)).collect();
    assert_eq!((&totals[0], &totals[30]), (&0.into(), &60_000_000_000_i64.into()));
    let mut with_gpm = Machine::start(&super::tests::scenario(1, vec![]));
    let begun = Instant::now();
    with_gpm.until(0, |_, rows| rows.iter().any(|row| cell(row, "pcie_tx_bytes_total") != Cell::Null));
    let Cell::Int(bytes) = cell(&with_gpm.tick(0)[0], "pcie_tx_bytes_total") else { panic!("no bytes") };
    let most = 2e9 * begun.elapsed().as_secs_f64();
    assert!((1e9 * 0.9..=most).contains(&(bytes as f64)), "{bytes} of {most}");
}

#[test]
fn utilisation_at_the_first_pass_is_that_of_the_last_second() {
    let busy = [("utilization".to_string(), 99.0)].into();
    let mut scenario = scenario(1, vec![Step { set: [("utilization".to_string(), 10.0)].into(), ..step(8, 0) }]);
    scenario.gpus[0].values = busy;
    let mut machine = Machine::start(&scenario);
    let row = &machine.tick(10)[0];
    assert_eq!(cell(row, "utilization_max_ratio"), 0.1.into());
}

/// What examples/gpu_calls.rs recorded: an H100 that idles, multiplies matrices at its power limit, rests, multiplies small
/// ones, rests, and begins again.
#[test]
fn a_recorded_h100_is_read_as_it_was() {
    let recorded: Scenario = serde_json::from_str(include_str!("../../nvml-stub/scenarios/h100.json")).unwrap();
    let mut machine = Machine::start(&recorded);
    let rows: Vec<GpuRow> = (0..60).flat_map(|second| machine.tick(second)).collect();
    assert_eq!((rows.len(), machine.told()), (60, vec![]));
    let column = |name: &str| rows.iter().map(|row| cell(row, name)).collect::<Vec<Cell>>();
    let most = |name: &str| {
        let numbers = column(name).into_iter().filter_map(|cell| match cell {
            Cell::Float(value) => Some(value),
            Cell::Int(value) => Some(value as f64),
            _ => None,
        });
        numbers.fold(f64::MIN, f64::max)
    };
    let found =
        ["temperature_celsius", "memory_temperature_celsius", "power_watts", "sm_clock_mhz", "throttle_reasons"];
    assert_eq!(found.map(most), [68.0, 60.0, 699.304, 1_980.0, 4.0]);
    assert_eq!(most("memory_used_bytes"), 1_194_131_456.0);
    // What an H100 without a fan, retired pages or (in this machine) NVLink has not.
    for absent in ["fan_ratio", "retired_pages_pending", "nvlink_links", "nvlink_crc_errors_total", "mig_uuid"] {
        assert!(column(absent).iter().all(|cell| *cell == Cell::Null), "{absent}");
    }
    // The energy is read every 30 s: 3,334,524 mJ at the beginning.
    let energy: Vec<Cell> = column("energy_joules_total").into_iter().filter(|cell| *cell != Cell::Null).collect();
    assert_eq!((energy.len(), &energy[0]), (2, &3_334.524.into()));
    assert_eq!(machine.control.calls(0, "nvmlDeviceGetFanSpeed_v2").unwrap(), 1);
}

#[test]
fn a_call_that_is_not_supported_is_made_once() {
    let mut machine = Machine::start(&scenario(1, vec![]));
    machine.run(0..5);
    let calls = |machine: &Machine, name: &str| machine.control.calls(0, name).unwrap();
    assert_eq!(calls(&machine, "nvmlDeviceGetFanSpeed_v2"), 1, "a board without fans");
    assert_eq!(calls(&machine, "nvmlDeviceGetTemperature"), 5);
    machine.run(60..62);
    assert_eq!(calls(&machine, "nvmlDeviceGetFanSpeed_v2"), 1);
}

#[test]
fn old_drivers_have_the_first_version_of_memory() {
    let mut scenario = scenario(1, vec![]);
    scenario.gpus[0].fail.insert("nvmlDeviceGetMemoryInfo_v2".to_string(), "FUNCTION_NOT_FOUND".to_string());
    let mut machine = Machine::start(&scenario);
    assert_eq!(cell(&machine.tick(0)[0], "memory_used_bytes"), 76_000_000_000.into());
}

#[test]
fn eight_gpus_of_which_four_fall_ill() {
    let lost = [("*".to_string(), "GPU_IS_LOST".to_string())];
    let well = [("*".to_string(), String::new())];
    let steps = vec![
        Step { set: [("temperature".to_string(), 95.0)].into(), ..step(3, 0) },
        Step { xid: Some(79), ..step(4, 1) },
        Step { fail: lost.into(), ..step(5, 1) },
        Step { fail: well.into(), ..step(20, 1) },
        Step { hang_ms: 60_000, ..step(6, 2) },
        Step { vanish: true, ..step(7, 3) },
    ];
    let mut machine = Machine::start(&scenario(8, steps));
    let mut seen = machine.run(0..7);
    machine.unplug("0000:03:00.0");
    for (uuid, seconds) in machine.run(7..66) {
        seen.entry(uuid).or_default().extend(seconds);
    }
    for gpu in [0, 4, 5, 6, 7] {
        assert_eq!(seen[&uuid(gpu)], (0..66).collect(), "GPU {gpu} has a row at every second");
    }
    assert_eq!(seen[&uuid(1)], (0..5).chain(20..66).collect());
    assert_eq!(seen[&uuid(2)], (0..6).collect());
    assert_eq!(seen[&uuid(3)], (0..7).collect());
    machine.until(66, |_, rows| rows.iter().any(|row| row.gpu.uuid == uuid(2)));
    let mut told = machine.told();
    let xid = told.iter().position(|line| line.contains("xid")).unwrap();
    // Its thread has a clock of its own.
    assert!(told.remove(xid).ends_with(" xid GPU-1"));
    let expected = ["5 lost GPU-1", "7 vanished GPU-3", "11 stuck GPU-2", "20 recovered GPU-1", "66 recovered GPU-2"];
    assert_eq!(told, expected);
    assert_eq!(machine.events.iter().find(|event| event.kind == "xid").unwrap().code, Some(79));
}

#[test]
fn while_a_call_hangs_its_length_is_known() {
    let mut machine = Machine::start(&scenario(2, vec![Step { hang_ms: 30_000, ..step(1, 0) }]));
    machine.run(0..4);
    assert_eq!(machine.fleet.stuck(at(4)), None);
    machine.run(4..21);
    assert_eq!(machine.fleet.stuck(at(21)), Some(Span::seconds(20)));
    machine.until(32, |machine, _| machine.fleet.stuck(at(32)).is_none());
}

#[test]
fn a_driver_that_is_replaced_is_opened_anew() {
    let mut machine = Machine::start(&scenario(2, vec![Step { reload: Some("595.80".to_string()), ..step(5, 0) }]));
    assert_eq!(machine.run(0..6).values().map(BTreeSet::len).collect::<Vec<_>>(), [5, 5]);
    machine.until(9, |machine, rows| machine.events.len() >= 2 && rows.len() == 2);
    let reloads: Vec<&GpuEvent> = machine.events.iter().filter(|event| event.kind == "driver_reload").collect();
    assert_eq!(reloads.len(), machine.events.len());
    assert_eq!(reloads[0].message.as_deref(), Some("driver 595.80 is loaded, after 590.48.01"));
    assert_eq!(machine.tick(10).len(), 2);
}

#[test]
fn a_gpu_that_is_put_in_is_found_and_one_that_comes_back_is_known() {
    let mut machine = Machine::start(&scenario(2, vec![Step { appear: true, ..step(5, 1) }]));
    machine.unplug("0000:01:00.0");
    assert_eq!(machine.run(0..5).len(), 1);
    machine.plug("0000:01:00.0");
    machine.run(5..11);
    machine.until(11, |_, rows| rows.len() == 2);
    assert!(machine.told().iter().any(|line| line.ends_with(" new GPU-1")), "{:?}", machine.events);

    let mut steps = vec![Step { vanish: true, ..step(5, 1) }];
    steps.push(Step { appear: true, ..step(15, 1) });
    let mut machine = Machine::start(&scenario(2, steps));
    machine.run(0..5);
    machine.unplug("0000:01:00.0");
    machine.run(5..15);
    machine.plug("0000:01:00.0");
    machine.run(15..21);
    machine.until(21, |_, rows| rows.len() == 2);
    let told = machine.told();
    assert_eq!(told[0], "5 vanished GPU-1");
    assert!(told[1].ends_with(" recovered GPU-1") && told.len() == 2, "{told:?}");
}

#[test]
fn no_library_is_normal_and_looked_for_again() {
    let mut empty = scenario(1, vec![]);
    empty.init = Some("DRIVER_NOT_LOADED".to_string());
    let mut machine = Machine::start(&empty);
    machine.unplug("0000:00:00.0");
    assert!(machine.run(0..29).is_empty());
    let faults = machine.fleet.take_faults();
    assert_eq!((faults.len(), faults[0].kind), (1, crate::FaultKind::Absent), "said once: {faults:?}");
    machine.control.scenario(&scenario(1, vec![])).unwrap();
    machine.until(30, |_, rows| rows.len() == 1);

    let roots = Roots::recorded("/nowhere".as_ref());
    let mut none = Fleet::new(roots, Some("/nowhere/libnvidia-ml.so.1".into()), Arc::default());
    none.tick(at(0));
    assert!(none.take_rows().is_empty() && none.take_faults()[0].reason.contains("/nowhere/libnvidia-ml.so.1"));
}

#[test]
fn gpus_that_nobody_can_watch_are_told_of() {
    // On the bus, with a driver that does not answer: not ready, and said so at every tick.
    let mut refusing = scenario(1, vec![]);
    refusing.init = Some("DRIVER_NOT_LOADED".to_string());
    let mut machine = Machine::start(&refusing);
    for second in 0..5 {
        assert!(machine.tick(second).is_empty());
        let faults = machine.fleet.take_faults();
        assert_eq!((faults.len(), faults[0].kind), (1, crate::FaultKind::Failed), "second {second}: {faults:?}");
    }
    // A driver that was there and does not come back: what was known is lost after a minute.
    let mut machine = Machine::start(&scenario(2, vec![Step { reload: Some("595.80".to_string()), ..step(5, 0) }]));
    machine.run(0..5);
    refusing.init = Some("LIB_RM_VERSION_MISMATCH".to_string());
    refusing.gpus.push(gpu(1));
    refusing.steps = vec![Step { reload: Some("595.80".to_string()), ..step(5, 0) }];
    machine.control.scenario(&refusing).unwrap();
    machine.run(5..70);
    machine.until(130, |machine, _| machine.events.len() == 2);
    let told = machine.told();
    assert!(told[0].ends_with(" lost GPU-0") && told[1].ends_with(" lost GPU-1"), "{told:?}");
    assert!(machine.fleet.take_faults().iter().any(|fault| fault.kind == crate::FaultKind::Failed));
    // Let go on request, nobody is to watch them.
    machine.requests.release();
    machine.tick(131);
    machine.fleet.take_faults();
    machine.tick(132);
    assert!(machine.fleet.take_faults().is_empty());
}

#[test]
fn one_gpu_that_blames_the_library_is_lost_alone() {
    let failing = [("*".to_string(), "UNINITIALIZED".to_string())];
    let mut machine = Machine::start(&scenario(2, vec![Step { fail: failing.into(), ..step(3, 0) }]));
    let seen = machine.run(0..10);
    assert_eq!(seen[&uuid(1)], (0..10).collect());
    assert_eq!(machine.told(), ["4 lost GPU-0"], "and no driver was loaded anew");
}

#[test]
fn xids_are_heard_again_after_a_gpu_was_lost() {
    let lost = [("*".to_string(), "GPU_IS_LOST".to_string())];
    let well = [("*".to_string(), String::new())];
    let mut steps = vec![Step { fail: lost.into(), ..step(3, 0) }, Step { fail: well.into(), ..step(6, 0) }];
    steps.push(Step { xid: Some(48), ..step(9, 0) });
    let mut machine = Machine::start(&scenario(1, steps));
    let calls = |machine: &Machine, name| machine.control.calls(0, name).unwrap();
    machine.until(0, |machine, _| calls(machine, "nvmlDeviceRegisterEvents") == 1);
    machine.until(3, |machine, _| calls(machine, "nvmlEventSetWait_v2") == 1 && !machine.events.is_empty());
    machine.until(6, |machine, _| calls(machine, "nvmlDeviceRegisterEvents") == 2);
    machine.until(9, |machine, _| machine.events.iter().any(|event| event.code == Some(48)));
}

/// NVML and the kernel tell of the same XID: it is one event, whoever comes first. What only the kernel says is one too, also of a GPU
/// that nobody knows.
#[test]
fn an_xid_that_two_sources_tell_of_is_one_event() {
    let steps = vec![Step { xid: Some(48), ..step(5, 0) }, Step { xid: Some(63), ..step(7, 0) }];
    let mut machine = Machine::start(&scenario(2, steps));
    machine.until(0, |machine, _| machine.control.calls(0, "nvmlDeviceRegisterEvents").unwrap() == 1);
    machine.run(1..5);
    for (gpu, code) in [(0, 48), (1, 31), (9, 79)] {
        let pci = format!("0000:{gpu:02x}:00.0");
        machine.requests.said_by_kernel(KernelXid { ts: at(5), pci, code, message: format!("Xid {code}") });
    }
    machine.until(5, |machine, _| machine.events.len() >= 3);
    machine.until(7, |machine, _| machine.events.iter().any(|event| event.code == Some(63)));
    let told = |code| machine.events.iter().filter(move |event| event.code == Some(code));
    assert_eq!([48, 31, 79, 63].map(|code| told(code).count()), [1; 4], "{:?}", machine.events);
    let of = |code| told(code).next().map(|event| (event.uuid.as_str(), event.pci.as_str(), event.source)).unwrap();
    assert_eq!(of(31), ("GPU-1", "0000:01:00.0", "kernel"));
    assert_eq!(of(79), ("", "0000:09:00.0", "kernel"));
    assert_eq!(of(63).2, "nvml");
    // The same again from the same source is another one.
    for _ in 0..2 {
        let (pci, message) = ("0000:01:00.0".to_string(), "Xid 31".to_string());
        machine.requests.said_by_kernel(KernelXid { ts: at(8), pci, code: 31, message });
    }
    machine.tick(8);
    assert_eq!(machine.events.iter().filter(|event| event.code == Some(31)).count(), 3);
}

#[test]
fn a_release_is_not_undone_by_an_opening_under_way() {
    let mut machine = Machine::start(&scenario(1, vec![Step { reload: Some("595.80".to_string()), ..step(2, 0) }]));
    machine.run(0..2);
    // The driver is replaced; while the library is opened anew, an operator asks for its release.
    machine.run(2..4);
    machine.requests.release();
    let rows: usize = (4..60).map(|second| machine.tick(second).len()).sum();
    assert_eq!(rows, 0, "{:?}", machine.events);
}

#[test]
fn the_library_is_released_on_request() {
    let mut machine = Machine::start(&scenario(1, vec![]));
    assert_eq!(machine.tick(0).len(), 1);
    machine.requests.release();
    assert!(machine.run(1..60).is_empty());
    // Nobody has it open: a replaced driver is found at once.
    let mut other = scenario(1, vec![]);
    other.driver = "600.1".to_string();
    machine.control.scenario(&other).unwrap();
    machine.requests.reopen();
    machine.until(60, |_, rows| rows.len() == 1);
    assert_eq!(machine.events[0].message.as_deref(), Some("driver 600.1 is loaded, after 590.48.01"));
}

#[test]
fn mig_instances_have_rows_of_their_own() {
    let instances = vec!["MIG-a".to_string(), "MIG-b".to_string()];
    let mut machine = Machine::start(&scenario(1, vec![Step { mig: Some(instances), ..step(10, 0) }]));
    assert_eq!(machine.tick(0).len(), 1);
    let rows = machine.tick(30);
    let names: Vec<Option<&str>> = rows.iter().map(|row| row.mig.as_deref()).collect();
    assert_eq!(names, [None, Some("MIG-a"), Some("MIG-b")]);
    assert_eq!(cell(&rows[0], "utilization_ratio"), Cell::Null, "NVML has no utilisation of a GPU in MIG mode");
    assert_eq!(cell(&rows[1], "memory_used_bytes"), 38_000_000_000.into());
    assert_eq!(machine.told(), ["30 mig_change GPU-0"]);
}

#[test]
fn processes_are_those_that_run() {
    let mut scenario = scenario(1, vec![]);
    scenario.gpus[0].processes = [(41, 5_000), (42, 7_000)].into();
    let mut machine = Machine::start(&scenario);
    machine.tick(0);
    let found: Vec<(u32, Option<u64>, Option<f64>)> =
        machine.fleet.processes().iter().map(|(_, one)| (one.pid, one.memory_bytes, one.sm_ratio)).collect();
    assert_eq!(found, [(41, Some(5_000), Some(0.97)), (42, Some(7_000), Some(0.97))]);
}

/// What may befall one GPU: some calls fail, each in its way, from some second on, or everything hangs for a while.
fn illness() -> impl Strategy<Value = Vec<Step>> {
    let calls: Vec<String> =
        CALLS.iter().map(ToString::to_string).chain([82, 74, 251, 143, 230].map(|id| format!("field.{id}"))).collect();
    let errors: Vec<String> = ERRORS.iter().map(|(name, _)| name.to_string()).chain([String::new()]).collect();
    let failure = (prop::sample::select(calls), prop::sample::select(errors));
    let failing = (
        0u64..12,
        prop::collection::btree_map(
            failure.clone().prop_map(|(call, _)| call),
            failure.prop_map(|(_, error)| error),
            0..12,
        ),
    )
        .prop_map(|(second, fail)| Step { fail, ..step(second, 0) });
    let hanging = (0u64..12, 0u64..20).prop_map(|(second, length)| Step { hang_ms: length * 1_000, ..step(second, 0) });
    let going =
        (0u64..12, any::<bool>()).prop_map(|(second, vanish)| Step { vanish, appear: !vanish, ..step(second, 0) });
    let step = prop_oneof![6 => failing, 1 => hanging, 1 => going];
    prop::collection::vec(step, 1..6).prop_map(|mut steps| {
        steps.sort_by_key(|step| step.at_ms);
        steps
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whichever calls fail in whichever way on one GPU, the rows of every other GPU arrive at every tick.
    #[test]
    fn one_sick_gpu_disturbs_no_other(steps in illness()) {
        let begins_absent = steps.iter().find(|step| step.vanish || step.appear).is_some_and(|step| step.appear);
        prop_assume!(!begins_absent);
        let mut machine = Machine::start(&scenario(4, steps));
        let seen = machine.run(0..16);
        for gpu in 1..4 {
            prop_assert_eq!(&seen[&uuid(gpu)], &(0..16).collect::<BTreeSet<i64>>(), "GPU {}: {:?}", gpu, machine.events);
        }
    }
}
