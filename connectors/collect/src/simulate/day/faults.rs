//! Faults of a day: where and when they happen, and which rules must and which may tell of them.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use tidewatch_model::{Span, Timestamp};

use super::feeds::{MEMORY_TEMPERATURE, STREAMS};
use super::happenings::{Happening, Kind, Of};
use super::jobs::Jobs;
use super::places::{Dice, PER_HOST, Places, Role, gpus_of};
use super::serving::SERVICES;

/// What is true of one fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultTruth {
    /// What happened.
    pub kind: String,
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// Rules that must fire.
    pub must: Vec<String>,
    /// Rules that may fire too, since what follows from the fault is true.
    pub may: Vec<String>,
    /// Labels of which an alert about it has at least one.
    pub labels: BTreeMap<String, String>,
}

/// On which machines a fault can happen.
#[derive(Debug, Clone, Copy)]
enum On {
    /// Any; of what happens to jobs, services and streams any too.
    Any,
    Training,
    /// All that train but the first two.
    TrainingButTwo,
    TrainingOrServing,
    Serving,
    /// Those with the newest boards.
    Newest,
}

/// What a fault of a machine has to do with the job there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// Nothing.
    Ignored,
    /// It shows only where a job has worked for long and goes on.
    Works,
    /// It needs such a job for itself, or ends it: no other fault may disturb that.
    Taken,
}

/// A kind of fault: how often among 200, how long in seconds, where, what must fire and what may.
struct Plan {
    kind: Kind,
    name: &'static str,
    of_200: usize,
    lasting: (i64, i64),
    on: On,
    slot: Slot,
    must: &'static [&'static str],
    may: &'static [&'static str],
}

