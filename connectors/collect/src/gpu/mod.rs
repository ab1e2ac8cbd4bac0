//! The tables `gpu`, `gpu_process` and `gpu_event`: NVIDIA's GPUs through NVML, sick ones too.
//!
//! Every GPU has a thread of its own, and a supervisor asks all of them and waits for none that hangs: whatever one GPU
//! does, the rows of the others come on time. A value that can't be had is NULL. A machine without GPUs is a normal one; the
//! library is looked for again every 30 s. docs/gpu.md tells which call does what.

mod bus;
mod class;
mod collectors;
mod fleet;
mod gpm;
mod library;
mod links;
mod pass;
mod raw;
#[cfg(test)]
mod tests;
mod timing;

pub use bus::gpus_on_bus;
pub use collectors::GpuControl;
pub(crate) use collectors::gpu_collectors;
pub use fleet::KernelXid;
pub use pass::GpuCall;
pub use timing::{TimedPass, time_gpus};
