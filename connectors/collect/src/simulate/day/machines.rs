//! Machines of a day: the tables `host`, `process` and `collector`, and what the kernel says.

use tidewatch_model::{Span, Timestamp};

use super::gpus::{phase_of, pid};
use super::happenings::{Happening, Kind, Marks, Of, SILENT};
use super::jobs::{Jobs, Phase};
use super::modules::RUN_EVERY;
use super::places::{Dice, PER_HOST, Places, Role};
use crate::rows::{Cell, Rows, RowsError};

/// One machine.
#[derive(Debug)]
struct Machine {
    boot: i64,
    booted: i64,
    ooms: i64,
    switches: i64,
    sent: i64,
    resent: i64,
    rows: i64,
    down: bool,
}

/// All machines.
#[derive(Debug)]
pub struct Machines {
    machines: Vec<Machine>,
    dice: Dice,
    start: Timestamp,
}

/// Memory of a machine.
pub const MEMORY: f64 = 2.1e12;
/// What an agent collects; only a machine that trains has InfiniBand.
const COLLECTORS: [&str; 12] = [
    "host",
    "disk",
    "net",
    "process",
    "cgroup",
    "pcie",
    "memory_controller",
    "gpu",
    "gpu_process",
    "gpu_event",
    "kernel_event",
    "ib",
];

impl Machines {
    /// Machines that have been up for weeks.
    pub fn new(places: &Places, seed: u64, start: Timestamp) -> Machines {
        let dice = Dice::new(seed, 4);
        let machine = |_| Machine {
            boot: dice.between(1 << 40, 1 << 50),
            booted: -dice.between(10 * 86_400, 60 * 86_400),
            ooms: 0,
            switches: 0,
            sent: 0,
            resent: 0,
            rows: dice.between(1_000, 9_000_000),
            down: false,
        };
        Machines { machines: (0..places.hosts.len()).map(machine).collect(), dice, start }
    }

    /// Since when a machine has been up.
    pub fn booted(&self, host: usize) -> i64 {
        self.machines[host].booted
    }

