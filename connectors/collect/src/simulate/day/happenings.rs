//! What happens in a day besides work: the usual nuisances that nobody should be woken for, and faults.

use super::jobs::Jobs;
use super::places::{Dice, PER_HOST, Places, Role, gpus_of};

/// What happens: nuisances first, then faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A machine's rows do not come for up to 100 seconds.
    Gap,
    /// The agent is replaced by a newer one: seconds without rows, its counters start anew.
    AgentRestart,
    /// One sample of a GPU is nonsense.
    Glitch,
    /// A GPU at 88 degrees for less than a minute.
    ShortHeat,
    /// The power limit holds a GPU down for less than a minute.
    ShortCap,
    /// Corrected memory errors of a GPU.
    CorrectedEcc,
    /// An XID of the application's making.
    AppXid,
    /// A machine is rebooted, and the table `maintenance` says so.
    PlannedReboot,
    /// One pass of the GPU collector fails.
    Hiccup,
    /// All cores of a machine are busy for some seconds.
    CpuBurst,
    /// Little memory is left on a machine for less than a minute.
    MemoryDip,
    /// The clock is off for three minutes after its source was changed.
    ClockStep,
    /// Packets are lost for less than a minute.
    Retransmits,
    /// A link goes down and up once.
    LinkFlap,
    /// Symbol errors of an InfiniBand port, as PAM4 links have them.
    SymbolErrors,
    /// A corrected error of a DIMM.
    CorrectedDimm,
    /// The kernel says once that a task waits for NFS.
    HungOnce,
    /// A notebook reaches its own memory limit, and the kernel kills a process of it that is on no GPU.
    UserOom,
    /// A large data set is copied to a machine.
    BigCopy,
    /// Three percent of a service's requests fail for a minute.
    ErrorBlip,
    /// More requests than usual for three minutes.
    Burst,
    /// The KV caches of a service are full for two minutes.
    KvFull,
    /// The replicas of a service are replaced one after the other.
    Deployment,
    /// A job's GPUs wait in a collective for 70 seconds.
    ShortHang,
    /// A rank is slow for two minutes.
    ShortStraggler,
    /// One step has a loss that is NaN, and is left out.
    OneNan,
    /// The gradient's norm is four times the usual for a step.
    GradBump,
    /// A job waits for data for some minutes.
    DataWait,
    /// A job fails and is started again from its checkpoint.
    JobRestart,
    /// A streaming job is stopped with a savepoint and started anew.
    StreamRedeploy,
    /// A new version of Airflow's scheduler.
    AirflowRollout,
    /// A receiver does not take three notices at once.
    NoticeRetry,
    /// A job, or a pod, needs nearly all of its memory for less than three minutes.
    MemoryPeak,
    /// A container is held back by its CPU limit in half of its periods for up to thirteen minutes.
    Throttles,
    /// The clock's keeper is started anew or finds no server: nobody keeps the clock for a minute, now and then for nine.
    ClockUnkept,
    /// A memory module is corrected some sixty times in an hour.
    DimmRun,
    /// A PCIe link corrects some hundred errors at once.
    PcieBurst,
    /// A PCIe link is trained anew and has half its lanes for some minutes.
    LinkRetrains,
    /// An NVLink recovers, and has more wrong bits than usual for a while.
    NvlinkRecovers,
    /// A route through the NVSwitch fabric recovers for some minutes.
    RouteRecovers,
    /// One sample of a GPU can't be: cleaning takes it out, and counts it.
    Impossible,
    /// Tidewatch is started anew: its own figures are away for a minute, and begin at 0.
    EngineRestart,

    /// Fault: a GPU falls off the bus.
    GpuOffBus,
    /// Fault: an uncorrectable memory error.
    Uncorrectable,
    /// Fault: the cooling of a GPU fails.
    Overheat,
    /// Fault: the link to the host has half its lanes.
    PcieWidth,
    /// Fault: an NVLink is down.
    NvlinkDown,
    /// Fault: a rank is half as slow again.
    Straggler,
    /// Fault: the loss is NaN from here on.
    LossNan,
    /// Fault: a collective hangs.
    Stall,
    /// Fault: a file system fills up.
    DiskFills,
    /// Fault: a machine goes down, and comes back.
    HostDown,
    /// Fault: an InfiniBand link fails and is trained anew.
    IbFlap,
    /// Fault: a fifth of a service's requests fail.
    ServeErrors,
    /// Fault: the kernel kills a process that is on a GPU.
    GpuProcessOom,
    /// Fault: a stage of a streaming job does nothing any more.
    StreamStuck,
    /// Fault: an application makes XID 31 again and again.
    XidStorm,
    /// Fault: the kernel kills a process of a job or pod that has reached its own memory limit.
    CgroupOom,
    /// Fault: a job or pod fills its memory up to the limit, and stays there.
    CgroupFull,
    /// Fault: a container is held back by its CPU limit in half of its periods.
    Throttled,
    /// Fault: a memory module gives back what could not be corrected.
    HostUncorrectable,
    /// Fault: a memory module is corrected six times a minute.
    DimmWears,
    /// Fault: nobody keeps the clock of a machine.
    ClockAlone,
    /// Fault: a PCIe link has half its lanes, or half its speed.
    LinkLow,
    /// Fault: a PCIe device reports a fatal error.
    PcieFatal,
    /// Fault: a PCIe link corrects four errors a second.
    PcieNoisy,
    /// Fault: an NVLink has too many wrong bits, and recoveries fail.
    NvlinkBits,
    /// Fault: a GPU's way into the NVSwitch fabric has less bandwidth.
    FabricIll,
    /// Fault: a sensor of a GPU says what can't be.
    BadSensor,
}