const PLANS: [Plan; 27] = [
    Plan {
        kind: Kind::GpuOffBus,
        name: "GPU off the bus",
        of_200: 10,
        lasting: (1_500, 3_000),
        on: On::Any,
        slot: Slot::Taken,
        must: &["gpu_xid_critical", "gpu_missing", "gpu_count_low"],
        may: &["train_util_collapse", "train_throughput_drop"],
    },
    Plan {
        kind: Kind::Uncorrectable,
        name: "uncorrectable memory error",
        of_200: 10,
        lasting: (600, 1_800),
        on: On::Any,
        slot: Slot::Taken,
        must: &["gpu_ecc_uncorrectable", "gpu_xid_critical", "gpu_row_remap_pending"],
        may: &["train_util_collapse"],
    },
    Plan {
        kind: Kind::Overheat,
        name: "cooling of a GPU fails",
        of_200: 18,
        lasting: (900, 1_800),
        on: On::Training,
        slot: Slot::Works,
        must: &["gpu_overheating", "gpu_thermal_throttle"],
        may: &["gpu_temperature_margin", "gpu_power_outlier", "gpu_clock_low_under_load", "gpu_memory_temperature"],
    },
    Plan {
        kind: Kind::PcieWidth,
        name: "PCIe lanes lost",
        of_200: 8,
        lasting: (900, 3_600),
        on: On::TrainingOrServing,
        slot: Slot::Works,
        must: &["gpu_pcie_width_low"],
        may: &[],
    },
    Plan {
        kind: Kind::NvlinkDown,
        name: "NVLink down",
        of_200: 8,
        lasting: (600, 3_600),
        on: On::Training,
        slot: Slot::Works,
        must: &["gpu_nvlink_down"],
        may: &["gpu_nvlink_errors"],
    },
    Plan {
        kind: Kind::Straggler,
        name: "rank half as slow again",
        of_200: 8,
        lasting: (1_500, 2_400),
        on: On::Any,
        slot: Slot::Taken,
        must: &["train_straggler"],
        may: &["train_worst_fraction", "train_throughput_drop"],
    },
    Plan {
        kind: Kind::LossNan,
        name: "loss NaN",
        of_200: 8,
        lasting: (600, 1_500),
        on: On::Any,
        slot: Slot::Taken,
        must: &["train_loss_nan"],
        may: &["train_gradnorm_spike", "train_loss_spike"],
    },
    Plan {
        kind: Kind::Stall,
        name: "collective hangs",
        of_200: 8,
        lasting: (1_200, 1_800),
        on: On::Any,
        slot: Slot::Taken,
        must: &["train_stall_gpu_busy", "train_stall"],
        may: &["train_ckpt_overdue", "train_throughput_drop"],
    },
    Plan {
        kind: Kind::DiskFills,
        name: "disk fills up",
        of_200: 8,
        lasting: (12_700, 12_900),
        on: On::TrainingButTwo,
        slot: Slot::Ignored,
        must: &["disk_fill_4h", "disk_space_low"],
        may: &["disk_fill_24h", "disk_full"],
    },
    Plan {
        kind: Kind::HostDown,
        name: "machine goes down",
        of_200: 8,
        lasting: (600, 1_500),
        on: On::Any,
        slot: Slot::Taken,
        must: &["host_silent", "host_reboot_unexpected"],
        may: &["gpu_count_low", "ib_ports_or_rate_low", "train_util_collapse", "train_throughput_drop"],
    },
    Plan {
        kind: Kind::IbFlap,
        name: "InfiniBand link flaps",
        of_200: 8,
        lasting: (12, 40),
        on: On::Training,
        slot: Slot::Works,
        must: &["ib_link_downed"],
        may: &["ib_ports_or_rate_low", "ib_degraded_repeat"],
    },
    Plan {
        kind: Kind::ServeErrors,
        name: "service fails requests",
        of_200: 4,
        lasting: (1_500, 2_400),
        on: On::Any,
        slot: Slot::Taken,
        must: &["serve_burn_fast"],
        may: &["serve_burn_slow"],
    },
    Plan {
        kind: Kind::GpuProcessOom,
        name: "OOM kill of a GPU process",
        of_200: 8,
        lasting: (30, 31),
        on: On::TrainingOrServing,
        slot: Slot::Taken,
        must: &["host_oom_kill_gpu_process", "host_oom_kill"],
        may: &["cgroup_oom_kill", "train_util_collapse"],
    },
    Plan {
        kind: Kind::StreamStuck,
        name: "stream does nothing",
        of_200: 6,
        lasting: (1_200, 1_800),
        on: On::Any,
        slot: Slot::Taken,
        must: &["job_no_progress"],
        may: &["job_watermark_behind", "job_lag_growing"],
    },
    Plan {
        kind: Kind::XidStorm,
        name: "XID 31 again and again",
        of_200: 6,
        lasting: (400, 700),
        on: On::Any,
        slot: Slot::Works,
        must: &["gpu_xid_application"],
        may: &["gpu_xid31_repeat_same", "gpu_xid_burst_repeat"],
    },
    Plan {
        kind: Kind::CgroupOom,
        name: "OOM kill at a job's own limit",
        of_200: 8,
        lasting: (30, 31),
        on: On::TrainingOrServing,
        slot: Slot::Taken,
        must: &["cgroup_oom_kill", "host_oom_kill"],
        may: &["train_util_collapse"],
    },
    Plan {
        kind: Kind::CgroupFull,
        name: "job fills its memory",
        of_200: 6,
        lasting: (1_200, 1_800),
        on: On::TrainingOrServing,
        slot: Slot::Taken,
        must: &["cgroup_memory_limit"],
        may: &[],
    },
    Plan {
        kind: Kind::Throttled,
        name: "container throttled",
        of_200: 6,
        lasting: (1_800, 2_700),
        on: On::Serving,
        slot: Slot::Ignored,
        must: &["cgroup_throttled"],
        may: &[],
    },
    Plan {
        kind: Kind::HostUncorrectable,
        name: "uncorrectable error of a DIMM",
        of_200: 8,
        lasting: (30, 31),
        on: On::Any,
        slot: Slot::Taken,
        must: &["host_memory_uncorrected", "host_machine_check"],
        may: &["train_util_collapse"],
    },
    Plan {
        kind: Kind::DimmWears,
        name: "DIMM wears out",
        of_200: 6,
        lasting: (2_400, 3_600),
        on: On::Any,
        slot: Slot::Ignored,
        must: &["host_memory_corrected"],
        may: &["host_machine_check"],
    },
    Plan {
        kind: Kind::ClockAlone,
        name: "nobody keeps the clock",
        of_200: 8,
        lasting: (1_200, 2_400),
        on: On::Any,
        slot: Slot::Ignored,
        must: &["host_clock_unsynchronised"],
        may: &[],
    },
    Plan {
        kind: Kind::LinkLow,
        name: "PCIe link of a card low",
        of_200: 8,
        lasting: (1_500, 3_600),
        on: On::Any,
        slot: Slot::Ignored,
        must: &["host_pcie_link_low"],
        may: &[],
    },
    Plan {
        kind: Kind::PcieFatal,
        name: "fatal PCIe error",
        of_200: 6,
        lasting: (30, 31),
        on: On::Any,
        slot: Slot::Ignored,
        must: &["host_pcie_errors"],
        may: &[],
    },
    Plan {
        kind: Kind::PcieNoisy,
        name: "PCIe link corrects on",
        of_200: 4,
        lasting: (900, 1_800),
        on: On::Any,
        slot: Slot::Ignored,
        must: &["host_pcie_correctable"],
        may: &[],
    },
    Plan {
        kind: Kind::NvlinkBits,
        name: "wrong bits of an NVLink",
        of_200: 6,
        lasting: (900, 2_400),
        on: On::Newest,
        slot: Slot::Works,
        must: &["gpu_nvlink_bit_errors"],
        may: &["gpu_nvlink_errors"],
    },
    Plan {
        kind: Kind::FabricIll,
        name: "NVLink fabric degraded",
        of_200: 4,
        lasting: (900, 2_400),
        on: On::Training,
        slot: Slot::Works,
        must: &["gpu_fabric_degraded"],
        may: &[],
    },
    Plan {
        kind: Kind::BadSensor,
        name: "sensor of a GPU broken",
        of_200: 4,
        lasting: (600, 1_500),
        on: On::Training,
        slot: Slot::Works,
        must: &["tidewatch_values_cleaned"],
        may: &[],
    },
];

