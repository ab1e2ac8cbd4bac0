//! Collectors on a recorded tree: exact values, damage, things that vanish, and a log that refuses.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type};
use tidewatch_log::ScriptedLog;
use tidewatch_model::ports::TopicOptions;
use tidewatch_model::wire::decode;

use super::*;
use crate::collector::Collected;
use crate::recorded::{Recorded, check, row};

/// A small machine with two cores, recorded and shortened.
const TREE: &[(&str, &str)] = &[
    (
        "proc/stat",
        "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 50 0 50 350 50 0 0 0 0 0\ncpu1 50 0 50 350 50 0 0 0 0 0\nctxt 5000\nprocs_running 3\nprocs_blocked 1\n",
    ),
    ("proc/loadavg", "0.50 1.25 2.00 1/200 4242\n"),
    ("proc/uptime", "3600.50 7000.00\n"),
    (
        "proc/meminfo",
        "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    250 kB\nSwapTotal:       500 kB\nSwapFree:        400 kB\n",
    ),
    ("proc/pressure/cpu", "some avg10=12.50 avg60=1.00 avg300=0.50 total=100\n"),
    ("proc/pressure/memory", "some avg10=1.00 avg60=0 avg300=0 total=1\nfull avg10=0.50 avg60=0 avg300=0 total=1\n"),
    ("proc/pressure/io", "some avg10=100.00 avg60=0 avg300=0 total=1\nfull avg10=0.00 avg60=0 avg300=0 total=1\n"),
    ("proc/vmstat", "nr_free_pages 10\noom_kill 2\n"),
    ("proc/net/snmp", "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm InSegs OutSegs RetransSegs\nTcp: 1 10 2000 20\n"),
    ("proc/sys/kernel/random/boot_id", "b00t\n"),
    (
        "proc/net/dev",
        "Inter-| Receive | Transmit\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 1000 10 1 2 0 0 0 0 2000 20 3 4 0 0 0 0\n",
    ),
    ("sys/class/net/eth0/operstate", "up\n"),
    ("sys/class/net/eth0/speed", "25000\n"),
    ("sys/class/net/eth0/carrier_changes", "3\n"),
    ("proc/diskstats", " 259 0 nvme0n1 100 0 2000 500 50 0 1000 250 0 1500 0\n   7 0 loop0 1 0 1 1 1 0 1 1 0 1 1\n"),
    (
        "proc/self/mounts",
        "/dev/nvme0n1 / ext4 rw,relatime 0 0\nproc /proc proc rw 0 0\n/dev/sda1 /data\\040set xfs ro 0 0\n",
    ),
    ("proc/cpuinfo", "processor : 0\ncpu MHz : 2500.5\n\nprocessor : 1\ncpu MHz : 1200\n"),
    (
        "proc/42/stat",
        "42 (py (x) y) S 1 42 42 0 -1 4194304 100 0 0 0 30 20 0 0 20 0 1 0 777 1000000 25 18446744073709551615\n",
    ),
    ("proc/42/status", "Name:\tpy\nUid:\t1000\t1000\t1000\t1000\nVmRSS:\t     200 kB\n"),
    ("proc/42/cgroup", "0::/system.slice/slurmstepd.scope/job_77/step_0/user/task_0\n"),
    ("etc/passwd", "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n"),
];

fn tree() -> (Recorded, Roots) {
    let machine = Recorded::of(TREE);
    let roots = machine.roots();
    (machine, roots)
}

/// A later moment of the same machine.
fn later(machine: &Recorded) {
    machine.put(
        "proc/stat",
        "cpu  150 10 120 760 120 10 10 20 0 0\ncpu0 75 5 60 380 60 5 5 10 0 0\ncpu1 75 5 60 380 60 5 5 10 0 0\nctxt 6000\nprocs_running 4\nprocs_blocked 0\n",
    );
    machine.put(
        "proc/42/stat",
        "42 (py (x) y) R 1 42 42 0 -1 4194304 100 0 0 0 60 40 0 0 20 0 1 0 777 1000000 50 18446744073709551615\n",
    );
}

