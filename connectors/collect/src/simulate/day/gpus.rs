//! GPUs of a day: a plain model of each, their rows, processes and events.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use tidewatch_model::{Span, Timestamp, table};

use super::happenings::{Happening, Kind, Marks, Of, SILENT};
use super::jobs::{Jobs, Phase};
use super::places::{Dice, PER_HOST, Places, Role};
use crate::rows::{Cell, Rows, RowsError};

/// One GPU.
#[derive(Debug, Clone, Default)]
struct Gpu {
    used: f64,
    tensor: f64,
    power: f64,
    heat: f64,
    clock: f64,
    energy: f64,
    power_ns: f64,
    thermal_ns: f64,
    corrected: i64,
    uncorrected: i64,
    remap_pending: bool,
    replays: i64,
    recoveries: i64,
    recoveries_failed: i64,
    wrong_bits: f64,
    rx: f64,
    tx: f64,
    held: f64,
    reasons: i64,
    glitch: Option<usize>,
    /// Its sample, or its memory's temperature all the time, can't be: cleaning has taken it out.
    cleaned: (bool, bool),
    /// A notebook on it: until when it does what it does, how much it uses, and its number; 0 is none.
    session: (i64, f64, i64),
}

/// All GPUs.
#[derive(Debug)]
pub struct Gpus {
    gpus: Vec<Gpu>,
    /// By machine.
    boards: Vec<&'static Board>,
    dice: Dice,
    schema: SchemaRef,
    /// Columns that never change, by position.
    fixed: Vec<Option<ArrayRef>>,
    nulls: Vec<ArrayRef>,
    sessions: i64,
    start: Timestamp,
}

/// What distinguishes boards.
#[derive(Debug)]
struct Board {
    name: &'static str,
    power_limit: f64,
    largest_clock: f64,
    memory: i64,
    /// The generation of its NVLinks; 0 has none. Those of the fifth count other things than those before.
    nvlink: u8,
}

static BOARDS: [Board; 3] = [
    Board { name: "Simulated SXM 180GB", power_limit: 1_000.0, largest_clock: 1_965.0, memory: 180 << 30, nvlink: 5 },
    Board { name: "Simulated SXM 80GB", power_limit: 700.0, largest_clock: 1_980.0, memory: 80 << 30, nvlink: 4 },
    Board { name: "Simulated PCIe 48GB", power_limit: 350.0, largest_clock: 2_520.0, memory: 48 << 30, nvlink: 0 },
];

impl Gpus {
    /// GPUs at work.
    pub fn new(places: &Places, jobs: &Jobs, seed: u64, start: Timestamp) -> Result<Gpus, RowsError> {
        let board = |host: usize| match places.roles[host] {
            Role::Training if jobs.newest().contains(&host) => &BOARDS[0],
            Role::Training => &BOARDS[1],
            _ => &BOARDS[2],
        };
        let boards: Vec<&'static Board> = (0..places.hosts.len()).map(board).collect();
        let schema = table::find("gpu").ok_or_else(|| RowsError::NoSuchTable("gpu".into()))?.schema();
        let count = places.gpus.len();
        let board = |gpu: usize| boards[gpu / PER_HOST];
        let fixed = schema.fields().iter().map(|field| -> Option<ArrayRef> {
            Some(match field.name().as_str() {
                "host" => Arc::new(StringArray::from_iter_values((0..count).map(|gpu| &places.hosts[gpu / PER_HOST]))),
                "gpu_uuid" => Arc::new(StringArray::from_iter_values(&places.gpus)),
                "gpu_index" => Arc::new(Int64Array::from_iter_values((0..count).map(|gpu| (gpu % PER_HOST) as i64))),
                "gpu_name" => Arc::new(StringArray::from_iter_values((0..count).map(|gpu| board(gpu).name))),
                "pci_bus_id" => Arc::new(StringArray::from_iter_values(
                    (0..count).map(|gpu| format!("00000000:{:02X}:00.0", 0x10 * (gpu % PER_HOST + 1))),
                )),
                "memory_total_bytes" => Arc::new(Int64Array::from_iter_values((0..count).map(|gpu| board(gpu).memory))),
                _ => return None,
            })
        });
        let nulls = schema.fields().iter().map(|field| new_null_array(field.data_type(), count));
        let gpu = Gpu { heat: 45.0, ..Gpu::default() };
        Ok(Gpus {
            gpus: vec![gpu; count],
            dice: Dice::new(seed, 3),
            fixed: fixed.collect(),
            nulls: nulls.collect(),
            schema,
            boards,
            sessions: 70_000,
            start,
        })
    }

