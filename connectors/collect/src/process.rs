//! The table `process`: the largest processes by CPU and by memory.

use std::collections::HashMap;

use tidewatch_model::Timestamp;

use crate::collector::{Collected, Collector};
use crate::fault::Faults;
use crate::owner::Owner;
use crate::pods::{PodName, Pods};
use crate::reading::{Roots, Unreadable, integer, integer_at, value_of};
use crate::rows::{Rows, RowsError};
use crate::times::CpuTimes;

/// How many are kept of each order.
const LARGEST: usize = 25;

/// Reads the processes.
pub struct ProcessCollector {
    roots: Roots,
    host: String,
    pods: Pods,
    before: HashMap<(i64, i64), i64>,
    before_total: Option<CpuTimes>,
    /// Of those that were rows at the last pass.
    known: HashMap<(i64, i64), Known>,
    page_bytes: i64,
    faults: Faults,
}

/// Whose a process is. That hardly ever changes, and takes three files to find out.
#[derive(Clone)]
struct Known {
    user: Option<String>,
    owner: Owner,
    passes: u32,
}

/// A process is looked at twice, as a launcher may still move it, and from then on every so many passes.
const LOOK_AGAIN: u32 = 30;

/// One process.
struct Process {
    pid: i64,
    name: String,
    state: &'static str,
    /// Ticks in programs and in the kernel.
    ticks: i64,
    /// When it started, in ticks since boot: tells a reused number from the same process.
    started: i64,
    memory_bytes: i64,
    cpu_ratio: Option<f64>,
}

impl ProcessCollector {
    /// For this machine's name.
    pub fn new(roots: Roots, host: &str, pods: Pods) -> Self {
        ProcessCollector {
            roots,
            host: host.to_string(),
            pods,
            before: HashMap::new(),
            before_total: None,
            known: HashMap::new(),
            page_bytes: page_bytes(),
            faults: Faults::default(),
        }
    }

