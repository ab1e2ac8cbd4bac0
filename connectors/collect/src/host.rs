//! The table `host`: one row for the machine.

use tidewatch_model::Timestamp;

use crate::clock;
use crate::collector::{Collected, Collector};
use crate::fault::Faults;
use crate::reading::{Roots, Unreadable, float, integer, integer_at, pressure_average, value_of};
use crate::rows::{Cell, Rows};
use crate::times::CpuTimes;

/// Reads one row of `host`.
pub struct HostCollector {
    roots: Roots,
    host: String,
    before: Option<CpuTimes>,
    faults: Faults,
}

impl HostCollector {
    /// For this machine's name.
    pub fn new(roots: Roots, host: &str) -> Self {
        HostCollector { roots, host: host.to_string(), before: None, faults: Faults::default() }
    }
}

type Cells = Vec<(&'static str, Cell)>;

impl Collector for HostCollector {
    fn table(&self) -> &'static str {
        "host"
    }

    fn collect(&mut self, now: Timestamp) -> Collected {
        let mut cells: Cells = Vec::with_capacity(32);
        cells.push(("host", self.host.as_str().into()));
        self.boot(&mut cells);
        self.load(&mut cells);
        self.cpu(&mut cells);
        self.memory(&mut cells);
        self.pressure(&mut cells);
        self.counters(&mut cells);
        self.clock(&mut cells);
        self.faults.collected(Rows::of("host").and_then(|mut rows| {
            rows.push(now, cells)?;
            Ok(rows)
        }))
    }
}

impl HostCollector {
    fn boot(&mut self, cells: &mut Cells) {
        let boot_id = self.roots.proc_file("sys/kernel/random/boot_id").map(|text| text.trim().to_string());
        cells.push(("boot_id", self.faults.keep("boot_id", boot_id).into()));
        let uptime = self
            .roots
            .proc_file("uptime")
            .and_then(|text| float(text.split_whitespace().next().unwrap_or_default(), "uptime"));
        cells.push(("uptime_seconds", self.faults.keep("uptime_seconds", uptime).into()));
    }

    fn load(&mut self, cells: &mut Cells) {
        let text = self.roots.proc_file("loadavg");
        for (index, column) in ["load1", "load5", "load15"].into_iter().enumerate() {
            let value = from(&text, |text| float(text.split_whitespace().nth(index).unwrap_or_default(), "loadavg"));
            cells.push((column, self.faults.keep(column, value).into()));
        }
    }

    fn cpu(&mut self, cells: &mut Cells) {
        let stat = self.roots.proc_file("stat");
        let times = from(&stat, |text| CpuTimes::parse(value_of(text, "cpu", "stat")?, "stat: cpu"));
        if let Some(times) = self.faults.keep("cpu_utilization_ratio", times) {
            if let Some(shares) = self.before.and_then(|before| times.since(&before)) {
                cells.push(("cpu_utilization_ratio", shares.utilization.into()));
                cells.push(("cpu_iowait_ratio", shares.iowait.into()));
                cells.push(("cpu_steal_ratio", shares.steal.into()));
            }
            self.before = Some(times);
        }
        for (column, key) in [
            ("processes_running", "procs_running"),
            ("processes_blocked", "procs_blocked"),
            ("context_switches_total", "ctxt"),
        ] {
            let value = from(&stat, |text| integer(value_of(text, key, "stat")?, key));
            cells.push((column, self.faults.keep(column, value).into()));
        }
    }

    fn memory(&mut self, cells: &mut Cells) {
        let text = self.roots.proc_file("meminfo");
        let mut bytes = |column: &'static str, key: &str| {
            let value = from(&text, |text| kibibytes(value_of(text, key, "meminfo")?, key));
            self.faults.keep(column, value)
        };
        let total = bytes("memory_total_bytes", "MemTotal");
        let available = bytes("memory_available_bytes", "MemAvailable");
        let swap_total = bytes("swap_total_bytes", "SwapTotal");
        let swap_free = bytes("swap_used_bytes", "SwapFree");
        let difference = |whole: Option<i64>, part: Option<i64>| {
            whole.zip(part).map(|(whole, part)| whole - part).filter(|used| *used >= 0)
        };
        cells.push(("memory_total_bytes", total.into()));
        cells.push(("memory_available_bytes", available.into()));
        cells.push(("memory_used_bytes", difference(total, available).into()));
        cells.push(("swap_total_bytes", swap_total.into()));
        cells.push(("swap_used_bytes", difference(swap_total, swap_free).into()));
    }

    fn pressure(&mut self, cells: &mut Cells) {
        for (resource, columns) in [
            ("cpu", &[("psi_cpu_some_ratio", "some")][..]),
            ("memory", &[("psi_memory_some_ratio", "some"), ("psi_memory_full_ratio", "full")]),
            ("io", &[("psi_io_some_ratio", "some"), ("psi_io_full_ratio", "full")]),
        ] {
            let text = self.roots.proc_file(&format!("pressure/{resource}"));
            for (column, kind) in columns {
                let ratio = from(&text, |text| pressure_average(text, kind, resource));
                cells.push((column, self.faults.keep(column, ratio).into()));
            }
        }
    }

    fn counters(&mut self, cells: &mut Cells) {
        let kills =
            self.roots.proc_file("vmstat").and_then(|text| integer(value_of(&text, "oom_kill", "vmstat")?, "oom_kill"));
        cells.push(("oom_kills_total", self.faults.keep("oom_kills_total", kills).into()));
        let snmp = self.roots.proc_file("net/snmp");
        for (column, name) in
            [("tcp_sent_segments_total", "OutSegs"), ("tcp_retransmitted_segments_total", "RetransSegs")]
        {
            let value = from(&snmp, |text| named_field(text, "Tcp:", name));
            cells.push((column, self.faults.keep(column, value).into()));
        }
    }

    fn clock(&mut self, cells: &mut Cells) {
        let state = match self.roots.is_live() {
            true => clock::ask(),
            false => Err(Unreadable::absent("a recorded tree has no clock to ask")),
        };
        let state = self.faults.keep("clock_offset_seconds", state);
        cells.push(("clock_offset_seconds", state.and_then(|state| state.offset_seconds).into()));
        cells.push(("clock_synchronised", state.map(|state| state.synchronised).into()));
        cells.push(("clock_error_max_seconds", state.map(|state| state.error_max_seconds).into()));
    }
}

/// A value of a file that was read once for several; the reason is each column's own.
fn from<T>(
    file: &Result<String, Unreadable>,
    value: impl FnOnce(&str) -> Result<T, Unreadable>,
) -> Result<T, Unreadable> {
    file.as_ref().map_err(Clone::clone).and_then(|text| value(text))
}

/// `12345 kB` in bytes.
fn kibibytes(text: &str, what: &str) -> Result<i64, Unreadable> {
    let number = integer(text.trim_end_matches("kB"), what)?;
    number
        .checked_mul(1024)
        .filter(|bytes| *bytes >= 0)
        .ok_or_else(|| Unreadable::damaged(format!("{what}: {number} kB is out of range")))
}

/// A field of /proc/net/snmp, where a line of names stands above a line of values.
fn named_field(text: &str, protocol: &str, name: &str) -> Result<i64, Unreadable> {
    let mut lines = text.lines().filter(|line| line.starts_with(protocol));
    let names = lines.next().unwrap_or_default().split_whitespace();
    let values: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let index = names
        .into_iter()
        .position(|found| found == name)
        .ok_or_else(|| Unreadable::absent(format!("net/snmp: no {name}")))?;
    integer_at(&values, index, "net/snmp")
}
