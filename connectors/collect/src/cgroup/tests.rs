//! Groups of a recorded tree.

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

fn collector(machine: &Recorded) -> CgroupCollector {
    let roots = machine.roots();
    CgroupCollector::new(roots.clone(), "n1", Pods::new(&roots))
}

/// A machine with a job of SLURM, a pod with a container and its sandbox, and a service.
fn machine() -> Recorded {
    let machine = Recorded::of(&[
        ("sys/fs/cgroup/cgroup.controllers", "cpu io memory pids\n"),
        ("sys/dev/block/253:0/slaves/nvme0n1/x", ""),
        ("pods/ml_llama-0_6e5a1b2c-0d3f-4a5b-8c9d-0e1f2a3b4c5d/trainer/0.log", ""),
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
            ("memory.pressure", "some avg10=2.00 avg60=0 avg300=0 total=1\nfull avg10=1.00 avg60=0 avg300=0 total=1\n"),
            ("io.pressure", "some avg10=0.00 avg60=0 avg300=0 total=1\nfull avg10=0.00 avg60=0 avg300=0 total=1\n"),
            (
                "io.stat",
                "253:0 rbytes=100 wbytes=7 rios=1 wios=1 dbytes=0 dios=0\n259:0 rbytes=100 wbytes=7 rios=1 wios=1\n8:0\n",
            ),
            ("step_0/cpu.stat", "usage_usec 1\n"),
        ],
    );
    group(&machine, &format!("{POD}/cri-containerd-{ID}.scope"), &[("memory.max", "max\n"), ("memory.current", "5\n")]);
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
    let collected = collector(&machine).collect(Timestamp(0));
    assert!(collected.faults.is_empty(), "{:?}", collected.faults);
    let paths: Vec<String> = (0..rows(&collected)).map(|number| row(&collected, number)["cgroup"].clone()).collect();
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
            ("namespace", "ml"),
            ("pod", "llama-0"),
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
    let mut collector = collector(&machine);
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
    assert!(collector.row(&gone, None).is_none());
    assert!(collector.faults.take().is_empty());
}

#[test]
fn of_too_many_groups_jobs_and_pods_are_read_and_it_is_said_once() {
    let machine = machine();
    for number in 0..MOST {
        group(&machine, &format!("system.slice/a{number}.service"), &[]);
    }
    let mut collector = collector(&machine);
    for (second, told) in [(0, 1), (30, 0)] {
        let collected = collector.collect(Timestamp::from_seconds(second));
        assert_eq!((rows(&collected), collected.faults.len()), (MOST, told), "{:?}", collected.faults);
        let jobs = (0..MOST).filter(|number| row(&collected, *number).contains_key("job")).count();
        assert_eq!(jobs, 1);
    }
}

/// Alerts are told apart by the pod: it has one name in all rows of a group.
#[test]
fn a_pod_has_no_rows_before_it_has_a_name() {
    let machine = machine();
    let folder = "pods/ml_llama-0_6e5a1b2c-0d3f-4a5b-8c9d-0e1f2a3b4c5d";
    let names = |collector: &mut CgroupCollector, second: i64| {
        let collected = collector.collect(Timestamp::from_seconds(second));
        let rows = (0..rows(&collected)).map(|number| row(&collected, number));
        let name = |row: HashMap<String, String>| {
            let namespace = row.get("namespace").map(|namespace| format!("{namespace}/")).unwrap_or_default();
            Some(namespace + row.get("pod")?)
        };
        rows.filter_map(name).collect::<Vec<_>>()
    };
    machine.remove(folder);
    machine.put("pods/other", "");
    let mut first = collector(&machine);
    assert_eq!((names(&mut first, 0), names(&mut first, 10)), (vec![], vec![]));
    machine.put(&format!("{folder}/trainer/0.log"), "");
    assert_eq!(names(&mut first, 20), ["ml/llama-0"; 2]);
    machine.remove(folder);
    assert_eq!(names(&mut first, 30), ["ml/llama-0"; 2]);
    let uid = "6e5a1b2c-0d3f-4a5b-8c9d-0e1f2a3b4c5d";
    let mut second = collector(&machine);
    assert!([0, 10, 20].into_iter().all(|at| names(&mut second, at).is_empty()));
    assert_eq!(names(&mut second, 30), [uid; 2]);
    machine.put(&format!("{folder}/trainer/0.log"), "");
    assert_eq!(names(&mut second, 40), [uid; 2]);
}

#[test]
fn services_and_slices_are_read_less_often() {
    let machine = machine();
    let mut collector = collector(&machine);
    let found = [0, 10, 20, 30, 40, 61].map(|second| rows(&collector.collect(Timestamp::from_seconds(second))));
    assert_eq!(found, [8, 3, 3, 8, 3, 8], "the job, the pod and its container each time");
}

#[test]
fn a_machine_with_cgroup_v1_says_so_once() {
    let machine = Recorded::of(&[("sys/fs/cgroup/memory/slurm/uid_0/job_1/memory.usage_in_bytes", "1\n")]);
    let mut collector = collector(&machine);
    for told in [1, 0] {
        let collected = collector.collect(Timestamp(0));
        assert_eq!((rows(&collected), collected.faults.len()), (0, told));
        assert!(collected.faults.iter().all(|fault| fault.kind == crate::FaultKind::Absent));
    }
}
