//! Collectors: what a machine says of itself, as rows. Each reads through root paths, so a recorded tree is a test, and
//! none of them stops because one value can't be read: that column is NULL, and the reason is counted.

mod aside;
mod cgroup;
mod clock;
mod collector;
mod cpu;
mod desk;
mod disk;
mod edac;
mod fault;
mod gpu;
mod health;
mod host;
mod ib;
mod kernel;
mod logs;
mod net;
mod owner;
mod pcie;
mod pods;
mod process;
mod pump;
mod reading;
#[cfg(test)]
mod recorded;
pub mod rows;
mod scrape;
pub mod simulate;
mod sources;
mod space;
mod times;
mod typed;

pub use collector::{Collected, Collector};
pub use fault::{Fault, FaultKind};
pub use gpu::{GpuCall, GpuControl, TimedPass, time_gpus};
pub use logs::{LogCollector, LogFault, LogOptions, LogSource};
pub use pump::{Pump, append_frames};
pub use reading::Roots;
pub use scrape::{ScrapeOptions, Target, TokenFile};
pub use sources::Sources;
pub use typed::{Typed, TypedSample, TypedTables};