    fn processes(&mut self) -> Vec<Process> {
        let total =
            self.roots.proc_file("stat").and_then(|text| CpuTimes::parse(value_of(&text, "cpu", "stat")?, "stat: cpu"));
        let total = self.faults.keep("cpu_ratio", total);
        let elapsed = total.zip(self.before_total).and_then(|(now, before)| now.ticks_since(&before));
        self.before_total = total;
        let listed = std::fs::read_dir(&self.roots.proc)
            .map_err(|error| Unreadable::damaged(format!("{}: {error}", self.roots.proc.display())));
        let entries = self.faults.keep("", listed).into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i64>().ok());
        // A process that ends while it is read is no fault.
        let mut processes: Vec<Process> = pids.filter_map(|pid| self.read(pid).ok()).collect();
        for process in &mut processes {
            let before = self.before.get(&(process.pid, process.started));
            let used = before.map(|before| process.ticks - before).filter(|ticks| *ticks >= 0);
            process.cpu_ratio = used.zip(elapsed).map(|(used, elapsed)| (used as f64 / elapsed as f64).min(1.0));
        }
        self.before = processes.iter().map(|process| ((process.pid, process.started), process.ticks)).collect();
        processes
    }

    fn read(&self, pid: i64) -> Result<Process, Unreadable> {
        let stat = self.roots.proc_file(&format!("{pid}/stat"))?;
        // The name is in parentheses and may hold anything, parentheses too.
        let (name, rest) = stat.rsplit_once(')').ok_or_else(|| Unreadable::damaged("stat: no name"))?;
        let name = name.split_once('(').map_or("", |(_, name)| name);
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let at = |index: usize| integer_at(&fields, index, "stat");
        Ok(Process {
            pid,
            name: name.to_string(),
            state: state_word(fields.first().copied().unwrap_or_default()),
            ticks: at(11)?.saturating_add(at(12)?),
            started: at(19)?,
            // Kernel threads have none.
            memory_bytes: at(21)?.saturating_mul(self.page_bytes),
            cpu_ratio: None,
        })
    }

    /// Whose it is: what is known of it, or looked at anew.
    fn whose(&self, process: &Process, accounts: &HashMap<i64, String>) -> Known {
        let known = self.known.get(&(process.pid, process.started));
        let passes = known.map_or(0, |known| known.passes.saturating_add(1));
        match known {
            Some(known) if passes > 1 && !passes.is_multiple_of(LOOK_AGAIN) => Known { passes, ..known.clone() },
            _ => Known {
                user: self.user(process.pid, accounts),
                owner: Owner::of_process(&self.roots, process.pid),
                passes,
            },
        }
    }

    /// The user's name, or its number where no account has it.
    fn user(&self, pid: i64, accounts: &HashMap<i64, String>) -> Option<String> {
        let status = self.roots.proc_file(&format!("{pid}/status")).ok()?;
        let uid = integer(value_of(&status, "Uid", "status").ok()?.split_whitespace().next()?, "Uid").ok()?;
        Some(accounts.get(&uid).cloned().unwrap_or_else(|| uid.to_string()))
    }

    fn rows(&mut self, now: Timestamp) -> Result<Rows, RowsError> {
        let mut rows = Rows::of("process")?;
        let accounts = accounts(&self.roots.accounts_file().unwrap_or_default());
        let mut known = HashMap::new();
        for process in largest(self.processes()) {
            let whose = self.whose(&process, &accounts);
            let pod = whose.owner.pod.as_deref().and_then(|uid| self.pods.name(uid, true, now));
            rows.push(
                now,
                [
                    ("host", self.host.as_str().into()),
                    ("pid", process.pid.into()),
                    ("name", process.name.as_str().into()),
                    ("user", whose.user.as_deref().into()),
                    ("state", process.state.into()),
                    ("cpu_ratio", process.cpu_ratio.into()),
                    ("memory_bytes", process.memory_bytes.into()),
                    ("job", whose.owner.job.as_deref().into()),
                    ("container", whose.owner.container.as_deref().into()),
                ]
                .into_iter()
                .chain(PodName::cells(pod)),
            )?;
            known.insert((process.pid, process.started), whose);
        }
        self.known = known;
        if let Some(why) = self.pods.take_problem() {
            self.faults.note("pod", why);
        }
        Ok(rows)
    }
}

impl Collector for ProcessCollector {
    fn table(&self) -> &'static str {
        "process"
    }

    fn collect(&mut self, now: Timestamp) -> Collected {
        let rows = self.rows(now);
        self.faults.collected(rows)
    }
}

/// Bytes of a page of memory, which differ between kernels (4 KiB, or 64 KiB on some ARM machines).
#[allow(unsafe_code)]
pub(crate) fn page_bytes() -> i64 {
    // SAFETY: it takes a number and gives one.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }
}

/// The largest by CPU and the largest by memory, each process once, by pid.
fn largest(mut processes: Vec<Process>) -> Vec<Process> {
    processes.sort_by(|left, right| {
        right.cpu_ratio.unwrap_or(0.0).total_cmp(&left.cpu_ratio.unwrap_or(0.0)).then(left.pid.cmp(&right.pid))
    });
    let mut rest = processes.split_off(processes.len().min(LARGEST));
    rest.sort_by_key(|process| (std::cmp::Reverse(process.memory_bytes), process.pid));
    rest.truncate(LARGEST);
    processes.extend(rest);
    processes.sort_by_key(|process| process.pid);
    processes
}

fn accounts(passwd: &str) -> HashMap<i64, String> {
    let fields = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    fields.filter_map(|fields| Some((fields.get(2)?.parse().ok()?, fields.first()?.to_string()))).collect()
}

fn state_word(letter: &str) -> &'static str {
    match letter {
        "R" => "running",
        "S" => "sleeping",
        "D" => "disk-sleep",
        "Z" => "zombie",
        "T" | "t" => "stopped",
        "I" => "idle",
        "X" | "x" => "dead",
        _ => "unknown",
    }
}
