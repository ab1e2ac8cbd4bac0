//! One pass over one GPU: every value that its row has, each by itself.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use nvml_wrapper::enum_wrappers::device::{
    Clock, EccCounter, MemoryError, Sampling, TemperatureSensor, TemperatureThreshold,
};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::{Device, Nvml};

use super::class::{Class, class_of};
use super::gpm::{Gpm, SinceLast, Traffic};
use super::links::{LinkCounts, Links, is_degraded, links};
use super::raw;
use crate::rows::Cell;

/// Cells of one row, without those that say whose it is.
pub type Cells = Vec<(&'static str, Cell)>;

/// What is asked of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Also the columns that are read every 30 s.
    pub slow: bool,
    /// Also its processes.
    pub processes: bool,
    /// Also how long each call takes.
    pub timed: bool,
}

/// One call to the driver, or several of one kind for one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuCall {
    /// For which column, or for which group of them.
    pub column: &'static str,
    /// How long it took.
    pub took: Duration,
    /// What the driver said when it had no value.
    pub error: Option<String>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Pass {
    /// The row of the whole GPU; `None` when it did not answer.
    pub whole: Option<Cells>,
    /// Rows of its MIG instances, by their UUIDs.
    pub instances: Vec<(String, Cells)>,
    /// Its processes, when asked for.
    pub processes: Option<Vec<Process>>,
    /// Columns that are NULL, the reason, and whether it is for ever.
    pub faults: Vec<(&'static str, String, bool)>,
    /// Each call, when they were to be timed.
    pub calls: Vec<GpuCall>,
    /// Why it ended early: the GPU or the library is ill.
    pub trouble: Option<(Class, String)>,
}

/// A process that uses the GPU.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// Its number, in the driver's namespace.
    pub pid: u32,
    /// Bytes of the GPU's memory; `None` when the driver doesn't tell.
    pub memory_bytes: Option<u64>,
    /// Its share of the multiprocessors' time since the last pass.
    pub sm_ratio: Option<f64>,
}

/// A GPU, and what must be remembered between passes.
pub struct Reader<'nvml> {
    nvml: &'nvml Nvml,
    device: Device<'nvml>,
    /// Columns that this board, driver or user will not get.
    refused: HashSet<&'static str>,
    utilization_seen: u64,
    processes_seen: u64,
    gpm: Gpm<'nvml>,
    received: Traffic,
    sent: Traffic,
    links: LinkCounts,
    instances: Vec<Instance<'nvml>>,
    timed: bool,
    pass: Pass,
}

struct Instance<'nvml> {
    uuid: String,
    device: Device<'nvml>,
    gpu_instance: Option<u32>,
    gpm: Gpm<'nvml>,
}

/// Samples of utilisation that the first pass looks at.
const FIRST_SAMPLES_US: u64 = 1_000_000;
/// Fields of every pass: NVML's numbers, by the columns that they fill.
const FAST_FIELDS: [(&str, u32); 5] = [
    ("memory_temperature_celsius", 82),
    ("throttle_power_ns_total", 74),
    ("throttle_thermal_sw_ns_total", 251),
    ("throttle_thermal_hw_ns_total", 252),
    ("throttle_brake_ns_total", 253),
];

/// Counters of bytes that begin anew after 4 GiB.
const PCIE_FIELDS: [(&str, u32); 2] = [("pcie_rx_bytes_total", 198), ("pcie_tx_bytes_total", 197)];

/// Fields of the slow columns. The second half of the CRC errors has no column of its own.
const SLOW_FIELDS: [(&str, u32); 9] = [
    ("remapped_rows_uncorrected", 143),
    ("remapped_rows_corrected", 142),
    ("remap_pending", 144),
    ("remap_failed", 145),
    ("nvlink_crc_errors_total", 38),
    (CRC_DATA, 45),
    ("nvlink_replays_total", 52),
    ("nvlink_recoveries_total", 59),
    ("recovery_action", 230),
];
const CRC_DATA: &str = "nvlink_crc_errors_total (data)";

