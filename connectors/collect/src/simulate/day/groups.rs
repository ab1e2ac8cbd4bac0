//! Control groups of a day: what jobs, pods and their containers, services and slices use and lack; the table `cgroup`.

use std::collections::BTreeMap;

use tidewatch_model::{Span, Timestamp};

use super::gpus::{Gpus, phase_of};
use super::happenings::{Happening, Kind, Marks, SILENT};
use super::jobs::{Jobs, Phase};
use super::machines::MEMORY;
use super::places::{Dice, PER_HOST, Places, Role};
use super::serving::Serving;
use crate::rows::{Cell, Rows, RowsError};

/// Whose a group is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owner {
    Job(String),
    Pod(String),
    Container(String, String),
    Unit(Option<&'static str>),
}

/// A group at a moment.
#[derive(Debug)]
struct Group {
    path: String,
    owner: Owner,
    /// The most memory that it may use, bytes.
    limit: Option<f64>,
    /// What it uses of that without caches; of the machine's where it has no limit.
    used: f64,
    /// Bytes a second that it reads from files, which stay in caches.
    reads: f64,
    /// Cores that it keeps busy.
    cores: f64,
    /// The share of its periods in which it is held back; `None` without a limit.
    held_back: Option<f64>,
}

/// What a group has counted.
#[derive(Debug, Clone, Default)]
struct Counts {
    cache: f64,
    kills: i64,
    seconds: f64,
    held_seconds: f64,
    periods: i64,
    held_periods: i64,
    read: f64,
    seen: i64,
}

/// All machines' groups.
#[derive(Debug)]
pub struct Groups {
    counts: BTreeMap<(usize, String), Counts>,
    /// Machines on which the kernel has killed a process since the last rows, and why.
    kills: Vec<(usize, Kind)>,
    /// How full the memory of a machine's job or pod has become, from 0 to 1.
    full: Vec<f64>,
    dice: Dice,
    start: Timestamp,
}

/// Time between two rows, seconds; of services and slices it is thirty.
const STEP: f64 = 10.0;
/// A container's limit is looked at every tenth of a second.
const PERIODS: f64 = 10.0 * STEP;
/// Between two runs of a job of Kubernetes, seconds.
const CRON: i64 = 1_800;

impl Groups {
    /// At the start of the day.
    pub fn new(places: &Places, seed: u64, start: Timestamp) -> Groups {
        Groups {
            counts: BTreeMap::new(),
            kills: vec![],
            full: vec![0.0; places.hosts.len()],
            dice: Dice::new(seed, 11),
            start,
        }
    }

    /// Takes note of processes that are killed.
    pub fn note(&mut self, begun: &[Happening]) {
        for happening in begun {
            match happening.kind {
                Kind::CgroupOom | Kind::UserOom => self.kills.push((happening.to, happening.kind)),
                Kind::GpuProcessOom => self.kills.push((happening.to / PER_HOST, happening.kind)),
                _ => {}
            }
        }
    }

    /// The rows of `cgroup`, every ten seconds.
    pub fn rows(
        &mut self,
        now: i64,
        places: &Places,
        jobs: &Jobs,
        gpus: &Gpus,
        serving: &Serving,
        marks: &Marks,
    ) -> Result<Rows, RowsError> {
        let mut rows = Rows::of("cgroup")?;
        let kills = std::mem::take(&mut self.kills);
        for (host, name) in places.hosts.iter().enumerate() {
            let bits = marks.hosts[host];
            let has = |kind: Kind| bits & kind.bit() != 0;
            if has(Kind::PlannedReboot) || has(Kind::HostDown) {
                continue;
            }
            // It takes five minutes until it is full.
            self.full[host] = if has(Kind::CgroupFull) { (self.full[host] + STEP / 300.0).min(1.0) } else { 0.0 };
            let mut groups = match places.roles[host] {
                Role::Training => job(jobs, host),
                Role::Serving => pods(now, serving, host),
                Role::Notebooks => notebooks(gpus, host),
            };
            self.strain(&mut groups, host, bits);
            let killed = kills.iter().filter(|(of, _)| *of == host);
            let killed: Vec<usize> = killed.flat_map(|(_, kind)| victims(*kind, &groups)).collect();
            groups.extend(units(places.roles[host]));
            let at = self.start + Span::seconds(now) + Span::micros(phase_of(host));
            for (index, group) in groups.into_iter().enumerate() {
                let counts = self.counts.entry((host, group.path.clone())).or_default();
                counts.kills += killed.iter().filter(|victim| **victim == index).count() as i64;
                counts.add(&group, now, &self.dice);
                if bits & SILENT == 0 && (now % 30 == 0 || !matches!(group.owner, Owner::Unit(_))) {
                    rows.push(at, counts.cells(name, &group))?;
                }
            }
        }
        // What has ended is gone, with what it counted.
        self.counts.retain(|_, counts| counts.seen == now);
        Ok(rows)
    }