/// Time that must lie between two faults of one machine, job or service, seconds.
const APART: i64 = 4_500;
/// Time without faults at the start, so that what is usual is known.
const QUIET: i64 = 4_500;

/// Places `count` faults over the day, where they do not disturb one another.
pub fn faults(
    places: &Places,
    jobs: &Jobs,
    count: usize,
    duration: i64,
    seed: u64,
    nuisances: &[Happening],
) -> Vec<Happening> {
    let dice = Dice::new(seed, 8);
    let mut faults: Vec<Happening> = Vec::new();
    // Machines and slots that are taken, and from when until when.
    let mut taken: Vec<(Of, usize, i64, i64)> = nuisances
        .iter()
        .filter(|happening| matches!(happening.kind, Kind::PlannedReboot | Kind::JobRestart | Kind::StreamRedeploy))
        .map(|happening| (happening.kind.of(), happening.to, happening.from, happening.until))
        .collect();
    for plan in &PLANS {
        for _ in 0..(plan.of_200 * count).div_ceil(200) {
            for _ in 0..400 {
                let lasts = dice.between(plan.lasting.0, plan.lasting.1);
                let from = dice.between(QUIET, duration - lasts - 900);
                let until = from + lasts;
                let Some((to, places_of)) = target(plan, places, jobs, &dice, from, until) else { continue };
                let overlaps = |of: Of, index: usize| {
                    taken.iter().any(|(other, at, begins, ends)| {
                        *other == of && *at == index && from < ends + APART && begins - APART < until
                    })
                };
                if places_of.iter().any(|(of, index)| overlaps(*of, *index)) {
                    continue;
                }
                taken.extend(places_of.into_iter().map(|(of, index)| (of, index, from, until)));
                faults.push(Happening { kind: plan.kind, from, until, to, amount: 1.0 });
                break;
            }
        }
    }
    faults.truncate(count);
    faults
}

