//! Times every call that the GPU collector makes, and records what the driver says as a scenario for the stub.
//!
//! `cargo run --release -p tidewatch-collect --example gpu_calls -- [PASSES [INTERVAL_MS [SCENARIO.json]]]`

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use tidewatch_collect::rows::Cell;
use tidewatch_collect::{TimedPass, time_gpus};
use tidewatch_nvml_stub::{Gpu, Scenario, Step};

/// What a column is in a scenario: the value's name, how many of its units are one of the column's, and the call that fails
/// when there is no value.
const VALUES: [(&str, &str, f64, &str); 42] = [
    ("utilization_ratio", "utilization", 100.0, "nvmlDeviceGetSamples"),
    ("memory_controller_ratio", "memory_utilization", 100.0, "nvmlDeviceGetUtilizationRates"),
    ("sm_active_ratio", "sm_active", 100.0, "nvmlGpmQueryDeviceSupport"),
    ("tensor_active_ratio", "tensor_active", 100.0, "nvmlGpmQueryDeviceSupport"),
    ("memory_used_bytes", "memory_used", 1.0, "nvmlDeviceGetMemoryInfo_v2"),
    ("memory_total_bytes", "memory_total", 1.0, "nvmlDeviceGetMemoryInfo_v2"),
    ("temperature_celsius", "temperature", 1.0, "nvmlDeviceGetTemperature"),
    ("power_watts", "power", 1e3, "nvmlDeviceGetPowerUsage"),
    ("energy_joules_total", "energy", 1e3, "nvmlDeviceGetTotalEnergyConsumption"),
    ("sm_clock_mhz", "sm_clock", 1.0, "nvmlDeviceGetClockInfo"),
    ("memory_clock_mhz", "memory_clock", 1.0, "nvmlDeviceGetClockInfo"),
    ("performance_state", "performance_state", 1.0, "nvmlDeviceGetPerformanceState"),
    ("throttle_reasons", "throttle_reasons", 1.0, "nvmlDeviceGetCurrentClocksThrottleReasons"),
    ("memory_temperature_celsius", "field.82", 1.0, "field.82"),
    ("throttle_power_ns_total", "field.74", 1.0, "field.74"),
    ("throttle_thermal_sw_ns_total", "field.251", 1.0, "field.251"),
    ("throttle_thermal_hw_ns_total", "field.252", 1.0, "field.252"),
    ("throttle_brake_ns_total", "field.253", 1.0, "field.253"),
    ("temperature_slowdown_celsius", "temperature_slowdown", 1.0, "nvmlDeviceGetTemperatureThreshold"),
    ("power_limit_watts", "power_limit", 1e3, "nvmlDeviceGetEnforcedPowerLimit"),
    ("sm_clock_max_mhz", "sm_clock_max", 1.0, "nvmlDeviceGetMaxClockInfo"),
    ("fan_ratio", "fan", 100.0, "nvmlDeviceGetFanSpeed_v2"),
    ("ecc_uncorrected_volatile_total", "ecc_uncorrected_volatile", 1.0, "nvmlDeviceGetTotalEccErrors"),
    ("ecc_corrected_volatile_total", "ecc_corrected_volatile", 1.0, "nvmlDeviceGetTotalEccErrors"),
    ("ecc_uncorrected_aggregate_total", "ecc_uncorrected_aggregate", 1.0, "nvmlDeviceGetTotalEccErrors"),
    ("ecc_corrected_aggregate_total", "ecc_corrected_aggregate", 1.0, "nvmlDeviceGetTotalEccErrors"),
    ("sram_threshold_exceeded", "sram_threshold", 1.0, "nvmlDeviceGetSramEccErrorStatus"),
    ("retired_pages_pending", "retired_pending", 1.0, "nvmlDeviceGetRetiredPagesPendingStatus"),
    ("pcie_generation", "pcie_generation", 1.0, "nvmlDeviceGetCurrPcieLinkGeneration"),
    ("pcie_generation_max", "pcie_generation_max", 1.0, "nvmlDeviceGetMaxPcieLinkGeneration"),
    ("pcie_width", "pcie_width", 1.0, "nvmlDeviceGetCurrPcieLinkWidth"),
    ("pcie_width_max", "pcie_width_max", 1.0, "nvmlDeviceGetMaxPcieLinkWidth"),
    ("pcie_replays_total", "pcie_replays", 1.0, "nvmlDeviceGetPcieReplayCounter"),
    ("nvlink_links", "nvlinks", 1.0, "nvmlDeviceGetNvLinkState"),
    ("nvlink_links_active", "nvlinks_active", 1.0, "nvmlDeviceGetNvLinkState"),
    ("fabric_state", "fabric_state", 1.0, "nvmlDeviceGetGpuFabricInfoV"),
    ("fabric_health", "fabric_health", 1.0, "nvmlDeviceGetGpuFabricInfoV"),
    ("remapped_rows_uncorrected", "field.143", 1.0, "field.143"),
    ("remapped_rows_corrected", "field.142", 1.0, "field.142"),
    ("remap_pending", "field.144", 1.0, "field.144"),
    ("remap_failed", "field.145", 1.0, "field.145"),
    ("recovery_action", "field.230", 1.0, "field.230"),
];

