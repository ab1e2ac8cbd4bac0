//! The table `cgroup`: what jobs, pods, containers and services use and lack (Documentation/admin-guide/cgroup-v2.rst).

use std::collections::{HashMap, HashSet};
use std::fs::DirEntry;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tidewatch_model::{Span, Timestamp};

use crate::collector::{Collected, Collector};
use crate::fault::Faults;
use crate::owner::Owner;
use crate::pods::{PodName, Pods};
use crate::reading::{Roots, Unreadable, integer, names_in, pressure_average};
use crate::rows::{Cell, Rows, RowsError};

/// Where groups are, under /sys.
const GROUPS: &str = "fs/cgroup";
/// Groups that are read; beyond it services go first, then containers, which is said.
const MOST: usize = 512;
/// Folders that are looked into for them.
const MOST_FOLDERS: usize = 8_192;
/// How deep: `kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/POD/CONTAINER` is five.
const DEPTH: usize = 6;
/// How often services and slices are read: they are many, change slowly, and each takes some 70 us.
const UNITS_EVERY: Span = Span::seconds(30);

/// Reads the groups.
pub struct CgroupCollector {
    roots: Roots,
    host: String,
    pods: Pods,
    stuck: Option<Span>,
    /// Block devices that stand on others, whose bytes are counted there.
    stacked: HashMap<String, bool>,
    /// In which of these times services were read last.
    units_read: Option<Timestamp>,
    faults: Faults,
}

/// A group that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    path: String,
    owner: Owner,
}

impl CgroupCollector {
    /// For this machine's name.
    pub fn new(roots: Roots, host: &str, pods: Pods) -> Self {
        CgroupCollector {
            roots,
            host: host.to_string(),
            pods,
            stuck: None,
            stacked: HashMap::new(),
            units_read: None,
            faults: Faults::default(),
        }
    }

    fn folder(&self, path: &str) -> PathBuf {
        self.roots.sys.join(GROUPS).join(path.trim_start_matches('/'))
    }

    /// Groups that are somebody's, and the top ones; and UIDs of pods that have containers.
    fn groups(&mut self) -> (Vec<Group>, HashSet<String>) {
        let mut walk = Walk { found: vec![], folders: 0 };
        walk.below(&self.folder(""), "", &Owner::default(), 1);
        let Walk { mut found, folders } = walk;
        let begun = found.iter().filter(|group| group.owner.container.is_some());
        let begun = begun.filter_map(|group| group.owner.pod.clone()).collect();
        if folders > MOST_FOLDERS {
            self.faults
                .note("cgroup", Unreadable::absent(format!("over {MOST_FOLDERS} groups: the rest is not looked at")));
        }
        if found.len() > MOST {
            let left_out = found.len() - MOST;
            self.faults.note("cgroup", Unreadable::absent(format!("{left_out} groups are left out: {MOST} are read")));
            found.sort_by_key(Group::rank);
            found.truncate(MOST);
        }
        found.sort_by(|left, right| left.path.cmp(&right.path));
        (found, begun)
    }

    fn file(&self, group: &str, name: &str) -> Result<String, Unreadable> {
        self.roots.sys_file(&format!("{GROUPS}{group}/{name}"))
    }