impl<'nvml> Reader<'nvml> {
    /// Of a GPU that was found.
    pub fn new(nvml: &'nvml Nvml, device: Device<'nvml>) -> Self {
        Reader {
            nvml,
            device,
            refused: HashSet::new(),
            utilization_seen: 0,
            processes_seen: 0,
            gpm: Gpm::default(),
            received: Traffic::default(),
            sent: Traffic::default(),
            links: LinkCounts::new(),
            instances: vec![],
            timed: false,
            pass: Pass::default(),
        }
    }

    /// Reads everything that is asked for. Ends early when the GPU or the library is ill.
    pub fn pass(&mut self, question: Question) -> Pass {
        self.timed = question.timed;
        if question.slow {
            self.find_instances();
        }
        let mut cells = self.fast();
        if question.slow {
            cells.extend(self.slow());
        }
        let processes = question.processes.then(|| self.processes());
        let mut pass = std::mem::take(&mut self.pass);
        if pass.trouble.is_none() {
            pass.whole = Some(cells);
            pass.instances = self.instance_rows(&mut pass.faults);
            pass.processes = processes;
        }
        pass
    }

    /// One value, unless it was refused before or the pass is over.
    pub(super) fn ask<T>(
        &mut self,
        column: &'static str,
        call: impl FnOnce(&Device<'nvml>) -> Result<T, NvmlError>,
    ) -> Option<T> {
        if self.pass.trouble.is_some() || self.refused.contains(column) {
            return None;
        }
        let begun = self.timed.then(Instant::now);
        let answer = call(&self.device);
        if let Some(begun) = begun {
            let error = answer.as_ref().err().map(NvmlError::to_string);
            self.pass.calls.push(GpuCall { column, took: begun.elapsed(), error });
        }
        match answer {
            Ok(value) => Some(value),
            Err(error) => {
                self.note(column, &error);
                None
            }
        }
    }

    pub(super) fn note(&mut self, column: &'static str, error: &NvmlError) {
        let class = class_of(error);
        match class {
            Class::Nothing => {}
            Class::Lost | Class::Library => self.pass.trouble = Some((class, error.to_string())),
            Class::Unsupported | Class::Passing => {
                if class == Class::Unsupported {
                    self.refused.insert(column);
                }
                self.pass.faults.push((column, error.to_string(), class == Class::Unsupported));
            }
        }
    }

    /// Whether a column will not be had.
    pub(super) fn is_refused(&self, column: &str) -> bool {
        self.refused.contains(column)
    }

    /// What links told.
    pub(super) fn link_counts(&mut self) -> &mut LinkCounts {
        &mut self.links
    }

    fn fast(&mut self) -> Cells {
        let mut cells: Cells = Vec::with_capacity(64);
        let (mean, most) = self.utilization();
        let rates = self.ask("memory_controller_ratio", Device::utilization_rates);
        let percent = |value: u32| f64::from(value) / 100.0;
        cells.push(("utilization_ratio", mean.or(rates.as_ref().map(|rates| percent(rates.gpu))).into()));
        cells.push(("utilization_max_ratio", most.into()));
        cells.push(("memory_controller_ratio", rates.map(|rates| percent(rates.memory)).into()));
        let gpm = self.gpm_since_last();
        cells.push(("sm_active_ratio", gpm.sm_active.into()));
        cells.push(("tensor_active_ratio", gpm.tensor_active.into()));
        self.traffic(&gpm);
        cells.push(("pcie_rx_bytes_total", self.received.total().into()));
        cells.push(("pcie_tx_bytes_total", self.sent.total().into()));
        let memory = self.ask("memory_used_bytes", memory);
        cells.push(("memory_used_bytes", memory.map(|(used, _)| used as i64).into()));
        cells.push(("memory_total_bytes", memory.map(|(_, total)| total as i64).into()));
        let celsius = self.ask("temperature_celsius", |device| device.temperature(TemperatureSensor::Gpu));
        cells.push(("temperature_celsius", celsius.map(f64::from).into()));
        let power = self.ask("power_watts", Device::power_usage);
        cells.push(("power_watts", power.map(|milliwatts| f64::from(milliwatts) / 1e3).into()));
        for (column, clock) in [("sm_clock_mhz", Clock::SM), ("memory_clock_mhz", Clock::Memory)] {
            cells.push((column, self.ask(column, |device| device.clock_info(clock)).map(f64::from).into()));
        }
        // NVML's numbers of the states are their names: 0 to 15, and 32 for unknown.
        let state = self.ask("performance_state", |device| device.performance_state().map(|state| state.as_c()));
        cells.push(("performance_state", state.filter(|state| *state <= 15).map(i64::from).into()));
        let reasons = self.ask("throttle_reasons", |device| Ok(device.current_throttle_reasons()?.bits()));
        cells.push(("throttle_reasons", reasons.map(|bits| bits as i64).into()));
        let fields = self.fields("field values", &FAST_FIELDS);
        for (column, _) in FAST_FIELDS {
            let value = fields.get(column).copied();
            let cell = if column == "memory_temperature_celsius" {
                value.into()
            } else {
                value.map(|value| value as i64).into()
            };
            cells.push((column, cell));
        }
        cells
    }

    fn slow(&mut self) -> Cells {
        let mut cells: Cells = Vec::with_capacity(32);
        let column = "temperature_slowdown_celsius";
        let slowdown = self.ask(column, |device| device.temperature_threshold(TemperatureThreshold::Slowdown));
        cells.push((column, slowdown.map(f64::from).into()));
        let limit = self.ask("power_limit_watts", Device::enforced_power_limit);
        cells.push(("power_limit_watts", limit.map(|milliwatts| f64::from(milliwatts) / 1e3).into()));
        // The slowest of all calls on an H100: 3 ms under load, 13 ms when it idles (docs/gpu.md).
        let energy = self.ask("energy_joules_total", Device::total_energy_consumption);
        cells.push(("energy_joules_total", energy.map(|millijoules| millijoules as f64 / 1e3).into()));
        let clock = self.ask("sm_clock_max_mhz", |device| device.max_clock_info(Clock::SM));
        cells.push(("sm_clock_max_mhz", clock.map(f64::from).into()));
        let fan = self.ask("fan_ratio", |device| no_such(device.fan_speed(0)));
        cells.push(("fan_ratio", fan.map(|percent| f64::from(percent) / 100.0).into()));
        for (column, kind, counter) in [
            ("ecc_uncorrected_volatile_total", MemoryError::Uncorrected, EccCounter::Volatile),
            ("ecc_corrected_volatile_total", MemoryError::Corrected, EccCounter::Volatile),
            ("ecc_uncorrected_aggregate_total", MemoryError::Uncorrected, EccCounter::Aggregate),
            ("ecc_corrected_aggregate_total", MemoryError::Corrected, EccCounter::Aggregate),
        ] {
            let count = self.ask(column, |device| device.total_ecc_errors(kind, counter));
            cells.push((column, count.map(|count| count as i64).into()));
        }
        cells.push((
            "sram_threshold_exceeded",
            self.ask("sram_threshold_exceeded", raw::sram_threshold_exceeded).into(),
        ));
        cells.push((
            "retired_pages_pending",
            self.ask("retired_pages_pending", Device::are_pages_pending_retired).into(),
        ));
        let numbers: [(&'static str, fn(&Device<'nvml>) -> Result<u32, NvmlError>); 5] = [
            ("pcie_generation", Device::current_pcie_link_gen),
            ("pcie_generation_max", Device::max_pcie_link_gen),
            ("pcie_width", Device::current_pcie_link_width),
            ("pcie_width_max", Device::max_pcie_link_width),
            ("pcie_replays_total", Device::pcie_replay_counter),
        ];
        for (column, call) in numbers {
            cells.push((column, self.ask(column, call).map(i64::from).into()));
        }
        let links = self.ask("nvlink_links", links);
        cells.push(("nvlink_links", links.map(|(all, _)| all).into()));
        cells.push(("nvlink_links_active", links.map(|(_, active)| active).into()));
        let fabric = self.ask("fabric_state", raw::fabric);
        cells.push(("fabric_state", fabric.map(|fabric| i64::from(fabric.state)).into()));
        let health = fabric.map(|fabric| fabric.health);
        cells.push(("fabric_health", health.map(i64::from).into()));
        cells.push(("fabric_degraded", health.and_then(is_degraded).into()));
        let links = u32::try_from(links.map_or(0, |(all, _)| all)).unwrap_or(0);
        let Links { cells: told, recoveries } = self.links_told(links);
        cells.extend(told);
        let mut fields = self.fields("field values (slow)", &SLOW_FIELDS);
        if let Some(data) = fields.remove(CRC_DATA) {
            *fields.entry("nvlink_crc_errors_total").or_default() += data;
        }
        for (column, _) in SLOW_FIELDS.into_iter().filter(|(column, _)| *column != CRC_DATA) {
            let of_links =
                if column == "nvlink_recoveries_total" { recoveries.map(|count| count as f64) } else { None };
            let value = fields.get(column).copied().or(of_links);
            let is_flag = matches!(column, "remap_pending" | "remap_failed");
            let cell =
                if is_flag { value.map(|value| value != 0.0).into() } else { value.map(|value| value as i64).into() };
            cells.push((column, cell));
        }
        cells
    }