impl Kind {
    /// Its bit in marks.
    pub const fn bit(self) -> u128 {
        1 << self as u8
    }
}

/// Something that happens, in seconds after the start.
#[derive(Debug, Clone, PartialEq)]
pub struct Happening {
    /// What.
    pub kind: Kind,
    /// From when.
    pub from: i64,
    /// Until when.
    pub until: i64,
    /// To which GPU, machine, slot of jobs, service or stream, by the kind.
    pub to: usize,
    /// How much of it, or which variant.
    pub amount: f64,
}

/// What a happening is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// A GPU, counted over the fleet.
    Gpu,
    /// A machine.
    Host,
    /// A slot of training jobs.
    Slot,
    /// A service.
    Service,
    /// A streaming job, or the fleet.
    Other,
}

impl Kind {
    /// What `to` counts.
    pub fn of(self) -> Of {
        use Kind::*;
        match self {
            Glitch | ShortHeat | ShortCap | CorrectedEcc | AppXid | NvlinkRecovers | RouteRecovers | Impossible
            | GpuOffBus | Uncorrectable | Overheat | PcieWidth | NvlinkDown | GpuProcessOom | XidStorm | NvlinkBits
            | FabricIll | BadSensor => Of::Gpu,
            Gap | AgentRestart | PlannedReboot | Hiccup | CpuBurst | MemoryDip | ClockStep | Retransmits | LinkFlap
            | SymbolErrors | CorrectedDimm | HungOnce | UserOom | BigCopy | MemoryPeak | Throttles | ClockUnkept
            | DimmRun | PcieBurst | LinkRetrains | DiskFills | HostDown | IbFlap | CgroupOom | CgroupFull
            | Throttled | HostUncorrectable | DimmWears | ClockAlone | LinkLow | PcieFatal | PcieNoisy => Of::Host,
            ShortHang | ShortStraggler | OneNan | GradBump | DataWait | JobRestart | Straggler | LossNan | Stall => {
                Of::Slot
            }
            ErrorBlip | Burst | KvFull | Deployment | ServeErrors => Of::Service,
            StreamRedeploy | AirflowRollout | NoticeRetry | EngineRestart | StreamStuck => Of::Other,
        }
    }
}

/// What goes on at the moment, a set of bits each.
#[derive(Debug, Default)]
pub struct Marks {
    /// By GPU.
    pub gpus: Vec<u128>,
    /// By machine.
    pub hosts: Vec<u128>,
    /// By slot of jobs.
    pub slots: Vec<u128>,
    /// By service.
    pub services: Vec<u128>,
    /// By streaming job; the fleet's are at 0.
    pub others: Vec<u128>,
}