    /// A value, or NULL. A file that is missing is a controller that is not switched on, or a group that has ended; only what
    /// is there and makes no sense is a fault.
    fn keep<T>(&mut self, column: &'static str, group: &str, read: Result<T, Unreadable>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(why) if why.absent || !self.folder(group).exists() => None,
            Err(why) => {
                self.faults.note(column, why);
                None
            }
        }
    }

    /// `None` when the group has ended meanwhile.
    fn row(&mut self, group: &Group, pod: Option<PodName>) -> Option<Vec<(&'static str, Cell)>> {
        let path = group.path.as_str();
        // Every group has this one.
        let cpu = match self.file(path, "cpu.stat") {
            Err(why) if why.absent => return None,
            read => self.keep("cpu_seconds_total", path, read)?,
        };
        let owner = group.owner.clone();
        let mut cells: Vec<(&'static str, Cell)> = Vec::with_capacity(23);
        cells.push(("host", self.host.as_str().into()));
        cells.push(("cgroup", path.into()));
        cells.push(("job", owner.job.into()));
        cells.extend(PodName::cells(pod));
        cells.push(("container", owner.container.into()));
        cells.push(("unit", owner.unit.into()));
        self.memory(path, &mut cells);
        for (column, key) in [("cpu_seconds_total", "usage_usec"), ("throttled_seconds_total", "throttled_usec")] {
            let micros = self.keep(column, path, keyed(&cpu, key, "cpu.stat"));
            cells.push((column, micros.map(|micros| micros as f64 / 1e6).into()));
        }
        for (column, key) in [("cpu_periods_total", "nr_periods"), ("throttled_periods_total", "nr_throttled")] {
            cells.push((column, self.keep(column, path, keyed(&cpu, key, "cpu.stat")).into()));
        }
        self.pressure(path, &mut cells);
        let bytes = self.file(path, "io.stat").and_then(|text| self.bytes(&text));
        let bytes = self.keep("read_bytes_total", path, bytes);
        cells.push(("read_bytes_total", bytes.map(|(read, _)| read).into()));
        cells.push(("written_bytes_total", bytes.map(|(_, written)| written).into()));
        Some(cells)
    }

    fn memory(&mut self, path: &str, cells: &mut Vec<(&'static str, Cell)>) {
        let current = self.file(path, "memory.current").and_then(|text| integer(&text, "memory.current"));
        let current = self.keep("memory_bytes", path, current);
        cells.push(("memory_bytes", current.into()));
        let given_back = self.file(path, "memory.stat").and_then(|text| {
            let mut sum: i64 = 0;
            for key in ["active_file", "inactive_file", "slab_reclaimable"] {
                sum = sum.saturating_add(keyed(&text, key, "memory.stat")?);
            }
            Ok(sum)
        });
        let given_back = self.keep("memory_used_bytes", path, given_back);
        // The two files are of two moments.
        let used = current.zip(given_back).map(|(current, given_back)| current.saturating_sub(given_back).max(0));
        cells.push(("memory_used_bytes", used.into()));
        let limit = self.file(path, "memory.max").and_then(|text| match text.trim() {
            "max" => Ok(None),
            number => integer(number, "memory.max").map(Some),
        });
        cells.push(("memory_limit_bytes", self.keep("memory_limit_bytes", path, limit).flatten().into()));
        let kills = self.file(path, "memory.events").and_then(|text| keyed(&text, "oom_kill", "memory.events"));
        cells.push(("oom_kills_total", self.keep("oom_kills_total", path, kills).into()));
    }

    fn pressure(&mut self, path: &str, cells: &mut Vec<(&'static str, Cell)>) {
        for (file, columns) in [
            ("cpu.pressure", &[("psi_cpu_some_ratio", "some")][..]),
            ("memory.pressure", &[("psi_memory_some_ratio", "some"), ("psi_memory_full_ratio", "full")]),
            ("io.pressure", &[("psi_io_some_ratio", "some"), ("psi_io_full_ratio", "full")]),
        ] {
            let text = self.file(path, file);
            let text = self.keep(columns[0].0, path, text);
            for (column, kind) in columns {
                let ratio = text.as_deref().map(|text| pressure_average(text, kind, file));
                let ratio = ratio.and_then(|ratio| self.keep(column, path, ratio));
                cells.push((column, ratio.into()));
            }
        }
    }

    /// Bytes read and written: `259:0 rbytes=1 wbytes=2 rios=3 ...`, a line for each device.
    fn bytes(&mut self, text: &str) -> Result<(i64, i64), Unreadable> {
        let (mut read, mut written) = (0_i64, 0_i64);
        for line in text.lines() {
            let Some((device, fields)) = line.split_once(' ') else { continue };
            if self.is_stacked(device) {
                continue;
            }
            for field in fields.split_whitespace() {
                match field.split_once('=') {
                    Some(("rbytes", count)) => read = read.saturating_add(integer(count, "io.stat: rbytes")?),
                    Some(("wbytes", count)) => written = written.saturating_add(integer(count, "io.stat: wbytes")?),
                    _ => {}
                }
            }
        }
        Ok((read, written))
    }

    /// Whether a device (`253:0`) stands on others, as those of LVM and RAID do: what goes through it is counted twice.
    fn is_stacked(&mut self, device: &str) -> bool {
        if let Some(known) = self.stacked.get(device) {
            return *known;
        }
        let stacked = !names_in(&self.roots.sys.join("dev/block").join(device).join("slaves")).is_empty();
        self.stacked.insert(device.to_string(), stacked);
        stacked
    }

    fn rows(&mut self, now: Timestamp) -> Result<Rows, RowsError> {
        let mut rows = Rows::of("cgroup")?;
        if !self.folder("cgroup.controllers").exists() {
            let why = "no cgroup v2 at /sys/fs/cgroup: groups of v1, also beside v2, are not read";
            self.faults.note("cgroup", Unreadable::absent(why));
            return Ok(rows);
        }
        // Numbers of devices are given anew when one is taken out: looked at again with each pass.
        self.stacked.clear();
        let units = Some(now.floor(UNITS_EVERY));
        let with_units = units != std::mem::replace(&mut self.units_read, units);
        let (groups, begun) = self.groups();
        for group in groups.into_iter().filter(|group| with_units || !group.is_unit()) {
            let uid = group.owner.pod.as_deref();
            let pod = uid.and_then(|uid| self.pods.name(uid, begun.contains(uid), now));
            // An alert about a group is told apart by its pod, which must not get another name: no row before it has one.
            if uid.is_some() && pod.is_none() {
                continue;
            }
            if let Some(cells) = self.row(&group, pod) {
                rows.push(now, cells)?;
            }
        }
        if let Some(why) = self.pods.take_problem() {
            self.faults.note("pod", why);
        }
        Ok(rows)
    }
}

impl Group {
    /// Neither a job's nor a container's or pod's.
    fn is_unit(&self) -> bool {
        self.owner.job.is_none() && self.owner.pod.is_none() && self.owner.container.is_none()
    }

    /// Which are kept first.
    fn rank(&self) -> (u8, String) {
        let Owner { job, pod, container, unit } = &self.owner;
        let rank = match (job, pod, container, unit) {
            (Some(_), ..) => 0,
            (_, Some(_), None, _) => 1,
            (_, _, Some(_), _) => 2,
            (None, None, None, None) => 3,
            _ => 4,
        };
        (rank, self.path.clone())
    }
}

/// A walk through the tree.
struct Walk {
    found: Vec<Group>,
    folders: usize,
}

impl Walk {
    fn below(&mut self, folder: &Path, path: &str, above: &Owner, depth: usize) {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut folders: Vec<DirEntry> =
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).collect();
        folders.sort_by_key(DirEntry::file_name);
        for entry in folders {
            let Ok(name) = entry.file_name().into_string() else { continue };
            self.folders += 1;
            if self.folders > MOST_FOLDERS {
                return;
            }
            let path = format!("{path}/{name}");
            let owner = Owner::of_path(&path);
            let is_whole = owner.job.is_some() || owner.container.is_some();
            let begins = (owner.pod.is_some() && above.pod.is_none()) || (owner.unit.is_some() && above.unit.is_none());
            if is_whole || begins || (depth == 1 && owner == Owner::default()) {
                self.found.push(Group { path: path.clone(), owner: owner.clone() });
            }
            // Steps of a job and what a container makes of its own are counted by it.
            if !is_whole && depth < DEPTH && has_folders(&entry) {
                self.below(&entry.path(), &path, &owner, depth + 1);
            }
        }
    }
}

/// Whether a folder may have others in it: one that has none has two links where the file system counts them, as that of the
/// groups does. Saves listing some forty files.
fn has_folders(entry: &DirEntry) -> bool {
    entry.metadata().is_ok_and(|metadata| metadata.nlink() != 2)
}

/// A number by its key, one to a line.
fn keyed(text: &str, key: &str, file: &str) -> Result<i64, Unreadable> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    integer(line.ok_or_else(|| Unreadable::absent(format!("{file}: no {key}")))?, file)
}

impl Collector for CgroupCollector {
    fn table(&self) -> &'static str {
        "cgroup"
    }

    fn collect(&mut self, now: Timestamp) -> Collected {
        let rows = self.rows(now);
        self.stuck = self.pods.stuck(now);
        self.faults.collected(rows)
    }

    fn stuck(&self) -> Option<Span> {
        self.stuck
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