#[test]
fn a_machine_in_exact_numbers() {
    let (machine, roots) = tree();
    let mut collector = HostCollector::new(roots, "n1");
    let first = collector.collect(Timestamp(0));
    check(
        &row(&first, 0),
        &[
            ("host", "n1"),
            ("boot_id", "b00t"),
            ("uptime_seconds", "3600.5"),
            ("load1", "0.5"),
            ("load15", "2.0"),
            ("cpu_utilization_ratio", "NULL"),
            ("memory_total_bytes", "1024000"),
            ("memory_used_bytes", "768000"),
            ("swap_used_bytes", "102400"),
            ("psi_cpu_some_ratio", "0.125"),
            ("psi_memory_full_ratio", "0.005"),
            ("psi_io_some_ratio", "1.0"),
            ("processes_running", "3"),
            ("oom_kills_total", "2"),
            ("context_switches_total", "5000"),
            ("tcp_sent_segments_total", "2000"),
            ("tcp_retransmitted_segments_total", "20"),
            ("clock_offset_seconds", "NULL"),
            ("clock_synchronised", "NULL"),
        ],
    );
    later(&machine);
    let second = row(&collector.collect(Timestamp(1_000_000)), 0);
    check(
        &second,
        &[
            ("cpu_utilization_ratio", "0.6"),
            ("cpu_iowait_ratio", "0.1"),
            ("cpu_steal_ratio", "0.1"),
            ("processes_blocked", "0"),
        ],
    );
}

#[test]
fn cores_interfaces_disks_and_processes() {
    let (machine, roots) = tree();
    let mut cpu = CpuCollector::new(roots.clone(), "n1");
    let mut process = ProcessCollector::new(roots.clone(), "n1", Pods::new(&roots));
    check(&row(&cpu.collect(Timestamp(0)), 1), &[("core", "1"), ("frequency_mhz", "1200.0"), ("user_ratio", "NULL")]);
    check(
        &row(&process.collect(Timestamp(0)), 0),
        &[("pid", "42"), ("name", "py (x) y"), ("user", "ada"), ("state", "sleeping"), ("cpu_ratio", "NULL")],
    );
    later(&machine);
    check(
        &row(&cpu.collect(Timestamp(1)), 0),
        &[("core", "0"), ("frequency_mhz", "2500.5"), ("utilization_ratio", "0.6"), ("system_ratio", "0.2")],
    );
    check(
        &row(&process.collect(Timestamp(1)), 0),
        &[
            ("state", "running"),
            ("memory_bytes", &(50 * crate::process::page_bytes()).to_string()),
            ("cpu_ratio", "0.25"),
            ("job", "77"),
            ("namespace", "NULL"),
            ("pod", "NULL"),
        ],
    );
    let net = NetCollector::new(roots.clone(), "n1").collect(Timestamp(0));
    assert_eq!(net.batch.as_ref().unwrap().num_rows(), 1, "not the loopback");
    check(
        &row(&net, 0),
        &[
            ("interface", "eth0"),
            ("up", "true"),
            ("speed_bits_per_second", "25000000000"),
            ("tx_bytes_total", "2000"),
            ("rx_dropped_total", "2"),
            ("tx_errors_total", "3"),
            ("carrier_changes_total", "3"),
        ],
    );
    let disk = DiskCollector::new(roots, "n1").collect(Timestamp(0));
    assert_eq!(disk.batch.as_ref().unwrap().num_rows(), 2, "neither /proc nor loop0");
    check(
        &row(&disk, 0),
        &[
            ("device", "nvme0n1"),
            ("mount_point", "/"),
            ("filesystem", "ext4"),
            ("read_only", "false"),
            ("read_bytes_total", "1024000"),
            ("io_seconds_total", "1.5"),
            ("size_bytes", "NULL"),
        ],
    );
    check(
        &row(&disk, 1),
        &[("device", "sda1"), ("mount_point", "/data set"), ("read_only", "true"), ("reads_total", "NULL")],
    );
}

/// ext4 of Linux 6.15 and later, taken out of service by an error, still says that it is writable.
#[test]
fn a_file_system_that_nobody_may_write_to_is_read_only_whatever_it_calls_itself() {
    let (machine, roots) = tree();
    for (options, read_only) in [
        ("rw,relatime", "false"),
        ("ro,relatime", "true"),
        ("rw,relatime,emergency_ro,errors=remount-ro", "true"),
        ("rw,relatime,shutdown", "true"),
        ("rw,errors=remount-ro,journal_ro", "false"),
    ] {
        machine.put("proc/self/mounts", &format!("/dev/nvme0n1 / ext4 {options} 0 0\n"));
        let disk = DiskCollector::new(roots.clone(), "n1").collect(Timestamp(0));
        check(&row(&disk, 0), &[("device", "nvme0n1"), ("read_only", read_only)]);
    }
}