    /// What happens to the first group of a machine, which of a pod is its container too.
    fn strain(&self, groups: &mut [Group], host: usize, bits: u128) {
        let has = |kind: Kind| bits & kind.bit() != 0;
        let first = if matches!(groups.first(), Some(Group { owner: Owner::Pod(_), .. })) { 2 } else { 1 };
        for group in groups.iter_mut().take(first) {
            group.used += (0.985 - group.used).max(0.0) * self.full[host];
            if has(Kind::MemoryPeak) {
                group.used = 0.975;
            }
            if has(Kind::Throttles) || has(Kind::Throttled) {
                group.held_back = group.held_back.map(|_| 0.55);
            }
        }
    }
}

/// The job of a machine, of which Slurm's group holds all processes. Its data stays in caches up to the limit.
fn job(jobs: &Jobs, host: usize) -> Vec<Group> {
    let (phase, Some(name)) = jobs.on(host) else { return vec![] };
    let large = host % 9 == 4;
    let (used, reads, cores) = match phase {
        Phase::Loading => (0.25, 4e9, 90.0),
        Phase::Checkpoint | Phase::Saving => (0.47, 1e8, 30.0),
        Phase::Evaluation => (0.4, 1e9, 40.0),
        _ => (0.42, 2e9, 42.0),
    };
    vec![Group {
        path: format!("/system.slice/slurmstepd.scope/job_{name}"),
        owner: Owner::Job(name.to_string()),
        limit: Some(0.93 * MEMORY),
        // Some jobs come near their limit and stay below it.
        used: if large && phase != Phase::Loading { used + 0.45 } else { used },
        reads,
        cores,
        held_back: None,
    }]
}

/// Pods of a machine that serves: a gateway that is always there, the replicas, and for one to three minutes of each half hour
/// one that ends.
fn pods(now: i64, serving: &Serving, host: usize) -> Vec<Group> {
    let mut pods = pod(&format!("gateway-{host}"), 8e9, (0.45, 2e6), (2.0, 0.02));
    for (name, load) in serving.pods(host) {
        pods.extend(pod(name, 512e9, (0.3 + 0.2 * load, 2e8), (6.0 + 20.0 * load, 0.03 + 0.15 * load)));
    }
    let begun = now + host as i64 * 613;
    if begun % CRON < 60 + (begun / CRON * 37) % 120 {
        pods.extend(pod(&format!("report-{host}-{}", begun / CRON), 1e9, (0.9, 5e7), (1.0, 0.4)));
    }
    pods
}

/// A pod and its container, which has its limits: memory, use and reads of it, cores and how often it is held back.
fn pod(name: &str, limit: f64, (used, reads): (f64, f64), (cores, held_back): (f64, f64)) -> Vec<Group> {
    let [high, low] = [name_hash(name, 1), name_hash(name, 2)];
    let uid = format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xFFFF,
        high & 0xFFF,
        low >> 52,
        low & 0xFFFF_FFFF_FFFF
    );
    let id: String = (3..7).map(|part| format!("{:016x}", name_hash(name, part))).collect();
    let path =
        format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
    let group =
        |path: String, owner| Group { path, owner, limit: Some(limit), used, reads, cores, held_back: Some(held_back) };
    let container = format!("{path}/cri-containerd-{id}.scope");
    vec![group(path, Owner::Pod(uid.clone())), group(container, Owner::Container(uid, id))]
}

/// Notebooks of a machine, each a job of its own.
fn notebooks(gpus: &Gpus, host: usize) -> Vec<Group> {
    let notebook = |(number, busy): (i64, f64)| Group {
        path: format!("/system.slice/slurmstepd.scope/job_{number}"),
        owner: Owner::Job(number.to_string()),
        limit: Some(200e9),
        used: 0.2 + 0.5 * busy,
        reads: 2e7 + 5e8 * busy,
        cores: 1.0 + 8.0 * busy,
        held_back: None,
    };
    gpus.notebooks(host).map(notebook).collect()
}