/// Bits of what silences a machine.
pub const SILENT: u128 = Kind::Gap.bit() | Kind::AgentRestart.bit() | Kind::PlannedReboot.bit() | Kind::HostDown.bit();

/// The happenings in order of their beginnings, and those that go on.
#[derive(Debug)]
pub struct Calendar {
    /// All of them.
    pub all: Vec<Happening>,
    next: usize,
    active: Vec<usize>,
    /// What goes on.
    pub marks: Marks,
}

impl Calendar {
    /// Before the first of them.
    pub fn new(mut all: Vec<Happening>, gpus: usize, slots: usize, services: usize, others: usize) -> Calendar {
        all.sort_by_key(|happening| (happening.from, happening.kind, happening.to));
        let marks = Marks {
            gpus: vec![0; gpus],
            hosts: vec![0; gpus / PER_HOST],
            slots: vec![0; slots],
            services: vec![0; services],
            others: vec![0; others],
        };
        Calendar { all, next: 0, active: vec![], marks }
    }

    /// Moves on to the tick from `now` to `end`; returns what begins in it.
    pub fn advance(&mut self, now: i64, end: i64) -> Vec<Happening> {
        for marks in [
            &mut self.marks.gpus,
            &mut self.marks.hosts,
            &mut self.marks.slots,
            &mut self.marks.services,
            &mut self.marks.others,
        ] {
            marks.fill(0);
        }
        let first = self.next;
        while self.all.get(self.next).is_some_and(|happening| happening.from < end) {
            self.active.push(self.next);
            self.next += 1;
        }
        // What is over at once goes on for the tick in which it begins.
        self.active.retain(|at| *at >= first || self.all[*at].until > now);
        for happening in self.active.iter().map(|at| &self.all[*at]) {
            let marks = match happening.kind.of() {
                Of::Gpu => &mut self.marks.gpus,
                Of::Host => &mut self.marks.hosts,
                Of::Slot => &mut self.marks.slots,
                Of::Service => &mut self.marks.services,
                Of::Other => &mut self.marks.others,
            };
            if let Some(bits) = marks.get_mut(happening.to) {
                *bits |= happening.kind.bit();
            }
        }
        self.all[first..self.next].to_vec()
    }

    /// What goes on.
    pub fn active(&self) -> impl Iterator<Item = &Happening> {
        self.active.iter().map(|at| &self.all[*at])
    }
}

