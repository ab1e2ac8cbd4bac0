//! The three collectors over one supervisor.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidewatch_model::{Span, Timestamp};

use super::fleet::{Fleet, KernelXid, Requests};
use super::library::Identity;
use super::pass::Process;
use crate::collector::{Collected, Collector};
use crate::fault::{Fault, FaultKind};
use crate::owner::Owner;
use crate::pods::{PodName, Pods};
use crate::reading::Roots;
use crate::rows::{Cell, Rows, RowsError};

/// What people can ask of the GPU collectors while they run.
#[derive(Debug, Clone)]
pub struct GpuControl(Arc<Requests>);

impl GpuControl {
    /// Lets NVML go, so that the driver can be unloaded or upgraded. It is opened again by [`GpuControl::reopen`], or
    /// after ten minutes.
    pub fn release(&self) {
        self.0.release();
    }

    /// Opens NVML again.
    pub fn reopen(&self) {
        self.0.reopen();
    }

    /// Hands over an XID that the kernel told of: an event, unless NVML tells of the same.
    pub(crate) fn said_by_kernel(&self, xid: KernelXid) {
        self.0.said_by_kernel(xid);
    }
}

/// The collectors of a machine's GPUs. `library` is NVML's path; by default `libnvidia-ml.so.1` is looked for where the
/// system has its libraries.
pub(crate) fn gpu_collectors(
    roots: &Roots,
    host: &str,
    pods: &Pods,
    library: Option<PathBuf>,
) -> (Vec<Box<dyn Collector>>, GpuControl) {
    let requests = Arc::new(Requests::default());
    let fleet = Fleet::new(roots.clone(), library.map(PathBuf::into_os_string), requests.clone());
    let fleet = Arc::new(Mutex::new(fleet));
    let shared = Shared { fleet, roots: roots.clone(), pods: pods.clone(), host: host.to_string() };
    // In this order: what the first finds out is for the others to tell at the same tick.
    let collectors: Vec<Box<dyn Collector>> = vec![
        Box::new(GpuCollector { shared: shared.clone(), stuck: None, jobs: HashMap::new(), seen: vec![] }),
        Box::new(GpuEventCollector(shared.clone())),
        Box::new(GpuProcessCollector(shared)),
    ];
    (collectors, GpuControl(requests))
}

#[derive(Clone)]
struct Shared {
    fleet: Arc<Mutex<Fleet>>,
    roots: Roots,
    pods: Pods,
    host: String,
}

impl Shared {
    fn fleet(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn whose(&self, gpu: &str) -> [(&'static str, Cell); 2] {
        // A GPU that was lost before we came can't say its UUID.
        let uuid = (!gpu.is_empty()).then(|| gpu.to_string());
        [("host", self.host.as_str().into()), ("gpu_uuid", uuid.into())]
    }
}

/// One row per GPU and MIG instance, every second.
struct GpuCollector {
    shared: Shared,
    stuck: Option<Span>,
    /// The job of each GPU, by these processes: they are read less often than the GPUs.
    jobs: HashMap<String, String>,
    seen: Vec<(Identity, Process)>,
}

impl GpuCollector {
    fn rows(&mut self, fleet: &mut Fleet) -> Result<Rows, RowsError> {
        if self.seen != fleet.processes() {
            self.seen = fleet.processes().to_vec();
            self.jobs = jobs(&self.shared.roots, &self.seen);
        }
        let mut rows = Rows::of("gpu")?;
        for row in fleet.take_rows() {
            let own = [
                ("mig_uuid", row.mig.into()),
                ("gpu_index", i64::from(row.gpu.index).into()),
                ("gpu_name", row.gpu.name.into()),
                ("pci_bus_id", row.gpu.pci.into()),
                ("job", self.jobs.get(&row.gpu.uuid).cloned().into()),
            ];
            let cells = self.shared.whose(&row.gpu.uuid).into_iter().chain(own).chain(row.cells);
            rows.push(row.ts, cells)?;
        }
        Ok(rows)
    }
}

impl Collector for GpuCollector {
    fn table(&self) -> &'static str {
        "gpu"
    }

    fn collect(&mut self, now: Timestamp) -> Collected {
        let shared = self.shared.clone();
        let mut fleet = shared.fleet();
        fleet.tick(now);
        self.stuck = fleet.stuck(now);
        let batch = self.rows(&mut fleet).and_then(Rows::finish);
        collected(batch, fleet.take_faults())
    }

    fn stuck(&self) -> Option<Span> {
        self.stuck
    }
}

/// One row for everything that happened to a GPU.
struct GpuEventCollector(Shared);

impl Collector for GpuEventCollector {
    fn table(&self) -> &'static str {
        "gpu_event"
    }

