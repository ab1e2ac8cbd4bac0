//! Whose a control group is: the batch job, the pod, the container or the unit that its path names.
//!
//! The path is the kernel's word and can be read by everybody, as an environment can't; it has no names of pods, only
//! their UIDs ([`crate::pods`] knows names).

use crate::reading::Roots;

/// Whose a control group is; all `None` for the machine's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    /// SLURM's job.
    pub job: Option<String>,
    /// The pod's UID, with hyphens.
    pub pod: Option<String>,
    /// The container's id: 64 hexadecimal digits.
    pub container: Option<String>,
    /// systemd's service or scope, where it is neither a container's nor SLURM's own.
    pub unit: Option<String>,
}

/// Digits of a container's id.
const ID_DIGITS: usize = 64;

impl Owner {
    /// What a path says, whichever of SLURM's and the container runtimes' layouts it has, in cgroup v1 or v2.
    pub fn of_path(path: &str) -> Owner {
        let mut owner = Owner::default();
        let (mut of_slurm, mut of_kubernetes) = (false, false);
        // Without systemd's driver, containerd writes `SLICE:cri-containerd:ID`.
        for part in path.split(['/', ':']).filter(|part| !part.is_empty()) {
            of_slurm |= is_slurms(part);
            of_kubernetes |= part.contains("kubepods");
            if of_slurm && let Some(job) = part.strip_prefix("job_").filter(|job| is_number(job)) {
                owner.job = Some(job.to_string());
            }
            if of_kubernetes && let Some(pod) = pod_of(part) {
                owner.pod = Some(pod);
            }
            if let Some(id) = container_of(part) {
                owner.container = Some(id.to_string());
            }
            if (part.ends_with(".service") || part.ends_with(".scope")) && !is_slurms(part) {
                owner.unit = Some(part.to_string());
            }
        }
        if owner.pod.is_some() || owner.container.is_some() || owner.job.is_some() {
            owner.unit = None;
        }
        owner
    }