    /// Lets a tick pass. `load` is how busy each machine's replicas are.
    pub fn step(&mut self, now: i64, seconds: f64, places: &Places, jobs: &Jobs, marks: &Marks, load: &[f64]) {
        for (host, load) in load.iter().enumerate() {
            let (role, (phase, _)) = (places.roles[host], jobs.on(host));
            let restarted = marks.hosts[host] & SILENT != 0;
            let rebooted = marks.hosts[host] & (Kind::PlannedReboot.bit() | Kind::HostDown.bit()) != 0;
            let first_of_job = jobs.slot_of(host).is_some_and(|slot| jobs.slots[slot].hosts.start == host);
            for local in 0..PER_HOST {
                let bits = marks.gpus[host * PER_HOST + local];
                if role == Role::Notebooks {
                    self.notebook(host * PER_HOST + local, now, rebooted);
                }
                let gpu = &mut self.gpus[host * PER_HOST + local];
                if rebooted {
                    *gpu = Gpu { heat: 35.0, ..Gpu::default() };
                }
                if restarted && marks.hosts[host] & Kind::Gap.bit() == 0 {
                    (gpu.rx, gpu.tx) = (0.0, 0.0);
                }
                let noise = self.dice.five();
                let demand = match role {
                    Role::Training => training(phase, first_of_job && local == 0, &noise),
                    Role::Serving => (load * (1.0 + 0.3 * noise[0]), 0.35 + 0.5 * load, 0.9),
                    Role::Notebooks => (gpu.session.1 * (1.0 + 0.2 * noise[0]), 0.15 + 0.7 * gpu.session.1, 0.6),
                };
                gpu.held = match role {
                    Role::Notebooks => {
                        if gpu.session.2 > 0 {
                            0.55
                        } else {
                            0.01
                        }
                    }
                    // Replicas that were stopped for the night hold nothing.
                    Role::Serving => {
                        if *load > 0.0 {
                            demand.2
                        } else {
                            0.01
                        }
                    }
                    Role::Training => {
                        if phase == Phase::Idle {
                            0.01
                        } else {
                            demand.2
                        }
                    }
                };
                gpu.step(demand, bits, seconds, now, self.boards[host], &noise);
            }
        }
    }

    /// A notebook works for a while, thinks for a while, and goes.
    fn notebook(&mut self, at: usize, now: i64, rebooted: bool) {
        let gpu = &mut self.gpus[at];
        if !rebooted && now < gpu.session.0 {
            return;
        }
        let (used, number) = match self.dice.between(0, 10) {
            _ if rebooted => (0.0, 0),
            0..4 if gpu.session.2 > 0 => (0.3 + 0.6 * self.dice.unit(), gpu.session.2),
            0..7 if gpu.session.2 > 0 => (0.0, gpu.session.2),
            0..6 => {
                self.sessions += 1;
                (0.5, self.sessions)
            }
            _ => (0.0, 0),
        };
        gpu.session = (now + self.dice.between(300, 3_600), used, number);
    }

