//! The table `disk`: one row for each mounted file system that holds data, and for each whole block device.

use std::collections::{BTreeMap, HashMap};

use tidewatch_model::{Span, Timestamp};

use crate::collector::{Collected, Collector};
use crate::fault::Faults;
use crate::reading::{Roots, Unreadable, integer_at};
use crate::rows::{Rows, RowsError};
use crate::space::{Space, Spaces};

/// Reads mounts and block devices.
pub struct DiskCollector {
    roots: Roots,
    host: String,
    faults: Faults,
    spaces: Spaces,
    stuck: Option<Span>,
}

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    mount_point: String,
    filesystem: String,
    read_only: bool,
}

/// File systems that hold no data of their own.
const PSEUDO: [&str; 24] = [
    "autofs",
    "bpf",
    "binfmt_misc",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fuse.lxcfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "ramfs",
    "rpc_pipefs",
    "securityfs",
    "squashfs",
    "sysfs",
    "tmpfs",
    "tracefs",
];

/// Mount options that let nobody write. From Linux 6.15 on ext4 stays `rw` when an error takes it out of service, and says so
/// with one of the others.
const READ_ONLY: [&str; 3] = ["ro", "emergency_ro", "shutdown"];

/// File systems behind a network or a program, whose server may be gone: asked after all others.
const REMOTE: [&str; 14] = [
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "fuse",
    "glusterfs",
    "gpfs",
    "lustre",
    "nfs",
    "nfs4",
    "smb3",
    "smbfs",
    "wekafs",
];

/// Counts of one block device: reads, sectors read, ms reading, writes, sectors written, ms writing, ms busy.
type Counts = Vec<i64>;

/// Bytes of a sector in /proc/diskstats, whatever the device's own are.
const SECTOR_BYTES: i64 = 512;

impl DiskCollector {
    /// For this machine's name.
    pub fn new(roots: Roots, host: &str) -> Self {
        DiskCollector { roots, host: host.to_string(), faults: Faults::default(), spaces: Spaces::new(), stuck: None }
    }

    /// Mounts by device; the first mount of a device speaks for it.
    fn mounts(&mut self) -> BTreeMap<String, Mount> {
        let text = self
            .faults
            .keep("mount_point", self.roots.proc_file("self/mounts").or_else(|_| self.roots.proc_file("mounts")));
        let mut mounts = BTreeMap::new();
        for line in text.unwrap_or_default().lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [device, mount_point, filesystem, options, ..] = fields[..] else { continue };
            let overlay = filesystem == "overlay" && mount_point != "/";
            if PSEUDO.contains(&filesystem) || overlay {
                continue;
            }
            let mount = Mount {
                mount_point: unescape(mount_point),
                filesystem: filesystem.to_string(),
                read_only: options.split(',').any(|option| READ_ONLY.contains(&option)),
            };
            mounts.entry(device.strip_prefix("/dev/").unwrap_or(device).to_string()).or_insert(mount);
        }
        mounts
    }

    /// Counts of each block device by name; loop and RAM devices left out.
    fn counts(&mut self) -> HashMap<String, Counts> {
        let text = self.faults.keep("reads_total", self.roots.proc_file("diskstats")).unwrap_or_default();
        let mut counts = HashMap::new();
        for line in text.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let Some(name) = fields.get(2).filter(|name| !name.starts_with("loop") && !name.starts_with("ram")) else {
                continue;
            };
            let kept =
                [3, 5, 6, 7, 9, 10, 12].into_iter().map(|index| integer_at(&fields, index, "diskstats")).collect();
            if let Some(kept) = self.faults.keep("reads_total", kept) {
                counts.insert(name.to_string(), kept);
            }
        }
        counts
    }

    /// Space by mount point, from the kernel itself: a recorded tree has none.
    fn sizes(&mut self, mounts: &BTreeMap<String, Mount>, now: Timestamp) -> HashMap<String, Space> {
        if !self.roots.is_live() {
            self.faults.note("size_bytes", Unreadable::absent("a recorded tree has no file systems to ask"));
            return HashMap::new();
        }
        self.spaces.begin();
        self.spaces.retain(|mount_point| mounts.values().any(|mount| mount.mount_point == mount_point));
        let mut order: Vec<&Mount> = mounts.values().collect();
        order.sort_by_key(|mount| mount.is_remote());
        let mut sizes = HashMap::new();
        for mount in order {
            let space = self.spaces.of(&mount.mount_point, now);
            if let Some(space) = self.faults.keep("size_bytes", space) {
                sizes.insert(mount.mount_point.clone(), space);
            }
        }
        self.stuck = self.spaces.stuck(now);
        sizes
    }

    fn rows(&mut self, now: Timestamp) -> Result<Rows, RowsError> {
        let mut rows = Rows::of("disk")?;
        let (mounts, counts) = (self.mounts(), self.counts());
        let sizes = self.sizes(&mounts, now);
        let mut devices: Vec<&String> = mounts.keys().chain(counts.keys()).collect();
        devices.sort();
        devices.dedup();
        for device in devices {
            let mount = mounts.get(device);
            let size = mount.and_then(|mount| sizes.get(&mount.mount_point));
            let count = |index: usize| counts.get(device).map(|counts| counts[index]);
            let bytes = |index: usize| count(index).map(|sectors| sectors.saturating_mul(SECTOR_BYTES));
            let seconds = |index: usize| count(index).map(|millis| millis as f64 / 1000.0);
            rows.push(
                now,
                [
                    ("host", self.host.as_str().into()),
                    ("device", device.as_str().into()),
                    ("mount_point", mount.map(|mount| mount.mount_point.as_str()).into()),
                    ("filesystem", mount.map(|mount| mount.filesystem.as_str()).into()),
                    ("read_only", mount.map(|mount| mount.read_only).into()),
                    ("size_bytes", size.map(|space| space.size_bytes).into()),
                    ("available_bytes", size.map(|space| space.available_bytes).into()),
                    ("inodes_free", size.and_then(|space| space.inodes_free).into()),
                    ("reads_total", count(0).into()),
                    ("writes_total", count(3).into()),
                    ("read_bytes_total", bytes(1).into()),
                    ("written_bytes_total", bytes(4).into()),
                    ("read_seconds_total", seconds(2).into()),
                    ("write_seconds_total", seconds(5).into()),
                    ("io_seconds_total", seconds(6).into()),
                ],
            )?;
        }
        Ok(rows)
    }
}

impl Collector for DiskCollector {
    fn table(&self) -> &'static str {
        "disk"
    }

    fn collect(&mut self, now: Timestamp) -> Collected {
        let rows = self.rows(now);
        self.faults.collected(rows)
    }

    fn stuck(&self) -> Option<Span> {
        self.stuck
    }
}

impl Mount {
    /// `fuse.sshfs` is `fuse`, too.
    fn is_remote(&self) -> bool {
        let kind = self.filesystem.split('.').next().unwrap_or_default();
        REMOTE.contains(&kind)
    }
}

/// The kernel writes blanks and backslashes of a mount point as octal.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_string(), |text, (octal, plain)| text.replace(octal, plain))
}