/// Somewhere where it can happen, and what it disturbs there.
fn target(
    plan: &Plan,
    places: &Places,
    jobs: &Jobs,
    dice: &Dice,
    from: i64,
    until: i64,
) -> Option<(usize, Vec<(Of, usize)>)> {
    let works = |slot: usize| {
        jobs.slots[slot].job_at(from).is_some_and(|job| job.start + 5_400 < from && until + 1_800 < job.end)
    };
    let of = plan.kind.of();
    match of {
        Of::Slot => {
            let slot = dice.of(0..jobs.slots.len());
            // A rank that is slow shows where each tells the time of its own work.
            let fits = plan.kind != Kind::Straggler || jobs.slots[slot].own_work;
            return (fits && works(slot)).then(|| (slot, vec![(of, slot)]));
        }
        Of::Service => {
            let service = dice.of(0..SERVICES.len());
            return Some((service, vec![(of, service)]));
        }
        Of::Other => {
            let stream = dice.of(0..STREAMS.len());
            // The third has nothing to do at night.
            return (stream != 2 || from % 86_400 > 5 * 3_600).then(|| (stream, vec![(of, stream)]));
        }
        Of::Gpu | Of::Host => {}
    }
    let hosts = plan.on.hosts(places, jobs);
    let to = if of == Of::Gpu { dice.of(gpus_of(&hosts)) } else { dice.of(hosts) };
    let host = if of == Of::Gpu { to / PER_HOST } else { to };
    let mut disturbed = vec![(Of::Host, host)];
    if plan.kind == Kind::BadSensor {
        // One at a time: all are counted as one.
        disturbed.push((Of::Other, STREAMS.len()));
    }
    if let Some(slot) = jobs.slot_of(host) {
        if plan.slot != Slot::Ignored && !works(slot) {
            return None;
        }
        if plan.slot == Slot::Taken {
            disturbed.push((Of::Slot, slot));
        }
    }
    Some((to, disturbed))
}

impl On {
    fn hosts(self, places: &Places, jobs: &Jobs) -> Range<usize> {
        let training = places.with(Role::Training);
        match self {
            On::Training => training,
            On::TrainingButTwo if training.len() > 4 => training.start + 2..training.end,
            On::TrainingOrServing => 0..places.with(Role::Serving).end,
            On::Serving => places.with(Role::Serving),
            On::Newest => jobs.newest(),
            On::Any | On::TrainingButTwo => 0..places.hosts.len(),
        }
    }
}

/// What is true of the faults among the happenings.
pub fn truth(happenings: &[Happening], places: &Places, jobs: &Jobs, start: Timestamp) -> Vec<FaultTruth> {
    let faults = happenings.iter().filter_map(|happening| {
        let plan = PLANS.iter().find(|plan| plan.kind == happening.kind)?;
        let mut labels = BTreeMap::new();
        let mut label = |name: &str, value: &str| labels.insert(name.to_string(), value.to_string());
        let slot = match happening.kind.of() {
            Of::Gpu => {
                label("gpu_uuid", &places.gpus[happening.to]);
                label("host", &places.hosts[happening.to / PER_HOST]);
                jobs.slot_of(happening.to / PER_HOST)
            }
            Of::Host => {
                label("host", &places.hosts[happening.to]);
                jobs.slot_of(happening.to)
            }
            Of::Slot => Some(happening.to),
            Of::Service => {
                label("service", SERVICES[happening.to].name);
                None
            }
            Of::Other => {
                label("job", STREAMS[happening.to]);
                None
            }
        };
        if happening.kind == Kind::BadSensor {
            label("column_name", MEMORY_TEMPERATURE);
        }
        if let Some(job) = slot.and_then(|slot| jobs.slots[slot].job_at(happening.from)) {
            label("job", &job.name);
        }
        let names = |rules: &[&str]| rules.iter().map(|rule| rule.to_string()).collect();
        Some(FaultTruth {
            kind: plan.name.to_string(),
            start: start + Span::seconds(happening.from),
            end: start + Span::seconds(happening.until),
            must: names(plan.must),
            may: names(plan.may),
            labels,
        })
    });
    faults.collect()
}