    /// The rows of a tick, and whether a GPU has one.
    pub fn rows(
        &self,
        now: i64,
        slow: bool,
        places: &Places,
        jobs: &Jobs,
        marks: &Marks,
    ) -> Result<RecordBatch, RowsError> {
        let names: Vec<Option<String>> =
            (0..places.hosts.len()).map(|host| jobs.on(host).1.map(str::to_string)).collect();
        let board = |at: usize| self.boards[at / PER_HOST];
        let fault = |at: usize, kind: Kind| marks.gpus[at] & kind.bit() != 0;
        let float = |value: &dyn Fn(usize, &Gpu) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(self.gpus.iter().enumerate().map(|(at, gpu)| value(at, gpu))))
        };
        let whole = |value: &dyn Fn(usize, &Gpu) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(self.gpus.iter().enumerate().map(|(at, gpu)| value(at, gpu))))
        };
        let some = |value: &dyn Fn(usize, &Gpu) -> Option<f64>| -> ArrayRef {
            Arc::new(self.gpus.iter().enumerate().map(|(at, gpu)| value(at, gpu)).collect::<Float64Array>())
        };
        // Only boards whose NVLinks are of these generations have it.
        let linked = |generations: &[u8], value: &dyn Fn(usize, &Gpu) -> i64| -> ArrayRef {
            let has = |at: usize| generations.contains(&board(at).nvlink);
            let values = self.gpus.iter().enumerate().map(|(at, gpu)| has(at).then(|| value(at, gpu)));
            Arc::new(values.collect::<Int64Array>())
        };
        let flag = |value: &dyn Fn(&Gpu) -> bool| -> ArrayRef {
            Arc::new(self.gpus.iter().map(|gpu| Some(value(gpu))).collect::<BooleanArray>())
        };
        let columns = self.schema.fields().iter().enumerate().map(|(index, field)| -> ArrayRef {
            if let Some(fixed) = &self.fixed[index] {
                return fixed.clone();
            }
            match field.name().as_str() {
                "ts" => {
                    let times = (0..self.gpus.len()).map(|at| self.start.0 + now * 1_000_000 + phase_of(at / PER_HOST));
                    Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
                }
                "job" => {
                    let job = |at: usize, gpu: &Gpu| match gpu.session.2 {
                        0 => names[at / PER_HOST].clone(),
                        number => Some(number.to_string()),
                    };
                    Arc::new(self.gpus.iter().enumerate().map(|(at, gpu)| job(at, gpu)).collect::<StringArray>())
                }
                "utilization_ratio" => float(&|_, gpu| rounded(gpu.used, 100.0)),
                "utilization_max_ratio" => {
                    float(&|_, gpu| if gpu.used > 0.0 { rounded((gpu.used + 0.03).min(1.0), 100.0) } else { 0.0 })
                }
                "memory_controller_ratio" => float(&|_, gpu| rounded(gpu.used * 0.6, 100.0)),
                "sm_active_ratio" => float(&|_, gpu| rounded(gpu.used * 0.9, 1_000.0)),
                "tensor_active_ratio" => float(&|_, gpu| rounded(gpu.tensor, 1_000.0)),
                "memory_used_bytes" => whole(&|at, gpu| (gpu.held * board(at).memory as f64) as i64),
                "temperature_celsius" => some(&|_, gpu| match gpu.glitch {
                    _ if gpu.cleaned.0 => None,
                    Some(0) => Some(110.0),
                    _ => Some(gpu.heat.round()),
                }),
                "memory_temperature_celsius" => some(&|at, gpu| match gpu.glitch {
                    _ if gpu.cleaned.1 || board(at).nvlink == 0 => None,
                    Some(1) => Some(120.0),
                    _ => Some((gpu.heat + 8.0).round()),
                }),
                "power_watts" => float(&|_, gpu| if gpu.glitch == Some(2) { 0.0 } else { rounded(gpu.power, 1_000.0) }),
                "sm_clock_mhz" => float(&|_, gpu| (gpu.clock / 15.0).round() * 15.0),
                "memory_clock_mhz" => float(&|_, _| 2_619.0),
                "performance_state" => whole(&|_, gpu| if gpu.clock < 500.0 { 8 } else { 0 }),
                "throttle_reasons" => whole(&|_, gpu| gpu.reasons),
                "throttle_power_ns_total" => whole(&|_, gpu| gpu.power_ns as i64),
                "throttle_thermal_hw_ns_total" => whole(&|_, gpu| gpu.thermal_ns as i64),
                "throttle_thermal_sw_ns_total" | "throttle_brake_ns_total" => whole(&|_, _| 0),
                "pcie_rx_bytes_total" => whole(&|_, gpu| gpu.rx as i64),
                "pcie_tx_bytes_total" => whole(&|_, gpu| gpu.tx as i64),
                _ if !slow => self.nulls[index].clone(),
                "energy_joules_total" => float(&|_, gpu| rounded(gpu.energy, 1_000.0)),
                "temperature_slowdown_celsius" => float(&|_, _| 92.0),
                "power_limit_watts" => float(&|at, _| board(at).power_limit),
                "sm_clock_max_mhz" => float(&|at, _| board(at).largest_clock),
                "ecc_uncorrected_volatile_total" | "ecc_uncorrected_aggregate_total" => {
                    whole(&|_, gpu| gpu.uncorrected)
                }
                "ecc_corrected_volatile_total" | "ecc_corrected_aggregate_total" => whole(&|_, gpu| gpu.corrected),
                "remapped_rows_uncorrected" | "remapped_rows_corrected" | "pcie_replays_total" | "recovery_action" => {
                    whole(&|_, _| 0)
                }
                "sram_threshold_exceeded" | "remap_failed" => flag(&|_| false),
                "remap_pending" => flag(&|gpu| gpu.remap_pending),
                "pcie_generation" => whole(&|_, gpu| if gpu.clock < 500.0 { 1 } else { 5 }),
                "pcie_generation_max" => whole(&|_, _| 5),
                "pcie_width" => whole(&|at, _| if fault(at, Kind::PcieWidth) { 8 } else { 16 }),
                "pcie_width_max" => whole(&|_, _| 16),
                "nvlink_links" => linked(&[4, 5], &|_, _| 18),
                "nvlink_links_active" => linked(&[4, 5], &|at, _| if fault(at, Kind::NvlinkDown) { 17 } else { 18 }),
                "nvlink_crc_errors_total" => linked(&[4], &|_, _| 0),
                "nvlink_replays_total" => linked(&[4], &|_, gpu| gpu.replays),
                "nvlink_recoveries_total" => linked(&[4, 5], &|_, gpu| gpu.recoveries),
                "nvlink_recoveries_failed_total" => linked(&[5], &|_, gpu| gpu.recoveries_failed),
                "nvlink_receive_errors_total" | "nvlink_integrity_errors_total" | "nvlink_discards_total" => {
                    linked(&[5], &|_, _| 0)
                }
                "nvlink_bit_error_ratio" => some(&|at, gpu| (board(at).nvlink == 5).then_some(gpu.wrong_bits)),
                "fabric_state" => linked(&[4, 5], &|_, _| 3),
                // Four pairs of bits, 1 yes and 2 no: less bandwidth, a route that recovers, one that is ill, an access that timed out;
                // then 1, a right configuration.
                "fabric_health" => linked(&[4, 5], &|at, _| match () {
                    () if fault(at, Kind::FabricIll) => 0x1A9,
                    () if fault(at, Kind::RouteRecovers) => 0x1A6,
                    () => 0x1AA,
                }),
                "fabric_degraded" => {
                    let ill = |at: usize| fault(at, Kind::FabricIll) || fault(at, Kind::RouteRecovers);
                    let flags = (0..self.gpus.len()).map(|at| (board(at).nvlink > 0).then(|| ill(at)));
                    Arc::new(flags.collect::<BooleanArray>())
                }
                _ => self.nulls[index].clone(),
            }
        });
        let wrong = |source| RowsError::Arrow { table: "gpu", source };
        let whole_fleet = RecordBatch::try_new(self.schema.clone(), columns.collect()).map_err(wrong)?;
        let shown =
            |at: usize| marks.hosts[at / PER_HOST] & (SILENT | Kind::Hiccup.bit()) == 0 && !fault(at, Kind::GpuOffBus);
        let kept: BooleanArray = (0..self.gpus.len()).map(|at| Some(shown(at))).collect();
        if kept.true_count() == self.gpus.len() {
            return Ok(whole_fleet);
        }
        filter_record_batch(&whole_fleet, &kept).map_err(wrong)
    }

    /// Processes on GPUs.
    pub fn processes(&self, ts: Timestamp, places: &Places, jobs: &Jobs, marks: &Marks) -> Result<Rows, RowsError> {
        let mut rows = Rows::of("gpu_process")?;
        for (at, gpu) in self.gpus.iter().enumerate() {
            let host = at / PER_HOST;
            if marks.hosts[host] & SILENT != 0 || marks.gpus[at] & Kind::GpuOffBus.bit() != 0 || gpu.held < 0.1 {
                continue;
            }
            let (name, job) = match places.roles[host] {
                Role::Training => ("python3", jobs.on(host).1.map(str::to_string)),
                Role::Serving => ("vllm", None),
                Role::Notebooks => ("python3", Some(gpu.session.2.to_string())),
            };
            let cells: [(&str, Cell); 6] = [
                ("host", places.hosts[host].as_str().into()),
                ("gpu_uuid", places.gpus[at].as_str().into()),
                ("pid", pid(at).into()),
                ("process_name", name.into()),
                ("memory_used_bytes", ((gpu.held * 4e10) as i64).into()),
                ("job", job.into()),
            ];
            rows.push(ts, cells)?;
        }
        Ok(rows)
    }

    /// What happens to GPUs in a tick: `begun` begins, `active` goes on.
    pub fn events<'a>(
        &mut self,
        now: i64,
        end: i64,
        places: &Places,
        begun: &[Happening],
        active: impl Iterator<Item = &'a Happening>,
    ) -> Result<Rows, RowsError> {
        let mut rows = Rows::of("gpu_event")?;
        for happening in begun.iter().filter(|happening| happening.kind.of() == Of::Gpu) {
            let gpu = &mut self.gpus[happening.to];
            match happening.kind {
                Kind::CorrectedEcc => gpu.corrected += happening.amount.ceil() as i64,
                Kind::Uncorrectable => (gpu.uncorrected, gpu.remap_pending) = (gpu.uncorrected + 1, true),
                Kind::NvlinkRecovers => gpu.recoveries += 1,
                _ => {}
            }
        }
        for happening in active {
            let within = |at: i64| now <= at && at < end;
            let xid = |code: i64| ("xid", Some(code));
            let app = [31, 13, 43, 45][happening.to % 4];
            // Once a minute, also where a tick is longer than a second.
            let minute = (now - happening.from + 59).div_euclid(60) * 60;
            let told: Vec<(bool, (&str, Option<i64>))> = match happening.kind {
                Kind::AppXid => vec![(within(happening.from), xid(app))],
                Kind::GpuOffBus => vec![
                    (within(happening.from), xid(79)),
                    (within(happening.from + 5), ("vanished", None)),
                    (happening.until <= end, ("recovered", None)),
                ],
                Kind::Uncorrectable => {
                    vec![(within(happening.from), xid(48)), (within(happening.from), xid(63))]
                }
                Kind::XidStorm => vec![(within(happening.from + minute), xid(31))],
                _ => continue,
            };
            for (kind, code) in told.into_iter().filter_map(|(happens, told)| happens.then_some(told)) {
                let cells: [(&str, Cell); 6] = [
                    ("host", places.hosts[happening.to / PER_HOST].as_str().into()),
                    ("gpu_uuid", places.gpus[happening.to].as_str().into()),
                    ("kind", kind.into()),
                    ("code", code.into()),
                    ("source", "nvml".into()),
                    ("message", "simulated".into()),
                ];
                rows.push(self.start + Span::seconds(now), cells)?;
            }
        }
        Ok(rows)
    }

    /// Whether a GPU rests, and its link to the host with it.
    pub fn rests(&self, at: usize) -> bool {
        self.gpus[at].clock < 500.0
    }

    /// Notebooks of a machine: the number of each, and how busy it is.
    pub fn notebooks(&self, host: usize) -> impl Iterator<Item = (i64, f64)> {
        let gpus = &self.gpus[host * PER_HOST..(host + 1) * PER_HOST];
        gpus.iter().filter(|gpu| gpu.session.2 > 0).map(|gpu| (gpu.session.2, gpu.session.1))
    }

    /// A repaired GPU comes back with new counters.
    pub fn repair(&mut self, at: usize) {
        self.gpus[at] = Gpu { heat: 40.0, session: self.gpus[at].session, ..Gpu::default() };
    }
}