    /// Several fields with one call. Answers are told by their positions: from 580.82 on some carry other numbers than
    /// those asked for.
    fn fields(&mut self, call: &'static str, wanted: &[(&'static str, u32)]) -> HashMap<&'static str, f64> {
        let left: Vec<(&'static str, u32)> =
            wanted.iter().filter(|(column, _)| !self.refused.contains(column)).copied().collect();
        let ids: Vec<FieldId> = left.iter().map(|(_, id)| FieldId(*id)).collect();
        let mut values = HashMap::new();
        if ids.is_empty() {
            return values;
        }
        for (found, (column, _)) in
            self.ask(call, |device| device.field_values_for(&ids)).into_iter().flatten().zip(left)
        {
            match found.and_then(|sample| sample.value) {
                Ok(value) => {
                    values.insert(column, number(&value));
                }
                Err(error) => self.note(column, &error),
            }
        }
        values
    }

    /// Mean and largest of the samples since the last pass, which the driver takes several times a second; at the first
    /// pass, whose ring holds those of many seconds before (14 s on an H100), of the last second.
    fn utilization(&mut self) -> (Option<f64>, Option<f64>) {
        let seen = self.utilization_seen;
        let Some(samples) = self.ask("utilization_max_ratio", |device| device.samples(Sampling::GpuUtilization, seen))
        else {
            return (None, None);
        };
        let newest = samples.iter().map(|sample| sample.timestamp).max().unwrap_or(seen).max(seen);
        let since = if seen == 0 { newest.saturating_sub(FIRST_SAMPLES_US) } else { seen };
        let fresh: Vec<f64> = samples
            .iter()
            .filter(|sample| sample.timestamp > since)
            .map(|sample| number(&sample.value) / 100.0)
            .collect();
        self.utilization_seen = newest;
        if fresh.is_empty() {
            return (None, None);
        }
        let mean = fresh.iter().sum::<f64>() / fresh.len() as f64;
        (Some(mean), fresh.iter().copied().reduce(f64::max))
    }

    fn gpm_since_last(&mut self) -> SinceLast {
        let column = "sm_active_ratio";
        // Only Hopper and later have it; a call that is refused is not made again.
        if self.gpm.is_new() {
            match self.ask(column, Device::gpm_support) {
                Some(true) => {}
                Some(false) => {
                    self.refused.insert(column);
                    return SinceLast::default();
                }
                // Not this time.
                None => return SinceLast::default(),
            }
        }
        let Some(sample) = self.ask(column, Device::gpm_sample) else { return SinceLast::default() };
        self.gpm.next(self.nvml, sample).unwrap_or_else(|error| {
            self.note(column, &error);
            SinceLast::default()
        })
    }

    /// Adds what went over PCIe since the last pass.
    fn traffic(&mut self, gpm: &SinceLast) {
        if let Some((received, sent)) = gpm.pcie_bytes {
            self.received.add(received);
            self.sent.add(sent);
        } else if self.refused.contains("sm_active_ratio") || gpm.sm_active.is_some() {
            let fields = self.fields("field values (pcie)", &PCIE_FIELDS);
            for (column, traffic) in
                [("pcie_rx_bytes_total", &mut self.received), ("pcie_tx_bytes_total", &mut self.sent)]
            {
                traffic.counted(fields.get(column).copied());
            }
        }
    }

    fn processes(&mut self) -> Vec<Process> {
        let mut running = self.ask("processes", Device::running_compute_processes).unwrap_or_default();
        running.extend(self.ask("graphics processes", Device::running_graphics_processes).unwrap_or_default());
        let seen = self.processes_seen;
        let samples = self.ask("sm_ratio", |device| device.process_utilization_stats(seen)).unwrap_or_default();
        self.processes_seen = samples.iter().map(|sample| sample.timestamp).max().unwrap_or(seen).max(seen);
        let mut processes: Vec<Process> = Vec::new();
        for info in running {
            if processes.iter().any(|known| known.pid == info.pid) {
                continue;
            }
            // The ring also holds processes that have ended, with figures over 100 %: only those that run are looked for.
            let of_process = samples.iter().filter(|sample| sample.pid == info.pid && sample.sm_util <= 100);
            let newest = of_process.max_by_key(|sample| sample.timestamp);
            processes.push(Process {
                pid: info.pid,
                memory_bytes: match info.used_gpu_memory {
                    UsedGpuMemory::Used(bytes) => Some(bytes),
                    UsedGpuMemory::Unavailable => None,
                },
                sm_ratio: newest.map(|sample| f64::from(sample.sm_util) / 100.0),
            });
        }
        processes
    }

    /// Looks for MIG instances. What is remembered of those that stay is kept.
    fn find_instances(&mut self) {
        let is_on = self.ask("mig_uuid", |device| Ok(device.mig_mode()?.current != 0)).unwrap_or(false);
        if !is_on {
            self.instances.clear();
            return;
        }
        let most = self.ask("mig_uuid", Device::mig_device_count).unwrap_or(0);
        let mut found = Vec::new();
        for index in 0..most {
            // Numbers may have holes.
            let Some(device) = self.ask("mig_uuid", |device| device.mig_device_by_index(index)) else { continue };
            let Ok(uuid) = device.uuid() else { continue };
            let known = self.instances.iter().position(|instance| instance.uuid == uuid);
            let gpm = known.map(|at| std::mem::take(&mut self.instances[at].gpm)).unwrap_or_default();
            let gpu_instance = raw::gpu_instance(&device).ok();
            found.push(Instance { uuid, device, gpu_instance, gpm });
        }
        self.instances = found;
    }

    fn instance_rows(&mut self, faults: &mut Vec<(&'static str, String, bool)>) -> Vec<(String, Cells)> {
        let has_gpm = !self.refused.contains("sm_active_ratio");
        let mut rows = Vec::new();
        for instance in &mut self.instances {
            let (used, total) = match memory(&instance.device) {
                Ok((used, total)) => (Some(used as i64), Some(total as i64)),
                Err(error) => {
                    faults.push(("memory_used_bytes", error.to_string(), class_of(&error) == Class::Unsupported));
                    (None, None)
                }
            };
            let sample = instance.gpu_instance.filter(|_| has_gpm).and_then(|id| self.device.gpm_mig_sample(id).ok());
            let gpm = sample.and_then(|sample| instance.gpm.next(self.nvml, sample).ok()).unwrap_or_default();
            let cells = vec![
                ("sm_active_ratio", gpm.sm_active.into()),
                ("tensor_active_ratio", gpm.tensor_active.into()),
                ("memory_used_bytes", used.into()),
                ("memory_total_bytes", total.into()),
            ];
            rows.push((instance.uuid.clone(), cells));
        }
        rows
    }
}

/// What no board without the part has: an H100 without fans says that the argument was invalid.
fn no_such<T>(answer: Result<T, NvmlError>) -> Result<T, NvmlError> {
    answer.map_err(|error| if matches!(error, NvmlError::InvalidArg) { NvmlError::NotSupported } else { error })
}

fn number(value: &SampleValue) -> f64 {
    match value {
        SampleValue::F64(value) => *value,
        SampleValue::U32(value) => f64::from(*value),
        SampleValue::U64(value) => *value as f64,
        SampleValue::I64(value) => *value as f64,
    }
}

/// Bytes used and in all; old drivers have only the first version of the call.
fn memory(device: &Device) -> Result<(u64, u64), NvmlError> {
    match device.memory_info() {
        Ok(memory) => Ok((memory.used, memory.total)),
        Err(NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound) => raw::memory_v1(device),
        Err(error) => Err(error),
    }
}
