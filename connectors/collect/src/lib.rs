//! Collectors: what a machine says of itself, as rows. Each reads through root paths, so a recorded tree is a test, and
//! none of them stops because one value can't be read: that column is NULL, and the reason is counted.

mod collector;
mod cpu;
mod desk;
mod disk;
mod fault;
mod gpu;
mod health;
mod host;
mod ib;
mod kernel;
mod net;
mod process;
mod pump;
mod reading;
pub mod rows;
mod scrape;
pub mod simulate;
mod times;

pub use collector::{Collected, Collector};
pub use fault::{Fault, FaultKind};
pub use gpu::{GpuCall, GpuControl, TimedPass, gpu_collectors, time_gpus};
pub use kernel::{KMSG, KernelCollector};
pub use pump::{Pump, append_frames, host_collectors};
pub use reading::{Roots, host_name};
pub use scrape::{ScrapeCollector, ScrapeOptions, Target};