/// The process on a GPU.
pub fn pid(gpu: usize) -> i64 {
    20_000 + gpu as i64
}

/// How much later than the tick a machine reads, microseconds.
pub fn phase_of(host: usize) -> i64 {
    (host as i64 * 7_919) % 900_000
}

fn rounded(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

/// Utilisation, share of the power limit, share of memory.
fn training(phase: Phase, first: bool, noise: &[f64; 5]) -> (f64, f64, f64) {
    match phase {
        Phase::Idle => (0.0, 0.11, 0.01),
        Phase::Loading => (0.0, 0.16, 0.3),
        // Between two steps some wait for data.
        Phase::Stepping => (if noise[0] > 0.97 { 0.7 } else { 0.975 + 0.025 * noise[1] }, 0.9 + 0.03 * noise[2], 0.9),
        Phase::Checkpoint if first => (0.02, 0.17, 0.9),
        Phase::Checkpoint => (1.0, 0.3, 0.9),
        Phase::Saving => (0.03 + 0.02 * noise[0], 0.17, 0.9),
        Phase::Evaluation => (0.7 + 0.1 * noise[0], 0.6, 0.9),
        Phase::Hang => (1.0, 0.3 + 0.005 * noise[1], 0.9),
    }
}

impl Gpu {
    fn step(&mut self, demand: (f64, f64, f64), bits: u128, seconds: f64, now: i64, board: &Board, noise: &[f64; 5]) {
        let has = |kind: Kind| bits & kind.bit() != 0;
        let (limit, fastest) = (board.power_limit, board.largest_clock);
        self.used = demand.0.clamp(0.0, 1.0);
        let idle = self.used == 0.0;
        self.tensor = if demand.1 > 0.5 { self.used * 0.55 } else { 0.0 };
        let hot = has(Kind::Overheat) && self.heat > 86.0;
        let slowed = if hot { 0.7 } else { 1.0 };
        self.power = (demand.1 * slowed * limit + 5.0 * noise[3]).min(limit);
        let capped = has(Kind::ShortCap) || (demand.1 > 0.9 && noise[4] > 0.5);
        self.clock = match () {
            () if idle => 345.0,
            () if hot => 0.62 * fastest,
            () if has(Kind::ShortCap) => 0.6 * fastest,
            () => fastest - 30.0 + 15.0 * noise[2],
        };
        self.reasons = if hot { 64 } else { 0 } | if capped { 4 } else { 0 } | i64::from(idle);
        // At full load the limit is reached for moments.
        self.power_ns += seconds
            * if has(Kind::ShortCap) {
                0.8e9
            } else if capped {
                0.3e9
            } else {
                0.0
            };
        self.thermal_ns += if hot { 0.4e9 * seconds } else { 0.0 };
        let room = 27.0 + 2.5 * (now as f64 / 86_400.0 * std::f64::consts::TAU).sin();
        let broken = if has(Kind::Overheat) { 38.0 } else { 0.0 };
        let target = room + 38.0 * self.power / limit + broken;
        self.heat += (target - self.heat) * (seconds / 60.0).min(1.0);
        self.heat = if has(Kind::ShortHeat) { 88.0 } else { self.heat };
        self.glitch = has(Kind::Glitch).then_some((now % 3) as usize);
        self.cleaned = (has(Kind::Impossible), has(Kind::BadSensor));
        self.replays += i64::from(has(Kind::NvlinkDown) && noise[0] > 0.9);
        // One recovery in a hundred seconds fails.
        self.recoveries_failed += i64::from(has(Kind::NvlinkBits) && noise[1] > 1.0 - 0.02 * seconds);
        self.wrong_bits = match () {
            () if has(Kind::NvlinkBits) => 3e-10 * (1.0 + 0.5 * noise[2]),
            () if has(Kind::NvlinkRecovers) => 6e-13 * (1.0 + 0.5 * noise[2]),
            () => 2e-15 * (1.0 + 0.5 * noise[2]),
        };
        self.energy += self.power * seconds;
        self.rx += seconds * (2.0e9 * self.used + 1.0e7 * (noise[1] + 1.0));
        self.tx += seconds * (1.5e9 * self.used + 1.0e7 * (noise[2] + 1.0));
    }
}
