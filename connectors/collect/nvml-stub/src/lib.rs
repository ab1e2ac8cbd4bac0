//! A library with NVML's symbols and no GPU: it answers what a [`Scenario`] says, fails and hangs as it says, and is loaded
//! in NVML's place by its path. What the collectors do with sick hardware is tested with it.
//!
//! A process of its own finds its scenario by [`SCENARIO_VARIABLE`]; a test in the same process steers a copy of the library
//! through [`Control`].

// C functions and their pointers.
#![allow(unsafe_code)]

mod control;
mod machine;
mod nvml;
mod scenario;

pub use control::Control;
pub use machine::SCENARIO_VARIABLE;
pub use scenario::{CALLS, ERRORS, Gpu, Scenario, Step, code_of, value_of};