/// The nuisances of a day, as many as a fleet of a thousand GPUs has, and fewer in a shorter time or a smaller fleet.
pub fn nuisances(
    places: &Places,
    jobs: &Jobs,
    services: usize,
    streams: usize,
    duration: i64,
    seed: u64,
) -> Vec<Happening> {
    let dice = Dice::new(seed, 1);
    let slots = jobs.slots.len();
    let hosts = 0..places.hosts.len();
    let gpus = 0..places.gpus.len();
    let share = duration as f64 / 86_400.0 * places.gpus.len() as f64 / 1_000.0;
    let mut all = Vec::new();
    let mut some = |kind, a_day: f64, lasting: std::ops::Range<i64>, of: std::ops::Range<usize>, amount: f64| {
        for _ in 0..((a_day * share).round() as usize).max(1) {
            let from = dice.between(120, (duration - lasting.end).max(121));
            let amount = amount * (0.5 + dice.unit());
            all.push(Happening {
                kind,
                from,
                until: from + dice.between(lasting.start, lasting.end),
                to: dice.of(of.clone()),
                amount,
            });
        }
    };
    some(Kind::Gap, 80.0, 20..101, hosts.clone(), 1.0);
    some(Kind::Glitch, 250.0, 0..1, gpus.clone(), 4.0);
    some(Kind::ShortHeat, 12.0, 20..46, gpus.clone(), 1.0);
    some(Kind::ShortCap, 40.0, 20..51, gpus.clone(), 1.0);
    some(Kind::CorrectedEcc, 30.0, 0..1, gpus.clone(), 6.0);
    some(Kind::AppXid, 14.0, 0..1, gpus.clone(), 4.0);
    some(Kind::Hiccup, 30.0, 9..10, hosts.clone(), 1.0);
    some(Kind::CpuBurst, 60.0, 5..25, hosts.clone(), 1.0);
    some(Kind::MemoryDip, 15.0, 15..50, hosts.clone(), 1.0);
    some(Kind::ClockStep, 6.0, 120..240, hosts.clone(), 1.0);
    some(Kind::Retransmits, 20.0, 15..45, hosts.clone(), 1.0);
    some(Kind::LinkFlap, 6.0, 0..1, hosts.clone(), 1.0);
    some(Kind::SymbolErrors, 200.0, 0..1, places.with(Role::Training), 4.0);
    some(Kind::CorrectedDimm, 12.0, 0..1, hosts.clone(), 1.0);
    some(Kind::HungOnce, 6.0, 0..1, hosts.clone(), 1.0);
    some(Kind::UserOom, 3.0, 0..1, places.with(Role::Notebooks), 1.0);
    some(Kind::BigCopy, 3.0, 3_000..5_400, places.with(Role::Notebooks), 1.0);
    some(Kind::ErrorBlip, 10.0, 40..70, 0..services, 1.0);
    some(Kind::Burst, 12.0, 120..200, 0..services, 2.0);
    some(Kind::KvFull, 6.0, 60..150, 0..services, 1.0);
    some(Kind::ShortHang, 8.0, 40..71, 0..slots, 1.0);
    some(Kind::ShortStraggler, 10.0, 60..121, 0..slots, 1.0);
    some(Kind::OneNan, 6.0, 0..1, 0..slots, 1.0);
    some(Kind::GradBump, 12.0, 0..1, 0..slots, 1.0);
    some(Kind::DataWait, 4.0, 120..360, 0..slots, 1.0);
    some(Kind::JobRestart, 5.0, 180..360, 0..slots, 1.0);
    some(Kind::StreamRedeploy, 3.0, 60..150, 0..streams, 1.0);
    some(Kind::NoticeRetry, 4.0, 0..1, 0..1, 3.0);
    some(Kind::MemoryPeak, 30.0, 40..150, hosts.clone(), 1.0);
    some(Kind::Throttles, 20.0, 300..720, places.with(Role::Serving), 1.0);
    some(Kind::ClockUnkept, 10.0, 40..100, hosts.clone(), 1.0);
    some(Kind::ClockUnkept, 2.0, 300..540, hosts.clone(), 1.0);
    some(Kind::DimmRun, 4.0, 3_500..3_600, hosts.clone(), 7.0);
    some(Kind::PcieBurst, 20.0, 0..1, hosts.clone(), 250.0);
    some(Kind::LinkRetrains, 10.0, 60..480, hosts.clone(), 1.0);
    some(Kind::NvlinkRecovers, 10.0, 30..200, gpus_of(&jobs.newest()), 1.0);
    some(Kind::RouteRecovers, 8.0, 40..220, gpus_of(&places.with(Role::Training)), 1.0);
    some(Kind::Impossible, 2.0, 0..1, gpus, 1.0);
    some(Kind::EngineRestart, 1.0, 30..60, 0..1, 1.0);
    // Deployments at working hours: chat twice, the others once.
    for (service, at) in (0..services).chain([0]).zip([0.42, 0.47, 0.60, 0.66]) {
        let from = (at * duration as f64) as i64;
        all.push(Happening { kind: Kind::Deployment, from, until: from + 3_600, to: service, amount: 1.0 });
    }
    let rollout = (0.55 * duration as f64) as i64;
    all.push(Happening { kind: Kind::AirflowRollout, from: rollout, until: rollout + 70, to: 0, amount: 1.0 });
    // A newer agent everywhere, machine by machine.
    for host in hosts {
        let from = (0.38 * duration as f64) as i64 + host as i64 * 20;
        all.push(Happening {
            kind: Kind::AgentRestart,
            from,
            until: from + dice.between(4, 15),
            to: host,
            amount: 1.0,
        });
    }
    // New kernels for the machines of notebooks, two at a time.
    for (at, host) in places.with(Role::Notebooks).enumerate().take((places.hosts.len() / 15).max(1)) {
        let from = (0.16 * duration as f64) as i64 + (at / 2) as i64 * 1_200;
        all.push(Happening {
            kind: Kind::PlannedReboot,
            from,
            until: from + dice.between(240, 420),
            to: host,
            amount: 1.0,
        });
    }
    all.retain(|happening| happening.until < duration);
    all
}