/// A scenario that grows with each pass: a value is a step when it differs from the one before.
struct Recording {
    scenario: Scenario,
    last: Vec<BTreeMap<String, f64>>,
}

impl Recording {
    fn take(&mut self, pass: &TimedPass) {
        self.scenario.driver.clone_from(&pass.driver);
        let known = self.scenario.gpus.iter().position(|gpu| gpu.uuid == pass.uuid);
        let place = known.unwrap_or(self.scenario.gpus.len());
        let values: BTreeMap<String, f64> = VALUES
            .iter()
            .filter_map(|(column, name, scale, _)| {
                let (_, cell) = pass.cells.iter().find(|(known, _)| known == column)?;
                Some(((*name).to_string(), (number(cell)? * scale).round()))
            })
            .collect();
        let refused = |column: &str| pass.refused.iter().any(|(known, _)| *known == column);
        if known.is_none() {
            let fails = VALUES.iter().filter(|(column, ..)| refused(column));
            let fail = fails.map(|(.., call)| ((*call).to_string(), "NOT_SUPPORTED".to_string())).collect();
            let processes = pass.processes.iter().map(|(pid, bytes)| (*pid, bytes.unwrap_or(0))).collect();
            let (uuid, name, pci) = (pass.uuid.clone(), pass.name.clone(), pass.pci.clone());
            self.scenario.gpus.push(Gpu { uuid, name, pci, values: values.clone(), fail, processes, mig: vec![] });
            self.last.push(values);
            return;
        }
        let last = &mut self.last[place];
        let set: BTreeMap<String, f64> =
            values.into_iter().filter(|(name, value)| last.insert(name.clone(), *value) != Some(*value)).collect();
        if !set.is_empty() {
            let at_ms = u64::try_from(pass.at.as_millis()).unwrap_or(u64::MAX);
            self.scenario.steps.push(Step { at_ms, gpu: place, set, ..Step::default() });
        }
    }
}

fn number(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Int(value) => Some(*value as f64),
        Cell::Float(value) => Some(*value),
        Cell::Bool(value) => Some(f64::from(u8::from(*value))),
        _ => None,
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut count = |otherwise: u32| arguments.next().map_or(Ok(otherwise), |text| text.parse::<u32>());
    let (Ok(passes), Ok(interval)) = (count(20), count(1_000)) else {
        eprintln!("error: PASSES and INTERVAL_MS are whole numbers");
        return ExitCode::from(2);
    };
    let scenario = Scenario { driver: String::new(), init: None, gpus: vec![], steps: vec![] };
    let mut recording = Recording { scenario, last: vec![] };
    let mut times: BTreeMap<(String, &'static str), (Vec<Duration>, Option<String>)> = BTreeMap::new();
    let mut whole: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    let done = time_gpus(None, passes, Duration::from_millis(u64::from(interval)), |pass| {
        recording.take(&pass);
        whole.entry(pass.uuid.clone()).or_default().push(pass.calls.iter().map(|call| call.took).sum());
        for call in pass.calls {
            let (all, error) = times.entry((pass.uuid.clone(), call.column)).or_default();
            all.push(call.took);
            *error = call.error.or(error.take());
        }
        for (column, why) in &pass.refused {
            println!("{}: {column}: {why}", pass.uuid);
        }
    });
    if let Err(why) = done {
        eprintln!("error: {why}");
        return ExitCode::FAILURE;
    }
    for gpu in &recording.scenario.gpus {
        println!("\n{} {} at {}, driver {}", gpu.name, gpu.uuid, gpu.pci, recording.scenario.driver);
        println!("| call for | calls | first us | median us | p99 us | answers |\n|---|---|---|---|---|---|");
        let of_gpu = times.iter_mut().filter(|((uuid, _), _)| *uuid == gpu.uuid);
        for ((_, column), (all, error)) in of_gpu {
            print_line(column, all, error.as_deref().unwrap_or("yes"));
        }
        print_line("a whole pass", &mut whole.remove(&gpu.uuid).unwrap_or_default(), "");
    }
    if let Some(path) = arguments.next() {
        let text = serde_json::to_string(&recording.scenario).unwrap_or_default();
        if let Err(error) = std::fs::write(&path, text) {
            eprintln!("error: {path}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn print_line(what: &str, all: &mut [Duration], answer: &str) {
    let us = |took: Option<&Duration>| took.map_or(0.0, |took| took.as_secs_f64() * 1e6);
    let first = us(all.first());
    all.sort_unstable();
    let (median, p99) = (us(all.get(all.len() / 2)), us(all.get(all.len() * 99 / 100)));
    println!("| {what} | {} | {first:.0} | {median:.0} | {p99:.0} | {answer} |", all.len());
}
