//! The log port: the durable local log (also the agents' spool), a scripted one for tests, and the contract that both
//! pass. Kafka joins them behind the same port.

#[doc(hidden)]
pub mod contract;
mod files;
mod local;
mod scripted;
mod spool;

pub use files::{Files, RealFiles};
pub use local::{FsyncPolicy, LocalLog, LocalLogOptions};
pub use scripted::ScriptedLog;
pub use spool::{Spool, SpoolOptions};
