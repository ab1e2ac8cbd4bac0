//! What one machine is watched through: every collector, wired in the order in which they depend on each other.

use std::path::PathBuf;

use crate::collector::Collector;
use crate::gpu::{GpuControl, gpu_collectors, gpus_on_bus};
use crate::kernel::{KMSG, KernelCollector};
use crate::logs::{LogCollector, LogOptions};
use crate::pods::Pods;
use crate::pump::host_collectors;
use crate::reading::{Roots, host_name};
use crate::scrape::{ScrapeCollector, ScrapeOptions};

/// Where everything is read.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Roots of /proc and /sys, and the kubelet's folder of logs.
    pub roots: Roots,
    /// Name of the machine in its rows; by default the kernel's.
    pub host: Option<String>,
    /// The kernel's messages; by default /dev/kmsg, and none with another /proc.
    pub kmsg: Option<PathBuf>,
    /// NVIDIA's library; by default looked for where the system has its libraries.
    pub nvml_library: Option<PathBuf>,
    /// Exporters.
    pub scrape: ScrapeOptions,
    /// Log files and journals.
    pub logs: LogOptions,
    /// The folder that remembers over restarts what was read; without it every start is the first.
    pub state: Option<PathBuf>,
}

impl Sources {
    /// The machine's name.
    pub fn host(&self) -> String {
        self.host.clone().or_else(|| host_name(&self.roots)).unwrap_or_else(|| "localhost".to_string())
    }

    /// The collectors, and what lets NVML go.
    pub fn collectors(&self) -> (Vec<Box<dyn Collector>>, GpuControl) {
        let (roots, host) = (&self.roots, self.host());
        let pods = Pods::new(roots);
        let mut collectors = host_collectors(roots, &host, &pods);
        let (gpus, control) = gpu_collectors(roots, &host, &pods, self.nvml_library.clone());
        // Before those of the GPUs, which tell of XIDs that the kernel says.
        if let Some(source) = self.kmsg.clone().or_else(|| roots.is_live().then(|| PathBuf::from(KMSG))) {
            let state = self.state.as_ref().map(|folder| folder.join("kmsg.state"));
            collectors.push(Box::new(KernelCollector::new(
                roots.clone(),
                &host,
                &source,
                state,
                Some(control.clone()),
            )));
        }
        collectors.extend(gpus);
        if !self.scrape.targets.is_empty() || !self.scrape.files.is_empty() {
            let has_gpus = gpus_on_bus(roots).is_some_and(|gpus| !gpus.is_empty());
            let tables = self.scrape.typed.tables(has_gpus);
            collectors.push(Box::new(ScrapeCollector::new(self.scrape.clone(), &host, tables)));
        }
        if !self.logs.sources.is_empty() {
            collectors.push(Box::new(LogCollector::new(self.logs.clone(), &host, self.state.clone())));
        }
        (collectors, control)
    }
}
