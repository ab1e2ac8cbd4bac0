//! Faults of a day: where and when they happen, and which rules must and which may tell of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidewatch_model::{Span, Timestamp};

use super::feeds::STREAMS;
use super::happenings::{Happening, Kind, Of};
use super::jobs::Jobs;
use super::places::{Dice, PER_HOST, Places, Role};
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

/// A kind of fault: how often among 200, how long in seconds, what must fire and what may.
struct Plan {
    kind: Kind,
    name: &'static str,
    of_200: usize,
    lasting: (i64, i64),
    must: &'static [&'static str],
    may: &'static [&'static str],
}

const PLANS: [Plan; 15] = [
    Plan {
        kind: Kind::GpuOffBus,
        name: "GPU off the bus",
        of_200: 18,
        lasting: (1_500, 3_000),
        must: &["gpu_xid_critical", "gpu_missing", "gpu_count_low"],
        may: &["train_util_collapse", "train_throughput_drop"],
    },
    Plan {
        kind: Kind::Uncorrectable,
        name: "uncorrectable memory error",
        of_200: 18,
        lasting: (600, 1_800),
        must: &["gpu_ecc_uncorrectable", "gpu_xid_critical", "gpu_row_remap_pending"],
        may: &["train_util_collapse"],
    },
    Plan {
        kind: Kind::Overheat,
        name: "cooling of a GPU fails",
        of_200: 18,
        lasting: (900, 1_800),
        must: &["gpu_overheating", "gpu_thermal_throttle"],
        may: &["gpu_temperature_margin", "gpu_power_outlier", "gpu_clock_low_under_load", "gpu_memory_temperature"],
    },
    Plan {
        kind: Kind::PcieWidth,
        name: "PCIe lanes lost",
        of_200: 18,
        lasting: (900, 3_600),
        must: &["gpu_pcie_width_low"],
        may: &[],
    },
    Plan {
        kind: Kind::NvlinkDown,
        name: "NVLink down",
        of_200: 14,
        lasting: (600, 3_600),
        must: &["gpu_nvlink_down"],
        may: &["gpu_nvlink_errors"],
    },
    Plan {
        kind: Kind::Straggler,
        name: "rank half as slow again",
        of_200: 12,
        lasting: (1_500, 2_400),
        must: &["train_straggler"],
        may: &["train_worst_fraction", "train_throughput_drop"],
    },
    Plan {
        kind: Kind::LossNan,
        name: "loss NaN",
        of_200: 12,
        lasting: (600, 1_500),
        must: &["train_loss_nan"],
        may: &["train_gradnorm_spike", "train_loss_spike"],
    },
    Plan {
        kind: Kind::Stall,
        name: "collective hangs",
        of_200: 14,
        lasting: (1_200, 1_800),
        must: &["train_stall_gpu_busy", "train_stall"],
        may: &["train_ckpt_overdue", "train_throughput_drop"],
    },
    Plan {
        kind: Kind::DiskFills,
        name: "disk fills up",
        of_200: 12,
        lasting: (12_700, 12_900),
        must: &["disk_fill_4h", "disk_space_low"],
        may: &["disk_fill_24h", "disk_full"],
    },
    Plan {
        kind: Kind::HostDown,
        name: "machine goes down",
        of_200: 12,
        lasting: (600, 1_500),
        must: &["host_silent", "host_reboot_unexpected"],
        may: &["gpu_count_low", "ib_ports_or_rate_low", "train_util_collapse", "train_throughput_drop"],
    },
    Plan {
        kind: Kind::IbFlap,
        name: "InfiniBand link flaps",
        of_200: 12,
        lasting: (12, 40),
        must: &["ib_link_downed"],
        may: &["ib_ports_or_rate_low", "ib_degraded_repeat"],
    },
    Plan {
        kind: Kind::ServeErrors,
        name: "service fails requests",
        of_200: 6,
        lasting: (1_500, 2_400),
        must: &["serve_burn_fast"],
        may: &["serve_burn_slow"],
    },
    Plan {
        kind: Kind::GpuProcessOom,
        name: "OOM kill of a GPU process",
        of_200: 14,
        lasting: (30, 31),
        must: &["host_oom_kill_gpu_process", "host_oom_kill"],
        may: &["train_util_collapse"],
    },
    Plan {
        kind: Kind::StreamStuck,
        name: "stream does nothing",
        of_200: 10,
        lasting: (1_200, 1_800),
        must: &["job_no_progress"],
        may: &["job_watermark_behind", "job_lag_growing"],
    },
    Plan {
        kind: Kind::XidStorm,
        name: "XID 31 again and again",
        of_200: 10,
        lasting: (400, 700),
        must: &["gpu_xid_application"],
        may: &["gpu_xid31_repeat_same", "gpu_xid_burst_repeat"],
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
                let Some((to, places_of)) = target(plan.kind, places, jobs, &dice, from, until) else { continue };
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
    kind: Kind,
    places: &Places,
    jobs: &Jobs,
    dice: &Dice,
    from: i64,
    until: i64,
) -> Option<(usize, Vec<(Of, usize)>)> {
    let training = places.with(Role::Training);
    let gpus = |hosts: std::ops::Range<usize>| hosts.start * PER_HOST..hosts.end * PER_HOST;
    let works = |slot: usize| {
        jobs.slots[slot].job_at(from).is_some_and(|job| job.start + 5_400 < from && until + 1_800 < job.end)
    };
    match kind.of() {
        Of::Slot => {
            let slot = dice.of(0..jobs.slots.len());
            // A rank that is slow shows where each tells the time of its own work.
            let fits = kind != Kind::Straggler || jobs.slots[slot].own_work;
            (fits && works(slot)).then(|| (slot, vec![(Of::Slot, slot)]))
        }
        Of::Service => {
            let service = dice.of(0..SERVICES.len());
            Some((service, vec![(Of::Service, service)]))
        }
        Of::Other => {
            let stream = dice.of(0..STREAMS.len());
            // The third has nothing to do at night.
            (stream != 2 || from % 86_400 > 5 * 3_600).then(|| (stream, vec![(Of::Other, stream)]))
        }
        of => {
            let hosts = match kind {
                Kind::NvlinkDown | Kind::IbFlap | Kind::Overheat => training,
                Kind::DiskFills if training.len() > 4 => training.start + 2..training.end,
                Kind::PcieWidth | Kind::GpuProcessOom => 0..places.with(Role::Serving).end,
                _ => 0..places.hosts.len(),
            };
            let to = if of == Of::Gpu { dice.of(gpus(hosts)) } else { dice.of(hosts) };
            let host = if of == Of::Gpu { to / PER_HOST } else { to };
            let mut disturbed = vec![(Of::Host, host)];
            if let Some(slot) = jobs.slot_of(host) {
                if kind == Kind::DiskFills {
                    return Some((to, disturbed));
                }
                if !works(slot) {
                    return None;
                }
                if matches!(kind, Kind::GpuOffBus | Kind::Uncorrectable | Kind::GpuProcessOom | Kind::HostDown) {
                    disturbed.push((Of::Slot, slot));
                }
            }
            Some((to, disturbed))
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
