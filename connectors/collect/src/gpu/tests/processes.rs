//! Whose processes on GPUs are.

use super::super::gpu_collectors;
use super::*;
use crate::pods::Pods;
use crate::recorded::{check, row, rows};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn a_process_has_the_job_or_the_pod_of_its_control_group_and_a_gpu_the_job_with_the_most_memory() {
    let mut scenario = scenario(1, vec![]);
    scenario.gpus[0].processes = [(41, 5_000), (42, 7_000), (43, 9_000), (44, 1)].into();
    let folder = tempfile::tempdir().unwrap();
    let put = |file: &str, text: &str| {
        let file = folder.path().join("proc").join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    put("41/cgroup", "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0\n");
    put("41/comm", "python\n");
    put("42/cgroup", "9:memory:/slurm/uid_1000/job_8/step_0\n");
    let pod = "pod6e5a1b2c_0d3f_4a5b_8c9d_0e1f2a3b4c5d.slice";
    put("43/cgroup", &format!("0::/kubepods.slice/kubepods-{pod}/cri-containerd-{ID}.scope\n"));
    fs::create_dir_all(folder.path().join("pods/ml_llama-0_6e5a1b2c-0d3f-4a5b-8c9d-0e1f2a3b4c5d")).unwrap();
    let roots = Roots::recorded(folder.path());
    let control = Control::start(folder.path(), &scenario).unwrap();
    let (mut collectors, _requests) = gpu_collectors(&roots, "n1", &Pods::new(&roots), Some(control.path().into()));
    let begun = Instant::now();
    let mut second = 0;
    let found = loop {
        control.clock(second as u64 * 1_000).unwrap();
        let gpus = collectors[0].collect(at(second));
        let processes = collectors[2].collect(at(second));
        if rows(&gpus) == 1 && rows(&processes) == 4 {
            check(&row(&gpus, 0), &[("job", "8")]);
            break processes;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain");
        second += 1;
    };
    let whose = |number: usize, cells: &[(&str, &str)]| check(&row(&found, number), cells);
    whose(0, &[("pid", "41"), ("process_name", "python"), ("job", "7"), ("pod", "NULL"), ("container", "NULL")]);
    whose(1, &[("pid", "42"), ("job", "8"), ("memory_used_bytes", "7000")]);
    whose(2, &[("job", "NULL"), ("namespace", "ml"), ("pod", "llama-0"), ("container", ID)]);
    whose(3, &[("pid", "44"), ("process_name", "NULL"), ("job", "NULL"), ("pod", "NULL"), ("container", "NULL")]);
}