/// Services and slices of a machine.
fn units(role: Role) -> [Group; 4] {
    let of_jobs = if role == Role::Serving { "kubelet.service" } else { "slurmd.service" };
    let units = [
        ("/system.slice", None, 0.05),
        ("/user.slice", None, 0.001),
        ("/system.slice/", Some("tidewatch-agent.service"), 1e-5),
        ("/system.slice/", Some(of_jobs), 1e-4),
    ];
    units.map(|(path, unit, used)| Group {
        path: format!("{path}{}", unit.unwrap_or_default()),
        owner: Owner::Unit(unit),
        limit: None,
        used,
        reads: 1e5,
        cores: 0.05,
        held_back: None,
    })
}

/// Whose process is killed: at a limit that of the first group, when a GPU's process is killed that of a job or replica. Pods count
/// what their containers count.
fn victims(kind: Kind, groups: &[Group]) -> std::ops::Range<usize> {
    let is_pod = |at: usize| matches!(groups.get(at), Some(Group { owner: Owner::Pod(_), .. }));
    let first = if kind == Kind::GpuProcessOom && is_pod(0) { 2 } else { 0 };
    let many = if is_pod(first) { 2 } else { 1 };
    first.min(groups.len())..(first + many).min(groups.len())
}

/// FNV-1a.
fn name_hash(name: &str, salt: u64) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325 ^ salt, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}

impl Counts {
    /// Ten seconds more.
    fn add(&mut self, group: &Group, now: i64, dice: &Dice) {
        let [much, often, ..] = dice.five();
        self.seen = now;
        let limit = group.limit.unwrap_or(MEMORY);
        let room = limit * (1.0 - group.used);
        let read = group.reads * STEP * (1.0 + 0.3 * much);
        // A page that is not needed goes when another one comes: caches fill what is left.
        self.cache = (self.cache + read).min(room);
        self.read += read;
        self.seconds += group.cores * STEP * (1.0 + 0.1 * much);
        if let Some(share) = group.held_back {
            let periods = (PERIODS * (0.9 + 0.1 * often)).round();
            let held = (periods * (share * (1.0 + 0.3 * much)).min(1.0)).round();
            self.periods += periods as i64;
            self.held_periods += held as i64;
            self.held_seconds += 0.05 * held * group.cores;
        }
    }

    fn cells<'a>(&self, host: &'a str, group: &'a Group) -> [(&'a str, Cell); 21] {
        let (mut job, mut pod, mut container, mut unit) = (None, None, None, None);
        match &group.owner {
            Owner::Job(name) => job = Some(name.as_str()),
            Owner::Pod(uid) => pod = Some(uid.as_str()),
            Owner::Container(uid, id) => (pod, container) = (Some(uid.as_str()), Some(id.as_str())),
            Owner::Unit(name) => unit = *name,
        }
        let used = group.used * group.limit.unwrap_or(MEMORY);
        let held_back = group.held_back.unwrap_or(0.0);
        [
            ("host", host.into()),
            ("cgroup", group.path.as_str().into()),
            ("job", job.into()),
            ("pod", pod.into()),
            ("container", container.into()),
            ("unit", unit.into()),
            ("memory_bytes", ((used + self.cache) as i64).into()),
            ("memory_used_bytes", (used as i64).into()),
            ("memory_limit_bytes", group.limit.map(|limit| limit as i64).into()),
            ("oom_kills_total", self.kills.into()),
            ("cpu_seconds_total", self.seconds.into()),
            ("throttled_seconds_total", self.held_seconds.into()),
            ("cpu_periods_total", self.periods.into()),
            ("throttled_periods_total", self.held_periods.into()),
            ("psi_cpu_some_ratio", (0.5 * held_back).into()),
            ("psi_memory_some_ratio", 0.0.into()),
            ("psi_memory_full_ratio", 0.0.into()),
            ("psi_io_some_ratio", 0.01.into()),
            ("psi_io_full_ratio", 0.005.into()),
            ("read_bytes_total", (self.read as i64).into()),
            ("written_bytes_total", ((0.1 * self.read) as i64).into()),
        ]
    }
}
