//! The table `cgroup`: what jobs, pods, containers and services use and lack (Documentation/admin-guide/cgroup-v2.rst).

use std::collections::HashMap;
use std::fs::DirEntry;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tidewatch_model::{Span, Timestamp};

use crate::collector::{Collected, Collector};
use crate::fault::Faults;
use crate::owner::Owner;
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
    pub fn new(roots: Roots, host: &str) -> Self {
        CgroupCollector {
            roots,
            host: host.to_string(),
            stacked: HashMap::new(),
            units_read: None,
            faults: Faults::default(),
        }
    }

    fn folder(&self, path: &str) -> PathBuf {
        self.roots.sys.join(GROUPS).join(path.trim_start_matches('/'))
    }

    /// Groups that are somebody's, and the top ones.
    fn groups(&mut self) -> Vec<Group> {
        let mut walk = Walk { found: vec![], folders: 0 };
        walk.below(&self.folder(""), "", &Owner::default(), 1);
        let Walk { mut found, folders } = walk;
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
        found
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
    fn row(&mut self, group: &Group) -> Option<Vec<(&'static str, Cell)>> {
        let path = group.path.as_str();
        // Every group has this one.
        let cpu = match self.file(path, "cpu.stat") {
            Err(why) if why.absent => return None,
            read => self.keep("cpu_seconds_total", path, read)?,
        };
        let owner = group.owner.clone();
        let mut cells: Vec<(&'static str, Cell)> = Vec::with_capacity(22);
        cells.push(("host", self.host.as_str().into()));
        cells.push(("cgroup", path.into()));
        cells.push(("job", owner.job.into()));
        cells.push(("pod", owner.pod.into()));
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
        for group in self.groups().into_iter().filter(|group| with_units || !group.is_unit()) {
            if let Some(cells) = self.row(&group) {
                rows.push(now, cells)?;
            }
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
        self.faults.collected(rows)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::recorded::{Recorded, check, row, rows};

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const POD: &str =
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod6e5a1b2c_0d3f_4a5b_8c9d_0e1f2a3b4c5d.slice";
    const JOB: &str = "system.slice/slurmstepd.scope/job_123";

    fn group(machine: &Recorded, path: &str, files: &[(&str, &str)]) {
        let all = [("cpu.stat", "usage_usec 2500000\nuser_usec 1\nsystem_usec 1\n")].iter().chain(files);
        all.for_each(|(file, text)| machine.put(&format!("sys/fs/cgroup/{path}/{file}"), text));
    }

    /// A machine with a job of SLURM, a pod with a container and its sandbox, and a service.
    fn machine() -> Recorded {
        let machine = Recorded::of(&[
            ("sys/fs/cgroup/cgroup.controllers", "cpu io memory pids\n"),
            ("sys/dev/block/253:0/slaves/nvme0n1/x", ""),
        ]);
        for path in ["system.slice", "kubepods.slice", "kubepods.slice/kubepods-burstable.slice", POD] {
            group(&machine, path, &[]);
        }
        group(&machine, "system.slice/slurmstepd.scope", &[]);
        group(&machine, "system.slice/slurmstepd.scope/system", &[]);
        group(
            &machine,
            JOB,
            &[
                ("memory.current", "1000000\n"),
                (
                    "memory.stat",
                    "anon 500000\nfile 400000\nactive_file 100000\ninactive_file 200000\nslab_reclaimable 50000\n",
                ),
                ("memory.max", "2000000\n"),
                ("memory.events", "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"),
                (
                    "cpu.stat",
                    "usage_usec 2500000\nuser_usec 1\nsystem_usec 1\nnr_periods 100\nnr_throttled 25\nthrottled_usec 1500000\n",
                ),
                ("cpu.pressure", "some avg10=12.50 avg60=0 avg300=0 total=1\nfull avg10=0 avg60=0 avg300=0 total=1\n"),
                (
                    "memory.pressure",
                    "some avg10=2.00 avg60=0 avg300=0 total=1\nfull avg10=1.00 avg60=0 avg300=0 total=1\n",
                ),
                ("io.pressure", "some avg10=0.00 avg60=0 avg300=0 total=1\nfull avg10=0.00 avg60=0 avg300=0 total=1\n"),
                (
                    "io.stat",
                    "253:0 rbytes=100 wbytes=7 rios=1 wios=1 dbytes=0 dios=0\n259:0 rbytes=100 wbytes=7 rios=1 wios=1\n8:0\n",
                ),
                ("step_0/cpu.stat", "usage_usec 1\n"),
            ],
        );
        group(
            &machine,
            &format!("{POD}/cri-containerd-{ID}.scope"),
            &[("memory.max", "max\n"), ("memory.current", "5\n")],
        );
        group(&machine, &format!("{POD}/crio-conmon-{ID}.scope"), &[]);
        group(&machine, "system.slice/sshd.service", &[]);
        group(&machine, "user.slice/user-1000.slice/user@1000.service/app.slice/a.service", &[]);
        for path in ["user.slice", "user.slice/user-1000.slice", "user.slice/user-1000.slice/user@1000.service"] {
            group(&machine, path, &[]);
        }
        machine
    }

    #[test]
    fn jobs_pods_containers_services_and_top_slices() {
        let machine = machine();
        let collected = CgroupCollector::new(machine.roots(), "n1").collect(Timestamp(0));
        assert!(collected.faults.is_empty(), "{:?}", collected.faults);
        let paths: Vec<String> =
            (0..rows(&collected)).map(|number| row(&collected, number)["cgroup"].clone()).collect();
        let expected = [
            "/kubepods.slice".to_string(),
            format!("/{POD}"),
            format!("/{POD}/cri-containerd-{ID}.scope"),
            "/system.slice".to_string(),
            format!("/{JOB}"),
            "/system.slice/sshd.service".to_string(),
            "/user.slice".to_string(),
            "/user.slice/user-1000.slice/user@1000.service".to_string(),
        ];
        let mut sorted = expected.to_vec();
        sorted.sort();
        assert_eq!(paths, sorted);
        let at = |path: &str| row(&collected, paths.iter().position(|found| found == path).unwrap());
        check(
            &at(&format!("/{JOB}")),
            &[
                ("host", "n1"),
                ("job", "123"),
                ("unit", "NULL"),
                ("memory_bytes", "1000000"),
                ("memory_used_bytes", "650000"),
                ("memory_limit_bytes", "2000000"),
                ("oom_kills_total", "2"),
                ("cpu_seconds_total", "2.5"),
                ("throttled_seconds_total", "1.5"),
                ("cpu_periods_total", "100"),
                ("throttled_periods_total", "25"),
                ("psi_cpu_some_ratio", "0.125"),
                ("psi_memory_some_ratio", "0.02"),
                ("psi_memory_full_ratio", "0.01"),
                ("psi_io_full_ratio", "0.0"),
                ("read_bytes_total", "100"),
                ("written_bytes_total", "7"),
            ],
        );
        check(
            &at(&format!("/{POD}/cri-containerd-{ID}.scope")),
            &[
                ("container", ID),
                ("pod", "6e5a1b2c-0d3f-4a5b-8c9d-0e1f2a3b4c5d"),
                ("memory_bytes", "5"),
                ("memory_used_bytes", "NULL"),
                ("memory_limit_bytes", "NULL"),
                ("throttled_seconds_total", "NULL"),
                ("psi_cpu_some_ratio", "NULL"),
                ("read_bytes_total", "NULL"),
            ],
        );
        check(&at("/system.slice/sshd.service"), &[("unit", "sshd.service"), ("cpu_seconds_total", "2.5")]);
    }

    #[test]
    fn damage_is_null_and_groups_that_end_are_no_fault() {
        let machine = machine();
        let mut collector = CgroupCollector::new(machine.roots(), "n1");
        machine.put(&format!("sys/fs/cgroup/{JOB}/memory.current"), "much\n");
        machine.put(&format!("sys/fs/cgroup/{JOB}/io.stat"), "8:0 rbytes=x\n");
        machine.put(&format!("sys/fs/cgroup/{JOB}/cpu.pressure"), "some x\n");
        machine.remove("sys/fs/cgroup/system.slice/sshd.service/cpu.stat");
        let collected = collector.collect(Timestamp(0));
        let reasons: Vec<String> =
            collected.faults.iter().map(|fault| format!("{}: {}", fault.column, fault.reason)).collect();
        assert_eq!(
            reasons,
            [
                "memory_bytes: memory.current: 'much' is not a whole number",
                "psi_cpu_some_ratio: cpu.pressure: no avg10",
                "read_bytes_total: io.stat: rbytes: 'x' is not a whole number"
            ]
        );
        assert_eq!(rows(&collected), 7, "the service has ended");
        // A group that ended between the walk and the reading.
        let gone = Group { path: "/system.slice/gone.service".to_string(), owner: Owner::default() };
        assert!(collector.row(&gone).is_none());
        assert!(collector.faults.take().is_empty());
    }

    #[test]
    fn of_too_many_groups_jobs_and_pods_are_read_and_it_is_said_once() {
        let machine = machine();
        for number in 0..MOST {
            group(&machine, &format!("system.slice/a{number}.service"), &[]);
        }
        let mut collector = CgroupCollector::new(machine.roots(), "n1");
        for (second, told) in [(0, 1), (30, 0)] {
            let collected = collector.collect(Timestamp::from_seconds(second));
            assert_eq!((rows(&collected), collected.faults.len()), (MOST, told), "{:?}", collected.faults);
            let jobs = (0..MOST).filter(|number| row(&collected, *number).contains_key("job")).count();
            assert_eq!(jobs, 1);
        }
    }

    #[test]
    fn services_and_slices_are_read_less_often() {
        let machine = machine();
        let mut collector = CgroupCollector::new(machine.roots(), "n1");
        let found = [0, 10, 20, 30, 40, 61].map(|second| rows(&collector.collect(Timestamp::from_seconds(second))));
        assert_eq!(found, [8, 3, 3, 8, 3, 8], "the job, the pod and its container each time");
    }

    #[test]
    fn a_machine_with_cgroup_v1_says_so_once() {
        let machine = Recorded::of(&[("sys/fs/cgroup/memory/slurm/uid_0/job_1/memory.usage_in_bytes", "1\n")]);
        let mut collector = CgroupCollector::new(machine.roots(), "n1");
        for told in [1, 0] {
            let collected = collector.collect(Timestamp(0));
            assert_eq!((rows(&collected), collected.faults.len()), (0, told));
            assert!(collected.faults.iter().all(|fault| fault.kind == crate::FaultKind::Absent));
        }
    }
}
