//! The words that every part of Tidewatch shares: time, tables, the wire, rules, evaluations, alerts, transitions,
//! notices, the ports to the outside and the limits.
//!
//! This crate decides nothing and opens nothing. It knows no SQL engine, no socket and no file; the only clock is
//! [`time::SystemClock`], and nothing below the assembly uses it.

pub mod alert;
pub mod evaluation;
pub mod json;
pub mod limits;
pub mod notice;
pub mod ports;
pub mod rule;
pub mod scripted;
pub mod table;
pub mod time;
pub mod value;
pub mod window;
pub mod wire;

pub use alert::{Alert, AlertState, Reason, Transition};
pub use evaluation::{Evaluation, Finding, GroupState, Outcome};
pub use notice::{Notice, NoticeStatus};
pub use rule::{NoDataPolicy, Rule, RuleOptions, RuleShape, Severity};
pub use time::{Span, Timestamp};
pub use value::{Key, Value, Values};
pub use window::WindowSpec;