#[test]
fn damage_is_null_and_counted_and_never_more() {
    let (machine, roots) = tree();
    machine.put("proc/meminfo", "MemTotal: lots kB\nMemAvailable: 99999999999999999999 kB\n");
    machine.put("proc/stat", "cpu 1 2\n");
    machine.remove("proc/pressure");
    let mut collector = HostCollector::new(roots.clone(), "n1");
    let collected = collector.collect(Timestamp(0));
    check(
        &row(&collected, 0),
        &[
            ("load1", "0.5"),
            ("memory_total_bytes", "NULL"),
            ("psi_cpu_some_ratio", "NULL"),
            ("cpu_utilization_ratio", "NULL"),
        ],
    );
    let reasons: Vec<String> =
        collected.faults.iter().map(|fault| format!("{}: {}", fault.column, fault.reason)).collect();
    assert!(
        reasons.iter().any(|reason| reason == "memory_total_bytes: MemTotal: 'lots' is not a whole number"),
        "{reasons:?}"
    );
    assert!(reasons.iter().any(|reason| reason.starts_with("psi_cpu_some_ratio: ")), "{reasons:?}");
    machine.remove("proc");
    for mut collector in host_collectors(&roots, "n1", &Pods::new(&roots)) {
        let empty = collector.collect(Timestamp(1));
        assert!(!empty.faults.is_empty() || empty.batch.is_none(), "{}", collector.table());
    }
}

/// A collector that panics each second time.
struct Fragile(u32);

impl Collector for Fragile {
    fn table(&self) -> &'static str {
        "cpu"
    }

    fn collect(&mut self, now: Timestamp) -> Collected {
        self.0 += 1;
        assert!(self.0 % 2 == 1, "scripted");
        let mut rows = Rows::of("cpu").unwrap();
        rows.push(now, [("host", "n1".into()), ("core", 0.into())]).unwrap();
        Collected { batch: rows.finish().unwrap(), ..Collected::default() }
    }
}

use crate::rows::Rows;

#[test]
fn the_pump_goes_on_whatever_happens() {
    let (_folder, roots) = tree();
    let log = Arc::new(ScriptedLog::default());
    for table in ["host", "cpu", "collector"] {
        let options = TopicOptions { partitions: 1, compacted: false, retention: None, retention_bytes: None };
        log.create_topic(&format!("tidewatch.{table}"), &options).unwrap();
    }
    let collectors: Vec<Box<dyn Collector>> = vec![Box::new(Fragile(0)), Box::new(HostCollector::new(roots, "n1"))];
    let mut pump = Pump::new(collectors, "n1".to_string(), "i".to_string(), log.clone());
    let mut now = Timestamp::from_seconds(100);
    for round in 0..25 {
        if round == 3 {
            log.fail_appends([std::io::ErrorKind::StorageFull]);
        }
        let next = pump.tick(now);
        assert!(next > now && next <= now + Span::seconds(1));
        now = next;
    }
    let rows = |table: &str| log.read(&format!("tidewatch.{table}"), 0, 0, usize::MAX).unwrap().records;
    assert_eq!(rows("host").len(), 24, "one row was refused, none was made twice");
    assert_eq!(rows("cpu").len(), 2, "every ten seconds, one of three panicked");
    let (header, last) = decode(&rows("collector").last().unwrap().1).unwrap();
    assert_eq!((header.source.as_str(), last.num_rows()), ("n1", 2));
    assert_eq!(last.column_by_name("dropped_rows_total").unwrap().as_primitive::<Int64Type>().values(), &[0, 1]);
    assert_eq!(last.column_by_name("ok").unwrap().as_boolean().iter().flatten().collect::<Vec<_>>(), [true, true]);
    assert!(last.column_by_name("duration_seconds").unwrap().as_primitive::<Float64Type>().null_count() == 0);
    let sequences: Vec<u64> = rows("host").iter().map(|(_, record)| decode(record).unwrap().0.seq).collect();
    assert!(sequences.windows(2).all(|pair| pair[1] > pair[0]));
}