    /// Whose a process is, by its control groups; its batch job also by its environment, when that may be read.
    pub fn of_process(roots: &Roots, pid: i64) -> Owner {
        let groups = roots.proc_file(&format!("{pid}/cgroup")).unwrap_or_default();
        let mut owner = Owner::default();
        // `0::/path` in v2; in v1 `11:memory:/path` for each hierarchy, of which some may have no job.
        for path in groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
            let here = Owner::of_path(path);
            owner.job = owner.job.or(here.job);
            owner.pod = owner.pod.or(here.pod);
            owner.container = owner.container.or(here.container);
            owner.unit = owner.unit.or(here.unit);
        }
        // Where SLURM keeps no control groups, jobs are told by what it puts into the environment.
        if owner.job.is_none()
            && let Ok(environment) = roots.proc_file(&format!("{pid}/environ"))
        {
            let named = environment.split('\0').find_map(|variable| variable.strip_prefix("SLURM_JOB_ID="));
            owner.job = named.filter(|job| is_number(job)).map(str::to_string);
        }
        owner
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// SLURM's own groups: `slurm` or `slurm_NODE` in v1, `slurmstepd.scope` or `NODE_slurmstepd.scope` in v2.
fn is_slurms(part: &str) -> bool {
    part == "slurm" || part.starts_with("slurm_") || part == "slurmstepd.scope" || part.ends_with("_slurmstepd.scope")
}

/// The UID of `pod1234-...`, or of `kubepods-burstable-pod1234_....slice`, as systemd takes no hyphens. Pods that the
/// kubelet has from a file have a UID without either.
fn pod_of(part: &str) -> Option<String> {
    let name = part.strip_suffix(".slice").unwrap_or(part);
    let uid = name.strip_prefix("pod").or_else(|| name.rsplit_once("-pod").map(|(_, uid)| uid))?;
    let digits = uid.bytes().filter(u8::is_ascii_hexdigit).count();
    let only = uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-' || byte == b'_');
    (only && digits == 32).then(|| uid.replace('_', "-"))
}

/// The id of `ID`, `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope` or `libpod-ID.scope`. Its monitor
/// (`crio-conmon-ID.scope`) is not the container.
fn container_of(part: &str) -> Option<&str> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    let (runtime, id) = name.rsplit_once('-').unwrap_or(("", name));
    let is_id = id.len() == ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_id && !runtime.contains("conmon")).then_some(id)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn paths_of_every_layout() {
        let uid = "6e5a1b2c-0d3f-4a5b-8c9d-0e1f2a3b4c5d";
        let with_underscores = uid.replace('-', "_");
        let plain = uid.replace('-', "");
        let pod = format!("kubepods-burstable-pod{with_underscores}.slice");
        let cases: Vec<(String, [&str; 4])> = vec![
            ("/".into(), ["", "", "", ""]),
            ("/system.slice".into(), ["", "", "", ""]),
            ("/system.slice/nvidia-persistenced.service".into(), ["", "", "", "nvidia-persistenced.service"]),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/a.service".into(), ["", "", "", "a.service"]),
            ("/user.slice/user-1000.slice/session-3.scope".into(), ["", "", "", "session-3.scope"]),
            // SLURM, v2, one node and several on a machine; v1.
            ("/system.slice/slurmstepd.scope".into(), ["", "", "", ""]),
            ("/system.slice/slurmstepd.scope/system".into(), ["", "", "", ""]),
            ("/system.slice/slurmstepd.scope/job_123/step_0/user/task_0".into(), ["123", "", "", ""]),
            ("/system.slice/slurmstepd.scope/job_123/step_batch/slurm".into(), ["123", "", "", ""]),
            ("/system.slice/n7_slurmstepd.scope/job_9".into(), ["9", "", "", ""]),
            ("/slurm/uid_1000/job_77/step_extern/task_0".into(), ["77", "", "", ""]),
            ("/slurm_n7/uid_1000/job_77".into(), ["77", "", "", ""]),
            // A folder of somebody else's that is named like a job.
            ("/user.slice/job_5".into(), ["", "", "", ""]),
            ("/slurm/uid_1000/job_x".into(), ["", "", "", ""]),
            // Kubernetes: systemd's driver with containerd, CRI-O and its monitor; cgroupfs; guaranteed; in a container.
            (format!("/kubepods.slice/kubepods-burstable.slice/{pod}/cri-containerd-{ID}.scope"), ["", uid, ID, ""]),
            (format!("/kubepods.slice/kubepods-burstable.slice/{pod}/crio-{ID}.scope/container"), ["", uid, ID, ""]),
            (format!("/kubepods.slice/kubepods-burstable.slice/{pod}/crio-conmon-{ID}.scope"), ["", uid, "", ""]),
            (format!("/kubepods.slice/kubepods-burstable.slice/{pod}"), ["", uid, "", ""]),
            (format!("/kubepods/besteffort/pod{uid}/{ID}"), ["", uid, ID, ""]),
            (format!("/kubepods/pod{uid}"), ["", uid, "", ""]),
            (format!("/kubepods.slice/kubepods-pod{plain}.slice"), ["", plain.as_str(), "", ""]),
            (format!("/system.slice/containerd.service/{pod}:cri-containerd:{ID}"), ["", uid, ID, ""]),
            (
                format!("/kubelet.slice/kubelet-kubepods.slice/kubelet-{pod}/cri-containerd-{ID}.scope"),
                ["", uid, ID, ""],
            ),
            (format!("/../../{pod}/cri-containerd-{ID}.scope"), ["", uid, ID, ""]),
            ("/kubepods.slice/kubepods-burstable.slice".into(), ["", "", "", ""]),
            // Containers without Kubernetes.
            (format!("/docker/{ID}"), ["", "", ID, ""]),
            (format!("/system.slice/docker-{ID}.scope"), ["", "", ID, ""]),
            (format!("/machine.slice/libpod-{ID}.scope/container"), ["", "", ID, ""]),
            (format!("/machine.slice/libpod-conmon-{ID}.scope"), ["", "", "", &format!("libpod-conmon-{ID}.scope")]),
            // Damage.
            ("".into(), ["", "", "", ""]),
            ("///::/".into(), ["", "", "", ""]),
            (format!("/kubepods/pod{}", "g".repeat(36)), ["", "", "", ""]),
            (format!("/docker/{}", &ID[1..]), ["", "", "", ""]),
        ]
        .into_iter()
        .map(|(path, expected)| (path, expected.map(|text| Box::leak(text.to_string().into_boxed_str()) as &str)))
        .collect();
        for (path, expected) in cases {
            let found = Owner::of_path(&path);
            let found = [found.job, found.pod, found.container, found.unit].map(Option::unwrap_or_default);
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn a_process_in_v1_in_v2_and_without_groups() {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots { proc: folder.path().to_path_buf(), sys: folder.path().to_path_buf(), ..Roots::default() };
        let put = |pid: i64, file: &str, text: &str| {
            std::fs::create_dir_all(folder.path().join(pid.to_string())).unwrap();
            std::fs::write(folder.path().join(pid.to_string()).join(file), text).unwrap();
        };
        put(1, "cgroup", "0::/system.slice/slurmstepd.scope/job_12/step_0\n");
        put(1, "environ", "A=1\0SLURM_JOB_ID=99\0");
        put(
            2,
            "cgroup",
            "11:cpuset:/\n4:memory:/slurm/uid_0/job_34/step_0\n1:name=systemd:/system.slice/slurmd.service\n",
        );
        put(3, "cgroup", "0::/\n");
        put(3, "environ", "SLURM_JOB_ID=56\0PATH=/bin\0");
        put(4, "environ", "SLURM_JOB_ID=no number\0");
        put(5, "cgroup", &format!("0::/system.slice/docker-{ID}.scope\n"));
        let job = |pid: i64| Owner::of_process(&roots, pid).job;
        assert_eq!([1, 2, 3, 4, 5, 6].map(job).map(Option::unwrap_or_default), ["12", "34", "56", "", "", ""]);
        assert_eq!(Owner::of_process(&roots, 5).container.as_deref(), Some(ID));
        assert_eq!(Owner::of_process(&roots, 6), Owner::default());
    }
}