    fn interval(&self) -> Span {
        Span::seconds(1)
    }

    fn collect(&mut self, _now: Timestamp) -> Collected {
        let events = self.0.fleet().take_events();
        let rows = || {
            let mut rows = Rows::of("gpu_event")?;
            for event in events {
                let own = [
                    ("kind", event.kind.into()),
                    ("code", event.code.into()),
                    ("pci_bus_id", event.pci.into()),
                    ("source", event.source.into()),
                    ("message", event.message.into()),
                ];
                rows.push(event.ts, self.0.whose(&event.uuid).into_iter().chain(own))?;
            }
            rows.finish()
        };
        collected(rows(), vec![])
    }
}

/// One row per process and GPU, every ten seconds.
struct GpuProcessCollector(Shared);

impl Collector for GpuProcessCollector {
    fn table(&self) -> &'static str {
        "gpu_process"
    }

    fn collect(&mut self, now: Timestamp) -> Collected {
        let processes = self.0.fleet().processes().to_vec();
        let rows = || {
            let mut rows = Rows::of("gpu_process")?;
            for (gpu, process) in processes {
                let name = self.0.roots.proc_file(&format!("{}/comm", process.pid)).ok();
                let owner = Owner::of_process(&self.0.roots, i64::from(process.pid));
                let own = [
                    ("pid", i64::from(process.pid).into()),
                    ("process_name", name.map(|name| name.trim().to_string()).into()),
                    ("memory_used_bytes", process.memory_bytes.map(|bytes| bytes as i64).into()),
                    ("sm_ratio", process.sm_ratio.into()),
                    ("container", owner.container.into()),
                    ("job", owner.job.into()),
                ];
                let pod = owner.pod.and_then(|uid| self.0.pods.name(&uid, true, now));
                rows.push(now, self.0.whose(&gpu.uuid).into_iter().chain(own).chain(PodName::cells(pod)))?;
            }
            rows.finish()
        };
        collected(rows(), vec![])
    }
}

fn collected(batch: Result<Option<arrow::array::RecordBatch>, RowsError>, mut faults: Vec<Fault>) -> Collected {
    let batch = batch.unwrap_or_else(|error| {
        faults.push(Fault { column: "", reason: error.to_string(), kind: FaultKind::Failed });
        None
    });
    Collected { batch, faults, ..Collected::default() }
}

/// The job of each GPU: that of its process with the most memory whose job can be known.
fn jobs(roots: &Roots, processes: &[(Identity, Process)]) -> HashMap<String, String> {
    let mut largest: HashMap<String, (u64, String)> = HashMap::new();
    for (gpu, process) in processes {
        let Some(job) = Owner::of_process(roots, i64::from(process.pid)).job else { continue };
        let bytes = process.memory_bytes.unwrap_or(0);
        if largest.get(&gpu.uuid).is_none_or(|(most, _)| bytes > *most) {
            largest.insert(gpu.uuid.clone(), (bytes, job));
        }
    }
    largest.into_iter().map(|(uuid, (_, job))| (uuid, job)).collect()
}