    /// The rows of `host` for a tick.
    pub fn rows(
        &mut self,
        now: i64,
        seconds: f64,
        places: &Places,
        jobs: &Jobs,
        marks: &Marks,
    ) -> Result<Rows, RowsError> {
        let mut rows = Rows::of("host")?;
        for (host, machine) in self.machines.iter_mut().enumerate() {
            let bits = marks.hosts[host];
            let has = |kind: Kind| bits & kind.bit() != 0;
            if has(Kind::PlannedReboot) || has(Kind::HostDown) {
                machine.down = true;
                continue;
            }
            if std::mem::take(&mut machine.down) {
                *machine = Machine {
                    boot: machine.boot + 1,
                    booted: now - 40,
                    ooms: 0,
                    switches: 0,
                    sent: 0,
                    resent: 0,
                    rows: 0,
                    down: false,
                };
            }
            let noise = self.dice.five();
            let (phase, _) = jobs.on(host);
            let (cpu, used) = match (places.roles[host], phase) {
                (Role::Training, Phase::Idle) => (0.02, 0.05),
                (Role::Training, Phase::Loading) => (0.5, 0.3),
                (Role::Training, _) => (0.22, 0.45),
                (Role::Serving, _) => (0.35, 0.4),
                (Role::Notebooks, _) => (0.3, 0.3),
            };
            let cpu = if has(Kind::CpuBurst) { 0.985 + 0.01 * noise[0] } else { cpu * (1.0 + 0.4 * noise[0]) };
            let available = if has(Kind::MemoryDip) { 0.07 } else { 1.0 - used * (1.0 + 0.1 * noise[1]) };
            let writes = matches!(phase, Phase::Checkpoint | Phase::Saving);
            let stalled = if writes { 0.25 + 0.2 * noise[2] } else { 0.01 * noise[2].abs() };
            machine.switches += (4e5 * seconds) as i64;
            let sent = 9_000.0 * seconds * (1.0 + 0.5 * noise[3]);
            machine.sent += sent as i64;
            machine.resent += (sent * if has(Kind::Retransmits) { 0.035 } else { 0.000_4 }) as i64;
            machine.rows += 1;
            if bits & SILENT != 0 {
                continue;
            }
            // Until the first answer of a server nobody keeps the clock, and the kernel says 16 s, the most that it counts to.
            let kept = !has(Kind::ClockUnkept) && !has(Kind::ClockAlone) && now - machine.booted > 90;
            let offset = if has(Kind::ClockStep) { 0.08 } else { 2e-5 * noise[4] };
            let since_asked = (now + host as i64 * 37) % 64;
            let cells: [(&str, Cell); 28] = [
                ("host", places.hosts[host].as_str().into()),
                ("boot_id", format!("{:016x}", machine.boot).into()),
                ("uptime_seconds", ((now - machine.booted) as f64).into()),
                ("load1", (cpu * 192.0).into()),
                ("load5", (cpu * 192.0).into()),
                ("load15", (cpu * 192.0).into()),
                ("cpu_utilization_ratio", cpu.into()),
                ("cpu_iowait_ratio", (0.1 * stalled).into()),
                ("cpu_steal_ratio", 0.0.into()),
                ("memory_total_bytes", (MEMORY as i64).into()),
                ("memory_available_bytes", ((MEMORY * available) as i64).into()),
                ("memory_used_bytes", ((MEMORY * (1.0 - available)) as i64).into()),
                ("swap_total_bytes", 0.into()),
                ("swap_used_bytes", 0.into()),
                ("psi_cpu_some_ratio", (0.1 * cpu).into()),
                ("psi_memory_some_ratio", 0.0.into()),
                ("psi_memory_full_ratio", 0.0.into()),
                ("psi_io_some_ratio", (1.3 * stalled).into()),
                ("psi_io_full_ratio", stalled.into()),
                ("processes_running", ((cpu * 192.0) as i64).into()),
                ("processes_blocked", i64::from(writes).into()),
                ("oom_kills_total", machine.ooms.into()),
                ("context_switches_total", machine.switches.into()),
                ("tcp_sent_segments_total", machine.sent.into()),
                ("tcp_retransmitted_segments_total", machine.resent.into()),
                ("clock_offset_seconds", kept.then_some(offset).into()),
                ("clock_synchronised", kept.into()),
                ("clock_error_max_seconds", if kept { 0.002 + 5e-4 * since_asked as f64 } else { 16.0 }.into()),
            ];
            rows.push(self.start + Span::seconds(now) + Span::micros(phase_of(host)), cells)?;
        }
        Ok(rows)
    }

    /// The rows of `process` and `collector`, every ten seconds.
    pub fn others(&mut self, ts: Timestamp, places: &Places, marks: &Marks) -> Result<(Rows, Rows), RowsError> {
        let (mut processes, mut collectors) = (Rows::of("process")?, Rows::of("collector")?);
        for (host, machine) in self.machines.iter_mut().enumerate() {
            let bits = marks.hosts[host];
            if bits & SILENT != 0 {
                // What began anew tells so.
                if bits & Kind::Gap.bit() == 0 {
                    machine.rows = 0;
                }
                continue;
            }
            let at = ts + Span::micros(phase_of(host));
            let name = places.hosts[host].as_str();
            let waits = self.dice.chance(0.02);
            for (number, (process, state)) in [
                ("nvidia-persiste", "sleeping"),
                ("slurmd", "sleeping"),
                ("python3", "running"),
                ("python3", if waits { "disk-sleep" } else { "running" }),
                ("nvidia-smi", if waits { "disk-sleep" } else { "sleeping" }),
            ]
            .into_iter()
            .enumerate()
            {
                let cells: [(&str, Cell); 7] = [
                    ("host", name.into()),
                    ("pid", (1_500 + number as i64).into()),
                    ("name", process.into()),
                    ("user", "root".into()),
                    ("state", state.into()),
                    ("cpu_ratio", 0.01.into()),
                    ("memory_bytes", (3_i64 << 30).into()),
                ];
                processes.push(at, cells)?;
            }
            for collector in COLLECTORS {
                let trains = places.roles[host] == Role::Training;
                if collector == "ib" && !trains {
                    continue;
                }
                let failed = collector == "gpu" && bits & Kind::Hiccup.bit() != 0;
                let events = matches!(collector, "gpu_event" | "kernel_event");
                let slow = if collector == "gpu" && self.dice.chance(0.003) { 6.0 } else { 0.03 };
                let cells: [(&str, Cell); 9] = [
                    ("host", name.into()),
                    ("collector", collector.into()),
                    ("ok", (!failed).into()),
                    ("duration_seconds", slow.into()),
                    ("rows_total", if events { 0 } else { machine.rows }.into()),
                    ("errors_total", i64::from(failed).into()),
                    ("dropped_rows_total", 0.into()),
                    ("spool_bytes", 0.into()),
                    ("message", failed.then_some("a call to the driver took too long").into()),
                ];
                collectors.push(at, cells)?;
            }
        }
        Ok((processes, collectors))
    }

    /// What the kernels say in the tick from `now` to `end`.
    pub fn said<'a>(
        &mut self,
        now: i64,
        end: i64,
        places: &Places,
        active: impl Iterator<Item = &'a Happening>,
    ) -> Result<Rows, RowsError> {
        let mut rows = Rows::of("kernel_event")?;
        for happening in active {
            let Some(told) = Told::of(happening).filter(|told| told.falls_into(happening, now, end)) else { continue };
            let host = if happening.kind.of() == Of::Gpu { happening.to / PER_HOST } else { happening.to };
            if told.kind == "oom_kill" {
                self.machines[host].ooms += 1;
            }
            let cells: [(&str, Cell); 5] = [
                ("host", places.hosts[host].as_str().into()),
                ("kind", told.kind.into()),
                ("pid", told.pid.into()),
                ("process_name", told.process.into()),
                ("message", told.message.into()),
            ];
            rows.push(self.start + Span::seconds(now), cells)?;
        }
        Ok(rows)
    }
}

/// What the kernel says of a happening.
struct Told {
    kind: &'static str,
    pid: Option<i64>,
    process: Option<&'static str>,
    message: &'static str,
    /// How often it is said again, in seconds.
    every: Option<i64>,
}

impl Told {
    fn of(happening: &Happening) -> Option<Told> {
        let told = |kind, message| Told { kind, pid: None, process: None, message, every: None };
        let by = |pid, process, told: Told| Told { pid: Some(pid), process: Some(process), ..told };
        Some(match happening.kind {
            Kind::CorrectedDimm => {
                told("memory_error", "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_MC#0_Chan#1_DIMM#0")
            }
            Kind::DimmRun => Told {
                every: Some(RUN_EVERY),
                ..told("memory_error", "EDAC MC1: 8 CE memory read error on CPU_SrcID#1_MC#0_Chan#2_DIMM#0")
            },
            Kind::DimmWears => Told {
                every: Some(150),
                ..told("memory_error", "EDAC MC0: 15 CE memory scrubbing error on CPU_SrcID#0_MC#0_Chan#3_DIMM#1")
            },
            Kind::HostUncorrectable => {
                told("memory_error", "EDAC MC0: 1 UE memory read error on CPU_SrcID#0_MC#0_Chan#2_DIMM#0")
            }
            Kind::HungOnce => {
                by(4_242, "rsync", told("hung_task", "INFO: task rsync:4242 blocked for more than 122 seconds."))
            }
            Kind::UserOom => {
                by(3_131, "node", told("oom_kill", "Memory cgroup out of memory: Killed process 3131 (node)"))
            }
            Kind::CgroupOom => by(
                3_232,
                "pt_data_worker",
                told("oom_kill", "Memory cgroup out of memory: Killed process 3232 (pt_data_worker)"),
            ),
            Kind::GpuProcessOom => {
                by(pid(happening.to), "python3", told("oom_kill", "Out of memory: Killed process (python3)"))
            }
            Kind::PcieFatal => {
                told("pcie_error", "pcieport 0000:1a:01.0: AER: Uncorrectable (Fatal) error message received")
            }
            Kind::PcieNoisy => Told {
                every: Some(300),
                ..told("pcie_error", "pcieport 0000:1a:01.0: AER: Multiple Correctable error message received")
            },
            Kind::AppXid | Kind::GpuOffBus | Kind::Uncorrectable => told("xid", "NVRM: Xid, simulated"),
            _ => return None,
        })
    }

    /// Whether it is said in the tick from `now` to `end`.
    fn falls_into(&self, happening: &Happening, now: i64, end: i64) -> bool {
        let since = (now - happening.from).max(0);
        let said = happening.from + self.every.map_or(0, |every| (since + every - 1) / every * every);
        now <= said && said < end
    }
}
